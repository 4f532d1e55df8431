"""A write from the first attempt to the last: room is made for it, it is counted, and listeners are told."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from quickcache_core.errors import StoreUnavailable
from quickcache_core.events import RemovalCause
from quickcache_core.metrics.counters import Counters
from quickcache_core.store.base import RemovalListener
from quickcache_core.store.shared.connection import Action, Connection, Crowded, WriterBusy
from quickcache_core.store.shared.environment import PAGE
from quickcache_core.store.shared.eviction import MOST_DELETIONS, NO_LIMIT, Removal, Victims, evict
from quickcache_core.store.shared.expiry import Expiry
from quickcache_core.store.shared.words import WHOLE

logger = logging.getLogger(__name__)

# Looking a member up on an Enum class costs three dictionary look-ups in 3.11.
_EVICTED, _EXPIRED, _EXPLICIT = RemovalCause.EVICTED, RemovalCause.EXPIRED, RemovalCause.EXPLICIT
_INVALIDATED = RemovalCause.INVALIDATED

T = TypeVar("T")

_HIGH_WATER, _LOW_WATER = 0.80, 0.77
"""Shares of the map: above the one eviction begins, at the other it ends."""
_LOOKS_AT_SIZE = 128
"""How often a process looks at how full the map is, while it writes as much as fits into it."""
_ROUNDS = 12
"""Attempts to make room for one write. In the last but one everything has to leave."""
_WAITS = 3
"""The first ones only wait for readers."""
_WAIT = 0.001
"""Seconds, twice as long with each attempt."""


class Writing:
    """One per table."""

    def __init__(self, connection: Connection, now: Callable[[], float]) -> None:
        self.connection = connection
        self.counters = Counters()
        self.listeners: tuple[RemovalListener, ...] = ()
        self.expiry = Expiry(connection, now, self.write)
        self.lock = threading.RLock()
        self._now = now
        self._unchecked_bytes = 0
        self._is_shrinking = False

    def size(self) -> tuple[int, int]:
        """Entries, and the bytes that they take of the map."""
        statistics = self.connection.statistics()
        pages = statistics["branch_pages"] + statistics["leaf_pages"] + statistics["overflow_pages"]
        return statistics["entries"], pages * statistics["psize"]

    def write(
        self,
        action: Action[T],
        slots: list[int],
        size: int,
        removals: list[Removal],
        given: Any = None,
    ) -> tuple[T, int]:
        """Run an action that stores `size` bytes, make room if it takes that, and tell listeners what left.

        The action fills `removals`; `given` is what `Connection.write` hands on to it.
        """
        try:
            result = self.connection.write(action, slots, given)
        except Crowded:
            result = self._write_with_room(action, slots, size, removals, given)
        if removals:
            self._left(removals)
        if size:
            self._unchecked_bytes += size
            if self._is_shrinking or self._unchecked_bytes * _LOOKS_AT_SIZE > self.connection.map_size:
                self._watch_size(size, slots)
        return result

    def _write_with_room(
        self, action: Action[T], slots: list[int], size: int, removals: list[Removal], given: Any
    ) -> tuple[T, int]:
        swept = False
        for attempt in range(_ROUNDS):
            removals.clear()
            try:
                # Slots that a former attempt added are stamped as well, which does no harm.
                return self.connection.write(action, slots, given)
            except Crowded as crowded:
                if crowded.due and not swept:
                    # Expired ones leave first, all of them: they are found together.
                    self.expiry.sweep(patiently=True)
                    swept = True
                elif not crowded.count or not self.evict(crowded.count):
                    self._find_room(size, attempt)
        raise WriterBusy(
            f"{self.connection.path}: no room for {size} bytes in a map of {self.connection.map_size}; "
            "perhaps a reader is stopped, whose pages can't be used again"
        )

    def evict(self, count: int) -> bool:
        """Evict so many, if there are; False if the map has no room even to delete."""
        try:
            while count > 0 and self._evict_slice(min(count, MOST_DELETIONS)):
                count -= MOST_DELETIONS
        except Crowded:
            return False
        return True

    def _find_room(self, size: int, attempt: int) -> None:
        """The map is full. Either with entries, or because pages that were freed are still being read."""
        if attempt < _WAITS:
            self.connection.free_readers()
            time.sleep(_WAIT * 2**attempt)
            return
        try:
            if attempt == _ROUNDS - 2:
                self._give_all_up()
                return
            wanted = (2 * size + PAGE) << (attempt - _WAITS)
            while wanted > 0 and (freed := self._evict_slice(MOST_DELETIONS, wanted)):
                wanted -= freed
        except Crowded:  # even to delete takes pages
            time.sleep(_WAIT * 2**_WAITS)

    def _give_all_up(self) -> None:
        def action(txn: Any, slots: list[int]) -> tuple[None, bool]:
            txn.drop(self.connection.main_database(txn), delete=False)
            return None, True

        self.connection.write(action, [WHOLE])
        logger.warning("The shared cache in %s was so full that it had to be cleared", self.connection.path)

    def _evict_slice(self, count: int, enough: int = NO_LIMIT, spared: Collection[int] = ()) -> int:
        """Evict so many, or until so many bytes are free; the bytes that they took."""

        def action(txn: Any, slots: list[int]) -> tuple[int, bool]:
            removals.clear()
            victims = Victims(count, enough, self._now(), spared)
            freed = evict(txn, self.connection.words, victims, slots, removals)
            return freed, bool(removals)

        removals: list[Removal] = []
        (freed, _) = self.connection.write(action, [])
        self._left(removals)
        return freed

    def _watch_size(self, written: int, slots: list[int]) -> None:
        """Evict others, with each write, while the map is too full."""
        self._unchecked_bytes = 0
        room = self.connection.room
        try:
            used = self.size()[1]
            self._is_shrinking = used > room * (_LOW_WATER if self._is_shrinking else _HIGH_WATER)
            if not self._is_shrinking:
                return
            # As much as would lead to the low water mark, but no more than a few times what was written:
            # others wait meanwhile.
            wanted = min(int(used - room * _LOW_WATER), 4 * written + MOST_DELETIONS * PAGE)
            while wanted > 0 and (freed := self._evict_slice(MOST_DELETIONS, wanted, slots)):
                wanted -= freed
        except (Crowded, StoreUnavailable):
            pass  # the write itself is done; one that needs room waits for it

    def _left(self, removals: list[Removal]) -> None:
        """Count and tell, without the guard."""
        counters = self.counters
        for _, cause in removals:
            if cause is _EVICTED:
                counters.evictions += 1
            elif cause is _EXPIRED:
                counters.expired_removals += 1
            elif cause is _EXPLICIT or cause is _INVALIDATED:
                counters.manual_deletions += 1
        for listener in self.listeners:
            for key, cause in removals:
                listener(key, cause)

    def subscribe(self, listener: RemovalListener) -> Callable[[], None]:
        with self.lock:
            self.listeners = (*self.listeners, listener)

        def unsubscribe() -> None:
            with self.lock:
                self.listeners = tuple(one for one in self.listeners if one is not listener)

        return unsubscribe
