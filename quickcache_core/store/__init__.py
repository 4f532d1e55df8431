"""Where entries live."""

from quickcache_core.store.base import Bounds, Presence, Record, Store
from quickcache_core.store.memory import MemoryStore
from quickcache_core.store.off import OffStore

__all__ = ["Bounds", "MemoryStore", "OffStore", "Presence", "Record", "Store"]
