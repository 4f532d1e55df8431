"""One writer at a time among all threads and processes, whoever is killed meanwhile."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from typing import Any, Final

# Called with each write: a global name is found faster than the attribute of a module.
_lockf = fcntl.lockf
_TAKE, _LET_GO = fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN
_TAKEN = (errno.EAGAIN, errno.EACCES)

WAITED: Final = 5
"""Index of the shared word that says until when, in milliseconds, others should give way to a waiter."""
_YIELDS = 3
_FIRST_PAUSE = 20e-6
_LONGEST_PAUSE = 1e-3
_LONG = 3e-3
"""Seconds of waiting after which others are asked to give way."""
_COURTESY = 20e-3
"""Seconds for which they do so, unless they are asked again."""


class WriterGuard:
    """A lock of the kernel's around every write transaction.

    LMDB has a lock of its own, which may sleep for ever when writers that contend for it are killed. The
    kernel drops this one when its holder dies.

    POSIX gives such locks to processes, and drops them when *any* descriptor of the file is closed: there is
    one guard per directory and process, and nobody else opens its file. The descriptor may be used on after
    a fork; the child holds nothing then.
    """

    def __init__(self, descriptor: int, patience: float, words: Any = None) -> None:
        """`words[WAITED]` is shared by all processes; without `words` nobody gives way to others."""
        self._descriptor = descriptor
        self._words = [0] * (WAITED + 1) if words is None else words
        self._patience = patience
        self.owner = 0
        """The thread of this process that has it."""
        # That knows whose it is, also when a signal handler raised right after it was taken.
        self.lock: Any = threading.RLock()
        # Taken together with the lock: where gevent replaces both, both are the same kind.
        self._sleep = time.sleep
        self._thread_id = threading.get_ident

    def acquire(self, patience: float | None = None) -> bool:
        """False if it was somebody else's for the whole of the patience (seconds; None: what it was made
        with).
        """
        if patience is None:
            patience = self._patience
        if self._words[WAITED]:
            self._give_way()
        lock = self.lock
        try:
            if not lock.acquire(False) and not lock.acquire(timeout=patience):
                return False
            self.owner = self._thread_id()
            try:
                _lockf(self._descriptor, _TAKE)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
                if not self._wait(patience):
                    self.owner = 0
                    lock.release()
                    return False
        except BaseException:
            # Of a signal handler, maybe: right after either lock was taken, too.
            self.give_up()
            raise
        return True

    def release(self) -> None:
        self.owner = 0
        try:
            _lockf(self._descriptor, _LET_GO)
        finally:
            self.lock.release()

    def give_up(self) -> None:
        """Let go of what the calling thread has, if it has anything.

        After an exception, which may be that of a signal handler: such may strike wherever a function begins,
        that of `release` too.
        """
        if self.lock._is_owned():
            self.release()

    def is_mine(self) -> bool:
        """Whether the calling thread holds it: then it is a finaliser, in the middle of a write."""
        return self.owner == self._thread_id()

    def hold_writers(self, patience: float) -> bool:
        """Keep the threads of this process from writing, so that a child begins between two writes, or other
        files come into use. False if one is still writing after `patience` seconds, or this one is.
        """
        return not self.is_mine() and self.lock.acquire(timeout=patience)

    def let_writers_go(self) -> None:
        self.lock.release()

    def _give_way(self) -> None:
        # Whoever writes in a loop takes the lock again within microseconds, and would keep others out, who
        # look every now and then.
        if self._words[WAITED] > time.monotonic() * 1000:
            self._sleep(_LONGEST_PAUSE)

    def _wait(self, patience: float) -> bool:
        # No waiting lock of the kernel's: that can't be bounded without signals.
        began = time.monotonic()
        give_up = began + patience
        pause = _FIRST_PAUSE
        yields = _YIELDS
        while (now := time.monotonic()) < give_up:
            if now - began > _LONG:
                # For a while only: a waiter may be killed.
                self._words[WAITED] = int((now + _COURTESY) * 1000)
            if yields:
                # A write takes a few microseconds, and the shortest sleep ten times as long.
                yields -= 1
                os.sched_yield()
            else:
                self._sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            try:
                _lockf(self._descriptor, _TAKE)
            except OSError as error:
                if error.errno not in _TAKEN:
                    return False
            else:
                if now - began > _LONG:
                    self._words[WAITED] = 0
                return True
        return False


def open_lock_file(path: str | os.PathLike[str]) -> int:
    """A descriptor to lock, for the whole life of the process."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
