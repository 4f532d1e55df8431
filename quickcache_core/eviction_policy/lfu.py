"""Least frequently used, with least recently used among equals."""

from __future__ import annotations

from collections import OrderedDict

from quickcache_core.entry import Entry
from quickcache_core.eviction_policy.base import EvictionPolicy


class _Uses:
    """The entries used `count` times, least recently used first, linked to the next counts."""

    __slots__ = ("count", "entries", "higher", "lower")

    def __init__(self, count: int) -> None:
        self.count = count
        self.entries: OrderedDict[str, Entry] = OrderedDict()
        self.lower: _Uses = self
        self.higher: _Uses = self


class LFUEvictionPolicy(EvictionPolicy):
    """The entry with the fewest uses leaves; among equals the one not used for the longest time.

    Shah, Mitra, Matani, "An O(1) algorithm for implementing the LFU cache eviction scheme" (2010). Uses are
    reads and writes since the key was inserted. It keeps what was popular once for ever, and so misses about
    half as much again as LRU on workloads that change: where uses are to count, `lfuda` is the one to take.
    """

    recency = "hook"

    def __init__(self) -> None:
        self._root = _Uses(0)

    def insert(self, entry: Entry) -> None:
        self._file(entry, self._root)

    def access(self, entry: Entry) -> None:
        uses: _Uses = entry.queue
        del uses.entries[entry.key]
        self._file(entry, uses)
        if not uses.entries:
            self._unlink(uses)

    update = access

    def remove(self, entry: Entry) -> None:
        uses: _Uses = entry.queue
        del uses.entries[entry.key]
        if not uses.entries:
            self._unlink(uses)

    def exchange(self, old: Entry, new: Entry) -> None:
        uses: _Uses = old.queue
        uses.entries[new.key] = new
        new.queue = uses

    def evict(self) -> Entry:
        uses = self._root.higher
        _, entry = uses.entries.popitem(last=False)
        if not uses.entries:
            self._unlink(uses)
        return entry

    def _file(self, entry: Entry, below: _Uses) -> None:
        """Put the entry under the count after that of `below`."""
        count = below.count + 1
        uses = below.higher
        if uses.count != count:
            uses = _Uses(count)
            uses.lower, uses.higher = below, below.higher
            below.higher.lower = uses
            below.higher = uses
        uses.entries[entry.key] = entry
        entry.queue = uses

    @staticmethod
    def _unlink(uses: _Uses) -> None:
        uses.lower.higher = uses.higher
        uses.higher.lower = uses.lower
