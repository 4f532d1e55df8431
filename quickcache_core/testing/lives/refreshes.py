"""Entries that are due for a refresh."""
# ruff: noqa: S101 - asserts are what a test consists of

from __future__ import annotations

from quickcache_core.serializer.isolation import thaw
from quickcache_core.store.life import ASK
from quickcache_core.testing.lives.kinds import (
    ALL_ENDS,
    FRESH_ENDS,
    LIVE,
    LIVES,
    STALE,
    WIDE,
    Kinds,
)


class RefreshContract(Kinds):
    """Those who ask are told when a refresh is due."""

    def test_due_for_a_refresh(self) -> None:
        """Those who ask are told from that time on; to others it is an entry as any other."""
        store, clock = self.stored(LIVES["due"])
        clock.advance(3.875)
        assert store.get("a", ASK) == 1
        clock.advance(0.125)
        found = self.found(store)
        assert (thaw(found.stored), found.is_fresh, found.is_due) == (1, True, True)
        looked = store.look("a")
        assert looked is not None
        assert (looked.is_fresh, looked.is_due) == (True, True)
        assert store.get("a") == 1
        assert store.get_many(["a"]) == {"a": 1}
        assert store.remaining("a") == (LIVE, 4.0)
        assert "a" in store
        clock.advance(4.0)
        assert store.get("a", ASK) is ASK

    def test_a_refresh_that_is_put_off(self) -> None:
        """Nobody is told for so long; then they are again."""
        store, clock = self.stored(LIVES["due"])
        clock.advance(4.0)
        assert self.found(store).is_due
        store.put_off("a", 2.0)
        assert store.get("a", ASK) == 1
        clock.advance(1.875)
        assert store.get("a", ASK) == 1
        clock.advance(0.125)
        assert self.found(store).is_due
        store.put_off("a", 500.0)
        assert store.get("a", ASK) == 1
        clock.advance(2.0)
        assert store.get("a", ASK) is ASK, "it expires all the same"

    def test_a_new_value_is_not_put_off(self) -> None:
        """What was put off was the refresh of the old one."""
        store, clock = self.stored(LIVES["due"])
        store.put_off("a", 500.0)
        store.put_with("a", 2, LIVES["due"], WIDE)
        clock.advance(4.0)
        assert self.found(store).is_due

    def test_a_load_of_a_stale_one_that_is_put_off(self) -> None:
        """It is found, and not due."""
        store, clock = self.stored(STALE)
        clock.advance(FRESH_ENDS)
        store.put_off("a", 2.0)
        found = self.found(store)
        assert (found.is_fresh, found.is_due) == (False, False)
        clock.advance(2.0)
        assert self.found(store).is_due
        store.put_off("a", 2.0)
        store.put_with("a", 2, STALE, WIDE)
        clock.advance(FRESH_ENDS)
        assert self.found(store).is_due, "a new value was put off with the old one"

    def test_putting_off_what_is_not_there(self) -> None:
        """Nothing happens."""
        store, clock = self.stored(STALE)
        store.put_off("b", 5.0)
        assert len(store) == 1
        store.put("p", 1, 5.0, WIDE)
        store.put_off("p", 50.0)
        assert store.get("p", ASK) == 1
        clock.advance(ALL_ENDS)
        store.put_off("a", 5.0)
        assert store.get("a", ASK) is ASK
        assert store.get("p", ASK) is ASK
