"""Keys that are loaded because they tend to follow others."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import InvalidKey, QuickCache, QuickCacheConfig
from quickcache_core.loading.context import LoaderContext
from quickcache_core.loading.prefetch import Prefetcher
from quickcache_core.loading.successors import Successors
from quickcache_core.testing import ManualClock

PATIENCE = 30.0


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.002)


def settle(prefetcher: Prefetcher) -> None:
    """Until nothing is under way."""
    until(lambda: not prefetcher._under_way)


class Source:
    """Gives each key in upper case, and notes who asked in which thread."""

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.ahead: list[str] = []
        self.error: Exception | None = None

    def __call__(self, key: str) -> str:
        self.loads.append(key)
        if threading.current_thread().name == "quickcache-loader":
            self.ahead.append(key)
            if self.error is not None:
                raise self.error
        return key.upper()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "shared"])
def cache(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> Iterator[QuickCache]:
    shared = {"location": f"shared://{tmp_path}/cache", "max_bytes": 4_000_000}
    settings = {"clock": clock, "serializer": "json", **(shared if request.param == "shared" else {})}
    with QuickCache(QuickCacheConfig.from_mapping(settings)) as cache:
        yield cache


@pytest.fixture
def source() -> Source:
    return Source()


def walk(prefetcher: Prefetcher, *keys: str, times: int = 1, **how: Any) -> None:
    """Read the keys in order, each time in a cache that has none of them."""
    for _ in range(times):
        for key in keys:
            prefetcher.get(key, **how)
        settle(prefetcher)
        prefetcher.begin()
        prefetcher._cache.delete_many(keys)


def test_declared(cache: QuickCache, source: Source) -> None:
    """The key that follows is loaded in the background; when it is asked for, it is there."""
    prefetcher = Prefetcher(cache, source, learn=False)
    prefetcher.follows("b", "a", "x")
    assert prefetcher.get("a") == "A"
    settle(prefetcher)
    assert source.ahead == ["b"]
    hits = cache.metrics().hits
    assert prefetcher.get("b") == "B"
    assert cache.metrics().hits == hits + 1
    assert source.loads.count("b") == 1
    figures = prefetcher.figures()
    assert (figures.prefetched, figures.used, figures.wasted, figures.waiting) == (1, 1, 0, 0)
    assert figures.used_ratio == 1.0


def test_hint(cache: QuickCache, source: Source) -> None:
    """A function says what follows: a key, several, none. One that raises is logged; the read goes on."""
    prefetcher = Prefetcher(cache, source, learn=False)

    @prefetcher.hint
    def next_page(key: str) -> list[str] | str | None:
        name, _, number = key.partition(":")
        if name == "broken":
            raise OSError("no such row")
        if name == "both":
            return ["x", "y"]
        return f"page:{int(number) + 1}" if name == "page" else None

    assert callable(next_page)
    for key in ("page:1", "both", "other", "broken"):
        assert prefetcher.get(key) == key.upper()
        settle(prefetcher)
    assert sorted(source.ahead) == ["page:2", "x", "y"]


def test_learned(cache: QuickCache, source: Source) -> None:
    """After three times, the second request is a hit."""
    prefetcher = Prefetcher(cache, source)
    walk(prefetcher, "a", "b", times=3)
    assert source.ahead == []
    assert prefetcher.get("a") == "A"
    settle(prefetcher)
    assert source.ahead == ["b"]
    loads = len(source.loads)
    assert prefetcher.get("b") == "B"
    assert len(source.loads) == loads
    assert prefetcher.figures().used == 1


def test_not_learned(cache: QuickCache, source: Source) -> None:
    """What follows now and then isn't loaded, nor anything at all with `learn=False`."""
    prefetcher = Prefetcher(cache, source, share=0.5)
    for n in range(10):
        walk(prefetcher, "a", "b" if n % 3 == 0 else f"other{n}")
    indifferent = Prefetcher(cache, source, learn=False)
    walk(indifferent, "a", "b", times=10)
    assert source.ahead == []
    assert indifferent.figures().learned == 0


def test_too_long_between(cache: QuickCache, source: Source, clock: ManualClock) -> None:
    """A key that comes long after another one doesn't follow it."""
    prefetcher = Prefetcher(cache, source, within=30, times=1)
    prefetcher.get("a")
    clock.advance(31)
    prefetcher.get("b")
    cache.clear()
    prefetcher.get("a")
    settle(prefetcher)
    assert source.ahead == []


def test_streams(cache: QuickCache, source: Source) -> None:
    """Reads of several sessions that come mixed are told apart, in whatever threads."""
    prefetcher = Prefetcher(cache, source, times=2)
    for _ in range(2):
        for key in ("a", "b"):
            for session in range(5):
                worker = threading.Thread(target=prefetcher.get, args=(key,), kwargs={"stream": session})
                worker.start()
                worker.join()
        cache.clear()
    assert prefetcher._successors.after("a", 10, 1.0) == ["b"]
    assert prefetcher._successors.after("b", 5, 0.1) == ["a"]


