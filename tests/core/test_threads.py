"""Many threads on one cache; finalisers that use the cache in the middle of a write."""

from __future__ import annotations

import contextlib
import gc
import itertools
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import (
    NEVER,
    BaseEvictionPolicy,
    CacheMiss,
    EventKind,
    EvictionPolicy,
    KeyAlreadyExists,
    KeyExpired,
    QuickCache,
    QuickCacheConfig,
)
from quickcache_core.compiled import FREE_THREADED
from quickcache_core.entry import GONE, Entry
from quickcache_core.events import RemovalCause
from quickcache_core.store.accelerator import TABLES
from quickcache_core.store.memory import MemoryStore
from quickcache_core.store.population import Population
from quickcache_core.store.table import Table
from quickcache_core.testing import ManualClock, check_books
from quickcache_core.testing.books import store_of
from quickcache_core.testing.stores import in_threads, raised
from tests.core.books import BUILT_IN, POLICIES, held
from tests.core.oracle import Oracle, eager_switching, within

pytestmark = pytest.mark.slow

THREADS = 8
SOUND = [name for name in POLICIES if name not in ("AbsentKeys", "Raising", "Newest")]


@pytest.fixture(autouse=True)
def _eager() -> Iterator[None]:
    with eager_switching():
        yield


def counted_are(gets: int, figures: dict[str, Any]) -> None:
    """Each once; without a GIL threads may lose each other's counts."""
    counted = figures["hits"] + figures["misses"]
    assert 0 < counted <= gets
    assert counted == gets or FREE_THREADED


# Everything at once


class Hammer:
    """What one thread does; each value tells the key that it belongs to."""

    def __init__(self, cache: QuickCache, folder: Path, seed: int, end: float) -> None:
        self.cache = cache
        self.folder = folder
        self.chance = random.Random(seed)
        self.seed = seed
        self.end = end
        self.gets = 0
        self.count = 0

    def run(self) -> None:
        steps = (
            [self.get] * 40 + [self.set] * 25 + [self.get_many] * 4 + [self.add, self.touch, self.incr] * 4
        )
        steps += [
            self.delete,
            self.pop,
            self.update,
            self.set_many,
            self.delete_many,
            self.look,
            self.peek,
        ] * 2
        while time.monotonic() < self.end:
            for step in self.chance.choices(steps, k=200):
                step(f"k{self.chance.randrange(150)}")
                assert self.cache.size() <= self.cache.max_size + 1
            self.now_and_then()

    def value(self, key: str) -> str:
        self.count += 1
        return f"{key}|{self.seed}.{self.count}"

    def ttl(self) -> Any:
        return self.chance.choice((None, NEVER, 0.001, 0.01, 0.1, 50.0))

    def right(self, key: str, value: Any) -> None:
        assert isinstance(value, str), (key, value)
        assert value.partition("|")[0] == key, f"{key} has {value}"

    def get(self, key: str) -> None:
        self.gets += 1
        if self.count % 2:
            value = self.cache.get(key, None)
            if value is not None:
                self.right(key, value)
        else:
            with contextlib.suppress(CacheMiss):
                self.right(key, self.cache.get(key))

    def get_many(self, key: str) -> None:
        keys = [key, *(f"k{self.chance.randrange(150)}" for _ in range(5))]
        self.gets += len(keys)
        for found, value in self.cache.get_many(keys).items():
            assert found in keys
            self.right(found, value)

    def set(self, key: str) -> None:
        self.cache.set(key, self.value(key), self.ttl())

    def set_many(self, key: str) -> None:
        keys = [key, *(f"k{self.chance.randrange(150)}" for _ in range(20))]
        self.cache.set_many({one: self.value(one) for one in keys}, self.ttl())

    def add(self, key: str) -> None:
        with contextlib.suppress(KeyAlreadyExists):
            self.cache.add(key, self.value(key), self.ttl())

    def update(self, key: str) -> None:
        with contextlib.suppress(CacheMiss):
            self.cache.update(key, self.value(key), self.ttl())

    def delete(self, key: str) -> None:
        self.cache.delete(key, missing_ok=True)

    def delete_many(self, key: str) -> None:
        self.cache.delete_many([key, "k1", "k2"])

    def pop(self, key: str) -> None:
        value = self.cache.pop(key, None)
        if value is not None:
            self.right(key, value)

    def touch(self, key: str) -> None:
        self.cache.touch(key, self.ttl(), missing_ok=True)

    def incr(self, key: str) -> None:
        assert self.cache.incr(f"n{key}", initial=0, ttl_sec=self.ttl()) >= 1

    def peek(self, key: str) -> None:
        _ = key in self.cache
        with contextlib.suppress(CacheMiss):
            left = self.cache.ttl(key)
            assert left is None or 0.0 < left <= 500.0

    def look(self, key: str) -> None:
        for found in self.cache.keys("k"):
            assert found.startswith("k")

    def now_and_then(self) -> None:
        chance = self.chance.randrange(12)
        if chance == 0:
            self.cache.clear()
        elif chance == 1:
            self.cache.cleanup()
        elif chance == 2:
            figures = self.cache.get_metrics_snapshot()
            assert figures["hits"] + figures["misses"] == figures["gets"]
            assert 0 <= figures["current_valid_keys"] <= figures["current_total_keys"]
        elif chance == 3:
            self.cache.save_to_disk(self.folder / f"saved{self.seed}")
        elif chance == 4 and (self.folder / f"saved{self.seed}.json").exists():
            self.cache.load_from_disk(self.folder / f"saved{self.seed}")
        elif chance == 5:
            assert self.cache.valid_size() <= self.cache.max_size + 1


