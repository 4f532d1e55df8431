"""Processes that use one cache at the same time, each in the way of a web worker: mostly gets, some sets."""

from __future__ import annotations

import itertools
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.shared_contenders import TEXTS, Contender
from benchmarks.workload import SEED, ZipfKeys, stored_keys

WORKERS = 4
SETS = 0.1
"""The share of operations that are sets."""
_BATCH = 64
"""Operations between two looks at the clock. FileBasedCache takes a tenth of a second for so many."""
_BATCHES = 500
_RUN_UP = 0.05
"""Seconds from the call until all begin."""

Batch = list[tuple[str, bool]]
Work = Callable[[Sequence[Batch], float], int]


class Workers:
    """Forked before anything is opened; each opens a contender's cache when it is first asked for."""

    def __init__(self, folder: Path, contenders: Sequence[Contender]) -> None:
        context = multiprocessing.get_context("fork")
        self._links: list[Connection] = []
        self._processes = []
        for number in range(WORKERS):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(theirs, number, folder, contenders, [*self._links, ours]), daemon=True
            )
            process.start()
            theirs.close()
            self._links.append(ours)
            self._processes.append(process)

    def prepare(self, contender: str) -> None:
        """Open it everywhere, and ask once for each key, which fills near stores."""
        self._ask((contender, None, 0.0))

    def operations_per_second(self, contender: str, duration: float) -> float:
        """Of all workers together."""
        start = time.perf_counter() + _RUN_UP
        return sum(self._ask((contender, start, duration)))

    def _ask(self, order: tuple[str, float | None, float]) -> list[float]:
        for link in self._links:
            link.send(order)
        answers = [link.recv() for link in self._links]
        for answer in answers:
            if isinstance(answer, str):
                raise RuntimeError(f"a worker failed with {order[0]}: {answer}")
        return answers

    def stop(self) -> None:
        for link in self._links:
            link.close()
        for process in self._processes:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()


@contextmanager
def workers(folder: Path, contenders: Sequence[Contender]) -> Iterator[Workers]:
    forked = Workers(folder, contenders)
    try:
        yield forked
    finally:
        forked.stop()


def _serve(
    link: Connection,
    number: int,
    folder: Path,
    contenders: Sequence[Contender],
    inherited: Sequence[Connection],
) -> None:
    for other in inherited:
        # Else this process holds the other ends of its own pipe and of its elder siblings', and nobody sees
        # them closed.
        other.close()
    known = {contender.name: contender for contender in contenders}
    batches = _batches(number)
    opened: dict[str, Work] = {}
    while True:
        try:
            name, start, duration = link.recv()
        except (EOFError, OSError):
            return
        try:
            if name not in opened:
                opened[name] = _compile(known[name], known[name].open(folder, "roomy"))
            if start is None:
                link.send(opened[name]([[(key, False) for key in stored_keys(TEXTS)]], 0.0))
                continue
            while time.perf_counter() < start:
                time.sleep(0.001)
            begun = time.perf_counter()
            done = opened[name](batches, begun + duration)
            link.send(done / (time.perf_counter() - begun))
        except Exception as error:
            link.send(repr(error))


def _batches(number: int) -> list[Batch]:
    count = _BATCH * _BATCHES
    keys = ZipfKeys(count, TEXTS).timed(number)
    chooser = random.Random(f"{SEED} worker {number}")
    pairs = [(key, chooser.random() < SETS) for key in keys]
    return [pairs[first : first + _BATCH] for first in range(0, count, _BATCH)]


def _compile(contender: Contender, cache: Any) -> Work:
    """Rounds of the batches until the time is up; gives the operations done."""
    scope = {**contender.scope(cache), "clock": time.perf_counter, "cycle": itertools.cycle}
    parameters = "".join(f", {name}={name}" for name in scope)
    source = f"""
def work(batches, end{parameters}):
    done = 0
    for batch in cycle(batches):
        for key, write in batch:
            if write:
                {contender.code["set"]}
            else:
                {contender.code["get"]}
        done += len(batch)
        if clock() >= end:
            return done
"""
    namespace = dict(scope)
    exec(source, namespace)
    work: Work = namespace["work"]  # type: ignore[assignment]
    return work
