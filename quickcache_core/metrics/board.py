"""The figures of all processes that publish one cache, in a file that they share."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quickcache_core.metrics import layout as at
from quickcache_core.metrics.board_file import BoardFile, locked, open_board_file
from quickcache_core.metrics.figures import COUNTERS, NOTHING, StoreFigures
from quickcache_core.metrics.runtime import Unusable, is_private, make_private

_CHECK_INTERVAL = 1.0
"""Seconds between two looks whether the file is still there."""
_QUIET_AFTER = 3000
"""Milliseconds without a publication, after which a rate is out of date."""


class Slot:
    """A place in the file that belongs to this process, as long as `is_mine`."""

    __slots__ = ("_pid", "board", "claim", "file", "number", "word", "words")

    def __init__(self, board: Board, file: BoardFile, number: int, claim: int) -> None:
        self.board = board
        self._pid = os.getpid()
        self.file = file
        self.words = file.words
        self.number = number
        self.claim = claim
        self.word = at.slot_offset(number) // at.WORD

    def __del__(self) -> None:
        # Its store is gone; what it counted becomes a part of the totals of what has ended.
        if self._pid == os.getpid():
            self.board.let_go(self)

    @property
    def is_mine(self) -> bool:
        return self.words[self.word] == self.claim


@dataclass(frozen=True, slots=True)
class Worker:
    """What one process has published."""

    pid: int
    server: str
    uptime_s: float
    figures: StoreFigures
    ops_per_s: float
    obeyed: int
    """Number of the last command that it carried out."""
    claim: int
    host: str = ""
    """Nothing for the host that asks."""


@dataclass(frozen=True, slots=True)
class Reading:
    """All figures of one cache at one instant."""

    workers: tuple[Worker, ...] = ()
    ended: StoreFigures = NOTHING
    """Totals of processes that have ended. They never get smaller."""
    ended_workers: int = 0


class Board:
    """Claims slots, reads them, and adds up those of processes that have ended.

    One per path and process, see `board_at`. Methods may be called from any thread, and raise `OSError`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BoardFile | None = None
        self._checked_at = 0.0
        self.after_fork()

    def after_fork(self) -> None:
        """In the child: no slot is ours, whatever thread was doing what."""
        self._pid = os.getpid()
        self._thread_lock = threading.Lock()
        self._mine: dict[int, int] = {}
        """Slots that this process has locked, each with its claim."""

    # The file

    def file(self, now: float, *, create: bool = False, patience: float = 2.0) -> BoardFile | None:
        """The file that is there now. `now`: monotonic seconds; it is looked at once a second.

        Raises `TimeoutError` if another thread or process keeps it for over `patience` seconds.
        """
        file = self._file
        if file is not None and now - self._checked_at < _CHECK_INTERVAL:
            return file
        deadline = time.monotonic() + patience
        with self._in_one_thread(patience):
            self._checked_at = now
            if self._file is not None and self._is_in_place(self._file):
                return self._file
            if self._file is not None:
                self._file = None
                self._mine = {}
            if create:
                make_private(self.path.parent)
            elif not is_private(self.path.parent):
                return None
            self._file = open_board_file(self.path, create=create, patience=deadline - time.monotonic())
            return self._file

    def still_has(self, file: BoardFile, now: float) -> bool:
        """Whether it is the one that is there now, as `file` would say. Waits for nobody: while a command
        reads, its thread may keep the file for seconds.
        """
        if self._file is not file:
            return False
        if now - self._checked_at < _CHECK_INTERVAL:
            return True
        is_there = self._is_in_place(file)
        # Whoever wants the file next looks again if it is gone.
        self._checked_at = now if is_there else 0.0
        return is_there

    def _is_in_place(self, file: BoardFile) -> bool:
        try:
            info = self.path.lstat()
        except OSError:
            return False
        return (info.st_dev, info.st_ino) == file.identity and info.st_size >= at.FILE_SIZE

    @contextmanager
    def _in_one_thread(self, patience: float) -> Iterator[None]:
        if self._pid != os.getpid():  # uWSGI's master forks without telling Python
            self.after_fork()
        patience = max(patience, 0.0)
        if not self._thread_lock.acquire(timeout=patience):
            raise TimeoutError(f"another thread is busy with the figures for over {patience:.2g} s")
        try:
            yield
        finally:
            self._thread_lock.release()

    @contextmanager
    def exclusive(self, file: BoardFile, *, patience: float) -> Iterator[None]:
        """Nobody else claims, adds up or sends a command meanwhile. Raises `TimeoutError` after `patience`
        seconds.
        """
        deadline = time.monotonic() + patience
        one_thread = self._in_one_thread(patience)
        with one_thread, locked(file.descriptor, 0, patience=deadline - time.monotonic()):
            self._free_folded(file)
            yield

    # Slots

    def claim(self, file: BoardFile, server: str, *, started: float, patience: float = 2.0) -> Slot:
        """A slot for the process that calls. `started`: monotonic seconds."""
        with self.exclusive(file, patience=patience):
            self._fold_ended(file)
            number = self._free_slot(file)
            words, start = file.words, at.slot_offset(number) // at.WORD
            for word in range(start, start + at.SLOT_SIZE // at.WORD):
                words[word] = 0
            words[start + at.S_PID] = os.getpid()
            words[start + at.S_STARTED] = int(started * 1000)
            place = (start + at.S_SERVER) * at.WORD
            name = _shortened(server)
            file.bytes[place : place + len(name)] = name
            claim = words[at.H_CLAIMS] + 1
            words[at.H_CLAIMS] = claim
            self._mine[number] = claim
            # Last: a process that dies on the way here leaves a free slot.
            words[start + at.S_CLAIM] = claim
            return Slot(self, file, number, claim)

    def let_go(self, slot: Slot) -> None:
        """The slot ends as if its process had. Takes no lock: called by the garbage collector."""
        if self._file is slot.file and self._has(slot.number, slot.claim) and slot.is_mine:
            # In this order: while it is ours no other thread takes it, whose lock would be dropped here.
            slot.file.unlock(at.slot_offset(slot.number))
            if self._has(slot.number, slot.claim):
                del self._mine[slot.number]

    def forget(self, slot: Slot) -> None:
        """Give a slot back as if its process had never counted."""
        with self.exclusive(slot.file, patience=2.0):
            if self._file is slot.file and self._has(slot.number, slot.claim) and slot.is_mine:
                slot.words[slot.word] = 0
                del self._mine[slot.number]
                slot.file.unlock(at.slot_offset(slot.number))

    def _has(self, number: int, claim: int) -> bool:
        """Whether this process has locked the slot; it hasn't any more if somebody else has claimed it."""
        return self._mine.get(number) == claim

    def _free_slot(self, file: BoardFile) -> int:
        """A slot that is nobody's, locked for this process."""
        for number in range(at.SLOTS):
            used = number < file.words[at.H_SLOTS]
            if used and _claim_of(file, number):
                continue
            if not used:
                file.allocate_slot(number)
            if file.try_lock(at.slot_offset(number)):
                if not used:
                    file.words[at.H_SLOTS] = number + 1
                return number
        raise Unusable(f"{at.SLOTS} processes publish to {self.path}; there is no room for more")

    # Processes that have ended

    def _fold_ended(self, file: BoardFile) -> None:
        for number, claim in self._claimed(file):
            if not self._has(number, claim) and file.try_lock(at.slot_offset(number)):
                try:
                    self._fold(file, number, claim)
                finally:
                    file.unlock(at.slot_offset(number))

    def _fold(self, file: BoardFile, number: int, claim: int) -> None:
        """Add a slot to the totals and free it. Whoever dies in between leaves it counted exactly once."""
        self._write_bank(file, number, claim)
        self._switch_banks(file)
        self._free(file, number)

    def _write_bank(self, file: BoardFile, number: int, claim: int) -> None:
        words = file.words
        old, new = _banks(file)
        slot = at.slot_offset(number) // at.WORD + at.S_FIGURES
        words[new + at.B_FOLDED] = claim
        words[new + at.B_ENDED] = words[old + at.B_ENDED] + 1
        for field in range(len(COUNTERS)):
            words[new + at.B_COUNTERS + field] = words[old + at.B_COUNTERS + field] + words[slot + field]

    def _switch_banks(self, file: BoardFile) -> None:
        # From this one store on the slot is a part of the totals.
        file.words[at.H_GENERATION] = file.words[at.H_GENERATION] + 1

    def _free(self, file: BoardFile, number: int) -> None:
        file.words[at.slot_offset(number) // at.WORD + at.S_CLAIM] = 0

    def _free_folded(self, file: BoardFile) -> None:
        """Finish what a process that died in the middle of `_fold` began."""
        folded = file.words[_banks(file)[0] + at.B_FOLDED]
        for number, claim in self._claimed(file):
            if claim == folded:
                self._free(file, number)

    def _claimed(self, file: BoardFile) -> list[tuple[int, int]]:
        """Slots in use, each with its claim."""
        used = min(file.words[at.H_SLOTS], at.SLOTS)
        first = at.FIXED_SIZE // at.WORD
        claims = file.words[first : first + used * at.SLOT_SIZE // at.WORD : at.SLOT_SIZE // at.WORD].tolist()
        return [(number, claim) for number, claim in enumerate(claims) if claim]

    # Reading

    def read(self, *, patience: float = 2.0) -> Reading:
        """The figures of all; takes microseconds for each process. An empty reading if nobody publishes."""
        file = self.file(time.monotonic())
        if file is None:
            return Reading()
        with self.exclusive(file, patience=patience):
            words = file.words
            bank, _ = _banks(file)
            ended = [words[bank + at.B_COUNTERS + field] for field in range(len(COUNTERS))]
            count = words[bank + at.B_ENDED]
            workers = []
            for number, claim in self._claimed(file):
                worker = _worker(file, number, claim)
                if not self._has(number, claim) and file.try_lock(at.slot_offset(number)):
                    file.unlock(at.slot_offset(number))
                    ended = [a + b for a, b in zip(ended, worker.figures.counts, strict=True)]
                    count += 1
                else:
                    workers.append(worker)
        return Reading(tuple(workers), StoreFigures(*ended), count)


def _banks(file: BoardFile) -> tuple[int, int]:
    """The bank that holds, and the other one."""
    current = file.words[at.H_GENERATION] & 1
    return at.BANKS[current], at.BANKS[1 - current]


def _claim_of(file: BoardFile, number: int) -> int:
    return file.words[at.slot_offset(number) // at.WORD + at.S_CLAIM]


def _worker(file: BoardFile, number: int, claim: int) -> Worker:
    start = at.slot_offset(number) // at.WORD
    words = file.words[start : start + at.SLOT_SIZE // at.WORD].tolist()
    *counts, weight = words[at.S_FIGURES : at.S_FIGURES + len(StoreFigures._fields)]
    figures = StoreFigures(*counts)._replace(bytes=None if weight == at.UNKNOWN else weight)
    now = int(time.monotonic() * 1000)
    place = at.slot_offset(number) + at.S_SERVER * at.WORD
    name = bytes(file.bytes[place : place + at.SERVER_BYTES]).rstrip(b"\0")
    return Worker(
        pid=words[at.S_PID],
        server=name.decode("utf-8", "replace"),
        uptime_s=max(now - words[at.S_STARTED], 0) / 1000,
        figures=figures,
        ops_per_s=0.0 if now - words[at.S_PUBLISHED] > _QUIET_AFTER else words[at.S_RATE] / 1000,
        obeyed=words[at.S_OBEYED],
        claim=claim,
    )


def _shortened(name: str) -> bytes:
    return name.encode("utf-8", "replace")[: at.SERVER_BYTES].decode("utf-8", "ignore").encode()


_boards: dict[Path, Board] = {}
_boards_lock = threading.Lock()


def board_at(path: Path) -> Board:
    """The one of this process: a second descriptor of the file, once closed, would drop all locks."""
    with _boards_lock:
        return _boards.setdefault(path, Board(path))


def _after_fork_in_child() -> None:
    global _boards_lock
    _boards_lock = threading.Lock()
    for board in list(_boards.values()):
        board.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
