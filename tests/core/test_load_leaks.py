"""Loads that fail, take too long or are cancelled leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import QuickCache
from quickcache_core.errors import LoaderTimeout
from quickcache_core.loading import filler, single_flight
from quickcache_core.loading.background import background
from tests.core.loading_processes import leases_held
from tests.core.loading_tools import PATIENCE, at_rest, flights, make_cache, pool, short_idling, until

pytestmark = pytest.mark.slow

LOADS = 10_000
KEYS = 40
OPTIONS: list[dict[str, Any]] = [
    {},
    {},
    {"hard_timeout": 0.0005},
    {"hard_timeout": PATIENCE},
    {"stale_ttl": 100.0},
    {"stale_ttl": 100.0, "soft_timeout": 0.0005},
    {"stale_ttl": 100.0, "soft_timeout": PATIENCE, "retry_after": 0},
    {"single_flight": False},
    {"refresh_ahead": 0.01, "tags": ("tag",)},
    {"skip_none": True, "lease": 0.001},
]


@pytest.fixture(autouse=True)
def _no_idle_threads() -> Iterator[None]:
    with short_idling():
        yield


class Chaos:
    """Loads with any options and any outcome, and changes of the keys meanwhile."""

    def __init__(self, cache: QuickCache, seed: int) -> None:
        self.cache = cache
        self.chance = random.Random(seed)
        self.outcomes: dict[str, int] = {}

    def key(self) -> str:
        return f"k{self.chance.randrange(KEYS)}"

    def load(self) -> Any:
        chance = self.chance.random()
        if chance < 0.2:
            raise OSError("the source is down")
        if chance < 0.22:
            raise asyncio.CancelledError
        if chance < 0.3:
            threading.Event().wait(0.002)
        if chance < 0.4:
            return self.cache.get_or_set(self.key(), lambda: "nested")
        return None if chance < 0.5 else "value"

    async def aload(self) -> Any:
        chance = self.chance.random()
        if chance < 0.2:
            raise OSError("the source is down")
        if chance < 0.22:
            raise asyncio.CancelledError
        if chance < 0.3:
            await asyncio.sleep(0.002)
        if chance < 0.4:
            return await self.cache.aget_or_set(self.key(), lambda: "nested")
        return None if chance < 0.5 else "value"

    def note(self, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def disturb(self) -> None:
        chance = self.chance.random()
        if chance < 0.5:
            self.cache.delete(self.key(), missing_ok=True)
        elif chance < 0.52:
            self.cache.clear()
        elif chance < 0.55:
            self.cache.invalidate_tags("tag")

    def run(self, times: int) -> None:
        for _ in range(times):
            self.disturb()
            options = self.chance.choice(OPTIONS)
            call = self.cache.refresh if self.chance.random() < 0.1 else self.cache.get_or_set
            try:
                call(self.key(), self.load, 0.005, **options)
            except (OSError, LoaderTimeout, asyncio.CancelledError) as error:
                self.note(type(error).__name__)
            else:
                self.note("value")

    async def arun(self, times: int) -> None:
        async def one() -> None:
            self.disturb()
            options = self.chance.choice(OPTIONS)
            loader = self.chance.choice([self.load, self.aload])
            task = asyncio.ensure_future(self.cache.aget_or_set(self.key(), loader, 0.005, **options))
            if self.chance.random() < 0.2:
                for _ in range(self.chance.randrange(3)):
                    await asyncio.sleep(0)
                task.cancel()
            try:
                await task
            except (OSError, LoaderTimeout, asyncio.CancelledError) as error:
                self.note(type(error).__name__)
            else:
                self.note("value")

        for _ in range(times // 20):
            await asyncio.gather(*(one() for _ in range(20)))


def descriptors(cache: QuickCache) -> Counter[str]:
    """What those lead to that this cache may have: to its files, or to none."""
    folder = cache.config.location.removeprefix("shared://") or "no such folder"
    found: Counter[str] = Counter()
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of this very look
            path = str(one.readlink())
            # Figures are published when it is time for that.
            if not path.startswith("/") or (path.startswith(folder) and not path.endswith("stats.bin")):
                found[path] += 1
    return found


def held(cache: QuickCache) -> dict[str, Any]:
    """What loads could leave behind."""
    return {
        "flights": len(flights(cache)),
        "tasks": sum(map(len, filler._tasks.values())),
        "threads": sum(one.name != "quickcache-maintenance" for one in threading.enumerate()),
        "background threads": background.thread_count,
        "work": len(background._work),
        "leases": leases_held(cache) if cache.config.location else 0,
        "objects": sum(type(one) is single_flight.Flight for one in gc.get_objects()),
    }


def warm(cache: QuickCache) -> dict[str, Any]:
    cache.set("warm", 1)
    cache.get("warm")
    cache.publish()
    until(lambda: background.thread_count == 0)
    gc.collect()
    return {**held(cache), "descriptors": descriptors(cache)}


def check(cache: QuickCache, before: dict[str, Any]) -> None:
    at_rest(cache)
    until(lambda: background.thread_count == 0)
    names = {"quickcache-loader"}
    until(lambda: not any(one.name in names for one in threading.enumerate()))
    gc.collect()
    # Caches of other tests may open and close theirs meanwhile.
    more = descriptors(cache) - before.pop("descriptors")
    own = cache.config.location.removeprefix("shared://") or "none"
    assert not [path for path in more if "pytest-of-" not in path or path.startswith(own)]
    after = held(cache)
    # A thread that some other test began may end meanwhile.
    assert after.pop("threads") <= before.pop("threads")
    assert after == before
    loads = getattr(getattr(cache._bottom, "_population", None), "loads", {})
    assert not loads


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="this system doesn't tell of locks")
@pytest.mark.parametrize("scope", ["memory", "shared"])
def test_loads_in_threads(scope: str, tmp_path: Path) -> None:
    """No thread, flight, lease or descriptor is left after 10,000 loads of any outcome."""
    cache = make_cache(scope, tmp_path)
    before = warm(cache)
    chaos = [Chaos(cache, seed) for seed in range(8)]
    with pool() as threads:
        for one in [threads.submit(one.run, LOADS // 8) for one in chaos]:
            one.result(120.0)
    check(cache, before)
    seen = {outcome for one in chaos for outcome in one.outcomes}
    assert seen == {"value", "OSError", "LoaderTimeout", "CancelledError"}
    cache.stop()


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="this system doesn't tell of locks")
@pytest.mark.parametrize("scope", ["memory", "shared"])
def test_loads_in_tasks(scope: str, tmp_path: Path) -> None:
    """The same for tasks, some of which are cancelled, in event loops that come and go."""
    cache = make_cache(scope, tmp_path)
    before = warm(cache)
    chaos = [Chaos(cache, seed) for seed in range(10)]
    for one in chaos:
        asyncio.run(one.arun(LOADS // 10))
    # What a loop leaves is dropped when another one comes.
    check(cache, before)
    seen = {outcome for one in chaos for outcome in one.outcomes}
    assert seen == {"value", "OSError", "LoaderTimeout", "CancelledError"}
    cache.stop()
