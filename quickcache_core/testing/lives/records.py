"""Entries on their way from one store to another."""
# ruff: noqa: S101 - asserts are what a test consists of

from __future__ import annotations

from quickcache_core.entry import FOREVER
from quickcache_core.serializer.isolation import thaw
from quickcache_core.store.life import ASK
from quickcache_core.testing.lives.kinds import (
    FRESH_ENDS,
    LIVE,
    LIVES,
    RED,
    STALE,
    TAGGED,
    WIDE,
    Kinds,
)


class RecordContract(Kinds):
    """What one store gives another takes, with the time and the life that are left."""

    def test_records_and_load(self) -> None:
        """What one store gives another takes, with its life and the time that is left."""
        for life in LIVES.values():
            store, clock = self.stored(life)
            clock.advance(2.0)
            [record] = store.records()
            assert (record.key, thaw(record.value)) == ("a", 1)
            assert record.remaining == life.ttl - 2.0
            assert (record.life is None) is life.is_plain
            other, other_clock = self.make()
            other.load([record], WIDE)
            assert other.remaining("a") == (LIVE, life.ttl - 2.0)
            assert other.get("a", ASK) == 1
            looked = other.look("a")
            assert looked is not None
            assert (looked.etag, looked.is_due) == (life.etag, False)
            if life.refresh_after != FOREVER:
                other_clock.advance(2.0)
                assert other.look("a").is_due  # type: ignore[union-attr]
            if life.tags:
                other.invalidate_tags([RED])
                self.check_absent(other)

    def test_the_end_of_loaded_ones(self) -> None:
        """Fresh and stale for as long as there was left to be."""
        for name in ("ttl", "stale", "due"):
            store, clock = self.stored(LIVES[name])
            clock.advance(2.0)
            records = store.records()
            other, other_clock = self.make()
            other.load(records, WIDE)
            other_clock.advance(6.0)
            assert "a" not in other
            if name == "stale":
                assert not self.found(other).is_fresh
                other_clock.advance(16.0)
            assert other.look("a") is None
            other.sweep()
            assert len(other) == 0

    def test_loaded_ones_slide(self) -> None:
        """Reads go on to let the TTL begin anew, up to what is left of the longest life."""
        store, clock = self.stored(LIVES["sliding"])
        clock.advance(6.0)
        other, other_clock = self.make()
        other.load(store.records(), WIDE)
        other_clock.advance(1.0)
        assert other.get("a") == 1
        for _ in range(6):
            other_clock.advance(4.0)
            assert other.get("a") == 1
        assert other.remaining("a") == (LIVE, 1.0)
        other_clock.advance(1.0)
        assert other.get("a", ASK) is ASK

    def test_stale_ones_are_recorded(self) -> None:
        """They go on to be stale until their end."""
        store, clock = self.stored(STALE)
        clock.advance(FRESH_ENDS + 1.0)
        [record] = store.records()
        assert record.remaining == -1.0
        other, other_clock = self.make()
        other.load([record], WIDE)
        assert len(other) == 1
        assert "a" not in other
        found = self.found(other)
        assert (thaw(found.stored), found.is_fresh, found.etag) == (1, False, "v1")
        other_clock.advance(15.0)
        assert other.get("a", ASK) is ASK

    def test_invalidated_ones_are_not_recorded(self) -> None:
        """They are gone; what was stored after is there."""
        store, _ = self.make()
        store.put_with("old", 1, TAGGED, WIDE)
        store.invalidate_tags([RED])
        store.put_with("new", 1, TAGGED, WIDE)
        assert [record.key for record in store.records()] == ["new"]

    def test_loaded_ones_are_newer_than_invalidations(self) -> None:
        """A tag that was invalidated before doesn't concern what is loaded now."""
        store, _ = self.stored(TAGGED)
        records = store.records()
        other, _ = self.make()
        other.invalidate_tags([RED])
        other.load(records, WIDE)
        assert other.get("a") == 1
        other.invalidate_tags([RED])
        assert other.get("a", None) is None