@pytest.mark.parametrize("name", SOUND)
def test_everything_at_once(name: str, tmp_path: Path, stress_seconds: float) -> None:
    """Nothing is raised, no value is under another key, the bound holds, every get is counted once."""
    seconds = stress_seconds if name == "s3fifo" else stress_seconds / 5
    cache = QuickCache(
        QuickCacheConfig(max_size=100, eviction_policy=POLICIES[name], cleanup_interval=0.02, default_ttl=5.0)
    )
    end = time.monotonic() + seconds
    seeds = itertools.count(1)
    hammers: list[Hammer] = []

    def work() -> None:
        hammer = Hammer(cache, tmp_path, next(seeds), end)
        hammers.append(hammer)
        hammer.run()

    try:
        within(seconds + 60.0, lambda: in_threads(THREADS, work))
    finally:
        cache.stop()
    figures = cache.get_metrics_snapshot()
    counted_are(sum(hammer.gets for hammer in hammers), figures)
    assert figures["hits"] > 0
    assert figures["misses"] > 0
    assert figures["evictions"] > 0
    assert figures["expired_removals"] > 0
    check_books(cache, held)


def test_a_table_that_is_read_while_its_order_changes() -> None:
    """Hits of `lru` move keys of an OrderedDict, and lists go through it: each is one step for the others."""
    cache = QuickCache(QuickCacheConfig(max_size=300, eviction_policy="lru", default_ttl=NEVER))
    end = time.monotonic() + 1.5
    seeds = itertools.count()

    def work() -> None:
        seed = next(seeds)
        chance = random.Random(seed)
        while time.monotonic() < end:
            key = f"k{chance.randrange(400)}"
            if seed == 0:
                found = list(cache.keys())
                assert len(found) == len(set(found))
            elif seed == 1:
                cache.set(key, key)
                cache.delete(f"k{chance.randrange(400)}", missing_ok=True)
            else:
                assert cache.get(key, key) == key

    within(60.0, lambda: in_threads(4, work))
    check_books(cache, held)


# Atomic operations


@pytest.mark.parametrize("isolation", ["share", "auto", "copy"])
@pytest.mark.parametrize("number", [0, 0.0])
def test_no_increment_is_lost(isolation: str, number: float) -> None:
    """8 threads, 10,000 increments each."""
    cache = QuickCache(QuickCacheConfig.from_mapping({"isolation": isolation}))
    cache.set("n", number, NEVER)
    each = 10_000 if isolation != "copy" else 2_000

    def work() -> None:
        for n in range(each):
            if n % 2:
                cache.incr("n", 3)
            else:
                cache.decr("n")

    in_threads(THREADS, work)
    assert cache.get("n") == THREADS * each
    assert type(cache.get("n")) is type(number)


def test_no_increment_is_lost_for_other_numbers() -> None:
    """Also where adding runs code of the number's own."""

    class Slow:
        def __init__(self, number: int) -> None:
            self.number = number

        def __add__(self, other: int) -> Slow:
            time.sleep(0)
            return Slow(self.number + other)

    for number, end in ((Decimal(0), lambda value: value), (Slow(0), lambda value: value.number)):
        cache = QuickCache()
        cache.set("n", number, NEVER)
        in_threads(THREADS, lambda cache=cache: [cache.incr("n") for _ in range(500)])  # type: ignore[misc]
        assert end(cache.get("n")) == THREADS * 500


