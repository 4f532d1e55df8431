"""What the coherence oracle has to know of the store it tests."""

from __future__ import annotations

import os
import re
from pathlib import Path
from threading import get_ident
from typing import Any

from quickcache_core import NEVER, QuickCache, QuickCacheConfig
from quickcache_core.entry import FOREVER
from quickcache_core.errors import StoreUnavailable
from quickcache_core.store.base import Bounds
from quickcache_core.store.codec import added
from quickcache_core.store.debts import Debts, Paid
from quickcache_core.store.life import Life, tag_slot
from quickcache_core.store.record import is_rich
from quickcache_core.store.shared import reading, table
from quickcache_core.store.shared.connection import Connection as SharedTable
from quickcache_core.store.shared.record import extras_of, is_invalid
from quickcache_core.store.shared.words import FIRST_TAG

_TOKEN = re.compile(rb"<\w+:(\d+)>")


def open_cache(directory: Path, settings: dict[str, Any]) -> QuickCache:
    return QuickCache(QuickCacheConfig.from_mapping({"location": f"shared://{directory}", **settings}))


def stamps(connection: SharedTable) -> Any:
    return connection.words.stamps


_settling: set[int] = set()
"""Threads that make up for writes that failed."""
os.register_at_fork(after_in_child=_settling.clear)
_settle = Debts.settle


def _settle_noted(debts: Debts) -> Paid:
    _settling.add(get_ident())
    try:
        return _settle(debts)
    finally:
        _settling.discard(get_ident())


Debts.settle = _settle_noted  # type: ignore[method-assign]


def owes(cache: QuickCache) -> bool:
    """Whether a write of this process couldn't be carried out, so that it answers some reads with misses."""
    return bool(_settling or cache._store._debts.exist)  # type: ignore[attr-defined]


def failures(cache: QuickCache) -> int:
    """How many operations of this process couldn't be carried out so far."""
    return cache._store.counters.store_errors  # type: ignore[attr-defined, no-any-return]


def is_settling() -> bool:
    """Whether the calling thread makes up for writes that failed."""
    return get_ident() in _settling


def peek(txn: Any, raw: bytes, connection: SharedTable, slots: list[int]) -> int:
    """The token under a stored key as of a transaction that will have stamped those slots: of a number, the
    number and one; 0 for no entry.
    """
    record = txn.get(raw)
    if record is None:
        return 0
    if is_rich(record):
        extras = extras_of(record)
        stamped = extras.label < txn.id() and not set(slots).isdisjoint(extras.tags)
        if stamped or is_invalid(extras, stamps(connection)):
            return 0
    number = added(record, 0)
    if number is not None:
        return int(number[1]) + 1
    found = _TOKEN.search(bytes(record))
    assert found is not None, bytes(record[:100])
    return int(found[1])


def begin_load(cache: QuickCache, key: str) -> object:
    return cache._store.begin_load(key)


def end_load(
    cache: QuickCache, key: str, value: Any, ttl: float | None, tags: list[str], token: object
) -> bool:
    """Store what was computed since `begin_load`; whether that was done."""
    life = Life(FOREVER if ttl is None else ttl, tags=tuple(map(tag_slot, tags)))
    return cache._store.put_with(key, value, life, Bounds(1_000_000), token)


def judge_tags_by_snapshot() -> None:
    """From now on, of entries with tags that count as valid which were there at all when they were read."""
    right = reading.rich_entry

    def rich_entry(value: Any, label: int, slot: int, extras: Any) -> Any:
        entry = right(value, label, slot, extras)
        entry.source = label
        return entry

    reading.rich_entry = rich_entry
    reading.is_invalid = lambda extras, stamps: False


def store_any_load() -> None:
    right = table.SharedTable.put_with

    def put_with(
        self: Any, raw: bytes, slot: int, record: bytes, bounds: Bounds, *_: Any
    ) -> tuple[bool, int]:
        return right(self, raw, slot, record, bounds, [], None)

    table.SharedTable.put_with = put_with  # type: ignore[method-assign]


__all__ = [
    "FIRST_TAG",
    "NEVER",
    "SharedTable",
    "StoreUnavailable",
    "begin_load",
    "end_load",
    "failures",
    "is_settling",
    "judge_tags_by_snapshot",
    "open_cache",
    "owes",
    "peek",
    "stamps",
    "store_any_load",
]
