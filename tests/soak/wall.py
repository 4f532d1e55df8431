"""A wall clock that jumps, for all processes of a soak at once, while the machine's own stays as it is.

How far it is off is in a file that all of them have mapped. `time.time` of Python and the engine's clock both
go by it; the monotonic clock of Linux doesn't jump, whatever is done to the other.
"""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

VARIABLE = "QUICKCACHE_SOAK_WALL"
"""The file, for the processes that are started."""
_true_time = time.time


class Wall:
    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(descriptor, mmap.PAGESIZE)
        self._seconds = memoryview(mmap.mmap(descriptor, mmap.PAGESIZE)).cast("d")
        os.close(descriptor)

    @property
    def off(self) -> float:
        """Seconds by which it is ahead."""
        return float(self._seconds[0])

    @off.setter
    def off(self, seconds: float) -> None:
        self._seconds[0] = seconds

    def now(self) -> float:
        return _true_time() + self._seconds[0]


def enter() -> None:
    """From now on this process, and those it forks, go by the file, if one is named."""
    path = os.environ.get(VARIABLE)
    if path is None:
        return
    wall = Wall(Path(path))
    time.time = wall.now
    # Imported only now, and the clock itself, which took the function when it was made.
    from quickcache_core.clock import SystemClock

    SystemClock.wall = staticmethod(wall.now)  # type: ignore[assignment]
