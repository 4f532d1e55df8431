"""Whether the books that a memory store keeps about its entries agree with each other."""
# ruff: noqa: S101 - asserts are what a test consists of

from __future__ import annotations

from collections.abc import Callable, Iterable

from quickcache_core.cache import QuickCache
from quickcache_core.entry import FOREVER, Entry
from quickcache_core.eviction_policy.base import EvictionPolicy
from quickcache_core.store.deadlines import _TICKS_PER_SECOND as TICKS_PER_SECOND
from quickcache_core.store.deadlines import Deadlines
from quickcache_core.store.memory import MemoryStore
from quickcache_core.store.population import Population
from quickcache_core.store.rich import RichEntry
from quickcache_core.store.weighing import WeighingPopulation

Held = Callable[[EvictionPolicy], Iterable[Entry]]
"""The live entries in the books of a policy, each as often as it is in there."""


def store_of(cache: QuickCache) -> MemoryStore:
    """The store behind the cache, also while the cache is switched off."""
    store = cache._real_store
    assert isinstance(store, MemoryStore), "only memory stores keep such books"
    return store


def population_of(cache: QuickCache) -> Population:
    return store_of(cache)._population


def check_books(cache: QuickCache, held: Held | None = None) -> None:
    """Raises `AssertionError` unless table, timing wheel and policy know the same entries, and their weights
    add up.

    `held` tells what a policy has in its books; without it the policy is not looked into. Takes the lock of
    the store, and time by the number of entries.
    """
    check_store_books(store_of(cache), held)


def check_store_books(store: MemoryStore, held: Held | None = None) -> None:
    """As `check_books`, for a store without a cache."""
    try:
        with store.lock:
            # As in a write: what finalisers do to the cache meanwhile is put off.
            store.lock.busy = True
            try:
                _check_population(store, held)
            finally:
                store.lock.busy = False
    finally:
        store.finish()


def _check_population(store: MemoryStore, held: Held | None) -> None:
    population = store._population
    assert store._table.entries is population.entries, "readers see another table than writers"
    check_table(population)
    check_wheel(population.deadlines, population.entries.values())
    check_weights(population)
    if held is not None:
        check_policy(held(population.policy), population.entries)


def check_table(population: Population) -> None:
    for key, entry in population.entries.items():
        assert entry.key == key, f"{entry.key!r} is filed under {key!r}"
        assert entry.deadline >= 0.0, f"{key!r} has left, and is still in the table"


def check_policy(held: Iterable[Entry], entries: dict[str, Entry]) -> None:
    found = list(held)
    keys = [entry.key for entry in found]
    assert len(keys) == len(set(keys)), f"the policy has a key in two places: {sorted(keys)}"
    assert set(keys) == set(entries), (
        f"only the policy has {set(keys) - set(entries)}, only the table has {set(entries) - set(keys)}"
    )
    for entry in found:
        assert entries[entry.key] is entry, f"the policy has a former entry of {entry.key!r}"


def check_weights(population: Population) -> None:
    if isinstance(population, WeighingPopulation):
        weights = sum(entry.weight for entry in population.entries.values())  # type: ignore[attr-defined]
        assert population.used == weights, f"{population.used} bytes were counted, {weights} are there"


def end_of(entry: Entry) -> float:
    """When the entry is to leave."""
    return entry.end if isinstance(entry, RichEntry) else entry.deadline


def check_wheel(deadlines: Deadlines, entries: Iterable[Entry]) -> None:
    ticks = sorted(deadlines._ticks)
    assert len(ticks) == len(set(ticks)), "a tick comes up twice"
    assert ticks == sorted(deadlines._buckets), "a bucket has no tick, or a tick no bucket"
    next_due = ticks[0] / TICKS_PER_SECOND if ticks else FOREVER
    assert deadlines.next_due == next_due, f"next_due is {deadlines.next_due}, the first tick is {next_due}"
    if not ticks:
        assert deadlines.next_due is FOREVER
    held: dict[int, Entry] = {}
    for tick, bucket in deadlines._buckets.items():
        for place, chunk in enumerate(bucket.chunks):
            assert chunk.bucket is bucket
            assert chunk.place == place
            assert chunk.entries.count(None) == chunk.gone, "entries that left were miscounted"
            for index, entry in enumerate(chunk.entries):
                if entry is None:
                    continue
                assert id(entry) not in held, f"{entry.key!r} is in the wheel twice"
                held[id(entry)] = entry
                assert entry.chunk is chunk
                assert entry.index == index
                late = tick / TICKS_PER_SECOND - end_of(entry)
                assert late <= 1 / TICKS_PER_SECOND, f"{entry.key!r} comes up {late} s late"
    expected = {id(entry): entry for entry in entries if end_of(entry) is not FOREVER}
    missing = [entry.key for number, entry in expected.items() if number not in held]
    foreign = [entry.key for number, entry in held.items() if number not in expected]
    assert not missing, f"will never expire by themselves: {missing}"
    assert not foreign, f"have left, or have no end, and are in the wheel: {foreign}"