def test_threads_and_contexts_are_streams(cache: QuickCache, source: Source) -> None:
    """Without a stream, what another thread or context read comes before nothing."""
    prefetcher = Prefetcher(cache, source, times=1)
    contextvars.copy_context().run(prefetcher.get, "a")
    worker = threading.Thread(target=prefetcher.get, args=("a",))
    worker.start()
    worker.join()
    prefetcher.get("b")
    prefetcher.begin()
    prefetcher.get("c")
    assert prefetcher._successors.after("a", 1, 0.01) == []
    assert prefetcher._successors.after("b", 1, 0.01) == []


def test_two_prefetchers(cache: QuickCache, source: Source) -> None:
    """Neither takes what the other reads for a step of its own."""
    first, second = (Prefetcher(cache.namespace(name), source, times=1) for name in ("1", "2"))
    first.get("a")
    second.get("x")
    first.get("b")
    assert first._successors.after("a", 1, 1.0) == ["b"]
    assert len(second._successors) == 1


def test_asked_for_while_it_is_loaded(cache: QuickCache) -> None:
    """The reader waits for the load that is under way, and it counts as used."""
    begun, go = threading.Event(), threading.Event()
    loads = []

    def load(key: str) -> str:
        loads.append(key)
        if key == "b":
            begun.set()
            assert go.wait(PATIENCE)
        return key

    prefetcher = Prefetcher(cache, load)
    prefetcher.follows("b", "a")
    prefetcher.get("a")
    assert begun.wait(PATIENCE)
    found = []
    reader = threading.Thread(target=lambda: found.append(prefetcher.get("b")))
    reader.start()
    until(lambda: cache.metrics().load_waits == 1)
    go.set()
    reader.join()
    settle(prefetcher)
    assert (found, loads.count("b")) == (["b"], 1)
    assert (prefetcher.figures().prefetched, prefetcher.figures().used) == (1, 1)


def test_a_bound_on_loads_under_way(cache: QuickCache) -> None:
    """As many as may be; the others are refused and counted, and nobody waits."""
    go = threading.Event()
    begun = []

    def load(key: str) -> str:
        if key != "a":
            begun.append(key)
            assert go.wait(PATIENCE)
        return key

    prefetcher = Prefetcher(cache, load, most_loads=2)
    for n in range(5):
        prefetcher.follows(f"b{n}", "a")
    prefetcher.get("a")
    until(lambda: len(begun) == 2)
    assert prefetcher.figures().refused == 3
    go.set()
    settle(prefetcher)
    assert prefetcher.figures().prefetched == 2


def test_wasted(cache: QuickCache, source: Source, clock: ManualClock) -> None:
    """What expires before anybody asks is counted as such, whether or not somebody asks later."""
    prefetcher = Prefetcher(cache, source, 10)
    prefetcher.follows("b", "a")
    prefetcher.follows("c", "a")
    prefetcher.get("a")
    settle(prefetcher)
    assert prefetcher.figures().waiting == 2
    clock.advance(10)
    assert prefetcher.get("b") == "B"
    figures = prefetcher.figures()
    assert (figures.prefetched, figures.used, figures.wasted, figures.used_ratio) == (2, 0, 2, 0.0)


def test_what_is_there(cache: QuickCache, source: Source) -> None:
    """It isn't loaded again."""
    prefetcher = Prefetcher(cache, source)
    prefetcher.follows("b", "a")
    cache.set("b", "theirs")
    prefetcher.get("a")
    settle(prefetcher)
    assert source.loads == ["a"]


