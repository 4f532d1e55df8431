"""How everything here is timed.

Noise on a shared machine only ever adds time, and it comes in bursts. So each contender runs once per round,
the rounds rotate who goes first, and what is reported is a contender's fastest round over the baseline's
fastest round; the median of the ratios within a round stands beside it wherever the two disagree.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Loop = Callable[[Sequence[str]], Any]

MIN_ROUNDS = 7
NOISE = 0.10
"""A median this much above the minimum is shown beside it."""


def compile_loop(statement: str, scope: Mapping[str, object]) -> Loop:
    """`for key in keys: <statement>`, with every name of `scope` a local of the loop.

    Compiled anew for each contender: CPython specialises the byte code of a function for the types that pass
    through it, so contenders that shared one loop would slow each other down.
    """
    return _compile("def", statement, scope)


def compile_async_loop(statement: str, scope: Mapping[str, object]) -> Loop:
    """As `compile_loop`, for a statement that awaits. The event loop starts once per pass over the keys."""
    coroutine_function = _compile("async def", statement, scope)
    return lambda keys: asyncio.run(coroutine_function(keys))


def _compile(define: str, statement: str, scope: Mapping[str, object]) -> Loop:
    parameters = "".join(f", {name}={name}" for name in scope)
    body = textwrap.indent(textwrap.dedent(statement).strip(), " " * 8)
    namespace = dict(scope)
    exec(f"{define} loop(keys{parameters}):\n    for key in keys:\n{body}\n", namespace)
    loop: Loop = namespace["loop"]  # type: ignore[assignment]
    return loop


class Keys(Protocol):
    """The keys of each round. Making them is not timed."""

    def timed(self, number: int) -> Sequence[str]:
        """What the timed pass of a round uses; -1 is the pilot."""

    def warm_up(self, number: int) -> Sequence[str]:
        """What the pass before it uses."""


@dataclass
class Task:
    """One contender doing one operation, over and over."""

    name: str
    loop: Loop
    keys: Keys
    limit: int | None = None
    """Keys per round at most, for what is too slow to do all; found by a pilot when left out."""
    seconds: list[float] = field(default_factory=list)
    """Per operation, one for each round, the empty loop taken off."""

    @property
    def best(self) -> float:
        return min(self.seconds)


EMPTY = "empty loop"


def interleave(
    tasks: Sequence[Task],
    *,
    rounds: int = 15,
    seconds_per_task: float = 0.1,
    clock: Callable[[], float] = time.process_time,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, Task]:
    """Runs every task once per round; the tasks come back by name, with their times.

    `rounds` is at least `MIN_ROUNDS`. A task that would need more than `seconds_per_task` for all the keys of
    a round gets fewer of them. The `clock` counts the processor's time by default, all threads together, as
    others may be at work on the machine. What waits for another thread needs `time.perf_counter`.
    """
    touch = compile_loop("hash(key)", {})
    empty = Task(EMPTY, compile_loop("pass", {}), tasks[0].keys)
    for task in tasks:
        if task.limit is None:
            task.limit = _affordable(task, seconds_per_task)
    everyone = [empty, *tasks]
    gc.collect()
    gc.freeze()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for number in range(max(rounds, MIN_ROUNDS)):
            turn = number % len(everyone)
            for task in everyone[turn:] + everyone[:turn]:
                keys = task.keys.timed(number)
                if task.limit is not None and task.limit < len(keys):
                    keys = keys[: task.limit]
                # The processor's caches hold what the contender before left there. Fetch what this one needs.
                task.loop(task.keys.warm_up(number)[: task.limit])
                touch(keys)
                start = clock()
                task.loop(keys)
                task.seconds.append((clock() - start) / len(keys))
            # Between rounds, so that a contender's garbage doesn't burden the one that comes next.
            gc.collect()
            progress()
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
    overhead = empty.best
    for task in tasks:
        task.seconds = [max(seconds - overhead, 1e-12) for seconds in task.seconds]
    return {task.name: task for task in tasks}


def _affordable(task: Task, seconds: float) -> int | None:
    keys = task.keys.timed(-1)
    per_key = 0.0
    for some in (keys[:1], keys[1:17]):
        start = time.perf_counter()
        task.loop(some)
        per_key = (time.perf_counter() - start) / len(some)
        if per_key > seconds / 2:
            break
    if per_key * len(keys) <= seconds:
        return None
    return max(2, int(seconds / per_key))


@dataclass(frozen=True)
class Ratio:
    """How many times the baseline's time something takes."""

    best: float
    median: float

    def __str__(self) -> str:
        shown = _significant(self.best)
        if abs(self.median - self.best) > NOISE * self.best:
            shown += f" ({_significant(self.median)})"
        return shown

    @property
    def inverse(self) -> Ratio:
        return Ratio(1 / self.best, 1 / self.median)


def ratio(task: Task, baseline: Task) -> Ratio:
    pairs = zip(task.seconds, baseline.seconds, strict=True)
    return Ratio(task.best / baseline.best, statistics.median(a / b for a, b in pairs))


def _significant(number: float) -> str:
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"
