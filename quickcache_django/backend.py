"""The cache backend: Django's semantics in front, the core's engine behind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache, default_key_func
from django.core.exceptions import SynchronousOnlyOperation

from quickcache_core import NEVER, CacheMiss, SerializationError
from quickcache_core import QuickCache as Engine
from quickcache_django.conf import read

_INFINITE = float("inf")
_SHAPES_KEYS = frozenset(
    {"key_func", "key_prefix", "version", "make_key", "validate_key", "make_and_validate_key"}
)


class QuickCache(BaseCache):
    """A cache in the memory of this process.

    Django makes one object per thread, task and alias: a thin handle on the entries of its `LOCATION`.
    Limits and the default timeout belong to the alias.
    """

    _cache: Engine
    _head: str | None
    """What stands before a key in the engine; None when that takes Django's own, slower way to find out."""

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        settings = read(location, params)
        super().__init__(params)
        self.default_timeout = settings.timeout
        self._max_entries = settings.engine.max_size
        self._cache = settings.engine
        self._settings = settings
        self._reshape_keys()

    @property
    def engine(self) -> Engine:
        """The core's cache behind this alias, for what Django's interface lacks: snapshots, metrics.

        Its keys are what `make_key` returns.
        """
        return self._cache

    # Keys

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        self._changed(name)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        self._changed(name)

    def _changed(self, name: str) -> None:
        # Tests and tools change these on a living object. To ask for them on each hit would double its time.
        if name in _SHAPES_KEYS and "_head" in self.__dict__:
            self._reshape_keys()
        elif name == "_max_entries" and "_settings" in self.__dict__:
            self._settings = self._settings.with_bounds(max_size=max(1, int(self._max_entries)))
            self._cache = self._settings.engine

    def _reshape_keys(self) -> None:
        plain = self.key_func is default_key_func and all(
            getattr(type(self), name) is getattr(BaseCache, name) and name not in self.__dict__
            for name in ("make_key", "validate_key", "make_and_validate_key")
        )
        self._head = f"{self.key_prefix}:{self.version}:" if plain else None

    def _key(self, key: Any, version: int | None) -> str:
        head = self._head
        # No subclasses of str: the key function formats with "%s", where an enum's member gives its name.
        if version is None and head is not None and key.__class__ is str:
            full = head + key
            if len(full) > 250 or " " in full or not (full.isascii() and full.isprintable()):
                self.validate_key(full)
            return full
        return self.make_and_validate_key(key, version)

    def stored_prefix(self, prefix: str | None) -> str:
        """How the stored keys begin of those keys that begin with `prefix`; all of the store for None."""
        return "" if prefix is None else f"{self._head or ''}{prefix}"

    # Timeouts

    def _ttl(self, timeout: Any) -> Any:
        """The engine's TTL for a timeout of Django's; None where Django's means that nothing is kept."""
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        if timeout is None:
            return NEVER
        if 0 < timeout < _INFINITE:
            return timeout
        return NEVER if timeout > 0 else None

    # Operations

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        # The key is made as in `_key`; a call of that would be a sixth of a hit.
        head = self._head
        if version is None and head is not None and key.__class__ is str:
            full = head + key
            if len(full) > 250 or " " in full or not (full.isascii() and full.isprintable()):
                self.validate_key(full)
        else:
            full = self.make_and_validate_key(key, version)
        try:
            return self._cache.get(full, default)
        except SerializationError as error:
            raise _original(error)  # noqa: B904 - as if pickle had been called here

    def set(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        full = self._key(key, version)
        ttl = self._ttl(timeout)
        if ttl is None:
            self._cache.delete(full, missing_ok=True)
            return
        try:
            self._cache.set(full, value, ttl)
        except SerializationError as error:
            raise _original(error)  # noqa: B904

    def add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        full = self._key(key, version)
        ttl = self._ttl(timeout)
        if ttl is None:
            return full not in self._cache
        try:
            return self._cache.add(full, value, ttl, exist_ok=True)
        except SerializationError as error:
            raise _original(error)  # noqa: B904

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        full = self._key(key, version)
        ttl = self._ttl(timeout)
        if ttl is None:
            return self._cache.delete(full, missing_ok=True)
        return self._cache.touch(full, ttl, missing_ok=True)

    def delete(self, key: Any, version: int | None = None) -> bool:
        return self._cache.delete(self._key(key, version), missing_ok=True)

    def has_key(self, key: Any, version: int | None = None) -> bool:
        return self._key(key, version) in self._cache

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        full = self._key(key, version)
        try:
            number: int = self._cache.incr(full, delta)
        except CacheMiss as miss:
            raise ValueError(f"Key '{full}' not found") from miss
        return number

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        if not self._is_own("get"):
            return super().get_many(keys, version)
        full = {key: self._key(key, version) for key in keys}
        try:
            found = self._cache.get_many(full.values())
        except SerializationError as error:
            raise _original(error)  # noqa: B904
        return {key: found[name] for key, name in full.items() if name in found}

    def set_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[Any]:
        if not self._is_own("set"):
            return super().set_many(dict(data), timeout, version)
        full = {self._key(key, version): value for key, value in data.items()}
        ttl = self._ttl(timeout)
        if ttl is None:
            self._cache.delete_many(full)
            return []
        try:
            self._cache.set_many(full, ttl)
        except SerializationError as error:
            raise _original(error)  # noqa: B904
        return []

    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        if not self._is_own("delete"):
            super().delete_many(keys, version)
            return
        self._cache.delete_many([self._key(key, version) for key in keys])

    def clear(self) -> None:
        """Remove all entries of this `LOCATION`, those of other aliases, versions and prefixes included."""
        self._cache.clear()

    def _is_own(self, name: str) -> bool:
        # LocMemCache's bulk methods go through the others, so whoever overrides `get` means `get_many` too.
        return name not in self.__dict__ and getattr(type(self), name) is getattr(QuickCache, name)

    # For coroutines. It takes microseconds, so it is done in the event loop. Each calls the method that it is
    # the twin of, which may be overridden or replaced; Django's own twins bypass that up to version 6.0.

    async def aget(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        return self.get(key, default, version)

    async def aset(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        try:
            self.set(key, value, timeout, version)
        except SynchronousOnlyOperation:  # pickling a queryset evaluates it
            await sync_to_async(self.set)(key, value, timeout, version)

    async def aadd(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        try:
            return self.add(key, value, timeout, version)
        except SynchronousOnlyOperation:
            return await sync_to_async(self.add)(key, value, timeout, version)

    async def atouch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        return self.touch(key, timeout, version)

    async def adelete(self, key: Any, version: int | None = None) -> bool:
        return self.delete(key, version)

    async def ahas_key(self, key: Any, version: int | None = None) -> bool:
        return self.has_key(key, version)

    async def aincr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        return self.incr(key, delta, version)

    async def adecr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        return self.decr(key, delta, version)

    async def aget_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        return self.get_many(keys, version)

    async def aset_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[Any]:
        try:
            return self.set_many(data, timeout, version)
        except SynchronousOnlyOperation:
            return await sync_to_async(self.set_many)(data, timeout, version)

    async def adelete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        self.delete_many(keys, version)

    async def aget_or_set(
        self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        if not self._is_own("get_or_set"):
            return self.get_or_set(key, default, timeout, version)
        found = await self.aget(key, self._missing_key, version)
        if found is not self._missing_key:
            return found
        if callable(default):
            default = default()
        await self.aadd(key, default, timeout, version)
        # Another task may have added its value first.
        return await self.aget(key, default, version)

    async def aincr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        return self.incr_version(key, delta, version)

    async def adecr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        return self.decr_version(key, delta, version)

    async def aclear(self) -> None:
        self.clear()

    async def aclose(self, **kwargs: Any) -> None:
        self.close(**kwargs)


def _original(error: SerializationError) -> BaseException:
    """What LocMemCache would have raised."""
    return error.__cause__ or error
