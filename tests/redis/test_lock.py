"""Locks of scope `redis`: the same rules as everywhere, among all hosts that use a server."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import LockNotOwned, QuickCache, QuickCacheConfig, StoreUnavailable
from quickcache_core.store.redis.opening import redis_stores
from quickcache_core.testing import ManualClock
from tests.core.test_lock import (
    COUNTER,
    PATIENCE,
    Make,
    TestBesideTheEntries,
    TestOneHolder,
    TestTokens,
    end,
    holder,
    outcome,
    start,
    wait_until,
)
from tests.core.test_lock import TestLeases as AnyLeases
from tests.redis.servers import RedisServer

__all__ = ["TestBesideTheEntries", "TestOneHolder", "TestTokens"]

_prefixes = (f"l{os.getpid()}-{number}" for number in itertools.count())


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def make(session_server_url: str, clock: ManualClock) -> Iterator[Make]:
    """Makes caches of one prefix, with the manual clock."""
    prefix = next(_prefixes)

    def one(**settings: Any) -> QuickCache:
        fields = {"location": session_server_url, "redis_prefix": prefix, "clock": clock, **settings}
        return QuickCache(QuickCacheConfig(**fields))

    yield one
    redis_stores.forget()


@pytest.fixture
def cache(make: Make) -> QuickCache:
    return make()


@pytest.fixture
def server(redis_server: RedisServer) -> Iterator[RedisServer]:
    yield redis_server
    redis_stores.forget()


class TestLeases(AnyLeases):
    def test_forgotten_locks_leave(self, cache: QuickCache, clock: ManualClock) -> None:
        """The server lets them go, by its own clock."""
        locks = cache.lock("l")._locks
        for number in range(20):
            cache.lock(f"l{number}", lease=0.1).acquire()
        wait_until(lambda: len(locks._store) == 0)


@pytest.mark.slow
class TestServers:
    def test_never_two_at_a_time(self, redis_url: str, tmp_path: Path) -> None:
        """Processes that read a file, add one and write it lose nothing."""
        number = tmp_path / "number"
        number.write_text("0")
        processes = [start(COUNTER, redis_url, str(number), "30") for _ in range(4)]
        assert [process.wait(PATIENCE) for process in processes] == [0, 0, 0, 0]
        for process in processes:
            process.communicate()
        assert number.read_text() == "120"

    def test_a_holder_that_is_killed(self, redis_url: str) -> None:
        """Another host can't know, so its lease has to end first."""
        end(holder(redis_url, lease=1.0))
        lock = QuickCache(QuickCacheConfig(location=redis_url)).lock("l")
        try:
            assert lock.locked()
            assert lock.acquire(wait=0.1) is False
            assert lock.acquire(wait=PATIENCE) is True
            lock.release()
        finally:
            redis_stores.forget()

    def test_a_server_that_is_away(self, server: RedisServer) -> None:
        """No lock is better than one that everybody gets: `StoreUnavailable`, whatever `fail` says."""
        cache = QuickCache(QuickCacheConfig(location=server.url))
        assert cache.config.fail == "degrade"
        lock = cache.lock("l")
        lock.acquire()
        server.kill()
        cache.set("k", 1)
        for call in (lock.locked, lock.extend, lock.release, lambda: cache.lock("l").acquire(wait=0)):
            assert outcome(call) is StoreUnavailable
        assert outcome(lambda: asyncio.run(cache.lock("l").aacquire(wait=0))) is StoreUnavailable

    def test_a_task_that_is_cancelled_while_the_server_is_asked(self, redis_url: str) -> None:
        """Wherever that was: what it was about to get it doesn't have, and what it released is free."""
        cache = QuickCache(QuickCacheConfig(location=redis_url))

        async def cancelled(call: Coroutine[Any, Any, Any], steps: int) -> bool:
            task = asyncio.create_task(call)
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            return task.cancelled()

        async def main() -> None:
            was_cancelled = [0, 0]
            await cache.lock("connected").alocked()
            for steps in range(1, 60):
                lock = cache.lock(f"l{steps}", lease=3600.0)
                if await cancelled(lock.aacquire(token="mine"), steps):
                    was_cancelled[0] += 1
                    assert not await lock.alocked()
                    assert await lock.aacquire(token="mine", wait=0)
                was_cancelled[1] += await cancelled(lock.arelease(token="mine"), steps)
                assert not await lock.alocked()
            assert min(was_cancelled) > 0

        try:
            asyncio.run(main())
        finally:
            redis_stores.forget()

    def test_a_release_that_can_be_tried_again(self, server: RedisServer) -> None:
        """The token is kept until the server has answered."""
        cache = QuickCache(QuickCacheConfig(location=server.url))
        lock = cache.lock("l", lease=3600.0)
        lock.acquire()
        server.kill()
        with pytest.raises(StoreUnavailable):
            lock.release()
        server.start()
        wait_until(lambda: outcome(lock.locked) is False)  # that server has lost it
        assert outcome(lock.release) is LockNotOwned
        assert lock.token is None

    def test_the_event_loop_goes_on(self, redis_url: str) -> None:
        """While a coroutine waits for the server, and while it waits for somebody else's lock."""
        cache = QuickCache(QuickCacheConfig(location=redis_url))
        others_ran = 0

        async def others() -> None:
            nonlocal others_ran
            while True:
                others_ran += 1
                await asyncio.sleep(0)

        async def main() -> None:
            busy = asyncio.create_task(others())
            async with cache.lock("l") as lock:
                await lock.aextend()
                assert await cache.lock("l").aacquire(wait=0.05) is False
                assert await lock.aowned()
            busy.cancel()

        try:
            asyncio.run(main())
        finally:
            redis_stores.forget()
        assert others_ran > 10
