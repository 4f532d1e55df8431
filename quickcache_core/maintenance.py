"""The one background thread of a process, and what happens to its caches at a fork."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

logger = logging.getLogger(__name__)

_FORK_PATIENCE = 1.0
"""Seconds that a fork waits for our lock."""
_LONGEST_WAIT = 3600.0
"""Seconds; a longer cleanup interval is looked at this often."""


class Member(Protocol):
    """What is looked after."""

    def sweep(self) -> object:
        """What is to be done in each interval."""

    def before_fork(self) -> bool: ...

    def after_fork_in_parent(self, held: bool) -> None: ...

    def after_fork_in_child(self, held: bool) -> None: ...


class Maintenance:
    """Sweeps every member in its own interval, from one daemon thread.

    The thread starts when a member first asks for it (`wake`), and ends when no member is left, at `stop` of
    the last one, and at exit. Members are held weakly. Where threads don't run (uWSGI without
    `--enable-threads`) nothing is swept in the background, and nothing else changes. After a fork the child
    has no thread until one of its writes asks for it. uWSGI's master never has one.
    """

    def __init__(self) -> None:
        self._known: WeakSet[Member] = WeakSet()
        self._intervals: WeakKeyDictionary[Member, float] = WeakKeyDictionary()
        self._at_fork: list[tuple[Member, bool]] = []
        self._thread: threading.Thread | None = None
        self._shutting_down = False
        self._reset()
        atexit.register(self._shut_down)
        os.register_at_fork(
            before=self._before_fork,
            after_in_parent=self._after_fork_in_parent,
            after_in_child=self._after_fork_in_child,
        )

    def adopt(self, member: Member) -> None:
        """Look after the member at forks. Starts nothing."""
        with self._lock:
            self._known.add(member)

    def wake(self, member: Member, interval: float) -> None:
        """Sweep the member every `interval` seconds from now on. Cheap when that is so already."""
        if self._pid != os.getpid():
            # uWSGI's master forks without telling Python.
            self._reset()
        if self._intervals.get(member) == interval and self.is_running:
            return
        with self._lock:
            self._intervals[member] = interval
            if not self.is_running and not self._shutting_down and not _will_be_forked_by_uwsgi():
                # With the thread: gevent may have replaced both since this module was imported.
                self._changed = _taken()
                thread = threading.Thread(target=self._run, name="quickcache-maintenance", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    # No more threads, or the interpreter is on its way out. Writes sweep as well.
                    logger.debug("No maintenance thread: %s", error)
                    return
                self._thread = thread
            else:
                self._note_change()

    def dismiss(self, member: Member) -> None:
        """Sweep the member no longer."""
        with self._lock:
            self._intervals.pop(member, None)
            self._note_change()

    @property
    def is_running(self) -> bool:
        """Whether there is a thread in this process."""
        thread = self._thread
        return thread is not None and self._pid == os.getpid() and thread.is_alive()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._fork_lock = threading.Lock()
        self._holds_lock = False
        self._changed = _taken()
        """Free when something has changed. No Event: a finaliser that the thread runs in the middle of
        `Event.wait` would wait for itself in `Event.set`.
        """
        self._thread = None
        self._pid: int = os.getpid()

    def _run(self) -> None:
        try:
            self._sweep_until_nobody_is_left()
        finally:
            with self._lock:
                if self._thread is threading.current_thread():
                    self._thread = None

    def _sweep_until_nobody_is_left(self) -> None:
        next_sweep: WeakKeyDictionary[Member, float] = WeakKeyDictionary()
        while True:
            with self._lock:
                # Asked of this copy: a member may go at any moment.
                members = dict(self._intervals)
                if not members or self._shutting_down:
                    # Now, under the lock: whoever asks from here on gets a new thread.
                    self._thread = None
                    return
                self._changed.acquire(False)
            now = time.monotonic()
            wait = _LONGEST_WAIT
            for member, interval in members.items():
                due = min(next_sweep.get(member, now + interval), now + interval)
                if due <= now:
                    try:
                        member.sweep()
                    except Exception:
                        logger.exception("Sweeping failed; it is tried again in %s s", interval)
                    due = time.monotonic() + interval
                next_sweep[member] = due
                wait = min(wait, due - time.monotonic())
            # No strong references while it sleeps: a cache that nobody uses any more shall go.
            del members, member
            self._changed.acquire(timeout=max(wait, 0.0))

    def _note_change(self) -> None:
        try:
            self._changed.release()
        except RuntimeError:
            pass  # somebody else noted one, and the thread hasn't seen it yet

    def _shut_down(self) -> None:
        self._shutting_down = True
        self._note_change()
        thread = self._thread
        if thread is not None and self.is_running:
            thread.join(timeout=1.0)

    def _before_fork(self) -> None:
        # One fork at a time, so that two threads that fork don't mix up their lists.
        self._fork_lock.acquire()
        with self._lock:
            members = list(self._known)
        # The members before our own lock: a write asks for the thread (`wake`) while it holds its store's
        # lock.
        self._at_fork = []
        for member in members:
            try:
                self._at_fork.append((member, member.before_fork()))
            except Exception:
                # The fork goes on without it, and our own locks have to be right after it.
                logger.exception("A cache could not prepare for a fork; the child's may be damaged")
        self._holds_lock = self._lock.acquire(timeout=_FORK_PATIENCE)

    def _after_fork_in_parent(self) -> None:
        try:
            if self._holds_lock:
                self._lock.release()
            self._after_fork(lambda member, held: member.after_fork_in_parent(held))
        finally:
            self._fork_lock.release()

    def _after_fork_in_child(self) -> None:
        self._reset()
        self._after_fork(lambda member, held: member.after_fork_in_child(held))

    def _after_fork(self, tell: Callable[[Member, bool], None]) -> None:
        members, self._at_fork = self._at_fork, []
        for member, held in members:
            try:
                tell(member, held)
            except Exception:
                # The others have locks to be let go of.
                logger.exception("A cache could not go on after a fork; it may be damaged in this process")


def _taken() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


def _will_be_forked_by_uwsgi() -> bool:
    """Whether this process loads the application for uWSGI's workers to be.

    uWSGI forks without the interpreter's lock: a worker that is forked while a thread has it waits for ever.
    """
    uwsgi: Any = sys.modules.get("uwsgi")
    try:
        return uwsgi is not None and uwsgi.worker_id() == 0 and uwsgi.mule_id() == 0
    except AttributeError:  # another module of this name
        return False


maintenance = Maintenance()
