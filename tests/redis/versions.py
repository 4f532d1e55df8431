"""Finds outdated answers of caches in scope `redis`: processes and threads change a source of versions, tell
each other, and look at what their caches say.

The source, and what was announced of it, is in another server: for each name the version that counts. Whoever
changes the source makes the next version, then removes the cached value in one of the ways that there are,
and announces the version. Whoever reads the cache looks first at what was announced, waits for `BOUND`, and
must not get an older version.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import redis

from quickcache_core import QuickCache, QuickCacheConfig
from quickcache_core.store.redis import known, loads, near, reading, table

BOUND = 0.05
"""Seconds. By far longer than it takes to hear of a change; what a wrong protocol leaves behind stays."""
KEYS = 6
THREADS = 4
_RAISE = """
local v = tonumber(redis.call('GET', KEYS[1]) or '0')
if tonumber(ARGV[1]) > v then redis.call('SET', KEYS[1], ARGV[1]) end
"""


class Worker:
    """One thread."""

    def __init__(self, cache: QuickCache, source: redis.Redis, seed: int) -> None:
        self.cache = cache
        self.source = source
        self.random = random.Random(seed)
        self.violations: list[tuple[str, int, int]] = []
        self.checks = 0

    def announced(self, name: str) -> int:
        version = int(self.source.get(f"announced:{name}") or 0)  # type: ignore[arg-type]
        time.sleep(BOUND)
        return version

    def load(self, name: str) -> int:
        version = int(self.source.get(f"source:{name}") or 0)  # type: ignore[arg-type]
        time.sleep(self.random.random() * 0.02)
        return version

    def change(self, name: str, remove: Callable[[], Any]) -> None:
        version = self.source.incr(f"source:{name}")
        remove()
        self.source.eval(_RAISE, 1, f"announced:{name}", version)  # type: ignore[no-untyped-call]

    def check(self, name: str, announced: int, version: int | None) -> None:
        self.checks += 1
        if version is not None and version < announced:
            self.violations.append((name, version, announced))

    def step(self) -> None:
        key = f"k{self.random.randrange(KEYS)}"
        self.random.choice((self.plain, self.plain, self.plain, self.tagged, self.spaced))(key)

    def plain(self, key: str) -> None:
        cache = self.cache
        match self.random.randrange(8):
            case 0:
                self.change(key, lambda: cache.delete(key, missing_ok=True))
            case 1:
                self.change(key, lambda: cache.delete_many([key, "nothing"]))
            case 2 if self.random.random() < 0.2:
                cache.clear()
            case 3 | 4:
                self.check(key, self.announced(key), cache.get(key, None))
            case 5:
                self.check(key, self.announced(key), cache.get_many([key]).get(key))
            case _:
                ttl = self.random.choice((0.3, 5, 60))
                self.check(key, self.announced(key), cache.get_or_set(key, lambda: self.load(key), ttl))

    def tagged(self, key: str) -> None:
        name = f"tagged:{key}"
        if self.random.random() < 0.3:
            self.change(name, lambda: self.cache.invalidate_tags(f"tag:{key}"))
            return
        announced, tags = self.announced(name), [f"tag:{key}", "other"]
        self.check(name, announced, self.cache.get_or_set(name, lambda: self.load(name), 60, tags=tags))

    def spaced(self, key: str) -> None:
        name = f"spaced:{key}"
        space = self.cache.namespace(key)
        if self.random.random() < 0.2:
            self.change(name, space.clear)
            return
        self.check(name, self.announced(name), space.get_or_set("a", lambda: self.load(name), 60))


def break_protocol(how: str) -> None:
    """From now on this process goes by a protocol that is wrong."""
    everything: dict[str, Callable[[], None]] = {
        "": lambda: None,
        "any load is stored": _store_any_load,
        "tags are not looked at": _ignore_tags,
        "the generation is asked for once": _keep_generation,
        "labels are from after the read": _label_late,
    }
    everything[how]()


def _store_any_load() -> None:
    def put_load(self: Any, load: Any, record: bytes, px: int | None) -> bool:
        self.put(load.name[self._tail_at :], record, px)
        return True

    table.Table.put_load = put_load  # type: ignore[method-assign]


def _ignore_tags() -> None:
    reading.Reading._with_tags = lambda self, tail, read: read  # type: ignore[method-assign]
    loads.Loads._are_invalidated = lambda self, tags, born: False  # type: ignore[method-assign]


def _keep_generation() -> None:
    right = known.Known.generation

    def generation(self: Any, label: int) -> tuple[bytes, bool]:
        return (self._generation[0], True) if self._generation else right(self, label)

    known.Known.generation = generation  # type: ignore[method-assign]


def _label_late() -> None:
    right = near.TrackedNear.label

    def label(self: Any) -> int:
        return right(self) + 1_000_000 if right(self) else 0

    near.TrackedNear.label = label  # type: ignore[method-assign]


def work(url: str, source_url: str, seed: int, seconds: float, near_size: int, how: str) -> None:
    """Prints what was found, as JSON."""
    break_protocol(how)
    cache = QuickCache(QuickCacheConfig(location=url, near_size=near_size))
    workers = [
        Worker(cache, redis.Redis.from_url(source_url, protocol=2), seed * 100 + number)
        for number in range(THREADS)
    ]
    end = time.monotonic() + seconds

    def run(worker: Worker) -> None:
        while time.monotonic() < end:
            worker.step()

    threads = [threading.Thread(target=run, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [violation for worker in workers for violation in worker.violations]
    errors = cache.metrics().store_errors
    print(json.dumps({"violations": found, "checks": sum(one.checks for one in workers), "errors": errors}))


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
