"""Signals of what happens in the caches of this process. Without receivers they cost nothing.

Receivers get `key` (as stored, with prefix and version) and `location`, the `LOCATION` of the alias; the
sender is the backend's class. They run in the thread of the operation, after it; one that raises is logged by
the core, once, and the operation goes on. Entries of namespaces have no signals.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from django.dispatch import Signal

from quickcache_django.backend import QuickCache
from quickcache_django.conf import relay


class CacheSignal(Signal):
    """A signal that has its caches listened to as long as it has receivers."""

    def __init__(self, happening: str) -> None:
        super().__init__()
        self.happening = happening

    def connect(self, *args: Any, **kwargs: Any) -> None:
        super().connect(*args, **kwargs)
        relay.want(self.happening, partial(_send, self))

    def disconnect(self, *args: Any, **kwargs: Any) -> bool:
        done = super().disconnect(*args, **kwargs)
        if not self.has_listeners():
            relay.no_more(self.happening)
        return done


def _send(signal: CacheSignal, key: str, location: Any) -> bool:
    if not signal.has_listeners():
        return False
    signal.send(QuickCache, key=key, location=location)
    return True


cache_hit: Final = CacheSignal("hit")
cache_miss: Final = CacheSignal("miss")
cache_set: Final = CacheSignal("set")
cache_stale: Final = CacheSignal("stale")
"""A value was served after its timeout, see STALE_TTL."""
cache_evict: Final = CacheSignal("evict")
"""An entry had to make room."""
cache_expire: Final = CacheSignal("expire")
"""An entry left because its time was over: when somebody met it, or the next sweep, not at that instant."""
