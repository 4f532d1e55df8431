"""Entries past their TTL that are kept for those who ask."""
# ruff: noqa: S101 - asserts are what a test consists of

from __future__ import annotations

from typing import Any

from quickcache_core.errors import KeyExpired
from quickcache_core.serializer.isolation import thaw
from quickcache_core.store.life import ASK, Life
from quickcache_core.testing.lives.kinds import (
    ALL_ENDS,
    BLUE,
    EXPIRED,
    FRESH_ENDS,
    LIVE,
    LIVES,
    STALE,
    WIDE,
    Change,
    Kinds,
    incr,
)
from quickcache_core.testing.stores import raised


class StaleContract(Kinds):
    """Past its TTL an entry is there for those who ask, and for nobody else, until its end."""

    def test_stale_to_those_who_ask(self) -> None:
        """Found from the end of its TTL to the end of its `stale_ttl`, with its ETag; due for a new load."""
        store, clock = self.stored(STALE, "value")
        clock.advance(FRESH_ENDS)
        for _ in range(2):
            found = self.found(store)
            assert thaw(found.stored) == "value"
            assert (found.is_fresh, found.is_due, found.etag) == (False, True, "v1")
        looked = store.look("a")
        assert looked is not None
        assert (looked.is_fresh, looked.is_due, looked.etag) == (False, True, "v1")
        clock.advance(ALL_ENDS - FRESH_ENDS - 0.125)
        assert thaw(self.found(store).stored) == "value"
        clock.advance(0.125)
        assert store.get("a", ASK) is ASK
        assert store.look("a") is None

    def test_keys_of_stale_ones(self) -> None:
        """They are listed for removals only, which take them along and don't count them."""
        store, clock = self.stored(STALE)
        clock.advance(FRESH_ENDS)
        assert list(store.keys("")) == []
        assert list(store.keys("a", stale=True)) == ["a"]
        assert list(store.keys("b", stale=True)) == []
        assert store.remove_many(store.keys("a", stale=True)) == 0
        assert store.get("a", ASK) is ASK

    def test_expired_to_all_others(self) -> None:
        """Nobody but those who ask sees it, and their looks don't remove it."""
        store, clock = self.stored(STALE)
        clock.advance(FRESH_ENDS)
        raised(KeyExpired, store.get, "a")
        assert store.get("a", None) is None
        assert store.get_many(["a"]) == {}
        assert "a" not in store
        assert list(store.keys("")) == []
        assert store.remaining("a") == (EXPIRED, 0.0)
        assert store.touch("a", 5.0) is EXPIRED
        assert store.replace("a", 2, 5.0) is EXPIRED
        assert store.replace("a", 2, 5.0, STALE) is EXPIRED
        assert incr(store, "a") == (EXPIRED, None)
        assert store.sweep() == 0
        assert len(store) == 1
        assert thaw(self.found(store).stored) == 1

    def test_stale_ones_are_no_obstacle(self) -> None:
        """Where only a live entry would stop a write, it goes on; nothing of the stale one remains."""
        writes: dict[str, Change] = {
            "add": lambda store: store.add("a", 2, 5.0, WIDE),
            "add with a life": lambda store: store.add("a", 2, 5.0, WIDE, Life(5.0, tags=(BLUE,))),
            "put": lambda store: store.put("a", 2, 5.0, WIDE),
            "put_with": lambda store: store.put_with("a", 2, Life(5.0, tags=(BLUE,)), WIDE),
            "incr": lambda store: store.incr("a", 1, None, initial=1, ttl=5.0, bounds=WIDE),
        }
        for name, write in writes.items():
            store, clock = self.stored(STALE)
            clock.advance(FRESH_ENDS)
            write(store)
            assert store.get("a") == 2, name
            assert store.remaining("a") == (LIVE, 5.0)
            assert len(store) == 1
            assert store.look("a").etag is None  # type: ignore[union-attr]
            clock.advance(5.0)
            assert store.look("a") is None

    def test_stale_ones_are_removed(self) -> None:
        """Whoever deletes wants the value to be gone, also for those who ask for stale ones."""
        removals: dict[str, tuple[Change, Any]] = {
            "remove": (lambda store: store.remove("a"), EXPIRED),
            "pop": (lambda store: store.pop("a"), (EXPIRED, None)),
            "remove_many": (lambda store: store.remove_many(["a"]), 0),
            "clear": (lambda store: store.clear(), self.cleared(1)),
        }
        for name, (remove, answer) in removals.items():
            store, clock = self.stored(STALE)
            clock.advance(FRESH_ENDS)
            assert remove(store) == answer, name
            self.check_absent(store)
            assert len(store) == 0

    def test_stale_ones_leave_at_their_end(self) -> None:
        """By a sweep, when all their time is over and not before."""
        store, clock = self.make()
        for n in range(1000):
            store.put_with(f"k{n}", n, Life(1.0 + n % 7, stale_ttl=1.0 + n % 13), WIDE)
        left = 1000
        for second in range(1, 22):
            clock.advance(1.0)
            leaving = sum(2 + n % 7 + n % 13 == second for n in range(1000))
            assert store.expired_size() == leaving
            assert store.sweep() == leaving
            left -= leaving
            assert len(store) == left
        assert left == 0

    def test_a_stale_one_becomes_fresh(self) -> None:
        """A new value under its key begins anew, and may become stale again."""
        store, clock = self.stored(STALE)
        clock.advance(FRESH_ENDS)
        assert store.put_with("a", 2, STALE, WIDE) is True
        assert store.get("a", ASK) == 2
        assert len(store) == 1
        clock.advance(FRESH_ENDS)
        assert thaw(self.found(store).stored) == 2

    def test_counts_of_stale_ones(self) -> None:
        """Whoever asked counts the get, as what it became; without asking it is a miss."""
        store: Any
        store, clock = self.stored(STALE)
        clock.advance(FRESH_ENDS)
        hits, misses = store.hits, store.misses
        self.found(store)
        assert (store.hits, store.misses) == (hits, misses)
        store.count(hit=True)
        assert (store.hits, store.misses) == (hits + 1, misses)
        store.count(hit=False)
        assert (store.hits, store.misses) == (hits + 1, misses + 1)
        store.get("a", None)
        assert (store.hits, store.misses) == (hits + 1, misses + 2)
        store.look("a")
        assert (store.hits, store.misses) == (hits + 1, misses + 2)

    def test_counts_of_those_who_ask(self) -> None:
        """Fresh ones are hits, due or not; none is a miss."""
        store: Any
        store, clock = self.stored(LIVES["due"])
        hits, misses = store.hits, store.misses
        store.get("a", ASK)
        assert (store.hits, store.misses) == (hits + 1, misses)
        clock.advance(4.0)
        assert self.found(store).is_due
        assert (store.hits, store.misses) == (hits + 2, misses)
        store.get("b", ASK)
        assert (store.hits, store.misses) == (hits + 2, misses + 1)
