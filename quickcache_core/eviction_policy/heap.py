"""A heap of entries from which any entry can leave without a search."""

from __future__ import annotations

from heapq import heappop, heappush

from quickcache_core.entry import Entry

_SLACK = 64
_STEPS = 4


class Place:
    """Where an entry is in the heap: its rank, and what its policy remembers of it."""

    __slots__ = ("age", "entry", "rank", "uses")

    def __init__(self, entry: Entry, age: int, uses: int) -> None:
        self.entry: Entry | None = entry
        self.age = age
        self.uses = uses
        self.rank = 0


class EntryHeap:
    """Entries by rank, lowest first, equal ones in order of arrival; whoever left stays as dead weight for a
    while.

    As `EntryQueue`, and for the same reasons: a burial is only counted, and when more than half is dead, each
    further one takes four elements off the end of `_old`, where a list that is a heap can be cut without
    harm, and pushes those that live onto `_new`. So no call takes longer than the others.
    """

    __slots__ = ("_count", "_dead", "_new", "_old", "live")

    def __init__(self) -> None:
        self._new: list[tuple[int, int, Place]] = []
        self._old: list[tuple[int, int, Place]] = []
        self._count = 0
        self._dead = 0
        self.live = 0

    def push(self, place: Place) -> None:
        self.live += 1
        # The number keeps the order among equals, and places from being compared.
        self._count = number = self._count + 1
        heappush(self._new, (place.rank, number, place))

    def pop(self) -> Place:
        """The lowest. Raises `IndexError` when there is none."""
        while True:
            old, new = self._old, self._new
            heap = old if old and not (new and new[0] < old[0]) else new
            place = heappop(heap)[2]
            if place.entry is not None:
                self.live -= 1
                return place
            self._dead -= 1

    def bury(self) -> None:
        """An element of the heap has just lost its entry."""
        self.live -= 1
        self._dead += 1
        if self._dead > _SLACK and self._dead > self.live:
            self._compact()

    def _compact(self) -> None:
        if not self._old:
            self._old, self._new = self._new, self._old
        old, new = self._old, self._new
        for _ in range(_STEPS):
            if not old:
                break
            element = old.pop()
            if element[2].entry is not None:
                heappush(new, element)
            else:
                self._dead -= 1
