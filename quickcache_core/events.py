"""What listeners are told: one frozen record, so that a listener's signature never changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

logger = logging.getLogger(__name__)


class EventKind(Enum):
    """What listeners can hear of."""

    HIT = "hit"
    MISS = "miss"
    """A get found nothing that is fresh."""
    SET = "set"
    """A value was stored, by whatever operation."""
    REMOVED = "removed"
    """An entry left, see `RemovalCause`."""
    STALE = "stale"
    """A value was served after its TTL. A hit, or the miss of a reader who waited in vain, was told before.
    """


class RemovalCause(Enum):
    """Why an entry left."""

    EXPLICIT = "explicit"
    """Somebody deleted or popped it."""
    REPLACED = "replaced"
    """A new value took its place."""
    EXPIRED = "expired"
    """Its TTL ended."""
    EVICTED = "evicted"
    """The cache was full."""
    INVALIDATED = "invalidated"
    """One of its tags was invalidated. Told when somebody meets the entry, which may be long after."""
    CLEARED = "cleared"
    """The whole cache was emptied, or loaded from a snapshot."""


@dataclass(frozen=True, slots=True)
class CacheEvent:
    """One thing that happened to one key. `cause` is given for `REMOVED` only.

    The value is not part of it: a removed value may be gone by the time a listener runs.
    """

    kind: EventKind
    key: str
    cause: RemovalCause | None = None


Listener = Callable[[CacheEvent], None]


class Subscription:
    """A listener, what it wants to hear of, and protection from it: when it raises, that is logged once.

    Raises `TypeError` for a listener that can't be called, and for kinds that are none.
    """

    __slots__ = ("_has_failed", "_listener", "kinds")

    def __init__(self, listener: Listener, kinds: Iterable[EventKind] | EventKind | None) -> None:
        if not callable(listener):
            raise TypeError(f"listener={listener!r}: give a function of one event")
        if kinds is None:
            kinds = EventKind
        chosen = tuple(kinds) if isinstance(kinds, Iterable) else (kinds,)
        if any(not isinstance(kind, EventKind) for kind in chosen):
            raise TypeError(f"kinds={kinds!r}: give members of EventKind, or None for all")
        self.kinds = frozenset(chosen)
        self._listener = listener
        self._has_failed = False

    def tell(self, event: CacheEvent) -> None:
        try:
            self._listener(event)
        except Exception as error:
            # The type only: messages and tracebacks may show keys, which have no place above DEBUG.
            if not self._has_failed:
                self._has_failed = True
                kind = type(error).__name__
                logger.error("Listener %r failed (%s); the cache goes on", self._listener, kind)
            logger.debug("How the listener failed", exc_info=error)
