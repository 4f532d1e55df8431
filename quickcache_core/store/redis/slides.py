"""Entries whose TTL begins anew with each read: how the server hears of reads."""

from __future__ import annotations

from typing import Final

from quickcache_core.errors import StoreUnavailable
from quickcache_core.store.near import RichNearEntry
from quickcache_core.store.record import extras_of, is_rich, slid
from quickcache_core.store.redis import record as form
from quickcache_core.store.redis.table import Table

_STEP: Final = 0.05
"""Share of its TTL by which a sliding entry may last longer here than the server knows. It is what others may
miss of the last reads of this process, and how often a process that reads it writes that down.
"""


class Slides:
    def __init__(self, table: Table) -> None:
        self._table = table

    def slide(self, tail: bytes, entry: RichNearEntry, now: float) -> bool:
        """The entry was read just now; whether it is still there as far as is known."""
        until = min(now + entry.ttl, entry.last)
        if until <= entry.fresh_until:
            return True
        entry.fresh_until = until
        written = entry.written
        if until - written < entry.ttl * _STEP:
            return True
        # Other threads needn't do the same.
        entry.written = until
        try:
            return self._write(tail, entry.source)
        except StoreUnavailable:
            entry.written = written
            return True

    def _write(self, tail: bytes, source: int) -> bool:
        head = self._table.head(tail)
        stored = form.unpacked(head)
        if stored is None or not is_rich(stored.record) or int.from_bytes(stored.nonce, "big") != source:
            return False
        now = self._table.client.now()
        extras = extras_of(stored.record)
        record = slid(stored.record, extras, now)
        if record is not None:
            left = extras_of(record).fresh_until + extras.stale_ttl - now
            # Whoever changed it meanwhile knew better.
            self._table.patch(tail, head, head[: form.START] + record, self._table.px(left))
        return True
