"""`quickcache_django.decorators.cached_view`, as the table of all frameworks has it: under WSGI with plain
views, under ASGI with those of `async def`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, unquote

import pytest
from django.core.cache import caches
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.test import AsyncClient, Client, override_settings
from django.urls import path
from django.utils import translation

from quickcache_core.testing import ManualClock
from quickcache_django.decorators import cached_view
from tests.http_cases import LANGUAGE, PAST, PATH, USER, Answer, Ask, Case, cases_for, play

BACKEND = "quickcache_django.QuickCache"


class DjangoSite:
    """Asks by way of Django's handlers and middleware."""

    def __init__(self, case: Case) -> None:
        self.calls = 0
        self._case = case
        self._view = self._decorated()
        at = PATH.removeprefix("/")
        self.urlpatterns = tuple(path(rule, self._entrance()) for rule in (at, f"{at}/<path:rest>"))

    def _decorated(self) -> Any:
        def page(request: HttpRequest, rest: str = "") -> HttpResponseBase:
            return self._reply(request)

        return self._decorator()(page)

    def _decorator(self) -> Any:
        options = {"x_cache": True, **self._case.options}
        timeout = options.pop("timeout", 60)
        if options.get("unless"):
            options["unless"] = lambda request: PAST in request.headers
        return cached_view(*(() if timeout is ... else (timeout,)), **options)

    def _entrance(self) -> Any:
        """In place of the middleware that knows users and languages."""

        def entrance(request: HttpRequest, **kwargs: Any) -> Any:
            with translation.override(self._arrived(request)):
                return self._view(request, **kwargs)

        return entrance

    def _arrived(self, request: HttpRequest) -> str:
        request.user = SimpleNamespace(pk=request.headers.get(USER))  # type: ignore[assignment]
        return request.headers.get(LANGUAGE, "en-us")

    def _reply(self, request: HttpRequest) -> HttpResponseBase:
        self.calls += 1
        reply = self._case.reply(self.calls)
        if reply.raises:
            raise Http404
        if reply.session:
            request.session.get("name")
        text = (reply.body or "").format(
            n=self.calls,
            method=request.method,
            user=request.headers.get(USER),
            language=translation.get_language(),
        )
        response: HttpResponseBase
        if reply.stream:
            response = StreamingHttpResponse(self._stream(text), status=reply.status)
        else:
            response = HttpResponse(text, status=reply.status)
        for name, value in reply.headers.items():
            response.headers[name] = value
        if reply.cookie:
            response.set_cookie("seen", "yes")
        return response

    def _stream(self, text: str) -> Any:
        return iter([text])

    def ask(self, ask: Ask, headers: Mapping[str, str]) -> Answer:
        client = Client()
        client.cookies.load(dict(ask.cookies))
        response = client.generic(ask.method, _target(ask.path, ask.query), **_extra(ask, headers))
        return _answer(response, b"".join(response))

    def pause(self) -> None:
        threading.Event().wait(0.005)

    def invalidate(self, url: str) -> None:
        self._view.invalidate(url)

    def invalidate_all(self) -> None:
        self._view.invalidate_all()

    def invalidate_tag(self, tag: str) -> None:
        caches["default"].invalidate_tags(tag)


class AsyncDjangoSite(DjangoSite):
    def __init__(self, case: Case, loop: asyncio.Runner) -> None:
        super().__init__(case)
        self._loop = loop

    def _decorated(self) -> Any:
        async def page(request: HttpRequest, rest: str = "") -> HttpResponseBase:
            return self._reply(request)

        return self._decorator()(page)

    def _entrance(self) -> Any:
        async def entrance(request: HttpRequest, **kwargs: Any) -> Any:
            with translation.override(self._arrived(request)):
                return await self._view(request, **kwargs)

        return entrance

    def _stream(self, text: str) -> Any:
        async def stream() -> AsyncIterator[str]:
            yield text

        return stream()

    def ask(self, ask: Ask, headers: Mapping[str, str]) -> Answer:
        return self._loop.run(self._ask(ask, headers))

    async def _ask(self, ask: Ask, headers: Mapping[str, str]) -> Answer:
        client = AsyncClient()
        client.cookies.load(dict(ask.cookies))
        # It takes the bytes of a path for Latin-1, where a server for ASGI takes them for UTF-8.
        at = quote(unquote(ask.path), encoding="latin-1")
        response = await client.generic(ask.method, _target(at, ask.query), **_extra(ask, headers))
        parts = [part async for part in response] if response.streaming else [response.content]
        return _answer(response, b"".join(parts))

    def pause(self) -> None:
        self._loop.run(asyncio.sleep(0.005))

    def invalidate(self, url: str) -> None:
        self._loop.run(self._view.ainvalidate(url))

    def invalidate_all(self) -> None:
        self._loop.run(self._view.ainvalidate_all())

    def invalidate_tag(self, tag: str) -> None:
        self._loop.run(caches["default"].ainvalidate_tags(tag))


def _target(at: str, query: str) -> str:
    return f"{at}?{query}" if query else at


def _extra(ask: Ask, headers: Mapping[str, str]) -> dict[str, Any]:
    return {"data": ask.content, "headers": {"Host": ask.host or "testserver", **headers}}


def _answer(response: Any, body: bytes) -> Answer:
    headers = {name.lower(): value for name, value in response.items()}
    return Answer(response.status_code, headers, body.decode())


@pytest.fixture(params=["memory", "shared"])
def clock(request: pytest.FixtureRequest, tmp_path: Path, location: str) -> Iterator[ManualClock]:
    """That of the alias `default`, in each scope."""
    clock = ManualClock()
    options: dict[str, Any] = {"CLOCK": clock}
    if request.param == "shared":
        location = f"shared://{tmp_path / 'cache'}"
        options["MAX_BYTES"] = 4_000_000
    entry = {"BACKEND": BACKEND, "LOCATION": location, "OPTIONS": options}
    with override_settings(CACHES={"default": entry}, ALLOWED_HOSTS=["testserver", "other.example"]):
        yield clock
        caches["default"].engine.close()


@pytest.mark.parametrize("case", cases_for("django"), ids=str)
def test_case(case: Case, clock: ManualClock) -> None:
    """Each request gets what the table says, and the view is called when it says so."""
    site = DjangoSite(case)
    with override_settings(ROOT_URLCONF=site):
        play(case, site, clock)


@pytest.mark.parametrize("case", cases_for("django"), ids=str)
def test_case_of_an_async_view(case: Case, clock: ManualClock) -> None:
    """The same as for plain ones."""
    with asyncio.Runner() as loop:
        site = AsyncDjangoSite(case, loop)
        with override_settings(ROOT_URLCONF=site):
            play(case, site, clock)
