"""What was written to the cache and not yet to the source."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from quickcache_core.clock import Clock
from quickcache_core.entry import MISSING
from quickcache_core.serializer.isolation import thaw

_FORK_PATIENCE = 1.0
"""Seconds that a fork waits for the lock."""


class Removed(Enum):
    REMOVED = "removed"


REMOVED: Final = Removed.REMOVED
"""Instead of a value: the row is to be removed."""


class Unreadable:
    """Instead of a value that the queue holds and can't, or must not, turn into an object."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Write:
    """One write under way; there is one per key at most, the last."""

    key: str
    value: Any
    """Or `REMOVED`, or an `Unreadable`."""
    version: int
    """Another one for each write of the key."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A write that the source refused again and again while it took others."""

    key: str
    value: Any
    """`MISSING` if the row was to be removed, or can't be read."""
    is_removal: bool
    error: str
    """What the source said last: type and message."""


class WriteQueue(ABC):
    """Pending writes by key, the last one of each, oldest first; and those that were given up.

    A key that is written again keeps its place and gets the new value. All methods may be called from any
    thread. Methods that look at all of it take time by its length.
    """

    is_durable: bool

    @abstractmethod
    def put(self, values: Mapping[str, Any], limit: int) -> bool:
        """Add or replace writes, all or none: False if there were more than `limit` then, dead letters
        included. Values in their stored form, or `REMOVED`.
        """

    @abstractmethod
    def find(self, keys: Iterable[str]) -> list[Write]:
        """The pending writes of those keys."""

    def peek(self, keys: Iterable[str]) -> dict[str, Any]:
        """The pending values, or `REMOVED`, of those keys that have one that can be read."""
        return {
            write.key: write.value for write in self.find(keys) if not isinstance(write.value, Unreadable)
        }

    @abstractmethod
    def batch(self, limit: int, skip: Collection[str]) -> list[Write]:
        """The oldest writes, but for some keys. They stay pending until they are `done`."""

    @abstractmethod
    def done(self, writes: Iterable[Write]) -> None:
        """Forget those writes. A key that was written again meanwhile stays, at the end of the line."""

    @abstractmethod
    def bury(self, write: Write, error: str) -> bool:
        """Make it a dead letter, unless the key was written again; whether it is one."""

    @abstractmethod
    def dead(self) -> list[DeadLetter]: ...

    @abstractmethod
    def revive(self, keys: Iterable[str] | None) -> int:
        """Make dead letters pending again, None: all; how many."""

    @abstractmethod
    def discard(self, keys: Iterable[str] | None) -> int:
        """Forget dead letters, None: all; how many."""

    @abstractmethod
    def size(self) -> int:
        """Pending writes."""

    @abstractmethod
    def has(self, number: int) -> bool:
        """Whether so many writes are pending. Cheap, for a small number."""

    @abstractmethod
    def span(self) -> tuple[int, int] | None:
        """The places of the oldest and of the newest pending write, which only ever grow; None for none."""

    @abstractmethod
    def oldest_age(self) -> float | None:
        """Seconds since the oldest pending write was put in; None for none."""

    def close(self) -> None:
        """Give back what it holds; it is opened again when it is used."""

    @abstractmethod
    def flushing(self) -> AbstractContextManager[bool]:
        """Gives whether this process, and no other one, may write to the source meanwhile."""


@dataclass(slots=True)
class _Pending:
    stored: Any
    version: int
    place: int
    since: float


