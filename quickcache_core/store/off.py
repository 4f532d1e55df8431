"""The kill switch: a store that keeps nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from quickcache_core.entry import MISSING
from quickcache_core.errors import KeyNotFound
from quickcache_core.keys import check_key
from quickcache_core.metrics.counters import Counters
from quickcache_core.store.base import Bounds, Found, Life, Presence, Record, RemovalListener, Store


class OffStore(Store):
    """Answers every read with a miss, takes every write and keeps none.

    What is written or deleted meanwhile leaves the store that it covers, so that nothing outdated shows when
    the cache is switched on again. It counts nothing.
    """

    def __init__(self, covered: Store) -> None:
        self._covered = covered
        self.counters = Counters()

    def identity(self, key: str) -> str:
        return self._covered.identity(key)

    @property
    def get(self) -> Callable[..., Any]:
        return self._get

    def _get(self, key: str, default: Any = MISSING) -> Any:
        check_key(key)
        if default is MISSING:
            raise KeyNotFound(key)
        return default

    def count(self, *, hit: bool) -> None:
        pass

    def look(self, key: str) -> Found | None:
        return None

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        for key in keys:
            check_key(key)
        return {}

    def put(self, key: str, value: Any, ttl: float, bounds: Bounds) -> None:
        self._covered.remove_many((key,))

    def put_many(self, values: Mapping[str, Any], ttl: float, bounds: Bounds) -> None:
        self._covered.remove_many(values)

    def put_with(self, key: str, value: Any, life: Life, bounds: Bounds, token: object = None) -> bool:
        self._covered.remove_many((key,))
        return False

    def begin_load(self, key: str) -> object:
        return self

    def is_overtaken(self, key: str, token: object, tags: tuple[int, ...] = ()) -> bool:
        return False

    def overtake_loads(self, prefix: str) -> None:
        self._covered.overtake_loads(prefix)

    def try_lease(self, key: str) -> Callable[[], None]:
        # Nobody is to wait for a value that nobody will store.
        return _nothing

    def put_off(self, key: str, seconds: float) -> None:
        pass

    def invalidate_tags(self, slots: Iterable[int]) -> None:
        self._covered.invalidate_tags(slots)

    def generation(self, namespace: str) -> int:
        return self._covered.generation(namespace)

    def next_generation(self, namespace: str) -> int:
        return self._covered.next_generation(namespace)

    def add(self, key: str, value: Any, ttl: float, bounds: Bounds, life: Life | None = None) -> bool:
        self._covered.remove_many((key,))
        return True

    def replace(self, key: str, value: Any, ttl: float, life: Life | None = None) -> Presence:
        self._covered.remove_many((key,))
        return Presence.ABSENT

    def remove(self, key: str) -> Presence:
        self._covered.remove_many((key,))
        return Presence.ABSENT

    def remove_many(self, keys: Iterable[str]) -> int:
        self._covered.remove_many(keys)
        return 0

    def pop(self, key: str) -> tuple[Presence, Any]:
        return self.remove(key), None

    def touch(self, key: str, ttl: float) -> Presence:
        return self.remove(key)

    def remove_if(self, key: str, text: str) -> bool:
        self.remove(key)
        return False

    def touch_if(self, key: str, text: str, ttl: float) -> bool:
        self.remove(key)
        return False

    def remaining(self, key: str) -> tuple[Presence, float]:
        return Presence.ABSENT, 0.0

    def incr(
        self,
        key: str,
        delta: Any,
        freeze: Callable[[Any], Any] | None,
        initial: Any,
        ttl: float,
        bounds: Bounds,
    ) -> tuple[Presence, Any]:
        self._covered.remove_many((key,))
        return Presence.ABSENT, None if initial is MISSING else initial + delta

    def __contains__(self, key: object) -> bool:
        return False

    def __len__(self) -> int:
        return 0

    def keys(self, prefix: str, *, stale: bool = False) -> Iterator[str]:
        # What is removed while it is switched off must not come back.
        return self._covered.keys(prefix, stale=True) if stale else iter(())

    def expired_size(self) -> int:
        return 0

    def clear(self) -> int:
        self._covered.clear()
        return 0

    def sweep(self) -> int:
        return self._covered.sweep()

    def shrink(self, bounds: Bounds) -> None:
        self._covered.shrink(bounds)

    def records(self) -> list[Record]:
        # They are right, and a snapshot that is written now must not be an empty one.
        return self._covered.records()

    def load(self, records: Iterable[Record], bounds: Bounds) -> None:
        self._covered.clear()

    def subscribe(self, listener: RemovalListener) -> Callable[[], None]:
        return self._covered.subscribe(listener)

    def generations(self) -> dict[str, int]:
        return self._covered.generations()

    def set_generations(self, numbers: Mapping[str, int]) -> None:
        self._covered.set_generations(numbers)


def _nothing() -> None:
    pass
