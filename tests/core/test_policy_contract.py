"""The contract of an eviction policy, for every built-in one and for those that users write; exact orders."""

from __future__ import annotations

import logging
import os
import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcache_core import (
    NEVER,
    BaseEvictionPolicy,
    EvictionPolicy,
    QuickCache,
    QuickCacheConfig,
    register_eviction_policy,
)
from quickcache_core.entry import Entry
from quickcache_core.eviction_policy import S3FIFOEvictionPolicy
from quickcache_core.testing import EvictionPolicyContract, ManualClock, check_books
from quickcache_core.testing.books import population_of
from tests.core.books import (
    POLICIES,
    WEIGHING_POLICIES,
    WRONG,
    AbsentKeys,
    FirstKey,
    Newest,
    OwnBooks,
    Raising,
    Reordering,
    held,
    queues,
    weight,
)


class Contract(EvictionPolicyContract):
    def held(self, policy: EvictionPolicy) -> Iterable[Entry]:
        return held(policy)


class TestS3FIFO(Contract):
    policy = "s3fifo"


class TestLRU(Contract):
    policy = "lru"


class TestLFU(Contract):
    policy = "lfu"


class TestLFUDA(Contract):
    policy = "lfuda"


class TestGDSF(Contract):
    """With room for all values, so that entries are what counts."""

    policy = "gdsf"

    def make_cache(self, **settings: Any) -> QuickCache:
        return super().make_cache(max_bytes="1GB", **settings)


class TestFIFO(Contract):
    policy = "fifo"


class TestSieve(Contract):
    policy = "sieve"


class TestFirstKey(Contract):
    """The custom policy of PyQuickCache's documentation."""

    policy = FirstKey


class TestReordering(Contract):
    """A custom policy that moves keys in the table."""

    policy = Reordering


class TestOwnBooks(Contract):
    """A custom policy that counts on being told of everything."""

    policy = OwnBooks


class TestNewest(Contract):
    policy = Newest


class TestAbsentKeys(Contract):
    """A wrong policy costs hits, and nothing else."""

    policy = AbsentKeys