def test_no_increment_is_lost_while_it_begins() -> None:
    """Whoever comes first stores the initial value, once."""
    cache = QuickCache(QuickCacheConfig(max_size=10_000))

    def work() -> None:
        for n in range(3000):
            cache.incr(f"n{n}", initial=100)

    in_threads(THREADS, work)
    assert {cache.get(f"n{n}") for n in range(3000)} == {100 + THREADS}


def test_increments_of_what_expires() -> None:
    """Each sum is handed out once per life of the key."""
    cache = QuickCache()
    totals: list[int] = []

    def work() -> None:
        mine = [cache.incr("n", initial=0, ttl_sec=0.002) for _ in range(3000)]
        totals.extend(mine)

    in_threads(THREADS, work)
    counts = Counter(totals)
    # Of each life the sums are 1, 2, 3, ...: no number is more frequent than the one before.
    assert all(counts[total] <= counts[total - 1] for total in counts if total > 1)


@pytest.mark.parametrize("isolation", ["share", "auto", "copy"])
def test_add_has_one_winner(isolation: str) -> None:
    """Of 8 threads that wait for each other, over and over; the winner's value is the one that is there."""
    cache = QuickCache(QuickCacheConfig.from_mapping({"isolation": isolation, "max_size": 10_000}))
    barrier = threading.Barrier(THREADS)
    wins: list[tuple[str, str]] = []
    names = itertools.count()

    def work() -> None:
        me = f"thread {next(names)}"
        for n in range(40):
            barrier.wait()
            for i in range(10):
                key = f"k{n}.{i}"
                if cache.add(key, me, exist_ok=True):
                    wins.append((key, me))

    in_threads(THREADS, work)
    assert len(wins) == 400
    assert cache.get_many([key for key, _ in wins]) == dict(wins)


def test_add_has_one_winner_for_what_has_expired() -> None:
    """An expired entry is replaced by one of them."""
    cache = QuickCache(QuickCacheConfig(max_size=10_000))
    barrier = threading.Barrier(THREADS)
    wins: list[str] = []

    def work() -> None:
        for n in range(40):
            if barrier.wait() == 0:
                cache.set_many({f"k{n}.{i}": 0 for i in range(10)}, 1e-6)
            barrier.wait()
            for i in range(10):
                with contextlib.suppress(KeyAlreadyExists):
                    cache.add(f"k{n}.{i}", 1, NEVER)
                    wins.append(f"k{n}.{i}")

    in_threads(THREADS, work)
    assert len(wins) == len(set(wins)) == 400


def test_pop_has_one_winner() -> None:
    """Each value is handed out once."""
    cache = QuickCache(QuickCacheConfig(max_size=10_000))
    cache.set_many({f"k{n}": n for n in range(3000)})
    got: list[int] = []

    def work() -> None:
        mine = [cache.pop(f"k{n}", None) for n in range(3000)]
        got.extend(value for value in mine if value is not None)

    in_threads(THREADS, work)
    assert sorted(got) == list(range(3000))


def test_every_removal_is_told_once() -> None:
    """However threads and causes mix: what came and isn't there any more has been told as removed."""
    cache = QuickCache(QuickCacheConfig(max_size=50, cleanup_interval=0.01))
    told: list[str] = []
    cache.subscribe(lambda event: told.append(event.key), [EventKind.REMOVED])
    names = itertools.count()

    def work() -> None:
        me = next(names)
        for n in range(1500):
            cache.set(f"{me}.{n}", n, (NEVER, 0.001, 0.1)[n % 3])
            if n % 5 == 0:
                cache.delete(f"{me}.{n - 3}", missing_ok=True)
            if n % 400 == 0:
                cache.clear()

    in_threads(THREADS, work)
    cache.clear()
    assert len(told) == len(set(told)) == THREADS * 1500
    cache.stop()


# What readers may see


