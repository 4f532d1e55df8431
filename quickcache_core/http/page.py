"""A response as it is kept: text, numbers and bytes, for any serializer to take.

No object of a framework: those change from version to version, and hold on to their requests. Two forms with
the same fields. Where the serializer is pickle, a tuple of immutable values, which is handed out as it is.
Otherwise a flat list, which JSON and MessagePack take; flat, since the isolation copies a flat list at the
price of a list, and would have to pickle a nested one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from quickcache_core.entry import FOREVER
from quickcache_core.http.headers import (
    directives,
    environ_name,
    etag_of,
    http_date,
    names_in,
    seconds_of,
    timestamp,
)
from quickcache_core.http.rules import Rules

Page = Sequence[Any]
"""A tuple or a list, see above: `KIND` and so on."""

KIND: Final = 0
"""`PAGE`, or `VARY` in an entry that says which headers of the request tell pages apart."""
STATUS: Final = 1
BODY: Final = 2
"""Bytes in a tuple; in a list text of characters below 256, since JSON takes no bytes."""
CREATED: Final = 3
"""Wall time in seconds."""
TTL: Final = 4
"""Seconds; -1 for no end."""
ETAG: Final = 5
"""Empty for none."""
LAST_MODIFIED: Final = 6
"""Wall time in whole seconds; 0 for not known."""
CONTROL: Final = 7
"""What `Cache-Control` says beside a `max-age` that counts down; `OWN` if the view has seen to it all."""
HEADERS: Final = 8
"""In a tuple the pairs of names and values; in a list from here on names and values in turn."""

PAGE: Final = "page"
VARY: Final = "vary"
OWN: Final = "="

NO_END: Final = -1.0

_TOO_LARGE: Final = 1e300
"""Seconds. Whole numbers from here on can't be added to floats."""
_IN_NAMES: Final = re.compile(r"[!#$%&'*+.^_`|~\w-]*", re.ASCII)
"""What names of headers consist of (RFC 9110, 5.6.2)."""
_UNSENDABLE: Final = frozenset("\r\n\0")
"""In the value of a header."""

