"""What is computed if it isn't there: Django's `get_or_set`, with what the engine's has beyond."""

from __future__ import annotations

from inspect import isawaitable
from typing import Any, Unpack

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from quickcache_core import SerializationError
from quickcache_core.loading.adapted import adapted, unkept
from quickcache_core.loading.context import Loader, is_asynchronous
from quickcache_core.loading.options import LoadArguments
from quickcache_core.twins import called
from quickcache_django.conf import NOT_KEPT, engine_ttl
from quickcache_django.keys import Keyed


class Loading(Keyed):
    """What is computed if it isn't there."""

    _keeps_values_itself = True
    """False in a subclass that may keep values in a form of its own."""

    def _is_own(self, name: str) -> bool:
        """Whether nobody has overridden or replaced that method of ours."""
        raise NotImplementedError

    def get_or_set(
        self,
        key: Any,
        default: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        **options: Unpack[LoadArguments],
    ) -> Any:
        """As Django's, and `default`, if it can be called, is called once for all who ask at the same time.

        One that takes an argument gets a `LoaderContext`. It runs in the thread of the caller, unless there
        is a limit to waiting or something stale to serve: then in a background thread, with database
        connections of its own. The keywords are those of `LoadArguments`, with defaults in OPTIONS. Raises
        what `default` raises, and `LoaderTimeout`.
        """
        if not self._loads(default, options):
            return super().get_or_set(key, default, timeout, version)
        try:
            return self._cache.get_or_set(*self._load(key, default, timeout, version, options), **options)
        except SerializationError as error:
            original = original_of(error)
        raise original

    def refresh(
        self,
        key: Any,
        default: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        **options: Unpack[LoadArguments],
    ) -> Any:
        """Store what `default` gives now, whatever is there, and return it; as `get_or_set` otherwise. If it
        fails, what is there stays.
        """
        if not self._loads(default, options):
            value = default() if callable(default) else default
            self.set(key, value, timeout, version)
            return value
        try:
            return self._cache.refresh(*self._load(key, default, timeout, version, options), **options)
        except SerializationError as error:
            original = original_of(error)
        raise original

    def _load(
        self, key: Any, default: Any, timeout: Any, version: int | None, options: LoadArguments
    ) -> tuple[str, Loader, Any]:
        """The engine's key, loader and TTL."""
        full = self._key(key, version)
        loader: Loader = default if callable(default) else lambda: default
        ttl = self._default_ttl if timeout is DEFAULT_TIMEOUT else engine_ttl(timeout)
        if ttl is NOT_KEPT:
            # Processes that waited for each other would do so for nothing, one after the other.
            options["single_flight"] = False
            return full, adapted(loader, unkept), None
        if self.key_prefix:
            options["tag_prefix"] = self.make_tag("")
        return full, loader, ttl

    def _loads(self, default: Any, options: LoadArguments) -> bool:
        """Whether that is for the engine to do. A plain value needs no loading."""
        if self._keeps_values_itself:
            return bool(options) or callable(default)
        if options:
            raise TypeError(
                f"{type(self).__name__} overrides get, set or add, which don't know {', '.join(options)}; "
                "override get_or_set and refresh as well"
            )
        return False

    async def aget_or_set(
        self,
        key: Any,
        default: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        **options: Unpack[LoadArguments],
    ) -> Any:
        """As `get_or_set`; `default` may be a coroutine function. Any other one is called in a background
        thread.
        """
        if not (self._is_own("get_or_set") or is_asynchronous(default)):
            return await called(self._cache.aside, self.get_or_set, key, default, timeout, version, **options)
        if not self._loads(default, options):
            found = await self.aget(key, self._missing_key, version)
            if found is not self._missing_key:
                return found
            value = await _called(default)
            await self.aadd(key, value, timeout, version)
            # Another task may have added its value first.
            return await self.aget(key, value, version)
        try:
            load = self._load(key, default, timeout, version, options)
            return await self._cache.aget_or_set(*load, **options)
        except SerializationError as error:
            original = original_of(error)
        raise original

    async def arefresh(
        self,
        key: Any,
        default: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        **options: Unpack[LoadArguments],
    ) -> Any:
        if not (self._is_own("refresh") or is_asynchronous(default)):
            return await called(self._cache.aside, self.refresh, key, default, timeout, version, **options)
        if not self._loads(default, options):
            value = await _called(default)
            await self.aset(key, value, timeout, version)
            return value
        try:
            load = self._load(key, default, timeout, version, options)
            return await self._cache.arefresh(*load, **options)
        except SerializationError as error:
            original = original_of(error)
        raise original


async def _called(default: Any) -> Any:
    value = default() if callable(default) else default
    return await value if isawaitable(value) else value


def original_of(error: SerializationError) -> BaseException:
    """What LocMemCache would have raised."""
    return error.__cause__ or error
