"""Makes the store that a location names, with what looks after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from quickcache_core.errors import ConfigError
from quickcache_core.location import read_location
from quickcache_core.lock import Locks
from quickcache_core.maintenance import maintenance
from quickcache_core.metrics.publisher import PUBLISH_INTERVAL, Publisher
from quickcache_core.metrics.runtime import figures_path
from quickcache_core.registry import eviction_policies
from quickcache_core.serializer import BaseSerializer
from quickcache_core.serializer.isolation import freezer
from quickcache_core.sizes import bytes_of
from quickcache_core.sizing import LOOK_INTERVAL, AutoSizer
from quickcache_core.store.memory import MemoryStore
from quickcache_core.store.named import named_stores
from quickcache_core.store.published import MemorySource
from quickcache_core.store.weights import weigh
from quickcache_core.twins import Aside

if TYPE_CHECKING:
    from quickcache_core.config import QuickCacheConfig
    from quickcache_core.store.redis.address import Address
    from quickcache_core.store.redis.client import Client
    from quickcache_core.store.redis.store import RedisStore
    from quickcache_core.store.shared.store import SharedStore
    from quickcache_core.store.shared.table import SharedTable

DEFAULT_BYTES: Final = 128_000_000
"""Of a store in scope `shared`: taken on the disk at once, in memory as far as it is used."""
LEAST_BYTES: Final = 1_000_000
LOCK_BYTES: Final = 8_000_000
"""For locks in scope `shared`, some 40,000 at a time; taken on the disk when the first is asked for."""


@dataclass(frozen=True, slots=True)
class Made:
    store: MemoryStore | SharedStore | RedisStore
    freeze: Callable[[Any], Any] | None
    """What turns a value into its stored form; None if that is the value itself."""
    publisher: Publisher | None
    """Shows the figures of the store to other processes."""
    is_shared: bool
    """Whether other caches may use the store as well."""
    dismiss: Callable[[], None]
    """Ends the background work for the store, if nobody else uses it."""
    locks: Callable[[], Locks]
    """Gives the locks of the scope, made when they are first asked for."""
    attend: Callable[[AutoSizer], None] | None = None
    """Has a sizer looked after, as long as the store is; None where stores have a size of their own."""
    aside: Aside | None = None
    """How coroutines call what asks a server; None for a store that is reached without one."""


def make_store(config: QuickCacheConfig, serializer: BaseSerializer) -> Made:
    """The store of a configuration; for a location that others share, the one that is there already.

    Raises `ConfigError` if those that are there can't be shared with these settings.
    """
    location = read_location(config.location)
    if location.scope == "shared":
        shared = _shared_store(config, location.name, serializer)
        locks = partial(_locks_in_files, config, shared.table.connection.path)
        return Made(shared, shared.freeze, shared.table.publisher, True, _nothing, locks)
    if location.address is not None:
        return _made_on_server(config, location.address, serializer)
    store = _memory_store(config, location.name)
    return Made(
        store,
        freezer(config.isolation, serializer, config.immutable_types),
        None if config.publish_as is None else _publisher(store, config.publish_as),
        bool(location.name),
        _nothing if location.name else partial(_retire, store),
        partial(_locks_in_memory, config, store),
        partial(_attend, store),
    )


def check_shared_scope() -> None:
    """Raises `ConfigError` where scope `shared` can't work, with the line that installs what is missing."""
    try:
        import fcntl  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "location", "shared://…", "this needs POSIX file locks, which Windows lacks; use scope memory"
        ) from error
    from quickcache_core.store.shared.environment import load_lmdb

    load_lmdb()


def _nothing() -> None:
    pass


# Scope memory


def _memory_store(config: QuickCacheConfig, name: str) -> MemoryStore:
    policy = eviction_policies.resolve(config.eviction_policy)

    def make() -> MemoryStore:
        interval = float(config.cleanup_interval)
        weigher = None if config.max_bytes is None else weigh
        store = MemoryStore(policy, config.max_size, config.clock, lambda one: _wake(one, interval), weigher)
        maintenance.adopt(store)
        return store

    if not name:
        return make()
    store = named_stores.get(name, policy, config.eviction_policy, make)
    if config.max_bytes is not None and not store.weighs:
        raise ConfigError(
            "max_bytes",
            config.max_bytes,
            f"the store {name!r} was made by a cache without max_bytes, and weighs nothing; give it to all "
            "caches of the store, or to none",
        )
    store.widen(config.max_size)
    return store


