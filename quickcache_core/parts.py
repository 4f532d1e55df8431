"""What a cache is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quickcache_core.files import CacheFiles
from quickcache_core.loading.options import LoadOptions
from quickcache_core.lock import Locks
from quickcache_core.metrics.publisher import Publisher
from quickcache_core.sizing import AutoSizer
from quickcache_core.store.base import Bounds
from quickcache_core.store.memory import MemoryStore
from quickcache_core.twins import Aside

if TYPE_CHECKING:
    from quickcache_core.store.redis.store import RedisStore
    from quickcache_core.store.shared.store import SharedStore

Freeze = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a cache is made of; `QuickCacheConfig.assemble` makes them."""

    store: MemoryStore | SharedStore | RedisStore
    bounds: Bounds
    load_options: LoadOptions
    """What holds for entries and loads that don't say otherwise."""
    freeze: Freeze | None
    files: CacheFiles
    enabled: bool
    shares_store: bool
    """Whether other caches may use the store as well."""
    locks: Callable[[], Locks]
    """Gives the locks of the scope."""
    dismiss: Callable[[], None]
    """Ends the background work for the store, if nobody else uses it."""
    publisher: Publisher | None = None
    """Shows the figures of the store to other processes."""
    attend: Callable[[AutoSizer], None] | None = None
    """Has a sizer looked after; None without automatic sizing."""
    aside: Aside | None = None
    """How coroutines call what asks a server; None for a store that is reached without one."""
