"""Time that stands still until a test moves it."""

from __future__ import annotations


class ManualClock:
    """Pass it as `QuickCacheConfig(clock=...)`, then `advance` it instead of sleeping.

    Seconds throughout. The monotonic clock only goes forward; the wall clock can be stepped on its own, as
    when an administrator or a time server sets it.
    """

    def __init__(self, monotonic: float = 1_000.0, wall: float = 1_700_000_000.0) -> None:
        if monotonic < 0.0:
            raise ValueError(f"monotonic={monotonic!r}: give seconds, at least 0; no real clock starts below")
        self._monotonic = float(monotonic)
        self._wall = float(wall)

    def __repr__(self) -> str:
        return f"ManualClock(monotonic={self._monotonic!r}, wall={self._wall!r})"

    def monotonic(self) -> float:
        return self._monotonic

    def wall(self) -> float:
        return self._wall

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks. Raises `ValueError` for less than 0."""
        if not seconds >= 0.0:
            raise ValueError(f"seconds={seconds!r}: time only goes forward; step_wall() sets the wall clock")
        self._monotonic += seconds
        self._wall += seconds

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward, or back with less than 0. No time passes."""
        self._wall += seconds