@pytest.mark.parametrize("name", ["s3fifo", "lru", "lfu", "OwnBooks"])
def test_readers_see_what_was_written(name: str, stress_seconds: float) -> None:
    """After a write returned nobody gets an older version, and no miss without a reason."""
    cache = QuickCache(QuickCacheConfig(eviction_policy=POLICIES[name], cleanup_interval=0.02))
    oracle = Oracle(cache)
    assert oracle.run(stress_seconds / 4) == []
    cache.stop()
    figures = cache.get_metrics_snapshot()
    assert figures["gets"] == figures["hits"] + figures["misses"]
    counted_are(oracle.gets, figures)
    assert oracle.gets > 100
    check_books(cache, held)


def test_readers_of_a_cache_that_is_too_small(stress_seconds: float) -> None:
    """Evictions explain misses, never an old version."""
    cache = QuickCache(QuickCacheConfig(max_size=3, cleanup_interval=0.02))
    assert Oracle(cache, misses_are_fine=True).run(stress_seconds / 4) == []
    cache.stop()


def test_readers_of_a_cache_that_is_switched_off_now_and_then(stress_seconds: float) -> None:
    """What was written or deleted meanwhile doesn't show an older version afterwards."""
    cache = QuickCache(QuickCacheConfig(cleanup_interval=0.02))

    def switch() -> None:
        with cache.disabled():
            time.sleep(0.001)
        time.sleep(0.001)

    assert Oracle(cache, misses_are_fine=True, other=switch).run(stress_seconds / 4) == []
    cache.stop()
    assert cache.enabled


def test_readers_while_listeners_come_and_go(stress_seconds: float) -> None:
    """Subscribing swaps the functions behind the methods; no operation takes notice."""
    cache = QuickCache(QuickCacheConfig(cleanup_interval=0.02))

    def listen() -> None:
        stop = cache.subscribe(lambda event: None)
        time.sleep(0.001)
        stop()
        time.sleep(0.001)

    assert Oracle(cache, other=listen).run(stress_seconds / 4) == []
    cache.stop()


def test_readers_while_the_size_changes(stress_seconds: float) -> None:
    """Resizing evicts, and does nothing else."""
    cache = QuickCache(QuickCacheConfig(cleanup_interval=0.02))
    sizes = itertools.cycle([1, 3, 100])
    oracle = Oracle(cache, misses_are_fine=True, other=lambda: cache.resize(next(sizes)))
    assert oracle.run(stress_seconds / 4) == []
    cache.stop()


def test_caches_that_share_a_store(stress_seconds: float) -> None:
    """Each through its own handle, with its own bound."""
    settings = {"location": "test-threads-shared", "cleanup_interval": 0.02}
    cache = QuickCache(QuickCacheConfig(**settings))  # type: ignore[arg-type]
    smaller = QuickCache(QuickCacheConfig(max_size=4, **settings))  # type: ignore[arg-type]
    numbers = itertools.count()

    def write() -> None:
        smaller.set(f"other{next(numbers) % 10}", 1)

    assert Oracle(cache, misses_are_fine=True, other=write).run(stress_seconds / 4) == []
    check_books(cache, held)


# Would the oracle notice? Wrong stores, each with a mistake that is easily made.


def wipes_the_value_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader may find the entry live and its value gone."""
    right = Population.leave

    def leave(self: Population, entry: Entry, cause: RemovalCause, *, in_wheel: bool = True) -> Any:
        value, entry.value = entry.value, None
        time.sleep(0)
        entry.value = value
        return right(self, entry, cause, in_wheel=in_wheel)

    monkeypatch.setattr(Population, "leave", leave)


def reads_the_deadline_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the time it reads the value, the entry may have left."""

    def get(self: Table, key: str, default: Any = None) -> Any:
        entry = self.entries.get(key)
        if entry is None:
            self.misses += 1
            return default
        deadline = entry.deadline
        time.sleep(0)
        if self._now() >= deadline:
            return self._on_stale(key, default)
        self.hits += 1
        return entry.value

    monkeypatch.setattr(TABLES["counter"], "get", get)


def leaves_without_a_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    """A removed entry keeps its deadline: readers who hold it take it for live, with its value wiped."""

    def get(self: Table, key: str, default: Any = None) -> Any:
        entry = self.entries.get(key)
        if entry is None:
            self.misses += 1
            return default
        time.sleep(0)
        self.hits += 1
        return entry.value

    monkeypatch.setattr(TABLES["counter"], "get", get)


