"""Events of many caches, handed on to the signals of a framework, for as long as somebody is connected."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from quickcache_core.events import CacheEvent, EventKind, RemovalCause

if TYPE_CHECKING:
    from quickcache_core.cache import QuickCache

_KINDS: Final = {
    "hit": EventKind.HIT,
    "miss": EventKind.MISS,
    "set": EventKind.SET,
    "stale": EventKind.STALE,
    "evict": EventKind.REMOVED,
    "expire": EventKind.REMOVED,
}
_CAUSES: Final = {RemovalCause.EVICTED: "evict", RemovalCause.EXPIRED: "expire"}
_OF_KEYSPACES = "\x1f"
"""How keys of namespaces begin, of which the store tells as well."""

Tell = Callable[[str, Any], bool]
"""Gets the key, and what was said of the cache when it was added. Returns whether anybody is connected."""


class Relay:
    """Knows the caches of an adapter, and listens to them only while a signal has receivers.

    Without any, a cache has no listener, and no operation pays. Caches are held weakly. Any thread may call.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._caches: WeakKeyDictionary[QuickCache, Any] = WeakKeyDictionary()
        self._wanted: dict[str, Tell] = {}

    def add(self, cache: QuickCache, about: Any) -> None:
        """`about` is handed to receivers, and must not hold the cache."""
        with self._lock:
            self._caches[cache] = about
            if self._wanted:
                self._listen(cache, about)

    def want(self, happening: str, tell: Tell) -> None:
        """Call `tell` from now on."""
        with self._lock:
            if happening not in self._wanted:
                self._wanted[happening] = tell
                self._listen_to_all()

    def no_more(self, happening: str) -> None:
        with self._lock:
            if self._wanted.pop(happening, None) is not None:
                self._listen_to_all()

    def _listen_to_all(self) -> None:
        for cache, about in list(self._caches.items()):
            self._listen(cache, about)

    def _listen(self, cache: QuickCache, about: Any) -> None:
        stop = vars(cache).pop("_stop_relay", None)
        if stop is not None:
            stop()
        kinds = {_KINDS[one] for one in self._wanted}
        if EventKind.REMOVED in kinds and not self._is_first(cache):
            kinds.remove(EventKind.REMOVED)
        if kinds:
            # Kept by the cache: what stops a subscription holds it.
            vars(cache)["_stop_relay"] = cache.subscribe(partial(self._hear, about), kinds)

    def _is_first(self, cache: QuickCache) -> bool:
        """Whether no other cache tells of what leaves its store."""
        same: Iterable[QuickCache] = (one for one in self._caches if one.shares_store_with(cache))
        return next(iter(same), cache) is cache

    def _hear(self, about: Any, event: CacheEvent) -> None:
        if event.kind is EventKind.REMOVED:
            happening = _CAUSES.get(event.cause) if event.cause else None
            if event.key.startswith(_OF_KEYSPACES):
                return
        else:
            happening = event.kind.value
        tell = self._wanted.get(happening) if happening else None
        if tell is not None and happening is not None and not tell(event.key, about):
            # The receivers are gone, without a word.
            self.no_more(happening)
