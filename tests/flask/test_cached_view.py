"""`quickcache_flask.cached_view`: whole responses, kept as HTTP allows."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Response, abort, flash, g, get_flashed_messages, make_response, request, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from flask.testing import FlaskClient
from flask.views import MethodView
from flask_caching import Cache, cache_view_hit, cache_view_miss
from werkzeug.test import EnvironBuilder, TestResponse, run_wsgi_app

from quickcache_core import ConfigError, LoaderTimeout, NoStableForm
from quickcache_core.testing import ManualClock
from quickcache_flask import QuickCache, cached_view

CACHE_TYPE = "quickcache_flask.QuickCache"

AddView = Callable[..., Any]


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)
    app.testing = True
    app.secret_key = "long enough to sign sessions with"
    return app


@pytest.fixture
def cache(app: Flask, clock: ManualClock) -> Cache:
    return Cache(app, config={"CACHE_TYPE": CACHE_TYPE, "CACHE_QUICKCACHE_CLOCK": clock})


@pytest.fixture
def backend(app: Flask, cache: Cache) -> QuickCache:
    backend = app.extensions["cache"][cache]
    assert isinstance(backend, QuickCache)
    return backend


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def add(app: Flask, cache: Cache) -> AddView:
    """Adds a view at `rule` that counts its calls, cached with `options`; gives the decorated view."""

    def add(
        timeout: Any = 60, /, *, rule: str = "/page", says: Callable[[int], Any] = str, **options: Any
    ) -> Any:
        calls = itertools.count(1)

        def page(**given: Any) -> Any:
            return says(next(calls))

        view = cached_view(cache, timeout, **{"x_cache": True, **options})(page)
        app.add_url_rule(rule, view_func=view, endpoint=rule, methods=["GET", "POST"])
        return view

    return add


def seen(response: TestResponse) -> tuple[str, str | None]:
    return response.text, response.headers.get("X-Cache")


def test_a_second_request(add: AddView, client: FlaskClient) -> None:
    """Within the timeout the page is served from the cache, with all its headers."""
    add(says=lambda number: Response(f"page {number}", 200, {"X-Mine": "ü"}, content_type="text/x-mine"))
    first, second = client.get("/page"), client.get("/page")
    assert seen(first) == ("page 1", "MISS")
    assert seen(second) == ("page 1", "HIT")
    assert second.headers["X-Mine"] == "ü"
    assert second.headers["Content-Type"] == first.headers["Content-Type"] == "text/x-mine"
    assert second.headers["ETag"] == first.headers["ETag"]


def test_response_class_of_the_app(add: AddView, client: FlaskClient, app: Flask) -> None:
    """Answers are of that class, made as any other, also where they are not modified."""

    class Mine(Response):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.notes: list[str] = []

    app.response_class = Mine
    made: list[Mine] = []
    app.after_request(lambda response: made.append(response) or response)  # type: ignore[func-returns-value]
    add()
    etag = client.get("/page").headers["ETag"]
    assert seen(client.get("/page")) == ("1", "HIT")
    assert client.get("/page", headers={"If-None-Match": etag}).status_code == 304
    assert len({id(response.notes) for response in made}) == 3


def test_a_response_from_the_cache_is_as_any_other(app: Flask, add: AddView) -> None:
    """Whoever handles it further may change it, and the page stays as it is."""
    view = add()
    with app.test_request_context("/page"):
        view()
        response = view()
        assert vars(response).keys() == vars(Response()).keys()
        assert type(response) is Response
        response.set_cookie("a", "b")
        response.headers["X-Mine"] = "x"
        response.data = b"other"
        response.status_code = 500
        response.call_on_close(lambda: None)
        response = view()
        assert (response.status, response.data, response.mimetype) == ("200 OK", b"1", "text/html")
        assert "X-Mine" not in response.headers
        assert "Set-Cookie" not in response.headers


def test_after_the_timeout(add: AddView, client: FlaskClient, clock: ManualClock) -> None:
    """Then the view is called again."""
    add(60)
    client.get("/page")
    clock.advance(60)
    assert seen(client.get("/page")) == ("2", "MISS")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/page?a=1", "/page?a=2"),
        ("/page?a=1", "/page"),
        ("/page?a=", "/page?a"),
        ("/page?a=1&a=2", "/page?a=2&a=1"),
        ("/page?b=%26a%3D1", "/page?b=&a=1"),
        ("/page?x=%FF", "/page?x=%C3%BF"),
    ],
)
def test_another_query(one: str, other: str, add: AddView, client: FlaskClient) -> None:
    """Other parameters, or the same in an order that may mean something, are another page."""
    add()
    client.get(one)
    expected = "HIT" if one == "/page?a=" else "MISS"  # which no framework can tell apart
    assert client.get(other).headers["X-Cache"] == expected


def test_the_same_parameters_in_another_order(add: AddView, client: FlaskClient) -> None:
    """The order of different parameters says nothing."""
    add()
    client.get("/page?a=1&b=2")
    assert seen(client.get("/page?b=2&a=1")) == ("1", "HIT")


def test_chosen_parameters(add: AddView, client: FlaskClient) -> None:
    """Others make no difference."""
    add(query=["page", "größe"])
    client.get("/page?page=1&utm_source=mail")
    assert client.get("/page?page=1").headers["X-Cache"] == "HIT"
    assert client.get("/page?page=2").headers["X-Cache"] == "MISS"
    assert client.get("/page?page=1&größe=2").headers["X-Cache"] == "MISS"


def test_no_parameters(add: AddView, client: FlaskClient) -> None:
    """`query=False`: the path alone counts."""
    add(query=False)
    client.get("/page?a=1")
    assert client.get("/page").headers["X-Cache"] == "HIT"


def test_paths_with_what_separates_parts_of_keys(add: AddView, client: FlaskClient) -> None:
    """A path may contain an encoded question mark or a tilde, which make no query."""
    add(rule="/<path:rest>")
    paths = ["/a%3Fb=1", "/a?b=1", "/a~1", "/a%3Fb%3D1~6", "/a%20b", "/a%5Cx20b", "/" + "long" * 100]
    for number, path in enumerate(paths, 1):
        assert seen(client.get(path)) == (str(number), "MISS")
    for number, path in enumerate(paths, 1):
        assert seen(client.get(path)) == (str(number), "HIT")


def test_another_host_or_scheme(add: AddView, client: FlaskClient) -> None:
    """Pages often contain their own address."""
    add()
    client.get("/page")
    assert client.get("/page", base_url="http://other.example").headers["X-Cache"] == "MISS"
    assert client.get("/page", base_url="https://localhost").headers["X-Cache"] == "MISS"
    # A host that nobody has, made to look like another key.
    assert client.get("/", headers={"Host": "localhost/page"}).status_code in (404, 400)


def test_host_that_does_not_count(add: AddView, client: FlaskClient) -> None:
    """`host=False`: one page for all."""
    add(host=False)
    client.get("/page")
    assert client.get("/page", base_url="https://other.example").headers["X-Cache"] == "HIT"


def test_other_methods(add: AddView, client: FlaskClient) -> None:
    """A POST goes to the view and leaves no page."""
    add()
    assert seen(client.post("/page")) == ("1", "BYPASS")
    assert seen(client.get("/page")) == ("2", "MISS")
    assert seen(client.post("/page")) == ("3", "BYPASS")
    assert seen(client.get("/page")) == ("2", "HIT")


def test_head(add: AddView, client: FlaskClient) -> None:
    """A HEAD is answered from the page of a GET, and makes that page if need be."""
    add(says=lambda number: request.method + str(number))
    first = client.head("/page")
    assert (first.text, first.headers["X-Cache"], first.headers["Content-Length"]) == ("", "MISS", "4")
    assert seen(client.get("/page")) == ("GET1", "HIT")
    assert client.head("/page").headers["X-Cache"] == "HIT"


def test_authorization(add: AddView, client: FlaskClient) -> None:
    """What a client with credentials gets is for that client."""
    add()
    credentials = {"Authorization": "Bearer x"}
    assert seen(client.get("/page", headers=credentials)) == ("1", "BYPASS")
    client.get("/page")
    assert seen(client.get("/page", headers=credentials)) == ("3", "BYPASS")


def test_authorization_by_user(add: AddView, client: FlaskClient) -> None:
    """Where pages are kept by user it is no obstacle; and caches on the way learn that they are private."""
    add(user=lambda request: request.headers.get("Authorization"))
    for who in "ab":
        assert client.get("/page", headers={"Authorization": who}).headers["X-Cache"] == "MISS"
    response = client.get("/page", headers={"Authorization": "a"})
    assert seen(response) == ("1", "HIT")
    assert response.headers["Cache-Control"] == "private"


def cookie(number: int) -> Response:
    response = make_response(str(number))
    response.set_cookie("seen", "yes")
    return response


def streamed(number: int) -> Response:
    return Response(iter([str(number)]))


@pytest.mark.parametrize(
    "says",
    [
        cookie,
        streamed,
        lambda number: (str(number), 500),
        lambda number: (str(number), 404),
        lambda number: (str(number), {"Cache-Control": "private"}),
        lambda number: (str(number), {"Cache-Control": "No-Store, max-age=5"}),
        lambda number: (str(number), {"Cache-Control": "no-cache"}),
        lambda number: (str(number), {"Vary": "Accept, *"}),
        lambda number: str(number) + str(session.get("name")),
        lambda number: str(number) + str(flash("saved")),
    ],
)
def test_responses_that_are_not_for_everybody(says: Any, add: AddView, client: FlaskClient) -> None:
    """They are handed out, unchanged, and not kept."""
    add(says=says)
    assert seen(client.get("/page"))[1] == "BYPASS"
    response = client.get("/page")
    assert response.text.startswith("2")
    assert response.headers["X-Cache"] == "BYPASS"
    assert "ETag" not in response.headers


def test_private_by_user(add: AddView, client: FlaskClient) -> None:
    """A private page may be kept by user; one with `no-store` may not."""
    add(user=lambda request: "ada", says=lambda number: (str(number), {"Cache-Control": "private"}))
    add(user=lambda request: "ada", rule="/never", says=lambda n: (str(n), {"Cache-Control": "no-store"}))
    client.get("/page")
    assert seen(client.get("/page")) == ("1", "HIT")
    client.get("/never")
    assert seen(client.get("/never")) == ("2", "BYPASS")


def test_session_by_user(add: AddView, client: FlaskClient, app: Flask) -> None:
    """A view that looks into the session is kept for users only, not for those who are nobody."""

    @app.get("/login/<name>")
    def login(name: str) -> str:
        session["name"] = name
        return "welcome"

    add(
        user=lambda request: session.get("name"),
        says=lambda number: f"{session.get('name')} {number}",
    )
    assert seen(client.get("/page")) == ("None 1", "BYPASS")
    client.get("/login/ada")
    assert seen(client.get("/page")) == ("ada 2", "MISS")
    assert seen(client.get("/page")) == ("ada 2", "HIT")
    client.get("/login/bob")
    assert seen(client.get("/page")) == ("bob 3", "MISS")


def test_flashed_messages(app: Flask, add: AddView, client: FlaskClient) -> None:
    """They are shown once, also to a user who has pages of her own."""

    @app.get("/save")
    def save() -> str:
        flash("saved")
        return ""

    add(user=lambda request: "ada", says=lambda number: f"{number} {get_flashed_messages()}")
    client.get("/save")
    assert seen(client.get("/page")) == ("1 ['saved']", "BYPASS")
    assert seen(client.get("/page")) == ("2 []", "MISS")
    assert seen(client.get("/page")) == ("2 []", "HIT")


def test_session_that_others_looked_into(app: Flask, add: AddView, client: FlaskClient) -> None:
    """Who looked before the view has stored there what the view shows, as Flask-Login does: such a page is
    for everybody only where `user` says by whom pages differ.
    """

    def load_user() -> None:
        g.user = session.get("name")

    app.before_request(load_user)
    add(says=lambda number: f"{g.user} {number}")
    add(rule="/mine", user=lambda request: g.user, says=lambda number: f"{g.user} {number}")
    add(rule="/ours", user=lambda request: "all", says=str)

    @app.get("/login/<name>")
    def login(name: str) -> str:
        session["name"] = name
        return ""

    client.get("/login/ada")
    assert [seen(client.get("/page")) for _ in range(2)] == [("ada 1", "BYPASS"), ("ada 2", "BYPASS")]
    assert [seen(client.get("/mine")) for _ in range(2)] == [("ada 1", "MISS"), ("ada 1", "HIT")]
    assert "Cookie" in client.get("/mine").headers["Vary"]
    assert [seen(client.get("/ours"))[1] for _ in range(2)] == ["MISS", "HIT"]
    client.get("/login/bob")
    assert seen(client.get("/page")) == ("bob 3", "BYPASS")
    assert seen(client.get("/mine")) == ("bob 2", "MISS")


def test_session_that_others_looked_into_before_a_refresh(
    app: Flask, add: AddView, client: FlaskClient, clock: ManualClock
) -> None:
    """What they stored in `g` goes with the copy of the request."""

    def load_user() -> None:
        g.user = session.get("name") if "me" in request.args else None

    app.before_request(load_user)
    made = []

    def says(number: int) -> str:
        made.append(number)
        return f"{g.user} {number}"

    add(60, stale_ttl=600, query=False, says=says)
    client.get("/page")
    clock.advance(61)
    assert seen(client.get("/page?me=1")) == ("None 1", "STALE")
    eventually(lambda: made == [1, 2])
    eventually(lambda: seen(client.get("/page?me=1"))[1] == "BYPASS")


def test_session_that_is_asked_for_a_key_only(app: Flask, add: AddView, client: FlaskClient) -> None:
    """That is a look, too; Flask before 3.1.3 doesn't notice it by itself."""

    @app.get("/login")
    def login() -> str:
        session["name"] = "ada"
        return ""

    add(says=lambda number: f"{'name' in session} {number}")
    client.get("/login")
    assert seen(client.get("/page")) == ("True 1", "BYPASS")
    assert seen(app.test_client().get("/page"))[0] == "False 2"


