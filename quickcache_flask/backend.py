"""The backend that Flask-Caching makes for `CACHE_TYPE = "quickcache_flask.QuickCache"`."""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Iterable, Mapping
from copy import copy
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final, Self, Unpack

from cachelib.serializers import BaseSerializer, SimpleSerializer
from flask import Flask
from flask_caching.backends.base import BaseCache
from markupsafe import Markup

from quickcache_core import (
    NEVER,
    TTL,
    ConfigError,
    InvalidKey,
    QuickCacheConfig,
    SerializationError,
)
from quickcache_core import QuickCache as Engine
from quickcache_core.loading.adapted import adapted, unkept
from quickcache_core.loading.context import Loader, LoaderContext
from quickcache_core.loading.options import LoadArguments
from quickcache_core.relay import Relay
from quickcache_flask.conf import (
    DEFAULT_KEY_PREFIX,
    DEFAULT_THRESHOLD,
    DEFAULT_TIMEOUT,
    NOT_SHOWN,
    default_ttl_of,
    doubts,
    in_memory,
    named_as_written,
    published_as,
    read_settings,
    secrets_of,
    ttl_of,
    unpicklable,
)

_AFTER_PREFIX = "\x1f"
"""Between a key prefix and a tag: a character that neither has."""


relay: Final = Relay()
"""Knows the engines, each with weak references to its app and backend, for the signals."""


class Serialized:
    """What a custom serializer made of a value."""

    __slots__ = ("data",)

    def __init__(self, data: Any) -> None:
        self.data = data


