"""Threads for loads that nobody, or nobody for long, waits for."""

from __future__ import annotations

import contextvars
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

logger = logging.getLogger(__name__)

Around = Callable[[], AbstractContextManager[Any]]

_MOST_THREADS = 32
_IDLE = 5.0
"""Seconds after which a thread without work ends."""


class Background:
    """A few daemon threads that come with the work and go without it.

    Not the executor of the standard library: its threads have the interpreter wait at exit for a loader that
    never returns. Work that finds all threads busy waits in line. After a fork the child has neither the
    threads nor the work.
    """

    def __init__(self, most: int = _MOST_THREADS, idle: float = _IDLE) -> None:
        self._most = most
        self._patience = idle
        self.reset()
        os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        self._work: deque[Callable[[], None]] = deque()
        self._ready = threading.Condition()
        self._threads = 0
        """Those that wait for other loads are left out."""
        self._idle = 0
        self._mine = threading.local()

    @property
    def thread_count(self) -> int:
        return self._threads

    def run(self, work: Callable[[], object], around: Around | None = None) -> None:
        """Have a thread call `work`, which must not raise, in a copy of the caller's context.

        `around()` is entered by that thread around it.
        """
        context = contextvars.copy_context()

        def surrounded() -> None:
            with nullcontext() if around is None else around():
                work()

        def job() -> None:
            context.run(surrounded)

        with self._ready:
            if self._is_mine():
                # Perhaps what a loader waits for: before those that have to wait for a thread like its own.
                self._work.appendleft(job)
            else:
                self._work.append(job)
        try:
            self._have_served()
        except RuntimeError:
            # No more threads, or the interpreter is on its way out.
            with self._ready:
                if not self._threads and job in self._work:
                    self._work.remove(job)
                    raise

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around a wait for other work: threads that wait don't count, or they might all wait for work that
        has to wait for a thread.
        """
        if not self._is_mine():
            yield
            return
        with self._ready:
            self._threads -= 1
        try:
            try:
                self._have_served()
            except RuntimeError:
                pass
            yield
        finally:
            with self._ready:
                self._threads += 1

    def _is_mine(self) -> bool:
        return getattr(self._mine, "is_one", False)

    def _have_served(self) -> None:
        """See to it that a thread takes what is in line."""
        with self._ready:
            if self._idle >= len(self._work) or self._threads >= self._most:
                self._ready.notify()
                return
            self._threads += 1
        try:
            threading.Thread(target=self._serve, name="quickcache-loader", daemon=True).start()
        except BaseException:
            with self._ready:
                self._threads -= 1
            raise

    def _serve(self) -> None:
        self._mine.is_one = True
        while (job := self._next()) is not None:
            try:
                job()
            except BaseException as error:
                # An exit or interrupt, too: no loader has a thread of its own to end.
                logger.error("Work in the background failed (%s)", type(error).__name__)
                logger.debug("How it failed", exc_info=error)
            # No reference to what it worked with while it waits.
            del job

    def _next(self) -> Callable[[], None] | None:
        with self._ready:
            if self._threads > self._most:
                self._threads -= 1
                return None
            self._idle += 1
            try:
                if not self._work:
                    self._ready.wait(self._patience)
                if self._work:
                    return self._work.popleft()
                self._threads -= 1
                return None
            finally:
                self._idle -= 1


background: Final = Background()