# Of one connection (RFC 9110, 7.6.1), or of the answer to one request.
_NOT_KEPT: Final = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "te", "trailer", "transfer-encoding", "upgrade", "age"}
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A response of a framework, taken apart."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """A page to be stored."""

    page: Page
    ttl: float
    """Seconds, `FOREVER` for no end."""
    varies_on: tuple[str, ...]
    """Names of headers, in lower case."""


def is_page(found: Any) -> bool:
    """Whether that is one, complete. Who can write where pages are lists may have put anything there: each
    part has to be something that can be sent.
    """
    kind = found.__class__
    return kind is tuple or (kind is list and found[:1] == [PAGE] and _is_whole(found))


def _is_whole(page: list[Any]) -> bool:
    try:
        _, status, body, created, ttl, etag, modified, control = page[:HEADERS]
        names, values = page[HEADERS::2], page[HEADERS + 1 :: 2]
        if status.__class__ is not int or not 100 <= status < 600 or len(names) != len(values):
            return False
        # Also False for what is no number, NaN.
        if not (-_TOO_LARGE < created < _TOO_LARGE and NO_END <= ttl < _TOO_LARGE):
            return False
        if not -_TOO_LARGE < modified < _TOO_LARGE:
            return False
        name, text = "".join(names), "".join((etag, control, *values))
        # These take no time in ASCII.
        if not (body.isascii() and text.isascii()):
            body.encode("latin-1")
            text.encode("latin-1")
    except (TypeError, ValueError, AttributeError):
        return False
    if not (text.isprintable() or _UNSENDABLE.isdisjoint(text)):
        return False
    return all(names) and _IN_NAMES.fullmatch(name) is not None


def is_error(snapshot: Snapshot | None) -> bool:
    """Whether that is no answer but the failure of one: nothing to replace an older page with."""
    return snapshot is not None and snapshot.status >= 500


def page_of(
    snapshot: Snapshot, rules: Rules, *, default_ttl: float, jitter: float, now: float, pickled: bool
) -> Kept | None:
    """What to keep of a response; None if it may not be kept.

    `default_ttl`: seconds, where neither the rules nor the response say. `jitter`: the share of the TTL by
    which it is shortened at random. `now`: wall time. `pickled`: whether it will be a tuple.
    """
    if snapshot.status not in rules.statuses:
        return None
    fields = _fields(snapshot.headers)
    control = directives(fields.get("cache-control", ""))
    if "set-cookie" in fields or not _may_be_kept(control, rules):
        return None
    varies_on = names_in(fields.get("vary", ""))
    if "*" in varies_on:
        return None
    own_age = _own_age(fields, control, now)
    ttl = rules.ttl
    if ttl is None and own_age is not None:
        if not own_age:
            return None
        ttl = float(own_age)
    is_success = 200 <= snapshot.status < 300
    headers = [(name, value) for name, value in snapshot.headers if name.lower() not in _NOT_KEPT]
    etag = fields.get("etag", "")
    if not etag and rules.etag and is_success:
        etag = etag_of(snapshot.body)
        headers.append(("ETag", etag))
    modified = timestamp(fields["last-modified"]) if "last-modified" in fields else None
    if rules.last_modified and is_success and "last-modified" not in fields:
        modified = now
        headers.append(("Last-Modified", http_date(now)))
    _add_vary(headers, rules)
    written = _control(fields.get("cache-control", ""), control, rules)
    has_own_age = own_age is not None
    headers = [one for one in headers if one[0].lower() != "cache-control"]
    if written and (has_own_age or not rules.cache_control):
        headers.append(("Cache-Control", written))
    lives = default_ttl if ttl is None else ttl
    if jitter and lives != FOREVER:
        lives *= 1.0 - jitter * random.random()  # noqa: S311 - nothing to be guessed
    fixed = (
        PAGE,
        snapshot.status,
        snapshot.body if pickled else snapshot.body.decode("latin-1"),
        now,
        NO_END if lives == FOREVER else lives,
        etag,
        int(modified or 0),
        OWN if has_own_age else written,
    )
    page: Page = (*fixed, tuple(headers)) if pickled else [*fixed, *chain.from_iterable(headers)]
    return Kept(page, lives, varies_on)


def _fields(headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    """By name in lower case. One that is there several times means the list of its values (RFC 9110, 5.2)."""
    fields: dict[str, str] = {}
    for name, value in headers:
        name = name.lower()
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


def _own_age(fields: Mapping[str, str], control: Mapping[str, str], now: float) -> int | None:
    """For how many seconds the response says that it is fresh (RFC 9111, 4.2.1 and 5.3)."""
    age = seconds_of(control.get("s-maxage", control.get("max-age")))
    if age is not None or "expires" not in fields:
        return age
    end = timestamp(fields["expires"])
    # What is no date, such as a 0, is in the past.
    return 0 if end is None else max(0, int(end - now))


def _may_be_kept(control: Mapping[str, str], rules: Rules) -> bool:
    if "no-store" in control or "no-cache" in control:
        return False
    return "private" not in control or rules.by_user


def _control(written: str, control: Mapping[str, str], rules: Rules) -> str:
    """What the view said, or has forgotten to say: no cache on the way may hand a user's page to others."""
    if rules.by_user and "private" not in control and "public" not in control:
        return f"{written}, private" if written else "private"
    return written


def _add_vary(headers: list[tuple[str, str]], rules: Rules) -> None:
    """Have caches on the way tell apart what we do."""
    said = ", ".join(value for name, value in headers if name.lower() == "vary")
    missing = [name for name in rules.headers if name.lower() not in names_in(said)]
    if missing:
        headers[:] = [one for one in headers if one[0].lower() != "vary"]
        headers.append(("Vary", ", ".join([*filter(None, [said]), *missing])))


def vary_entry(names: Sequence[str], token: str) -> Page:
    """Kept under a key whose pages differ by headers of the request. `token` is part of the keys of these
    pages: without this entry they can't be found.
    """
    return [VARY, token, *names]  # a list for all serializers: it is small


def varied_by(entry: Any) -> tuple[str, ...]:
    """The names of these headers. Raises `TypeError` for what is no such entry: see `is_page`."""
    is_one = entry.__class__ is list and len(entry) > 1 and entry[KIND] == VARY
    if is_one and all(part.__class__ is str for part in entry):
        return tuple(entry[2:])
    raise TypeError("neither a page, nor what says by which headers pages differ")


def varied_key(entry: Page, environ: Mapping[str, Any]) -> tuple[str, ...]:
    """What is to be added to a key for that request: the token, and each header's value."""
    values = (environ.get(environ_name(name)) for name in entry[2:])
    # Absent and empty are two things (RFC 9111, 4.1).
    return (entry[1], *("-" if value is None else f"={value}" for value in values))


def headers_of(page: Page) -> list[tuple[str, str]]:
    """A list of the caller's own."""
    if page.__class__ is tuple:
        return list(page[HEADERS])
    return list(zip(page[HEADERS::2], page[HEADERS + 1 :: 2], strict=True))


def body_of(page: Page) -> bytes:
    body: bytes | str = page[BODY]
    return body if isinstance(body, bytes) else body.encode("latin-1")
