"""The coherence oracle: many processes hammer one cache, and no answer may be older than anyone was told.

Versions are given out inside the write transaction, so their order is the order of commits. Every thread
publishes the newest version that it was told of, by a write that returned or by a read; a read that starts
afterwards must return that version or a newer one, or a miss that a removal or an end explains; never an
entry past its end, never another key's value. Workers sleep at odd moments, and are killed, stopped, and
started again by fork and by exec.

    python -m tests.shared.oracle --seconds 600 --processes 6 --threads 2
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.shared.board import FORK_REQUEST, FOUND, PID, STOP, WORKERS, Board
from tests.shared.protocols import WRONG
from tests.shared.worker import KEYS, NOTHING, Plan, Worker

PATIENCE = 15.0
"""Seconds after which a worker that was told to end hangs."""
PYTHON = [sys.executable, "-W", "ignore::DeprecationWarning"]
"""From 3.12 on it warns of forks of a process with threads. That is what is tried here."""
_SUBREAPER = 36
_ROOT = Path(__file__).parents[2]


@dataclass
class Outcome:
    counts: dict[str, int]
    violations: list[dict[str, Any]] = field(default_factory=list)
    said: str = ""
    """What the processes logged."""

    def __str__(self) -> str:
        kinds = [one["kind"] for one in self.violations]
        found = {kind: kinds.count(kind) for kind in kinds}
        lines = [
            ", ".join(f"{n:,} {name}" for name, n in self.counts.items()),
            f"violations: {found or 'none'}",
        ]
        return "\n".join([*lines, *(json.dumps(one) for one in self.examples()), self.said])

    def examples(self) -> list[dict[str, Any]]:
        """A few of each kind."""
        by_kind: dict[str, list[dict[str, Any]]] = {}
        for one in self.violations:
            by_kind.setdefault(one["kind"], []).append(one)
        return [one for kind in by_kind.values() for one in kind[:4]]


class Controller:
    """Starts the workers, disturbs them, and ends them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        # Used here before the forks, as under a server that loads the application first.
        self.worker = Worker(plan)
        self.worker.cache.set("filling0", "preloaded")
        self.worker.cache.get("filling0", None)  # with a full disk it may have had to leave
        self.board: Board = self.worker.board
        self.random = random.Random(plan.seed or None)
        self.counts = {"killed": 0, "stopped": 0, "forked": 0, "executed": 0, "nested": 0}
        self.stopped: dict[int, float] = {}
        self.pending: dict[int, float] = {}
        """Workers that were asked for by a fork request, and when."""
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)

    def run(self) -> Outcome:
        end = time.monotonic() + self.plan.seconds
        while time.monotonic() < end and not self.board.words[STOP]:
            self.reap()
            self.start_missing()
            if self.plan.chaos:
                self.disturb()
            time.sleep(self.random.uniform(0.01, 0.05))
        self.board.words[STOP] = 1
        self.end_all()
        if not self.plan.wrong:
            self.look_once_more()
        return Outcome({**self.board.totals(), **self.counts}, self.violations())

    def pid(self, slot: int) -> int:
        return self.board.worker(slot, PID)

    def alive(self) -> list[int]:
        return [slot for slot in range(self.plan.processes) if self.pid(slot)]

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            if code not in (0, -signal.SIGKILL):
                self.worker.violation("died", "", code=code, dead=pid)
            for slot in range(WORKERS):
                if self.pid(slot) == pid:
                    self.board.set_worker(slot, PID, 0)
                    self.stopped.pop(pid, None)

    def start_missing(self) -> None:
        now = time.monotonic()
        for slot in range(self.plan.processes):
            if self.pid(slot):
                self.pending.pop(slot, None)
            elif now - self.pending.get(slot, 0.0) > 3.0:
                self.pending[slot] = now
                self.start(slot)

    def start(self, slot: int) -> None:
        parents = [one for one in self.alive() if self.pid(one) not in self.stopped]
        way = self.random.choice(["forked", "executed", "nested"] if parents else ["forked", "executed"])
        self.counts[way] += 1
        if way == "nested":
            self.board.set_worker(self.random.choice(parents), FORK_REQUEST, slot + 1)
        elif way == "executed":
            command = [*PYTHON, "-m", "tests.shared.worker", str(slot)]
            child = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=_ROOT)
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError), child.stdin:
                child.stdin.write(self.plan.dumps().encode())
            child.returncode = 0  # it is reaped with the others
        elif os.fork() == 0:
            self.worker.run(slot)

    def disturb(self) -> None:
        now = time.monotonic()
        for pid, until in list(self.stopped.items()):
            if now > until:
                del self.stopped[pid]
                send(pid, signal.SIGCONT)
        running = [slot for slot in self.alive() if self.pid(slot) not in self.stopped]
        if len(running) < 2:
            return
        pid = self.pid(self.random.choice(running))
        chance = self.random.random()
        if chance < 0.03:
            self.counts["killed"] += 1
            send(pid, signal.SIGKILL)
        elif chance < 0.15:
            self.counts["stopped"] += 1
            send(pid, signal.SIGSTOP)
            # Now and then longer than a writer waits for another.
            self.stopped[pid] = now + (1.5 if chance < 0.035 else self.random.uniform(0.0, 0.1))

    def end_all(self) -> None:
        for pid in self.stopped:
            send(pid, signal.SIGCONT)
        self.stopped.clear()
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            self.reap()
            if not has_children():
                return
            time.sleep(0.01)
        for slot in self.alive():
            self.worker.violation("hang", "", slot=slot, hanging=self.pid(slot))
            send(self.pid(slot), signal.SIGKILL)

    def look_once_more(self) -> None:
        """After the end, from the process that was there from the beginning."""
        for key, name in enumerate(KEYS):
            floor = self.board.floor(key)
            began = time.monotonic()
            value = self.worker.cache.get(name, NOTHING)
            self.worker.judge(WORKERS - 1, key, value, floor, began, time.monotonic())

    def violations(self) -> list[dict[str, Any]]:
        if not self.plan.report.exists():
            assert self.board.words[FOUND] == 0
            return []
        return [json.loads(line) for line in self.plan.report.read_text().splitlines()]


