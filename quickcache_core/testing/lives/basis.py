"""What every kind of entry has in common."""
# ruff: noqa: S101 - asserts are what a test consists of

from __future__ import annotations

from itertools import product

from quickcache_core.entry import FOREVER
from quickcache_core.errors import KeyExpired
from quickcache_core.serializer.isolation import Frozen, thaw
from quickcache_core.store.base import Bounds
from quickcache_core.store.life import ASK, Life
from quickcache_core.testing.lives.kinds import (
    BLUE,
    EXPIRED,
    FRESH_ENDS,
    GONE,
    LIVE,
    LIVES,
    RED,
    STALE,
    TAGGED,
    WIDE,
    Change,
    Kinds,
    incr,
)
from quickcache_core.testing.stores import raised


class CommonContract(Kinds):
    """To whoever doesn't ask for more, they are entries as any other."""

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
