"""Keyspaces: namespaces of a cache, and versions of an application."""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import (
    NEVER,
    CacheLoadError,
    EventKind,
    KeyExpired,
    KeyNotFound,
    QuickCache,
    QuickCacheConfig,
)
from quickcache_core.entry import FOREVER
from quickcache_core.events import RemovalCause
from quickcache_core.eviction_policy import S3FIFOEvictionPolicy
from quickcache_core.store import MemoryStore
from quickcache_core.store.base import Bounds, Presence, Store
from quickcache_core.store.keyspace import KeyspaceStore
from quickcache_core.store.life import ASK, Found, Life
from quickcache_core.store.saved import GENERATIONS
from quickcache_core.testing import LifeContract, ManualClock, StoreContract
from quickcache_core.testing.lives import LIVES
from quickcache_core.testing.stores import WIDE


def memory_store(clock: ManualClock) -> MemoryStore:
    return MemoryStore(S3FIFOEvictionPolicy, 10_000, clock)


class KeyspaceContract(StoreContract, LifeContract):
    """Without what these say of the number of entries that can't be seen: that is the store's affair."""

    root: MemoryStore

    test_they_expire = test_expired_to_all_others = test_stale_ones_leave_at_their_end = None  # type: ignore[assignment]
    test_sweep = test_shrink = test_removal_causes = None  # type: ignore[assignment]
    # Stale entries are left out.
    test_stale_ones_are_recorded = None  # type: ignore[assignment]

    def test_expired_entries_leave(self) -> None:
        """They can't be seen, and leave the whole store with a sweep."""
        store, clock = self.make()
        store.put("a", 1, 5.0, WIDE)
        store.put_with("b", 1, Life(5.0, stale_ttl=5.0), WIDE)
        clock.advance(5.0)
        assert ("a" in store, "b" in store, len(store)) == (False, False, 0)
        assert isinstance(store.get("b", ASK), Found)
        assert store.sweep() == 1
        clock.advance(5.0)
        assert store.sweep() == 1
        assert len(self.root) == 0

    def test_shrinking_is_about_the_whole_store(self) -> None:
        """Bounds hold for everybody who uses it."""
        store, _ = self.filled(100)
        self.root.put("k0", "another one", FOREVER, WIDE)
        store.shrink(Bounds(10))
        assert len(self.root) == 10

    def test_listeners_hear_of_their_own(self) -> None:
        """By the keys as they are known here."""
        store, _ = self.make()
        told: list[tuple[str, RemovalCause]] = []
        stop = store.subscribe(lambda key, cause: told.append((key, cause)))
        self.root.put("a", 1, FOREVER, WIDE)
        self.root.remove("a")
        store.put("b", 1, FOREVER, WIDE)
        store.put("b", 2, FOREVER, WIDE)
        store.remove("b")
        stop()
        store.put("b", 3, FOREVER, WIDE)
        store.remove("b")
        assert told == [("b", RemovalCause.REPLACED), ("b", RemovalCause.EXPLICIT)]

    def test_others_have_the_same_keys(self) -> None:
        """Nothing that happens here has to do with entries of the same name elsewhere."""
        store, _ = self.make()
        self.root.put("a", "theirs", FOREVER, WIDE)
        assert store.get("a", None) is None
        assert store.add("a", "ours", FOREVER, WIDE) is True
        assert self.root.get("a") == "theirs"
        assert store.pop("a") == (Presence.LIVE, "ours")
        assert self.root.get("a") == "theirs"
        assert list(store.keys("")) == []


class TestVersionStore(KeyspaceContract):
    # Keys that aren't there before and after a load are left alone.
    test_a_load_that_was_overtaken = test_a_load_begun_after_a_change = None  # type: ignore[assignment]

    def make_store(self, clock: ManualClock) -> Store:
        self.root = memory_store(clock)
        return KeyspaceStore(self.root, prefix="v2:")


