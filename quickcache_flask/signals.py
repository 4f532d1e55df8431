"""Signals of what happens in the caches of this process. Without receivers they cost nothing.

The sender is the app; receivers get `key`, as stored with its prefix, and `backend`, the `QuickCache` that it
happened in. They run in the thread of the operation, after it; one that raises is logged by the core, once,
and the operation goes on. Entries of namespaces have no signals.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final
from weakref import WeakSet

from blinker import ANY, Signal

from quickcache_flask.backend import relay


class CacheSignal(Signal):
    """A signal that has its caches listened to as long as it has receivers."""

    def __init__(self, happening: str) -> None:
        super().__init__(f"A cache's {happening}.")
        self.happening = happening
        self._senders: WeakSet[Any] = WeakSet()

    def connect(self, receiver: Any, sender: Any = ANY, weak: bool = True) -> Any:
        connected = super().connect(receiver, sender, weak)
        if sender is not ANY:
            self._senders.add(sender)
        relay.want(self.happening, partial(_send, self))
        return connected

    def disconnect(self, receiver: Any, sender: Any = ANY) -> None:
        super().disconnect(receiver, sender)
        # Those that were connected to one sender only stay in `receivers`.
        if not any(True for one in (ANY, *self._senders) for _ in self.receivers_for(one)):
            relay.no_more(self.happening)


def _send(signal: CacheSignal, key: str, about: Any) -> bool:
    if not signal.receivers:
        return False
    app, backend = (reference() for reference in about)
    if app is not None and backend is not None:
        signal.send(app, key=key, backend=backend)
    return True


cache_hit: Final = CacheSignal("hit")
cache_miss: Final = CacheSignal("miss")
cache_set: Final = CacheSignal("set")
cache_stale: Final = CacheSignal("stale")
"""A value was served after its timeout, see stale_ttl."""
cache_evict: Final = CacheSignal("evict")
"""An entry had to make room."""
cache_expire: Final = CacheSignal("expire")
"""An entry left because its time was over: when somebody met it, or the next sweep, not at that instant."""
