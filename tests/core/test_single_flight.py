"""One load of a key at a time, in one process: threads, tasks, and what could make them wait for ever."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import QuickCache
from quickcache_core.errors import LoaderTimeout
from quickcache_core.loading import single_flight
from quickcache_core.loading.background import Background, background
from quickcache_core.loading.single_flight import SingleFlight, flights_of
from quickcache_core.testing import ManualClock
from tests.core.loading_tools import (
    PATIENCE,
    Loader,
    at_rest,
    auntil,
    counters,
    flights,
    make_cache,
    pool,
    short_idling,
    until,
)
from tests.core.oracle import within

ROOT = Path(__file__).resolve().parents[2]
MANY = 50

Make = Callable[..., QuickCache]


@pytest.fixture(params=["memory", "shared"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    made: list[QuickCache] = []

    def one(**settings: Any) -> QuickCache:
        made.append(cache := make_cache(request.param, tmp_path, **settings))
        return cache

    yield one
    for cache in made:
        cache.stop()


@pytest.fixture
def cache(make: Make) -> QuickCache:
    return make()


def when_waited_for(cache: QuickCache, waiters: int, gate: threading.Event) -> None:
    """Open the gate when so many wait for the load."""
    until(lambda: counters(cache).load_waits == waiters, "they don't wait")
    gate.set()


# Once for all


def test_threads_on_a_cold_key(cache: QuickCache) -> None:
    """The loader runs once; all get its value."""
    gate = threading.Event()
    loader = Loader("value", gate=gate)
    with pool() as threads:
        asked = [threads.submit(cache.get_or_set, "k", loader) for _ in range(MANY)]
        when_waited_for(cache, MANY - 1, gate)
        assert [one.result(PATIENCE) for one in asked] == ["value"] * MANY
    assert loader.calls == 1
    assert counters(cache).loads == 1
    assert len(flights(cache)) == 0


def test_threads_in_any_order(cache: QuickCache) -> None:
    """However threads interleave, one load per key: those who missed before it was stored get it too."""
    calls: list[int] = []
    with pool(8) as threads:
        for n in range(100):
            barrier = threading.Barrier(8)

            def ask(n: int = n, barrier: threading.Barrier = barrier) -> Any:
                barrier.wait(PATIENCE)
                return cache.get_or_set(f"k{n}", lambda: calls.append(n) or n)  # type: ignore[func-returns-value]

            assert {one.result(PATIENCE) for one in [threads.submit(ask) for _ in range(8)]} == {n}
    assert calls == list(range(100))


@pytest.mark.parametrize("kind", ["coroutine function", "plain function", "function that gives a coroutine"])
def test_tasks_on_a_cold_key(cache: QuickCache, kind: str) -> None:
    """The same for tasks of one event loop."""
    calls = 0

    async def load() -> str:
        nonlocal calls
        calls += 1
        await auntil(lambda: counters(cache).load_waits >= MANY - 1)
        return "value"

    gate = threading.Event()
    plain = Loader("value", gate=gate)
    loader: Any = {"coroutine function": load, "plain function": plain}.get(kind, lambda: load())

    async def main() -> list[Any]:
        tasks = [asyncio.ensure_future(cache.aget_or_set("k", loader)) for _ in range(MANY)]
        await auntil(lambda: counters(cache).load_waits >= MANY - 1)
        gate.set()
        return await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)

    assert asyncio.run(main()) == ["value"] * MANY
    assert calls + plain.calls == 1
    at_rest(cache)


@pytest.mark.parametrize("owner", ["thread", "task"])
def test_threads_and_tasks_together(cache: QuickCache, owner: str) -> None:
    """Threads wait for a task's load, tasks for a thread's, in any event loop."""
    gate = threading.Event()
    loader = Loader("value", gate=gate)
    calls = 0

    async def load() -> str:
        nonlocal calls
        calls += 1
        await auntil(gate.is_set)
        return "value"

    async def ask(count: int) -> list[Any]:
        return await asyncio.gather(*(cache.aget_or_set("k", load) for _ in range(count)))

    with pool() as threads:
        asked: list[Future[Any]] = []
        if owner == "thread":
            asked.append(threads.submit(cache.get_or_set, "k", loader))
        else:
            asked.append(threads.submit(asyncio.run, ask(1)))
        until(lambda: len(flights(cache)) == 1)
        asked += [threads.submit(cache.get_or_set, "k", loader) for _ in range(20)]
        asked += [threads.submit(asyncio.run, ask(15)) for _ in range(2)]
        when_waited_for(cache, MANY, gate)
        results = [one.result(PATIENCE) for one in asked]
    assert all(one in ("value", ["value"] * 15, ["value"]) for one in results)
    assert loader.calls + calls == 1


def test_waiters_of_different_caches_on_one_store() -> None:
    """Aliases of one store wait for each other; namespaces and versions don't."""
    gate = threading.Event()
    loader = Loader("value", gate=gate)
    settings = {"location": "memory://waiters of different caches"}
    one, other = (make_cache("memory", Path(), **settings) for _ in range(2))
    newer = make_cache("memory", Path(), **settings, version="2")
    with pool() as threads:
        asked = [threads.submit(cache.get_or_set, "k", loader) for cache in (one, other)]
        when_waited_for(one, 1, gate)
        assert [future.result(PATIENCE) for future in asked] == ["value", "value"]
        assert loader.calls == 1
    assert one.namespace("n").get_or_set("k", loader) == "value"
    assert newer.get_or_set("k", loader) == "value"
    assert loader.calls == 3


