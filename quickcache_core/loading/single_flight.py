"""One load of a key at a time, for all threads and tasks of a process.

A flight, from its owner's side, and what a newcomer does who asks for its key:

    under way                    waits for it
    under way, but the key was   starts another one, since this one's value may be from before that
      written or deleted since
    under way, in a load of the  loads by itself: it would wait for itself
      newcomer's own
    landed with a value          takes it
    landed with an error         gets the error
    abandoned (its task was      asks again, and perhaps is the next owner
      cancelled, its loop closed,
      its thread interrupted)

After the idea of Go's `singleflight`, and the lock of dogpile.cache, which has a thread wait for another one.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakKeyDictionary

from quickcache_core.store.base import Store

_LOOK = 1.0
"""Seconds between two looks at whether an event loop is closed, and its task will never end."""

_REPORT = 60.0
"""Seconds between two failures that are logged."""

_owned: contextvars.ContextVar[tuple[Flight, ...]] = contextvars.ContextVar("quickcache_flights", default=())
"""The loads that the running code is part of, the outermost first."""


class Abandoned(Exception):
    """The owner gave up without a value or an error for others. What made it do so is the cause, if anything
    did.
    """


class Flight:
    """One load under way. `result` is the stored form of the value, or whatever the load ended with."""

    __slots__ = ("future", "is_superseded", "key", "lease", "loop", "name", "tags", "token", "waits_for")

    def __init__(self, key: str, token: object, name: str = "") -> None:
        self.key = key
        self.name = name
        """The key as the store at the bottom has it."""
        self.token = token
        """Of the store, from before the load began."""
        self.tags: tuple[int, ...] = ()
        """Slots of what is known of the value's tags."""
        self.future: Future[Any] = Future()
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop that carries it out, if it is one."""
        self.waits_for: set[Flight] = set()
        """What its loader waits for."""
        self.lease: Callable[[], None] | None = None
        """Gives the right to load the key back to other processes."""
        self.is_superseded = False
        """Whether a later one was asked for, whose value must not give way to that of this one."""

    @property
    def is_lost(self) -> bool:
        """Whether it will never end, since its event loop is closed."""
        return self.loop is not None and self.loop.is_closed()

    def land(self, result: Any) -> None:
        try:
            self.future.set_result(result)
        except InvalidStateError:
            pass  # given up by somebody else

    def fail(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            # An interrupt, an exit, a cancellation: the owner's business.
            cause, error = error, Abandoned()
            error.__cause__ = cause
        try:
            self.future.set_exception(error)
        except InvalidStateError:
            pass

    @contextmanager
    def as_owner(self) -> Iterator[None]:
        """What runs within, here or in threads and tasks that it starts, is part of this load."""
        reset = _owned.set((*_owned.get(), self))
        try:
            yield
        finally:
            try:
                _owned.reset(reset)
            except ValueError:
                pass  # a task that never ended, thrown away by whoever ran into the garbage collector


class SingleFlight:
    """The flights of one store. Any thread and any task may call; nothing here waits with a lock."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}
        self._next_report = 0.0
        # Reentrant, here and below: a finaliser may load something in the middle of this.
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._flights)

    def enter(
        self, store: Store, key: str, tags: tuple[int, ...] = (), *, anew: bool = False
    ) -> tuple[Flight, bool]:
        """The flight of the key, and whether the caller is the owner of a new one and has to `leave` it.

        With `anew` it always is, and newcomers wait for this one.
        """
        name = store.identity(key)
        flight = self._flights.get(name)
        if flight is not None and not anew and _may_be_waited_for(flight, store, key):
            return flight, False
        # Not under the lock: the store has one of its own.
        token = store.begin_load(key)
        with self._lock:
            flight = self._flights.get(name)
            if flight is not None:
                if not anew and _may_be_waited_for(flight, store, key):
                    return flight, False
                flight.is_superseded = True
            former, flight = flight, Flight(key, token, name)
            flight.tags = tags
            if former is not None:
                # It may have the lease.
                flight.waits_for.add(former)
            self._flights[name] = flight
        if former is not None and former.is_lost:
            self.leave(former)
        return flight, True

    def leave(self, flight: Flight) -> None:
        """Called by the owner, and by whoever finds that there is none any more."""
        lease, flight.lease = flight.lease, None
        if lease is not None:
            lease()
        flight.waits_for.clear()
        with self._lock:
            if self._flights.get(flight.name) is flight:
                del self._flights[flight.name]

    def is_under_way(self, store: Store, key: str) -> bool:
        flight = self._flights.get(store.identity(key))
        return flight is not None and not flight.is_lost

    def should_report(self) -> bool:
        """Whether a failure should be logged: one a minute, however many keys are concerned."""
        now = time.monotonic()
        if now < self._next_report:
            return False
        self._next_report = now + _REPORT
        return True

    def forget(self) -> None:
        """After a fork: those who carried them out are not in this process."""
        self._flights = {}
        self._lock = threading.RLock()


