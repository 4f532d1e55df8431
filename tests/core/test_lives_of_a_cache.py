"""What holds for loads beside `test_loading`: lives of a whole cache, and what an invalidation costs."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import (
    NEVER,
    QuickCache,
    QuickCacheConfig,
)
from quickcache_core.testing import ManualClock
from tests.core.loading_tools import Loader, at_rest, make_cache

Make = Callable[..., QuickCache]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "shared"])
def make(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[Make]:
    numbers = itertools.count()
    made: list[QuickCache] = []

    def one(**settings: Any) -> QuickCache:
        folder = tmp_path / str(next(numbers))
        made.append(cache := make_cache(request.param, folder, **{"clock": clock, **settings}))
        return cache

    yield one
    for cache in made:
        cache.stop()


def test_none_after_a_value(make: Make, clock: ManualClock) -> None:
    """With `skip_none`, what was stale is gone: the source has nothing any more."""
    cache = make(skip_none=True, stale_ttl=60)
    cache.get_or_set("k", lambda: 1, 5)
    clock.advance(6)
    assert cache.get_or_set("k", lambda: None, 5) == 1
    at_rest(cache)
    assert cache.get_or_set("k", lambda: 2, 5) == 2


def test_sliding_per_call(make: Make, clock: ManualClock) -> None:
    """An entry read every second outlives its TTL, and ends at its longest age."""
    cache = make()
    loader = Loader("value", "another")
    cache.get_or_set("k", loader, 5, sliding=True, max_age=20)
    for _ in range(19):
        clock.advance(1)
        assert cache.get_or_set("k", loader, 5, sliding=True, max_age=20) == "value"
    clock.advance(1)
    assert cache.get("k", None) is None
    cache.set("idle", 1, 5, sliding=True)
    clock.advance(5)
    assert "idle" not in cache


def test_sliding_per_cache(make: Make, clock: ManualClock) -> None:
    """All that stores obeys the settings: set, add, update, set_many, incr."""
    cache = make(default_ttl=5, sliding=True, max_age=20)
    cache.set("set", 1)
    cache.add("add", 1)
    cache.set("update", 0)
    cache.update("update", 1)
    cache.set_many({"many": 1})
    cache.incr("incr", initial=0)
    keys = ["set", "add", "update", "many", "incr"]
    for _ in range(19):
        clock.advance(1)
        assert cache.get_many(keys) == dict.fromkeys(keys, 1)
    clock.advance(1)
    assert cache.get_many(keys) == {}


def test_stale_only_if_the_loader_fails(make: Make, clock: ManualClock) -> None:
    """`soft_timeout=NEVER` waits for the fresh value."""
    cache = make(stale_ttl=60, soft_timeout=NEVER, retry_after=0.0)
    loader = Loader(1, 2, OSError("down"))
    assert cache.get_or_set("k", loader, 5) == 1
    clock.advance(5)
    assert cache.get_or_set("k", loader, 5) == 2
    clock.advance(5)
    assert cache.get_or_set("k", loader, 5) == 2


def test_invalidating_a_tag_looks_at_no_entry() -> None:
    """However many entries carry it: the table isn't touched until somebody meets them."""

    class Untouchable(dict):  # type: ignore[type-arg]
        def _refuse(self, *args: Any) -> Any:
            raise AssertionError("an entry was looked at")

        __iter__ = __getitem__ = get = values = items = keys = pop = _refuse  # type: ignore[assignment]

    cache = QuickCache(QuickCacheConfig(max_size=100_000, default_ttl=None))
    cache.set_many({f"k{n}": n for n in range(50_000)}, tags=["common"])
    table = cache._bottom._table  # type: ignore[union-attr]
    real, table.entries = table.entries, Untouchable(table.entries)
    cache.invalidate_tags("common")
    table.entries = real
    assert cache.get_many(f"k{n}" for n in range(50_000)) == {}


def test_waiting_is_over_with_the_lease(make: Make) -> None:
    """Who has waited long enough for another's load does it alone."""
    cache = make(lease=0.05)
    gate = threading.Event()
    slow = Loader("slow", gate=gate)
    thread = threading.Thread(target=cache.get_or_set, args=("k", slow))
    thread.start()
    assert slow.began.wait(30)
    began = time.monotonic()
    assert cache.get_or_set("k", lambda: "own") == "own"
    assert time.monotonic() - began >= 0.05
    gate.set()
    thread.join()
    assert cache.get("k") == "own"
