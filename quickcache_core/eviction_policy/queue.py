"""A queue of entries from which any entry can leave in constant time."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from quickcache_core.compiled import found
from quickcache_core.entry import Entry

_SLACK = 64
_STEPS = 4


class EntryQueue:
    """Entries in order, oldest first; entries that left the cache stay in it as dead weight for a while.

    A deque can't drop an element from its middle, and a linked list costs three times as much per insert in
    Python. So an entry that leaves is only counted (`bury`), and skipped when its turn comes. When more than
    half is dead, every further burial moves four elements from `_back` to the end of `_front`, dropping the
    dead: order is kept, no call takes longer than the others, and at most about two thirds of the elements
    are dead at any time.
    """

    __slots__ = ("_back", "_dead", "_front", "live")

    def __init__(self) -> None:
        self._front: deque[Entry] = deque()
        self._back: deque[Entry] = deque()
        self._dead = 0
        self.live = 0
        """Entries in it that are in the cache.

        An attribute, because a call of `len` costs as much as the rest.
        """

    def append(self, entry: Entry) -> None:
        entry.queue = self
        self.live += 1
        self._back.append(entry)

    def popleft(self) -> Entry:
        """The oldest live entry. Raises `IndexError` when there is none."""
        while True:
            entry = (self._front or self._back).popleft()
            if entry.deadline >= 0.0:
                self.live -= 1
                return entry
            self._dead -= 1

    def bury(self) -> None:
        """One of the entries in here has left the cache."""
        self.live -= 1
        self._dead += 1
        if self._dead > _SLACK and self._dead > self.live:
            self._compact()

    def _compact(self) -> None:
        front, back = self._front, self._back
        for _ in range(_STEPS):
            if not back:
                break
            entry = back.popleft()
            if entry.deadline >= 0.0:
                front.append(entry)
            else:
                self._dead -= 1
        if not back:
            self._front, self._back = back, front


if TYPE_CHECKING:
    QUEUE = EntryQueue
else:
    QUEUE = getattr(found("quickcache_core.eviction_policy._queue"), "EntryQueue", EntryQueue)
    """The one that policies use: in C where it was built."""
