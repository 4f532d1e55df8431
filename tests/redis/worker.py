"""One worker process of a staleness run: threads that use a cache and judge every answer."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import redis

from quickcache_core import QuickCache, QuickCacheConfig
from quickcache_core.errors import StoreUnavailable
from quickcache_core.store.redis.client import Client, Primary
from quickcache_core.store.redis.tracking import LEASE
from tests.redis.board import (
    BACK_AT,
    FORK_REQUEST,
    FOUND,
    PID,
    QUIET,
    SPOT,
    STOP,
    THREADS,
    Board,
    Event,
)
from tests.redis.protocols import WRONG

AT_REST = 1
"""Nobody has written for a while."""
KEYS_EACH = 4
"""Of one thread: it writes one all the time, the others now and then. A value must live longer than the lease
for a protocol that never throws it out to be found out, and be written often enough to be there at the time.
"""
SLACK = 0.4
"""Seconds beyond the lease that a busy machine may take."""
LATE = 0.4
"""Seconds by which an end may come late: the clock of the server is known to within a round trip."""
RECOVERY = 5.0
"""Seconds after which nothing is left of a write that was given up while the server hung."""
LONG_AGO = 1e-9
NOTHING = object()
_SHARES = (0.9, 0.08, 0.015, 0.005)
_VALUE = re.compile(r"<(\d+):(\d+)>(x*)")
_SIZES = (0, 0, 10, 500, 3000)
_TTLS = (None, None, None, 30.0, 0.3)
"""Seconds. None: longer than any run."""


@dataclass(frozen=True)
class Plan:
    """What a run is made of; goes to its processes as JSON."""

    directory: str
    url: str
    seconds: float = 5.0
    processes: int = 4
    threads: int = 2
    wrong: str = ""
    chaos: bool = True
    first_only: bool = False
    relays: list[int] = field(default_factory=list)
    """By slot, ports of those that tracking connections go by."""
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    slow: bool = False
    """Delay all commands now and then."""
    surroundings: str = ""
    """A module whose `enter()` each process calls first."""

    @property
    def keys(self) -> int:
        return self.processes * self.threads * KEYS_EACH

    @property
    def board(self) -> Path:
        return Path(self.directory) / "board"

    @property
    def report(self) -> Path:
        return Path(self.directory) / "violations.jsonl"

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Plan:
        return cls(**json.loads(text))


class Operation(threading.local):
    """What the current thread is about."""

    asked = 0
    """Exchanges with the server."""


class Worker:
    is_mortal = False
    """Whether this process is one of those that are killed."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.board = Board(plan.board, plan.keys)
        self.operation = Operation()
        self.random = random.Random()
        self.slot = 0
        self.began = time.monotonic()
        if plan.surroundings:
            import_module(plan.surroundings).enter()
        if plan.wrong:
            WRONG[plan.wrong]()
        self._seam()
        self.cache = QuickCache(
            QuickCacheConfig.from_mapping({"location": plan.url, "fail": "raise", **plan.settings})
        )

    def _seam(self) -> None:
        """Let every exchange with the server, and every tracking connection, pass by here."""
        call, call_many, connection = Client.call, Client.call_many, Primary.connection

        def slow_call(client: Client, *command: Any) -> Any:
            self.operation.asked += 1
            reply = call(client, *command)
            self.nap()
            return reply

        def slow_call_many(client: Client, commands: Any) -> Any:
            self.operation.asked += 1
            replies = call_many(client, commands)
            self.nap()
            return replies

        def by_relay(primary: Primary, **options: Any) -> Any:
            return connection(primary, port=self.plan.relays[self.slot], **options)

        Client.call, Client.call_many = slow_call, slow_call_many  # type: ignore[method-assign]
        if self.plan.relays:
            Primary.connection = by_relay  # type: ignore[method-assign]

    def nap(self) -> None:
        """What may happen to a process anywhere, and happens here where it matters."""
        chance = self.random.random()
        if chance < 0.0002:
            # Not whoever controls the run, and looks at the cache as well.
            if self.plan.chaos and self.is_mortal:
                os.kill(os.getpid(), signal.SIGKILL)
        elif chance < 0.03:
            # Long enough for news to come in the meantime.
            time.sleep(self.random.random() * 0.01)
        elif chance < 0.1:
            time.sleep(self.random.random() * 0.001)

    # Threads

    def run(self, slot: int) -> None:
        """Work as number `slot` until the run is over; nothing if somebody is that already."""
        self.slot = slot
        # Not inherited over a fork, and gone with the process.
        with (Path(self.plan.directory) / f"slot{slot}.lock").open("w") as held:
            try:
                fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os._exit(0)
            self._run(slot)

    def _run(self, slot: int) -> None:
        self.began = time.monotonic()
        self.random = random.Random(f"{self.plan.seed} {os.getpid()}")
        self.is_mortal = True
        self.board.set_worker(slot, FORK_REQUEST, 0)
        self._wait_for_predecessor()
        threads = [
            threading.Thread(target=self._work, args=(slot, n), daemon=True) for n in range(self.plan.threads)
        ]
        self.board.set_worker(slot, PID, os.getpid())
        for thread in threads:
            thread.start()
        while not self.board.words[STOP]:
            time.sleep(0.01)
            request = self.board.worker(slot, FORK_REQUEST)
            if request:
                self.board.set_worker(slot, FORK_REQUEST, 0)
                if os.fork() == 0:
                    # The threads stay behind, in the middle of whatever they are doing.
                    self.run(request - 1)
        for thread in threads:
            thread.join()
        while not self.board.words[QUIET]:
            time.sleep(0.01)
        if self.board.words[QUIET] == AT_REST:
            self.look_once_more(slot * THREADS)
        os._exit(0)

    def _wait_for_predecessor(self) -> None:
        """What it sent before it was killed is carried out before anything that comes by a new connection."""
        while not self.board.words[STOP]:
            try:
                with redis.Redis.from_url(self.plan.url, protocol=2, socket_timeout=1.0) as client:
                    client.ping()
                    client.ping()
                return
            except (redis.ConnectionError, redis.TimeoutError):
                time.sleep(0.05)

    def _work(self, slot: int, number: int) -> None:
        row = slot * THREADS + number
        first = (slot * self.plan.threads + number) * KEYS_EACH
        own = random.Random(f"{self.plan.seed} {os.getpid()} {row}")
        while not self.board.words[STOP]:
            try:
                self._step(own, row, first)
            except StoreUnavailable:
                self.board.count(row, "unavailable")
                time.sleep(0.002)
            except BaseException:
                self.violation("error", -1, traceback=traceback.format_exc())
                return

    def _step(self, own: random.Random, row: int, first: int) -> None:
        for _ in range(own.randrange(1, 20)):
            spot = self.board.words[SPOT]
            key = int(spot) - 1 if spot and own.random() < 0.5 else own.randrange(self.plan.keys)
            self.get(row, key)
        chance = own.random()
        key = first + own.choices(range(KEYS_EACH), _SHARES)[0]
        if chance < 0.02:
            self.get_many(row, own.sample(range(self.plan.keys), 4))
        elif chance < 0.08:
            self.board.words[SPOT] = key + 1
            for _ in range(own.randrange(1, 4)):
                self.set(row, key, own)
                time.sleep(own.random() * 0.005)
            self.board.words[SPOT] = 0
        elif chance < 0.09:
            self.delete(row, key)
        elif chance < 0.092:
            self.invalidate(row, first)
        elif chance < 0.093 and row == 0:
            self.clear(row)

    # Reads

    def get(self, row: int, key: int) -> None:
        self.operation.asked = 0
        began = time.monotonic()
        value = self.cache.get(str(key), NOTHING)
        self.board.count(row, "gets")
        self.board.count(row, "misses" if value is NOTHING else "hits")
        if not self.operation.asked:
            self.board.count(row, "near_hits")
        self.judge(row, key, value, began)

    def get_many(self, row: int, keys: list[int]) -> None:
        began = time.monotonic()
        found = self.cache.get_many([str(key) for key in keys])
        for key in keys:
            self.judge(row, key, found.get(str(key), NOTHING), began)

    def judge(self, row: int, key: int, value: Any, began: float, *, at_rest: bool = False) -> None:
        """The value must have been the newest not long before the get began. A miss may always be: the cache
        may have lost anything.
        """
        if value is NOTHING:
            return
        board = self.board
        version = self.version_in(key, value)
        event = None if version is None else board.event(key, version)
        if version is None or version > board.latest(key) or (event is not None and not event.is_value):
            self.violation("foreign", key, value=repr(value)[:80])
            return
        if event is None:
            # The ring has gone round while this process was stopped, so nobody knows when it was written, nor
            # whether a clear came after it. What is newer is left to judge it by.
            event = Event(version, True, os.getpid(), LONG_AGO, LONG_AGO, float("inf"))
            cleared = float("inf")
        else:
            cleared = board.cleared_since(event)
        newer = board.outdated_since(key, event)
        staleness = began - min(newer, cleared)
        lateness = began - event.end
        if staleness <= 0.0 and lateness <= 0.0:
            return
        board.count(row, "stale")
        if self._is_excused(event, began, at_rest):
            board.count(row, "excused")
            return
        board.note_staleness(row, staleness, lateness)
        if staleness > 0.005:
            board.count(row, "stale_5_ms")
        if staleness > 0.05:
            board.count(row, "stale_50_ms")
        evidence = {"staleness": staleness, "lateness": lateness, "began": began, "event": event}
        evidence |= {"newer": newer, "cleared": cleared, "latest": board.latest(key), "row": row}
        if at_rest:
            self.violation("lives on", key, **evidence)
        elif staleness > LEASE + SLACK:
            self.violation("stale", key, **evidence)
        elif began > newer > self.began and self._is_own(key):
            self.violation("own", key, **evidence)
        elif lateness > LATE:
            self.violation("expired", key, **evidence)

    def _is_own(self, key: int) -> bool:
        return key // KEYS_EACH // self.plan.threads == self.slot

    def _is_excused(self, event: Event, began: float, at_rest: bool) -> bool:
        """Of a write whose reply didn't come nobody knows when it is carried out. Its writer takes it back
        later, if it lives.
        """
        if event.told:
            return False
        if at_rest:
            return not is_alive(event.writer)
        return began < max(event.begun, self.board.seconds[BACK_AT]) + RECOVERY or not is_alive(event.writer)

    def version_in(self, key: int, value: Any) -> int | None:
        """None for a value that isn't one of this key's, or isn't whole."""
        if isinstance(value, list):
            value = "".join(value)
        match = _VALUE.fullmatch(value) if isinstance(value, str) else None
        if match is None or int(match[1]) != key:
            return None
        version = int(match[2])
        return version if len(match[3]) == _SIZES[version % len(_SIZES)] else None

    def look_once_more(self, row: int) -> None:
        """When all is quiet again, nothing that was replaced or removed may be left."""
        self.board.words[SPOT] = 0
        for key in range(self.plan.keys):
            try:
                began = time.monotonic()
                self.judge(row, key, self.cache.get(str(key), NOTHING), began, at_rest=True)
            except StoreUnavailable as error:
                self.violation("unavailable", key, error=str(error))

    # Writes

    def value(self, key: int, version: int) -> Any:
        head, filling = f"<{key}:{version}>", "x" * _SIZES[version % len(_SIZES)]
        return [head, filling] if version % 3 == 0 else head + filling

    def set(self, row: int, key: int, own: random.Random) -> None:
        ttl = own.choice(_TTLS)
        version = self.board.begin(key, time.monotonic(), is_value=True)
        tags = [f"of {row}"] if key % KEYS_EACH == 1 else []
        try:
            self.cache.set(str(key), self.value(key, version), ttl, tags=tags)
        except StoreUnavailable:
            self.board.count(row, "unknown")
            raise
        self.board.end(key, version, time.monotonic(), float("inf") if ttl is None else ttl)
        self.board.count(row, "sets")

    def delete(self, row: int, key: int) -> None:
        version = self.board.begin(key, time.monotonic(), is_value=False)
        self.cache.delete(str(key), missing_ok=True)
        self.board.end(key, version, time.monotonic(), float("inf"))
        self.board.count(row, "deletes")

    def invalidate(self, row: int, first: int) -> None:
        """The one key of this thread that carries its tag."""
        key = first + 1
        version = self.board.begin(key, time.monotonic(), is_value=False)
        self.cache.invalidate_tags(f"of {row}")
        self.board.end(key, version, time.monotonic(), float("inf"))
        self.board.count(row, "invalidations")

    def clear(self, row: int) -> None:
        begun = time.monotonic()
        self.cache.clear()
        self.board.cleared(begun, time.monotonic())
        self.board.count(row, "clears")

    # Evidence

    def violation(self, kind: str, key: int, **evidence: Any) -> None:
        board = self.board
        board.words[FOUND] += 1
        if self.plan.first_only:
            board.words[STOP] = 1
        line = json.dumps({"kind": kind, "key": key, "pid": os.getpid(), **evidence})
        with self.plan.report.open("a") as file:
            file.write(line + "\n")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    """`python -m tests.redis.worker SLOT < plan`"""
    Worker(Plan.loads(sys.stdin.read())).run(int(sys.argv[1]))


if __name__ == "__main__":
    main()
