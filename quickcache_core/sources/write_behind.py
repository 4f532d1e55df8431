"""Brings pending writes to the source: batches, retries, rows that the source never takes.

What becomes of a batch:

    the source takes it                  forgotten
    it raises                            the batch is tried again after a pause that doubles each time
    it raises again, and the batch has   halved, and the halves halved, down to the rows that fail alone;
      several rows                       the others get through
    a row fails alone                    it is left out of batches and tried alone, with pauses of its own
    ... `attempts` times, and each time  it is a dead letter: kept, counted, shown, to be revived or discarded
      the source took others meanwhile
    no row gets through                  the source is down: nothing is given up, everything is tried again
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from quickcache_core.clock import Clock
from quickcache_core.errors import SerializationError
from quickcache_core.sources.options import BehindOptions, WriteFailure
from quickcache_core.sources.queue import REMOVED, Unreadable, Write, WriteQueue, described

logger = logging.getLogger(__name__)

_SPLIT_AFTER: Final = 2
"""Failures of a batch before it is taken apart: most are over by then, and concern all rows."""
_PROBES: Final = 6
"""Rows of a batch that are tried alone; if all fail, and so did everything else, the source is down."""


class Target(Protocol):
    """The source, as this thread calls it."""

    def store_many(self, values: dict[str, Any]) -> None: ...

    def remove(self, key: str) -> None: ...

    def release(self) -> None: ...


@dataclass(slots=True)
class _Suspect:
    """A row that failed alone."""

    version: int
    not_before: float
    taken: int = 0
    """How many writes the source had taken when it failed last."""
    strikes: int = 0


@dataclass(slots=True)
class _Round:
    """What happened in one round."""

    written: int = 0
    alone: list[tuple[Write, Exception]] = field(default_factory=list)
    """Rows that failed alone, and how."""
    last_error: Exception | None = None

    @property
    def is_hopeless(self) -> bool:
        return not self.written and len(self.alone) >= _PROBES


class WriteBehind:
    """The writing, without a thread: `work` does what is due. One caller at a time; others return at once."""

    def __init__(
        self,
        queue: WriteQueue,
        target: Target,
        options: BehindOptions,
        clock: Clock,
        gave_up: Callable[[str], object],
    ) -> None:
        """`gave_up` is told the key of each write that becomes a dead letter."""
        self.queue = queue
        self.options = options
        self.failures = 0
        """Calls of the source that raised."""
        self.target = target
        self._clock = clock
        self._gave_up = gave_up
        self.reset()

    def reset(self) -> None:
        """After a fork."""
        self._suspects: dict[str, _Suspect] = {}
        self._taken = 0
        self._batch_fails = 0
        self._fails_in_a_row = 0
        """Rounds in which nothing was written."""
        self._not_before = 0.0
        self._is_down = False
        self._turn = threading.Lock()

    def due_in(self, *, flushing: bool = False) -> float | None:
        """Seconds until there is something to do; None if nothing is pending. `flushing`: nothing waits for
        others to be written with.
        """
        age = self.queue.oldest_age()
        if age is None:
            return None
        now = self._clock.monotonic()
        wait = self._not_before - now
        suspects = len(self._suspects)
        if suspects and not self.queue.has(suspects + 1):
            wait = max(wait, min(one.not_before for one in self._suspects.values()) - now)
        elif (
            not flushing
            and not self._fails_in_a_row
            and not self.queue.has(suspects + self.options.max_batch)
        ):
            wait = max(wait, self.options.max_delay - age)
        return max(wait, 0.0)

    def hurry(self) -> None:
        """Forget the pauses."""
        self._not_before = 0.0
        for suspect in list(self._suspects.values()):
            suspect.not_before = 0.0

    def work(self) -> bool:
        """Write one batch, and what is due of the rows that fail alone. False: nothing was written, or
        somebody else is at it.
        """
        if not self._turn.acquire(blocking=False):
            return False
        try:
            with self.queue.flushing() as mine:
                return mine and self._work()
        finally:
            self._turn.release()

    def _work(self) -> bool:
        self._forget_suspects()
        now = self._clock.monotonic()
        batch = self._readable(self.queue.batch(self.options.max_batch, self._suspects))
        due = [key for key, one in self._suspects.items() if one.not_before <= now]
        alone = self._readable(self.queue.find(due))
        if not batch and not alone:
            return False
        this = _Round()
        try:
            self._write(batch, this)
            for write in alone:
                if this.last_error is not None and not this.written:
                    break  # one is enough to see whether the source is back
                if not self._attempt([write], this, alone=True):
                    del self._suspects[write.key]
        finally:
            self.target.release()
        self._conclude(this)
        return this.written > 0

    def _readable(self, batch: Sequence[Write]) -> list[Write]:
        for write in batch:
            if isinstance(write.value, Unreadable):
                self._bury(write, SerializationError(write.value.reason), "can't be read from the queue")
        return [write for write in batch if not isinstance(write.value, Unreadable)]

    def _forget_suspects(self) -> None:
        versions = {write.key: write.version for write in self.queue.find(self._suspects)}
        for key, one in list(self._suspects.items()):
            # Gone, or another value, which may be taken.
            if versions.get(key) != one.version:
                del self._suspects[key]

    def _write(self, batch: list[Write], this: _Round) -> None:
        left = self._attempt(batch, this, alone=len(batch) == 1) if batch else []
        if not left:
            self._batch_fails = 0
            return
        self._batch_fails += 1
        if len(left) == 1 and len(batch) > 1:
            self._attempt(left, this, alone=True)
        elif len(left) > 1 and self._batch_fails >= _SPLIT_AFTER:
            # In any order: those that fail shall not be the first ones each time.
            random.shuffle(left)
            self._halve(left, this)

    def _halve(self, batch: list[Write], this: _Round) -> None:
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            if this.is_hopeless:
                return
            left = self._attempt(half, this, alone=len(half) == 1)
            if left and len(half) > 1:
                self._halve(left, this) if len(left) > 1 else self._attempt(left, this, alone=True)

    def _attempt(self, batch: list[Write], this: _Round, *, alone: bool) -> list[Write]:
        """What the source didn't take."""
        left = {write.key: write for write in batch}
        values = {write.key: write.value for write in batch if write.value is not REMOVED}
        try:
            if values:
                self.target.store_many(values)
                self._done([left.pop(key) for key in values], this)
            for write in list(left.values()):
                self.target.remove(write.key)
                self._done([left.pop(write.key)], this)
        except Exception as error:
            self.failures += 1
            this.last_error = error
            if alone:
                this.alone.append((batch[0], error))
            self._tell(WriteFailure(error, tuple(left), is_final=False))
        return list(left.values())

    def _done(self, writes: list[Write], this: _Round) -> None:
        this.written += len(writes)
        self._taken += len(writes)
        self.queue.done(writes)

    def _conclude(self, this: _Round) -> None:
        now = self._clock.monotonic()
        for write, error in this.alone:
            self._note_failure(write, error, this, now)
        if this.written:
            self._fails_in_a_row = 0
            self._not_before = 0.0
            self._note_recovery()
            return
        self._fails_in_a_row += 1
        self._not_before = now + self._pause(self._fails_in_a_row)
        if not self._is_down and this.last_error is not None:
            self._is_down = True
            # The type only: messages and tracebacks may show values, which have no place above DEBUG.
            logger.warning(
                "The source takes no writes (%s); they wait in the queue, and are tried again",
                type(this.last_error).__name__,
            )

    def _note_recovery(self) -> None:
        for key, one in list(self._suspects.items()):
            if not one.strikes:
                # They failed while everything did: back into the batches.
                del self._suspects[key]
        if self._is_down:
            self._is_down = False
            logger.info("The source takes writes again")

    def _note_failure(self, write: Write, error: Exception, this: _Round, now: float) -> None:
        suspect = self._suspects.get(write.key)
        if suspect is None:
            suspect = self._suspects[write.key] = _Suspect(
                write.version, now, 0 if this.written else self._taken
            )
        if self._taken > suspect.taken:
            suspect.taken = self._taken
            suspect.strikes += 1
            if suspect.strikes >= self.options.attempts:
                del self._suspects[write.key]
                times = self.options.attempts
                self._bury(write, error, f"was refused {times} times, while others were taken")
                return
        # While nothing gets through, for longer than the next round: others have to be tried then.
        rounds = max(suspect.strikes, self._fails_in_a_row, 1) + (not this.written)
        suspect.not_before = now + self._pause(
            rounds, self.options.longest_retry * (1 if this.written else 2)
        )

    def _bury(self, write: Write, error: Exception, what: str) -> None:
        if not self.queue.bury(write, described(error)):
            return
        logger.error("A write %s (%s); it is kept as a dead letter", what, type(error).__name__)
        self._gave_up(write.key)
        self._tell(WriteFailure(error, (write.key,), is_final=True))

    def _tell(self, failure: WriteFailure) -> None:
        logger.debug("%d writes failed", len(failure.keys), exc_info=failure.error)
        if self.options.on_error is None:
            return
        try:
            self.options.on_error(failure)
        except Exception as error:
            logger.error("on_error failed (%s)", type(error).__name__)
            logger.debug("How on_error failed", exc_info=error)

    def _pause(self, failures: int, longest: float | None = None) -> float:
        """At least half of, and at most, what has doubled with each failure."""
        options = self.options
        pause = options.first_retry * 2.0 ** min(failures - 1, 60)
        # Jitter: processes that failed together don't come back together.
        return min(pause, longest or options.longest_retry) * random.uniform(0.5, 1.0)  # noqa: S311
