"""Scope `shared` within one process: what is stored, who leaves, and what trouble does to it."""

from __future__ import annotations

import errno
import gc
import logging
import os
import random
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import pytest

from quickcache_core import (
    ConfigError,
    KeyExpired,
    KeyNotFound,
    QuickCache,
    QuickCacheConfig,
    SerializationError,
    StoreUnavailable,
    ValueTooLarge,
)
from quickcache_core.entry import FOREVER
from quickcache_core.events import EventKind, RemovalCause
from quickcache_core.serializer import BaseSerializer
from quickcache_core.serializer.isolation import thaw
from quickcache_core.store import debts
from quickcache_core.store import near as near_store
from quickcache_core.store.base import ASK, Presence
from quickcache_core.store.life import Life
from quickcache_core.store.shared import directory, open_files, opening, reading
from quickcache_core.store.shared.leases import Leases
from quickcache_core.store.shared.opening import shared_stores
from quickcache_core.store.shared.store import SharedStore
from quickcache_core.testing import ManualClock
from quickcache_core.testing.stores import WIDE
from tests.stepping import at_step

SECRET = "a secret of some length"
Make = Callable[..., QuickCache]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes caches of one directory."""
    made: list[QuickCache] = []

    def build(directory: str = "shared", **settings: Any) -> QuickCache:
        settings = {"max_bytes": "4MB", "secret": SECRET, "max_size": 1_000_000, **settings}
        cache = QuickCache(QuickCacheConfig(location=f"shared://{tmp_path / directory}", **settings))
        made.append(cache)
        return cache

    yield build
    for cache in made:
        store_of(cache)._connection.close()
    shared_stores.forget()


def store_of(cache: QuickCache) -> SharedStore:
    store = cache._real_store
    assert isinstance(store, SharedStore)
    return store


def forget_near(cache: QuickCache) -> None:
    """As another process would find it."""
    near = store_of(cache)._near
    near.replace_store(near.stamps, near.references)


class TestValues:
    VALUES: ClassVar = [
        *(
            None,
            True,
            False,
            0,
            -1,
            2**63 - 1,
            -(2**63),
            2**63,
            10**40,
            0.5,
            float("inf"),
            "",
            "text",
            "\ud800",
        ),
        *(b"", b"\x00\xff", "ü☃" * 1000, [1, [2]], {"a": {"b": None}}, {"flat": 1}, [], "x" * 200_000),
    ]
    PICKLED: ClassVar = [
        (1, 2),
        {1, 2},
        Decimal("1.1"),
        date(2026, 1, 1),
        {"a": (1,)},
        1 + 2j,
        frozenset({1}),
        range(3),
    ]

    @pytest.mark.parametrize("isolation", ["share", "auto", "copy"])
    @pytest.mark.parametrize("serializer", ["json", "pickle", "msgpack"])
    def test_come_back(self, make: Make, serializer: str, isolation: str) -> None:
        """Equal and of the same type, to who wrote them and to who didn't."""
        cache = make(serializer=serializer, isolation=isolation)
        values = [value for value in self.VALUES if serializer != "msgpack" or value not in (2**64, 10**40)]
        for value in [*values, *(self.PICKLED if serializer == "pickle" else [])]:
            cache.set("k", value)
            for _ in range(2):
                for _ in range(3):
                    assert cache.get("k") == value
                    assert type(cache.get("k")) is type(value)
                forget_near(cache)

    @pytest.mark.parametrize("isolation", ["auto", "copy"])
    def test_changing_what_was_read(self, make: Make, isolation: str) -> None:
        """Nobody else sees it."""
        cache = make(serializer="pickle", isolation=isolation)
        for value in ([1], {"a": 1}, {1}, [[1]], {"a": [1]}):
            cache.set("k", value)
            for _ in range(2):
                for _ in range(3):
                    got = cache.get("k")
                    assert got == value
                    got.clear()
                forget_near(cache)

    @pytest.mark.parametrize("isolation", ["share", "auto", "copy"])
    def test_changing_what_was_stored(self, make: Make, isolation: str) -> None:
        """The cache has what was there when it was stored."""
        cache = make(serializer="pickle", isolation=isolation)
        for value in ([1], [[1]]):
            cache.set("k", value)
            value.clear()
            assert cache.get("k") in ([1], [[1]])

    def test_values_that_can_not_be_stored(self, make: Make) -> None:
        """An error that names the key; an older value stays."""
        cache = make(serializer="json")
        cache.set("k", 1)
        with pytest.raises(SerializationError, match="'k'"):
            cache.set("k", object())
        assert cache.get("k") == 1

    def test_serializer_of_ones_own(self, make: Make) -> None:
        """It gets every value but plain numbers: one that encrypts leaves nothing readable in the files."""

        class Rot(BaseSerializer):
            extension = "rot"
            is_binary = True

            def serialize(self, data: Any) -> bytes:
                return bytes(byte ^ 0x55 for byte in repr(data).encode())

            def deserialize(self, data: Any) -> Any:
                import ast

                return ast.literal_eval(bytes(byte ^ 0x55 for byte in data).decode())

        cache = make(serializer=Rot)
        cache.set("k", "very secret text")
        forget_near(cache)
        assert cache.get("k") == "very secret text"
        assert b"very secret" not in (store_of(cache)._connection.path / "data.mdb").read_bytes()
        cache.set("n", 1)
        assert cache.incr("n") == 2

    def test_value_too_large(self, make: Make) -> None:
        """An error with the sizes and the remedy; a sixteenth of `max_bytes` goes in."""
        cache = make()
        with pytest.raises(ValueTooLarge, match="raise max_bytes") as raised:
            cache.set("k", b"x" * 260_000)
        assert (raised.value.limit, raised.value.key) == (250_000, "k")
        cache.set("k", b"x" * 249_000)
        assert len(cache.get("k")) == 249_000


