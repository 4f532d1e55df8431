"""`quickcache_django.decorators.cached_view`: whole responses, kept as HTTP allows."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.messages.storage.base import Message
from django.contrib.messages.storage.cookie import CookieStorage
from django.contrib.sessions.backends.cache import SessionStore
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.template import engines
from django.template.response import TemplateResponse
from django.test import RequestFactory, override_settings
from django.utils import timezone, translation
from django.utils.decorators import method_decorator
from django.utils.functional import SimpleLazyObject, empty, lazystr
from django.views import View
from django.views.decorators.vary import vary_on_headers

from quickcache_core import ConfigError, LoaderTimeout, NoStableForm
from quickcache_core.testing import ManualClock
from quickcache_django import QuickCache
from quickcache_django.decorators import cached_view

BACKEND = "quickcache_django.QuickCache"


@pytest.fixture(autouse=True)
def cache(location: str, clock: ManualClock) -> Iterator[QuickCache]:
    """The alias `default`, with the manual clock."""
    entry = {"BACKEND": BACKEND, "LOCATION": location, "OPTIONS": {"CLOCK": clock}}
    with override_settings(CACHES={"default": entry}):
        cache = caches["default"]
        assert isinstance(cache, QuickCache)
        yield cache


class Visitor:
    """Asks one view, as Django would."""

    def __init__(self, view: Any) -> None:
        self.view = view

    def ask(self, path: str = "/page/", *, user: Any = None, session: Any = None, **extra: Any) -> Any:
        method = extra.pop("method", "GET")
        request = RequestFactory().generic(method, path, **extra)
        if user is not None:
            request.user = user
        if session is not None:
            request.session = session
        response = self.view(request)
        return asyncio.run(response) if asyncio.iscoroutine(response) else response

    def __call__(self, path: str = "/page/", **extra: Any) -> tuple[str, str | None]:
        response = self.ask(path, **extra)
        return response.content.decode(), response.get("X-Cache")


pages = itertools.count(1)
"""Views are known by their names."""


def counting(says: Callable[[HttpRequest, int], Any], *args: Any, **options: Any) -> Visitor:
    """Of a view that counts its calls, cached with `options`."""
    calls = itertools.count(1)

    def page(request: HttpRequest) -> HttpResponse:
        given = says(request, next(calls))
        return given if isinstance(given, HttpResponse | StreamingHttpResponse) else HttpResponse(str(given))

    page.__qualname__ = f"page{next(pages)}"
    return Visitor(cached_view(*(args or (60,)), **{"x_cache": True, **options})(page))


def number(request: HttpRequest, number: int) -> int:
    return number


def test_a_second_request() -> None:
    """Within the timeout the page is served from the cache, with all its headers."""
    page = counting(lambda request, n: HttpResponse(f"ü {n}", headers={"X-Mine": "x"}, content_type="text/x"))
    first, second = page.ask(), page.ask()
    assert (first["X-Cache"], second["X-Cache"]) == ("MISS", "HIT")
    assert second.content == first.content == "ü 1".encode()
    assert {**first.headers, "X-Cache": "HIT"} == dict(second.headers)
    assert type(second) is HttpResponse


def test_a_response_from_the_cache_is_as_any_other() -> None:
    """Middleware and views may change it, and the page stays as it is."""
    page = counting(number)
    page()
    response = page.ask()
    response.set_cookie("a", "b")
    response.headers["X-Mine"] = "x"
    response.content = "other"
    response.status_code = 500
    response.close()
    response = page.ask()
    assert (response.content, response.status_code, response.reason_phrase) == (b"1", 200, "OK")
    assert not response.cookies
    assert "x-mine" not in response
    assert response["content-type"] == "text/html; charset=utf-8"
    assert response.charset == "utf-8"
    assert vars(response).keys() == vars(HttpResponse()).keys() | {"status_code"}


def test_after_the_timeout(clock: ManualClock) -> None:
    """Then the view is called again."""
    page = counting(number, 60)
    page()
    clock.advance(60)
    assert page() == ("2", "MISS")


@pytest.mark.parametrize(("timeout", "expected"), [(None, "HIT"), (0, "BYPASS")])
def test_timeouts_as_django_has_them(timeout: Any, expected: str, clock: ManualClock) -> None:
    """None: no end; 0: nothing is kept."""
    page = counting(number, timeout)
    page()
    clock.advance(1e6)
    assert page()[1] == expected


def test_timeout_of_the_alias(clock: ManualClock) -> None:
    """Without any it holds."""
    calls = itertools.count(1)
    page = Visitor(cached_view(x_cache=True)(lambda request: HttpResponse(str(next(calls)))))
    page()
    clock.advance(299)
    assert page() == ("1", "HIT")
    clock.advance(1)
    assert page() == ("2", "MISS")


def test_queries() -> None:
    """All parameters count, in any order; or chosen ones; or none."""
    page = counting(number)
    assert [page(f"/?{query}")[0] for query in ("a=1&b=2", "b=2&a=1", "a=1", "")] == ["1", "1", "2", "3"]
    page = counting(number, query=["a"])
    assert [page(f"/?{query}")[0] for query in ("a=1&b=2", "b=3&a=1", "a=2")] == ["1", "1", "2"]
    page = counting(number, query=False)
    assert [page(f"/?{query}")[0] for query in ("a=1", "")] == ["1", "1"]


def test_host() -> None:
    """Pages often contain their own address."""
    page = counting(number)
    assert page()[0] == "1"
    assert page(headers={"host": "other.example"})[0] == "2"
    assert page(secure=True)[0] == "3"
    with override_settings(USE_X_FORWARDED_HOST=True):
        assert page(headers={"x-forwarded-host": "other.example"})[0] == "2"
    page = counting(number, host=False)
    assert [page(headers={"host": host})[0] for host in ("a", "b")] == ["1", "1"]


def test_other_methods() -> None:
    """A POST goes to the view and leaves no page; a HEAD is served from a GET."""
    page = counting(lambda request, n: f"{request.method}{request.META['REQUEST_METHOD']}{n}")
    assert page(method="POST") == ("POSTPOST1", "BYPASS")
    assert page(method="HEAD") == ("GETGET2", "MISS")
    assert page() == ("GETGET2", "HIT")
    assert page(method="HEAD") == ("GETGET2", "HIT")


def test_authorization() -> None:
    """What a client with credentials gets is for that client, unless pages are kept by user."""
    page = counting(number)
    assert [page(headers={"authorization": "x"}) for _ in range(2)] == [("1", "BYPASS"), ("2", "BYPASS")]
    page = counting(number, user=lambda request: request.headers["authorization"])
    assert [page(headers={"authorization": who})[0] for who in "aba"] == ["1", "2", "1"]


def with_cookie(request: HttpRequest, number: int) -> HttpResponse:
    response = HttpResponse(str(number))
    response.set_cookie("a", "b")
    return response


@pytest.mark.parametrize(
    "says",
    [
        with_cookie,
        lambda request, n: HttpResponse(str(n), status=500),
        lambda request, n: HttpResponse(str(n), status=404),
        lambda request, n: HttpResponse(str(n), headers={"Cache-Control": "private"}),
        lambda request, n: HttpResponse(str(n), headers={"Cache-Control": "no-store"}),
        lambda request, n: HttpResponse(str(n), headers={"Vary": "*"}),
        lambda request, n: HttpResponse(f"{n} {request.session.get('basket')}"),
        lambda request, n: HttpResponse(f"{n} {get_token(request)}"),
    ],
)
def test_responses_that_are_not_for_everybody(says: Any) -> None:
    """They are handed out, unchanged, and not kept."""
    page = counting(says)
    session = SessionStore()
    assert page(session=session)[1] == "BYPASS"
    response = page.ask(session=session)
    assert response.content.startswith(b"2")
    assert "ETag" not in response


def test_stream() -> None:
    """It passes untouched."""
    page = counting(lambda request, n: StreamingHttpResponse([str(n)]))
    page.ask()
    response = page.ask()
    assert (response.getvalue(), response["X-Cache"]) == (b"2", "BYPASS")


def test_token_that_was_asked_for_before() -> None:
    """What middleware or another view did with the token says nothing of this page, and is remembered."""
    page = counting(number)
    for expected in ("MISS", "HIT"):
        request = RequestFactory().get("/page/")
        get_token(request)
        assert page.view(request)["X-Cache"] == expected
        assert request.META["CSRF_COOKIE_NEEDS_UPDATE"]


def test_messages() -> None:
    """They are shown once, also to a user who has pages of his own; those that nobody shows don't matter."""

    def says(request: HttpRequest, n: int) -> str:
        shown = [str(message) for message in messages.get_messages(request)]
        return f"{n} {shown}"

    page = counting(says, user=True)
    other = counting(number, user=True)

    def ask(visitor: Visitor, *texts: str) -> tuple[str, str]:
        request = RequestFactory().get("/page/")
        request.user = User(7)  # type: ignore[assignment]
        request._messages = CookieStorage(request)  # type: ignore[attr-defined]
        data = CookieStorage(request)._encode([Message(messages.INFO, text) for text in texts])
        if texts:
            request.COOKIES["messages"] = data
        response = visitor.view(request)
        return response.content.decode(), response["X-Cache"]

    assert ask(page, "saved") == ("1 ['saved']", "BYPASS")
    assert ask(page) == ("2 []", "MISS")
    assert ask(page) == ("2 []", "HIT")
    assert [ask(other, "saved"), ask(other)] == [("1", "MISS"), ("1", "HIT")]


