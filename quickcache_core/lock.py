"""Mutual exclusion, as far as the scope of a cache reaches."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Protocol, TypeVar
from uuid import uuid4
from weakref import WeakKeyDictionary

from quickcache_core.entry import FOREVER, MISSING, Missing
from quickcache_core.errors import LockError, LockNotOwned, LockTimeout, QuickCacheError
from quickcache_core.serializer.isolation import thaw
from quickcache_core.store.base import Bounds, Store
from quickcache_core.ttl import TTL, seconds
from quickcache_core.twins import Aside, called, carried_out, twin

L = TypeVar("L", bound="Lock")

_SHORTEST, _LONGEST = 0.001, 0.1
"""Seconds between two looks at a lock that somebody has; twice as long with each look."""
_SEPARATOR: Final = "\x1f"
_FENCE: Final = "fence"
_MANY: Final = Bounds(2**31)
_SWEEP_AFTER: Final = 256
"""Locks taken between two looks at those whose lease has ended, which nobody needs to have released."""
_BOUND, _FREE_STANDING = ".", ":"
"""How the stored text begins of a lock that ends with its process, and of any other; its token follows."""


class Signs(Protocol):
    """Tells which processes live, where the kernel knows."""

    def show_life(self, sign: str) -> Callable[[], None] | None:
        """Have others see that this process lives; what takes the sign down. None if it can't be shown.
        Raises `StoreUnavailable`.
        """

    def has_died(self, sign: str) -> bool:
        """Whether it is certain that nobody shows it any more. Raises `StoreUnavailable`."""


class Locks:
    """All locks of a scope, in a store of their own.

    The store must not evict or clear what it holds, and raises `StoreUnavailable` rather than answering as an
    empty one would. With `signs`, a lock is free as soon as its holder's process has ended.
    """

    def __init__(
        self,
        store: Store,
        signs: Signs | None = None,
        aside: Aside | None = None,
        *,
        sweeps: bool = True,
    ) -> None:
        """`sweeps`: whether the store has to be told to let expired locks go."""
        self.aside = aside
        self._store = store
        self._signs = signs
        self._sweeps = sweeps
        self._shown: dict[str, tuple[str, Callable[[], None]]] = {}
        """By token: the key, and what takes the sign of life down."""
        self._look_after = 64
        self._taken = 0

    def begin(self, name: str, token: str, *, bound: bool) -> str:
        """What to store under the name in order to hold the lock; `end` follows where it isn't taken.

        With `bound` the lock ends with this process, if that can be told. Raises `StoreUnavailable`.
        """
        if bound and self._signs is not None:
            # Before the lock is taken: nobody must see it without the sign.
            key = _key(name)
            take_down = self._signs.show_life(f"{key}{_SEPARATOR}{token}")
            if take_down is not None:
                self._shown[token] = key, take_down
                if len(self._shown) > self._look_after:
                    self._take_down_ended()
                return _BOUND + token
        return _FREE_STANDING + token

    def end(self, token: str) -> None:
        shown = self._shown.pop(token, None)
        if shown is not None:
            shown[1]()

    def take(self, name: str, text: str, lease: float) -> bool:
        key = _key(name)
        # Where a holder may have died, it is looked for first; which also spares the others a writer, each
        # time that somebody waits.
        if self._signs is not None and self._living(key) is not None:
            return False
        if not self._store.add(key, text, lease, _MANY):
            return False
        self._taken += 1
        if self._sweeps and self._taken % _SWEEP_AFTER == 0:
            self._store.sweep()
        return True

    def free(self, name: str, token: str) -> bool:
        """Whether it was held with that token."""
        key = _key(name)
        text = self._held_as(key, token)
        freed = text is not None and self._store.remove_if(key, text)
        self.end(token)
        return freed

    def extend(self, name: str, token: str, lease: float) -> bool:
        """Let the lease begin anew, of another length; whether it was held with that token."""
        key = _key(name)
        text = self._held_as(key, token)
        return text is not None and self._store.touch_if(key, text, lease)

    def holder(self, name: str) -> str | None:
        """The token that it is held with."""
        text = self._living(_key(name))
        return None if text is None else text[1:]

    def next_number(self) -> int:
        # Of all locks together: one number per name would stay for ever. It begins with the time, so that it
        # goes on above where it was if the store is lost.
        start = time.time_ns() // 1000
        number: int = self._store.incr(_FENCE, 1, None, start, FOREVER, _MANY)[1]
        return number

    def _held_as(self, key: str, token: str) -> str | None:
        """What is stored if it is held with that token; None if it can't be."""
        if self._signs is None:
            return _FREE_STANDING + token
        text = self._text(key)
        return text if text is not None and text[1:] == token else None

    def _text(self, key: str) -> str | None:
        found = self._store.look(key)
        text = None if found is None else thaw(found.stored)
        return text if isinstance(text, str) else None

    def _living(self, key: str) -> str | None:
        """What is stored, unless the holder has died: then the lock is freed."""
        text = self._text(key)
        if text is None or not text.startswith(_BOUND) or self._signs is None:
            return text
        if self._signs.has_died(f"{key}{_SEPARATOR}{text[1:]}") and self._store.remove_if(key, text):
            return None
        return text

    def _take_down_ended(self) -> None:
        """Of locks that nobody released before their lease ended."""
        for token, (key, _) in list(self._shown.items()):
            text = self._text(key)
            if text is None or text[1:] != token:
                self.end(token)
        self._look_after = max(64, 2 * len(self._shown))