class SessionThatCannotTell(SecureCookieSession):
    """As those whose class says nothing of it, before Flask 3.1.3."""

    accessed = True


def test_session_that_cannot_tell_whether_it_was_looked_into(app: Flask, cache: Cache) -> None:
    """It counts as looked into."""
    app.session_interface = SecureCookieSessionInterface()
    app.session_interface.session_class = SessionThatCannotTell

    @app.get("/page")
    @cached_view(cache, 60, user=lambda request: None, x_cache=True)
    def page() -> str:
        return "page"

    assert seen(app.test_client().get("/page")) == ("page", "BYPASS")


def test_method_that_was_overridden(app: Flask, add: AddView, client: FlaskClient) -> None:
    """By whom the application lets do that."""

    def override() -> None:
        request.method = request.headers.get("X-HTTP-Method-Override", request.method)

    app.before_request(override)
    add()
    client.get("/page")
    assert seen(client.get("/page", headers={"X-HTTP-Method-Override": "PATCH"})) == ("2", "BYPASS")


def test_view_that_answers_conditions_itself(add: AddView, client: FlaskClient, clock: ManualClock) -> None:
    """A refresh, and a HEAD, ask it for a whole page, whatever the client has."""

    def says(number: int) -> Any:
        return ("", 304) if "If-None-Match" in request.headers or "Range" in request.headers else str(number)

    add(60, stale_ttl=600, says=says)
    add(rule="/head", says=says)
    client.get("/page")
    clock.advance(61)
    conditions = {"If-None-Match": '"other"', "Range": "bytes=0-0"}
    assert seen(client.get("/page", headers=conditions)) == ("1", "STALE")
    eventually(lambda: seen(client.get("/page")) == ("2", "HIT"))
    assert client.head("/head", headers=conditions).status_code == 200
    assert seen(client.get("/head")) == ("1", "HIT")


