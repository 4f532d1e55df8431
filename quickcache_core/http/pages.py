"""The pages of one view: found, or made by one call for all who ask for them together.

what there is              the request
a fresh page               gets it: HIT
a stale page               gets it, and sets off a call in the background: STALE
nothing                    calls the view, or waits for the call that another request makes: MISS
nothing, and the response  gets its own response; whoever waited for it calls the view by itself, since the
may not be kept            response may be meant for somebody else: BYPASS. For some seconds nobody waits
a cache that fails         calls the view: BYPASS

Where responses vary by headers of the request, the entry of the key says by which ones, and the page lies
under a key below, with the values of these headers in it. Whoever waited for a response goes on from that
entry with headers of its own. The keys below have a token of the entry in them; the entry is not stored if
the page was invalidated while its view ran, and then nobody finds what lies below.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from quickcache_core.decorators.place import Missed, look_up
from quickcache_core.entry import FOREVER
from quickcache_core.errors import LoaderTimeout
from quickcache_core.http.answers import is_stale
from quickcache_core.http.page import (
    Kept,
    Page,
    Snapshot,
    is_error,
    is_page,
    page_of,
    varied_by,
    varied_key,
    vary_entry,
)
from quickcache_core.http.rules import Rules
from quickcache_core.loading.context import LoaderContext
from quickcache_core.store.life import ASK
from quickcache_core.ttl import NEVER, TTL
from quickcache_core.twins import called

if TYPE_CHECKING:
    from quickcache_core.cache import QuickCache

logger = logging.getLogger(__name__)

Label = Literal["HIT", "MISS", "STALE", "BYPASS"]

_DEEPEST: Final = 8
"""Entries that say by which headers responses vary, one below the other: each names more than the last."""

_REPORT: Final = 60.0
"""Seconds between two failures of a cache that are logged."""

_PASS: Final = 10.0
"""Seconds for which nobody waits under a key whose last response was for somebody in particular."""
_MOST_PASSING: Final = 1024
"""Such keys that are remembered, by each view."""


class ViewRaised(Exception):
    """Around what the view raised, to be told from what a cache raises. Doesn't leave this package."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"The view raised {type(error).__name__}")
        self.error = error


class Trouble:
    """Tells once a minute of a cache that fails, and that requests go on without."""

    def __init__(self, what: str, instead: str) -> None:
        self._text = f"A cache of {what} failed (%s, see this logger at DEBUG); {instead} without it"
        self._next_report = 0.0

    def report(self, error: Exception) -> None:
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + _REPORT
            # The type only: messages may show keys, which have no place above DEBUG.
            logger.warning(self._text, type(error).__name__)
        logger.debug("How it failed", exc_info=error)


class _Passing:
    """Keys whose last response might not be kept: to wait for the next one would most likely be in vain, for
    each process of a host again. In any thread; a race costs a wait.
    """

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}
        """Monotonic time."""

    def has(self, key: str, now: float) -> bool:
        return self._ends.get(key, now) > now

    def note(self, key: str, now: float, *, is_kept: bool) -> None:
        if is_kept:
            self._ends.pop(key, None)
            return
        if len(self._ends) >= _MOST_PASSING:
            self._ends.clear()
        self._ends[key] = now + _PASS


class ViewFailed(Exception):
    """The view gave an error page while there was an older page to serve."""


class Visit(Protocol):
    """One request that has to go further than a look at the cache."""

    @property
    def environ(self) -> Mapping[str, Any]: ...

    def begin(self, *, is_behind: bool) -> tuple[str, ...]:
        """Get ready for a call, in the thread of the request; the tags of the page, as the engine calls them.
        `is_behind`: there is a page to answer with, and the request may be over when the call comes.
        """
        ...

    def call(self) -> Any:
        """The view's response, complete. In any thread; raises what the view raises."""
        ...

    async def acall(self) -> Any: ...

    def taken(self, response: Any) -> Snapshot | None:
        """What the response consists of; None if it is not to be kept."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a request gets."""

    label: Label
    page: Page | None
    response: Any
    """The framework's, if the view was called for this request; None: only the page is there."""

    @property
    def kept(self) -> Page:
        """The page, where there is no response."""
        if self.page is None:
            raise LookupError("There is a response, and no page")
        return self.page


