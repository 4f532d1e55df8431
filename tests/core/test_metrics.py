"""What is counted, and what is worked out from it."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcache_core import (
    CacheLoadError,
    CacheMetricsSaveError,
    CacheMiss,
    InvalidKey,
    InvalidTTL,
    KeyAlreadyExists,
    KeyNotFound,
    MetricsSnapshot,
    QuickCache,
    QuickCacheConfig,
    SerializationError,
)
from quickcache_core.registry import serializers
from quickcache_core.testing import ManualClock

NAMES = {
    *("hits", "misses", "gets", "sets", "failed_ops", "evictions", "expired_removals", "manual_deletions"),
    *("store_errors", "current_valid_keys", "peak_valid_keys", "current_total_keys", "peak_total_keys"),
    *("loads", "load_failures", "load_waits", "stale_hits"),
    *("hit_ratio", "miss_ratio", "get_set_ratio", "eviction_rate", "expired_bloat", "waste_percentage"),
}
COUNTS = (
    *("hits", "misses", "gets", "sets", "failed_ops", "evictions", "expired_removals", "manual_deletions"),
    *("store_errors", "loads", "load_failures", "load_waits", "stale_hits"),
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["s3fifo", "lru", "lfu"])
def cache(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> QuickCache:
    """Holds "k" = 1 without an end and "old", which has expired; room for three.

    One for each kind of hot table.
    """
    config = QuickCacheConfig(
        max_size=3,
        default_ttl=None,
        eviction_policy=request.param,
        clock=clock,
        storage_dir=tmp_path,
        metrics_storage_dir=tmp_path,
    )
    cache = QuickCache(config)
    cache.set("k", 1)
    cache.set("old", 1, ttl_sec=1)
    clock.advance(2)
    cache.reset_metrics()
    return cache


def fails(operation: Callable[..., Any], *arguments: Any) -> None:
    with pytest.raises((CacheMiss, KeyAlreadyExists, InvalidKey, InvalidTTL, CacheLoadError)):
        operation(*arguments)


def down() -> Any:
    raise KeyNotFound("in the source")


COUNTED: dict[str, tuple[Callable[[QuickCache], Any], dict[str, int]]] = {
    "nothing": (lambda c: None, {}),
    "get, hit": (lambda c: c.get("k"), {"hits": 1}),
    "get, hit with a default": (lambda c: c.get("k", None), {"hits": 1}),
    "get, miss": (lambda c: fails(c.get, "x"), {"misses": 1}),
    "get, miss with a default": (lambda c: c.get("x", None), {"misses": 1}),
    "get, expired": (lambda c: fails(c.get, "old"), {"misses": 1, "expired_removals": 1}),
    "get, expired with a default": (lambda c: c.get("old", 0), {"misses": 1, "expired_removals": 1}),
    "get, expired, then gone": (
        lambda c: (c.get("old", 0), c.get("old", 0)),
        {"misses": 2, "expired_removals": 1},
    ),
    "get, bad key": (lambda c: fails(c.get, 5), {}),
    "get_many": (
        lambda c: c.get_many(["k", "x", "old", "k"]),
        {"hits": 2, "misses": 2, "expired_removals": 1},
    ),
    "get_many of nothing": (lambda c: c.get_many([]), {}),
    "questions": (lambda c: ("k" in c, "x" in c, "old" in c, c.ttl("k"), list(c), len(c), c.size()), {}),
    "set": (lambda c: c.set("n", 1), {"sets": 1}),
    "set, overwrite": (lambda c: c.set("k", 1), {"sets": 1}),
    "set, expired": (lambda c: c.set("old", 1), {"sets": 1, "expired_removals": 1}),
    "set, refused": (lambda c: fails(c.set, "n", 1, 0), {}),
    "add": (lambda c: c.add("n", 1), {"sets": 1}),
    "add, there": (lambda c: fails(c.add, "k", 1), {"failed_ops": 1}),
    "add, there and fine": (lambda c: c.add("k", 1, exist_ok=True), {"failed_ops": 1}),
    "add, expired": (lambda c: c.add("old", 1), {"sets": 1, "expired_removals": 1}),
    "update": (lambda c: c.update("k", 1), {"sets": 1}),
    "update, missing": (lambda c: fails(c.update, "x", 1), {"failed_ops": 1}),
    "update, expired": (lambda c: fails(c.update, "old", 1), {"failed_ops": 1, "expired_removals": 1}),
    "delete": (lambda c: c.delete("k"), {"manual_deletions": 1}),
    "delete, missing": (lambda c: fails(c.delete, "x"), {"failed_ops": 1}),
    "delete, expired": (
        lambda c: c.delete("old", missing_ok=True),
        {"failed_ops": 1, "expired_removals": 1},
    ),
    "pop": (lambda c: c.pop("k"), {"manual_deletions": 1}),
    "pop, missing": (lambda c: c.pop("x", None), {"failed_ops": 1}),
    "touch": (lambda c: c.touch("k"), {}),
    "touch, missing": (lambda c: fails(c.touch, "x"), {"failed_ops": 1}),
    "incr": (lambda c: c.incr("k"), {"sets": 1}),
    "incr, new": (lambda c: c.incr("n", initial=0), {"sets": 1}),
    "incr, missing": (lambda c: fails(c.incr, "x"), {"failed_ops": 1}),
    "incr, expired": (lambda c: fails(c.incr, "old"), {"failed_ops": 1, "expired_removals": 1}),
    "decr": (lambda c: c.decr("k"), {"sets": 1}),
    "set_many": (lambda c: c.set_many({"k": 1, "n": 1}), {"sets": 2}),
    "delete_many": (
        lambda c: c.delete_many(["k", "x", "old"]),
        {"manual_deletions": 1, "expired_removals": 1},
    ),
    "clear": (lambda c: c.clear(), {"manual_deletions": 2}),
    "cleanup": (lambda c: c.cleanup(), {"expired_removals": 1}),
    "valid_size": (lambda c: c.valid_size(), {"expired_removals": 1}),
    "full": (
        lambda c: c.set_many({"1": 1, "2": 1, "3": 1, "4": 1}),
        {"sets": 4, "expired_removals": 1, "evictions": 2},
    ),
    "resize": (lambda c: c.resize(1), {"expired_removals": 1}),
    "resize to less": (
        lambda c: (c.set("n", 1), c.resize(1)),
        {"sets": 1, "expired_removals": 1, "evictions": 1},
    ),
    "save": (lambda c: c.save_to_disk(), {}),
    "load": (lambda c: (c.save_to_disk(), c.load_from_disk()), {}),
    "load, nothing there": (lambda c: fails(c.load_from_disk, "/x/y"), {}),
    "get_or_set, hit": (lambda c: c.get_or_set("k", lambda: 2), {"hits": 1}),
    "get_or_set, miss": (lambda c: c.get_or_set("n", lambda: 2), {"misses": 1, "loads": 1, "sets": 1}),
    "get_or_set, expired": (
        lambda c: c.get_or_set("old", lambda: 2),
        {"misses": 1, "loads": 1, "sets": 1, "expired_removals": 1},
    ),
    "get_or_set, failing": (
        lambda c: fails(c.get_or_set, "n", down),
        {"misses": 1, "loads": 1, "load_failures": 1},
    ),
    "get_or_set, not stored": (
        lambda c: c.get_or_set("n", lambda context: context.dont_store()),
        {"misses": 1, "loads": 1},
    ),
    "refresh": (lambda c: c.refresh("k", lambda: 2), {"loads": 1, "sets": 1}),
    "refresh, failing": (lambda c: fails(c.refresh, "k", down), {"loads": 1, "load_failures": 1}),
    "invalidate_tags": (lambda c: c.invalidate_tags("t"), {}),
    "figures": (lambda c: (c.metrics(), c.get_metrics_snapshot(), c.save_metrics_to_disk()), {}),
}


@pytest.mark.parametrize("operation", COUNTED)
def test_counted(cache: QuickCache, operation: str) -> None:
    """Each operation moves these counters and no others; bulk operations count every key."""
    function, expected = COUNTED[operation]
    function(cache)
    figures = cache.get_metrics_snapshot()
    gets = expected.get("hits", 0) + expected.get("misses", 0)
    assert {name: figures[name] for name in COUNTS} == {**dict.fromkeys(COUNTS, 0), "gets": gets, **expected}


@pytest.mark.parametrize("operation", COUNTED)
def test_counted_with_a_listener(cache: QuickCache, operation: str) -> None:
    """A listener makes no difference to the figures."""
    cache.subscribe(lambda event: None)
    test_counted(cache, operation)


def test_value_that_cannot_be_kept(clock: ManualClock) -> None:
    """A write that fails for its value counts as nothing."""
    cache = QuickCache(QuickCacheConfig(isolation="auto", clock=clock))
    with pytest.raises(SerializationError):
        cache.set("k", lambda: None)
    assert cache.metrics() == MetricsSnapshot()


def stale_one(clock: ManualClock) -> QuickCache:
    """Has "k" = 1 past its TTL, which may still be served; the counters at 0."""
    cache = QuickCache(QuickCacheConfig(clock=clock, default_ttl=10, stale_ttl=60))
    cache.set("k", 1)
    clock.advance(11)
    cache.reset_metrics()
    return cache


@pytest.mark.parametrize(
    ("loader", "soft_timeout", "expected"),
    [
        (down, 0, {"hits": 1, "stale_hits": 1, "loads": 1, "load_failures": 1}),
        (down, 30, {"misses": 1, "stale_hits": 1, "loads": 1, "load_failures": 1}),
        (lambda: 2, 0, {"hits": 1, "stale_hits": 1, "loads": 1, "sets": 1}),
        (lambda: 2, 30, {"misses": 1, "loads": 1, "sets": 1}),
    ],
)
def test_stale_value(clock: ManualClock, loader: Any, soft_timeout: float, expected: dict[str, int]) -> None:
    """Served at once it is a hit, after waiting in vain a miss; a stale hit either way."""
    cache = stale_one(clock)
    cache.get_or_set("k", loader, soft_timeout=soft_timeout)
    end = time.monotonic() + 30.0
    names = ("hits", "misses", "stale_hits", "loads", "load_failures", "sets")
    wanted = {**dict.fromkeys(names, 0), **expected}
    # The load may still be under way.
    while (seen := {name: getattr(cache.metrics(), name) for name in names}) != wanted:
        assert time.monotonic() < end, seen
        time.sleep(0.01)


def test_stale_value_that_is_not_asked_for(clock: ManualClock) -> None:
    """For `get` it has expired."""
    cache = stale_one(clock)
    assert cache.get("k", None) is None
    figures = cache.metrics()
    assert (figures.hits, figures.misses, figures.stale_hits) == (0, 1, 0)


def test_waiting_for_the_load_of_another(clock: ManualClock) -> None:
    """Each who waits counts; there is one load."""
    cache = QuickCache(QuickCacheConfig(clock=clock))
    go = threading.Event()
    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(cache.get_or_set, "k", lambda: go.wait(30.0)) for _ in range(5)]
        end = time.monotonic() + 30.0
        while cache.metrics().load_waits < 4:
            assert time.monotonic() < end
            time.sleep(0.01)
        go.set()
        assert all(one.result(30.0) for one in asked)
    figures = cache.metrics()
    assert (figures.loads, figures.load_waits, figures.misses, figures.sets) == (1, 4, 5, 1)


class TestSizes:
    def test_of_now(self, cache: QuickCache) -> None:
        """Entries in all, those that haven't expired, and the difference; looking removes nothing."""
        for _ in range(2):
            figures = cache.get_metrics_snapshot()
            assert figures["current_total_keys"] == 2
            assert figures["current_valid_keys"] == 1
            assert figures["expired_bloat"] == 1
            assert figures["waste_percentage"] == 50.0
        cache.cleanup()
        figures = cache.get_metrics_snapshot()
        assert (figures["current_total_keys"], figures["current_valid_keys"]) == (1, 1)
        assert (figures["expired_bloat"], figures["waste_percentage"]) == (0, 0.0)

    def test_peaks(self, clock: ManualClock) -> None:
        """The most there ever were, even if nobody looked at that moment."""
        cache = QuickCache(QuickCacheConfig(clock=clock, max_size=20))
        cache.set_many({str(number): number for number in range(10)})
        cache.delete_many([str(number) for number in range(10)])
        cache.set("a", 1)
        figures = cache.get_metrics_snapshot()
        assert (figures["peak_total_keys"], figures["current_total_keys"]) == (10, 1)
        assert (figures["peak_valid_keys"], figures["current_valid_keys"]) == (10, 1)

    @pytest.mark.parametrize("way", ["delete", "pop", "clear", "load", "expire", "resize", "evict"])
    def test_peak_however_they_leave(self, clock: ManualClock, tmp_path: Path, way: str) -> None:
        """Whatever empties the cache, the peak of valid entries was eight."""
        cache = QuickCache(QuickCacheConfig(clock=clock, max_size=8, cull_fraction=1.0))
        path = cache.save_to_disk(tmp_path / "empty")
        keys = [str(number) for number in range(8)]
        cache.set_many(dict.fromkeys(keys, 1), ttl_sec=10)
        {
            "delete": lambda: cache.delete_many(keys),
            "pop": lambda: [cache.pop(key) for key in keys],
            "clear": cache.clear,
            "load": lambda: cache.load_from_disk(path),
            "expire": lambda: (clock.advance(20), cache.cleanup()),
            "resize": lambda: cache.resize(1),
            "evict": lambda: cache.set("more", 1),
        }[way]()
        figures = cache.get_metrics_snapshot()
        assert figures["current_total_keys"] <= 1
        assert (figures["peak_valid_keys"], figures["peak_total_keys"]) == (8, 8)

    def test_peak_of_valid_ones_below_that_of_all(self, clock: ManualClock) -> None:
        """Expired entries that are still there count for the one peak, and not for the other."""
        cache = QuickCache(QuickCacheConfig(clock=clock, default_ttl=None))
        cache.set("old", 1, ttl_sec=1)
        clock.advance(2)
        cache.set_many({"a": 1, "b": 1})
        cache.cleanup()
        cache.resize(1)
        figures = cache.get_metrics_snapshot()
        assert (figures["peak_total_keys"], figures["peak_valid_keys"]) == (3, 2)
        cache.resize(10)
        cache.set_many({"c": 1, "d": 1})
        cache.delete_many(["c", "d"])
        figures = cache.get_metrics_snapshot()
        assert (figures["peak_total_keys"], figures["peak_valid_keys"]) == (3, 3)

    @pytest.mark.parametrize("way", ["delete", "clear"])
    def test_peak_of_valid_ones_among_expired_ones(self, clock: ManualClock, way: str) -> None:
        """One at a time: there never were two valid ones."""
        cache = QuickCache(QuickCacheConfig(clock=clock, default_ttl=None))
        cache.set("old", 1, ttl_sec=1)
        clock.advance(2)
        cache.set("a", 1)
        cache.delete("a") if way == "delete" else cache.clear()
        assert cache.get_metrics_snapshot()["peak_valid_keys"] == 1

    def test_never_above_the_bound(self, clock: ManualClock) -> None:
        """The peak shows that the bound held."""
        for policy in ("s3fifo", "lru", "lfu", "lfuda", "fifo", "sieve"):
            cache = QuickCache(QuickCacheConfig(clock=clock, max_size=5, eviction_policy=policy))
            for number in range(100):
                cache.set(str(number % 13), number, ttl_sec=1 + number % 3)
                clock.advance(0.1)
            assert cache.metrics().peak_total_keys <= 5


