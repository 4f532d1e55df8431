"""What the author of a view may say about caching it, and the keys that follow from that."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from quickcache_core.decorators.place import check_options
from quickcache_core.errors import ConfigError
from quickcache_core.fingerprint import LONGEST_KEY, NoStableForm, quoted, shortened, stable_form
from quickcache_core.http.headers import KEPT_WHEN_UNCHANGED, environ_name
from quickcache_core.ttl import TTL, seconds

CACHEABLE: Final = frozenset({200, 203, 301, 308, 404, 410})
"""Of the statuses that RFC 9110 lets caches keep by themselves, those with a body or a place to go."""

LOAD_OPTIONS: Final = frozenset(
    {
        "stale_ttl",
        "refresh_ahead",
        "jitter",
        "soft_timeout",
        "hard_timeout",
        "retry_after",
        "single_flight",
        "lease",
    }
)
"""Keywords of `get_or_set` that have a meaning for pages."""

LONGEST_AGE: Final = 31_536_000
"""Seconds that a client is told at most: a year, which stands for no end."""

X_CACHE: Final = "X-Cache"

_LANGUAGE: Final = frozenset({"accept-language"})

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_MOST_PARAMETERS: Final = 1000
_REMEMBERED: Final = 256
"""Query strings whose normal form is remembered, by each view."""
_LONGEST_REMEMBERED: Final = 512  # characters


@dataclass(frozen=True, slots=True)
class Rules:
    """How the pages of a view are kept. Made by `read_rules`."""

    ttl: float | None
    """Seconds, `FOREVER` for no end; None: as the response says, or the cache."""
    query: frozenset[str] | None
    """The parameters that count; None for all."""
    headers: tuple[str, ...]
    host: bool
    statuses: frozenset[int]
    by_user: bool
    etag: bool
    last_modified: bool
    cache_control: bool
    stale_directives: str
    """What `Cache-Control` says after a `max-age` of ours."""
    x_cache: str | None
    options: Mapping[str, Any]
    """For the loads."""
    version: str
    adds: bool = False
    """Whether answers have headers that the page doesn't have."""
    kept_when_unchanged: frozenset[str] = KEPT_WHEN_UNCHANGED
    """The headers of a 304, in lower case."""
    covered: frozenset[str] = frozenset()
    """Headers, in lower case, that a response may vary by without further ado: keys know of them."""
    in_environ: tuple[str, ...] = field(default=())
    """`headers`, as CGI calls them."""
    normal_query: Callable[[str], str] = field(default=str)
    """The parameters that count, in an order that doesn't depend on the request's."""

    def target(self, path: str, query: str) -> str:
        """The page that is asked for, whoever asks; the name of a tag, too."""
        if query:
            query = self.normal_query(query)
        if not query and path.startswith("/") and "~" not in path:
            return path
        # With the lengths, since both may contain whatever stands between parts of a key.
        return f"{len(path)}.{len(query)}:{path}?{query}"

    def head(self, view: str) -> str:
        """What all keys of a view begin with; the name of the tag of all its pages."""
        return tidy(f"view:{view}{self.version}:")

    def tag(self, path: str, query: str) -> str:
        """The tag of what was asked for, of whichever view; a path alone stands for all its queries."""
        return f"view:{self.target(path, query) if query else path}"

    def tags(self, head: str, path: str, query: str) -> tuple[str, ...]:
        """The tags that a page has for the sake of its view and its URL."""
        whole_path = f"view:{path}"
        return (head, whole_path, self.tag(path, query)) if query else (head, whole_path)

    def key(
        self,
        head: str,
        path: str,
        environ: Mapping[str, Any],
        scheme: str,
        host: str,
        extras: tuple[str, ...],
    ) -> str:
        """The key of a request. `extras` tell apart what the adapter knows of: user, language."""
        query = environ.get("QUERY_STRING")
        # As `target`, which costs half as much as all the rest. A path from "/" up to "0" begins with a "/".
        if query or "~" in path or not "/" <= path < "0":
            path = self.target(path, query or "")
        if self.in_environ:
            extras += tuple(
                "-" if value is None else f"={value}" for value in map(environ.get, self.in_environ)
            )
        if extras:
            path += f"~{','.join(map(quoted, extras))}"
        # Last, since anything may stand in it that a client sends.
        if self.host:
            path = f"{path}~{scheme}://{host}"
        # The head is tidy.
        if " " in path or "\\" in path or not path.isprintable():
            path = tidy(path)
        key = head + path
        return key if len(key) <= LONGEST_KEY else shortened(key)

    def deeper(self, key: str, parts: tuple[str, ...]) -> str:
        """A key below that one."""
        return shortened(f"{key}~{','.join(map(quoted, parts))}")


def form_of(option: str, value: object) -> str:
    """The stable form of what a function that is an option of the view gave. Raises `NoStableForm`."""
    try:
        return stable_form(value)
    except NoStableForm as error:
        why = f" ({error.reason})" if error.reason else ""
        raise NoStableForm(
            error.kind,
            f"comes from the function that is the {option} of cached_view{why}; let it give a string, a "
            "number or a primary key",
        ) from error


def tidy(key: str) -> str:
    """A key, or a part of one, without spaces and control characters. Different keys stay different: one
    without any of these, and without a backslash, stays as it is and needn't come here.
    """
    if key.isprintable() and " " not in key and "\\" not in key:
        return key
    return key.encode("unicode_escape").decode("ascii").replace(" ", "\\x20")


