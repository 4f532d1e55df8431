"""Headers that say what may be cached, for how long, and whether it has changed (RFC 9110, RFC 9111)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime
from hashlib import blake2b
from typing import Any, Final

_ETAG = re.compile(r'(?:W/)?("[^"]*")')
# A value in quotes may contain commas: private="Set-Cookie, X-Name".
_DIRECTIVE = re.compile(r'([^\s,;="]+)\s*(?:=\s*(?:"([^"]*)"|([^\s,;]*)))?')

_WITHOUT_PREFIX = {"CONTENT_TYPE", "CONTENT_LENGTH"}

NO_CONTENT: Final = frozenset({None, "", "0"})
"""What `CONTENT_LENGTH` is in a request without content; some servers leave it empty."""

_CONDITIONS: Final = frozenset(
    {
        "HTTP_IF_MATCH",
        "HTTP_IF_MODIFIED_SINCE",
        "HTTP_IF_NONE_MATCH",
        "HTTP_IF_RANGE",
        "HTTP_IF_UNMODIFIED_SINCE",
        "HTTP_RANGE",
    }
)


def directives(cache_control: str) -> dict[str, str]:
    """The directives of a `Cache-Control`, names in lower case; an empty string for those without a value."""
    return {name.lower(): quoted or plain for name, quoted, plain in _DIRECTIVE.findall(cache_control)}


def seconds_of(directive: str | None) -> int | None:
    """The number of seconds of a directive such as `max-age`; None if it isn't there, or no number."""
    return int(directive) if directive is not None and directive.isascii() and directive.isdigit() else None


def names_in(field: str) -> tuple[str, ...]:
    """The header names that a `Vary` lists, in lower case, sorted, each once."""
    return tuple(sorted({name.strip().lower() for name in field.split(",") if name.strip()}))


def environ_name(header: str) -> str:
    """What CGI calls a header of the request."""
    name = header.upper().replace("-", "_")
    return name if name in _WITHOUT_PREFIX else f"HTTP_{name}"


def has_content(environ: Mapping[str, Any]) -> bool:
    """Whether something comes with the request that keys know nothing of. A GET has no need of it (RFC 9110,
    9.3.1), but frameworks hand it to views, and a page that was made of it isn't what the URL stands for.
    """
    return environ.get("CONTENT_LENGTH") not in NO_CONTENT or "HTTP_TRANSFER_ENCODING" in environ


def for_whole_page(environ: Mapping[str, Any]) -> dict[str, Any]:
    """The environment of a GET of the whole page, whatever the client has of it already."""
    return {**{name: environ[name] for name in environ if name not in _CONDITIONS}, "REQUEST_METHOD": "GET"}


def etag_of(body: bytes) -> str:
    """A strong validator: the same for the same bytes only."""
    return f'"{blake2b(body, digest_size=16).hexdigest()}"'


def matches_any(if_none_match: str, etag: str) -> bool:
    """Whether the client has that version, by the weak comparison, which `If-None-Match` asks for."""
    if if_none_match == etag:
        return True
    if if_none_match.strip() == "*":
        return True
    return etag.removeprefix("W/") in _ETAG.findall(if_none_match)


def http_date(seconds: float) -> str:
    return formatdate(seconds, usegmt=True)


def timestamp(date: str) -> float | None:
    """Seconds since the epoch of a date in a header; None for what is none."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


def is_unchanged(environ: Mapping[str, Any], etag: str, last_modified: float) -> bool:
    """Whether the client asked for something newer than it has, and has it. `etag` may be empty and
    `last_modified` 0 for not known.
    """
    known = environ.get("HTTP_IF_NONE_MATCH")
    if known is not None:
        # RFC 9110, 13.2.2: the date doesn't count then.
        return bool(etag) and matches_any(known, etag)
    since = environ.get("HTTP_IF_MODIFIED_SINCE")
    if since is None or not last_modified:
        return False
    time = timestamp(since)
    return time is not None and last_modified <= time


KEPT_WHEN_UNCHANGED: Final = frozenset(
    {"cache-control", "content-location", "date", "etag", "expires", "last-modified", "vary", "age"}
)
"""What a 304 says again (RFC 9110, 15.4.5), and the age."""
