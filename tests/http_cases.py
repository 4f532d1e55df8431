"""What `cached_view` answers to which requests, for all frameworks: a table, and the way to play it.

A framework comes in as a `Site`: a view under `cached_view`, asked by that framework's own test client. Where
the frameworks differ, and rightly, `ONE_FRAMEWORK` says so, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from quickcache_core.testing import ManualClock

PATH: Final = "/page"

# The manual clock's, in headers.
NOW: Final = "Tue, 14 Nov 2023 22:13:20 GMT"
EARLIER: Final = "Tue, 14 Nov 2023 22:13:19 GMT"
LATER: Final = "Tue, 14 Nov 2023 22:14:20 GMT"


@dataclass(frozen=True)
class Reply:
    """What the view does in one call."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    again: Mapping[str, str] = field(default_factory=dict)
    """Headers that are there already, a second time."""
    body: str | None = "{n}"
    """`{n}`: the number of the call; `{method}`, `{user}`, `{language}`: the request's. None: the framework's
    own, which isn't looked at."""
    cookie: bool = False
    """Set one."""
    stream: bool = False
    session: bool = False
    """Look into it."""
    raises: bool = False
    """A 404, by the exception that the framework has for it."""


@dataclass(frozen=True)
class Ask:
    """A request, and what it gets."""

    call: int
    """Of which call of the view the answer is; a number that hasn't been there means that the view was called
    for it."""
    label: str | None = None
    """By default `HIT` or `MISS`, as `call` says; empty for none."""
    method: str = "GET"
    query: str = ""
    path: str = PATH
    content: str = ""
    """What comes with the request."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """`{etag}` and `{modified}` in them: what the client was told last."""
    cookies: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    language: str | None = None
    host: str | None = None
    status: int = 200
    body: str | None = None
    """By default that of the reply, and none of a HEAD and a 304."""
    has: Mapping[str, str | None] = field(default_factory=dict)
    """Headers of the answer; None: there is no such."""


@dataclass(frozen=True)
class Until:
    """The request over and over, until the answer is that one: what goes on behind it takes a while."""

    ask: Ask


@dataclass(frozen=True)
class Wait:
    seconds: float


@dataclass(frozen=True)
class Invalidate:
    """The pages of a URL."""

    url: str = PATH


@dataclass(frozen=True)
class InvalidateAll:
    """All pages of the view."""


@dataclass(frozen=True)
class InvalidateTag:
    tag: str


Step = Ask | Until | Wait | Invalidate | InvalidateAll | InvalidateTag


@dataclass(frozen=True)
class Case:
    name: str
    steps: Sequence[Step]
    replies: Sequence[Reply] = (Reply(),)
    """By the number of the call; the last one holds for all that follow."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of `cached_view`. `user=True`, `language=True`: whom the request names, and which; `unless=True`: who
    sends `X-Past`."""
    framework: str | None = None
    """The one that it holds for; None for all."""
    reason: str = ""
    """Why not for the others."""

    def __str__(self) -> str:
        return self.name if self.framework is None else f"{self.name} ({self.framework})"

    def reply(self, number: int) -> Reply:
        return self.replies[min(number, len(self.replies)) - 1]


def several(name: str, steps: Sequence[Step], *replies: Reply, **options: Any) -> Case:
    return Case(name, steps, replies or (Reply(),), options)


def kept(name: str, *replies: Reply, **options: Any) -> Case:
    """The second request is a hit."""
    return several(name, [Ask(1), Ask(1)], *replies, **options)


def passes(name: str, reply: Reply, **options: Any) -> Case:
    """All requests get what the view says, and nothing is kept or added."""
    untouched = {"ETag": None, "Age": None}
    asks = [Ask(n, "BYPASS", status=reply.status, has=untouched) for n in (1, 2)]
    return several(name, asks, reply, **options)


def conditional(name: str, request: Mapping[str, str], status: int, reply: Reply, **options: Any) -> Case:
    """The client has a page, and asks whether it has changed."""
    return several(name, [Ask(1), Ask(1, headers=request, status=status)], reply, **options)


def says(cache_control: str) -> Reply:
    return Reply(headers={"Cache-Control": cache_control})


def varies(*names: str) -> Reply:
    return Reply(headers={"Vary": ", ".join(names)})


ETAG: Final = Reply(headers={"ETag": '"mine"'})
WEAK: Final = Reply(headers={"ETag": 'W/"mine"'})
DATED: Final = Reply(headers={"Last-Modified": NOW})
BOTH: Final = Reply(headers={"ETag": '"mine"', "Last-Modified": NOW})

METHODS = [
    several("GET", [Ask(1), Ask(1), Wait(59), Ask(1), Wait(1), Ask(2)]),
    several("HEAD after GET", [Ask(1), Ask(1, method="HEAD"), Ask(1)]),
    several(
        "HEAD before GET: the view is asked for what a GET would get",
        [Ask(1, method="HEAD"), Ask(1, body="GET 1"), Ask(1, method="HEAD")],
        Reply(body="{method} {n}"),
    ),
    several(
        "HEAD of what may not be kept",
        [Ask(1, "BYPASS", method="HEAD"), Ask(2, "BYPASS", method="HEAD")],
        says("no-store"),
    ),
    *[
        several(
            f"{method}: goes to the view, leaves no page and takes none away",
            [
                Ask(1, "BYPASS", method=method, has={"ETag": None}),
                Ask(2),
                Ask(3, "BYPASS", method=method, has={"ETag": None}),
                Ask(2),
            ],
        )
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    ],
    several(
        "GET with content: not what the URL stands for",
        [
            Ask(1, "BYPASS", content="evil=yes", has={"ETag": None}),
            Ask(2),
            Ask(3, "BYPASS", content="evil=yes", has={"ETag": None}),
            Ask(2, headers={"Content-Length": "0"}),
        ],
    ),
    several(
        "HEAD with content",
        [Ask(1, "BYPASS", method="HEAD", content="evil=yes"), Ask(2)],
    ),
    several(
        "content of a length that isn't told",
        [Ask(1, "BYPASS", headers={"Transfer-Encoding": "chunked"}), Ask(2)],
    ),
    several(
        "POST with conditions: they are the view's business",
        [Ask(1), Ask(2, "BYPASS", method="POST", headers={"If-None-Match": "*"})],
    ),
]

STATUSES = [
    kept("200"),
    *[passes(f"{status}", Reply(status)) for status in (201, 203, 301, 302, 303, 404, 410, 500, 503)],
    *[
        several(
            f"{status}, as wished", [Ask(n, status=status) for n in (1, 1)], Reply(status), statuses=[status]
        )
        for status in (203, 301, 308, 404, 410)
    ],
    several(
        "a status that isn't wished beside one that is",
        [Ask(1, "BYPASS"), Ask(2, "BYPASS")],
        statuses=[404],
    ),
    several(
        "a redirect keeps where it leads",
        [Ask(1, status=301, has={"Location": "/there"}) for _ in range(2)],
        Reply(301, {"Location": "/there"}),
        statuses=[301],
    ),
    several(
        "an error is no validator's matter",
        [Ask(1, status=404, has={"ETag": None}), Ask(1, status=404, headers={"If-None-Match": "*"})],
        Reply(404),
        statuses=[404],
    ),
    several(
        "an error page in between is not kept",
        [Ask(1, "BYPASS", status=503), Ask(2), Ask(2)],
        Reply(503),
        Reply(),
    ),
]

HEADERS_OF_RESPONSES = [
    several(
        "headers are kept",
        [Ask(1, has={"X-Mine": "yes", "Content-Language": "de", "Content-Type": "text/x-mine"})] * 2,
        Reply(headers={"X-Mine": "yes", "Content-Language": "de", "Content-Type": "text/x-mine"}),
    ),
    several("text that isn't ASCII", [Ask(1, body="ü€ 1"), Ask(1, body="ü€ 1")], Reply(body="ü€ {n}")),
    several("an empty body", [Ask(1, body=""), Ask(1, body="")], Reply(body="")),
    several(
        "what belongs to a connection isn't kept",
        [Ask(1), Ask(1, has={"Keep-Alive": None, "Age": None})],
        Reply(headers={"Keep-Alive": "timeout=5", "Age": "7"}),
    ),
    passes("a cookie is set", Reply(cookie=True)),
    passes("a cookie is set, and pages are kept by user", Reply(cookie=True), user=True),
    passes("the session was looked into", Reply(session=True)),
    passes("streaming", Reply(stream=True)),
    passes("streaming, by user", Reply(stream=True), user=True),
]

VARY = [
    several(
        "one header",
        [
            Ask(1, headers={"Accept": "a"}),
            Ask(2, headers={"Accept": "b"}),
            Ask(1, headers={"Accept": "a"}),
            Ask(2, headers={"Accept": "b"}),
            Ask(3),
            Ask(3),
            Ask(2, headers={"Accept": "b", "X-Other": "c"}),
        ],
        varies("Accept"),
    ),
    several(
        "an empty header and none are two things",
        [Ask(1), Ask(2, headers={"X-A": ""}), Ask(1)],
        varies("X-A"),
    ),
    several(
        "several headers",
        [
            Ask(1, headers={"X-A": "1", "X-B": "2"}),
            Ask(2, headers={"X-A": "2", "X-B": "1"}),
            Ask(1, headers={"X-B": "2", "X-A": "1"}),
            Ask(3, headers={"X-A": "1"}),
            Ask(4, headers={"X-B": "2"}),
            Ask(2, headers={"X-A": "2", "X-B": "1"}),
        ],
        varies("x-b", "X-A"),
    ),
    several(
        "values with what separates them",
        [
            Ask(1, headers={"X-A": "1','=2", "X-B": "3"}),
            Ask(2, headers={"X-A": "1", "X-B": "2','=3"}),
            Ask(1, headers={"X-A": "1','=2", "X-B": "3"}),
        ],
        varies("X-A", "X-B"),
    ),
    several(
        "more headers later",
        [
            Ask(1, headers={"X-A": "1"}),
            Ask(2, headers={"X-A": "2", "X-B": "1"}),
            Ask(3, headers={"X-A": "2", "X-B": "2"}),
            Ask(2, headers={"X-A": "2", "X-B": "1"}),
            Ask(1, headers={"X-A": "1"}),
        ],
        varies("X-A"),
        varies("X-A", "X-B"),
    ),
    several(
        "by cookie", [Ask(1, cookies={"a": "1"}), Ask(2, cookies={"a": "2"}), Ask(3)] * 2, varies("Cookie")
    ),
    passes("by everything", varies("*")),
    passes("by everything, among others", varies("Accept", "*")),
    several(
        "chosen headers, named in Vary",
        [
            Ask(1, headers={"X-Tenant": "a"}, has={"Vary": "X-Tenant"}),
            Ask(2, headers={"X-Tenant": "b"}),
            Ask(3),
            Ask(1, headers={"x-tenant": "a"}, has={"Vary": "X-Tenant"}),
        ],
        headers=["X-Tenant"],
    ),
    several(
        "chosen headers beside those of the response",
        [
            Ask(1, headers={"X-Tenant": "a", "Accept": "x"}, has={"Vary": "Accept, X-Tenant"}),
            Ask(2, headers={"X-Tenant": "a", "Accept": "y"}),
            Ask(3, headers={"X-Tenant": "b", "Accept": "x"}),
            Ask(1, headers={"X-Tenant": "a", "Accept": "x"}, has={"Vary": "Accept, X-Tenant"}),
        ],
        varies("Accept"),
        headers=["X-Tenant"],
    ),
    several("cookies that nobody mentions", [Ask(1, cookies={"a": "1"}), Ask(1, cookies={"a": "2"})]),
]

CACHE_CONTROL = [
    *[
        passes(f"Cache-Control: {value}", says(value))
        for value in (
            "private",
            "no-store",
            "no-cache",
            "No-Store, max-age=60",
            'private="Set-Cookie"',
            'no-cache="X-Mine", max-age=60',
            "public,no-store",
        )
    ],
    *[
        passes(f"Cache-Control: {value}, by user", says(value), user=True)
        for value in ("no-store", "no-cache")
    ],
    several(
        "Cache-Control: private, by user",
        [Ask(1, user="ada"), Ask(1, user="ada", has={"Cache-Control": "private"}), Ask(2, user="bob")],
        says("private"),
        user=True,
    ),
    kept("directives that forbid nothing", says("public, must-revalidate, x=no-store")),
    kept("a quoted value that reads like a directive", says('public, x="no-store, private"')),
    several(
        "its own max-age, without a timeout of the decorator",
        [Ask(1), Wait(9), Ask(1, has={"Age": "9", "Cache-Control": "max-age=10"}), Wait(1), Ask(2)],
        says("max-age=10"),
        timeout=...,
    ),
    several(
        "s-maxage comes before max-age",
        [Ask(1), Wait(19), Ask(1, has={"Age": "19"}), Wait(1), Ask(2)],
        says("max-age=5, s-maxage=20"),
        timeout=...,
    ),
    several(
        "max-age=0 beside a timeout: kept here, and browsers ask each time",
        [Ask(1), Ask(1, headers={"If-None-Match": "{etag}"}, status=304, has={"Cache-Control": "max-age=0"})],
        says("max-age=0"),
    ),
    passes("max-age=0, without a timeout of the decorator", says("max-age=0"), timeout=...),
    several(
        "the decorator's timeout comes before max-age",
        [Ask(1), Wait(59), Ask(1, has={"Age": "59", "Cache-Control": "max-age=10"}), Wait(1), Ask(2)],
        says("max-age=10"),
    ),
    several(
        "Age beside Expires",
        [
            Ask(1, has={"Age": None}),
            Wait(7),
            Ask(1, has={"Age": "7", "Expires": LATER, "Cache-Control": None}),
        ],
        Reply(headers={"Expires": LATER}),
        cache_control=True,
    ),
    several(
        "its own Expires, without a timeout of the decorator",
        [Ask(1), Wait(59), Ask(1, has={"Age": "59", "Expires": LATER}), Wait(1), Ask(2, "BYPASS")],
        Reply(headers={"Expires": LATER}),
        timeout=...,
    ),
    *[
        passes(
            f"Expires: {value}, without a timeout of the decorator",
            Reply(headers={"Expires": value}),
            timeout=...,
        )
        for value in ("0", NOW, EARLIER)
    ],
    several(
        "max-age comes before Expires",
        [Ask(1), Wait(9), Ask(1), Wait(1), Ask(2)],
        Reply(headers={"Cache-Control": "max-age=10", "Expires": EARLIER}),
        timeout=...,
    ),
    several(
        "no Age where nobody says how long",
        [Ask(1), Wait(7), Ask(1, has={"Age": None, "Cache-Control": None})],
    ),
    several(
        "max-age counts down",
        [
            Ask(1, has={"Cache-Control": "max-age=60", "Age": None}),
            Wait(20.5),
            Ask(1, has={"Cache-Control": "max-age=40", "Age": None}),
            Wait(39.4),
            Ask(1, has={"Cache-Control": "max-age=1"}),
        ],
        cache_control=True,
    ),
    several(
        "max-age beside other directives",
        [Ask(1, has={"Cache-Control": "public, max-age=60"})] * 2,
        says("public"),
        cache_control=True,
    ),
    several(
        "max-age of the view's own stays",
        [Ask(1, has={"Cache-Control": "max-age=5"})] * 2,
        says("max-age=5"),
        cache_control=True,
    ),
    several(
        "stale directives",
        [
            Ask(1, has={"Cache-Control": "max-age=60, stale-while-revalidate=30, stale-if-error=30"}),
            Wait(20),
            Ask(1, has={"Cache-Control": "max-age=40, stale-while-revalidate=30, stale-if-error=30"}),
        ],
        cache_control=True,
        stale_directives=True,
        stale_ttl=30,
    ),
    several(
        "stale directives of the view's own",
        [Ask(1, has={"Cache-Control": "max-age=60, stale-while-revalidate=5"})] * 2,
        says("max-age=60, stale-while-revalidate=5"),
    ),
    several(
        "private and stale, by user",
        [
            Ask(
                1,
                user="ada",
                has={"Cache-Control": "private, max-age=60, stale-while-revalidate=9, stale-if-error=9"},
            ),
        ]
        * 2,
        user=True,
        cache_control=True,
        stale_directives=True,
        stale_ttl=9,
    ),
    several(
        "a header of one's own for the label",
        [Ask(1, has={"X-Served": "MISS", "X-Cache": None}), Ask(1, has={"X-Served": "HIT", "X-Cache": None})],
        x_cache="X-Served",
    ),
    several("no label", [Ask(1, has={"X-Cache": None})] * 2, x_cache=False),
]

VISITORS = [
    several(
        "Authorization",
        [
            Ask(1, "BYPASS", headers={"Authorization": "Bearer a"}),
            Ask(2),
            Ask(3, "BYPASS", headers={"Authorization": "Bearer a"}),
            Ask(2),
        ],
    ),
    several(
        "Authorization, by user",
        [Ask(1, user="ada", headers={"Authorization": "Bearer a"})] * 2,
        user=True,
    ),
    several(
        "Authorization, by user, of nobody that is known: somebody to the view, perhaps",
        [
            Ask(1, "BYPASS", headers={"Authorization": "Bearer a"}, has={"ETag": None}),
            Ask(2),
            Ask(3, "BYPASS", headers={"Authorization": "Bearer b"}, has={"ETag": None}),
            Ask(2),
        ],
        user=True,
    ),
    several(
        "by user",
        [
            Ask(1, user="ada", body="ada 1", has={"Cache-Control": "private"}),
            Ask(2, user="bob", body="bob 2"),
            Ask(1, user="ada", body="ada 1", has={"Cache-Control": "private"}),
            Ask(2, user="bob", body="bob 2"),
        ],
        Reply(body="{user} {n}"),
        user=True,
    ),
    several(
        "by user: names with what separates parts of keys",
        [Ask(1, user="a','b"), Ask(2, user="a"), Ask(3, user="a~http://testserver"), Ask(1, user="a','b")],
        user=True,
    ),
    several(
        "by user: who isn't logged in is somebody, too",
        [Ask(1), Ask(2, user="None"), Ask(1), Ask(2, user="None"), Ask(1)],
        user=True,
    ),
    several(
        "by user, who looked into the session",
        [Ask(1, user="ada"), Ask(1, user="ada"), Ask(2, user="bob")],
        Reply(session=True),
        user=True,
    ),
    several("users, where pages don't differ by them", [Ask(1, user="ada"), Ask(1, user="bob")]),
    several(
        "by language",
        [
            Ask(1, language="de", body="de 1"),
            Ask(2, language="en", body="en 2"),
            Ask(1, language="de", body="de 1"),
            Ask(2, language="en", body="en 2"),
        ],
        Reply(body="{language} {n}"),
        language=True,
    ),
    several(
        "by user and language",
        [
            Ask(1, user="ada", language="de"),
            Ask(2, user="ada", language="en"),
            Ask(3, user="bob", language="de"),
            Ask(1, user="ada", language="de"),
        ],
        user=True,
        language=True,
    ),
    several(
        "by language: Vary: Accept-Language tells nothing more",
        [
            Ask(1, language="de", headers={"Accept-Language": "de"}),
            Ask(1, language="de", headers={"Accept-Language": "de, en;q=0.5"}),
        ],
        varies("Accept-Language"),
        language=True,
    ),
    several("another host", [Ask(1), Ask(2, host="other.example"), Ask(1), Ask(2, host="other.example")]),
    several("all hosts", [Ask(1), Ask(1, host="other.example")], host=False),
    several(
        "past the cache",
        [
            Ask(1),
            Ask(2, "BYPASS", headers={"X-Past": "yes"}),
            Ask(1),
        ],
        unless=True,
    ),
]

QUERIES = [
    several("another value", [Ask(1, query="a=1"), Ask(2, query="a=2"), Ask(3), Ask(1, query="a=1")]),
    several("order of names", [Ask(1, query="a=1&b=2"), Ask(1, query="b=2&a=1")]),
    several(
        "order of equal names", [Ask(1, query="a=1&a=2"), Ask(2, query="a=2&a=1"), Ask(1, query="a=1&a=2")]
    ),
    several("how often", [Ask(1, query="a=1"), Ask(2, query="a=1&a=1")]),
    several("equal names around another", [Ask(1, query="a=1&b=3&a=2"), Ask(1, query="b=3&a=1&a=2")]),
    several("a blank value", [Ask(1, query="a="), Ask(1, query="a"), Ask(2, query="b="), Ask(3)]),
    several("an empty query", [Ask(1, query="&&"), Ask(1)]),
    several(
        "spellings of a space", [Ask(1, query="a=b+c"), Ask(1, query="a=b%20c"), Ask(2, query="a=b%2Bc")]
    ),
    several("spellings of a letter", [Ask(1, query="a=b"), Ask(1, query="%61=%62")]),
    several(
        "upper and lower case", [Ask(1, query="a=%c3%bc"), Ask(1, query="a=%C3%BC"), Ask(2, query="A=%C3%BC")]
    ),
    several(
        "what separates parameters, encoded",
        [
            Ask(1, query="a=1%26b%3D2"),
            Ask(2, query="a=1&b=2"),
            Ask(1, query="a=1%26b%3D2"),
            Ask(3, query="a=1;b=2"),
        ],
    ),
    several(
        "bytes that are no text", [Ask(1, query="a=%FF"), Ask(2, query="a=%C3%BF"), Ask(1, query="a=%FF")]
    ),
    several("a line break", [Ask(1, query="a=%0D%0A"), Ask(2, query="a=%0A"), Ask(1, query="a=%0D%0A")]),
    several("a long one", [Ask(1, query=f"a={'x' * 999}y"), Ask(2, query=f"a={'x' * 999}z")] * 2),
    several(
        "chosen parameters",
        [
            Ask(1, query="page=1"),
            Ask(1, query="page=1&utm=mail"),
            Ask(1, query="utm=x&page=1&utm=y"),
            Ask(2, query="page=2"),
            Ask(3),
            Ask(3, query="utm=mail"),
            Ask(4, query="page=1&gr%C3%B6%C3%9Fe=2"),
        ],
        query=["page", "größe"],
    ),
    several("no parameters", [Ask(1, query="a=1"), Ask(1), Ask(1, query="b=2")], query=False),
    several("no parameters, named as a list", [Ask(1, query="a=1"), Ask(1)], query=[]),
    several("another path", [Ask(1), Ask(2, path="/page/x"), Ask(3, path="/page/y"), Ask(2, path="/page/x")]),
    several(
        "paths that look like a query",
        [Ask(1, path="/page/x%3Fa=1"), Ask(2, path="/page/x", query="a=1"), Ask(1, path="/page/x%3Fa=1")],
    ),
]

CONDITIONS = [
    conditional("a tag", {"If-None-Match": "{etag}"}, 304, Reply()),
    conditional("the tag of the view", {"If-None-Match": '"mine"'}, 304, ETAG),
    conditional("another tag", {"If-None-Match": '"other"'}, 200, ETAG),
    conditional("a weak one for a strong", {"If-None-Match": 'W/"mine"'}, 304, ETAG),
    conditional("a strong one for a weak", {"If-None-Match": '"mine"'}, 304, WEAK),
    conditional("a weak one for a weak", {"If-None-Match": 'W/"mine"'}, 304, WEAK),
    conditional("a list", {"If-None-Match": '"a", W/"b" , "mine"'}, 304, ETAG),
    conditional("a list without it", {"If-None-Match": '"a","min","mine2"'}, 200, ETAG),
    conditional("a tag with a comma", {"If-None-Match": '"mi,ne"'}, 200, ETAG),
    conditional("any", {"If-None-Match": "*"}, 304, ETAG),
    conditional("any, made by us", {"If-None-Match": "*"}, 304, Reply()),
    conditional("a tag in other quotes", {"If-None-Match": "mine"}, 200, ETAG),
    conditional("a tag, while there are none", {"If-None-Match": '"mine"'}, 200, Reply(), etag=False),
    conditional("a date", {"If-Modified-Since": NOW}, 304, DATED, etag=False),
    conditional("a later date", {"If-Modified-Since": LATER}, 304, DATED),
    conditional("an earlier date", {"If-Modified-Since": EARLIER}, 200, DATED),
    conditional("no date", {"If-Modified-Since": "yesterday"}, 200, DATED),
    conditional("a date, while there is none", {"If-Modified-Since": LATER}, 200, Reply()),
    conditional("our date", {"If-Modified-Since": "{modified}"}, 304, Reply(), last_modified=True),
    conditional("before our date", {"If-Modified-Since": EARLIER}, 200, Reply(), last_modified=True),
    conditional("both", {"If-None-Match": '"mine"', "If-Modified-Since": NOW}, 304, BOTH),
    conditional("both: the tag counts", {"If-None-Match": '"mine"', "If-Modified-Since": EARLIER}, 304, BOTH),
    conditional(
        "both: the date doesn't", {"If-None-Match": '"other"', "If-Modified-Since": LATER}, 200, BOTH
    ),
    several(
        "what a 304 says",
        [
            Ask(1),
            Wait(5),
            Ask(
                1,
                headers={"If-None-Match": "{etag}"},
                status=304,
                has={
                    "ETag": '"mine"',
                    "Vary": "Accept",
                    "Cache-Control": "max-age=55",
                    "Content-Type": None,
                    "X-Mine": None,
                },
            ),
        ],
        Reply(headers={**BOTH.headers, "Vary": "Accept", "X-Mine": "yes"}),
        cache_control=True,
    ),
    several(
        "the age in a 304",
        [Ask(1), Wait(5), Ask(1, headers={"If-None-Match": "{etag}"}, status=304, has={"Age": "5"})],
        says("max-age=60"),
    ),
    several(
        "HEAD with a tag",
        [Ask(1), Ask(1, method="HEAD", headers={"If-None-Match": "{etag}"}, status=304)],
    ),
    several(
        "the same page, made anew",
        [Ask(1), Wait(60), Ask(2, headers={"If-None-Match": "{etag}"}, status=304)],
        Reply(body="same"),
    ),
    several(
        "another page, made anew",
        [Ask(1), Wait(60), Ask(2, headers={"If-None-Match": "{etag}"})],
    ),
    several(
        "by a header that pages vary by",
        [
            Ask(1, headers={"X-A": "1"}),
            Ask(2, headers={"X-A": "2", "If-None-Match": "{etag}"}),
            Ask(2, headers={"X-A": "2", "If-None-Match": "{etag}"}, status=304),
        ],
        varies("X-A"),
    ),
    several(
        "of what isn't kept",
        [Ask(1, "BYPASS"), Ask(2, "BYPASS", headers={"If-None-Match": "*"})],
        says("no-store"),
    ),
]

FORGETTING = [
    several("a URL", [Ask(1), Invalidate(), Ask(2), Ask(2)]),
    several("an absolute URL", [Ask(1), Invalidate("https://other.example/page"), Ask(2)]),
    several("another URL", [Ask(1), Invalidate("/pag"), Invalidate("/page/"), Invalidate("/page/x"), Ask(1)]),
    several(
        "a URL without a query: all queries",
        [
            Ask(1),
            Ask(2, query="a=1"),
            Ask(3, path="/page/x"),
            Invalidate(),
            Ask(4),
            Ask(5, query="a=1"),
            Ask(3, path="/page/x"),
        ],
    ),
    several(
        "a URL with a query, in any order",
        [Ask(1), Ask(2, query="a=1&b=2"), Invalidate("/page?b=2&a=1"), Ask(1), Ask(3, query="a=1&b=2")],
    ),
    several(
        "a path that isn't ASCII",
        [
            Ask(1, path="/page/%C3%BC"),
            Invalidate("/page/%C3%BC"),
            Ask(2, path="/page/%C3%BC"),
            Invalidate("/page/ü"),
            Ask(3, path="/page/%C3%BC"),
        ],
    ),
    several(
        "for all users, languages, hosts and headers",
        [
            Ask(1, user="ada", language="de", headers={"X-A": "1"}),
            Ask(2, user="bob", language="en", host="other.example", headers={"X-A": "2"}),
            Invalidate(),
            Ask(3, user="ada", language="de", headers={"X-A": "1"}),
            Ask(4, user="bob", language="en", host="other.example", headers={"X-A": "2"}),
        ],
        varies("X-A"),
        user=True,
        language=True,
    ),
    several("all", [Ask(1), Ask(2, path="/page/x"), InvalidateAll(), Ask(3), Ask(4, path="/page/x")]),
    several(
        "a tag", [Ask(1), InvalidateTag("prices"), Ask(2), InvalidateTag("other"), Ask(2)], tags=["prices"]
    ),
    several(
        "a tag, of pages that vary",
        [Ask(1, headers={"X-A": "1"}), InvalidateTag("prices"), Ask(2, headers={"X-A": "1"})],
        varies("X-A"),
        tags=["prices"],
    ),
]

STALE = [
    several(
        "a stale page while a new one is made",
        [
            Ask(1),
            Wait(61),
            Ask(1, "STALE"),
            Until(Ask(2, "HIT")),
            Wait(61),
            Ask(2, "STALE", method="HEAD"),
            Until(Ask(3, "HIT", body="GET 3")),
        ],
        Reply(),
        Reply(),
        Reply(body="{method} {n}"),
        stale_ttl=600,
    ),
    several("too old", [Ask(1), Wait(661), Ask(2)], stale_ttl=600),
    several(
        "no max-age is left of a stale page",
        [Ask(1), Wait(61), Ask(1, "STALE", has={"Cache-Control": "max-age=0"})],
        stale_ttl=600,
        cache_control=True,
    ),
    several("an invalid page isn't stale", [Ask(1), Invalidate(), Ask(2)], stale_ttl=600),
    several(
        "a condition on a stale page",
        [Ask(1), Wait(61), Ask(1, "STALE", headers={"If-None-Match": "{etag}"}, status=304)],
        stale_ttl=600,
    ),
]

RAISED_404 = Reply(404, body=None, raises=True)

ONE_FRAMEWORK = [
    Case(
        "timeout=None: no end",
        [Ask(1), Wait(1e6), Ask(1)],
        options={"timeout": None},
        framework="django",
        reason="None is no end in Django's caches; in Flask-Caching it is the default of the cache",
    ),
    Case(
        "timeout=None: that of the cache",
        [Ask(1), Wait(299), Ask(1), Wait(1), Ask(2)],
        options={"timeout": None},
        framework="flask",
        reason="see above",
    ),
    Case(
        "timeout=0: nothing is kept",
        [Ask(1, "BYPASS"), Ask(2, "BYPASS")],
        options={"timeout": 0},
        framework="django",
        reason="0 expires at once in Django's caches; in Flask-Caching it is no end",
    ),
    Case(
        "timeout=0: no end",
        [Ask(1), Wait(1e6), Ask(1)],
        options={"timeout": 0},
        framework="flask",
        reason="see above",
    ),
    Case(
        "a 304 tells the date again",
        [Ask(1), Ask(1, headers={"If-Modified-Since": NOW}, status=304, has={"Last-Modified": NOW})],
        [DATED],
        framework="django",
        reason="Werkzeug takes the date out of each 304; the client has it already",
    ),
    Case(
        "languages, without the option",
        [Ask(1, language="de"), Ask(2, language="en"), Ask(1, language="de")],
        framework="django",
        reason="Django knows an active language, and cache_page tells pages apart by it; Flask knows none",
    ),
    Case(
        "languages, without the option",
        [Ask(1, language="de"), Ask(1, language="en")],
        framework="flask",
        reason="see above",
    ),
    Case(
        "Vary twice",
        [
            Ask(1, headers={"X-A": "1", "X-B": "1"}),
            Ask(2, headers={"X-A": "2", "X-B": "1"}),
            Ask(3, headers={"X-A": "2", "X-B": "2"}),
            Ask(1, headers={"X-A": "1", "X-B": "1"}),
        ],
        [Reply(headers={"Vary": "X-A"}, again={"Vary": "X-B"})],
        framework="flask",
        reason="a response of Django has each header once",
    ),
    Case(
        "Cache-Control twice",
        [Ask(1, "BYPASS"), Ask(2, "BYPASS")],
        [Reply(headers={"Cache-Control": "no-store"}, again={"Cache-Control": "max-age=60"})],
        framework="flask",
        reason="see above",
    ),
    Case(
        "a 404 that is raised passes, whatever the statuses",
        [Ask(1, "", status=404), Ask(2, "", status=404)],
        [RAISED_404],
        {"statuses": [200, 404]},
        framework="django",
        reason="what a view of Django raises becomes a response outside of it; abort() is how Flask's answer",
    ),
    Case(
        "a 404 that is raised is kept as wished",
        [Ask(1, status=404), Ask(1, status=404)],
        [RAISED_404],
        {"statuses": [200, 404]},
        framework="flask",
        reason="see above",
    ),
]

CASES: Final[Sequence[Case]] = [
    *METHODS,
    *STATUSES,
    *HEADERS_OF_RESPONSES,
    *VARY,
    *CACHE_CONTROL,
    *VISITORS,
    *QUERIES,
    *CONDITIONS,
    *FORGETTING,
    *STALE,
    *ONE_FRAMEWORK,
]


def cases_for(framework: str) -> list[Case]:
    return [case for case in CASES if case.framework in (None, framework)]


# Playing them


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: str


class Site(Protocol):
    """A view at `PATH`, and below it, that does what the replies of a case say."""

    calls: int
    """Of the view, so far."""

    def ask(self, ask: Ask, headers: Mapping[str, str]) -> Answer:
        """`headers`: all that the request has, cookies excepted; with those that name user and language."""
        ...

    def pause(self) -> None:
        """Give what goes on behind the requests some milliseconds."""
        ...

    def invalidate(self, url: str) -> None: ...

    def invalidate_all(self) -> None: ...

    def invalidate_tag(self, tag: str) -> None: ...


USER: Final = "X-User"
LANGUAGE: Final = "X-Language"
PAST: Final = "X-Past"


def play(case: Case, site: Site, clock: ManualClock) -> None:
    told = {"etag": "", "modified": ""}
    made = 0
    for number, step in enumerate(case.steps, 1):
        where = f"step {number}: {step}"
        if isinstance(step, Ask):
            answer = _asked(site, step, told)
            _check(case, step, answer, where, is_new=step.call > made)
            made = max(made, step.call)
            assert site.calls == made or step.label == "STALE", (
                f"{where}: the view was called {site.calls} times"
            )
            told["etag"] = answer.headers.get("etag", told["etag"])
            told["modified"] = answer.headers.get("last-modified", told["modified"])
        elif isinstance(step, Until):
            made = max(made, step.ask.call)
            _until(case, site, step.ask, told, where)
            assert site.calls == made, f"{where}: the view was called {site.calls} times"
        elif isinstance(step, Wait):
            clock.advance(step.seconds)
        elif isinstance(step, Invalidate):
            site.invalidate(step.url)
        elif isinstance(step, InvalidateAll):
            site.invalidate_all()
        else:
            site.invalidate_tag(step.tag)


def _until(case: Case, site: Site, ask: Ask, told: Mapping[str, str], where: str) -> None:
    for _ in range(1000):
        answer = _asked(site, ask, told)
        if answer.headers.get("x-cache") == ask.label:
            break
        site.pause()
    _check(case, ask, answer, where, is_new=False)


def _asked(site: Site, ask: Ask, told: Mapping[str, str]) -> Answer:
    named = {USER: ask.user, LANGUAGE: ask.language}
    headers = {name: value for name, value in named.items() if value is not None}
    for name, value in ask.headers.items():
        headers[name] = value.format(**told) if "{" in value else value
    return site.ask(ask, headers)


def _check(case: Case, ask: Ask, answer: Answer, where: str, *, is_new: bool) -> None:
    seen = f"{where}: {answer}"
    assert answer.status == ask.status, seen
    if case.options.get("x_cache", True) is True:
        label = ("MISS" if is_new else "HIT") if ask.label is None else ask.label
        assert answer.headers.get("x-cache", "") == label, seen
    expected = _body(case, ask)
    if expected is not None:
        assert answer.body == expected, seen
    for name, value in ask.has.items():
        assert answer.headers.get(name.lower()) == value, seen


def _body(case: Case, ask: Ask) -> str | None:
    if ask.method == "HEAD" or ask.status == 304:
        return ""
    if ask.body is not None:
        return ask.body
    body = case.reply(ask.call).body
    return None if body is None else body.format(n=ask.call)
