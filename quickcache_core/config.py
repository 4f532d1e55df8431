"""The settings of a cache: validated when they are made, and turned into objects here and nowhere else."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal

from quickcache_core import checks
from quickcache_core.cache import QuickCache
from quickcache_core.clock import SYSTEM_CLOCK, Clock
from quickcache_core.entry import FOREVER
from quickcache_core.errors import ConfigError, Hidden
from quickcache_core.eviction_policy import EvictionPolicy
from quickcache_core.files import CacheFiles, FileRules
from quickcache_core.loading.options import LoadOptions
from quickcache_core.location import joined, read_location
from quickcache_core.moving import DJANGO_REDIS_SERIALIZERS, former_option
from quickcache_core.parts import Parts
from quickcache_core.registry import eviction_policies, serializers
from quickcache_core.scopes import LEAST_BYTES, check_shared_scope, make_store
from quickcache_core.serializer import BaseSerializer
from quickcache_core.serializer.compression import codec
from quickcache_core.serializer.isolation import freezer
from quickcache_core.serializer.signing import Secret, Secrets, Signer
from quickcache_core.sizes import bytes_of
from quickcache_core.store.base import Bounds
from quickcache_core.store.keyspace import SEPARATOR
from quickcache_core.store.redis.requirements import check_redis_scope
from quickcache_core.ttl import TTL, seconds

DISABLING_VARIABLE: Final = "QUICKCACHE_DISABLED"
"""Environment variable; with `1`, `true`, `yes` or `on` every cache made by the process is switched off."""

LEAST_WEIGHT: Final = 1000
"""Bytes; with less than a few entries nothing is a cache."""

_THE_SERVERS: Final = {
    "max_bytes": "how much a store in scope redis may take is set at the server, with maxmemory and a "
    "maxmemory-policy such as allkeys-lru; leave the option out",
    "auto_resize": "a store in scope redis takes no memory here but for near_size entries; leave it out",
    "eviction_policy": "in scope redis the server evicts, by its maxmemory-policy; leave the option out",
}
"""Settings that have no meaning in scope `redis`, and what to do instead."""
_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_BOOLEANS = (
    "cache_timestamps",
    "enable_metrics",
    "cache_metrics_timestamps",
    "allow_unsigned_pickle",
    "enabled",
    "auto_resize",
    "sliding",
    "skip_none",
    "single_flight",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class QuickCacheConfig:
    """The settings of one cache, all optional.

    Every field is checked when the object is made: `ConfigError` names the field, the value and what is
    accepted.
    """

    max_size: int = 1000
    """Most entries, at least 1. In scope `redis` the server bounds itself."""
    max_bytes: int | str | None = None
    """Most bytes: an integer, text such as "256MB", or "10%" of the memory that this process may use. In
    scope `memory` the estimated size of keys and values, at least "1kB"; None: nothing is weighed, and
    `max_size` alone counts. In scope `shared` the room that the store takes on the disk, at least "1MB";
    None: "128MB". Not in scope `redis`, whose server has a `maxmemory`.
    """
    oversized: Literal["raise", "skip"] = "raise"
    """What becomes of a value that is larger than the store can take. `raise`: `ValueTooLarge`. `skip`: it is
    not stored. Either way an older value under its key is removed.
    """
    auto_resize: bool = False
    """Whether the bounds of a store in memory shrink while the machine or the container is short of memory.
    """
    near_size: int = 10_000
    """Entries of a store in scope `shared` or `redis` that each process keeps at hand, at least 0."""
    fail: Literal["degrade", "raise"] = "degrade"
    """What becomes of operations while the store can't be used. `degrade`: reads miss and nothing is stored.
    `raise`: `StoreUnavailable`.
    """
    default_ttl: TTL | None = 500
    """How long entries live whose call says nothing else: seconds or timedelta, above 0. None or `NEVER`:
    they have no end.
    """
    sliding: bool = False
    """Whether each read lets the TTL of an entry begin anew."""
    max_age: TTL | None = None
    """With `sliding`: seconds or timedelta that an entry lives at most; None or `NEVER`: no limit."""
    stale_ttl: TTL | None = None
    """Seconds or timedelta that entries are kept after their TTL, for `get_or_set` and whatever else loads to
    serve while the source is slow or down. None: nothing stale is served.
    """
    retry_after: float = 5.0
    """Seconds for which a load that failed isn't tried again while there is a stale value to serve."""
    soft_timeout: TTL = 0.0
    """Seconds that a reader waits for a fresh value when there is a stale one: 0 serves that at once, `NEVER`
    only if the loader fails.
    """
    hard_timeout: TTL | None = None
    """Seconds that a reader waits for a loader at all, then `LoaderTimeout` is raised and the load goes on in
    the background; None or `NEVER`: as long as it takes.
    """
    refresh_ahead: float | None = None
    """Share of the TTL, above 0 and below 1, after which a reader sets off a refresh in the background. None:
    no refresh before the TTL ends.
    """
    jitter: float = 0.0
    """Share of the TTL, from 0 to below 1, by which that of loaded values is shortened at random."""
    skip_none: bool = False
    """Whether a loader's None is handed out without being stored."""
    single_flight: bool = True
    """Whether callers who miss one key together wait for one load, over threads, tasks and, in scopes
    `shared` and `redis`, processes.
    """
    lease: float = 30.0
    """Seconds that a caller waits for somebody else's load before it loads by itself."""
    background_context: Callable[[], AbstractContextManager[Any]] | None = field(default=None, repr=False)
    """Called in a background thread around each load: gives a context manager, for what belongs to a thread,
    such as connections.
    """
    version: str = ""
    """Entries of other versions can't be seen: change it when a new release stores something else under the
    same keys. Old and new releases may share a store.
    """
    cleanup_interval: float = 10.0
    """Seconds between two sweeps of expired entries, at least 0.01."""
    eviction_policy: str | type[EvictionPolicy] = "s3fifo"
    """Who leaves when the cache is full: `s3fifo`, `lru`, `lfu`, `lfuda`, `fifo`, `sieve`, with
    `max_bytes` also `gdsf`, a registered name, a class or `"module:Class"`.
    """
    serializer: str | type[BaseSerializer] | BaseSerializer = "json"
    """How values become bytes: `json`, `pickle`, `msgpack`, a registered name, a class, an instance or
    `"module:Class"`.
    """
    location: str = ""
    """Which store: empty or `memory://` for one of its own, `memory://name` or a plain word for one shared by
    name in this process, `shared://` and the absolute path of a directory for one that all processes of the
    host share, the URL of a Redis or Valkey server (`redis://`, `rediss://`, `valkey://`, `valkeys://`,
    `unix://`), or of several with commas between, for one that all who reach the server share.
    """
    redis_prefix: str = "qc"
    """What the keys of a store in scope `redis` begin with on the server: up to 40 letters, digits, `_`, `.`
    and `-`. Caches with the same prefix and server share their entries.
    """
    redis_options: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    """Options for the connections of redis-py to a store in scope `redis`, such as `password`,
    `socket_timeout` (seconds, 1 if not given), `socket_connect_timeout` (0.5) and `ssl_ca_certs`.
    """
    isolation: Literal["share", "auto", "copy"] = "share"
    """`share`: callers get the object that was stored. `auto`: what can be changed is copied. `copy`:
    everything goes through the serializer.
    """
    immutable_types: tuple[type, ...] = ()
    """Further types whose instances `isolation="auto"` may hand out uncopied."""
    cull_fraction: float | None = None
    """What leaves when the cache is full: with None one entry at a time, with a share above 0 and up to 1
    that many at once.
    """
    storage_dir: str | os.PathLike[str] | None = None
    """Directory of snapshots. None: `quickcache` in the user's cache directory. Relative ones count from the
    working directory of the moment when the configuration is made.
    """
    filename: str = "cache_data"
    """Name of snapshots, without extension."""
    cache_timestamps: bool = False
    """Whether names of snapshots carry the time unless the call says otherwise."""
    enable_metrics: bool = True
    """Whether the cache gives figures."""
    publish_as: str | None = None
    """Name under which the figures of a store in memory are published to other processes of this user. None:
    they aren't.
    """
    metrics_serializer: str | type[BaseSerializer] | BaseSerializer = "json"
    """As `serializer`, for metrics files."""
    metrics_storage_dir: str | os.PathLike[str] | None = None
    """As `storage_dir`, for metrics files."""
    metrics_filename: str = "metrics"
    """Name of metrics files, without extension."""
    cache_metrics_timestamps: bool = False
    """As `cache_timestamps`, for metrics files."""
    secret: Secret | Callable[[], Secret] = field(default=None, repr=False)
    """Signs snapshots and, in scopes `shared` and `redis`, pickled values; at least 16 bytes. A function is
    asked whenever the secret is needed.
    """
    secret_fallbacks: Sequence[str | bytes] | Callable[[], Sequence[str | bytes]] = field(
        default=(), repr=False
    )
    """Former secrets whose signatures are still accepted."""
    allow_unsigned_pickle: bool = False
    """Whether pickles may be written and read without a secret.

    Whoever can write such a file, or to the server, can run code in this process.
    """
    compression: Literal["zlib", "zstd"] | None = None
    """How snapshots are compressed; None: not at all."""
    enabled: bool = True
    """False: every read is a miss and nothing is stored. The environment variable `QUICKCACHE_DISABLED=1`
    does the same for all caches.
    """
    clock: Clock = field(default=SYSTEM_CLOCK, repr=False)
    """Where time comes from: an object with `monotonic()` and `wall()`, both in seconds; for tests,
    `quickcache_core.testing.ManualClock`.
    """

    def __post_init__(self) -> None:
        checks.integer("max_size", self.max_size, 1, sys.maxsize)
        checks.default_ttl("default_ttl", self.default_ttl)
        checks.number("cleanup_interval", self.cleanup_interval, "seconds", 0.01, 1e9)
        self._check_loading()
        if self.cull_fraction is not None:
            checks.number("cull_fraction", self.cull_fraction, "None, or a share", 1e-9, 1.0)
        policy = eviction_policies.resolve(self.eviction_policy)
        eviction_policies.create(policy, field="eviction_policy")
        for name in ("serializer", "metrics_serializer"):
            _check_serializer(name, getattr(self, name))
        self._check_scope()
        self._set("immutable_types", _types(self.immutable_types))
        freezer(self.isolation, serializers.create(self.serializer))
        for name in ("storage_dir", "metrics_storage_dir"):
            self._set(name, checks.directory(name, getattr(self, name)))
        for name in ("filename", "metrics_filename"):
            checks.filename(name, getattr(self, name))
        if self.publish_as is not None:
            checks.name("publish_as", self.publish_as)
        for name in _BOOLEANS:
            checks.boolean(name, getattr(self, name))
        if self.compression is not None:
            codec(self.compression)
        if self.secret is not None and not callable(self.secret):
            Signer(self.secret, purpose="check")
        if not callable(self.secret_fallbacks):
            self._set("secret_fallbacks", _fallbacks(self.secret_fallbacks))
        checks.clock("clock", self.clock)

    def _check_loading(self) -> None:
        for name in ("max_age", "stale_ttl", "hard_timeout"):
            checks.default_ttl(name, getattr(self, name))
        if self.soft_timeout != 0 or isinstance(self.soft_timeout, bool):
            checks.duration("soft_timeout", self.soft_timeout)
        checks.number("retry_after", self.retry_after, "seconds", 0.0, 1e9)
        checks.number("lease", self.lease, "seconds", 0.001, 1e9)
        checks.number("jitter", self.jitter, "a share of the TTL", 0.0, 0.999)
        if self.refresh_ahead is not None:
            checks.number("refresh_ahead", self.refresh_ahead, "None, or a share of the TTL", 0.001, 0.999)
        if self.background_context is not None and not callable(self.background_context):
            raise ConfigError(
                "background_context", self.background_context, "give a function that gives a context manager"
            )
        version: object = self.version
        if not isinstance(version, str) or SEPARATOR in version:
            raise ConfigError("version", version, "give a string such as the number of the release")

    def _check_scope(self) -> None:
        scope, _, servers = read_location(self.location)
        self._set("location", joined(self.location))
        self._check_redis_settings()
        checks.integer("near_size", self.near_size, 0, sys.maxsize)
        checks.one_of("fail", self.fail, ("degrade", "raise"))
        checks.one_of("oversized", self.oversized, ("raise", "skip"))
        if self.max_bytes is not None:
            bytes_of("max_bytes", self.max_bytes, LEAST_BYTES if scope == "shared" else LEAST_WEIGHT)
        if scope == "memory":
            self._check_weights()
            return
        if servers is not None:
            self._check_left_to_server()
            check_redis_scope(servers, self.redis_options)
        if self.auto_resize:
            raise ConfigError(
                "auto_resize",
                True,
                "a store in scope shared has the room that was taken for it; leave it out",
            )
        if self.eviction_policy != FIELDS["eviction_policy"].default:
            raise ConfigError(
                "eviction_policy",
                self.eviction_policy,
                "scope shared evicts by CLOCK, which all processes take part in; leave the option out",
            )
        if (
            serializers.create(self.serializer).needs_signature
            and self.secret is None
            and not self.allow_unsigned_pickle
        ):
            raise ConfigError(
                "secret",
                None,
                f"values in scope {scope} are read by other processes, and this serializer could run what "
                "somebody else put there; set a secret to sign them, or serializer='json'",
            )
        if scope == "shared":
            check_shared_scope()

    def _check_weights(self) -> None:
        policy = eviction_policies.resolve(self.eviction_policy)
        if policy.needs_weights and self.max_bytes is None:
            raise ConfigError(
                "max_bytes",
                None,
                f"eviction_policy={self.eviction_policy!r} goes by the size of values, and none are weighed "
                "without a bound in bytes; set one, or take 'lfuda', which goes by uses and age alone",
            )

    def _check_redis_settings(self) -> None:
        prefix: object = self.redis_prefix
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise ConfigError(
                "redis_prefix", prefix, "give 1 to 40 of the letters A to Z and a to z, digits, _ . -"
            )
        options: object = self.redis_options
        if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
            raise ConfigError(
                "redis_options",
                Hidden(options),
                "give a mapping of names of redis-py's options to values",
            )

    def _check_left_to_server(self) -> None:
        """What the server of scope `redis` is responsible for."""
        for name, instead in _THE_SERVERS.items():
            if getattr(self, name) != FIELDS[name].default:
                raise ConfigError(name, getattr(self, name), instead)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> QuickCacheConfig:
        """From field names and values.

        A name that is no field is a `ConfigError` that suggests the nearest.
        """
        if not isinstance(settings, Mapping):
            raise TypeError(f"settings={settings!r}: give a mapping of field names to values")
        _check_names(settings)
        return cls(**settings)

    def replace(self, **changes: Any) -> QuickCacheConfig:
        """A copy with other values in some fields, checked again; unknown names as with `from_mapping`."""
        _check_names(changes)
        return dataclasses.replace(self, **changes)

    def build(self) -> QuickCache:
        """A cache with these settings. Raises `ConfigError` for what only shows now, such as a directory that
        can't be used.
        """
        return QuickCache(self)

    def assemble(self) -> Parts:
        """The objects that these settings stand for.

        A shared location gives the store that is there already.
        """
        serializer = serializers.create(self.serializer)
        made = make_store(self, serializer)
        return Parts(
            store=made.store,
            locks=made.locks,
            bounds=self.bounds(),
            load_options=self.load_options(),
            freeze=made.freeze,
            files=CacheFiles(
                snapshots=FileRules(
                    "storage_dir",
                    _as_path(self.storage_dir),
                    self.filename,
                    self.cache_timestamps,
                    serializer,
                ),
                metrics=FileRules(
                    "metrics_storage_dir",
                    _as_path(self.metrics_storage_dir),
                    self.metrics_filename,
                    self.cache_metrics_timestamps,
                    serializers.create(self.metrics_serializer),
                ),
                codec=None if self.compression is None else codec(self.compression),
                signer=self.secrets("snapshot").signer,
                allow_unsigned_pickle=self.allow_unsigned_pickle,
                clock=self.clock,
            ),
            enabled=self.enabled and not _disabled_by_environment(),
            shares_store=made.is_shared,
            dismiss=made.dismiss,
            attend=made.attend if self.auto_resize else None,
            publisher=made.publisher,
            aside=made.aside,
        )

    def bounds(self) -> Bounds:
        max_bytes = None
        if self.max_bytes is not None and read_location(self.location).scope == "memory":
            max_bytes = bytes_of("max_bytes", self.max_bytes, LEAST_WEIGHT)
        return Bounds(self.max_size, self.cull_fraction, max_bytes)

    def load_options(self) -> LoadOptions:
        """What holds for loads that don't say otherwise."""
        return LoadOptions(
            ttl=_limit(self.default_ttl),
            stale_ttl=0.0 if self.stale_ttl is None else seconds(self.stale_ttl),
            sliding=self.sliding,
            max_age=_limit(self.max_age),
            refresh_ahead=self.refresh_ahead,
            jitter=float(self.jitter),
            soft_timeout=seconds(self.soft_timeout) if self.soft_timeout else 0.0,
            hard_timeout=_limit(self.hard_timeout),
            retry_after=float(self.retry_after),
            skip_none=self.skip_none,
            single_flight=self.single_flight,
            lease=float(self.lease),
        )

    def secrets(self, purpose: str) -> Secrets:
        """What signs and checks, with keys that are good for one purpose only."""
        return Secrets(self.secret, self.secret_fallbacks, purpose=purpose)


