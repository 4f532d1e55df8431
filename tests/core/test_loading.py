"""How a miss is filled: options, what a loader may say, failures, refreshes, tags, namespaces."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from quickcache_core import (
    MISSING,
    NEVER,
    EventKind,
    InvalidTTL,
    QuickCache,
    SerializationError,
    ValueTooLarge,
)
from quickcache_core.entry import FOREVER
from quickcache_core.errors import LoaderTimeout
from quickcache_core.loading.context import LoaderContext, is_asynchronous, prepared
from quickcache_core.loading.filler import Start
from quickcache_core.loading.load import carry_out
from quickcache_core.loading.options import LoadArguments, LoadOptions, check_names
from quickcache_core.testing import ManualClock
from tests.core.loading_tools import (
    PATIENCE,
    Loader,
    at_rest,
    counters,
    flights,
    make_cache,
    pool,
    store_of,
    until,
)

Make = Callable[..., QuickCache]
TTL, STALE = 10.0, 100.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "shared"])
def make(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[Make]:
    made: list[QuickCache] = []

    def one(**settings: Any) -> QuickCache:
        made.append(cache := make_cache(request.param, tmp_path, clock=clock, **settings))
        return cache

    yield one
    for cache in made:
        cache.stop()


@pytest.fixture
def cache(make: Make) -> QuickCache:
    return make()


def stale(cache: QuickCache, clock: ManualClock, value: Any = "older") -> None:
    """Put a stale value there."""
    cache.set("k", value, TTL, stale_ttl=STALE)
    clock.advance(TTL + 1)


# What a caller may say

GOOD: list[tuple[str, Any, Any]] = [
    ("stale_ttl", 5, 5.0),
    ("stale_ttl", 0, 0.0),
    ("stale_ttl", timedelta(minutes=1), 60.0),
    ("stale_ttl", NEVER, FOREVER),
    ("tags", ["a", "b"], ("a", "b")),
    ("tags", (), ()),
    ("tags", (tag for tag in "ab"), ("a", "b")),
    ("tag_prefix", "shop/", "shop/"),
    ("sliding", True, True),
    ("max_age", 5, 5.0),
    ("refresh_ahead", 0.5, 0.5),
    ("jitter", 0, 0.0),
    ("jitter", 0.99, 0.99),
    ("soft_timeout", 0.5, 0.5),
    ("soft_timeout", 0, 0.0),
    ("soft_timeout", NEVER, FOREVER),
    ("hard_timeout", 0.5, 0.5),
    ("hard_timeout", NEVER, FOREVER),
    ("retry_after", 0, 0.0),
    ("skip_none", False, False),
    ("single_flight", False, False),
    ("lease", 1, 1.0),
]
BAD: list[tuple[str, Any]] = [
    ("stale_ttl", -1),
    ("stale_ttl", "1"),
    ("stale_ttl", False),
    ("tags", "user:7"),
    ("tags", b"user:7"),
    ("tags", [7]),
    ("tags", 7),
    ("sliding", 1),
    ("max_age", 0),
    ("refresh_ahead", 0),
    ("refresh_ahead", 1),
    ("refresh_ahead", "0.5"),
    ("refresh_ahead", True),
    ("jitter", 1),
    ("jitter", -0.1),
    ("jitter", False),
    ("soft_timeout", -1),
    ("hard_timeout", 0),
    ("retry_after", -1),
    ("skip_none", "yes"),
    ("single_flight", 0),
    ("lease", NEVER),
    ("lease", 0),
]


@pytest.mark.parametrize(("name", "value", "meant"), GOOD)
def test_options(name: str, value: Any, meant: Any) -> None:
    """Durations become seconds; None is as the cache is configured."""
    usual = LoadOptions(ttl=60.0)
    changed = usual.changed(None, {name: value})
    assert getattr(changed, name) == meant
    assert type(getattr(changed, name)) is type(meant)
    assert usual.changed(None, {name: None}) is usual


@pytest.mark.parametrize(("name", "value"), BAD)
def test_bad_options(cache: QuickCache, name: str, value: Any) -> None:
    """An error that names the option and the value, before anything is loaded."""
    loader = Loader("value")
    options: Any = {name: value}
    with pytest.raises((InvalidTTL, TypeError, ValueError), match=f"{name}="):
        cache.get_or_set("k", loader, **options)
    assert loader.calls == 0
    assert len(flights(cache)) == 0


def test_unknown_options(cache: QuickCache) -> None:
    """The error lists what there is; every option of the signature is one."""
    with pytest.raises(TypeError, match="unknown option 'stale'; there are stale_ttl, tags"):
        cache.get_or_set("k", lambda: 1, stale=5)  # type: ignore[call-arg]
    check_names(dict.fromkeys(LoadArguments.__annotations__))
    assert set(LoadArguments.__annotations__) == {name for name, *_ in GOOD}
    with pytest.raises(TypeError, match="give a function that computes the value, such as lambda: 'value'"):
        cache.get_or_set("k", "value")  # type: ignore[arg-type]


def test_ttl_of_a_loaded_value(make: Make, clock: ManualClock) -> None:
    """That of the call, else that of the cache."""
    cache = make(default_ttl=60)
    cache.get_or_set("a", lambda: 1)
    cache.get_or_set("b", lambda: 1, 5)
    cache.get_or_set("c", lambda: 1, NEVER)
    assert (cache.ttl("a"), cache.ttl("b"), cache.ttl("c")) == (60.0, 5.0, None)
    with pytest.raises(InvalidTTL):
        cache.get_or_set("d", lambda: 1, -1)


def test_options_of_the_cache(make: Make, clock: ManualClock) -> None:
    """Hold for calls that say nothing; a call may say otherwise."""
    cache = make(default_ttl=TTL, stale_ttl=STALE, retry_after=7)
    cache.set("k", "older")
    clock.advance(TTL + 1)
    failing = Loader(OSError("down"))
    assert cache.get_or_set("k", failing) == "older"
    at_rest(cache)
    clock.advance(6)
    assert cache.get_or_set("k", failing) == "older"
    assert failing.calls == 1
    clock.advance(2)
    assert cache.get_or_set("k", failing, retry_after=0) == "older"
    at_rest(cache)
    assert failing.calls == 2


def test_hit(cache: QuickCache) -> None:
    """Nothing is loaded, and one get is counted."""
    assert cache.get_or_set("k", lambda: "value") == "value"
    before = cache.metrics()
    loader = Loader("other")
    assert cache.get_or_set("k", loader) == "value"
    after = cache.metrics()
    assert (after.hits - before.hits, after.misses - before.misses, loader.calls) == (1, 0, 0)


def test_what_is_counted(cache: QuickCache, clock: ManualClock) -> None:
    """A miss is a miss, a stale value served at once is a hit; a namespace counts for the whole, too."""
    part = cache.namespace("n")
    part.get_or_set("k", lambda: 1, TTL, stale_ttl=STALE)
    assert (cache.metrics().hits, cache.metrics().misses) == (0, 1)
    clock.advance(TTL + 1)
    part.get_or_set("k", Loader(OSError("down")), TTL, stale_ttl=STALE)
    at_rest(cache)
    assert (cache.metrics().hits, cache.metrics().misses) == (1, 1)
    clock.advance(6)
    part.get_or_set("k", lambda: 2, TTL, stale_ttl=STALE, soft_timeout=PATIENCE)
    assert (cache.metrics().hits, cache.metrics().misses) == (1, 2)
    for one in (counters(part), counters(cache)):
        assert (one.loads, one.load_failures, one.stale_hits, one.load_waits) == (3, 1, 1, 0)


def test_loaded_values_are_heard_of(cache: QuickCache) -> None:
    """As those that were set."""
    heard: list[Any] = []
    cache.subscribe(lambda event: heard.append((event.kind, event.key)), [EventKind.SET, EventKind.MISS])
    cache.get_or_set("k", lambda: 1)
    cache.get_or_set("k", lambda: 1)
    assert heard == [(EventKind.MISS, "k"), (EventKind.SET, "k")]


def test_switched_off(cache: QuickCache) -> None:
    """Every call loads, and nothing is stored."""
    loader = Loader("first", "second")
    with cache.disabled():
        assert cache.get_or_set("k", loader) == "first"
        assert cache.get_or_set("k", loader, hard_timeout=PATIENCE, tags=["tag"], stale_ttl=5) == "second"
    assert "k" not in cache
    at_rest(cache)


def test_isolation_of_loaded_values(make: Make) -> None:
    """Each caller gets an object of its own, the one who loaded as well."""
    cache = make(isolation="auto", serializer="pickle", allow_unsigned_pickle=True)
    source = {"list": [1]}
    first = cache.get_or_set("k", lambda: source)
    first["list"].append(2)
    source["list"].append(3)
    assert cache.get_or_set("k", lambda: None) == {"list": [1]}


def test_value_that_cannot_be_stored(make: Make) -> None:
    """The error goes to all; nothing is stored or left."""
    cache = make(isolation="copy", serializer="json")
    with pytest.raises(SerializationError, match="key 'k'"):
        cache.get_or_set("k", lambda: object())
    assert len(flights(cache)) == 0


@pytest.mark.parametrize("oversized", ["raise", "skip"])
def test_value_that_is_too_large(make: Make, oversized: str) -> None:
    """By option it is an error, or handed out only."""
    cache = make(max_bytes=1_000_000, oversized=oversized)
    load = functools.partial(str.__mul__, "x", 2_000_000)
    if oversized == "raise":
        with pytest.raises(ValueTooLarge):
            cache.get_or_set("k", load)
    else:
        assert len(cache.get_or_set("k", load)) == 2_000_000
    assert "k" not in cache


# None, failures, limits


def test_none(cache: QuickCache, clock: ManualClock) -> None:
    """Is a value, unless it is skipped; then it also ends a stale one."""
    loader = Loader(None)
    for _ in range(2):
        assert cache.get_or_set("stored", loader) is None
    assert loader.calls == 1
    for _ in range(2):
        assert cache.get_or_set("skipped", loader, skip_none=True) is None
    assert loader.calls == 3
    stale(cache, clock)
    assert cache.get_or_set("k", loader, skip_none=True, soft_timeout=PATIENCE) is None
    assert store_of(cache).look("k") is None


def test_source_is_down(cache: QuickCache, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """No error while there is a stale value: each `retry_after` one attempt; then the error."""
    stale(cache, clock)
    loader = Loader(OSError("secret key"))
    for n in range(60):
        assert cache.get_or_set("k", loader, TTL, stale_ttl=STALE, retry_after=10) == "older", n
        at_rest(cache)
        clock.advance(1)
    assert loader.calls == 6
    clock.advance(STALE)
    with pytest.raises(OSError, match="secret"):
        cache.get_or_set("k", loader, TTL, stale_ttl=STALE)
    warnings = [one for one in caplog.records if one.levelno >= logging.INFO]
    assert [one.getMessage() for one in warnings] == [
        "A loader failed (OSError); older values are served, and each is tried again in 10 s"
    ]
    assert not warnings[0].exc_info


def test_source_is_back(cache: QuickCache, clock: ManualClock) -> None:
    """The next attempt brings the new value, and life begins anew."""
    stale(cache, clock)
    loader = Loader(OSError("down"), "newer")
    options: dict[str, Any] = {"stale_ttl": STALE, "retry_after": 10, "soft_timeout": PATIENCE}
    assert cache.get_or_set("k", loader, TTL, **options) == "older"
    clock.advance(10)
    assert cache.get_or_set("k", loader, TTL, **options) == "newer"
    assert cache.ttl("k") == TTL


def test_stale_value_is_for_loaders_only(cache: QuickCache, clock: ManualClock) -> None:
    """For everything else it has expired."""
    stale(cache, clock)
    assert cache.get("k", "nothing") == "nothing"
    assert "k" not in cache
    assert cache.get_many(["k"]) == {}


def test_nothing_stale_unless_asked(cache: QuickCache, clock: ManualClock) -> None:
    """By default a value ends with its TTL."""
    cache.get_or_set("k", lambda: "older", TTL)
    clock.advance(TTL + 1)
    with pytest.raises(OSError, match="down"):
        cache.get_or_set("k", Loader(OSError("down")), TTL)


def test_limit_and_late_value(cache: QuickCache) -> None:
    """The error says what to do; the load completes in the background."""
    loader = Loader("late", gate=threading.Event())
    with pytest.raises(LoaderTimeout, match="set stale_ttl") as caught:
        cache.get_or_set("k", loader, hard_timeout=0.01)
    assert (caught.value.key, caught.value.seconds, caught.value.code) == ("k", 0.01, "LOADER_TIMEOUT")
    assert isinstance(caught.value, TimeoutError)
    assert loader.gate is not None
    loader.gate.set()
    until(lambda: cache.get("k", None) == "late")
    assert loader.calls == 1


def test_timeout_error_of_a_loader(cache: QuickCache) -> None:
    """One that it raises itself is an error as others."""
    for options in ({}, {"hard_timeout": PATIENCE}):
        with pytest.raises(TimeoutError, match="own"):
            cache.get_or_set("k", Loader(TimeoutError("its own")), **options)  # type: ignore[arg-type]
    assert counters(cache).load_failures == 2


# Ahead of the end


def test_refresh_ahead(cache: QuickCache, clock: ManualClock) -> None:
    """From its share of the TTL on, a reader gets the value at once and sets off one load behind it."""
    gate = threading.Event()
    loader = Loader("first", "second", gate=gate)
    gate.set()
    options: dict[str, Any] = {"refresh_ahead": 0.5}
    assert cache.get_or_set("k", loader, TTL, **options) == "first"
    clock.advance(4.9)
    assert cache.get_or_set("k", loader, TTL, **options) == "first"
    assert loader.calls == 1
    clock.advance(0.2)
    gate.clear()
    with pool() as threads:
        asked = [threads.submit(cache.get_or_set, "k", loader, TTL, **options) for _ in range(50)]
        assert {one.result(PATIENCE) for one in asked} == {"first"}
    gate.set()
    until(lambda: cache.get("k") == "second")
    at_rest(cache)
    assert loader.calls == 2
    assert cache.ttl("k") == TTL


def test_refresh_ahead_of_what_nobody_reads(cache: QuickCache, clock: ManualClock) -> None:
    """Nothing is loaded: it expires."""
    loader = Loader("value")
    cache.get_or_set("k", loader, TTL, refresh_ahead=0.5)
    clock.advance(TTL + 1)
    cache.cleanup()
    assert "k" not in cache
    assert loader.calls == 1


def test_refresh_ahead_that_fails(cache: QuickCache, clock: ManualClock) -> None:
    """The value stays until its TTL ends, and is tried again after `retry_after`."""
    loader = Loader("value", OSError("down"))
    options: dict[str, Any] = {"refresh_ahead": 0.1, "retry_after": 3}
    cache.get_or_set("k", loader, TTL, **options)
    for _ in range(9):
        clock.advance(1)
        assert cache.get_or_set("k", loader, TTL, **options) == "value"
        at_rest(cache)
    assert loader.calls == 1 + 3
    clock.advance(2)
    with pytest.raises(OSError, match="down"):
        cache.get_or_set("k", loader, TTL, **options)


def test_jitter(cache: QuickCache) -> None:
    """TTLs are shortened by that share at most, and not all by the same."""
    for n in range(200):
        cache.get_or_set(f"k{n}", lambda: 1, 100, jitter=0.25)
    ttls = [cache.ttl(f"k{n}") or 0.0 for n in range(200)]
    assert 75.0 <= min(ttls) < 80.0
    assert 95.0 < max(ttls) <= 100.0
    cache.get_or_set("never", lambda: 1, NEVER, jitter=0.25)
    assert cache.ttl("never") is None


def test_refresh(cache: QuickCache, clock: ManualClock) -> None:
    """Loads whatever is there; if that fails, what was there stays."""
    assert cache.refresh("k", lambda: 1, TTL) == 1
    assert cache.refresh("k", lambda: 2, TTL) == 2
    with pytest.raises(OSError, match="down"):
        cache.refresh("k", Loader(OSError("down")), TTL)
    assert cache.get("k") == 2


def test_sliding(cache: QuickCache, clock: ManualClock) -> None:
    """A loaded entry that is read outlives its TTL, and ends at `max_age`."""
    loader = Loader("first", "second")
    options: dict[str, Any] = {"sliding": True, "max_age": 35}
    for _ in range(5):
        assert cache.get_or_set("k", loader, TTL, **options) == "first"
        clock.advance(7)
    clock.advance(0.1)
    assert cache.get_or_set("k", loader, TTL, **options) == "second"


# What a loader may know and say


def test_context(cache: QuickCache, clock: ManualClock) -> None:
    """TTL, tags, ETag and the time to be kept stale may be set from inside."""
    seen: list[Any] = []

    def load(context: LoaderContext) -> str:
        seen.append((context.key, context.ttl_sec, context.tags, context.has_stale, context.stale))
        context.ttl_sec = timedelta(seconds=20)
        context.add_tags("b")
        context.keep_stale_for(50)
        context.etag = "v1"
        return "value"

    assert cache.get_or_set("k", load, 5, tags=["a"]) == "value"
    assert seen == [("k", 5.0, ("a",), False, MISSING)]
    assert cache.ttl("k") == 20.0
    clock.advance(21)
    found = store_of(cache).look("k")
    assert found is not None
    assert (found.is_fresh, found.etag) == (False, "v1")

    def again(context: LoaderContext) -> str:
        seen.append((context.has_stale, context.stale, context.stale_etag, context.etag))
        context.ttl_sec = NEVER
        return "newer"

    assert cache.get_or_set("k", again, 5, tags=["a"], soft_timeout=PATIENCE) == "newer"
    assert seen[1:] == [(True, "value", "v1", None)]
    assert cache.ttl("k") is None
    cache.invalidate_tags("a")
    assert "k" not in cache


def test_context_tags_are_checked(cache: QuickCache) -> None:
    """A string would be taken for one tag a letter."""

    def load(context: LoaderContext) -> int:
        context.tags = "user:7"  # type: ignore[assignment]
        return 1

    with pytest.raises(TypeError, match="tags='user:7'"):
        cache.get_or_set("k", load)
    with pytest.raises(TypeError, match="a tag is a string"):
        cache.get_or_set("k", lambda context: context.add_tags(7))
    with pytest.raises(InvalidTTL):
        cache.get_or_set("k", lambda context: setattr(context, "ttl_sec", 0))


def test_dont_store(cache: QuickCache, clock: ManualClock) -> None:
    """The value is handed out, and what is in the cache stays as it is."""

    def load(context: LoaderContext) -> str:
        context.dont_store()
        return "handed out"

    assert cache.get_or_set("k", load) == "handed out"
    assert "k" not in cache
    stale(cache, clock)
    assert cache.get_or_set("k", load, soft_timeout=PATIENCE) == "handed out"
    found = store_of(cache).look("k")
    assert found is not None
    assert found.stored == "older"


def test_not_modified_without_a_value(cache: QuickCache) -> None:
    """An error that says what to look at."""
    with pytest.raises(RuntimeError, match="has_stale"):
        cache.get_or_set("k", lambda context: context.not_modified())


def test_deleted_value_is_not_offered(cache: QuickCache, clock: ManualClock) -> None:
    """A loader that comes after a delete has nothing to keep."""
    stale(cache, clock)
    seen: list[bool] = []

    def load(context: LoaderContext) -> str:
        seen.append(context.has_stale)
        return "newer"

    moves = cache._filler._moves("k", load, store_of(cache).look("k"), TTL, {"soft_timeout": PATIENCE})
    start = next(moves)
    cache.delete_many(["k"])
    assert isinstance(start, Start)
    carry_out(start.load)
    assert seen == [False]
    moves.close()


class Page(BaseHTTPRequestHandler):
    """Knows ETags."""

    content, etag = b"first", '"1"'
    statuses: list[int]

    def do_GET(self) -> None:
        status = 304 if self.headers.get("If-None-Match") == self.etag else 200
        self.statuses.append(status)
        self.send_response(status)
        self.send_header("ETag", self.etag)
        self.end_headers()
        if status == 200:
            self.wfile.write(self.content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served(page: type[Page]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def test_revalidation_over_http(cache: QuickCache, clock: ManualClock) -> None:
    """A page that didn't change isn't sent again, however often its TTL ends; one that did, is."""

    class Served(Page):
        statuses: list[int] = []  # noqa: RUF012

    with served(Served) as url:

        def fetch(context: LoaderContext) -> str:
            headers = {"If-None-Match": context.stale_etag} if context.stale_etag else {}
            try:
                with urlopen(Request(url, headers=headers)) as answer:
                    context.etag = answer.headers["ETag"]
                    return str(answer.read().decode())
            except HTTPError as error:
                with error:
                    if error.code != 304:
                        raise
                return str(context.not_modified())

        for _ in range(3):
            for _ in range(2):
                assert cache.get_or_set("k", fetch, TTL, stale_ttl=STALE, soft_timeout=PATIENCE) == "first"
            clock.advance(TTL + 1)
        Served.content, Served.etag = b"second", '"2"'
        for _ in range(2):
            assert cache.get_or_set("k", fetch, TTL, stale_ttl=STALE, soft_timeout=PATIENCE) == "second"
    assert Served.statuses == [200, 304, 304, 200]


class Callable0:
    def __call__(self) -> str:
        return "no argument"

    def method(self) -> str:
        return "no argument"

    def method1(self, context: LoaderContext) -> str:
        return context.key


class AsyncCallable:
    async def __call__(self) -> str:
        return "value"


async def coroutine_function() -> str:
    return "value"


@pytest.mark.parametrize(
    ("loader", "value"),
    [
        (lambda: "no argument", "no argument"),
        (lambda context: context.key, "k"),
        (lambda context, /: context.key, "k"),
        (lambda *, keyword="no argument": keyword, "no argument"),
        (lambda default="no argument": default, "no argument"),
        (lambda *arguments: len(arguments), 0),
        (lambda **arguments: len(arguments), 0),
        (functools.partial(lambda number: number, 7), 7),
        (functools.partial(lambda number, context: (number, context.key), 7), (7, "k")),
        (Callable0(), "no argument"),
        (Callable0().method, "no argument"),
        (Callable0().method1, "k"),
        (dict, {}),
        (list, []),
        (int, 0),
    ],
)
def test_loaders_with_and_without_an_argument(loader: Any, value: Any) -> None:
    """One with a positional parameter that has no default gets the context."""
    assert prepared(loader, LoaderContext("k", LoadOptions(60.0), None))() == value
    assert not is_asynchronous(loader)


def test_wrapped_loader() -> None:
    """What a decorator left counts, not its own `*args`."""

    def load(context: LoaderContext) -> str:
        return context.key

    @functools.wraps(load)
    def wrapper(*args: Any) -> str:
        return load(*args)

    assert prepared(wrapper, LoaderContext("k", LoadOptions(60.0), None))() == "k"


def test_asynchronous_loaders() -> None:
    """Coroutine functions, partial ones, and objects that are called like one."""
    for loader in (coroutine_function, functools.partial(coroutine_function), AsyncCallable()):
        assert is_asynchronous(loader)


# Where loads run


def test_thread_of_a_load(cache: QuickCache, clock: ManualClock) -> None:
    """The caller's, unless there is a limit or something stale; with the caller's context variables."""
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request")
    request.set("mine")

    def load() -> list[Any]:
        return [threading.current_thread().name, request.get(None)]

    here = threading.current_thread().name
    assert cache.get_or_set("a", load) == [here, "mine"]
    assert cache.get_or_set("b", load, hard_timeout=PATIENCE) == ["quickcache-loader", "mine"]
    stale(cache, clock)
    assert cache.get_or_set("k", load, TTL) == "older"
    until(lambda: cache.get("k", None) == ["quickcache-loader", "mine"])


def test_context_of_background_threads(make: Make) -> None:
    """`background_context` surrounds loads there, and only those; what it raises goes to those who wait."""
    entered: list[str] = []

    @contextmanager
    def around() -> Iterator[None]:
        entered.append("in")
        yield
        entered.append("out")

    cache = make(background_context=around)
    cache.get_or_set("a", lambda: entered.append("here"))
    assert entered == ["here"]
    cache.get_or_set("b", lambda: entered.append("there"), hard_timeout=PATIENCE)
    until(lambda: entered == ["here", "in", "there", "out"])

    @contextmanager
    def failing() -> Iterator[None]:
        raise OSError("no connection")
        yield

    cache = make(background_context=failing)
    with pytest.raises(OSError, match="no connection"):
        cache.get_or_set("c", lambda: 1, hard_timeout=PATIENCE)
    at_rest(cache)


# Tags, namespaces, versions


def test_tags_of_loaded_values(cache: QuickCache) -> None:
    """All entries with a tag leave, of a namespace its own only."""
    part = cache.namespace("n")
    for one in (cache, part):
        one.get_or_set("a", lambda: 1, tags=["red"])
        one.get_or_set("b", lambda: 1, tags=["red", "blue"])
        one.get_or_set("c", lambda: 1, tags=["blue"])
    part.invalidate_tags("red")
    assert [key in part for key in "abc"] == [False, False, True]
    assert [key in cache for key in "abc"] == [True, True, True]
    cache.invalidate_tags("blue")
    assert [key in cache for key in "abc"] == [True, False, False]
    assert "c" in part
    with pytest.raises(TypeError):
        cache.invalidate_tags(7)  # type: ignore[arg-type]


def test_invalidated_tag_ends_a_stale_value(cache: QuickCache, clock: ManualClock) -> None:
    """Nothing outdated is served because the source is down."""
    cache.set("k", "older", TTL, stale_ttl=STALE, tags=["tag"])
    clock.advance(TTL + 1)
    cache.invalidate_tags("tag")
    with pytest.raises(OSError, match="down"):
        cache.get_or_set("k", Loader(OSError("down")), TTL, stale_ttl=STALE)


def test_tag_invalidated_within_the_loader(cache: QuickCache) -> None:
    """A tag that the loader named itself counts, too."""

    def load(context: LoaderContext) -> str:
        context.add_tags("tag")
        cache.invalidate_tags("tag")
        return "value"

    assert cache.get_or_set("k", load) == "value"
    assert "k" not in cache


def test_versions(make: Make) -> None:
    """Each release sees its own values."""
    location = make().config.location or "memory://versions of loads"
    old, new = (make(location=location, version=version) for version in "12")
    assert old.get_or_set("k", lambda: "old") == "old"
    assert new.get_or_set("k", lambda: "new") == "new"
    assert (old.get("k"), new.get("k")) == ("old", "new")


@pytest.mark.parametrize("options", [{}, {"tags": ["t"]}], ids=["plain", "with tags"])
@pytest.mark.parametrize("oversized", ["raise", "skip"])
def test_writes_of_values_that_are_too_large(make: Make, oversized: str, options: dict[str, Any]) -> None:
    """By option each of them is an error or passes. The value isn't stored, nor is an older one left; all the
    others of many are stored.
    """
    cache = make(max_bytes=1_000_000, oversized=oversized)
    large = "x" * 2_000_000
    told: list[str] = []
    cache.subscribe(lambda event: told.append(event.key), [EventKind.SET])
    many = {"a": 1, "large": large, **{f"k{n}": n for n in range(100)}}

    def write(call: Callable[[], object]) -> None:
        with contextlib.nullcontext() if oversized == "skip" else pytest.raises(ValueTooLarge):
            assert not call()

    cache.set("large", "old")
    write(lambda: cache.set("large", large, **options))
    cache.set("updated", "old")
    write(lambda: cache.update("updated", large))
    write(lambda: cache.add("added", large, exist_ok=True))
    write(lambda: cache.add("added", large))
    cache.set("large", "old")
    told.clear()
    write(lambda: cache.set_many(many, **options))
    assert sorted(cache.keys()) == sorted(many.keys() - {"large"})
    assert cache.get_many(many) == {key: value for key, value in many.items() if key != "large"}
    assert oversized == "raise" or sorted(told) == sorted(many.keys() - {"large"})


def test_stale_values_leave_with_a_prefix(cache: QuickCache, clock: ManualClock) -> None:
    """They aren't counted, for nobody could get them; but who loads isn't given them any more."""
    for part in (cache, cache.namespace("part")):
        stale(part, clock)
        assert list(part.keys()) == []
        assert list(part.keys("k", stale=True)) == ["k"]
        assert part.delete_prefix("k") == 0
        assert part.get_or_set("k", lambda: "new", stale_ttl=STALE) == "new"
