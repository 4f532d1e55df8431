"""Flask-Caching's interface: QuickCache beside SimpleCache, both through Flask-Caching's own `Cache`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from flask import Flask
from flask_caching import Cache

from benchmarks import report
from benchmarks.progress import progress_bar
from benchmarks.timing import Keys, Ratio, Task, compile_loop, interleave, ratio
from benchmarks.workload import FreshKeys, SameKeys, absent_keys, asked_keys, stored_keys
from quickcache_flask import cached_view, memoize

ENTRIES = 1_000
"""Keys that are asked for. Flask-Caching's own bound is 500 unless one is given."""
MANY = 10_000
"""So many that the processor's caches don't hold them."""
TIMEOUT = 86_400
BASELINE = "SimpleCache"
OURS = "QuickCache"
TYPES = {BASELINE: "SimpleCache", OURS: "quickcache_flask.QuickCache"}

Cells = dict[str, dict[str, Ratio]]

SMALL_DICT = {"id": 7, "name": "Ada", "email": "ada@example.org", "active": True}
VIEW = "hit of a view, up to its response: cached_view beside @cache.cached"
FUNCTION = "hit of a function: memoize beside @cache.memoize"
BUDGETS = {"get": 1.3, "set": 1.3, "set, new key, at the threshold": 100.0, VIEW: 6.0, FUNCTION: 30.0}
"""How many times as fast as SimpleCache."""

OPERATIONS = {
    "get": ("cache.get(key)", "asked"),
    "get, any of 10,000": ("cache.get(key)", "many"),
    "get, miss": ("cache.get(key)", "absent"),
    "get of a small dict": ("cache.get(key)", "dicts"),
    "get_many of 20": ("cache.get_many(*twenty)", "asked"),
    "has": ("cache.has(key)", "asked"),
    "set": ("cache.set(key, value)", "asked"),
    "set, any of 10,000": ("cache.set(key, value)", "many"),
    "set of a small dict": ("cache.set(key, small_dict)", "dicts"),
    "add, there": ("cache.add(key, value)", "asked"),
    "inc, of the backend": ("cache.cache.inc(key)", "numbers"),
    "set, then delete": ("cache.set(key, value)\ncache.delete(key)", "fresh"),
    "hit of a view with @cache.cached": ("view()", "asked"),
    "hit of a function with @cache.memoize": ("function(7, 'x')", "asked"),
    VIEW: ("response_of(own_view())", "asked"),
    "the same, by path and query": ("response_of(own_view_by_query())", "asked"),
    "the same, without the response": ("own_view()", "asked"),
    FUNCTION: ("own_function(7, 'x')", "asked"),
}


def make(name: str, threshold: int) -> tuple[Flask, Cache]:
    app = Flask(f"benchmark of {name}")
    app.config.update(
        CACHE_TYPE=TYPES[name],
        CACHE_THRESHOLD=threshold,
        CACHE_DEFAULT_TIMEOUT=TIMEOUT,
    )
    cache = Cache(app)
    return app, cache


