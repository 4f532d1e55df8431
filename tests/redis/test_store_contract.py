"""Scope `redis` keeps the contract of every store, apart from what only the server can give."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
from collections.abc import Callable, Iterator

import pytest

from quickcache_core.entry import FOREVER
from quickcache_core.events import RemovalCause
from quickcache_core.serializer import BaseSerializer, JsonSerializer, PickleSerializer
from quickcache_core.serializer.isolation import Frozen
from quickcache_core.serializer.signing import Signer
from quickcache_core.store.base import Bounds, Presence, Store
from quickcache_core.store.codec import Codec
from quickcache_core.store.redis import bridge
from quickcache_core.store.redis.address import read_address
from quickcache_core.store.redis.client import Client
from quickcache_core.store.redis.store import RedisStore
from quickcache_core.store.redis.survey import Seen
from quickcache_core.testing import ManualClock, StoreContract
from quickcache_core.testing.lives import LifeContract
from quickcache_core.testing.stores import WIDE, in_threads
from tests.redis.servers import RedisCluster

SIGNER = Signer("a secret of the tests, long enough", purpose="tests")
GRACE = 600.0
"""Seconds. The tests turn the clock by hand, and the server's goes on as it will."""

PATIENCE = {"socket_timeout": 30.0, "socket_connect_timeout": 30.0}
"""Seconds. A machine that is busy is no outage, in which a store answers as one that is empty."""

_prefixes = (f"t{os.getpid()}-{number}" for number in itertools.count())


class RedisContract(StoreContract, LifeContract):
    isolation = "auto"
    serializer: BaseSerializer = PickleSerializer()
    near_size = 1000

    def cleared(self, count: int) -> int:
        """It takes a look at all names of the server to count them."""
        return 0

    @pytest.fixture(autouse=True)
    def _stores(self, request: pytest.FixtureRequest) -> Iterator[None]:
        self.url = self.server_url(request)
        self._made: list[RedisStore] = []
        yield
        for store in self._made:
            store.close()

    def server_url(self, request: pytest.FixtureRequest) -> str:
        url: str = request.getfixturevalue("session_server_url")
        return url

    def make_store(self, clock: ManualClock) -> Store:
        codec = Codec(self.serializer, self.isolation, (), lambda: SIGNER, False)
        client = Client(read_address(self.url), PATIENCE, clock=clock)
        store = RedisStore(client, next(_prefixes), codec, clock, self.near_size, grace=GRACE)
        self._made.append(store)
        return store

    def test_bounds_are_the_server_s(self) -> None:
        """However many entries there are, none leaves for another one: the server decides, by `maxmemory`."""
        store, _ = self.filled(20)
        store.shrink(Bounds(3))
        assert len(store) == 20
        assert store.counters.evictions == 0

    test_never_more_than_max_size = test_bounds_are_the_server_s
    test_one_entry = test_bounds_are_the_server_s
    test_cull_fraction = test_bounds_are_the_server_s
    test_shrink = test_bounds_are_the_server_s
    test_caches_with_other_bounds = test_bounds_are_the_server_s
    test_load_more_than_fits = test_bounds_are_the_server_s
    test_they_need_room_as_others = test_bounds_are_the_server_s
    test_invalidated_ones_make_room = test_bounds_are_the_server_s

    def test_a_value_that_can_not_be_thawed(self) -> None:
        """It is refused: others couldn't read it either."""
        store, _ = self.filled(1)

        def fail(data: object) -> None:
            raise RuntimeError("unreadable")

        with pytest.raises(RuntimeError):
            store.put("a", Frozen(fail, b""), FOREVER, WIDE)
        assert "a" not in store

    def test_removal_causes(self) -> None:
        """Those are told that this process removes one by one. What is overwritten, cleared, or let go by the
        server isn't known here.
        """
        store, clock = self.make()
        told: list[tuple[str, RemovalCause]] = []
        stop = store.subscribe(lambda key, cause: told.append((key, cause)))
        store.put("a", 1, FOREVER, WIDE)
        store.put("a", 2, FOREVER, WIDE)
        store.remove("a")
        store.put("b", 1, FOREVER, WIDE)
        store.remove_many(["b", "nothing"])
        store.put("c", 1, 1.0, WIDE)
        clock.advance(2.0)
        store.sweep()
        store.put("d", 1, FOREVER, WIDE)
        store.clear()
        assert told == [
            ("a", RemovalCause.EXPLICIT),
            ("b", RemovalCause.EXPLICIT),
            ("c", RemovalCause.EXPIRED),
        ]
        stop()
        stop()
        store.put("g", 1, FOREVER, WIDE)
        store.remove("g")
        assert len(told) == 3

    def test_written_again_while_what_has_expired_leaves(self) -> None:
        """That has not left, and nobody is told so."""
        store, clock = self.make()
        told: list[tuple[str, RemovalCause]] = []
        store.subscribe(lambda key, cause: told.append((key, cause)))
        for key in ("again", "expired", "removed"):
            store.put(key, 1, 1.0, WIDE)
        clock.advance(2.0)
        expired = store._survey.expired

        def overtaken() -> Iterator[list[Seen]]:
            for some in expired():
                store.put("again", 2, FOREVER, WIDE)
                store.table.forget([b":removed"])
                yield some

        store._survey.expired = overtaken  # type: ignore[method-assign]
        assert store.sweep() == 1
        assert told == [("expired", RemovalCause.EXPIRED)]
        assert store.get("again") == 2

    def test_generations(self) -> None:
        """Each name has its own number, which begins anywhere, so that one that the server lost doesn't come
        back, and only grows.
        """
        store, _ = self.make()
        first = store.generation("users")
        assert store.generation("users") == first
        assert store.next_generation("users") == first + 1
        assert store.next_generation("users") == first + 2
        assert store.generation("users") == first + 2
        assert store.generation("pages") != first + 2
        assert store.generation("") == store.generation("")
        assert len(store) == 0
        assert list(store.keys("")) == []

    def test_generations_of_threads(self) -> None:
        """No two callers get the same number."""
        store, _ = self.make()
        first = store.generation("n")
        got: list[int] = []

        def work() -> None:
            got.extend(store.next_generation("n") for _ in range(50))

        in_threads(4, work)
        assert sorted(got) == list(range(first + 1, first + 201))
        assert store.generation("n") == first + 200