def test_chosen_statuses(add: AddView, client: FlaskClient) -> None:
    """Others than 200 on demand, also those that `abort` makes."""
    add(says=lambda number: abort(404) if number == 1 else str(number), statuses=[200, 404])
    first, second = client.get("/page"), client.get("/page")
    assert (first.status_code, first.headers["X-Cache"]) == (404, "MISS")
    assert (second.status_code, second.headers["X-Cache"], second.text) == (404, "HIT", first.text)


def test_redirects(add: AddView, client: FlaskClient) -> None:
    """A permanent one keeps where it leads."""
    add(says=lambda number: ("", 301, {"Location": f"/to/{number}"}), statuses=[301])
    client.get("/page")
    response = client.get("/page")
    assert (response.status_code, response.headers["Location"]) == (301, "/to/1")


def test_vary(add: AddView, client: FlaskClient) -> None:
    """Responses that vary by headers of the request are kept by their values."""
    add(says=lambda n: (f"{request.headers.get('Accept')} {n}", {"Vary": "Accept, X-Kind"}))
    for number, accept in enumerate(("text/html", "text/plain", ""), 1):
        assert seen(client.get("/page", headers={"Accept": accept})) == (f"{accept} {number}", "MISS")
    for number, accept in enumerate(("text/html", "text/plain", ""), 1):
        assert seen(client.get("/page", headers={"Accept": accept})) == (f"{accept} {number}", "HIT")
    assert seen(client.get("/page"))[0] == "None 4"
    assert seen(client.get("/page", headers={"X-Kind": "5"}))[0] == "None 5"


def test_vary_that_grows(add: AddView, client: FlaskClient) -> None:
    """A later response may name more headers; pages are told apart by all of them from there on."""

    def says(number: int) -> Any:
        if request.headers.get("X-A") == "1":
            return f"{number}", {"Vary": "X-A"}
        return f"{request.headers.get('X-B')} {number}", {"Vary": "X-A, X-B"}

    add(says=says)
    client.get("/page", headers={"X-A": "1"})
    for b in "xyxy":
        response = client.get("/page", headers={"X-A": "2", "X-B": b})
        assert response.text.startswith(b)
    assert seen(client.get("/page", headers={"X-A": "2", "X-B": "x"})) == ("x 2", "HIT")
    assert seen(client.get("/page", headers={"X-A": "1"})) == ("1", "HIT")