_memory_locks: Final[WeakKeyDictionary[MemoryStore, Locks]] = WeakKeyDictionary()


def _locks_in_memory(config: QuickCacheConfig, store: MemoryStore) -> Locks:
    known = _memory_locks.get(store)
    if known is None:
        apart = MemoryStore(eviction_policies.resolve("fifo"), config.max_size, config.clock)
        maintenance.adopt(apart)
        known = _memory_locks.setdefault(store, Locks(apart))
    return known


def _wake(store: MemoryStore, interval: float) -> None:
    maintenance.wake(store, interval)
    for publisher in store.publishers.values():
        _wake_publisher(publisher)
    for sizer in store.sizers:
        maintenance.wake(sizer, LOOK_INTERVAL)


def _attend(store: MemoryStore, sizer: AutoSizer) -> None:
    maintenance.adopt(sizer)
    store.sizers.append(sizer)
    store.want_thread()


def _wake_publisher(publisher: Publisher) -> None:
    maintenance.wake(publisher, PUBLISH_INTERVAL)


def _publisher(store: MemoryStore, name: str) -> Publisher:
    """The publisher of that store under that name; a store has one for each."""
    known = store.publishers.get(name)
    if known is not None:
        return known
    publisher = Publisher(MemorySource(store), lambda: figures_path(name), _wake_publisher)
    maintenance.adopt(publisher)
    store.want_thread()
    return store.publishers.setdefault(name, publisher)


def _retire(store: MemoryStore) -> None:
    for publisher in store.publishers.values():
        publisher.publish()
        publisher.stay_asleep()
        maintenance.dismiss(publisher)
    for sizer in store.sizers:
        maintenance.dismiss(sizer)
    maintenance.dismiss(store)
    store.stay_asleep()


def _way_of_reading(config: QuickCacheConfig) -> tuple[object, ...]:
    """Of entries that others write, too. Caches that read them in the same way share what they have near."""
    return (
        config.serializer,
        config.isolation,
        config.immutable_types,
        config.secret,
        config.secret_fallbacks,
        config.allow_unsigned_pickle,
        config.near_size,
        config.fail,
    )


# Scope shared


def _shared_store(config: QuickCacheConfig, path: str, serializer: BaseSerializer) -> SharedStore:
    # Not imported above: this needs POSIX, and most programs never ask for it.
    from quickcache_core.store.codec import Codec
    from quickcache_core.store.shared.opening import shared_stores
    from quickcache_core.store.shared.store import SharedStore

    map_size = DEFAULT_BYTES
    if config.max_bytes is not None:
        map_size = bytes_of("max_bytes", config.max_bytes, LEAST_BYTES)
    table = shared_stores.table(
        path, map_size, config.clock, partial(_look_after, float(config.cleanup_interval))
    )

    def make() -> SharedStore:
        codec = Codec(
            serializer,
            config.isolation,
            config.immutable_types,
            config.secrets("shared").signer,
            config.allow_unsigned_pickle,
        )
        return SharedStore(table, codec, config.clock, config.near_size, degrade=config.fail == "degrade")

    store = shared_stores.store((table.connection.path, *_way_of_reading(config)), make)
    store.widen(config.max_size)
    return store


_file_locks: Final[WeakKeyDictionary[SharedStore, Locks]] = WeakKeyDictionary()


def _locks_in_files(config: QuickCacheConfig, path: Path) -> Locks:
    """`path`: without symbolic links, which to look for takes almost as long as to take a lock."""
    from quickcache_core.serializer import JsonSerializer
    from quickcache_core.store.codec import Codec
    from quickcache_core.store.shared.directory import LOCKS
    from quickcache_core.store.shared.opening import shared_stores
    from quickcache_core.store.shared.store import SharedStore

    def make() -> SharedStore:
        watch_over = partial(_watch_over, float(config.cleanup_interval))
        table = shared_stores.table(str(path / LOCKS), LOCK_BYTES, config.clock, watch_over)
        codec = Codec(JsonSerializer(), "auto", (), lambda: None, False)
        # No near store, whose entries others would have to be told of; and no answers of an empty store.
        return SharedStore(table, codec, config.clock, 0, degrade=False)

    store = shared_stores.store((LOCKS, path), make)
    known = _file_locks.get(store)
    return _file_locks.setdefault(store, Locks(store, signs=store)) if known is None else known


