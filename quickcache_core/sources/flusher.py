"""The thread that brings pending writes to the source, and the end of the program."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Final
from weakref import WeakSet, ref

from quickcache_core.errors import QueueFull
from quickcache_core.maintenance import _will_be_forked_by_uwsgi
from quickcache_core.sources.write_behind import WriteBehind

logger = logging.getLogger(__name__)

_IDLE: Final = 5.0
"""Seconds after which a thread without work ends."""
_LOOK: Final = 0.05
"""Seconds between two looks at what another process, or another thread, may have changed."""


class Flusher:
    """Takes writes, and writes them from one daemon thread.

    The thread starts with the first write, or, where the queue is shared with other processes, with the first
    look at it; it ends when there is nothing to do, at `close` and with this object. Where no thread can be
    started, writers write to the source themselves. The end of the program is a `close`.
    """

    def __init__(self, behind: WriteBehind) -> None:
        self.behind = behind
        self._reset()
        _flushers.add(self)
        _at_exit.arrange()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        """Notified when something was written."""
        self._thread: threading.Thread | None = None
        self._news = _taken()
        """Free when the thread has something to look at. No Event: a finaliser that the thread runs in the
        middle of `Event.wait` would wait for itself in `Event.set`."""
        self._since_look = 0
        self._flushing = 0
        self._is_idle = False
        self._is_closed = False
        self._is_down = False
        self._pid = os.getpid()

    def _note_fork(self) -> None:
        if self._pid != os.getpid():
            self._reset()
            self.behind.reset()
            _at_exit.arrange()

    # Writers

    def put(self, values: Mapping[str, Any], patience: float) -> None:
        """Raises `QueueFull` if there was no room for so many seconds."""
        self._note_fork()
        queue, options = self.behind.queue, self.behind.options
        give_up = time.monotonic() + patience
        while not queue.put(values, options.max_pending):
            self.wake(0)
            left = give_up - time.monotonic()
            if left <= 0.0:
                raise QueueFull(queue.size(), options.max_pending, patience)
            if self._has_thread():
                with self._changed:
                    self._changed.wait(min(left, _LOOK))
            elif not self._work():
                time.sleep(min(left, _LOOK))
        self._since_look += len(values)
        # One that is told to end, and hasn't yet, may not look again.
        if self._is_idle or self._is_closed or self._thread is None or self._since_look >= options.max_batch:
            self.wake(options.max_delay)

    def look(self) -> None:
        """Before the queue is read: whoever shares it may have left something in it."""
        if self.behind.queue.is_durable and (self._thread is None or self._pid != os.getpid()):
            self._note_fork()
            self.wake(None)

    def wake(self, due: float | None) -> None:
        """Have the thread look, and start it if there is none. `due`: seconds until something is, if
        known.
        """
        self._note_fork()
        with self._lock:
            self._is_closed = False
            has_thread = self._has_thread() or self._start()
        if not has_thread:
            if due is not None:
                self._work()
            return
        _tell(self._news)

    def _has_thread(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _start(self) -> bool:
        if _will_be_forked_by_uwsgi():
            return False
        # With the thread: gevent may have replaced both since this object was made.
        news = self._news = _taken()
        # With this object the thread goes.
        me = ref(self, lambda _: _tell(news))
        thread = threading.Thread(target=_serve, args=(me, news), name="quickcache-writes", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            # No more threads, or the interpreter is on its way out.
            logger.debug("No thread for writes: %s", error)
            return False
        self._thread = thread
        return True

    # The thread

    def step(self) -> tuple[float, bool] | None:
        """Do what is due. Seconds to sleep, and whether something is pending; None: the thread may end."""
        queue = self.behind.queue
        with self._lock:
            self._since_look = 0
            was_idle, self._is_idle = self._is_idle, False
        try:
            wait = self.behind.due_in(flushing=self._flushing > 0)
            if wait == 0.0 and not self._is_closed:
                return (0.0 if self._work() else _LOOK), True
            with self._lock:
                may_end = self._is_closed or (was_idle and not queue.is_durable)
                if wait is None and may_end and queue.oldest_age() is None:
                    self._thread = None
                    return None
                self._is_idle = wait is None
                if wait is None and queue.oldest_age() is not None:
                    # Put in after the look, by somebody who saw that the thread wasn't idle.
                    self._is_idle = False
                    return 0.0, True
        except Exception as error:
            self._complain(error)
            return 1.0, True
        self._is_down = False
        if wait is None:
            return (max(self.behind.options.max_delay, _LOOK) if queue.is_durable else _IDLE), False
        if self._is_closed:
            with self._lock:
                self._thread = None
            return None
        return (min(wait, 1.0) if queue.is_durable else wait), True

    def _work(self) -> bool:
        try:
            return self.behind.work()
        finally:
            with self._changed:
                self._changed.notify_all()

    def _complain(self, error: Exception) -> None:
        if not self._is_down:
            self._is_down = True
            logger.error("The queue of writes can't be read (%s); it is tried again", type(error).__name__)
        logger.debug("How it failed", exc_info=error)

    # The end

    def flush(self, timeout: float | None) -> bool:
        """Whether all that was pending at the call was written, or replaced by later writes, in so many
        seconds (None: `close_timeout`).
        """
        self._note_fork()
        timeout = self.behind.options.close_timeout if timeout is None else timeout
        end = time.monotonic() + timeout
        with self._lock:
            self._flushing += 1
        try:
            self.behind.hurry()
            # Twice: of a key that was on its way with an older value, the newer one goes to the end.
            return self._wait_for_line(end) and self._wait_for_line(end)
        finally:
            with self._lock:
                self._flushing -= 1

    def _wait_for_line(self, end: float) -> bool:
        """Whether all that stands in line now has left its place by then."""
        queue = self.behind.queue
        span = queue.span()
        last = 0 if span is None else span[1]
        while span is not None and span[0] <= last:
            left = end - time.monotonic()
            if left <= 0.0:
                return False
            self.wake(None)
            if self._has_thread():
                with self._changed:
                    self._changed.wait(min(left, _LOOK))
            elif not self._work():
                time.sleep(min(left, _LOOK))
            span = queue.span()
        return True

    def close(self, timeout: float | None) -> bool:
        """`flush`, and end the thread. What could not be written is logged."""
        timeout = self.behind.options.close_timeout if timeout is None else timeout
        done = self.flush(timeout)
        with self._lock:
            self._is_closed = True
            thread = self._thread
        _tell(self._news)
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0)
        self.behind.queue.close()
        if not done:
            left = self.behind.queue.size()
            if self.behind.queue.is_durable:
                logger.warning(
                    "%d writes could not be written in %g s; they stay in the queue", left, timeout
                )
            else:
                logger.error(
                    "%d writes could not be written in %g s; they are lost if the program ends now",
                    left,
                    timeout,
                )
        return done


def _serve(flusher: ref[Flusher], news: threading.Lock) -> None:
    kept: Flusher | None = None
    while True:
        one = kept or flusher()
        if one is None or one._news is not news:
            return
        answer = one.step()
        if answer is None:
            return
        wait, is_pending = answer
        # A cache that nobody uses any more shall go, but not with something pending.
        kept = one if is_pending else None
        del one
        if wait:
            news.acquire(timeout=wait)


def _taken() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


def _tell(news: threading.Lock) -> None:
    try:
        news.release()
    except RuntimeError:
        pass  # somebody else told it, and it hasn't looked yet


class _AtExit:
    """Closes all flushers when the program ends, also when it is a child that `multiprocessing` made."""

    def __init__(self) -> None:
        self._pid = 0

    def arrange(self) -> None:
        if self._pid == os.getpid():
            return
        if not self._pid:
            atexit.register(self.close_all)
        self._pid = os.getpid()
        multiprocessing = sys.modules.get("multiprocessing.util")
        if multiprocessing is not None:
            # Its children end without the functions of `atexit`.
            multiprocessing.Finalize(None, self.close_all, exitpriority=100)

    def close_all(self) -> None:
        for flusher in list(_flushers):
            try:
                flusher._note_fork()
                flusher.close(None)
            except Exception as error:
                logger.error("The last writes failed (%s)", type(error).__name__)
                logger.debug("How they failed", exc_info=error)


_flushers: Final[WeakSet[Flusher]] = WeakSet()
_at_exit: Final = _AtExit()
