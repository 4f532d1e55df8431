"""Workers that count, publish and are killed, and what their published totals may be.

A worker says what it is about to publish, publishes, and says that it has. So whatever instant it is killed
at, its published counts are known to lie between the two.

    python -m tests.core.counting_workers KILLS SEED

prints what was seen as JSON. A process of its own, with one thread: it forks.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import struct
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from quickcache_core import QuickCache, QuickCacheConfig
from quickcache_core.metrics import board as boards
from quickcache_core.metrics import layout as at
from quickcache_core.metrics.board import Board, Reading
from quickcache_core.metrics.board_file import BoardFile
from quickcache_core.metrics.runtime import figures_path

REPORT = struct.Struct("=BQQQ")
"""Whether it is published (1) or about to be (0); hits, misses, sets."""
WORKERS = 4


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class MortalBoard(Board):
    """Kills its process in one of the windows in which it changes what belongs to all."""

    WINDOWS = (
        "before the claim",
        "half a bank",
        "a whole bank",
        "banks switched",
        "slot freed",
        "half a claim",
    )
    window: str | None = None

    def _fold_ended(self, file: BoardFile) -> None:
        if self.window == "before the claim":
            kill_myself()
        super()._fold_ended(file)

    def _write_bank(self, file: BoardFile, number: int, claim: int) -> None:
        if self.window == "half a bank":
            new = at.BANKS[1 - (file.words[at.H_GENERATION] & 1)]
            file.words[new + at.B_FOLDED] = claim
            for word in range(at.B_ENDED, at.B_COUNTERS + 2):
                file.words[new + word] = 10**9
            kill_myself()
        super()._write_bank(file, number, claim)
        if self.window == "a whole bank":
            kill_myself()

    def _switch_banks(self, file: BoardFile) -> None:
        super()._switch_banks(file)
        if self.window == "banks switched":
            kill_myself()

    def _free(self, file: BoardFile, number: int) -> None:
        super()._free(file, number)
        if self.window == "slot freed":
            kill_myself()

    def _free_slot(self, file: BoardFile) -> int:
        number = super()._free_slot(file)
        if self.window == "half a claim":
            file.words[at.slot_offset(number) // at.WORD + at.S_FIGURES] = 10**9
            kill_myself()
        return number


def use_mortal_board(name: str, window: str | None) -> MortalBoard:
    """Have this process publish through such a board."""
    board = MortalBoard(figures_path(name))
    board.window = window
    boards._boards[board.path] = board
    return board


@dataclass
class Running:
    pid: int
    pipe: int
    said: bytes = b""
    announced: tuple[int, int, int] = (0, 0, 0)
    published: tuple[int, int, int] = (0, 0, 0)

    def listen(self) -> None:
        """Take what the worker has said so far."""
        while select.select([self.pipe], [], [], 0)[0]:
            data = os.read(self.pipe, 65536)
            if not data:
                break
            self.said += data
        whole = len(self.said) // REPORT.size * REPORT.size
        for done, *counts in REPORT.iter_unpack(self.said[:whole]):
            if done:
                self.published = tuple(counts)  # type: ignore[assignment]
            else:
                self.announced = tuple(counts)  # type: ignore[assignment]
        self.said = self.said[whole:]


@dataclass
class Seen:
    """What the run showed; `problems` is empty if all was right."""

    kills: int = 0
    folding_kills: int = 0
    readings: int = 0
    low: list[int] = field(default_factory=lambda: [0, 0, 0])
    high: list[int] = field(default_factory=lambda: [0, 0, 0])
    totals: list[int] = field(default_factory=lambda: [0, 0, 0])
    problems: list[str] = field(default_factory=list)


def work(cache: QuickCache, pipe: int, seed: int) -> None:
    """Count and publish until killed."""
    chance = random.Random(seed)
    counts = [0, 0, 0]
    publisher = cache._publisher
    assert publisher is not None
    while True:
        kinds = [chance.randrange(3) for _ in range(chance.randrange(1, 30))]
        counts = [count + kinds.count(kind) for kind, count in enumerate(counts)]
        # Before anything is done: the background thread publishes whenever it likes.
        os.write(pipe, REPORT.pack(0, *counts))
        for kind in kinds:
            if kind == 2:
                cache.set("new", 1)
            else:
                cache.get(("there", "missing")[kind], None)
        cache.publish()
        if publisher.claim is not None:
            # Else another process kept it from a slot for too long, on a busy machine; it tries again later.
            os.write(pipe, REPORT.pack(1, *counts))


def start(cache: QuickCache, seed: int, window: str | None) -> Running:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        if window is not None:
            use_mortal_board(NAME, window)
        work(cache, writing, seed)
    os.close(writing)
    return Running(pid, reading)


NAME = "counting workers"


def totals(reading: Reading) -> list[int]:
    rows = [*(worker.figures for worker in reading.workers), reading.ended]
    return [sum(row[place] for row in rows) for place in range(3)]


def run(kills: int, seed: int) -> Seen:
    chance = random.Random(seed)
    # The parent has counts of its own, which it never publishes; a child must not show them.
    cache = QuickCache(QuickCacheConfig(publish_as=NAME, default_ttl=None))
    cache.set("there", 1)
    cache.get("there")
    board = boards.board_at(figures_path(NAME))
    seen, running, last = Seen(), [], [0, 0, 0]
    running = [start(cache, chance.random().__hash__(), None) for _ in range(WORKERS)]
    ended: list[Running] = []

    def look() -> list[int]:
        nonlocal last
        now = totals(board.read())
        seen.readings += 1
        if any(a < b for a, b in zip(now, last, strict=True)):
            seen.problems.append(f"totals fell from {last} to {now}")
        last = now
        return now

    while seen.kills < kills:
        time.sleep(chance.random() * 0.01)
        look()
        victim = running.pop(chance.randrange(len(running)))
        os.kill(victim.pid, signal.SIGKILL)
        os.waitpid(victim.pid, 0)
        seen.kills += 1
        ended.append(victim)
        look()
        if chance.random() < 0.3:
            # Somebody who dies while he adds up those who died before.
            suicide = start(cache, seen.kills, chance.choice(MortalBoard.WINDOWS))
            time.sleep(0.01)
            look()
            try:
                os.kill(suicide.pid, signal.SIGKILL)
            finally:
                os.waitpid(suicide.pid, 0)
            ended.append(suicide)
            seen.kills += 1
            seen.folding_kills += 1
            look()
        running.append(start(cache, seen.kills, None))
        for one in (*running, *ended[-3:]):
            one.listen()
    for one in running:
        os.kill(one.pid, signal.SIGKILL)
        os.waitpid(one.pid, 0)
    for one in (*ended, *running):
        one.listen()
        os.close(one.pipe)
        seen.low = [a + b for a, b in zip(seen.low, one.published, strict=True)]
        seen.high = [a + b for a, b in zip(seen.high, one.announced, strict=True)]
    seen.totals = look()
    if not all(low <= now <= high for low, now, high in zip(seen.low, seen.totals, seen.high, strict=True)):
        seen.problems.append(f"totals {seen.totals} are not between {seen.low} and {seen.high}")
    return seen


def main(arguments: list[str]) -> None:
    seen: Any = vars(run(int(arguments[0]), int(arguments[1])))
    print(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1:])
