"""The staleness oracle: many processes hammer one cache in scope `redis`, and every answer is judged by how
long ago somebody was told of a newer one.

Each key is written by one thread, which publishes when it began to write a version and when it was told that
it is done. Workers sleep at odd moments, and are killed, stopped, and started again by fork and by exec. The
server is stopped for a while, or killed and started empty, at once or later; connections are cut; and those
by which it tells what changes come to a standstill, each on its own, while all others work. With `--slow`,
commands go by a relay that delays them now and then.

    python -m tests.redis.oracle --seconds 600 --processes 4 --threads 2
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
from pathlib import Path
from typing import Any

import redis

from tests.redis.board import BACK_AT, FORK_REQUEST, FOUND, PID, QUIET, STOP, WORKERS, Board
from tests.redis.protocols import WRONG
from tests.redis.relay import Relay
from tests.redis.servers import RedisServer
from tests.redis.worker import AT_REST, NOTHING, RECOVERY, THREADS, Plan, Worker
from tests.shared.oracle import PATIENCE, PYTHON, Outcome, send

_SUBREAPER = 36
_ROOT = Path(__file__).parents[2]


class Controller:
    """Starts the server and the workers, disturbs them, and ends them."""

    def __init__(
        self, plan: Plan, server: RedisServer, relays: list[Relay], slow: Relay | None = None
    ) -> None:
        self.plan = plan
        self.server = server
        self.relays = relays
        self.slow = slow
        """What all commands go by."""
        # Used here before the forks, as under a server that loads the application first.
        self.worker = Worker(plan)
        self.worker.cache.set("filling", "preloaded")
        self.worker.cache.get("filling")
        self.worker.cache.get("filling")
        self.board: Board = self.worker.board
        self.random = random.Random(plan.seed or None)
        names = "killed stopped forked executed nested hung restarted cut silenced slowed"
        self.counts = dict.fromkeys(names.split(), 0)
        self.until: dict[Any, float] = {}
        """What is stopped, slow or dead, the server among it, and when it is to go on."""
        self.killed_at = 0.0
        """The server."""
        self.pending: dict[int, float] = {}
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)

    def run(self) -> Outcome:
        end = time.monotonic() + self.plan.seconds
        while time.monotonic() < end and not self.board.words[STOP]:
            self.reap()
            self.start_missing()
            if self.plan.chaos:
                self.go_on(time.monotonic())
                self.disturb()
            time.sleep(self.random.uniform(0.01, 0.05))
        self.board.words[STOP] = 1
        self.go_on(float("inf"))
        is_right = not self.board.words[FOUND]
        if is_right:
            self.come_to_rest(RECOVERY)
        self.board.words[QUIET] = AT_REST if is_right else AT_REST + 1
        self.end_all()
        if is_right and not self.plan.wrong:
            self.worker.look_once_more((WORKERS - 1) * THREADS)
        return Outcome({**self.board.totals(), **self.counts}, self.violations())

    def come_to_rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.reap()
            # As requests would that come in meanwhile.
            with contextlib.suppress(Exception):
                self.worker.cache.get("filling", NOTHING)
            time.sleep(0.02)

    # Workers

    def pid(self, slot: int) -> int:
        return self.board.worker(slot, PID)

    def running(self) -> list[int]:
        alive = [slot for slot in range(self.plan.processes) if self.pid(slot)]
        return [slot for slot in alive if self.pid(slot) not in self.until]

    def reap(self) -> None:
        while True:
            # Not the server and the relays, whose processes wait for others.
            pids = [self.pid(slot) for slot in range(WORKERS) if self.pid(slot)]
            ended = [pid for pid in pids if self._has_ended(pid)]
            if not ended:
                return
            for slot in range(WORKERS):
                if self.pid(slot) in ended:
                    self.until.pop(self.pid(slot), None)
                    self.board.set_worker(slot, PID, 0)

    def _has_ended(self, pid: int) -> bool:
        try:
            found, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            # Not ours yet: its parent was killed just now, or it is.
            return not Path(f"/proc/{pid}").exists()
        if not found:
            return False
        code = os.waitstatus_to_exitcode(status)
        if code not in (0, -signal.SIGKILL):
            self.worker.violation("died", -1, code=code, dead=pid)
        return True

    def start_missing(self) -> None:
        now = time.monotonic()
        for slot in range(self.plan.processes):
            if self.pid(slot):
                self.pending.pop(slot, None)
            elif now - self.pending.get(slot, 0.0) > 4.0:
                self.pending[slot] = now
                self.start(slot)

    def start(self, slot: int) -> None:
        parents = self.running()
        way = self.random.choice(["forked", "executed", "nested"] if parents else ["forked", "executed"])
        self.counts[way] += 1
        if way == "nested":
            self.board.set_worker(self.random.choice(parents), FORK_REQUEST, slot + 1)
        elif way == "executed":
            command = [*PYTHON, "-m", "tests.redis.worker", str(slot)]
            child = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=_ROOT)
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError), child.stdin:
                child.stdin.write(self.plan.dumps().encode())
            child.returncode = 0  # it is reaped with the others
        elif os.fork() == 0:
            self.worker.run(slot)

    # Trouble

    def go_on(self, now: float) -> None:
        for what, until in list(self.until.items()):
            if now > until:
                del self.until[what]
                if what is self.server:
                    self.revive()
                elif isinstance(what, Relay):
                    what.go_on()
                    if what is self.slow:
                        self.board.seconds[BACK_AT] = time.monotonic()
                else:
                    send(what, signal.SIGCONT)

    def revive(self) -> None:
        if self.server.is_running:
            self.server.resume()
        else:
            self.server.start()
            # What was told before that is gone. What was not may or may not have been.
            self.board.cleared(self.killed_at, time.monotonic())
        self.board.seconds[BACK_AT] = time.monotonic()

    def disturb(self) -> None:
        now = time.monotonic()
        chance = self.random.random()
        running = self.running()
        if chance < 0.02 and len(running) > 1:
            self.counts["killed"] += 1
            send(self.pid(self.random.choice(running)), signal.SIGKILL)
        elif chance < 0.08 and len(running) > 1:
            self.counts["stopped"] += 1
            pid = self.pid(self.random.choice(running))
            send(pid, signal.SIGSTOP)
            self.until[pid] = now + (1.5 if chance < 0.03 else self.random.uniform(0.0, 0.1))
        elif chance < 0.11:
            relay = self.random.choice(self.relays)
            if relay not in self.until:
                self.counts["silenced"] += 1
                relay.stop()
                self.until[relay] = now + self.random.choice((0.1, 0.5, 2.0, 5.0))
        elif self.server in self.until:
            return
        elif chance < 0.14:
            self.cut()
        elif chance < 0.145:
            self.counts["hung"] += 1
            self.server.hang()
            self.board.seconds[BACK_AT] = float("inf")
            self.until[self.server] = now + self.random.choice((0.05, 0.5, 1.5, 2.5))
        elif chance < 0.147:
            self.counts["restarted"] += 1
            self.board.seconds[BACK_AT] = float("inf")
            self.server.kill()
            self.killed_at = time.monotonic()
            self.until[self.server] = now + self.random.choice((0.0, 0.0, 0.5, 2.0))
        elif chance < 0.157 and self.slow is not None and self.slow not in self.until:
            self.counts["slowed"] += 1
            self.board.seconds[BACK_AT] = float("inf")
            # The last one is longer than anybody waits for a reply.
            self.slow.slow_down(self.random.choice((0.002, 0.02, 0.2, 0.7, 1.3)))
            self.until[self.slow] = now + self.random.choice((0.1, 0.5, 2.0))

    def cut(self) -> None:
        """A connection, or all that track."""
        with contextlib.suppress(redis.RedisError), self.server.client() as admin:
            found = [one for one in admin.client_list() if one["cmd"] != "client|list"]
            if self.random.random() < 0.5:
                found = [one for one in found if "t" in one["flags"]]
            else:
                found = self.random.sample(found, min(1, len(found)))
            for one in found:
                self.counts["cut"] += 1
                admin.client_kill_filter(_id=one["id"])

    # The end

    def end_all(self) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            self.reap()
            if not any(self.pid(slot) for slot in range(WORKERS)):
                return
            time.sleep(0.01)
        for slot in range(WORKERS):
            if self.pid(slot):
                self.worker.violation("hang", -1, slot=slot, hanging=self.pid(slot))
                send(self.pid(slot), signal.SIGKILL)

    def violations(self) -> list[dict[str, Any]]:
        if not self.plan.report.exists():
            assert self.board.words[FOUND] == 0
            return []
        return [json.loads(line) for line in self.plan.report.read_text().splitlines()]


def control(plan: Plan) -> Outcome:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(RedisServer())
        relays = [Relay(server.port) for _ in range(plan.processes)] if plan.chaos else []
        for relay in relays:
            stack.callback(relay.close)
        slow = Relay(server.port) if plan.slow else None
        if slow is not None:
            stack.callback(slow.close)
        url = server.url if slow is None else f"redis://127.0.0.1:{slow.port}/0"
        plan = dataclasses.replace(plan, url=url, relays=[relay.port for relay in relays])
        return Controller(plan, server, relays, slow).run()


def run(plan: Plan) -> Outcome:
    """In processes of their own, all of which are gone when this returns."""
    command = [*PYTHON, "-m", "tests.redis.oracle", "--plan", plan.dumps()]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=_ROOT, start_new_session=True, text=True
    )
    try:
        output, errors = process.communicate(timeout=plan.seconds + 2 * PATIENCE + 30)
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
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--plan", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--wrong", choices=WRONG, default="", help="a protocol that must be found out")
    parser.add_argument("--calm", action="store_true", help="nobody is killed, stopped or cut off")
    parser.add_argument("--slow", action="store_true", help="all commands are delayed now and then")
    parser.add_argument("--settings", type=json.loads, default={}, help="of the cache, as JSON")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.plan:
        print(json.dumps(dataclasses.asdict(control(Plan.loads(given.plan)))))
        return 0
    with tempfile.TemporaryDirectory() as directory:
        plan = Plan(
            directory,
            "",
            given.seconds,
            given.processes,
            given.threads,
            given.wrong,
            chaos=not given.calm,
            first_only=bool(given.wrong),
            settings=given.settings,
            seed=given.seed,
            slow=given.slow,
        )
        outcome = run(plan)
    print(outcome)
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
