"""The cache backend: Django's semantics in front, the core's engine behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, Self, TypeVar

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import DEFAULT_TIMEOUT, MEMCACHE_MAX_KEY_LENGTH
from django.core.exceptions import SynchronousOnlyOperation
from django.core.signals import request_finished

from quickcache_core import TTL, CacheMiss, SerializationError
from quickcache_core import QuickCache as Engine
from quickcache_core.twins import Aside, Twin, called, twin
from quickcache_django import like_django_redis
from quickcache_django.conf import NOT_KEPT, SettingError, engine_ttl, engines_in_use, read
from quickcache_django.loading import Loading, original_of

if TYPE_CHECKING:
    from quickcache_django.commit import AfterCommit

P = ParamSpec("P")
R = TypeVar("R")

_LONGEST_KEY = MEMCACHE_MAX_KEY_LENGTH


def _twin_on_commit(method: Callable[Concatenate[QuickCache, P], R]) -> Twin[QuickCache, P, R]:
    """As `twin`. With `on_commit` it goes to the thread in which the ORM runs: transactions belong to one."""
    plain, name = twin(method), method.__name__

    @wraps(plain)
    async def run(self: QuickCache, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if kwargs.get("on_commit"):
            in_orm_thread: R = await sync_to_async(getattr(self, name))(*args, **kwargs)
            return in_orm_thread
        return await plain(self, *args, **kwargs)

    return run


class QuickCache(Loading):
    """A cache in the memory of this process.

    Django makes one object per thread, task and alias: a thin handle on the entries of its `LOCATION`.
    Limits and the default timeout belong to the alias.

    The first use raises `SettingError` if the settings are wrong.
    """

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        try:
            settings = read(location, params)
        except SettingError as error:
            # Not raised here: Django's own system checks make the objects before ours can say what is wrong.
            super().__init__({})
            vars(self).update(_cache=_Misconfigured(error), _default_ttl=None, _head=None)
            return
        super().__init__(params)
        # Past __setattr__, which has nothing to watch yet: this runs for each thread and task.
        vars(self).update(
            default_timeout=settings.timeout,
            _max_entries=settings.engine.max_size,
            _cache=settings.engine,
            _default_ttl=settings.default_ttl,
            _settings=settings,
        )
        self._shape_keys()

    def namespace(self, name: str) -> Self:
        """The same cache, with entries of its own.

        Its `clear` takes constant time and leaves all others; its tags are its own too. Aliases that differ
        in KEY_PREFIX have namespaces of their own, those that differ in VERSION only share them. Raises
        `ValueError` for an empty name or one with control characters.
        """
        whole = f"{self.key_prefix}:{name}" if self.key_prefix and name else name
        if isinstance(self._cache, _Misconfigured):
            self._cache.fail()
        settings = self._settings.with_namespace(whole)
        part = copy(self)
        vars(part).update(_settings=settings, _cache=settings.engine)
        return part

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._keeps_values_itself = all(
            getattr(cls, name) is getattr(QuickCache, name) for name in ("get", "set", "add")
        )

    @property
    def engine(self) -> Engine:
        """The core's cache behind this alias, for what Django's interface lacks: snapshots, metrics.

        Its keys are what `make_key` returns. Raises `SettingError` if the alias's settings are wrong.
        """
        if isinstance(self._cache, _Misconfigured):
            self._cache.fail()
        return self._cache

    # Operations. `get`, `set` and `incr` make the key as `_key` does: to call that costs a sixth of a hit.

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        head = self._head
        if version is None and head is not None and key.__class__ is str:
            full = head + key
            if len(full) > _LONGEST_KEY or " " in full or not full.isprintable():
                self.validate_key(full)
        else:
            full = self.make_and_validate_key(key, version)
        try:
            return self._cache.get(full, default)
        except SerializationError as error:
            original = original_of(error)
        raise original

    def set(
        self,
        key: Any,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        tags: Iterable[str] = (),
        sliding: bool | None = None,
        max_age: TTL | None = None,
        stale_ttl: TTL | None = None,
        on_commit: bool | str = False,
    ) -> None:
        """As Django's. `tags` are names that the entry can be invalidated by; for `sliding`, `max_age` and
        `stale_ttl` see `QuickCacheConfig`, None for what OPTIONS say.

        With `on_commit` it happens when the transaction is committed, see `AfterCommit`: that of the default
        database for True, or of the one named. The same keyword of other methods does the same.
        """
        if on_commit:
            life = _given(tags=tags, sliding=sliding, max_age=max_age, stale_ttl=stale_ttl)
            self._later(on_commit, QuickCache.set, key, value, timeout, version, **life)
            return
        head = self._head
        if version is None and head is not None and key.__class__ is str:
            full = head + key
            if len(full) > _LONGEST_KEY or " " in full or not full.isprintable():
                self.validate_key(full)
        else:
            full = self.make_and_validate_key(key, version)
        if timeout is DEFAULT_TIMEOUT:
            ttl = self._default_ttl
        else:
            ttl = timeout if timeout.__class__ is int and timeout > 0 else engine_ttl(timeout)
        if ttl is NOT_KEPT:
            self._cache.delete(full, missing_ok=True)
            return
        try:
            if tags or sliding is not None or max_age is not None or stale_ttl is not None:
                self._cache.set(
                    full,
                    value,
                    ttl,
                    tags=self._tags(tags),
                    sliding=sliding,
                    max_age=max_age,
                    stale_ttl=stale_ttl,
                )
            else:
                self._cache.set(full, value, ttl)
            return
        except SerializationError as error:
            original = original_of(error)
        raise original

    def add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        full = self._key(key, version)
        ttl = self._default_ttl if timeout is DEFAULT_TIMEOUT else engine_ttl(timeout)
        if ttl is NOT_KEPT:
            return full not in self._cache
        try:
            return self._cache.add(full, value, ttl, exist_ok=True)
        except SerializationError as error:
            original = original_of(error)
        raise original

    def touch(
        self,
        key: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        on_commit: bool | str = False,
    ) -> bool:
        """As Django's; with `on_commit` always False, since it can't be told yet."""
        if on_commit:
            self._later(on_commit, QuickCache.touch, key, timeout, version)
            return False
        full = self._key(key, version)
        ttl = self._default_ttl if timeout is DEFAULT_TIMEOUT else engine_ttl(timeout)
        if ttl is NOT_KEPT:
            return self._cache.delete(full, missing_ok=True)
        return self._cache.touch(full, ttl, missing_ok=True)

    def delete(self, key: Any, version: int | None = None, *, on_commit: bool | str = False) -> bool:
        """As Django's; with `on_commit` always False, since it can't be told yet."""
        if on_commit:
            self._later(on_commit, QuickCache.delete, key, version)
            return False
        return self._cache.delete(self._key(key, version), missing_ok=True)

    def has_key(self, key: Any, version: int | None = None) -> bool:
        return self._key(key, version) in self._cache

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        head = self._head
        if version is None and head is not None and key.__class__ is str:
            full = head + key
            if len(full) > _LONGEST_KEY or " " in full or not full.isprintable():
                self.validate_key(full)
        else:
            full = self.make_and_validate_key(key, version)
        try:
            number: int = self._cache.incr(full, delta)
        except CacheMiss as miss:
            raise ValueError(f"Key '{full}' not found") from miss
        return number

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        if not self._is_own("get"):
            return super().get_many(keys, version)
        keys = list(keys)
        full = self._keys(keys, version)
        try:
            found = self._cache.get_many(full)
        except SerializationError as error:
            original = original_of(error)
        else:
            if len(found) == len(full):
                return dict(zip(keys, map(found.__getitem__, full), strict=True))
            return {key: found[name] for key, name in zip(keys, full, strict=True) if name in found}
        raise original

    def set_many(
        self,
        /,
        data: Mapping[Any, Any],
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        tags: Iterable[str] = (),
        sliding: bool | None = None,
        max_age: TTL | None = None,
        stale_ttl: TTL | None = None,
        on_commit: bool | str = False,
    ) -> list[Any]:
        """As Django's, with the keywords of `set`."""
        life = _given(tags=tags, sliding=sliding, max_age=max_age, stale_ttl=stale_ttl)
        if on_commit:
            self._later(on_commit, QuickCache.set_many, data, timeout, version, **life)
            return []
        if not self._is_own("set"):
            for key, value in data.items():
                self.set(key, value, timeout, version, **life)
            return []
        values = dict(zip(self._keys(data, version), data.values(), strict=True))
        ttl = self._default_ttl if timeout is DEFAULT_TIMEOUT else engine_ttl(timeout)
        if ttl is NOT_KEPT:
            self._cache.delete_many(values)
            return []
        try:
            if tags:
                life["tags"] = self._tags(tags)
            self._cache.set_many(values, ttl, **life)
            return []
        except SerializationError as error:
            original = original_of(error)
        raise original

    def invalidate_tags(self, *tags: str, on_commit: bool | str = False) -> None:
        """Remove all entries that carry one of the tags, of any VERSION, in constant time per tag; of aliases
        that share the LOCATION, those with the same KEY_PREFIX.
        """
        if on_commit:
            self._later(on_commit, QuickCache.invalidate_tags, *tags)
            return
        self._cache.invalidate_tags(*self._tags(tags))

    def delete_many(
        self, keys: Iterable[Any], version: int | None = None, *, on_commit: bool | str = False
    ) -> None:
        if on_commit:
            self._later(on_commit, QuickCache.delete_many, keys, version)
            return
        if not self._is_own("delete"):
            super().delete_many(keys, version)
            return
        self._cache.delete_many(self._keys(list(keys), version))

    # What django-redis has beyond Django, under its names

    ttl = like_django_redis.ttl
    pttl = like_django_redis.pttl
    persist = like_django_redis.persist
    expire = like_django_redis.expire
    pexpire = like_django_redis.pexpire
    expire_at = like_django_redis.expire_at
    pexpire_at = like_django_redis.pexpire_at
    lock = like_django_redis.lock
    keys = like_django_redis.keys
    iter_keys = like_django_redis.iter_keys
    delete_pattern = like_django_redis.delete_pattern

    def on_commit(self, using: str | None = None) -> AfterCommit:
        """The same cache, for what is to happen when the transaction is committed: see
        `quickcache_django.commit.AfterCommit`. `using`: the database; None for the default one.
        """
        # Not imported above: it brings the database layer along.
        from quickcache_django.commit import AfterCommit

        return AfterCommit(self, using)

    def _later(self, on_commit: bool | str, write: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """What the keyword asks for. `write` is this very class's: a subclass's has been called."""
        from quickcache_django.commit import when_committed

        using = on_commit if isinstance(on_commit, str) else None
        when_committed(lambda: write(self, *args, **kwargs), f"{type(self).__name__}.{write.__name__}", using)

    def clear(self) -> None:
        """Remove all entries of this `LOCATION`, those of other aliases, versions and prefixes included."""
        self._cache.clear()

    def close(self, **kwargs: Any) -> None:
        """Called by Django at the end of each request: lets other processes see what this one has counted."""
        if "_settings" in self.__dict__:
            self._cache.publish()

    def _is_own(self, name: str) -> bool:
        # LocMemCache's bulk methods go through the others, so whoever overrides `get` means `get_many` too.
        return name not in self.__dict__ and getattr(type(self), name) is getattr(QuickCache, name)

    # For coroutines. Each calls the method that it is the twin of, which may be overridden or replaced;
    # Django's own twins bypass that up to version 6.0.

    @property
    def aside(self) -> Aside | None:
        """As the engine's: how coroutines call what asks a server."""
        return self._cache.aside

    async def aget(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        aside = self._cache.aside
        if aside is None:
            return self.get(key, default, version)
        if not self._is_own("get"):
            return await aside(self.get, key, default, version)
        try:
            return await self._cache.aget(self._key(key, version), default)
        except SerializationError as error:
            original = original_of(error)
        raise original

    async def aset(
        self,
        key: Any,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        **life: Any,
    ) -> None:
        await self._evaluating(self.set, key, value, timeout, version, **life)

    async def aadd(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        return await self._evaluating(self.add, key, value, timeout, version)

    async def aset_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None, **life: Any
    ) -> list[Any]:
        return await self._evaluating(self.set_many, data, timeout, version, **life)

    async def _evaluating(self, write: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        if kwargs.get("on_commit"):
            return await sync_to_async(write)(*args, **kwargs)
        try:
            return await called(self._cache.aside, write, *args, **kwargs)
        except SynchronousOnlyOperation:  # pickling a queryset evaluates it
            return await sync_to_async(write)(*args, **kwargs)

    atouch = _twin_on_commit(touch)
    adelete = _twin_on_commit(delete)
    ahas_key = twin(has_key)
    aincr = twin(incr)
    aget_many = twin(get_many)
    adelete_many = _twin_on_commit(delete_many)

    async def adecr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        return await called(self._cache.aside, self.decr, key, delta, version)

    ainvalidate_tags = _twin_on_commit(invalidate_tags)
    attl = twin(ttl)
    apttl = twin(pttl)
    apersist = twin(persist)
    aexpire = twin(expire)
    apexpire = twin(pexpire)
    aexpire_at = twin(expire_at)
    apexpire_at = twin(pexpire_at)
    akeys = twin(keys)
    aiter_keys = like_django_redis.aiter_keys
    adelete_pattern = twin(delete_pattern)

    aclear = twin(clear)

    async def aincr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        return await called(self.aside, self.incr_version, key, delta, version)

    async def adecr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        return await called(self.aside, self.decr_version, key, delta, version)

    async def aclose(self, **kwargs: Any) -> None:
        self.close(**kwargs)


def _publish_after_request(**_: Any) -> None:
    # `close` isn't enough: under ASGI Django closes the caches of another context than the view's.
    for engine in engines_in_use():
        engine.publish()


request_finished.connect(_publish_after_request, dispatch_uid="quickcache_django")


class _Misconfigured:
    """In the place of an engine that can't be made: every use raises what is wrong with the settings."""

    def __init__(self, error: SettingError) -> None:
        self._error = error

    def fail(self) -> NoReturn:
        # A new one each time, or its traceback would grow for ever.
        raise copy(self._error) from self._error.__cause__

    def __getattr__(self, name: str) -> Any:
        self.fail()

    def __contains__(self, key: object) -> bool:
        self.fail()


def _given(**life: Any) -> dict[str, Any]:
    """What isn't left out: a subclass's `set` needn't know the rest."""
    return {name: value for name, value in life.items() if value is not None and value != ()}