def send(pid: int, number: int) -> None:
    """A process that is gone takes no harm."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def run(plan: Plan) -> Outcome:
    """In processes of their own, all of which are gone when this returns."""
    command = [*PYTHON, "-m", "tests.shared.oracle", "--plan", plan.dumps()]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=_ROOT, start_new_session=True, text=True
    )
    try:
        output, errors = process.communicate(timeout=plan.seconds + 2 * PATIENCE + 20)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        raise RuntimeError(f"the oracle ended with {process.returncode}:\n{output}\n{errors}")
    outcome = Outcome(**json.loads(output.splitlines()[-1]))
    outcome.said = errors[-4000:]
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--plan", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--processes", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--wrong", choices=WRONG, default="", help="a protocol that must be found out")
    parser.add_argument("--calm", action="store_true", help="nobody is killed or stopped")
    parser.add_argument("--crowded", action="store_true", help="fill the map, so that entries are evicted")
    parser.add_argument("--settings", type=json.loads, default={}, help="of the cache, as JSON")
    parser.add_argument("--subject", default=Plan.subject, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.plan:
        outcome = Controller(Plan.loads(given.plan)).run()
        print(json.dumps(dataclasses.asdict(outcome)))
        return 0
    with tempfile.TemporaryDirectory() as directory:
        plan = Plan(
            directory,
            given.seconds,
            given.processes,
            given.threads,
            given.wrong,
            chaos=not given.calm,
            first_only=bool(given.wrong),
            crowded=given.crowded,
            settings=given.settings,
            subject=given.subject,
            seed=given.seed,
        )
        outcome = run(plan)
    print(outcome)
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