def gives_a_miss_for_what_was_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without another look: a new value may have come since."""

    def get_stale(self: MemoryStore, key: str, default: Any) -> Any:
        time.sleep(0)
        self._find(key)
        self._table.misses += 1
        return default

    monkeypatch.setattr(MemoryStore, "_get_stale", get_stale)


def looks_up_before_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry that is overwritten may have left the table by then."""
    right = MemoryStore.put

    def put(self: MemoryStore, key: str, value: Any, ttl: float, bounds: Any) -> None:
        entry = self._table.entries.get(key)
        if entry is None:
            right(self, key, value, ttl, bounds)
            return
        time.sleep(0)
        with self.lock:
            entry.value = value

    monkeypatch.setattr(MemoryStore, "put", put)


def writes_without_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Books are torn."""

    def put(self: MemoryStore, key: str, value: Any, ttl: float, bounds: Any) -> None:
        population = self._population
        time.sleep(0)
        population.put(key, value, ttl, bounds)

    monkeypatch.setattr(MemoryStore, "put", put)


def forgets_expiry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has expired is served until it is swept."""

    def get(self: Table, key: str, default: Any = None) -> Any:
        entry = self.entries.get(key)
        value = None if entry is None else entry.value
        if entry is None or entry.deadline == GONE:
            self.misses += 1
            return default
        self.hits += 1
        return value

    monkeypatch.setattr(TABLES["counter"], "get", get)


def writes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """`set` returns before the value is there."""
    right = MemoryStore.put

    def put(self: MemoryStore, *arguments: Any) -> None:
        thread = threading.Thread(target=right, args=(self, *arguments))
        thread.start()
        if random.random() < 0.5:
            thread.join()

    monkeypatch.setattr(MemoryStore, "put", put)


@pytest.mark.parametrize(
    "mistake",
    [
        wipes_the_value_first,
        reads_the_deadline_first,
        leaves_without_a_mark,
        gives_a_miss_for_what_was_stale,
        looks_up_before_the_lock,
        forgets_expiry,
        writes_later,
    ],
)
def test_the_oracle_notices(
    mistake: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of these mistakes is found, in a fraction of the time."""
    mistake(monkeypatch)
    cache = QuickCache(QuickCacheConfig(cleanup_interval=0.02))
    oracle = Oracle(cache, keys=4)
    found = oracle.run(30.0, until_violation=True)
    cache.stop()
    assert found


def test_writes_without_the_lock_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By an exception, or by books that don't agree."""
    writes_without_the_lock(monkeypatch)
    for _ in range(50):
        cache = QuickCache(QuickCacheConfig(max_size=5, eviction_policy="lfu"))
        try:
            in_threads(THREADS, lambda cache=cache: [cache.set(f"k{n % 11}", n) for n in range(500)])  # type: ignore[misc]
            check_books(cache, held)
        except Exception:
            return
        except AssertionError:
            return
    pytest.fail("nobody noticed")


def test_sums_without_a_second_look_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An increment that stores its sum whatever was stored meanwhile loses others."""

    def incr(self: MemoryStore, key: str, delta: Any, freeze: Any, *others: Any) -> Any:
        presence, number = self._value(key)
        total = number + delta
        self.replace(key, total, float("inf"))
        return presence, total

    monkeypatch.setattr(MemoryStore, "incr", incr)
    cache = QuickCache()
    cache._gate = None  # what is in C would do without the store's method
    cache.set("n", 0)
    in_threads(THREADS, lambda: [cache.incr("n") for _ in range(2000)])
    assert cache.get("n") < THREADS * 2000


# Finalisers


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What finalisers raised, which Python can only report."""
    raised: list[str] = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda report: raised.append(f"{report.exc_value!r} in {report.object!r}")
    )
    return raised


class Meddling:
    """A value that uses the cache when it goes; in a cycle, the garbage collector chooses the moment."""

    actions: tuple[Callable[[QuickCache, str, int], object], ...] = (
        lambda cache, key, n: cache.set(key, n),
        lambda cache, key, n: cache.set(key, n, 0.001),
        lambda cache, key, n: cache.get(key, None),
        lambda cache, key, n: cache.get_many([key, "k1"]),
        lambda cache, key, n: cache.delete(key, missing_ok=True),
        lambda cache, key, n: cache.delete_many([key, "k2"]),
        lambda cache, key, n: cache.add(key, n, exist_ok=True),
        lambda cache, key, n: cache.pop(key, None),
        lambda cache, key, n: cache.touch(key, 0.5, missing_ok=True),
        lambda cache, key, n: cache.incr(f"n{key}", initial=0),
        lambda cache, key, n: cache.set_many({key: n, "k3": n}),
        lambda cache, key, n: key in cache and len(cache),
        lambda cache, key, n: list(cache.keys()),
        lambda cache, key, n: cache.cleanup(),
        lambda cache, key, n: cache.valid_size(),
        lambda cache, key, n: cache.get_metrics_snapshot(),
        lambda cache, key, n: cache.resize(5 + n % 10),
        lambda cache, key, n: cache.clear() if n % 5 == 0 else None,
    )
    created = 0
    gone = 0

    def __init__(self, cache: QuickCache, cycle: bool) -> None:
        Meddling.created += 1
        self.number = Meddling.created
        self.cache = cache
        if cycle:
            self.me = self

    def __del__(self) -> None:
        Meddling.gone += 1
        n = self.number
        self.actions[n % len(self.actions)](self.cache, f"k{n % 20}", n)


