"""Tells a hit from a miss without asking the cache: on a hit the body of the cached function isn't run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

from flask import g


@dataclass
class Measurement:
    name: str
    outcome: str = "hit"
    ms: float = 0.0


@contextmanager
def measured(name: str) -> Iterator[Measurement]:
    """Times the block; `missed` called in it turns the hit into a miss. Blocks must not be nested."""
    measurement = Measurement(name)
    g.setdefault("measurements", []).append(measurement)
    started = perf_counter()
    yield measurement
    measurement.ms = (perf_counter() - started) * 1000


def missed() -> None:
    """The first line of each cached function."""
    g.measurements[-1].outcome = "miss"


def measurements() -> list[Measurement]:
    """Those of the current request."""
    found: list[Measurement] = g.get("measurements", [])
    return found


def server_timing() -> str:
    """As the value of a `Server-Timing` header, which the browser's network panel draws."""
    return ", ".join(f"{m.name};desc={m.outcome};dur={m.ms:.3f}" for m in measurements())