LINES = [
    ("Vary", "Accept"),
    ("Vary", "X-Kind"),
    ("Link", "</a>"),
    ("Link", "</b>"),
    ("X-A", "1"),
    ("x-a", "2"),
]


@pytest.mark.parametrize("options", [{}, {"headers": ["X-Tenant"]}, {"cache_control": True}], ids=repr)
def test_headers_with_several_lines(options: dict[str, Any], add: AddView, client: FlaskClient) -> None:
    """All of them are sent: with the response that a page is made of, and from the cache; of a `Vary` also
    where nothing has changed.
    """
    control = [("Cache-Control", "public"), ("Cache-Control", "must-revalidate")]
    add(says=lambda number: Response(f"{number}", headers=[*LINES, *control]), **options)
    made, kept = client.get("/page"), client.get("/page")
    unchanged = client.get("/page", headers={"If-None-Match": made.headers["ETag"]})
    assert (made.headers["X-Cache"], kept.headers["X-Cache"], unchanged.status_code) == ("MISS", "HIT", 304)
    for response in (made, kept, unchanged):
        varies_on = ", ".join(response.headers.getlist("Vary")).split(", ")
        assert varies_on == ["Accept", "X-Kind", *options.get("headers", ())]
    for name in ("Vary", "Cache-Control", "Link", "X-A"):
        assert made.headers.getlist(name) == kept.headers.getlist(name)
    assert made.headers.getlist("Link") == ["</a>", "</b>"]
    assert made.headers.getlist("X-A") == ["1", "2"]


def test_headers(add: AddView, client: FlaskClient) -> None:
    """Chosen headers are part of the key, and of `Vary`."""
    add(headers=["X-Tenant"], says=lambda n: (f"{n}", {"Vary": "Accept"}))
    for tenant in "abab":
        response = client.get("/page", headers={"X-Tenant": tenant})
    assert seen(response) == ("2", "HIT")
    assert response.headers["Vary"] == "Accept, X-Tenant"


def test_language(add: AddView, client: FlaskClient) -> None:
    """Whatever the app takes for the language."""
    add(language=lambda request: request.args.get("lang"), query=False)
    for lang in ("de", "en", "de"):
        response = client.get(f"/page?lang={lang}")
    assert seen(response) == ("1", "HIT")


@pytest.mark.parametrize("option", ["user", "language"])
def test_what_nobody_can_tell_apart(option: str, add: AddView, client: FlaskClient) -> None:
    """An error that names the option, and no key with an address in it."""
    add(**{option: lambda request: [object()]})
    with pytest.raises(NoStableForm, match=rf"object has no stable form: .* {option} of cached_view"):
        client.get("/page")


def test_not_modified(add: AddView, client: FlaskClient) -> None:
    """A client that has the page gets a 304, also by the weak comparison, and one of several tags."""
    add(cache_control=True)
    etag = client.get("/page").headers["ETag"]
    for known in (etag, f"W/{etag}", f'"other", W/{etag}', "*"):
        response = client.get("/page", headers={"If-None-Match": known})
        assert (response.status_code, response.text, response.headers["X-Cache"]) == (304, "", "HIT")
        assert response.headers["ETag"] == etag
        assert "Cache-Control" in response.headers
        assert "Content-Type" not in response.headers
    response = client.get("/page", headers={"If-None-Match": '"other"'})
    assert seen(response) == ("1", "HIT")


def test_not_modified_although_the_page_had_to_be_made(
    add: AddView, client: FlaskClient, clock: ManualClock
) -> None:
    """The same page again, made anew: the client has it all the same."""
    add(says=lambda number: "same")
    etag = client.get("/page").headers["ETag"]
    clock.advance(61)
    response = client.get("/page", headers={"If-None-Match": etag})
    assert (response.status_code, response.headers["X-Cache"]) == (304, "MISS")


def test_etag_of_the_view(add: AddView, client: FlaskClient) -> None:
    """A view that knows better is believed."""
    date = "Mon, 01 Jan 2024 00:00:00 GMT"
    add(says=lambda number: (str(number), {"ETag": 'W/"mine"', "Last-Modified": date}))
    client.get("/page")
    assert client.get("/page", headers={"If-None-Match": '"mine"'}).status_code == 304
    since = {"If-Modified-Since": date}
    assert client.get("/page", headers=since).status_code == 304
    assert client.get("/page", headers={**since, "If-None-Match": '"x"'}).status_code == 200
    assert (
        client.get("/page", headers={"If-Modified-Since": "Sun, 31 Dec 2023 00:00:00 GMT"}).status_code == 200
    )
    assert client.get("/page", headers={"If-Modified-Since": "yesterday"}).status_code == 200


def test_last_modified(add: AddView, client: FlaskClient, clock: ManualClock) -> None:
    """On demand it is the time at which the page was made."""
    add(last_modified=True, etag=False)
    date = client.get("/page").headers["Last-Modified"]
    clock.advance(10)
    response = client.get("/page", headers={"If-Modified-Since": date})
    assert (response.status_code, response.headers["X-Cache"]) == (304, "HIT")
    assert client.get("/page").headers["Last-Modified"] == date
    assert "ETag" not in response.headers


def test_max_age_counts_down(add: AddView, client: FlaskClient, clock: ManualClock) -> None:
    """Browsers and caches on the way keep the page for as long as we do."""
    add(60, cache_control=True, stale_directives=True, stale_ttl=30)
    rest = ", stale-while-revalidate=30, stale-if-error=30"
    assert client.get("/page").headers["Cache-Control"] == f"max-age=60{rest}"
    clock.advance(20)
    assert client.get("/page").headers["Cache-Control"] == f"max-age=40{rest}"


