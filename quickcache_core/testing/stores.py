"""The contract of a store, as tests to inherit."""
# ruff: noqa: S101 - asserts are what a test consists of

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, TypeVar

from quickcache_core.entry import FOREVER, MISSING
from quickcache_core.errors import CacheMiss, InvalidKey, KeyExpired, KeyNotFound
from quickcache_core.events import RemovalCause
from quickcache_core.serializer.isolation import Frozen, thaw
from quickcache_core.store.base import ABSENT, Bounds, Presence, Record, Store
from quickcache_core.testing.clock import ManualClock

E = TypeVar("E", bound=BaseException)

WIDE = Bounds(10_000)
LIVE, EXPIRED, GONE = Presence.LIVE, Presence.EXPIRED, Presence.ABSENT


def raised(kind: type[E], function: Callable[..., Any], *arguments: Any) -> E:
    """The exception of that kind that the call raises. Fails if there is none."""
    try:
        function(*arguments)
    except kind as error:
        return error
    raise AssertionError(f"{function} raised no {kind.__name__}")


class StoreContract:
    """Derive a test class from this, make the store in `make_store`, and pytest finds the rest.

    Each test begins with an empty store. Values are strings and numbers, except where stored forms matter.
    """

    def make_store(self, clock: ManualClock) -> Store:
        raise NotImplementedError("return an empty store that takes its time from `clock`")

    def cleared(self, count: int) -> int:
        """What `clear` tells of so many entries; a store that can't count them tells 0."""
        return count

    def make(self) -> tuple[Store, ManualClock]:
        clock = ManualClock()
        return self.make_store(clock), clock

    def filled(self, count: int, ttl: float = FOREVER) -> tuple[Store, ManualClock]:
        """A store with the values 0, 1, ... under `k0`, `k1`, ..."""
        store, clock = self.make()
        store.put_many({f"k{n}": n for n in range(count)}, ttl, WIDE)
        return store, clock

    # Reading

    def test_get_of_nothing(self) -> None:
        """A miss gives the default, or raises a `KeyNotFound` that names the key."""
        store, _ = self.make()
        assert store.get("a", 5) == 5
        assert store.get("a", None) is None
        assert raised(KeyNotFound, store.get, "a").key == "a"

    def test_none_is_a_value(self) -> None:
        """A stored None is a hit everywhere."""
        store, _ = self.make()
        store.put("a", None, FOREVER, WIDE)
        assert store.get("a") is None
        assert store.get("a", 5) is None
        assert store.get_many(["a"]) == {"a": None}
        assert "a" in store
        assert store.add("a", 1, FOREVER, WIDE) is False
        assert store.pop("a") == (LIVE, None)

    def test_keys_that_are_no_strings(self) -> None:
        """`get` raises `InvalidKey`, hashable or not, with and without a default."""
        store, _ = self.filled(3)
        for key in (1, None, b"k0", ("k0",), ["k0"], {}, 1.5, object()):
            raised(InvalidKey, store.get, key)
            raised(InvalidKey, store.get, key, None)

    def test_odd_keys(self) -> None:
        """Any string is a key: empty, long, with any characters."""
        store, _ = self.make()
        keys = ["", " ", "\0", "ü☃🎉", "a" * 100_000, "a:b/c\n", "\ud800"]
        for key in keys:
            store.put(key, key[:5], FOREVER, WIDE)
        assert store.get_many(keys) == {key: key[:5] for key in keys}
        assert sorted(store.keys("")) == sorted(keys)

    def test_get_many(self) -> None:
        """Hits only; a key that is asked for twice comes once; any iterable will do."""
        store, _ = self.filled(3)
        assert store.get_many(["k0", "nothing", "k2", "k0"]) == {"k0": 0, "k2": 2}
        assert store.get_many(key for key in ("k1", "x")) == {"k1": 1}
        assert store.get_many([]) == {}

    def test_keys_by_prefix(self) -> None:
        """Live keys that begin with the prefix."""
        store, clock = self.make()
        store.put("user:1", 1, FOREVER, WIDE)
        store.put("user:2", 2, 5.0, WIDE)
        store.put("page:1", 3, FOREVER, WIDE)
        assert sorted(store.keys("user:")) == ["user:1", "user:2"]
        assert len(list(store.keys(""))) == 3
        clock.advance(5.0)
        assert sorted(store.keys("")) == ["page:1", "user:1"]
        assert list(store.keys("nobody")) == []

    def test_keys_while_writing(self) -> None:
        """Entries may come and go while somebody iterates."""
        store, _ = self.filled(100)
        for number, key in enumerate(store.keys("")):
            store.put(f"new{number}", 0, FOREVER, WIDE)
            store.remove(key)
        assert sum(1 for key in store.keys("k")) == 0

    # Deadlines

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

    # Writing

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

    # Stored forms

    def test_stored_forms_are_thawed(self) -> None:
        """Whoever reads gets a value of their own."""
        store, _ = self.make()
        store.put("a", Frozen(list.copy, [1]), FOREVER, WIDE)
        store.get("a").append(2)
        store.get_many(["a"])["a"].append(3)
        assert store.get("a") == [1]
        assert store.pop("a") == (LIVE, [1])

    def test_incr_freezes_the_sum(self) -> None:
        """The sum is stored as every value is."""
        store, _ = self.make()

        def freeze(number: Any) -> Frozen:
            return Frozen(int, str(number))

        store.put("n", freeze(1), FOREVER, WIDE)
        for expected in (3, 5):
            assert store.incr("n", 2, freeze, initial=0, ttl=5.0, bounds=WIDE)[1] == expected
            assert store.get("n") == expected
        assert store.incr("new", 2, freeze, initial=0, ttl=5.0, bounds=WIDE)[1] == 2
        assert sorted(thaw(record.value) for record in store.records()) == [2, 5]

    def test_a_value_that_can_not_be_thawed(self) -> None:
        """Its error reaches the reader, and harms no other key."""
        store, _ = self.filled(1)

        def fail(data: object) -> None:
            raise RuntimeError("unreadable")

        store.put("a", Frozen(fail, b""), FOREVER, WIDE)
        raised(RuntimeError, store.get, "a")
        assert store.get("k0") == 0
        assert store.remove("a") is LIVE
        assert "a" not in store

    # Bounds

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

    # The whole store

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

    # Listeners

    def test_removal_causes(self) -> None:
        """Every entry that leaves is told once, with the cause."""
        store, clock = self.make()
        told: list[tuple[str, RemovalCause]] = []
        stop = store.subscribe(lambda key, cause: told.append((key, cause)))
        store.put("a", 1, FOREVER, WIDE)
        store.put("a", 2, FOREVER, WIDE)
        store.remove("a")
        store.put("b", 1, 1.0, WIDE)
        clock.advance(2.0)
        store.get("b", None)
        store.put("c", 1, 1.0, WIDE)
        clock.advance(2.0)
        store.sweep()
        store.put("d", 1, FOREVER, Bounds(1))
        store.put("e", 1, FOREVER, Bounds(1))
        store.clear()
        store.put("f", 1, FOREVER, WIDE)
        store.load([], WIDE)
        assert told == [
            ("a", RemovalCause.REPLACED),
            ("a", RemovalCause.EXPLICIT),
            ("b", RemovalCause.EXPIRED),
            ("c", RemovalCause.EXPIRED),
            ("d", RemovalCause.EVICTED),
            ("e", RemovalCause.CLEARED),
            ("f", RemovalCause.CLEARED),
        ]
        stop()
        stop()
        store.put("g", 1, FOREVER, WIDE)
        store.remove("g")
        assert len(told) == 7

    def test_listeners_run_without_the_lock(self) -> None:
        """They may use the store, and another thread may do so while they run."""
        store, _ = self.filled(1)

        def listener(key: str, cause: RemovalCause) -> None:
            thread = threading.Thread(target=store.put, args=(f"{key} left", 1, FOREVER, WIDE))
            thread.start()
            thread.join(10.0)
            assert not thread.is_alive(), "another thread had to wait for a listener"
            store.put("told", key, FOREVER, WIDE)

        stop = store.subscribe(listener)
        store.remove("k0")
        stop()
        assert store.get("told") == "k0"
        assert store.get("k0 left") == 1

    # Threads

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

    def test_absent_default(self) -> None:
        """`ABSENT` is told from every value that can be stored."""
        store, _ = self.make()
        assert store.get("a", ABSENT) is ABSENT
        assert thaw(store.get("a", ABSENT)) is ABSENT


def in_threads(count: int, work: Callable[[], None]) -> None:
    """Run `work` in that many threads at once. Raises what one of them raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(count)

    def run() -> None:
        try:
            barrier.wait()
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