@pytest.mark.parametrize("user", [False, True])
def test_nonce(user: bool) -> None:
    """That of `Content-Security-Policy` is for one response; one that isn't asked for doesn't matter."""

    def says(request: Any, n: int) -> str:
        return f"{n} {request._csp_nonce}" if "nonce" in request.GET else str(n)

    page = counting(says, user=user)

    def ask(path: str) -> tuple[str, str]:
        request: Any = RequestFactory().get(path)
        request.user = User(7)
        # As Django 6 has it.
        request._csp_nonce = Nonce(lambda: "secret")
        response = page.view(request)
        return response.content.decode(), response["X-Cache"]

    assert [ask("/?nonce") for _ in range(2)] == [("1 secret", "BYPASS"), ("2 secret", "BYPASS")]
    assert [ask("/") for _ in range(2)] == [("3", "MISS"), ("3", "HIT")]


class Nonce(SimpleLazyObject):
    def __bool__(self) -> bool:
        return vars(self)["_wrapped"] is not empty


@pytest.mark.parametrize("look", [lambda session: session.get("a"), lambda session: session.session_key])
def test_session_that_others_looked_into(look: Any) -> None:
    """Who looked before the view has stored there what the view shows, as `login_required` does, with
    `request.user`: such a page is for everybody only where `user` says by whom pages differ. The key of a
    session tells a visitor as well as what is in it.
    """

    @login_required
    @cached_view(60, x_cache=True)
    def dashboard(request: Any) -> HttpResponse:
        return HttpResponse(f"Hello {request.user.name}")

    def logged_in(name: str) -> Any:
        request: Any = RequestFactory().get("/dashboard/")
        request.session = SessionStore()
        request.session["name"] = name
        request.session.save()
        request.session = SessionStore(request.session.session_key)
        request.user = SimpleLazyObject(
            lambda: SimpleNamespace(pk=7, is_authenticated=True, name=request.session["name"])
        )
        return request

    for name in ("ada", "bob"):
        response = dashboard(logged_in(name))
        assert (response.content.decode(), response["X-Cache"]) == (f"Hello {name}", "BYPASS")

    page = counting(lambda request, n: f"{n} {look(request.session)}")
    request = logged_in("ada")
    kind = type(request.session)
    assert page.view(request)["X-Cache"] == "BYPASS"
    assert type(request.session) is kind
    assert not page.view(logged_in("bob")).content.startswith(b"1")
    ours = counting(number, user=lambda request: "all")
    assert [ours.ask(session=logged_in("ada").session)["X-Cache"] for _ in range(2)] == ["MISS", "HIT"]


