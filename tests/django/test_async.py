from __future__ import annotations

import asyncio
import threading
from typing import Any
from unittest import mock

import pytest
from asgiref.sync import async_to_sync
from django.contrib.sessions.models import Session
from django.core.cache import CacheKeyWarning

from quickcache_django import QuickCache
from quickcache_django import backend as backend_module


class Whereabouts:
    """Notes the thread that pickles it, and the one that loads it."""

    seen: list[int]

    def __reduce__(self) -> Any:
        Whereabouts.seen.append(threading.get_ident())
        return arrive, ()


def arrive() -> Whereabouts:
    Whereabouts.seen.append(threading.get_ident())
    return Whereabouts()


async def all_operations(cache: QuickCache) -> None:
    value = Whereabouts()
    await cache.aset("k", value)
    await cache.aget("k")
    await cache.aadd("k2", value)
    await cache.aset_many({"k3": value, "k4": value})
    await cache.aget_many(["k3", "k4"])
    await cache.aget_or_set("k5", value)
    await cache.atouch("k")
    await cache.ahas_key("k")
    await cache.aincr_version("k")
    await cache.adecr_version("k", version=2)
    await cache.aset("n", 1)
    await cache.aincr("n")
    await cache.adecr("n")
    await cache.adelete("k")
    await cache.adelete_many(["k2"])
    await cache.aclear()
    await cache.aclose()


def test_nothing_leaves_the_event_loop(cache: QuickCache) -> None:
    """No operation starts or asks a thread, and none gives way to another task."""
    Whereabouts.seen = []
    others_ran = 0

    async def others() -> None:
        nonlocal others_ran
        while True:
            others_ran += 1
            await asyncio.sleep(0)

    async def main() -> None:
        busy = asyncio.create_task(others())
        loop = asyncio.get_running_loop()
        with (
            mock.patch.object(loop, "run_in_executor", side_effect=AssertionError("left for an executor")),
            mock.patch.object(
                backend_module, "sync_to_async", side_effect=AssertionError("left for a thread")
            ),
        ):
            await all_operations(cache)
        assert others_ran == 0
        busy.cancel()

    before = set(threading.enumerate())
    asyncio.run(main())
    assert set(Whereabouts.seen) == {threading.get_ident()}
    assert len(Whereabouts.seen) > 10
    # The engine's own background thread may have begun with the first write.
    started = set(threading.enumerate()) - before
    assert {thread.name for thread in started} <= {"quickcache-maintenance"}


def test_queryset(cache: QuickCache, database: None) -> None:
    """A queryset, which can't be evaluated in the event loop, is stored by a thread."""

    async def main() -> None:
        await cache.aset("k", Session.objects.all())
        assert await cache.aadd("added", Session.objects.all()) is True
        assert await cache.aset_many({"many": Session.objects.all()}) == []
        assert list(await cache.aget_or_set("or", Session.objects.none())) == []
        assert sorted(cache.engine.keys()) == [":1:added", ":1:k", ":1:many", ":1:or"]

    # Not asyncio.run: this gives the work for "a thread" to the main one, where the database in memory is.
    async_to_sync(main)()


def test_incr_from_many_tasks(cache: QuickCache) -> None:
    """Tasks that count up together lose nothing."""

    async def main() -> None:
        await cache.aset("n", 0)
        await asyncio.gather(*(cache.aincr("n", number) for number in range(100)))

    asyncio.run(main())
    assert cache.get("n") == sum(range(100))


def test_errors_and_warnings(cache: QuickCache) -> None:
    """What an operation raises or warns of, its twin does too."""

    async def main() -> None:
        with pytest.raises(ValueError, match="not found"):
            await cache.aincr("missing")
        with pytest.raises(ValueError, match="not found"):
            await cache.adecr_version("missing")
        with pytest.raises(TypeError):
            await cache.aset("k", threading.Lock())
        with pytest.warns(CacheKeyWarning):
            await cache.aget("a b")

    asyncio.run(main())


def test_aclose_of_a_subclass(location: str) -> None:
    """aclose calls the close of a subclass."""

    class Closing(QuickCache):
        closed = False

        def close(self, **kwargs: Any) -> None:
            self.closed = True

    cache = Closing(location, {})
    asyncio.run(cache.aclose())
    assert cache.closed
