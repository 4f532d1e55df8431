"""Processes that use one cache at the same time, each in the way of a web worker: mostly gets, some sets."""

from __future__ import annotations

import itertools
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, Protocol

from benchmarks import plots, report
from benchmarks.progress import progress_bar
from benchmarks.timing import Ratio
from benchmarks.workload import SEED, ZipfKeys, stored_keys

PROCESSES = (1, 2, 4)
"""How many work at the same time; one after the other, so the first of them work each time."""
WORKERS = max(PROCESSES)
SETS = 0.1
"""The share of operations that are sets."""
_BATCH = 64
"""Operations between two looks at the clock. FileBasedCache takes a tenth of a second for so many."""
_BATCHES = 500
_RUN_UP = 0.05
"""Seconds from the call until all begin."""

Batch = list[tuple[str, bool]]
Work = Callable[[Sequence[Batch], float], int]


class Contender(Protocol):
    """What the workers need to know of one; statements for `get` and `set` are in `code`."""

    @property
    def name(self) -> str: ...

    @property
    def code(self) -> Mapping[str, str]: ...

    def open(self, folder: Path, variant: Literal["roomy"], /) -> Any: ...

    def scope(self, cache: Any, /) -> dict[str, Any]: ...


class Workers:
    """Forked before anything is opened; each opens a contender's cache when it is first asked for."""

    def __init__(self, folder: Path, contenders: Sequence[Contender], population: int) -> None:
        context = multiprocessing.get_context("fork")
        self._links: list[Connection] = []
        self._processes = []
        for number in range(WORKERS):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve,
                args=(theirs, number, folder, contenders, population, [*self._links, ours]),
                daemon=True,
            )
            process.start()
            theirs.close()
            self._links.append(ours)
            self._processes.append(process)

    def prepare(self, contender: str) -> None:
        """Open it everywhere, and ask once for each key, which fills near stores."""
        self._ask((contender, None, 0.0), WORKERS)

    def operations_per_second(self, contender: str, duration: float, processes: int = WORKERS) -> float:
        """Of so many workers together; the others wait."""
        start = time.perf_counter() + _RUN_UP
        return sum(self._ask((contender, start, duration), processes))

    def _ask(self, order: tuple[str, float | None, float], processes: int) -> list[float]:
        asked = self._links[:processes]
        for link in asked:
            link.send(order)
        answers = [link.recv() for link in asked]
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
def workers(folder: Path, contenders: Sequence[Contender], population: int) -> Iterator[Workers]:
    """`population` is the number of keys, from `stored_keys`."""
    forked = Workers(folder, contenders, population)
    try:
        yield forked
    finally:
        forked.stop()


def measure_processes(
    forked: Workers, names: Sequence[str], turns: int, seconds: float
) -> dict[int, dict[str, list[float]]]:
    """Operations per second of all processes together: by the number of these, contender and turn."""
    step = progress_bar(len(names) * (len(PROCESSES) * turns + 1), "processes")
    for name in names:
        forked.prepare(name)
        step()
    found: dict[int, dict[str, list[float]]] = {each: {name: [] for name in names} for each in PROCESSES}
    for turn in range(turns):
        first = turn % len(names)
        for processes in PROCESSES:
            for name in (*names[first:], *names[:first]):
                found[processes][name].append(forked.operations_per_second(name, seconds, processes))
                step()
    return found


def rate_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """How many times their operations per second."""
    pairs = zip(ours, theirs, strict=True)
    return Ratio(max(ours) / max(theirs), statistics.median(a / b for a, b in pairs))


def processes_table(rates: Mapping[int, Mapping[str, Sequence[float]]], base: str) -> str:
    """Of each contender and number of processes the best turn, and how many times that the base does."""
    rows = []
    for name in rates[WORKERS]:
        row: list[object] = [name]
        for processes in PROCESSES:
            found = rates[processes]
            row += [f"{max(found[name]):,.0f}", f"{rate_ratio(found[base], found[name])} ×"]
        rows.append(row)
    head = [""]
    for processes in PROCESSES:
        head += [
            f"{processes} process{'' if processes == 1 else 'es'}: operations per second",
            f"{base} does",
        ]
    return report.table(head, rows)


def processes_plot(name: str, rates: Mapping[int, Mapping[str, Sequence[float]]], ours: Sequence[str]) -> str:
    series = {
        each: [(processes, max(found[each])) for processes, found in rates.items()] for each in rates[WORKERS]
    }
    return plots.line_plot(
        name,
        [plots.Panel("", series)],
        x="processes",
        y="operations per second",
        ours=ours,
        log_y=True,
        ticks=PROCESSES,
    )


def _serve(
    link: Connection,
    number: int,
    folder: Path,
    contenders: Sequence[Contender],
    population: int,
    inherited: Sequence[Connection],
) -> None:
    for other in inherited:
        # Else this process holds the other ends of its own pipe and of its elder siblings', and nobody sees
        # them closed.
        other.close()
    known = {contender.name: contender for contender in contenders}
    batches = _batches(number, population)
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
                link.send(opened[name]([[(key, False) for key in stored_keys(population)]], 0.0))
                continue
            while time.perf_counter() < start:
                time.sleep(0.001)
            begun = time.perf_counter()
            done = opened[name](batches, begun + duration)
            link.send(done / (time.perf_counter() - begun))
        except Exception as error:
            link.send(repr(error))


def _batches(number: int, population: int) -> list[Batch]:
    count = _BATCH * _BATCHES
    keys = ZipfKeys(count, population).timed(number)
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