def use(cache: QuickCache, chance: random.Random, count: int, *, cycle: bool, check: int = 50) -> None:
    """Every operation, with values that meddle."""
    for n in range(count):
        key = f"k{chance.randrange(20)}"
        step = n % 12
        if cycle:
            # Garbage at once: the collector finds it during the next allocation, which is one of ours.
            Meddling(cache, cycle)
        if step < 5:
            cache.set(key, Meddling(cache, cycle), chance.choice((NEVER, 0.0005, 5.0)))
        elif step == 5:
            cache.add(key, Meddling(cache, cycle), exist_ok=True)
        elif step == 6:
            cache.set_many({f"k{i}": Meddling(cache, cycle) for i in range(4)})
        elif step == 7:
            cache.delete(key, missing_ok=True)
        elif step == 8:
            cache.pop(key, None)
        elif step == 9:
            cache.get(key, None)
            cache.touch(key, 0.0005, missing_ok=True)
            cache.incr("number", initial=0)
        elif step == 10:
            cache.cleanup()
            cache.resize(3 + n % 9)
        elif n % 5 == 0:
            cache.clear()
        if n % check == 0:
            check_books(cache, held)


def make(policy: str | type[EvictionPolicy], **settings: Any) -> QuickCache:
    return QuickCache(
        QuickCacheConfig(
            max_size=10, eviction_policy=policy, cleanup_interval=0.01, default_ttl=5.0, **settings
        )
    )


@pytest.mark.parametrize("name", SOUND)
def test_finalisers_use_the_cache(name: str, unraisable: list[str]) -> None:
    """A value that goes, for whatever reason, may do to the cache what it likes."""
    cache = make(POLICIES[name])
    before = Meddling.gone
    within(30.0, lambda: use(cache, random.Random(1), 1500, cycle=False))
    assert Meddling.gone - before > 500
    assert unraisable == []
    cache.stop()
    check_books(cache, held)
    cache.clear()


@pytest.mark.skipif(
    FREE_THREADED, reason="without a GIL the collector can't be made to run at each allocation"
)
@pytest.mark.parametrize("name", [*BUILT_IN, "OwnBooks"])
def test_garbage_collection_in_the_middle_of_a_write(name: str, unraisable: list[str]) -> None:
    """As above, and the collector picks the worst moments: within writes, whenever they allocate."""
    cache = make(POLICIES[name])
    thresholds = gc.get_threshold()
    before = Meddling.gone

    def work() -> None:
        gc.set_threshold(1, 1, 1)
        try:
            use(cache, random.Random(2), 600, cycle=True, check=20)
        finally:
            gc.set_threshold(*thresholds)

    gc.collect()
    gc.freeze()  # keeps collections short
    try:
        within(60.0, work)
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
    assert Meddling.gone - before > 100
    assert unraisable == []
    cache.stop()
    check_books(cache, held)
    cache.clear()
    gc.collect()
    check_books(cache, held)


class Interrupted(BaseEvictionPolicy):
    """Something else happens in the middle of each write, as if the garbage collector had run a finaliser."""

    interruption: Callable[[], object] | None = None

    def interrupt(self) -> None:
        todo, Interrupted.interruption = Interrupted.interruption, None
        if todo is not None:
            todo()

    def on_add(self, cache: Any, key: str) -> None:
        self.interrupt()

    on_update = on_access = on_delete = on_add

    def select_eviction_key(self, cache: Any) -> str:
        self.interrupt()
        return next(iter(cache))


