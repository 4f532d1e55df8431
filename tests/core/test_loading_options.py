"""What callers and loaders may say of a load, one thing at a time; `test_loading_table` has all together."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import (
    NEVER,
    ConfigError,
    EventKind,
    LoaderContext,
    LoaderTimeout,
    QuickCache,
    QuickCacheConfig,
    RemovalCause,
)
from quickcache_core.testing import ManualClock
from tests.core.loading_tools import Loader, at_rest, counters, make_cache

Make = Callable[..., QuickCache]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "shared"])
def make(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[Make]:
    numbers = itertools.count()
    made: list[QuickCache] = []

    def one(**settings: Any) -> QuickCache:
        folder = tmp_path / str(next(numbers))
        made.append(cache := make_cache(request.param, folder, **{"clock": clock, **settings}))
        return cache

    yield one
    for cache in made:
        cache.stop()


# What is stored, and for how long


def test_ttl_of_a_loaded_value(make: Make) -> None:
    """The call's, else the cache's."""
    cache = make(default_ttl=60)
    cache.get_or_set("a", lambda: 1)
    cache.get_or_set("b", lambda: 1, 5)
    cache.get_or_set("c", lambda: 1, NEVER)
    assert [cache.ttl(key) for key in "abc"] == [60, 5, None]


def test_jitter(make: Make) -> None:
    """TTLs are shortened by that share at most, never lengthened, and differ."""
    cache = make()
    for n in range(200):
        cache.get_or_set(f"k{n}", lambda: 1, 100, jitter=0.2)
    left = [cache.ttl(f"k{n}") or 0.0 for n in range(200)]
    assert 80 <= min(left) < 90 < max(left) <= 100
    assert len(set(left)) > 150


@pytest.mark.parametrize("skips", [False, True])
def test_none(make: Make, skips: bool) -> None:
    """It is a value like any other, unless it is to be skipped; then an older value goes with it."""
    cache = make(skip_none=skips, stale_ttl=60)
    loader = Loader(None)
    assert [cache.get_or_set("k", loader, 5) for _ in range(3)] == [None] * 3
    assert loader.calls == (3 if skips else 1)
    assert ("k" in cache) is not skips


def test_none_after_a_value(make: Make, clock: ManualClock) -> None:
    """With `skip_none`, what was stale is gone: the source has nothing any more."""
    cache = make(skip_none=True, stale_ttl=60)
    cache.get_or_set("k", lambda: 1, 5)
    clock.advance(6)
    assert cache.get_or_set("k", lambda: None, 5) == 1
    at_rest(cache)
    assert cache.get_or_set("k", lambda: 2, 5) == 2


def test_refresh(make: Make) -> None:
    """Loads whatever is there; if that fails, what is there stays."""
    cache = make()
    cache.set("k", 1)
    assert cache.refresh("k", lambda: 2) == 2
    with pytest.raises(OSError, match="down"):
        cache.refresh("k", Loader(OSError("down")))
    assert cache.get("k") == 2


def test_sliding_per_call(make: Make, clock: ManualClock) -> None:
    """An entry read every second outlives its TTL, and ends at its longest age."""
    cache = make()
    loader = Loader("value", "another")
    cache.get_or_set("k", loader, 5, sliding=True, max_age=20)
    for _ in range(19):
        clock.advance(1)
        assert cache.get_or_set("k", loader, 5, sliding=True, max_age=20) == "value"
    clock.advance(1)
    assert cache.get("k", None) is None
    cache.set("idle", 1, 5, sliding=True)
    clock.advance(5)
    assert "idle" not in cache


def test_sliding_per_cache(make: Make, clock: ManualClock) -> None:
    """All that stores obeys the settings: set, add, update, set_many, incr."""
    cache = make(default_ttl=5, sliding=True, max_age=20)
    cache.set("set", 1)
    cache.add("add", 1)
    cache.set("update", 0)
    cache.update("update", 1)
    cache.set_many({"many": 1})
    cache.incr("incr", initial=0)
    keys = ["set", "add", "update", "many", "incr"]
    for _ in range(19):
        clock.advance(1)
        assert cache.get_many(keys) == dict.fromkeys(keys, 1)
    clock.advance(1)
    assert cache.get_many(keys) == {}


# Stale values


def test_stale_values_are_for_those_who_ask(make: Make, clock: ManualClock) -> None:
    """To all others the entry has expired; without `stale_ttl` nothing is ever stale."""
    cache = make(stale_ttl=60)
    cache.set("k", 1, 5)
    cache.set("plain", 1, 5, stale_ttl=0)
    clock.advance(5)
    assert cache.get("k", None) is None
    assert "k" not in cache
    assert list(cache.keys()) == []
    assert cache.add("k2", 1) is True
    gate = threading.Event()
    assert cache.get_or_set("k", Loader(2, gate=gate), 5) == 1
    gate.set()
    at_rest(cache)
    assert cache.get("k") == 2
    clock.advance(66)
    assert cache.get_or_set("k", lambda: 3, 5) == 3


def test_dead_source(make: Make, clock: ManualClock) -> None:
    """No error within `stale_ttl`, one attempt per `retry_after`; then the error."""
    cache = make(stale_ttl=60, retry_after=10)
    loader = Loader("value", OSError("down"))
    cache.get_or_set("k", loader, 5)
    clock.advance(5)
    for second in range(59):
        assert cache.get_or_set("k", loader, 5) == "value"
        at_rest(cache)
        assert loader.calls == 2 + second // 10
        clock.advance(1)
    clock.advance(1)
    with pytest.raises(OSError, match="down"):
        cache.get_or_set("k", loader, 5)
    assert counters(cache).stale_hits == 59


def test_stale_only_if_the_loader_fails(make: Make, clock: ManualClock) -> None:
    """`soft_timeout=NEVER` waits for the fresh value."""
    cache = make(stale_ttl=60, soft_timeout=NEVER, retry_after=0.0)
    loader = Loader(1, 2, OSError("down"))
    assert cache.get_or_set("k", loader, 5) == 1
    clock.advance(5)
    assert cache.get_or_set("k", loader, 5) == 2
    clock.advance(5)
    assert cache.get_or_set("k", loader, 5) == 2


def test_limit_to_waiting(make: Make) -> None:
    """`LoaderTimeout` tells the key and the limit; the load is completed in the background, once."""
    cache = make(hard_timeout=0.01)
    gate = threading.Event()
    loader = Loader("late", gate=gate)
    for _ in range(3):
        with pytest.raises(LoaderTimeout) as raised:
            cache.get_or_set("k", loader)
        assert (raised.value.key, raised.value.seconds) == ("k", 0.01)
    gate.set()
    at_rest(cache)
    assert cache.get_or_set("k", loader) == "late"
    assert loader.calls == 1


# Refresh ahead


def test_refresh_ahead(make: Make, clock: ManualClock) -> None:
    """Past the share of the TTL one reader sets off one load, and nobody waits; unread keys just expire."""
    cache = make()
    gate = threading.Event()
    loader = Loader("old", "new", gate=gate)
    gate.set()
    cache.get_or_set("used", loader, 100, refresh_ahead=0.8)
    cache.get_or_set("unused", lambda: 1, 100, refresh_ahead=0.8)
    clock.advance(79)
    assert cache.get_or_set("used", loader, 100, refresh_ahead=0.8) == "old"
    assert loader.calls == 1
    clock.advance(1)
    gate.clear()
    assert [cache.get_or_set("used", loader, 100, refresh_ahead=0.8) for _ in range(10)] == ["old"] * 10
    assert cache.get("used") == "old"
    gate.set()
    at_rest(cache)
    assert loader.calls == 2
    assert cache.get("used") == "new"
    assert cache.ttl("used") == 100
    clock.advance(20)
    assert "unused" not in cache


def test_refresh_ahead_that_fails(make: Make, clock: ManualClock) -> None:
    """The value stays until its TTL ends, and the attempt is repeated after `retry_after`."""
    cache = make(retry_after=5)
    loader = Loader("old", OSError("down"))
    cache.get_or_set("k", loader, 100, refresh_ahead=0.8)
    clock.advance(80)
    for second in range(19):
        assert cache.get_or_set("k", loader, 100, refresh_ahead=0.8) == "old"
        at_rest(cache)
        assert loader.calls == 2 + second // 5
        clock.advance(1)


# The context


def test_context(make: Make, clock: ManualClock) -> None:
    """A loader sets the TTL, adds tags, and finds the older value."""
    cache = make(stale_ttl=60)
    seen: list[Any] = []

    def load(context: LoaderContext) -> str:
        seen.append((context.key, context.has_stale, context.stale, context.stale_etag, context.ttl_sec))
        context.ttl_sec = 7
        context.etag = "e1"
        context.add_tags("from inside")
        return "value"

    cache.get_or_set("k", load, 5, soft_timeout=NEVER)
    assert cache.ttl("k") == 7
    clock.advance(7)
    cache.get_or_set("k", load, 5, soft_timeout=NEVER)
    assert [one[1:] for one in seen][1] == (True, "value", "e1", 5)
    assert seen[0][0] == "k"
    cache.invalidate_tags("from inside")
    assert "k" not in cache


def test_not_modified(make: Make, clock: ManualClock) -> None:
    """The older value goes on, with a new TTL; without one it is an error that says so."""
    cache = make(stale_ttl=60, soft_timeout=NEVER)
    cache.get_or_set("k", lambda: {"a": 1}, 5)
    clock.advance(5)
    assert cache.get_or_set("k", lambda context: context.not_modified(), 5) == {"a": 1}
    assert cache.ttl("k") == 5
    with pytest.raises(RuntimeError, match="has_stale"):
        cache.get_or_set("other", lambda context: context.not_modified())


def test_value_that_is_handed_out_only(make: Make) -> None:
    """`dont_store`: those who wait get it, and the next one loads."""
    cache = make()

    def load(context: LoaderContext) -> int:
        context.dont_store()
        return 1

    assert cache.get_or_set("k", load) == 1
    assert "k" not in cache


class Handler(BaseHTTPRequestHandler):
    """Answers with 304 to whoever has the present version."""

    version = "1"
    answers: list[int]

    def do_GET(self) -> None:
        fresh = self.headers.get("If-None-Match") != self.version
        self.send_response(200 if fresh else 304)
        self.answers.append(200 if fresh else 304)
        self.send_header("ETag", self.version)
        body = f"version {self.version}".encode() if fresh else b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


def test_revalidation_against_a_real_server(make: Make, clock: ManualClock) -> None:
    """A page that didn't change is not sent again; one that did is."""
    answers: list[int] = []
    handler = type("OneServer", (Handler,), {"answers": answers})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        cache = make(stale_ttl=60, soft_timeout=NEVER)

        def load(context: LoaderContext) -> Any:
            connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
            headers = {"If-None-Match": context.stale_etag} if context.stale_etag else {}
            connection.request("GET", "/", headers=headers)
            response = connection.getresponse()
            body = response.read().decode()
            connection.close()
            if response.status == 304:
                return context.not_modified()
            context.etag = response.getheader("ETag")
            return body

        for version, expected in [("1", 200), ("1", 304), ("1", 304), ("2", 200), ("2", 304)]:
            handler.version = version
            assert cache.get_or_set("page", load, 5) == f"version {version}"
            assert answers[-1] == expected
            clock.advance(5)
        assert len(answers) == 5
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# Wrong words


