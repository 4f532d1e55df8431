"""One stored value with its deadline, and what the engine remembers of it."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

FOREVER: Final = float("inf")
"""The deadline of an entry without an end.

Compared by identity on the hit path: always use this very object.
"""

GONE: Final = -1.0
"""The deadline of an entry that has left the cache, whatever references to it are still around."""


class Missing(Enum):
    """The type of `MISSING`."""

    MISSING = "missing"

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing.MISSING
"""There is no value. Not `None`, which can be cached like any other value."""


class Entry:
    """A value under a key.

    Threads read entries without a lock, so the order of writes matters: a reader takes `value` before
    `deadline`; whoever removes an entry sets `deadline` to `GONE` before it wipes `value`; a removed entry is
    never used again, a returning key gets a new one.
    """

    __slots__ = ("chunk", "deadline", "frequency", "index", "key", "queue", "value")

    key: str
    value: Any
    """The value in its stored form (`serializer.isolation.Frozen`, or the object itself)."""
    deadline: float
    """Monotonic time in seconds, `FOREVER` or `GONE`."""
    frequency: int
    """Uses since the eviction policy last looked.

    The hit path bumps it up to 3 unless the policy keeps its own count.
    """
    queue: Any
    """Where the eviction policy holds the entry; unset until it does."""
    chunk: Any
    """Where `store.deadlines` holds the entry while its deadline is finite; unset before."""
    index: int
    """The entry's place in `chunk`."""

    def __init__(self, key: str, value: Any, deadline: float) -> None:
        # `queue`, `chunk` and `index` stay unset: their owners set them, and each store costs time on every
        # insert.
        self.key = key
        self.value = value
        self.deadline = deadline
        self.frequency = 0


class WeighedEntry(Entry):
    """A value under a key, with its weight: what a store that goes by bytes has for plain entries."""

    __slots__ = ("weight",)

    weight: int
    """Estimated bytes."""
