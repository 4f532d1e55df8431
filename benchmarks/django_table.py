"""Django's cache interface: QuickCache beside the backends that Django brings and that need no server."""

from __future__ import annotations

import argparse
import datetime as dt
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import Any

import django
from django.conf import settings

from benchmarks import report
from benchmarks.progress import progress_bar
from benchmarks.timing import Keys, Ratio, Task, compile_async_loop, compile_loop, interleave, ratio
from benchmarks.workload import FreshKeys, SameKeys, absent_keys, asked_keys, stored_keys

ENTRIES = 1_000
"""Keys that are asked for. Django's own bound is 300 unless one is given."""
MANY = 10_000
"""So many that the processor's caches don't hold them."""
TIMEOUT = 86_400
BASELINE = "LocMemCache"
OURS = "QuickCache"
FILES = "FileBasedCache"
FEW = 20
"""Entries of FileBasedCache and keys per round: its set lists the whole folder, which takes milliseconds."""

Cells = dict[str, dict[str, Ratio]]
"""Operation, backend, ratio to LocMemCache."""


class Article:
    """Stands for a model instance: an object of a class of one's own, with the values that models have."""

    def __init__(self, number: int) -> None:
        self.id = number
        self.title = f"Article {number}"
        self.slug = f"article-{number}"
        self.price = Decimal("19.90")
        self.published = dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)
        self.tags = ["cache", "django", "speed"]
        self.active = True
        self.views = 4711


SMALL_DICT = {"id": 7, "name": "Ada", "email": "ada@example.org", "active": True}


def page(request: Any) -> Any:
    from django.http import HttpResponse

    return HttpResponse("a page of forty characters or thereabout")


def configure(folder: str) -> None:
    def entry(backend: str, location: str, **options: Any) -> dict[str, Any]:
        # Room for everybody: LocMemCache culls a third of its entries whenever it is full.
        return {
            "BACKEND": backend,
            "LOCATION": location,
            "TIMEOUT": TIMEOUT,
            "OPTIONS": {"MAX_ENTRIES": 20 * MANY, **options},
        }

    locmem = "django.core.cache.backends.locmem.LocMemCache"
    quickcache = "quickcache_django.QuickCache"
    settings.configure(
        SECRET_KEY="benchmarks",
        USE_TZ=True,
        ALLOWED_HOSTS=["testserver"],
        CACHES={
            "default": entry(locmem, "roomy"),
            OURS: entry(quickcache, "roomy"),
            FILES: entry("django.core.cache.backends.filebased.FileBasedCache", folder),
            f"{BASELINE} full": entry(locmem, "full", MAX_ENTRIES=MANY),
            f"{OURS} full": entry(quickcache, "full", MAX_ENTRIES=MANY),
        },
    )
    django.setup()


@dataclass(frozen=True)
class Operation:
    name: str
    statement: str
    budget: float | None = None
    """How many times as fast as LocMemCache it shall be, in pure Python."""
    keys: str = "asked"
    """Which ones: a name in `measure`; "numbers", "dicts" and "objects" hold values of that kind."""
    asynchronous: bool = False
    files: bool = True
    """Whether FileBasedCache takes part."""


VIEW = "hit of a view: cached_view beside cache_page"

OPERATIONS = (
    Operation("get", "cache.get(key)", 5.5),
    Operation("get, any of 10,000", "cache.get(key)", keys="many", files=False),
    Operation("get, miss", "cache.get(key)", 7, keys="absent"),
    Operation("get of a small dict", "cache.get(key)", 5, keys="dicts"),
    Operation("get of a model-like object", "cache.get(key)", keys="objects"),
    Operation("get_many of 20", "cache.get_many(twenty)", 5, files=False),
    Operation("aget", "await cache.aget(key)", 100, asynchronous=True, files=False),
    Operation("has_key", "cache.has_key(key)"),
    Operation("set", "cache.set(key, value)", 3.5),
    Operation("set, any of 10,000", "cache.set(key, value)", keys="many", files=False),
    Operation("set of a small dict", "cache.set(key, small_dict)", keys="dicts"),
    Operation("set of a model-like object", "cache.set(key, article)", keys="objects"),
    Operation("set_many of 20", "cache.set_many(twenty_values)", files=False),
    Operation("add, not there", "cache.add(key, value)", keys="fresh"),
    Operation("add, there", "cache.add(key, value)"),
    Operation("touch", "cache.touch(key)"),
    Operation("incr", "cache.incr(key)", 4.5, keys="numbers"),
    Operation("set, then delete", "cache.set(key, value)\ncache.delete(key)", keys="fresh"),
    Operation(VIEW, "view(request)", files=False),
)


