"""What becomes of a caller: every combination of what is in the cache and what the loader does.

The same table is in docs/loading.md.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from quickcache_core import QuickCache
from quickcache_core.errors import LoaderTimeout
from quickcache_core.testing import ManualClock
from tests.core.loading_tools import (
    PATIENCE,
    Loader,
    at_rest,
    auntil,
    counters,
    flights,
    make_cache,
    pool,
    store_of,
    until,
)
from tests.shared.remote import Remote, Template

PAGE = Path(__file__).resolve().parents[2] / "docs" / "loading.md"
SHORT = 0.05
"""Seconds: a limit that is to be reached."""


class Row(NamedTuple):
    entry: str
    soft: str
    loader: str
    given: str
    stored: str
    goes_on: str
    """Whether the load goes on when the caller has its answer."""


TABLE = [
    Row("fresh", "any", "returns", "the cached value", "the cached value", "none is begun"),
    Row("fresh", "any", "returns None", "the cached value", "the cached value", "none is begun"),
    Row("fresh", "any", "raises", "the cached value", "the cached value", "none is begun"),
    Row("fresh", "any", "is slow", "the cached value", "the cached value", "none is begun"),
    Row("fresh", "any", "is too slow", "the cached value", "the cached value", "none is begun"),
    Row("fresh", "any", "dies", "the cached value", "the cached value", "none is begun"),
    Row("stale", "0", "returns", "the stale value", "the new value", "yes"),
    Row("stale", "0", "returns None", "the stale value", "None", "yes"),
    Row("stale", "0", "raises", "the stale value", "the stale value", "yes"),
    Row("stale", "0", "is slow", "the stale value", "the new value", "yes"),
    Row("stale", "0", "is too slow", "the stale value", "the new value", "yes"),
    Row("stale", "0", "dies", "the stale value", "the stale value", "by the next caller"),
    Row("stale", "above 0", "returns", "the new value", "the new value", "no"),
    Row("stale", "above 0", "returns None", "None", "None", "no"),
    Row("stale", "above 0", "raises", "the stale value", "the stale value", "no"),
    Row("stale", "above 0", "is slow", "the stale value", "the new value", "yes"),
    Row("stale", "above 0", "is too slow", "the stale value", "the new value", "yes"),
    Row("stale", "above 0", "dies", "the new value", "the new value", "no"),
    Row("missing", "any", "returns", "the new value", "the new value", "no"),
    Row("missing", "any", "returns None", "None", "None", "no"),
    Row("missing", "any", "raises", "the error", "nothing", "no"),
    Row("missing", "any", "is slow", "the new value", "the new value", "no"),
    Row("missing", "any", "is too slow", "LoaderTimeout", "the new value", "yes"),
    Row("missing", "any", "dies", "the new value", "the new value", "no"),
]
OLDER, NEW = "older", "new"
ERROR = OSError("the source is down")
GIVEN = {"the cached value": OLDER, "the stale value": OLDER, "the new value": NEW, "None": None}


def ask(cache: QuickCache, how: str, *arguments: Any, **options: Any) -> Any:
    """What the caller gets: a value, or an error."""
    try:
        if how == "sync":
            return cache.get_or_set(*arguments, **options)
        return asyncio.run(cache.aget_or_set(*arguments, **options))
    except (OSError, LoaderTimeout) as error:
        return error


def check_given(row: Row, answer: Any) -> None:
    if row.given == "the error":
        assert answer is ERROR
    elif row.given == "LoaderTimeout":
        assert type(answer) is LoaderTimeout
    else:
        assert answer == GIVEN[row.given]


def check_stored(row: Row, cache: QuickCache) -> None:
    found = store_of(cache).look("k")
    if row.stored == "nothing":
        assert found is None
        return
    assert found is not None
    assert found.stored == GIVEN[row.stored]
    assert found.is_fresh == (row.stored != "the stale value")


def limits(row: Row) -> dict[str, Any]:
    """`is slow`: longer than the soft limit; `is too slow`: longer than the hard one as well."""
    options: dict[str, Any] = {"stale_ttl": 1000.0, "hard_timeout": PATIENCE}
    if row.soft == "above 0":
        options["soft_timeout"] = SHORT if "slow" in row.loader else PATIENCE
    if row.loader == "is too slow":
        options["hard_timeout"] = SHORT
    return options


def prepare(row: Row, cache: QuickCache, clock: ManualClock) -> None:
    if row.entry != "missing":
        cache.set("k", OLDER, 10.0, stale_ttl=1000.0)
    if row.entry == "stale":
        clock.advance(11.0)


@pytest.mark.parametrize("kind", ["coroutine function", "plain function", "sync"])
@pytest.mark.parametrize("scope", ["memory", "shared"])
@pytest.mark.parametrize(
    "row", [row for row in TABLE if row.loader != "dies"], ids=lambda row: "-".join(row[:3])
)
def test_caller(row: Row, scope: str, kind: str, tmp_path: Path) -> None:
    """It gets, and the cache has afterwards, what the table says."""
    clock = ManualClock()
    cache = make_cache(scope, tmp_path, clock=clock)
    prepare(row, cache, clock)
    value: Any = {"returns None": None, "raises": ERROR}.get(row.loader, NEW)
    # A load that goes on is held until that was seen.
    gate = threading.Event()
    plain = Loader(value, gate=gate)
    waits_for_it = row.goes_on in ("no", "none is begun")

    async def load() -> Any:
        return await asyncio.to_thread(plain)

    loader = load if kind == "coroutine function" else plain
    with pool() as threads:
        if waits_for_it or kind == "sync":
            if row.loader != "is slow" and waits_for_it:
                gate.set()
            asked = threads.submit(
                ask, cache, "sync" if kind == "sync" else "async", "k", loader, 10.0, **limits(row)
            )
            if row.loader == "is slow" and row.goes_on == "no":
                assert plain.began.wait(PATIENCE)
                assert not asked.done()
                gate.set()
            check_given(row, asked.result(PATIENCE))
            is_under_way = len(flights(cache)) == 1
        else:
            is_under_way = asyncio.run(_goes_on(row, cache, loader, plain, gate))
        if row.goes_on == "yes":
            assert is_under_way
        gate.set()
        at_rest(cache)
    assert plain.calls == (0 if row.entry == "fresh" else 1)
    check_stored(row, cache)
    assert counters(cache).load_failures == (row.loader == "raises" and row.entry != "fresh")
    cache.stop()


async def _goes_on(row: Row, cache: QuickCache, loader: Any, plain: Loader, gate: threading.Event) -> bool:
    """In an event loop that stays until the load has ended."""
    try:
        check_given(row, await cache.aget_or_set("k", loader, 10.0, **limits(row)))
    except (OSError, LoaderTimeout) as error:
        check_given(row, error)
    await auntil(plain.began.is_set)
    is_under_way = len(flights(cache)) == 1
    gate.set()
    await auntil(lambda: len(flights(cache)) == 0)
    return is_under_way


# The process that loads is killed


@pytest.fixture(scope="module")
def template() -> Iterator[Template]:
    one = Template()
    yield one
    one.close()


@pytest.fixture
def victim(template: Template, tmp_path: Path) -> Iterator[Callable[[], Remote]]:
    started: list[Remote] = []

    def start() -> Remote:
        started.append(remote := Remote(template, tmp_path / "cache"))
        return remote

    yield start
    for remote in started:
        remote.close()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize(
    "row", [row for row in TABLE if row.loader == "dies"], ids=lambda row: "-".join(row[:2])
)
def test_process_dies(row: Row, how: str, victim: Callable[[], Remote], tmp_path: Path) -> None:
    """What callers in other processes get when the one that loads is killed."""
    cache = make_cache("shared", tmp_path)
    loading = victim()
    if row.entry != "missing":
        cache.set("k", OLDER, 0.001 if row.entry == "stale" else 1000.0, stale_ttl=1000.0)
    if row.entry == "stale":
        until(lambda: "k" not in cache)
    marker = tmp_path / "began"
    loading.ask("run", "tests.core.loading_processes:hang_in_a_load", "k", str(marker), how, limits(row))
    loader = Loader(NEW)
    if row.entry != "fresh":
        until(marker.exists, "the load didn't begin")
    with pool() as threads:
        asked = threads.submit(ask, cache, how, "k", loader, 1000.0, **limits(row))
        if row.goes_on != "no":
            check_given(row, asked.result(PATIENCE))
            at_rest(cache)
            loading.kill()
        else:
            until(lambda: len(flights(cache)) == 1)
            assert not asked.done()
            loading.kill()
            check_given(row, asked.result(PATIENCE))
    check_stored(row, cache)
    assert loader.calls == (row.goes_on == "no")
    if row.goes_on == "by the next caller":
        check_given(row, cache.get_or_set("k", loader, 1000.0, **limits(row)))
        until(lambda: cache.get("k", None) == NEW)
    cache.stop()


# The documentation


def test_table_of_the_documentation() -> None:
    """It is this one."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    header = next(n for n, line in enumerate(lines) if line.startswith("| entry | `soft_timeout` |"))
    shown = []
    for line in lines[header + 2 :]:
        if not line.startswith("|"):
            break
        shown.append(Row(*(cell.strip().replace("`", "") for cell in line.strip("|").split("|"))))
    assert shown == TABLE
