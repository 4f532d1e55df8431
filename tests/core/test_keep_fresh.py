"""Keys that are fresh without a reader, and callbacks that come without one."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import (
    NEVER,
    CacheEvent,
    EventKind,
    InvalidKey,
    QuickCache,
    QuickCacheConfig,
    RemovalCause,
)
from quickcache_core.loading.context import LoaderContext
from quickcache_core.loading.keep_fresh import Keeper, KeptFresh, keep_fresh, stop_keeping_fresh
from quickcache_core.maintenance import maintenance
from quickcache_core.testing import ManualClock

PATIENCE = 30.0
TTL = 100.0
DUE = 90.0
"""Seconds after which a value with that TTL is loaded anew."""
LOGGER = "quickcache_core.loading.keep_fresh"


def until(condition: Callable[[], object], why: str = "") -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, why or "it did not come true"
        time.sleep(0.002)


def keeper_of(cache: QuickCache) -> Keeper:
    keeper = vars(cache)["_keeper"]
    assert isinstance(keeper, Keeper)
    return keeper


def keep(cache: QuickCache, *arguments: Any, **options: Any) -> KeptFresh:
    """`keep_fresh`, with looks only when a test asks for one."""
    kept = keep_fresh(cache, *arguments, **options)
    maintenance.dismiss(keeper_of(cache))
    return kept


def look(cache: QuickCache) -> None:
    """What the background thread does once a second, and the loads that come of it."""
    keeper_of(cache).sweep()
    until(lambda: not keeper_of(cache)._taken)


class Source:
    """Gives 1, 2, 3 and so on; fails while `error` is set."""

    def __init__(self) -> None:
        self.loads = 0
        self.error: Exception | None = None

    def __call__(self) -> int:
        self.loads += 1
        if self.error is not None:
            raise self.error
        return self.loads


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "shared"])
def cache(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> Iterator[QuickCache]:
    shared = {"location": f"shared://{tmp_path}/cache", "max_bytes": 4_000_000}
    cache = QuickCache(
        QuickCacheConfig.from_mapping(
            {
                "clock": clock,
                "serializer": "json",
                "retry_after": 5.0,
                **(shared if request.param == "shared" else {}),
            }
        )
    )
    yield cache
    stop_keeping_fresh(cache)
    cache.stop()


def test_missing_key(cache: QuickCache) -> None:
    """It is loaded with the first look."""
    source = Source()
    keep(cache, "k", source, TTL)
    look(cache)
    assert cache.get("k") == 1
    assert cache.ttl("k") == TTL


def test_key_that_is_due(cache: QuickCache, clock: ManualClock) -> None:
    """Its value is replaced before the TTL ends, again and again, and not earlier; nobody reads it."""
    source = Source()
    keep(cache, "k", source, TTL)
    for expected in (1, 2, 3):
        look(cache)
        assert source.loads == expected
        clock.advance(DUE - 1)
        look(cache)
        assert source.loads == expected
        clock.advance(2)
    assert cache.metrics().gets == 0


def test_share_of_the_ttl(cache: QuickCache, clock: ManualClock) -> None:
    """`refresh_ahead` says when a value is due."""
    source = Source()
    keep(cache, "k", source, TTL, refresh_ahead=0.5)
    look(cache)
    clock.advance(49)
    look(cache)
    assert source.loads == 1
    clock.advance(2)
    look(cache)
    assert source.loads == 2


def test_short_ttl(cache: QuickCache, clock: ManualClock) -> None:
    """There is time for two looks and the load before the end."""
    source = Source()
    keep(cache, "k", source, 5)
    look(cache)
    clock.advance(2.6)
    look(cache)
    assert source.loads == 2


def test_value_without_an_end(cache: QuickCache, clock: ManualClock) -> None:
    """It is loaded when it is missing, and only then."""
    source = Source()
    keep(cache, "k", source, NEVER)
    look(cache)
    clock.advance(1e6)
    look(cache)
    assert source.loads == 1
    cache.delete("k")
    look(cache)
    assert cache.get("k") == 2


def test_invalidated_key(cache: QuickCache) -> None:
    """After its tag was invalidated it comes back with the next look."""
    source = Source()
    keep(cache, "k", source, TTL, tags=("t",))
    look(cache)
    cache.invalidate_tags("t")
    assert "k" not in cache
    look(cache)
    assert cache.get("k") == 2


def test_key_that_something_else_stored(cache: QuickCache, clock: ManualClock) -> None:
    """It is left alone until its TTL has ended."""
    source = Source()
    cache.set("k", "theirs", 10)
    keep(cache, "k", source, TTL)
    look(cache)
    assert cache.get("k") == "theirs"
    clock.advance(10)
    look(cache)
    assert cache.get("k") == 1


def test_loader_that_sets_the_ttl(cache: QuickCache, clock: ManualClock) -> None:
    """What it says of its value counts, for the next load too."""
    loads = []

    def loader(context: LoaderContext) -> str:
        loads.append(context.key)
        context.ttl_sec = 20
        return "v"

    keep(cache, "k", loader, TTL)
    look(cache)
    assert cache.ttl("k") == 20
    clock.advance(20 * 0.975 + 0.5)
    look(cache)
    assert loads == ["k", "k"]


def test_failing_loader(cache: QuickCache, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """The old value stays as long as it lives; attempts come after pauses that double; one warning for all of
    them, and a word when it works again.
    """
    caplog.set_level(logging.INFO, LOGGER)
    source = Source()
    keep(cache, "k", source, TTL)
    look(cache)
    clock.advance(DUE + 1)
    source.error = OSError("the database is down")
    attempts = []
    for second in range(40):
        before = source.loads
        look(cache)
        if source.loads > before:
            attempts.append(second)
        assert ("k" in cache) == (second < 9)
        clock.advance(1)
    assert attempts == [0, 5, 15, 35]
    assert [record.levelname for record in caplog.records if record.name == LOGGER] == ["WARNING"]
    assert "database is down" not in caplog.text
    source.error = None
    clock.advance(40)
    look(cache)
    assert cache.get("k") == source.loads
    assert [record.levelname for record in caplog.records if record.name == LOGGER] == ["WARNING", "INFO"]


def test_loader_that_gives_nothing_to_store(
    cache: QuickCache, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked with pauses as one that fails, and nothing is logged."""
    loads = []
    keep(cache, "k", lambda: loads.append(1), TTL, skip_none=True)
    for _ in range(16):
        look(cache)
        clock.advance(1)
    assert len(loads) == 3
    assert not caplog.records