class TestRatios:
    def test_of_nothing(self) -> None:
        """Before anything happened all ratios are 0.0."""
        figures = QuickCache().get_metrics_snapshot()
        assert figures.keys() == NAMES
        assert set(figures.values()) == {0}
        assert type(figures["hit_ratio"]) is float

    def test_of_something(self, cache: QuickCache) -> None:
        """hits/gets, misses/gets, gets/sets, evictions/sets."""
        cache.get_many(["k", "k", "k", "x"])
        cache.set_many({"1": 1, "2": 1, "3": 1, "4": 1})
        figures = cache.get_metrics_snapshot()
        assert (figures["hit_ratio"], figures["miss_ratio"]) == (0.75, 0.25)
        assert (figures["get_set_ratio"], figures["eviction_rate"]) == (1.0, 0.5)

    @given(
        st.integers(0, 10**9),
        st.integers(0, 10**9),
        st.integers(0, 10**9),
        st.integers(0, 10**6),
        st.integers(0, 10**6),
    )
    def test_bounds(self, hits: int, misses: int, sets: int, valid: int, expired: int) -> None:
        """Ratios lie between 0 and 1, and add up; percentages between 0 and 100."""
        snapshot = MetricsSnapshot(
            hits=hits, misses=misses, sets=sets, current_valid_keys=valid, current_total_keys=valid + expired
        )
        assert snapshot.gets == hits + misses
        assert 0 <= snapshot.hit_ratio <= 1
        assert 0 <= snapshot.miss_ratio <= 1
        assert snapshot.hit_ratio + snapshot.miss_ratio == pytest.approx(1 if snapshot.gets else 0)
        assert 0 <= snapshot.waste_percentage <= 100
        assert snapshot.expired_bloat == expired
        assert snapshot.as_dict().keys() == NAMES


