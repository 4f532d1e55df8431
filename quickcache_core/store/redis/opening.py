"""One store per way of reading the entries of a server, for all caches of a process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from quickcache_core.clock import Clock
from quickcache_core.store.redis.address import Address
from quickcache_core.store.redis.client import Client
from quickcache_core.store.redis.store import RedisStore


class RedisStores:
    """For the life of the process: stores keep what they have near, and clients their connections."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._clients: dict[Any, Client] = {}
        self._stores: dict[Any, RedisStore] = {}

    def client(self, address: Address, options: Mapping[str, Any], clock: Clock) -> Client:
        """The client of these servers, made if there is none. Asks no server."""
        identity = (address, as_identity(options), id(clock))
        with self._lock:
            client = self._clients.get(identity)
            if client is None:
                client = self._clients[identity] = Client(address, options, clock)
            return client

    def store(self, identity: Any, make: Callable[[], RedisStore]) -> RedisStore:
        """The store that reads entries in one way, made if there is none. Asks no server."""
        with self._lock:
            if identity not in self._stores:
                fresh = make()
                self._stores.setdefault(identity, fresh)
            return self._stores[identity]

    def forget(self) -> None:
        """Drop all, and their connections. For tests."""
        with self._lock:
            stores, clients = list(self._stores.values()), list(self._clients.values())
            self._stores.clear()
            self._clients.clear()
        for store in stores:
            store.close()
        for client in clients:
            client.close()

    def after_fork_in_child(self) -> None:
        self._lock = threading.RLock()


def as_identity(options: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """What tells options from others: objects that can't be hashed are themselves only."""
    return tuple((name, _hashable(value)) for name, value in sorted(options.items()))


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return frozenset((name, _hashable(one)) for name, one in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, value))
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value


redis_stores = RedisStores()
os.register_at_fork(after_in_child=redis_stores.after_fork_in_child)
