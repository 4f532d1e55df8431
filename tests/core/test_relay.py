"""What the adapters' signals are made of."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from quickcache_core import EventKind, QuickCache, QuickCacheConfig
from quickcache_core.relay import Relay
from quickcache_core.testing import ManualClock


class Heard:
    """A signal with receivers, until `is_connected` is False."""

    def __init__(self) -> None:
        self.is_connected = True
        self.told: list[tuple[str, Any]] = []

    def __call__(self, key: str, about: Any) -> bool:
        if self.is_connected:
            self.told.append((key, about))
        return self.is_connected


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def cache(clock: ManualClock) -> QuickCache:
    return QuickCache(QuickCacheConfig(clock=clock, max_size=3, default_ttl=10, eviction_policy="fifo"))


@pytest.fixture
def relay(cache: QuickCache) -> Relay:
    relay = Relay()
    relay.add(cache, "mine")
    return relay


def hear(relay: Relay, *happenings: str) -> dict[str, Heard]:
    heard = {one: Heard() for one in happenings}
    for one, signal in heard.items():
        relay.want(one, signal)
    return heard


def keys(heard: dict[str, Heard]) -> dict[str, list[str]]:
    return {one: [key for key, _ in signal.told] for one, signal in heard.items()}


def test_each_happening(relay: Relay, cache: QuickCache, clock: ManualClock) -> None:
    """Told once, to those who want it; what was deleted or replaced is neither evicted nor expired."""
    heard = hear(relay, "hit", "miss", "set", "evict", "expire", "stale")
    for key in "abcd":
        cache.set(key, 1)
    cache.get("d")
    cache.get("x", None)
    cache.delete("d")
    cache.set("c", 2)
    clock.advance(10)
    cache.cleanup()
    cache.get_or_set("late", lambda: 1, 5, stale_ttl=10)
    clock.advance(6)
    assert cache.get_or_set("late", lambda: 2, 5, stale_ttl=10, soft_timeout=0) in (1, 2)
    told = keys(heard)
    assert told["set"][:5] == ["a", "b", "c", "d", "c"]
    assert told["hit"][0] == "d"
    assert told["miss"][:2] == ["x", "late"]
    assert told["evict"] == ["a"]
    assert sorted(told["expire"])[:2] == ["b", "c"]
    assert told["stale"] == ["late"]
    assert heard["evict"].told == [("a", "mine")]


def test_nobody_connected(relay: Relay, cache: QuickCache) -> None:
    """A get is the store's own, as if there were no signals, before receivers come and after they went."""
    plain = cache._get
    assert plain == cache._store.get
    heard = hear(relay, "hit", "expire")
    assert cache._get != cache._store.get
    relay.no_more("hit")
    assert cache._get == cache._store.get
    relay.no_more("expire")
    assert cache._subscriptions == ()
    cache.set("a", 1)
    cache.get("a")
    assert keys(heard) == {"hit": [], "expire": []}


def test_receivers_that_went_silently(relay: Relay, cache: QuickCache) -> None:
    """Those who were garbage collected: with the first event that nobody hears the cache is left alone."""
    heard = hear(relay, "hit")
    cache.set("a", 1)
    heard["hit"].is_connected = False
    cache.get("a")
    assert cache._subscriptions == ()


def test_cache_that_is_made_later(relay: Relay) -> None:
    """It is listened to from its first operation on."""
    heard = hear(relay, "set")
    later = QuickCache()
    relay.add(later, "later")
    later.set("k", 1)
    assert heard["set"].told == [("k", "later")]


def test_caches_of_one_store(clock: ManualClock) -> None:
    """What leaves the store is told once; hits are those of the cache that they happened in."""
    relay = Relay()
    settings: Any = {"location": "of test_caches_of_one_store", "clock": clock, "max_size": 1}
    caches = [QuickCache(QuickCacheConfig(**settings)) for _ in range(3)]
    for number, cache in enumerate(caches):
        relay.add(cache, number)
    heard = hear(relay, "evict", "hit")
    caches[0].set("a", 1)
    caches[2].set("b", 1)
    caches[1].get("b")
    assert [key for key, _ in heard["evict"].told] == ["a"]
    assert heard["hit"].told == [("b", 1)]


def test_namespaces_have_none(relay: Relay, cache: QuickCache, clock: ManualClock) -> None:
    """Their keys in the store are nothing for receivers to see."""
    heard = hear(relay, "set", "evict", "expire")
    drafts = cache.namespace("drafts")
    for key in "abcd":
        drafts.set(key, 1)
    clock.advance(10)
    cache.cleanup()
    assert keys(heard) == {"set": [], "evict": [], "expire": []}


def test_cache_that_is_gone(clock: ManualClock) -> None:
    """The relay holds no cache."""
    relay = Relay()
    cache = QuickCache(QuickCacheConfig(clock=clock))
    relay.add(cache, None)
    gone = weakref.ref(cache)
    del cache
    assert gone() is None
    hear(relay, "hit")
    listened_to = QuickCache(QuickCacheConfig(clock=clock))
    relay.add(listened_to, None)
    gone = weakref.ref(listened_to)
    del listened_to
    gc.collect()
    assert gone() is None


def test_stale_kind(clock: ManualClock) -> None:
    """Told after the hit, or after the miss of a reader who waited in vain."""
    cache = QuickCache(QuickCacheConfig(clock=clock, default_ttl=5, stale_ttl=60))
    told: list[EventKind] = []
    cache.subscribe(lambda event: told.append(event.kind), [EventKind.HIT, EventKind.MISS, EventKind.STALE])

    def fail() -> None:
        raise OSError

    cache.set("k", 1)
    clock.advance(6)
    assert cache.get_or_set("k", fail, soft_timeout=30.0) == 1
    assert told[-1] is EventKind.STALE
    assert told.count(EventKind.STALE) == cache.metrics().stale_hits == 1
