"""`quickcache_flask.decorators.cached`: functions on top of a cache of Flask-Caching."""

from __future__ import annotations

import asyncio
import itertools
import threading
from pickle import PicklingError
from typing import Any

import pytest
from cachelib.serializers import BaseSerializer
from flask import Flask, request
from flask_caching import Cache
from markupsafe import Markup
from werkzeug.datastructures import MultiDict

from quickcache_core import ConfigError, InvalidTTL, UnstableArgument
from quickcache_core.fingerprint import stable_form
from quickcache_core.testing import ManualClock
from quickcache_flask import QuickCache
from quickcache_flask.decorators import cached

CACHE_TYPE = "quickcache_flask.QuickCache"

cache = Cache()
"""Initialised by each test, as in an application factory."""

count = itertools.count(1)


@pytest.fixture(autouse=True)
def _counting_from_one() -> None:
    global count
    count = itertools.count(1)


@cached(cache)
def number(a: Any, b: int = 2) -> int:
    return next(count)


@cached(cache, "user:{user_id}", timeout=60, tags=("user:{user_id}",))
def user(user_id: int, session: Any = None) -> list[int]:
    return [next(count)]


@cached(cache, timeout=-1)
def never(a: int) -> int:
    return next(count)


@cached(cache, namespace="reports")
def report(day: int) -> int:
    return next(count)


@cached(cache, "answer:{a}")
async def answer(a: int) -> dict[str, int]:
    return {"number": next(count)}


@cached(cache, "value:{name}")
def value(name: str) -> Any:
    return VALUES[name]


@cached(cache, "value:{name}")
async def avalue(name: str) -> Any:
    return VALUES[name]


VALUES = {"lock": threading.Lock(), "none": None, "five": 5, "list": [1]}


class Initials(BaseSerializer):
    """Keeps lists; gives up on everything else."""

    def dumps(self, value: Any) -> Any:
        return b"list" if isinstance(value, list) else None

    def loads(self, bvalue: Any) -> Any:
        return [f"from {bvalue.decode()}"]


def start(app: Flask, clock: ManualClock, **config: Any) -> QuickCache:
    cache.init_app(app, {"CACHE_TYPE": CACHE_TYPE, "CACHE_QUICKCACHE_CLOCK": clock, **config})
    backend = app.extensions["cache"][cache]
    assert isinstance(backend, QuickCache)
    return backend


def test_in_a_view(app: Flask, clock: ManualClock) -> None:
    """The cache of the app that handles the request is used; its default timeout holds."""
    start(app, clock, CACHE_DEFAULT_TIMEOUT=10)

    @app.get("/")
    def view() -> str:
        return str(number(request.args))

    client = app.test_client()
    paths = ("/?a=1", "/?a=1", "/?a=2", "/?a=1&a=2")
    assert [client.get(path).text for path in paths] == ["1", "1", "2", "3"]
    clock.advance(11)
    assert client.get("/?a=1").text == "4"


def test_apps_of_their_own(clock: ManualClock) -> None:
    """Each app has its own results."""
    seen = []
    for name in ("one", "two"):
        app = Flask(name)
        start(app, clock)
        with app.app_context():
            seen += [number(1), number(1)]
    assert seen == [1, 1, 2, 2]


def test_key_of_the_cache(app: Flask, clock: ManualClock) -> None:
    """A template's key is one of Flask-Caching: other code finds the result there, and may remove it."""
    start(app, clock, CACHE_OPTIONS={"location": "memory://test_key_of_the_cache"}, CACHE_KEY_PREFIX="mine_")
    with app.app_context():
        assert user(7) == cache.get("user:7") == [1]
        cache.delete("user:7")
        assert user(7) == [2]
        assert user.invalidate(7, session=object())
        assert cache.get("user:7") is None
        assert user(7) == [3]
        cache.clear()
        assert user(7) == [4]


def test_timeouts(app: Flask, clock: ManualClock) -> None:
    """A timeout of one's own; a negative one keeps nothing; the default may be changed."""
    backend = start(app, clock)
    with app.app_context():
        assert user(7) == [1]
        clock.advance(61)
        assert user(7) == [2]
        assert never(1) != never(1)
        backend.default_timeout = 10
        assert number(1) == number(1) == 5
        clock.advance(11)
        assert number(1) == 6


def test_invalidation(app: Flask, clock: ManualClock) -> None:
    """One call, all calls, a tag, a namespace, a refresh."""
    backend = start(app, clock)
    with app.app_context():
        assert [number(1), number(3), report(1)] == [1, 2, 3]
        assert number.invalidate(a=1)
        assert [number(1), number(3)] == [4, 2]
        number.invalidate_all()
        assert [number(1), number(3), report(1)] == [5, 6, 3]
        backend.namespace("reports").clear()
        assert report(1) == 7
        assert report.invalidate(1)
        assert user(7) == [8]
        backend.invalidate_tags("user:7")
        assert user(7) == [9]
        assert user.refresh(7) == user(7) == [10]
        user.invalidate_all()
        assert user(7) == [11]


