"""A process that makes keys of the calls and requests that it is sent, in all ways that there are.

It reads pickled lists from its standard input and answers each with a list. Started by `KeyMaker`.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Opaque:
    """What nobody can tell from others of its kind."""


class Shop:
    """Known by its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __cache_key__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Point:
    x: Any


class Colour(Enum):
    RED = 1
    BLUE = "1"


def plain(a: Any, b: Any = 2, c: Any = (1, "x")) -> None:
    pass


def rich(a: Any, /, b: Any = None, *rest: Any, c: Any = 0, **more: Any) -> None:
    pass


@dataclass(frozen=True)
class Call:
    function: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class PageRequest:
    path: str
    query: str
    host: str
    user: str | None
    language: str | None
    tenant: str | None


Keys = dict[str, str | tuple[str, str]]
"""By the way in which they are made; argument and message of an `UnstableArgument`."""


class KeyMaker:
    """The process, seen from outside."""

    def __init__(self, hash_seed: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from tests.core.key_maker import serve; serve()"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(hash_seed)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def keys(self, *wanted: Call | PageRequest) -> list[Keys]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump(wanted, self._process.stdin)
        self._process.stdin.flush()
        made: list[Keys] = pickle.load(self._process.stdout)
        return made

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


# Inside


def serve() -> None:
    calls, pages = call_keys(), page_keys()
    while True:
        try:
            wanted = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        made = []
        for one in wanted:
            makers = pages if isinstance(one, PageRequest) else calls[one.function]
            made.append({name: _made(make, one) for name, make in makers.items()})
        pickle.dump(made, sys.stdout.buffer)
        sys.stdout.buffer.flush()


def _made(make: Any, one: Any) -> Any:
    from quickcache_core import UnstableArgument

    try:
        return make(one)
    except UnstableArgument as error:
        return error.argument, str(error)


def call_keys() -> dict[str, dict[str, Any]]:
    from quickcache_core import QuickCache, cached
    from quickcache_flask import memoize
    from quickcache_flask.decorators import cached as cached_in_flask

    django = _django()
    _, flask_cache = _flask()
    decorators = {
        "core": cached(QuickCache()),
        "django": django.cached(),
        "flask": cached_in_flask(flask_cache),
        "memoize": memoize(flask_cache),
    }

    def maker(decorated: Any) -> Any:
        return lambda call: decorated.key(*call.args, **call.kwargs)

    return {
        function.__name__: {name: maker(decorate(function)) for name, decorate in decorators.items()}
        for function in (plain, rich)
    }


def page_keys() -> dict[str, Any]:
    return {"django": _django_page(), "flask": _flask_page()}


def _django() -> Any:
    import django
    from django.conf import settings

    if not settings.configured:
        settings.configure(
            ALLOWED_HOSTS=["*"],
            CACHES={"default": {"BACKEND": "quickcache_django.QuickCache"}},
            SECRET_KEY="a key of these tests, long enough to sign with",
            USE_TZ=True,
        )
        django.setup()
    from quickcache_django import decorators

    return decorators


def _flask() -> tuple[Any, Any]:
    from flask import Flask
    from flask_caching import Cache

    app = Flask(__name__)
    app.testing = True
    app.url_map.merge_slashes = False
    return app, Cache(app, config={"CACHE_TYPE": "quickcache_flask.QuickCache"})


OPTIONS: dict[str, Any] = {
    "user": lambda request: request.headers.get("X-User"),
    "language": lambda request: request.headers.get("X-Language"),
    "headers": ["X-Tenant"],
}


def _django_page() -> Any:
    decorators = _django()
    from django.core.cache import cache
    from django.http import HttpRequest, HttpResponse
    from django.test import RequestFactory

    @decorators.cached_view(60, **OPTIONS)  # type: ignore[untyped-decorator]
    def page(request: HttpRequest) -> HttpResponse:
        return HttpResponse("page")

    def key(wanted: PageRequest) -> str:
        headers = {"Host": wanted.host, **_headers(wanted)}
        page(RequestFactory().get(f"{wanted.path}?{wanted.query}", headers=headers))
        return _only_key(cache)

    return key


def _flask_page() -> Any:
    from quickcache_flask import cached_view

    app, cache = _flask()

    @app.get("/page/<path:rest>")
    @cached_view(cache, 60, **OPTIONS)
    def page(rest: str) -> str:
        return "page"

    client = app.test_client()

    def key(wanted: PageRequest) -> str:
        url = f"{wanted.path}?{wanted.query}"
        response = client.get(url, base_url=f"http://{wanted.host}", headers=_headers(wanted))
        assert response.status_code == 200
        return _only_key(cache.cache)

    return key


def _headers(wanted: PageRequest) -> dict[str, str]:
    named = {"X-User": wanted.user, "X-Language": wanted.language, "X-Tenant": wanted.tenant}
    return {name: value for name, value in named.items() if value is not None}


def _only_key(cache: Any) -> str:
    [key] = cache.engine.keys()
    cache.engine.clear()
    return str(key)