def test_max_age_beside_other_directives(add: AddView, client: FlaskClient) -> None:
    """What the view says stays; with a `max-age` of its own ours is left out, and the age is told."""
    add(60, cache_control=True, says=lambda n: (str(n), {"Cache-Control": "public"}))
    assert client.get("/page").headers["Cache-Control"] == "public, max-age=60"
    assert client.get("/page").headers["Cache-Control"] == "public, max-age=60"


def test_age(add: AddView, client: FlaskClient, clock: ManualClock) -> None:
    """A page that says how long it is fresh is that much older when it comes from the cache."""
    add(60, says=lambda n: (str(n), {"Cache-Control": "max-age=300"}))
    client.get("/page")
    clock.advance(20)
    response = client.get("/page")
    assert (response.headers["Age"], response.headers["Cache-Control"]) == ("20", "max-age=300")


def test_timeout_of_the_response(add: AddView, client: FlaskClient, clock: ManualClock) -> None:
    """Without a timeout the response's own `max-age` holds, and 0 is for nobody to keep."""
    ages = {"/page": "max-age=10", "/zero": "max-age=0", "/shared": "max-age=5, s-maxage=20"}
    for rule, control in ages.items():
        add(None, rule=rule, says=lambda n, control=control: (str(n), {"Cache-Control": control}))
    for rule in ages:
        client.get(rule)
    clock.advance(9)
    assert client.get("/page").headers["X-Cache"] == "HIT"
    assert client.get("/shared").headers["X-Cache"] == "HIT"
    assert client.get("/zero").headers["X-Cache"] == "BYPASS"
    clock.advance(1)
    assert client.get("/page").headers["X-Cache"] == "MISS"


def test_default_timeout(app: Flask, clock: ManualClock) -> None:
    """Without a timeout anywhere that of the cache holds."""
    cache = Cache(
        app,
        config={"CACHE_TYPE": CACHE_TYPE, "CACHE_QUICKCACHE_CLOCK": clock, "CACHE_DEFAULT_TIMEOUT": 10},
    )
    app.add_url_rule("/", view_func=cached_view(cache, x_cache=True, cache_control=True)(_constant))
    client = app.test_client()
    assert client.get("/").headers["Cache-Control"] == "max-age=10"
    clock.advance(10)
    assert client.get("/").headers["X-Cache"] == "MISS"


def _constant() -> str:
    return "constant"


@pytest.mark.parametrize(("timeout", "expected"), [(0, "HIT"), (-1, "BYPASS")])
def test_timeouts_as_flask_caching_has_them(
    timeout: int, expected: str, add: AddView, client: FlaskClient, clock: ManualClock
) -> None:
    """0: no end; negative: nothing is kept."""
    add(timeout)
    client.get("/page")
    clock.advance(1e6)
    assert client.get("/page").headers["X-Cache"] == expected


def eventually(check: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(500):
        if check():
            return
        pause.wait(0.01)
    pytest.fail("it didn't happen within 5 seconds")


def test_stale(add: AddView, client: FlaskClient, clock: ManualClock) -> None:
    """After the timeout the old page is served at once, while a new one is made behind it."""
    add(60, stale_ttl=600, rule="/page/<name>", says=lambda n: f"{request.path} {request.args['a']} {n}")
    client.get("/page/x?a=1")
    clock.advance(61)
    assert seen(client.get("/page/x?a=1")) == ("/page/x 1 1", "STALE")
    eventually(lambda: seen(client.get("/page/x?a=1")) == ("/page/x 1 2", "HIT"))


def test_what_a_stale_page_is_made_again_with(app: Flask, cache: Cache, clock: ManualClock) -> None:
    """A copy of the request and of `g`, whose changes are nobody else's; teardown functions run."""
    torn_down = []
    app.before_request(lambda: setattr(g, "user", request.args.get("user")))
    app.teardown_request(lambda error: torn_down.append(threading.current_thread().name))
    calls = itertools.count(1)

    @app.get("/page")
    @cached_view(cache, 60, stale_ttl=600)
    def page() -> str:
        number = next(calls)
        g.number = number
        return f"{g.user} {request.cookies.get('c')} {number}"

    client = app.test_client()
    client.set_cookie("c", "v")
    client.get("/page?user=ada")
    clock.advance(61)
    client.get("/page?user=ada")
    eventually(lambda: client.get("/page?user=ada").text == "ada v 2")
    assert any("quickcache" in name for name in torn_down)


@pytest.mark.parametrize("failure", [RuntimeError("down"), 503])
def test_stale_while_the_view_fails(
    failure: Any, add: AddView, client: FlaskClient, backend: QuickCache, clock: ManualClock
) -> None:
    """An exception, or an error page, replaces no older page."""
    numbers = []

    def says(number: int) -> Any:
        numbers.append(number)
        if number == 1:
            return "good"
        if isinstance(failure, Exception):
            raise failure
        return "bad", failure

    add(60, stale_ttl=600, says=says)
    client.get("/page")
    clock.advance(61)
    for calls in (2, 3):
        assert seen(client.get("/page")) == ("good", "STALE")
        eventually(lambda calls=calls: backend.engine.metrics().load_failures == calls - 1)
        assert seen(client.get("/page")) == ("good", "STALE")
        clock.advance(6)  # until it is tried again
    assert numbers == [1, 2, 3]


def test_stale_page_that_has_become_private(add: AddView, client: FlaskClient, clock: ManualClock) -> None:
    """What may not be kept any more is not served any more either."""
    add(60, stale_ttl=600, says=lambda n: (str(n), {"Cache-Control": "private"} if n > 1 else {}))
    client.get("/page")
    clock.advance(61)
    assert seen(client.get("/page")) == ("1", "STALE")
    eventually(lambda: client.get("/page").headers["X-Cache"] == "BYPASS")


def test_many_cold_requests(app: Flask, cache: Cache) -> None:
    """200 of them at once: the view is called once, and all get its page."""
    calls = itertools.count(1)
    arrived = threading.Barrier(201)
    proceed = threading.Event()

    @app.get("/page")
    @cached_view(cache, 60)
    def page() -> str:
        number = next(calls)
        proceed.wait(10)
        return str(number)

    texts: list[str] = []

    def ask() -> None:
        arrived.wait(10)
        texts.append(app.test_client().get("/page").text)

    threads = [threading.Thread(target=ask) for _ in range(200)]
    for thread in threads:
        thread.start()
    arrived.wait(10)
    backend = app.extensions["cache"][cache]
    eventually(lambda: backend.engine.metrics().load_waits == 199)
    proceed.set()
    for thread in threads:
        thread.join()
    assert texts == ["1"] * 200


def together(app: Flask, entered: threading.Semaphore, proceed: threading.Event, requests: Any) -> list[str]:
    """The answers to requests of which the second one comes while the view works on the first one."""
    texts: list[str] = ["", ""]

    def ask(place: int) -> None:
        texts[place] = app.test_client().get("/page", headers=requests[place]).text

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(2)]
    threads[0].start()
    assert entered.acquire(timeout=5)
    threads[1].start()
    [backend] = app.extensions["cache"].values()
    eventually(lambda: backend.engine.metrics().load_waits == 1)
    proceed.set()
    for thread in threads:
        thread.join()
    return texts