def test_without_single_flight(make: Make) -> None:
    """Each caller loads by itself, at the same time as the others."""
    cache = make(single_flight=False)
    barrier = threading.Barrier(4)

    def load() -> str:
        barrier.wait(PATIENCE)
        return "value"

    with pool() as threads:
        asked = [threads.submit(cache.get_or_set, "k", load) for _ in range(4)]
        assert [one.result(PATIENCE) for one in asked] == ["value"] * 4
    assert counters(cache).loads == 4


# What was changed while it was loaded


def removals() -> dict[str, Callable[[QuickCache], Any]]:
    return {
        "delete": lambda cache: cache.delete("k", missing_ok=True),
        "delete_many": lambda cache: cache.delete_many(["k"]),
        "pop": lambda cache: cache.pop("k", None),
        "clear": lambda cache: cache.clear(),
        "invalidate_tags": lambda cache: cache.invalidate_tags("tag"),
    }


@pytest.mark.parametrize("what", removals())
@pytest.mark.parametrize("part", ["cache", "namespace", "version"])
@pytest.mark.parametrize("stale", [False, True])
def test_removed_during_a_load(make: Make, what: str, part: str, stale: bool) -> None:
    """The value may be from before: who waited gets it, it isn't stored, and who asks from now on gets a
    newer one.
    """
    clock = ManualClock()
    cache = make(clock=clock, version="7" if part == "version" else "")
    cache = cache.namespace("n") if part == "namespace" else cache
    options: dict[str, Any] = {"tags": ("tag",)}
    if stale:
        options |= {"stale_ttl": 100, "soft_timeout": PATIENCE}
        cache.set("k", "older", 10, tags=("tag",), stale_ttl=100)
        clock.advance(11)
    gate = threading.Event()
    old, new = Loader("before", gate=gate), Loader("after")
    with pool() as threads:
        asked = threads.submit(cache.get_or_set, "k", old, **options)
        assert old.began.wait(PATIENCE)
        removals()[what](cache)
        [older] = flights(cache)._flights.values()
        late = threads.submit(cache.get_or_set, "k", new, **options)
        # In scope shared it waits for the older one, which might be another process's, and then loads.
        until(lambda: new.calls or set(flights(cache)._flights.values()) != {older})
        gate.set()
        assert asked.result(PATIENCE) == "before"
        assert late.result(PATIENCE) == "after"
    assert cache.get("k") == "after"
    assert (old.calls, new.calls) == (1, 1)


@pytest.mark.parametrize("what", ["delete", "clear"])
def test_newcomers_after_a_removal_dont_wait_for_the_old_load(what: str, tmp_path: Path) -> None:
    """They get a newer value, although the older load is still under way."""
    cache = make_cache("memory", tmp_path)
    gate = threading.Event()
    old = Loader("before", gate=gate)
    with pool() as threads:
        asked = threads.submit(cache.get_or_set, "k", old)
        assert old.began.wait(PATIENCE)
        removals()[what](cache)
        assert cache.get_or_set("k", lambda: "after") == "after"
        gate.set()
        assert asked.result(PATIENCE) == "before"
    assert cache.get("k") == "after"


