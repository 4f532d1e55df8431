"""Values, written and removed, one by one and by threads at once."""
# ruff: noqa: S101 - asserts are what a test consists of

from __future__ import annotations

from decimal import Decimal
from typing import Any

from quickcache_core.entry import FOREVER, MISSING
from quickcache_core.serializer.isolation import Frozen
from quickcache_core.testing.stores.basis import GONE, LIVE, WIDE, Basis, in_threads, raised


class WritingContract(Basis):
    """What each operation does, and says of what was there."""

    def test_put(self) -> None:
        """Inserts and overwrites."""
        store, _ = self.make()
        store.put("a", 1, FOREVER, WIDE)
        store.put("a", 2, FOREVER, WIDE)
        store.put("b", 3, 5.0, WIDE)
        assert store.get_many(["a", "b"]) == {"a": 2, "b": 3}
        assert len(store) == 2

    def test_put_many(self) -> None:
        """Any number, with one TTL."""
        for count in (0, 1, 255, 256, 257, 1000):
            store, clock = self.filled(count, ttl=5.0)
            assert len(store) == count
            assert store.get_many(f"k{n}" for n in range(count)) == {f"k{n}": n for n in range(count)}
            clock.advance(5.0)
            assert store.sweep() == count

    def test_add(self) -> None:
        """Only where nothing live is; what is there keeps its value and its deadline."""
        store, clock = self.make()
        assert store.add("a", 1, 10.0, WIDE) is True
        clock.advance(1.0)
        assert store.add("a", 2, 100.0, WIDE) is False
        assert store.get("a") == 1
        assert store.remaining("a") == (LIVE, 9.0)

    def test_replace(self) -> None:
        """Only where something live is."""
        store, _ = self.make()
        assert store.replace("a", 1, 10.0) is GONE
        assert "a" not in store
        store.put("a", 1, FOREVER, WIDE)
        assert store.replace("a", 2, 10.0) is LIVE
        assert store.get("a") == 2
        assert store.remaining("a") == (LIVE, 10.0)

    def test_remove(self) -> None:
        """Says what was there, once."""
        store, _ = self.filled(2)
        assert store.remove("k0") is LIVE
        assert store.remove("k0") is GONE
        assert store.get("k0", None) is None
        assert len(store) == 1

    def test_remove_many(self) -> None:
        """Counts what was live; any iterable, any number."""
        store, _ = self.filled(1000)
        assert store.remove_many(["k0", "nothing", "k0", "k1"]) == 2
        assert store.remove_many(f"k{n}" for n in range(1000)) == 998
        assert store.remove_many([]) == 0
        assert len(store) == 0

    def test_pop(self) -> None:
        """Removes and returns, once."""
        store, _ = self.filled(1)
        assert store.pop("k0") == (LIVE, 0)
        presence, value = store.pop("k0")
        assert presence is GONE
        assert value is None

    def test_touch(self) -> None:
        """A new deadline, counted from now; the value stays."""
        for before in (5.0, FOREVER):
            for after in (1.0, 5.0, 500.0, FOREVER):
                store, clock = self.make()
                store.put("a", 1, before, WIDE)
                clock.advance(1.0)
                assert store.touch("a", after) is LIVE
                assert store.remaining("a") == (LIVE, after)
                assert store.get("a") == 1
                if after != FOREVER:
                    clock.advance(after)
                    assert store.sweep() == 1
        store, _ = self.make()
        assert store.touch("a", 5.0) is GONE

    def test_remove_if(self) -> None:
        """Only a live entry with that very string, and only once."""
        store, clock = self.make()
        store.put("a", "mine", 10.0, WIDE)
        assert store.remove_if("a", "other") is False
        assert store.remove_if("b", "mine") is False
        assert store.get("a") == "mine"
        assert store.remove_if("a", "mine") is True
        assert "a" not in store
        assert store.get("a", None) is None
        assert store.remove_if("a", "mine") is False
        store.put("a", "mine", 1.0, WIDE)
        clock.advance(1.0)
        assert store.remove_if("a", "mine") is False

    def test_touch_if(self) -> None:
        """A new deadline, counted from now, for a live entry with that very string."""
        store, clock = self.make()
        store.put("a", "mine", 10.0, WIDE)
        clock.advance(1.0)
        assert store.touch_if("a", "other", 500.0) is False
        assert store.touch_if("b", "mine", 500.0) is False
        assert store.remaining("a") == (LIVE, 9.0)
        for ttl in (500.0, FOREVER, 2.0):
            assert store.touch_if("a", "mine", ttl) is True
            assert store.remaining("a") == (LIVE, ttl)
        assert store.get("a") == "mine"
        clock.advance(2.0)
        assert store.touch_if("a", "mine", 500.0) is False
        assert "a" not in store

    def test_only_strings_are_compared(self) -> None:
        """Nothing else equals one."""
        store, _ = self.make()
        for value in (1, None, b"mine", Frozen(list.copy, ["mine"])):
            store.put("a", value, FOREVER, WIDE)
            assert store.remove_if("a", "mine") is False
            assert store.touch_if("a", "mine", 5.0) is False
            assert store.remaining("a") == (LIVE, FOREVER)

    def test_removals_of_threads_that_compare(self) -> None:
        """One of them removes it."""
        store, _ = self.make()
        won: list[int] = []

        def work() -> None:
            won.extend(n for n in range(200) if store.remove_if(f"k{n}", f"v{n}"))

        store.put_many({f"k{n}": f"v{n}" for n in range(200)}, FOREVER, WIDE)
        in_threads(4, work)
        assert sorted(won) == list(range(200))

    def test_incr(self) -> None:
        """Adds, keeps the deadline, works with any kind of number."""
        store, clock = self.make()
        sums: list[tuple[Any, Any]] = [(1, 1), (1.5, -2), (10**30, 1), (Decimal("1.1"), Decimal("0.1"))]
        for number, delta in [*sums, (True, 1)]:
            store.put("n", number, 10.0, WIDE)
            clock.advance(1.0)
            presence, total = store.incr("n", delta, None, initial=0, ttl=500.0, bounds=WIDE)
            assert presence is LIVE
            assert total == number + delta
            assert store.get("n") == total
            assert store.remaining("n") == (LIVE, 9.0)

    def test_incr_of_nothing(self) -> None:
        """Begins with `initial`, if there is one."""
        store, _ = self.make()
        presence, total = store.incr("n", 1, None, initial=MISSING, ttl=10.0, bounds=WIDE)
        assert (presence, total) == (GONE, None)
        assert "n" not in store
        assert store.incr("n", 1, None, initial=0, ttl=10.0, bounds=WIDE)[1] == 1
        assert store.remaining("n") == (LIVE, 10.0)

    def test_incr_of_text(self) -> None:
        """`TypeError` for what can't be added to; the value stays."""
        store, _ = self.make()
        for value in ("1", None, [1], {"a": 1}):
            store.put("a", value, FOREVER, WIDE)
            error: TypeError = raised(
                TypeError,
                lambda: store.incr("a", 1, None, initial=0, ttl=10.0, bounds=WIDE),
            )
            assert "a" in str(error)
            assert store.get("a") == value

    def test_increments_of_threads(self) -> None:
        """None is lost."""
        store, _ = self.filled(1)

        def work() -> None:
            for _ in range(500):
                store.incr("k0", 1, None, initial=0, ttl=FOREVER, bounds=WIDE)

        in_threads(4, work)
        assert store.get("k0") == 2000

    def test_adds_of_threads(self) -> None:
        """One wins each key."""
        store, _ = self.make()
        won: list[int] = []

        def work() -> None:
            won.extend(n for n in range(200) if store.add(f"k{n}", n, FOREVER, WIDE))

        in_threads(4, work)
        assert sorted(won) == list(range(200))

    def test_pops_of_threads(self) -> None:
        """Each value is handed out once."""
        store, _ = self.filled(500)
        got: list[int] = []

        def work() -> None:
            for n in range(500):
                presence, value = store.pop(f"k{n}")
                if presence is LIVE:
                    got.append(value)

        in_threads(4, work)
        assert sorted(got) == list(range(500))
