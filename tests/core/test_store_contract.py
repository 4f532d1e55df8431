"""The contract of a store, for the memory store with each kind of table."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest

from quickcache_core import QuickCache, QuickCacheConfig
from quickcache_core.entry import GONE
from quickcache_core.events import RemovalCause
from quickcache_core.eviction_policy import EvictionPolicy
from quickcache_core.registry import eviction_policies
from quickcache_core.store import Bounds, MemoryStore
from quickcache_core.store.table import TABLES, HookedTable
from quickcache_core.testing import ManualClock, StoreContract
from tests.core.books import POLICIES


class TestMemoryStore(StoreContract):
    @pytest.fixture(autouse=True, params=POLICIES)
    def _choose(self, request: pytest.FixtureRequest) -> None:
        self.policy: type[EvictionPolicy] = eviction_policies.resolve(POLICIES[request.param])

    def make_store(self, clock: ManualClock) -> MemoryStore:
        return MemoryStore(self.policy, 1000, clock)


class TestStoreOfACache(StoreContract):
    """As a configuration makes it."""

    def make_store(self, clock: ManualClock) -> MemoryStore:
        return QuickCache(QuickCacheConfig(max_size=100, clock=clock, cleanup_interval=1e9))._real_store


class Holds:
    """Tells by how much a store changed under each hold of its lock."""

    def __init__(self, store: MemoryStore, measure: Callable[[], int]) -> None:
        self._acquire, self._release = store.lock.acquire, store.lock.release
        self._measure = measure
        self._before = 0
        self._depth = 0
        self.most = 0
        """By how much the measure changed under one hold, at most."""
        self.count = 0
        store.lock.acquire, store.lock.release = self.acquire, self.release  # type: ignore[method-assign]

    def acquire(self, *arguments: Any) -> bool:
        got = self._acquire(*arguments)
        self._depth += got
        if self._depth == 1:
            self._before = self._measure()
        return got

    def release(self) -> None:
        if self._depth == 1:
            self.count += 1
            self.most = max(self.most, abs(self._measure() - self._before))
        self._depth -= 1
        self._release()


COUNT = 20_000
SLICE = 256


@pytest.mark.parametrize("policy", ["s3fifo", "lru", "lfu", "lfuda", "fifo", "sieve"])
class TestHolds:
    """Other threads never wait for more than 256 entries to be handled, whatever the operation."""

    def store(self, policy: str, ttl: float = 100.0) -> tuple[MemoryStore, Holds, ManualClock]:
        clock = ManualClock()
        store = MemoryStore(eviction_policies.resolve(policy), COUNT, clock)
        store.put_many({f"k{n}": n for n in range(COUNT)}, ttl, Bounds(COUNT))
        return store, Holds(store, lambda: len(store)), clock

    def test_sweep(self, policy: str) -> None:
        store, holds, clock = self.store(policy)
        clock.advance(200.0)
        assert store.sweep() == COUNT
        assert 0 < holds.most <= SLICE
        assert holds.count < COUNT / SLICE * 3

    def test_delete_many(self, policy: str) -> None:
        store, holds, _ = self.store(policy)
        assert store.remove_many(f"k{n}" for n in range(COUNT)) == COUNT
        assert 0 < holds.most <= SLICE

    def test_set_many(self, policy: str) -> None:
        store, holds, _ = self.store(policy)
        store.put_many({f"new{n}": n for n in range(COUNT)}, 100.0, Bounds(2 * COUNT))
        assert 0 < holds.most <= SLICE

    def test_shrink(self, policy: str) -> None:
        store, holds, _ = self.store(policy)
        store.shrink(Bounds(10))
        assert len(store) == 10
        assert 0 < holds.most <= SLICE

    def test_write_with_a_lower_bound(self, policy: str) -> None:
        """Another cache that shares the store may let in less."""
        store, holds, _ = self.store(policy)
        store.put("new", 1, 100.0, Bounds(10))
        assert len(store) == 10
        assert 0 < holds.most <= SLICE

    def test_many_writes_with_a_lower_bound(self, policy: str) -> None:
        """Also where each of many writes might do its part."""
        store, holds, _ = self.store(policy)
        store.put_many({f"new{n}": n for n in range(SLICE)}, 100.0, Bounds(10))
        assert len(store) == 10
        assert 0 < holds.most <= 2 * SLICE

    def test_cull(self, policy: str) -> None:
        store, holds, _ = self.store(policy)
        store.put("new", 1, 100.0, Bounds(COUNT, 0.5))
        assert len(store) == COUNT // 2 + 1
        assert 0 < holds.most <= SLICE

    def test_write_after_everything_has_expired(self, policy: str) -> None:
        """A write does a bounded part of the sweeping."""
        store, holds, clock = self.store(policy)
        clock.advance(200.0)
        store.put("new", 1, 100.0, Bounds(COUNT))
        assert COUNT - 3 * SLICE <= len(store) < COUNT
        assert holds.most <= 3 * SLICE

    def test_clear(self, policy: str) -> None:
        """The lock is held for an exchange, not for the entries."""
        store, holds, _ = self.store(policy)
        assert store.clear() == COUNT
        assert holds.count <= 5


# What readers without a lock rely on


class Watched:
    """An entry that notes in which order it is read and written."""

    def __init__(self, deadline: float) -> None:
        self.__dict__.update(key="k", value="value", deadline=deadline, frequency=0)
        self.__dict__["order"] = []

    def __getattribute__(self, name: str) -> Any:
        if name in ("value", "deadline"):
            object.__getattribute__(self, "order").append(f"read {name}")
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: object) -> None:
        if name in ("value", "deadline"):
            self.order.append(f"write {name}")
        object.__setattr__(self, name, value)


@pytest.mark.parametrize("recency", TABLES)
def test_readers_take_the_value_first(recency: str) -> None:
    """The other way round, a value might be wiped between the two, and None be taken for it."""
    entry: Any = Watched(5.0)
    table = TABLES[recency](lambda: 1.0, lambda key, default: default, OrderedDict(k=entry))
    if isinstance(table, HookedTable):
        table.on_hit = lambda entry: None
    assert table.get("k") == "value"
    assert entry.order == ["read value", "read deadline"]


def test_writers_mark_an_entry_before_they_wipe_it() -> None:
    """So that a reader who finds no value finds the mark, too."""
    store = MemoryStore(eviction_policies.resolve("fifo"), 10, ManualClock())
    population = store._population
    entry: Any = Watched(5.0)
    population.entries["k"] = entry
    assert population.leave(entry, RemovalCause.EVICTED, in_wheel=False) == "value"
    assert [step for step in entry.order if "write" in step] == ["write deadline", "write value"]
    assert entry.deadline == GONE


def test_a_subclass_of_str_is_no_string_to_compare() -> None:
    """It may compare as it likes, and this is asked under the lock."""

    class Same(str):
        def __eq__(self, other: object) -> bool:
            raise AssertionError("somebody else's code ran")

        __hash__ = str.__hash__

    store = MemoryStore(eviction_policies.resolve("fifo"), 10, ManualClock())
    store.put("k", Same("mine"), 5.0, Bounds(10))
    assert store.remove_if("k", "mine") is False
    assert store.touch_if("k", "mine", 50.0) is False
    assert store.remaining("k")[1] == 5.0


def test_write_at_the_instant_of_the_deadline() -> None:
    """What is over is over: the old entry has expired, the new one is another."""
    clock = ManualClock()
    store = MemoryStore(eviction_policies.resolve("fifo"), 10, clock)
    told: list[RemovalCause] = []
    store.subscribe(lambda key, cause: told.append(cause))
    store.put("k", 1, 5.0, Bounds(10))
    clock.advance(5.0)
    store.put("k", 2, 5.0, Bounds(10))
    assert told == [RemovalCause.EXPIRED]
