"""How writes reach the source."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from quickcache_core import checks
from quickcache_core.errors import ConfigError

Writes = Literal["through", "behind", "around"]
STRATEGIES: Final = ("through", "behind", "around")


@dataclass(frozen=True, slots=True)
class WriteFailure:
    """What `on_error` is told."""

    error: Exception
    keys: Sequence[str]
    """Those that were not written."""
    is_final: bool
    """Whether they became dead letters; else they are tried again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BehindOptions:
    """Of writes behind. Each is checked: `ConfigError`."""

    max_batch: int = 100
    """Writes that the source gets at once, at least 1."""
    max_delay: float = 1.0
    """Seconds that a write waits for others to be written with, above 0."""
    max_pending: int = 10_000
    """Writes that may wait, dead letters included; at least 1. Then a write waits for room."""
    patience: float = 5.0
    """Seconds that it does so before `QueueFull` is raised; 0 for not at all."""
    first_retry: float = 0.1
    """Seconds before a failed write is tried again; they double with each failure."""
    longest_retry: float = 30.0
    """Seconds between two tries, at most."""
    attempts: int = 5
    """Times that a write may fail alone, while the source takes others, before it becomes a dead letter."""
    close_timeout: float = 10.0
    """Seconds that `close`, and the end of the program, take at most for what is pending."""
    queue: Any = None
    """`memory`, or `durable` for a file in the directory of a cache in scope `shared`, or the absolute path
    of a file. None: `durable` in scope `shared`, else `memory`.
    """
    queue_name: str | None = None
    """What tells this source from others in a durable queue. None: its attribute `name`, else its class."""
    on_error: Callable[[WriteFailure], object] | None = None
    """Called for each failure, in the thread that writes."""

    def __post_init__(self) -> None:
        checks.integer("max_batch", self.max_batch, 1, 1_000_000)
        checks.number("max_delay", self.max_delay, "seconds", 0.001, 86_400)
        checks.integer("max_pending", self.max_pending, 1, 1 << 40)
        checks.number("patience", self.patience, "seconds", 0, 86_400)
        checks.number("first_retry", self.first_retry, "seconds", 0.001, 86_400)
        checks.number("longest_retry", self.longest_retry, "seconds", self.first_retry, 86_400)
        checks.integer("attempts", self.attempts, 1, 1_000_000)
        checks.number("close_timeout", self.close_timeout, "seconds", 0, 86_400)
        if self.queue_name is not None:
            checks.name("queue_name", self.queue_name)
        if self.on_error is not None and not callable(self.on_error):
            raise ConfigError("on_error", self.on_error, "give a function that takes a WriteFailure, or None")

    def path(self, scope: str, directory: str) -> Path | None:
        """Of the queue's file; None for a queue in memory. `directory`: that of a cache in scope `shared`."""
        queue = self.queue
        if queue is None:
            queue = "durable" if scope == "shared" else "memory"
        if queue == "memory":
            if scope != "memory":
                remedy = (
                    "leave it out, or use 'durable'"
                    if scope == "shared"
                    else "give the absolute path of a file for the processes of one host, or write through"
                )
                raise ConfigError(
                    "queue",
                    queue,
                    "other processes share this cache, can't see what is pending in the memory of this "
                    f"one, and would load older values; {remedy}",
                )
            return None
        if queue == "durable":
            if scope != "shared":
                raise ConfigError(
                    "queue",
                    queue,
                    f"a cache in scope {scope} has no directory; give the absolute path of a file",
                )
            return Path(directory) / "writes.sqlite"
        if not isinstance(queue, str | os.PathLike) or not Path(queue).is_absolute():
            raise ConfigError("queue", queue, "give 'memory', 'durable' or the absolute path of a file")
        return Path(queue)


BEHIND: Final = frozenset(one.name for one in dataclasses.fields(BehindOptions))


def split(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those of writes behind, and the others."""
    return (
        {name: value for name, value in options.items() if name in BEHIND},
        {name: value for name, value in options.items() if name not in BEHIND},
    )
