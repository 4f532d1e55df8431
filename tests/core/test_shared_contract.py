"""Scope `shared` keeps the contract of every store."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from quickcache_core.entry import FOREVER
from quickcache_core.serializer import BaseSerializer, PickleSerializer
from quickcache_core.serializer.isolation import Frozen
from quickcache_core.serializer.signing import Signer
from quickcache_core.store.base import ASK, Store
from quickcache_core.store.codec import Codec
from quickcache_core.store.shared.connection import Connection
from quickcache_core.store.shared.store import SharedStore
from quickcache_core.store.shared.table import SharedTable
from quickcache_core.testing import ManualClock, StoreContract
from quickcache_core.testing.lives import HARMLESS, LIVES, STALE, LifeContract
from quickcache_core.testing.stores import WIDE

SIGNER = Signer("a secret of the tests, long enough", purpose="tests")


class SharedContract(StoreContract, LifeContract):
    isolation = "auto"
    serializer: BaseSerializer = PickleSerializer()
    near_size = 1000
    writemap = True

    @pytest.fixture(autouse=True)
    def _directories(self, tmp_path: Path) -> Iterator[None]:
        self._paths = (tmp_path / f"store{number}" for number in itertools.count())
        self._made: list[SharedStore] = []
        yield
        for store in self._made:
            store._connection.close()
            # Each takes the room for its map on the disk.
            shutil.rmtree(store._connection.path)

    def make_store(self, clock: ManualClock) -> Store:
        connection = Connection(next(self._paths), 8_000_000, 1.0, writemap=self.writemap)
        connection.open()
        codec = Codec(self.serializer, self.isolation, (), lambda: SIGNER, False)
        store = SharedStore(SharedTable(connection, clock), codec, clock, self.near_size)
        self._made.append(store)
        return store

    def test_a_value_that_can_not_be_thawed(self) -> None:
        """It is refused: others couldn't read it either."""
        store, _ = self.filled(1)

        def fail(data: object) -> None:
            raise RuntimeError("unreadable")

        with pytest.raises(RuntimeError):
            store.put("a", Frozen(fail, b""), FOREVER, WIDE)
        assert "a" not in store

    def test_what_does_not_overtake_a_load(self) -> None:
        """As the contract has it, but for a new deadline: others have to hear of it, as of a new value."""
        for name, change in HARMLESS.items():
            store, _ = self.make()
            store.put("a", 0, FOREVER, WIDE)
            store.put("b", 0, FOREVER, WIDE)
            token = store.begin_load("a")
            change(store)
            assert store.is_overtaken("a", token) is (name == "touch"), name
            assert store.put_with("a", 1, STALE, WIDE, token) is (name != "touch"), name


class TestSharedStore(SharedContract):
    pass


class TestSharedStoreThatCopies(SharedContract):
    isolation = "copy"


class TestSharedStoreThatShares(SharedContract):
    isolation = "share"

    def test_stored_forms_are_thawed(self) -> None:
        """Readers get the object that was read first, and the store what was written."""
        store, _ = self.make()
        store.put("a", Frozen(list.copy, [1]), FOREVER, WIDE)
        assert store.get("a") is store.get("a")
        store.get("a").append(2)
        assert store.pop("a") == ("live", [1]) or store.get("a", None) is None

    def test_values_of_each_kind_are_thawed(self) -> None:
        """The same for entries with more than a TTL."""
        for life in LIVES.values():
            store, _ = self.make()
            store.put_with("a", Frozen(list.copy, [1]), life, WIDE)
            assert store.get("a") is store.get("a", ASK)
            store.get("a").append(2)
            assert store.get("a") == [1, 2]


class TestSharedStoreWithoutNearStore(SharedContract):
    near_size = 0


class TestSharedStoreWithTinyNearStore(SharedContract):
    near_size = 2


class TestSharedStoreWithoutWrittenMap(SharedContract):
    writemap = False
