"""What the processes of a staleness run tell each other: one mapped file of 64-bit words.

A word is written by one thread at a time: each key belongs to one thread, which alone writes it and gives out
its versions. Aligned words are loaded and stored as a whole.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import NamedTuple

WORKERS = 8
THREADS = 4
"""Most per worker."""
ROWS = WORKERS * THREADS

_HEADER = 64
_WORKER_WORDS = 8
_COUNTS = 32
_EVENTS = 256
"""Of each key, the latest."""
_EVENT_WORDS = 6
_CLEARS = 64

# Words of the header; the last two are seconds.
STOP, FOUND, SPOT, CLEARS, QUIET, BACK_AT = range(6)
# Words of a worker.
PID, FORK_REQUEST = range(2)
# Words of an event.
_VERSION, _IS_VALUE, _WRITER, _BEGUN, _TOLD, _END = range(6)

COUNTS = (
    "gets",
    "near_hits",
    "hits",
    "misses",
    "stale",
    "stale_5_ms",
    "stale_50_ms",
    "excused",
    "sets",
    "deletes",
    "clears",
    "invalidations",
    "unavailable",
    "unknown",
)
_WORST = len(COUNTS)
"""Of a thread: the largest staleness, and behind it by how much an answer came after its end."""


class Event(NamedTuple):
    """A write of a key."""

    version: int
    is_value: bool
    writer: int
    """A process."""
    begun: float
    told: float
    """When its writer was told that it is done; 0 if that isn't known: it may be, now or later."""
    end: float
    """Monotonic seconds, all three. When the value expires."""


class Board:
    def __init__(self, path: Path, keys: int) -> None:
        self.keys = keys
        self._workers = _HEADER
        self._counts = self._workers + WORKERS * _WORKER_WORDS
        self._clears = self._counts + ROWS * _COUNTS
        self._rings = self._clears + _CLEARS * 2
        self._ring_words = 1 + _EVENTS * _EVENT_WORDS
        size = 8 * (self._rings + keys * self._ring_words)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(descriptor, size)
        memory = memoryview(mmap.mmap(descriptor, size))
        os.close(descriptor)
        self.words = memory.cast("Q")
        self.seconds = memory.cast("d")

    # Workers and what their threads count

    def worker(self, worker: int, word: int) -> int:
        return self.words[self._workers + worker * _WORKER_WORDS + word]

    def set_worker(self, worker: int, word: int, value: int) -> None:
        self.words[self._workers + worker * _WORKER_WORDS + word] = value

    def count(self, row: int, name: str, by: int = 1) -> None:
        self.words[self._counts + row * _COUNTS + COUNTS.index(name)] += by

    def note_staleness(self, row: int, staleness: float, lateness: float) -> None:
        at = self._counts + row * _COUNTS + _WORST
        self.seconds[at] = max(self.seconds[at], staleness)
        self.seconds[at + 1] = max(self.seconds[at + 1], lateness)

    def totals(self) -> dict[str, int]:
        totals = {
            name: sum(self.words[self._counts + row * _COUNTS + n] for row in range(ROWS))
            for n, name in enumerate(COUNTS)
        }
        for n, name in enumerate(("worst_ms", "latest_ms"), _WORST):
            worst = max(self.seconds[self._counts + row * _COUNTS + n] for row in range(ROWS))
            totals[name] = round(worst * 1000)
        return totals

    # What became of the keys

    def latest(self, key: int) -> int:
        """The newest version; 0 for none."""
        return self.words[self._rings + key * self._ring_words]

    def event(self, key: int, version: int) -> Event | None:
        """None for one that was so long ago that nobody knows."""
        at = self._at(key, version)
        words, seconds = self.words, self.seconds
        event = Event(
            version,
            bool(words[at + _IS_VALUE]),
            words[at + _WRITER],
            seconds[at + _BEGUN],
            seconds[at + _TOLD],
            seconds[at + _END],
        )
        return event if words[at + _VERSION] == version else None

    def begin(self, key: int, now: float, *, is_value: bool) -> int:
        """A write is about to be sent: its version."""
        version = self.latest(key) + 1
        at = self._at(key, version)
        self.words[at + _VERSION] = 0
        self.words[at + _IS_VALUE] = is_value
        self.words[at + _WRITER] = os.getpid()
        self.seconds[at + _BEGUN] = now
        self.seconds[at + _TOLD] = 0.0
        self.seconds[at + _END] = float("inf")
        self.words[at + _VERSION] = version
        # Only now: who is killed before has begun nothing.
        self.words[self._rings + key * self._ring_words] = version
        return version

    def end(self, key: int, version: int, now: float, ttl: float) -> None:
        """The writer was told that it is done."""
        at = self._at(key, version)
        self.seconds[at + _END] = now + ttl
        self.seconds[at + _TOLD] = now

    def outdated_since(self, key: int, event: Event) -> float:
        """When somebody was first told of a newer version; infinity if nobody was."""
        for version in range(event.version + 1, self.latest(key) + 1):
            newer = self.event(key, version)
            if newer is not None and newer.told:
                return newer.told
        return float("inf")

    def _at(self, key: int, version: int) -> int:
        return self._rings + key * self._ring_words + 1 + version % _EVENTS * _EVENT_WORDS

    # Clears of the whole cache; by one thread alone

    def cleared(self, begun: float, told: float) -> None:
        n = self.words[CLEARS]
        at = self._clears + n % _CLEARS * 2
        self.seconds[at], self.seconds[at + 1] = begun, told
        self.words[CLEARS] = n + 1

    def cleared_since(self, event: Event) -> float:
        """When somebody was first told that all was removed which was there then, this among it."""
        told = float("inf")
        if event.told:
            for n in range(max(0, self.words[CLEARS] - _CLEARS), self.words[CLEARS]):
                at = self._clears + n % _CLEARS * 2
                if self.seconds[at] > event.told:
                    told = min(told, self.seconds[at + 1])
        return told
