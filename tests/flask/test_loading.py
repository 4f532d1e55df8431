"""Values that are computed when they are missing: `get_or_set`, tags and namespaces through the backend."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pickle import PicklingError
from typing import Any

import pytest
from cachelib.serializers import BaseSerializer, JSONSerializer
from flask import Flask, current_app, g, has_app_context
from flask_caching import Cache

from quickcache_core import InvalidTTL
from quickcache_core.loading.background import background
from quickcache_core.testing import ManualClock
from quickcache_flask import QuickCache

PATIENCE = 30.0
MakeBackend = Callable[..., QuickCache]


def until(condition: Callable[[], object]) -> None:
    """Wait for what a background thread is about to do."""
    ended = threading.Event()
    for _ in range(int(PATIENCE / 0.01)):
        if condition():
            return
        ended.wait(0.01)
    raise AssertionError("it never happened")


def at_rest() -> bool:
    """Whether no load is under way in the background."""
    return background._idle == background.thread_count


def fail() -> Any:
    raise OSError("down")


class Reversing(BaseSerializer):
    """Text backwards; gives up on everything else."""

    def dumps(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        return value[::-1] if isinstance(value, str) else None

    def loads(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        return data[::-1]


# get_or_set


@pytest.mark.parametrize("value", ["text", None, 0, [1, [2]]])
def test_missing_value(backend: QuickCache, value: Any) -> None:
    """What the loader gives is stored, None too; what is there is not replaced."""
    assert backend.get_or_set("k", lambda: value) == value
    assert backend.has("k")
    assert backend.get_or_set("k", lambda: "another") == value


@pytest.mark.parametrize(
    ("timeout", "ttl"), [(60, 60), (0.5, 0.5), (timedelta(minutes=1), 60), (0, None), (None, 300)], ids=str
)
def test_timeout(backend: QuickCache, timeout: Any, ttl: Any) -> None:
    """As with `set`: None is the default, 0 is never."""
    backend.get_or_set("k", lambda: 1, timeout)
    assert backend.engine.ttl("k") == (ttl and pytest.approx(ttl))


@pytest.mark.parametrize("operation", ["get_or_set", "refresh"])
def test_timeout_that_keeps_nothing(backend: QuickCache, operation: str) -> None:
    """With a negative one the value is computed each time and handed out, for each who asks."""
    together = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        asked = [
            pool.submit(getattr(backend, operation), "k", lambda: together.wait(PATIENCE), -1)
            for _ in range(2)
        ]
        assert sorted(one.result(PATIENCE) for one in asked) == [0, 1]
    assert not backend.has("k")


def test_one_call_for_all_who_ask(backend: QuickCache) -> None:
    """Twenty threads at once are one call."""
    begun, go = threading.Barrier(20), threading.Event()
    calls: list[int] = []

    def loader() -> str:
        calls.append(1)
        go.wait(PATIENCE)
        return "made"

    def ask() -> Any:
        begun.wait(PATIENCE)
        return backend.get_or_set("k", loader)

    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(ask) for _ in range(20)]
        until(lambda: backend.engine.metrics().load_waits == 19)
        go.set()
        assert [answer.result(PATIENCE) for answer in answers] == ["made"] * 20
    assert calls == [1]


def test_refresh(backend: QuickCache) -> None:
    """What is there is replaced, unless the loader fails."""
    backend.set("k", "old")
    with pytest.raises(OSError, match="down"):
        backend.refresh("k", fail)
    assert backend.get("k") == "old"
    assert backend.refresh("k", lambda: "new", 60) == backend.get("k") == "new"


def test_source_that_is_down(make_backend: MakeBackend, clock: ManualClock) -> None:
    """With `stale_ttl` the older value is served until that works again."""
    backend = make_backend(CACHE_DEFAULT_TIMEOUT=60, CACHE_QUICKCACHE_STALE_TTL=3600)
    assert backend.get_or_set("k", lambda: "first") == "first"
    clock.advance(61)
    assert backend.get("k") is None
    assert backend.get_or_set("k", fail) == "first"
    until(lambda: backend.engine.metrics().load_failures == 1 and at_rest())
    clock.advance(6)
    assert backend.get_or_set("k", lambda: "second") == "first"
    until(lambda: backend.get("k") == "second")


def test_value_that_cannot_be_stored(backend: QuickCache) -> None:
    """As cachelib says it, and as with `set`."""
    for operation in (backend.get_or_set, backend.refresh):
        with pytest.raises(PicklingError, match="'k'"):
            operation("k", threading.Lock)
    assert not backend.has("k")


def test_wrong_arguments(backend: QuickCache) -> None:
    """They are the core's, and so is what is said of them; a timeout is Flask-Caching's."""
    call: Any = backend.get_or_set
    with pytest.raises(TypeError, match="unknown option 'tag'; there are stale_ttl, tags"):
        call("k", lambda: 1, tag="t")
    with pytest.raises(TypeError, match="loader=5: give a function"):
        call("k", 5)
    with pytest.raises(TypeError, match="timeout='soon': give seconds or a timedelta"):
        call("k", lambda: 1, "soon")
    with pytest.raises(InvalidTTL, match="stale_ttl=-1"):
        call("k", lambda: 1, stale_ttl=-1)


# Under a custom serializer


def test_values_of_a_custom_serializer(make_backend: MakeBackend) -> None:
    """What is loaded is kept as `dumps` makes it, and handed out as `loads` does."""
    backend = make_backend(CACHE_SERIALIZER=Reversing())
    for operation in (backend.get_or_set, backend.refresh):
        backend.clear()
        assert operation("k", lambda: "abc") == backend.get("k") == "abc"
        assert backend.engine.get("k").data == "cba"
    assert backend.get_or_set("k", fail) == "abc"
    assert backend.get_or_set("n", lambda: 5) == backend.inc("n", 0) == 5


def test_serializer_that_gives_up(make_backend: MakeBackend) -> None:
    """The value is handed out only."""
    backend = make_backend(CACHE_SERIALIZER=Reversing())
    value = [1]
    assert backend.get_or_set("k", lambda: value) is value
    assert not backend.has("k")


def test_nothing_found_under_a_custom_serializer(make_backend: MakeBackend) -> None:
    """None is kept, unless `skip_none`."""
    backend = make_backend(CACHE_SERIALIZER=JSONSerializer())
    assert backend.get_or_set("skipped", lambda: None, skip_none=True) is None
    assert backend.get_or_set("kept", lambda: None) is None
    assert (backend.has("skipped"), backend.has("kept")) == (False, True)


def test_older_value_under_a_custom_serializer(make_backend: MakeBackend, clock: ManualClock) -> None:
    """A loader sees it as it was, and may say that it is still right."""
    backend = make_backend(CACHE_SERIALIZER=Reversing(), CACHE_QUICKCACHE_STALE_TTL=3600)

    def loader(context: Any) -> Any:
        assert (context.key, context.has_stale) == ("k", bool(seen))
        seen.append(context.stale)
        context.etag = "version 1"
        context.ttl_sec = 60
        return context.not_modified() if context.has_stale else "abc"

    seen: list[Any] = []
    assert backend.get_or_set("k", loader) == "abc"
    clock.advance(61)
    assert backend.get_or_set("k", loader, soft_timeout=PATIENCE) == "abc"
    assert (seen[1], backend.get("k")) == ("abc", "abc")
    assert backend.engine.ttl("k") == pytest.approx(60)


# Tags and namespaces


def test_tags(backend: QuickCache) -> None:
    """Entries of any kind leave with one of their tags."""
    backend.set("set", 1, tags=["a", "b"])
    assert backend.set_many({"many": 1}, 60, tags=["b"]) == ["many"]
    backend.get_or_set("made", lambda: 1, tags=["b"])
    backend.set("other", 1)
    backend.invalidate_tags("x", "a")
    assert backend.get_many("set", "many", "made") == [None, 1, 1]
    backend.invalidate_tags("b")
    assert backend.get_many("set", "many", "made", "other") == [None, None, None, 1]


def test_life(backend: QuickCache, clock: ManualClock) -> None:
    """`set` and `set_many` take the core's keywords."""
    backend.set("slides", 1, 10, sliding=True, max_age=25)
    backend.set_many({"stays": 1}, 10, stale_ttl=100)
    for _ in range(2):
        clock.advance(9)
        assert backend.get("slides") == 1
    assert backend.get_or_set("stays", fail, soft_timeout=PATIENCE) == 1
    clock.advance(9)
    assert backend.get("slides") is None