def test_set_during_a_load(cache: QuickCache) -> None:
    """What was set stays."""
    loader = Loader("loaded", gate=threading.Event())
    with pool() as threads:
        asked = threads.submit(cache.get_or_set, "k", loader)
        assert loader.began.wait(PATIENCE)
        cache.set("k", "set")
        assert loader.gate is not None
        loader.gate.set()
        assert asked.result(PATIENCE) == "loaded"
    assert cache.get("k") == "set"


def test_namespace_cleared_by_another_thread(cache: QuickCache) -> None:
    """What was loaded in the former generation can't be seen in the new one."""
    part = cache.namespace("users")
    loader = Loader("before", gate=threading.Event())
    with pool() as threads:
        asked = threads.submit(part.get_or_set, "k", loader)
        assert loader.began.wait(PATIENCE)
        part.clear()
        assert part.get_or_set("k", lambda: "after") == "after"
        assert loader.gate is not None
        loader.gate.set()
        assert asked.result(PATIENCE) == "before"
    assert part.get("k") == "after"


def test_refresh_during_an_older_load(cache: QuickCache) -> None:
    """The value that was asked for later stays, whichever load ends first."""
    loader = Loader("older", gate=threading.Event())
    assert loader.gate is not None
    with pool() as threads:
        asked = threads.submit(cache.get_or_set, "k", loader)
        assert loader.began.wait(PATIENCE)
        newer = Loader("newer", gate=threading.Event())
        [older] = flights(cache)._flights.values()
        refreshed = threads.submit(cache.refresh, "k", newer)
        until(lambda: older.is_superseded)
        loader.gate.set()
        assert asked.result(PATIENCE) == "older"
        assert newer.gate is not None
        newer.gate.set()
        assert refreshed.result(PATIENCE) == "newer"
    assert cache.get("k") == "newer"


# Errors


def test_error_goes_to_all(cache: QuickCache) -> None:
    """All who wait get it, nothing is stored, and the next one tries again."""
    gate = threading.Event()
    loader = Loader(OSError("the database is down"), "value", gate=gate)
    with pool() as threads:
        asked = [threads.submit(cache.get_or_set, "k", loader) for _ in range(MANY)]
        when_waited_for(cache, MANY - 1, gate)
        for one in asked:
            assert isinstance(one.exception(PATIENCE), OSError)
    assert loader.calls == 1
    assert counters(cache).load_failures == 1
    assert "k" not in cache
    assert cache.get_or_set("k", loader) == "value"


class Exit(BaseException):
    pass


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, Exit]
)
@pytest.mark.parametrize("background_thread", [False, True])
def test_interrupt_in_a_loader(
    cache: QuickCache, error: type[BaseException], background_thread: bool
) -> None:
    """It is raised to the one who loads; one of those who wait loads for the others."""
    gate = threading.Event()
    loader = Loader(error(), "value", gate=gate)
    options: dict[str, Any] = {"hard_timeout": PATIENCE} if background_thread else {}
    outcomes: list[Any] = []

    def ask() -> None:
        try:
            outcomes.append(cache.get_or_set("k", loader, **options))
        except BaseException as raised:
            outcomes.append(type(raised))

    # Not a pool: some of these would end its threads.
    threads = [threading.Thread(target=ask, daemon=True) for _ in range(10)]
    for thread in threads:
        thread.start()
    when_waited_for(cache, 9, gate)
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(outcomes, key=str) == sorted([error, *["value"] * 9], key=str)
    assert loader.calls == 2
    at_rest(cache)


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit, Exit])
def test_interrupt_in_a_coroutine(cache: QuickCache, error: type[BaseException]) -> None:
    """As above; a loader that raises it each time doesn't run for ever."""

    async def load() -> Any:
        raise error

    async def main() -> None:
        with pytest.raises(error):
            await asyncio.wait_for(cache.aget_or_set("k", load), PATIENCE)

    with contextlib.suppress(Exit):
        asyncio.run(main())
    assert len(flights(cache)) == 0


