"""The fixtures for pytest-django and pytest-flask, in projects whose tests run in several processes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.neighbours.conftest import Run

pytestmark = pytest.mark.slow

# Each test finds an empty cache, whatever others have left, and sees what it stores itself.
CASES = """
import time
import pytest


@pytest.mark.parametrize("number", range(12))
def test_alone(number, cache):
    assert cache.get("k") is None
    assert cache.add("k", number)
    time.sleep(0.05)
    assert cache.get("k") == number
"""


def outcome(text: str) -> dict[str, int]:
    return {what: int(count) for count, what in re.findall(r"(\d+) (passed|failed|error)", text)}


@pytest.mark.parametrize(("scope", "processes"), [("memory", 0), ("memory", 2), ("shared", 2)])
def test_pytest_django(tmp_path: Path, run: Run, scope: str, processes: int) -> None:
    """Without the fixture tests see each other's entries, with it they don't: in one process or several."""
    location = "pages" if scope == "memory" else f"shared://{tmp_path}/cache"
    (tmp_path / "project.py").write_text(
        f"""
SECRET_KEY = "a key of these tests, long enough to sign with"
INSTALLED_APPS = ["quickcache_django"]
CACHES = {{
    "default": {{
        "BACKEND": "quickcache_django.QuickCache",
        "LOCATION": "{location}",
        "TIMEOUT": 77,
        "KEY_PREFIX": "p",
        "OPTIONS": {{"MAX_BYTES": "4MB"}},
    }},
    "same": {{"BACKEND": "quickcache_django.QuickCache", "LOCATION": "{location}", "KEY_PREFIX": "p",
        "OPTIONS": {{"MAX_BYTES": "4MB"}}}},
    "other": {{"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
}}
"""
    )
    (tmp_path / "conftest.py").write_text(
        """
import pytest

pytest_plugins = ["quickcache_django.pytest_plugin"]


@pytest.fixture
def cache():
    from django.core.cache import cache
    return cache
"""
    )
    isolating = """

@pytest.fixture(autouse=True)
def _isolated(isolated_caches):
    pass


def test_settings_stay(cache):
    from django.core.cache import caches

    assert (cache.default_timeout, cache.key_prefix) == (77, "p")
    cache.set("k", 1)
    assert caches["same"].get("k") == 1
    assert caches["other"].get("k") is None
"""
    (tmp_path / "test_without.py").write_text(CASES)
    (tmp_path / "test_with.py").write_text(CASES + isolating)
    distributed = ("-n", str(processes)) if processes else ()
    with_it = run("-m", "pytest", *("-p", "no:flask"), "-q", "-W", "error", "test_with.py", *distributed)
    assert outcome(with_it.stdout) == {"passed": 13}
    without = run("-m", "pytest", *("-p", "no:flask"), "-q", "test_without.py", *distributed, code=1)
    assert outcome(without.stdout)["failed"] >= 5
    # Nothing is left behind: no files of figures, no directories of stores.
    assert len(list((tmp_path / "run").glob("*"))) <= 1
    assert not list(tmp_path.glob("**/quickcache0/*"))


@pytest.mark.parametrize(("scope", "processes"), [("memory", 0), ("memory", 2), ("shared", 2)])
def test_pytest_flask(tmp_path: Path, run: Run, scope: str, processes: int) -> None:
    """The same with an app that all tests of a process have in common."""
    location = "pages" if scope == "memory" else f"shared://{tmp_path}/cache"
    (tmp_path / "shop.py").write_text(
        f"""
from flask import Flask
from flask_caching import Cache

app = Flask(__name__)
app.secret_key = "a key of these tests, long enough to sign with"
cache = Cache(app, config={{
    "CACHE_TYPE": "quickcache_flask.QuickCache",
    "CACHE_DEFAULT_TIMEOUT": 77,
    "CACHE_OPTIONS": {{"location": "{location}", "max_bytes": "4MB"}},
}})


@app.get("/visits")
@cache.cached()
def visits():
    visits.count = getattr(visits, "count", 0) + 1
    return str(visits.count)
"""
    )
    (tmp_path / "conftest.py").write_text(
        """
import pytest
import shop

pytest_plugins = ["quickcache_flask.pytest_plugin"]


@pytest.fixture(scope="session")
def app():
    return shop.app


@pytest.fixture
def cache(app):
    return shop.cache
"""
    )
    isolating = """

@pytest.fixture(autouse=True)
def _isolated(isolated_caches):
    pass


def test_signals(cache):
    from quickcache_flask.signals import cache_set

    told = []
    with cache_set.connected_to(lambda sender, **more: told.append(more)):
        cache.set("k", 1)
    assert len(told) == 1


@pytest.mark.parametrize("time", range(2))
def test_views(client, time, cache):
    first = client.get("/visits").text
    assert client.get("/visits").text == first
    assert cache.cache.default_timeout == 77
    cache.clear()
    assert client.get("/visits").text != first
"""
    (tmp_path / "test_without.py").write_text(CASES)
    (tmp_path / "test_with.py").write_text(CASES + isolating)
    distributed = ("-n", str(processes)) if processes else ()
    with_it = run("-m", "pytest", *("-p", "no:django"), "-q", "-W", "error", "test_with.py", *distributed)
    assert outcome(with_it.stdout) == {"passed": 15}
    without = run("-m", "pytest", *("-p", "no:django"), "-q", "test_without.py", *distributed, code=1)
    assert outcome(without.stdout)["failed"] >= 5
    assert not list(tmp_path.glob("**/quickcache0/*"))
