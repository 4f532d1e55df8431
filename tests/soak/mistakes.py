"""What would be wrong, put into a worker of a soak: each has to be found out."""

from __future__ import annotations

import os
import threading
from typing import Any

from quickcache_core import QuickCache

LEAKS = ("leak-threads", "leak-files", "leak-memory")
WRONG = ("forgets", "outdated")
MISTAKES = (*LEAKS, *WRONG)


class Leak:
    """Something is kept from each round."""

    def __init__(self, mistake: str) -> None:
        self._mistake = mistake
        self._kept: list[Any] = []

    def grow(self) -> None:
        if self._mistake == "leak-files":
            self._kept.append([os.open(os.devnull, os.O_RDONLY) for _ in range(2)])
        elif self._mistake == "leak-threads":
            for _ in range(2):
                threading.Thread(target=threading.Event().wait, daemon=True).start()
        elif self._mistake == "leak-memory":
            self._kept.append(b"x" * 6_000_000)


def spoil(cache: QuickCache, mistake: str) -> QuickCache:
    """Now and then one that has a value misses it, or gives the one before."""
    if mistake not in WRONG:
        return cache
    get, put = cache.get, cache.set
    before: dict[str, Any] = {}
    current: dict[str, Any] = {}
    calls = iter(range(1 << 60))

    def wrong_set(key: str, value: Any, *arguments: Any, **options: Any) -> Any:
        before[key], current[key] = current.get(key, value), value
        return put(key, value, *arguments, **options)

    def wrong_get(key: str, *default: Any) -> Any:
        if next(calls) % 50 == 0 and default and key in current:
            return default[0] if mistake == "forgets" else before[key]
        return get(key, *default)

    cache.set = wrong_set  # type: ignore[method-assign]
    cache.get = wrong_get  # type: ignore[method-assign]
    return cache
