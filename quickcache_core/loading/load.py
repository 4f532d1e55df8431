"""One load: from the right to carry it out to the value in the store."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import time
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from typing import Any

from quickcache_core.entry import FOREVER, MISSING
from quickcache_core.errors import ValueTooLarge
from quickcache_core.loading.background import Around
from quickcache_core.loading.context import Loader, LoaderContext, prepared
from quickcache_core.loading.options import LoadOptions, tag_names
from quickcache_core.loading.single_flight import Abandoned, Flight, SingleFlight
from quickcache_core.store.base import Bounds, Store
from quickcache_core.store.keyspace import KeyspaceStore
from quickcache_core.store.life import Found, Life, tag_slot
from quickcache_core.twins import Aside, called

logger = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02
"""Seconds between two looks at whether another process is done."""

Steps = Generator["float | Callable[[], Any]", Any, None]
"""What a load asks for: a pause of so many seconds, or a call, whose result is sent back."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where loaded values go, and how: what one cache has in common for all its loads."""

    store: Store
    flights: SingleFlight
    freeze: Callable[[str, Any], Any]
    """Turns the value of a key into its stored form. Raises `SerializationError`."""
    bounds: Bounds
    skips_oversized: bool
    """Whether a value that is too large is handed out only, rather than an error."""
    stored: Callable[[str], None]
    """Told of each key that was stored."""
    tag_prefix: str
    around: Around | None
    """Entered around loads in background threads."""
    served_stale: Callable[[str], None] | None = None
    """Told of each key whose value was served after its TTL."""
    aside: Aside | None = None
    """How a coroutine takes a step that may ask a server; None where none does."""

    def slots(self, tags: tuple[str, ...], options: LoadOptions) -> tuple[int, ...]:
        """Of tags as callers name them."""
        prefix = self.tag_prefix + options.tag_prefix
        return tuple(tag_slot(prefix + tag) for tag in tags)

    def life(self, context: LoaderContext, options: LoadOptions) -> Life:
        ttl = context.ttl
        if options.jitter and ttl != FOREVER:
            ttl *= 1.0 - options.jitter * random.random()  # noqa: S311 - nothing to be guessed
        ahead = options.refresh_ahead
        return Life(
            ttl,
            context.stale_ttl,
            context.sliding,
            context.max_age if context.sliding else FOREVER,
            FOREVER if ahead is None or ttl == FOREVER else ttl * ahead,
            self.slots(tag_names("tags", context.tags), options),
            context.etag or (context.stale_etag if context.keeps_stale else None),
        )