def _may_be_waited_for(flight: Flight, store: Store, key: str) -> bool:
    if flight.future.done():
        return False  # it is about to leave, and what it ended with may be of another time
    return not flight.is_lost and not store.is_overtaken(key, flight.token, flight.tags)


_flights: Final[WeakKeyDictionary[Store, SingleFlight]] = WeakKeyDictionary()


def flights_of(store: Store) -> SingleFlight:
    """Those of a store, for all caches that use it."""
    flights = _flights.get(store)
    return _flights.setdefault(store, SingleFlight()) if flights is None else flights


# Waits go from load to load, through any stores: one lock for all.
_waits = threading.RLock()


def _forget_all() -> None:
    global _waits
    _waits = threading.RLock()
    for flights in list(_flights.values()):
        flights.forget()


os.register_at_fork(after_in_child=_forget_all)


@contextmanager
def waiting_for(flight: Flight) -> Iterator[bool]:
    """Around a wait, and around a load that the caller carries out by itself. False: the wait would never
    end, since the flight waits, perhaps through others, for one that the caller is part of.
    """
    owned = _owned.get()
    mine = owned[-1] if owned else None
    with _waits:
        possible = not (owned and any(one in owned for one in _awaited_by(flight)))
        if possible and mine is not None:
            mine.waits_for.add(flight)
    try:
        yield possible
    finally:
        if possible and mine is not None:
            with _waits:
                mine.waits_for.discard(flight)


def is_part_of(store: Store, key: str) -> bool:
    """Whether the running code is part of a load of the key."""
    owned = _owned.get()
    return bool(owned) and any(one.name == store.identity(key) for one in owned)


def _awaited_by(flight: Flight) -> Iterator[Flight]:
    """The flight, and those that it can't end before. Called under `_waits`."""
    seen = {flight}
    ahead = [flight]
    while ahead:
        one = ahead.pop()
        yield one
        fresh = one.waits_for - seen
        seen |= fresh
        ahead.extend(fresh)


def wait(flight: Flight, seconds: float) -> bool:
    """Whether the flight ended within so many seconds. Blocks the thread; not if it is that of the event loop
    which the flight needs.
    """
    loop = _running_loop()
    left = seconds
    while left > 0.0 or flight.future.done():
        if loop is not None and not flight.future.done() and _needs(flight, loop):
            return False
        try:
            flight.future.exception(min(left, _LOOK))
            return True
        except TimeoutError:
            left -= _LOOK
            if flight.is_lost:
                flight.fail(Abandoned())
    return False


def _needs(flight: Flight, loop: asyncio.AbstractEventLoop) -> bool:
    with _waits:
        return any(one.loop is loop for one in _awaited_by(flight))


async def await_end(flight: Flight, seconds: float) -> bool:
    """As `wait`, for a task."""
    if flight.future.done():
        return True
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def tell(_: Future[Any]) -> None:
        try:
            loop.call_soon_threadsafe(lambda: None if ended.done() else ended.set_result(None))
        except RuntimeError:
            pass  # nobody waits any more: the loop is closed

    flight.future.add_done_callback(tell)
    left = seconds
    while left > 0.0:
        done, _ = await asyncio.wait({ended}, timeout=min(left, _LOOK))
        if done:
            return True
        left -= _LOOK
        if flight.is_lost:
            flight.fail(Abandoned())
    return flight.future.done()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
