"""The kill switch: by setting, by environment variable, for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import (
    KeyExpired,
    KeyNotFound,
    QuickCache,
    QuickCacheConfig,
)
from quickcache_core.store.base import Bounds, Presence
from quickcache_core.store.life import ASK, Life
from quickcache_core.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["lru", "s3fifo"])
def cache(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> QuickCache:
    config = QuickCacheConfig(clock=clock, storage_dir=tmp_path, eviction_policy=request.param)
    cache = QuickCache(config)
    cache.set("k", 1)
    return cache


def test_lives_while_it_is_off(cache: QuickCache, clock: ManualClock) -> None:
    """Nothing is stored, stale or fresh; what ends entries does so in the store behind, too."""
    bounds = Bounds(10)
    behind = cache._real_store
    life = Life(5.0, 50.0, tags=(3,))
    behind.put_with("stale", 1, life, bounds)
    behind.put_with("other", 1, life, bounds)
    behind.put_with("replaced", 1, life, bounds)
    clock.advance(6.0)
    with cache.disabled():
        store = cache._store
        assert store is not behind
        assert store.get("stale", ASK) is ASK
        assert store.look("stale") is None
        token = store.begin_load("stale")
        assert token is not None
        assert store.is_overtaken("stale", token) is False
        release = store.try_lease("stale")
        assert release is not None
        release()
        store.put_off("stale", 5.0)
        store.count(hit=True)
        assert store.put_with("stale", 2, life, bounds, token) is False
        assert store.put_with("new", 2, life, bounds) is False
        assert store.add("replaced", 2, 5.0, bounds, life) is True
        assert store.replace("replaced", 2, 5.0, life) is Presence.ABSENT
        assert store.next_generation("n") == 1
        assert store.generation("n") == 1
        assert store.identity("k") == "k"
        assert behind.look("other") is not None
        store.invalidate_tags([3])
    assert behind.generation("n") == 1
    for key in ("stale", "new", "other", "replaced"):
        assert behind.look(key) is None
    assert cache.get("k") == 1


def raises_not_found(operation: Callable[..., Any], *arguments: Any) -> bool:
    with pytest.raises(KeyNotFound):
        operation(*arguments)
    return True


ANSWERS: dict[str, tuple[Callable[[QuickCache], Any], Any]] = {
    "get": (lambda c: raises_not_found(c.get, "k"), True),
    "get with a default": (lambda c: c.get("k", "d"), "d"),
    "get_many": (lambda c: c.get_many(["k"]), {}),
    "in": (lambda c: "k" in c, False),
    "ttl": (lambda c: raises_not_found(c.ttl, "k"), True),
    "keys": (lambda c: list(c.keys()), []),
    "iter": (lambda c: list(c), []),
    "len": (lambda c: (len(c), c.size(), c.valid_size()), (0, 0, 0)),
    "bool": (lambda c: bool(c), True),
    "set": (lambda c: c.set("k", 2), None),
    "set_many": (lambda c: c.set_many({"k": 2}), None),
    "add": (lambda c: c.add("k", 2), True),
    "update": (lambda c: raises_not_found(c.update, "k", 2), True),
    "delete": (lambda c: raises_not_found(c.delete, "k"), True),
    "delete, missing fine": (lambda c: c.delete("k", missing_ok=True), False),
    "delete_many": (lambda c: c.delete_many(["k"]), 0),
    "pop": (lambda c: raises_not_found(c.pop, "k"), True),
    "pop with a default": (lambda c: c.pop("k", "d"), "d"),
    "touch": (lambda c: raises_not_found(c.touch, "k"), True),
    "touch, missing fine": (lambda c: c.touch("k", missing_ok=True), False),
    "incr": (lambda c: raises_not_found(c.incr, "k"), True),
    "incr, initial": (lambda c: c.incr("k", 2, initial=5), 7),
    "decr, initial": (lambda c: c.decr("k", 2, initial=5), 3),
    "clear": (lambda c: c.clear(), None),
    "cleanup": (lambda c: c.cleanup(), 0),
    "resize": (lambda c: c.resize(5), None),
}
CHANGES = ("set", "set_many", "add", "update", "delete", "delete, missing fine", "delete_many", "pop")
CHANGES += (
    "pop with a default",
    "touch",
    "touch, missing fine",
    "incr",
    "incr, initial",
    "decr, initial",
    "clear",
)


class TestForAWhile:
    @pytest.mark.parametrize("operation", ANSWERS)
    def test_answers(self, cache: QuickCache, operation: str) -> None:
        """Every operation answers as an empty cache would."""
        function, answer = ANSWERS[operation]
        with cache.disabled():
            assert function(cache) == answer
            assert len(cache) == 0
            assert cache.get("k", "gone") == "gone"

    @pytest.mark.parametrize("operation", ANSWERS)
    def test_afterwards(self, cache: QuickCache, operation: str) -> None:
        """What was only read is there again; what was written or deleted meanwhile isn't."""
        with cache.disabled():
            ANSWERS[operation][0](cache)
        assert cache.get("k", "gone") == ("gone" if operation in CHANGES else 1)

    def test_nothing_is_counted(self, cache: QuickCache) -> None:
        """Reads that never reached the cache aren't hits or misses of it."""
        before = cache.metrics()
        with cache.disabled():
            cache.get("k", None)
            cache.get_many(["k", "x"])
            cache.set("new", 1)
            cache.delete("x", missing_ok=True)
        assert cache.metrics() == before

    def test_entries_still_expire(self, cache: QuickCache, clock: ManualClock) -> None:
        """Time goes on: what ends meanwhile has ended."""
        cache.set("short", 1, ttl_sec=5)
        with cache.disabled():
            clock.advance(5)
        with pytest.raises(KeyExpired):
            cache.get("short")

    def test_state(self, cache: QuickCache) -> None:
        """`enabled` says how it is."""
        assert cache.enabled
        with cache.disabled():
            assert not cache.enabled
        assert cache.enabled

    def test_nested(self, cache: QuickCache) -> None:
        """Blocks may nest; the outermost decides."""
        with cache.disabled():
            with cache.disabled():
                assert "k" not in cache
            assert "k" not in cache
        assert "k" in cache

    def test_error_inside(self, cache: QuickCache) -> None:
        """An error ends the block as well."""
        with pytest.raises(RuntimeError), cache.disabled():
            raise RuntimeError
        assert cache.get("k") == 1

    def test_blocks_of_two_threads(self, cache: QuickCache) -> None:
        """Overlapping blocks: it is off until the last one ends."""
        inside, leave = threading.Event(), threading.Event()

        def other() -> None:
            with cache.disabled():
                inside.set()
                leave.wait(10)

        thread = threading.Thread(target=other)
        thread.start()
        inside.wait(10)
        with cache.disabled():
            assert "k" not in cache
        assert "k" not in cache
        leave.set()
        thread.join()
        assert cache.get("k") == 1

    def test_with_a_listener(self, cache: QuickCache) -> None:
        """Listeners that come and go while it is off, and the other way round, don't switch it on or off."""
        with cache.disabled():
            stop = cache.subscribe(lambda event: None)
            assert cache.get("k", None) is None
        assert cache.get("k") == 1
        with cache.disabled():
            stop()
            assert cache.get("k", None) is None
        assert cache.get("k") == 1

    def test_other_caches_of_the_store(self, clock: ManualClock) -> None:
        """It switches one cache off, not the store; what it writes meanwhile leaves for all."""
        config = QuickCacheConfig(location="switched off for one", clock=clock)
        one, two = QuickCache(config), QuickCache(config)
        one.set_many({"a": 1, "b": 2})
        with one.disabled():
            assert two.get("a") == 1
            one.set("a", 5)
            two.set("c", 3)
        assert two.get_many(["a", "b", "c"]) == one.get_many(["a", "b", "c"]) == {"b": 2, "c": 3}

    def test_bad_input(self, cache: QuickCache) -> None:
        """Switching off doesn't hide mistakes."""
        with cache.disabled():
            with pytest.raises(ValueError, match="ttl_sec"):
                cache.set("k", 1, ttl_sec=0)
            with pytest.raises(ValueError, match="keys are strings"):
                cache.set(5, 1)  # type: ignore[arg-type]


