"""Stores that several caches of a process share by name."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from quickcache_core.errors import ConfigError
from quickcache_core.store.memory import MemoryStore


class NamedStores:
    """One store per name for the life of the process, as Django's local-memory caches do: a backend object
    that goes at the end of a request must not take the entries with it.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._stores: dict[str, tuple[type, object, MemoryStore]] = {}

    def get(self, name: str, policy: type, given: object, make: Callable[[], MemoryStore]) -> MemoryStore:
        """The store of that name, made if there is none. `given` is the policy as the settings have it.

        Raises `ConfigError` if there is one with another eviction policy: they can't both be right.
        """
        with self._lock:
            if name not in self._stores:
                # Reentrant, and asked again: making a store may run a finaliser that makes the same one.
                fresh = policy, given, make()
                self._stores.setdefault(name, fresh)
            made_with, as_given, store = self._stores[name]
        if made_with is not policy:
            raise ConfigError(
                "eviction_policy",
                given,
                f"location {name!r} is in use with {as_given!r} in this process; "
                "give both caches one policy, or each a location of its own",
            )
        return store

    def forget(self) -> None:
        """Drop all stores; caches that hold one keep it to themselves. For tests."""
        with self._lock:
            self._stores.clear()

    def after_fork_in_child(self) -> None:
        self._lock = threading.RLock()


named_stores = NamedStores()
os.register_at_fork(after_in_child=named_stores.after_fork_in_child)