def test_several_keys(cache: QuickCache) -> None:
    """The loader finds the key in its argument."""
    keep(cache, ["a", "b", "a"], lambda context: context.key * 2, TTL)
    look(cache)
    assert cache.get_many(["a", "b"]) == {"a": "aa", "b": "bb"}


def test_function_that_gives_the_keys(
    cache: QuickCache, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is called every 30 seconds; if it fails, the keys of before go on."""
    names = ["a"]
    calls = 0

    def keys() -> list[str]:
        nonlocal calls
        calls += 1
        if not names:
            raise OSError("the database is down")
        return list(names)

    def find(times: int) -> None:
        look(cache)
        until(lambda: calls == times and not kept._finding)
        look(cache)

    kept = keep(cache, keys, lambda context: context.key, TTL)
    find(1)
    assert kept.keys == ("a",)
    names[:] = ["b"]
    clock.advance(29)
    find(1)
    clock.advance(1)
    find(2)
    assert (kept.keys, cache.get("b")) == (("b",), "b")
    for times in (3, 4):
        names.clear()
        clock.advance(30)
        find(times)
        assert kept.keys == ("b",)
    assert caplog.text.count("the keys to be kept fresh failed") == 1


def test_many_keys_at_once(cache: QuickCache) -> None:
    """At most 8 are loaded at a time: background threads are there for readers as well."""
    lock = threading.Lock()
    now, most, go = 0, 0, threading.Event()

    def loader(context: LoaderContext) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        assert go.wait(PATIENCE)
        with lock:
            now -= 1
        return 1

    keep(cache, [f"k{number}" for number in range(50)], loader, TTL)
    keeper_of(cache).sweep()
    until(lambda: now == 8)
    keeper_of(cache).sweep()
    go.set()
    until(lambda: not keeper_of(cache)._taken)
    assert most == 8
    assert cache.size() == 50
    assert cache.metrics().loads == 50


def test_stop(cache: QuickCache, clock: ManualClock) -> None:
    """The values expire from then on, and the background thread has nothing to look at."""
    source = Source()
    with keep_fresh(cache, "k", source, TTL) as kept:
        look(cache)
        assert keeper_of(cache) in maintenance._intervals
    kept.stop()
    clock.advance(TTL)
    look(cache)
    assert source.loads == 1
    assert keeper_of(cache) not in maintenance._intervals


def test_new_loader_for_a_key(cache: QuickCache, clock: ManualClock) -> None:
    """The later one counts, and stopping the earlier one changes nothing."""
    first = keep(cache, "k", lambda: "old", TTL)
    keep(cache, "k", lambda: "new", TTL)
    first.stop()
    look(cache)
    assert cache.get("k") == "new"


def test_namespaces(cache: QuickCache) -> None:
    """A namespace has keys of its own, kept fresh by themselves."""
    part = cache.namespace("part")
    keep(cache, "k", lambda: "whole", TTL)
    keep(part, "k", lambda: "part", TTL)
    other = cache.namespace("other")
    keep(other, "k", lambda: "other", TTL)
    for one in (cache, part, other):
        look(one)
        assert len(keeper_of(one).all()) == 1
    assert [one.get("k") for one in (cache, part, other)] == ["whole", "part", "other"]
    stop_keeping_fresh(part)
    assert len(keeper_of(cache).all()) == 1


def test_switched_off(cache: QuickCache) -> None:
    """Nothing is loaded that nobody would store."""
    source = Source()
    keep(cache, "k", source, TTL)
    with cache.disabled():
        look(cache)
        assert source.loads == 0
    look(cache)
    assert cache.get("k") == 1


def test_key_that_a_reader_is_loading(cache: QuickCache) -> None:
    """It isn't loaded a second time."""
    begun, go = threading.Event(), threading.Event()

    def slow() -> str:
        begun.set()
        assert go.wait(PATIENCE)
        return "the reader's"

    source = Source()
    keep(cache, "k", source, TTL)
    reader = threading.Thread(target=cache.get_or_set, args=("k", slow, TTL))
    reader.start()
    assert begun.wait(PATIENCE)
    look(cache)
    go.set()
    reader.join()
    look(cache)
    assert (source.loads, cache.get("k")) == (0, "the reader's")


def test_coroutine_function(cache: QuickCache) -> None:
    """Outside of an event loop it gets one of its own."""

    async def loader() -> str:
        await asyncio.sleep(0)
        return "v"

    keep(cache, "k", loader, TTL)
    look(cache)
    assert cache.get("k") == "v"


def test_coroutine_function_in_an_event_loop(cache: QuickCache) -> None:
    """It is awaited in the loop that it was given in, until that is closed."""
    loops = []

    async def loader() -> str:
        loops.append(asyncio.get_running_loop())
        return "v"

    async def program() -> asyncio.AbstractEventLoop:
        keep(cache, "k", loader, TTL)
        await asyncio.to_thread(look, cache)
        return asyncio.get_running_loop()

    loop = asyncio.run(program())
    assert loops == [loop]
    cache.delete("k")
    look(cache)
    assert len(loops) == 1
    assert keeper_of(cache).all() == []


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("k", "no function"), {}, TypeError),
        ((1, Source()), {}, TypeError),
        ((b"k", Source()), {}, TypeError),
        ((["a", 1], Source()), {}, InvalidKey),
        (("k", Source(), -1), {}, ValueError),
        (("k", Source()), {"sliding": True}, ValueError),
        (("k", Source()), {"colour": "red"}, TypeError),
        (("k", Source()), {"refresh_ahead": 2}, ValueError),
    ],
)
def test_wrong_arguments(
    cache: QuickCache, arguments: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    """They are refused at once."""
    with pytest.raises(error):
        keep_fresh(cache, *arguments, **options)


def test_without_any_call() -> None:
    """The background thread does all this by itself."""
    loaded = threading.Event()
    with QuickCache() as cache:
        keep_fresh(cache, "k", loaded.set, TTL)
        assert loaded.wait(PATIENCE)
        until(lambda: "k" in cache)
        stop_keeping_fresh(cache)


def test_cache_that_nobody_uses() -> None:
    """It goes, and with it what it kept fresh."""
    cache = QuickCache()
    keep_fresh(cache, "k", Source(), TTL)
    keeper = weakref.ref(keeper_of(cache))
    del cache
    until(lambda: gc.collect() is not None and keeper() is None)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_a_fork() -> None:
    """The child loads for itself, from its first write on; what the parent was loading at that moment isn't
    taken for its own.
    """
    script = """
import os, threading
from quickcache_core import QuickCache
from quickcache_core.loading.keep_fresh import keep_fresh

parent = os.getpid()
begun, go, child_loads = threading.Event(), threading.Event(), threading.Event()

def loader():
    if os.getpid() == parent:
        begun.set()
        go.wait(30)
    else:
        child_loads.set()
    return 1

cache = QuickCache()
keep_fresh(cache, "k", loader, 100)
assert begun.wait(30)
child = os.fork()
if not child:
    cache.set("other", 1, 100)
    os._exit(0 if child_loads.wait(30) else 1)
assert os.waitpid(child, 0)[1] == 0
go.set()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=100)


WORKER = """
import sys, time
from quickcache_core import QuickCache, QuickCacheConfig
from quickcache_core.loading.keep_fresh import keep_fresh

def say(word):
    print(word, flush=True)

loads = []
def loader():
    loads.append(1)
    say("loading")
    sys.stdin.readline()
    return sys.argv[2]

location = "shared://" + sys.argv[1]
cache = QuickCache(QuickCacheConfig(location=location, serializer="json", max_bytes=4_000_000))
if sys.argv[2] == "first":
    keep_fresh(cache, "k", loader, 1000)
    while "k" not in cache:
        time.sleep(0.002)
    say("loaded")
else:
    keep_fresh(cache, "k", loader, 1000)
    keeper = vars(cache)["_keeper"]
    for word in sys.stdin:
        for _ in range(3):
            keeper.sweep()
            while keeper._taken:
                time.sleep(0.002)
        say(f"{len(loads)} {cache.get('k', None)}")
"""


def test_several_processes(tmp_path: Path) -> None:
    """One of them loads, the others leave the key to it, also once it is done."""

    def start(name: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path / "cache"), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def tell(process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()

    with start("first") as first:
        assert line(first) == "loading"
        # Not before: whoever looks first loads.
        with start("second") as second:
            tell(second)
            assert line(second) == "0 None"
            tell(first)
            assert line(first) == "loaded"
            tell(second)
            assert line(second) == "0 first"
            for process in (first, second):
                process.stdin.close()  # type: ignore[union-attr]
                assert process.wait(PATIENCE) == 0


def test_expiry_callback_without_a_reader() -> None:
    """A listener to removals is told of an entry that expired although nobody asks for it."""
    told = threading.Event()
    events: list[CacheEvent] = []

    def listener(event: CacheEvent) -> None:
        events.append(event)
        told.set()

    with QuickCache(QuickCacheConfig(cleanup_interval=0.02)) as cache:
        cache.subscribe(listener, EventKind.REMOVED)
        cache.set("k", 1, 0.01)
        assert told.wait(PATIENCE)
    assert events == [CacheEvent(EventKind.REMOVED, "k", RemovalCause.EXPIRED)]


def test_list_of_keys_again(cache: QuickCache) -> None:
    """The later loader has the keys that both name, and the earlier one what is left to it."""
    old, new = Source(), Source()
    first = keep(cache, ["a", "b"], old)
    keep(cache, "b", new)
    assert first.keys == ("a",)
    second = keep(cache, ["a", "c"], new)
    assert first.keys == ()
    assert keeper_of(cache).all() == [*(one for one in keeper_of(cache).all() if one.keys == ("b",)), second]
    first.stop()
    assert len(keeper_of(cache).all()) == 2