class NamespaceContract(KeyspaceContract):
    # How many there were isn't counted, for that would take time.
    test_clear = test_the_whole_store_is_cleared = test_removing_each_kind = None  # type: ignore[assignment]
    test_stale_ones_are_removed = None  # type: ignore[assignment]

    def test_clearing_a_namespace(self) -> None:
        """All that was there is gone, stale ones too, and nothing else."""
        store, _ = self.make()
        for name, life in LIVES.items():
            store.put_with(name, 1, life, WIDE)
        store.put("plain", 1, FOREVER, WIDE)
        self.root.put("plain", "theirs", FOREVER, WIDE)
        token = store.begin_load("new")
        store.clear()
        assert [key for key in (*LIVES, "plain") if store.look(key) is not None] == []
        assert store.put_with("new", 1, LIVES["ttl"], WIDE, token) is False
        assert self.root.get("plain") == "theirs"
        store.put("plain", 2, FOREVER, WIDE)
        assert list(store.keys("")) == ["plain"]

    def test_entries_of_former_generations_leave(self) -> None:
        """As others do, when their TTL ends or room is needed."""
        store, clock = self.make()
        for n in range(100):
            store.put(f"k{n}", n, 5.0, WIDE)
        store.clear()
        clock.advance(5.0)
        store.sweep()
        assert len(self.root) == 0


class TestNamespaceStore(NamespaceContract):
    def make_store(self, clock: ManualClock) -> Store:
        self.root = memory_store(clock)
        return KeyspaceStore(self.root, namespace="users")


class TestNamespaceOfANamespaceStore(NamespaceContract):
    def make_store(self, clock: ManualClock) -> Store:
        self.root = memory_store(clock)
        return KeyspaceStore(KeyspaceStore(self.root, namespace="a"), namespace="b")


# Of a cache


