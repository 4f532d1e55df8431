"""What this machine's Python charges for the pieces that every cache is made of.

A ratio of two caches hardly depends on the machine; a ratio to a raw dict does, because a clock or a lock
costs more dict operations on one machine than on another. These figures explain such differences.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque

from benchmarks import report
from benchmarks.timing import Task, compile_loop, interleave, ratio
from benchmarks.workload import SameKeys, asked_keys, stored_keys


class Slotted:
    __slots__ = ("deadline", "frequency", "key", "value")

    def __init__(self, key: str, value: object, deadline: float) -> None:
        self.key = key
        self.value = value
        self.deadline = deadline
        self.frequency = 0

    def method(self, key: str) -> None:
        pass


class Owner:
    def __init__(self) -> None:
        self.bound = Slotted("", 0, 0.0).method


PIECES = {
    "`d[key]`": "d[key]",
    "`d.get(key)`": "d.get(key)",
    "`d[key] = value`": "d[key] = 1",
    "`lru.move_to_end(key)`": "lru.move_to_end(key)",
    "`time.monotonic()`": "now()",
    "call of a method that does nothing": "slotted.method(key)",
    "the same, bound, kept in an instance attribute": "owner.bound(key)",
    "`slotted.frequency += 1`": "slotted.frequency += 1",
    "new object with four slots": "Slotted(key, 1, 2.0)",
    "`deque.append`, `popleft`": "queue.append(key); queue.popleft()",
    "`with Lock`": "with lock: pass",
    "`with RLock`": "with rlock: pass",
    "RLock `acquire()`, `release()`": "acquire(); release()",
}


def measure(rounds: int = 15) -> str:
    """A Markdown table: nanoseconds, and the ratio to `d[key]`."""
    count = 10_000
    rlock = threading.RLock()
    scope = {
        "d": dict.fromkeys(stored_keys(count), 1),
        "lru": OrderedDict.fromkeys(stored_keys(count), 1),
        "now": time.monotonic,
        "slotted": Slotted("", 0, 0.0),
        "owner": Owner(),
        "Slotted": Slotted,
        "queue": deque("abc"),
        "lock": threading.Lock(),
        "rlock": rlock,
        "acquire": rlock.acquire,
        "release": rlock.release,
    }
    asked = asked_keys(count)
    tasks = [
        Task(name, compile_loop(statement, scope), SameKeys(asked)) for name, statement in PIECES.items()
    ]
    done = interleave(tasks, rounds=rounds)
    base = done["`d[key]`"]
    rows = [(name, f"{task.best * 1e9:.0f}", ratio(task, base)) for name, task in done.items()]
    return report.table(("piece", "ns", "ratio to `d[key]`"), rows)


if __name__ == "__main__":
    print(measure())
