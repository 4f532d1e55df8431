"""Least frequently used with dynamic aging."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from quickcache_core.entry import Entry
from quickcache_core.eviction_policy.base import EvictionPolicy

_MOST_USES: Final = 10
"""More are not told apart: it keeps favourites from outliving their time, which costs the uncapped policy a
third of what it gains over LRU.
"""


class LFUDAEvictionPolicy(EvictionPolicy):
    """As LFU, but the cache has an age, and what isn't used any more is overtaken by it.

    Each use gives an entry the rank age + uses, of which at most 10 count; the entry with the lowest rank
    leaves, among equals the one not used for the longest time, and its rank is the new age. So a newcomer
    ranks right above whoever left last, and a former favourite leaves when the age has caught up with it.

    Arlitt, Cherkasova, Dilley, Friedrich, Jin, "Evaluating content management techniques for web proxy
    caches" (ACM SIGMETRICS Performance Evaluation Review 27(4), 2000), where it is called LFU-DA and
    counts without a bound. Uses are reads and writes since the key was inserted.
    """

    recency = "hook"

    def __init__(self) -> None:
        self._age = 0
        self._ranks: dict[int, OrderedDict[str, Entry]] = {}
        """The entries by rank, least recently used first.

        All ranks are between the age and 10 more.
        """

    # `entry.frequency` is the number of uses, `entry.queue` the rank.

    def insert(self, entry: Entry) -> None:
        entry.frequency = 1
        self._file(entry)

    def access(self, entry: Entry) -> None:
        self.remove(entry)
        if entry.frequency < _MOST_USES:
            entry.frequency += 1
        self._file(entry)

    update = access

    def remove(self, entry: Entry) -> None:
        rank = entry.queue
        peers = self._ranks[rank]
        del peers[entry.key]
        if not peers:
            del self._ranks[rank]

    def exchange(self, old: Entry, new: Entry) -> None:
        new.queue = old.queue
        self._ranks[new.queue][new.key] = new

    def evict(self) -> Entry:
        ranks, rank = self._ranks, self._age
        while rank not in ranks:
            rank += 1
        self._age = rank
        peers = ranks[rank]
        _, entry = peers.popitem(last=False)
        if not peers:
            del ranks[rank]
        return entry

    def _file(self, entry: Entry) -> None:
        rank = entry.queue = self._age + entry.frequency
        peers = self._ranks.get(rank)
        if peers is None:
            peers = self._ranks[rank] = OrderedDict()
        peers[entry.key] = entry
