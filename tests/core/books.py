"""What each built-in eviction policy has in its books, and policies as users write them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from quickcache_core import BaseEvictionPolicy, EvictionPolicy
from quickcache_core.entry import Entry
from quickcache_core.eviction_policy import (
    FIFOEvictionPolicy,
    GDSFEvictionPolicy,
    LFUDAEvictionPolicy,
    LFUEvictionPolicy,
    LRUEvictionPolicy,
    S3FIFOEvictionPolicy,
    SieveEvictionPolicy,
)
from quickcache_core.eviction_policy.heap import EntryHeap
from quickcache_core.eviction_policy.queue import EntryQueue

Entries = OrderedDict[str, Entry]


class FirstKey(BaseEvictionPolicy):
    """Every hook of PyQuickCache, doing nothing; the oldest key leaves."""

    def on_add(self, cache: Entries, key: str) -> None:
        pass

    def on_update(self, cache: Entries, key: str) -> None:
        pass

    def on_access(self, cache: Entries, key: str) -> None:
        pass

    def on_delete(self, cache: Entries, key: str) -> None:
        pass

    def select_eviction_key(self, cache: Entries) -> str:
        return next(iter(cache))


class Reordering(BaseEvictionPolicy):
    """LRU as PyQuickCache's own was written: the order of the table is the book."""

    def on_add(self, cache: Entries, key: str) -> None:
        if key in cache:
            cache.move_to_end(key)

    def on_update(self, cache: Entries, key: str) -> None:
        if key in cache:
            cache.move_to_end(key)

    def on_access(self, cache: Entries, key: str) -> None:
        if key in cache:
            cache.move_to_end(key)

    def select_eviction_key(self, cache: Entries) -> str:
        if not cache:
            raise RuntimeError("Eviction requested on empty cache")
        return next(iter(cache))


class OwnBooks(BaseEvictionPolicy):
    """LFU with books by key. Its hooks fail as soon as a key comes or goes that they weren't told of."""

    def __init__(self) -> None:
        self.uses: dict[str, int] = {}

    def on_add(self, cache: Entries, key: str) -> None:
        assert key not in self.uses
        assert key in cache
        self.uses[key] = 1

    def on_update(self, cache: Entries, key: str) -> None:
        self.uses[key] += 1

    def on_access(self, cache: Entries, key: str) -> None:
        self.uses[key] += 1

    def on_delete(self, cache: Entries, key: str) -> None:
        assert key not in cache
        del self.uses[key]

    def select_eviction_key(self, cache: Entries) -> str:
        assert self.uses.keys() == cache.keys()
        return min(self.uses, key=self.uses.__getitem__)


class Newest(BaseEvictionPolicy):
    """The latest comer leaves, as bad as it is: only what is required is there."""

    def select_eviction_key(self, cache: Entries) -> str:
        return next(reversed(cache))


class AbsentKeys(BaseEvictionPolicy):
    """Wrong: the keys it selects aren't in the table, or aren't keys."""

    def __init__(self) -> None:
        self.count = 0

    def select_eviction_key(self, cache: Entries) -> Any:
        self.count += 1
        return ("nobody", None, 5, [], Entry)[self.count % 5]


class Raising(BaseEvictionPolicy):
    """Wrong: everything raises."""

    def on_add(self, cache: Entries, key: str) -> None:
        raise RuntimeError("on_add")

    def on_update(self, cache: Entries, key: str) -> None:
        raise RuntimeError("on_update")

    def on_access(self, cache: Entries, key: str) -> None:
        raise RuntimeError("on_access")

    def on_delete(self, cache: Entries, key: str) -> None:
        raise RuntimeError("on_delete")

    def select_eviction_key(self, cache: Entries) -> str:
        raise RuntimeError("select_eviction_key")


