"""Entries of each kind, and what can happen to them: what the tests in this package are made of."""
# ruff: noqa: S101 - asserts are what a test consists of

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quickcache_core.entry import FOREVER, MISSING
from quickcache_core.errors import KeyNotFound
from quickcache_core.store.base import ABSENT, Bounds, Presence, Store
from quickcache_core.store.life import ASK, Found, Life, tag_slot
from quickcache_core.testing.clock import ManualClock
from quickcache_core.testing.stores.basis import Basis, raised

WIDE = Bounds(10_000)
LIVE, EXPIRED, GONE = Presence.LIVE, Presence.EXPIRED, Presence.ABSENT
RED, BLUE = tag_slot("red"), tag_slot("blue")

FRESH_ENDS = 8.0
ALL_ENDS = 24.0
STALE = Life(FRESH_ENDS, stale_ttl=ALL_ENDS - FRESH_ENDS, etag="v1")
TAGGED = Life(FOREVER, tags=(RED,))
LIVES = {
    "ttl": Life(FRESH_ENDS),
    "stale": STALE,
    "due": Life(FRESH_ENDS, refresh_after=4.0),
    "tagged": TAGGED,
    "sliding": Life(FRESH_ENDS, sliding=True, max_age=32.0),
    "all": Life(FRESH_ENDS, 16.0, True, 32.0, 4.0, (RED, BLUE), "v1"),
}
"""One of each kind, and one that is all of them."""

Change = Callable[[Store], Any]


def incr(store: Store, key: str, initial: Any = MISSING) -> tuple[Presence, Any]:
    return store.incr(key, 1, None, initial=initial, ttl=FOREVER, bounds=WIDE)


CHANGES: dict[str, Change] = {
    "put": lambda store: store.put("a", "other", FOREVER, WIDE),
    "put_many": lambda store: store.put_many({"x": 1, "a": "other"}, 5.0, WIDE),
    "put_with": lambda store: store.put_with("a", "other", STALE, WIDE),
    "add": lambda store: store.add("a", "other", 5.0, WIDE),
    "replace": lambda store: store.replace("a", "other", 5.0),
    "replace with a life": lambda store: store.replace("a", "other", 5.0, STALE),
    "incr": lambda store: incr(store, "a", initial=1),
    "remove": lambda store: store.remove("a"),
    "remove_many": lambda store: store.remove_many(["x", "a"]),
    "pop": lambda store: store.pop("a"),
    "clear": lambda store: store.clear(),
    "load": lambda store: store.load([], WIDE),
}
"""Everything that makes a value that is being loaded outdated."""
HARMLESS: dict[str, Change] = {
    "get": lambda store: store.get("a", None),
    "ask": lambda store: store.get("a", ASK),
    "look": lambda store: store.look("a"),
    "touch": lambda store: store.touch("a", 100.0),
    "sweep": lambda store: store.sweep(),
    "put_off": lambda store: store.put_off("a", 5.0),
    "another key": lambda store: store.put("b", 1, FOREVER, WIDE),
    "another key deleted": lambda store: store.remove("b"),
    "records": lambda store: store.records(),
}


class Kinds(Basis):
    """Stores with such entries, and what is seen of them."""

    def stored(self, life: Life, value: Any = 1) -> tuple[Store, ManualClock]:
        """A store with a value under `a` that lives so."""
        store, clock = self.make()
        assert store.put_with("a", value, life, WIDE) is True
        return store, clock

    def found(self, store: Store, key: str = "a") -> Found:
        found = store.get(key, ASK)
        assert isinstance(found, Found), f"{found!r} was answered"
        return found

    def check_absent(self, store: Store, key: str = "a") -> None:
        """Nothing is there for anybody, and nothing ever was as far as they can tell."""
        assert store.get(key, ASK) is ASK
        assert store.look(key) is None
        assert store.get(key, ABSENT) is ABSENT
        raised(KeyNotFound, store.get, key)
        assert store.get_many([key]) == {}
        assert key not in store
        assert list(store.keys(key)) == []
        assert store.remaining(key) == (GONE, 0.0)
        assert all(record.key != key for record in store.records())
        assert store.touch(key, 5.0) is GONE
        assert store.replace(key, 1, 5.0) is GONE
        assert store.replace(key, 1, 5.0, STALE) is GONE
        assert incr(store, key) == (GONE, None)
