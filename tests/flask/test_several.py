"""Several caches in one app, several apps in one process."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask_caching import Cache

from quickcache_core import ConfigError
from quickcache_flask import QuickCache

PATIENCE = 30.0
TYPE = {"CACHE_TYPE": "quickcache_flask.QuickCache"}


def backend_of(app: Flask, cache: Cache) -> QuickCache:
    backend = app.extensions["cache"][cache]
    assert isinstance(backend, QuickCache)
    return backend


def test_each_cache_has_its_own_store(make_backend: Any) -> None:
    """Without a location two caches of an app share nothing, and may have different settings."""
    one, two = make_backend(CACHE_THRESHOLD=5), make_backend(CACHE_QUICKCACHE_EVICTION_POLICY="lru")
    one.set("key", 1)
    assert two.get("key") is None
    two.clear()
    assert one.get("key") == 1
    assert (one.engine.max_size, two.engine.max_size) == (5, 500)


def test_one_cache_for_two_apps() -> None:
    """One `Cache` object with two apps uses the backend of the current app."""
    cache = Cache(config=TYPE)
    apps = [Flask("one"), Flask("two")]
    for app in apps:
        cache.init_app(app)
    with apps[0].app_context():
        cache.set("key", 1)
    with apps[1].app_context():
        assert cache.get("key") is None
    with apps[0].app_context():
        assert cache.get("key") == 1


@pytest.mark.parametrize("location", ["shelf", "memory://shelf"])
def test_caches_with_one_location_share_a_store(location: str) -> None:
    """A named location is one store for all apps of the process; timeouts and limits stay their own."""
    apps = [Flask("one"), Flask("two")]
    one, two = (
        backend_of(
            app,
            Cache(
                app, config={**TYPE, "CACHE_OPTIONS": {"location": location}, "CACHE_DEFAULT_TIMEOUT": ttl}
            ),
        )
        for app, ttl in zip(apps, (10, 20), strict=True)
    )
    one.clear()
    one.set("key", [1])
    two.set("other", [2])
    assert (two.get("key"), one.get("other")) == ([1], [2])
    assert one.engine.ttl("flask_cache_key") == pytest.approx(10, abs=5)
    assert two.engine.ttl("flask_cache_other") == pytest.approx(20, abs=5)


def test_key_prefix_keeps_apps_apart_in_a_shared_store(make_backend: Any) -> None:
    """With a CACHE_KEY_PREFIX each, apps on one store don't see each other's entries in any operation."""
    one, two = (
        make_backend(CACHE_QUICKCACHE_LOCATION="apart", CACHE_KEY_PREFIX=prefix)
        for prefix in ("one:", "two:")
    )
    for number, backend in enumerate((one, two)):
        assert backend.set("key", number)
        assert backend.add("added", number)
        assert backend.set_many({"a": number, "b": number}) == ["a", "b"]
        assert backend.inc("counter", number + 1) == number + 1
    for number, backend in enumerate((one, two)):
        assert backend.get_many("key", "added", "a", "b") == [number] * 4
        assert backend.get_dict("key", "nothing") == {"key": number, "nothing": None}
        assert backend.dec("counter") == number
    assert one.delete("key")
    assert not one.has("key")
    assert two.has("key")
    assert one.delete_many("a", "b") == ["a", "b"]
    assert two.get_many("a", "b") == [1, 1]
    assert sorted(two.engine.keys()) == [
        "one:added", "one:counter", "two:a", "two:added", "two:b", "two:counter", "two:key",
    ]  # fmt: skip


def test_clear_leaves_what_belongs_to_others(make_backend: Any) -> None:
    """On a shared store `clear` removes what has the app's own prefix; without a prefix, everything."""
    one, two, all_of_it = (
        make_backend(CACHE_QUICKCACHE_LOCATION="cleared", CACHE_KEY_PREFIX=prefix)
        for prefix in ("one:", "two:", "")
    )
    for backend in (one, two, all_of_it):
        backend.set("key", 1)
    assert one.clear() is True
    assert [backend.has("key") for backend in (one, two, all_of_it)] == [False, True, True]
    assert all_of_it.clear() is True
    assert all_of_it.engine.size() == 0


