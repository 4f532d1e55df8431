"""`quickcache_core.http`: what may be kept of a response, under which key, and what is sent of it later."""

from __future__ import annotations

import json
import math
import random
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcache_core import ConfigError, InvalidTTL, QuickCache, QuickCacheConfig
from quickcache_core.entry import FOREVER
from quickcache_core.http import Rules, Snapshot, answer, is_page, read_rules
from quickcache_core.http.headers import (
    directives,
    environ_name,
    etag_of,
    http_date,
    is_unchanged,
    matches_any,
    names_in,
    seconds_of,
    timestamp,
)
from quickcache_core.http.page import Kept, page_of, varied_by, varied_key, vary_entry
from quickcache_core.testing import ManualClock

DEFAULTS: dict[str, Any] = {
    "query": True,
    "headers": (),
    "host": True,
    "statuses": (200,),
    "by_user": False,
    "by_language": False,
    "etag": True,
    "last_modified": False,
    "cache_control": False,
    "stale_directives": False,
    "x_cache": False,
    "version": None,
    "options": {},
}


def at(wall: float) -> QuickCache:
    """A cache at that time."""
    return QuickCache(QuickCacheConfig(clock=ManualClock(wall=wall)))


def rules(ttl: Any = 60, **changes: Any) -> Rules:
    return read_rules(ttl, **{**DEFAULTS, **changes})


def kept(
    *headers: tuple[str, str],
    status: int = 200,
    body: bytes = b"body",
    under: Rules | None = None,
    pickled: bool = True,
    default_ttl: float = 300.0,
    jitter: float = 0.0,
) -> Kept | None:
    return page_of(
        Snapshot(status, headers, body),
        rules() if under is None else under,
        default_ttl=default_ttl,
        jitter=jitter,
        now=1_700_000_000.0,
        pickled=pickled,
    )


# Headers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("No-Cache", {"no-cache": ""}),
        ("max-age=60, public", {"max-age": "60", "public": ""}),
        ("max-age = 60,,public ,", {"max-age": "60", "public": ""}),
        ('private="Set-Cookie, X-A", max-age="5"', {"private": "Set-Cookie, X-A", "max-age": "5"}),
    ],
)
def test_directives(text: str, expected: dict[str, str]) -> None:
    """With and without values, quoted ones with commas included."""
    assert directives(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("60", 60), ("0", 0), ("-1", None), ("²", None), ("", None)])
def test_seconds(text: str, expected: int | None) -> None:
    """What is no number of seconds counts as not said."""
    assert seconds_of(text) == expected


@pytest.mark.parametrize(
    ("known", "etag", "expected"),
    [
        ('"a"', '"a"', True),
        ('W/"a"', '"a"', True),
        ('"a"', 'W/"a"', True),
        ('"b", W/"a" ,"c"', '"a"', True),
        ('"a,b"', '"a,b"', True),
        ('"a,b"', '"a"', False),
        ("*", '"a"', True),
        (" * ", '"a"', True),
        ("a", '"a"', False),
        ("", '"a"', False),
        ('"A"', '"a"', False),
    ],
)
def test_weak_comparison(known: str, etag: str, expected: bool) -> None:
    """RFC 9110, 8.8.3.2: the opaque part counts, whoever is weak."""
    assert matches_any(known, etag) is expected


@given(st.binary(), st.binary())
def test_etags(one: bytes, other: bytes) -> None:
    """The same for the same bytes only, and of the form that the RFC wants."""
    assert (etag_of(one) == etag_of(other)) == (one == other)
    assert matches_any(f'"x", {etag_of(one)}', etag_of(one))


def test_dates() -> None:
    """There and back; what is no date is None."""
    assert timestamp(http_date(1_700_000_000)) == 1_700_000_000
    for text in ("", "yesterday", "Mon, 99 Jan 2024 00:00:00 GMT", "Mon, 01 Jan 99999999 00:00:00 GMT"):
        assert timestamp(text) is None


def test_which_condition_counts() -> None:
    """`If-None-Match` alone where both are there; neither matches what isn't known of the page."""
    date = http_date(1000)
    assert is_unchanged({"HTTP_IF_MODIFIED_SINCE": date}, "", 1000.0)
    assert not is_unchanged({"HTTP_IF_MODIFIED_SINCE": date}, "", 1001.0)
    assert not is_unchanged({"HTTP_IF_MODIFIED_SINCE": date}, "", 0.0)
    assert not is_unchanged({"HTTP_IF_MODIFIED_SINCE": date, "HTTP_IF_NONE_MATCH": '"x"'}, '"a"', 1000.0)
    assert not is_unchanged({"HTTP_IF_NONE_MATCH": "*"}, "", 0.0)
    assert not is_unchanged({}, '"a"', 1000.0)


