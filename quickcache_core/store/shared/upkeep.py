"""What the maintenance thread does for a shared store, and what happens to it at a fork."""

from __future__ import annotations

import time

from quickcache_core.errors import StoreUnavailable
from quickcache_core.store.shared.table import SharedTable

INTERVAL = 1.0
"""Seconds. So long at most goes unnoticed, by a process that only reads what it has near, that somebody
removed the files."""


class Upkeep:
    """A member of `maintenance`."""

    def __init__(self, table: SharedTable, cleanup_interval: float) -> None:
        self._table = table
        self._connection = table.connection
        self._interval = cleanup_interval
        self._next_sweep = 0.0

    def sweep(self) -> int:
        try:
            self._connection.look()
            for reader in self._table.readers:
                reader.pay_debts()
            if time.monotonic() < self._next_sweep:
                return 0
            self._next_sweep = time.monotonic() + self._interval
            return self._table.expiry.sweep(patiently=True)
        except StoreUnavailable:
            return 0  # logged where it was found

    def before_fork(self) -> bool:
        return self._connection.before_fork()

    def after_fork_in_parent(self, held: bool) -> None:
        self._connection.after_fork_in_parent(held)

    def after_fork_in_child(self, held: bool) -> None:
        self._connection.after_fork_in_child(held)
