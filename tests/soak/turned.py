"""A cache by a clock that is turned by hand, next to a plain dictionary that says what it must answer."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

from quickcache_core import NEVER, QuickCache, QuickCacheConfig
from quickcache_core.errors import CacheSaveError
from quickcache_core.testing import ManualClock

KEYS = 40
_TTLS = (NEVER, NEVER, 0.5, 60.0, 3600.0, 86_400.0)
_LEAPS = (0.25, 1.0, 59.0, 3600.0, 86_400.0, 10.0 * 365.0 * 86_400.0)
"""Seconds that pass at once, as for a process that was stopped."""
_STEPS = (-365.0 * 86_400.0, -3600.0, -1.0, 1.0, 3600.0, 365.0 * 86_400.0)
"""Seconds by which the wall clock is set."""
_YEAR_3000 = 32.5e9
"""Seconds since the epoch; dates end with the year 9999."""
_FOREVER = float("inf")
_NOTHING = object()


class TurnedCache:
    """One thread: all that it is to answer is known."""

    def __init__(self, chance: random.Random, snapshot: Path) -> None:
        self.random = chance
        self.snapshot = snapshot
        self.clock = ManualClock()
        self.cache = QuickCache(QuickCacheConfig(clock=self.clock, max_size=1000))
        self.model: dict[str, tuple[int, float]] = {}
        """Values, and when they end."""
        self.found: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.number = 0

    def use(self, steps: int) -> list[dict[str, Any]]:
        """What was wrong."""
        if self.clock.wall() > _YEAR_3000:
            self.clock.step_wall(-_YEAR_3000 / 2)
        for _ in range(steps):
            self.step()
        self.check_size()
        self.save_and_load()
        found, self.found = self.found, []
        return found

    def step(self) -> None:
        self.counts["operations"] += 1
        key, chance = f"k{self.random.randrange(KEYS)}", self.random.random()
        if chance < 0.45:
            self.check(self.cache, key, self.model.get(key), self.clock.monotonic())
        elif chance < 0.8:
            self.number += 1
            ttl = self.random.choice(_TTLS)
            self.cache.set(key, self.number, ttl)
            self.model[key] = (self.number, self.end(ttl))
        elif chance < 0.85:
            self.cache.delete(key, missing_ok=True)
            self.model.pop(key, None)
        elif chance < 0.9:
            ttl = self.random.choice(_TTLS)
            if self.cache.touch(key, ttl, missing_ok=True):
                self.model[key] = (self.model[key][0], self.end(ttl))
        elif chance < 0.95:
            self.counts["clock jumps"] += 1
            self.clock.advance(self.random.choice(_LEAPS))
        else:
            self.counts["clock jumps"] += 1
            self.clock.step_wall(self.random.choice(_STEPS))

    def end(self, ttl: Any) -> float:
        return _FOREVER if ttl is NEVER else self.clock.monotonic() + ttl

    def check(self, cache: QuickCache, key: str, expected: tuple[int, float] | None, now: float) -> None:
        value = cache.get(key, _NOTHING)
        wanted = _NOTHING if expected is None or expected[1] <= now else expected[0]
        if value is wanted or value == wanted:
            return
        kind = "lost" if value is _NOTHING else "wrong"
        what = f"{key} by a clock turned by hand: {value!r} at {now}, expected {expected}"
        self.found.append({"kind": kind, "what": what})

    def check_size(self) -> None:
        now = self.clock.monotonic()
        live = sum(end > now for _, end in self.model.values())
        if self.cache.valid_size() != live:
            self.found.append({"kind": "wrong", "what": f"{self.cache.valid_size()} are live, not {live}"})

    def save_and_load(self) -> None:
        """Ends in a snapshot go by the wall clock: by as much as it is set forward time has passed."""
        saved, now = dict(self.model), self.clock.monotonic()
        try:
            self.cache.save_to_disk(self.snapshot)
        except CacheSaveError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            self.counts["failed saves"] += 1
            return
        step = self.random.choice(_STEPS)
        self.clock.step_wall(step)
        self.counts["clock jumps"] += 1
        with QuickCache(QuickCacheConfig(clock=self.clock, max_size=1000)) as other:
            other.load_from_disk(self.snapshot)
            for n in range(KEYS):
                key = f"k{n}"
                expected = saved.get(key)
                if expected is not None and expected[1] <= now:
                    # It had ended, and was not saved.
                    expected = None
                self.counts["operations"] += 1
                self.check(other, key, expected, now + step)