class TestResetting:
    def test_counts_begin_anew(self, cache: QuickCache) -> None:
        """Counters are 0, peaks are what is there now; the entries stay."""
        cache.get_many(["k", "x"])
        cache.set("n", 1)
        cache.delete("n")
        cache.reset_metrics()
        figures = cache.get_metrics_snapshot()
        assert {figures[name] for name in COUNTS} == {0}
        assert figures["current_total_keys"] == figures["peak_total_keys"] == 2
        assert figures["current_valid_keys"] == 1
        assert cache.get("k") == 1
        assert cache.get_metrics_snapshot()["hits"] == 1

    def test_what_keeps_them(self, cache: QuickCache) -> None:
        """`clear`, `load` and `resize` change entries; they reset no counters."""
        cache.get("k")
        cache.save_to_disk()
        for operation in (cache.load_from_disk, cache.clear, lambda: cache.resize(5)):
            operation()
            assert cache.metrics().hits == 1


class TestFiles:
    def test_content(self, cache: QuickCache, tmp_path: Path) -> None:
        """The file holds the snapshot, readable for people and programs; the path is returned."""
        cache.get_many(["k", "x"])
        path = cache.save_metrics_to_disk()
        assert path == tmp_path / "metrics.json"
        assert json.loads(path.read_text()) == cache.get_metrics_snapshot()
        assert len(path.read_text().splitlines()) > 5

    def test_where(self, cache: QuickCache, tmp_path: Path) -> None:
        """File, directory, bare name: as for snapshots, in `metrics_storage_dir`."""
        assert cache.save_metrics_to_disk("name") == tmp_path / "name.json"
        assert cache.save_metrics_to_disk(tmp_path / "new" / "name.json") == tmp_path / "new" / "name.json"
        assert cache.save_metrics_to_disk(tmp_path / "new") == tmp_path / "new" / "metrics.json"

    @pytest.mark.parametrize(
        ("configured", "asked", "stamped"),
        [(False, None, False), (True, None, True), (True, False, False), (False, True, True)],
    )
    def test_time_in_the_name(
        self, tmp_path: Path, configured: bool, asked: bool | None, stamped: bool
    ) -> None:
        """`use_timestamp`, else `cache_metrics_timestamps`, decides."""
        config = QuickCacheConfig(
            metrics_storage_dir=tmp_path,
            cache_metrics_timestamps=configured,
            clock=ManualClock(wall=1_700_000_000.25),
        )
        path = QuickCache(config).save_metrics_to_disk(use_timestamp=asked)
        assert path.name == ("metrics_20231114_221320_250000.json" if stamped else "metrics.json")

    @pytest.mark.parametrize("serializer", ["pickle", "msgpack"])
    def test_another_format(self, tmp_path: Path, serializer: str) -> None:
        """`metrics_serializer` is independent of `serializer`, and needs no secret."""
        config = QuickCacheConfig(metrics_serializer=serializer, metrics_storage_dir=tmp_path)
        cache = QuickCache(config)
        path = cache.save_metrics_to_disk()
        assert serializers.create(serializer).deserialize(path.read_bytes()) == cache.get_metrics_snapshot()

    def test_failure(self, cache: QuickCache, tmp_path: Path) -> None:
        """An old file stays when a new one can't be written."""
        path = cache.save_metrics_to_disk()
        old = path.read_bytes()
        (tmp_path / "file").touch()
        with pytest.raises(CacheMetricsSaveError) as caught:
            cache.save_metrics_to_disk(tmp_path / "file" / "below")
        assert caught.value.filepath == str(tmp_path / "file" / "below.json")
        assert path.read_bytes() == old


