"""QuickCache, the object that users hold."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from types import FunctionType, TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, ParamSpec, TypeVar, Unpack

from quickcache_core.decorators import Decorator, Tags, cached
from quickcache_core.entry import FOREVER, MISSING
from quickcache_core.errors import (
    CacheMiss,
    ConfigError,
    KeyAlreadyExists,
    KeyExpired,
    KeyNotFound,
    SerializationError,
    ValueTooLarge,
)
from quickcache_core.events import CacheEvent, EventKind, Listener, RemovalCause, Subscription
from quickcache_core.files import CacheFiles, check_flag, check_path
from quickcache_core.keys import check_key
from quickcache_core.loading.context import Loader
from quickcache_core.loading.filler import Filler
from quickcache_core.loading.keep_fresh import KeptFresh, Keys, keep_fresh, stop_keeping_fresh
from quickcache_core.loading.load import Destination
from quickcache_core.loading.options import LoadArguments, tag_names
from quickcache_core.loading.prefetch import Prefetcher
from quickcache_core.loading.single_flight import flights_of
from quickcache_core.loading.warm import Contents, Warmed, awarm, warm
from quickcache_core.lock import Lock
from quickcache_core.metrics.control import Control
from quickcache_core.metrics.snapshot import MetricsSnapshot
from quickcache_core.parts import Freeze
from quickcache_core.serializer.isolation import kept_types
from quickcache_core.sizing import AutoSizer
from quickcache_core.store.accelerator import door, gate, without_writer
from quickcache_core.store.base import ABSENT, Bounds, Presence, Record, Store
from quickcache_core.store.keyspace import SEPARATOR, KeyspaceStore
from quickcache_core.store.life import ASK, Found, Life, tag_slot
from quickcache_core.store.memory import MemoryStore
from quickcache_core.store.off import OffStore
from quickcache_core.store.saved import load_saved, saved
from quickcache_core.ttl import TTL, seconds
from quickcache_core.twins import Aside, called, twin, twin_in_thread

if TYPE_CHECKING:
    from quickcache_core.config import QuickCacheConfig
    from quickcache_core.sources import SourcedCache
    from quickcache_core.sources.options import Writes
    from quickcache_core.store.redis.store import RedisStore
    from quickcache_core.store.shared.store import SharedStore

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="QuickCache")
# Looking a member up on an Enum class costs three dictionary look-ups in 3.11.
_LIVE = Presence.LIVE
_SLICE = 256
"""Keys that are removed together where many are."""
_CENTURY = 100 * 365 * 86_400  # seconds


class QuickCache:
    """A cache of string keys and any values, each with a time to live.

    A light handle around a store: caches with one `location` share the entries and may differ in everything
    else. All methods may be called from any thread. After a fork, parent and child go on with separate
    copies.

    Wherever there is a `ttl_sec`: seconds as int, float or timedelta, above 0; None for the `default_ttl` of
    the configuration; `NEVER` for an entry without an end; anything else raises `InvalidTTL`. A key that is
    no string raises `InvalidKey`. A value that the isolation must serialize and can't raises
    `SerializationError`. Methods with an `a` in front are for coroutines; in scope `memory` they take
    microseconds and run in place, except those that read or write files, which run in a thread.

    Single-key operations take constant time at any number of entries.
    """

    # In slots for `door`, which reads them where they are.
    __slots__ = ("__dict__", "__weakref__", "_gate", "_get")

    default_config: ClassVar[type[QuickCacheConfig]]
    """What `QuickCache()` is made with."""
    aside: Aside | None
    """How coroutines call what asks a server; None where nothing does, and calls are made in place."""

    def __init__(self, config: QuickCacheConfig | None = None) -> None:
        if config is None:
            config = self.default_config()
        if not isinstance(config, self.default_config):
            raise TypeError(
                f"config={config!r}: give a QuickCacheConfig, or a mapping to QuickCacheConfig.from_mapping"
            )
        self._config = config
        parts = config.assemble()
        self._bottom = parts.store
        version = config.version
        self._real_store: MemoryStore | SharedStore | RedisStore | KeyspaceStore = (
            KeyspaceStore(parts.store, prefix=f"{SEPARATOR}{SEPARATOR}{version}{SEPARATOR}")
            if version
            else parts.store
        )
        self._tag_prefix = ""
        self._full_bounds = self._bounds = parts.bounds
        self._freeze = parts.freeze
        self._files = parts.files
        self._shares_store = parts.shares_store
        self._dismiss = parts.dismiss
        self._publisher = parts.publisher
        self._locks = parts.locks
        self.aside = parts.aside
        self._made_enabled = parts.enabled
        self._times_off = 0 if parts.enabled else 1
        self._subscriptions: tuple[Subscription, ...] = ()
        self._namespaces: dict[str, QuickCache] = {}
        self._load_options = parts.load_options
        self._default_ttl = parts.load_options.ttl
        life = parts.load_options.life()
        self._life = None if life.is_plain else life
        """Of entries that are stored without further words; None if that is a TTL and nothing else."""
        self._sizer: AutoSizer | None = None
        self._bind()
        if parts.attend is not None:
            self._sizer = AutoSizer(self)
            parts.attend(self._sizer)

    def _bind(self) -> None:
        """Choose the functions behind the hot methods, so that no call pays for what isn't in use."""
        store: Store = OffStore(self._real_store) if self._times_off else self._real_store
        self._store = store
        kinds = frozenset[EventKind]().union(*(one.kinds for one in self._subscriptions))
        heard = bool(kinds & {EventKind.HIT, EventKind.MISS})
        self._get = self._heard_get if heard else store.get
        self._at_hand = None if heard else store.at_hand
        self._gate = self._new_gate(store)
        # Where all values are kept as they are, what doesn't pass the gate is nothing for the writer.
        past_gate = self._gate is not None and self._freeze is None
        self._put = without_writer(store.put) if past_gate else store.put
        # No methods of this cache: in a circle of references its entries would wait for the garbage collector
        # when nobody has it any more.
        self._filler = Filler(
            Destination(
                store,
                flights_of(self._bottom),
                partial(_frozen, self._freeze),
                self._bounds,
                self._config.oversized == "skip",
                partial(_announce, EventKind.SET, () if self._times_off else self._subscriptions),
                self._tag_prefix,
                self._config.background_context,
                partial(_announce, EventKind.STALE, self._subscriptions),
                self.aside,
            ),
            self._load_options,
        )
        if not _GET_HAS_DOOR and type(self).get is QuickCache.get:
            # Found on the instance before the method of the class: a hit is one call, into the
            # table.
            self.get = self._get  # type: ignore[method-assign]
        if self.aside is not None and type(self).aget is QuickCache.aget:
            self.aget = self._aget_aside  # type: ignore[method-assign]

    def _new_gate(self, store: Store) -> Any:
        """What `set` needs to do without Python; None if it has more to do than to store the value."""
        plain = self._life is None and not self._subscriptions
        if plain and type(store) is MemoryStore and store.writer is not None:
            return gate(store.writer, self._default_ttl, self._bounds, kept_types(self._freeze))
        return None

    def __repr__(self) -> str:
        config = self._config
        return (
            f"<{type(self).__name__} location={config.location!r} size={self.size()} "
            f"max_size={self._bounds.max_size} policy={config.eviction_policy!r}>"
        )

    @property
    def config(self) -> QuickCacheConfig:
        """What it was made with, and what `resize` made of that."""
        return self._config

    @property
    def max_size(self) -> int:
        """Entries that this cache lets in; see `resize`."""
        return self._bounds.max_size

    @property
    def max_bytes(self) -> int | None:
        """Bytes that this cache lets in; None if nothing is weighed."""
        return self._bounds.max_bytes

    @property
    def used_bytes(self) -> int | None:
        """What all entries of the store take, roughly; None if nothing is weighed."""
        return self._bottom.used_bytes()

    @property
    def enabled(self) -> bool:
        """False while the cache is switched off, see `disabled`."""
        return not self._times_off

    # One key

    @door
    def get(self, key: str, default: Any = MISSING) -> Any:
        """The live value under `key`, else `default`.

        Without a default a miss raises: `KeyExpired` if the entry was still there past its TTL, else
        `KeyNotFound`. Both are a `CacheMiss` and a `KeyError`; which one it is depends on whether the expired
        entry was swept already.
        """
        return self._get(key, default)

    @door
    def set(
        self,
        key: str,
        value: Any,
        ttl_sec: TTL | None = None,
        *,
        tags: Iterable[str] = (),
        sliding: bool | None = None,
        max_age: TTL | None = None,
        stale_ttl: TTL | None = None,
    ) -> None:
        """Insert or overwrite.

        `tags` are names that the entry can be invalidated by. `sliding`, `max_age` and `stale_ttl`: see
        `QuickCacheConfig`, where their defaults are.
        """
        if (
            tags
            or sliding is not None
            or max_age is not None
            or stale_ttl is not None
            or self._life is not None
        ):
            self._set_with(key, value, self._life_of(ttl_sec, tags, sliding, max_age, stale_ttl))
            return
        if key.__class__ is not str:
            check_key(key)
        if ttl_sec is None:
            ttl = self._default_ttl
        elif ttl_sec.__class__ is int and 0 < ttl_sec < _CENTURY:
            # The common case, and a fifth of the time of this method if it took the long way.
            ttl = ttl_sec
        else:
            ttl = seconds(ttl_sec)
        freeze = self._freeze
        if freeze is not None:
            try:
                value = freeze(value)
            except SerializationError as error:
                raise _of_key(error, key)  # noqa: B904 - the same error, which has its cause
        put = self._put
        try:
            put(key, value, ttl, self._bounds)
        except ValueTooLarge:
            if self._config.oversized == "raise":
                raise
            return
        if self._subscriptions:
            self._announce(EventKind.SET, key)

    def _set_with(self, key: str, value: Any, life: Life) -> None:
        check_key(key)
        try:
            self._store.put_with(key, self._frozen(key, value), life, self._bounds)
        except ValueTooLarge:
            if self._config.oversized == "raise":
                raise
            return
        self._announce(EventKind.SET, key)

    def add(self, key: str, value: Any, ttl_sec: TTL | None = None, *, exist_ok: bool = False) -> bool:
        """Insert, atomically, unless a live value is there; then raise `KeyAlreadyExists`, or return False
        with `exist_ok`.
        """
        check_key(key)
        ttl = self._ttl(ttl_sec)
        life = None if self._life is None else dataclasses.replace(self._life, ttl=ttl)
        try:
            done = self._store.add(key, self._frozen(key, value), ttl, self._bounds, life)
        except ValueTooLarge:
            if self._config.oversized == "raise":
                raise
            return False
        if done:
            self._announce(EventKind.SET, key)
            return True
        if exist_ok:
            return False
        raise KeyAlreadyExists(key)

    def update(self, key: str, value: Any, ttl_sec: TTL | None = None) -> None:
        """Overwrite a live value. Raises `KeyNotFound` or `KeyExpired` if there is none."""
        check_key(key)
        ttl = self._ttl(ttl_sec)
        life = None if self._life is None else dataclasses.replace(self._life, ttl=ttl)
        try:
            presence = self._store.replace(key, self._frozen(key, value), ttl, life)
        except ValueTooLarge:
            if self._config.oversized == "raise":
                raise
            return
        if presence is not _LIVE:
            _raise_miss(key, presence)
        self._announce(EventKind.SET, key)

    def delete(self, key: str, *, missing_ok: bool = False) -> bool:
        """Remove a live value.

        If there is none, raise `KeyNotFound` or `KeyExpired`, or return False with `missing_ok`.
        """
        check_key(key)
        return self._found(key, self._store.remove(key), missing_ok)

    def pop(self, key: str, default: Any = MISSING) -> Any:
        """Remove a live value and return it, else `default`; without a default raise `KeyNotFound` or
        `KeyExpired`.
        """
        check_key(key)
        presence, value = self._store.pop(key)
        if presence is _LIVE:
            return value
        if default is MISSING:
            _raise_miss(key, presence)
        return default

    def touch(self, key: str, ttl_sec: TTL | None = None, *, missing_ok: bool = False) -> bool:
        """Let the TTL begin anew.

        If nothing live is there, raise `KeyNotFound` or `KeyExpired`, or return False with `missing_ok`.
        """
        check_key(key)
        return self._found(key, self._store.touch(key, self._ttl(ttl_sec)), missing_ok)

    def ttl(self, key: str) -> float | None:
        """Seconds left, None for an entry without an end.

        Raises `KeyNotFound` or `KeyExpired`. No get is counted.
        """
        check_key(key)
        presence, remaining = self._store.remaining(key)
        if presence is not _LIVE:
            _raise_miss(key, presence)
        return None if remaining == FOREVER else remaining

    @door
    def incr(self, key: str, delta: Any = 1, *, initial: Any = None, ttl_sec: TTL | None = None) -> Any:
        """Add `delta` to a live number, atomically, and return the sum. The entry keeps its deadline.

        If nothing live is there: `initial + delta` is stored with `ttl_sec` if `initial` is given, otherwise
        `KeyNotFound` or `KeyExpired` is raised. Raises `TypeError` if the value or `delta` is no number.
        """
        if key.__class__ is not str:
            check_key(key)
        if delta.__class__ is not int:
            _check_number("delta", delta)
        if initial is None:
            initial = MISSING
        elif initial.__class__ is not int:
            _check_number("initial", initial)
        ttl = self._default_ttl if ttl_sec is None else seconds(ttl_sec)
        if self._life is not None and initial is not MISSING and key not in self._store:
            # What is inserted has to live as everything else here does.
            life = dataclasses.replace(self._life, ttl=ttl)
            self._store.add(key, self._frozen(key, initial), ttl, self._bounds, life)
        presence, number = self._store.incr(key, delta, self._freeze, initial, ttl, self._bounds)
        if number is None:
            _raise_miss(key, presence)
        if self._subscriptions:
            self._announce(EventKind.SET, key)
        return number

    def decr(self, key: str, delta: Any = 1, *, initial: Any = None, ttl_sec: TTL | None = None) -> Any:
        """`incr` with the sign of `delta` changed."""
        _check_number("delta", delta)
        return self.incr(key, -delta, initial=initial, ttl_sec=ttl_sec)

    # What is computed if it isn't there

    def get_or_set(
        self, key: str, loader: Loader, ttl_sec: TTL | None = None, **options: Unpack[LoadArguments]
    ) -> Any:
        """The value under `key`; if there is none, what `loader` gives, which is stored.

        `loader()` is called once for all who ask at the same time, in threads, tasks and, in scope `shared`,
        processes (`single_flight`); one that takes an argument gets a `LoaderContext`. It runs in the thread
        of the caller, unless there is a limit to waiting or something stale to serve: then in one of at most
        32 background threads, with the caller's context variables. What it raises is raised to all who wait,
        and nothing is stored. Nor is a value whose key was written, deleted or cleared, or whose tag was
        invalidated, since the loader was called: it is handed out only.

        The keywords are those of `LoadArguments`, with defaults in the configuration. Raises `LoaderTimeout`
        after `hard_timeout`.
        """
        get = self._get
        value = get(key, ASK)
        if value is not ASK and value.__class__ is not Found:
            return value
        return self._filler.fill(key, loader, value, ttl_sec, options)

    def refresh(
        self, key: str, loader: Loader, ttl_sec: TTL | None = None, **options: Unpack[LoadArguments]
    ) -> Any:
        """Load the value under `key` anew, whatever is there, store it and return it; as `get_or_set`
        otherwise. If the loader fails, what is there stays.
        """
        check_key(key)
        return self._filler.refresh(key, loader, ttl_sec, options)

    def cached(
        self,
        key: str | None = None,
        *,
        ttl_sec: TTL | None = None,
        tags: Tags = (),
        ignore: Collection[str] = (),
        namespace: str | None = None,
        version: str | int | None = None,
        unless: Callable[..., object] | None = None,
        **options: Any,
    ) -> Decorator:
        """Keep what a function returns, by its arguments; see `quickcache_core.decorators.cached`."""
        return cached(
            self,
            key,
            ttl_sec=ttl_sec,
            tags=tags,
            ignore=ignore,
            namespace=namespace,
            version=version,
            unless=unless,
            **options,
        )

    def with_source(self, source: Any, *, writes: Writes = "through", **options: Any) -> SourcedCache:
        """This cache in front of a data source; see `quickcache_core.sources.SourcedCache`."""
        # Not imported above: it brings SQLite along, for its durable queue.
        from quickcache_core.sources import SourcedCache

        return SourcedCache(self, source, writes=writes, **options)

    def keep_fresh(
        self, keys: Keys, loader: Loader, ttl_sec: TTL | None = None, **options: Unpack[LoadArguments]
    ) -> KeptFresh:
        """Have the value under a key, or several, loaded before its TTL ends, without a reader; see
        `quickcache_core.loading.keep_fresh`.
        """
        return keep_fresh(self, keys, loader, ttl_sec, **options)

    def warm(
        self, source: Contents, loader: Loader | None = None, ttl_sec: TTL | None = None, **options: Any
    ) -> Warmed:
        """Fill the cache before it is asked; see `quickcache_core.loading.warm`."""
        return warm(self, source, loader, ttl_sec, **options)

    def prefetcher(self, load: Callable[[str], Any], **options: Any) -> Prefetcher:
        """Readers of this cache whose next keys are loaded ahead; see `quickcache_core.loading.prefetch`."""
        return Prefetcher(self, load, **options)

    def invalidate_tags(self, *tags: str) -> None:
        """Remove all entries that carry one of the tags; of a namespace, its own only.

        Takes constant time per tag, however many entries there are. They are gone for all readers when this
        returns, and make room when they are met, expire or are evicted. Tags are hashed to 262,144 slots; in
        rare cases entries of another tag leave as well.
        """
        self._store.invalidate_tags(self.tag_slots(*tags))

    def namespace(self, name: str) -> QuickCache:
        """A cache with the same settings, in the same store, with keys, tags and counts of its own.

        Its `clear` takes constant time. Called again with the same name it gives the same object. Raises
        `ValueError` for an empty name or one with control characters.
        """
        known = self._namespaces.get(name)
        if known is None:
            _check_namespace(name)
            known = self._namespaces.setdefault(name, self._part(name))
        return known

    def _part(self, name: str) -> QuickCache:
        part = object.__new__(type(self))
        part.__dict__.update(self.__dict__)
        part.__dict__.pop("get", None)
        part.__dict__.pop("aget", None)
        part._real_store = KeyspaceStore(self._real_store, namespace=name)
        part._tag_prefix = f"{self._tag_prefix}{SEPARATOR}{name}{SEPARATOR}"
        part._publisher = None
        part._dismiss = _nothing
        part._subscriptions = ()
        part._namespaces = {}
        part._bind()
        return part

    @property
    def generation_name(self) -> str | None:
        """Of a namespace, what `Control.clear_namespace` calls it; None of any other cache."""
        store = self._real_store
        return store.generation_name or None if isinstance(store, KeyspaceStore) else None

    def shares_store_with(self, other: QuickCache) -> bool:
        """Whether the two are about the same entries, of one `version`."""
        return self._bottom is other._bottom and self._config.version == other._config.version

    @property
    def key_head(self) -> str:
        """What stands before its keys in the store, as `Control` sees them: with a `version`, that."""
        return self._real_store.prefix if isinstance(self._real_store, KeyspaceStore) else ""

    def tag_slots(self, *tags: str) -> list[int]:
        """What `Control.invalidate_tags` calls these tags of this cache."""
        return [self._tag_slot(tag) for tag in tag_names("tags", tags)]

    def lock(self, name: str, *, lease: TTL = 30.0, wait: TTL | None = 30.0) -> Lock:
        """A lock for a `with` or `async with` block, or by its methods; see `quickcache_core.lock.Lock`.

        `lease`: it ends by itself after so long; `NEVER` for no end. `wait`: how long the block waits for
        others before it raises `LockTimeout`; 0 for not at all, None for ever. Locks have names of their own,
        beside the keys, and a namespace has its own locks; releases (`version`) share them.
        """
        return Lock(self._locks(), self._tag_prefix, name, lease=lease, wait=wait)

    # Several keys

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The hits among `keys`. Each key counts as one get; atomic per key."""
        _check_keys(keys)
        if self._get != self._store.get:
            return {key: value for key in keys if (value := self._get(key, ABSENT)) is not ABSENT}
        return self._store.get_many(keys)

    def set_many(
        self,
        data: Mapping[str, Any],
        ttl_sec: TTL | None = None,
        *,
        tags: Iterable[str] = (),
        sliding: bool | None = None,
        max_age: TTL | None = None,
        stale_ttl: TTL | None = None,
    ) -> None:
        """Insert or overwrite all, with one TTL; keywords as with `set`.

        If a key or a value is refused nothing is stored; atomic per key otherwise.
        """
        if not isinstance(data, Mapping):
            raise TypeError(f"data={data!r}: give a mapping of keys to values")
        for key in data:
            check_key(key)
        values = {key: self._frozen(key, value) for key, value in data.items()}
        if (
            tags
            or sliding is not None
            or max_age is not None
            or stale_ttl is not None
            or self._life is not None
        ):
            life = self._life_of(ttl_sec, tags, sliding, max_age, stale_ttl)
            put = partial(self._put_each_with, values, life)
        else:
            put = partial(self._store.put_many, values, self._ttl(ttl_sec), self._bounds)
        stored: Collection[str] = values
        try:
            put()
        except ValueTooLarge:
            if self._config.oversized == "raise":
                raise
            stored = [key for key in values if key in self._store]
        if self._subscriptions:
            for key in stored:
                self._announce(EventKind.SET, key)

    def _put_each_with(self, values: Mapping[str, Any], life: Life) -> None:
        """As `Store.put_many`."""
        too_large = None
        for key, value in values.items():
            try:
                self._store.put_with(key, value, life, self._bounds)
            except ValueTooLarge as error:
                too_large = error
        if too_large is not None:
            raise too_large

    def delete_many(self, keys: Iterable[str]) -> int:
        """Remove what is there of `keys`; how many live values there were. Atomic per key."""
        _check_keys(keys)
        keys = list(keys)
        for key in keys:
            check_key(key)
        return self._store.remove_many(keys)

    def delete_prefix(self, prefix: str) -> int:
        """Remove all entries whose keys begin with `prefix`; how many live ones there were.

        Looks at every entry, and removes a slice at a time: keys that come meanwhile may stay. What is being
        loaded under such a key isn't stored; in scope `shared`, whatever is being loaded. Tags and namespaces
        take constant time. Raises `ValueError` for an empty prefix, which would be `clear`.
        """
        if prefix == "":
            raise ValueError("prefix='': every key begins with it; use clear()")
        keys = self.keys(prefix, stale=True)
        # First: what is stored by then is listed, and what is being loaded won't be stored.
        self.overtake_loads(prefix)
        count = 0
        while batch := list(islice(keys, _SLICE)):
            count += self._store.remove_many(batch)
        return count

    def overtake_loads(self, prefix: str) -> None:
        """Let no value be stored that is being loaded under a key that begins so; it is handed out. For who
        lists such keys next, to remove what is stored: `delete_prefix` does both.
        """
        if not isinstance(prefix, str):
            raise TypeError(f"prefix={prefix!r}: give a string")
        self._store.overtake_loads(prefix)

    # The whole cache

    def keys(self, prefix: str = "", *, stale: bool = False) -> Iterator[str]:
        """The keys of live entries that begin with `prefix`, in no particular order; with `stale` of those
        that have expired and haven't left, too: `stale_ttl` keeps them for who loads. In scope `redis` these
        may include keys that are just being loaded.

        Looks at every entry. Keys that come or go meanwhile may or may not be among them; those of namespaces
        aren't.
        """
        if not isinstance(prefix, str):
            raise TypeError(f"prefix={prefix!r}: give a string")
        return (key for key in self._store.keys(prefix, stale=stale) if not key.startswith(SEPARATOR))

    def __iter__(self) -> Iterator[str]:
        return self.keys()

    def __contains__(self, key: object) -> bool:
        """Whether a live value is there. No get is counted."""
        return isinstance(key, str) and key in self._store

    def __len__(self) -> int:
        return len(self._store)

    def __bool__(self) -> bool:
        """True, also when empty: `if cache:` asks whether there is a cache."""
        return True

    def size(self) -> int:
        """Entries, expired ones that haven't left yet included. Takes constant time; but in scope `redis`, of
        a namespace, and with a `version`, every entry of the store is looked at.
        """
        return len(self._store)

    def valid_size(self) -> int:
        """Entries that haven't expired. Lets expired ones leave first, which takes the time of `cleanup`."""
        self.cleanup()
        return len(self._store)

    def clear(self) -> None:
        """Remove all entries, of every cache that shares the store.

        Other threads wait for an instant only.
        """
        self._store.clear()

    def cleanup(self) -> int:
        """Let expired entries leave now, in short holds of the lock; how many there were. In scope `memory`
        that takes time by their number only; scope `shared` looks at every entry once one is due, scope
        `redis` at every entry.
        """
        return self._store.sweep()

    def resize(self, max_size: int | None = None, max_bytes: int | str | None = None) -> None:
        """Change the bounds of this cache; None leaves one as it is. What is over them is evicted at once, in
        short holds of the lock.

        Raises `ConfigError` for what the configuration wouldn't take either, for `max_bytes` of a cache that
        was made without it, and in scope `shared`, where the room is taken when the store is made.
        """
        changes: dict[str, Any] = {} if max_size is None else {"max_size": max_size}
        if max_bytes is not None:
            if self._full_bounds.max_bytes is None:
                raise ConfigError(
                    "max_bytes", max_bytes, "this cache weighs nothing; set max_bytes when you make it"
                )
            changes["max_bytes"] = max_bytes
        config = self._config.replace(**changes)
        self._configure(config, config.bounds())
        self.apply(1.0 if self._sizer is None else self._sizer.share)

    def _configure(self, config: QuickCacheConfig, bounds: Bounds) -> None:
        self._config, self._full_bounds = config, bounds
        for part in list(self._namespaces.values()):
            part._configure(config, bounds)

    def limits(self) -> tuple[int, int | None]:
        """The configured bounds: entries, and bytes if entries are weighed."""
        return self._full_bounds.max_size, self._full_bounds.max_bytes

    def apply(self, share: float) -> None:
        """Have that share of the configured bounds in force, until the next call or `resize`: of the bytes if
        entries are weighed, else of the entries. For automatic sizing, see `auto_resize`.
        """
        bounds = self._full_bounds
        if bounds.max_bytes is not None:
            bounds = dataclasses.replace(bounds, max_bytes=max(1, int(bounds.max_bytes * share)))
        else:
            bounds = dataclasses.replace(bounds, max_size=max(1, int(bounds.max_size * share)))
        self._bind_by(bounds)
        if self._shares_store:
            self._real_store.widen(bounds.max_size)
        else:
            self._real_store.set_capacity(bounds.max_size)
        self._real_store.shrink(bounds)

    def _bind_by(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._bind()
        for part in list(self._namespaces.values()):
            part._bind_by(bounds)

    @property
    def sizer(self) -> AutoSizer | None:
        """What changes the bounds when memory is short, with its figures; None without `auto_resize`."""
        return self._sizer

    # Files

    @property
    def files(self) -> CacheFiles:
        """Where its files go, and how they are written and read."""
        return self._files

    def save_to_disk(
        self, filepath: str | os.PathLike[str] | None = None, use_timestamp: bool | None = None
    ) -> Path:
        """Write all live entries to a file and return its path.

        `filepath` may be a file, a directory (the configured `filename` goes into it), a bare name (it goes
        into `storage_dir`) or None for both from the configuration. The serializer's extension is added
        unless it is there; `use_timestamp` adds the time to the name (default: `cache_timestamps`).

        The file replaces an older one as a whole or not at all, and can be read by its owner only. Other
        threads may write to the cache meanwhile. The entries are held in memory all at once, in any
        scope. Raises `CacheSaveError`, and leaves an older file as it was.
        """
        check_path("filepath", filepath, optional=True)
        check_flag("use_timestamp", use_timestamp)
        return self._files.save(self._records(), filepath, use_timestamp)

    def load_from_disk(self, filepath: str | os.PathLike[str] | None = None) -> None:
        """Replace all entries by those of a file, see `save_to_disk`.

        TTLs went on running while the file lay there: what has expired is left out. Raises `CacheLoadError`,
        and leaves the cache as it was, if the file is missing, damaged, foreign, of a newer format, or a
        pickle whose signature is missing or wrong.
        """
        check_path("filepath", filepath, optional=True)
        self._load_records(self._files.load(filepath, self._freeze))

    def backup(self, directory: str | os.PathLike[str] | None = None) -> Path:
        """Write a snapshot under a name with the time in it, into `directory` (default: `storage_dir`), and
        return its path. Raises `CacheSaveError`.
        """
        check_path("directory", directory, optional=True)
        return self._files.backup(self._records(), directory)

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Replace all entries by those of a snapshot: a file, or the newest backup in a directory.

        Raises `CacheLoadError` as `load_from_disk` does.
        """
        check_path("path", path)
        self._load_records(self._files.restore(path, self._freeze))

    # Figures

    def metrics(self) -> MetricsSnapshot:
        """The figures of the store.

        Looks at the entries that have expired and haven't left yet, at no others; where `size` looks at every
        entry, at these.
        """
        store = self._real_store
        counters = store.counters
        total = len(store)
        valid = max(total - store.expired_size(), 0)
        counters.peak_valid_keys = max(counters.peak_valid_keys, valid)
        return MetricsSnapshot(
            hits=store.hits,
            misses=store.misses,
            sets=counters.sets,
            failed_ops=counters.failed_ops,
            evictions=counters.evictions,
            expired_removals=counters.expired_removals,
            manual_deletions=counters.manual_deletions,
            store_errors=counters.store_errors,
            loads=counters.loads,
            load_failures=counters.load_failures,
            load_waits=counters.load_waits,
            stale_hits=counters.stale_hits,
            current_valid_keys=valid,
            peak_valid_keys=counters.peak_valid_keys,
            current_total_keys=total,
            peak_total_keys=max(counters.peak_total_keys, total),
        )

    def get_metrics_snapshot(self) -> dict[str, int | float]:
        """`metrics` as a dictionary; empty with `enable_metrics=False`."""
        return self.metrics().as_dict() if self._config.enable_metrics else {}

    def reset_metrics(self) -> None:
        """Count from zero, for every cache that shares the store. The entries stay."""
        self._real_store.reset_counters()

    def publish(self) -> None:
        """Bring the figures that other processes see up to date, and do what they ask for; see `publish_as`.

        For the end of a request: takes microseconds, and never raises. The background thread does it once a
        second anyway. Without `publish_as` nothing happens.
        """
        if self._publisher is not None:
            self._publisher.publish()

    @property
    def control(self) -> Control | None:
        """The figures of all processes that publish this cache, and commands to them. None if it isn't
        published.
        """
        return None if self._publisher is None else Control(self._publisher)

    def save_metrics_to_disk(
        self, filepath: str | os.PathLike[str] | None = None, use_timestamp: bool | None = None
    ) -> Path:
        """Write `get_metrics_snapshot` to a file and return its path; names as with `save_to_disk`, in
        `metrics_storage_dir`.

        Raises `CacheMetricsSaveError`.
        """
        check_path("filepath", filepath, optional=True)
        check_flag("use_timestamp", use_timestamp)
        return self._files.save_metrics(self.get_metrics_snapshot(), filepath, use_timestamp)

    # Listeners, the kill switch, the end

    def subscribe(
        self, listener: Listener, kinds: Iterable[EventKind] | EventKind | None = None
    ) -> Callable[[], None]:
        """Call `listener(event)` for every event of `kinds` (default: all); the result ends it.

        Hits, misses, sets and stale values served are those of this cache object; removals are those of the
        store, whoever causes them. Listeners run in the thread that caused the event, after the operation,
        without a lock: they may use the cache. One that raises is logged, and neither the operation nor other
        listeners take notice. Listening to hits or misses makes every get slower.
        """
        subscription = Subscription(listener, kinds)
        stop_removals: Callable[[], None] | None = None
        if EventKind.REMOVED in subscription.kinds:

            def removed(key: str, cause: RemovalCause) -> None:
                subscription.tell(CacheEvent(EventKind.REMOVED, key, cause))

            stop_removals = self._real_store.subscribe(removed)
        with self._real_store.lock:
            self._subscriptions = (*self._subscriptions, subscription)
            self._bind()

        def unsubscribe() -> None:
            if stop_removals is not None:
                stop_removals()
            with self._real_store.lock:
                self._subscriptions = tuple(one for one in self._subscriptions if one is not subscription)
                self._bind()

        return unsubscribe

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Switch the cache off within a `with` block, for all threads: every read is a miss, and nothing is
        stored.

        What is written or deleted meanwhile leaves the cache, so nothing outdated shows afterwards. Blocks
        may nest and overlap.
        """
        self._switch(+1)
        try:
            yield
        finally:
            self._switch(-1)

    def stop(self) -> None:
        """End the background work for this cache. It can be used on: expired entries then leave with reads
        and writes.

        May be called twice. A store that caches share by name goes on being swept.
        """
        stop_keeping_fresh(self)
        self._dismiss()

    close = stop

    def __enter__(self: S) -> S:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "A cache can't be pickled or copied; make one where it is needed, "
            "with the same location if they are to share entries"
        )

    # For coroutines

    async def arun(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """What a function returns that uses this cache by its methods without an `a`.

        It runs in the thread of the event loop, which goes on while the cache asks a server.
        """
        return await called(self.aside, function, *args, **kwargs)

    async def aget(self, key: str, default: Any = MISSING) -> Any:
        return self.get(key, default)

    async def _aget_aside(self, key: str, default: Any = MISSING) -> Any:
        at_hand = self._at_hand
        if at_hand is not None and key.__class__ is str:
            # No detour for what takes no round trip.
            value = at_hand(key)
            if value is not ABSENT:
                return value
        return await self.arun(self.get, key, default)

    aset = twin(set)  # noqa: A003 - the method
    aadd = twin(add)
    aupdate = twin(update)
    adelete = twin(delete)
    apop = twin(pop)
    atouch = twin(touch)
    attl = twin(ttl)
    aincr = twin(incr)
    adecr = twin(decr)
    aget_many = twin(get_many)
    aset_many = twin(set_many)
    adelete_many = twin(delete_many)
    adelete_prefix = twin(delete_prefix)
    aovertake_loads = twin(overtake_loads)
    ainvalidate_tags = twin(invalidate_tags)
    asize = twin(size)
    avalid_size = twin(valid_size)
    aclear = twin(clear)
    acleanup = twin(cleanup)
    aresize = twin(resize)
    ametrics = twin(metrics)
    aget_metrics_snapshot = twin(get_metrics_snapshot)
    areset_metrics = twin(reset_metrics)
    apublish = twin(publish)
    astop = aclose = twin(stop)

    asave_to_disk = twin_in_thread(save_to_disk)
    aload_from_disk = twin_in_thread(load_from_disk)
    abackup = twin_in_thread(backup)
    arestore = twin_in_thread(restore)
    asave_metrics_to_disk = twin_in_thread(save_metrics_to_disk)

    async def aget_or_set(
        self, key: str, loader: Loader, ttl_sec: TTL | None = None, **options: Unpack[LoadArguments]
    ) -> Any:
        """As `get_or_set`; the loader may be a coroutine function, which runs in a task of its own. Any other
        one runs in a background thread. A caller that is cancelled stops no load.
        """
        get = self._get
        value = await called(self.aside, get, key, ASK)
        if value is not ASK and value.__class__ is not Found:
            return value
        return await self._filler.afill(key, loader, value, ttl_sec, options)

    async def arefresh(
        self, key: str, loader: Loader, ttl_sec: TTL | None = None, **options: Unpack[LoadArguments]
    ) -> Any:
        """As `refresh`, with loaders as in `aget_or_set`."""
        check_key(key)
        return await self._filler.arefresh(key, loader, ttl_sec, options)

    async def awarm(
        self, source: Contents, loader: Loader | None = None, ttl_sec: TTL | None = None, **options: Any
    ) -> Warmed:
        return await awarm(self, source, loader, ttl_sec, **options)

    async def akeys(self, prefix: str = "", *, stale: bool = False) -> list[str]:
        """As `keys`, but all at once."""
        return await self.arun(lambda: list(self.keys(prefix, stale=stale)))

    async def acontains(self, key: object) -> bool:
        return await self.arun(self.__contains__, key)

    # Shared by the above

    def _ttl(self, ttl_sec: TTL | None) -> float:
        return self._default_ttl if ttl_sec is None else seconds(ttl_sec)

    def _frozen(self, key: str, value: Any) -> Any:
        return _frozen(self._freeze, key, value)

    @staticmethod
    def _found(key: str, presence: Presence, missing_ok: bool) -> bool:
        if presence is _LIVE:
            return True
        if not missing_ok:
            _raise_miss(key, presence)
        return False

    def _heard_get(self, key: str, default: Any = MISSING) -> Any:
        if default is ASK:
            answer = self._store.get(key, ASK)
            self._announce(EventKind.MISS if answer is ASK else EventKind.HIT, key)
            return answer
        try:
            value = self._store.get(key)
        except CacheMiss:
            self._announce(EventKind.MISS, key)
            if default is MISSING:
                raise
            return default
        self._announce(EventKind.HIT, key)
        return value

    def _announce(self, kind: EventKind, key: str) -> None:
        if kind is EventKind.SET and self._times_off:
            return
        _announce(kind, self._subscriptions, key)

    def _records(self) -> list[Record] | None:
        """What a snapshot is made of. None if the cache was made switched off: nothing is to be written."""
        if not self._made_enabled:
            return None
        return saved(self._store, self._freeze)

    def _load_records(self, records: Iterable[Record]) -> None:
        load_saved(self._store, records, self._bounds)

    def _switch(self, times: int) -> None:
        with self._bottom.lock:
            self._times_off += times
            self._bind()
            parts = list(self._namespaces.values())
        for part in parts:
            part._switch(times)

    # How entries live

    def _tag_slot(self, tag: str) -> int:
        return tag_slot(self._tag_prefix + tag)

    def _life_of(
        self,
        ttl_sec: TTL | None,
        tags: Iterable[str],
        sliding: bool | None,
        max_age: TTL | None,
        stale_ttl: TTL | None,
    ) -> Life:
        options = self._load_options.changed(
            ttl_sec, {"sliding": sliding, "max_age": max_age, "stale_ttl": stale_ttl, "tags": tags}
        )
        return options.life(tuple(map(self._tag_slot, options.tags)))


_GET_HAS_DOOR = type(QuickCache.get) is not FunctionType
"""Asked once: tests replace the method for a while."""


def _nothing() -> None:
    pass


def _frozen(freeze: Freeze | None, key: str, value: Any) -> Any:
    if freeze is None:
        return value
    try:
        return freeze(value)
    except SerializationError as error:
        raise _of_key(error, key)  # noqa: B904 - the same error, which has its cause


def _announce(kind: EventKind, subscriptions: tuple[Subscription, ...], key: str) -> None:
    for subscription in subscriptions:
        if kind in subscription.kinds:
            subscription.tell(CacheEvent(kind, key))


def _of_key(error: SerializationError, key: str) -> SerializationError:
    error.key = key
    error.args = (f"key {key!r}: {error}",)
    return error


def _raise_miss(key: str, presence: Presence) -> NoReturn:
    raise KeyExpired(key) if presence is Presence.EXPIRED else KeyNotFound(key)


def _check_namespace(name: object) -> None:
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ValueError(f"namespace {name!r}: give a name of printable characters")


def _check_keys(keys: object) -> None:
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise TypeError(f"keys={keys!r}: give a list or another iterable of keys")


def _check_number(field: str, number: object) -> None:
    # Anything that adds and isn't text: Decimal, Fraction and the numbers of numpy will do.
    if isinstance(number, str | bytes) or not hasattr(number, "__neg__"):
        raise TypeError(f"{field}={number!r}: give a number")
