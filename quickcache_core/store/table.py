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

    `hits` and `misses` are exact on CPython builds with a GIL, where no other thread runs between the load and the store of
    `+=` on an attribute.
    """

    __slots__ = ("_lookup", "_now", "_on_stale", "entries", "hits", "misses")

    entries: dict[str, Entry]

    def __init__(self, now: Callable[[], float], on_stale: StaleHandler, entries: dict[str, Entry]) -> None:
        self._now = now
        self._on_stale = on_stale
        self.hits = 0
        self.misses = 0
        self.replace(entries)

    def replace(self, entries: dict[str, Entry]) -> None:
        """Read from `entries` from now on."""
        self.entries = entries
        self._lookup = entries.get

    def get(self, key: str, default: Any = MISSING) -> Any:
        """The live value under `key`.

        Without a default, a miss raises `KeyNotFound` or `KeyExpired`, and a key that is no string `InvalidKey`.
        """
        try:
            entry = self._lookup(key)
        except TypeError:
            raise InvalidKey(key) from None
        if entry is not None:
            value = entry.value
            deadline = entry.deadline
            if deadline is FOREVER or self._now() < deadline:
                if entry.frequency < 3:
                    entry.frequency += 1
                self.hits += 1
                return value.load(value.data) if value.__class__ is Frozen else value
            return self._on_stale(key, default)
        return self._missing(key, default)

    def _missing(self, key: str, default: Any) -> Any:
        if key.__class__ is not str:
            check_key(key)
        self.misses += 1
        if default is MISSING:
            raise KeyNotFound(key)
        return default


class OrderedTable(Table):
    """For policies that read the order of the table: a hit moves the key to the end."""

    __slots__ = ("_move_to_end",)

    entries: OrderedDict[str, Entry]

    def replace(self, entries: dict[str, Entry]) -> None:
        assert isinstance(entries, OrderedDict)
        super().replace(entries)
        self._move_to_end = entries.move_to_end

    def get(self, key: str, default: Any = MISSING) -> Any:
        try:
            entry = self._lookup(key)
        except TypeError:
            raise InvalidKey(key) from None
        if entry is not None:
            value = entry.value
            deadline = entry.deadline
            if deadline is FOREVER or self._now() < deadline:
                try:
                    self._move_to_end(key)
                except KeyError:
                    pass  # another thread removed it meanwhile; this hit was first
                self.hits += 1
                return value.load(value.data) if value.__class__ is Frozen else value
            return self._on_stale(key, default)
        return self._missing(key, default)


class HookedTable(Table):
    """For policies that want to be told of each hit: `on_hit(entry)` is called, and takes the store's lock."""

    __slots__ = ("on_hit",)

    on_hit: Callable[[Entry], None]

    def get(self, key: str, default: Any = MISSING) -> Any:
        try:
            entry = self._lookup(key)
        except TypeError:
            raise InvalidKey(key) from None
        if entry is not None:
            value = entry.value
            deadline = entry.deadline
            if deadline is FOREVER or self._now() < deadline:
                self.on_hit(entry)
                self.hits += 1
                return value.load(value.data) if value.__class__ is Frozen else value
            return self._on_stale(key, default)
        return self._missing(key, default)


TABLES: dict[str, type[Table]] = {"counter": Table, "order": OrderedTable, "hook": HookedTable}
"""By `EvictionPolicy.recency`."""
