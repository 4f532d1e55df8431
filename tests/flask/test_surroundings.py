"""What views find in `g` behind a request, or for a HEAD; and what is torn down then."""

from __future__ import annotations

import datetime as dt
import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flask import Flask, Response, g, render_template_string, request
from flask.ctx import _AppCtxGlobals
from flask.testing import FlaskClient
from flask_caching import Cache

from quickcache_core import ConfigError
from quickcache_core.testing import ManualClock
from quickcache_flask import QuickCache, cached_view
from quickcache_flask.surroundings import Surroundings
from tests.flask.test_cached_view import eventually, seen


@pytest.fixture
def cache(app: Flask, clock: ManualClock) -> Cache:
    return Cache(app, config={"CACHE_TYPE": "quickcache_flask.QuickCache", "CACHE_QUICKCACHE_CLOCK": clock})


@pytest.fixture
def backend(app: Flask, cache: Cache) -> QuickCache:
    backend = app.extensions["cache"][cache]
    assert isinstance(backend, QuickCache)
    return backend


class Database:
    """As in Flask's tutorial: made where it is asked for, and closed by a teardown function."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.opened = self.closed = 0
        with sqlite3.connect(self.path) as connection:
            connection.execute("CREATE TABLE users (name TEXT)")
            connection.execute("INSERT INTO users VALUES ('ada')")
        connection.close()

    def connection(self) -> sqlite3.Connection:
        if "db" not in g:
            g.db = sqlite3.connect(self.path)
            g.db.row_factory = sqlite3.Row
            self.opened += 1
        connection: sqlite3.Connection = g.db
        return connection

    def user(self) -> Any:
        return self.connection().execute("SELECT name FROM users").fetchone()

    def close(self, error: BaseException | None) -> None:
        connection = g.pop("db", None)
        if connection is not None:
            connection.close()
            self.closed += 1


@pytest.fixture(params=["teardown_appcontext", "teardown_request"])
def database(request: pytest.FixtureRequest, app: Flask, tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "users.sqlite3")
    getattr(app, request.param)(database.close)
    yield database
    assert database.closed == database.opened


Stale = Callable[[], FlaskClient]


@pytest.fixture
def stale(app: Flask, clock: ManualClock) -> Stale:
    """Asks for the page, and again when it is stale, which has the view called behind the request."""

    def stale() -> FlaskClient:
        client = app.test_client()
        assert client.get("/page").headers["X-Cache"] == "MISS"
        clock.advance(61)
        assert client.get("/page").headers["X-Cache"] == "STALE"
        return client

    return stale


@pytest.fixture
def refreshed(stale: Stale) -> Callable[[], str]:
    """What that call made."""

    def refreshed() -> str:
        client = stale()
        eventually(lambda: client.get("/page").headers["X-Cache"] == "HIT")
        return client.get("/page").text

    return refreshed


Refreshed = Callable[[], str]


def test_connection_that_before_request_makes_for_a_head(
    app: Flask, cache: Cache, database: Database
) -> None:
    """The view shares it with the request, which goes on with it and closes it, once."""
    audited = []

    @app.before_request
    def connect() -> None:
        database.connection()

    @app.after_request
    def audit(response: Response) -> Response:
        audited.append(g.db.execute("SELECT name FROM users").fetchone()["name"])
        return response

    @app.get("/page")
    @cached_view(cache, 60, x_cache=True)
    def page() -> str:
        return f"{request.method} {g.db.execute('SELECT name FROM users').fetchone()['name']}"

    client = app.test_client()
    assert client.head("/page").headers["X-Cache"] == "MISS"
    assert audited == ["ada"]
    assert seen(client.get("/page")) == ("GET ada", "HIT")
    assert (database.opened, database.closed) == (2, 2)


def test_request_after_a_head(app: Flask, cache: Cache) -> None:
    """It is a HEAD again for what comes after the view, also after one that raised; what was put into it
    before the view is there.
    """
    seen_after = []

    @app.before_request
    def mark() -> None:
        request.mark = "marked"  # type: ignore[attr-defined]
        if request.method == "GET":
            return
        assert request.if_none_match  # which the request remembers

    @app.teardown_request
    def look(error: BaseException | None) -> None:
        seen_after.append((request.method, request.headers.get("If-None-Match"), bool(request.if_none_match)))

    @app.get("/<name>")
    @cached_view(cache, 60)
    def page(name: str) -> str:
        if name == "bad":
            raise ValueError(name)
        says = (request.method, request.headers.get("If-None-Match"), bool(request.if_none_match))
        return f"{says} {request.view_args} {request.mark}"  # type: ignore[attr-defined]

    client = app.test_client()
    client.head("/good", headers={"If-None-Match": '"x"'})
    with pytest.raises(ValueError, match="bad"):
        client.head("/bad", headers={"If-None-Match": '"x"'})
    assert seen_after == [("HEAD", '"x"', True)] * 2
    assert client.get("/good").text == "('GET', None, False) {'name': 'good'} marked"


def test_connection_of_a_refresh(app: Flask, cache: Cache, database: Database, refreshed: Refreshed) -> None:
    """The view makes one of its own, in its own thread, which is closed after it; the user that it shows is
    that of the request.
    """
    numbers = itertools.count(1)

    @app.before_request
    def load_user() -> None:
        g.user = database.user()

    @app.get("/page")
    @cached_view(cache, 60, stale_ttl=600, x_cache=True)
    def page() -> str:
        return f"{g.user['name']} {database.user()['name']} {next(numbers)}"

    assert refreshed() == "ada ada 2"


def test_connection_with_a_hard_timeout(app: Flask, cache: Cache, database: Database) -> None:
    """The view is called in another thread, beside the request, and makes one of its own as well."""
    app.before_request(lambda: database.user() and None)

    @app.get("/page")
    @cached_view(cache, 60, hard_timeout=10, x_cache=True)
    def page() -> str:
        return str(database.user()["name"])

    assert seen(app.test_client().get("/page")) == ("ada", "MISS")
    assert (database.opened, database.closed) == (2, 2)


def test_connection_of_a_fragment(app: Flask, cache: Cache, database: Database, clock: ManualClock) -> None:
    """What is rendered behind a request makes one of its own."""
    app.jinja_env.add_extension("quickcache_flask.fragments.QuickCacheExtension")
    numbers = itertools.count(1)

    @app.get("/page")
    def page() -> str:
        database.user()
        source = (
            "{% quickcache 60, 'box', stale=600 %}{{ user().name }} {{ next(numbers) }}{% endquickcache %}"
        )
        return render_template_string(source, user=database.user, next=next, numbers=numbers)

    client = app.test_client()
    client.get("/page")
    clock.advance(61)
    assert client.get("/page").text == "ada 1"
    eventually(lambda: client.get("/page").text == "ada 2")


class Point(NamedTuple):
    x: int
    y: int


DATA: list[Any] = [
    None,
    True,
    7,
    1.5,
    "text",
    b"bytes",
    Decimal("1.5"),
    dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
    Point(1, 2),
    {"id": 1, "roles": ["admin"], "of": ({1}, frozenset({2}))},
]


@pytest.mark.parametrize("value", DATA, ids=repr)
def test_data(value: Any, app: Flask, cache: Cache, refreshed: Refreshed) -> None:
    """It reaches a refresh."""
    numbers = itertools.count(1)
    app.before_request(lambda: setattr(g, "value", value))

    @app.get("/page")
    @cached_view(cache, 60, stale_ttl=600, x_cache=True)
    def page() -> str:
        return f"{g.value} {next(numbers)}"

    assert refreshed() == f"{value} 2"


def test_data_that_changes(app: Flask, cache: Cache, refreshed: Refreshed) -> None:
    """A refresh has a copy, whose changes the request doesn't see, nor it the request's."""
    lists = []
    app.before_request(lambda: setattr(g, "notes", {"deep": []}))

    @app.get("/page")
    @cached_view(cache, 60, stale_ttl=600, x_cache=True)
    def page() -> str:
        lists.append(g.notes["deep"])
        g.notes["deep"].append("view")
        return str(len(g.notes["deep"]))

    @app.after_request
    def note(response: Response) -> Response:
        g.notes["deep"].append("request")
        return response

    assert refreshed() == "1"
    assert lists == [["view", "request"], ["view"]]


class User:
    def __init__(self, name: str) -> None:
        self.name = name


ASKS: dict[str, Callable[[], object]] = {
    "attribute": lambda: g.user.name,
    "attribute, with another value": lambda: getattr(g, "user", None),
    "get": lambda: g.get("user"),
    "pop": lambda: g.pop("user", None),
    "in": lambda: "user" in g,
    "template": lambda: render_template_string("{% if g.user %}{{ g.user.name }}{% else %}nobody{% endif %}"),
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
def test_object_that_a_refresh_does_not_get(
    ask: Callable[[], object],
    app: Flask,
    cache: Cache,
    backend: QuickCache,
    stale: Stale,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A page that was made as if there were none is kept nowhere: the old one stays, and the log says what to
    do about it.
    """
    calls = []
    app.before_request(lambda: setattr(g, "user", User("ada")))

    @app.get("/page")
    @cached_view(cache, 60, stale_ttl=600, x_cache=True)
    def page() -> str:
        calls.append(1)
        ask()
        return str(len(calls))

    with caplog.at_level("DEBUG", "quickcache_core"):
        client = stale()
        eventually(lambda: "g=['user']" in caplog.text)
    assert backend.engine.metrics().load_failures == 1
    assert len(calls) == 2
    assert seen(client.get("/page")) == ("1", "STALE")


