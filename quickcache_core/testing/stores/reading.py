"""Values and keys, read."""
# ruff: noqa: S101 - asserts are what a test consists of

from __future__ import annotations

from quickcache_core.entry import FOREVER
from quickcache_core.errors import InvalidKey, KeyNotFound
from quickcache_core.serializer.isolation import thaw
from quickcache_core.store.base import ABSENT
from quickcache_core.testing.stores.basis import LIVE, WIDE, Basis, raised


class ReadingContract(Basis):
    """Who reads gets what is live, and nothing else."""

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

    def test_absent_default(self) -> None:
        """`ABSENT` is told from every value that can be stored."""
        store, _ = self.make()
        assert store.get("a", ABSENT) is ABSENT
        assert thaw(store.get("a", ABSENT)) is ABSENT