def full(clock: ManualClock) -> QuickCache:
    """A full cache in which something is due."""
    cache = QuickCache(
        QuickCacheConfig(max_size=4, eviction_policy=Interrupted, clock=clock, cleanup_interval=1e9)
    )
    cache.set("due", 1, 1.0)
    for n in range(3):
        cache.set(f"k{n}", n, NEVER)
    clock.advance(2.0)
    return cache


WRITES: dict[str, Callable[[QuickCache], object]] = {
    "set": lambda cache: cache.set("new", 1),
    "overwrite": lambda cache: cache.set("k0", 1),
    "set_many": lambda cache: cache.set_many({"new": 1, "k0": 1}),
    "delete": lambda cache: cache.delete("k0"),
    "pop": lambda cache: cache.pop("k0"),
    "incr": lambda cache: cache.incr("k0"),
    "incr of nothing": lambda cache: cache.incr("new", initial=0),
    "get": lambda cache: cache.get("k0"),
    "get of what has expired": lambda cache: cache.get("due", None),
    "cleanup": lambda cache: cache.cleanup(),
    "resize": lambda cache: cache.resize(1),
}


@pytest.mark.parametrize("outer", WRITES)
@pytest.mark.parametrize("inner", [*WRITES, "clear", "valid_size", "metrics", "keys", "touch", "add", "load"])
def test_an_operation_in_the_middle_of_another(
    outer: str, inner: str, tmp_path: Path, unraisable: list[str]
) -> None:
    """It answers, it has its effect, and the books agree."""
    cache = full(ManualClock())
    saved = QuickCache(QuickCacheConfig(storage_dir=tmp_path))
    saved.set("loaded", 1)
    path = saved.save_to_disk()
    other = {
        "clear": lambda cache: cache.clear(),
        "valid_size": lambda cache: cache.valid_size(),
        "metrics": lambda cache: cache.get_metrics_snapshot(),
        "keys": lambda cache: list(cache.keys()),
        "touch": lambda cache: cache.touch("k2", 5.0, missing_ok=True),
        "add": lambda cache: cache.add("new", 2, exist_ok=True),
        "load": lambda cache: cache.load_from_disk(path),
    }
    action = {**WRITES, **other}[inner]
    told: list[tuple[str, RemovalCause | None]] = []
    cache.subscribe(lambda event: told.append((event.key, event.cause)), [EventKind.REMOVED])
    ran: list[object] = []

    def interruption() -> None:
        ran.append("begun")
        with contextlib.suppress(CacheMiss):
            action(cache)
        ran.append("ended")

    Interrupted.interruption = interruption
    with contextlib.suppress(CacheMiss):
        within(10.0, lambda: WRITES[outer](cache))
    Interrupted.interruption = None
    assert ran in ([], ["begun", "ended"])
    assert ran or outer == "cleanup"
    assert not store_of(cache).lock.busy
    assert not store_of(cache).lock.postponed
    assert cache.size() <= cache.max_size
    check_books(cache)
    removed = [key for key, cause in told if cause is not RemovalCause.REPLACED]
    assert all(count == 1 for count in Counter(removed).values()) or "set" in (inner + outer)
    if inner == "clear":
        assert len(cache) == 0
    elif inner == "load":
        assert list(cache.keys()) == ["loaded"]
    elif inner == "set" and outer != "resize":
        assert "new" in cache
    elif inner in ("delete", "pop"):
        assert "k0" not in cache
    assert unraisable == []


def test_answers_in_the_middle_of_another_operation() -> None:
    """A finaliser gets the answers that it will have brought about."""
    cache = full(ManualClock())
    answers: dict[str, object] = {}

    def ask() -> None:
        answers["get"] = cache.get("k1")
        answers["incr"] = cache.incr("k1", 10)
        answers["incr of nothing"] = cache.incr("fresh", initial=5)
        answers["incr of nothing at all"] = raised(CacheMiss, cache.incr, "nobody")
        answers["add"] = cache.add("k2", "other", exist_ok=True)
        answers["delete"] = cache.delete("k2")
        answers["delete of nothing"] = cache.delete("nobody", missing_ok=True)
        answers["pop of what has expired"] = raised(KeyExpired, cache.pop, "due")
        answers["delete_many"] = cache.delete_many(["k0", "nobody"])
        cache.resize(10)

    Interrupted.interruption = ask
    cache.set("k0", "outer", NEVER)
    assert answers["get"] == 1
    assert answers["incr"] == 11
    assert answers["incr of nothing"] == 6
    assert answers["add"] is False
    assert answers["delete"] is True
    assert answers["delete of nothing"] is False
    assert answers["delete_many"] == 1
    assert cache.get_many(["k0", "k1", "k2", "fresh"]) == {"k1": 11, "fresh": 6}
    check_books(cache)


