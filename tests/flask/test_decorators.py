"""Flask-Caching's decorators and its template tag on top of the backend."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from flask import Flask, render_template_string
from flask_caching import Cache, CachedResponse, make_template_fragment_key
from werkzeug.exceptions import NotFound, abort

from quickcache_core.testing import ManualClock


@pytest.fixture
def cache(make_cache: Any) -> Cache:
    made = make_cache()
    assert isinstance(made, Cache)
    return made


def test_cached_view(app: Flask, cache: Cache, clock: ManualClock) -> None:
    """A view runs once until its timeout is over, per path."""
    counter = itertools.count()

    @app.get("/<name>")
    @cache.cached(timeout=10)
    def view(name: str) -> str:
        return f"{name} {next(counter)}"

    client = app.test_client()
    assert [client.get("/a").text, client.get("/a").text, client.get("/b").text] == ["a 0", "a 0", "b 1"]
    clock.advance(11)
    assert client.get("/a").text == "a 2"


def test_cached_view_with_query_string(app: Flask, cache: Cache) -> None:
    """With `query_string` the order of arguments makes no difference, their values do."""
    counter = itertools.count()

    @app.get("/")
    @cache.cached(query_string=True)
    def view() -> str:
        return str(next(counter))

    client = app.test_client()
    assert [client.get(path).text for path in ("/?a=1&b=2", "/?b=2&a=1", "/?a=1&b=3")] == ["0", "0", "1"]


def test_cached_async_view(app: Flask, cache: Cache) -> None:
    """A coroutine function as a view is cached like any other."""
    counter = itertools.count()

    @app.get("/")
    @cache.cached()
    async def view() -> str:
        return str(next(counter))

    client = app.test_client()
    assert [client.get("/").text, client.get("/").text] == ["0", "0"]


def test_cached_response_sets_its_own_timeout(app: Flask, cache: Cache, clock: ManualClock) -> None:
    """A CachedResponse says how long it is kept; headers and status come back with it."""
    counter = itertools.count()

    @app.get("/")
    @cache.cached(timeout=1000)
    def view() -> CachedResponse:
        response = app.make_response((str(next(counter)), 201, {"X-Test": "yes"}))
        return CachedResponse(response, timeout=10)

    client = app.test_client()
    for expected in ("0", "0"):
        answer = client.get("/")
        assert (answer.text, answer.status_code, answer.headers["X-Test"]) == (expected, 201, "yes")
    clock.advance(11)
    assert client.get("/").text == "1"


def test_cached_abort(app: Flask, cache: Cache) -> None:
    """An HTTPException is cached and raised again."""
    counter = itertools.count()

    @app.get("/")
    @cache.cached()
    def view() -> str:
        next(counter)
        abort(404)

    client = app.test_client()
    assert [client.get("/").status_code, client.get("/").status_code] == [404, 404]
    assert next(counter) == 1
    with app.test_request_context("/"):
        assert isinstance(cache.get("view//"), NotFound)


def test_memoize_and_delete_memoized(app: Flask, cache: Cache) -> None:
    """A function runs once per arguments, and again for those, or all, that are forgotten."""
    calls: list[tuple[int, int]] = []

    @cache.memoize(timeout=60)
    def add(a: int, b: int = 0) -> int:
        calls.append((a, b))
        return a + b

    with app.app_context():
        assert [add(1, 2), add(1, b=2), add(a=1, b=2), add(3)] == [3, 3, 3, 3]
        assert calls == [(1, 2), (3, 0)]
        cache.delete_memoized(add, 1, 2)
        assert [add(1, 2), add(3)] == [3, 3]
        assert calls == [(1, 2), (3, 0), (1, 2)]
        cache.delete_memoized(add)
        assert [add(1, 2), add(3)] == [3, 3]
        assert calls == [(1, 2), (3, 0), (1, 2), (1, 2), (3, 0)]


def test_memoized_none(app: Flask, cache: Cache) -> None:
    """With `cache_none` a None is remembered."""
    calls: list[int] = []

    @cache.memoize(cache_none=True)
    def nothing(number: int) -> None:
        calls.append(number)

    with app.app_context():
        assert [nothing(1), nothing(1)] == [None, None]
    assert calls == [1]


def test_memoized_value_is_isolated(app: Flask, cache: Cache) -> None:
    """Changing what a memoized function returned changes no later result."""

    @cache.memoize()
    def fruits() -> list[list[str]]:
        return [["apple"]]

    with app.app_context():
        fruits()
        fruits()[0].append("spoiled")
        assert fruits() == [["apple"]]


def test_template_fragment(app: Flask, cache: Cache, clock: ManualClock) -> None:
    """A part of a template is rendered once per key, until its timeout is over or it is deleted."""
    counter = itertools.count()
    template = "{% cache 10, 'part', name %}{{ name }} {{ next(counter) }}{% endcache %}"

    def render(name: str) -> str:
        return render_template_string(template, name=name, next=next, counter=counter)

    with app.test_request_context():
        assert [render("a"), render("a"), render("b")] == ["a 0", "a 0", "b 1"]
        cache.delete(make_template_fragment_key("part", vary_on=["b"]))
        assert [render("a"), render("b")] == ["a 0", "b 2"]
        clock.advance(11)
        assert render("a") == "a 3"


def test_what_cannot_be_kept_is_served_all_the_same(app: Flask, cache: Cache) -> None:
    """A result that can't be pickled is returned to the caller, and computed anew the next time."""
    counter = itertools.count()

    @cache.memoize()
    def make() -> list[Any]:
        return [next(counter), lambda: 0]

    with app.app_context():
        assert [make()[0], make()[0]] == [0, 1]
