"""The plain write in C against the reference in Python."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import random
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from types import FrameType
from typing import Any, get_type_hints
from unittest import mock

import pytest

from quickcache_core import NEVER, QuickCache, QuickCacheConfig
from quickcache_core.entry import FOREVER, Entry
from quickcache_core.errors import InvalidKey, InvalidTTL, QuickCacheError
from quickcache_core.eviction_policy import S3FIFOEvictionPolicy, s3fifo
from quickcache_core.eviction_policy.queue import EntryQueue
from quickcache_core.metrics.counters import Counters
from quickcache_core.serializer.isolation import thaw
from quickcache_core.store import accelerator, memory
from quickcache_core.store.life import Life
from quickcache_core.store.memory import MemoryStore
from quickcache_core.store.population import Population
from quickcache_core.testing import ManualClock, books
from quickcache_core.testing.books import population_of, store_of
from tests.core.books import held

pytestmark = pytest.mark.skipif(accelerator.writer() is None, reason="the writer in C isn't built here")
BIG = 1 << 40
"""No small integer, of which CPython has one object each."""


class Text(str):
    pass


class Odd(str):
    """Has the hash of a plain key, and is told when it is compared."""

    told: Callable[[], object] = staticmethod(lambda: None)

    def __hash__(self) -> int:
        return hash("odd")

    def __eq__(self, other: object) -> bool:
        type(self).told()
        return str.__eq__(self, str(other))


def check_books(cache: QuickCache) -> None:
    books.check_books(cache, held)


def make(clock: Any = None, **settings: Any) -> QuickCache:
    settings = {"default_ttl": NEVER, "max_size": 100, "cleanup_interval": 1e9, **settings}
    return QuickCache(QuickCacheConfig(**settings, **({} if clock is None else {"clock": clock})))


@pytest.fixture
def make_reference(monkeypatch: pytest.MonkeyPatch) -> Callable[..., QuickCache]:
    """Makes caches in which everything about a write is in Python."""

    def made(*args: Any, **settings: Any) -> QuickCache:
        with monkeypatch.context() as patch:
            patch.setattr(memory, "writer", lambda: None)
            patch.setattr(memory, "COUNTERS", Counters)
            patch.setattr(s3fifo, "QUEUE", EntryQueue)
            patch.setattr(s3fifo, "GHOST", s3fifo.Ghost)
            cache = make(*args, **settings)
        store = store_of(cache)
        store._make_policy = PurePolicy
        store.clear()
        return cache

    return made


class PurePolicy(S3FIFOEvictionPolicy):
    def attach(self, entries: Any, capacity: int) -> None:
        super().attach(entries, capacity)
        self._small, self._main = EntryQueue(), EntryQueue()
        self._small_ghost, self._main_ghost = s3fifo.Ghost(capacity), s3fifo.Ghost(capacity)


def written_in_c(cache: QuickCache, write: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the write did without the reference."""
    referred = []
    put = Population.put
    with monkeypatch.context() as patch:
        patch.setattr(Population, "put", lambda *args: (referred.append(1), put(*args))[1])
        write()
    return not referred


