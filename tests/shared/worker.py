"""One worker process of a coherence run: threads that use a cache and judge every answer."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.shared.board import FORK_REQUEST, FOUND, PID, SPOT, STOP, THREADS, VERSION, Board, Event
from tests.shared.protocols import WRONG, Right

HOT, COLD, NUMBERS = 6, 16, 3
KEYS = [f"hot{n}" for n in range(HOT)] + [f"cold{n}" for n in range(COLD)] + [f"n{n}" for n in range(NUMBERS)]
FIRST_NUMBER = HOT + COLD
STORED = [key.encode() for key in KEYS]

SLACK = 0.02
"""Seconds that an end may be off: the clock of a store may be coarser than ours."""
FOREVER = float("inf")
NOTHING = object()
_AFTER = 1 << 16
_TOKEN = re.compile(rb"<(\w+):(\d+)>")
_FILLING = "0123456789abcdef" * 8192
_SIZES = (0, 0, 0, 20, 100, 1000, 5000, 40_000)
_TAGS = ("t0", "t1", "t2")
_TAGS_OF: tuple[list[str], ...] = ([], ["t0"], ["t1", "t2"], [], ["t0", "t2"])
"""Of the keys in turn."""
_IF_TAGGED = -2
"""As the token of an operation: nothing if that is news, whatever there is if not."""
_TTLS = (None, None, None, 30.0, 0.3, 0.05, 0.01)
"""Seconds. None: longer than any run."""


@dataclass(frozen=True)
class Plan:
    """What a run is made of; goes to its processes as JSON."""

    directory: str
    seconds: float = 5.0
    processes: int = 4
    threads: int = 2
    wrong: str = ""
    chaos: bool = True
    """Kill, stop and fork workers."""
    first_only: bool = False
    """End at the first violation."""
    crowded: bool = False
    """Write so much that the map is full and entries are evicted."""
    settings: dict[str, Any] = field(default_factory=dict)
    subject: str = "tests.shared.subject"
    seed: int = 0
    cache: str = ""
    """Directory of the cache, if it isn't to be beside the other files."""
    surroundings: str = ""
    """A module whose `enter()` each process calls first."""

    @property
    def board(self) -> Path:
        return Path(self.directory) / "board"

    @property
    def report(self) -> Path:
        return Path(self.directory) / "violations.jsonl"

    @property
    def cache_directory(self) -> Path:
        return Path(self.cache or Path(self.directory) / "cache")

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Plan:
        return cls(**json.loads(text))


class Operation(threading.local):
    """What the current thread is about."""

    tokens: dict[int, int]
    """Keys of the operation, and what it stores under them; -1 for whatever comes of it."""
    began = 0.0
    ttl = FOREVER
    versions: dict[int, int]
    """Of the keys of the operation, as of its last commit."""
    stored: set[int]
    """Keys whose token was seen in a transaction."""
    loading = 0
    """The newest version there was when the load of this operation began."""
    reads = 0
    row = 0
    slow = excused = False

    def __init__(self) -> None:
        self.begin({})

    def begin(self, tokens: dict[int, int], ttl: float | None = None) -> None:
        self.tokens = tokens
        self.ttl = FOREVER if ttl is None else ttl
        self.versions = {}
        self.stored = set()
        self.loading = 0
        self.began = time.monotonic()