@pytest.mark.parametrize(
    "headers", [{"Vary": "X-Who"}, {"Cache-Control": "private"}, {"Set-Cookie": "a=b"}, {"Vary": "*"}]
)
def test_waiting_for_a_page_that_is_for_somebody_else(
    headers: dict[str, str], app: Flask, cache: Cache
) -> None:
    """Who waited for another request's response gets one of its own where that one isn't for both."""
    entered, proceed = threading.Semaphore(0), threading.Event()

    @app.get("/page")
    @cached_view(cache, 60)
    def page() -> Any:
        entered.release()
        proceed.wait(10)
        return f"for {request.headers['X-Who']}", headers

    assert together(app, entered, proceed, [{"X-Who": "a"}, {"X-Who": "b"}]) == ["for a", "for b"]


def test_waiting_in_vain(app: Flask, cache: Cache) -> None:
    """Nobody waits for a response where the last one was for somebody in particular; one that is kept is for
    all again.
    """
    both, control = threading.Barrier(2), "private"
    calls = []

    @app.get("/page")
    @cached_view(cache, 60)
    def page() -> Any:
        calls.append(control)
        if len(calls) in (2, 3):
            both.wait(5)
        return "page", {"Cache-Control": control}

    def ask() -> None:
        statuses.append(app.test_client().get("/page").status_code)

    def ask_twice() -> None:
        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    statuses: list[int] = []
    ask()
    ask_twice()
    assert statuses == [200] * 3
    control = "public"
    ask()
    ask()
    assert calls == ["private"] * 3 + ["public"]


def test_page_beside_one_for_somebody(app: Flask, cache: Cache) -> None:
    """A response that isn't kept takes away no page that another request has made meanwhile."""
    entered, proceed = threading.Semaphore(0), threading.Event()

    @app.get("/page")
    @cached_view(cache, 60, x_cache=True)
    def page() -> Any:
        who = request.headers.get("X-Who", "all")
        if who == "b":
            entered.release()
            proceed.wait(10)
        return f"for {who}", {"Cache-Control": "public" if who == "all" else "private"}

    def ask(**headers: str) -> TestResponse:
        return app.test_client().get("/page", headers=headers)

    ask(**{"X-Who": "a"})
    thread = threading.Thread(target=lambda: ask(**{"X-Who": "b"}))
    thread.start()
    assert entered.acquire(timeout=5)
    assert seen(ask()) == ("for all", "MISS")
    proceed.set()
    thread.join()
    assert seen(ask()) == ("for all", "HIT")


def test_waiting_again(app: Flask, cache: Cache, clock: ManualClock) -> None:
    """After a while: it may have become a page for all."""
    calls = itertools.count(1)
    entered, proceed = threading.Semaphore(0), threading.Event()

    @app.get("/page")
    @cached_view(cache, 60)
    def page() -> Any:
        if number := next(calls) - 1:
            entered.release()
            proceed.wait(10)
        return str(number), {"Cache-Control": "public" if number else "private"}

    app.test_client().get("/page")
    clock.advance(10)
    assert together(app, entered, proceed, [{}, {}]) == ["1", "1"]


def test_error_that_others_wait_for(app: Flask, cache: Cache) -> None:
    """An error page says nothing of the next one: who comes at the same time waits for it."""
    calls = itertools.count(1)
    entered, proceed = threading.Semaphore(0), threading.Event()

    @app.get("/page")
    @cached_view(cache, 60)
    def page() -> Any:
        number = next(calls)
        entered.release()
        if number > 1:
            proceed.wait(10)
        return str(number), 503 if number == 1 else 200

    assert app.test_client().get("/page").status_code == 503
    assert entered.acquire(timeout=5)
    assert together(app, entered, proceed, [{}, {}]) == ["2", "2"]


@pytest.mark.parametrize("headers", [{}, {"Vary": "X-Who"}])
def test_invalidated_while_it_is_made(headers: dict[str, str], app: Flask, cache: Cache) -> None:
    """What was made before an invalidation isn't found after it."""
    calls = itertools.count(1)
    entered, proceed = threading.Semaphore(0), threading.Event()

    @app.get("/page")
    @cached_view(cache, 60)
    def page() -> Any:
        number = next(calls)
        entered.release()
        if number == 1:
            proceed.wait(10)
        return str(number), headers

    texts = []
    thread = threading.Thread(target=lambda: texts.append(app.test_client().get("/page").text))
    thread.start()
    assert entered.acquire(timeout=5)
    with app.app_context():
        page.invalidate("/page")
    assert app.test_client().get("/page").text == "2"
    proceed.set()
    thread.join()
    assert texts == ["1"]
    assert app.test_client().get("/page").text == "2"


