"""The table of all settings in docs/settings.md, made of the code.

Usage: settings_table.py [--write]. Prints the table, or puts it between the markers of the page.

Names and defaults are those of the configuration and of what the adapters make of empty settings; meanings
are the fields' docstrings. What the code doesn't say by itself stands below, and `test_settings_page` holds
it to the code.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, Final

from quickcache_core import FIELDS, QuickCacheConfig
from quickcache_core import config as config_module

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
BEGIN: Final = "<!-- made of the code by `make docs`; not by hand, from here -->\n"
END: Final = "<!-- to here -->\n"

HEAD: Final = ("option", "Django", "Flask", "default", "unit, bounds", "scopes", "meaning")

SCOPES: Final = ("memory", "shared", "redis")
COUNTS_IN: Final[dict[str, tuple[str, ...]]] = {
    "max_size": ("memory", "shared"),
    "max_bytes": ("memory", "shared"),
    "cull_fraction": ("memory", "shared"),
    "cleanup_interval": ("memory", "shared"),
    "auto_resize": ("memory",),
    "eviction_policy": ("memory",),
    "publish_as": ("memory",),
    "near_size": ("shared", "redis"),
    "fail": ("shared", "redis"),
    "redis_prefix": ("redis",),
    "redis_options": ("redis",),
}
"""The scopes in which an option has an effect; in all, if it isn't named here."""


@dataclass(frozen=True)
class Numbers:
    unit: str
    least: float
    most: float | None = None
    """None: as large as you like."""
    least_is_taken: bool = True

    def __str__(self) -> str:
        start = f"from {_plain(self.least)}" if self.least_is_taken else f"above {_plain(self.least)}"
        return f"{self.unit}, {start}" + ("" if self.most is None else f" to {_plain(self.most)}")


_SECONDS: Final = Numbers("seconds or `timedelta`", 0, least_is_taken=False)
NUMBERS: Final = {
    "max_size": Numbers("entries", 1),
    "max_bytes": Numbers("bytes, `%` of the memory", config_module.LEAST_WEIGHT),
    "near_size": Numbers("entries", 0),
    "default_ttl": _SECONDS,
    "max_age": _SECONDS,
    "stale_ttl": _SECONDS,
    "hard_timeout": _SECONDS,
    "soft_timeout": Numbers("seconds or `timedelta`", 0),
    "retry_after": Numbers("seconds", 0, 1e9),
    "lease": Numbers("seconds", 0.001, 1e9),
    "cleanup_interval": Numbers("seconds", 0.01, 1e9),
    "refresh_ahead": Numbers("share of the TTL", 0.001, 0.999),
    "jitter": Numbers("share of the TTL", 0, 0.999),
    "cull_fraction": Numbers("share of the entries", 1e-9, 1),
}

_CLASS: Final = 'name, class, `"module:Class"`'
OTHERS: Final = {
    "background_context": "function",
    "version": "text",
    "eviction_policy": _CLASS,
    "serializer": f"{_CLASS}, instance",
    "metrics_serializer": f"{_CLASS}, instance",
    "location": "name, `shared://` and a path, URL",
    "redis_prefix": "1 to 40 characters",
    "redis_options": "mapping",
    "immutable_types": "types",
    "storage_dir": "path",
    "metrics_storage_dir": "path",
    "filename": "name",
    "metrics_filename": "name",
    "publish_as": "name",
    "secret": "from 16 bytes, or a function",
    "secret_fallbacks": "list, or a function",
    "clock": "object",
}
"""What is accepted, where neither numbers nor the type say it."""

MADE_AT_RUN_TIME: Final = {
    ("core", "clock"): "the machine's",
    ("Django", "location"): "one for all aliases that name none",
    ("Flask", "immutable_types"): "`Markup`",
    ("Django", "publish_as"): "made of the settings module",
    ("Django", "background_context"): "connections of its own",
    ("Django", "secret"): "`SECRET_KEY`",
    ("Django", "secret_fallbacks"): "`SECRET_KEY_FALLBACKS`",
    ("Flask", "publish_as"): "made of the app",
    ("Flask", "background_context"): "`app.app_context`",
    ("Flask", "secret"): "`app.secret_key`",
    ("Flask", "secret_fallbacks"): "`SECRET_KEY_FALLBACKS`",
}
"""Defaults that no literal stands for."""

MORE: Final = {
    "max_size": "sizing.md",
    "max_bytes": "sizing.md",
    "auto_resize": "sizing.md",
    "near_size": "scopes.md#how-large",
    "fail": "scopes.md#when-the-cache-is-out-of-order",
    "default_ttl": "core.md#how-long-an-entry-lives",
    "stale_ttl": "loading.md",
    "retry_after": "loading.md",
    "soft_timeout": "loading.md",
    "hard_timeout": "loading.md",
    "refresh_ahead": "loading.md",
    "single_flight": "loading.md",
    "lease": "loading.md",
    "version": "core.md#tags-namespaces-versions",
    "eviction_policy": "core.md#who-leaves-when-the-cache-is-full",
    "serializer": "core.md#serializers",
    "location": "scopes.md",
    "redis_prefix": "redis.md",
    "redis_options": "redis.md#where-the-server-is",
    "isolation": "core.md#what-you-may-do-with-a-value",
    "storage_dir": "core.md#snapshots",
    "enable_metrics": "metrics.md",
    "publish_as": "core.md#figures-of-other-processes",
    "secret": "core.md#snapshots",
    "enabled": "core.md#switching-it-off",
    "clock": "testing.md",
}
"""Where an option is explained."""


