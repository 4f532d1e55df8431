"""The ends of entries."""
# ruff: noqa: S101 - asserts are what a test consists of

from __future__ import annotations

from quickcache_core.entry import FOREVER
from quickcache_core.errors import CacheMiss, KeyExpired
from quickcache_core.testing.stores.basis import EXPIRED, GONE, LIVE, WIDE, Basis, raised


class DeadlineContract(Basis):
    """An entry is live until its deadline, and a miss from that instant on."""

    def test_ttl_ends(self) -> None:
        """Live until its deadline, a miss from that instant on."""
        store, clock = self.make()
        store.put("a", 1, 5.0, WIDE)
        clock.advance(4.875)
        assert store.get("a") == 1
        assert "a" in store
        clock.advance(0.125)
        assert "a" not in store
        assert raised(KeyExpired, store.get, "a").key == "a"
        raised(CacheMiss, store.get, "a")
        assert store.get("a", None) is None
        assert store.get_many(["a"]) == {}

    def test_never(self) -> None:
        """Without an end: as long as one likes."""
        store, clock = self.filled(3)
        clock.advance(1e12)
        assert store.get("k1") == 1
        assert store.remaining("k1") == (LIVE, FOREVER)
        assert store.sweep() == 0

    def test_fractions_of_a_second(self) -> None:
        """TTLs aren't rounded."""
        store, clock = self.make()
        store.put("short", 1, 0.01, WIDE)
        store.put("long", 1, 0.02, WIDE)
        clock.advance(0.015)
        assert store.get("short", None) is None
        assert store.get("long") == 1

    def test_wall_clock_steps(self) -> None:
        """What somebody does to the wall clock neither ends an entry nor prolongs it."""
        store, clock = self.make()
        store.put("a", 1, 100.0, WIDE)
        clock.step_wall(+1e9)
        assert store.get("a") == 1
        clock.step_wall(-2e9)
        assert store.remaining("a") == (LIVE, 100.0)
        clock.advance(100.0)
        assert store.get("a", None) is None

    def test_overwrite_changes_the_deadline(self) -> None:
        """A new value comes with its own TTL: longer, shorter, none, or one again."""
        for before in (5.0, 50.0, FOREVER):
            for after in (1.0, 5.0, 500.0, FOREVER):
                store, clock = self.make()
                store.put("a", 1, before, WIDE)
                clock.advance(1.0)
                store.put("a", 2, after, WIDE)
                assert store.remaining("a") == (LIVE, after)
                if after != FOREVER:
                    clock.advance(after * 0.999)
                    assert store.get("a") == 2
                    clock.advance(after * 0.002 + 1.0)
                    assert "a" not in store
                    assert store.sweep() == 1
                    assert len(store) == 0

    def test_expired_entries_are_no_obstacle(self) -> None:
        """To every writing operation, an entry past its deadline is not there."""
        store, clock = self.filled(8, ttl=5.0)
        clock.advance(5.0)
        assert store.replace("k0", "new", 5.0) is EXPIRED
        assert store.touch("k1", 5.0) is EXPIRED
        assert store.remove("k2") is EXPIRED
        assert store.pop("k3")[0] is EXPIRED
        assert store.incr("k4", 1, None, initial=10, ttl=FOREVER, bounds=WIDE)[1] == 11
        assert store.add("k5", "new", 5.0, WIDE) is True
        assert store.remove_many(["k6"]) == 0
        store.put("k7", "new", 5.0, WIDE)
        assert store.get_many(f"k{n}" for n in range(8)) == {"k4": 11, "k5": "new", "k7": "new"}

    def test_sweep(self) -> None:
        """Expired entries leave, all of them and no other; the number is told."""
        store, clock = self.make()
        ends = {f"k{n}": 0.1 + n * 0.7 for n in range(1000)}
        for key, ttl in ends.items():
            store.put(key, 1, ttl, WIDE)
        store.put("never", 1, FOREVER, WIDE)
        for _ in range(10):
            clock.advance(77.7)
            now = clock.monotonic() - 1000.0
            left = {key for key, ttl in ends.items() if ttl > now}
            before = len(store)
            assert store.expired_size() == before - len(left) - 1
            assert store.sweep() == before - len(left) - 1
            assert set(store.keys("")) == left | {"never"}
            assert store.expired_size() == 0

    def test_sweep_is_exact(self) -> None:
        """However short ago the deadline was."""
        store, clock = self.make()
        for n in range(50):
            store.put(f"k{n}", n, 0.01 * (n + 1), WIDE)
        for _ in range(50):
            clock.advance(0.01)
            live = sum(1 for key in store.keys(""))
            assert store.expired_size() == len(store) - live
            store.sweep()
            assert len(store) == live, f"{len(store) - live} expired entries are left after a sweep"

    def test_remaining(self) -> None:
        """Seconds until the deadline; absent and expired are told apart while the expired one is there."""
        store, clock = self.make()
        store.put("a", 1, 10.0, WIDE)
        clock.advance(4.0)
        assert store.remaining("a") == (LIVE, 6.0)
        clock.advance(6.0)
        assert store.remaining("a") == (EXPIRED, 0.0)
        assert store.remaining("b") == (GONE, 0.0)
