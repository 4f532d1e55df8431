"""Loads, what overtakes them, and who may load."""
# ruff: noqa: S101 - asserts are what a test consists of

from __future__ import annotations

from quickcache_core.entry import FOREVER
from quickcache_core.store.base import ABSENT
from quickcache_core.store.life import ASK, Life
from quickcache_core.testing.lives.kinds import (
    BLUE,
    CHANGES,
    FRESH_ENDS,
    HARMLESS,
    LIVE,
    LIVES,
    RED,
    STALE,
    WIDE,
    Kinds,
)
from quickcache_core.testing.stores import in_threads


class LoadContract(Kinds):
    """What was computed before a change isn't stored after it."""

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

    def test_loads_overtaken_by_prefix(self) -> None:
        """Before a removal by prefix, whatever is there or isn't: nothing that is being loaded under such a
        key is stored. What is there stays, and what begins afterwards is stored.
        """
        for name, life in {"nothing": None, **LIVES}.items():
            for age in (0.0, FRESH_ENDS):
                store, clock = self.make()
                if life is not None:
                    store.put_with("a:1", "there", life, WIDE)
                clock.advance(age)
                token, shorter = store.begin_load("a:1"), store.begin_load("a:")
                before = store.get("a:1", ABSENT), store.remaining("a:1"), store.look("a:1") is None
                store.overtake_loads("a:")
                assert store.is_overtaken("a:1", token), name
                assert store.put_with("a:1", "old", STALE, WIDE, token) is False, name
                assert store.put_with("a:", "old", STALE, WIDE, shorter) is False, name
                after = store.get("a:1", ABSENT), store.remaining("a:1"), store.look("a:1") is None
                assert after == before, name
                token = store.begin_load("a:1")
                assert not store.is_overtaken("a:1", token), name
                assert store.put_with("a:1", "new", STALE, WIDE, token) is True, name
                assert store.get("a:1") == "new"

    def test_no_value_is_stored_that_a_removal_by_prefix_overtook(self) -> None:
        """Whatever the threads' order: what was computed before the removal isn't there after it."""
        store, _ = self.make()
        source = [0]
        changing = [True]

        def change() -> None:
            try:
                for n in range(1, 100):
                    source[0] = n
                    store.overtake_loads("a")
                    store.remove_many(list(store.keys("a")))
                    seen = store.get("a1", None)
                    assert seen is None or seen >= n, f"{seen} came back after {n} was announced"
            finally:
                changing.clear()

        def load() -> None:
            while changing:
                token = store.begin_load("a1")
                store.put_with("a1", source[0], STALE, WIDE, token)

        roles = iter([change, load, load])
        in_threads(3, lambda: next(roles)())

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