def added_in_c(cache: QuickCache, add: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the addition did without the store's `incr`."""
    referred = []
    incr = MemoryStore.incr
    with monkeypatch.context() as patch:
        patch.setattr(MemoryStore, "incr", lambda *args: (referred.append(1), incr(*args))[1])
        add()
    return not referred


def state(cache: QuickCache, digests: list[int]) -> dict[str, Any]:
    """All that there is to know of a cache with s3fifo."""
    population = population_of(cache)
    policy, wheel = population.policy, population.deadlines
    assert isinstance(policy, S3FIFOEvictionPolicy)

    def queue(one: Any) -> tuple[Any, ...]:
        live = [entry.key for entry in [*one._front, *one._back] if entry.deadline >= 0.0]
        return one.live, one._dead, live

    def chunk(one: Any) -> tuple[Any, ...]:
        return [entry and entry.key for entry in one.entries], one.gone, one.limit, one.place

    def ghost(one: Any) -> tuple[Any, ...]:
        return len(one), [n for n in digests if n in one.new], [n for n in digests if n in one.old]

    return {
        "entries": [
            (key, entry.value, entry.deadline, entry.frequency) for key, entry in population.entries.items()
        ],
        "queues": (queue(policy._small), queue(policy._main)),
        "ghosts": (ghost(policy._small_ghost), ghost(policy._main_ghost)),
        "target": (policy._target, policy._filling),
        "wheel": {n: [chunk(one) for one in bucket.chunks] for n, bucket in wheel._buckets.items()},
        "due": (wheel._ticks, wheel.next_due, wheel.new_chunk),
        "counters": {name: getattr(population.counters, name) for name in Counters.__slots__},
        "lookups": (store_of(cache).hits, store_of(cache).misses),
        "left": (population.debt, population.unfinished, population.wants_thread),
    }


# The same as the reference


def step(chance: random.Random, keys: list[str], ttls: list[Any]) -> tuple[str, tuple[Any, ...]]:
    """Something to do with a cache."""
    key, number = chance.choice(keys), chance.random()
    if number < 0.75:
        return "set", (key, chance.randrange(1000), chance.choice(ttls))
    if number < 0.90:
        return "get", (key, None)
    if number < 0.95:
        return "delete", (key,)
    if number < 0.96:
        return "touch", (key, chance.choice(ttls))
    if number < 0.97:
        return "add", (key, 1, chance.choice(ttls))
    if number < 0.99:
        return "incr", (key, chance.choice([1, -3, BIG]))
    return chance.choice([("cleanup", ()), ("set_many", ({key: 1, "other": 2},))])


TTLS: dict[str, list[Any]] = {
    "without TTL": [None],
    "one TTL": [3600],
    "two": [None, 60.0],
    "short": [0.5, 1, 2.5],
    "many": [None, 0.2, 1, 5.0, 60, 3600, 86_400 * 30, 1e12, 1e300, NEVER],
}


@pytest.mark.parametrize("size", [1, 2, 40, 1000])
@pytest.mark.parametrize("ttls", TTLS)
def test_the_same_as_the_reference(ttls: str, size: int, make_reference: Callable[..., QuickCache]) -> None:
    """Results, entries, queues, ghosts, wheel and counters are the same after whatever is done."""
    chance = random.Random(f"{ttls} {size}")
    clock = ManualClock()
    caches = make(clock, max_size=size), make_reference(clock, max_size=size)
    keys = [f"k{n}" for n in range(2 + size * 3)]
    digests = [hash(key) for key in keys]
    for number in range(max(2_000, size * 12)):
        name, arguments = step(chance, keys, TTLS[ttls])
        results = []
        for cache in caches:
            try:
                results.append(getattr(cache, name)(*arguments))
            except QuickCacheError as error:
                results.append(type(error))
        assert results[0] == results[1], (number, name, arguments)
        if number % 50 == 0:
            clock.advance(chance.choice([0.0, 0.01, 0.3, 5.0]))
        if number % 211 == 0:
            assert state(caches[0], digests) == state(caches[1], digests), (number, name)
    assert state(caches[0], digests) == state(caches[1], digests)
    for cache in caches:
        check_books(cache)


@pytest.mark.parametrize("ttl", [NEVER, 3600])
def test_churn(ttl: Any, make_reference: Callable[..., QuickCache]) -> None:
    """New keys only, many times what fits: chunks are thinned out, hashes forgotten."""
    clock = ManualClock()
    caches = (
        make(clock, max_size=3_000, default_ttl=ttl),
        make_reference(clock, max_size=3_000, default_ttl=ttl),
    )
    keys = [f"k{n}" for n in range(30_000)]
    for cache in caches:
        for number, key in enumerate(keys):
            cache.set(key, number)
            if number % 7 == 0:
                cache.get(keys[number // 2], None)
        check_books(cache)
    digests = [hash(key) for key in keys]
    assert state(caches[0], digests) == state(caches[1], digests)


# What it does by itself, and what it leaves to the reference


def test_plain_writes_need_no_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """New keys, overwrites and evictions, however the TTL is given."""
    for ttl in (NEVER, 60.0):
        cache = make(max_size=10, default_ttl=ttl)
        cache.set("a", 0)

        def write(cache: QuickCache = cache, ttl: Any = ttl) -> None:
            cache.set("a", 1)
            for number in range(30):
                cache.set(f"k{number}", number)
            cache.set(f"k{number}", number)
            store_of(cache).put("stored", 1, FOREVER if ttl is NEVER else 60.0, cache._bounds)

        assert written_in_c(cache, write, monkeypatch)
        check_books(cache)
    cache.set("b", 1)
    assert written_in_c(cache, lambda: cache.set("b", 2, 70), monkeypatch)
    assert written_in_c(cache, lambda: cache.set("b", 3, ttl_sec=80), monkeypatch)
    assert written_in_c(cache, lambda: cache.set("b", 4, 90.5), monkeypatch)
    assert cache.get("b") == 4
    assert 90 < cache.ttl("b") <= 90.5


@pytest.mark.parametrize("isolation", ["auto", "copy"])
def test_values_that_can_be_changed(isolation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Are never handed out; what nobody can change goes past Python with `auto`."""
    cache = make(isolation=isolation, serializer="pickle")
    cache.set("a", 0)
    put = store_of(cache).put
    for value, kept in [
        ("text", True),
        (1, True),
        (None, True),
        (Text("b"), False),
        ([1], False),
        ({}, False),
    ]:
        calls = []
        with monkeypatch.context() as patch:
            patch.setattr(cache, "_put", lambda *args, calls=calls: (calls.append(1), put(*args))[1])
            cache.set("a", value)
        assert (not calls) is (kept and isolation == "auto")
        assert cache.get("a") == value
    stored: list[int] = []
    cache.set("a", stored)
    stored.append(1)
    assert cache.get("a") == []


LEFT: dict[str, tuple[dict[str, Any], Callable[[QuickCache], object]]] = {
    "a shorter TTL": ({}, lambda cache: (cache.set("a", 1, 60), cache.set("a", 1, 50))),
    "a TTL for an entry without": ({}, lambda cache: cache.set("a", 1, 60)),
    "a key of another class": ({}, lambda cache: cache.set(Text("b"), 1)),
    "an overdue entry": ({}, lambda cache: cache.set("late", 1)),
    "another policy": ({"eviction_policy": "lru"}, lambda cache: cache.set("new", 1)),
}


@pytest.mark.parametrize("what", LEFT)
def test_what_is_left_to_the_reference(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry is there, and the books agree."""
    settings, write = LEFT[what]
    clock = ManualClock()
    cache = make(clock, **settings)
    cache.set("a", 0)
    cache.set("late", 0, 1)
    clock.advance(2)
    assert not written_in_c(cache, lambda: write(cache), monkeypatch)
    check_books(cache)


def frames(write: Callable[[], object]) -> list[str]:
    """The functions in Python that a call needs, by name."""
    called: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            called.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        write()
    finally:
        sys.setprofile(None)
    return called


@pytest.mark.parametrize(
    ("policy", "key"),
    [("lru", "a"), ("lru", "new"), ("lfu", "a"), ("lfuda", "new"), ("fifo", "new"), ("sieve", "new")],
)
def test_the_writer_is_not_asked_for_what_it_refuses(policy: str, key: str) -> None:
    """That would make such writes slower than they are without it."""
    cache = make(eviction_policy=policy)
    cache.set("a", 0)
    called = frames(lambda: cache.set(key, 1))
    assert "put" in called
    assert "run" not in called, called
    assert cache.get(key) == 1
    assert "run" in frames(lambda: make(isolation="auto").set("a", [1]))


def test_bad_arguments() -> None:
    """The errors of the reference."""
    cache = make()
    for key in (1, None, b"k", ["k"]):
        with pytest.raises(InvalidKey):
            cache.set(key, 1)  # type: ignore[arg-type]
    for ttl in (0, -1, True, float("inf"), FOREVER, float("nan"), "1"):
        with pytest.raises(InvalidTTL):
            cache.set("k", 1, ttl)  # type: ignore[arg-type]
    for arguments in ((), ("k",), ("k", 1, 2, 3)):
        with pytest.raises(TypeError):
            cache.set(*arguments)
    with pytest.raises(TypeError):
        cache.set("k", 1, other=2)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        QuickCache.set("no cache", "k", 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        QuickCache.set()  # type: ignore[call-arg]
    assert len(cache) == 0


def test_ways_to_call_it() -> None:
    """Bound, by name, through the class, from a subclass that has its own, with keywords only."""

    class Doubling(QuickCache):
        def set(self, key: str, value: Any, ttl_sec: Any = None, **more: Any) -> None:
            super().set(key, value * 2, ttl_sec, **more)

    cache, doubling = make(), Doubling(QuickCacheConfig(default_ttl=NEVER))
    bound = cache.set
    bound("a", 1)
    cache.set(key="b", value=2)
    cache.set("c", value=3)
    QuickCache.set(cache, "d", 4)
    cache.set("e", 5, tags=["t"])
    doubling.set("a", 1)
    assert [cache.get(key) for key in "abcde"] == [1, 2, 3, 4, 5]
    assert doubling.get("a") == 2
    assert QuickCache.set.__name__ == "set"
    assert bound.__name__ == "set"
    cache.__dict__["set"] = lambda *args: None
    cache.set("a", 9)
    assert cache.get("a") == 1


def test_a_write_within_a_write() -> None:
    """It is put off, as the reference does it, until the outer one is through."""
    cache = make()
    lock = store_of(cache).lock
    with lock:
        lock.busy = True
        cache.set("a", 1)
        assert "a" not in cache
        assert len(lock.postponed) == 1
        lock.busy = False
    cache.set("b", 1)
    assert cache.get("a") == 1
    check_books(cache)


def test_listeners_hear_of_each_write() -> None:
    """From the moment they are there, and no longer than that."""
    cache = make(max_size=2)
    cache.set("a", 1)
    events: list[Any] = []
    stop = cache.subscribe(events.append)
    for key in "abcd":
        cache.set(key, 2)
    heard = len(events)
    stop()
    cache.set("e", 1)
    assert heard >= 4
    assert len(events) == heard


def test_a_cache_that_is_cleared_resized_or_switched_off() -> None:
    """A write goes where the others go."""
    cache = make(max_size=10)
    cache.set("a", 1)
    cache.clear()
    cache.set("b", 1)
    assert list(cache.keys()) == ["b"]
    cache.resize(2)
    for key in "cdef":
        cache.set(key, 1)
    assert len(cache) == 2
    with cache.disabled():
        cache.set("g", 1)
    assert "g" not in cache
    cache.reset_metrics()
    cache.set("h", 1)
    assert cache.get_metrics_snapshot()["sets"] == 1
    check_books(cache)


# Additions

NUMBERS = [0, -1, 255, BIG, -(10**30), 2.5, float("inf"), True, None, "text", [1], Text("1"), Decimal("1.5")]
DELTAS = [1, -1, 0, 2**62, -(10**40), 10**400, 0.5, float("nan"), True, Decimal(2), "1", None, [1]]


def sum_or_error(cache: QuickCache, *arguments: Any, **named: Any) -> Any:
    try:
        number = cache.incr(*arguments, **named)
    except Exception as error:
        return type(error), str(error)
    return type(number), repr(number)


@pytest.mark.parametrize("isolation", ["share", "auto", "copy"])
@pytest.mark.parametrize("policy", ["s3fifo", "fifo", "lru", "lfu", "sieve"])
def test_additions_are_those_of_the_reference(
    policy: str, isolation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums, errors, deadlines, counts and uses, whatever is there and whatever is added."""
    clock = ManualClock()
    settings = {"eviction_policy": policy, "isolation": isolation, "serializer": "pickle"}
    ours = make(clock, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(memory, "writer", lambda: None)
        theirs = make(clock, **settings)

    def traces(cache: QuickCache) -> Any:
        store = store_of(cache)
        entries = [
            (entry.key, repr(thaw(entry.value)), entry.deadline, entry.frequency)
            for entry in population_of(cache).entries.values()
        ]
        counts = {name: getattr(store.counters, name) for name in Counters.__slots__}
        return entries, counts, store.hits, store.misses

    chance = random.Random(f"{policy} {isolation}")
    keys = [*"abcdef", Text("a"), Text("g")]
    for number in range(3_000):
        key = chance.choice(keys)
        ttl = chance.choice([None, 1, 5.0, 3600])
        value, delta, initial = chance.choice(NUMBERS), chance.choice(DELTAS), chance.choice([2, 0.5, None])
        rich, named = chance.random() < 0.1, chance.random() < 0.2
        choice = chance.random()
        results = []
        for cache in (ours, theirs):
            if choice < 0.25:
                cache.set(key, value, ttl, tags=["t"] if rich else ())
                results.append(None)
            elif named:
                results.append(sum_or_error(cache, key, delta, initial=initial, ttl_sec=ttl))
            elif choice < 0.6:
                results.append(sum_or_error(cache, key, delta))
            else:
                results.append(sum_or_error(cache, key))
        assert results[0] == results[1], (number, key, delta)
        if number % 20 == 0:
            clock.advance(chance.choice([0.0, 0.3, 1.0]))
        if number % 100 == 0:
            assert traces(ours) == traces(theirs)
    assert traces(ours) == traces(theirs)
    check_books(ours)


def test_plain_additions_need_no_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """To integers and floats of any size, with and without a TTL, by any clock."""
    for clock in (None, ManualClock()):
        for ttl in (NEVER, 1.0, 60.0):
            for isolation in ("share", "auto"):
                cache = make(clock, default_ttl=ttl, isolation=isolation)
                cache.set("a", 2**62)
                cache.set("f", 0.5)

                def add(cache: QuickCache = cache) -> None:
                    assert cache.incr("a") == 2**62 + 1
                    assert cache.incr("a", 2**62) == 2**63 + 1
                    assert cache.incr("a", -(2**63)) == 1
                    assert cache.incr("a", 0.25) == 1.25
                    assert cache.incr("f") == 1.5
                    assert cache.decr("f", 2) == -0.5
                    assert cache.incr("a", 1, initial=5) == 2.25
                    assert cache.incr("a", initial=0.5, ttl_sec=30) == 3.25
                    assert cache.incr("a", initial=None, ttl_sec=30.5) == 4.25

                left = cache.ttl("a")
                assert added_in_c(cache, add, monkeypatch)
                assert (left is None) is (ttl is NEVER)
                assert left is None or 0 < cache.ttl("a") <= left
                assert population_of(cache).entries["a"].frequency == 3
                snapshot = cache.get_metrics_snapshot()
                assert (snapshot["sets"], snapshot["hits"], snapshot["misses"]) == (11, 0, 0)
                check_books(cache)


ADDED_IN_PYTHON: dict[str, tuple[dict[str, Any], Callable[[QuickCache], object]]] = {
    "a bool": ({}, lambda cache: (cache.set("a", True), cache.incr("a"))),
    "a bool that is added": ({}, lambda cache: cache.incr("a", True)),
    "another number": ({}, lambda cache: cache.incr("a", Decimal(1))),
    "a key of another class": ({}, lambda cache: cache.incr(Text("a"))),
    "a delta that is named": ({}, lambda cache: cache.incr("a", delta=1)),
    "another initial number": ({}, lambda cache: cache.incr("a", initial=Decimal(1))),
    "a key that is not there": ({}, lambda cache: cache.incr("new", initial=1)),
    "an overdue entry": ({}, lambda cache: cache.incr("late", initial=1)),
    "an entry with tags": ({}, lambda cache: (cache.set("a", 1, tags=["t"]), cache.incr("a"))),
    "a policy that is told": ({"eviction_policy": "lru"}, lambda cache: cache.incr("a")),
    "a listener": ({}, lambda cache: (cache.subscribe(lambda event: None), cache.incr("a"))),
    "a namespace": (
        {},
        lambda cache: (cache.namespace("n").set("a", 1), cache.namespace("n").incr("a")),
    ),
    "bytes that count": ({"max_bytes": 1 << 20}, lambda cache: cache.incr("a")),
    "a load under way": (
        {},
        lambda cache: cache.get_or_set("b", lambda: cache.incr("a")),
    ),
}


@pytest.mark.parametrize("what", ADDED_IN_PYTHON)
def test_what_is_added_in_python(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is out of the ordinary, and the sum is the same."""
    settings, add = ADDED_IN_PYTHON[what]
    clock = ManualClock()
    cache = make(clock, **settings)
    cache.set("a", 1)
    cache.set("late", 1, 1)
    clock.advance(2)
    assert not added_in_c(cache, lambda: add(cache), monkeypatch)
    added = {"another number": Decimal(2), "a key that is not there": 1, "a namespace": 1}
    added["an overdue entry"] = 1
    assert cache.get("a") == added.get(what, 2)
    check_books(cache)


def test_an_addition_within_a_write() -> None:
    """It is put off until the outer write is through, as the reference does it; what it would be is told."""
    cache = make()
    cache.set("a", 1)
    lock = store_of(cache).lock
    with lock:
        lock.busy = True
        assert cache.incr("a", 5) == 6
        assert cache.get("a") == 1
        lock.busy = False
    cache.set("b", 1)
    assert cache.get("a") == 6


def test_an_addition_that_fails() -> None:
    """An error of the numbers themselves is the caller's to see, and nothing has changed."""
    cache = make()
    cache.set("f", 1.5)
    with pytest.raises(OverflowError):
        cache.incr("f", 10**400)
    assert cache.get("f") == 1.5
    assert cache.get_metrics_snapshot()["sets"] == 1
    for arguments in ((), ("f", 1, 2), ("f", "1"), ("f", None)):
        with pytest.raises(TypeError):
            cache.incr(*arguments)
    for ttl in (0, -1, True, FOREVER, float("nan"), "1"):
        with pytest.raises(InvalidTTL):
            cache.incr("f", 1, initial=1, ttl_sec=ttl)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        cache.incr("f", initial="1")
    with pytest.raises(TypeError):
        cache.incr("f", other=1)  # type: ignore[call-arg]
    for key in (1, None, b"f", ["f"]):
        with pytest.raises(InvalidKey):
            cache.incr(key)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        QuickCache.incr("no cache", "f")  # type: ignore[arg-type]
    check_books(cache)


def test_a_key_that_compares_while_something_is_added() -> None:
    """The entry may leave meanwhile, or get another value: no addition to what is gone."""
    cache = make(max_size=10)
    doings: list[Callable[[], object]] = [
        lambda: cache.set("odd", 100),
        cache.clear,
        lambda: cache.delete("odd", missing_ok=True),
    ]
    chance = random.Random(5)
    active: list[int] = []

    def told() -> None:
        if not active:
            active.append(1)
            chance.choice(doings)()
            active.clear()

    for number in range(300):
        cache.clear()
        cache.set(Odd("odd"), number)
        cache.set("other", 1)
        Odd.told = staticmethod(told)
        try:
            outcome = sum_or_error(cache, "odd")
        finally:
            Odd.told = staticmethod(lambda: None)
        assert outcome[1] in (repr(number + 1), "101") or outcome[0].__name__ == "KeyNotFound"
        check_books(cache)


def test_references_of_numbers() -> None:
    """A sum is held once while it is stored; what it was made of by nobody."""
    cache = make(default_ttl=3600)
    value, delta, key = BIG + 1, BIG + 2, "a key " + str(BIG)
    cache.set(key, 0)
    before = [sys.getrefcount(one) for one in (value, delta, key, cache)]
    for _ in range(1_000):
        cache.set(key, value)
        cache.incr(key, delta)
    number = cache.incr(key, delta)
    assert sys.getrefcount(number) == 3
    assert [sys.getrefcount(one) for one in (value, delta, key, cache)] == before
    used = []
    tracemalloc.start()
    try:
        for _ in range(5):
            for _ in range(10_000):
                cache.incr(key, delta)
                sum_or_error(cache, "absent", delta)
            used.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    # Threads of other tests may need memory meanwhile, but not each time.
    assert min(after - before for before, after in pairwise(used)) < 5_000


def test_threads_that_count() -> None:
    """No addition is lost, beside others that write."""
    cache = make(max_size=20, default_ttl=60)
    cache.set("n", 0)
    interval = sys.getswitchinterval()

    def work(seed: int) -> None:
        for number in range(5_000):
            cache.incr("n")
            if number % 3 == seed % 3:
                cache.set(f"k{number % 10}", number)
            if number % 5 == 0:
                cache.incr("n", 0.0)
                cache.incr("n", True)
                cache.decr("n")

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert cache.get("n") == 20_000
    check_books(cache)


# Python code in the middle


@pytest.mark.parametrize("what", ["set", "clear", "delete"])
def test_a_key_that_compares_in_a_way_of_its_own(what: str) -> None:
    """Whatever it does to the cache, the books agree."""
    cache = make(max_size=3)
    doings: dict[str, Callable[[], object]] = {
        "set": lambda: cache.set("inner", 1),
        "clear": cache.clear,
        "delete": lambda: cache.delete("a", missing_ok=True),
    }
    cache.set("a", 1)
    cache.set(Odd("odd"), 1)
    active = []

    def told() -> None:
        if not active:
            active.append(1)
            doings[what]()
            active.clear()

    Odd.told = staticmethod(told)
    try:
        for number in range(50):
            cache.set("odd", number)
            cache.set(f"k{number % 5}", number)
            cache.get("odd", None)
    finally:
        Odd.told = staticmethod(lambda: None)
    check_books(cache)


@pytest.mark.parametrize("ttl", [NEVER, 60])
def test_values_whose_finalisers_use_the_cache(ttl: Any) -> None:
    """Overwritten or evicted, they find whole books."""
    cache = make(max_size=20, default_ttl=ttl)

    class Value:
        def __init__(self, number: int) -> None:
            self.number = number
            self.circle = self if number % 3 == 0 else None

        def __del__(self) -> None:
            cache.set(f"k{self.number % 31}", None)
            cache.get(f"k{self.number % 7}", None)

    threshold = gc.get_threshold()
    gc.set_threshold(5, 2, 2)
    try:
        for number in range(3_000):
            cache.set(f"k{number % 50}", Value(number))
    finally:
        gc.set_threshold(*threshold)
    check_books(cache)
    cache.clear()


def test_a_clock_that_uses_the_cache() -> None:
    """A write of its own is through before the one that asked for the time begins."""
    cache: QuickCache | None = None
    clock = ManualClock()

    class Clock:
        wall = clock.wall

        def monotonic(self) -> float:
            nonlocal cache
            used, cache = cache, None
            if used is not None:
                used.set("inner", 1)
                used.clear()
                cache = used
            return clock.monotonic()

    made = make(Clock(), max_size=3, default_ttl=60)
    cache = made
    for number in range(20):
        made.set(f"k{number}", number)
    cache = None
    check_books(made)


# Nothing is lost, and nothing left


@pytest.mark.parametrize("ttl", [NEVER, 3600])
def test_references(ttl: Any) -> None:
    """A value is held once while it is stored, and by nobody afterwards."""
    cache = make(max_size=300, default_ttl=ttl)
    value, key = object(), "a key of its own " + str(BIG)
    before, keys_before = sys.getrefcount(value), sys.getrefcount(key)
    for _ in range(3):
        cache.set(key, value)
    assert sys.getrefcount(value) == before + 1
    for number in range(5_000):
        cache.set(f"k{number}", value)
    assert sys.getrefcount(value) == before + 300
    check_books(cache)
    cache.clear()
    gc.collect()
    assert sys.getrefcount(value) == before
    assert sys.getrefcount(key) == keys_before


@pytest.mark.parametrize("ttl", [NEVER, 3600])
def test_memory_does_not_grow(ttl: Any) -> None:
    """Neither by overwrites nor by evictions, and a cache that goes leaves nothing."""

    def entries() -> int:
        gc.collect()
        return sum(type(one) is Entry for one in gc.get_objects())

    before = entries()
    cache = make(max_size=500, default_ttl=ttl)

    def churn(cache: QuickCache) -> int:
        for number in range(20_000):
            cache.set(f"k{number % 1700}", BIG + number)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        churn(cache)
        used = churn(cache)
        assert churn(cache) < used + 20_000
    finally:
        tracemalloc.stop()
    assert entries() <= before + 501 + 500
    del cache
    # The thread that looks after caches may be having a look at it.
    deadline = time.monotonic() + 10
    while entries() > before + 1:
        assert time.monotonic() < deadline, "something has the entries still"
        time.sleep(0.05)


def test_entries_that_readers_hold_are_not_used_again() -> None:
    """Only the memory of those that nobody has is."""
    cache = make(max_size=2)
    held = []
    for number in range(50):
        cache.set(f"k{number}", number)
        held.append(population_of(cache).entries[f"k{number}"])
    assert len({id(entry) for entry in held}) == 50
    assert [entry.key for entry in held] == [f"k{number}" for number in range(50)]


def test_writers_beside_each_other() -> None:
    """Threads that set, clear, delete and count at once leave whole books."""
    cache = make(max_size=50, default_ttl=60)
    interval = sys.getswitchinterval()
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for number in range(3_000):
                key = f"k{chance.randrange(120)}"
                cache.set(key, number)
                if number % 5 == 0:
                    cache.delete(key, missing_ok=True)
                if number % 7 == 0:
                    cache.set(key, number, 5)
                if number % 100 == seed:
                    cache.clear()
        except BaseException as error:
            errors.append(error)

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors
    snapshot = cache.get_metrics_snapshot()
    assert snapshot["sets"] == 4 * (3_000 + 429)
    check_books(cache)


# The queue and the ghost


def test_a_queue_is_as_the_reference() -> None:
    """Whatever enters, leaves and is buried, in whatever order."""
    from quickcache_core.eviction_policy import _queue

    chance = random.Random(3)
    for _ in range(30):
        queues: list[Any] = [_queue.EntryQueue(), EntryQueue()]
        inside: list[tuple[Entry, Entry]] = []
        for number in range(1_500):
            choice = chance.random()
            if choice < 0.5:
                pair = Entry(f"k{number}", 0, FOREVER), Entry(f"k{number}", 0, FOREVER)
                for queue, entry in zip(queues, pair, strict=True):
                    queue.append(entry)
                inside.append(pair)
            elif choice < 0.75 and inside:
                pair = inside.pop(0)
                assert [queue.popleft() for queue in queues] == list(pair)
            elif inside:
                pair = inside.pop(chance.randrange(len(inside)))
                for queue, entry in zip(queues, pair, strict=True):
                    entry.deadline = -1.0
                    queue.bury()
            for name in ("_front", "_back"):
                assert [e.key for e in getattr(queues[0], name)] == [e.key for e in getattr(queues[1], name)]
            assert (queues[0].live, queues[0]._dead) == (queues[1].live, queues[1]._dead)
    with pytest.raises(IndexError):
        _queue.EntryQueue().popleft()
    with pytest.raises(TypeError):
        _queue.EntryQueue().append("no entry")


@pytest.mark.parametrize("spread", [1, 64, 1 << 48])
def test_a_ghost_is_as_the_reference(spread: int) -> None:
    """Hashes with few bits in common, or only those, are found again."""
    from quickcache_core.eviction_policy import _queue

    chance = random.Random(spread)
    for capacity in (1, 2, 7, 100, 1000):
        ghosts: list[Any] = [_queue.Ghost(capacity), s3fifo.Ghost(capacity)]
        for number in range(3_000):
            digest = chance.randrange(2 * capacity) * spread - 10 * spread
            if digest == -1:
                continue
            for ghost in ghosts:
                ghost.add(digest)
            if number % 3 == 0:
                digest = chance.randrange(2 * capacity) * spread
                for ghost in ghosts:
                    ghost.discard(digest)
            if number % 1000 == 999:
                for ghost in ghosts:
                    ghost.limit = max(1, capacity // 3)
            assert len(ghosts[0]) == len(ghosts[1])
            if number % 50 == 0:
                for digest in [n * spread - 10 * spread for n in range(2 * capacity + 10)]:
                    if digest != -1:
                        assert (digest in ghosts[0].new) == (digest in ghosts[1].new)
                        assert (digest in ghosts[0].old) == (digest in ghosts[1].old)


class Tag(str):
    """An etag that is told when nobody has it any more."""

    told: Callable[[], object] = staticmethod(lambda: None)

    def __del__(self) -> None:
        type(self).told()


@pytest.mark.parametrize("same_key", [False, True])
def test_dead_entries_whose_finalisers_write(same_key: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue has what left the cache for a while, and may be the last to have it."""
    cache, other, chance = make(max_size=10), make(max_size=10_000), random.Random(7)
    key, told = "", 0

    def write() -> None:
        nonlocal told
        told += 1
        name = f"{told}"
        if same_key:
            cache.set(key, -1)
        other.set(name, 1)  # takes the spare entry

    for number in range(2000):
        key = f"{chance.randrange(20)}"
        if chance.random() < 0.2:
            store_of(cache).put_with(key, number, Life(FOREVER, etag=Tag("e")), cache._bounds)
            if chance.random() < 0.7:
                cache.delete(key, missing_ok=True)
        else:
            with monkeypatch.context() as patch:
                patch.setattr(Tag, "told", staticmethod(write))
                cache.set(key, number)
        assert len(cache) <= 10
    check_books(cache)
    check_books(other)
    assert told > 50
    assert len(other) == told


def test_set_under_other_names() -> None:
    class Facade:
        put = QuickCache.set

    class Named(QuickCache):
        put = QuickCache.set

    cache = Named(QuickCacheConfig(default_ttl=NEVER))
    cache.put("a", 1)
    Facade.put(cache, "b", 2)  # type: ignore[arg-type]
    assert (cache.get("a"), cache.get("b")) == (1, 2)
    assert vars(QuickCache)["set"].__wrapped__.__name__ == "set"


@pytest.mark.parametrize("name", ["get", "set", "incr"])
def test_methods_are_pickled_and_shown_as_the_functions_that_they_were(name: str) -> None:
    method = getattr(QuickCache, name)
    assert pickle.loads(pickle.dumps(method)) is method
    assert copy.deepcopy(method) is method
    assert repr(method).startswith(f"<function QuickCache.{name} at ")
    assert (method.__name__, method.__qualname__, method.__module__) == (
        name,
        f"QuickCache.{name}",
        "quickcache_core.cache",
    )
    assert method.__doc__
    function = inspect.unwrap(method)
    assert inspect.signature(method) == inspect.signature(function)
    assert next(iter(inspect.signature(method).parameters)) == "self"
    assert get_type_hints(method) == get_type_hints(function)
    assert inspect.getsource(method) == inspect.getsource(function)
    assert inspect.isroutine(method)
    assert inspect.isfunction(method)
    assert not inspect.iscoroutinefunction(method)


@pytest.mark.parametrize("name", ["get", "set", "incr"])
def test_mocks_know_the_signatures(name: str) -> None:
    """Of methods of the class, and of those of an object."""
    method = mock.create_autospec(getattr(QuickCache, name))
    of_object = getattr(mock.create_autospec(QuickCache)(), name)
    arguments = ("k", 1)
    method(None, *arguments)
    of_object(*arguments)
    for call in (method, of_object):
        with pytest.raises(TypeError):
            call()
        with pytest.raises(TypeError):
            call(None, *arguments, other=1)


def test_no_door_for_other_methods() -> None:
    """A method without a twin in C says so at once."""

    def other(self: object) -> None: ...

    with pytest.raises(ValueError, match="other"):
        accelerator.door(other)
    with pytest.raises(TypeError):
        type(vars(QuickCache)["set"])(len)
