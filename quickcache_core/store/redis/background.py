"""What there is to do for a store apart from its operations: by the maintenance thread, or now and then
by them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic, sleep
from typing import Final

from quickcache_core.errors import StoreUnavailable
from quickcache_core.store.redis.announcing import Announcing
from quickcache_core.store.redis.client import Refused
from quickcache_core.store.redis.former import Former
from quickcache_core.store.redis.known import Known
from quickcache_core.store.redis.leases import Leases
from quickcache_core.store.redis.near import TrackedNear
from quickcache_core.store.redis.recovery import Recovery
from quickcache_core.store.redis.size import Size
from quickcache_core.store.redis.untracked import Untracked

logger = logging.getLogger(__name__)

INTERVAL: Final = 1.0
"""Seconds."""
_STOP_LOOKS: Final = 200
_BY_THREAD: Final = 0.2
_BY_OPERATION: Final = 0.01
"""Seconds at a time for the removal of what former generations left."""


class Background:
    """A member of `maintenance`."""

    def __init__(
        self,
        near: TrackedNear | Untracked,
        known: Known,
        leases: Leases,
        recovery: Recovery,
        former: Former,
        size: Size,
        announcing: Announcing,
    ) -> None:
        self._near = near
        self._known = known
        self._leases = leases
        self._recovery = recovery
        self._former = former
        self._size = size
        self._announcing = announcing
        self._pid = 0
        self._next = 0.0
        self._turn = [True]
        """Taken out by who is at it: threads don't wait for each other."""
        self._has_complained = False
        self.wake: Callable[[], None] = _nothing
        """Asks for the thread."""
        self.has_thread: Callable[[], bool] = _never

    def attend(self) -> None:
        """Called after each operation that asked the server."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._turn = [True]
            self.wake()
        if monotonic() >= self._next:
            self._next = monotonic() + INTERVAL
            if not self.has_thread():
                self._work(_BY_OPERATION, by_thread=False)

    def sweep(self) -> None:
        self._work(_BY_THREAD, by_thread=True)

    def stop(self) -> None:
        """For good; waits for what is under way."""
        for _ in range(_STOP_LOOKS):
            try:
                self._turn.pop()
            except IndexError:
                sleep(0.01)
            else:
                return

    def _work(self, seconds: float, *, by_thread: bool) -> None:
        turn = self._turn
        try:
            mine = turn.pop()
        except IndexError:
            return
        try:
            for step in self._steps(seconds, by_thread=by_thread):
                try:
                    step()
                except Refused as error:
                    # The others may be allowed to.
                    self._complain(error)
        except StoreUnavailable:
            pass  # logged where it was found
        finally:
            turn.append(mine)

    def _steps(self, seconds: float, *, by_thread: bool) -> Iterator[Callable[[], object]]:
        if by_thread:
            yield self._near.tend
        yield self._leases.renew
        yield self._recovery.sweep
        yield self._known.keep_warm
        yield self._announcing.work
        if self._former.is_due:
            yield partial(self._former.work, seconds)
        if by_thread and self._size.is_due:
            yield partial(self._size.work, seconds)

    def _complain(self, error: Refused) -> None:
        if not self._has_complained:
            self._has_complained = True
            logger.warning("What is done in the background is refused, at least in part: %s", error)

    def before_fork(self) -> bool:
        return False

    def after_fork_in_parent(self, held: bool) -> None:
        pass

    def after_fork_in_child(self, held: bool) -> None:
        """Noticed by the next operation."""


def _nothing() -> None:
    pass


def _never() -> bool:
    return False
