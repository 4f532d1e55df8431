"""Adaptive S3-FIFO, the default policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from quickcache_core.compiled import found
from quickcache_core.entry import Entry
from quickcache_core.eviction_policy.base import EvictionPolicy
from quickcache_core.eviction_policy.queue import QUEUE

_START = 0.10
_LEAST = 0.01
_MOST = 0.95
_DROPPED_AT_ONCE = 16_384
"""Hashes that may be dropped in one go; it takes some 100 µs."""


class Ghost:
    """Hashes of keys that were evicted lately: between half and all of the last `capacity` of them.

    Two generations, the older one dropped when the younger one is full. Dropping a large one at once would
    hold everybody up, so two of its members go with each insertion. Dictionaries without values rather than
    sets, which take up to three times the space.
    """

    __slots__ = ("_dying", "limit", "new", "old")

    def __init__(self, capacity: int) -> None:
        self.limit = max(1, capacity // 2)
        self.new: dict[int, None] = {}
        self.old: dict[int, None] = {}
        self._dying: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self.new) + len(self.old)

    def add(self, digest: int) -> None:
        new = self.new
        new[digest] = None
        if len(new) >= self.limit:
            if self.limit > _DROPPED_AT_ONCE:
                self._dying = self.old
            self.old, self.new = new, {}
        dying = self._dying
        if dying:
            dying.popitem()
            if dying:
                dying.popitem()

    def discard(self, digest: int) -> None:
        self.new.pop(digest, None)
        self.old.pop(digest, None)


if TYPE_CHECKING:
    GHOST = Ghost
else:
    GHOST = getattr(found("quickcache_core.eviction_policy._queue"), "Ghost", Ghost)
    """The one that the policy uses: in C where it was built."""


class S3FIFOEvictionPolicy(EvictionPolicy):
    """A small queue tries newcomers out, a main queue keeps what was used; their sizes adapt to the workload.

    A newcomer enters the small queue, or the main one if it was evicted lately. When the small queue is at
    its target, its oldest entry moves to the main queue if it was used and is evicted otherwise; else the
    main queue's oldest goes round again if it was used, and is evicted otherwise. A miss on a key that the
    small queue gave up raises the target, on one that the main queue gave up lowers it, by half as much if it
    was given up long ago. Scans pass through the small queue and harm nobody.

    What the main queue gave up comes back to it only while the small queue is to shrink for it, and is tried
    out again otherwise. If it always came back, it would drive out the next in line, in a loop the very entry
    that is wanted next, and that one the next.

    Yang et al., "FIFO queues are all you need for cache eviction" (SOSP 2023); the adaptation after Megiddo
    and Modha, "ARC: a self-tuning, low overhead replacement cache" (FAST 2003). The half steps, and who comes
    back to the main queue, are from measurements on recorded requests (`benchmarks/hit_ratio.py`).
    """

    # For the writer in C, which reads them where they are.
    __slots__ = ("_capacity", "_filling", "_main", "_main_ghost", "_small", "_small_ghost", "_target")

    def attach(self, entries: Mapping[str, Entry], capacity: int) -> None:
        self._small = QUEUE()
        self._main = QUEUE()
        self._small_ghost = GHOST(capacity)
        self._main_ghost = GHOST(capacity)
        self._capacity = capacity
        self._target = 0.0
        self._move_target(_START * capacity)
        self._filling = True

    def resize(self, capacity: int) -> None:
        target = self._target / self._capacity * capacity
        self._capacity = capacity
        self._move_target(target)
        self._small_ghost.limit = self._main_ghost.limit = max(1, capacity // 2)

    def insert(self, entry: Entry) -> None:
        digest = hash(entry.key)
        ghost = self._small_ghost
        lately = digest in ghost.new
        if lately or digest in ghost.old:
            step = max(1.0, len(self._main_ghost) / len(ghost))
            self._move_target(self._target + (step if lately else step / 2))
            ghost.discard(digest)
            self._main.append(entry)
            return
        small = self._small
        ghost = self._main_ghost
        lately = digest in ghost.new
        if lately or digest in ghost.old:
            step = max(1.0, len(self._small_ghost) / len(ghost))
            self._move_target(self._target - (step if lately else step / 2))
            ghost.discard(digest)
            (self._main if small.live >= self._target else small).append(entry)
            return
        small.append(entry)
        if self._filling and small.live > self._target:
            # Before the first eviction there is room for everybody: let the main queue have it.
            self._main.append(small.popleft())

    def remove(self, entry: Entry) -> None:
        entry.queue.bury()

    def evict(self) -> Entry:
        self._filling = False
        small, main = self._small, self._main
        while True:
            if small.live >= self._target or not main.live:
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

    def _move_target(self, target: float) -> None:
        """Within the bounds, and at least one entry."""
        least, most = max(1.0, _LEAST * self._capacity), max(1.0, _MOST * self._capacity)
        self._target = min(max(target, least), most)
