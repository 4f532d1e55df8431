"""Entries whose TTL begins anew with each read."""
# ruff: noqa: S101 - asserts are what a test consists of

from __future__ import annotations

from quickcache_core.serializer.isolation import thaw
from quickcache_core.store.life import ASK, Life
from quickcache_core.testing.lives.kinds import (
    FRESH_ENDS,
    LIVE,
    LIVES,
    WIDE,
    Change,
    Kinds,
    incr,
)


class SlidingContract(Kinds):
    """An entry lives on for as long as somebody reads it, up to its longest life."""

    def test_each_read_lets_the_ttl_begin_anew(self) -> None:
        """It outlives its TTL for as long as somebody reads it."""
        reads: dict[str, Change] = {
            "get": lambda store: store.get("a"),
            "get with a default": lambda store: store.get("a", None),
            "ask": lambda store: store.get("a", ASK),
            "get_many": lambda store: store.get_many(["a"])["a"],
        }
        for name, read in reads.items():
            store, clock = self.stored(Life(FRESH_ENDS, sliding=True))
            for _ in range(20):
                clock.advance(4.0)
                assert read(store) == 1, name
                assert store.sweep() == 0
            assert store.remaining("a") == (LIVE, FRESH_ENDS)
            clock.advance(FRESH_ENDS)
            assert store.get("a", ASK) is ASK
            store.sweep()
            assert len(store) == 0

    def test_not_every_look_is_a_read(self) -> None:
        """Who only asks whether it is there doesn't prolong its life."""
        store, clock = self.stored(Life(FRESH_ENDS, sliding=True))
        clock.advance(4.0)
        assert "a" in store
        assert store.look("a") is not None
        assert list(store.keys("")) == ["a"]
        assert len(store.records()) == 1
        assert store.add("a", 2, 100.0, WIDE) is False
        assert incr(store, "a") == (LIVE, 2)
        store.sweep()
        assert store.remaining("a") == (LIVE, 4.0)

    def test_the_longest_life(self) -> None:
        """It ends at `max_age`, however often it is read; from then on it is stale, if it may be."""
        store, clock = self.stored(LIVES["sliding"])
        for _ in range(7):
            clock.advance(4.0)
            assert store.get("a") == 1
        assert store.remaining("a") == (LIVE, 4.0)
        clock.advance(3.875)
        assert store.get("a") == 1
        clock.advance(0.125)
        assert store.get("a", ASK) is ASK
        store, clock = self.stored(Life(FRESH_ENDS, 16.0, sliding=True, max_age=10.0))
        clock.advance(6.0)
        assert store.get("a") == 1
        clock.advance(4.0)
        assert not self.found(store).is_fresh
        clock.advance(15.875)
        assert thaw(self.found(store).stored) == 1
        clock.advance(0.125)
        assert store.get("a", ASK) is ASK

    def test_stale_ones_do_not_slide(self) -> None:
        """A look at a stale value doesn't make it fresh."""
        store, clock = self.stored(Life(FRESH_ENDS, 16.0, sliding=True))
        for _ in range(4):
            clock.advance(FRESH_ENDS if _ == 0 else 4.0)
            assert not self.found(store).is_fresh
        clock.advance(4.0)
        assert store.get("a", ASK) is ASK

    def test_touching_a_sliding_one(self) -> None:
        """The new TTL is what reads let begin anew."""
        store, clock = self.stored(LIVES["sliding"])
        assert store.touch("a", 16.0) is LIVE
        clock.advance(12.0)
        assert store.get("a") == 1
        assert store.remaining("a") == (LIVE, 16.0)
        clock.advance(12.0)
        assert store.get("a") == 1
        assert store.remaining("a") == (LIVE, 8.0)
        assert store.touch("a", 100.0) is LIVE
        assert store.remaining("a") == (LIVE, 8.0)
