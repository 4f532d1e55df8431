"""From a page to the answer to one request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from quickcache_core.decorators.place import Missed
from quickcache_core.http.headers import is_unchanged
from quickcache_core.http.page import (
    BODY,
    CONTROL,
    CREATED,
    ETAG,
    HEADERS,
    LAST_MODIFIED,
    NO_END,
    OWN,
    STATUS,
    TTL,
    Page,
    body_of,
    headers_of,
    is_page,
)
from quickcache_core.http.rules import LONGEST_AGE, Rules
from quickcache_core.store.life import ASK, Found

if TYPE_CHECKING:
    from quickcache_core.cache import QuickCache

_SET_BY_US = frozenset({"etag", "last-modified", "vary", "cache-control"})


Answer = tuple[int, list[tuple[str, str]], bytes]
"""Status, headers, body."""


def answer(page: Page, rules: Rules, environ: Mapping[str, Any], engine: QuickCache, label: str) -> Answer:
    """What to send of a page of that cache: all of it, or that it has not changed."""
    # Most often one of these is all there is to it.
    headers = list(page[HEADERS]) if page.__class__ is tuple else headers_of(page)
    if rules.adds or page[CONTROL] == OWN:
        _add(headers, page, rules, engine.config.clock.wall(), label)
    if "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MODIFIED_SINCE" in environ:
        is_success = 200 <= page[STATUS] < 300
        if is_success and is_unchanged(environ, page[ETAG], page[LAST_MODIFIED]):
            return 304, [one for one in headers if one[0].lower() in rules.kept_when_unchanged], b""
    body = page[BODY]
    return page[STATUS], headers, body if body.__class__ is bytes else body_of(page)


def answer_at_hand(engine: QuickCache, key: str, rules: Rules, environ: Mapping[str, Any]) -> Any:
    """What to send, a tuple, if there is a fresh page under the key; otherwise what `look_up` gives, which is
    none. Raises what the cache raises.
    """
    # `look_up` and `answer` in one, for most pages: a hit is made of little else than calls.
    page = engine._get(key, ASK)
    if page.__class__ is tuple:  # nothing else is a tuple
        if (
            rules.adds
            or page[CONTROL] == OWN
            or "HTTP_IF_NONE_MATCH" in environ
            or "HTTP_IF_MODIFIED_SINCE" in environ
        ):
            return answer(page, rules, environ, engine, "HIT")
        return page[STATUS], list(page[HEADERS]), page[BODY]
    if page is ASK or page.__class__ is Found:
        return Missed(engine, key, page)
    return answer(page, rules, environ, engine, "HIT") if is_page(page) else page


def finished(
    page: Page, rules: Rules, environ: Mapping[str, Any], engine: QuickCache, label: str
) -> tuple[list[tuple[str, str]], bool]:
    """For a response of which the page was just taken: the headers to set, which it may have already, and
    whether the client has it and needs nothing else of it.
    """
    status, headers, _ = answer(page, rules, environ, engine, label)
    is_unchanged = status == 304
    if not is_unchanged:
        headers = [one for one in headers if one[0].lower() in _SET_BY_US or one[0] == rules.x_cache]
    return headers, is_unchanged


def is_stale(page: Page, now: float) -> bool:
    """Whether its TTL has ended. `now`: wall time in seconds."""
    created: float = page[CREATED]
    ttl: float = page[TTL]
    return ttl != NO_END and now >= created + ttl


def _add(headers: list[tuple[str, str]], page: Page, rules: Rules, now: float, label: str) -> None:
    control = page[CONTROL]
    # A wall clock may have been set back.
    age = max(0, int(now - page[CREATED]))
    if control == OWN:
        # Else a browser would take the page for as fresh as on the day that it was made.
        headers.append(("Age", str(age)))
    elif rules.cache_control:
        ttl = page[TTL]
        left = LONGEST_AGE if ttl == NO_END else max(0, min(LONGEST_AGE, int(ttl) - age))
        said = f"{control}, max-age={left}" if control else f"max-age={left}"
        headers.append(("Cache-Control", said + rules.stale_directives))
    if rules.x_cache is not None:
        headers.append((rules.x_cache, label))