@pytest.mark.parametrize(
    ("options", "error", "part"),
    [
        ({"stale": 5}, TypeError, "stale_ttl"),
        ({"tags": "user:7"}, TypeError, "tags="),
        ({"tags": [7]}, TypeError, "a tag is a string"),
        ({"refresh_ahead": 1.5}, ValueError, "refresh_ahead"),
        ({"jitter": -1}, ValueError, "jitter"),
        ({"sliding": "yes"}, TypeError, "sliding"),
        ({"soft_timeout": -1}, ValueError, "soft_timeout"),
        ({"hard_timeout": 0}, ValueError, "hard_timeout"),
        ({"lease": NEVER}, ValueError, "lease"),
    ],
)
def test_wrong_options(make: Make, options: dict[str, Any], error: type[Exception], part: str) -> None:
    """The error names the option and what it may be, and nothing is loaded."""
    cache = make()
    loader = Loader(1)
    with pytest.raises(error, match=part):
        cache.get_or_set("k", loader, **options)
    assert loader.calls == 0


def test_loader_that_is_none(make: Make) -> None:
    """A value where a function should be is an error that shows what to write."""
    wrong: Any = 5
    with pytest.raises(TypeError, match="lambda: 5"):
        make().get_or_set("k", wrong)


def test_wrong_settings() -> None:
    """As with all settings."""
    for field, value in [
        ("refresh_ahead", 1.5),
        ("jitter", 2),
        ("lease", 0),
        ("stale_ttl", -1),
        ("version", 5),
    ]:
        settings: dict[str, Any] = {field: value}
        with pytest.raises(ConfigError, match=field):
            QuickCacheConfig(**settings)


