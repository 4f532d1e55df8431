"""The contract of a store for entries that have more than a TTL, as tests to inherit."""
# ruff: noqa: S101 - asserts are what a test consists of

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

from quickcache_core.entry import FOREVER, MISSING
from quickcache_core.errors import KeyExpired, KeyNotFound
from quickcache_core.serializer.isolation import Frozen, thaw
from quickcache_core.store.base import ABSENT, Bounds, Presence, Store
from quickcache_core.store.life import ASK, Found, Life, tag_slot
from quickcache_core.testing.clock import ManualClock
from quickcache_core.testing.stores import in_threads, raised

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


class LifeContract:
    """Derive a test class from this, as from `StoreContract`; each test begins with an empty store."""

    def make_store(self, clock: ManualClock) -> Store:
        raise NotImplementedError("return an empty store that takes its time from `clock`")

    def cleared(self, count: int) -> int:
        """What `clear` tells of so many entries; a store that can't count them tells 0."""
        return count

    def make(self) -> tuple[Store, ManualClock]:
        clock = ManualClock()
        return self.make_store(clock), clock

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

    # What every kind has in common

    def test_fresh_entries_of_each_kind(self) -> None:
        """To everybody they are entries as any other."""
        for life in LIVES.values():
            store, clock = self.stored(life)
            clock.advance(2.0)
            assert store.get("a") == 1
            assert store.get("a", None) == 1
            assert store.get("a", ASK) == 1
            assert store.get_many(["a", "b"]) == {"a": 1}
            assert "a" in store
            assert list(store.keys("")) == ["a"]
            assert len(store) == 1
            assert store.expired_size() == 0
            assert store.sweep() == 0
            assert store.add("a", 2, 5.0, WIDE) is False
            assert store.remaining("a")[0] is LIVE
            looked = store.look("a")
            assert looked is not None
            assert (thaw(looked.stored), looked.is_fresh, looked.is_due) == (1, True, False)
            assert looked.etag == life.etag

    def test_they_expire(self) -> None:
        """At the instant, and leave with a sweep."""
        for name in ("ttl", "due", "sliding"):
            store, clock = self.stored(LIVES[name])
            clock.advance(FRESH_ENDS - 0.125)
            assert store.remaining("a") == (LIVE, 0.125)
            clock.advance(0.125)
            assert "a" not in store
            assert store.get("a", ASK) is ASK
            assert store.look("a") is None
            assert store.get("a", None) is None
            store, clock = self.stored(LIVES[name])
            clock.advance(FRESH_ENDS)
            raised(KeyExpired, store.get, "a")
            store, clock = self.stored(LIVES[name])
            clock.advance(FRESH_ENDS)
            assert store.expired_size() == 1
            assert store.sweep() == 1
            assert len(store) == 0

    def test_never(self) -> None:
        """Without an end: as long as one likes, whatever else there is to their lives."""
        for life in (Life(FOREVER), TAGGED, Life(FOREVER, etag="v"), Life(FOREVER, refresh_after=5.0)):
            store, clock = self.stored(life)
            clock.advance(1e9)
            assert store.get("a") == 1
            assert store.remaining("a") == (LIVE, FOREVER)
            assert store.sweep() == 0

    def test_values_of_each_kind_are_thawed(self) -> None:
        """`get` gives a value of the reader's own; what is `Found` is in its stored form."""
        for life in LIVES.values():
            store, _ = self.stored(life, Frozen(list.copy, [1]))
            store.get("a").append(2)
            assert store.get("a", ASK) == [1]
            looked = store.look("a")
            assert looked is not None
            assert thaw(looked.stored) == [1]
            assert store.pop("a") == (LIVE, [1])

    def test_none_is_a_value(self) -> None:
        """None is found, fresh, stale or due."""
        store, clock = self.stored(STALE, None)
        assert store.get("a", ASK) is None
        clock.advance(FRESH_ENDS)
        assert thaw(self.found(store).stored) is None

    def test_overwrite_with_each_kind(self) -> None:
        """The new life counts, and nothing of the old one."""
        for before in (None, *LIVES.values()):
            for after in LIVES.values():
                store, clock = self.make()
                if before is None:
                    store.put("a", 1, FRESH_ENDS, WIDE)
                else:
                    store.put_with("a", 1, before, WIDE)
                clock.advance(2.0)
                assert store.put_with("a", 2, after, WIDE) is True
                assert store.get("a", ASK) == 2
                assert len(store) == 1
                looked = store.look("a")
                assert looked is not None
                assert looked.etag == after.etag
                if not after.tags:
                    store.invalidate_tags([RED])
                    assert store.get("a", ASK) == 2
                assert store.remaining("a") == (LIVE, after.ttl)
                clock.advance(100.0)
                assert ("a" in store) is (after is TAGGED)

    def test_plain_put_over_each_kind(self) -> None:
        """It makes a plain entry: no tags, nothing stale, no refresh, no sliding."""
        plain: dict[str, Change] = {
            "put": lambda store: store.put("a", 2, 16.0, WIDE),
            "put_many": lambda store: store.put_many({"a": 2}, 16.0, WIDE),
            "replace": lambda store: store.replace("a", 2, 16.0),
        }
        for life, is_overwrite in product(LIVES.values(), (False, True)):
            for put in plain.values():
                store, clock = self.make()
                if is_overwrite:
                    store.put("a", 0, 1.0, WIDE)
                store.put_with("a", 1, life, WIDE)
                clock.advance(2.0)
                put(store)
                store.invalidate_tags([RED, BLUE])
                assert store.remaining("a") == (LIVE, 16.0)
                clock.advance(15.0)
                assert store.get("a", ASK) == 2
                clock.advance(1.0)
                assert store.get("a", ASK) is ASK
                assert store.look("a") is None
                store.sweep()
                assert len(store) == 0

    def test_each_kind_by_replace_and_add(self) -> None:
        """With a life, both store entries of that life."""
        for life in LIVES.values():
            by_add, clock_of_add = self.make()
            assert by_add.add("a", 1, 500.0, WIDE, life) is True
            assert by_add.add("a", 2, 500.0, WIDE, life) is False
            by_replace, clock_of_replace = self.make()
            assert by_replace.replace("a", 1, 500.0, life) is GONE
            by_replace.put("a", 0, 500.0, WIDE)
            assert by_replace.replace("a", 1, 500.0, life) is LIVE
            for store, clock in ((by_add, clock_of_add), (by_replace, clock_of_replace)):
                assert store.get("a") == 1
                assert store.remaining("a") == (LIVE, life.ttl)
                looked = store.look("a")
                assert looked is not None
                assert looked.etag == life.etag
                clock.advance(FRESH_ENDS)
                assert ("a" in store) is (life.ttl == FOREVER)
                assert (store.look("a") is not None) is (life.ttl == FOREVER or life.stale_ttl > 0.0)
                store.invalidate_tags(life.tags)
                assert store.look("a") is None or not life.tags

    def test_removing_each_kind(self) -> None:
        """Nothing is left, by whatever way they are removed."""
        for life in LIVES.values():
            store, _ = self.stored(life)
            assert store.remove("a") is LIVE
            self.check_absent(store)
            assert len(store) == 0
            store.put_with("a", 2, life, WIDE)
            assert store.pop("a") == (LIVE, 2)
            self.check_absent(store)
            store.put_with("a", 3, life, WIDE)
            assert store.remove_many(["a"]) == 1
            self.check_absent(store)
            store.put_with("a", 4, life, WIDE)
            assert store.clear() == self.cleared(1)
            self.check_absent(store)
            assert len(store) == 0

    def test_incr_of_each_kind(self) -> None:
        """Keeps the deadline and the rest of the life."""
        for life in LIVES.values():
            store, clock = self.stored(life)
            clock.advance(2.0)
            for expected in (2, 3):
                assert incr(store, "a") == (LIVE, expected)
            assert store.remaining("a") == (LIVE, life.ttl - 2.0)
            looked = store.look("a")
            assert looked is not None
            assert (thaw(looked.stored), looked.etag) == (3, life.etag)
            clock.advance(FRESH_ENDS - 2.0)
            assert (store.look("a") is not None) is (life.ttl == FOREVER or life.stale_ttl > 0.0)
            store.invalidate_tags(life.tags)
            assert store.look("a") is None or not life.tags

    def test_incr_freezes_the_sum_of_each_kind(self) -> None:
        """As with plain entries."""
        for life in LIVES.values():
            store, _ = self.stored(life, Frozen(int, "1"))
            sums = store.incr("a", 2, lambda number: Frozen(int, str(number)), 0, 5.0, WIDE)
            assert sums == (LIVE, 3)
            assert store.get("a") == 3

    def test_touching_each_kind(self) -> None:
        """The new TTL counts from now; the rest of the life stays."""
        for life in LIVES.values():
            store, clock = self.stored(life)
            clock.advance(2.0)
            assert store.touch("a", 16.0) is LIVE
            assert store.remaining("a") == (LIVE, 16.0)
            clock.advance(15.0)
            assert store.sweep() == 0
            assert "a" in store
            clock.advance(1.0)
            assert store.remaining("a")[0] is EXPIRED
            assert (store.look("a") is not None) is (life.stale_ttl > 0.0)
            store.invalidate_tags(life.tags)
            assert store.look("a") is None or not life.tags
            assert store.get("a", ASK) is ASK or not life.tags

    def test_touching_for_a_shorter_time(self) -> None:
        """The deadline may come nearer, and with it the end of the stale value."""
        for life in LIVES.values():
            store, clock = self.stored(life)
            assert store.touch("a", 1.0) is LIVE
            clock.advance(1.0)
            assert "a" not in store
            assert (store.look("a") is not None) is (life.stale_ttl > 0.0)
            clock.advance(life.stale_ttl)
            assert store.look("a") is None
            store.sweep()
            assert len(store) == 0

    def test_touching_for_ever(self) -> None:
        """No end any more, and one again."""
        for name, life in LIVES.items():
            store, clock = self.stored(life)
            assert store.touch("a", FOREVER) is LIVE
            clock.advance(30.0)
            if name in ("sliding", "all"):
                assert store.remaining("a") == (LIVE, 2.0), "max_age ends it all the same"
                continue
            assert store.remaining("a") == (LIVE, FOREVER)
            assert store.sweep() == 0
            assert store.touch("a", 5.0) is LIVE
            clock.advance(5.0)
            assert "a" not in store

    def test_they_need_room_as_others(self) -> None:
        """The bound holds for any mixture."""
        store, _ = self.make()
        lives = list(LIVES.values())
        for n in range(60):
            store.put_with(f"k{n}", n, lives[n % len(lives)], Bounds(10))
            assert len(store) == min(2 * n + 1, 10)
            assert store.get(f"k{n}") == n, "the newcomer itself was evicted"
            store.put(f"plain{n}", n, 5.0, Bounds(10))
            assert len(store) == min(2 * n + 2, 10)
        store.shrink(Bounds(3))
        assert len(store) == 3

    def test_the_whole_store_is_cleared(self) -> None:
        """Of entries of any kind nothing is left, and the store goes on as new."""
        store, clock = self.make()
        for name, life in LIVES.items():
            store.put_with(name, 1, life, WIDE)
        clock.advance(2.0)
        assert store.clear() == self.cleared(len(LIVES))
        for name in LIVES:
            self.check_absent(store, name)
        store.put_with("a", 1, STALE, WIDE)
        clock.advance(FRESH_ENDS)
        assert not self.found(store).is_fresh

    # Stale ones

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

    # Refreshes

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

    # Sliding

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

    # Tags

    def test_invalidating_a_tag(self) -> None:
        """All entries that carry it are as good as deleted; no other is."""
        store, _ = self.make()
        store.put_with("red", 1, Life(FOREVER, tags=(RED,)), WIDE)
        store.put_with("both", 1, Life(50.0, tags=(RED, BLUE)), WIDE)
        store.put_with("blue", 1, Life(50.0, tags=(BLUE,)), WIDE)
        store.put("none", 1, FOREVER, WIDE)
        store.invalidate_tags([RED])
        assert sorted(store.keys("")) == ["blue", "none"]
        self.check_absent(store, "red")
        self.check_absent(store, "both")
        assert store.get_many(["red", "both", "blue", "none"]) == {"blue": 1, "none": 1}
        store.invalidate_tags([])
        assert store.get("blue") == 1
        store.invalidate_tags(iter([RED, BLUE]))
        assert list(store.keys("")) == ["none"]

    def test_every_slot_is_a_tag(self) -> None:
        """From the first to the last."""
        store, _ = self.make()
        slots = [0, 1, 1000, 262_143]
        for slot in slots:
            store.put_with(f"k{slot}", slot, Life(FOREVER, tags=(slot,)), WIDE)
        for slot in slots:
            assert store.get(f"k{slot}") == slot
            store.invalidate_tags([slot])
            assert store.get(f"k{slot}", None) is None

    def test_deleting_what_was_invalidated(self) -> None:
        """Nothing was there."""
        removals: list[tuple[Change, Any]] = [
            (lambda store: store.remove("a"), GONE),
            (lambda store: store.pop("a"), (GONE, None)),
            (lambda store: store.remove_many(["a"]), 0),
        ]
        for remove, answer in removals:
            store, _ = self.stored(TAGGED)
            store.invalidate_tags([RED])
            assert remove(store) == answer
            self.check_absent(store)

    def test_what_was_invalidated_is_no_obstacle(self) -> None:
        """What is stored afterwards counts, with the same tags as well."""
        writes: dict[str, Change] = {
            "add": lambda store: store.add("a", 2, 5.0, WIDE),
            "add with a life": lambda store: store.add("a", 2, 5.0, WIDE, Life(5.0, tags=(RED,))),
            "put": lambda store: store.put("a", 2, 5.0, WIDE),
            "put_with": lambda store: store.put_with("a", 2, Life(5.0, tags=(RED,)), WIDE),
            "incr": lambda store: store.incr("a", 1, None, initial=1, ttl=5.0, bounds=WIDE),
        }
        for name, write in writes.items():
            for life in (TAGGED, LIVES["all"]):
                store, _ = self.stored(life)
                store.invalidate_tags([RED])
                write(store)
                assert store.get("a") == 2, name
                assert store.get("a", ASK) == 2
                assert store.remaining("a") == (LIVE, 5.0)
                assert len(store) == 1

    def test_invalidating_stale_and_due_ones(self) -> None:
        """They are gone for those who ask as well."""
        for seconds in (2.0, 4.0, FRESH_ENDS):
            store, clock = self.stored(LIVES["all"])
            clock.advance(seconds)
            store.invalidate_tags([BLUE])
            self.check_absent(store)
            store.put_off("a", 5.0)
            self.check_absent(store)

    def test_invalidating_again_and_again(self) -> None:
        """Each invalidation ends what was stored before, and nothing that is stored after."""
        store, _ = self.make()
        for n in range(50):
            assert store.put_with("a", n, TAGGED, WIDE)
            assert store.get("a") == n
            store.invalidate_tags([RED])
            assert store.get("a", None) is None

    def test_invalidated_ones_make_room(self) -> None:
        """They leave as others do."""
        store, clock = self.make()
        for n in range(10):
            store.put_with(f"k{n}", n, Life(5.0, tags=(RED,)), Bounds(10))
        store.invalidate_tags([RED])
        for n in range(10):
            store.put(f"new{n}", n, FOREVER, Bounds(10))
        assert len(store) <= 10
        assert store.get("new9") == 9
        clock.advance(5.0)
        store.sweep()
        assert all(key.startswith("new") for key in store.keys(""))

    # Loads

    def test_a_load_that_nothing_overtook(self) -> None:
        """Its value is stored."""
        for life in LIVES.values():
            store, _ = self.make()
            token = store.begin_load("a")
            assert token is not None
            assert store.is_overtaken("a", token) is False
            assert store.put_with("a", 1, life, WIDE, token) is True
            assert store.get("a") == 1

    def test_a_load_that_was_overtaken(self) -> None:
        """Its value may be from before: it isn't stored, and what is there stays."""
        for name, change in CHANGES.items():
            for is_there in (False, True):
                for life in (LIVES["ttl"], STALE):
                    store, _ = self.make()
                    store.put("b", 0, FOREVER, WIDE)
                    if is_there or name.startswith("replace"):
                        store.put("a", 0, FOREVER, WIDE)
                    if name == "add":
                        store.remove("a")
                    token = store.begin_load("a")
                    assert not store.is_overtaken("a", token)
                    change(store)
                    assert store.is_overtaken("a", token), name
                    before = store.get("a", ABSENT)
                    assert store.put_with("a", "old", life, WIDE, token) is False, name
                    assert store.get("a", ABSENT) == before

    def test_what_does_not_overtake_a_load(self) -> None:
        """Reads, new deadlines, and changes of other keys."""
        for name, change in HARMLESS.items():
            store, _ = self.make()
            store.put("a", 0, FOREVER, WIDE)
            store.put("b", 0, FOREVER, WIDE)
            token = store.begin_load("a")
            change(store)
            assert not store.is_overtaken("a", token), name
            assert store.put_with("a", 1, STALE, WIDE, token) is True, name
            assert store.get("a") == 1

    def test_expiry_does_not_overtake_a_load(self) -> None:
        """That an old value ends is no news of a new one."""
        for name in ("ttl", "stale", "all"):
            store, clock = self.stored(LIVES[name])
            clock.advance(FRESH_ENDS - 1.0)
            token = store.begin_load("a")
            clock.advance(1.0)
            store.get("a", ASK)
            store.sweep()
            assert store.put_with("a", 2, STALE, WIDE, token) is True
            assert store.get("a") == 2

    def test_loads_of_one_key_at_once(self) -> None:
        """The first to store its value overtakes the others."""
        store, _ = self.make()
        first, second = store.begin_load("a"), store.begin_load("a")
        assert store.put_with("a", 2, STALE, WIDE, second) is True
        assert store.is_overtaken("a", first)
        assert store.put_with("a", 1, STALE, WIDE, first) is False
        assert store.get("a") == 2
        third = store.begin_load("a")
        assert store.put_with("a", 3, STALE, WIDE, third) is True
        assert store.put_with("a", 4, STALE, WIDE, third) is False, "a token is good for one value"

    def test_a_load_begun_after_a_change(self) -> None:
        """Only what comes after the beginning counts, whatever came before."""
        for name, change in CHANGES.items():
            store, _ = self.make()
            overtaken = store.begin_load("a")
            change(store)
            token = store.begin_load("a")
            if name not in ("replace", "replace with a life"):
                assert store.is_overtaken("a", overtaken), name
            del overtaken
            assert store.put_with("a", 1, STALE, WIDE, token) is True, name

    def test_tokens_that_are_dropped(self) -> None:
        """They hold up nobody."""
        store, _ = self.make()
        kept = store.begin_load("k7")
        for n in range(1000):
            store.begin_load(f"k{n % 10}")
        assert store.put_with("k7", 1, STALE, WIDE, kept) is True
        assert store.put_with("k8", 1, STALE, WIDE) is True

    def test_tags_invalidated_during_a_load(self) -> None:
        """The value may be from before: it isn't stored. Other tags don't matter."""
        store, _ = self.make()
        token = store.begin_load("a")
        store.invalidate_tags([RED])
        assert store.put_with("a", 1, Life(FOREVER, tags=(BLUE, RED)), WIDE, token) is False
        assert "a" not in store
        token = store.begin_load("a")
        store.invalidate_tags([RED])
        assert store.put_with("a", 1, Life(FOREVER, tags=(BLUE,)), WIDE, token) is True
        assert store.get("a") == 1
        token = store.begin_load("a")
        assert store.put_with("a", 2, Life(FOREVER, tags=(BLUE, RED)), WIDE, token) is True
        assert store.get("a") == 2
        store.invalidate_tags([RED])
        assert "a" not in store

    def test_a_refused_value_changes_nothing(self) -> None:
        """What is there keeps its value, its life and its time."""
        for life in LIVES.values():
            store, clock = self.make()
            token = store.begin_load("a")
            store.put_with("a", "new", life, WIDE)
            clock.advance(2.0)
            sets = store.counters.sets
            assert store.put_with("a", "old", Life(500.0), WIDE, token) is False
            assert store.counters.sets == sets
            assert store.remaining("a") == (LIVE, life.ttl - 2.0)
            assert store.get("a") == "new"

    # Leases

    def test_leases(self) -> None:
        """One may be taken, given back, and taken again; keys don't get in each other's way."""
        store, _ = self.make()
        for _ in range(3):
            release = store.try_lease("a")
            other = store.try_lease("b")
            assert release is not None
            assert other is not None
            release()
            other()
        assert len(store) == 0

    def test_leases_are_given_back_by_any_thread(self) -> None:
        """The thread that loads need not be the one that asked."""
        store, _ = self.make()
        for _ in range(3):
            release = store.try_lease("a")
            assert release is not None
            in_threads(1, release)

    # Generations

    def test_generations(self) -> None:
        """Each name has its own number, which begins at 0 and only grows."""
        store, _ = self.make()
        assert store.generation("users") == 0
        assert store.next_generation("users") == 1
        assert store.next_generation("users") == 2
        assert store.generation("users") == 2
        assert store.generation("pages") == 0
        assert store.generation("") == 0
        assert len(store) == 0
        assert list(store.keys("")) == []

    def test_generations_of_threads(self) -> None:
        """No two callers get the same number."""
        store, _ = self.make()
        got: list[int] = []

        def work() -> None:
            got.extend(store.next_generation("n") for _ in range(50))

        in_threads(4, work)
        assert sorted(got) == list(range(1, 201))
        assert store.generation("n") == 200

    # As a whole

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

    # Threads

    def test_no_reader_sees_what_was_invalidated(self) -> None:
        """After the call that ended a value has returned, nobody gets it."""
        store, _ = self.make()
        ended = [-1]
        writing = [True]

        def write() -> None:
            try:
                for n in range(300):
                    store.put_with("a", n, TAGGED, WIDE)
                    store.invalidate_tags([RED])
                    ended[0] = n
            finally:
                writing.clear()

        def read() -> None:
            while writing:
                before = ended[0]
                seen = store.get("a", None), store.get("a", ASK), store.get_many(["a"]).get("a")
                assert all(value in (None, ASK) or value > before for value in seen)

        roles = iter([write, read, read])
        in_threads(3, lambda: next(roles)())

    def test_no_value_is_stored_that_a_delete_overtook(self) -> None:
        """Whatever the threads' order: what was computed before a delete isn't there after it."""
        store, _ = self.make()
        source = [0]
        changing = [True]

        def change() -> None:
            try:
                for n in range(1, 300):
                    source[0] = n
                    store.remove("a")
                    seen = store.get("a", None)
                    assert seen is None or seen >= n, f"{seen} came back after {n} was announced"
            finally:
                changing.clear()

        def load() -> None:
            while changing:
                token = store.begin_load("a")
                store.put_with("a", source[0], STALE, WIDE, token)

        roles = iter([change, load, load])
        in_threads(3, lambda: next(roles)())
