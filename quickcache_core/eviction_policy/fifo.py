"""First in, first out."""

from __future__ import annotations

from quickcache_core.entry import Entry
from quickcache_core.eviction_policy.base import EvictionPolicy
from quickcache_core.eviction_policy.queue import QUEUE


class FIFOEvictionPolicy(EvictionPolicy):
    """The entry that was inserted first leaves. Reads and overwrites change nothing.

    The cheapest policy, and the base line for all others: it misses more than any of them on most workloads.
    """

    def __init__(self) -> None:
        self._queue = QUEUE()

    def insert(self, entry: Entry) -> None:
        self._queue.append(entry)

    def remove(self, entry: Entry) -> None:
        self._queue.bury()

    def evict(self) -> Entry:
        return self._queue.popleft()
