"""Stores that are full."""
# ruff: noqa: S101 - asserts are what a test consists of

from __future__ import annotations

from quickcache_core.entry import FOREVER
from quickcache_core.store.base import Bounds
from quickcache_core.testing.stores.basis import Basis


class BoundContract(Basis):
    """There are never more entries than the bound that a write comes with."""

    def test_never_more_than_max_size(self) -> None:
        """One leaves for each that comes."""
        store, _ = self.make()
        bounds = Bounds(10)
        for n in range(100):
            store.put(f"k{n}", n, FOREVER, bounds)
            assert len(store) == min(n + 1, 10)
            assert store.get(f"k{n}") == n, "the newcomer itself was evicted"
        store.put_many({f"m{n}": n for n in range(1000)}, FOREVER, bounds)
        assert len(store) == 10
        assert store.incr("n", 1, None, initial=0, ttl=5.0, bounds=bounds)[1] == 1
        assert store.add("a", 1, 5.0, bounds) is True
        assert len(store) == 10

    def test_overwriting_needs_no_room(self) -> None:
        """A key that is there replaces itself and nobody else."""
        store, _ = self.filled(10)
        for n in range(10):
            store.put(f"k{n}", -n, FOREVER, Bounds(10))
            store.incr(f"k{n}", 1, None, initial=0, ttl=5.0, bounds=Bounds(10))
        assert store.get_many(f"k{n}" for n in range(10)) == {f"k{n}": 1 - n for n in range(10)}

    def test_one_entry(self) -> None:
        """A bound of 1 works as well."""
        store, _ = self.make()
        for n in range(20):
            store.put(f"k{n}", n, FOREVER if n % 2 else 5.0, Bounds(1))
            assert store.get_many(f"k{i}" for i in range(20)) == {f"k{n}": n}

    def test_expired_entries_leave_first(self) -> None:
        """No live entry leaves while there are expired ones."""
        store, clock = self.make()
        for n in range(10):
            store.put(f"k{n}", n, 1.0 if n % 2 else FOREVER, Bounds(10))
        clock.advance(2.0)
        for n in range(5):
            store.put(f"new{n}", n, FOREVER, Bounds(10))
        assert store.counters.evictions == 0
        assert len(list(store.keys(""))) == 10

    def test_cull_fraction(self) -> None:
        """When it is full that share of the entries leaves, at least one."""
        for fraction, left in ((0.25, 9), (0.5, 6), (1 / 3, 8), (1.0, 1), (1e-9, 10)):
            store, _ = self.filled(10)
            store.put("new", 1, FOREVER, Bounds(10, fraction))
            assert len(store) == left, (fraction, len(store))
            assert store.get("new") == 1

    def test_shrink(self) -> None:
        """What is over the bound leaves, in any number."""
        store, _ = self.filled(1000)
        store.shrink(Bounds(1000))
        assert len(store) == 1000
        store.shrink(Bounds(3))
        assert len(store) == 3
        store.shrink(Bounds(1))
        assert len(store) == 1
        assert store.counters.evictions == 999

    def test_caches_with_other_bounds(self) -> None:
        """Each write goes by the bound that it comes with."""
        store, _ = self.filled(1000)
        store.put("a", 1, FOREVER, Bounds(10))
        assert len(store) == 10
        store.put_many({f"k{n}": n for n in range(500)}, FOREVER, Bounds(400))
        assert len(store) == 400
