"""Values in the form that they are stored in."""
# ruff: noqa: S101 - asserts are what a test consists of

from __future__ import annotations

from typing import Any

from quickcache_core.entry import FOREVER
from quickcache_core.serializer.isolation import Frozen, thaw
from quickcache_core.testing.stores.basis import LIVE, WIDE, Basis, raised


class FormContract(Basis):
    """Whoever reads gets a value of their own, whatever the form it is stored in."""

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