class TestRedisStore(RedisContract):
    pass


class TestRedisStoreThatCopies(RedisContract):
    isolation = "copy"


class TestRedisStoreOfJson(RedisContract):
    serializer = JsonSerializer()

    def test_incr(self) -> None:
        """Numbers that JSON has."""
        store, clock = self.make()
        for number, delta in [(1, 1), (1.5, -2), (10**30, 1), (True, 1), (2**52 - 1, 1), (2**63 - 1, 1)]:
            store.put("n", number, 10.0, WIDE)
            clock.advance(1.0)
            total = store.incr("n", delta, None, initial=0, ttl=500.0, bounds=WIDE)
            assert total == (Presence.LIVE, number + delta)
            assert store.get("n") == number + delta
            assert store.remaining("n") == (Presence.LIVE, 9.0)


class TestRedisStoreWithoutNearStore(RedisContract):
    near_size = 0


class TestRedisStoreWithTinyNearStore(RedisContract):
    near_size = 2


@pytest.fixture(scope="module")
def cluster_url() -> Iterator[str]:
    with RedisCluster() as cluster:
        yield cluster.url


class TestRedisStoreInACluster(RedisContract):
    def server_url(self, request: pytest.FixtureRequest) -> str:
        url: str = request.getfixturevalue("cluster_url")
        return url


def _bridged(test: Callable[[RedisContract], None]) -> Callable[[RedisContract], None]:
    @functools.wraps(test)
    def run(self: RedisContract) -> None:
        asyncio.run(bridge.run(test, self))

    return run


class TestRedisStoreInAnEventLoop(RedisContract):
    """All of each test runs in the bridge: what the store asks of the server, the event loop awaits."""


for _name in dir(RedisContract):
    if _name.startswith("test_"):
        setattr(TestRedisStoreInAnEventLoop, _name, _bridged(getattr(RedisContract, _name)))