def test_stop_iteration_in_a_loader(cache: QuickCache) -> None:
    """It is an error as in any generator, and not taken for an end."""
    with pytest.raises(RuntimeError) as caught:
        cache.get_or_set("k", lambda: next(iter(())))
    assert isinstance(caught.value.__cause__, StopIteration)
    assert len(flights(cache)) == 0


def test_coroutine_function_where_nothing_awaits(cache: QuickCache) -> None:
    """An error that says what to call, at the one who did it only."""

    async def load() -> int:
        return 1

    with pytest.raises(TypeError, match="aget_or_set"):
        cache.get_or_set("k", load)
    with pytest.raises(TypeError, match="aget_or_set"):
        cache.get_or_set("k", lambda: load())
    assert cache.get_or_set("k", lambda: 2) == 2
    assert len(flights(cache)) == 0


# Waits that would never end


def test_loader_that_asks_for_its_own_key(cache: QuickCache) -> None:
    """It would wait for itself: it loads by itself."""

    def load() -> str:
        return "outer " + cache.get_or_set("k", lambda: "inner")

    within(PATIENCE, lambda: cache.get_or_set("k", load))
    assert cache.get("k") in ("inner", "outer inner")
    cache.delete("k")
    within(PATIENCE, lambda: cache.get_or_set("k", lambda: cache.refresh("k", lambda: "refreshed")))
    assert cache.get("k") == "refreshed"


@pytest.mark.parametrize("times", [1, 2])
def test_loader_that_deletes_its_own_key_and_asks_for_it(cache: QuickCache, times: int) -> None:
    """It doesn't wait for the older load to end, which is its own."""

    def load() -> str:
        for _ in range(times):
            cache.delete("k", missing_ok=True)
            assert cache.get_or_set("k", lambda: "inner") == "inner"
        return "outer"

    began = time.monotonic()
    within(PATIENCE, lambda: cache.get_or_set("k", load))
    assert cache.get("k") == "inner"
    # Less than the lease of 30 seconds, which would end it too.
    assert time.monotonic() - began < 10.0


def test_circle_through_a_load_that_was_overtaken(cache: QuickCache) -> None:
    """A load waits for the lease of an older one of its key, which may wait for it."""
    began, second = threading.Event(), threading.Event()

    def older() -> Any:
        began.set()
        assert second.wait(PATIENCE)
        until(lambda: any(one.waits_for for one in flights(cache)._flights.values()) or "k" in cache)
        return cache.get_or_set("outer", lambda: "by itself")

    def outer() -> Any:
        second.set()
        return cache.get_or_set("k", lambda: "newer")

    with pool() as threads:
        asked = [threads.submit(cache.get_or_set, "k", older)]
        assert began.wait(PATIENCE)
        cache.delete("k", missing_ok=True)
        asked.append(threads.submit(cache.get_or_set, "outer", outer))
        assert [one.result(10.0) for one in asked][1] == "newer"
    assert cache.get("k") == "newer"


def test_task_of_a_loader_that_asks_for_its_key(cache: QuickCache) -> None:
    """What a loader starts is part of it: threads that it waits for, and tasks."""

    async def load() -> str:
        inner = asyncio.create_task(cache.aget_or_set("k", lambda: "inner"))
        return "outer " + await inner

    assert asyncio.run(asyncio.wait_for(cache.aget_or_set("k", load), PATIENCE)) == "outer inner"


@pytest.mark.parametrize("keys", ["ab", "abc", "abcde"])
@pytest.mark.parametrize("started", ["here", "in the background"])
def test_loaders_that_ask_for_each_others_keys(cache: QuickCache, keys: str, started: str) -> None:
    """A circle of loads that wait for each other ends: the last one to ask loads by itself."""
    barrier = threading.Barrier(len(keys))
    options: dict[str, Any] = {} if started == "here" else {"hard_timeout": PATIENCE}

    def load(key: str, depth: int) -> str:
        if depth == 0:
            barrier.wait(PATIENCE)
        if depth == len(keys):
            return key
        following = keys[(keys.index(key) + 1) % len(keys)]
        return key + cache.get_or_set(following, lambda: load(following, depth + 1), **options)

    def ask(key: str) -> Any:
        return cache.get_or_set(key, lambda: load(key, 0), **options)

    with pool() as threads:
        asked = {key: threads.submit(ask, key) for key in keys}
        for key, one in asked.items():
            # Less than the lease of 30 seconds, which would end it too.
            assert str(one.result(10.0)).startswith(key)
    at_rest(cache)


