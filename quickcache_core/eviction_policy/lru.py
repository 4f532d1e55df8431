"""Least recently used, exactly."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import cast

from quickcache_core.entry import Entry
from quickcache_core.eviction_policy.base import EvictionPolicy


class LRUEvictionPolicy(EvictionPolicy):
    """The entry that was not read or written for the longest time leaves.

    The table itself keeps the order, so this policy has no books; a hit is a third slower than with the
    default.
    """

    recency = "order"
    ordered_table = True
    _entries: OrderedDict[str, Entry]

    def attach(self, entries: Mapping[str, Entry], capacity: int) -> None:
        self._entries = cast("OrderedDict[str, Entry]", entries)

    def insert(self, entry: Entry) -> None:
        pass

    def update(self, entry: Entry) -> None:
        self._entries.move_to_end(entry.key)

    def remove(self, entry: Entry) -> None:
        pass

    def exchange(self, old: Entry, new: Entry) -> None:
        pass

    def evict(self) -> Entry:
        while True:
            try:
                return next(iter(self._entries.values()))
            except RuntimeError:
                pass  # a reader, who takes no lock, moved a key to the end between the two calls
