"""Programs that tests of loads run in a process of their own.

python -m tests.core.loading_processes exit HOW          ends while a loader hangs
python -m tests.core.loading_processes greenlets WHEN SCOPE FOLDER
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any


def end_while_a_loader_hangs(how: str) -> None:
    from quickcache_core import NEVER, QuickCache, QuickCacheConfig
    from quickcache_core.errors import LoaderTimeout
    from quickcache_core.testing import ManualClock

    clock = ManualClock()
    cache = QuickCache(QuickCacheConfig(clock=clock, default_ttl=NEVER))
    began = threading.Event()

    def hang() -> None:
        began.set()
        threading.Event().wait()

    if how == "timeout":
        with contextlib.suppress(LoaderTimeout):
            cache.get_or_set("k", hang, hard_timeout=0.01)
    elif how == "task":

        async def main() -> None:
            with contextlib.suppress(LoaderTimeout):
                await cache.aget_or_set("k", hang, hard_timeout=0.01)

        asyncio.run(main())
    else:
        cache.set("k", "older", 1, stale_ttl=100)
        clock.advance(2)
        assert cache.get_or_set("k", hang, stale_ttl=100) == "older"
    assert began.wait(10)
    if how == "keep":
        # Something that loads at the very end.
        import atexit

        atexit.register(lambda: cache.get_or_set("last", lambda: 1))
    print("end", flush=True)


def load_in_greenlets(when: str, scope: str, folder: str) -> None:
    if when == "patched first":
        _patch()
    import gevent

    from quickcache_core import QuickCache
    from tests.core.loading_tools import make_cache

    cache: QuickCache = make_cache(scope, Path(folder) / when.replace(" ", ""))
    cache.set("warm", 1)
    if when != "patched first":
        _patch()
    calls: list[str] = []

    def load() -> Any:
        calls.append("")
        gevent.sleep(0.2)
        return "value"

    jobs = [gevent.spawn(cache.get_or_set, "k", load) for _ in range(50)]
    gevent.joinall(jobs, timeout=20)
    values = [job.value for job in jobs if job.value == "value"]
    print(f"{len(calls)} load, {len(values)} values", flush=True)
    calls.clear()
    jobs = [gevent.spawn(cache.get_or_set, "limited", load, hard_timeout=10) for _ in range(50)]
    gevent.joinall(jobs, timeout=20)
    assert {job.value for job in jobs} == {"value"}, [job.exception for job in jobs]
    print(f"{len(calls)} load within the limit", flush=True)


def hang_in_a_load(cache: Any, key: str, marker: str, how: str, options: dict[str, Any]) -> Any:
    """Load a key until killed; the marker is a file that is there once the loader runs."""

    file = Path(marker)

    def load() -> None:
        file.touch()
        threading.Event().wait()

    async def aload() -> None:
        file.touch()  # noqa: ASYNC240 - in a process that is about to be killed
        await asyncio.Event().wait()

    async def main() -> Any:
        await cache.aget_or_set(key, aload, **options)
        # A load in the background lives as long as its event loop.
        await asyncio.Event().wait()

    if how == "async":
        return asyncio.run(main())
    return cache.get_or_set(key, load, **options)


def ask_in_threads(cache: Any, key: str, tally: str, threads: int, gate: str, tags: list[str]) -> list[Any]:
    """What so many threads get; the loader leaves a mark and waits for the gate, a file."""
    barrier = threading.Barrier(threads)

    def load() -> Any:
        with Path(tally).open("a") as file:
            file.write(f"{os.getpid()}\n")
        while not Path(gate).exists():
            time.sleep(0.002)
        return "value"

    def ask(_: int) -> Any:
        barrier.wait(30)
        return cache.get_or_set(key, load, tags=tags)

    with ThreadPoolExecutor(threads) as executor:
        return list(executor.map(ask, range(threads)))


def load_value(cache: Any, key: str, value: Any, options: dict[str, Any]) -> list[Any]:
    """What the caller gets, and how often the loader ran."""
    calls: list[int] = []

    def load() -> Any:
        calls.append(1)
        return value

    return [cache.get_or_set(key, load, **options), len(calls)]


def leases_held(cache: Any) -> int:
    """Locks that this process has on the file of the leases."""
    descriptor = cache._bottom._connection.leases.descriptor
    inode = os.fstat(descriptor).st_ino
    lines = Path("/proc/locks").read_text().splitlines()
    return sum(f":{inode} " in line and line.split()[4] == str(os.getpid()) for line in lines)


def _patch() -> None:
    from gevent import monkey

    monkey.patch_all()


if __name__ == "__main__":
    if sys.argv[1] == "exit":
        end_while_a_loader_hangs(sys.argv[2])
    else:
        load_in_greenlets(*sys.argv[2:5])