class Unserialized:
    """A value that the custom serializer gave up on, on its way to those who wait for it."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class _Decoding:
    """What a loader is shown of its context: the older value as it was before it was serialized."""

    def __init__(self, context: LoaderContext, serializer: BaseSerializer) -> None:
        vars(self).update(_context=context, _serializer=serializer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._context, name, value)

    @property
    def stale(self) -> Any:
        value = self._context.stale
        return self._serializer.loads(value.data) if value.__class__ is Serialized else value

    def not_modified(self) -> Any:
        self._context.not_modified()
        return self.stale


class QuickCache(BaseCache):
    """A Flask-Caching backend, in the memory of this process unless the `location` says otherwise.

    A timeout is in seconds (int or float) or a timedelta; None: the `default_timeout`; 0: the entry has no
    end; negative: nothing is stored, and an older entry is removed. All methods may be called from any thread
    and take constant time per key.

    `threshold` bounds the number of entries (0: 500). `fields` are those of `QuickCacheConfig`, of which
    `max_size` and `default_ttl` win over `threshold` and `default_timeout`. `key_prefix` precedes the keys if
    the store has a name, so that several apps of the process can share it and clear only what is theirs; a
    store of one's own has no use for it. Raises `ConfigError`.
    """

    engine: Engine
    """The cache underneath, for what Flask-Caching lacks: `ttl`, `touch`, figures, listeners, snapshots."""
    key_prefix: str
    given_as: Mapping[str, str] = MappingProxyType({})
    """The app's setting that each argument came from."""
    doubts: tuple[str, ...] = ()
    """What of the app's settings may not be meant."""

    def __init__(
        self,
        threshold: int = DEFAULT_THRESHOLD,
        default_timeout: float | timedelta = DEFAULT_TIMEOUT,
        ignore_delete_many_errors: bool = False,
        ignore_errors: bool | None = None,
        *,
        key_prefix: str | None = DEFAULT_KEY_PREFIX,
        **fields: Any,
    ) -> None:
        if ignore_errors is not None:
            warnings.warn(
                "'ignore_errors' is deprecated in Flask-Caching; use 'ignore_delete_many_errors'",
                DeprecationWarning,
                stacklevel=2,
            )
            ignore_delete_many_errors = ignore_errors
        # BaseCache.__init__ would warn of floats and round them up.
        self.ignore_delete_many_errors = ignore_delete_many_errors
        self.engine = Engine(
            QuickCacheConfig.from_mapping(
                {
                    "max_size": threshold or DEFAULT_THRESHOLD,
                    "default_ttl": default_ttl_of(default_timeout, "default_timeout"),
                    "isolation": "auto",
                    "serializer": "pickle",
                    **fields,
                    "immutable_types": _with_ours(fields.get("immutable_types", ())),
                }
            )
        )
        self._default_ttl: TTL | None = None
        self.key_prefix = _prefix_in(self.engine.config.location, key_prefix)
        self.serializer = SimpleSerializer()

    @classmethod
    def factory(
        cls, app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]
    ) -> QuickCache:
        """What `Cache.init_app` calls. Raises `ConfigError`, which names the setting as the app wrote it."""
        if args:
            # RedisCache has a password among them.
            raise ConfigError(
                "CACHE_ARGS", NOT_SHOWN, "this backend takes named options only; use CACHE_OPTIONS"
            )
        settings = read_settings(config, kwargs)
        arguments = {argument: setting.value for argument, setting in settings.items()}
        if "secret" not in arguments:
            arguments = secrets_of(app) | arguments
        location = arguments.get("location", "")
        # Around loads in background threads, where no request has made one.
        arguments.setdefault("background_context", app.app_context)
        if "publish_as" not in arguments and in_memory(location):
            made = app.extensions.get("cache")
            ours = [one for one in made.values() if isinstance(one, cls)] if isinstance(made, dict) else []
            arguments["publish_as"] = published_as(app, location, len(ours) + 1)
        try:
            backend = cls(**arguments)
        except ConfigError as error:
            raise named_as_written(error, settings) from error
        backend.given_as = {argument: setting.name for argument, setting in settings.items()}
        backend.doubts = tuple(doubts(app, config, settings))
        for doubt in backend.doubts:
            warnings.warn(doubt, UserWarning, stacklevel=_level_of_the_app())
        _publish_after_requests(app, backend)
        relay.add(backend.engine, (weakref.ref(app), weakref.ref(backend)))
        return backend

    @property
    def default_timeout(self) -> Any:
        """What a timeout of None stands for, in seconds or a timedelta; 0: no end."""
        ttl = self.engine.config.default_ttl if self._default_ttl is None else self._default_ttl
        return 0 if ttl is None or ttl is NEVER else ttl

    @default_timeout.setter
    def default_timeout(self, timeout: Any) -> None:
        self._default_ttl = default_ttl_of(timeout, "default_timeout")

    @property
    def serializer(self) -> BaseSerializer:
        """The cachelib serializer of CACHE_SERIALIZER; may be replaced while the cache is in use.

        While it is cachelib's default, `isolation` says how values are kept, which is faster. With another
        one the cache keeps what its `dumps` returns; only plain numbers stay numbers, for `inc` and `dec` to
        be atomic.
        """
        return self._serializer

    @serializer.setter
    def serializer(self, serializer: BaseSerializer) -> None:
        self._serializes = type(serializer) is not SimpleSerializer
        if self._serializes and self.engine.config.isolation == "copy":
            raise ConfigError(
                "CACHE_SERIALIZER", serializer, 'it copies every value; leave out isolation="copy"'
            )
        self._serializer = serializer

    def get(self, key: str) -> Any:
        if self.key_prefix:
            key = self._stored_key(key)
        value = self.engine.get(key, None)
        return self._serializer.loads(value.data) if value.__class__ is Serialized else value

    def get_many(self, *keys: str) -> list[Any]:
        stored = self._stored_keys(keys)
        found = self.engine.get_many(stored)
        values = [found.get(key) for key in stored]
        return [
            self._serializer.loads(value.data) if value.__class__ is Serialized else value for value in values
        ]

    def has(self, key: str) -> bool:
        return self._stored_key(key) in self.engine

    def set(self, key: str, value: Any, timeout: float | timedelta | None = None, **life: Any) -> bool:
        """False if the serializer gave up, which removes an older entry. Raises `PicklingError`, as cachelib
        says.

        Further keywords: `tags`, names that the entry can be invalidated by, and `sliding`, `max_age` and
        `stale_ttl`, for which see `QuickCacheConfig`.
        """
        if self.key_prefix:
            key = self._stored_key(key)
        ttl = self._default_ttl
        if timeout is not None and (ttl := ttl_of(timeout)) is None:
            self.engine.delete(key, missing_ok=True)
            return True
        if self._serializes and (value := self._serialized(value)) is None:
            self.engine.delete(key, missing_ok=True)
            return False
        try:
            if life:
                self.engine.set(key, value, ttl, **self._with_own_tags(life))
            else:
                self.engine.set(key, value, ttl)
        except SerializationError as error:
            raise unpicklable(error) from error
        return True

    def add(self, key: str, value: Any, timeout: float | timedelta | None = None) -> bool:
        """Atomic. False if there is an entry, or the serializer gave up. Raises `PicklingError`, as cachelib
        says."""
        key = self._stored_key(key)
        ttl = self._default_ttl
        if timeout is not None and (ttl := ttl_of(timeout)) is None:
            return key not in self.engine
        if self._serializes and (value := self._serialized(value)) is None:
            return False
        try:
            return self.engine.add(key, value, ttl, exist_ok=True)
        except SerializationError as error:
            raise unpicklable(error) from error

    def set_many(
        self, mapping: dict[str, Any], timeout: float | timedelta | None = None, **life: Any
    ) -> list[Any]:
        """The keys that were stored. Raises `PicklingError`, as cachelib says, and stores nothing then.
        Further keywords: those of `set`.
        """
        stored = dict(zip(self._stored_keys(mapping), mapping.values(), strict=True))
        ttl = self._default_ttl
        if timeout is not None and (ttl := ttl_of(timeout)) is None:
            self.engine.delete_many(stored)
            return list(mapping)
        refused: set[str] = set()
        if self._serializes:
            stored = {key: self._serialized(value) for key, value in stored.items()}
            refused = {key for key, value in stored.items() if value is None}
            self.engine.delete_many(refused)
        kept = {key: value for key, value in stored.items() if key not in refused}
        try:
            self.engine.set_many(kept, ttl, **self._with_own_tags(life))
        except SerializationError as error:
            raise unpicklable(error) from error
        return [key for key, key_in_store in zip(mapping, stored, strict=True) if key_in_store not in refused]

    def get_or_set(
        self,
        key: str,
        loader: Loader,
        timeout: float | timedelta | None = None,
        **options: Unpack[LoadArguments],
    ) -> Any:
        """The value under `key`; if there is none, what `loader` gives, which is stored.

        As the core's: called once for all who ask at the same time; one that takes an argument gets a
        `LoaderContext`; in the thread of the caller, unless there is a limit to waiting or something stale to
        serve: then in a background thread, within an application context of its own. The keywords are those
        of `LoadArguments`, with defaults in the settings. Raises `LoaderTimeout`, and `PicklingError` as
        `set`.
        """
        load = self._load(key, loader, timeout, options)
        try:
            return self._loaded(self.engine.get_or_set(*load, **options))
        except SerializationError as error:
            raise unpicklable(error) from error

    def refresh(
        self,
        key: str,
        loader: Loader,
        timeout: float | timedelta | None = None,
        **options: Unpack[LoadArguments],
    ) -> Any:
        """Store what `loader` gives now, whatever is there, and return it; as `get_or_set` otherwise. If it
        fails, what is there stays.
        """
        load = self._load(key, loader, timeout, options)
        try:
            return self._loaded(self.engine.refresh(*load, **options))
        except SerializationError as error:
            raise unpicklable(error) from error

    def invalidate_tags(self, *tags: str) -> None:
        """Remove all entries that carry one of the tags, in constant time per tag; in a store that has a
        name, those with the same key prefix.
        """
        self.engine.invalidate_tags(*self._own_tags(tags))

    def namespace(self, name: str) -> Self:
        """The same cache, with entries and tags of its own. Its `clear` takes constant time.

        Raises `ValueError` for an empty name or one with control characters.
        """
        part = copy(self)
        # Of the prefix as well, so that the keys in it need none.
        part.engine = self.engine.namespace(self.key_prefix + name if name else name)
        part.key_prefix = ""
        return part

    def delete(self, key: str) -> bool:
        """Whether there was an entry."""
        return self.engine.delete(self._stored_key(key), missing_ok=True)

    def delete_many(self, *keys: str) -> list[Any]:
        """All of `keys`: one without an entry counts as deleted, and nothing else can go wrong in memory."""
        self.engine.delete_many(self._stored_keys(keys))
        return list(keys)

    def clear(self) -> bool:
        """Remove all entries; with a key prefix only those that have it, which takes a look at every key, and
        leaves its namespaces alone.
        """
        if self.key_prefix:
            self.engine.delete_prefix(self.key_prefix)
        else:
            self.engine.clear()
        return True

    def inc(self, key: str, delta: int = 1) -> Any:
        """The sum, atomically. An entry keeps its deadline; a missing one begins with 0.

        Raises `TypeError` if the value is no number.
        """
        return self.engine.incr(self._stored_key(key), delta, initial=0, ttl_sec=self._default_ttl)

    def dec(self, key: str, delta: int = 1) -> Any:
        """`inc` with the sign of `delta` changed."""
        return self.engine.decr(self._stored_key(key), delta, initial=0, ttl_sec=self._default_ttl)

    def _stored_key(self, key: str) -> str:
        if not self.key_prefix:
            return key
        if not isinstance(key, str):
            raise InvalidKey(key)
        return self.key_prefix + key

    def _stored_keys(self, keys: Iterable[str]) -> list[str]:
        return [self._stored_key(key) for key in keys] if self.key_prefix else list(keys)

    def _own_tags(self, tags: Any) -> Any:
        # What is no list of strings is for the engine to complain about.
        if not self.key_prefix or isinstance(tags, str) or not isinstance(tags, Iterable):
            return tags
        return [f"{self.key_prefix}{_AFTER_PREFIX}{tag}" if isinstance(tag, str) else tag for tag in tags]

    def _with_own_tags(self, life: dict[str, Any]) -> dict[str, Any]:
        return {**life, "tags": self._own_tags(life["tags"])} if "tags" in life else life

    def _load(
        self, key: str, loader: Loader, timeout: float | timedelta | None, options: LoadArguments
    ) -> tuple[str, Loader, TTL | None]:
        """The engine's key, loader and TTL."""
        ttl = self._default_ttl
        if timeout is not None and (ttl := ttl_of(timeout)) is None:
            # Processes that waited for each other would do so for nothing, one after the other.
            options["single_flight"] = False
            loader = adapted(loader, unkept)
        if self._serializes:
            loader = adapted(loader, self._kept, lambda context: _Decoding(context, self._serializer))
        if self.key_prefix:
            options["tag_prefix"] = f"{self.key_prefix}{_AFTER_PREFIX}"
        return self._stored_key(key), loader, ttl

    def _kept(self, context: LoaderContext, value: Any) -> Any:
        """What becomes of a loader's value under a custom serializer."""
        if value is None or context.keeps_stale:
            return value
        kept = self._serialized(value)
        if kept is None:
            context.dont_store()
            return Unserialized(value)
        return kept

    def _loaded(self, value: Any) -> Any:
        if value.__class__ is Serialized:
            return self._serializer.loads(value.data)
        return value.value if value.__class__ is Unserialized else value

    def _serialized(self, value: Any) -> Any:
        """What the cache keeps of a value under a custom serializer; None if the serializer gave up."""
        if type(value) in (int, float):
            return value
        data = self._serializer.dumps(value)
        return None if data is None else Serialized(data)


