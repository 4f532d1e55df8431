"""What the processes of a coherence run tell each other: one mapped file of 64-bit words.

A word is written by one process at a time: by its owner, or by whoever is alone in a write transaction of the
cache. Aligned words are loaded and stored as a whole.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

WORKERS = 16
THREADS = 4
"""Most per worker."""
ROWS = WORKERS * THREADS

_HEADER = 64
_WORKER_WORDS = 8
_COUNTS = 32
_EVENTS = 512
"""Of each key, the latest."""
_EVENT_WORDS = 4

# Words of the header.
VERSION, STOP, FOUND, COUNTER, SPOT = range(5)
# Words of a worker.
PID, FORK_REQUEST = range(2)

COUNTS = (
    "gets",
    "near_hits",
    "hits",
    "misses",
    "unjudged",
    "excused",
    "sets",
    "deletes",
    "adds",
    "touches",
    "increments",
    "pops",
    "clears",
    "invalidations",
    "loads",
    "overtaken",
    "bulk",
    "unavailable",
    "unstored",
    "commits",
    "tokens",
)


@dataclass(frozen=True, slots=True)
class Event:
    """The state of a key from one commit on: if that commit came to pass."""

    version: int
    token: int
    """What is stored; 0 for nothing."""
    earliest_end: float
    latest_end: float
    """Monotonic seconds. Somewhere between the two the entry expires."""


class Board:
    """Versions of commits, what each key became in them, and what each thread was told of."""

    def __init__(self, path: Path, keys: int) -> None:
        self.keys = keys
        self._workers = _HEADER
        self._counts = self._workers + WORKERS * _WORKER_WORDS
        self._cells = self._counts + ROWS * _COUNTS
        self._rings = self._cells + keys * ROWS
        self._ring_words = 1 + _EVENTS * _EVENT_WORDS
        size = 8 * (self._rings + keys * self._ring_words)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(descriptor, size)
        memory = memoryview(mmap.mmap(descriptor, size))
        os.close(descriptor)
        self.words = memory.cast("Q")
        self._floats = memory.cast("d")

    # The header and the workers

    def worker(self, worker: int, word: int) -> int:
        return self.words[self._workers + worker * _WORKER_WORDS + word]

    def set_worker(self, worker: int, word: int, value: int) -> None:
        self.words[self._workers + worker * _WORKER_WORDS + word] = value

    # Counts of a thread

    def count(self, row: int, name: str, by: int = 1) -> int:
        index = self._counts + row * _COUNTS + COUNTS.index(name)
        self.words[index] = total = self.words[index] + by
        return total

    def totals(self) -> dict[str, int]:
        return {
            name: sum(self.words[self._counts + row * _COUNTS + n] for row in range(ROWS))
            for n, name in enumerate(COUNTS)
        }

    # What threads were told of

    def publish(self, row: int, key: int, version: int) -> None:
        index = self._cells + key * ROWS + row
        if version > self.words[index]:
            self.words[index] = version

    def floor(self, key: int) -> int:
        """The newest version of the key that any thread was told of; 0 for none."""
        start = self._cells + key * ROWS
        return max(self.words[start : start + ROWS])

    # What became of the keys; `add` only from within a write transaction

    def latest(self, key: int) -> Event | None:
        head = self.words[self._rings + key * self._ring_words]
        return self._event(key, head - 1) if head else None

    def add(self, key: int, token: int, earliest_end: float, latest_end: float) -> int:
        """Give out the next version."""
        version = self.words[VERSION] + 1
        self.words[VERSION] = version
        ring = self._rings + key * self._ring_words
        head = self.words[ring]
        at = ring + 1 + head % _EVENTS * _EVENT_WORDS
        self.words[at] = version
        self.words[at + 1] = token
        self._floats[at + 2] = earliest_end
        self._floats[at + 3] = latest_end
        # Only now: who is killed before has added nothing.
        self.words[ring] = head + 1
        return version

    def since(self, key: int, version: int) -> tuple[list[Event], bool]:
        """The events from `version` on, newest first, and whether these are all."""
        ring = self._rings + key * self._ring_words
        head = self.words[ring]
        events: list[Event] = []
        n = head - 1
        while n >= 0 and n > head - _EVENTS:
            event = self._event(key, n)
            if event.version < version:
                break
            events.append(event)
            n -= 1
        complete = n < 0 or n > head - _EVENTS
        # Those that were written over while we read; one more may be half written.
        overtaken = self.words[ring] - head + 1 + len(events) >= _EVENTS
        return events, complete and not overtaken

    def _event(self, key: int, n: int) -> Event:
        at = self._rings + key * self._ring_words + 1 + n % _EVENTS * _EVENT_WORDS
        words, floats = self.words, self._floats
        return Event(words[at], words[at + 1], floats[at + 2], floats[at + 3])
