"""The cache backend: Django's semantics in front, the core's engine behind."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from copy import copy
from functools import wraps
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, Self, TypeVar, Unpack

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import (
    DEFAULT_TIMEOUT,
    MEMCACHE_MAX_KEY_LENGTH,
    BaseCache,
    default_key_func,
)
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.core.signals import request_finished

from quickcache_core import TTL, CacheMiss, SerializationError
from quickcache_core import QuickCache as Engine
from quickcache_core.loading.adapted import adapted, unkept
from quickcache_core.loading.context import Loader, is_asynchronous
from quickcache_core.loading.options import LoadArguments
from quickcache_core.twins import Aside, Twin, called, twin
from quickcache_django import like_django_redis
from quickcache_django.conf import NOT_KEPT, SettingError, Settings, engine_ttl, engines_in_use, read

if TYPE_CHECKING:
    from quickcache_django.commit import AfterCommit

P = ParamSpec("P")
R = TypeVar("R")

_LONGEST_KEY = MEMCACHE_MAX_KEY_LENGTH
_SHAPE_KEYS = {"key_func", "key_prefix", "version", "make_key", "validate_key", "make_and_validate_key"}
_AFTER_PREFIX = "\x1f"
"""Between a KEY_PREFIX and a tag: a character that neither has."""
_MARK = "\x1fkey\x1f"
"""Stands for a key, to see what is put before it."""
_WATCHED = _SHAPE_KEYS | {"default_timeout", "_max_entries"}


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


class QuickCache(BaseCache):
    """A cache in the memory of this process.

    Django makes one object per thread, task and alias: a thin handle on the entries of its `LOCATION`.
    Limits and the default timeout belong to the alias.

    The first use raises `SettingError` if the settings are wrong.
    """

    _cache: Engine
    _settings: Settings
    _default_ttl: Any
    _keeps_values_itself = True
    """False in a subclass that may keep values in a form of its own."""
    _head: str | None
    """What stands before a key in the engine; None when that takes Django's own, slower way to find out."""

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

    # Keys

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in _WATCHED:
            self._changed(name)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        self._changed(name)

    def _changed(self, name: str) -> None:
        # Tests and tools change these on a living object. To ask for them on each hit would double its time.
        if "_settings" not in self.__dict__:
            return
        if name in _SHAPE_KEYS:
            self._shape_keys()
        elif name == "default_timeout":
            self._default_ttl = engine_ttl(self.default_timeout)
        elif name == "_max_entries":
            self._settings = self._settings.with_bounds(max_size=max(1, int(self._max_entries)))
            self._cache = self._settings.engine

    def _shape_keys(self) -> None:
        cls, own = type(self), self.__dict__
        plain = (
            self.key_func is default_key_func
            and cls.make_key is BaseCache.make_key
            and cls.validate_key is BaseCache.validate_key
            and cls.make_and_validate_key is BaseCache.make_and_validate_key
            and not ("make_key" in own or "validate_key" in own or "make_and_validate_key" in own)
        )
        self._head = default_key_func("", self.key_prefix, self.version) if plain else None

    def _key(self, key: Any, version: int | None) -> str:
        head = self._head
        # No subclasses of str: the key function formats with "%s", where an enum's member gives its name.
        if version is None and head is not None and key.__class__ is str:
            full = head + key
            # What Django would warn about: no character that it minds but the space is printable.
            if len(full) > _LONGEST_KEY or " " in full or not full.isprintable():
                self.validate_key(full)
            return full
        return self.make_and_validate_key(key, version)

    def _keys(self, keys: Collection[Any], version: int | None) -> list[str]:
        head = self._head
        if version is None and head is not None:
            full = [head + key for key in keys if key.__class__ is str]
            text = "".join(full)
            if (
                len(full) == len(keys)
                and (len(text) <= _LONGEST_KEY or max(map(len, full)) <= _LONGEST_KEY)
                and " " not in text
                and text.isprintable()
            ):
                return full
        return [self.make_and_validate_key(key, version) for key in keys]

    def make_tag(self, tag: str) -> str:
        """How the engine calls a tag: aliases of one LOCATION have those of their KEY_PREFIX, which all
        versions share.
        """
        return f"{self.key_prefix}{_AFTER_PREFIX}{tag}" if self.key_prefix else tag

    def _tags(self, tags: Any) -> Any:
        # What is no list of strings is for the engine to complain about.
        if not self.key_prefix or isinstance(tags, str) or not isinstance(tags, Iterable):
            return tags
        return [self.make_tag(tag) if isinstance(tag, str) else tag for tag in tags]

    def stored_prefix(self, prefix: str | None) -> str:
        """How the stored keys begin of those keys that begin with `prefix`; all of the store for None."""
        return "" if prefix is None else f"{self._head or ''}{prefix}"

    def _before_keys(self, version: int | None) -> str:
        """What stands before each key in the engine."""
        if version is None and self._head is not None:
            return self._head
        marked: str = self.make_key(_MARK, version)
        if not marked.endswith(_MARK):
            raise ImproperlyConfigured(
                "KEY_FUNCTION doesn't leave keys as they are at the end of what it makes, so they can't be "
                "told from it; find entries by tags instead"
            )
        return marked.removesuffix(_MARK)

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
            original = _original(error)
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
            original = _original(error)
        raise original

    def add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        full = self._key(key, version)
        ttl = self._default_ttl if timeout is DEFAULT_TIMEOUT else engine_ttl(timeout)
        if ttl is NOT_KEPT:
            return full not in self._cache
        try:
            return self._cache.add(full, value, ttl, exist_ok=True)
        except SerializationError as error:
            original = _original(error)
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
            original = _original(error)
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
            original = _original(error)
        raise original

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
            original = _original(error)
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
            original = _original(error)
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
            original = _original(error)
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
            return await called(self.aside, self.get_or_set, key, default, timeout, version, **options)
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
            original = _original(error)
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
            return await called(self.aside, self.refresh, key, default, timeout, version, **options)
        if not self._loads(default, options):
            value = await _called(default)
            await self.aset(key, value, timeout, version)
            return value
        try:
            load = self._load(key, default, timeout, version, options)
            return await self._cache.arefresh(*load, **options)
        except SerializationError as error:
            original = _original(error)
        raise original

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


async def _called(default: Any) -> Any:
    value = default() if callable(default) else default
    return await value if isawaitable(value) else value


def _original(error: SerializationError) -> BaseException:
    """What LocMemCache would have raised."""
    return error.__cause__ or error
