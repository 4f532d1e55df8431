"""The lock of a store, and what happens to writes that begin in the middle of another one."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

PATIENCE = 2.0
"""Seconds that a write waits for the lock. A hold takes about a thousandth of that, so then two
finalisers in the middle of writes to two caches are waiting for each other, and one of the writes has to be
put off.
"""


class WriteLock:
    """A lock that knows whether a write is under way.

    The garbage collector may run in the middle of a write, and with it a finaliser that uses the cache, in
    the same thread. It gets the lock, since the lock is reentrant: otherwise it would wait for itself. But
    its write would meet books that are half written, so it is put off until the outer write is through.
    """

    __slots__ = ("acquire", "busy", "postponed", "release")

    def __init__(self) -> None:
        lock = threading.RLock()
        self.acquire = lock.acquire
        self.release = lock.release
        self.busy = False
        """Whether a write is under way. To be asked under the lock: then it is one of the asking thread."""
        self.postponed: list[Callable[[], object]] = []

    def is_idle(self) -> bool:
        """Whether nobody holds it: then nobody will see to what was postponed, either."""
        if not self.acquire(False):
            return False
        idle = not self.busy
        self.release()
        return idle

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Locked(Protocol):
    """What has methods that are `exclusive`."""

    @property
    def lock(self) -> WriteLock: ...

    def finish(self) -> None:
        """Called after each write, without the lock. Among other things, it runs `lock.postponed`."""


L = TypeVar("L", bound=Locked)
P = ParamSpec("P")
R = TypeVar("R")


def exclusive(
    answer: Callable[Concatenate[L, P], R], *, postpone: bool = True
) -> Callable[[Callable[Concatenate[L, P], tuple[R, Any]]], Callable[Concatenate[L, P], R]]:
    """Run a method as a write: under the lock, and never within another write.

    The method returns its result and what must outlive the lock, since dropping the last reference to a value
    may run its finaliser. If a write of this thread is under way, `answer` says what the method would return,
    and with `postpone` the method runs later.
    """

    def decorate(method: Callable[Concatenate[L, P], tuple[R, Any]]) -> Callable[Concatenate[L, P], R]:
        def run(self: L, /, *args: P.args, **kwargs: P.kwargs) -> R:
            lock = self.lock
            acquire, release = lock.acquire, lock.release
            mine = acquire(False) or acquire(True, PATIENCE)
            if not mine or lock.busy:
                if mine:
                    release()
                result = answer(self, *args, **kwargs)
                if postpone:
                    lock.postponed.append(functools.partial(run, self, *args, **kwargs))
                    if not mine and lock.is_idle():
                        # Whoever held it let go before this was on the list.
                        self.finish()
                return result
            lock.busy = True
            try:
                result, _garbage = method(self, *args, **kwargs)
            finally:
                lock.busy = False
                release()
                self.finish()
            return result

        functools.update_wrapper(run, method)
        return run

    return decorate
