"""Publishes the figures of one store of this process, and does what commands ask of the store."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

from quickcache_core.metrics import layout as at
from quickcache_core.metrics import ring
from quickcache_core.metrics.board import Board, Reading, Slot, Worker, board_at
from quickcache_core.metrics.board_file import BoardFile
from quickcache_core.metrics.figures import COUNTERS, NOTHING, FigureSource, StoreFigures
from quickcache_core.metrics.server import server_name

logger = logging.getLogger(__name__)

PUBLISH_INTERVAL: Final = 1.0
"""Seconds between two publications by the background thread."""
_TROUBLE_PAUSE: Final = PUBLISH_INTERVAL / 2
"""Seconds after which trouble is met again: over before the background thread's next turn, and long beside
`_PATIENCE`.
"""
_PATIENCE: Final = 0.05
"""Seconds that a request waits for others who have the file, at most every `_TROUBLE_PAUSE`."""
_ANSWER_WITHIN: Final = 5_000_000_000
"""Nanoseconds after which nobody waits for an answer any more."""

_COUNTED: Final = len(COUNTERS)


class Publisher:
    """Writes absolute totals since the process began, or was forked, into its slot of the figures file.

    `publish` is called at the end of each request, once a second by the background thread, and at exit. It
    never raises. Once there is something to publish, `wake(publisher)` asks for the background thread, and a
    slot is claimed: for this alone it waits for another process or thread that has the file, 0.05 s at most,
    and tries again half a second later at the earliest.

    `locate` gives the path of the file, whenever it is opened: servers change their user after a fork.
    """

    def __init__(
        self,
        source: FigureSource,
        locate: Callable[[], Path],
        wake: Callable[[Publisher], None],
        *,
        shared_entries: bool = False,
        everywhere: Callable[[], Reading] | None = None,
    ) -> None:
        self.source = source
        self.shared_entries = shared_entries
        """Whether all processes have the same entries, so that they must not be added up."""
        self.everywhere = everywhere
        """The figures of the processes of all hosts; None where there is one host only."""
        self._locate = locate
        self._wake = wake
        self._created = time.monotonic_ns()
        self._started = time.monotonic()
        self._muted = False
        self._base = NOTHING
        """What was counted before this process began to count for itself."""
        self._seen = 0
        """The last command that was carried out, or is older than the store."""
        self._seen_in: tuple[int, int] | None = None
        """The file that `_seen` is about. A child of a fork goes on from what its parent has seen."""
        self._given: deque[tuple[BoardFile, int]] = deque(maxlen=at.COMMANDS)
        """Where stand the commands that this process gave itself. There is no room for older ones there."""
        self._forget_slot()
        _publishers.add(self)
        _hear_of_uwsgi_forks()

    def _forget_slot(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._wanted = False
        self._board: Board | None = None
        self._slot: Slot | None = None
        self._figures: StoreFigures | None = None
        """What has been published."""
        self._in_trouble = self._complained = False
        self._retry_at = 0.0
        self._rate_since = time.monotonic()
        self._rate_from = 0
        self._rate = 0.0

    @property
    def path(self) -> Path:
        """The figures file."""
        return self._locate()

    @property
    def board(self) -> Board:
        return board_at(self.path)

    @property
    def pid(self) -> int:
        """The process that it publishes for."""
        return self._pid

    @property
    def claim(self) -> int | None:
        """What tells the slot of this publisher from others; None without a slot."""
        slot = self._slot
        return slot.claim if slot is not None and slot.is_mine else None

    def publish(self) -> None:
        """Bring the slot up to date, and carry out commands. A microsecond or two when nothing is new."""
        if self._pid != os.getpid():  # uWSGI's master forks without telling Python
            self.after_fork_in_child(False)
        # Not `with`: two threads at the end of their requests don't wait for each other, and the one that
        # came first looks again for what the other has counted.
        self._wanted = True
        while self._wanted and self._lock.acquire(False):
            try:
                self._wanted = False
                self._publish()
            except Exception as error:
                self._report(error)
            finally:
                self._lock.release()

    sweep = publish
    """What the background thread calls."""

    def own(self) -> Worker | None:
        """What this process counted since it began, or was forked; None if it has nothing to say."""
        figures = None if self._muted or self._pid != os.getpid() else self.source.figures()
        if figures is None or figures.counts == self._base.counts:
            return None
        counts = (max(now - then, 0) for now, then in zip(figures.counts, self._base.counts, strict=True))
        figures = figures._replace(**dict(zip(COUNTERS, counts, strict=True)))
        uptime = time.monotonic() - self._started
        return Worker(self._pid, server_name(), uptime, figures, self._rate, 0, 0)

    def mute(self) -> None:
        """Publish nothing, and take back what was: this process only looks at what others do."""
        self._muted = True
        with self._lock:
            slot, self._slot = self._slot, None
            if slot is not None and self._board is not None:
                try:
                    self._board.forget(slot)
                except OSError as error:
                    logger.debug("A slot could not be given back: %s", error)

    def tell_others(self, kind: ring.Kind, text: str, limit: int | None = None) -> int | None:
        """Give a command to all processes but this one, see `ring.send`: whoever gives it has acted here
        himself, and what is stored after that stays.
        """
        return ring.send(self.board, kind, text, limit, first=self._note_given)

    def _note_given(self, file: BoardFile, number: int) -> None:
        self._given.append((file, number))

    def stay_asleep(self) -> None:
        """Ask for no background thread any more."""
        self._wake = _nobody

    def count_from_zero(self) -> None:
        """The metrics of the store have been reset."""
        self._base = NOTHING
        self._figures = None

    def _publish(self) -> None:
        if self._muted:
            return
        now = time.monotonic()
        slot = self._slot
        timed = now - self._rate_since >= PUBLISH_INTERVAL
        if slot is None:
            slot = self._claimed(now)
        elif slot.words[slot.word] != slot.claim or (timed and not self._is_in_place(slot, now)):
            self._give_up(slot, now)
            slot = self._claimed(now)
        if slot is None:
            return
        if slot.words[at.H_NEWEST] != self._seen:
            self._obey(slot)
        figures = self.source.figures()
        if figures is not None and (timed or figures != self._figures):
            self._write(slot, figures, now, timed)
            self._in_trouble = self._complained = False

    def _is_in_place(self, slot: Slot, now: float) -> bool:
        return self._board is not None and self._board.still_has(slot.file, now)

    def _claimed(self, now: float) -> Slot | None:
        """A slot, if there is anything to publish."""
        if self._in_trouble and now < self._retry_at:
            return None
        figures = self.source.figures()
        if figures is None or figures.counts == self._base.counts:
            return None
        # Before there is a slot: where there can't be one, a process without another request tries again too.
        self._wake(self)
        self._board = board_at(self._locate())
        deadline = time.monotonic() + _PATIENCE
        file = self._board.file(now, create=True, patience=_PATIENCE)
        if file is None:
            return None
        if self._seen_in != file.identity:
            self._seen, self._seen_in = ring.seen_before(file, self._created), file.identity
        patience = deadline - time.monotonic()
        slot = self._board.claim(file, server_name(), started=self._started, patience=patience)
        slot.words[slot.word + at.S_OBEYED] = self._seen
        self._slot, self._figures = slot, None
        return slot

    def _give_up(self, slot: Slot, now: float) -> None:
        """The slot isn't ours any more: the file was removed, or somebody closed a descriptor of it."""
        self._slot = None
        if self._is_in_place(slot, now) and self._figures is not None:
            # The file is the same, so what stood in the slot is a part of the totals of what has ended.
            self._base = self._figures

    def _write(self, slot: Slot, figures: StoreFigures, now: float, timed: bool) -> None:
        words, first, old = slot.words, slot.word + at.S_FIGURES, self._figures
        base = self._base.counts
        for place, value in enumerate(figures.counts):
            if old is None or value != old[place]:
                # Below the base for an instant while another thread resets the metrics.
                words[first + place] = max(value - base[place], 0)
        words[first + _COUNTED] = figures.entries
        words[first + _COUNTED + 1] = figures.max_entries
        words[first + _COUNTED + 2] = at.UNKNOWN if figures.bytes is None else figures.bytes
        words[slot.word + at.S_PUBLISHED] = int(now * 1000)
        self._figures = figures
        if timed:
            done, seconds = figures.done, now - self._rate_since
            # Fewer than before once the metrics have been reset: nobody knows what this second had.
            self._rate = max(done - self._rate_from, 0) / seconds
            words[slot.word + at.S_RATE] = int(self._rate * 1000)
            self._rate_from, self._rate_since = done, now

    def _obey(self, slot: Slot) -> None:
        for command in ring.commands_after(slot.file, self._seen):
            # After a gap it stands for all that were overwritten, and others gave some of these.
            is_one = command.number == self._seen + 1
            self._seen = command.number
            if is_one and (slot.file, command.number) in self._given:
                continue
            try:
                self._carry_out(command, slot)
            except Exception as error:
                logger.warning("A command could not be carried out (%s)", type(error).__name__)
                logger.debug("Why", exc_info=error)
        slot.words[slot.word + at.S_OBEYED] = self._seen

    def _carry_out(self, command: ring.Command, slot: Slot) -> None:
        if command.kind == ring.Kind.CLEAR:
            self.source.clear(command.prefix)
        elif command.kind == ring.Kind.NAMESPACE:
            self.source.next_generation(command.prefix)
        elif command.kind == ring.Kind.TAGS:
            self.source.invalidate_tags([int(slot) for slot in command.prefix.split(",")])
        elif command.kind == ring.Kind.KEYS and time.monotonic_ns() - command.sent < _ANSWER_WITHIN:
            keys = self.source.keys(command.prefix, command.limit)
            path = ring.answer_path(slot.board, command.number, slot.claim)
            ring.write_answer(path, self._pid, keys)

    def _report(self, error: Exception) -> None:
        self._retry_at = time.monotonic() + _TROUBLE_PAUSE
        again, self._in_trouble = self._in_trouble, True
        if self._complained or (isinstance(error, TimeoutError) and not again):
            # A busy machine holds up whoever has the lock. One that is stopped has it the next time, too.
            return
        self._complained = True
        logger.warning("No figures for other processes (%s); the cache works on", error)
        logger.debug("Why", exc_info=error)

    # Forks

    def before_fork(self) -> bool:
        return False

    def after_fork_in_parent(self, held: bool) -> None:
        pass

    def after_fork_in_child(self, held: bool) -> None:
        """Count from here: what the store has counted so far is the parent's, which publishes it."""
        if self._pid == os.getpid():  # told twice, by Python and by uWSGI
            return
        # Nothing is asked of a server here: the fork would wait for it, and for locks that threads of the
        # parent had, if it takes an import.
        self._base = self.source.counted() or NOTHING
        self._started = time.monotonic()
        self._forget_slot()
        self._rate_from = self._base.done


def _nobody(publisher: Publisher) -> None:
    pass


_publishers: WeakSet[Publisher] = WeakSet()


@atexit.register
def _publish_at_exit() -> None:
    for publisher in list(_publishers):
        publisher.publish()


def _hear_of_uwsgi_forks() -> None:
    """uWSGI's master forks without Python's hooks, and has one of its own."""
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None or getattr(getattr(uwsgi, "post_fork_hook", None), "tells_quickcache", False):
        return
    former = getattr(uwsgi, "post_fork_hook", None)

    def after_fork() -> None:
        for publisher in list(_publishers):
            publisher.after_fork_in_child(False)
        if former is not None:
            former()

    after_fork.tells_quickcache = True  # type: ignore[attr-defined]
    uwsgi.post_fork_hook = after_fork