def table() -> str:
    """Sets Django up, with settings of its own: in a process of its own only."""
    meanings, django, flask = docstrings(), Django(), InFlask()
    rows = [HEAD, ("---",) * len(HEAD)]
    for name in FIELDS:
        scopes = COUNTS_IN.get(name, SCOPES)
        more = f" [More]({MORE[name]})" if name in MORE else ""
        rows.append(
            (
                f"`{name}`",
                " ".join(f"`{one}`" for one in django.names(name)),
                " ".join(f"`{one}`" for one in flask.names(name)),
                "; ".join(defaults(name, {"Django": django.config, "Flask": flask.config})),
                accepted(name),
                "all" if scopes == SCOPES else ", ".join(scopes),
                meanings[name] + more,
            )
        )
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def docstrings() -> dict[str, str]:
    """Of the fields, each in one line."""
    (made,) = ast.parse(inspect.getsource(QuickCacheConfig)).body
    assert isinstance(made, ast.ClassDef)
    found = {}
    for field, text in zip(made.body, made.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = " ".join(ast.literal_eval(text.value).split()).replace("|", "\\|")
    return found


def accepted(name: str) -> str:
    kind = typing.get_type_hints(QuickCacheConfig)[name]
    if kind is bool:
        return "`True`, `False`"
    for one in (kind, *typing.get_args(kind)):
        if typing.get_origin(one) is typing.Literal:
            return ", ".join(_literal(choice) for choice in typing.get_args(one))
    return str(NUMBERS[name]) if name in NUMBERS else OTHERS[name]


def defaults(name: str, adapters: dict[str, QuickCacheConfig]) -> Iterator[str]:
    """That of the core, and those that differ from it."""
    core = QuickCacheConfig()
    field = FIELDS[name]
    own = field.default if field.default_factory is MISSING else field.default_factory()
    yield MADE_AT_RUN_TIME.get(("core", name)) or _literal(own)
    others = {
        framework: MADE_AT_RUN_TIME.get((framework, name)) or _literal(getattr(config, name))
        for framework, config in adapters.items()
        if getattr(config, name) != getattr(core, name)
    }
    if len(others) == len(adapters) > len(set(others.values())):
        others = {" and ".join(others): next(iter(others.values()))}
    yield from (f"{framework}: {value}" for framework, value in others.items())


class Django:
    """The adapter for Django, as a project has it whose settings say nothing of it."""

    def __init__(self) -> None:
        site = types.ModuleType("settings_of_a_site")
        site.SECRET_KEY = "a key for the documentation"  # type: ignore[attr-defined]
        sys.modules[site.__name__] = site
        os.environ["DJANGO_SETTINGS_MODULE"] = site.__name__
        from quickcache_django.conf import read

        self.config = read("", {}).engine.config

    def names(self, field: str) -> Iterator[str]:
        from quickcache_django.conf import CORE_OPTIONS, DJANGO_OPTIONS, Reader

        if field == "location":
            yield "LOCATION"
        yield from (name for name, meant in (CORE_OPTIONS | DJANGO_OPTIONS).items() if meant == field)
        reader = Reader("", {"TIMEOUT": 1})
        assert not list(reader.problems())
        if name := reader.given_as.get(field):
            yield name


class InFlask:
    """The adapter for Flask, as an app has it whose settings say nothing of it."""

    def __init__(self) -> None:
        from flask import Flask
        from flask_caching import Cache

        app = Flask("documentation")
        app.config["CACHE_TYPE"] = "quickcache_flask.QuickCache"
        Cache(app)
        (backend,) = app.extensions["cache"].values()
        self.config = backend.engine.config

    def names(self, field: str) -> Iterator[str]:
        from quickcache_flask.conf import PREFIX, read_settings

        yield f"{PREFIX}{field.upper()}"
        written = read_settings({"CACHE_THRESHOLD": 1, "CACHE_DEFAULT_TIMEOUT": 1}, {})
        if field in written:
            yield written[field].name


def _literal(value: Any) -> str:
    if isinstance(value, float):
        return f"`{_plain(value)}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, tuple) and value and all(isinstance(one, type) for one in value):
        return " ".join(f"`{one.__name__}`" for one in value)
    if value in (None, (), {}) or isinstance(value, int):
        return f"`{value!r}`"
    raise TypeError(f"{value!r} is no literal: say in MADE_AT_RUN_TIME what stands for it")


def _plain(number: float) -> str:
    return re.sub(r"e([+-])0*", lambda found: "e" + found[1].strip("+"), f"{number:.9g}")


def with_table(page: str, rows: str) -> str:
    """The page with these rows between its markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"{PAGE} has no {BEGIN!r}"
    assert end, f"{PAGE} has no {END!r}"
    return f"{before}{BEGIN}\n{rows}\n{END}{after}"


def main(arguments: list[str]) -> None:
    rows = table()
    if "--write" in arguments:
        PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")
    else:
        sys.stdout.write(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
