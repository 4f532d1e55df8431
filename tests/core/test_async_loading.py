"""Loads from coroutines: the event loop goes on meanwhile, whatever the loader is."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import QuickCache
from quickcache_core.errors import LoaderTimeout
from quickcache_core.loading.context import LoaderContext
from quickcache_core.testing import ManualClock
from tests.core.loading_tools import PATIENCE, auntil, counters, flights, make_cache

Make = Callable[..., QuickCache]
LOADS = 200
TTL, STALE = 10.0, 1000.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "shared"])
def cache(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[QuickCache]:
    cache = make_cache(request.param, tmp_path, clock=clock)
    yield cache
    cache.stop()


# The event loop goes on


class Ticker:
    """A task that counts the turns of its event loop, and the longest time between two."""

    def __init__(self) -> None:
        self.turns = 0
        self.longest = 0.0
        self._ended = False

    async def run(self) -> None:
        last = time.monotonic()
        while not self._ended:
            await asyncio.sleep(0)
            now = time.monotonic()
            self.longest = max(self.longest, now - last)
            last = now
            self.turns += 1

    @contextmanager
    def ticking(self) -> Iterator[None]:
        task = asyncio.ensure_future(self.run())
        yield
        self._ended = True
        assert not task.done()


KINDS = ["coroutine function", "plain function", "function that gives a coroutine"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("entry", ["missing", "stale", "with a limit"])
def test_loop_goes_on_during_loads(
    cache: QuickCache, clock: ManualClock, kind: str, entry: str, record_property: Callable[..., None]
) -> None:
    """No load ends before the loop has turned many times: none of them can have stopped it."""
    ticker = Ticker()
    turns: list[int] = []

    def wait() -> None:
        # Ends only if the loop turns meanwhile.
        began = ticker.turns
        end = time.monotonic() + PATIENCE
        while ticker.turns < began + 10 and time.monotonic() < end:
            time.sleep(0.0005)
        turns.append(ticker.turns - began)

    async def wait_in_loop() -> str:
        began = ticker.turns
        await auntil(lambda: ticker.turns >= began + 10)
        turns.append(ticker.turns - began)
        return "newer"

    def plain() -> Any:
        if kind == "plain function":
            wait()
            return "newer"
        return wait_in_loop()

    loader: Any = wait_in_loop if kind == "coroutine function" else plain
    options: dict[str, Any] = {"stale_ttl": STALE}
    if entry == "with a limit":
        options["hard_timeout"] = PATIENCE
    keys = [f"k{n}" for n in range(LOADS)]
    if entry == "stale":
        cache.set_many(dict.fromkeys(keys, "older"), TTL, stale_ttl=STALE)
        clock.advance(TTL + 1)

    async def main() -> set[Any]:
        with ticker.ticking():
            values = await asyncio.gather(*(cache.aget_or_set(key, loader, TTL, **options) for key in keys))
            await auntil(lambda: len(flights(cache)) == 0)
        return set(values)

    assert asyncio.run(main()) == {"older" if entry == "stale" else "newer"}
    assert len(turns) == LOADS
    assert min(turns) >= 10
    assert set(cache.get_many(keys).values()) == {"newer"}
    record_property("longest gap in seconds", ticker.longest)


def test_loop_goes_on_while_another_thread_loads(cache: QuickCache) -> None:
    """Tasks that wait for a thread's load don't stop their loop."""
    began, gate = threading.Event(), threading.Event()

    def load() -> str:
        began.set()
        assert gate.wait(PATIENCE)
        return "value"

    async def main() -> list[Any]:
        thread = asyncio.ensure_future(asyncio.to_thread(cache.get_or_set, "k", load))
        await auntil(began.is_set)
        waiting = [asyncio.ensure_future(cache.aget_or_set("k", load)) for _ in range(10)]
        await auntil(lambda: counters(cache).load_waits == 10)
        # This line is reached while all of them wait.
        gate.set()
        return await asyncio.gather(thread, *waiting)

    assert asyncio.run(main()) == ["value"] * 11
    assert counters(cache).loads == 1


# Every kind of loader


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_loaders(cache: QuickCache, kind: str) -> None:
    """Each may take a context, fail, and give None."""

    async def load(context: LoaderContext) -> Any:
        context.add_tags("tag")
        if context.key == "error":
            raise OSError("down")
        return None if context.key == "none" else context.key

    def plain(context: LoaderContext) -> Any:
        return asyncio.run(load(context))

    loader: Any = {"coroutine function": load, "plain function": plain}.get(kind, lambda one: load(one))

    async def main() -> None:
        assert await cache.aget_or_set("k", loader) == "k"
        assert await cache.aget_or_set("none", loader) is None
        assert await cache.aget_or_set("none", lambda: 1) is None
        with pytest.raises(OSError, match="down"):
            await cache.aget_or_set("error", loader)
        assert await cache.arefresh("k", loader) == "k"
        await cache.ainvalidate_tags("tag")
        assert await cache.aget("k", "gone") == "gone"

    asyncio.run(main())
    assert (counters(cache).loads, counters(cache).load_failures) == (4, 1)


def test_limits(cache: QuickCache) -> None:
    """As without coroutines; a late value is stored while its loop lives."""
    gate = threading.Event()

    async def load() -> str:
        await auntil(gate.is_set)
        return "late"

    async def main() -> None:
        with pytest.raises(LoaderTimeout):
            await cache.aget_or_set("k", load, hard_timeout=0.01)
        gate.set()
        await auntil(lambda: cache.get("k", None) == "late")

    asyncio.run(main())


def test_timeout_of_the_caller(cache: QuickCache) -> None:
    """`asyncio.timeout` ends the wait, not the load."""
    gate = threading.Event()

    async def load() -> str:
        await auntil(gate.is_set)
        return "late"

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await cache.aget_or_set("k", load)
        gate.set()
        assert await cache.aget_or_set("k", load) == "late"

    asyncio.run(main())
    assert counters(cache).loads == 1


def test_timeout_in_a_loader(cache: QuickCache) -> None:
    """A loader that limits its own work raises as others do."""

    async def load() -> None:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()

    async def main() -> None:
        for loader in (load, lambda: load()):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(cache.aget_or_set("k", loader), PATIENCE)

    asyncio.run(main())
    assert counters(cache).load_failures == 2


def test_loop_that_ends_cancels_its_loads(cache: QuickCache, clock: ManualClock) -> None:
    """A refresh lives no longer than its event loop; the stale value stays, the next reader tries again."""
    cache.set("k", "older", TTL, stale_ttl=STALE)
    clock.advance(TTL + 1)
    begun = threading.Event()

    async def load() -> str:
        begun.set()
        await asyncio.Event().wait()
        return "never"

    async def quick() -> str:
        return "newer"

    async def first() -> Any:
        value = await cache.aget_or_set("k", load, TTL, stale_ttl=STALE)
        await auntil(begun.is_set)
        return value

    async def second() -> Any:
        value = await cache.aget_or_set("k", quick, TTL, stale_ttl=STALE)
        await auntil(lambda: cache.get("k", None) == "newer")
        return value

    assert asyncio.run(first()) == "older"
    assert len(flights(cache)) == 0
    assert asyncio.run(second()) == "older"
    # Nobody failed: there was no attempt to be put off.
    assert counters(cache).load_failures == 0


def test_loop_ends_while_a_thread_awaits_in_it(cache: QuickCache) -> None:
    """A function that gave a coroutine: cancelled with its loop, and the thread comes back."""
    begun = threading.Event()

    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.ensure_future(cache.aget_or_set("k", lambda: hang()))
        await auntil(begun.is_set)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())
    end = time.monotonic() + PATIENCE
    while len(flights(cache)) and time.monotonic() < end:
        time.sleep(0.001)
    assert len(flights(cache)) == 0
    assert cache.get_or_set("k", lambda: "value") == "value"


def test_unknown_options_and_bad_loaders(cache: QuickCache) -> None:
    """Errors as without coroutines, when awaited."""

    async def main() -> None:
        with pytest.raises(TypeError, match="unknown option"):
            await cache.aget_or_set("k", lambda: 1, stale=5)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="give a function"):
            await cache.aget_or_set("k", "value")  # type: ignore[arg-type]

    asyncio.run(main())