def _watch_over(interval: float, table: SharedTable) -> None:
    from quickcache_core.store.shared.upkeep import INTERVAL, Upkeep

    upkeep = Upkeep(table, interval)
    maintenance.adopt(upkeep)
    table.wake = partial(maintenance.wake, upkeep, INTERVAL)


def _look_after(interval: float, table: SharedTable) -> None:
    from quickcache_core.store.shared.directory import FIGURES
    from quickcache_core.store.shared.published import SharedSource
    from quickcache_core.store.shared.upkeep import INTERVAL, Upkeep

    upkeep = Upkeep(table, interval)
    publisher = Publisher(
        SharedSource(table), lambda: table.connection.path / FIGURES, _wake_publisher, shared_entries=True
    )
    maintenance.adopt(upkeep)
    maintenance.adopt(publisher)

    def wake() -> None:
        maintenance.wake(upkeep, INTERVAL)
        _wake_publisher(publisher)

    table.publisher, table.wake = publisher, wake


# Scope redis


def _made_on_server(config: QuickCacheConfig, address: Address, serializer: BaseSerializer) -> Made:
    # Not imported above: this needs redis-py and greenlet.
    from quickcache_core.store.redis import bridge
    from quickcache_core.store.redis.opening import redis_stores

    client = redis_stores.client(address, config.redis_options, config.clock)
    store = _redis_store(config, client, serializer)
    locks = partial(_locks_on_server, config, client)
    return Made(store, store.freeze, store.publisher, True, _nothing, locks, aside=bridge.run)


def _redis_store(config: QuickCacheConfig, client: Client, serializer: BaseSerializer) -> RedisStore:
    from quickcache_core.store.codec import Codec
    from quickcache_core.store.redis.opening import redis_stores
    from quickcache_core.store.redis.record import SIGNATURE_BYTES
    from quickcache_core.store.redis.store import RedisStore

    def make() -> RedisStore:
        codec = Codec(
            serializer,
            config.isolation,
            config.immutable_types,
            config.secrets("redis").signer,
            config.allow_unsigned_pickle,
            SIGNATURE_BYTES,
        )
        store = RedisStore(
            client,
            config.redis_prefix,
            codec,
            config.clock,
            config.near_size,
            degrade=config.fail == "degrade",
        )
        _tend(store)
        return store

    store = redis_stores.store((client, config.redis_prefix, *_way_of_reading(config)), make)
    store.widen(config.max_size)
    return store


def _tend(store: RedisStore) -> None:
    from quickcache_core.store.redis.background import INTERVAL
    from quickcache_core.store.redis.published import RedisSource

    name = f"{store.client.address} {store.names.prefix.decode()}"
    publisher = Publisher(
        RedisSource(store),
        lambda: figures_path(name),
        _wake_publisher,
        shared_entries=True,
        everywhere=store.announcing.read,
    )
    store.announcing.own = publisher.own
    background = store.background
    maintenance.adopt(background)
    maintenance.adopt(publisher)

    def wake() -> None:
        maintenance.wake(background, INTERVAL)
        _wake_publisher(publisher)

    store.publisher, background.wake = publisher, wake
    background.has_thread = lambda: maintenance.is_running


def _locks_on_server(config: QuickCacheConfig, client: Client) -> Locks:
    from quickcache_core.serializer import JsonSerializer
    from quickcache_core.store.codec import Codec
    from quickcache_core.store.redis import bridge
    from quickcache_core.store.redis.opening import redis_stores
    from quickcache_core.store.redis.store import RedisStore

    prefix = f"{config.redis_prefix}.locks"

    def make() -> RedisStore:
        codec = Codec(JsonSerializer(), "auto", (), lambda: None, False)
        # No near store: whether a lock is free is asked each time. And no answers of an empty store.
        return RedisStore(client, prefix, codec, config.clock, 0, degrade=False)

    store = redis_stores.store((client, prefix), make)
    known = _server_locks.get(store)
    if known is None:
        known = _server_locks.setdefault(store, Locks(store, aside=bridge.run, sweeps=False))
    return known


_server_locks: Final[WeakKeyDictionary[RedisStore, Locks]] = WeakKeyDictionary()
