"""`quickcache_flask.cached_view`, as the table of all frameworks has it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Request, Response, abort, request, session
from flask_caching import Cache

from quickcache_core.testing import ManualClock
from quickcache_flask import QuickCache, cached_view
from tests.http_cases import LANGUAGE, PAST, PATH, USER, Answer, Ask, Case, cases_for, play

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def user(request: Request) -> str | None:
    return request.headers.get(USER)


def language(request: Request) -> str | None:
    return request.headers.get(LANGUAGE)


class FlaskSite:
    def __init__(self, case: Case, *, is_async: bool, options: Mapping[str, Any], clock: ManualClock) -> None:
        self.calls = 0
        self._case = case
        self._app = app = Flask(__name__)
        app.testing = True
        app.secret_key = "long enough to sign values with"
        self._cache = Cache(
            app,
            config={
                "CACHE_TYPE": "quickcache_flask.QuickCache",
                "CACHE_QUICKCACHE_CLOCK": clock,
                "CACHE_OPTIONS": dict(options),
            },
        )
        self._view = self._decorated(is_async=is_async)
        for rule in (PATH, f"{PATH}/<path:rest>"):
            app.add_url_rule(
                rule, rule, view_func=self._view, methods=METHODS, provide_automatic_options=False
            )

    def _decorated(self, *, is_async: bool) -> Any:
        options = {"x_cache": True, **self._case.options}
        timeout = options.pop("timeout", 60)
        given = () if timeout is ... else (timeout,)
        for name, function in {"user": user, "language": language}.items():
            if options.get(name) is True:
                options[name] = function
        if options.get("unless"):
            options["unless"] = lambda request: PAST in request.headers

        def page(rest: str = "") -> Any:
            return self._reply()

        async def apage(rest: str = "") -> Any:
            return self._reply()

        return cached_view(self._cache, *given, **options)(apage if is_async else page)

    def _reply(self) -> Response:
        self.calls += 1
        reply = self._case.reply(self.calls)
        if reply.raises:
            abort(reply.status)
        if reply.session:
            session.get("name")
        text = (reply.body or "").format(
            n=self.calls, method=request.method, user=user(request), language=language(request)
        )
        response = Response(iter([text]) if reply.stream else text, reply.status)
        for name, value in reply.headers.items():
            response.headers[name] = value
        for name, value in reply.again.items():
            response.headers.add(name, value)
        if reply.cookie:
            response.set_cookie("seen", "yes")
        return response

    def ask(self, ask: Ask, headers: Mapping[str, str]) -> Answer:
        client = self._app.test_client()
        for name, value in ask.cookies.items():
            client.set_cookie(name, value, domain=ask.host or "testserver")
        response = client.open(
            f"{ask.path}?{ask.query}" if ask.query else ask.path,
            method=ask.method,
            headers=dict(headers),
            data=ask.content or None,
            base_url=f"http://{ask.host or 'testserver'}",
        )
        named = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, named, response.text)

    def pause(self) -> None:
        threading.Event().wait(0.005)

    def invalidate(self, url: str) -> None:
        with self._app.app_context():
            self._view.invalidate(url)

    def invalidate_all(self) -> None:
        with self._app.app_context():
            self._view.invalidate_all()

    def invalidate_tag(self, tag: str) -> None:
        self.backend.invalidate_tags(tag)

    @property
    def backend(self) -> QuickCache:
        backend = self._app.extensions["cache"][self._cache]
        assert isinstance(backend, QuickCache)
        return backend


@pytest.mark.parametrize("scope", ["memory", "shared"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("case", cases_for("flask"), ids=str)
def test_case(case: Case, is_async: bool, scope: str, tmp_path: Path) -> None:
    """Each request gets what the table says, and the view is called when it says so."""
    options = (
        {"location": f"shared://{tmp_path / 'cache'}", "max_bytes": 4_000_000} if scope == "shared" else {}
    )
    clock = ManualClock()
    site = FlaskSite(case, is_async=is_async, options=options, clock=clock)
    try:
        play(case, site, clock)
    finally:
        site.backend.engine.close()
