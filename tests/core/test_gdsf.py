"""Greedy-dual size frequency: what it keeps, its books, and where it can't be had."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcache_core import ConfigError, EvictionPolicy, QuickCache, QuickCacheConfig
from quickcache_core.entry import FOREVER
from quickcache_core.eviction_policy import GDSFEvictionPolicy
from quickcache_core.eviction_policy.heap import EntryHeap
from quickcache_core.store import Bounds, MemoryStore
from quickcache_core.store.base import ABSENT
from quickcache_core.store.life import Life
from quickcache_core.testing import ManualClock
from quickcache_core.testing.books import check_store_books
from tests.core.books import held


def make(policy: type[EvictionPolicy] = GDSFEvictionPolicy) -> MemoryStore:
    """A store whose values are their own weights."""
    return MemoryStore(policy, 1000, ManualClock(), weigher=lambda key, stored: int(stored))


def policy_of(store: MemoryStore) -> GDSFEvictionPolicy:
    policy = store._population.policy
    assert isinstance(policy, GDSFEvictionPolicy)
    return policy


def bounds(max_bytes: int, max_size: int = 1000) -> Bounds:
    return Bounds(max_size, None, max_bytes)


# What it keeps


def test_one_large_for_many_small() -> None:
    """The large one leaves, young as it is."""
    store = make()
    for n in range(50):
        store.put(f"small{n}", 10, FOREVER, bounds(1000))
    store.put("large", 500, FOREVER, bounds(1000))
    store.put("new", 10, FOREVER, bounds(1000))
    assert "large" not in store
    assert len(store) == 51


def test_one_large_that_is_used() -> None:
    """Uses make up for size."""
    store = make()
    for n in range(50):
        store.put(f"small{n}", 10, FOREVER, bounds(1000))
    store.put("large", 30, FOREVER, bounds(1000))
    for _ in range(3):
        store.get("large")
    for n in range(60):
        store.put(f"more{n}", 10, FOREVER, bounds(1000))
    assert "large" in store
    assert "small0" not in store


def test_a_former_favourite() -> None:
    """It leaves when the others have aged enough."""
    store = make()
    store.put("favourite", 10, FOREVER, bounds(100))
    for n in range(30):
        for _ in range(3):
            store.get("favourite")
        store.put(f"k{n}", 10, FOREVER, bounds(100))
    assert "favourite" in store
    for n in range(1000):
        store.put(f"l{n}", 10, FOREVER, bounds(100))
    assert "favourite" not in store


def test_another_size() -> None:
    """A value that has grown ranks by its new size, without a use."""
    store = make()
    for key in "abc":
        store.put(key, 10, FOREVER, bounds(100))
    store.put("b", 60, FOREVER, bounds(100))
    store.put("d", 30, FOREVER, bounds(100))
    assert "b" not in store
    store.put("c", 1, FOREVER, bounds(100))
    for n in range(10):
        store.put(f"more{n}", 10, FOREVER, bounds(100))
    assert "c" in store
    assert "a" not in store


def test_growing_by_counting() -> None:
    """A sum that weighs more ranks lower, and counting is a use."""
    store = make()
    for key in "abc":
        store.put(key, 10, FOREVER, bounds(100))
    store.incr("a", 1, None, 0, FOREVER, bounds(100))
    assert policy_of(store)._heap._new[0][2].entry is not store._table.entries["b"]
    assert store._table.entries["a"].frequency == 1
    check_store_books(store, held)


@pytest.mark.parametrize("size", [50, 10])
def test_a_change_of_kind(size: int) -> None:
    """A plain entry that gets tags keeps its uses, those that are in the books as well."""
    store = make()
    store.put("a", size, FOREVER, bounds(100))
    for _ in range(3):
        store.get("a")
    for key in "bcd":
        store.put(key, 50, FOREVER, bounds(100))
    store.put_with("a", 50, Life(FOREVER, tags=(1,)), bounds(100))
    for key in "ef":
        store.put(key, 50, FOREVER, bounds(100))
    assert "a" in store
    check_store_books(store, held)


def test_values_without_weight() -> None:
    """A weigher may say 0."""
    store = MemoryStore(GDSFEvictionPolicy, 3, ManualClock(), weigher=lambda key, stored: 0)
    for n in range(10):
        store.put(str(n), n, FOREVER, bounds(1000, 3))
    assert len(store) == 3
    assert "9" in store


class PlainGDSF:
    """As the docstring of the policy has it, by a list of all entries."""

    def __init__(self) -> None:
        self.age = 0
        self.entries: dict[str, dict[str, int]] = {}
        self.order = count()

    def rank(self, key: str) -> tuple[int, int]:
        entry = self.entries[key]
        return entry["age"] + entry["uses"] * 2**40 // entry["size"], entry["order"]

    def came(self, key: str, size: int) -> None:
        self.entries[key] = {
            "age": self.age,
            "uses": 1,
            "hits": 0,
            "size": size,
            "order": next(self.order),
        }

    def used(self, key: str) -> None:
        entry = self.entries[key]
        entry["hits"] = min(3, entry["hits"] + 1)

    def wrote(self, key: str, size: int) -> None:
        entry = self.entries[key]
        if size != entry["size"]:
            entry["size"], entry["order"] = size, next(self.order)

    def evict(self) -> None:
        while True:
            key = min(self.entries, key=self.rank)
            entry = self.entries[key]
            self.age = max(self.age, self.rank(key)[0])
            if not entry["hits"]:
                del self.entries[key]
                return
            entry["uses"] += entry["hits"]
            entry["hits"] = 0
            entry["age"], entry["order"] = self.age, next(self.order)

    def used_bytes(self) -> int:
        return sum(entry["size"] for entry in self.entries.values())


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["get", "get", "get", "set", "set", "delete"]),
        st.integers(0, 15).map(lambda n: f"k{n}"),
        st.sampled_from([1, 3, 10, 10, 25, 60]),
    ),
    max_size=200,
)


def equal_to_the_plain_one(limit: int, max_size: int, steps: list[tuple[str, str, int]]) -> None:
    """Check that after every operation exactly the keys that the plain one keeps are there."""
    store, plain = make(), PlainGDSF()
    bound = bounds(limit, max_size)
    for operation, key, size in steps:
        there = key in plain.entries
        if operation == "get":
            assert (store.get(key, ABSENT) is not ABSENT) == there
            if there:
                plain.used(key)
        elif operation == "delete":
            store.remove(key)
            plain.entries.pop(key, None)
        elif there:
            # One that doesn't fit any more makes others leave, which is the store's affair.
            if plain.used_bytes() - plain.entries[key]["size"] + size <= limit:
                store.put(key, size, FOREVER, bound)
                plain.wrote(key, size)
        else:
            store.put(key, size, FOREVER, bound)
            while plain.used_bytes() + size > limit:
                plain.evict()
            if len(plain.entries) >= max_size:
                plain.evict()
            plain.came(key, size)
        assert set(store.keys("")) == set(plain.entries)
    check_store_books(store, held)


@given(limit=st.integers(60, 120), max_size=st.integers(1, 12), steps=STEPS)
def test_any_operations(limit: int, max_size: int, steps: list[tuple[str, str, int]]) -> None:
    """As the plain one."""
    equal_to_the_plain_one(limit, max_size, steps)


def test_many_operations() -> None:
    """As the plain one, for so long that uses and age come to count, in a store of 1 and of 60 entries."""
    rng = random.Random(4)
    for limit, max_size in ((100, 1), (1000, 20), (1000, 60), (600, 60)):
        steps = []
        for n in range(6_000):
            operation = rng.choices(("get", "set", "delete"), (60, 38, 2))[0]
            key = f"k{int(rng.paretovariate(0.5)) % 200}"
            # Mostly of one size.
            steps.append((operation, key, 1 + hash_of(key) % 60 if n % 10 else rng.randrange(1, 60)))
        equal_to_the_plain_one(limit, max_size, steps)


def hash_of(key: str) -> int:
    return int(key[1:]) * 7919


# Its books


def dead_and_live(heap: EntryHeap) -> tuple[int, int]:
    places = [place for _, _, place in (*heap._old, *heap._new)]
    live = sum(place.entry is not None for place in places)
    return len(places) - live, live


def orders(keys: list[str]) -> Iterator[list[str]]:
    yield keys
    yield keys[::-1]
    yield [*keys[::2], *keys[1::2]]
    yield random.Random(3).sample(keys, len(keys))


def test_dead_weight() -> None:
    """However deletions are spread, at most about two thirds of a large heap are dead."""
    keys = [f"k{n}" for n in range(4000)]
    for order in orders(keys):
        store = make()
        bound = bounds(10**9, 4000)
        store.put_many({key: 1 + n * 7919 % 1000 for n, key in enumerate(keys)}, FOREVER, bound)
        heap = policy_of(store)._heap
        for n, key in enumerate(order):
            store.remove(key)
            if n % 100 == 0:
                dead, live = dead_and_live(heap)
                assert dead <= max(3 * live, 500), (n, dead, live)
                check_store_books(store, held)
        assert sum(dead_and_live(heap)) <= 600


def test_the_same_keys_in_ever_other_sizes() -> None:
    """Overwrites leave no more in the heap than deletions do."""
    store = make()
    heap = policy_of(store)._heap
    for n in range(50_000):
        store.put(f"k{n % 10}", 1 + n % 97, FOREVER, bounds(10**6))
        if n % 1000 == 0:
            assert sum(dead_and_live(heap)) <= 200
    check_store_books(store, held)


def test_order_survives_the_tidying() -> None:
    """Whatever was deleted in between, entries leave by rank."""
    rng = random.Random(8)
    store = make()
    bound = bounds(10**9)
    sizes = {f"k{n}": rng.randrange(1, 10**6) for n in range(900)}
    for key, size in sizes.items():
        store.put(key, size, FOREVER, bound)
    for key in rng.sample(list(sizes), 700):
        store.remove(key)
        del sizes[key]
    policy = policy_of(store)
    assert policy._heap._old, "nothing was tidied"
    leaving = [policy.evict().key for _ in range(len(sizes))]
    assert leaving == sorted(sizes, key=sizes.__getitem__, reverse=True)


def test_hits_of_other_threads() -> None:
    """They take no lock, and harm nothing while entries come, change and go."""
    store = make()
    done = threading.Event()

    def read(seed: int) -> None:
        rng = random.Random(seed)
        while not done.is_set():
            size = store.get(f"k{rng.randrange(300)}", 1)
            assert 1 <= size <= 40

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    rng = random.Random(9)
    try:
        for n in range(20_000):
            key = f"k{rng.randrange(300)}"
            if n % 10 == 0:
                store.remove(key)
            store.put(key, rng.randrange(1, 40), FOREVER, bounds(2000))
    finally:
        done.set()
        for thread in threads:
            thread.join()
    check_store_books(store, held)
    assert (store.used_bytes() or 0) <= 2000


# Where it can't be had


@pytest.mark.parametrize("policy", ["gdsf", "GDSF", GDSFEvictionPolicy])
def test_without_weights(policy: Any) -> None:
    """The configuration says what is missing, and what would do without."""
    with pytest.raises(ConfigError, match=r"eviction_policy=.*set one, or take 'lfuda'") as caught:
        QuickCacheConfig(eviction_policy=policy)
    assert caught.value.field == "max_bytes"
    with QuickCache(QuickCacheConfig(eviction_policy=policy, max_bytes="1MB")) as cache:
        cache.set("k", "v")
        assert cache.get("k") == "v"


def test_named_stores() -> None:
    """All caches of a store have weights, or the first one can't be made."""
    config = QuickCacheConfig(location="gdsf by name", max_bytes="1MB", eviction_policy="gdsf")
    first, second = QuickCache(config), QuickCache(config)
    first.set("k", 1)
    assert second.get("k") == 1
    with pytest.raises(ConfigError, match="max_bytes"):
        config.replace(max_bytes=None)