class TestFiles:
    def test_save_within_a_block(self, cache: QuickCache) -> None:
        """A snapshot holds what will be there again afterwards; never an empty one over a good one."""
        cache.save_to_disk()
        cache.set("more", 2)
        with cache.disabled():
            cache.set("k", "newer, so the old one is out")
            cache.save_to_disk()
        cache.clear()
        cache.load_from_disk()
        assert cache.get_many(["k", "more"]) == {"more": 2}

    def test_load_within_a_block(self, cache: QuickCache) -> None:
        """A load replaces everything, so nothing of before shows afterwards."""
        path = cache.save_to_disk()
        cache.set("before", 1)
        with cache.disabled():
            cache.load_from_disk(path)
            assert len(cache) == 0
        assert "before" not in cache

    def test_save_of_a_cache_that_was_never_on(
        self, cache: QuickCache, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Its file would be empty, so the good one of yesterday stays; a warning says so."""
        path = cache.save_to_disk()
        off = QuickCache(cache.config.replace(enabled=False))
        assert off.save_to_disk() == path
        assert not off.backup().exists()
        assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
        assert str(path) in caplog.text
        off.load_from_disk()
        assert len(off) == 0
        cache.clear()
        cache.load_from_disk(path)
        assert cache.get("k") == 1


class TestBySetting:
    @pytest.mark.parametrize("operation", ANSWERS)
    def test_answers(self, clock: ManualClock, operation: str) -> None:
        """`enabled=False`: every operation answers as an empty cache would."""
        cache = QuickCache(QuickCacheConfig(enabled=False, clock=clock))
        function, answer = ANSWERS[operation]
        assert function(cache) == answer
        assert "k" not in cache
        assert not cache.enabled

    def test_block_inside(self, clock: ManualClock) -> None:
        """A block doesn't switch on what was off."""
        cache = QuickCache(QuickCacheConfig(enabled=False, clock=clock))
        with cache.disabled():
            pass
        assert not cache.enabled
        cache.set("k", 1)
        assert "k" not in cache


class TestByEnvironment:
    @pytest.mark.parametrize("value", ["1", "true", "TRUE", "yes", "on", " 1 "])
    def test_on(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        """The variable switches off every cache that is made."""
        monkeypatch.setenv("QUICKCACHE_DISABLED", value)
        cache = QuickCache()
        cache.set("k", 1)
        assert "k" not in cache
        assert not cache.enabled

    @pytest.mark.parametrize("value", ["", "0", "false", "No", "off", " "])
    def test_off(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        """Empty and negative values leave things as configured."""
        monkeypatch.setenv("QUICKCACHE_DISABLED", value)
        assert QuickCache().enabled
        assert not QuickCache(QuickCacheConfig(enabled=False)).enabled

    def test_a_cache_that_is_there(self, cache: QuickCache, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is read when a cache is made; those that are there go on."""
        monkeypatch.setenv("QUICKCACHE_DISABLED", "1")
        assert cache.get("k") == 1
