"""Caches of one process that share a store by name."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

from quickcache_core import BaseEvictionPolicy, ConfigError, QuickCache, QuickCacheConfig
from quickcache_core.eviction_policy import FIFOEvictionPolicy, LRUEvictionPolicy
from quickcache_core.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def config(request: pytest.FixtureRequest, clock: ManualClock) -> QuickCacheConfig:
    """A location of the test's own: stores live as long as the process."""
    return QuickCacheConfig(location=f"memory://{request.node.nodeid}", clock=clock)


class Other(BaseEvictionPolicy):
    def select_eviction_key(self, cache: Any) -> str:
        return next(iter(cache))


def test_same_name(config: QuickCacheConfig) -> None:
    """Two caches with one name have the same entries."""
    one, two = QuickCache(config), QuickCache(config)
    one.set("k", 1)
    assert two.get("k") == 1
    two.delete("k")
    assert "k" not in one
    two.set_many({"a": 1, "b": 2})
    one.clear()
    assert len(two) == 0


@pytest.mark.parametrize("name", ["unique-snowflake", "a/b", "ünï", "with space", "a:b"])
def test_spellings_of_a_name(name: str) -> None:
    """A plain word, as Django's LOCATION, is short for `memory://word`."""
    one = QuickCache(QuickCacheConfig(location=name))
    one.set("k", name)
    assert QuickCache(QuickCacheConfig(location=f"memory://{name}")).get("k") == name


@pytest.mark.parametrize("location", ["", "memory://"])
def test_no_name(location: str) -> None:
    """Without a name each cache has a store of its own."""
    one, two = (QuickCache(QuickCacheConfig(location=location)) for _ in range(2))
    one.set("k", 1)
    assert "k" not in two


def test_different_names(config: QuickCacheConfig) -> None:
    """Names that differ in any way, case included, are different stores."""
    caches = [QuickCache(config.replace(location=config.location + end)) for end in ("", " ", "x", "X", "/")]
    caches[0].set("k", 1)
    assert ["k" in cache for cache in caches] == [True, False, False, False, False]


def test_life(config: QuickCacheConfig) -> None:
    """The entries outlive every cache object: frameworks make and drop one per request."""
    cache = QuickCache(config)
    cache.set("k", 1)
    cache.close()
    del cache
    gc.collect()
    assert QuickCache(config).get("k") == 1


def test_closing_one(config: QuickCacheConfig) -> None:
    """`close` at the end of a request takes nothing from the others."""
    one, two = QuickCache(config), QuickCache(config)
    one.set("k", 1)
    with one:
        pass
    assert one.get("k") == two.get("k") == 1


class TestEachItsOwn:
    """What isn't the store belongs to each cache."""

    def test_ttl(self, config: QuickCacheConfig) -> None:
        """`default_ttl`."""
        short, never = QuickCache(config.replace(default_ttl=5)), QuickCache(config.replace(default_ttl=None))
        short.set("a", 1)
        never.set("b", 1)
        assert never.ttl("a") == pytest.approx(5)
        assert short.ttl("b") is None

    def test_bound(self, config: QuickCacheConfig) -> None:
        """`max_size` holds for what this cache inserts; others may have more in the same store."""
        large, small = QuickCache(config.replace(max_size=100)), QuickCache(config.replace(max_size=10))
        large.set_many({str(number): number for number in range(100)})
        assert len(small) == 100
        small.get("5")
        small.set("5", 1)
        assert len(large) == 100
        small.set("new", 1)
        assert len(large) == 10
        assert "new" in large
        large.set_many({str(number): number for number in range(200)})
        assert len(small) == 100

    def test_resize(self, config: QuickCacheConfig) -> None:
        """`resize` is this cache's own, too."""
        one, two = QuickCache(config.replace(max_size=100)), QuickCache(config.replace(max_size=100))
        one.set_many({str(number): number for number in range(100)})
        two.resize(20)
        assert len(one) == 20
        assert (one.max_size, two.max_size) == (100, 20)
        one.set_many({str(number): number for number in range(200)})
        assert len(one) == 100

    def test_isolation(self, config: QuickCacheConfig) -> None:
        """How a value is kept is decided when it is written; every cache can read it."""
        caches = {mode: QuickCache(config.replace(isolation=mode)) for mode in ("share", "auto", "copy")}
        for mode, writer in caches.items():
            value = {"a": [1, 2], "n": 5}
            writer.set("k", value)
            value["a"] = "changed"
            for reader in caches.values():
                seen = reader.get("k")
                assert seen == (value if mode == "share" else {"a": [1, 2], "n": 5})
                seen["n"] = 6
            assert caches["auto"].get("k")["n"] == (6 if mode == "share" else 5)
            assert caches["copy"].pop("k")["n"] == (6 if mode == "share" else 5)

    def test_numbers_across_isolations(self, config: QuickCacheConfig) -> None:
        """Counting works on what another cache wrote."""
        caches = [QuickCache(config.replace(isolation=mode)) for mode in ("share", "auto", "copy")]
        caches[0].set("n", 0)
        for expected, cache in enumerate(caches * 2, start=1):
            assert cache.incr("n") == expected
        assert [cache.get("n") for cache in caches] == [6, 6, 6]


class TestPolicy:
    def test_another_one(self, config: QuickCacheConfig) -> None:
        """A store has one policy: another one is refused, and the message names both as they were given."""
        first = QuickCache(config.replace(eviction_policy="lru"))
        with pytest.raises(ConfigError, match=r"eviction_policy='fifo'.*with 'lru'") as caught:
            QuickCache(config.replace(eviction_policy="fifo"))
        assert caught.value.field == "eviction_policy"
        assert config.location.removeprefix("memory://") in str(caught.value)
        first.set("k", 1)
        assert first.get("k") == 1

    def test_the_same_in_other_words(self, config: QuickCacheConfig) -> None:
        """Name, class and import path of one policy are the same policy."""
        for spelling in (
            *("lru", "LRU", LRUEvictionPolicy),
            "quickcache_core.eviction_policy:LRUEvictionPolicy",
        ):
            QuickCache(config.replace(eviction_policy=spelling)).set("k", 1)
        with pytest.raises(ConfigError, match="Other"):
            QuickCache(config.replace(eviction_policy=Other))


def test_what_the_policy_plans_with(config: QuickCacheConfig) -> None:
    """The largest bound of all caches that share the store; a smaller one doesn't narrow it."""
    capacities: list[int] = []

    class Planning(FIFOEvictionPolicy):
        def attach(self, entries: Any, capacity: int) -> None:
            super().attach(entries, capacity)
            capacities.append(capacity)

        def resize(self, capacity: int) -> None:
            capacities.append(capacity)

    config = config.replace(eviction_policy=Planning)
    caches = [QuickCache(config.replace(max_size=size)) for size in (10, 100, 20)]
    assert capacities == [10, 100]
    caches[0].resize(5)
    assert capacities[-1] == 100
    caches[0].resize(200)
    assert capacities[-1] == 200
    caches[1].clear()
    assert capacities[-1] == 200
    own = QuickCache(config.replace(location="", max_size=10))
    own.resize(5)
    assert capacities[-1] == 5


@pytest.mark.parametrize("attempt", range(3))
def test_made_by_many_threads_at_once(config: QuickCacheConfig, attempt: int) -> None:
    """Whoever comes first makes the store; nobody gets another one."""
    start = threading.Barrier(8)

    def make(number: int) -> None:
        start.wait(10)
        QuickCache(config).set(str(number), number)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(QuickCache(config)) == 8