def test_circle_through_a_load_within_a_load(cache: QuickCache) -> None:
    """One who carries out a load for another one waits for what that waits for."""
    inner_began, outer_waits = threading.Event(), threading.Event()

    def load_a() -> Any:
        return cache.get_or_set("b", load_b)

    def load_b() -> Any:
        inner_began.set()
        assert outer_waits.wait(PATIENCE)
        return ["b", cache.get_or_set("c", lambda: "not called")]

    def load_c() -> Any:
        assert inner_began.wait(PATIENCE)
        threading.Thread(
            target=lambda: (until(lambda: counters(cache).load_waits), outer_waits.set())
        ).start()
        return ["c", cache.get_or_set("a", lambda: "a by itself")]

    with pool() as threads:
        asked = [threads.submit(cache.get_or_set, "a", load_a), threads.submit(cache.get_or_set, "c", load_c)]
        for one in asked:
            one.result(10.0)
    at_rest(cache)


def test_plain_call_within_a_task_of_the_loading_loop(cache: QuickCache) -> None:
    """It would stop the event loop that it waits for: it loads by itself."""

    async def load() -> str:
        await asyncio.sleep(0.001)
        return "by the loop"

    async def main() -> tuple[Any, Any]:
        task = asyncio.ensure_future(cache.aget_or_set("k", load))
        await auntil(lambda: counters(cache).loads)
        plain = cache.get_or_set("k", lambda: "by itself")
        return plain, await task

    result: list[Any] = []
    within(10.0, lambda: result.append(asyncio.run(main())))
    assert result == [("by itself", "by the loop")]


def test_plain_call_that_waits_for_a_thread_that_waits_for_the_loop(cache: QuickCache) -> None:
    """The same through a thread: it waits for a second at most."""

    async def inner() -> str:
        await asyncio.sleep(0.001)
        return "by the loop"

    async def main() -> tuple[Any, Any]:
        # A function that gives a coroutine: called in a thread, awaited in the loop.
        task = asyncio.ensure_future(cache.aget_or_set("k", lambda: inner()))
        await auntil(lambda: len(flights(cache)))
        plain = cache.get_or_set("k", lambda: "by itself")
        return plain, await task

    result: list[Any] = []
    within(10.0, lambda: result.append(asyncio.run(main())))
    assert result[0][1] in ("by the loop", "by itself")


def test_plain_call_within_an_asynchronous_loader(cache: QuickCache) -> None:
    """Of the same key, or of another one that the same loop loads."""

    async def load() -> list[Any]:
        return [cache.get_or_set("k", lambda: "inner"), cache.get_or_set("other", lambda: "by itself")]

    async def slow() -> str:
        for _ in range(10):
            await asyncio.sleep(0)
        return "other"

    async def main() -> list[Any]:
        other = asyncio.ensure_future(cache.aget_or_set("other", slow))
        await asyncio.sleep(0)
        value: list[Any] = await cache.aget_or_set("k", load)
        await other
        return value

    result: list[Any] = []
    within(10.0, lambda: result.append(asyncio.run(main())))
    assert result == [["inner", "by itself"]]


def test_loads_within_loads_in_all_background_threads() -> None:
    """Loaders that wait for loads which wait for a thread: as many threads as it takes."""
    few = Background(most=4, idle=0.0)
    done: list[int] = []
    barrier = threading.Barrier(4)

    def outer(n: int) -> None:
        if n < 4:
            barrier.wait(PATIENCE)
        ended = threading.Event()
        few.run(lambda: (done.append(n), ended.set()))
        with few.waiting():
            assert ended.wait(PATIENCE)

    for n in range(40):
        few.run(lambda n=n: outer(n))  # type: ignore[misc]
    until(lambda: len(done) == 40)
    assert sorted(done) == list(range(40))
    until(lambda: few.thread_count == 0)


