"""The hot table: what happens on a hit, and nothing else.

The store picks the class that its eviction policy needs, so that no hit pays for another policy's books.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from quickcache_core.entry import FOREVER, MISSING, Entry
from quickcache_core.errors import InvalidKey, KeyNotFound
from quickcache_core.keys import check_key
from quickcache_core.serializer.isolation import Frozen

StaleHandler = Callable[[str, Any], Any]


class Table:
    """A dictionary of entries that is read without a lock.

    `on_stale(key, default)` answers for an entry that was found but isn't live; it runs outside of the table.

    `hits` and `misses` are exact on CPython builds with a GIL, where no other thread runs between the load
    and the store of `+=` on an attribute.
    """

    # The three `get` differ in one line, and repeat the others on purpose: a call would cost a third of a
    # hit. What is called is loaded into a local name first, which CPython 3.11 calls faster than an attribute
    # held in a slot.

    __slots__ = ("_now", "_on_stale", "entries", "hits", "misses")

    def __init__(self, now: Callable[[], float], on_stale: StaleHandler, entries: dict[str, Entry]) -> None:
        self._now = now
        self._on_stale = on_stale
        self.hits = 0
        self.misses = 0
        self.entries = entries
        """Replaced as a whole when the cache is cleared or loaded."""

    def get(self, key: str, default: Any = MISSING) -> Any:
        """The live value under `key`.

        Without a default, a miss raises `KeyNotFound` or `KeyExpired`. A key that is no string raises
        `InvalidKey`.
        """
        try:
            entry = self.entries.get(key)
        except TypeError:
            raise InvalidKey(key) from None
        if entry is None:
            if default is MISSING or key.__class__ is not str:
                return self._missing(key, default)
            self.misses += 1
            return default
        value = entry.value
        deadline = entry.deadline
        if deadline is not FOREVER:
            now = self._now
            if now() >= deadline:
                return self._on_stale(key, default)
        if entry.frequency < 3:
            entry.frequency += 1
        self.hits += 1
        return value.load(value.data) if value.__class__ is Frozen else value

    def use(self, entry: Entry) -> None:
        """Note a hit that `get` left to others, for the eviction policy."""
        if entry.frequency < 3:
            entry.frequency += 1

    def _missing(self, key: str, default: Any) -> Any:
        check_key(key)
        self.misses += 1
        if default is MISSING:
            raise KeyNotFound(key)
        return default


class OrderedTable(Table):
    """For policies that read the order of the table: a hit moves the key to the end.

    Relies on the GIL: in free-threaded builds stores use a `HookedTable` in its place, and move the key under
    the lock.
    """

    __slots__ = ()

    entries: OrderedDict[str, Entry]

    def get(self, key: str, default: Any = MISSING) -> Any:
        try:
            entry = self.entries.get(key)
        except TypeError:
            raise InvalidKey(key) from None
        if entry is None:
            if default is MISSING or key.__class__ is not str:
                return self._missing(key, default)
            self.misses += 1
            return default
        value = entry.value
        deadline = entry.deadline
        if deadline is not FOREVER:
            now = self._now
            if now() >= deadline:
                return self._on_stale(key, default)
        try:
            self.entries.move_to_end(key)
        except KeyError:
            pass  # another thread removed it meanwhile; this hit was first
        self.hits += 1
        return value.load(value.data) if value.__class__ is Frozen else value

    def use(self, entry: Entry) -> None:
        try:
            self.entries.move_to_end(entry.key)
        except KeyError:
            pass


class HookedTable(Table):
    """For policies that are told of each hit: `on_hit(entry)` is called, and takes the store's lock."""

    __slots__ = ("on_hit",)

    on_hit: Callable[[Entry], None]

    def get(self, key: str, default: Any = MISSING) -> Any:
        try:
            entry = self.entries.get(key)
        except TypeError:
            raise InvalidKey(key) from None
        if entry is None:
            if default is MISSING or key.__class__ is not str:
                return self._missing(key, default)
            self.misses += 1
            return default
        value = entry.value
        deadline = entry.deadline
        if deadline is not FOREVER:
            now = self._now
            if now() >= deadline:
                return self._on_stale(key, default)
        on_hit = self.on_hit
        on_hit(entry)
        self.hits += 1
        return value.load(value.data) if value.__class__ is Frozen else value

    def use(self, entry: Entry) -> None:
        self.on_hit(entry)


TABLES: dict[str, type[Table]] = {"counter": Table, "order": OrderedTable, "hook": HookedTable}
"""By `EvictionPolicy.recency`."""