class User:
    """As far as keys go."""

    def __init__(self, pk: Any) -> None:
        self.pk = pk


def test_user() -> None:
    """Pages by primary key; private for caches on the way."""
    page = counting(lambda request, n: f"{request.user.pk} {n}", user=True)
    assert [page(user=User(pk))[0] for pk in (7, 8, 7)] == ["7 1", "8 2", "7 1"]
    assert page.ask(user=User(7))["Cache-Control"] == "private"


def test_visitors_who_are_not_logged_in() -> None:
    """They share pages while they have no session; then each session has its own."""

    def says(request: HttpRequest, n: int) -> str:
        return f"{request.session.get('basket')} {n}"

    page = counting(says, user=True)

    def nobody(basket: str | None = None) -> dict[str, Any]:
        session = SessionStore()
        if basket:
            session["basket"] = basket
            session.save()
        return {"user": User(None), "session": session}

    assert page(**nobody()) == ("None 1", "MISS")
    assert page(**nobody()) == ("None 1", "HIT")
    tea, coffee = nobody("tea"), nobody("coffee")
    assert [page(**who)[0] for who in (tea, coffee, tea)] == ["tea 2", "coffee 3", "tea 2"]


def test_private_by_user() -> None:
    """A private page may be kept by user; one with `no-store` may not."""
    private = counting(lambda r, n: HttpResponse(str(n), headers={"Cache-Control": "private"}), user=True)
    assert [private(user=User(7))[0] for _ in range(2)] == ["1", "1"]
    never = counting(lambda r, n: HttpResponse(str(n), headers={"Cache-Control": "no-store"}), user=True)
    assert [never(user=User(7))[0] for _ in range(2)] == ["1", "2"]