def test_finalisers_of_two_caches() -> None:
    """One in the middle of a write to the first uses the second, and the other way round, in two threads."""
    # In a process of its own: two threads that wait for each other would hold up all other tests.
    code = """
import os, threading
from quickcache_core import BaseEvictionPolicy, QuickCache, QuickCacheConfig
both = threading.Barrier(2)
caches = []
def crossing(other):
    class Crossing(BaseEvictionPolicy):
        def on_update(self, cache, key):
            # As if the garbage collector had run a finaliser here.
            both.wait(5.0)
            caches[other].set("by a finaliser", key)
        def select_eviction_key(self, cache):
            return next(iter(cache))
    return Crossing
for other in (1, 0):
    caches.append(QuickCache(QuickCacheConfig(eviction_policy=crossing(other))))
for cache in caches:
    cache.set("k", 0)
threads = [threading.Thread(target=cache.set, args=("k", 1), daemon=True) for cache in caches]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(5.0)
found = [cache.get("by a finaliser", None) for cache in caches]
print(any(thread.is_alive() for thread in threads), *found, flush=True)
os._exit(0)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stdout == "False k k\n", result


def test_garbage_collection_by_another_thread(unraisable: list[str]) -> None:
    """Finalisers of one thread meet the writes of others."""
    cache = make("s3fifo")
    end = time.monotonic() + 1.0
    seeds = itertools.count()

    def work() -> None:
        seed = next(seeds)
        while time.monotonic() < end:
            if seed == 0:
                gc.collect(0)
                time.sleep(0.0005)
            else:
                use(cache, random.Random(seed), 60, cycle=True, check=59)

    within(60.0, lambda: in_threads(4, work))
    assert unraisable == []
    cache.stop()
    check_books(cache, held)
    cache.clear()


def test_finalisers_run_without_the_lock() -> None:
    """While a value goes, other threads can write: nothing slow under the lock."""
    blocked: list[str] = []

    class Checking:
        def __init__(self, cache: QuickCache, how: str) -> None:
            self.cache, self.how = cache, how

        def __del__(self) -> None:
            thread = threading.Thread(target=self.cache.set, args=("other", 1), daemon=True)
            thread.start()
            thread.join(5.0)
            if thread.is_alive():
                blocked.append(self.how)

    def go(how: str, work: Callable[[QuickCache], object], count: int = 1) -> None:
        cache = QuickCache(QuickCacheConfig(max_size=max(4, count), default_ttl=NEVER))
        for n in range(count):
            cache.set(f"k{n}", Checking(cache, how), 0.001 if how == "expiry" else NEVER)
        work(cache)
        cache.clear()

    go("overwrite", lambda cache: cache.set("k0", 1))
    go("update", lambda cache: cache.update("k0", 1))
    go("delete", lambda cache: cache.delete("k0"))
    go("pop", lambda cache: cache.pop("k0"))
    go("clear", lambda cache: cache.clear())
    go("delete_many", lambda cache: cache.delete_many(["k0", "k1"]), 2)
    go("eviction", lambda cache: cache.set_many({f"n{n}": n for n in range(4)}))
    go("slices of evictions", lambda cache: cache.set_many({f"n{n}": n for n in range(300)}), 300)
    go("resize", lambda cache: cache.resize(1), 3)
    go("expiry", lambda cache: (time.sleep(0.1), cache.cleanup()), 3)
    go("expiry on reading", lambda cache: (cache.touch("k0", 0.001), time.sleep(0.1), cache.get("k0", None)))
    assert blocked == []


def test_listeners_use_the_cache_from_many_threads() -> None:
    """A listener that writes may be told of its own write; nobody waits for anybody."""
    cache = QuickCache(QuickCacheConfig(max_size=20))

    def listener(event: Any) -> None:
        if not event.key.startswith("told"):
            cache.set(f"told {event.key}", 1)

    cache.subscribe(listener, [EventKind.REMOVED])
    within(
        60.0,
        lambda: in_threads(
            4, lambda: [cache.set(f"k{n % 100}", n, 0.001 if n % 3 else NEVER) for n in range(1000)]
        ),
    )
    check_books(cache, held)