# Costs


def test_invalidating_a_tag_looks_at_no_entry() -> None:
    """However many entries carry it: the table isn't touched until somebody meets them."""

    class Untouchable(dict):  # type: ignore[type-arg]
        def _refuse(self, *args: Any) -> Any:
            raise AssertionError("an entry was looked at")

        __iter__ = __getitem__ = get = values = items = keys = pop = _refuse  # type: ignore[assignment]

    cache = QuickCache(QuickCacheConfig(max_size=100_000, default_ttl=None))
    cache.set_many({f"k{n}": n for n in range(50_000)}, tags=["common"])
    table = cache._bottom._table  # type: ignore[union-attr]
    real, table.entries = table.entries, Untouchable(table.entries)
    cache.invalidate_tags("common")
    table.entries = real
    assert cache.get_many(f"k{n}" for n in range(50_000)) == {}


def test_event_loop_is_never_blocked(make: Make) -> None:
    """While 200 loads of plain functions wait for what only the loop will give, the loop goes round."""
    cache = make()
    gate = threading.Event()
    turns = 0

    async def main() -> None:
        nonlocal turns
        loads = [asyncio.ensure_future(cache.aget_or_set(f"k{n}", Loader(n, gate=gate))) for n in range(200)]
        for _ in range(100):
            await asyncio.sleep(0)
            turns += 1
        # Had one of them been called here, the loop would stand still now.
        gate.set()
        assert await asyncio.gather(*loads) == list(range(200))

    asyncio.run(main())
    assert turns == 100


def test_expiry_callback_without_a_reader() -> None:
    """A listener is told by the background thread."""
    cache = QuickCache(QuickCacheConfig(cleanup_interval=0.02))
    told = threading.Event()
    cache.subscribe(
        lambda event: told.set() if event.cause is RemovalCause.EXPIRED else None, EventKind.REMOVED
    )
    cache.set("k", 1, 0.05)
    assert told.wait(30)
    cache.stop()


def test_waiting_is_over_with_the_lease(make: Make) -> None:
    """Who has waited long enough for another's load does it alone."""
    cache = make(lease=0.05)
    gate = threading.Event()
    slow = Loader("slow", gate=gate)
    thread = threading.Thread(target=cache.get_or_set, args=("k", slow))
    thread.start()
    assert slow.began.wait(30)
    began = time.monotonic()
    assert cache.get_or_set("k", lambda: "own") == "own"
    assert time.monotonic() - began >= 0.05
    gate.set()
    thread.join()
    assert cache.get("k") == "own"
