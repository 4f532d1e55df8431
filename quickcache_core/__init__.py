"""QuickCache: the engine. Standard library only, and no framework."""

from quickcache_core.cache import QuickCache
from quickcache_core.config import FIELDS, QuickCacheConfig, nearest_option
from quickcache_core.decorators import cached
from quickcache_core.entry import MISSING
from quickcache_core.errors import (
    CacheLoadError,
    CacheMetricsSaveError,
    CacheMiss,
    CacheSaveError,
    ConfigError,
    InvalidKey,
    InvalidTTL,
    KeyAlreadyExists,
    KeyExpired,
    KeyNotFound,
    LoaderTimeout,
    LockError,
    LockNotOwned,
    LockTimeout,
    QueueFull,
    QuickCacheError,
    SerializationError,
    StoreUnavailable,
    UnstableArgument,
    ValueTooLarge,
)
from quickcache_core.events import CacheEvent, EventKind, RemovalCause
from quickcache_core.eviction_policy import BaseEvictionPolicy, EvictionPolicy
from quickcache_core.fingerprint import NoStableForm, register_stable_form
from quickcache_core.loading.context import LoaderContext
from quickcache_core.lock import Lock
from quickcache_core.metrics.snapshot import MetricsSnapshot
from quickcache_core.registry.decorators import register_eviction_policy, register_serializer
from quickcache_core.serializer import BaseSerializer
from quickcache_core.ttl import NEVER, TTL

__version__ = "0.2.0"

__all__ = [
    "FIELDS",
    "MISSING",
    "NEVER",
    "TTL",
    "BaseEvictionPolicy",
    "BaseSerializer",
    "CacheEvent",
    "CacheLoadError",
    "CacheMetricsSaveError",
    "CacheMiss",
    "CacheSaveError",
    "ConfigError",
    "EventKind",
    "EvictionPolicy",
    "InvalidKey",
    "InvalidTTL",
    "KeyAlreadyExists",
    "KeyExpired",
    "KeyNotFound",
    "LoaderContext",
    "LoaderTimeout",
    "Lock",
    "LockError",
    "LockNotOwned",
    "LockTimeout",
    "MetricsSnapshot",
    "NoStableForm",
    "QueueFull",
    "QuickCache",
    "QuickCacheConfig",
    "QuickCacheError",
    "RemovalCause",
    "SerializationError",
    "StoreUnavailable",
    "UnstableArgument",
    "ValueTooLarge",
    "cached",
    "nearest_option",
    "register_eviction_policy",
    "register_serializer",
    "register_stable_form",
]