FIELDS: Final = {one.name: one for one in dataclasses.fields(QuickCacheConfig)}
"""The fields by name. An adapter's setting has a field's name, in the spelling of its framework."""

QuickCache.default_config = QuickCacheConfig


def nearest_option(name: str, options: Sequence[str] = ()) -> str:
    """What to say of an option that doesn't exist: what does here what it does in another cache, the one
    that was probably meant, or all there are.
    """
    known = list(options or FIELDS)
    by_lower = {one.lower(): one for one in known}
    if name.lower() not in by_lower:
        spelled = str.upper if all(one.isupper() for one in known) else str
        if meaning := former_option(name, spelled):
            return meaning
    close = [by_lower[one] for one in get_close_matches(name.lower(), by_lower, n=1)]
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(known))}"


def _disabled_by_environment() -> bool:
    value = os.environ.get(DISABLING_VARIABLE, "").strip().lower()
    if value in ("", "0", "false", "no", "off"):
        return False
    if value in ("1", "true", "yes", "on"):
        return True
    raise ConfigError(DISABLING_VARIABLE, value, "set this environment variable to 1 or 0, or remove it")


def _check_serializer(name: str, value: object) -> None:
    if isinstance(value, str) and value.startswith(DJANGO_REDIS_SERIALIZERS):
        raise ConfigError(
            name, value, f"give {' or '.join(map(repr, serializers.available()))}; it is django-redis's"
        )
    serializer = serializers.create(value, field=name)
    extension = getattr(serializer, "extension", None)
    if not isinstance(extension, str) or "/" in extension or "\0" in extension:
        raise ConfigError(name, value, f"its extension is {extension!r}; give it one such as 'json'")
    if not isinstance(getattr(serializer, "is_binary", None), bool):
        raise ConfigError(name, value, "its is_binary is no bool; say whether serialize returns bytes")


def _types(value: Any) -> tuple[type, ...]:
    types = tuple(value) if isinstance(value, Iterable) else (value,)
    if isinstance(value, str | bytes | type) or not all(isinstance(one, type) for one in types):
        raise ConfigError("immutable_types", value, "give a tuple of types")
    return types


def _fallbacks(value: Sequence[str | bytes]) -> tuple[str | bytes, ...]:
    try:
        Signer("sixteen bytes or more", value, purpose="check")
    except TypeError:
        raise ConfigError("secret_fallbacks", Hidden(value), "give a list of secrets") from None
    return tuple(value)


def _check_names(settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        if name not in FIELDS:
            # Perhaps a secret under a wrong name: errors end up in logs.
            raise ConfigError(str(name), Hidden(value), f"unknown option; {nearest_option(str(name))}")


def _limit(duration: TTL | None) -> float:
    return FOREVER if duration is None else seconds(duration)


def _as_path(directory: str | os.PathLike[str] | None) -> Path | None:
    return None if directory is None else Path(directory)


__all__ = ["DISABLING_VARIABLE", "FIELDS", "QuickCacheConfig", "nearest_option"]
