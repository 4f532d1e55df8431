"""Where entries live: what a cache asks of any store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from quickcache_core.entry import MISSING
from quickcache_core.events import RemovalCause
from quickcache_core.metrics.counters import Counters

RemovalListener = Callable[[str, RemovalCause], None]


class Presence(Enum):
    """What an operation found under a key, at the instant it was carried out."""

    LIVE = "live"
    EXPIRED = "expired"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a cache lets into its store. Caches that share a store may have different bounds."""

    max_size: int
    """Entries, at least 1."""
    cull_fraction: float | None = None
    """None: as many leave as must. A share of the entries, above 0 and up to 1: that many leave whenever it
    is full.
    """


class Record(NamedTuple):
    """An entry on its way into or out of a store as a whole."""

    key: str
    value: Any
    """In its stored form."""
    remaining: float
    """Seconds until the deadline; `FOREVER` for none."""


class Store(ABC):
    """Entries under string keys, each with a deadline.

    Values come and go in their stored form (`serializer.isolation`); only `get`, `get_many`, `pop` and `incr`
    thaw them. Durations are seconds, `FOREVER` for no end. Every method may be called from any thread, and is
    atomic unless it says otherwise.
    """

    counters: Counters

    @property
    @abstractmethod
    def get(self) -> Callable[..., Any]:
        """`get(key, default=MISSING)`: the value; without a default, `KeyNotFound` or `KeyExpired` is raised.

        A property, so that callers can keep what it gives and spare themselves a frame per hit.
        """

    @abstractmethod
    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The hits among `keys`. Counts one get per key; atomic per key."""

    @abstractmethod
    def put(self, key: str, value: Any, ttl: float, bounds: Bounds) -> None:
        """Insert or overwrite."""

    @abstractmethod
    def put_many(self, values: Mapping[str, Any], ttl: float, bounds: Bounds) -> None:
        """Insert or overwrite several; atomic per key."""

    @abstractmethod
    def add(self, key: str, value: Any, ttl: float, bounds: Bounds) -> bool:
        """Insert unless a live entry is there; whether it was inserted."""

    @abstractmethod
    def replace(self, key: str, value: Any, ttl: float) -> Presence:
        """Overwrite if a live entry is there; what was there."""

    @abstractmethod
    def remove(self, key: str) -> Presence:
        """Remove the entry; what was there."""

    @abstractmethod
    def remove_many(self, keys: Iterable[str]) -> int:
        """Remove several; how many live ones there were. Atomic per key."""

    @abstractmethod
    def pop(self, key: str) -> tuple[Presence, Any]:
        """Remove the entry; what was there, and the value if it was live."""

    @abstractmethod
    def touch(self, key: str, ttl: float) -> Presence:
        """Give a live entry a new deadline, counted from now; what was there."""

    @abstractmethod
    def remaining(self, key: str) -> tuple[Presence, float]:
        """What is there, and the seconds until its deadline."""

    @abstractmethod
    def incr(
        self,
        key: str,
        delta: Any,
        freeze: Callable[[Any], Any] | None,
        initial: Any,
        ttl: float,
        bounds: Bounds,
    ) -> tuple[Presence, Any]:
        """Add `delta` to a live number and keep its deadline; what was there, and the new value.

        When nothing live is there and `initial` isn't `MISSING`, `initial + delta` is inserted with `ttl`.
        Raises `TypeError` when the value is no number.
        """

    @abstractmethod
    def __contains__(self, key: object) -> bool:
        """Whether a live entry is there. Counts nothing."""

    @abstractmethod
    def __len__(self) -> int:
        """Entries, expired ones that haven't left yet included."""

    @abstractmethod
    def keys(self, prefix: str) -> Iterator[str]:
        """Keys of live entries, in no particular order.

        Entries that come or go meanwhile may or may not be seen.
        """

    @abstractmethod
    def expired_size(self) -> int:
        """Entries that have expired and haven't left yet."""

    @abstractmethod
    def clear(self) -> int:
        """Remove all entries; how many there were."""

    @abstractmethod
    def sweep(self) -> int:
        """Remove all expired entries, in slices that let others in between; how many left."""

    @abstractmethod
    def shrink(self, bounds: Bounds) -> None:
        """Evict what is over the bounds, in slices."""

    @abstractmethod
    def records(self) -> list[Record]:
        """All live entries. Each is consistent in itself; writers aren't held up meanwhile."""

    @abstractmethod
    def load(self, records: Iterable[Record], bounds: Bounds) -> None:
        """Replace all entries at once. If `records` raises, everything is as it was."""

    @abstractmethod
    def subscribe(self, listener: RemovalListener) -> Callable[[], None]:
        """Call `listener`, which must not raise, for every entry that leaves, outside of locks; the result
        ends it.
        """


ABSENT = object()
"""A default that can be told from every cached value, `MISSING` included."""

__all__ = ["ABSENT", "MISSING", "Bounds", "Presence", "Record", "RemovalListener", "Store"]
