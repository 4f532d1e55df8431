"""Tells a hit from a miss without asking the cache: what needed no query came from the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from django.db import connection


@dataclass
class Measurement:
    name: str
    outcome: str = "hit"
    ms: float = 0.0


@contextmanager
def measured(name: str) -> Iterator[Measurement]:
    """Times the block; the first query in it turns the hit into a miss."""
    measurement = Measurement(name)

    def count(execute: Callable[..., Any], *args: Any) -> Any:
        measurement.outcome = "miss"
        return execute(*args)

    started = perf_counter()
    with connection.execute_wrapper(count):
        yield measurement
    measurement.ms = (perf_counter() - started) * 1000


def server_timing(measurements: Iterable[Measurement]) -> str:
    """As the value of a `Server-Timing` header, which the browser's network panel draws."""
    return ", ".join(f"{m.name};desc={m.outcome};dur={m.ms:.3f}" for m in measurements)
