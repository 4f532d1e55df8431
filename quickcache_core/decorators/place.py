"""Where the results of a function are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from quickcache_core.loading.options import LoadOptions, check_names
from quickcache_core.store.life import ASK, Found
from quickcache_core.ttl import TTL

if TYPE_CHECKING:
    from quickcache_core.cache import QuickCache

Loader = Callable[..., Any]


class Missed:
    """Instead of a result: there is none, or it is stale or due for a refresh.

    Knows what was asked, so that the miss is filled without asking, and counting, again.
    """

    __slots__ = ("answer", "cache", "key")

    def __init__(self, cache: Any, key: str, answer: Any) -> None:
        self.cache = cache
        self.key = key
        self.answer = answer


class Place(Protocol):
    """What a cached function needs of a cache. It is asked for each call, so that settings may come late."""

    def engine(self) -> QuickCache:
        """The core's cache: for the numbers of generations."""
        ...

    def cache(self, namespace: str | None) -> Any:
        """What has `delete` and `invalidate_tags`."""
        ...

    def find(self, key: str, generations: str | None) -> Any:
        """The result, or a `Missed`. `generations`: the name of the number that belongs to the key."""
        ...

    def fill(self, missed: Missed, loader: Loader) -> Any: ...

    def get_or_set(self, key: str, loader: Loader, namespace: str | None) -> Any: ...

    async def aget_or_set(self, key: str, loader: Loader, namespace: str | None) -> Any: ...

    def refresh(self, key: str, loader: Loader, namespace: str | None) -> Any: ...

    async def arefresh(self, key: str, loader: Loader, namespace: str | None) -> Any: ...

    def delete(self, key: str, namespace: str | None) -> bool: ...


class CachePlace:
    """A cache of the core, or what a function without arguments gives as one."""

    def __init__(
        self, cache: QuickCache | Callable[[], QuickCache], ttl_sec: TTL | None, options: Mapping[str, Any]
    ) -> None:
        check_options(ttl_sec, options)
        self._ttl_sec = ttl_sec
        self._options = dict(options)
        # No `isinstance`: the module of the cache may not be imported here.
        is_cache = hasattr(cache, "get_or_set")
        if not is_cache and not callable(cache):
            raise TypeError(f"cached({cache!r}): give a QuickCache, or a function that returns one")
        self._cache: Any = cache if is_cache else None
        self._find: Any = cache

    def engine(self) -> QuickCache:
        cache: QuickCache = self._find() if self._cache is None else self._cache
        return cache

    def cache(self, namespace: str | None) -> QuickCache:
        return self.engine() if namespace is None else self.engine().namespace(namespace)

    def find(self, key: str, generations: str | None) -> Any:
        cache = self._cache
        if cache is None:
            cache = self._find()
        return look_up_numbered(cache, "", key, generations, cache)

    def fill(self, missed: Missed, loader: Loader) -> Any:
        return fill_up(missed.cache, missed.answer, missed.key, loader, self._ttl_sec, self._options)

    def get_or_set(self, key: str, loader: Loader, namespace: str | None) -> Any:
        return self.cache(namespace).get_or_set(key, loader, self._ttl_sec, **self._options)

    async def aget_or_set(self, key: str, loader: Loader, namespace: str | None) -> Any:
        return await self.cache(namespace).aget_or_set(key, loader, self._ttl_sec, **self._options)

    def refresh(self, key: str, loader: Loader, namespace: str | None) -> Any:
        return self.cache(namespace).refresh(key, loader, self._ttl_sec, **self._options)

    async def arefresh(self, key: str, loader: Loader, namespace: str | None) -> Any:
        return await self.cache(namespace).arefresh(key, loader, self._ttl_sec, **self._options)

    def delete(self, key: str, namespace: str | None) -> bool:
        return self.cache(namespace).delete(key, missing_ok=True)


def numbered(key: str, cache: QuickCache, generations: str) -> str:
    """The key of the present generation; the first one has no number."""
    generation = cache._store.generation(generations)
    return f"{key}~{generation}" if generation else key


def look_up(engine: QuickCache, key: str, cache: Any) -> Any:
    """The value under the key, or a `Missed` of `cache`. A get, which is counted."""
    get = engine._get
    answer = get(key, ASK)
    if answer is ASK or answer.__class__ is Found:
        return Missed(cache, key, answer)
    return answer


def look_up_numbered(engine: QuickCache, prefix: str, key: str, generations: str | None, cache: Any) -> Any:
    """As `look_up`, for the key that `numbered` makes, below a prefix that `cache` puts before its keys."""
    # Both spelled out: calls are what a hit is made of.
    if generations is not None:
        generation = engine._store.generation(generations)
        if generation:
            key = f"{key}~{generation}"
    get = engine._get
    answer = get(prefix + key, ASK)
    if answer is ASK or answer.__class__ is Found:
        return Missed(cache, key, answer)
    return answer


def fill_up(
    engine: QuickCache, answer: Any, key: str, loader: Loader, ttl_sec: TTL | None, options: Mapping[str, Any]
) -> Any:
    """What `get_or_set` does after `look_up` gave a `Missed` with that answer."""
    return engine._filler.fill(key, loader, answer, ttl_sec, options)


def next_generation(cache: QuickCache, generations: str) -> None:
    """Let no key be found any more that `numbered` made for that name."""
    cache._store.next_generation(generations)


def check_options(ttl_sec: TTL | None, options: Mapping[str, Any]) -> None:
    """Raises `TypeError`, `ValueError` or `InvalidTTL` for what a later call would be refused for."""
    check_names(options)
    LoadOptions(ttl=1.0).changed(ttl_sec, options)
