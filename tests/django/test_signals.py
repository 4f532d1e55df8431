"""Django's signals of hits, misses, sets, evictions, ends of time, and stale values."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from quickcache_core.testing import ManualClock
from quickcache_django import QuickCache, signals
from tests.django.conftest import MakeCache

EVERY = {
    "hit": signals.cache_hit,
    "miss": signals.cache_miss,
    "set": signals.cache_set,
    "stale": signals.cache_stale,
    "evict": signals.cache_evict,
    "expire": signals.cache_expire,
}


@pytest.fixture
def told(location: str) -> Iterator[list[tuple[str, str]]]:
    """What this test's cache was the reason for."""
    told: list[tuple[str, str]] = []
    connected: list[tuple[Any, Callable[..., None]]] = []
    for name, signal in EVERY.items():

        def receive(sender: Any, key: str, name: str = name, **about: Any) -> None:
            if about["location"] == location:
                assert sender is QuickCache
                told.append((name, key))

        signal.connect(receive)
        connected.append((signal, receive))
    yield told
    for signal, receive in connected:
        assert signal.disconnect(receive)


def test_each(told: list[tuple[str, str]], make_cache: MakeCache, clock: ManualClock) -> None:
    """With the key as it is stored."""
    cache = make_cache(options={"MAX_ENTRIES": 2, "EVICTION_POLICY": "fifo", "STALE_TTL": 50}, TIMEOUT=10)
    cache.get("a")
    cache.set("a", 1)
    cache.get("a")
    cache.set_many({"b": 1, "c": 1})
    clock.advance(11)
    cache.get_or_set("c", lambda: 2)
    clock.advance(100)
    cache.engine.cleanup()
    assert told[:3] == [("miss", ":1:a"), ("set", ":1:a"), ("hit", ":1:a")]
    assert ("evict", ":1:a") in told
    assert ("stale", ":1:c") in told
    assert ("expire", ":1:b") in told


def test_no_receivers(make_cache: MakeCache) -> None:
    """The cache isn't listened to at all, before, after, and when a receiver was forgotten."""
    cache = make_cache()
    assert cache.engine._subscriptions == ()

    def receive(**about: Any) -> None: ...

    signals.cache_hit.connect(receive)
    assert len(cache.engine._subscriptions) == 1
    del receive
    gc.collect()
    cache.set("k", 1)
    cache.get("k")
    assert cache.engine._subscriptions == ()


def test_receiver_that_raises(make_cache: MakeCache) -> None:
    """The operation goes on."""

    def receive(**about: Any) -> None:
        raise RuntimeError

    signals.cache_set.connect(receive)
    try:
        cache = make_cache()
        cache.set("k", 1)
        assert cache.get("k") == 1
    finally:
        signals.cache_set.disconnect(receive)
