"""The settings of a cache:

Validated once, when they are made, and turned into objects here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal

from quickcache_core.cache import Parts, QuickCache
from quickcache_core.clock import Clock, SystemClock
from quickcache_core.entry import FOREVER
from quickcache_core.errors import ConfigError, InvalidTTL
from quickcache_core.eviction_policy import EvictionPolicy
from quickcache_core.files import CacheFiles, FileRules
from quickcache_core.maintenance import maintenance
from quickcache_core.registry import eviction_policies, serializers
from quickcache_core.serializer import BaseSerializer
from quickcache_core.serializer.compression import codec
from quickcache_core.serializer.isolation import freezer
from quickcache_core.serializer.signing import Signer
from quickcache_core.store.base import Bounds
from quickcache_core.store.memory import MemoryStore
from quickcache_core.store.named import named_stores
from quickcache_core.ttl import TTL, seconds

DISABLING_VARIABLE: Final = "QUICKCACHE_DISABLED"
"""Environment variable; with `1`, `true`, `yes` or `on` every cache made by the process is switched off."""

_SHORTEST_INTERVAL = 0.01
_OTHER_SCOPES = ("shared", "redis", "rediss", "unix", "valkey", "valkeys")

Secret = str | bytes | None


@dataclass(frozen=True, kw_only=True, slots=True)
class QuickCacheConfig:
    """The settings of one cache, all optional.

    Every field is checked when the object is made: `ConfigError` names the field, the value and what is
    accepted.
    """

    max_size: int = 1000
    """Entries, at least 1."""
    default_ttl: TTL | None = 500
    """Seconds or timedelta, above 0; None or `NEVER`: entries have no end unless a call gives them one."""
    cleanup_interval: float = 10.0
    """Seconds between two sweeps of expired entries, at least 0.01."""
    eviction_policy: str | type[EvictionPolicy] = "s3fifo"
    """Who leaves when the cache is full:

    `s3fifo`, `lru`, `lfu`, `fifo`, `sieve`, a registered name, a class or `"module:Class"`.
    """
    serializer: str | type[BaseSerializer] | BaseSerializer = "json"
    """How values become bytes:

    `json`, `pickle`, `msgpack`, a registered name, a class, an instance or `"module:Class"`.
    """
    location: str = ""
    """Which store:

    Empty or `memory://` for one of its own, `memory://name` or a plain word for one shared by name in this
    process.
    """
    isolation: Literal["share", "auto", "copy"] = "share"
    """`share`:

    Callers get the object that was stored. `auto`: what can be changed is copied. `copy`: everything goes
    through the serializer.
    """
    immutable_types: tuple[type, ...] = ()
    """Further types whose instances `isolation="auto"` may hand out uncopied."""
    cull_fraction: float | None = None
    """When the cache is full: None evicts one entry, a share above 0 and up to 1 that many at once."""
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
    metrics_serializer: str | type[BaseSerializer] | BaseSerializer = "json"
    """As `serializer`, for metrics files."""
    metrics_storage_dir: str | os.PathLike[str] | None = None
    """As `storage_dir`, for metrics files."""
    metrics_filename: str = "metrics"
    """Name of metrics files, without extension."""
    cache_metrics_timestamps: bool = False
    """As `cache_timestamps`, for metrics files."""
    secret: Secret | Callable[[], Secret] = field(default=None, repr=False)
    """Signs snapshots; at least 16 bytes. A function is asked whenever the secret is needed."""
    secret_fallbacks: Sequence[str | bytes] | Callable[[], Sequence[str | bytes]] = field(
        default=(), repr=False
    )
    """Former secrets whose signatures are still accepted."""
    allow_unsigned_pickle: bool = False
    """Whether pickles may be written and read without a secret.

    Whoever can write such a file can run code in this process.
    """
    compression: Literal["zlib", "zstd"] | None = None
    """Of snapshots."""
    enabled: bool = True
    """False:

    Every read is a miss and nothing is stored. The environment variable `QUICKCACHE_DISABLED=1` does the same
    for all caches.
    """
    clock: Clock = field(default_factory=SystemClock, repr=False)
    """Where time comes from; see `quickcache_core.testing.ManualClock`."""

    def __post_init__(self) -> None:
        _integer("max_size", self.max_size, least=1)
        _ttl("default_ttl", self.default_ttl)
        _number(
            "cleanup_interval",
            self.cleanup_interval,
            f"give seconds, at least {_SHORTEST_INTERVAL}",
            _SHORTEST_INTERVAL,
        )
        if self.cull_fraction is not None:
            _number(
                "cull_fraction", self.cull_fraction, "give None or a share above 0 and up to 1", 1e-9, 1.0
            )
        eviction_policies.resolve(self.eviction_policy, field="eviction_policy")
        for name in ("serializer", "metrics_serializer"):
            serializers.create(getattr(self, name), field=name)
        _store_name(self.location)
        freezer(self.isolation, serializers.create(self.serializer), self.immutable_types)
        for name in ("storage_dir", "metrics_storage_dir"):
            object.__setattr__(self, name, _directory(name, getattr(self, name)))
        for name in ("filename", "metrics_filename"):
            _filename(name, getattr(self, name))
        for name in (
            "cache_timestamps",
            "enable_metrics",
            "cache_metrics_timestamps",
            "allow_unsigned_pickle",
            "enabled",
        ):
            _boolean(name, getattr(self, name))
        if self.compression is not None:
            codec(self.compression)
        if not callable(self.secret) and not callable(self.secret_fallbacks):
            self._signer()
        for method in ("monotonic", "wall"):
            if not callable(getattr(self.clock, method, None)):
                raise ConfigError(
                    "clock", self.clock, "give an object with the methods monotonic() and wall()"
                )

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> QuickCacheConfig:
        """From field names and values.

        A name that is no field is a `ConfigError` that suggests the nearest.
        """
        for name, value in settings.items():
            if name not in FIELDS:
                raise ConfigError(str(name), value, f"unknown option; {nearest_option(str(name))}")
        return cls(**settings)

    def replace(self, **changes: Any) -> QuickCacheConfig:
        """A copy with other values in some fields, checked again."""
        return dataclasses.replace(self, **changes)

    def build(self) -> QuickCache:
        return QuickCache(self)

    def assemble(self) -> Parts:
        """The objects that these settings stand for.

        A shared location gives the store that is there already.
        """
        store, dismiss = self._store()
        serializer = serializers.create(self.serializer)
        return Parts(
            store=store,
            bounds=Bounds(self.max_size, self.cull_fraction),
            default_ttl=FOREVER if self.default_ttl is None else seconds(self.default_ttl),
            freeze=freezer(self.isolation, serializer, self.immutable_types),
            files=CacheFiles(
                snapshots=FileRules(
                    Path(self.storage_dir or ""), self.filename, self.cache_timestamps, serializer
                ),
                metrics=FileRules(
                    Path(self.metrics_storage_dir or ""),
                    self.metrics_filename,
                    self.cache_metrics_timestamps,
                    serializers.create(self.metrics_serializer),
                ),
                codec=None if self.compression is None else codec(self.compression),
                signer=self._signer,
                allow_unsigned_pickle=self.allow_unsigned_pickle,
                clock=self.clock,
            ),
            enabled=self.enabled and not _disabled_by_environment(),
            dismiss=dismiss,
        )

    def _store(self) -> tuple[MemoryStore, Callable[[], None]]:
        policy = eviction_policies.resolve(self.eviction_policy)
        name = _store_name(self.location)

        def make() -> MemoryStore:
            interval = float(self.cleanup_interval)
            store = MemoryStore(
                policy, self.max_size, self.clock, lambda store: maintenance.wake(store, interval)
            )
            maintenance.adopt(store)
            return store

        if not name:
            store = make()
            return store, lambda: _retire(store)
        store = named_stores.get(name, policy, make)
        store.widen(self.max_size)
        return store, lambda: None

    def _signer(self) -> Signer | None:
        secret = self.secret() if callable(self.secret) else self.secret
        if secret is None:
            return None
        fallbacks = self.secret_fallbacks() if callable(self.secret_fallbacks) else self.secret_fallbacks
        return Signer(secret, fallbacks, purpose="snapshot")


FIELDS: Final = {one.name: one for one in dataclasses.fields(QuickCacheConfig)}
"""The fields by name. An adapter's setting has a field's name, in the spelling of its framework."""

QuickCache.default_config = QuickCacheConfig


def nearest_option(name: str, options: Sequence[str] = ()) -> str:
    """What to say of an option that doesn't exist: the one that was probably meant, or all there are."""
    known = list(options or FIELDS)
    close = get_close_matches(name, known, n=1) or [one for one in known if one.lower() == name.lower()]
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(known))}"