class TestRaising(Contract):
    """A wrong policy costs hits, and nothing else."""

    policy = Raising


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_policy_is_reported(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The log says which class is wrong; no key of the application is in it."""
    cache = QuickCache(QuickCacheConfig(max_size=2, eviction_policy=POLICIES[name]))
    for n in range(4):
        cache.set(f"secret{n}", n)
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert errors
    assert all(name in record.getMessage() for record in errors)
    assert not any("secret" in record.getMessage() for record in errors)


def test_policy_by_decorator() -> None:
    """A registered class is found by its name."""

    @register_eviction_policy("test_oldest")
    class Oldest(BaseEvictionPolicy):
        def select_eviction_key(self, cache: OrderedDict[str, Entry]) -> str:
            return next(iter(cache))

    cache = QuickCache(QuickCacheConfig(max_size=2, eviction_policy="test_oldest"))
    for key in "abc":
        cache.set(key, key)
    assert sorted(cache.keys()) == ["b", "c"]


def test_hooks_are_called_as_documented() -> None:
    """With the table and the key, once per event, and never for `clear`."""
    calls: list[tuple[str, str]] = []

    class Recorder(BaseEvictionPolicy):
        def on_add(self, cache: OrderedDict[str, Entry], key: str) -> None:
            assert key in cache
            calls.append(("add", key))

        def on_update(self, cache: OrderedDict[str, Entry], key: str) -> None:
            assert key in cache
            calls.append(("update", key))

        def on_access(self, cache: OrderedDict[str, Entry], key: str) -> None:
            assert key in cache
            calls.append(("access", key))

        def on_delete(self, cache: OrderedDict[str, Entry], key: str) -> None:
            assert key not in cache
            calls.append(("delete", key))

        def select_eviction_key(self, cache: OrderedDict[str, Entry]) -> str:
            return next(iter(cache))

    clock = ManualClock()
    cache = QuickCache(
        QuickCacheConfig(max_size=2, eviction_policy=Recorder, clock=clock, cleanup_interval=1e9)
    )
    cache.set("a", 1, NEVER)
    cache.set("a", 2, 5.0)
    cache.get("a")
    cache.get("nothing", None)
    cache.incr("a")
    cache.touch("a", 5.0)
    _ = "a" in cache, cache.ttl("a"), list(cache.keys())
    cache.set("b", 1, NEVER)
    cache.set("c", 1, 5.0)
    clock.advance(5.0)
    cache.get("c", None)
    cache.delete("b")
    cache.set("d", 1)
    cache.clear()
    assert calls == [
        ("add", "a"),
        ("update", "a"),
        ("access", "a"),
        ("update", "a"),
        ("add", "b"),
        ("delete", "a"),
        ("add", "c"),
        ("delete", "c"),
        ("delete", "b"),
        ("add", "d"),
    ]


def test_a_policy_without_on_access_pays_nothing() -> None:
    """Hits of such a cache take no lock."""

    class Plain(BaseEvictionPolicy):
        def select_eviction_key(self, cache: OrderedDict[str, Entry]) -> str:
            return next(iter(cache))

    for policy, recency in (
        (Plain, "counter"),
        (FirstKey, "hook"),
        ("lru", "order"),
        ("lfu", "hook"),
        ("lfuda", "hook"),
    ):
        cache = QuickCache(QuickCacheConfig(eviction_policy=policy))
        assert population_of(cache).policy.recency == recency


# Books that don't grow


@pytest.mark.parametrize("name", POLICIES)
def test_churn_on_few_keys(name: str) -> None:
    """Keys that come and go, at any rate and TTL, leave neither queues nor wheel longer than bounded."""
    cycles = 3_000 if name in WRONG else 200_000 if os.environ.get("CI") else 40_000
    clock = ManualClock()
    cache = QuickCache(
        QuickCacheConfig(
            max_size=1000,
            eviction_policy=POLICIES[name],
            clock=clock,
            cleanup_interval=1e9,
            default_ttl=NEVER,
        )
    )
    population = population_of(cache)
    longest = heaviest = 0
    keys = [f"k{n}" for n in range(10)]
    ttls = (None, 3600.0, 5.0, 86400.0 * 30, 0.2)
    for n in range(cycles):
        key = keys[n % 10]
        cache.set(key, n, ttls[n % 5])
        if n % 3:
            cache.delete(key, missing_ok=True)
        if n % 64 == 0:
            clock.advance(0.05)
        if n % 500 == 0:
            wheel = population.deadlines
            longest = max(longest, sum(len(c.entries) for b in wheel._buckets.values() for c in b.chunks))
            heaviest = max(heaviest, weight(population.policy))
            assert len(wheel._buckets) < 400
    assert longest < 20_000
    assert heaviest < 400
    check_books(cache, held)


@pytest.mark.parametrize("name", ["s3fifo", "sieve", "fifo"])
def test_dead_weight_in_queues(name: str) -> None:
    """However deletions are spread, at most about two thirds of a long queue are dead."""
    chance = random.Random(5)
    for pattern in range(4):
        cache = QuickCache(QuickCacheConfig(max_size=4000, eviction_policy=name, default_ttl=NEVER))
        keys = [f"k{n}" for n in range(4000)]
        cache.set_many(dict.fromkeys(keys, 1))
        for key in keys[::2]:
            cache.get(key)
        cache.set_many(dict.fromkeys((f"m{n}" for n in range(1000)), 1))
        victims = list(cache.keys())
        if pattern == 1:
            victims.reverse()
        elif pattern == 2:
            chance.shuffle(victims)
        elif pattern == 3:
            victims = [*victims[::2], *victims[1::2]]
        policy = population_of(cache).policy
        for n, key in enumerate(victims):
            cache.delete(key)
            if n % 100 == 0:
                check_books(cache, held)
                for queue in queues(policy):
                    assert queue._dead <= max(3 * queue.live, 500), (pattern, n, queue._dead, queue.live)
        assert weight(policy) <= 600


def test_ghosts_of_s3fifo_are_bounded() -> None:
    """At most as many hashes as the capacity, in each of the two ghosts, also after a resize."""
    cache = QuickCache(QuickCacheConfig(max_size=500, default_ttl=NEVER))
    policy = population_of(cache).policy
    assert isinstance(policy, S3FIFOEvictionPolicy)
    chance = random.Random(1)
    for size in (500, 100, 1, 300):
        cache.resize(size)
        for n in range(5000):
            key = f"k{int(chance.paretovariate(0.7)) % 3000}"
            if cache.get(key, None) is None:
                cache.set(key, n)
        for ghost in (policy._small_ghost, policy._main_ghost):
            assert len(ghost) + len(getattr(ghost, "_dying", ())) <= max(2, 3 * size // 2 + 2)
        assert 1.0 <= policy._target <= max(1.0, 0.95 * size)


@pytest.mark.parametrize("lately", [True, False])
@pytest.mark.parametrize(("target", "place"), [(5.0, "_main"), (40.0, "_small")])
def test_what_the_main_queue_of_s3fifo_gave_up(lately: bool, target: float, place: str) -> None:
    """It comes back there if the small queue is to shrink, and is tried out again otherwise; what was given
    up long ago moves the target by half as much.
    """
    cache = QuickCache(QuickCacheConfig(max_size=100, default_ttl=NEVER))
    cache.set_many(dict.fromkeys((f"k{n}" for n in range(100)), 1))
    population = population_of(cache)
    policy = population.policy
    assert isinstance(policy, S3FIFOEvictionPolicy)
    assert (policy._small.live, policy._main.live) == (10, 90)
    policy._target = target
    ghost = policy._main_ghost
    ghost.add(hash("back"))
    if not lately:
        for n in range(60):
            ghost.add(n)
    cache.set("back", 1)
    assert population.entries["back"].queue is getattr(policy, place)
    assert policy._target == target - (1.0 if lately else 0.5)
    assert hash("back") not in ghost.new
    assert hash("back") not in ghost.old


@pytest.mark.parametrize("lately", [True, False])
def test_what_the_small_queue_of_s3fifo_gave_up(lately: bool) -> None:
    """It goes to the main queue and raises the target, by half as much if it was given up long ago."""
    cache = QuickCache(QuickCacheConfig(max_size=100, default_ttl=NEVER))
    cache.set_many(dict.fromkeys((f"k{n}" for n in range(160 if lately else 230)), 1))
    policy = population_of(cache).policy
    assert isinstance(policy, S3FIFOEvictionPolicy)
    cache.set("k140", 1)
    assert population_of(cache).entries["k140"].queue is policy._main
    assert policy._target == (11.0 if lately else 10.5)


def test_a_loop_beside_favourites() -> None:
    """A loop a little longer than the cache doesn't drive its own entries out one after the other."""
    chance = random.Random(6)
    cache = QuickCache(QuickCacheConfig(max_size=200, default_ttl=NEVER))
    hits = place = 0
    for _ in range(40_000):
        if chance.random() < 0.5:
            key, place = f"loop{place}", (place + 1) % 220
        else:
            key = f"k{int(chance.paretovariate(1.0))}"
        if cache.get(key, None) is None:
            cache.set(key, 1)
        else:
            hits += 1
    # 19,000 if what the main queue gave up always came back to it.
    assert hits > 25_000, hits


# Constant cost


def lines_run(work: Callable[[], object]) -> int:
    """Lines of Python code that a call runs through, as a measure of work that no busy machine disturbs."""
    count = 0

    def trace(frame: object, event: str, argument: object) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("name", ["s3fifo", "lru", "lfu", "lfuda", "fifo", "sieve", "gdsf", "FirstKey"])
@pytest.mark.parametrize("ttl", [NEVER, 300.0])
def test_insert_at_capacity_costs_the_same_at_any_size(name: str, ttl: object) -> None:
    """A full cache of 50,000 entries takes as many steps per insert as one of 1,000."""
    costs = {}
    for size in (1_000, 50_000):
        clock = ManualClock()
        cache = QuickCache(
            QuickCacheConfig(
                max_size=size,
                eviction_policy=WEIGHING_POLICIES[name],
                max_bytes="1GB" if name == "gdsf" else None,
                clock=clock,
                cleanup_interval=1e9,
                default_ttl=ttl,
            )
        )
        cache.set_many({f"k{n}": n for n in range(size)})
        for n in range(0, size, 3):
            cache.get(f"k{n}")
        for n in range(size // 2):
            cache.set(f"warm{n}", n)

        def insert(cache: QuickCache = cache) -> None:
            for n in range(500):
                cache.set(f"new{n}", n)

        costs[size] = lines_run(insert) / 500
    small, large = costs.values()
    assert large < 1.5 * small + 20, costs


# Exact orders


class TextbookLRU:
    def __init__(self) -> None:
        self.order: list[str] = []

    def used(self, key: str) -> None:
        self.order.remove(key)
        self.order.append(key)

    wrote = used

    def came(self, key: str) -> None:
        self.order.append(key)

    def went(self, key: str) -> None:
        self.order.remove(key)

    def victim(self) -> str:
        return self.order[0]


class TextbookFIFO(TextbookLRU):
    def used(self, key: str) -> None:
        pass

    wrote = used


class TextbookLFU:
    def __init__(self) -> None:
        self.uses: dict[str, int] = {}
        self.last: dict[str, int] = {}
        self.time = 0

    def used(self, key: str) -> None:
        self.time += 1
        self.uses[key] = self.uses.get(key, 0) + 1
        self.last[key] = self.time

    came = wrote = used

    def went(self, key: str) -> None:
        del self.uses[key], self.last[key]

    def victim(self) -> str:
        return min(self.uses, key=lambda key: (self.uses[key], self.last[key]))


class TextbookLFUDA(TextbookLFU):
    """As in the paper, but that at most 10 uses count: a use makes the rank age + uses, and whoever is
    evicted leaves its rank as the age.
    """

    def __init__(self) -> None:
        super().__init__()
        self.age = 0
        self.rank: dict[str, int] = {}

    def used(self, key: str) -> None:
        super().used(key)
        self.rank[key] = self.age + min(10, self.uses[key])

    came = wrote = used

    def victim(self) -> str:
        key = min(self.uses, key=lambda key: (self.rank[key], self.last[key]))
        self.age = self.rank[key]
        return key


class TextbookSieve:
    """As in the paper: one queue, newest first, and a hand that moves from the tail to the head."""

    def __init__(self) -> None:
        self.queue: list[str] = []
        self.visited: dict[str, bool] = {}
        self.hand: str | None = None

    def used(self, key: str) -> None:
        self.visited[key] = True

    def wrote(self, key: str) -> None:
        pass

    def came(self, key: str) -> None:
        self.queue.insert(0, key)
        self.visited[key] = False

    def went(self, key: str) -> None:
        if self.hand == key:
            place = self.queue.index(key)
            self.hand = self.queue[place - 1] if place else None
        self.queue.remove(key)
        del self.visited[key]

    def victim(self) -> str:
        place = len(self.queue) - 1 if self.hand is None else self.queue.index(self.hand)
        while self.visited[self.queue[place]]:
            self.visited[self.queue[place]] = False
            place = place - 1 if place else len(self.queue) - 1
        self.hand = self.queue[place]
        return self.queue[place]


class TwoGenerations:
    """Keys evicted lately: the older half goes when the younger one is full."""

    def __init__(self, capacity: int) -> None:
        self.limit = max(1, capacity // 2)
        self.young: set[str] = set()
        self.old: set[str] = set()

    def __len__(self) -> int:
        return len(self.young) + len(self.old)

    def add(self, key: str) -> None:
        self.young.add(key)
        if len(self.young) >= self.limit:
            self.young, self.old = set(), self.young

    def take(self, key: str) -> float:
        """How much it counts that the key was there."""
        there = 1.0 if key in self.young else 0.5 if key in self.old else 0.0
        self.young.discard(key)
        self.old.discard(key)
        return there


class PlainS3FIFO(TextbookLRU):
    """Adaptive S3-FIFO with lists, as it is described; no textbook has this variant."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.small: list[str] = []
        self.main: list[str] = []
        self.uses: dict[str, int] = {}
        self.from_small, self.from_main = TwoGenerations(capacity), TwoGenerations(capacity)
        self.aim_at(0.1 * capacity)
        self.filling = True

    def aim_at(self, target: float) -> None:
        least, most = max(1.0, 0.01 * self.capacity), max(1.0, 0.95 * self.capacity)
        self.target = min(max(target, least), most)

    def used(self, key: str) -> None:
        self.uses[key] = min(3, self.uses[key] + 1)

    def wrote(self, key: str) -> None:
        pass

    def came(self, key: str) -> None:
        self.uses[key] = 0
        in_small, in_main = len(self.from_small), len(self.from_main)
        if share := self.from_small.take(key):
            self.aim_at(self.target + share * max(1.0, in_main / in_small))
            self.main.append(key)
        elif share := self.from_main.take(key):
            self.aim_at(self.target - share * max(1.0, in_small / in_main))
            (self.main if len(self.small) >= self.target else self.small).append(key)
        else:
            self.small.append(key)
            if self.filling and len(self.small) > self.target:
                self.main.append(self.small.pop(0))

    def went(self, key: str) -> None:
        for queue in (self.small, self.main):
            if key in queue:
                queue.remove(key)
        del self.uses[key]

    def victim(self) -> str:
        self.filling = False
        while True:
            if len(self.small) >= self.target or not self.main:
                key = self.small.pop(0)
                if not self.uses[key]:
                    self.from_small.add(key)
                    return key
                self.uses[key] = 0
            else:
                key = self.main.pop(0)
                if not self.uses[key]:
                    self.from_main.add(key)
                    return key
                self.uses[key] -= 1
            self.main.append(key)


TEXTBOOKS: dict[str, Callable[[int], Any]] = {
    "lru": lambda capacity: TextbookLRU(),
    "fifo": lambda capacity: TextbookFIFO(),
    "lfu": lambda capacity: TextbookLFU(),
    "lfuda": lambda capacity: TextbookLFUDA(),
    "sieve": lambda capacity: TextbookSieve(),
    "s3fifo": PlainS3FIFO,
    "Reordering": lambda capacity: TextbookLRU(),
    "FirstKey": lambda capacity: TextbookFIFO(),
}
COUNTING = ("s3fifo", "sieve")
"""To these an increment is a use, and an overwrite is not."""

KEYS = st.integers(0, 11).map(lambda n: f"k{n}")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["get", "get", "get", "set", "set", "delete", "pop", "add", "incr", "update", "peek"]
        ),
        KEYS,
    ),
    max_size=150,
)


@pytest.mark.parametrize("name", TEXTBOOKS)
@given(max_size=st.integers(1, 8), steps=STEPS)
def test_eviction_order_is_the_textbook_s(name: str, max_size: int, steps: list[tuple[str, str]]) -> None:
    """After every operation exactly the keys that the textbook keeps are there."""
    cache = QuickCache(QuickCacheConfig(max_size=max_size, eviction_policy=POLICIES[name], default_ttl=NEVER))
    book = TEXTBOOKS[name](max_size)
    present: set[str] = set()

    def write(key: str) -> None:
        if key in present:
            book.wrote(key)
            return
        if len(present) == max_size:
            victim = book.victim()
            book.went(victim)
            present.remove(victim)
        book.came(key)
        present.add(key)

    for operation, key in steps:
        there = key in present
        if operation == "get":
            assert (cache.get(key, None) is not None) == there
            if there:
                book.used(key)
        elif operation == "pop":
            assert (cache.pop(key, None) is not None) == there
            if there:
                book.went(key)
                present.remove(key)
        elif operation == "peek":
            assert (key in cache) == cache.touch(key, NEVER, missing_ok=True) == there
        elif operation == "add":
            assert cache.add(key, 1, exist_ok=True) == (not there)
            if not there:
                write(key)
        elif operation == "incr":
            cache.incr(key, initial=0)
            if there and name in COUNTING:
                book.used(key)
            write(key)
        else:
            cache.set(key, 1)
            write(key)
        assert set(cache.keys()) == present
    check_books(cache, held)


@pytest.mark.parametrize("name", ["lru", "lfu", "lfuda", "fifo", "sieve", "s3fifo"])
def test_long_traces_equal_the_textbook(name: str) -> None:
    """Each get hits or misses as there, on skewed traces with loops and deletions, at several sizes."""
    for max_size, seed in ((1, 1), (16, 2), (64, 3)):
        chance = random.Random(seed)
        cache = QuickCache(QuickCacheConfig(max_size=max_size, eviction_policy=name, default_ttl=NEVER))
        book = TEXTBOOKS[name](max_size)
        present: set[str] = set()
        for n in range(6_000):
            key = f"k{int(chance.paretovariate(0.6)) % 300}" if n % 1000 < 700 else f"loop{n % 90}"
            if n % 50 == 49:
                assert cache.delete(key, missing_ok=True) == (key in present)
                if key in present:
                    book.went(key)
                    present.remove(key)
                continue
            hit = cache.get(key, None) is not None
            assert hit == (key in present), (n, key)
            if hit:
                book.used(key)
                continue
            cache.set(key, n)
            if len(present) == max_size:
                victim = book.victim()
                book.went(victim)
                present.remove(victim)
            book.came(key)
            present.add(key)