class MemoryQueue(WriteQueue):
    """In this process's memory, and lost with it. After a fork the parent writes what was pending; the child
    begins with nothing.
    """

    is_durable = False

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._reset()

    def _reset(self) -> None:
        # Reentrant: a finaliser may write in the middle of a write.
        self._lock = threading.RLock()
        self._pending: dict[str, _Pending] = {}
        self._dead: dict[str, DeadLetter] = {}
        self._buried: dict[str, Any] = {}
        self._number = 0
        self._pid = os.getpid()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if self._pid != os.getpid():
            # uWSGI's master forks without telling Python.
            self._reset()
        with self._lock:
            yield

    def _next(self) -> int:
        self._number += 1
        return self._number

    def put(self, values: Mapping[str, Any], limit: int) -> bool:
        now = self._clock.monotonic()
        with self._locked():
            fresh = sum(1 for key in values if key not in self._pending and key not in self._dead)
            if fresh and len(self._pending) + len(self._dead) + fresh > limit:
                return False
            for key, stored in values.items():
                self._dead.pop(key, None)
                self._buried.pop(key, None)
                number = self._next()
                known = self._pending.get(key)
                if known is None:
                    self._pending[key] = _Pending(stored, number, number, now)
                else:
                    known.stored, known.version = stored, number
            return True

    def find(self, keys: Iterable[str]) -> list[Write]:
        with self._locked():
            if not self._pending:
                return []
            chosen = [
                (key, one.stored, one.version) for key in keys if (one := self._pending.get(key)) is not None
            ]
        return [_thawed(*one) for one in chosen]

    def batch(self, limit: int, skip: Collection[str]) -> list[Write]:
        with self._locked():
            chosen: list[tuple[str, Any, int]] = []
            for key, one in self._pending.items():
                if len(chosen) == limit:
                    break
                if key not in skip:
                    chosen.append((key, one.stored, one.version))
        return [_thawed(*one) for one in chosen]

    def done(self, writes: Iterable[Write]) -> None:
        with self._locked():
            for write in writes:
                one = self._pending.pop(write.key, None)
                if one is not None and one.version != write.version:
                    one.place, one.since = self._next(), self._clock.monotonic()
                    self._pending[write.key] = one

    def bury(self, write: Write, error: str) -> bool:
        with self._locked():
            one = self._pending.get(write.key)
            if one is None or one.version != write.version:
                return False
            del self._pending[write.key]
            self._buried[write.key] = one.stored
            self._dead[write.key] = dead_letter(write.key, write.value, error)
            return True

    def dead(self) -> list[DeadLetter]:
        with self._locked():
            return list(self._dead.values())

    def revive(self, keys: Iterable[str] | None) -> int:
        with self._locked():
            chosen = list(self._dead) if keys is None else [key for key in keys if key in self._dead]
            # Not the value of the letter, which its readers may have changed.
            return len(chosen) if self.put({key: self._buried[key] for key in chosen}, 1 << 62) else 0

    def discard(self, keys: Iterable[str] | None) -> int:
        with self._locked():
            chosen = list(self._dead) if keys is None else [key for key in keys if key in self._dead]
            for key in chosen:
                del self._dead[key], self._buried[key]
            return len(chosen)

    def size(self) -> int:
        with self._locked():
            return len(self._pending)

    def has(self, number: int) -> bool:
        return self.size() >= number

    def span(self) -> tuple[int, int] | None:
        with self._locked():
            if not self._pending:
                return None
            # In the order of their places: who gets a new place goes to the end.
            return next(iter(self._pending.values())).place, next(reversed(self._pending.values())).place

    def oldest_age(self) -> float | None:
        with self._locked():
            if not self._pending:
                return None
            return self._clock.monotonic() - next(iter(self._pending.values())).since

    @contextmanager
    def flushing(self) -> Iterator[bool]:
        yield True

    # At forks, see `maintenance.Member`.

    def sweep(self) -> None:
        pass

    def before_fork(self) -> bool:
        return self._lock.acquire(timeout=_FORK_PATIENCE)

    def after_fork_in_parent(self, held: bool) -> None:
        if held:
            self._lock.release()

    def after_fork_in_child(self, held: bool) -> None:
        self._reset()


def _thawed(key: str, stored: Any, version: int) -> Write:
    try:
        return Write(key, thaw(stored), version)
    except Exception as error:
        return Write(key, Unreadable(described(error)), version)


def dead_letter(key: str, value: Any, error: str) -> DeadLetter:
    plain = MISSING if value is REMOVED or isinstance(value, Unreadable) else value
    return DeadLetter(key, plain, value is REMOVED, error)


def described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
