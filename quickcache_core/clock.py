"""Time, as a parameter: tests pass `quickcache_core.testing.ManualClock` instead."""

from __future__ import annotations

import time
from typing import Final, Protocol


class Clock(Protocol):
    """Where a cache takes its time from.

    `monotonic` decides what has expired: seconds that never step back, whatever happens to the wall clock.
    `wall` is seconds since the epoch, used only for what outlives the process (snapshots).
    """

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...


class SystemClock:
    """The machine's clocks."""

    # Static built-ins, so that `clock.monotonic` costs no Python frame on the hit path.
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


SYSTEM_CLOCK: Final = SystemClock()
