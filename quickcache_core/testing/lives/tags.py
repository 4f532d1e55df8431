"""Entries with tags, and the end of a tag."""
# ruff: noqa: S101 - asserts are what a test consists of

from __future__ import annotations

from typing import Any

from quickcache_core.entry import FOREVER
from quickcache_core.store.base import Bounds
from quickcache_core.store.life import ASK, Life
from quickcache_core.testing.lives.kinds import (
    BLUE,
    FRESH_ENDS,
    GONE,
    LIVE,
    LIVES,
    RED,
    TAGGED,
    WIDE,
    Change,
    Kinds,
)
from quickcache_core.testing.stores import in_threads


class TagContract(Kinds):
    """Whoever invalidates a tag ends all entries that carry it, and no other."""

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
