from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.cache import CacheHandler
from django.core.management import call_command

from quickcache_core.testing import ManualClock
from quickcache_django import QuickCache

BACKEND = "quickcache_django.QuickCache"

settings.configure(
    ALLOWED_HOSTS=["testserver"],
    CACHES={"default": {"BACKEND": BACKEND}},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.sessions", "catalog", "quickcache_django"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    ROOT_URLCONF="site_under_test",
    SECRET_KEY="a key of these tests, long enough to sign with",
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    USE_TZ=True,
)
sys.path.insert(0, str(Path(__file__).parent))
django.setup()

MakeCache = Callable[..., QuickCache]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def location(request: pytest.FixtureRequest) -> str:
    """A LOCATION that no other test has."""
    # Not what might be a URL with a password in it.
    return str(request.node.nodeid).replace(":", "%3A")


@pytest.fixture
def make_cache(location: str, clock: ManualClock) -> MakeCache:
    """Makes a backend object as Django does, with the manual clock; arguments are an entry of CACHES."""

    def make(*, options: dict[str, Any] | None = None, **entry: Any) -> QuickCache:
        entry = {
            "BACKEND": BACKEND,
            "LOCATION": location,
            "OPTIONS": {"CLOCK": clock, **(options or {})},
            **entry,
        }
        cache: QuickCache = CacheHandler({"default": entry})["default"]
        return cache

    return make


@pytest.fixture
def cache(make_cache: MakeCache) -> QuickCache:
    return make_cache()


@pytest.fixture
def default_cache() -> Iterator[QuickCache]:
    """The alias `default`, as views, sessions and templates see it; empty before and after."""
    from django.core.cache import caches

    cache = caches["default"]
    cache.clear()
    yield cache
    cache.clear()


@pytest.fixture(scope="session")
def database() -> None:
    call_command("migrate", verbosity=0)