def test_names() -> None:
    """As they stand in a `Vary`, and in a request."""
    assert names_in("Accept, accept,X-B ,") == ("accept", "x-b")
    assert environ_name("Accept-Language") == "HTTP_ACCEPT_LANGUAGE"
    assert environ_name("content-type") == "CONTENT_TYPE"


# What is kept


@pytest.mark.parametrize(
    "header",
    [
        ("set-cookie", "a=b"),
        ("Cache-Control", "PRIVATE"),
        ("cache-control", "max-age=60, no-store"),
        ("Cache-Control", 'no-cache="X-A"'),
        ("Vary", "Accept,*"),
    ],
)
def test_not_kept(header: tuple[str, str]) -> None:
    """However these are written."""
    assert kept(header) is None


@pytest.mark.parametrize("status", [200, 203, 301, 308, 404, 410])
def test_statuses(status: int) -> None:
    """Those that were chosen, which for others need no `ETag`."""
    assert kept(status=status, under=rules(statuses=[404 if status == 200 else 200])) is None
    page = kept(status=status, under=rules(statuses=[status]))
    assert page is not None
    assert bool(page.page[5]) == (status < 300)


def test_headers_of_the_connection() -> None:
    """They, and the age that another cache told, are of the past."""
    page = kept(("Connection", "close"), ("X-A", "1"), ("Age", "5"), ("X-A", "2"), under=rules(etag=False))
    assert page is not None
    assert answer(page.page, rules(), {}, at(0.0), "HIT")[1] == [("X-A", "1"), ("X-A", "2")]


@pytest.mark.parametrize(
    ("ttl", "control", "expected"),
    [
        (60, "max-age=10", 60.0),
        (None, "max-age=10", 10.0),
        (None, "max-age=10, s-maxage=20", 20.0),
        (None, "max-age=soon", 300.0),
        (None, "", 300.0),
    ],
)
def test_how_long(ttl: Any, control: str, expected: float) -> None:
    """As the author of the view says; else as the response says; else as the cache."""
    page = kept(("Cache-Control", control), under=rules(ttl))
    assert page is not None
    assert page.ttl == page.page[4] == expected


def test_jitter() -> None:
    """The page knows how long it really lives, for its `max-age`."""
    random.seed(1)
    page = kept(jitter=0.5)
    assert page is not None
    assert 30.0 < page.ttl < 60.0
    assert page.page[4] == page.ttl


def test_without_an_end() -> None:
    """A page for ever is told to be good for a year."""
    under = rules(None, cache_control=True)
    page = kept(under=under, default_ttl=FOREVER)
    assert page is not None
    headers = dict(answer(page.page, under, {}, at(1_800_000_000.0), "HIT")[1])
    assert headers["Cache-Control"] == "max-age=31536000"


def test_clock_that_was_set_back() -> None:
    """No page is younger than new."""
    under = rules(60, cache_control=True)
    page = kept(under=under)
    assert page is not None
    headers = dict(answer(page.page, under, {}, at(1.0), "HIT")[1])
    assert headers["Cache-Control"] == "max-age=60"


HEADER_TEXTS = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=5)


@given(st.binary(), st.lists(st.tuples(st.just("X-A"), HEADER_TEXTS), max_size=3))
def test_both_forms(body: bytes, headers: list[tuple[str, str]]) -> None:
    """The one for pickle and the one for JSON, which has been through it, give the same answer."""
    one, other = kept(*headers, body=body), kept(*headers, body=body, pickled=False)
    assert one is not None
    assert other is not None
    thawed = json.loads(json.dumps(other.page))
    assert is_page(one.page)
    assert is_page(thawed)
    for label in ("HIT", "STALE"):
        expected = answer(one.page, rules(x_cache=True), {}, at(0.0), label)
        assert answer(thawed, rules(x_cache=True), {}, at(0.0), label) == expected
        assert expected[2] == body


GOOD = ["page", 200, "b", 1.0, 60.0, "", 0, "", "X-A", "1"]
BAD: dict[int, list[Any]] = {
    0: ["vary", "pages", None, 1],
    1: ["200", 99, 600, 200.0, None, True],
    2: ["\u20ac", 5, None, []],
    3: [math.nan, math.inf, 10**400, "1", None],
    4: [-2.0, math.nan, math.inf, 10**400, "1", None],
    5: [5, None, "a\nb"],
    6: [math.nan, 10**400, "0", None],
    7: [5, None, "a\r\nSet-Cookie: a=b"],
    8: ["", "X A", "X:", "\u00e4", 5, None, ["X-A"]],
    9: ["\n", "\0", "\u20ac", 5, None, ["1"]],
}


