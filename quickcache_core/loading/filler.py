"""What becomes of a caller whose value is missing, stale, or due for a refresh.

what there is     the caller
fresh             never comes here
fresh, but due    gets it, and sets off a load in the background
stale             gets it after `soft_timeout` at the latest (at once by default) while the load goes on in
                  the background; at once, and without a load, for `retry_after` after one that failed
nothing           waits for the load, for `hard_timeout` at most: `LoaderTimeout`; gets the loader's error
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

from quickcache_core.entry import FOREVER
from quickcache_core.errors import LoaderTimeout
from quickcache_core.loading.background import background
from quickcache_core.loading.context import Loader, is_asynchronous
from quickcache_core.loading.load import Destination, Load, acarry_out, carry_out, count
from quickcache_core.loading.options import LoadOptions, check_names
from quickcache_core.loading.single_flight import (
    Abandoned,
    Flight,
    await_end,
    is_part_of,
    wait,
    waiting_for,
)
from quickcache_core.serializer.isolation import thaw
from quickcache_core.store.life import ASK, Found
from quickcache_core.ttl import TTL
from quickcache_core.twins import called

_tasks: Final[dict[asyncio.AbstractEventLoop, set[asyncio.Task[None]]]] = {}
"""Loads under way; an event loop alone holds its tasks weakly."""


@dataclass(slots=True)
class Start:
    """Begin a load; `here`: the caller may carry it out itself, since it waits without limit."""

    load: Load
    here: bool


@dataclass(slots=True)
class Wait:
    """Wait for a flight; whether it ended in time is sent back."""

    flight: Flight
    seconds: float


class Filler:
    """Fills the misses of one cache."""

    def __init__(self, to: Destination, options: LoadOptions) -> None:
        self._to = to
        self._options = options

    def fill(
        self, key: str, loader: Loader, answer: Any, ttl_sec: TTL | None, arguments: Mapping[str, Any]
    ) -> Any:
        """The value for a caller who got that answer to `ASK`."""
        return fill(self._moves(key, loader, answer, ttl_sec, arguments), self._to)

    async def afill(
        self, key: str, loader: Loader, answer: Any, ttl_sec: TTL | None, arguments: Mapping[str, Any]
    ) -> Any:
        return await afill(self._moves(key, loader, answer, ttl_sec, arguments), self._to)

    def refresh(self, key: str, loader: Loader, ttl_sec: TTL | None, arguments: Mapping[str, Any]) -> Any:
        """A value that is loaded from now on."""
        return fill(self._moves(key, loader, ASK, ttl_sec, arguments, forced=True), self._to)

    async def arefresh(
        self, key: str, loader: Loader, ttl_sec: TTL | None, arguments: Mapping[str, Any]
    ) -> Any:
        return await afill(self._moves(key, loader, ASK, ttl_sec, arguments, forced=True), self._to)

    def _moves(
        self,
        key: str,
        loader: Loader,
        answer: Any,
        ttl_sec: TTL | None,
        arguments: Mapping[str, Any],
        *,
        forced: bool = False,
    ) -> Moves:
        if not callable(loader):
            raise TypeError(
                f"loader={loader!r}: give a function that computes the value, such as lambda: {loader!r}"
            )
        check_names(arguments)
        options = self._options.changed(ttl_sec, arguments)
        return filling(self._to, key, loader, options, None if answer is ASK else answer, forced=forced)


Moves = Generator[Start | Wait, Any, Any]


def filling(
    to: Destination,
    key: str,
    loader: Loader,
    options: LoadOptions,
    found: Found | None,
    *,
    forced: bool = False,
) -> Moves:
    """The moves of a caller, for `fill` and `afill`; the result is the value."""
    if forced:
        found = to.store.look(key)
    if forced or found is None:
        return (yield from _waiting(to, key, loader, options, found, options.hard_timeout, forced=forced))
    if not found.is_fresh and found.is_due and options.soft_timeout:
        to.store.count(hit=False)
        patience = min(options.soft_timeout, options.hard_timeout)
        try:
            return (yield from _waiting(to, key, loader, options, found, patience))
        except Exception:
            # Logged by the load, or still under way.
            return _served_stale(to, key, found)
    if found.is_due and not to.flights.is_under_way(to.store, key):
        flight, is_owner = to.flights.enter(to.store, key, to.slots(options.tags, options))
        if is_owner:
            yield Start(Load(to, flight, loader, options, found, gives_way=True), here=False)
    if not found.is_fresh:
        to.store.count(hit=True)
        return _served_stale(to, key, found)
    return thaw(found.stored)


def _served_stale(to: Destination, key: str, found: Found) -> Any:
    count(to.store, "stale_hits")
    if to.served_stale is not None:
        to.served_stale(key)
    return thaw(found.stored)


def _waiting(
    to: Destination,
    key: str,
    loader: Loader,
    options: LoadOptions,
    found: Found | None,
    patience: float,
    *,
    forced: bool = False,
) -> Moves:
    end = time.monotonic() + patience
    alone = not options.single_flight or (forced and is_part_of(to.store, key))
    while True:
        if alone:
            flight, is_owner = Flight(key, to.store.begin_load(key)), True
        else:
            flight, is_owner = to.flights.enter(to.store, key, to.slots(options.tags, options), anew=forced)
        if not is_owner:
            count(to.store, "load_waits")
        with waiting_for(flight) as possible:
            if is_owner:
                # Part of an older load of the key, which may have the lease, it doesn't wait for that either.
                apart = alone or not possible or is_part_of(to.store, key)
                load = Load(to, flight, loader, options, found, forced=forced, alone=apart)
                yield Start(load, here=patience == FOREVER)
            left = end - time.monotonic()
            limit = left if is_owner else min(left, options.lease)
            ended = (possible or is_owner) and (yield Wait(flight, limit))
        if ended:
            try:
                return thaw(flight.future.result())
            except Abandoned as abandoned:
                to.flights.leave(flight)
                if is_owner and abandoned.__cause__ is not None:
                    raise abandoned.__cause__ from None
                continue
        if is_owner or time.monotonic() >= end:
            raise LoaderTimeout(key, patience)
        # It would wait for itself, or has waited long enough for others.
        alone = True


def fill(moves: Moves, to: Destination) -> Any:
    """Carry out the moves in this thread."""
    answer: Any = None
    try:
        while True:
            move = moves.send(answer)
            if isinstance(move, Wait):
                with background.waiting():
                    answer = wait(move.flight, move.seconds)
            else:
                answer = None
                start(move, to)
    except StopIteration as stop:
        return stop.value
    finally:
        moves.close()


def start(move: Start, to: Destination) -> None:
    load = move.load
    if is_asynchronous(load.loader):
        load.flight.fail(Abandoned())
        to.flights.leave(load.flight)
        raise TypeError(
            f"loader={load.loader!r} is a coroutine function; await the asynchronous method, as aget_or_set"
        )
    if move.here:
        carry_out(load)
        return
    _in_background(load, to)


def _in_background(load: Load, to: Destination, loop: asyncio.AbstractEventLoop | None = None) -> None:
    def work() -> None:
        try:
            with nullcontext() if to.around is None else to.around():
                carry_out(load, loop)
        except BaseException as error:
            # What is around it failed: nobody else would end the flight.
            load.flight.fail(error)
            to.flights.leave(load.flight)
            if isinstance(error, Exception):
                raise
            # An exit or interrupt was raised to whoever waits: no loader has a thread of its own to end.

    try:
        background.run(work)
    except RuntimeError:  # no threads any more
        carry_out(load)


async def afill(moves: Moves, to: Destination) -> Any:
    """Carry out the moves in this task; its cancellation stops no load that others wait for."""
    answer: Any = None
    try:
        while True:
            ended, move = await called(to.aside, _moved, moves, answer)
            if ended:
                return move
            if isinstance(move, Wait):
                answer = await await_end(move.flight, move.seconds)
            else:
                answer = None
                astart(move.load, to)
    finally:
        moves.close()


def _moved(moves: Moves, answer: Any) -> tuple[bool, Any]:
    """Whether they are through with that answer, and the result or the next move."""
    # A coroutine must not raise StopIteration.
    try:
        return False, moves.send(answer)
    except StopIteration as stop:
        return True, stop.value


def astart(load: Load, to: Destination) -> None:
    loop = asyncio.get_running_loop()
    if is_asynchronous(load.loader):
        load.flight.loop = loop
        tasks = _tasks_of(loop)
        task = loop.create_task(acarry_out(load), name="quickcache load")
        tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            # One that is cancelled before its turn comes doesn't even begin.
            load.flight.fail(Abandoned())
            to.flights.leave(load.flight)

        task.add_done_callback(ended)
        return
    _in_background(load, to, loop)


def _tasks_of(loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[None]]:
    tasks = _tasks.get(loop)
    if tasks is None:
        for other in list(_tasks):
            if other.is_closed():
                _tasks.pop(other, None)
        tasks = _tasks.setdefault(loop, set())
    return tasks
