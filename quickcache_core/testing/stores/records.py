"""A store as a whole: cleared, given away and taken."""
# ruff: noqa: S101 - asserts are what a test consists of

from __future__ import annotations

from collections.abc import Iterator

from quickcache_core.entry import FOREVER
from quickcache_core.store.base import Bounds, Record
from quickcache_core.testing.stores.basis import WIDE, Basis, raised


class RecordContract(Basis):
    """All entries at once."""

    def test_clear(self) -> None:
        """Nothing is left, the number is told, and it goes on as new."""
        store, clock = self.filled(1000, ttl=5.0)
        assert store.clear() == self.cleared(1000)
        assert len(store) == 0
        assert list(store.keys("")) == []
        assert store.get("k0", None) is None
        assert store.clear() == self.cleared(0)
        store.put("a", 1, 5.0, WIDE)
        clock.advance(5.0)
        assert store.sweep() == 1

    def test_records_and_load(self) -> None:
        """What one store gives another takes, with the time that is left."""
        store, clock = self.make()
        store.put("a", 1, 10.0, WIDE)
        store.put("b", None, FOREVER, WIDE)
        store.put("gone", 1, 1.0, WIDE)
        clock.advance(4.0)
        records = store.records()
        assert sorted(records) == [Record("a", 1, 6.0), Record("b", None, FOREVER)]
        other, _ = self.filled(5)
        other.load(records, WIDE)
        assert sorted(other.records()) == sorted(records)
        assert len(other) == 2

    def test_load_more_than_fits(self) -> None:
        """The bound holds."""
        store, _ = self.filled(5)
        store.load([Record(f"new{n}", n, FOREVER) for n in range(100)], Bounds(10))
        assert len(store) == 10
        assert all(key.startswith("new") for key in store.keys(""))

    def test_load_that_fails(self) -> None:
        """The store stays as it was."""
        store, _ = self.filled(5)

        def broken() -> Iterator[Record]:
            yield Record("new", 1, FOREVER)
            raise RuntimeError("torn")

        raised(RuntimeError, store.load, broken(), WIDE)
        assert store.get_many(f"k{n}" for n in range(5)) == {f"k{n}": n for n in range(5)}
        assert "new" not in store
        assert len(store) == 5