def test_object_that_nobody_asks_for(app: Flask, cache: Cache, refreshed: Refreshed) -> None:
    """It is in the way of nothing."""
    numbers = itertools.count(1)
    app.before_request(lambda: setattr(g, "user", User("ada")))

    @app.get("/page")
    @cached_view(cache, 60, stale_ttl=600, x_cache=True)
    def page() -> str:
        return f"{next(numbers)} {sorted(g)}"

    assert refreshed() == "2 []"


def test_data_that_contains_itself(app: Flask, cache: Cache, refreshed: Refreshed) -> None:
    """It is in the way of nothing, either."""
    loop: list[Any] = []
    loop.append(loop)
    app.before_request(lambda: setattr(g, "loop", loop))

    @app.get("/page")
    @cached_view(cache, 60, stale_ttl=600, x_cache=True)
    def page() -> str:
        return str(sorted(g))

    assert refreshed() == "[]"


MAKES: dict[str, Callable[[], object]] = {
    "if not in": lambda: None if "user" in g else setattr(g, "user", User("own")),
    "if None": lambda: None if getattr(g, "user", None) else setattr(g, "user", User("own")),
    "setdefault": lambda: g.setdefault("user", User("own")),
}


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_object_that_a_view_makes_if_it_is_not_there(
    make: Callable[[], object], app: Flask, cache: Cache, refreshed: Refreshed
) -> None:
    """A refresh has one of its own, and may take it away again."""
    app.before_request(lambda: setattr(g, "user", User("ada")))

    @app.get("/page")
    @cached_view(cache, 60, stale_ttl=600, x_cache=True)
    def page() -> str:
        make()
        return f"{g.pop('user').name} {'user' in g}"

    assert refreshed() == "own False"