class Load:
    """The work of a flight's owner. It always ends the flight, and gives back what it took."""

    __slots__ = ("_alone", "_forced", "_found", "_gives_way", "_options", "_to", "flight", "loader")

    def __init__(
        self,
        to: Destination,
        flight: Flight,
        loader: Loader,
        options: LoadOptions,
        found: Found | None,
        *,
        gives_way: bool = False,
        forced: bool = False,
        alone: bool = False,
    ) -> None:
        self._to = to
        self.flight = flight
        self.loader = loader
        self._options = options
        self._found = found
        self._gives_way = gives_way
        """Whether there is nothing to be done if another process loads the key: nobody waits."""
        self._forced = forced
        """Whether to load although there may be a fresh value by now."""
        self._alone = alone
        """Whether to load whatever others do at the same time."""

    @property
    def aside(self) -> Aside | None:
        return self._to.aside

    def steps(self) -> Steps:
        to, flight = self._to, self.flight
        try:
            if not self._alone:
                flight.lease = to.store.try_lease(flight.key)
                if flight.lease is None:
                    if self._gives_way:
                        raise Abandoned
                    flight.lease = yield from self._wait_for_others()
            if not self._alone:
                # What the caller saw may have been replaced or deleted since.
                self._found = to.store.look(flight.key)
            found = self._found
            if found is None or found.is_due or not found.is_fresh or self._forced or self._alone:
                flight.land((yield from self._carry_out()))
            else:
                # By others, while they were waited for.
                flight.land(found.stored)
        except BaseException as error:
            flight.fail(error)
            if not isinstance(error, Exception):
                raise
        finally:
            to.flights.leave(flight)

    def _wait_for_others(self) -> Generator[float, None, Callable[[], None] | None]:
        """Until they are done, have ended, or took too long."""
        store, key = self._to.store, self.flight.key
        end = time.monotonic() + self._options.lease
        pause = _FIRST_PAUSE
        release = None
        while release is None and time.monotonic() < end:
            yield pause
            pause = min(pause * 1.5, _LONGEST_PAUSE)
            answer = None if self._forced else store.look(key)
            if answer is not None and answer.is_fresh and not answer.is_due:
                break
            release = store.try_lease(key)
        return release

    def _carry_out(self) -> Generator[Callable[[], Any], Any, Any]:
        """Call the loader, and store what it gives; that in its stored form."""
        to, flight = self._to, self.flight
        # Now: others were waited for, and may have stored something.
        flight.token = to.store.begin_load(flight.key)
        context = LoaderContext(flight.key, self._options, self._found, self._hear_tags)
        count(to.store, "loads")
        try:
            value = yield prepared(self.loader, context)
        except BaseException as error:
            if not isinstance(error, Abandoned | asyncio.CancelledError | GeneratorExit):
                count(to.store, "load_failures")
                self._put_off(error)
            raise
        return self._store(value, context)

    def _hear_tags(self, tags: Any) -> None:
        # Now, and not only when the value is stored: whoever comes after one of them was invalidated must not
        # wait for a value from before.
        try:
            self.flight.tags = self._to.slots(tag_names("tags", tags), self._options)
        except TypeError:
            pass  # said when the value is stored

    def _store(self, value: Any, context: LoaderContext) -> Any:
        to, flight, found = self._to, self.flight, self._found
        if context.keeps_stale and found is not None:
            value, stored = MISSING, found.stored
        else:
            stored = to.freeze(flight.key, value)
        if not context.stores or flight.is_superseded:
            return stored
        if value is None and self._options.skip_none:
            if found is not None and not to.store.is_overtaken(flight.key, flight.token):
                # The source has nothing any more.
                to.store.remove_many((flight.key,))
            return stored
        life = to.life(context, self._options)
        flight.tags = life.tags
        try:
            if to.store.put_with(flight.key, stored, life, to.bounds, flight.token):
                to.stored(flight.key)
        except ValueTooLarge:
            if not to.skips_oversized:
                raise
        return stored

    def _put_off(self, error: BaseException) -> None:
        if self._found is None:
            return
        if self._to.flights.should_report():
            # The type only: messages and tracebacks may show keys, which have no place above DEBUG.
            logger.warning(
                "A loader failed (%s); older values are served, and each is tried again in %g s",
                type(error).__name__,
                self._options.retry_after,
            )
        logger.debug("How a loader failed", exc_info=error)
        if self._options.retry_after:
            self._to.store.put_off(self.flight.key, self._options.retry_after)


def count(store: Store, what: str) -> None:
    """Add one to a count of the store, and of the store that it is a part of."""
    counters = store.counters
    setattr(counters, what, getattr(counters, what) + 1)
    if isinstance(store, KeyspaceStore):
        count(store.root, what)


def carry_out(load: Load, loop: asyncio.AbstractEventLoop | None = None) -> None:
    """In this thread. `loop`: where to await what the loader gives, if that can be awaited."""
    with load.flight.as_owner():
        steps = load.steps()
        step = next(steps, None)
        while step is not None:
            try:
                answer = _called(load, partial(time.sleep, step) if isinstance(step, float) else step, loop)
            except BaseException as error:
                step = _thrown(steps, error)
            else:
                step = _sent(steps, answer)


async def acarry_out(load: Load) -> None:
    """In this task, for a loader that is a coroutine function."""
    load.flight.loop = asyncio.get_running_loop()
    aside = load.aside
    with load.flight.as_owner():
        steps = load.steps()
        step = await called(aside, next, steps, None)
        while step is not None:
            try:
                answer = await (asyncio.sleep(step) if isinstance(step, float) else step())
            except BaseException as error:
                step = await called(aside, _thrown, steps, error)
            else:
                step = await called(aside, _sent, steps, answer)


def _sent(steps: Steps, answer: Any) -> Any:
    try:
        return steps.send(answer)
    except StopIteration:
        return None


def _thrown(steps: Steps, error: BaseException) -> Any:
    try:
        return steps.throw(error)
    except StopIteration:
        return None


def _called(load: Load, function: Callable[[], Any], loop: asyncio.AbstractEventLoop | None) -> Any:
    answer = function()
    if not inspect.isawaitable(answer):
        return answer
    if loop is None:
        if inspect.iscoroutine(answer):
            answer.close()
        raise TypeError("the loader gave a coroutine; use the asynchronous method, such as aget_or_set")
    load.flight.loop = loop
    if loop.is_closed():
        raise Abandoned
    ahead = asyncio.run_coroutine_threadsafe(_awaited(answer), loop)
    while True:
        try:
            return ahead.result(1.0)
        except CancelledError:
            raise Abandoned from asyncio.CancelledError()
        except TimeoutError:
            if ahead.done():
                raise  # the loader's own
            if loop.is_closed():
                raise Abandoned from None


async def _awaited(answer: Awaitable[Any]) -> Any:
    return await answer
