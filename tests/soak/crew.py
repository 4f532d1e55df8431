"""The processes of a soak, and what befalls them."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.wall import Wall

ROOT = Path(__file__).resolve().parents[2]
PYTHON = [sys.executable, "-W", "ignore::DeprecationWarning"]
"""From 3.12 on it warns of forks of a process with threads. That is what is tried here."""
PATIENCE = 120.0
"""Seconds that a process may take to end when its time is up."""
_SUBREAPER = 36
_YEAR = 365.0 * 86_400.0

Fault = Callable[["Schedule"], str | None]
"""Does something bad; what it is called, or None if it wasn't possible just now."""


class Words:
    """One mapped file of 64-bit words, written by one process each."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(descriptor, mmap.PAGESIZE)
        self.words = memoryview(mmap.mmap(descriptor, mmap.PAGESIZE)).cast("Q")
        os.close(descriptor)

    @property
    def trouble(self) -> int:
        """Goes up when the server comes into trouble, and when that is over: odd in between."""
        return int(self.words[0])

    @trouble.setter
    def trouble(self, number: int) -> None:
        self.words[0] = number


class Schedule:
    """What is to be undone, and when."""

    def __init__(self) -> None:
        self._later: list[tuple[float, Callable[[], object]]] = []

    def later(self, seconds: float, undo: Callable[[], object]) -> None:
        self._later.append((time.monotonic() + seconds, undo))

    def undo(self, until: float) -> None:
        due = [one for one in self._later if one[0] <= until]
        self._later = [one for one in self._later if one[0] > until]
        for _, work in sorted(due, key=lambda one: one[0]):
            work()


@dataclass
class Crew:
    """Processes that are killed, stopped, and started again."""

    module: str
    jobs: list[Callable[[], str]]
    """Of each, what it is given when it starts."""
    log: Path
    ended: list[str] = field(default_factory=list)
    """Who ended otherwise than by our hand."""

    def __post_init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * len(self.jobs)
        self._stopped: set[int] = set()
        self._killed: set[int] = set()

    def start_missing(self) -> None:
        for n, process in enumerate(self._processes):
            if process is not None and process.poll() is not None:
                self._reap(process)
                process = None
            if process is None:
                self._processes[n] = start(self.module, self.jobs[n](), self.log)

    def _reap(self, process: subprocess.Popen[bytes]) -> None:
        self._stopped.discard(process.pid)
        if process.returncode and process.pid not in self._killed:
            self.ended.append(f"{self.module} ended with {process.returncode}: {tail(self.log)}")

    def _any(self) -> subprocess.Popen[bytes] | None:
        running = [
            one
            for one in self._processes
            if one is not None and one.poll() is None and one.pid not in self._stopped
        ]
        return random.choice(running) if running else None

    def kill_one(self, _: Schedule) -> str | None:
        process = self._any()
        if process is None:
            return None
        self._killed.add(process.pid)
        process.kill()
        return "killed"

    def stop_one(self, schedule: Schedule) -> str | None:
        process = self._any()
        if process is None:
            return None
        self._stopped.add(process.pid)
        process.send_signal(signal.SIGSTOP)
        # Now and then longer than anybody waits for another.
        schedule.later(random.choice((0.01, 0.1, 1.5)), lambda: self._go_on(process))
        return "stopped"

    def _go_on(self, process: subprocess.Popen[bytes]) -> None:
        self._stopped.discard(process.pid)
        process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        for process in self._processes:
            if process is not None:
                if process.poll() is not None:
                    self._reap(process)
                process.kill()
                process.wait()


def start(module: str, argument: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(
            [*PYTHON, "-m", module, argument], cwd=ROOT, stderr=file, stdout=file, stdin=subprocess.DEVNULL
        )


def tail(log: Path) -> str:
    return log.read_text(errors="replace")[-6000:]


def adopt() -> None:
    """From now on who loses its parent is a child of this process, as are all below it."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def left_over() -> list[int]:
    """Children that don't end, though whoever started them has. They are killed then.

    To be called when nobody waits for a child of his own any more.
    """
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.05)
        except ChildProcessError:
            return []
    mine = [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    for pid in mine:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return mine


def jump(wall: Wall) -> Fault:
    """The wall clock is set: by a little, by a day, by years; back or forth."""

    def fault(_: Schedule) -> str:
        wall.off = random.choice((-1, 1)) * random.choice((0.5, 60.0, 86_400.0, _YEAR, 10.0 * _YEAR))
        return "clock jumps"

    return fault


def disturb(
    goes_on: Callable[[], bool], faults: list[Fault], counts: Counter[str], pause: float, crew: Crew
) -> None:
    """As long as that goes on; in the end nothing is left undone."""
    schedule = Schedule()
    try:
        while goes_on():
            crew.start_missing()
            schedule.undo(time.monotonic())
            name = random.choice(faults)(schedule)
            if name is not None:
                counts[name] += 1
            time.sleep(random.uniform(0.2, 1.8) * pause)
    finally:
        schedule.undo(float("inf"))