class TestKeys:
    KEYS: ClassVar = [
        "",
        " ",
        "a" * 511,
        "a" * 512,
        "a" * 100_000,
        "a" * 99_999 + "b",
        "ü" * 255,
        "ü" * 256,
        "\ud800",
        "\0",
    ]

    def test_any_text(self, make: Make) -> None:
        """Long ones too, which LMDB itself doesn't take."""
        cache = make()
        for number, key in enumerate(self.KEYS):
            cache.set(key, number)
        forget_near(cache)
        assert cache.get_many(self.KEYS) == {key: number for number, key in enumerate(self.KEYS)}
        assert sorted(cache.keys()) == sorted(self.KEYS)
        assert sorted(cache.keys("a" * 511)) == sorted(key for key in self.KEYS if key.startswith("a" * 511))
        assert sorted(cache.keys("a" * 600)) == sorted(key for key in self.KEYS if key.startswith("a" * 600))
        for key in self.KEYS:
            cache.delete(key)
        assert len(cache) == 0

    def test_two_keys_with_one_digest(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """A miss, never the other one's value."""
        cache = make()
        monkeypatch.setattr("quickcache_core.store.shared.store.stored_key", lambda key: b"\xfe" + b"0" * 32)
        cache.set("a" * 600, 1)
        assert cache.get("b" * 600, None) is None


class TestSignatures:
    def test_another_secret(self, make: Make, caplog: pytest.LogCaptureFixture) -> None:
        """What others signed is a miss, counted, and logged once for all of them."""
        cache = make(serializer="pickle")
        stranger = make(serializer="pickle", secret="another secret of that length")
        for number in range(3):
            cache.set(f"k{number}", (1,))
        with caplog.at_level(logging.WARNING):
            assert stranger.get_many(["k0", "k1", "k2"]) == {}
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "k0" not in caplog.text
        assert stranger.metrics().store_errors == 3
        stranger.set("k0", (2,))
        assert stranger.get("k0") == (2,)
        assert cache.get("k0", None) is None

    def test_former_secret(self, make: Make) -> None:
        """Is still good for reading."""
        make(serializer="pickle").set("k", (1,))
        rotated = make(serializer="pickle", secret="a newer secret, long as well", secret_fallbacks=[SECRET])
        assert rotated.get("k") == (1,)

    def test_values_under_other_keys(self, make: Make) -> None:
        """A signature is good for one key."""
        cache = make(serializer="pickle")
        cache.set("admin", (True,))
        cache.set("guest", (False,))
        connection = store_of(cache)._connection
        stolen, _ = connection.read(b"admin", 0)

        def action(txn: Any, slots: list[int]) -> tuple[None, bool]:
            txn.put(b"guest", stolen)
            return None, True

        connection.write(action, [0])
        assert cache.get("guest", None) is None
        assert cache.get("admin") == (True,)

    def test_changed_bytes(self, make: Make) -> None:
        """Every changed bit of a signed value makes it a miss."""
        cache = make(serializer="pickle")
        cache.set("k", (1, "two"))
        connection = store_of(cache)._connection
        record, _ = connection.read(b"k", 0)
        assert record is not None
        for place in range(12, len(record)):
            changed = bytearray(record)
            changed[place] ^= 1

            def action(txn: Any, slots: list[int], data: bytes = bytes(changed)) -> tuple[None, bool]:
                txn.put(b"k", data)
                return None, True

            connection.write(action, [0])
            assert cache.get("k", None) is None

    def test_no_secret(self, make: Make) -> None:
        """Pickles need one: said when the cache is made, or when a function has none to give."""
        with pytest.raises(ConfigError, match="secret"):
            make(serializer="pickle", secret=None)
        cache = make(serializer="pickle", secret=lambda: None)
        with pytest.raises(SerializationError, match="secret"):
            cache.set("k", (1,))
        cache.set("n", 1)
        assert cache.get("n") == 1
        make(serializer="pickle", secret=None, allow_unsigned_pickle=True).set("k", (1,))
        assert cache.get("k", None) is None

    def test_another_serializer(self, make: Make) -> None:
        """What it wrote is a miss; plain values are for all."""
        one, other = make(serializer="json"), make(serializer="pickle")
        one.set_many({"k": [1], "n": 5})
        assert other.get_many(["k", "n"]) == {"n": 5}


class TestBounds:
    def test_map_never_full(self, make: Make) -> None:
        """Values of all sizes go in for ever, and the newest is there."""
        cache = make()
        dice = random.Random(1)
        for number in range(3000):
            size = int(2 ** dice.uniform(0, 17.9))
            key = f"k{dice.randrange(500)}"
            cache.set(key, b"x" * size)
            assert len(cache.get(key)) == size
            if number % 100 == 0:
                forget_near(cache)
                assert len(cache.get(key)) == size
        assert cache.metrics().store_errors == 0
        assert cache.metrics().evictions > 0
        assert 0 < store_of(cache).used_bytes() < 4_000_000

    def test_who_is_read_stays(self, make: Make) -> None:
        """CLOCK spares what was read since it last came by."""
        cache = make(max_size=1000, default_ttl=None)
        hot = [f"hot{number}" for number in range(100)]
        cache.set_many(dict.fromkeys(hot, 1))
        for number in range(5000):
            cache.set(f"cold{number}", 1)
            cache.get(hot[number % 100], None)
        assert len(cache.get_many(hot)) >= 95
        assert len(cache) == 1000

    def test_what_is_only_read_near_stays(self, make: Make) -> None:
        """Hits of the near store count as use."""
        cache = make(max_size=100, default_ttl=None)
        cache.set("hot", 1)
        for number in range(1000):
            assert cache.get("hot") == 1
            cache.set(f"cold{number}", 1)

    def test_near_store_is_bounded(self, make: Make) -> None:
        """By entries and by bytes."""
        cache = make(near_size=100, max_bytes="64MB")
        near = store_of(cache)._near
        for number in range(1000):
            cache.set(f"k{number}", 1)
            assert len(near.young) + len(near.old) <= 101
        big = make(near_size=10_000, max_bytes="64MB")
        for number in range(200):
            big.set(f"b{number}", b"x" * 1_000_000)
        near = store_of(big)._near
        held = [entry.value for half in (near.young, near.old) for entry in half.values()]
        assert sum(len(value) for value in held if isinstance(value, bytes)) <= 34_000_000

    def test_no_near_store(self, make: Make) -> None:
        """Everything comes from the files."""
        cache = make(near_size=0, serializer="pickle", isolation="auto")
        cache.set("k", [[1]])
        assert cache.get("k") == cache.get("k") == [[1]]
        assert cache.metrics().hits == 2

    def test_two_caches_two_bounds(self, make: Make) -> None:
        """Each write goes by the bound of its cache."""
        wide, narrow = make(max_size=100), make(max_size=10)
        wide.set_many({f"k{number}": 1 for number in range(100)})
        narrow.set("n", 1)
        assert len(wide) == 10

    def test_another_size_in_one_process(self, make: Make) -> None:
        """Is an error that names both."""
        make()
        with pytest.raises(ConfigError, match="4 MB"):
            make(max_bytes="5MB")


class TestFigures:
    def test_of_all_caches_of_the_store(self, make: Make) -> None:
        """Each cache has its own hits and misses, all have the rest; a reset is one for all."""
        one, other = make(), make(near_size=5)
        one.set("k", 1)
        one.get("k")
        other.get("k")
        other.get("nothing", None)
        assert (one.metrics().hits, one.metrics().misses, one.metrics().sets) == (1, 0, 1)
        assert (other.metrics().hits, other.metrics().misses, other.metrics().sets) == (1, 1, 1)
        other.reset_metrics()
        assert (one.metrics().gets, one.metrics().sets, other.metrics().gets) == (0, 0, 0)
        assert one.metrics().current_total_keys == 1


class TestExpiry:
    def test_near_and_far(self, make: Make) -> None:
        """A TTL ends at the same instant for all."""
        clock = ManualClock()
        cache = make(clock=clock)
        cache.set("k", 1, 5)
        clock.advance(4.99)
        assert cache.get("k") == 1
        clock.advance(0.01)
        for _ in range(2):
            with pytest.raises(KeyExpired):
                cache.get("k")
            forget_near(cache)
        assert cache.cleanup() == 1
        with pytest.raises((KeyExpired, KeyNotFound)):
            cache.get("k")

    def test_touch(self, make: Make) -> None:
        """Prolongs it for those who have it near, too."""
        clock = ManualClock()
        cache = make(clock=clock)
        cache.set("k", [1], 5)
        assert cache.get("k") == [1]
        clock.advance(4)
        cache.touch("k", 5)
        clock.advance(4)
        assert cache.get("k") == [1]
        assert cache.ttl("k") == 1.0

    def test_nothing_is_scanned_without_need(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """A sweep looks at the entries only when one is due."""
        clock = ManualClock()
        cache = make(clock=clock)
        cache.set_many({f"k{number}": 1 for number in range(100)}, 100)
        cache.cleanup()
        connection = store_of(cache)._connection
        scans: list[object] = []
        scan = connection.scan
        monkeypatch.setattr(connection, "scan", lambda *args: scans.append(args) or scan(*args))
        clock.advance(99)
        assert (cache.cleanup(), len(scans)) == (0, 0)
        cache.set("soon", 1, 0.5)
        clock.advance(0.6)
        assert (cache.cleanup(), len(scans)) == (1, 1)
        clock.advance(1)
        assert (cache.cleanup(), len(scans)) == (100, 2)

    def test_written_during_a_sweep(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """What comes while a sweep looks at the entries is not forgotten by the next one."""
        clock = ManualClock()
        cache = make(clock=clock)
        cache.set("first", 1, 1)
        cache.cleanup()
        clock.advance(1)
        connection = store_of(cache)._connection
        scan = connection.scan

        def interrupted(*args: Any) -> Iterator[list[Any]]:
            yield from scan(*args)
            cache.set("late", 1, 5)

        monkeypatch.setattr(connection, "scan", interrupted)
        assert cache.cleanup() == 1
        monkeypatch.undo()
        clock.advance(5)
        assert cache.cleanup() == 1


class TestLives:
    """Two caches with a near store each, which know of each other what two processes would."""

    @pytest.fixture
    def two(self, make: Make) -> tuple[SharedStore, SharedStore, ManualClock]:
        clock = ManualClock()
        return store_of(make(clock=clock)), store_of(make(clock=clock, near_size=500)), clock

    def test_sliding_by_reads_of_one(self, two: tuple[SharedStore, SharedStore, ManualClock]) -> None:
        """Reads from what is near reach the files often enough that nobody else finds it expired."""
        reader, other, clock = two
        reader.put_with("k", [1], Life(100.0, sliding=True), WIDE)
        for _ in range(50):
            for _ in range(30):
                clock.advance(1.0)
                assert reader.get("k") == [1]
            assert other.sweep() == 0
            presence, remaining = other.remaining("k")
            assert presence is Presence.LIVE
            assert 95.0 <= remaining <= 100.0

    def test_sliding_takes_few_writes(self, two: tuple[SharedStore, SharedStore, ManualClock]) -> None:
        """One in 5 % of the TTL, however often it is read; and it is nobody's news."""
        reader, other, clock = two
        reader.put_with("k", 1, Life(100.0, sliding=True), WIDE)
        before = label(reader)
        for _ in range(1000):
            clock.advance(0.1)
            assert reader.get("k") == 1
        assert 15 <= label(reader) - before <= 20
        token = reader.begin_load("k")
        clock.advance(50.0)
        assert other.get("k") == 1
        assert reader.put_with("k", 2, Life(100.0), WIDE, token) is True

    def test_sliding_known_to_others(self, two: tuple[SharedStore, SharedStore, ManualClock]) -> None:
        """Who has it near with an older end looks into the files before it says that it expired."""
        reader, other, clock = two
        reader.put_with("k", 1, Life(10.0, sliding=True), WIDE)
        assert other.get("k") == 1
        clock.advance(9.0)
        assert reader.get("k") == 1
        clock.advance(5.0)
        assert other.get_many(["k"]) == {"k": 1}
        clock.advance(9.0)
        assert reader.get("k") == 1
        clock.advance(10.0)
        for store in (reader, other):
            assert store.get("k", None) is None

    def test_sliding_entry_that_was_replaced(self, two: tuple[SharedStore, SharedStore, ManualClock]) -> None:
        """A read of the old one doesn't prolong the new one."""
        reader, other, clock = two
        reader.put_with("k", 1, Life(10.0, sliding=True), WIDE)
        entry = reader._near.young["k"]
        clock.advance(5.0)
        other.put_with("k", 2, Life(10.0, sliding=True), WIDE)
        clock.advance(5.0)
        reader._reading._slide("k", entry, clock.monotonic())
        clock.advance(5.0)
        assert reader.get("k", None) is None

    def test_sliding_while_another_writes(self, two: tuple[SharedStore, SharedStore, ManualClock]) -> None:
        """Reads don't fail and don't wait for long; the next one writes down what this one couldn't."""
        reader, other, clock = two
        reader.put_with("k", 1, Life(100.0, sliding=True), WIDE)
        guard = reader._connection.guard
        for passed in (20.0, 70.0):
            clock.advance(passed)
            before = other.remaining("k")
            held, done = threading.Event(), threading.Event()

            def write(held: threading.Event = held, done: threading.Event = done) -> None:
                guard.acquire()
                held.set()
                done.wait()
                guard.release()

            thread = threading.Thread(target=write)
            thread.start()
            held.wait()
            assert reader.get("k") == 1
            assert other.remaining("k") == before
            done.set()
            thread.join()
            clock.advance(1.0)
            assert reader.get("k") == 1
            assert other.remaining("k") == (Presence.LIVE, 100.0)
        assert reader.counters.store_errors == 0

    def test_put_off_by_another(self, two: tuple[SharedStore, SharedStore, ManualClock]) -> None:
        """It holds for those who have the entry near."""
        one, other, clock = two
        one.put_with("k", 1, Life(10.0, stale_ttl=90.0, refresh_after=5.0), WIDE)
        assert other.get("k") == 1
        clock.advance(5.0)
        assert one.get("k", ASK).is_due
        assert other.get("k", ASK).is_due
        other.put_off("k", 7.0)
        assert one.get("k", ASK) == 1
        clock.advance(6.0)
        for store in (one, other):
            found = store.get("k", ASK)
            assert (found.is_fresh, found.is_due) == (False, False)
        clock.advance(1.0)
        for store in (one, other):
            assert store.get("k", ASK).is_due

    def test_due_entries_push_out_nobody(self, make: Make) -> None:
        """What is looked up in the files with each read weighs no more for it."""
        clock = ManualClock()
        store = store_of(make(clock=clock, max_bytes="64MB"))
        store.put_with("big", b"x" * 1_000_000, Life(1.0, stale_ttl=90.0), WIDE)
        store.put("k", 1, FOREVER, WIDE)
        clock.advance(1.0)
        for _ in range(100):
            assert store.get("big", ASK).is_due
        assert "k" in store._near.young

    def test_tags_of_what_is_near(self, two: tuple[SharedStore, SharedStore, ManualClock]) -> None:
        """A hit on an unchanged entry reads nothing from the files."""
        one, other, _ = two
        one.put_with("k", [1], Life(FOREVER, tags=(7, 8)), WIDE)
        assert other.get("k") == [1]
        reads: list[object] = []
        read = other._reading._read
        other._reading._read = lambda *args: reads.append(args) or read(*args)  # type: ignore[func-returns-value]
        for _ in range(3):
            assert other.get("k") == [1]
            assert other.get_many(["k"]) == {"k": [1]}
        assert reads == []
        one.invalidate_tags([8])
        assert other.get("k", None) is None

    def test_long_keys_and_etags(self, two: tuple[SharedStore, SharedStore, ManualClock]) -> None:
        """Keys that LMDB doesn't take, tags, and an ETag, empty or with any characters."""
        one, other, clock = two
        for etag in ("", 'W/"ü☃"', None, "\ud800"):
            for value in ([1], 5, "text"):
                for key in ("k" * 3000, ""):
                    one.put_with(key, value, Life(5.0, 5.0, tags=(0, 262_143), etag=etag), WIDE)
                    clock.advance(5.0)
                    found = other.get(key, ASK)
                    assert (thaw(found.stored), found.etag) == (value, etag)
                    assert [record.key for record in one.records()] == [key]
                    one.clear()

    def test_labels_of_other_files(self, make: Make, tmp_path: Path) -> None:
        """A load that began before somebody removed the files is not stored in the new ones."""
        store = store_of(make())
        for number in range(20):
            store.put("k", number, FOREVER, WIDE)
        token = store.begin_load("k")
        shutil.rmtree(tmp_path / "shared")
        store._connection.look()
        assert store.is_overtaken("k", token)
        assert store.put_with("k", "old", Life(5.0), WIDE, token) is False
        assert store.put_with("k", "new", Life(5.0), WIDE, store.begin_load("k")) is True

    def test_leases_of_closed_files(self, make: Make, tmp_path: Path) -> None:
        """Nobody waits for a lease that was lost with its file, and to give it back does no harm."""
        store = store_of(make())
        release = store.try_lease("k")
        assert release is not None
        assert store.try_lease("k") is None
        for end in (lambda: shutil.rmtree(tmp_path / "shared"), store._connection.close):
            end()
            if store._connection.is_open:
                store._connection.look()
            fresh = store.try_lease("k")
            assert fresh is not None
            release()
            release()
            assert store.try_lease("k") is None
            release = fresh
        release()
        assert store.try_lease("k") is not None

    def test_leases_without_a_file(self) -> None:
        """Everybody gets them, but who has to be sure is told that nobody can be."""
        leases = Leases(-1)
        for _ in range(2):
            assert leases.take(b"k") is not None
            with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
                leases.surely(b"k")

    def test_files_away(self, make: Make, tmp_path: Path) -> None:
        """Loads go on, nothing of them is stored, and invalidations of tags are made up for."""
        store = store_of(make())
        store.put_with("k", 1, Life(FOREVER, tags=(7,)), WIDE)
        store.next_generation("users")
        before = store.begin_load("k")
        directory, aside = tmp_path / "shared", tmp_path / "aside"
        directory.rename(aside)
        directory.write_text("in the way")
        store._connection._next_look = 0.0
        token = store.begin_load("k")
        assert token is not None
        lease = store.try_lease("k")
        assert lease is not None
        lease()
        assert store.put_with("k", 2, Life(5.0), WIDE, token) is False
        assert store.get("k", ASK) is ASK
        assert store.look("k") is None
        store.put_off("k", 5.0)
        store.invalidate_tags([7])
        assert store.generation("users") == 1
        directory.unlink()
        aside.rename(directory)
        store._connection._retry_at = 0.0
        for old in (before, token):
            assert store.put_with("k", 3, Life(5.0), WIDE, old) is False
        assert store.get("k", ASK) is ASK
        assert store.generation("users") == 1


def label(store: SharedStore) -> int:
    """The number of the last transaction."""
    return store._connection.label(8)


class TestListeners:
    def test_what_this_process_does(self, make: Make) -> None:
        """Removals are told with key and cause, long keys in full."""
        clock = ManualClock()
        cache = make(max_size=3, clock=clock)
        told: list[tuple[str, RemovalCause | None]] = []
        cache.subscribe(lambda event: told.append((event.key, event.cause)), EventKind.REMOVED)
        long = "k" * 2000
        cache.set(long, 1)
        cache.set(long, 2)
        cache.pop(long)
        cache.set("expires", 1, 1)
        clock.advance(1)
        cache.cleanup()
        cache.set_many({"a": 1, "b": 1, "c": 1})
        cache.set("d", 1)
        cache.clear()
        causes = [cause for _, cause in told]
        assert [key for key, _ in told[:3]] == [long, long, "expires"]
        assert causes[:4] == [
            RemovalCause.REPLACED,
            RemovalCause.EXPLICIT,
            RemovalCause.EXPIRED,
            RemovalCause.EVICTED,
        ]
        assert causes[4:] == [RemovalCause.CLEARED] * 3


class TestFinalisers:
    def test_write_in_the_middle_of_a_write(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """Is done afterwards; nobody waits for himself."""
        cache = make()
        cache.set("counted", 1)
        connection = store_of(cache)._connection

        class Writes:
            def __init__(self) -> None:
                self.me = self

            def __del__(self) -> None:
                cache.set("finaliser", 1)
                cache.incr("counted", initial=0)
                cache.get("anything", None)

        commit = connection._commit

        def with_garbage(txn: Any, slots: list[int]) -> int:
            monkeypatch.undo()  # once
            Writes()
            gc.collect()
            return commit(txn, slots)

        monkeypatch.setattr(connection, "_commit", with_garbage)
        cache.set("k", 1)
        assert cache.get("k") == 1
        assert cache.get("finaliser") == 1
        assert cache.get("counted") == 2


class TestTheDirectory:
    def test_modes(self, make: Make, tmp_path: Path) -> None:
        """Nobody else may look into it."""
        os.umask(before := os.umask(0))
        try:
            os.umask(0)
            make().set("k", 1)
        finally:
            os.umask(before)
        directory = tmp_path / "shared"
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        for path in directory.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name

    @pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
    def test_writable_by_others(self, make: Make, tmp_path: Path, mode: int) -> None:
        """Is refused with the command that mends it."""
        (tmp_path / "shared").mkdir()
        (tmp_path / "shared").chmod(mode)
        with pytest.raises(ConfigError, match="chmod 700"):
            make()

    def test_not_a_directory(self, make: Make, tmp_path: Path) -> None:
        """A file of that name is an error at start."""
        (tmp_path / "shared").write_text("")
        with pytest.raises(ConfigError, match="directory"):
            make()

    def test_somebody_elses_files(self, make: Make, tmp_path: Path) -> None:
        """A directory with other things in it is refused, and they are untouched."""
        (tmp_path / "shared").mkdir()
        (tmp_path / "shared" / "thesis.txt").write_text("years of work")
        with pytest.raises(ConfigError, match=r"thesis\.txt"):
            make()
        assert [path.name for path in (tmp_path / "shared").iterdir()] == ["thesis.txt"]

    def test_removed(self, make: Make, tmp_path: Path) -> None:
        """A new one is begun, empty; nothing raises."""
        cache = make()
        cache.set("k", 1)
        shutil.rmtree(tmp_path / "shared")
        store_of(cache)._connection.look()
        assert cache.get("k", None) is None
        cache.set("k", 2)
        assert cache.get("k") == 2
        assert (tmp_path / "shared" / "data.mdb").exists()

    @pytest.mark.parametrize("name", ["data.mdb", "lock.mdb", "stamps.bin", "refs.bin"])
    def test_one_file_removed(self, make: Make, tmp_path: Path, name: str) -> None:
        """Others would get another one: all is begun anew."""
        cache = make()
        cache.set("k", 1)
        (tmp_path / "shared" / name).unlink()
        store_of(cache)._connection.look()
        assert cache.get("k", None) is None
        cache.set("k", 2)
        assert cache.get("k") == 2
        assert (tmp_path / "shared" / name).exists()

    @pytest.mark.parametrize("name", ["open.lock", "write.lock", "lease.lock"])
    def test_a_lock_file_removed(self, make: Make, tmp_path: Path, name: str) -> None:
        """The new one is used, with the same entries."""
        cache = make()
        cache.set("k", 1)
        (tmp_path / "shared" / name).unlink()
        store_of(cache)._connection.look()
        assert cache.get("k") == 1
        cache.set("k", 2)
        assert cache.get("k") == 2
        assert (tmp_path / "shared" / name).exists()

    @pytest.mark.parametrize("another", [False, True], ids=["all", "but one"])
    def test_two_threads_let_go_of_what_was_replaced(self, make: Make, tmp_path: Path, another: bool) -> None:
        """Each thing is closed once, and what others may still be using isn't."""
        connection = store_of(make())._connection
        with ThreadPoolExecutor(1) as other:
            for number in count():
                for _ in range(1 + another):
                    shutil.rmtree(tmp_path / "shared")
                    connection.look()
                connection._retired[0] = (0.0, *connection._retired[0][1:])
                going = at_step(
                    number,
                    [open_files, directory],
                    connection.look,
                    lambda: other.submit(connection.look).result(),
                )
                kept = [environment for _, _, environment in connection._retired]
                assert len(kept) == another, number
                for environment in kept:
                    assert environment.info()["map_size"] == 4_000_000, number
                assert bool(connection.directory.replaced) is another, number
                connection._retired = [(0.0, None, environment) for environment in kept]
                connection.look()
                if not going:
                    break
        assert number > 10

    def test_a_new_start(self, make: Make) -> None:
        """The values are still there."""
        make().set("k", [1])
        store_of(make())._connection.close()
        shared_stores.forget()
        assert make().get("k") == [1]


class TestTrouble:
    """With the directory replaced by a file, so that nothing can be opened."""

    @pytest.fixture
    def broken(self, make: Make, tmp_path: Path) -> tuple[QuickCache, Callable[[], None]]:
        """A cache whose files can't be used, and what mends that."""
        cache = make()
        cache.set_many({"k": 1, "other": 1, "n": 1})
        directory, aside = tmp_path / "shared", tmp_path / "aside"
        directory.rename(aside)
        directory.write_text("in the way")
        connection = store_of(cache)._connection
        connection._next_look = 0.0
        assert "unknown" not in cache  # which has it look at the files

        def mend() -> None:
            directory.unlink()
            aside.rename(directory)
            connection._retry_at = 0.0

        return cache, mend

    def test_nothing_raises(
        self, broken: tuple[QuickCache, Callable[[], None]], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Reads miss, nothing is stored, one line is logged, the errors are counted."""
        cache, _ = broken
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                assert cache.get("k", None) is None
                with pytest.raises(KeyNotFound):
                    cache.get("k")
                cache.set("k", 2)
                assert cache.add("new", 1) is True
                assert cache.delete("k", missing_ok=True) is False
                assert cache.get_many(["k", "other"]) == {}
                cache.set_many({"a": 1})
                assert cache.delete_many(["a"]) == 0
                assert cache.incr("n", initial=0) == 1
                assert cache.touch("k", 5, missing_ok=True) is False
                assert cache.pop("k", None) is None
                assert "k" not in cache
                assert len(cache) == cache.size() == 0
                assert list(cache.keys()) == []
                assert cache.cleanup() == 0
                cache.clear()
        assert caplog.records == []  # the one was logged when the files were found gone
        assert cache.metrics().store_errors >= 30

    def test_recovery(self, broken: tuple[QuickCache, Callable[[], None]]) -> None:
        """What was written or deleted meanwhile doesn't return with its old value."""
        cache, mend = broken
        cache.set("k", 2)
        cache.delete("other", missing_ok=True)
        mend()
        assert cache.get("k", None) is None
        assert cache.get("other", None) is None
        assert cache.get("n") == 1
        cache.set("x", 1)
        assert sorted(cache.keys()) == ["n", "x"]

    def test_cleared_meanwhile(self, broken: tuple[QuickCache, Callable[[], None]]) -> None:
        """All of it is owed, and gone."""
        cache, mend = broken
        cache.clear()
        mend()
        assert cache.get_many(["k", "other", "n"]) == {}
        cache.set("x", 1)
        assert sorted(cache.keys()) == ["x"]

    def test_errors_wanted(self, make: Make, tmp_path: Path) -> None:
        """With `fail="raise"` every operation says that it can't."""
        cache = make(fail="raise")
        cache.set("k", 1)
        shutil.rmtree(tmp_path / "shared")
        (tmp_path / "shared").write_text("in the way")
        store_of(cache)._connection._next_look = 0.0
        for operation in (
            *(lambda: cache.get("x", None), lambda: cache.set("k", 1), lambda: cache.delete("k")),
            *(lambda: cache.clear(), lambda: cache.incr("k"), lambda: len(cache), lambda: list(cache.keys())),
        ):
            with pytest.raises(StoreUnavailable):
                operation()


@pytest.mark.parametrize(
    ("settings", "near"),
    [({}, False), ({}, True), ({"tags": ["t"]}, False), ({"tags": ["t"]}, True), ({"sliding": True}, False)],
    ids=["from the files", "near", "tags, from the files", "tags, near", "sliding, from the files"],
)
@pytest.mark.parametrize("many", [False, True], ids=["get", "get_many"])
def test_read_that_overlaps_a_failed_write(
    make: Make, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], near: bool, many: bool
) -> None:
    """Whenever in a read another thread's write fails: nobody gets the old value after that."""
    monkeypatch.setattr(opening, "PATIENCE", 0.0)
    cache = make()
    store = store_of(cache)

    def read() -> object:
        return cache.get_many(["k"]) if many else cache.get("k", None)

    with ThreadPoolExecutor(1) as writer:
        for number in count():
            cache.set("k", "old", 60.0, **settings)
            store._near.young, store._near.old = {}, store._near.young if near else {}
            # Whoever wants to write now finds another writer.
            writer.submit(store._connection.guard.hold_writers, 1.0).result()
            try:
                going = at_step(number, [reading, near_store, debts], read, lambda: cache.set("k", "new"))
                assert not going or cache.get("k", None) is None, number
                assert store._debts.exist is going
            finally:
                writer.submit(store._connection.guard.let_writers_go).result()
            if not going:
                break
    assert number > 10


def test_threads(make: Make) -> None:
    """Increments of threads are exact, and nobody sees another key's value."""
    cache = make(near_size=50, max_bytes="32MB")
    errors: list[str] = []

    def work(number: int) -> None:
        dice = random.Random(number)
        for _ in range(300):
            cache.incr("n", initial=0)
            key = f"k{dice.randrange(100)}"
            cache.set(key, key)
            other = f"k{dice.randrange(100)}"
            if cache.get(other, other) != other:
                errors.append(other)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert cache.get("n") == 1200
