"""A fixture for pytest-django: `pytest_plugins = ["quickcache_django.pytest_plugin"]` in conftest.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest

from quickcache_core.testing.isolation import Isolation


@pytest.fixture
def isolated_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches that are empty, and nobody else's, for this test: not those of other tests, nor of other
    processes of pytest-xdist. All aliases that use QuickCache; their settings stay, but for the place.

    Ask for it after what changes `settings.CACHES`. For all tests: a fixture with `autouse=True` that asks
    for it.
    """
    # Not above: there may be no settings yet when pytest reads its plugins.
    from django.conf import settings
    from django.core.cache import caches
    from django.test import override_settings

    from quickcache_django.backend import QuickCache
    from quickcache_django.checks import entries
    from quickcache_django.conf import forget

    isolation = Isolation(tmp_path_factory.mktemp("quickcache"))
    places = {alias: _moved(isolation, location, params) for alias, location, params in entries()}
    moved = {alias: {**entry, **places.get(alias, {})} for alias, entry in settings.CACHES.items()}
    with override_settings(CACHES=moved):
        yield
        engines = [cast(QuickCache, caches[alias]).engine for alias in places]
        for engine in engines:
            isolation.cleaner(engine)()
            forget(engine)


def _moved(isolation: Isolation, location: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    """What an entry of `CACHES` has to say instead."""
    from quickcache_django.conf import store_location

    options = params.get("OPTIONS", {})
    place = isolation.place(store_location(location), options.get("REDIS_PREFIX", ""))
    entry = {"LOCATION": place.pop("location")} if "location" in place else {}
    return {**entry, "OPTIONS": {**options, **{name.upper(): value for name, value in place.items()}}}