@dataclass(slots=True)
class _Fill:
    key: str
    load: _Load
    found: Missed


@dataclass(slots=True)
class _Look:
    key: str


@dataclass(slots=True)
class _Call:
    """Of the view, past the cache."""


_Moves = Generator[_Fill | _Look | _Call, Any, Outcome]


class Pages:
    """How the pages of one view are found and made. Belongs to no cache: each call names one."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.report = Trouble("pages", "views are called").report
        self.passing = _Passing()

    def find(self, engine: QuickCache, key: str) -> Any:
        """A page, another entry, or a `Missed`: for `respond` if it isn't a page. What the cache raises."""
        return look_up(engine, key, engine)

    def respond(self, engine: QuickCache, key: str, visit: Visit, found: Any) -> Outcome:
        """Go on from what `find` gave. Raises what the view raises, and `LoaderTimeout`."""
        moves = self._moves(engine, key, visit, found)
        answer: Any = None
        error: Exception | None = None
        while True:
            try:
                move = moves.throw(error) if error is not None else moves.send(answer)
            except StopIteration as stop:
                outcome: Outcome = stop.value
                return outcome
            answer = error = None
            if isinstance(move, _Call):
                answer = visit.call()
                continue
            try:
                if isinstance(move, _Look):
                    answer = self.find(engine, move.key)
                else:
                    answer = engine._filler.fill(
                        move.key, move.load.load, move.found.answer, None, move.load.options
                    )
            except Exception as raised:
                error = raised

    async def arespond(self, engine: QuickCache, key: str, visit: Visit, found: Any) -> Outcome:
        """As `respond`, for a view that is a coroutine function."""
        moves = self._moves(engine, key, visit, found)
        answer: Any = None
        error: Exception | None = None
        while True:
            try:
                move = moves.throw(error) if error is not None else moves.send(answer)
            except StopIteration as stop:
                outcome: Outcome = stop.value
                return outcome
            answer = error = None
            if isinstance(move, _Call):
                answer = await visit.acall()
                continue
            try:
                if isinstance(move, _Look):
                    answer = await called(engine.aside, self.find, engine, move.key)
                else:
                    answer = await engine._filler.afill(
                        move.key, move.load.aload, move.found.answer, None, move.load.options
                    )
            except Exception as raised:
                error = raised

    async def afind(self, engine: QuickCache, key: str) -> Any:
        return await called(engine.aside, self.find, engine, key)

    def _moves(self, engine: QuickCache, key: str, visit: Visit, found: Any) -> _Moves:
        names: tuple[str, ...] = ()
        below = key
        has_begun = False
        label: Label
        failure: Exception | None = None
        for _ in range(_DEEPEST):
            if found.__class__ is Missed:
                nothing_was_there = found.answer is ASK
                tags = visit.begin(is_behind=not nothing_was_there)
                has_begun = True
                load = _Load(self, engine, visit, key, below, names, tags)
                if nothing_was_there and self.passing.has(below, engine.config.clock.monotonic()):
                    load.options["single_flight"] = False
                try:
                    entry = yield _Fill(below, load, found)
                except ViewRaised as raised:
                    failure, entry = raised.error, None
                except LoaderTimeout:
                    raise
                except Exception as error:
                    self.report(error)
                    entry = None
                if failure is not None:
                    # Not above: it would get our wrapping of it for its context.
                    raise failure
                if load.is_done and nothing_was_there:
                    return Outcome("BYPASS" if load.page is None else "MISS", load.page, load.response)
                if entry is None:
                    break
                label = "MISS" if nothing_was_there else self._label(engine, entry)
            else:
                entry, label = found, "HIT"
            if is_page(entry):
                return Outcome(label, entry, None)
            try:
                names = varied_by(entry)
                below = self.rules.deeper(key, varied_key(entry, visit.environ))
                found = yield _Look(below)
            except Exception as error:
                self.report(error)
                break
        return (yield from self._past(visit, has_begun=has_begun))

    @staticmethod
    def _past(visit: Visit, *, has_begun: bool) -> _Moves:
        if not has_begun:
            visit.begin(is_behind=False)
        return Outcome("BYPASS", None, (yield _Call()))

    @staticmethod
    def _label(engine: QuickCache, entry: Page) -> Label:
        return "STALE" if is_page(entry) and is_stale(entry, engine.config.clock.wall()) else "HIT"


