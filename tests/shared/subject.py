"""What the coherence oracle has to know of the store it tests."""

from __future__ import annotations

import os
import re
from pathlib import Path
from threading import get_ident
from typing import Any

from quickcache_core import NEVER, QuickCache, QuickCacheConfig
from quickcache_core.errors import StoreUnavailable
from quickcache_core.store.shared.connection import Connection as SharedTable
from quickcache_core.store.shared.store import SharedStore
from quickcache_core.store.shared.values import added

_TOKEN = re.compile(rb"<\w+:(\d+)>")


def open_cache(directory: Path, settings: dict[str, Any]) -> QuickCache:
    return QuickCache(QuickCacheConfig.from_mapping({"location": f"shared://{directory}", **settings}))


def stamps(connection: SharedTable) -> Any:
    return connection.words.stamps


_settling: set[int] = set()
"""Threads that make up for writes that failed."""
os.register_at_fork(after_in_child=_settling.clear)
_settle = SharedStore._settle_debts


def _settle_debts(store: SharedStore) -> None:
    _settling.add(get_ident())
    try:
        _settle(store)
    finally:
        _settling.discard(get_ident())


SharedStore._settle_debts = _settle_debts  # type: ignore[method-assign]


def owes(cache: QuickCache) -> bool:
    """Whether a write of this process couldn't be carried out, so that it answers some reads with misses."""
    return bool(_settling or cache._store._in_debt)  # type: ignore[attr-defined]


def peek(txn: Any, raw: bytes) -> int:
    """The token under a stored key as of a transaction: of a number, the number and one; 0 for no entry."""
    record = txn.get(raw)
    if record is None:
        return 0
    number = added(record, 0)
    if number is not None:
        return int(number[1]) + 1
    found = _TOKEN.search(bytes(record))
    assert found is not None, bytes(record[:100])
    return int(found[1])


__all__ = ["NEVER", "SharedTable", "StoreUnavailable", "open_cache", "owes", "peek", "stamps"]
