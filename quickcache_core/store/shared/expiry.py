"""Expired entries of a shared store: when somebody looks for them, and how they leave."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from quickcache_core.entry import FOREVER
from quickcache_core.store.record import deadline_of
from quickcache_core.store.shared.connection import Connection
from quickcache_core.store.shared.eviction import Removal
from quickcache_core.store.shared.record import reason_to_leave
from quickcache_core.store.shared.values import original_key
from quickcache_core.store.shared.words import NEW_DUE, NEXT_DUE, NEXT_SCAN, NO_DUE

_SLICE = 200
"""Entries looked at again and deleted in one transaction."""
_SHORTEST_PAUSE = 1.0
"""Seconds between two looks at all entries that are made because room is needed."""
_SHARE = 50
"""Looking at all entries takes at most one part in so many of the time."""

_NEVER = 1e15
"""Seconds."""

Write = Callable[..., tuple[Any, int]]


class Expiry:
    """Finds expired entries with readers' means, so that nobody waits for it, and deletes them in slices.

    `NEXT_DUE` tells when there can be any, so that nothing is looked at before.
    """

    def __init__(self, connection: Connection, now: Callable[[], float], write: Write) -> None:
        self._connection = connection
        self._now = now
        self._write = write
        self._sweeping = threading.Lock()

    def size(self) -> int:
        """How many there are. Takes a look at every entry, unless it is known that none can have expired."""
        self._connection.ready()
        now = self._now()
        if self._connection.words.stamps[NEXT_DUE] > now * 1000:
            return 0
        expired = self._connection.scan(b"", lambda raw, record: deadline_of(record) <= now or None)
        return sum(map(len, expired))

    def sweep(self, *, patiently: bool = False) -> int:
        """Remove what has expired. With `patiently`, look only if something is due, and not too often."""
        connection = self._connection
        connection.ready()
        stamps = connection.words.stamps
        now = self._now()
        if stamps[NEXT_DUE] > now * 1000 or (patiently and stamps[NEXT_SCAN] > now * 1000):
            return 0
        if not self._sweeping.acquire(False):
            return 0
        try:
            with connection.directory.sweeping() as only_one:
                return self._sweep(now) if only_one else 0
        finally:
            self._sweeping.release()

    def _sweep(self, now: float) -> int:
        began = time.monotonic()
        # First, with readers' means: nobody waits for it.
        self._change_words(lambda stamps: stamps.__setitem__(NEW_DUE, NO_DUE))
        earliest = FOREVER
        stamps = self._connection.words.stamps

        def due(raw: memoryview, record: memoryview) -> bytes | None:
            nonlocal earliest
            if reason_to_leave(record, now, stamps) is not None:
                return bytes(raw)
            earliest = min(earliest, deadline_of(record))
            return None

        count = 0
        for chunk in self._connection.scan(b"", due):
            for start in range(0, len(chunk), _SLICE):
                count += self._expire(chunk[start : start + _SLICE], now)
            time.sleep(0)

        pause = max(_SHORTEST_PAUSE, _SHARE * (time.monotonic() - began))

        def note(stamps: Any) -> None:
            # What others wrote meanwhile is in NEW_DUE.
            stamps[NEXT_DUE] = min(stamps[NEW_DUE], in_ms(earliest))
            stamps[NEXT_SCAN] = in_ms(now + pause)

        self._change_words(note)
        return count

    def _expire(self, keys: list[bytes], now: float) -> int:
        def action(txn: Any, slots: list[int]) -> tuple[int, bool]:
            removals.clear()
            stamps = self._connection.words.stamps
            for raw in keys:
                record = txn.get(raw)
                cause = None if record is None else reason_to_leave(record, now, stamps)
                if cause is not None:
                    removals.append((original_key(raw, record), cause))
                    txn.delete(raw)
            return len(removals), bool(removals)

        removals: list[Removal] = []
        count: int = self._write(action, [], 0, removals)[0]
        return count

    def is_due(self) -> bool:
        """Whether a patient sweep would look now. To be asked in a transaction."""
        stamps, now = self._connection.words.stamps, self._now() * 1000
        return bool(stamps[NEXT_DUE] <= now and stamps[NEXT_SCAN] <= now)

    def _change_words(self, change: Callable[[Any], None]) -> None:
        def action(txn: Any, slots: list[int]) -> tuple[None, bool]:
            change(self._connection.words.stamps)
            return None, False

        self._write(action, [], 0, [])


def note_due(stamps: Any, due: int) -> None:
    """An entry with that deadline, in milliseconds, is about to be stored."""
    # NEXT_DUE is never above NEW_DUE.
    if due < stamps[NEW_DUE]:
        stamps[NEW_DUE] = due
        if due < stamps[NEXT_DUE]:
            stamps[NEXT_DUE] = due


def in_ms(deadline: float) -> int:
    """A deadline in seconds as the words have it."""
    # What is no number, in a damaged record, is never due.
    return int(max(deadline, 0.0) * 1000) if deadline < _NEVER else NO_DUE
