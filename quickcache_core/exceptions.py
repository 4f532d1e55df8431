"""The errors under the module name that PyQuickCache 0.1.0 gave them.

New code takes them from `quickcache_core`.
"""

from quickcache_core.errors import (
    CacheLoadError,
    CacheMetricsSaveError,
    CacheSaveError,
    InvalidTTL,
    KeyAlreadyExists,
    KeyExpired,
    KeyNotFound,
)
from quickcache_core.errors import QuickCacheError as CacheError

__all__ = [
    "CacheError",
    "CacheLoadError",
    "CacheMetricsSaveError",
    "CacheSaveError",
    "InvalidTTL",
    "KeyAlreadyExists",
    "KeyExpired",
    "KeyNotFound",
]
