"""Adaptive S3-FIFO, the default policy."""

from __future__ import annotations

from collections.abc import Mapping

from quickcache_core.entry import Entry
from quickcache_core.eviction_policy.base import EvictionPolicy
from quickcache_core.eviction_policy.queue import EntryQueue

_START = 0.10
_LEAST = 0.01
_MOST = 0.90


class Ghost:
    """Hashes of keys that were evicted lately: between half and all of the last `capacity` of them.

    Two generations of a plain set, the older one dropped when the younger one is full. Dropping a large set
    at once would hold everybody up, so two of its members go with each insertion.
    """

    __slots__ = ("_dying", "_new", "_old", "limit")

    def __init__(self, capacity: int) -> None:
        self.limit = max(1, capacity // 2)
        self._new: set[int] = set()
        self._old: set[int] = set()
        self._dying: set[int] = set()

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def __contains__(self, digest: int) -> bool:
        return digest in self._new or digest in self._old

    def add(self, digest: int) -> None:
        new = self._new
        new.add(digest)
        if len(new) >= self.limit:
            self._dying, self._old, self._new = self._old, new, set()
        dying = self._dying
        if dying:
            dying.pop()
            if dying:
                dying.pop()

    def discard(self, digest: int) -> None:
        self._new.discard(digest)
        self._old.discard(digest)


class S3FIFOEvictionPolicy(EvictionPolicy):
    """A small queue tries newcomers out, a main queue keeps what was used; their sizes adapt to the workload.

    A newcomer enters the small queue, or the main one if it was evicted lately. When the small queue is at
    its target, its oldest entry moves to the main queue if it was used and is evicted otherwise; else the
    main queue's oldest goes round again if it was used, and is evicted otherwise. A miss on a key that the
    small queue gave up raises the target, on one that the main queue gave up lowers it. Scans pass through
    the small queue and harm nobody.

    Yang et al., "FIFO queues are all you need for cache eviction" (SOSP 2023); the adaptation after
    Megiddo and Modha, "ARC: a self-tuning, low overhead replacement cache" (FAST 2003).
    """

    def attach(self, entries: Mapping[str, Entry], capacity: int) -> None:
        self._capacity = capacity
        self.clear(entries)

    def clear(self, entries: Mapping[str, Entry]) -> None:
        self._small = EntryQueue()
        self._main = EntryQueue()
        self._small_ghost = Ghost(self._capacity)
        self._main_ghost = Ghost(self._capacity)
        self._target = self._clamped(_START * self._capacity)
        self._filling = True

    def resize(self, capacity: int) -> None:
        share = self._target / self._capacity
        self._capacity = capacity
        self._target = self._clamped(share * capacity)
        self._small_ghost.limit = self._main_ghost.limit = max(1, capacity // 2)

    def insert(self, entry: Entry) -> None:
        digest = hash(entry.key)
        small_ghost, main_ghost = self._small_ghost, self._main_ghost
        if digest in small_ghost:
            self._target = self._clamped(self._target + max(1.0, len(main_ghost) / len(small_ghost)))
            small_ghost.discard(digest)
            self._main.append(entry)
        elif digest in main_ghost:
            self._target = self._clamped(self._target - max(1.0, len(small_ghost) / len(main_ghost)))
            main_ghost.discard(digest)
            self._main.append(entry)
        else:
            small = self._small
            small.append(entry)
            if self._filling and len(small) > self._target:
                # Before the first eviction there is room for everybody: let the main queue have it.
                self._main.append(small.popleft())

    def remove(self, entry: Entry) -> None:
        entry.queue.bury()

    def evict(self) -> Entry:
        self._filling = False
        small, main = self._small, self._main
        while True:
            if len(small) >= self._target or not main:
                entry = small.popleft()
                if entry.frequency:
                    entry.frequency = 0
                    main.append(entry)
                else:
                    self._small_ghost.add(hash(entry.key))
                    return entry
            else:
                entry = main.popleft()
                if entry.frequency:
                    entry.frequency -= 1
                    main.append(entry)
                else:
                    self._main_ghost.add(hash(entry.key))
                    return entry

    def _clamped(self, target: float) -> float:
        return min(max(target, _LEAST * self._capacity, 1.0), max(1.0, _MOST * self._capacity))
