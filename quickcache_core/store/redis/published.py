"""A store on a server, as its figures are published to the other processes of this user on this host."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

from quickcache_core.metrics.figures import KeyOfStore, StoreFigures
from quickcache_core.store.published import cleared, live_keys
from quickcache_core.store.redis.store import RedisStore


class RedisSource:
    """What this process counted of the store, and the size of the store as a whole."""

    def __init__(self, store: RedisStore) -> None:
        self._store = weakref.ref(store)

    def figures(self) -> StoreFigures | None:
        store, figures = self._store(), self.counted()
        if store is None or figures is None:
            return None
        return figures._replace(entries=store.size.entries())

    def measured(self) -> StoreFigures | None:
        store = self._store()
        if store is not None:
            store.size.look()
        return self.figures()

    def counted(self) -> StoreFigures | None:
        store = self._store()
        if store is None:
            return None
        return StoreFigures.of(
            store.counters,
            hits=store.hits,
            misses=store.misses,
            entries=0,
            max_entries=store.capacity,
        )

    def clear(self, prefix: str) -> int:
        store = self._store()
        if store is None:
            return 0
        return cleared(store, prefix)

    def next_generation(self, namespace: str) -> None:
        store = self._store()
        if store is not None:
            store.next_generation(namespace)

    def invalidate_tags(self, slots: Sequence[int]) -> None:
        store = self._store()
        if store is not None:
            store.invalidate_tags(slots)

    def keys(self, prefix: str, limit: int | None) -> list[KeyOfStore]:
        store = self._store()
        return [] if store is None else live_keys(store, prefix, limit)