@pytest.mark.parametrize(("rule", "left_out"), [("/page", "SCRIPT_NAME"), ("/", "PATH_INFO")])
def test_server_that_leaves_out_what_is_empty(
    rule: str, left_out: str, app: Flask, add: AddView, client: FlaskClient
) -> None:
    """PEP 3333 lets it. Pages are found, and forgotten, as with any other server."""
    view = add(rule=rule)
    client.get(rule)
    environ = EnvironBuilder(path=rule).get_environ()
    assert environ.pop(left_out) in ("", "/")

    def ask() -> tuple[str, str | None]:
        body, status, headers = run_wsgi_app(app, dict(environ))
        assert status == "200 OK"
        return b"".join(body).decode(), headers["X-Cache"]

    ask()
    assert ask() == ("1" if left_out == "SCRIPT_NAME" else "2", "HIT")
    with app.request_context(dict(environ)):
        view.invalidate(request)
    assert ask()[1] == "MISS"


def test_invalidation(add: AddView, client: FlaskClient, app: Flask) -> None:
    """By URL: all hosts and headers of it, and without a query all of its queries; or the whole view."""
    view = add(rule="/<path:rest>", headers=["X-A"])
    first = ["/a?x=1&y=2", "/a", "/a?x=2", "/b", "/c/caf%C3%A9"]

    def labels() -> list[str | None]:
        return [client.get(path).headers["X-Cache"] for path in first]

    client.get("/a?x=1&y=2", base_url="http://other.example", headers={"X-A": "1"})
    labels()
    with app.app_context():
        view.invalidate("/a?y=2&x=1")
    assert labels() == ["MISS", "HIT", "HIT", "HIT", "HIT"]
    other = client.get("/a?x=1&y=2", base_url="http://other.example", headers={"X-A": "1"})
    assert other.headers["X-Cache"] == "MISS"
    with app.app_context():
        view.invalidate("http://localhost/a")
    assert labels() == ["MISS", "MISS", "MISS", "HIT", "HIT"]
    with app.app_context():
        view.invalidate("/c/caf%C3%A9")
    assert labels() == ["HIT", "HIT", "HIT", "HIT", "MISS"]
    with app.test_request_context("/b"):
        view.invalidate(request)
    assert labels() == ["HIT", "HIT", "HIT", "MISS", "HIT"]
    with app.app_context():
        view.invalidate_all()
    assert labels() == ["MISS"] * 5


def test_tags(add: AddView, client: FlaskClient, backend: QuickCache) -> None:
    """Constant ones, or those that a function of the request gives."""
    add(tags=["pages"])
    add(rule="/user/<name>", tags=lambda request: [f"user:{request.view_args['name']}"])
    for path in ("/page", "/user/ada", "/user/bob"):
        client.get(path)
    backend.invalidate_tags("pages", "user:ada")
    labels = [client.get(path).headers["X-Cache"] for path in ("/page", "/user/ada", "/user/bob")]
    assert labels == ["MISS", "MISS", "HIT"]


def test_unless(add: AddView, client: FlaskClient) -> None:
    """A request for which it gives something true goes past the cache."""
    add(unless=lambda request: "preview" in request.args)
    client.get("/page?preview")
    assert seen(client.get("/page?preview")) == ("2", "BYPASS")


def test_exceptions(add: AddView, client: FlaskClient) -> None:
    """What the view raises is raised, as it is, and not kept."""

    def says(number: int) -> str:
        if number == 1:
            raise KeyError("mine")
        return str(number)

    add(says=says)
    with pytest.raises(KeyError, match="mine") as caught:
        client.get("/page")
    assert caught.value.__context__ is None
    assert seen(client.get("/page")) == ("2", "MISS")