def _level_of_the_app() -> int:
    """The `stacklevel` with which the caller warns of the app's line that makes the cache: from `Cache(app)`
    it is one call more than from `init_app`.
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(
        ("flask_caching", "quickcache_flask")
    ):
        level, frame = level + 1, frame.f_back
    return level


def _publish_after_requests(app: Flask, backend: QuickCache) -> None:
    """Let other processes see at the end of each request what this one has counted."""
    reference = weakref.ref(backend)

    def publish(error: BaseException | None) -> None:
        alive = reference()
        if alive is not None:
            alive.engine.publish()

    try:
        app.teardown_appcontext(publish)
    except AssertionError:
        # The app has had its first request: Flask allows no more registrations, since other workers may have
        # missed them. This one was made in the same call as the cache.
        app.teardown_appcontext_funcs.append(publish)


def _with_ours(immutable_types: Any) -> Any:
    # What is no sequence is for the core to complain about.
    if not isinstance(immutable_types, tuple | list | set | frozenset):
        return immutable_types
    return (Markup, Serialized, Unserialized, *immutable_types)


def _prefix_in(location: str, key_prefix: str | None) -> str:
    if key_prefix is not None and not isinstance(key_prefix, str):
        raise ConfigError("key_prefix", key_prefix, "give a string")
    shared = location.removeprefix("memory://")
    return key_prefix or "" if shared else ""