class _Held(threading.local):
    """What a thread took; a child after a fork, which goes on in a copy of the thread, took nothing."""

    _token: str | None = None
    _pid = 0

    @property
    def token(self) -> str | None:
        return self._token if self._pid == os.getpid() else None

    @token.setter
    def token(self, token: str | None) -> None:
        self._token, self._pid = token, os.getpid()


class Lock:
    """A lock by name, among all who use the store: threads and tasks, in scope `shared` the processes of the
    host as well.

    It is a lease: it ends by itself `lease` seconds after it was taken or extended, so that nobody waits for
    ever for a holder that was lost. In scope `shared` it also ends with the process that took it, at once,
    even if that was killed; unless a token was given, which another process may have by now.

    A holder that is held up for longer than its lease, by a slow query or a stopped machine, is no longer
    alone, and learns of it no earlier than it asks: `release` and `extend` raise `LockNotOwned` then, and so
    does the end of a `with` block. Where that must not do harm, hand `fence()` on to the resource, and have
    it refuse lower numbers than it has seen.

    Locks aren't reentrant and not fair: who waits looks again and again, after 1 to 100 ms. They aren't
    entries: `clear`, eviction, snapshots and the kill switch leave them alone.

    One object may be used by many threads and tasks. Each has a token of its own, and what it took is its
    own; who got the token from somebody else passes it. Methods with an `a` in front are for coroutines.
    """

    def __init__(self, locks: Locks, scope: str, name: str, *, lease: TTL, wait: TTL | None) -> None:
        self.name = _text("name", name)
        self.lease = seconds(lease, "lease")
        self.wait = _patience(wait)
        self._locks = locks
        self._full_name = f"{scope}{name}"
        self._held = _Held()
        self._held_by_tasks: WeakKeyDictionary[asyncio.Task[Any], str] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} lease={self.lease:g} wait={self.wait:g}>"

    @property
    def aside(self) -> Aside | None:
        return self._locks.aside

    @property
    def token(self) -> str | None:
        """What this thread or task took the lock with; None if it didn't, or has released it."""
        task = _task()
        return self._held.token if task is None else self._held_by_tasks.get(task)

    def acquire(
        self, blocking: bool = True, wait: TTL | Missing | None = MISSING, *, token: str | None = None
    ) -> bool:
        """Take the lock; whether that was possible within `wait` seconds: None for any time, 0 for at once,
        and what the lock was made with if it is left out. `blocking=False` is `wait=0`.

        A `token` of one's own, a string that nobody else has, lets another process release the lock; it
        doesn't end with this process then. Raises `LockError` if this thread or task has the lock already.
        """
        attempt = self._attempt(token)
        try:
            for pause in self._pauses(blocking, wait):
                if pause is not None:
                    time.sleep(pause)
                if attempt.succeeds():
                    self._note(attempt.token)
                    return True
            return False
        except BaseException:
            with contextlib.suppress(QuickCacheError):
                attempt.undo()
            raise
        finally:
            attempt.end()

    async def aacquire(
        self, blocking: bool = True, wait: TTL | Missing | None = MISSING, *, token: str | None = None
    ) -> bool:
        """As `acquire`. Other tasks run while it waits."""
        attempt = await called(self.aside, self._attempt, token)
        try:
            for pause in self._pauses(blocking, wait):
                if pause is not None:
                    await asyncio.sleep(pause)
                # In a task of its own: what belongs to this one is noted here.
                if await carried_out(self.aside, attempt.succeeds):
                    self._note(attempt.token)
                    return True
            return False
        except BaseException:
            with contextlib.suppress(QuickCacheError):
                await carried_out(self.aside, attempt.undo)
            raise
        finally:
            attempt.end()

    def release(self, *, token: str | None = None) -> None:
        """Let others have the lock. Raises `LockNotOwned` if it isn't held with the token, by default that of
        this thread or task; whoever holds it keeps it. After `StoreUnavailable` it may be tried again.
        """
        token = self._token(token)
        self._released(token, self._locks.free(self._full_name, token))

    async def arelease(self, *, token: str | None = None) -> None:
        """As `release`. A task that is cancelled meanwhile has released it all the same."""
        token = self._token(token)
        self._released(token, await carried_out(self.aside, self._locks.free, self._full_name, token))

    def _released(self, token: str, was_held: bool) -> None:
        if token == self.token:
            self._note(None)
        if not was_held:
            raise LockNotOwned(self.name)

    def extend(self, lease: TTL | None = None, *, token: str | None = None) -> None:
        """Let a lease begin now, by default of the length that the lock was made with. Raises `LockNotOwned`
        as `release` does.
        """
        duration = self.lease if lease is None else seconds(lease, "lease")
        if not self._locks.extend(self._full_name, self._token(token), duration):
            raise LockNotOwned(self.name)

    def locked(self) -> bool:
        """Whether anybody holds it."""
        return self._locks.holder(self._full_name) is not None

    def owned(self, *, token: str | None = None) -> bool:
        """Whether it is held with the token, by default that of this thread or task."""
        token = self.token if token is None else token
        return token is not None and self._locks.holder(self._full_name) == token

    def fence(self, *, token: str | None = None) -> int:
        """A number above those that all former holders got. Raises `LockNotOwned` as `release` does.

        Numbers begin with the microseconds since 1970: they go on rising if the store is lost, as long as the
        machine's clock isn't set back.
        """
        token = self._token(token)
        number = self._locks.next_number()
        # In this order: who still holds the lock held it when the number was drawn.
        if self._locks.holder(self._full_name) != token:
            raise LockNotOwned(self.name)
        return number

    aextend = twin(extend)
    alocked = twin(locked)
    aowned = twin(owned)
    afence = twin(fence)

    def __enter__(self: L) -> L:
        """Raises `LockTimeout` if somebody else held the lock for too long."""
        if not self.acquire():
            raise LockTimeout(self.name, self.wait)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.release()
        except QuickCacheError as problem:
            _report(problem, error)

    async def __aenter__(self: L) -> L:
        if not await self.aacquire():
            raise LockTimeout(self.name, self.wait)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.arelease()
        except QuickCacheError as problem:
            _report(problem, error)

    def _attempt(self, token: str | None) -> _Attempt:
        mine = self.token
        if mine is not None:
            if self.owned():
                raise LockError(
                    self.name,
                    f"Lock {self.name!r} is held by this thread or task already, and would wait for itself: "
                    "locks aren't reentrant; release it first",
                )
            self._note(None)  # its lease has ended
        if token is not None:
            token = _text("token", token)
        return _Attempt(self, self._locks, self._full_name, token)

    def _pauses(self, blocking: bool, wait: TTL | Missing | None) -> Iterator[float | None]:
        """How long to wait before each attempt; None before the first."""
        patience = self.wait if wait is MISSING else _patience(wait)
        end = time.monotonic() + (patience if blocking else 0.0)
        pause = _SHORTEST
        yield None
        while (left := end - time.monotonic()) > 0.0:
            # Of different lengths, or those who began together would always look together.
            yield min(left, pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(2 * pause, _LONGEST)

    def _token(self, token: str | None) -> str:
        token = self.token if token is None else token
        if token is None:
            raise LockNotOwned(self.name)
        return token

    def _note(self, token: str | None) -> None:
        task = _task()
        if task is None:
            self._held.token = token
        elif token is None:
            self._held_by_tasks.pop(task, None)
        else:
            self._held_by_tasks[task] = token


class _Attempt:
    """One call of `acquire`."""

    def __init__(self, lock: Lock, locks: Locks, name: str, token: str | None) -> None:
        self.token = uuid4().hex if token is None else token
        self._lock = lock
        self._locks = locks
        self._name = name
        self._may_hold = False
        self._text = locks.begin(name, self.token, bound=token is None)

    def succeeds(self) -> bool:
        self._may_hold = True  # also if the answer doesn't come
        self._may_hold = self._locks.take(self._name, self._text, self._lock.lease)
        return self._may_hold

    def undo(self) -> None:
        """Give back what nobody would know of: the caller was interrupted, or cancelled, meanwhile."""
        if self._may_hold:
            self._may_hold = False
            self._locks.free(self._name, self.token)

    def end(self) -> None:
        if not self._may_hold:
            self._locks.end(self.token)


def _report(problem: QuickCacheError, error: BaseException | None) -> None:
    """What the end of a block found wrong must not hide why the block ended."""
    if error is None:
        raise problem
    error.add_note(str(problem))


def _text(field: str, text: object) -> str:
    if not isinstance(text, str) or not text:
        raise ValueError(f"{field}={text!r}: give a string that isn't empty")
    return str(text)  # no subclass, which may compare as it likes


def _patience(wait: TTL | None) -> float:
    if wait is None:
        return FOREVER
    return 0.0 if wait == 0 and not isinstance(wait, bool) else seconds(wait, "wait")


def _task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        return None


def _key(name: str) -> str:
    return f"lock{_SEPARATOR}{name}"