def test_cache_that_fails(
    add: AddView, client: FlaskClient, backend: QuickCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request fails with it: the view is called, once each."""
    add()
    engine = backend.engine

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError("the disk is on fire")

    monkeypatch.setattr(engine, "_get", fail)
    assert seen(client.get("/page")) == ("1", "BYPASS")
    monkeypatch.undo()
    monkeypatch.setattr(engine._store, "put_with", fail)
    assert seen(client.get("/page")) == ("2", "MISS")
    assert seen(client.get("/page")) == ("3", "MISS")


@pytest.mark.parametrize(
    "entry", [5, [], ["page"], ["page", 200, "1", 0, 60, "", 0, "", "X A", "1"], ["vary"]]
)
def test_entry_that_is_no_page(entry: Any, add: AddView, client: FlaskClient, backend: QuickCache) -> None:
    """Who can write where pages are kept may have put it there: the view is called, and no request fails."""
    add()
    client.get("/page")
    [key] = backend.engine.keys()
    backend.engine.set(key, entry)
    assert [seen(client.get("/page")), seen(client.get("/page"))] == [("2", "BYPASS"), ("3", "BYPASS")]


def test_page_that_is_too_large(app: Flask) -> None:
    """It is served."""
    cache = Cache(app, config={"CACHE_TYPE": CACHE_TYPE, "CACHE_OPTIONS": {"max_bytes": "20KB"}})
    app.add_url_rule("/", view_func=cached_view(cache, 60)(lambda: "x" * 100_000), endpoint="page")
    assert len(app.test_client().get("/").text) == len(app.test_client().get("/").text) == 100_000


def test_switched_off(app: Flask) -> None:
    """Each request goes to the view."""
    cache = Cache(app, config={"CACHE_TYPE": CACHE_TYPE, "CACHE_OPTIONS": {"enabled": False}})
    calls = itertools.count(1)
    app.add_url_rule("/", view_func=cached_view(cache, 60)(lambda: str(next(calls))), endpoint="page")
    assert [app.test_client().get("/").text for _ in range(2)] == ["1", "2"]


@pytest.mark.parametrize("serializer", ["json", "msgpack", "pickle"])
@pytest.mark.parametrize("isolation", ["auto", "copy", "share"])
def test_serializers(serializer: str, isolation: str, app: Flask) -> None:
    """Pages are plain data, which any serializer takes, whatever bytes they consist of."""
    cache = Cache(
        app,
        config={
            "CACHE_TYPE": CACHE_TYPE,
            "CACHE_OPTIONS": {"serializer": serializer, "isolation": isolation},
        },
    )
    body = bytes(range(256))

    @app.get("/")
    @cached_view(cache, 60, x_cache=True)
    def page() -> Response:
        return Response(body, content_type="image/x", headers={"X-A": "ä", "Vary": "Accept"})

    client = app.test_client()
    client.get("/")
    response = client.get("/")
    assert response.headers["X-Cache"] == "HIT"
    assert (response.data, response.headers["X-A"]) == (body, "ä")


def test_async_view(app: Flask, cache: Cache, clock: ManualClock) -> None:
    """Served as any other, also stale and refreshed."""
    calls = itertools.count(1)

    @app.get("/page")
    @cached_view(cache, 60, stale_ttl=600, x_cache=True)
    async def page() -> str:
        return f"{request.path} {next(calls)}"

    client = app.test_client()
    client.get("/page")
    assert seen(client.get("/page")) == ("/page 1", "HIT")
    clock.advance(61)
    assert seen(client.get("/page")) == ("/page 1", "STALE")
    eventually(lambda: seen(client.get("/page")) == ("/page 2", "HIT"))


def test_class_based_view(app: Flask, cache: Cache) -> None:
    """What `as_view` gives, or in `decorators`."""
    calls = itertools.count(1)

    class Page(MethodView):
        decorators = [cached_view(cache, 60)]  # noqa: RUF012

        def get(self, name: str) -> str:
            return f"{name} {next(calls)}"

    app.add_url_rule("/<name>", view_func=Page.as_view("page"))
    client = app.test_client()
    assert [client.get(path).text for path in ("/a", "/b", "/a")] == ["a 1", "b 2", "a 1"]


def test_hard_timeout(app: Flask, cache: Cache) -> None:
    """A request waits no longer than that, and the page is there for the next one."""
    proceed = threading.Event()
    calls = itertools.count(1)

    @app.get("/page")
    @cached_view(cache, 60, hard_timeout=0.05)
    def page() -> str:
        number = next(calls)
        proceed.wait(10)
        return f"{request.path} {number}"

    client = app.test_client()
    with pytest.raises(LoaderTimeout):
        client.get("/page")
    proceed.set()
    eventually(lambda: client.get("/page").text == "/page 1")


def test_signals(app: Flask, clock: ManualClock) -> None:
    """Those of Flask-Caching are sent where they are switched on."""
    cache = Cache(app, config={"CACHE_TYPE": CACHE_TYPE, "CACHE_ENABLE_SIGNALS": True})
    app.add_url_rule("/<name>", view_func=cached_view(cache, 60)(lambda name: name), endpoint="page")
    told: list[tuple[str, Any]] = []

    def hit(sender: Any, **more: Any) -> None:
        told.append(("hit", more["kwargs"]))

    def miss(sender: Any, **more: Any) -> None:
        told.append(("miss", more["kwargs"]))

    with cache_view_hit.connected_to(hit), cache_view_miss.connected_to(miss):
        app.test_client().get("/a")
        app.test_client().get("/a")
    assert told == [("miss", {"name": "a"}), ("hit", {"name": "a"})]


def test_several_apps(clock: ManualClock) -> None:
    """One cache object initialised by several apps, and one view in both: each app has its own pages."""
    cache = Cache()
    calls = itertools.count(1)
    view = cached_view(cache, 60)(lambda: str(next(calls)))
    clients = []
    for name in ("one", "two"):
        app = Flask(name)
        cache.init_app(app, {"CACHE_TYPE": CACHE_TYPE, "CACHE_QUICKCACHE_CLOCK": clock})
        app.add_url_rule("/", view_func=view, endpoint="page")
        clients.append(app.test_client())
    assert [client.get("/").text for client in clients * 2] == ["1", "2", "1", "2"]


def test_several_apps_in_one_store(clock: ManualClock) -> None:
    """Apps with prefixes of their own invalidate pages of their own only."""
    cache = Cache()
    calls = itertools.count(1)
    view = cached_view(cache, 60)(lambda: str(next(calls)))
    apps = [Flask(name) for name in ("one", "two")]
    for app in apps:
        cache.init_app(
            app,
            {
                "CACHE_TYPE": CACHE_TYPE,
                "CACHE_KEY_PREFIX": f"{app.name}:",
                "CACHE_OPTIONS": {"location": "pages of two apps"},
            },
        )
        app.add_url_rule("/", view_func=view, endpoint="page")
    assert [app.test_client().get("/").text for app in apps * 2] == ["1", "2", "1", "2"]
    with apps[0].app_context():
        view.invalidate("/")
    assert [app.test_client().get("/").text for app in apps] == ["3", "2"]


def test_backend_of_another_kind(app: Flask) -> None:
    """The error says what to set."""
    cache = Cache(app, config={"CACHE_TYPE": "SimpleCache"})
    app.add_url_rule("/", view_func=cached_view(cache, 60)(_constant))
    with pytest.raises(RuntimeError, match=r"quickcache_flask\.QuickCache"):
        app.test_client().get("/")


@pytest.mark.parametrize(
    "options",
    [
        {"query": "page"},
        {"headers": ["two words"]},
        {"headers": "Accept"},
        {"statuses": [500]},
        {"statuses": []},
        {"x_cache": "two words"},
        {"user": True},
        {"unless": 1},
        {"etag": 1},
        {"version": True},
        {"stale_directives": True},
        {"stale_directives": True, "cache_control": True},
    ],
)
def test_wrong_options(options: dict[str, Any], cache: Cache) -> None:
    """They are refused where the view is decorated, and named."""
    with pytest.raises(ConfigError) as caught:
        cached_view(cache, 60, **options)(_constant)
    assert caught.value.field in options


@pytest.mark.parametrize("options", [{"sliding": True}, {"stale": 1}, {"tags": "one"}, {"jitter": 2}])
def test_unknown_options(options: dict[str, Any], cache: Cache) -> None:
    """So are those of other decorators that have no meaning for pages."""
    with pytest.raises((TypeError, ValueError)):
        cached_view(cache, 60, **options)(_constant)


def test_version(app: Flask, cache: Cache) -> None:
    """Pages of another version of the view are not found."""
    for version in (1, 2):
        view = cached_view(cache, 60, version=version)(lambda version=version: str(version))
        with app.test_request_context("/"):
            assert app.make_response(view()).get_data() == str(version).encode()
