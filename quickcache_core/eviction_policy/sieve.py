"""SIEVE: FIFO with a moving hand that spares what was used."""

from __future__ import annotations

from quickcache_core.entry import Entry
from quickcache_core.eviction_policy.base import EvictionPolicy
from quickcache_core.eviction_policy.queue import QUEUE


class SieveEvictionPolicy(EvictionPolicy):
    """A hand moves from the oldest entry to the newest; it spares an entry that was used since it last came
    by.

    Zhang et al., "SIEVE is simpler than LRU" (NSDI 2024). The queue is cut at the hand: `_behind` holds what
    the hand has passed in this round, `_ahead` what it has not, both oldest first. Good for web traffic of
    one kind; loses to the default on most mixed workloads.
    """

    def __init__(self) -> None:
        self._ahead = QUEUE()
        self._behind = QUEUE()

    def insert(self, entry: Entry) -> None:
        if not self._ahead.live:
            # The hand has passed the newest entry: it goes on at the oldest, not at the newcomer.
            self._ahead, self._behind = self._behind, self._ahead
        self._ahead.append(entry)

    def remove(self, entry: Entry) -> None:
        entry.queue.bury()

    def evict(self) -> Entry:
        while True:
            try:
                entry = self._ahead.popleft()
            except IndexError:
                self._ahead, self._behind = self._behind, self._ahead
                entry = self._ahead.popleft()
            if not entry.frequency:
                return entry
            entry.frequency = 0
            self._behind.append(entry)
