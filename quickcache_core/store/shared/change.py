"""Changes that depend on the value that is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quickcache_core.entry import FOREVER, MISSING
from quickcache_core.serializer.isolation import thaw
from quickcache_core.store.base import Bounds, Presence, summed
from quickcache_core.store.codec import Codec
from quickcache_core.store.record import raw_extras
from quickcache_core.store.shared.reading import Reading
from quickcache_core.store.shared.table import SharedTable
from quickcache_core.store.shared.values import stored_key
from quickcache_core.store.shared.words import slot_of

_LIVE, _EXPIRED, _GONE = Presence.LIVE, Presence.EXPIRED, Presence.ABSENT
_NUMBERS = (int, float)


class Change:
    """Of the entries of one table. Every method may raise `StoreUnavailable`.

    What a value is, is found out without the guard, for to load it and to add to it may run code that isn't
    ours. The change is made only if nobody changed the entry meanwhile; else all begins anew.
    """

    def __init__(self, table: SharedTable, codec: Codec, reading: Reading, now: Callable[[], float]) -> None:
        self._table = table
        self._codec = codec
        self._reading = reading
        self._read = table.connection.read
        self._now = now

    def increase(
        self, key: str, delta: Any, initial: Any, ttl: float, bounds: Bounds
    ) -> tuple[Presence, Any]:
        """As `Store.incr`."""
        raw = stored_key(key)
        slot = slot_of(raw)
        if delta.__class__ in _NUMBERS:
            young = self._reading.near.young
            result, label = self._table.add_to(raw, slot, delta)
            if result is not None:
                number, deadline = result
                if deadline is not None:
                    self._reading.wrote(young, key, number, label, slot, deadline, b"")
                return _LIVE, number
        while True:
            old, _ = self._read(raw, slot)
            decoded = None if old is None else self._codec.decode(raw, key, old)
            state = self._table.presence(old)
            if decoded is None and state is _LIVE:
                state = _EXPIRED
            extras = b""
            if decoded is not None and old is not None and state is _LIVE:
                number, deadline, extras = thaw(decoded[0]), decoded[1], raw_extras(old)
            elif initial is MISSING:
                return state, None
            else:
                number, deadline = initial, FOREVER if ttl == FOREVER else self._now() + ttl
            number = summed(key, number, delta)
            record, stored = self._codec.encode(raw, key, number, deadline, extras)
            young = self._reading.near.young
            swapped = self._table.swap(raw, slot, old, record, bounds)
            if swapped is not None:
                if not extras:
                    self._reading.wrote(young, key, stored, swapped, slot, deadline, record)
                return state, number

    def pop(self, key: str) -> tuple[Presence, Any]:
        """As `Store.pop`."""
        raw = stored_key(key)
        presence, record, _ = self._table.remove(raw, slot_of(raw), want=True)
        if record is None or presence is not _LIVE:
            return presence, None
        decoded = self._codec.decode(raw, key, record)
        if decoded is None:
            self._reading.forms.unreadable(self._codec.reason(record))
            return _GONE, None
        return _LIVE, thaw(decoded[0])

    def remove_if(self, key: str, text: str) -> bool:
        """Remove a live entry whose value is that string; whether it was."""
        raw = stored_key(key)
        slot = slot_of(raw)
        while (record := self._of_text(raw, slot, key, text)) is not None:
            # Another record by now? Perhaps of the same value, with another deadline.
            if self._table.remove_record(raw, slot, record):
                self._reading.near.drop(key)
                return True
        return False

    def touch_if(self, key: str, text: str, ttl: float) -> bool:
        """Give such an entry a new deadline; whether it was one."""
        raw = stored_key(key)
        slot = slot_of(raw)
        while (record := self._of_text(raw, slot, key, text)) is not None:
            if self._table.touch_record(raw, slot, record, ttl):
                return True
        return False

    def _of_text(self, raw: bytes, slot: int, key: str, text: str) -> bytes | None:
        """The record of a live entry whose value is that string."""
        record, _ = self._read(raw, slot)
        if record is None or self._table.presence(record) is not _LIVE:
            return None
        decoded = self._codec.decode(raw, key, record)
        if decoded is None:
            return None
        value = thaw(decoded[0])
        return record if value.__class__ is str and value == text else None
