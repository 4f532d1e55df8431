"""One table per directory and process, and one store per way of reading it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quickcache_core.clock import Clock
from quickcache_core.errors import ConfigError, StoreUnavailable
from quickcache_core.sizes import in_words
from quickcache_core.store.shared.connection import Connection
from quickcache_core.store.shared.directory import LOCKS
from quickcache_core.store.shared.store import SharedStore
from quickcache_core.store.shared.table import SharedTable

PATIENCE = 1.0
"""Seconds that a writer waits for another one."""


class SharedStores:
    """For the life of the process, since LMDB's files must not be opened twice in one."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._tables: dict[str, SharedTable] = {}
        self._stores: dict[Any, SharedStore] = {}

    def table(
        self, path: str, map_size: int, clock: Clock, adopt: Callable[[SharedTable], None]
    ) -> SharedTable:
        """The table of that directory, opened and given to `adopt` if there is none yet.

        Raises `ConfigError`, also if there is one of another size.
        """
        with self._lock:
            real = os.path.realpath(path)
            table = self._tables.get(real)
            if table is None:
                connection = Connection(Path(real), map_size, PATIENCE)
                table = SharedTable(connection, clock)
                try:
                    connection.open()
                except StoreUnavailable:
                    pass  # logged; it may work by the time that it is needed
                adopt(table)
                self._tables[real] = table
        if table.wanted_size != map_size:
            raise ConfigError(
                "max_bytes",
                map_size,
                f"{path} is in use with {in_words(table.wanted_size)} in this process; give both caches one "
                "size, or each a directory of its own",
            )
        return table

    def store(self, identity: Any, make: Callable[[], SharedStore]) -> SharedStore:
        """The store that reads a table in one way, made if there is none."""
        with self._lock:
            if identity not in self._stores:
                fresh = make()
                self._stores.setdefault(identity, fresh)
            return self._stores[identity]

    def drop(self, path: str) -> None:
        """Close a table that nobody uses any more, so that its directory can be removed. For tests."""
        with self._lock:
            for name in (path, str(Path(path) / LOCKS)):
                table = self._tables.pop(os.path.realpath(name), None)
                if table is None:
                    continue
                table.connection.close()
                for identity, store in list(self._stores.items()):
                    if store.table is table:
                        del self._stores[identity]

    def forget(self) -> None:
        """Drop all, whose connections the caller has closed. For tests."""
        with self._lock:
            self._tables.clear()
            self._stores.clear()

    def after_fork_in_child(self) -> None:
        self._lock = threading.RLock()


shared_stores = SharedStores()
os.register_at_fork(after_in_child=shared_stores.after_fork_in_child)
