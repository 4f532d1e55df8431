"""A shared store, as its figures are published."""

from __future__ import annotations

import time
from collections.abc import Sequence

from quickcache_core.errors import StoreUnavailable
from quickcache_core.metrics.figures import KeyOfStore, StoreFigures
from quickcache_core.store.published import cleared, live_keys
from quickcache_core.store.shared.table import SharedTable

_SIZE_AGE = 1.0
"""Seconds that the size is taken for, since asking costs more than all the rest."""


class SharedSource:
    """What this process counted of the store, and the size of the store as a whole."""

    def __init__(self, table: SharedTable) -> None:
        self._table = table
        self._entries = self._bytes = 0
        self._ask_again = 0.0

    def figures(self) -> StoreFigures:
        table = self._table
        if time.monotonic() >= self._ask_again and table.connection.is_open:
            self._ask_again = time.monotonic() + _SIZE_AGE
            try:
                self._entries, self._bytes = table.writing.size()
            except StoreUnavailable:
                self._entries = self._bytes = 0
        return self.counted()._replace(entries=self._entries, bytes=self._bytes)

    measured = figures

    def counted(self) -> StoreFigures:
        table = self._table
        return StoreFigures.of(
            table.counters,
            hits=sum(reader.hits for reader in table.readers),
            misses=sum(reader.misses for reader in table.readers),
            entries=0,
            max_entries=table.capacity,
        )

    def clear(self, prefix: str) -> int:
        return cleared(self._table.readers[0], prefix)

    def next_generation(self, namespace: str) -> None:
        self._table.readers[0].next_generation(namespace)

    def invalidate_tags(self, slots: Sequence[int]) -> None:
        self._table.readers[0].invalidate_tags(slots)

    def keys(self, prefix: str, limit: int | None) -> list[KeyOfStore]:
        return live_keys(self._table.readers[0], prefix, limit)