def test_shared_store(clock: ManualClock) -> None:
    """Figures are those of the store: caches that share it show the same."""
    config = QuickCacheConfig(location="metrics of two", clock=clock)
    one, two = QuickCache(config), QuickCache(config)
    one.set("k", 1)
    two.get("k")
    assert one.metrics() == two.metrics()
    assert one.metrics().hits == one.metrics().sets == 1


def test_switched_off_figures_of_a_shared_store(clock: ManualClock) -> None:
    """`enable_metrics` is each cache's own: what one doesn't show the other does."""
    config = QuickCacheConfig(location="metrics of one", clock=clock)
    shown, hidden = QuickCache(config), QuickCache(config.replace(enable_metrics=False))
    hidden.set("k", 1)
    assert hidden.get_metrics_snapshot() == {}
    assert shown.get_metrics_snapshot()["sets"] == 1


@pytest.mark.parametrize("policy", ["s3fifo", "lru", "lfu", "lfuda", "fifo", "sieve"])
def test_every_entry_is_accounted_for(clock: ManualClock, policy: str) -> None:
    """Whatever happens: gets are hits and misses, and what came in went out or is there.

    Overwrites count as sets and remove nothing, so they are told apart here.
    """
    chance = random.Random(1)
    cache = QuickCache(QuickCacheConfig(clock=clock, max_size=8, eviction_policy=policy))
    gets = inserts = 0
    for _ in range(3000):
        key = str(chance.randrange(14))
        action = chance.randrange(7)
        if action <= 2:
            inserts += key not in cache
            cache.set(key, 1, ttl_sec=chance.choice([0.5, 2, 30]))
        elif action <= 4:
            gets += 1
            cache.get(key, None)
        elif action == 5:
            cache.delete(key, missing_ok=True)
        else:
            clock.advance(chance.random())
    figures = cache.metrics()
    assert figures.gets == figures.hits + figures.misses == gets
    assert inserts == (
        figures.evictions + figures.expired_removals + figures.manual_deletions + figures.current_total_keys
    )