@pytest.mark.parametrize("scope", ["", "memory://", "shared://"])
def test_clear_during_a_load(tmp_path: Path, scope: str) -> None:
    """What a function computes while its app's cache is cleared is handed out, and isn't stored: it may be
    from before.
    """
    location = scope and f"{scope}{tmp_path / 'cache' if scope == 'shared://' else 'clear_during_a_load'}"
    app = Flask("app")
    app.config.update(TYPE, CACHE_OPTIONS={"location": location}, SECRET_KEY="k" * 32)
    cache = Cache(app)
    source = ["old"]
    begun, go_on = threading.Event(), threading.Event()

    def load() -> str:
        value = source[0]
        if value == "old":
            begun.set()
            assert go_on.wait(PATIENCE)
        return value

    def price() -> Any:
        with app.app_context():
            return cache.cache.get_or_set("price", load, 600)

    with ThreadPoolExecutor(1) as pool, app.app_context():
        try:
            earlier = pool.submit(price)
            assert begun.wait(PATIENCE)
            source[0] = "new"
            cache.clear()
        finally:
            go_on.set()
        assert earlier.result(PATIENCE) == "old"
        assert not list(backend_of(app, cache).engine.keys())
        assert price() == "new"


def test_clear_with_a_prefix_leaves_namespaces(make_backend: Any) -> None:
    """They are cleared by themselves: nobody knows all that were made."""
    backend = make_backend(CACHE_OPTIONS={"location": "leaves_namespaces"})
    drafts = backend.namespace("drafts")
    drafts.set("key", 1)
    backend.clear()
    assert drafts.get("key") == 1
    drafts.clear()
    assert drafts.get("key") is None


@pytest.mark.parametrize("location", ["", "memory://"])
def test_no_prefix_in_a_store_of_ones_own(make_backend: Any, location: str) -> None:
    """In a store that nobody else can reach keys stay as they are, as with SimpleCache."""
    backend = make_backend(CACHE_OPTIONS={"location": location}, CACHE_KEY_PREFIX="prefix:")
    backend.set("key", 1)
    assert list(backend.engine.keys()) == ["key"]
    assert backend.key_prefix == ""


def test_no_prefix_as_none(make_backend: Any) -> None:
    """CACHE_KEY_PREFIX may be None."""
    backend = make_backend(CACHE_OPTIONS={"location": "none"}, CACHE_KEY_PREFIX=None)
    backend.set("key", 1)
    assert list(backend.engine.keys()) == ["key"]


def test_other_policy_on_a_shared_store(make_backend: Any) -> None:
    """A store that exists with one eviction policy can't be had with another; the error names the setting."""
    keep = make_backend(CACHE_OPTIONS={"location": "policies", "eviction_policy": "lru"})
    with pytest.raises(ConfigError) as raised:
        make_backend(CACHE_OPTIONS={"location": "policies", "eviction_policy": "fifo"})
    assert raised.value.field == 'CACHE_OPTIONS["eviction_policy"]'
    assert "lru" in str(raised.value)
    assert keep.engine.size() == 0


def test_threshold_per_app_on_a_shared_store(make_backend: Any) -> None:
    """Each app lets in as much as its own CACHE_THRESHOLD says."""
    small = make_backend(CACHE_OPTIONS={"location": "thresholds"}, CACHE_THRESHOLD=5)
    large = make_backend(CACHE_OPTIONS={"location": "thresholds"}, CACHE_THRESHOLD=50)
    for number in range(100):
        large.set(f"key {number}", number)
    assert large.engine.size() == 50
    small.set("one more", 1)
    assert small.engine.size() == 5