BUILT_IN = ("s3fifo", "lru", "lfu", "lfuda", "fifo", "sieve")
POLICIES: dict[str, str | type[EvictionPolicy]] = {
    **{name: name for name in BUILT_IN},
    **{cls.__name__: cls for cls in (FirstKey, Reordering, OwnBooks, Newest, AbsentKeys, Raising)},
}
WEIGHING_BUILT_IN = (*BUILT_IN, "gdsf")
"""Those for stores that go by bytes."""
WEIGHING_POLICIES: dict[str, str | type[EvictionPolicy]] = {**POLICIES, "gdsf": "gdsf"}
WRONG = ("AbsentKeys", "Raising")
"""Those of them that log errors; the cache goes on."""


def held(policy: EvictionPolicy) -> list[Entry]:
    """Every live entry in the books of the policy, as often as it is in there; the books are checked, too."""
    if isinstance(policy, LFUEvictionPolicy):
        return list(_by_uses(policy))
    if isinstance(policy, LFUDAEvictionPolicy):
        return list(_by_rank(policy))
    if isinstance(policy, GDSFEvictionPolicy):
        return list(_in_heap(policy._heap))
    if isinstance(policy, LRUEvictionPolicy):
        return list(policy._entries.values())
    if isinstance(policy, OwnBooks):
        assert policy.uses.keys() == policy._entries.keys()
    if isinstance(policy, BaseEvictionPolicy):
        return list(policy._entries.values())
    return [entry for queue in queues(policy) for entry in _queued(queue)]


def queues(policy: EvictionPolicy) -> list[EntryQueue]:
    """The queues of the policy, if it has such."""
    if isinstance(policy, S3FIFOEvictionPolicy):
        return [policy._small, policy._main]
    if isinstance(policy, SieveEvictionPolicy):
        return [policy._ahead, policy._behind]
    if isinstance(policy, FIFOEvictionPolicy):
        return [policy._queue]
    return []


def weight(policy: EvictionPolicy) -> int:
    """Everything in the books of the policy, dead or alive."""
    if isinstance(policy, GDSFEvictionPolicy):
        return len(policy._heap._old) + len(policy._heap._new)
    return sum(len(queue._front) + len(queue._back) for queue in queues(policy)) or len(held(policy))


def _queued(queue: EntryQueue) -> Iterator[Entry]:
    everything = [*queue._front, *queue._back]
    live = [entry for entry in everything if entry.deadline >= 0.0]
    assert queue.live == len(live), f"{queue.live} were counted, {len(live)} are live"
    assert queue._dead == len(everything) - len(live)
    for entry in live:
        assert entry.queue is queue
    yield from live


def _in_heap(heap: EntryHeap) -> Iterator[Entry]:
    everything = [*heap._old, *heap._new]
    live = [place for _, _, place in everything if place.entry is not None]
    assert heap.live == len(live), f"{heap.live} were counted, {len(live)} are live"
    assert heap._dead == len(everything) - len(live)
    for elements in (heap._old, heap._new):
        assert all(elements[(n - 1) // 2] < elements[n] for n in range(1, len(elements))), "no heap"
    for rank, _, place in everything:
        assert rank == place.rank
        if place.entry is not None:
            assert place.entry.queue is place
            yield place.entry


def _by_uses(policy: LFUEvictionPolicy) -> Iterator[Entry]:
    uses = policy._root
    while uses.higher is not policy._root:
        assert uses.higher.lower is uses
        assert uses.higher.count > uses.count
        uses = uses.higher
        assert uses.entries, f"nobody has {uses.count} uses"
        for key, entry in uses.entries.items():
            assert entry.key == key
            assert entry.queue is uses
            yield entry
    assert policy._root.lower is uses


def _by_rank(policy: LFUDAEvictionPolicy) -> Iterator[Entry]:
    for rank, peers in policy._ranks.items():
        assert peers, f"nobody has rank {rank}"
        assert policy._age <= rank <= policy._age + 10
        for key, entry in peers.items():
            assert entry.key == key
            assert entry.queue == rank
            assert 1 <= entry.frequency <= 10
            yield entry