def loader_with_tags(context: Any) -> int:
    context.add_tags("said")
    return 1


def test_apps_that_share_a_store(location: str) -> None:
    """With prefixes of their own they have tags and namespaces of their own."""
    shop, blog = (QuickCache(location=location, key_prefix=f"{name}:") for name in ("shop", "blog"))
    keys = ("set", "many", "made")
    for tag in ("t", "said"):
        for backend in (shop, blog):
            backend.set("set", 1, tags=[tag])
            backend.set_many({"many": 1}, tags=[tag])
            backend.get_or_set("made", loader_with_tags, tags=["t"])
            backend.namespace("users").set("k", 1)
        shop.invalidate_tags(tag)
        assert (shop.get_many(*keys), blog.get_many(*keys)) == ([None] * 3, [1] * 3)
    shop.namespace("users").clear()
    assert (shop.namespace("users").get("k"), blog.namespace("users").get("k")) == (None, 1)
    blog.clear()
    assert blog.get("set") is None


def test_wrong_tags(location: str) -> None:
    """With a prefix or without, what is no list of strings is named."""
    for backend in (QuickCache(), QuickCache(location=location, key_prefix="p:")):
        for tags, said in (
            ("t", "give a list or tuple"),
            (5, "give a list or tuple"),
            ([5], "a tag is a string"),
        ):
            with pytest.raises(TypeError, match=said):
                backend.set("k", 1, tags=tags)
        with pytest.raises(TypeError, match="a tag is a string"):
            backend.invalidate_tags("t", 5)  # type: ignore[arg-type]