class _Load:
    """A call of the view that a request makes for the cache."""

    def __init__(
        self,
        pages: Pages,
        engine: QuickCache,
        visit: Visit,
        key: str,
        below: str,
        names: tuple[str, ...],
        tags: tuple[str, ...],
    ) -> None:
        self._rules = pages.rules
        self._passing = pages.passing
        self._engine = engine
        self._visit = visit
        self._key = key
        self._below = below
        self._names = names
        """By which headers the keys there differ."""
        self.is_done = False
        self.response: Any = None
        self.page: Page | None = None
        """What may be kept of the response; None if nothing may."""
        self.options: Any = {
            **self._rules.options,
            # Known before the view is called: nobody who comes after an invalidation waits for this call.
            "tags": tags,
            # Ours is in the page, which has to know its TTL.
            "jitter": 0.0,
            "sliding": False,
            "skip_none": False,
        }

    def load(self, context: LoaderContext) -> Page | None:
        try:
            response = self._visit.call()
        except Exception as error:
            raise ViewRaised(error) from error
        entry, beside = self._kept(context, response)
        if beside is not None:
            key, kept = beside
            self._engine.set(key, kept.page, _ttl(kept), **self._life())
        elif entry is None and context.has_stale:
            self._engine.delete(self._below, missing_ok=True)
        return entry

    async def aload(self, context: LoaderContext) -> Page | None:
        try:
            response = await self._visit.acall()
        except Exception as error:
            raise ViewRaised(error) from error
        entry, beside = self._kept(context, response)
        if beside is not None:
            key, kept = beside
            await self._engine.aset(key, kept.page, _ttl(kept), **self._life())
        elif entry is None and context.has_stale:
            await self._engine.adelete(self._below, missing_ok=True)
        return entry

    def _kept(self, context: LoaderContext, response: Any) -> tuple[Page | None, tuple[str, Kept] | None]:
        """The entry to store, and the page to store below it, with its key."""
        engine, rules = self._engine, self._rules
        snapshot = self._visit.taken(response)
        if context.has_stale and is_error(snapshot):
            raise ViewFailed(f"The view answered with status {snapshot.status if snapshot else '?'}")
        config = engine.config
        kept = snapshot and page_of(
            snapshot,
            rules,
            default_ttl=context.ttl,
            jitter=rules.options.get("jitter", config.jitter),
            now=config.clock.wall(),
            pickled=config.serializer == "pickle",
        )
        self.response, self.page = response, kept.page if kept else None
        # After a status that isn't kept, such as that of an error, the next response may be another.
        if kept or snapshot is None or snapshot.status in rules.statuses:
            self._passing.note(self._below, config.clock.monotonic(), is_kept=bool(kept))
        self.is_done = True
        if not kept:
            # What is there has become something that may not be kept.
            context.dont_store()
            return None, None
        unknown = set(kept.varies_on) - rules.covered - set(self._names)
        if not unknown:
            context.ttl_sec = _ttl(kept)
            return kept.page, None
        entry = vary_entry(sorted(unknown.union(self._names)), secrets.token_hex(4))
        context.ttl_sec = NEVER
        context.keep_stale_for(0)
        below = rules.deeper(self._key, varied_key(entry, self._visit.environ))
        return entry, (below, kept)

    def _life(self) -> dict[str, Any]:
        return {
            "tags": self.options["tags"],
            "stale_ttl": self._rules.options.get("stale_ttl"),
            "sliding": False,
        }


def _ttl(kept: Kept) -> TTL:
    return NEVER if kept.ttl == FOREVER else kept.ttl