def test_nested_loads_with_a_limit(cache: QuickCache) -> None:
    """The same through the cache, at more keys than there are threads."""
    count = 40
    all_busy = threading.Barrier(background._most)

    def outer(n: int) -> Any:
        if n < background._most:
            all_busy.wait(PATIENCE)
        return cache.get_or_set(f"inner{n % 3}", lambda: "inner", hard_timeout=10.0)

    with pool() as threads:
        asked = [
            threads.submit(cache.get_or_set, f"outer{n}", lambda n=n: outer(n), hard_timeout=10.0)
            for n in range(count)
        ]
        assert [one.result(PATIENCE) for one in asked] == ["inner"] * count


# Owners that don't come back


def test_owner_is_cancelled(cache: QuickCache) -> None:
    """The load goes on for the others, tasks and threads, and if there are none, for the cache."""
    gate = threading.Event()

    async def load() -> str:
        await auntil(gate.is_set)
        return "value"

    async def main() -> list[Any]:
        owner = asyncio.ensure_future(cache.aget_or_set("k", load))
        await auntil(lambda: len(flights(cache)))
        others = [asyncio.ensure_future(cache.aget_or_set("k", load)) for _ in range(3)]
        thread = asyncio.ensure_future(asyncio.to_thread(cache.get_or_set, "k", lambda: "not called"))
        await auntil(lambda: counters(cache).load_waits >= 4)
        owner.cancel()
        with pytest.raises(asyncio.CancelledError):
            await owner
        gate.set()
        return await asyncio.gather(*others, thread)

    assert asyncio.run(main()) == ["value"] * 4
    assert counters(cache).loads == 1


def test_loop_ends_before_the_load_begins(make: Make) -> None:
    """A refresh that was set off by the last step of a loop is given up: the next reader sets off another."""
    clock = ManualClock()
    cache = make(clock=clock)
    cache.set("k", "older", 10, stale_ttl=1000)
    clock.advance(11)

    async def main() -> Any:
        value = await cache.aget_or_set("k", _never, 10, stale_ttl=1000)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        return value

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        assert asyncio.run(main()) == "older"
    assert counters(cache).loads == 0
    assert len(flights(cache)) == 0
    assert cache.get_or_set("k", lambda: "newer", 10, stale_ttl=1000) == "older"
    until(lambda: cache.get("k", None) == "newer")


@pytest.mark.parametrize("begun", [False, True])
def test_loop_is_closed_in_the_middle(
    cache: QuickCache, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    """Those who wait notice, and one of them loads."""
    monkeypatch.setattr(single_flight, "_LOOK", 0.01)
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        tasks.append(asyncio.ensure_future(cache.aget_or_set("k", _never)))
        await auntil(lambda: len(flights(cache)))
        if begun:
            await auntil(lambda: counters(cache).loads)

    tasks: list[Any] = []
    loop.set_exception_handler(lambda _, report: None)
    loop.run_until_complete(begin())
    tasks.clear()
    with pool() as threads:
        asked = [threads.submit(cache.get_or_set, "k", lambda: "value") for _ in range(5)]
        until(lambda: counters(cache).load_waits == 5)
        # As some frameworks do: without cancelling what is under way.
        loop.close()
        assert [one.result(10.0) for one in asked] == ["value"] * 5
    assert asyncio.run(cache.aget_or_set("other", _value)) == "value"
    assert len(flights(cache)) == 0


async def _value() -> str:
    return "value"


async def _never() -> None:
    await asyncio.Event().wait()


def test_closed_loop_is_not_waited_for(make: Make) -> None:
    """A refresh that a closed loop left behind doesn't keep others from refreshing."""
    clock = ManualClock()
    cache = make(clock=clock)
    cache.set("k", "older", 10, stale_ttl=1000)
    clock.advance(11)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, report: None)
    assert loop.run_until_complete(cache.aget_or_set("k", _never, 10, stale_ttl=1000)) == "older"
    loop.close()
    assert cache.get_or_set("k", lambda: "newer", 10, stale_ttl=1000) == "older"
    until(lambda: cache.get("k", None) == "newer")
    # Takes what the closed loop left behind along.
    assert asyncio.run(cache.aget_or_set("other", _value)) == "value"


