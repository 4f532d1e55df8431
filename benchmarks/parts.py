"""Where the time goes: the steps of one operation, each with all that come before it."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import django
from django.conf import settings
from flask import Flask
from flask_caching import Cache

from benchmarks import report
from benchmarks.progress import progress_bar
from benchmarks.timing import Task, compile_loop, interleave
from benchmarks.workload import SameKeys, asked_keys, stored_keys
from quickcache_core import NEVER, QuickCache, QuickCacheConfig

ENTRIES = 1_000
TIMEOUT = 86_400
TEXT = "a value of forty characters or thereabout"
SMALL_DICT = {"id": 7, "name": "Ada", "email": "ada@example.org", "active": True}
NESTED = {"id": 7, "tags": ["cache", "speed"]}
"""Not flat: pickled once, and loaded by each read."""

Steps = Mapping[str, tuple[str, Sequence[str]]]
"""Step, statement, keys."""


def configure(folder: str) -> None:
    backend, options = "quickcache_django.QuickCache", {"MAX_ENTRIES": 20 * ENTRIES}
    settings.configure(
        SECRET_KEY="benchmarks",
        USE_TZ=True,
        ALLOWED_HOSTS=["testserver"],
        CACHES={
            "default": {"BACKEND": backend, "TIMEOUT": TIMEOUT, "OPTIONS": options},
            "shared": {
                "BACKEND": backend,
                "TIMEOUT": TIMEOUT,
                "LOCATION": f"shared://{folder}",
                "OPTIONS": options,
            },
        },
    )
    django.setup()


def engine_steps(folder: str) -> tuple[Steps, dict[str, Any]]:
    """A hit in memory, and the same near at hand in scope `shared`."""
    keys = asked_keys(ENTRIES)
    memory = QuickCache(QuickCacheConfig(max_size=20 * ENTRIES, isolation="auto"))
    shared = QuickCache(
        QuickCacheConfig(max_size=20 * ENTRIES, isolation="auto", location=f"shared://{folder}/engine")
    )
    kept: dict[str, list[str]] = {}
    for kind, value in (("plain", TEXT), ("flat", SMALL_DICT), ("nested", NESTED)):
        kept[kind] = [f"{kind}:{key}" for key in keys]
        memory.set_many(dict.fromkeys(kept[kind], value), TIMEOUT)
        shared.set_many(dict.fromkeys(kept[kind], value), TIMEOUT)
    memory.set_many(dict.fromkeys(keys, TEXT), NEVER)
    scope = {"d": dict.fromkeys(stored_keys(ENTRIES), TEXT), "memory": memory, "shared": shared}
    steps = {
        "`d.get(key)` of a dict": ("d.get(key)", keys),
        "hit, an entry without an end": ("memory.get(key)", keys),
        "hit, with a TTL: the clock": ("memory.get(key)", kept["plain"]),
        "hit of a flat dict: a copy": ("memory.get(key)", kept["flat"]),
        "hit of a nested dict: loads a pickle": ("memory.get(key)", kept["nested"]),
        "near hit in `shared`": ("shared.get(key)", kept["plain"]),
        "near hit of a flat dict": ("shared.get(key)", kept["flat"]),
        "near hit of a nested dict": ("shared.get(key)", kept["nested"]),
    }
    return steps, scope


def django_steps(alias: str) -> tuple[Steps, dict[str, Any]]:
    """The engine with keys ready made, the backend of `caches[alias]`, and the name that is imported."""
    from django.core.cache import caches
    from django.utils.connection import ConnectionProxy

    backend = caches[alias]
    keys = asked_keys(ENTRIES)
    backend.set_many(dict.fromkeys(keys, TEXT))
    full = [backend.make_key(key) for key in keys]
    scope = {
        "engine": backend.engine,
        "cache": backend,
        "imported": ConnectionProxy(caches, alias),
        "value": TEXT,
        "timeout": TIMEOUT,
        "twenty": keys[:20],
        "full_twenty": full[:20],
        "twenty_values": dict.fromkeys(keys[:20], TEXT),
        "full_twenty_values": dict.fromkeys(full[:20], TEXT),
    }
    steps = {
        "get: the engine, key ready made": ("engine.get(key, None)", full),
        "get: and the key": ("cache.get(key)", keys),
        "get: and `cache`, as `django.core.cache` has it": ("imported.get(key)", keys),
        "set: the engine, key ready made": ("engine.set(key, value, timeout)", full),
        "set: and the key, and the timeout": ("cache.set(key, value)", keys),
        "get_many of 20: the engine, keys ready made": ("engine.get_many(full_twenty)", keys),
        "get_many of 20: and the keys": ("cache.get_many(twenty)", keys),
        "set_many of 20: the engine, keys ready made": ("engine.set_many(full_twenty_values)", keys),
        "set_many of 20: and the keys, and the timeout": ("cache.set_many(twenty_values)", keys),
    }
    return steps, scope


def django_view_steps() -> tuple[Steps, dict[str, Any]]:
    from http.cookies import SimpleCookie

    from django.core.cache import caches
    from django.http import HttpResponse
    from django.test import RequestFactory
    from django.utils import timezone, translation

    from quickcache_django.decorators import cached_view

    def page(request: Any) -> Any:
        return HttpResponse(TEXT)

    engine = caches["default"].engine
    engine.clear()
    view, request = cached_view(TIMEOUT)(page), RequestFactory().get("/page/?a=1")
    view(request)
    (key,) = engine.keys()
    once = ["page"] * ENTRIES
    pieces = {
        "of this, `caches[alias]`": ("caches[alias]", once),
        "of this, the language and the time zone of the request": ("language(); zone()", once),
        "of this, the cookies of the response": ("SimpleCookie()", once),
    }
    return _steps_of_view("HttpResponse", pieces), {
        "engine": engine,
        "page_key": key,
        "view": view,
        "uncached": page,
        "request": request,
        "caches": caches,
        "alias": "default",
        "language": translation.get_language,
        "zone": timezone.get_current_timezone,
        "SimpleCookie": SimpleCookie,
    }


def flask_view_steps() -> tuple[Steps, dict[str, Any]]:
    from quickcache_flask import cached_view

    app = Flask("benchmarks")
    cache = Cache(app, config={"CACHE_TYPE": "quickcache_flask.QuickCache"})

    @cached_view(cache, TIMEOUT)
    def page() -> str:
        return TEXT

    # Stays: the decorator looks at the request of the moment.
    app.test_request_context("/page?a=1").push()
    page()
    engine = cache.cache.engine
    (key,) = engine.keys()
    return _steps_of_view("Response"), {
        "engine": engine,
        "page_key": key,
        "view": lambda request: app.make_response(page()),
        "uncached": lambda request: app.make_response(TEXT),
        "request": None,
    }


def _steps_of_view(response: str, pieces: Steps = MappingProxyType({})) -> Steps:
    once = ["page"] * ENTRIES
    return {
        "get of the page, key ready made": ("engine.get(page_key)", once),
        "and the key of the request, and the response": ("view(request)", once),
        **pieces,
        f"for comparison: a view that makes a `{response}` of a text": ("uncached(request)", once),
    }


def measure(make: Callable[[], tuple[Steps, dict[str, Any]]], rounds: int) -> str:
    """A Markdown table: the nanoseconds of each step."""
    steps, scope = make()
    tasks = [
        Task(name, compile_loop(statement, scope), SameKeys(keys))
        for name, (statement, keys) in steps.items()
    ]
    done = interleave(tasks, rounds=rounds, seconds_per_task=0.05, progress=progress_bar(rounds, "parts"))
    return report.table(("step", "ns"), [(name, f"{task.best * 1e9:,.0f}") for name, task in done.items()])


def run(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        configure(f"{folder}/django")
        body = f"""
## Where the time goes

The steps of an operation, each with all that come before it: the fastest of {rounds} rounds, the
processor's time. {ENTRIES:,} entries with a TTL of a day, unless it says otherwise: texts of 41 characters,
small dicts.

### A hit of the engine

{measure(lambda: engine_steps(folder), rounds)}

### Django, scope `memory`

{measure(lambda: django_steps("default"), rounds)}

### Django, scope `shared`: everything near, and written by this process alone

{measure(lambda: django_steps("shared"), rounds)}

### A view of Django, `cached_view`

{measure(django_view_steps, rounds)}

### A view of Flask, `cached_view`, up to its response

{measure(flask_view_steps, rounds)}
"""
    report.write_section("parts", body, "Django", "Flask", "Flask-Caching", "lmdb")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parts", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    given: Any = parser.parse_args(arguments)
    run(rounds=7 if given.quick else 21)


if __name__ == "__main__":
    main()