def test_list_that_is_no_page() -> None:
    """Where pages are lists, who can write there may have put anything into them."""
    assert is_page(GOOD)
    assert is_page([*GOOD[:4], 1e15, "", -1, *GOOD[7:]])  # a long life, and a file from before 1970
    for place, parts in BAD.items():
        for part in parts:
            assert not is_page([*GOOD[:place], part, *GOOD[place + 1 :]]), (place, part)
    for size in (*range(8), 9):
        assert not is_page(GOOD[:size])
    for found in (None, 5, "page", {}, {"page": 1}):
        assert not is_page(found)


def test_list_that_says_nothing_of_headers() -> None:
    """As for pages."""
    assert varied_by(["vary", "token", "cookie"]) == ("cookie",)
    for found in (None, "vary", [], ["vary"], ["vary", 5], ["vary", "token", None], ["page", "token"], GOOD):
        with pytest.raises(TypeError):
            varied_by(found)


def test_an_answer_may_be_changed() -> None:
    """Its headers are no part of the page."""
    page = kept()
    assert page is not None
    answer(page.page, rules(), {}, at(0.0), "HIT")[1].append(("X-A", "1"))
    assert ("X-A", "1") not in answer(page.page, rules(), {}, at(0.0), "HIT")[1]


# Keys

TEXTS = st.text(max_size=8) | st.text("/?&=~:.,'\\ 0123a%", max_size=8)
PARTS = st.tuples(TEXTS, TEXTS, st.lists(TEXTS, max_size=2).map(tuple), TEXTS)


@given(PARTS, PARTS)
def test_other_requests_have_other_keys(one: Any, other: Any) -> None:
    """Whatever clients write into paths, queries, hosts and headers."""
    under = rules(headers=["X-A"])
    asked = []
    for path, query, extras, host in (one, other):
        environ = {"QUERY_STRING": query, "HTTP_X_A": "".join(extras)}
        key = under.key("view:v:", path, environ, "http", host, extras)
        assert key.isprintable()
        assert " " not in key
        assert len(key) <= 200
        asked.append(((path, under.normal_query(query), extras, host), key))
    assert (asked[0][0] == asked[1][0]) == (asked[0][1] == asked[1][1])


def test_host_that_looks_like_the_rest_of_a_path() -> None:
    """A client may write anything into the header."""
    keys = {
        rules().key("v", path, {}, "http", host, ())
        for path, host in (("/a", "b~http://c"), ("/a~http://b", "c"), ("/a", "c"), ("a", "c"), ("", "/a~c"))
    }
    assert len(keys) == 5


@given(st.lists(st.tuples(st.sampled_from("abc"), st.text(max_size=3)), max_size=5))
def test_order_of_parameters(pairs: list[tuple[str, str]]) -> None:
    """Of different names it says nothing; of one name it is kept."""
    normal = rules().normal_query
    by_name = sorted(pairs, key=lambda pair: pair[0])
    assert normal(urlencode(pairs)) == normal(urlencode(by_name))
    assert parse_qsl(normal(urlencode(pairs)), keep_blank_values=True) == by_name


def test_query_that_is_no_good() -> None:
    """One with too many parameters, or characters that no client has to send, counts as it is."""
    for query in ("&".join(f"a{number}=1" for number in range(2_000)), "a=\ud800", "b=€&a=1"):
        assert rules().normal_query(query) == query


def test_header_that_is_missing() -> None:
    """Absent and empty are two things (RFC 9111, 4.1)."""
    under = rules(headers=["X-A"])
    keys = {under.key("v", "/", environ, "http", "h", ()) for environ in ({}, {"HTTP_X_A": ""})}
    assert len(keys) == 2
    entry = vary_entry(["x-a"], "token")
    assert varied_key(entry, {}) != varied_key(entry, {"HTTP_X_A": ""})
    assert varied_key(entry, {"HTTP_X_A": "-"}) != varied_key(entry, {})
    assert not is_page(entry)


def test_tags() -> None:
    """A page carries those by which its URL can be named; the order of parameters doesn't matter."""
    under = rules()
    assert under.tags("head", "/a", "") == ("head", under.tag("/a", ""))
    tags = under.tags("head", "/a", "y=2&x=1")
    assert {under.tag("/a", ""), under.tag("/a", "x=1&y=2")} <= set(tags)
    assert under.tag("/a", "x=2") not in tags


def test_ttl_that_is_none() -> None:
    """It is refused where the view is decorated."""
    with pytest.raises(InvalidTTL):
        rules(0)
    with pytest.raises(ConfigError, match="stale_ttl"):
        rules(cache_control=True, stale_directives=True)


def test_name_of_a_view_with_spaces() -> None:
    """It is made fit for keys once, in their head; the rest stays as it is; different views stay apart."""
    heads = [rules().head(name) for name in ("a view", r"a\x20view", "aview")]
    assert len(set(heads)) == 3
    for head in heads:
        for path in ("/", "/a b", "no-slash", "/~x"):
            key = rules().key(head, path, {}, "http", "host", ())
            assert key.startswith(head)
            assert key.isprintable()
            assert " " not in key