def test_language() -> None:
    """Pages differ by the active language, as with `cache_page`, unless told otherwise."""
    page = counting(lambda request, n: translation.get_language())
    for _ in range(2):
        for language in ("de", "en"):
            with translation.override(language):
                content, label = page()
                assert content == language
    assert label == "HIT"
    page = counting(number, language=False)
    with translation.override("de"):
        page()
    assert page()[1] == "HIT"
    page = counting(number, language=lambda request: request.GET["l"], query=False)
    assert [page(f"/?l={language}")[0] for language in ("de", "en", "de")] == ["1", "2", "1"]


@pytest.mark.parametrize("option", ["user", "language"])
def test_what_nobody_can_tell_apart(option: str) -> None:
    """An error that names the option, and no key with an address in it."""
    page = counting(number, **{option: lambda request: [object()]})
    with pytest.raises(NoStableForm, match=rf"object has no stable form: .* {option} of cached_view"):
        page()


def test_time_zone() -> None:
    """Another one than the default makes another page."""
    page = counting(lambda request, n: timezone.get_current_timezone_name())
    assert page() == ("America/Chicago", "MISS")
    with timezone.override("Europe/Berlin"):
        assert page() == ("Europe/Berlin", "MISS")
    assert page() == ("America/Chicago", "HIT")


def test_vary() -> None:
    """Responses that vary by headers of the request are kept by their values."""

    def says(request: HttpRequest, n: int) -> HttpResponse:
        return HttpResponse(f"{request.headers.get('accept')} {n}", headers={"Vary": "Accept"})

    page = counting(says)
    kinds = ("text/html", "text/plain", "text/html")
    assert [page(headers={"accept": kind})[0] for kind in kinds] == [
        "text/html 1",
        "text/plain 2",
        "text/html 1",
    ]
    decorated = Visitor(
        cached_view(60)(vary_on_headers("X-A")(lambda request: HttpResponse(request.headers["X-A"])))
    )
    assert [decorated("/other/", headers={"x-a": a})[0] for a in "aba"] == ["a", "b", "a"]


def test_headers() -> None:
    """Chosen headers are part of the key, and of `Vary`."""
    page = counting(number, headers=["X-Tenant"])
    assert [page(headers={"x-tenant": tenant})[0] for tenant in "aba"] == ["1", "2", "1"]
    assert page.ask(headers={"x-tenant": "a"})["Vary"] == "X-Tenant"


def test_not_modified() -> None:
    """A client that has the page gets a 304."""
    page = counting(number, cache_control=True)
    etag = page.ask()["ETag"]
    for known in (etag, f"W/{etag}", f'"x", {etag}'):
        response = page.ask(headers={"if-none-match": known})
        assert (response.status_code, response.content, response["X-Cache"]) == (304, b"", "HIT")
        assert (response["ETag"], response["Cache-Control"]) == (etag, "max-age=60")
        assert "Content-Type" not in response
    assert page.ask(headers={"if-none-match": '"x"'}).status_code == 200


def test_not_modified_although_the_page_had_to_be_made(clock: ManualClock) -> None:
    """The same page again, made anew: the client has it all the same."""
    page = counting(lambda request, n: "same")
    etag = page.ask()["ETag"]
    clock.advance(61)
    response = page.ask(headers={"if-none-match": etag})
    assert (response.status_code, response["X-Cache"]) == (304, "MISS")


def test_last_modified(clock: ManualClock) -> None:
    """On demand it is the time at which the page was made; later it has not been modified."""
    page = counting(number, last_modified=True)
    date = page.ask()["Last-Modified"]
    clock.advance(10)
    response = page.ask(headers={"if-modified-since": date})
    assert (response.status_code, response["Last-Modified"]) == (304, date)


def test_cache_control(clock: ManualClock) -> None:
    """It counts down to the end of the page, with the time after it on demand."""
    page = counting(number, 60, cache_control=True, stale_directives=True, stale_ttl=30)
    page()
    clock.advance(20)
    rest = "stale-while-revalidate=30, stale-if-error=30"
    assert page.ask()["Cache-Control"] == f"max-age=40, {rest}"