def measure(rounds: int) -> tuple[Cells, dict[str, float]]:
    """The ratios, and LocMemCache's seconds for each operation."""
    from django.core.cache import caches
    from django.test import RequestFactory
    from django.views.decorators.cache import cache_page

    from quickcache_django.decorators import cached_view

    request = RequestFactory().get("/page/?a=1")
    views = {
        BASELINE: cache_page(TIMEOUT, cache="default")(page),
        OURS: cached_view(TIMEOUT, alias=OURS)(page),
        FILES: None,
    }
    backends = {BASELINE: caches["default"], OURS: caches[OURS], FILES: caches[FILES]}
    keys: dict[str, Keys] = {
        "asked": SameKeys(asked_keys(ENTRIES)),
        "many": SameKeys(asked_keys(MANY)),
        "absent": SameKeys(absent_keys(ENTRIES)),
        "fresh": FreshKeys(1_000),
    }
    twenty = stored_keys(20)
    scope: dict[str, Any] = {
        "value": "a value of forty characters or thereabout",
        "small_dict": SMALL_DICT,
        "article": Article(1),
        "request": request,
        "twenty": twenty,
        "twenty_values": dict.fromkeys(twenty, "a value of forty characters or thereabout"),
    }
    for kind, values in (
        ("numbers", dict.fromkeys(range(1_000), 1)),
        ("dicts", {each: {**SMALL_DICT, "id": each} for each in range(1_000)}),
        ("objects", {each: Article(each) for each in range(1_000)}),
    ):
        named = {f"{kind}:{each}": value for each, value in values.items()}
        keys[kind] = SameKeys(list(named))
        for name, backend in backends.items():
            backend.set_many(dict(islice(named.items(), FEW)) if name == FILES else named)
    for name, backend in backends.items():
        for key in stored_keys(FEW if name == FILES else MANY):
            backend.set(key, scope["value"])

    cells: Cells = {}
    seconds = {}
    step = progress_bar(len(OPERATIONS) * rounds, "Django")
    for operation in OPERATIONS:
        compiled = compile_async_loop if operation.asynchronous else compile_loop
        tasks = []
        for name, backend in backends.items():
            loop = compiled(operation.statement, {"cache": backend, "view": views[name], **scope})
            if name != FILES:
                tasks.append(Task(name, loop, keys[operation.keys]))
            elif operation.files:
                few = SameKeys(stored_keys(FEW)) if operation.keys == "asked" else keys[operation.keys]
                tasks.append(Task(name, loop, few, limit=FEW))
        clock = time.perf_counter if operation.asynchronous else time.process_time
        done = interleave(tasks, rounds=rounds, seconds_per_task=0.05, clock=clock, progress=step)
        cells[operation.name] = {name: ratio(task, done[BASELINE]) for name, task in done.items()}
        seconds[operation.name] = done[BASELINE].best

    fresh = FreshKeys(2_000)
    name = "set, new key, full"
    tasks = []
    for backend_name in (BASELINE, OURS):
        backend = caches[f"{backend_name} full"]
        for key in stored_keys(MANY):
            backend.set(key, scope["value"])
        tasks.append(
            Task(backend_name, compile_loop("cache.set(key, value)", {"cache": backend, **scope}), fresh)
        )
    done = interleave(tasks, rounds=rounds)
    cells[name] = {each: ratio(task, done[BASELINE]) for each, task in done.items()}
    seconds[name] = done[BASELINE].best
    return cells, seconds


def run(rounds: int = 15) -> None:
    with tempfile.TemporaryDirectory() as folder:
        configure(folder)
        cells, seconds = measure(rounds)
    budgets = {operation.name: operation.budget for operation in OPERATIONS}
    rows = []
    for name, ratios in cells.items():
        budget = budgets.get(name)
        ours = ratios[OURS].inverse
        files = ratios.get(FILES)
        rows.append(
            (
                name,
                f"{seconds[name] * 1e6:.2f}",
                f"{ours} ×",
                "" if budget is None else f"≥ {budget} ×",
                "" if budget is None else report.verdict(ours.best, budget, at_least=True),
                "-" if files is None else f"{files.inverse} ×",
            )
        )
    head = (
        "",
        "LocMemCache, µs",
        "QuickCache is faster",
        "budget, pure Python",
        "",
        "FileBasedCache is faster",
    )
    body = f"""
## Django

Against LocMemCache. {ENTRIES:,} keys are asked for, of {MANY:,} that are there; `MAX_ENTRIES` is far away,
but for "full" (then a third of the entries leaves LocMemCache, and one leaves QuickCache); `TIMEOUT` a day.
With both, nobody can change a cached value by changing what a get returned. LocMemCache's `aget` goes
through a thread.

{report.table(head, rows)}
"""
    report.write_section("django", body, "Django")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.django_table", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    given: Any = parser.parse_args(arguments)
    run(rounds=7 if given.quick else 15)


if __name__ == "__main__":
    main()