class Worker:
    is_mortal = False
    """Whether this process is one of those that are killed."""

    def __init__(self, plan: Plan) -> None:
        if plan.surroundings:
            import_module(plan.surroundings).enter()
        self.plan = plan
        self.board = Board(plan.board, len(KEYS))
        self.subject = import_module(plan.subject)
        self.operation = Operation()
        self.random = random.Random()
        plan.cache_directory.parent.mkdir(exist_ok=True, parents=True)
        self._seam()
        self.cache = self.subject.open_cache(plan.cache_directory, plan.settings)

    def _seam(self) -> None:
        """Let every transaction of the store pass by here."""
        table = self.subject.SharedTable
        protocol = WRONG.get(self.plan.wrong, Right)(self.board, self.nap, self._committed, self.subject)
        operation = self.operation

        def begin_read(table: Any, slot: int) -> tuple[Any, int]:
            operation.reads += 1
            txn, label = protocol.begin_read(table, slot)
            # The snapshot is taken; what comes of it is kept late.
            self.nap(reading=True)
            return txn, label

        def commit(table: Any, txn: Any, slots: Any) -> int:
            self._note(table, txn, slots)
            self.nap()
            try:
                label = protocol.commit(table, txn, slots)
            except BaseException:
                # The map was full; what was noted never happened.
                operation.versions.clear()
                operation.stored.clear()
                raise
            finally:
                operation.slow = False
            self.nap()
            return label

        table._begin_read = begin_read
        table._commit = commit

    def nap(self, reading: bool = False) -> None:
        """What may happen to a process anywhere, and happens here where it matters."""
        chance = self.random.random()
        if chance < 0.0003:
            # Not whoever controls the run, and looks at the cache as well.
            if self.plan.chaos and self.is_mortal:
                os.kill(os.getpid(), signal.SIGKILL)
        elif chance < 0.01 or (self.operation.slow and not reading):
            # Long enough for others to read in the meantime, and for some to come by twice.
            time.sleep(self.random.random() * 0.01)
        elif chance < 0.06:
            time.sleep(self.random.random() * 0.001)

    def _committed(self) -> None:
        if self.operation.slow:
            # From now on everybody is to read what was changed; before it, only some.
            self.board.words[SPOT] |= _AFTER
        self.nap()

    def _spot(self, own: random.Random) -> int | None:
        """A key that is being changed just now, for this process to read or not."""
        spot = self.board.words[SPOT]
        if not spot or own.random() < 0.3:
            return None
        if not spot & _AFTER and (os.getpid() ^ spot >> 8) & 1:
            return None
        return int(spot & 0xFF) - 1

    def _note(self, table: Any, txn: Any, slots: list[int]) -> None:
        """Give out versions to what the keys become with this transaction. Nobody else writes meanwhile."""
        board, operation = self.board, self.operation
        now = time.monotonic()
        # All windows of the same write, since some mistakes take two.
        operation.slow = bool(operation.tokens) and self.random.random() < 0.05
        board.words[SPOT] = 0
        if operation.slow:
            key = self.random.choice(list(operation.tokens))
            board.words[SPOT] = key + 1 | self.random.getrandbits(1) << 8
        # What makes up for earlier failures comes before the operation itself, and is none of its news.
        tokens = {} if self.subject.is_settling() else operation.tokens
        for key, raw in enumerate(STORED):
            token = self.subject.peek(txn, raw, table, slots)
            before = board.latest(key)
            mine = tokens.get(key)
            if key in operation.stored:
                # What makes room after the write is no news of its key, which others may have changed since.
                mine = None
            if mine == _IF_TAGGED:
                mine = 0 if token == 0 and before is not None and before.token else None
            if mine is not None and (mine == token or (mine == -1 and token)):
                version = board.add(key, token, operation.began + operation.ttl, now + operation.ttl)
                operation.stored.add(key)
                if operation.loading and board.floor(key) > operation.loading:
                    # Somebody was told of a change that came after the load began.
                    self.violation("overtaken", KEYS[key], since=operation.loading, floor=board.floor(key))
            elif before is None:
                version = board.add(key, token, 0.0, FOREVER) if token else 0
            elif before.token != token:
                # A removal, or the last one who wrote here was killed before it could commit.
                known = [event for event in board.since(key, 0)[0] if event.token == token]
                version = board.add(
                    key,
                    token,
                    min((event.earliest_end for event in known), default=0.0),
                    max((event.latest_end for event in known), default=FOREVER),
                )
            else:
                version = before.version
            if mine is not None:
                operation.versions[key] = version
        board.count(operation.row, "commits")

    # Threads

    def run(self, slot: int) -> None:
        """Work as number `slot` until the run is over."""
        self.random = random.Random(f"{self.plan.seed} {os.getpid()}")
        self.is_mortal = True
        self.board.set_worker(slot, FORK_REQUEST, 0)
        threads = [
            threading.Thread(target=self._work, args=(slot * THREADS + n,), daemon=True)
            for n in range(self.plan.threads)
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
        os._exit(0)

    def _work(self, row: int) -> None:
        self.operation.row = row
        own = random.Random(f"{self.plan.seed} {os.getpid()} {row}")
        while not self.board.words[STOP]:
            try:
                self._step(own, row)
            except self.subject.StoreUnavailable:
                self.board.count(row, "unavailable")
            except BaseException:
                self.violation("error", "", traceback=traceback.format_exc())
                return

    def _step(self, own: random.Random, row: int) -> None:
        key = own.randrange(HOT) if own.random() < 0.8 else HOT + own.randrange(COLD)
        number = FIRST_NUMBER + own.randrange(NUMBERS)
        # The last thread of a worker writes little: who waits for a slow writer doesn't read.
        chance = own.random() * (0.8205 if row % THREADS == self.plan.threads - 1 > 0 else 1.0)
        if chance < 0.70:
            for _ in range(own.randrange(1, 10)):
                spot = self._spot(own)
                self.get(row, own.randrange(FIRST_NUMBER) if spot is None else spot)
        elif chance < 0.78:
            self.get(row, number)
        elif chance < 0.82:
            self.get_many(row, own.sample(range(len(KEYS)), 4))
        elif chance < 0.91:
            self.set(row, [key], own)
        elif chance < 0.92:
            self.set(row, [key, HOT + own.randrange(COLD), HOT - 1], own)
        elif chance < 0.94:
            self.delete(row, key)
        elif chance < 0.95:
            self.pop(row, key)
        elif chance < 0.96:
            self.add(row, key, own)
        elif chance < 0.98:
            self.touch(row, key, own.choice(_TTLS[2:]))
        elif chance < 0.985:
            self.increment(row, number)
        elif chance < 0.994:
            self.load(row, key, own)
        elif chance < 0.9995:
            self.invalidate(row, own.choice(_TAGS))
        else:
            self.clear(row)
        if self.plan.crowded and chance > 0.8:
            self.operation.begin({})
            self.cache.set(f"filling{own.randrange(2000)}", _FILLING[: own.randrange(60_000)])

    # Reads

    def get(self, row: int, key: int) -> None:
        floor = self.board.floor(key)
        self.operation.reads = 0
        self.operation.excused = self.subject.owes(self.cache)
        began = time.monotonic()
        value = self.cache.get(KEYS[key], NOTHING)
        ended = time.monotonic()
        self._count_read(row, 1, value is not NOTHING)
        self.judge(row, key, value, floor, began, ended)

    def get_many(self, row: int, keys: list[int]) -> None:
        floors = [self.board.floor(key) for key in keys]
        self.operation.reads = 0
        self.operation.excused = self.subject.owes(self.cache)
        began = time.monotonic()
        found = self.cache.get_many([KEYS[key] for key in keys])
        ended = time.monotonic()
        self.board.count(row, "bulk")
        for key, floor in zip(keys, floors, strict=True):
            self.judge(row, key, found.get(KEYS[key], NOTHING), floor, began, ended)

    def _count_read(self, row: int, gets: int, hit: bool) -> None:
        self.board.count(row, "gets", gets)
        self.board.count(row, "hits" if hit else "misses")
        if not self.operation.reads:
            self.board.count(row, "near_hits")

    def judge(self, row: int, key: int, value: Any, floor: int, began: float, ended: float) -> None:
        """The answer must be what the key was at some instant between the two times."""
        # Before the events are looked at: what makes up for a failed write is one of them.
        excused = self.operation.excused or self.subject.owes(self.cache)
        events, complete = self.board.since(key, floor)
        evidence: dict[str, Any] = {
            "floor": floor,
            "began": began,
            "ended": ended,
            "row": row,
            "value": value,
        }
        if value is NOTHING:
            explained = (
                floor == 0
                or not complete
                or any(event.token == 0 or event.earliest_end <= ended + SLACK for event in events)
            )
            if not explained and (excused or self.subject.owes(self.cache)):
                # A write of this process failed; until it is made up for, it knows less than others.
                self.board.count(row, "excused")
            elif not explained:
                self.violation("lost", KEYS[key], events=events, **evidence)
            return
        token = self.read_token(key, value)
        if token is None:
            self.violation("foreign", KEYS[key], events=events, **evidence)
            return
        seen = [event for event in events if event.token == token]
        if not seen:
            if complete:
                self.violation("stale", KEYS[key], token=token, events=events, **evidence)
            else:
                self.board.count(row, "unjudged")
            return
        if all(began > event.latest_end + SLACK for event in seen):
            self.violation("expired", KEYS[key], token=token, events=events, **evidence)
            return
        # Whoever asks from now on must not get anything older than this either.
        self.board.publish(row, key, seen[-1].version)

    def read_token(self, key: int, value: Any) -> int | None:
        """None for a value that isn't one of this key's, or isn't whole."""
        if key >= FIRST_NUMBER:
            return value + 1 if type(value) is int else None
        if isinstance(value, list):
            value = "".join(value)
        if not isinstance(value, str):
            return None
        head, _, filling = value.partition("|")
        match = _TOKEN.fullmatch(head.encode())
        if match is None or match[1] != STORED[key] or filling != _FILLING[: len(filling)]:
            return None
        size = self.size_of(int(match[2]))
        return int(match[2]) if len(filling) == size else None

    # Writes

    @staticmethod
    def size_of(token: int) -> int:
        return _SIZES[token % len(_SIZES)]

    def _token(self, row: int) -> int:
        return row << 40 | self.board.count(row, "tokens")

    def value(self, key: int, token: int) -> Any:
        head, filling = f"<{KEYS[key]}:{token}>|", _FILLING[: self.size_of(token)]
        return [head, filling] if token % 3 == 0 else head + filling

    def _publish(self, row: int) -> None:
        for key, version in self.operation.versions.items():
            self.board.publish(row, key, version)

    def set(self, row: int, keys: list[int], own: random.Random) -> None:
        keys = list(dict.fromkeys(keys))
        key = keys[0]
        tokens = {key: self._token(row) for key in keys}
        values = {KEYS[key]: self.value(key, token) for key, token in tokens.items()}
        ttl = own.choice(_TTLS)
        self.operation.begin(tokens, ttl)
        if len(keys) == 1:
            self.cache.set(*values.popitem(), ttl, tags=_TAGS_OF[key % len(_TAGS_OF)])
        else:
            self.cache.set_many(values, ttl)
        self.board.count(row, "sets")
        if len(self.operation.stored) < len(keys):
            self.board.count(row, "unstored")
        self._publish(row)

    def add(self, row: int, key: int, own: random.Random) -> None:
        token = self._token(row)
        ttl = own.choice(_TTLS)
        self.operation.begin({key: token}, ttl)
        if self.cache.add(KEYS[key], self.value(key, token), ttl, exist_ok=True):
            self.board.count(row, "adds")
            self._publish(row)

    def touch(self, row: int, key: int, ttl: float | None) -> None:
        self.operation.begin({key: -1}, ttl)
        if self.cache.touch(KEYS[key], ttl, missing_ok=True):
            self.board.count(row, "touches")
            self._publish(row)

    def increment(self, row: int, key: int) -> None:
        self.operation.begin({key: -1})
        failed = self.subject.failures(self.cache)
        number = self.cache.incr(KEYS[key], 1, initial=0, ttl_sec=self.subject.NEVER)
        self.board.count(row, "increments")
        version = self.operation.versions.get(key)
        if version is None:
            # Nothing was stored. In trouble a cache answers as one that is empty does, and only then.
            self.board.count(row, "unstored")
            if number != 1 or self.subject.failures(self.cache) == failed:
                self.violation("not added", KEYS[key], number=number)
            return
        self._publish(row)
        events, complete = self.board.since(key, version)
        if complete and (not events or events[-1].token != number + 1):
            self.violation("wrong sum", KEYS[key], number=number, events=events)

    def delete(self, row: int, key: int) -> None:
        self.operation.begin({key: 0})
        self.cache.delete(KEYS[key], missing_ok=True)
        self.board.count(row, "deletes")
        self._publish(row)

    def pop(self, row: int, key: int) -> None:
        floor = self.board.floor(key)
        self.operation.begin({key: 0})
        began = time.monotonic()
        value = self.cache.pop(KEYS[key], NOTHING)
        ended = time.monotonic()
        self.board.count(row, "pops")
        self.judge(row, key, value, floor, began, ended)
        self._publish(row)

    def load(self, row: int, key: int, own: random.Random) -> None:
        """Store a value only if nothing happened to the key since."""
        token = self._token(row)
        ttl = own.choice(_TTLS)
        load = self.subject.begin_load(self.cache, KEYS[key])
        newest = self.board.words[VERSION]
        time.sleep(own.choice((0.0, 0.0, 0.001, 0.01)))
        self.operation.begin({key: token}, ttl)
        self.operation.loading = newest
        tags = _TAGS_OF[key % len(_TAGS_OF)]
        stored = self.subject.end_load(self.cache, KEYS[key], self.value(key, token), ttl, tags, load)
        self.operation.loading = 0
        self.board.count(row, "loads" if stored else "overtaken")
        if stored:
            self._publish(row)

    def invalidate(self, row: int, tag: str) -> None:
        self.operation.begin(dict.fromkeys(range(len(KEYS)), _IF_TAGGED))
        self.cache.invalidate_tags(tag)
        self.board.count(row, "invalidations")
        self._publish(row)

    def clear(self, row: int) -> None:
        self.operation.begin(dict.fromkeys(range(len(KEYS)), 0))
        self.cache.clear()
        self.board.count(row, "clears")
        self._publish(row)

    # Evidence

    def violation(self, kind: str, key: str, **evidence: Any) -> None:
        board = self.board
        board.words[FOUND] += 1
        if self.plan.first_only:
            board.words[STOP] = 1
        evidence["events"] = [shown(event) for event in evidence.get("events", ())]
        if "value" in evidence:
            evidence["value"] = repr(evidence["value"])[:80]
        line = json.dumps({"kind": kind, "key": key, "pid": os.getpid(), **evidence})
        with self.plan.report.open("a") as file:
            file.write(line + "\n")


def shown(event: Event) -> Iterable[Any]:
    return [event.version, event.token, round(event.earliest_end, 4), round(event.latest_end, 4)]


def main() -> None:
    """`python -m tests.shared.worker SLOT < plan`"""
    Worker(Plan.loads(sys.stdin.read())).run(int(sys.argv[1]))


if __name__ == "__main__":
    main()