def measure(rounds: int) -> tuple[Cells, dict[str, float]]:
    keys: dict[str, Keys] = {
        "asked": SameKeys(asked_keys(ENTRIES)),
        "many": SameKeys(asked_keys(MANY)),
        "absent": SameKeys(absent_keys(ENTRIES)),
        "fresh": FreshKeys(1_000),
        "numbers": SameKeys([f"number:{each}" for each in range(1_000)]),
        "dicts": SameKeys([f"dict:{each}" for each in range(1_000)]),
    }
    scopes: dict[str, dict[str, Any]] = {}
    contexts = []
    for name in TYPES:
        app, cache = make(name, 20 * MANY)
        scope = _scope(app, cache, name)
        # The decorators look at the request; the same one for the whole run.
        context = app.test_request_context("/page?a=1")
        context.push()
        contexts.append(context)
        for key in stored_keys(MANY):
            cache.set(key, scope["value"])
        for key in keys["numbers"].timed(0):
            cache.set(key, 1)
        for key in keys["dicts"].timed(0):
            cache.set(key, SMALL_DICT)
        context.pop()
        scope["context"] = context
        scopes[name] = scope

    cells: Cells = {}
    seconds = {}
    step = progress_bar(len(OPERATIONS) * rounds, "Flask")
    for operation, (statement, kind) in OPERATIONS.items():
        tasks = []
        for name, scope in scopes.items():
            tasks.append(Task(name, _within_request(statement, scope), keys[kind]))
        done = interleave(tasks, rounds=rounds, seconds_per_task=0.05, progress=step)
        cells[operation] = {name: ratio(task, done[BASELINE]) for name, task in done.items()}
        seconds[operation] = done[BASELINE].best

    operation = "set, new key, at the threshold"
    tasks = []
    for name in TYPES:
        app, cache = make(name, MANY)
        scope = _scope(app, cache, name)
        with app.app_context():
            for key in stored_keys(MANY + 1):
                cache.set(key, scope["value"])
        tasks.append(Task(name, _within_request("cache.set(key, value)", scope), FreshKeys(1_000)))
    done = interleave(tasks, rounds=rounds)
    cells[operation] = {name: ratio(task, done[BASELINE]) for name, task in done.items()}
    seconds[operation] = done[BASELINE].best
    return cells, seconds


def _scope(app: Flask, cache: Cache, name: str) -> dict[str, Any]:
    def page() -> str:
        return "a page of forty characters or thereabout"

    def named(number: int, text: str) -> str:
        return f"{number} {text}"

    view, function = cache.cached()(page), cache.memoize()(named)
    own_view: Any = view
    own_view_by_query: Any = cache.cached(key_prefix="by query/%s", query_string=True)(page)
    own_function: Any = function
    if name == OURS:
        own_view = cached_view(cache, query=False)(page)
        own_view_by_query = cached_view(cache)(page)
        own_function = memoize(cache)(named)

    return {
        "app": app,
        "cache": cache,
        "value": "a value of forty characters or thereabout",
        "small_dict": SMALL_DICT,
        "twenty": stored_keys(20),
        "view": view,
        "function": function,
        "own_view": own_view,
        "own_view_by_query": own_view_by_query,
        "own_function": own_function,
        "response_of": app.make_response,
    }


def _within_request(statement: str, scope: dict[str, Any]) -> Any:
    """The request's context costs the same for both and is entered once per pass."""
    loop = compile_loop(
        statement, {name: value for name, value in scope.items() if name not in ("app", "context")}
    )
    app: Flask = scope["app"]

    def run(keys: Sequence[str]) -> None:
        with app.test_request_context("/page?a=1"):
            loop(keys)

    return run


def run(rounds: int = 15) -> None:
    cells, seconds = measure(rounds)
    rows = []
    for name, ratios in cells.items():
        budget = BUDGETS.get(name)
        ours = ratios[OURS].inverse
        rows.append(
            (
                name,
                f"{seconds[name] * 1e6:.2f}",
                f"{ours} ×",
                "" if budget is None else f"≥ {budget:g} ×",
                "" if budget is None else report.verdict(ours.best, budget, at_least=True),
            )
        )
    body = f"""
## Flask

Against SimpleCache, both through Flask-Caching's own `Cache`, whose own cost is in both figures and bounds
the ratio; in the last rows but one our decorators beside those of Flask-Caching on SimpleCache. {ENTRIES:,}
keys are asked for, of {MANY:,} that are there; `CACHE_THRESHOLD` is far away unless "at the threshold";
`CACHE_DEFAULT_TIMEOUT` a day.

{report.table(("", "SimpleCache, µs", "QuickCache is faster", "budget", ""), rows)}
"""
    report.write_section("flask", body, "Flask", "Flask-Caching", "cachelib")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flask_table", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    given: Any = parser.parse_args(arguments)
    run(rounds=7 if given.quick else 15)


if __name__ == "__main__":
    main()
