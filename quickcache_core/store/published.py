"""A memory store, as its figures are published."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol

from quickcache_core.entry import FOREVER
from quickcache_core.metrics.figures import KeyOfStore, StoreFigures
from quickcache_core.store.base import Presence
from quickcache_core.store.memory import MemoryStore


class HasKeys(Protocol):
    def keys(self, prefix: str) -> Iterator[str]: ...

    def remaining(self, key: str) -> tuple[Presence, float]: ...


class HasPrefixes(Protocol):
    def clear(self) -> int: ...

    def keys(self, prefix: str, *, stale: bool = False) -> Iterator[str]: ...

    def overtake_loads(self, prefix: str) -> None: ...

    def remove_many(self, keys: Iterable[str]) -> int: ...


def live_keys(store: HasKeys, prefix: str, limit: int | None) -> list[KeyOfStore]:
    """At most `limit` live keys that begin with `prefix`."""
    found = ((key, *store.remaining(key)) for key in store.keys(prefix))
    live = (
        KeyOfStore(key, None if left == FOREVER else round(left, 3))
        for key, presence, left in found
        if presence is Presence.LIVE
    )
    return list(islice(live, limit))


def cleared(store: HasPrefixes, prefix: str) -> int:
    """Remove the entries whose keys begin so, all if it is empty; how many live ones there were."""
    if not prefix:
        return store.clear()
    store.overtake_loads(prefix)
    return store.remove_many(list(store.keys(prefix, stale=True)))


class MemorySource:
    """What other processes may know of a memory store, and ask of it.

    Holds the store weakly: its entries go when nobody uses it any more.
    """

    def __init__(self, store: MemoryStore) -> None:
        self._store = weakref.ref(store)

    def figures(self) -> StoreFigures | None:
        store = self._store()
        return None if store is None else store.figures()

    counted = measured = figures

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
        if store is None:
            return []
        return live_keys(store, prefix, limit)
