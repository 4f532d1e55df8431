"""What the tests of loads have in common."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quickcache_core import NEVER, QuickCache, QuickCacheConfig
from quickcache_core.loading.background import background
from quickcache_core.loading.single_flight import SingleFlight, flights_of
from quickcache_core.metrics.counters import Counters
from quickcache_core.store.base import Store

PATIENCE = 30.0
"""Seconds after which something hangs."""
MAP = 4_000_000
"""Bytes; small files are made fast."""


def make_cache(scope: str, folder: Path, **settings: Any) -> QuickCache:
    settings = {"default_ttl": NEVER, **settings}
    if scope == "shared":
        settings = {"location": f"shared://{folder / 'cache'}", "max_bytes": MAP, **settings}
    return QuickCache(QuickCacheConfig(**settings))


def store_of(cache: QuickCache) -> Store:
    return cache._store


def flights(cache: QuickCache) -> SingleFlight:
    return flights_of(cache._bottom)


def counters(cache: QuickCache) -> Counters:
    return cache._store.counters


def until(condition: Callable[[], object], why: str = "it never came true") -> None:
    """Wait for what another thread is about to do."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, why
        time.sleep(0.001)


def at_rest(cache: QuickCache) -> None:
    """Wait until no load of the cache is under way."""
    until(lambda: len(flights(cache)) == 0, "a flight never ended")


class Loader:
    """Gives these values one after the other, the last one for ever; raises the errors among them.

    With a `gate` it waits for `gate.set()`, once it has set `began`.
    """

    def __init__(self, *values: Any, gate: threading.Event | None = None) -> None:
        self.values = values
        self.gate = gate
        self.began = threading.Event()
        self.calls = 0
        self._lock = threading.Lock()

    def __call__(self) -> Any:
        with self._lock:
            self.calls += 1
            value = self.values[min(self.calls, len(self.values)) - 1]
        self.began.set()
        if self.gate is not None:
            assert self.gate.wait(PATIENCE), "the gate stayed shut"
        if isinstance(value, BaseException):
            raise value
        return value


@contextmanager
def pool(threads: int = 64) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(threads) as executor:
        yield executor


@contextmanager
def short_idling() -> Iterator[None]:
    """Threads of the background end as soon as they have nothing to do."""
    usual, background._patience = background._patience, 0.0
    # Those that wait already were told another time.
    with background._ready:
        background._ready.notify_all()
    try:
        yield
    finally:
        background._patience = usual


async def auntil(condition: Callable[[], object], why: str = "it never came true") -> None:
    """As `until`, for a task."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, why
        await asyncio.sleep(0.0005)
