"""Reading through a cache from a source, and writing through and around it; ready sources."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import (
    MISSING,
    ConfigError,
    InvalidKey,
    InvalidTTL,
    KeyNotFound,
    QuickCache,
    QuickCacheConfig,
    SerializationError,
)
from quickcache_core.sources import BaseAsyncSource, BaseSource, SourcedCache, TableSource
from quickcache_core.sources.alchemy import SQLAlchemySource
from quickcache_core.testing import ManualClock

# Python 3.12 and later warn of any fork of a process with threads. That is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

PATIENCE = 30.0
STRATEGIES = ["through", "around", "behind"]


class Shelf(BaseSource):
    """A source in memory that counts its calls, and stops or fails where it is told to."""

    def __init__(self, **rows: Any) -> None:
        self.rows = rows
        self.calls: list[tuple[str, Any]] = []
        self.called = threading.Event()
        self.error: Exception | None = None
        self.in_load: Callable[[], object] = lambda: None
        """Called in a load, after the row was read."""
        self.in_store: Callable[[Mapping[str, Any]], object] = lambda values: None
        """Called in a store, after the row was written."""

    def _note(self, call: str, what: Any) -> None:
        self.calls.append((call, what))
        self.called.set()
        if self.error is not None:
            raise self.error

    def load(self, key: str) -> Any:
        self._note("load", key)
        value = self.rows.get(key, MISSING)
        self.in_load()
        return value

    def load_many(self, keys: Sequence[str]) -> Mapping[str, Any]:
        self._note("load_many", list(keys))
        found = {key: self.rows[key] for key in keys if key in self.rows}
        self.in_load()
        return found

    def store(self, key: str, value: Any) -> None:
        self._note("store", key)
        self.rows[key] = value
        self.in_store({key: value})

    def store_many(self, values: Mapping[str, Any]) -> None:
        self._note("store_many", list(values))
        self.rows.update(values)
        self.in_store(values)

    def remove(self, key: str) -> None:
        self._note("remove", key)
        self.rows.pop(key, None)

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "shared"])
def cache(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[QuickCache]:
    settings: dict[str, Any] = {"clock": clock}
    if request.param == "shared":
        pytest.importorskip("lmdb")
        settings["location"] = f"shared://{tmp_path / 'cache'}"
    cache = QuickCache(QuickCacheConfig(**settings))
    yield cache
    cache.stop()


@pytest.fixture(params=STRATEGIES)
def sourced(request: pytest.FixtureRequest, cache: QuickCache) -> Iterator[SourcedCache]:
    """Over a `Shelf`, by every strategy; what goes behind waits until it is flushed."""
    sourced = SourcedCache(cache, Shelf(a=1, b=2), writes=request.param, **waiting(request.param))
    yield sourced
    shelf(sourced).error = None
    sourced.close()


def waiting(writes: str) -> dict[str, Any]:
    return {"max_delay": 3600.0} if writes == "behind" else {}


def shelf(sourced: SourcedCache) -> Shelf:
    source: Shelf = sourced.source
    return source


class TestReading:
    def test_a_miss_and_a_hit(self, sourced: SourcedCache) -> None:
        """The source is asked once; the value is in the cache then."""
        assert [sourced.get("a"), sourced.get("a", 5), sourced.cache.get("a")] == [1, 1, 1]
        assert shelf(sourced).calls == [("load", "a")]

    def test_no_such_row(self, sourced: SourcedCache) -> None:
        """As with a cache: an error, or the default; and it is asked for again."""
        with pytest.raises(KeyNotFound) as caught:
            sourced.get("x")
        assert caught.value.key == "x"
        assert sourced.get("x", None) is None
        assert shelf(sourced).calls == [("load", "x")] * 2
        assert "x" not in sourced.cache

    def test_no_such_row_does_not_slide(self, cache: QuickCache, clock: ManualClock) -> None:
        """Else a row that somebody adds would never be seen while its key is asked for."""
        source = Shelf()
        sourced = SourcedCache(cache, source, missing_ttl=5, ttl_sec=100, sliding=True)
        assert sourced.get("x", None) is None
        source.rows["x"] = 1
        for _ in range(2):
            clock.advance(3)
            found = sourced.get("x", None)
        assert found == 1

    def test_no_such_row_is_remembered(self, cache: QuickCache, clock: ManualClock) -> None:
        """For `missing_ttl`, or until it is written."""
        source = Shelf()
        sourced = SourcedCache(cache, source, missing_ttl=5, ttl_sec=100)
        assert sourced.get("x", None) is None
        assert sourced.get("x", "default") == "default"
        assert sourced.get_many(["x", "y"]) == {}
        assert sourced.get_many(["x", "y"]) == {}
        assert source.calls == [("load", "x"), ("load_many", ["y"])]
        with pytest.raises(KeyNotFound):
            sourced.get("y")
        source.rows["y"] = 1
        clock.advance(6)
        assert sourced.get("y") == 1
        sourced.set("x", 7)
        assert sourced.get("x") == 7
        assert cache.ttl("x") == pytest.approx(100)

    def test_none_is_a_value(self, sourced: SourcedCache) -> None:
        """A row may be None; that is cached like anything else."""
        shelf(sourced).rows["n"] = None
        assert [sourced.get("n"), sourced.get("n", 5)] == [None, None]
        assert sourced.get_many(["n"]) == {"n": None}
        assert shelf(sourced).calls == [("load", "n")]

    def test_many(self, sourced: SourcedCache) -> None:
        """What isn't in the cache comes with one call; each key is asked for once."""
        sourced.get("a")
        assert sourced.get_many(["a", "b", "x", "b"]) == {"a": 1, "b": 2}
        assert sourced.get_many(iter(["a", "b"])) == {"a": 1, "b": 2}
        assert shelf(sourced).calls == [("load", "a"), ("load_many", ["b", "x"])]

    def test_refresh(self, sourced: SourcedCache) -> None:
        """The source is asked whatever the cache has; a row that is gone leaves the cache."""
        sourced.get("a")
        shelf(sourced).rows["a"] = 9
        assert sourced.get("a") == 1
        assert sourced.refresh("a") == 9
        assert sourced.get("a") == 9
        del shelf(sourced).rows["a"]
        assert sourced.refresh("a", None) is None
        assert "a" not in sourced.cache

    def test_source_that_fails(self, sourced: SourcedCache) -> None:
        """Its error is raised, and nothing is remembered."""
        shelf(sourced).error = ConnectionError("down")
        for read in (sourced.get, sourced.refresh, lambda key: sourced.get_many([key])):
            with pytest.raises(ConnectionError, match="down"):
                read("a")
        shelf(sourced).error = None
        assert sourced.get("a") == 1

    def test_stale_values(self, cache: QuickCache, clock: ManualClock) -> None:
        """With `stale_ttl` they stand in while the source is down, for one key and for many."""
        source = Shelf(a=1, b=2)
        sourced = SourcedCache(cache, source, ttl_sec=10, stale_ttl=60, soft_timeout=PATIENCE)
        assert sourced.get_many(["a", "b"]) == {"a": 1, "b": 2}
        clock.advance(20)
        source.error = ConnectionError("down")
        assert sourced.get_many(["a", "b"]) == {"a": 1, "b": 2}
        assert sourced.get("a") == 1
        with pytest.raises(ConnectionError):
            sourced.get_many(["a", "x"])
        clock.advance(60)
        with pytest.raises(ConnectionError):
            sourced.get("a")

    def test_together(self, cache: QuickCache) -> None:
        """Threads that ask for one missing key together ask the source once."""
        source = Shelf(a=1)
        sourced = SourcedCache(cache, source)
        inside, go = threading.Event(), threading.Event()

        def stop() -> None:
            inside.set()
            assert go.wait(PATIENCE)

        source.in_load = stop
        results: list[Any] = []
        threads = [threading.Thread(target=lambda: results.append(sourced.get("a"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        assert inside.wait(PATIENCE)
        go.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert results == [1] * 8
        assert source.calls == [("load", "a")]

    def test_options_of_loads(self, cache: QuickCache) -> None:
        """They hold for what is loaded and for what is written."""
        source = Shelf(a=1)
        sourced = SourcedCache(cache, source, ttl_sec=50, tags=("rows",))
        sourced.get("a")
        sourced.set("b", 2)
        sourced.set("c", 2, ttl_sec=7)
        assert [round(cache.ttl(key) or 0) for key in "abc"] == [50, 50, 7]
        cache.invalidate_tags("rows")
        assert [key in cache for key in "abc"] == [False] * 3


class TestWriting:
    def test_set(self, sourced: SourcedCache) -> None:
        """Readers have it at once, the source too, or after a flush."""
        sourced.get("a")
        sourced.set("a", 5)
        assert sourced.get("a") == 5
        assert sourced.flush(PATIENCE)
        assert shelf(sourced).rows["a"] == 5

    def test_what_is_in_the_cache_then(self, cache: QuickCache) -> None:
        """The value, except around the cache: there the next reader loads it."""
        for writes, cached in (("through", True), ("behind", True), ("around", False)):
            source = Shelf(a=1)
            sourced = SourcedCache(cache, source, writes=writes, **waiting(writes))  # type: ignore[arg-type]
            sourced.get("a")
            sourced.set_many({"a": 5, "b": 6})
            assert [key in cache for key in "ab"] == [cached] * 2
            assert ("store_many", ["a", "b"]) in source.calls or writes == "behind"
            sourced.close()
            cache.clear()

    def test_delete(self, sourced: SourcedCache) -> None:
        """It is gone for readers at once, and nobody minds if it wasn't there."""
        sourced.get("a")
        sourced.delete("a")
        sourced.delete_many(["a", "x"])
        assert sourced.get("a", None) is None
        assert sourced.flush(PATIENCE)
        assert shelf(sourced).rows == {"b": 2}

    @pytest.mark.parametrize("writes", ["through", "around"])
    def test_source_that_fails(self, cache: QuickCache, writes: Any) -> None:
        """Its error is raised; the key leaves the cache, since it may have been written all the same."""
        source = Shelf(a=1, b=2)
        sourced = SourcedCache(cache, source, writes=writes)

        def fail(values: Mapping[str, Any]) -> None:
            raise ConnectionError("after the commit")

        source.in_store = fail
        sourced.get_many(["a", "b"])
        for write in (lambda: sourced.set("a", 5), lambda: sourced.set_many({"a": 5, "b": 6})):
            with pytest.raises(ConnectionError):
                write()
        assert sourced.get_many(["a", "b"]) == {"a": 5, "b": 6}
        source.error = ConnectionError("before it")
        with pytest.raises(ConnectionError):
            sourced.delete("a")
        assert "a" not in cache
        source.error = None
        assert sourced.get("a") == 5

    def test_bad_input(self, sourced: SourcedCache) -> None:
        """It is refused before anything is written anywhere."""
        bad: Any = 5
        for write in (
            lambda: sourced.set(bad, 1),
            lambda: sourced.get(bad),
            lambda: sourced.get_many([bad]),
            lambda: sourced.delete(bad),
        ):
            with pytest.raises(InvalidKey):
                write()
        with pytest.raises(InvalidTTL):
            sourced.set("a", 9, ttl_sec=-1)
        wrong: Any = "ab"
        for call in (sourced.get_many, sourced.delete_many, sourced.set_many):
            with pytest.raises(TypeError, match="give a"):
                call(wrong)
        assert shelf(sourced).calls == []
        assert sourced.pending() == 0

    def test_value_that_cannot_be_kept(self, tmp_path: Path) -> None:
        """It reaches neither the source nor the cache."""
        cache = QuickCache(QuickCacheConfig(isolation="copy"))
        source = Shelf()
        for writes in STRATEGIES:
            with pytest.raises(SerializationError):
                SourcedCache(cache, source, writes=writes).set("a", {1, 2})  # type: ignore[arg-type]
        assert (source.calls, len(cache)) == ([], 0)

    def test_while_the_cache_is_switched_off(self, sourced: SourcedCache) -> None:
        """Reads come from the source, and writes reach it."""
        with sourced.cache.disabled():
            assert sourced.get("a") == 1
            sourced.set("a", 4)
            assert sourced.get("a") == 4
        assert sourced.get("a") == 4

    def test_namespaces(self, cache: QuickCache) -> None:
        """A source may be put behind a part of a cache; keys are those of the part."""
        source = Shelf(a=1)
        sourced = SourcedCache(cache.namespace("rows"), source)
        assert sourced.get("a") == 1
        sourced.set("b", 2)
        assert (cache.namespace("rows").get("b"), "b" in cache) == (2, False)


class TestRaces:
    """No interleaving leaves a value in the cache that the source no longer has."""

    @pytest.mark.parametrize("write", ["set", "set_many", "delete"])
    @pytest.mark.parametrize("read", ["get", "get_many", "refresh"])
    def test_write_during_a_load(self, sourced: SourcedCache, read: str, write: str) -> None:
        """The load that read the older value doesn't store it."""
        source = shelf(sourced)
        writes: dict[str, Callable[[], None]] = {
            "set": lambda: sourced.set("a", 2),
            "set_many": lambda: sourced.set_many({"a": 2}),
            "delete": lambda: sourced.delete("a"),
        }

        def interrupt() -> None:
            source.in_load = lambda: None
            thread = threading.Thread(target=writes[write])
            thread.start()
            thread.join(PATIENCE)

        source.in_load = interrupt
        loads: dict[str, Callable[[], object]] = {
            "get": lambda: sourced.get("a", None),
            "get_many": lambda: sourced.get_many(["a", "b"]),
            "refresh": lambda: sourced.refresh("a", None),
        }
        loads[read]()
        expected = None if write == "delete" else 2
        assert sourced.get("a", None) == expected
        assert sourced.flush(PATIENCE)
        assert sourced.get("a", None) == source.rows.get("a") == expected

    @pytest.mark.parametrize("writes", STRATEGIES)
    def test_two_writers_overtake_each_other(self, cache: QuickCache, writes: Any) -> None:
        """The source has one order and the cache would have the other: the cache has nothing then, or the
        source's last.
        """
        source = Shelf(a=0)
        sourced = SourcedCache(cache, source, writes=writes, **waiting(writes))

        def interrupt(values: Mapping[str, Any]) -> None:
            source.in_store = lambda values: None
            thread = threading.Thread(target=lambda: sourced.set("a", "second"))
            thread.start()
            thread.join(PATIENCE)

        source.in_store = interrupt
        sourced.set("a", "first")
        if writes != "behind":
            assert source.rows["a"] == "second"
        assert sourced.flush(PATIENCE)
        assert sourced.get("a") == source.rows["a"]
        sourced.close()

    def test_load_ends_within_a_write(self, cache: QuickCache) -> None:
        """A load that read the older value just before the write, and stores it during the write, is
        undone.
        """
        source = Shelf(a=0)
        sourced = SourcedCache(cache, source)
        source.in_store = lambda values: cache.set("a", 0)  # as such a load would
        sourced.set("a", 1)
        assert "a" not in cache
        assert sourced.get("a") == 1

    @pytest.mark.slow
    @pytest.mark.parametrize("writes", STRATEGIES)
    def test_many_threads(self, cache: QuickCache, writes: Any) -> None:
        """Whatever happened in between, cache and source agree in the end."""
        options = {"max_delay": 0.002, "max_batch": 3} if writes == "behind" else {}
        source = Shelf(**{f"k{number}": -1 for number in range(4)})
        sourced = SourcedCache(cache, source, writes=writes, **options)
        barrier = threading.Barrier(6)
        errors: list[BaseException] = []

        def work(own: int) -> None:
            try:
                barrier.wait()
                for number in range(150):
                    key = f"k{(number + own) % 4}"
                    match (number * 7 + own) % 6:
                        case 0:
                            sourced.set(key, own * 1000 + number)
                        case 1:
                            cache.delete(key, missing_ok=True)
                        case 2:
                            sourced.get_many([key, "k0"])
                        case 3 if number % 3 == 0:
                            sourced.delete(key)
                        case _:
                            sourced.get(key, None)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(own,)) for own in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert errors == []
        assert sourced.flush(PATIENCE)
        for number in range(4):
            key = f"k{number}"
            assert sourced.get(key, None) == source.rows.get(key), key
        sourced.close()


class AsyncShelf(BaseAsyncSource):
    """A source of coroutine functions; notes the loop that it is used in."""

    def __init__(self, **rows: Any) -> None:
        self.rows = rows
        self.calls: list[tuple[str, Any]] = []
        self.loops: list[asyncio.AbstractEventLoop] = []
        self.gate: asyncio.Event | None = None
        self.stored = asyncio.Event()

    async def _note(self, call: str, what: Any) -> None:
        self.calls.append((call, what))
        self.loops.append(asyncio.get_running_loop())
        await asyncio.sleep(0)

    async def load(self, key: str) -> Any:
        await self._note("load", key)
        return self.rows.get(key, MISSING)

    async def load_many(self, keys: Sequence[str]) -> Mapping[str, Any]:
        await self._note("load_many", list(keys))
        return {key: self.rows[key] for key in keys if key in self.rows}

    async def store(self, key: str, value: Any) -> None:
        await self._note("store", key)
        self.rows[key] = value
        self.stored.set()
        if self.gate is not None:
            await self.gate.wait()

    async def remove(self, key: str) -> None:
        await self._note("remove", key)
        self.rows.pop(key, None)


class TestAsynchronous:
    @pytest.mark.parametrize("writes", STRATEGIES)
    @pytest.mark.parametrize("make", [Shelf, AsyncShelf])
    def test_twins(self, cache: QuickCache, make: Any, writes: Any) -> None:
        """Over both kinds of source, by every strategy, as the methods without an `a`."""

        async def main() -> None:
            source = make(a=1, b=2)
            async with SourcedCache(cache, source, writes=writes, **waiting(writes)) as sourced:
                assert await sourced.aget("a") == 1
                assert await sourced.aget("x", None) is None
                with pytest.raises(KeyNotFound):
                    await sourced.aget("x")
                assert await sourced.aget_many(["a", "b", "x"]) == {"a": 1, "b": 2}
                await sourced.aset("a", 5)
                await sourced.aset_many({"c": 6, "d": 7})
                await sourced.adelete("b")
                await sourced.adelete_many(["b", "x"])
                assert await sourced.aget_many(["a", "b", "c", "d"]) == {"a": 5, "c": 6, "d": 7}
                assert await sourced.arefresh("c") == 6
                assert await sourced.aflush(PATIENCE)
                assert source.rows == {"a": 5, "c": 6, "d": 7}
            assert sourced.pending() == 0

        asyncio.run(main())

    def test_methods_without_a(self, cache: QuickCache) -> None:
        """They can't be had of a source of coroutine functions, and say what to use instead."""
        sourced = SourcedCache(cache, AsyncShelf(a=1))
        for call in (lambda: sourced.get("a"), lambda: sourced.set("a", 1), lambda: sourced.delete("a")):
            with pytest.raises(TypeError, match=r"cache\.a(get|set|delete)"):
                call()

    @pytest.mark.parametrize("writes", ["through", "around"])
    def test_loop_is_not_blocked(self, cache: QuickCache, writes: Any) -> None:
        """A source that blocks its thread leaves the loop free: here the loop itself ends the block."""

        async def main() -> None:
            source = Shelf(a=1, b=2)
            sourced = SourcedCache(cache, source, writes=writes)
            loop = asyncio.get_running_loop()
            blocked, go = asyncio.Event(), threading.Event()

            def block(*_: object) -> None:
                loop.call_soon_threadsafe(blocked.set)
                assert go.wait(PATIENCE)

            source.in_load = source.in_store = block
            calls: list[Callable[[], Any]] = [
                lambda: sourced.aget("a"),
                lambda: sourced.aget_many(["a", "b"]),
                lambda: sourced.aset("a", 1),
                lambda: sourced.arefresh("a"),
            ]
            for call in calls:
                task = asyncio.create_task(call())
                await asyncio.wait_for(blocked.wait(), PATIENCE)
                assert not task.done()
                go.set()
                await task
                blocked.clear()
                go.clear()

        asyncio.run(main())

    def test_full_queue_does_not_block_the_loop(self, clock: ManualClock) -> None:
        """A write that waits for room waits in a thread."""

        async def main() -> None:
            source = Shelf()
            source.error = ConnectionError("down")
            options = {"max_pending": 1, "patience": PATIENCE, "max_delay": 0.01, "longest_retry": 0.1}
            sourced = SourcedCache(QuickCache(), source, writes="behind", **options)
            await sourced.aset("a", 1)
            task = asyncio.create_task(sourced.aset("b", 2))
            await asyncio.to_thread(source.called.wait, PATIENCE)
            assert not task.done()
            source.error = None
            await asyncio.wait_for(task, PATIENCE)
            assert await sourced.aclose(PATIENCE)
            assert source.rows == {"a": 1, "b": 2}

        asyncio.run(main())

    def test_writer_that_is_cancelled(self, cache: QuickCache) -> None:
        """Nobody knows whether the source has it: the key leaves the cache."""

        async def main() -> None:
            source = AsyncShelf(a=1)
            sourced = SourcedCache(cache, source)
            assert await sourced.aget("a") == 1
            source.gate, source.stored = asyncio.Event(), asyncio.Event()
            task = asyncio.create_task(sourced.aset("a", 2))
            await source.stored.wait()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert await sourced.aget("a") == 2

        asyncio.run(main())

    def test_writes_behind_stay_in_the_loop(self, clock: ManualClock) -> None:
        """An asynchronous source is awaited where its connections belong, and elsewhere once that loop is
        closed.
        """
        source = AsyncShelf()
        sourced = SourcedCache(QuickCache(), source, writes="behind", max_delay=0.01)

        async def main() -> asyncio.AbstractEventLoop:
            await sourced.aset("a", 1)
            assert await sourced.aflush(PATIENCE)
            with pytest.raises(TypeError, match="aflush"):
                sourced.flush()
            loop = asyncio.get_running_loop()
            assert source.loops == [loop]
            await sourced.aset("b", 2)
            return loop

        loop = asyncio.run(main())
        assert sourced.close(PATIENCE)
        assert source.rows == {"a": 1, "b": 2}
        assert source.loops[0] is loop


class TestWiring:
    """What can't work is refused when it is put together."""

    def test_options(self) -> None:
        """Each is checked, and one of another strategy is refused."""
        cache, source = QuickCache(), Shelf()
        for options, complaint in (
            ({"writes": "sideways"}, "'through' or 'behind' or 'around'"),
            ({"max_batch": 5}, "only writes='behind'"),
            ({"writes": "behind", "max_batch": 0}, "max_batch=0"),
            ({"writes": "behind", "patience": -1}, "patience"),
            ({"writes": "behind", "first_retry": 9.0, "longest_retry": 1.0}, "longest_retry"),
            ({"writes": "behind", "queue": "disk"}, "queue"),
            ({"writes": "behind", "queue": 5}, "queue"),
            ({"writes": "behind", "on_error": 5}, "on_error"),
            ({"writes": "behind", "queue": "/no/such/directory/at/all"}, "doesn't exist"),
        ):
            with pytest.raises(ConfigError, match=complaint):
                SourcedCache(cache, source, **options)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="unknown option 'stale'"):
            SourcedCache(cache, source, stale=5)
        with pytest.raises(InvalidTTL):
            SourcedCache(cache, source, missing_ttl=0)

    def test_no_source(self) -> None:
        """A missing method is named; so are methods of two kinds."""

        class Half:
            def load(self, key: str) -> Any: ...

        class Mixed(BaseSource):
            async def load(self, key: str) -> Any: ...

        for source, complaint in (
            (Half(), "lacks load_many, store, store_many, remove"),
            (Mixed(), "none of them"),
            (Shelf, "give an instance"),
        ):
            with pytest.raises(TypeError, match=complaint):
                SourcedCache(QuickCache(), source)

    def test_read_only(self) -> None:
        """A source with `load` alone can be read, one key and many; writes say what is missing."""

        class Squares(BaseSource):
            def load(self, key: str) -> Any:
                return int(key) ** 2 if key.isdigit() else MISSING

        sourced = SourcedCache(QuickCache(), Squares())
        assert sourced.get("3") == 9
        assert sourced.get_many(["2", "x"]) == {"2": 4}
        with pytest.raises(NotImplementedError, match="read only"):
            sourced.set("3", 1)
        with pytest.raises(NotImplementedError, match="read only"):
            sourced.delete("3")


# Tables


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "shop.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        PRAGMA journal_mode=WAL;
        CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, age INTEGER);
        INSERT INTO users VALUES (1, 'Ada', 36), (2, 'Alan', 41);
        CREATE TABLE "odd ""names" ("the key" TEXT UNIQUE, "select" TEXT);
        """
    )
    connection.close()
    return path


def rows(path: Path, table: str = "users") -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
    finally:
        connection.close()


MakeSource = Callable[..., Any]


@pytest.fixture(params=["DB-API", "SQLAlchemy"])
def make_source(request: pytest.FixtureRequest, database: Path) -> Iterator[MakeSource]:
    if request.param == "DB-API":
        made: list[TableSource] = []

        def make(*arguments: Any, **options: Any) -> TableSource:
            made.append(TableSource(lambda: sqlite3.connect(database), *arguments, **options))
            return made[-1]

        yield make
        for one in made:
            one.close()
        return
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(f"sqlite:///{database}")
    yield lambda *arguments, **options: SQLAlchemySource(engine, *arguments, **options)
    engine.dispose()


class TestTables:
    """The two ready sources for tables, against a file of SQLite."""

    def test_spellings_of_one_key(self, make_source: MakeSource, database: Path) -> None:
        """Each that is asked for has the row."""
        source = make_source("users", "id", "name", parse_key=int)
        assert source.load_many(["1", "01", "2", "7", "07"]) == {"1": "Ada", "01": "Ada", "2": "Alan"}

    def test_keys_that_only_the_database_takes_for_equal(
        self, make_source: MakeSource, database: Path
    ) -> None:
        """A column that compares without case has one row for both, alone and together."""
        with contextlib.closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("CREATE TABLE loose (k TEXT COLLATE NOCASE PRIMARY KEY, v)")
            connection.execute("INSERT INTO loose VALUES ('sofa', 1), ('Bed', 2)")
        source = make_source("loose", "k", "v")
        assert (source.load("Sofa"), source.load("sofa"), source.load("so")) == (1, 1, MISSING)
        assert source.load_many(["Sofa", "bed", "x"]) == {"Sofa": 1, "bed": 2}
        assert source.load_many(["Sofa", "sofa", "SOFA"]) == {"Sofa": 1, "sofa": 1, "SOFA": 1}

    def test_rows_as_dictionaries(self, make_source: MakeSource, database: Path) -> None:
        """Read, inserted, overwritten and removed."""
        source = make_source("users", "id", ["name", "age"], parse_key=int)
        assert source.load("1") == {"name": "Ada", "age": 36}
        assert source.load("7") is MISSING
        assert source.load("nobody") is MISSING
        assert source.load_many(["1", "2", "7", "x"]) == {
            "1": {"name": "Ada", "age": 36},
            "2": {"name": "Alan", "age": 41},
        }
        source.store("1", {"age": 37, "name": "Ada"})
        source.store_many({"2": {"name": "Alan", "age": None}, "3": {"name": "Grace", "age": 85}})
        source.store_many({})
        source.remove("7")
        source.remove("nobody")
        assert rows(database) == [(1, "Ada", 37), (2, "Alan", None), (3, "Grace", 85)]
        source.remove("1")
        assert [row[0] for row in rows(database)] == [2, 3]

    def test_one_column(self, make_source: MakeSource, database: Path) -> None:
        """It is the value itself."""
        source = make_source("users", "id", "name", parse_key=int)
        assert source.load_many(["1", "2"]) == {"1": "Ada", "2": "Alan"}
        source.store("4", "Edsger")
        assert rows(database)[-1] == (4, "Edsger", None)

    def test_other_values(self, make_source: MakeSource) -> None:
        """`to_value` and `to_row` make them."""
        source = make_source(
            "users",
            "id",
            ["name", "age"],
            parse_key=lambda key: int(key.removeprefix("user:")),
            to_value=lambda row: (row["name"], row["age"]),
            to_row=lambda value: {"name": value[0], "age": value[1]},
        )
        source.store("user:5", ("Barbara", 50))
        assert source.load_many(["user:5", "user:1"]) == {"user:5": ("Barbara", 50), "user:1": ("Ada", 36)}

    def test_many_rows(self, make_source: MakeSource) -> None:
        """More than a statement has parameters."""
        source = make_source("users", "id", "name", parse_key=int)
        names = {str(number): f"name {number}" for number in range(10, 1300)}
        source.store_many(names)
        assert source.load_many([*names, "5000"]) == names

    def test_a_batch_is_written_as_a_whole(self, make_source: MakeSource, database: Path) -> None:
        """Or not at all."""
        before = rows(database)
        source = make_source("users", "id", ["name", "age"], parse_key=int)
        with pytest.raises(Exception, match=r"supported|bind"):
            source.store_many({"1": {"name": "X", "age": 1}, "2": {"name": object(), "age": 1}})
        assert rows(database) == before
        with pytest.raises(TypeError, match="dictionary of name, age"):
            source.store("1", {"name": "X"})

    def test_reads_hold_no_snapshot(self, make_source: MakeSource, database: Path) -> None:
        """A second read sees what others wrote since."""
        source = make_source("users", "id", "name", parse_key=int)
        assert source.load("1") == "Ada"
        connection = sqlite3.connect(database)
        connection.execute("UPDATE users SET name = 'Countess'")
        connection.commit()
        connection.close()
        assert source.load("1") == "Countess"

    def test_behind_a_cache(self, make_source: MakeSource, database: Path) -> None:
        """In the thread of the writes, and in threads of the loop."""
        source = make_source("users", "id", "name", parse_key=int)

        async def main() -> None:
            async with SourcedCache(QuickCache(), source, writes="behind", max_delay=0.01) as sourced:
                assert await sourced.aget_many(["1", "2"]) == {"1": "Ada", "2": "Alan"}
                await sourced.aset("2", "Turing")
                await sourced.adelete("1")
            through = SourcedCache(QuickCache(), source)
            await through.aset("3", "Grace")

        asyncio.run(main())
        assert [row[:2] for row in rows(database)] == [(2, "Turing"), (3, "Grace")]


class TestConnections:
    """Of `TableSource`."""

    def test_odd_names(self, database: Path) -> None:
        """Every name is quoted."""
        source = TableSource(lambda: sqlite3.connect(database), 'odd "names', "the key", "select")
        source.store("a'b", "x")
        assert source.load("a'b") == "x"
        with pytest.raises(ConfigError):
            TableSource(lambda: sqlite3.connect(database), "t", "", "v")
        with pytest.raises(ConfigError):
            TableSource(lambda: sqlite3.connect(database), "t", "k", [])
        dollar: Any = "dollar"
        with pytest.raises(ConfigError, match="paramstyle"):
            TableSource(lambda: sqlite3.connect(database), "t", "k", "v", paramstyle=dollar)
        source.close()

    # The sqlite3 of Python 3.12 takes numbers for names, and warns of it.
    @pytest.mark.filterwarnings("ignore:Binding .* is a named parameter:DeprecationWarning")
    @pytest.mark.parametrize("paramstyle", ["qmark", "numeric", "named"])
    def test_paramstyles(self, database: Path, paramstyle: Any) -> None:
        """Those that SQLite understands; the others differ by a mark."""
        source = TableSource(
            lambda: sqlite3.connect(database), "users", "id", ["name", "age"], paramstyle=paramstyle
        )
        source.store_many({"5": {"name": "E", "age": 1}, "6": {"name": "F", "age": 2}})
        assert rows(database)[-2:] == [(5, "E", 1), (6, "F", 2)]
        source.remove("5")
        assert source._with_cursor(lambda cursor: list(source._found(cursor, [6, 1]))) == [
            (1, "Ada", 36),
            (6, "F", 2),
        ]
        source.close()

    def test_each_thread_has_its_own(self, database: Path) -> None:
        """Kept for its next use, and closed with the thread."""
        made: list[int] = []
        closed: list[int] = []

        class Watched(sqlite3.Connection):
            def close(self) -> None:
                closed.append(threading.get_ident())
                super().close()

        def connect() -> sqlite3.Connection:
            made.append(threading.get_ident())
            return sqlite3.connect(database, factory=Watched)

        source = TableSource(connect, "users", "id", "name", parse_key=int)

        def work() -> None:
            assert source.load("1") == source.load("1") == "Ada"

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        work()
        assert len(made) == len(set(made)) == 2
        gc.collect()
        assert closed == made[:1]
        source.close()
        assert sorted(closed) == sorted(made)

    def test_reconnects(self, database: Path) -> None:
        """A connection that broke since its last use is replaced without an error; one that breaks at its
        first use is an error, and the next use has another one.
        """
        broken = False

        class Fragile(sqlite3.Connection):
            good = True

            def cursor(self, *arguments: Any, **options: Any) -> Any:
                if broken and self.good:
                    raise sqlite3.OperationalError("server closed the connection")
                return super().cursor(*arguments, **options)

        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(database, factory=Fragile)
            connection.good = not good_ones
            return connection

        good_ones: list[int] = []
        source = TableSource(connect, "users", "id", "name", parse_key=int)
        assert source.load("1") == "Ada"
        broken = True
        with pytest.raises(sqlite3.OperationalError):
            source.load("1")
        good_ones.append(1)
        assert source.load("1") == "Ada"
        broken, good_ones = False, []
        source.close()
        assert source.load("1") == "Ada"
        broken, good_ones = True, [1]
        assert source.load("1") == "Ada"
        source.close()

    def test_fork(self, database: Path) -> None:
        """The child opens its own, and leaves the parent's alone."""
        if not hasattr(os, "fork"):
            pytest.skip("this system has no fork")
        source = TableSource(lambda: sqlite3.connect(database), "users", "id", "name", parse_key=int)
        assert source.load("1") == "Ada"
        child = os.fork()
        if child == 0:
            status = 1
            try:
                source.store("9", "child")
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert source.load("9") == "child"
        source.close()


class TestSQLAlchemy:
    def test_without_an_upsert(self, database: Path) -> None:
        """Databases that have none get an update, or an insert."""
        sqlalchemy = pytest.importorskip("sqlalchemy")
        engine = sqlalchemy.create_engine(f"sqlite:///{database}")
        source = SQLAlchemySource(engine, "users", "id", ["name", "age"], parse_key=int)
        source._upsert = lambda: None  # type: ignore[method-assign]
        source.store_many({"1": {"name": "A", "age": 1}, "5": {"name": "E", "age": 5}})
        assert [row for row in rows(database) if row[0] != 2] == [(1, "A", 1), (5, "E", 5)]
        engine.dispose()

    def test_names_that_do_not_exist(self, database: Path) -> None:
        """The error lists those that do."""
        sqlalchemy = pytest.importorskip("sqlalchemy")
        engine = sqlalchemy.create_engine(f"sqlite:///{database}")
        with pytest.raises(ConfigError, match="id, name, age"):
            SQLAlchemySource(engine, "users", "id", "nome")
        engine.dispose()