def _retire(store: MemoryStore) -> None:
    maintenance.dismiss(store)
    store.stay_asleep()


def _disabled_by_environment() -> bool:
    value = os.environ.get(DISABLING_VARIABLE, "").strip().lower()
    if value in ("", "0", "false", "no", "off"):
        return False
    if value in ("1", "true", "yes", "on"):
        return True
    raise ConfigError(DISABLING_VARIABLE, value, "set this environment variable to 1 or 0, or remove it")


def _store_name(location: object) -> str:
    """The name of a store that is shared in this process, or nothing for a store of one's own."""
    if not isinstance(location, str):
        raise ConfigError("location", location, "give a string: '', a name, or 'memory://name'")
    scheme, separator, rest = location.partition("://")
    if not separator:
        return location
    if scheme == "memory":
        return rest
    if scheme in _OTHER_SCOPES:
        raise ConfigError(
            "location", location, f"scope {scheme}:// is not part of this version; use 'memory://name'"
        )
    raise ConfigError("location", location, "unknown scheme; use '', a name, or 'memory://name'")


def _integer(name: str, value: object, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(name, value, f"give an integer, at least {least}")


def _number(name: str, value: object, remedy: str, least: float, most: float = 1e9) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigError(name, value, remedy)


def _ttl(name: str, value: object) -> None:
    if value is None:
        return
    try:
        seconds(value, name)
    except InvalidTTL as error:
        raise ConfigError(
            name, value, "give seconds or a timedelta above 0, or None or NEVER for no end"
        ) from error


def _boolean(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(name, value, "give True or False")


def _filename(name: str, value: object) -> None:
    if (
        not isinstance(value, str)
        or not value
        or value in (".", "..")
        or "/" in value
        or os.sep in value
        or "\0" in value
    ):
        raise ConfigError(name, value, "give a file name without directory and extension")


def _directory(name: str, value: object) -> Path:
    if value is None:
        base = os.environ.get("XDG_CACHE_HOME", "")
        # The standard says that a relative path there is to be ignored.
        return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "quickcache"
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ConfigError(name, value, "give a path, or None for the user's cache directory")
    # Made absolute now: a later change of the working directory must not move the files.
    # Not resolve(): a symbolic link stays what the user named.
    return Path.cwd() / Path(value).expanduser()


__all__ = ["DISABLING_VARIABLE", "FIELDS", "QuickCacheConfig", "nearest_option"]