def test_object_that_is_handed_over(app: Flask, cache: Cache, refreshed: Refreshed) -> None:
    """By name, as it is; no teardown function of a refresh finds it, but the one of the request does."""
    numbers = itertools.count(1)
    torn_down = []
    app.before_request(lambda: setattr(g, "user", User("ada")))
    app.teardown_request(lambda error: torn_down.append((threading.current_thread().name, "user" in g)))

    @app.get("/page")
    @cached_view(cache, 60, stale_ttl=600, x_cache=True, g=["user", "nothing"])
    def page() -> str:
        return f"{g.user.name} {next(numbers)}"

    assert refreshed() == "ada 2"
    here = threading.current_thread().name
    assert all(has for name, has in torn_down if name == here)
    assert [has for name, has in torn_down if name != here] == [False]


def test_call_behind_a_call(app: Flask) -> None:
    """A part of a page, say, that is rendered behind a refresh: it knows what that one didn't get."""
    with app.test_request_context("/"):
        g.user = User("ada")
        refresh = Surroundings(request)
        with refresh.entered():
            part = Surroundings(request)
            with pytest.raises(RuntimeError, match="user"), part.entered():
                g.get("user")


def test_class_of_g(app: Flask, cache: Cache, refreshed: Refreshed) -> None:
    """The application's own is that of a refresh, too."""

    class Mine(_AppCtxGlobals):
        def shout(self) -> str:
            return str(self.name).upper()

    app.app_ctx_globals_class = Mine
    numbers = itertools.count(1)
    app.before_request(lambda: setattr(g, "name", "ada"))

    @app.get("/page")
    @cached_view(cache, 60, stale_ttl=600, x_cache=True)
    def page() -> str:
        return f"{g.shout()} {next(numbers)} {isinstance(g._get_current_object(), Mine)}"  # type: ignore[attr-defined]

    assert refreshed() == "ADA 2 True"


@pytest.mark.parametrize("names", ["user", 5, [7], None])
def test_names_that_are_none(names: Any, cache: Cache) -> None:
    """Refused where the view is decorated."""
    with pytest.raises(ConfigError, match="g="):
        cached_view(cache, 60, g=names)