def hold(lock: Any, holding: threading.Event, let_go: threading.Event) -> None:
    with lock:
        holding.set()
        assert let_go.wait(PATIENCE)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_fork_in_the_middle_of_a_load(tmp_path: Path) -> None:
    """The child doesn't wait for a load that isn't in it."""
    cache = make_cache("memory", tmp_path)
    loader = Loader("parent's", gate=threading.Event())
    assert loader.gate is not None
    with pool() as threads:
        asked = threads.submit(cache.get_or_set, "k", loader)
        assert loader.began.wait(PATIENCE)
        # By a thread that isn't in the child.
        holding, let_go = threading.Event(), threading.Event()
        holder = threads.submit(hold, single_flight._waits, holding, let_go)
        assert holding.wait(PATIENCE)
        child = os.fork()
        if child == 0:
            signal.alarm(int(PATIENCE))
            mine = cache.get_or_set("k", lambda: cache.get_or_set("inner", lambda: "child's"))
            limited = cache.get_or_set("limited", lambda: "child's", hard_timeout=10)
            os._exit(0 if mine == limited == "child's" else 1)
        let_go.set()
        holder.result(PATIENCE)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        loader.gate.set()
        assert asked.result(PATIENCE) == "parent's"
    assert cache.get("k") == "parent's"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["timeout", "stale", "task", "keep"])
def test_exit_while_a_loader_hangs(how: str) -> None:
    """The interpreter doesn't wait for it."""
    command = [sys.executable, "-m", "tests.core.loading_processes", "exit", how]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert (ended.returncode, ended.stdout) == (0, "end\n"), ended.stderr
    assert ended.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["patched first", "patched later"])
def test_greenlets_on_a_cold_key(when: str, tmp_path: Path) -> None:
    """Greenlets wait for one load without stopping each other, also if gevent patched after the import."""
    pytest.importorskip("gevent")
    for scope in ("memory", "shared"):
        command = [
            sys.executable,
            "-m",
            "tests.core.loading_processes",
            "greenlets",
            when,
            scope,
            str(tmp_path),
        ]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert ended.stdout == "1 load, 50 values\n1 load within the limit\n", ended.stderr


# Threads of the background


def test_background_survives_what_loaders_raise() -> None:
    """A loader that ends its thread leaves no thread missing."""
    few = Background(most=2, idle=PATIENCE)

    def leave() -> None:
        raise SystemExit

    for _ in range(5):
        few.run(leave)
    done = threading.Event()
    few.run(done.set)
    assert done.wait(PATIENCE)
    assert 1 <= few.thread_count <= 2


def test_background_threads_come_and_go() -> None:
    """At most as many as allowed, none without work."""
    few = Background(most=3, idle=0.0)
    gate, seen = threading.Event(), []
    for _ in range(10):
        few.run(lambda: (seen.append(threading.get_ident()), gate.wait(PATIENCE)))
    until(lambda: len(seen) == 3)
    assert few.thread_count == 3
    gate.set()
    until(lambda: few.thread_count == 0)
    assert len(seen) == 10


def test_flights_go_with_their_store() -> None:
    """Nothing holds a store that nobody uses."""
    cache = make_cache("memory", Path())
    assert flights_of(cache._bottom) is flights_of(cache._bottom)
    assert isinstance(flights(cache), SingleFlight)
    known = len(single_flight._flights)
    cache.stop()
    del cache
    import gc

    gc.collect()
    assert len(single_flight._flights) < known


def test_limit_to_waiting_for_somebody_elses_load(make: Make) -> None:
    """After `lease` seconds a caller loads by itself; with a shorter `hard_timeout` it gives up before."""
    cache = make()
    gate = threading.Event()
    loader = Loader("slow", gate=gate)
    with pool() as threads:
        asked = threads.submit(cache.get_or_set, "k", loader)
        assert loader.began.wait(PATIENCE)
        with pytest.raises(LoaderTimeout) as caught:
            cache.get_or_set("k", lambda: "not called", hard_timeout=0.01)
        assert (caught.value.key, caught.value.seconds) == ("k", 0.01)
        assert cache.get_or_set("k", lambda: "by itself", lease=0.01) == "by itself"
        assert cache.get("k") == "by itself"
        gate.set()
        assert asked.result(PATIENCE) == "slow"
    assert cache.get("k") == "by itself"
    with short_idling():
        until(lambda: background.thread_count == 0)