def test_invalidation_with_a_prefix(app: Flask, clock: ManualClock) -> None:
    """In a store that has a name, tags and namespaces are those of the key prefix."""
    location = "memory://test_invalidation_with_a_prefix"
    backend = start(app, clock, CACHE_OPTIONS={"location": location}, CACHE_KEY_PREFIX="mine_")
    with app.app_context():
        assert [user(7), number(1), report(1)] == [[1], 2, 3]
        backend.engine.invalidate_tags("user:7")
        backend.engine.namespace("reports").clear()
        assert [user(7), number(1), report(1)] == [[1], 2, 3]
        backend.invalidate_tags("user:7")
        backend.namespace("reports").clear()
        assert [user(7), number(1), report(1)] == [[4], 2, 5]
        for function, expected in ((user, [6]), (number, 7), (report, 8)):
            argument = 7 if function is user else 1
            function.invalidate_all()
            assert function(argument) == function(argument) == expected


def test_coroutine_function(app: Flask, clock: ManualClock) -> None:
    """Awaited once for the same arguments."""
    start(app, clock)

    async def main() -> None:
        assert await answer(1) == await answer(1) == {"number": 1}
        assert await answer.arefresh(1) == {"number": 2}
        assert await answer.ainvalidate(1)
        assert await answer(1) == {"number": 3}

    with app.app_context():
        asyncio.run(main())


def test_coroutine_function_as_a_view(app: Flask, clock: ManualClock) -> None:
    """Flask knows that it has to be awaited."""
    start(app, clock)
    app.get("/<int:a>")(answer)
    client = app.test_client()
    assert [client.get(f"/{a}").json for a in (1, 1, 2)] == [{"number": one} for one in (1, 1, 2)]


def test_results_are_the_callers_own(app: Flask, clock: ManualClock) -> None:
    """Changing what one got changes nothing in the cache."""
    start(app, clock)
    with app.app_context():
        user(7).append(5)
        assert user(7) == [1]


def test_serializer_of_the_app(app: Flask, clock: ManualClock) -> None:
    """A custom serializer makes what is kept; what it gives up on is handed out, and not kept."""
    backend = start(app, clock)
    backend.serializer = Initials()
    with app.app_context():
        assert value("list") == ["from list"]
        assert cache.get("value:list") == ["from list"]
        assert [value("none"), value("five"), value("lock")] == [None, 5, VALUES["lock"]]
        assert cache.get("value:five") == 5
        assert not cache.has("value:lock")
        assert cache.has("value:none")
        assert value.refresh("list") == ["from list"]
        assert value.invalidate("list")
        assert asyncio.run(avalue("list")) == asyncio.run(avalue.arefresh("list")) == ["from list"]


def test_result_that_cannot_be_pickled(app: Flask, clock: ManualClock) -> None:
    """The error is the one of Flask-Caching's other methods, from every way in."""
    start(app, clock)
    with app.app_context():
        for call in (value, value.refresh):
            with pytest.raises(PicklingError):
                call("lock")
        for acall in (avalue, avalue.arefresh):
            with pytest.raises(PicklingError):
                asyncio.run(acall("lock"))


def test_types_of_flask() -> None:
    """Markup differs from text; query parameters count with all their values, in any order of names."""
    assert stable_form(Markup("a")) == stable_form(Markup("a")) != stable_form("a")
    forms = {
        stable_form(MultiDict(items)) for items in ([("a", 1)], [("a", 1), ("a", 2)], [("a", 2), ("a", 1)])
    }
    assert len(forms) == 3
    assert stable_form(MultiDict([("a", 1), ("b", 2)])) == stable_form(MultiDict([("b", 2), ("a", 1)]))


def test_unstable_argument(app: Flask, clock: ManualClock) -> None:
    """As everywhere, an error that names the argument."""
    start(app, clock)
    with app.app_context(), pytest.raises(UnstableArgument, match="'a'"):
        number(app)


def test_another_backend(app: Flask) -> None:
    """The error says what to set."""
    cache.init_app(app, {"CACHE_TYPE": "SimpleCache"})
    with app.app_context(), pytest.raises(RuntimeError, match=r"SimpleCache.*quickcache_flask\.QuickCache"):
        number(1)


def test_switched_off(app: Flask, clock: ManualClock) -> None:
    """A cache that is off lets each call through."""
    start(app, clock, CACHE_OPTIONS={"enabled": False})
    with app.app_context():
        assert [number(1), number(1)] == [1, 2]


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"key": "x:{z}"}, ConfigError),
        ({"stale_ttl": "soon"}, InvalidTTL),
        ({"ttl_sec": 5}, TypeError),
        ({"timeout": "soon"}, TypeError),
    ],
)
def test_mistakes(settings: dict[str, Any], error: type[Exception]) -> None:
    """They are found where the function is decorated."""
    with pytest.raises(error):
        cached(cache, **settings)(number.uncached)


def test_without_the_cache() -> None:
    """The first argument is the application's Cache."""
    with pytest.raises(TypeError, match=r"flask_caching\.Cache"):
        cached("user:{user_id}")  # type: ignore[arg-type]
