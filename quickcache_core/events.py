"""What listeners are told: one frozen record, so that a listener's signature never changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class EventKind(Enum):
    HIT = "hit"
    MISS = "miss"
    SET = "set"
    REMOVED = "removed"


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