def read_rules(
    ttl: TTL | None,
    *,
    query: Collection[str] | bool,
    headers: Collection[str],
    host: bool,
    statuses: Collection[int],
    by_user: bool,
    by_language: bool,
    etag: bool,
    last_modified: bool,
    cache_control: bool,
    stale_directives: bool,
    x_cache: bool | str,
    version: str | int | None,
    options: Mapping[str, Any],
) -> Rules:
    """Raises `ConfigError`, and `TypeError`, `ValueError` or `InvalidTTL` for options of loads."""
    for option in options:
        if option not in LOAD_OPTIONS:
            raise TypeError(
                f"cached_view: unknown option {option!r}; beside its own there are "
                f"{', '.join(sorted(LOAD_OPTIONS))}"
            )
    check_options(ttl, options)
    for flag, value in {
        "host": host,
        "etag": etag,
        "last_modified": last_modified,
        "cache_control": cache_control,
        "stale_directives": stale_directives,
    }.items():
        if not isinstance(value, bool):
            raise ConfigError(flag, value, "give True or False")
    if stale_directives and not cache_control:
        raise ConfigError("stale_directives", True, "they are part of Cache-Control: add cache_control=True")
    if version is not None and (isinstance(version, bool) or not isinstance(version, str | int)):
        raise ConfigError("version", version, "give a number or a string")
    names = _headers(headers)
    chosen = _query(query)
    label = _x_cache(x_cache)
    return Rules(
        ttl=None if ttl is None else seconds(ttl),
        query=chosen,
        headers=names,
        host=host,
        statuses=_statuses(statuses),
        by_user=by_user,
        etag=etag,
        last_modified=last_modified,
        cache_control=cache_control,
        stale_directives=_stale_directives(options.get("stale_ttl")) if stale_directives else "",
        x_cache=label,
        options=dict(options),
        adds=cache_control or label is not None,
        kept_when_unchanged=KEPT_WHEN_UNCHANGED | ({label.lower()} if label is not None else set()),
        version="" if version is None else f"~v{version}",
        covered=frozenset(map(str.lower, names)) | (_LANGUAGE if by_language else frozenset()),
        in_environ=tuple(map(environ_name, names)),
        normal_query=_normaliser(chosen),
    )


def _query(query: object) -> frozenset[str] | None:
    if query is True:
        return None
    if query is False or query is None:
        return frozenset()
    return frozenset(_texts("query", query, "the names of parameters, True for all or False for none"))


def _headers(headers: object) -> tuple[str, ...]:
    names = _texts("headers", headers, 'the names of headers, such as ("Accept",)')
    for name in names:
        if not _TOKEN.fullmatch(name) or name == "*":
            raise ConfigError("headers", headers, f"{name!r} is no name of a header")
    return tuple(sorted(set(names), key=str.lower))


def _texts(option: str, value: object, wanted: str) -> tuple[str, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise ConfigError(option, value, f"give a list or tuple of {wanted}")
    texts = tuple(value)
    for one in texts:
        if not isinstance(one, str) or not one:
            raise ConfigError(option, value, f"give a list or tuple of {wanted}; {one!r} is no such name")
    return texts


def _statuses(statuses: object) -> frozenset[int]:
    if isinstance(statuses, str | bytes) or not isinstance(statuses, Iterable):
        raise ConfigError("statuses", statuses, "give a list or tuple of numbers, such as (200, 404)")
    numbers = frozenset(statuses)
    if not numbers or not numbers <= CACHEABLE:
        allowed = ", ".join(map(str, sorted(CACHEABLE)))
        raise ConfigError("statuses", statuses, f"give some of {allowed}")
    return numbers


def _x_cache(x_cache: object) -> str | None:
    if isinstance(x_cache, bool):
        return X_CACHE if x_cache else None
    if not isinstance(x_cache, str) or not _TOKEN.fullmatch(x_cache):
        raise ConfigError("x_cache", x_cache, "give True, False, or the name of a header")
    return x_cache


def _stale_directives(stale_ttl: Any) -> str:
    """RFC 5861."""
    if not stale_ttl:
        raise ConfigError(
            "stale_directives", True, "they tell how long stale pages may be served: give stale_ttl"
        )
    whole = int(min(seconds(stale_ttl, "stale_ttl"), LONGEST_AGE))
    return f", stale-while-revalidate={whole}, stale-if-error={whole}"


def _normaliser(chosen: frozenset[str] | None) -> Callable[[str], str]:
    if chosen is not None and not chosen:
        return _nothing

    def normal(query: str) -> str:
        try:
            # Byte for byte, whatever the encoding; equal names keep their order, which may have a meaning.
            pairs = parse_qsl(
                query, keep_blank_values=True, encoding="latin-1", max_num_fields=_MOST_PARAMETERS
            )
            if chosen is not None:
                pairs = [pair for pair in pairs if _as_text(pair[0]) in chosen]
            return urlencode(sorted(pairs, key=_name), encoding="latin-1")
        except ValueError:  # too many, or characters that no client has to send
            return query

    remembered = lru_cache(_REMEMBERED)(normal)
    return lambda query: remembered(query) if len(query) <= _LONGEST_REMEMBERED else normal(query)


def _nothing(query: str) -> str:
    return ""


def _name(pair: Any) -> Any:
    return pair[0]


def _as_text(name: str) -> str:
    try:
        return name.encode("latin-1").decode()
    except UnicodeError:
        return name
