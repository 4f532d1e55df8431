"""What is owed while servers are away, and how it is paid."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from quickcache_core import QuickCache, QuickCacheConfig
from quickcache_core.store import debts
from quickcache_core.store import near as near_store
from quickcache_core.store.redis import bridge, reading, recovery
from quickcache_core.store.redis.opening import redis_stores
from tests.redis.servers import RedisCluster, RedisServer, wait_until
from tests.stepping import at_step

OWED = 2000
CALLERS = 50


@pytest.fixture(autouse=True)
def _no_stores() -> Iterator[None]:
    redis_stores.forget()
    yield
    redis_stores.forget()


def make(url: str) -> QuickCache:
    return QuickCache(QuickCacheConfig(location=url, redis_options={"socket_timeout": 0.3}))


def store_of(cache: QuickCache) -> Any:
    return cache._store


def by_threads(call: Callable[[int], object]) -> None:
    threads = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def by_tasks(call: Callable[[int], object]) -> None:
    async def run_all() -> None:
        await asyncio.gather(*(bridge.run(call, number) for number in range(CALLERS)))

    asyncio.run(run_all())


@pytest.mark.parametrize("at_once", [by_threads, by_tasks])
def test_all_come_when_the_server_is_back(
    redis_server: RedisServer, at_once: Callable[[Callable[[int], object]], None]
) -> None:
    """One of them pays, and all that they write is kept."""
    cache = make(redis_server.url)
    cache.set("there", 1)
    store_of(cache)._debts.add([f"owed{number}" for number in range(OWED)])
    with redis_server.client() as admin:
        at_once(lambda number: cache.set(f"owed{number}", "new"))
        assert not store_of(cache)._debts.exist
        # Another one may come just when all is paid, or the thread for what is done in the background.
        assert admin.info("commandstats")["cmdstat_unlink"]["calls"] <= 3 * OWED
    assert [cache.get(f"owed{number}", None) for number in range(CALLERS)] == ["new"] * CALLERS


def test_a_call_that_blocks_the_event_loop(redis_server: RedisServer) -> None:
    """It doesn't wait for a task of the loop that is paying, which couldn't go on."""
    cache = make(redis_server.url)
    cache.set("there", 1)
    store_of(cache)._debts.add([f"owed{number}" for number in range(OWED)])

    async def both() -> Any:
        paying = asyncio.create_task(cache.aset("a", 1))
        for _ in range(1000):
            if not store_of(cache)._recovery._turn:
                break
            await asyncio.sleep(0)
        assert not store_of(cache)._recovery._turn
        cache.set("owed1", "new")
        await paying
        return await cache.aget("a")

    assert asyncio.run(both()) == 1


def test_a_full_server(redis_server: RedisServer) -> None:
    """It refuses the new value: when that is known the old one has left, for everybody."""
    cache = make(redis_server.url)
    cache.set("key", "old")
    cache.set("other", "old")
    with redis_server.client() as admin:
        admin.config_set("maxmemory", 1)
        cache.set("key", "new")
        assert [name.rpartition(b":")[2] for name in admin.scan_iter("qc:????????:*")] == [b"other"]
        assert cache.get("key", None) is None
        admin.config_set("maxmemory", 0)
        cache.set("key", "new")
        assert cache.get_many(["key", "other"]) == {"key": "new", "other": "old"}


@pytest.mark.parametrize(
    ("settings", "near"),
    [({}, False), ({}, True), ({"tags": ["t"]}, False), ({"sliding": True}, False)],
    ids=["from the server", "near", "tags, from the server", "sliding, from the server"],
)
@pytest.mark.parametrize("many", [False, True], ids=["get", "get_many"])
def test_read_that_overlaps_a_failed_write(
    redis_url: str, settings: dict[str, Any], near: bool, many: bool
) -> None:
    """Whenever in a read another thread's write fails: nobody gets the old value after that."""
    cache = make(redis_url)
    store = store_of(cache)

    def read() -> object:
        return cache.get_many(["key"]) if many else cache.get("key", None)

    for number in count():
        cache.set("key", "old", 60.0, **settings)
        assert cache.get("key") == "old"
        store._near.young, store._near.old = {}, store._near.young if near else {}
        going = at_step(number, [reading, near_store, debts], read, lambda: store._debts.add(["key"]))
        assert not going or cache.get("key", None) is None, number
        if not going:
            break
    assert number > 10


def test_one_server_of_a_cluster_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written to the others is kept: it doesn't matter to them that something is owed there. When
    it is back, what it has of that is not taken for new.
    """
    monkeypatch.setattr(recovery, "_AGAIN", 0.1)
    with RedisCluster("--cluster-require-full-coverage", "no") as cluster:
        cache = make(cluster.url)
        keys = [f"k{number}" for number in range(60)]
        cache.set_many(dict.fromkeys(keys, "old"))
        known = store_of(cache).known
        hung = next(node for node in cluster.primaries if not holds_any(node, known))
        hung.hang()
        for value in ("new", "newer"):
            for key in keys:
                cache.set(key, value)

        def values() -> list[Any]:
            return [cache.get(key, None) for key in keys]

        def is_kept() -> bool:
            for key in keys:
                cache.set(key, "newest")
            assert set(values()) <= {"newest", None}
            return values().count("newest") >= len(keys) // 3

        wait_until(is_kept, "what is on the others is written and read")
        hung.resume()
        wait_until(lambda: is_kept() and None not in values(), "all of it is")


def holds_any(node: RedisServer, known: Any) -> bool:
    """Whether it has one of the small keys that everybody needs."""
    with node.client(decode_responses=True) as client:
        return any(name.count(":") == 1 for name in client.scan_iter("qc:*"))
