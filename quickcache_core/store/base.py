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
from quickcache_core.store.life import ASK, Ask, Found, Life

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
    max_bytes: int | None = None
    """Estimated bytes, for stores that weigh entries (`store.weights`); others pay no attention to it."""


class Record(NamedTuple):
    """An entry on its way into or out of a store as a whole."""

    key: str
    value: Any
    """In its stored form."""
    remaining: float
    """Seconds until the deadline; `FOREVER` for none."""
    life: Life | None = None
    """For an entry that has more than a TTL; `remaining` counts to the end of its freshness, or is below 0
    for a stale one. Its `max_age` and `refresh_after` count from now, too.
    """


class Store(ABC):
    """Entries under string keys, each with a deadline.

    Values come and go in their stored form (`serializer.isolation`); only `get`, `get_many`, `pop` and `incr`
    thaw them. Durations are seconds, `FOREVER` for no end. Every method may be called from any thread, and is
    atomic unless it says otherwise.
    """

    counters: Counters

    def identity(self, key: str) -> str:
        """The key as the store at the bottom has it."""
        return key

    @property
    @abstractmethod
    def get(self) -> Callable[..., Any]:
        """`get(key, default=MISSING)`: the value; without a default, `KeyNotFound` or `KeyExpired` is raised.

        A property, so that callers can keep what it gives and spare themselves a frame per hit.

        With the default `ASK` the answer is a `Found` for an entry that is stale or due for a refresh, the
        value for any other live entry, and `ASK` for none. A stale one is counted by the caller, with
        `count`; to callers without `ASK` it has expired.
        """

    @property
    def at_hand(self) -> Callable[[str], Any] | None:
        """`at_hand(key)`: a get that asks no server: the value, or `ABSENT` where that can't be told and
        isn't counted. None for a store that never asks one.
        """
        return None

    @abstractmethod
    def count(self, *, hit: bool) -> None:
        """Count a get that was answered with a stale `Found`: as a hit if its value was given at once."""

    @abstractmethod
    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The hits among `keys`. Counts one get per key; atomic per key."""

    @abstractmethod
    def put(self, key: str, value: Any, ttl: float, bounds: Bounds) -> None:
        """Insert or overwrite."""

    @abstractmethod
    def put_many(self, values: Mapping[str, Any], ttl: float, bounds: Bounds) -> None:
        """Insert or overwrite several; atomic per key. Raises `ValueTooLarge` for one of those that are, when
        all others are stored.
        """

    @abstractmethod
    def put_with(self, key: str, value: Any, life: Life, bounds: Bounds, token: object = None) -> bool:
        """Insert or overwrite an entry whose life is more than a TTL; whether it was stored.

        With a token from `begin_load` nothing is stored if, since then, the key was written, deleted or
        cleared, or one of the tags was invalidated: the value may be from before. A store may take it for so
        without need, but never the other way round.
        """

    @abstractmethod
    def look(self, key: str) -> Found | None:
        """What is under the key, stale or not, as of now; None for nothing. Counts nothing, and is no use of
        the entry.
        """

    @abstractmethod
    def is_overtaken(self, key: str, token: object, tags: tuple[int, ...] = ()) -> bool:
        """Whether `put_with` would refuse a value for the key with that token and tags. Cheap."""

    @abstractmethod
    def begin_load(self, key: str) -> object:
        """Called before a value for `key` is computed; the token for `put_with`. Never None.

        Takes no resources that have to be given back: a token may just be dropped.
        """

    @abstractmethod
    def overtake_loads(self, prefix: str) -> None:
        """Let no value be stored whose load has begun, and whose key begins so: a removal by prefix comes
        next, which finds only what is stored by then. A store may overtake loads of other keys as well.
        """

    @abstractmethod
    def try_lease(self, key: str) -> Callable[[], None] | None:
        """The right to load a key, among the processes that share the store; what gives it back, from any
        thread. None if another process has it. It ends with the process.
        """

    @abstractmethod
    def put_off(self, key: str, seconds: float) -> None:
        """Let no reader be told for so long that the entry is due for a refresh, if it is still there."""

    @abstractmethod
    def invalidate_tags(self, slots: Iterable[int]) -> None:
        """Let all entries leave that carry one of the tags, see `life.tag_slot`. Constant time per tag:
        entries are gone for readers at once, and leave when they are met.
        """

    @abstractmethod
    def generation(self, namespace: str) -> int:
        """How often `next_generation` was called for that name. Cheap."""

    @abstractmethod
    def next_generation(self, namespace: str) -> int:
        """Start a new generation of that name, for all who share the store; its number."""

    @abstractmethod
    def generations(self) -> dict[str, int]:
        """The numbers by name, of all names that this process asked for."""

    @abstractmethod
    def set_generations(self, numbers: Mapping[str, int]) -> None:
        """Have these numbers, and 0 for all other names that this process asked for: those of the entries
        that were just loaded.
        """

    @abstractmethod
    def add(self, key: str, value: Any, ttl: float, bounds: Bounds, life: Life | None = None) -> bool:
        """Insert unless a live entry is there; whether it was inserted. With a `life`, its TTL counts."""

    @abstractmethod
    def replace(self, key: str, value: Any, ttl: float, life: Life | None = None) -> Presence:
        """Overwrite if a live entry is there; what was there. With a `life`, its TTL counts; without one the
        entry becomes a plain one.
        """

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
    def remove_if(self, key: str, text: str) -> bool:
        """Remove a live entry whose value is that string; whether it was. Atomic: nobody can have stored
        another value in between. Only strings are compared, so nobody else's code runs.
        """

    @abstractmethod
    def touch_if(self, key: str, text: str, ttl: float) -> bool:
        """Give a live entry whose value is that string a new deadline, counted from now; whether it was
        there. As `remove_if`.
        """

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
    def keys(self, prefix: str, *, stale: bool = False) -> Iterator[str]:
        """Keys of live entries, in no particular order. With `stale` of all that are there, as for removals:
        what has expired may still be served to those who load.

        Entries that come or go meanwhile may or may not be seen.
        """

    @abstractmethod
    def expired_size(self) -> int:
        """Entries that have expired and haven't left yet. Stale ones don't count until their end."""

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


def summed(key: str, number: Any, delta: Any) -> Any:
    """What `incr` makes of the number under a key. Raises `TypeError`."""
    try:
        return number + delta
    except TypeError as error:
        raise TypeError(
            f"key {key!r} holds {type(number).__name__}, which {delta!r} can't be added to"
        ) from error


ABSENT = object()
"""A default that can be told from every cached value, `MISSING` included."""

__all__ = [
    "ABSENT",
    "ASK",
    "MISSING",
    "Ask",
    "Bounds",
    "Found",
    "Life",
    "Presence",
    "Record",
    "RemovalListener",
    "Store",
    "summed",
]
