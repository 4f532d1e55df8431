"""Whether a cache works as it is set up: its options, the place where its entries are, and a round trip."""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Final, Literal, TypedDict

from quickcache_core.cache import QuickCache
from quickcache_core.config import DISABLING_VARIABLE, FIELDS
from quickcache_core.errors import QuickCacheError
from quickcache_core.location import Location, read_location, shown
from quickcache_core.metrics.tables import printable

Level = Literal["ok", "warning", "error"]
Look = Callable[[QuickCache, Location], "Iterator[Finding]"]

_LOOKS: Final = {
    "shared": "quickcache_core.commands.check_directory",
    "redis": "quickcache_core.commands.check_server",
}
"""By scope: the module whose `look(cache, location)` says what it finds. Imported when it is needed."""
_PROBE_TTL: Final = 10
"""Seconds that the probe lives if nobody removes it."""


class Finding(TypedDict):
    level: Level
    about: str
    says: str


class OptionRow(TypedDict):
    name: str
    value: str
    """As Python writes it; of secrets, only whether there is one."""
    source: str
    """Where it was set."""


class CheckedAlias(TypedDict):
    alias: str
    location: str
    scope: str
    findings: list[Finding]
    options: list[OptionRow]


class CheckReport(TypedDict):
    aliases: list[CheckedAlias]


def finding(about: str, says: str, level: Level = "ok") -> Finding:
    return {"level": level, "about": about, "says": says}


def broken_alias(alias: str, location: str, errors: Sequence[str]) -> CheckedAlias:
    """For an alias of which no cache can be made."""
    findings = [finding("settings", error, "error") for error in errors]
    return {"alias": alias, "location": location, "scope": "", "findings": findings, "options": []}


def check_alias(
    alias: str,
    cache: QuickCache,
    sources: Mapping[str, str],
    name_of: Callable[[str], str],
    doubts: Iterable[str] = (),
) -> CheckedAlias:
    """Look at everything, and store, read and delete one entry.

    `sources`: where fields of the configuration were set; those that aren't in it have their default.
    `name_of`: what the framework calls a field. `doubts`: what of the settings may not be meant.
    """
    location = read_location(cache.config.location)
    findings = [finding("settings", "valid"), *(finding("settings", one, "warning") for one in doubts)]
    if not cache.enabled:
        findings.append(finding("settings", "the cache is switched off: nothing is stored", "warning"))
    if location.scope in _LOOKS:
        look: Look = import_module(_LOOKS[location.scope]).look
        try:
            findings.extend(look(cache, location))
        except (OSError, QuickCacheError) as error:
            findings.append(finding("store", str(error), "error"))
    findings.append(_round_trip(cache))
    return {
        "alias": alias,
        "location": shown(cache.config.location),
        "scope": location.scope,
        "findings": findings,
        "options": list(_options(cache, sources, name_of)),
    }


def _round_trip(cache: QuickCache) -> Finding:
    if not cache.enabled:
        return finding("round trip", "not tried: the cache is switched off")
    key, value = f"quickcache-check:{secrets.token_hex(8)}", secrets.token_hex(8)
    strict = cache
    try:
        if read_location(cache.config.location).scope != "memory":
            # Where the store can't be used, this says why, instead of missing.
            strict = QuickCache(cache.config.replace(fail="raise"))
        strict.set(key, value, ttl_sec=_PROBE_TTL)
        found = strict.get(key, None)
        strict.delete(key, missing_ok=True)
    except QuickCacheError as error:
        return finding("round trip", str(error), "error")
    finally:
        if strict is not cache:
            strict.stop()
    if found != value:
        return finding("round trip", "what was stored a moment ago isn't there", "error")
    return finding("round trip", "an entry was stored, read and deleted")


# Options


def _options(
    cache: QuickCache, sources: Mapping[str, str], name_of: Callable[[str], str]
) -> Iterator[OptionRow]:
    for name, field in FIELDS.items():
        source = sources.get(name, "default")
        value = getattr(cache.config, name)
        if name == "enabled" and os.environ.get(DISABLING_VARIABLE) and value and not cache.enabled:
            value, source = False, f"environment variable {DISABLING_VARIABLE}"
        yield {"name": name_of(name), "value": _as_text(name, value, field), "source": source}


def _as_text(name: str, value: Any, field: dataclasses.Field[Any]) -> str:
    if name in ("secret", "secret_fallbacks"):
        try:
            given = value() if callable(value) else value
        except Exception as error:
            return f"({type(error).__name__})"
        if name == "secret":
            return "(not shown)" if given else "None"
        return f"({len(given)}, not shown)" if given else "()"
    if name == "redis_options":
        # Any of them may be a password, or have one in it.
        return ", ".join(f"{option}=(not shown)" for option in value) or "{}"
    if name == "location":
        return repr(shown(value))
    named = value if hasattr(value, "__qualname__") else type(value)
    if field.repr and named is not value and "__repr__" in _own_names(named):
        return repr(os.fspath(value) if isinstance(value, os.PathLike) else value)
    return f"{named.__module__}.{named.__qualname__}"


def _own_names(kind: type) -> set[str]:
    """Of a class and those that it inherits from, but for `object`."""
    return set[str]().union(*(vars(one) for one in kind.__mro__[:-1]))


# What is said of it


def problems(report: CheckReport) -> int:
    """How many errors there are."""
    return sum(one["level"] == "error" for alias in report["aliases"] for one in alias["findings"])


def check_lines(report: CheckReport, *, options: bool = True) -> Iterator[str]:
    """For people."""
    for alias in report["aliases"]:
        scope = f", scope {alias['scope']}" if alias["scope"] else ""
        yield f"{alias['alias']}: {printable(alias['location']) or 'no location'}{scope}"
        for one in alias["findings"]:
            yield f"  {one['level']:<8} {one['about']}: {one['says']}"
        if options and alias["options"]:
            width = max(len(row["name"]) for row in alias["options"])
            yield "  options in force:"
            for row in alias["options"]:
                yield f"    {row['name']:<{width}}  {printable(row['value'])}  ({row['source']})"
        yield ""
    count = problems(report)
    yield "No problems." if not count else f"{count} problem{'' if count == 1 else 's'}."