@pytest.fixture
def location(request: pytest.FixtureRequest) -> str:
    """A name that no other test has."""
    return str(request.node.nodeid)


def test_namespace(backend: QuickCache) -> None:
    """The whole interface, with entries and tags of its own."""
    users = backend.namespace("users")
    assert type(users) is QuickCache
    backend.set("k", "outside", tags=["t"])
    users.set("k", "inside", tags=["t"])
    users.set("n", 1)
    assert (backend.get("k"), users.get("k"), backend.namespace("users").get("k")) == (
        "outside",
        "inside",
        "inside",
    )
    users.invalidate_tags("t")
    assert (backend.get("k"), users.get("k"), users.get("n")) == ("outside", None, 1)
    users.clear()
    assert (backend.get("k"), users.get("n")) == ("outside", None)
    with pytest.raises(ValueError, match="namespace ''"):
        backend.namespace("")


# Applications


def test_load_in_the_background(app: Flask, make_backend: MakeBackend, clock: ManualClock) -> None:
    """It has an application context of its own, which ends with it; one in the request has the request's."""
    backend = make_backend(CACHE_DEFAULT_TIMEOUT=60, CACHE_QUICKCACHE_STALE_TTL=3600)
    seen: list[tuple[Any, Any, str]] = []
    ended: list[str] = []

    @app.teardown_appcontext
    def end(error: BaseException | None) -> None:
        ended.append(threading.current_thread().name)

    def loader() -> int:
        seen.append((current_app.name, g.get("owner"), threading.current_thread().name))
        return 1

    main = threading.current_thread().name
    with app.app_context():
        g.owner = "the request"
        backend.get_or_set("k", loader)
        clock.advance(61)
        backend.get_or_set("k", loader)
        until(lambda: ended)
    assert seen == [(app.name, "the request", main), (app.name, None, "quickcache-loader")]
    assert ended == ["quickcache-loader", main]


def test_context_of_ones_own(make_backend: MakeBackend) -> None:
    """`background_context` replaces it."""
    seen: list[bool] = []

    @contextmanager
    def noting() -> Iterator[None]:
        seen.append(has_app_context())
        yield

    backend = make_backend(CACHE_OPTIONS={"background_context": noting})
    assert backend.get_or_set("k", lambda: 1, hard_timeout=PATIENCE) == 1
    assert seen == [False]


def test_context_that_fails(make_backend: MakeBackend) -> None:
    """Those who wait hear of it, and the next one isn't kept waiting for what never began."""
    entered: list[int] = []

    @contextmanager
    def failing_once() -> Iterator[None]:
        entered.append(1)
        if len(entered) == 1:
            raise OSError("no context")
        yield

    backend = make_backend(CACHE_OPTIONS={"background_context": failing_once})
    with pytest.raises(OSError, match="no context"):
        backend.get_or_set("k", lambda: 1, hard_timeout=PATIENCE)
    assert backend.get_or_set("k", lambda: 1, hard_timeout=PATIENCE) == 1


def test_in_a_view(app: Flask, clock: ManualClock) -> None:
    """`cache.cache` is the backend of the current application."""
    cache = Cache(app, config={"CACHE_TYPE": "quickcache_flask.QuickCache", "CACHE_QUICKCACHE_CLOCK": clock})
    made = iter(range(10))

    @app.get("/")
    def index() -> str:
        return str(cache.cache.get_or_set("number", lambda: next(made), 60, tags=["numbers"]))

    client = app.test_client()
    assert [client.get("/").text for _ in range(2)] == ["0", "0"]
    with app.app_context():
        cache.cache.invalidate_tags("numbers")
    assert client.get("/").text == "1"