def eventually(check: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(500):
        if check():
            return
        pause.wait(0.01)
    pytest.fail("it didn't happen within 5 seconds")


def test_stale(clock: ManualClock) -> None:
    """After the timeout the old page is served at once, while a new one is made behind it, from a copy of the
    request and in its language.
    """

    def says(request: HttpRequest, n: int) -> str:
        request.number = n  # type: ignore[attr-defined]
        return f"{request.path} {translation.get_language()} {n}"

    page = counting(says, 60, stale_ttl=600)
    with translation.override("de"):
        page()
        clock.advance(61)
        request = RequestFactory().get("/page/")
        assert page.view(request).content == b"/page/ de 1"
    assert not hasattr(request, "number")

    def is_fresh() -> bool:
        with translation.override("de"):
            return page() == ("/page/ de 2", "HIT")

    eventually(is_fresh)


@pytest.mark.parametrize("failure", [RuntimeError("down"), 503])
def test_stale_while_the_view_fails(failure: Any, cache: QuickCache, clock: ManualClock) -> None:
    """An exception, or an error page, replaces no older page."""
    numbers = []

    def says(request: HttpRequest, n: int) -> Any:
        numbers.append(n)
        if n == 1:
            return "good"
        if isinstance(failure, Exception):
            raise failure
        return HttpResponse("bad", status=failure)

    page = counting(says, 60, stale_ttl=600)
    page()
    clock.advance(61)
    for calls in (2, 3):
        assert page() == ("good", "STALE")
        eventually(lambda calls=calls: cache.engine.metrics().load_failures == calls - 1)
        assert page() == ("good", "STALE")
        clock.advance(6)  # until it is tried again
    assert numbers == [1, 2, 3]


def test_view_that_answers_conditions_itself(clock: ManualClock) -> None:
    """A refresh, and a HEAD, ask it for a whole page, whatever the client has."""

    def says(request: HttpRequest, n: int) -> Any:
        asks = request.headers.keys() | request.META.keys()
        is_conditional = {"If-None-Match", "Range", "HTTP_IF_NONE_MATCH", "HTTP_RANGE"} & asks
        return HttpResponse(status=304) if is_conditional else n

    page = counting(says, 60, stale_ttl=600)
    page()
    clock.advance(61)
    request = RequestFactory().get("/page/", headers={"If-None-Match": '"other"', "Range": "bytes=0-0"})
    assert request.headers["Range"]  # Django remembers them
    assert page.view(request)["X-Cache"] == "STALE"
    eventually(lambda: page() == ("2", "HIT"))
    page = counting(says)
    assert page(method="HEAD", headers={"If-None-Match": '"other"'}) == ("1", "MISS")
    assert page() == ("1", "HIT")


def test_session_that_only_the_refresh_looks_into(clock: ManualClock) -> None:
    """A page that becomes personal is not kept, also where it is made in the background; and the session of
    the request, which may be over, is left alone.
    """

    def says(request: HttpRequest, n: int) -> str:
        return str(n) if n == 1 else f"{request.session.get('name')} {n}"

    def mine() -> SessionStore:
        return SessionStore(key)

    page = counting(says, 60, stale_ttl=600)
    stored = SessionStore()
    stored["name"] = "ada"
    stored.save()
    key = stored.session_key
    page(session=mine())
    clock.advance(61)
    session = mine()
    assert page(session=session) == ("1", "STALE")
    eventually(lambda: page(session=mine())[1] == "BYPASS")
    assert not session.accessed
    assert "ada" not in page(session=SessionStore())[0]


def test_many_cold_requests(cache: QuickCache) -> None:
    """200 of them at once: the view is called once, and all get its page."""
    arrived, proceed = threading.Barrier(201), threading.Event()

    def says(request: HttpRequest, n: int) -> str:
        proceed.wait(10)
        return str(n)

    page = counting(says)
    contents = []

    def ask() -> None:
        arrived.wait(10)
        contents.append(page()[0])

    threads = [threading.Thread(target=ask) for _ in range(200)]
    for thread in threads:
        thread.start()
    arrived.wait(10)
    eventually(lambda: cache.engine.metrics().load_waits == 199)
    proceed.set()
    for thread in threads:
        thread.join()
    assert contents == ["1"] * 200


def test_many_cold_requests_of_tasks() -> None:
    """The same in one event loop, which goes on meanwhile."""
    calls = itertools.count(1)

    async def ask() -> list[str]:
        proceed = asyncio.Event()

        @cached_view(60)
        async def page(request: HttpRequest) -> HttpResponse:
            await proceed.wait()
            return HttpResponse(str(next(calls)))

        tasks = [asyncio.create_task(page(RequestFactory().get("/"))) for _ in range(200)]
        await asyncio.sleep(0)
        proceed.set()
        return [response.content.decode() for response in await asyncio.gather(*tasks)]

    assert asyncio.run(ask()) == ["1"] * 200


def test_async_view(clock: ManualClock) -> None:
    """A coroutine function stays one; its pages are served, stale and refreshed as any other."""
    calls = itertools.count(1)

    @cached_view(60, stale_ttl=600, x_cache=True)
    async def page(request: HttpRequest) -> HttpResponse:
        return HttpResponse(f"{request.method} {next(calls)}")

    async def scene() -> None:
        async def ask(method: str = "GET") -> tuple[str, str]:
            response = await page(RequestFactory().generic(method, "/"))
            return response.content.decode(), response["X-Cache"]

        assert await ask() == ("GET 1", "MISS")
        assert await ask() == ("GET 1", "HIT")
        assert await ask("POST") == ("POST 2", "BYPASS")
        clock.advance(61)
        assert await ask() == ("GET 1", "STALE")
        while (await ask()) != ("GET 3", "HIT"):  # noqa: ASYNC110 - what ends it is the view's business
            await asyncio.sleep(0.01)
        await page.ainvalidate("/")
        assert await ask() == ("GET 4", "MISS")
        await page.ainvalidate_all()
        assert await ask() == ("GET 5", "MISS")

    assert inspect.iscoroutinefunction(page)
    asyncio.run(scene())


def test_async_user() -> None:
    """A user that has to be awaited."""

    async def who(request: HttpRequest) -> str:
        return request.GET["who"]

    calls = itertools.count(1)

    @cached_view(60, user=who, query=False)
    async def page(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(next(calls)))

    @cached_view(60, user=True)
    async def mine(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(next(calls)))

    async def auser(pk: int) -> User:
        return User(pk)

    async def ask(view: Any, path: str, pk: int = 0) -> str:
        request = RequestFactory().get(path)
        request.auser = lambda: auser(pk)  # type: ignore[attr-defined]
        content: bytes = (await view(request)).content
        return content.decode()

    assert [asyncio.run(ask(page, f"/?who={who}")) for who in "aba"] == ["1", "2", "1"]
    assert [asyncio.run(ask(mine, "/mine", pk)) for pk in (1, 2, 1)] == ["3", "4", "3"]


def test_exception_in_an_async_view() -> None:
    """What the view raises is raised, as it is."""

    @cached_view(60)
    async def page(request: HttpRequest) -> HttpResponse:
        raise Http404("not here")

    with pytest.raises(Http404, match="not here") as caught:
        Visitor(page)()
    assert caught.value.__context__ is None


def test_class_based_view() -> None:
    """What `as_view()` gives."""
    calls = itertools.count(1)

    class Page(View):
        def get(self, request: HttpRequest) -> HttpResponse:
            return HttpResponse(str(next(calls)))

    page = Visitor(cached_view(60)(Page.as_view()))
    assert [page()[0], page()[0], page("/other/")[0]] == ["1", "1", "2"]
    page.view.invalidate_all()
    assert page()[0] == "3"


def test_methods_of_class_based_views() -> None:
    """With `method_decorator`, on the class or on a method; subclasses at other paths have other pages."""
    calls = itertools.count(1)
    keep = cached_view(60)

    @method_decorator(keep, name="dispatch")
    class Page(View):
        def get(self, request: HttpRequest) -> HttpResponse:
            return HttpResponse(f"{type(self).__name__} {next(calls)}")

    class Other(Page):
        @method_decorator(keep)
        def get(self, request: HttpRequest) -> HttpResponse:
            return super().get(request)

    page, other = Visitor(Page.as_view()), Visitor(Other.as_view())
    assert [page("/page/")[0], other("/other/")[0], page("/page/")[0]] == ["Page 1", "Other 2", "Page 1"]
    assert other("/other/")[0] == "Other 2"
    keep.invalidate("/page/")
    assert [page("/page/")[0], other("/other/")[0]] == ["Page 3", "Other 2"]
    assert not hasattr(Page.dispatch, "invalidate_all")


def test_asynchronous_class_based_view() -> None:
    """`dispatch` gives a coroutine there."""
    calls = itertools.count(1)

    @method_decorator(cached_view(60), name="dispatch")
    class Page(View):
        async def get(self, request: HttpRequest) -> HttpResponse:
            return HttpResponse(str(next(calls)))

    page = Visitor(Page.as_view())
    assert [page()[0], page()[0]] == ["1", "1"]


def test_response_that_is_to_be_rendered() -> None:
    """It is rendered before it is kept; callbacks run when it is made."""
    template = engines["django"].from_string("{{ number }}")
    rendered = []

    def says(request: HttpRequest, n: int) -> HttpResponse:
        response = TemplateResponse(request, template, {"number": n})  # type: ignore[arg-type]
        response.add_post_render_callback(rendered.append)
        return response

    page = counting(says)
    assert [page(), page()] == [("1", "MISS"), ("1", "HIT")]
    assert len(rendered) == 1


def test_response_that_is_to_be_rendered_by_an_async_view() -> None:
    """The template may ask the database, in the way that Django has for that."""
    template = engines["django"].from_string("{{ number }}")
    calls = itertools.count(1)

    @cached_view(60)
    async def view(request: HttpRequest) -> HttpResponse:
        return TemplateResponse(request, template, {"number": next(calls)})  # type: ignore[arg-type]

    page = Visitor(view)
    assert [page()[0], page()[0]] == ["1", "1"]


def test_json() -> None:
    """Any response with a body."""
    page = counting(lambda request, n: JsonResponse({"number": n}))
    page()
    response = page.ask()
    assert (response.content, response["Content-Type"]) == (b'{"number": 1}', "application/json")


@pytest.mark.parametrize("headers", [{"Vary": "X-Who"}, {"Cache-Control": "private"}, {"Set-Cookie": "a=b"}])
def test_waiting_for_a_page_that_is_for_somebody_else(headers: dict[str, str], cache: QuickCache) -> None:
    """Who waited for another request's response gets one of its own where that one isn't for both."""
    entered, proceed = threading.Semaphore(0), threading.Event()

    def says(request: HttpRequest, n: int) -> HttpResponse:
        entered.release()
        proceed.wait(10)
        return HttpResponse(f"for {request.headers['X-Who']}", headers=headers)

    page = counting(says)
    contents = {}

    def ask(who: str) -> None:
        contents[who] = page(headers={"x-who": who})[0]

    threads = [threading.Thread(target=ask, args=(who,)) for who in "ab"]
    threads[0].start()
    assert entered.acquire(timeout=5)
    threads[1].start()
    eventually(lambda: cache.engine.metrics().load_waits == 1)
    proceed.set()
    for thread in threads:
        thread.join()
    assert contents == {"a": "for a", "b": "for b"}


@pytest.mark.parametrize("entry", [{}, {"KEY_PREFIX": "shop"}, {"KEY_PREFIX": "shop", "VERSION": 3}])
@pytest.mark.parametrize("headers", [{}, {"Vary": "X-Who"}])
def test_invalidated_while_it_is_made(headers: dict[str, str], entry: dict[str, Any], location: str) -> None:
    """What was made before an invalidation isn't found after it, nor waited for."""
    entered, proceed = threading.Semaphore(0), threading.Event()

    def says(request: HttpRequest, n: int) -> HttpResponse:
        entered.release()
        if n == 1:
            proceed.wait(10)
        return HttpResponse(str(n), headers=headers)

    with override_settings(CACHES={"default": {"BACKEND": BACKEND, "LOCATION": location, **entry}}):
        page = counting(says)
        contents = []
        thread = threading.Thread(target=lambda: contents.append(page()[0]))
        thread.start()
        assert entered.acquire(timeout=5)
        page.view.invalidate("/page/")
        assert page()[0] == "2"
        proceed.set()
        thread.join()
        assert contents == ["1"]
        assert page()[0] == "2"


def test_invalidation() -> None:
    """By URL or request, for all hosts, languages and headers; a path alone for all its queries."""
    page = counting(number, headers=["X-A"])
    paths = ["/a/?x=1&y=2", "/a/", "/a/?x=2", "/b/", "/caf%C3%A9/"]

    def labels() -> list[str | None]:
        return [page(path)[1] for path in paths]

    labels()
    page.view.invalidate("/a/?y=2&x=1")
    assert labels() == ["MISS", "HIT", "HIT", "HIT", "HIT"]
    with translation.override("de"):
        page("/a/", headers={"host": "other", "x-a": "1"})
        page.view.invalidate("https://whatever/a/")
        assert page("/a/", headers={"host": "other", "x-a": "1"})[1] == "MISS"
    assert labels() == ["MISS", "MISS", "MISS", "HIT", "HIT"]
    page.view.invalidate(lazystr("/caf%C3%A9/"))
    page.view.invalidate(RequestFactory().get("/b/"))
    assert labels() == ["HIT", "HIT", "HIT", "MISS", "MISS"]
    page.view.invalidate_all()
    assert labels() == ["MISS"] * 5


def test_tags(cache: QuickCache) -> None:
    """Constant ones, or those that a function of the request gives."""
    page = counting(number, tags=["pages"])
    other = counting(number, tags=lambda request: [f"article:{request.GET['id']}"])
    page(), other("/?id=1"), other("/?id=2")
    cache.invalidate_tags("pages", "article:1")
    assert [page()[1], other("/?id=1")[1], other("/?id=2")[1]] == ["MISS", "MISS", "HIT"]


def test_unless() -> None:
    """A request for which it gives something true goes past the cache."""
    page = counting(number, unless=lambda request: "preview" in request.GET)
    assert [page("/?preview") for _ in range(2)] == [("1", "BYPASS"), ("2", "BYPASS")]


def test_cache_that_fails(cache: QuickCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """No request fails with it: the view is called, once each."""
    page = counting(number)

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError("the disk is on fire")

    monkeypatch.setattr(cache.engine, "_get", fail)
    assert page() == ("1", "BYPASS")
    monkeypatch.undo()
    monkeypatch.setattr(cache.engine._store, "put_with", fail)
    assert [page(), page()] == [("2", "MISS"), ("3", "MISS")]


NO_PAGES = [
    5,
    "page",
    [],
    ["page"],
    ["page", 200, "1", "now", 60.0, "", 0, "", "X-A", "1"],
    ["vary"],
    ["vary", "token", None],
    {"page": 1},
]


def test_cache_that_fails_below_an_entry(cache: QuickCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which says by which header pages differ: the view is called, also for a HEAD."""
    page = counting(lambda request, n: HttpResponse(str(n), headers={"Vary": "X-Mine"}))
    page()
    get = cache.engine._get

    def fail(key: str, *default: Any) -> Any:
        if "=x" in key:
            raise OSError("the disk is on fire")
        return get(key, *default)

    monkeypatch.setattr(cache.engine, "_get", fail)
    assert page(headers={"X-Mine": "x"}) == ("2", "BYPASS")
    assert page(method="HEAD", headers={"X-Mine": "x"})[1] == "BYPASS"


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("entry", NO_PAGES)
def test_entry_that_is_no_page(entry: Any, is_async: bool, cache: QuickCache) -> None:
    """Who can write where pages are kept may have put it there: the view is called, and no request fails."""
    calls = itertools.count(1)

    def page(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(next(calls)))

    async def async_page(request: HttpRequest) -> HttpResponse:
        return page(request)

    ask = Visitor(cached_view(60, x_cache=True)(async_page if is_async else page))
    ask("/page/", headers={"Accept": "text/html"})
    [key] = cache.engine.keys()
    cache.engine.set(key, entry)
    assert [ask(), ask()] == [("2", "BYPASS"), ("3", "BYPASS")]


def test_hard_timeout(cache: QuickCache) -> None:
    """A request waits no longer than that, and the page is there for the next one."""
    proceed = threading.Event()

    def says(request: HttpRequest, n: int) -> str:
        proceed.wait(10)
        return f"{request.path} {n}"

    page = counting(says, hard_timeout=0.05)
    with pytest.raises(LoaderTimeout):
        page()
    proceed.set()
    eventually(lambda: page() == ("/page/ 1", "HIT"))


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_serializers(serializer: str, location: str) -> None:
    """Pages are plain data, which any serializer takes, whatever bytes they consist of."""
    body = bytes(range(256))
    options = {"SERIALIZER": serializer, "ISOLATION": "copy"}
    with override_settings(
        CACHES={"default": {"BACKEND": BACKEND, "LOCATION": location, "OPTIONS": options}}
    ):
        page = counting(lambda request, n: HttpResponse(body, headers={"Vary": "Accept"}))
        page.ask()
        response = page.ask()
        assert (response.content, response["X-Cache"]) == (body, "HIT")


def test_another_alias(location: str) -> None:
    """Looked up for each request; one of another kind is an error that says what to set."""
    page = counting(number, alias="pages")
    entry = {"BACKEND": BACKEND, "LOCATION": f"{location} pages"}
    with override_settings(CACHES={"pages": entry}):
        assert [page()[1], page()[1]] == ["MISS", "HIT"]
    entry = {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}
    with (
        override_settings(CACHES={"pages": entry}),
        pytest.raises(ImproperlyConfigured, match=r"quickcache_django\.QuickCache"),
    ):
        page()


def test_key_function(location: str) -> None:
    """Keys are made as those of everything else in the alias."""
    entry = {"BACKEND": BACKEND, "LOCATION": location, "KEY_FUNCTION": _key_function}
    with override_settings(CACHES={"default": entry}):
        page = counting(number)
        page()
        engine = caches["default"].engine  # type: ignore[attr-defined]
        assert [key.partition("|")[0] for key in engine.keys("")] == ["mine"]
        assert page()[1] == "HIT"


def _key_function(key: str, prefix: str, version: int) -> str:
    return f"mine|{prefix}|{version}|{key}"


@pytest.mark.parametrize(
    "options",
    [
        {"query": "page"},
        {"headers": ["two words"]},
        {"statuses": [302]},
        {"x_cache": ""},
        {"user": "ada"},
        {"language": "de"},
        {"unless": True},
        {"etag": None},
    ],
)
def test_wrong_options(options: dict[str, Any]) -> None:
    """They are refused where the decorator is made, and named."""
    with pytest.raises(ConfigError) as caught:
        cached_view(60, **options)
    assert caught.value.field in options