def test_failing_source(
    cache: QuickCache, source: Source, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The reader doesn't notice, and the source is left alone for a while."""
    prefetcher = Prefetcher(cache, source, retry_after=5)
    prefetcher.follows("b", "a")
    source.error = OSError("the database is down")
    for _ in range(3):
        assert prefetcher.get("a") == "A"
        settle(prefetcher)
    assert source.ahead == ["b"]
    assert (prefetcher.figures().failed, prefetcher.figures().refused) == (1, 2)
    assert caplog.text.count("Loading ahead failed (OSError)") == 1
    assert "database" not in caplog.text
    source.error = None
    clock.advance(5)
    prefetcher.get("a")
    settle(prefetcher)
    assert cache.get("b") == "B"


def test_options(cache: QuickCache) -> None:
    """They hold for both kinds of loads, and a loader may ask for the context."""

    def load(key: str, context: LoaderContext) -> str:
        context.add_tags(f"tag of {key}")
        return key

    prefetcher = Prefetcher(cache, load, 50, tags=("all",))
    prefetcher.follows("b", "a")
    prefetcher.get("a")
    settle(prefetcher)
    assert cache.ttl("a") == cache.ttl("b") == 50
    cache.invalidate_tags("tag of b")
    assert ("a" in cache, "b" in cache) == (True, False)
    cache.invalidate_tags("all")
    assert "a" not in cache


def test_switched_off(cache: QuickCache, source: Source) -> None:
    """Nothing is loaded ahead that nobody would store."""
    prefetcher = Prefetcher(cache, source)
    prefetcher.follows("b", "a")
    with cache.disabled():
        assert prefetcher.get("a") == "A"
    settle(prefetcher)
    assert source.loads == ["a"]


def test_coroutine_function(cache: QuickCache) -> None:
    """It is awaited in the reader's event loop, ahead as well."""
    loads = []

    async def load(key: str) -> str:
        loads.append((key, asyncio.get_running_loop()))
        await asyncio.sleep(0)
        return key.upper()

    prefetcher = Prefetcher(cache, load)
    prefetcher.follows("b", "a")

    async def program() -> None:
        assert await prefetcher.aget("a") == "A"
        await asyncio.to_thread(settle, prefetcher)
        assert await prefetcher.aget("b") == "B"
        assert {loop for _, loop in loads} == {asyncio.get_running_loop()}

    asyncio.run(program())
    assert [key for key, _ in loads] == ["a", "b"] or [key for key, _ in loads] == ["b", "a"]
    assert prefetcher.figures().used == 1
    with pytest.raises(TypeError, match="coroutine function"):
        Prefetcher(cache, load).get("c")


@pytest.mark.parametrize(
    "options",
    [{"times": 0}, {"share": 0}, {"share": 1.5}, {"within": 0}, {"most_keys": 0}, {"most_loads": True}],
)
def test_wrong_numbers(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Prefetcher(QuickCache(), str.upper, **options)


def test_wrong_arguments() -> None:
    """They are refused at once."""
    cache = QuickCache()
    with pytest.raises(TypeError):
        Prefetcher(cache, "no function")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Prefetcher(cache, str.upper, colour="red")  # type: ignore[call-arg]
    prefetcher = Prefetcher(cache, str.upper)
    for wrong in (lambda: prefetcher.follows(1, "a"), lambda: prefetcher.get(1)):  # type: ignore[arg-type]
        with pytest.raises(InvalidKey):
            wrong()


def test_bounded_streams(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that read last are remembered."""
    monkeypatch.setattr("quickcache_core.loading.prefetch._MOST_REMEMBERED", 10)
    prefetcher = Prefetcher(QuickCache(), source)
    for n in range(100):
        prefetcher.get("a", stream=n)
    assert sorted(map(str, prefetcher._streams)) == [str(n) for n in range(90, 100)]


def test_bounded_list_of_what_was_loaded(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits longest counts as wasted once there is too much."""
    monkeypatch.setattr("quickcache_core.loading.prefetch._MOST_REMEMBERED", 10)
    prefetcher = Prefetcher(QuickCache(), source, learn=False)
    for n in range(30):
        prefetcher.follows(f"b{n}", f"a{n}")
        prefetcher.get(f"a{n}")
        settle(prefetcher)
    figures = prefetcher.figures()
    assert (figures.prefetched, figures.waiting, figures.wasted) == (30, 10, 20)


# The table of successors


def note(table: Successors, key: str, follower: str, times: int = 1) -> None:
    for _ in range(times):
        table.visit(key)
        table.note(key, follower)


def test_bounded_keys() -> None:
    """Those that were visited last stay."""
    table = Successors(3)
    for key in "abcad":
        note(table, key, "x")
    assert len(table) == 3
    assert [key for key in "abcd" if table.after(key, 1, 0.1)] == ["a", "c", "d"]


def test_bounded_successors() -> None:
    """Four places for each key; a frequent one keeps its place whatever comes."""
    table = Successors(10)
    for n in range(20):
        note(table, "a", "often", 2)
        note(table, "a", f"once{n}")
    assert "often" in table.after("a", 3, 0.3)
    assert len(table._visits["a"].followers) <= 4


def test_habits_change() -> None:
    """Counts are halved now and then, so that a new habit wins over an old one that was as frequent."""
    table = Successors(10)
    note(table, "a", "old", 1000)
    assert table.after("a", 3, 0.5) == ["old"]
    note(table, "a", "new", 200)
    assert table.after("a", 3, 0.5) == ["new"]


def test_visits_that_nothing_follows() -> None:
    """They count: a share is one of all visits."""
    table = Successors(10)
    note(table, "a", "b", 3)
    assert table.after("a", 3, 0.5) == ["b"]
    for _ in range(4):
        table.visit("a")
    assert table.after("a", 3, 0.5) == []


def test_hint_that_gives_no_key(cache: QuickCache, source: Source, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged as one that fails; nothing is stored under what isn't a key."""
    prefetcher = Prefetcher(cache, source, learn=False)
    prefetcher.hint(lambda key: ["fine", 2])
    assert prefetcher.get("1") == "1"
    settle(prefetcher)
    assert list(cache.keys()) == ["1"]
    assert "InvalidKey" in caplog.text