@pytest.fixture(params=["memory", "shared"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[QuickCache]:
    location = "" if request.param == "memory" else f"shared://{tmp_path / 'cache'}"
    one = QuickCache(QuickCacheConfig(location=location, default_ttl=None))
    yield one
    one.stop()


def test_namespaces_have_keys_of_their_own(cache: QuickCache) -> None:
    """And everything that is done with keys."""
    users, orders = cache.namespace("users"), cache.namespace("orders")
    cache.set("1", "root")
    users.set("1", "user")
    orders.set("1", "order")
    assert (cache.get("1"), users.get("1"), orders.get("1")) == ("root", "user", "order")
    assert users.incr("count", initial=0) == 1
    assert sorted(users.keys()) == ["1", "count"]
    assert users.get_many(["1", "2"]) == {"1": "user"}
    with pytest.raises(KeyNotFound) as missing:
        users.get("2")
    assert missing.value.key == "2"
    users.delete("1")
    assert (cache.get("1"), orders.get("1")) == ("root", "order")


def test_clearing_a_namespace_leaves_others(cache: QuickCache) -> None:
    """And those within it go as well."""
    users = cache.namespace("users")
    friends = users.namespace("friends")
    cache.set("a", 1)
    users.set("a", 2)
    friends.set("a", 3)
    friends.clear()
    assert (users.get("a"), friends.get("a", None)) == (2, None)
    friends.set("a", 4)
    users.clear()
    assert (cache.get("a"), users.get("a", None), friends.get("a", None)) == (1, None, None)
    cache.set("a", 5)
    users.set("a", 6)
    cache.clear()
    assert (cache.get("a", None), users.get("a", None)) == (None, None)


def test_namespaces_count_for_themselves(cache: QuickCache) -> None:
    """The whole cache counts everything."""
    users = cache.namespace("users")
    cache.reset_metrics()
    users.set("a", 1)
    users.get("a")
    users.get("b", None)
    cache.get("a", None)
    own, whole = users.metrics(), cache.metrics()
    assert (own.hits, own.misses, own.sets) == (1, 1, 1)
    assert (whole.hits, whole.misses, whole.sets) == (1, 2, 1)
    assert cache.namespace("users") is users


def test_namespaces_have_tags_of_their_own(cache: QuickCache) -> None:
    """A tag of a namespace has nothing to do with one of the same name elsewhere."""
    users = cache.namespace("users")
    cache.set("a", 1, tags=["t"])
    users.set("a", 2, tags=["t"])
    users.invalidate_tags("t")
    assert (cache.get("a"), users.get("a", None)) == (1, None)
    users.set("a", 3, tags=["t"])
    cache.invalidate_tags("t")
    assert (cache.get("a", None), users.get("a")) == (None, 3)


@pytest.mark.parametrize("name", ["", "a\x1fb", "a\n", 5, None])
def test_names_that_are_none(cache: QuickCache, name: Any) -> None:
    """The error tells the name."""
    with pytest.raises(ValueError, match="namespace"):
        cache.namespace(name)


def test_loads_in_namespaces(cache: QuickCache) -> None:
    """One key in two of them is loaded twice, and a value that was cleared meanwhile isn't stored."""
    users, orders = cache.namespace("users"), cache.namespace("orders")
    assert users.get_or_set("k", lambda: "user") == "user"
    assert orders.get_or_set("k", lambda: "order") == "order"
    assert users.get_or_set("k", lambda: "another") == "user"

    def load() -> str:
        users.clear()
        return "from before"

    users.delete("k")
    assert users.get_or_set("k", load) == "from before"
    assert "k" not in users


def test_a_listener_of_a_namespace(cache: QuickCache) -> None:
    """It hears of its own keys."""
    users = cache.namespace("users")
    told: list[tuple[EventKind, str]] = []
    users.subscribe(lambda event: told.append((event.kind, event.key)))
    cache.set("a", 1)
    users.set("b", 1)
    users.get("b")
    users.delete("b")
    assert told == [(EventKind.SET, "b"), (EventKind.HIT, "b"), (EventKind.REMOVED, "b")]


def test_namespaces_are_switched_off_with_the_cache(cache: QuickCache) -> None:
    """All of them, also one that is first asked for meanwhile."""
    users = cache.namespace("users")
    users.set("a", 1)
    with cache.disabled():
        orders = cache.namespace("orders")
        orders.set("a", 1)
        assert (users.get("a", None), orders.get("a", None)) == (None, None)
    orders.set("b", 2)
    assert (users.get("a"), orders.get("a", None), orders.get("b")) == (1, None, 2)


def test_snapshots_of_a_namespace(cache: QuickCache, tmp_path: Path) -> None:
    """Hold its entries, and replace them only."""
    users = cache.namespace("users")
    cache.set("a", "root")
    users.set_many({"a": 1, "b": 2})
    path = users.save_to_disk(tmp_path / "users")
    users.set("c", 3)
    users.set("a", 4)
    users.load_from_disk(path)
    assert {key: users.get(key) for key in users} == {"a": 1, "b": 2}
    assert cache.get("a") == "root"


# Versions


def test_versions_side_by_side(tmp_path: Path) -> None:
    """Old code and new code share a store, and see nothing of each other's entries."""
    for location in (f"versions {tmp_path}", f"shared://{tmp_path / 'cache'}"):
        old, new, none = (
            QuickCache(QuickCacheConfig(location=location, version=version)) for version in ("1", "2", "")
        )
        for cache, value in ((old, "old"), (new, "new"), (none, "none")):
            assert cache.get("k", None) is None
            cache.set("k", value)
        assert (old.get("k"), new.get("k"), none.get("k")) == ("old", "new", "none")
        assert old.namespace("n").add("k", 1)
        assert "k" not in new.namespace("n")
        new.delete("k")
        assert old.get("k") == "old"


def test_prefixes_can_not_be_confused() -> None:
    """Whatever names there are: one key, one entry."""
    location = "prefixes"
    names = ["a", "b", "ab", "a.b", "1", "11"]
    caches = [
        QuickCache(QuickCacheConfig(location=location, version=version)).namespace(outer).namespace(inner)
        for version, outer, inner in itertools.product(names[:3], names, names)
    ]
    for number, cache in enumerate(caches):
        cache.set("1", number, NEVER)
    assert [cache.get("1") for cache in caches] == list(range(len(caches)))


# Over threads


def test_nobody_sees_what_was_cleared(cache: QuickCache) -> None:
    """A value that was stored before `clear` began is seen by nobody for whom `clear` has returned."""
    users = cache.namespace("users")
    cleared = itertools.count()
    newest = 0
    failures: list[Any] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            least = newest
            value = users.get("k", None)
            if value is not None and value < least:
                failures.append((value, least))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(300):
        users.set("k", newest, NEVER)
        users.clear()
        newest = next(cleared) + 1
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []


def test_expired_keys_of_a_namespace() -> None:
    """The error tells the key as it is known there."""
    clock = ManualClock()
    users = QuickCache(QuickCacheConfig(clock=clock)).namespace("users")
    users.set("k", 1, 5)
    clock.advance(5)
    with pytest.raises(KeyExpired) as expired:
        users.get("k")
    assert expired.value.key == "k"


@pytest.mark.parametrize("version", ["", "2"])
def test_what_was_cleared_stays_so_after_a_restart(cache: QuickCache, tmp_path: Path, version: str) -> None:
    """A snapshot knows the generations: in another process nothing returns, and the rest is there."""
    cache = QuickCache(cache.config.replace(version=version))
    users = cache.namespace("users")
    friends = users.namespace("friends")

    @cache.cached()
    def load() -> int:
        return 1

    users.set("cleared", 1)
    friends.set("a", 1)
    load()
    users.clear()
    load.invalidate_all()
    users.set("kept", 2)
    friends.set("cleared", 1)
    friends.clear()
    friends.set("kept", 3)
    cache.set("plain", 4)
    path = cache.save_to_disk(tmp_path / "snapshot")
    for location in ("", f"shared://{tmp_path / 'another'}"):
        other = QuickCache(cache.config.replace(location=location))
        other.load_from_disk(path)
        assert list(other.namespace("users").keys()) == ["kept"]
        assert list(other.namespace("users").namespace("friends").keys()) == ["kept"]
        assert other.get("plain") == 4
        assert other.cached()(load.__wrapped__).key() not in other
        other.namespace("users").clear()
        assert list(other.namespace("users").keys()) == []


@pytest.mark.parametrize("value", [5, {"users": 7}])
def test_what_is_kept_under_the_key_of_generations(cache: QuickCache, tmp_path: Path, value: object) -> None:
    """A snapshot has its own there, and can be loaded."""
    users = cache.namespace("users")
    users.clear()
    users.set("a", 1)
    cache.set(GENERATIONS, value)
    path = cache.save_to_disk(tmp_path / "snapshot")
    cache.load_from_disk(path)
    assert users.get("a") == 1
    assert GENERATIONS not in cache


@pytest.mark.parametrize(
    "numbers", [5, [["users", 1]], {"users": "1"}, {"users": -1}, {"users": 2**63}, {"users": True}]
)
@pytest.mark.parametrize("scope", ["memory", "shared"])
def test_a_snapshot_with_wrong_generations(tmp_path: Path, numbers: object, scope: str) -> None:
    """As anybody can write it if there is no secret: an error, and the cache is as it was."""
    location = f"shared://{tmp_path}/cache" if scope == "shared" else ""
    config = QuickCacheConfig(serializer="json", location=location, max_bytes="2MB", storage_dir=tmp_path)
    rows = [["a", 1, None], [GENERATIONS, numbers, None]]
    data = json.dumps(rows).encode()
    path = QuickCache(config.replace(location="")).save_to_disk(tmp_path / "snapshot")
    header = json.loads(path.read_bytes().partition(b"\n")[0])
    header |= {"entries": len(rows), "length": len(data), "raw_length": len(data)}
    del header["sha256"]
    text = json.dumps(header, separators=(",", ":")).encode()
    header["sha256"] = hashlib.sha256(text + hashlib.sha256(data).digest()).hexdigest()
    path.write_bytes(json.dumps(header, separators=(",", ":")).encode() + b"\n" + data)
    cache = QuickCache(config)
    cache.set("kept", 1)
    with pytest.raises(CacheLoadError):
        cache.load_from_disk(path)
    assert list(cache.keys()) == ["kept"]
    cache.stop()


def test_a_snapshot_from_before_a_clear(cache: QuickCache, tmp_path: Path) -> None:
    """Loading it brings back what was there."""
    users = cache.namespace("users")
    users.set("a", 1)
    path = cache.save_to_disk(tmp_path / "snapshot")
    users.clear()
    users.set("b", 2)
    cache.load_from_disk(path)
    assert {key: users.get(key) for key in users} == {"a": 1}


def test_resize_reaches_namespaces() -> None:
    """Their writes go by the bounds of the cache: by new ones too, and by those of automatic sizing."""
    cache = QuickCache(QuickCacheConfig(max_size=100, default_ttl=60))
    outer = cache.namespace("outer")
    inner = outer.namespace("inner")
    cache.resize(max_size=10)
    for n in range(50):
        outer.set(f"{n}", n)
        inner.set(f"{n}", n)
        assert cache.size() <= 10
    cache.resize(max_size=1000)
    cache.set_many({f"{n}": n for n in range(900)})
    before = cache.size()
    inner.set("new", 1)
    assert cache.size() == before + 1
    assert outer.max_size == inner.max_size == inner.config.max_size == 1000
    cache.apply(1 / 10)
    inner.set("newer", 1)
    assert cache.size() == inner.max_size == 100


def test_resize_of_bytes_reaches_namespaces() -> None:
    """As of entries."""
    cache = QuickCache(QuickCacheConfig(max_bytes="1MB"))
    part = cache.namespace("part")
    cache.resize(max_bytes=100_000)
    for n in range(50):
        part.set(f"{n}", "x" * 10_000)
        assert (cache.used_bytes or 0) <= 100_000
    assert part.max_bytes == 100_000
