"""What is done to entries that have more than a TTL, besides storing them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from quickcache_core.store.record import is_rich, put_off, slid
from quickcache_core.store.shared.record import extras_of, is_invalid
from quickcache_core.store.shared.words import name_slot
from quickcache_core.store.shared.writing import Writing


class Token(NamedTuple):
    """What the beginning of a load is remembered by."""

    epoch: object
    """The files of that time, see `Connection.epoch`."""
    label: int
    """Their state."""


class Lives:
    """Of one table. Every method may raise `StoreUnavailable`."""

    def __init__(self, writing: Writing, now: Callable[[], float]) -> None:
        self._connection = writing.connection
        self._write = writing.write
        self._now = now

    def slide(self, raw: bytes, source: int, patience: float) -> bool:
        """Write down that the entry which that transaction wrote was read just now; whether it is there.

        Nobody is told: what others know of it stays true, and they look again before they call it expired.
        Raises `Crowded`.
        """

        def action(txn: Any, slots: list[int]) -> tuple[bool, bool]:
            old = txn.get(raw)
            if old is None or not is_rich(old):
                return False, False
            extras = extras_of(old)
            if extras.label != source or is_invalid(extras, self._connection.words.stamps):
                return False, False
            record = slid(old, extras, self._now())
            if record is not None:
                txn.put(raw, record)
            return True, record is not None

        return self._connection.write(action, [], patience=patience)[0]

    def put_off(self, raw: bytes, seconds: float) -> None:
        """Have nobody told for so long that the entry is due for a refresh. Nobody is told of this either."""

        def action(txn: Any, slots: list[int]) -> tuple[None, bool]:
            old = txn.get(raw)
            if old is None or not is_rich(old):
                return None, False
            txn.put(raw, put_off(old, self._now() + seconds))
            return None, True

        self._write(action, [], 0, [])

    def invalidate(self, tags: list[int]) -> None:
        """Stamp tags. Their entries are gone at once, and leave when somebody comes by."""

        def action(txn: Any, slots: list[int]) -> tuple[None, bool]:
            count_up(txn)
            return None, True

        self._write(action, tags, 0, [])

    def next_generation(self, namespace: str) -> int:
        def action(txn: Any, slots: list[int]) -> tuple[int, bool]:
            stamps = self._connection.words.stamps
            generation: int = stamps[index] + 1
            stamps[index] = generation
            return generation, False

        index = name_slot(namespace)
        return self._write(action, [], 0, [])[0]

    def set_generations(self, numbers: Mapping[str, int]) -> None:
        def action(txn: Any, slots: list[int]) -> tuple[None, bool]:
            stamps = self._connection.words.stamps
            for name, number in numbers.items():
                stamps[name_slot(name)] = number
            return None, False

        self._write(action, [], 0, [])


_NO_KEY = b"\xfd"
"""No text in UTF-8 has this byte."""


def count_up(txn: Any) -> None:
    """Have a transaction that changes nothing count all the same.

    It would give its number to the next one, as if it had never been: what is begun after it could not be
    told from what was begun before.
    """
    txn.put(_NO_KEY, b"")
    txn.delete(_NO_KEY)
