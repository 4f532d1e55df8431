"""Keys that are loaded before they are asked for, because they tend to follow one that was."""

from __future__ import annotations

import contextvars
import dataclasses
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack

from quickcache_core.errors import StoreUnavailable
from quickcache_core.keys import check_key
from quickcache_core.loading.ahead import destination_of, running_loop, start_ahead
from quickcache_core.loading.context import is_asynchronous
from quickcache_core.loading.load import Destination
from quickcache_core.loading.options import LoadArguments, check_names
from quickcache_core.loading.single_flight import Abandoned, SingleFlight
from quickcache_core.loading.successors import Successors
from quickcache_core.ttl import TTL, seconds

if TYPE_CHECKING:
    from quickcache_core.cache import QuickCache

logger = logging.getLogger(__name__)

Hint = Callable[[str], "Iterable[str] | str | None"]
H = TypeVar("H", bound=Hint)

_MOST_REMEMBERED: Final = 10_000
"""Of streams, and of keys that were loaded ahead and not asked for yet."""

_numbers: Final = count()
_previous: contextvars.ContextVar[Mapping[int, tuple[str, float]]] = contextvars.ContextVar(
    "quickcache_previous_keys", default=MappingProxyType({})
)
"""The key that this context read last, and when, by the number of the prefetcher."""


@dataclasses.dataclass(frozen=True, slots=True)
class PrefetchFigures:
    """What a prefetcher has done in this process."""

    prefetched: int
    """Keys that were loaded ahead."""
    used: int
    """Those of them that were asked for then, and were there, or about to be."""
    wasted: int
    """Those that left the cache before anybody asked."""
    failed: int
    """Loads ahead that ended with an error."""
    refused: int
    """Loads ahead that were not begun: as many as may be were under way, or one had failed just now."""
    learned: int
    """Keys whose successors are counted."""

    @property
    def waiting(self) -> int:
        """Keys that were loaded ahead, and are there, and weren't asked for yet."""
        return self.prefetched - self.used - self.wasted

    @property
    def used_ratio(self) -> float:
        """Of those whose fate is known; 0.0 if there are none."""
        known = self.used + self.wasted
        return self.used / known if known else 0.0


class Prefetcher:
    """Reads through a cache, and loads what tends to follow in the background.

    `load(key)` gives the value; with a second argument, `load(key, context)`, it gets a `LoaderContext`; a
    coroutine function is used with `aget`. What follows a key is declared
    (`follows`, `hint`), and learned unless `learn` is False: a key that came next within `within` seconds, at
    least `times` times and after at least that `share` of the visits. Learning looks at the `most_keys` keys
    visited last, some hundred bytes each. At most `most_loads` are under way at a time; what is there already
    is left alone, and what is loaded ahead brings nothing else along. For `retry_after` after a load ahead
    that failed, none is begun.

    The keywords are those of `get_or_set`. May be used from any thread; each process learns by itself.
    """

    def __init__(
        self,
        cache: QuickCache,
        load: Callable[..., Any],
        ttl_sec: TTL | None = None,
        *,
        learn: bool = True,
        times: int = 3,
        share: float = 0.5,
        within: float = 30.0,
        most_keys: int = 10_000,
        most_loads: int = 4,
        **options: Unpack[LoadArguments],
    ) -> None:
        if not callable(load):
            raise TypeError(f"load={load!r}: give a function that takes a key and gives its value")
        for name, number in (("times", times), ("most_keys", most_keys), ("most_loads", most_loads)):
            _check_whole(name, number)
        _check_share(share)
        check_names(options)
        self._cache = cache
        self._load = load
        self._ttl = ttl_sec
        self._arguments = options
        self._options = cache._load_options.changed(ttl_sec, options)
        self._learns = learn
        self._times = times
        self._share = share
        self._within = seconds(within, "within")
        self._most_loads = most_loads
        self._number = next(_numbers)
        self._successors = Successors(most_keys)
        self._declared: dict[str, tuple[str, ...]] = {}
        self._hints: tuple[Hint, ...] = ()
        self._streams: OrderedDict[Hashable, tuple[str, float]] = OrderedDict()
        self._prefetched = self._used = self._wasted = self._failed = self._refused = 0
        self._not_before = 0.0
        self._pending: OrderedDict[str, None] = OrderedDict()
        """Loaded ahead, and not asked for yet."""
        self._forget_loads()

    def _forget_loads(self) -> None:
        # Reentrant: a finaliser may read in the middle of this.
        self._lock = threading.RLock()
        self._under_way: dict[str, bool] = {}
        """What is being loaded, and whether somebody has asked for it meanwhile."""
        self._pid = os.getpid()

    def _notice_fork(self) -> None:
        if self._pid != os.getpid():
            self._forget_loads()

    # What follows what

    def follows(self, key: str, *after: str) -> None:
        """Declare that `key` is worth loading when one of `after` is read."""
        for one in (key, *after):
            check_key(one)
        with self._lock:
            for one in after:
                self._declared[one] = tuple(dict.fromkeys((*self._declared.get(one, ()), key)))

    def hint(self, function: H) -> H:
        """Register a function, as a decorator: `function(key)` gives the key or keys that follow, or None.

        It is called with each read, in the reader's thread, and should take microseconds. An error is logged,
        and the read goes on.
        """
        self._hints = (*self._hints, function)
        return function

    # Reading

    def get(self, key: str, *, stream: Hashable | None = None) -> Any:
        """The value, loaded if it isn't there; sets off the loading of what follows.

        `stream` names whose reads are in order, such as a session; by default those of one thread or task.
        """
        self._on_read(key, stream)
        return self._cache.get_or_set(key, partial(self._load, key), self._ttl, **self._arguments)

    async def aget(self, key: str, *, stream: Hashable | None = None) -> Any:
        self._on_read(key, stream)
        return await self._cache.aget_or_set(key, partial(self._load, key), self._ttl, **self._arguments)

    def begin(self) -> None:
        """Let the next read follow nothing: for the start of a request in a thread that serves many users."""
        known = _previous.get()
        if self._number in known:
            _previous.set({number: one for number, one in known.items() if number != self._number})

    def figures(self) -> PrefetchFigures:
        """Looks at each key that was loaded ahead and not asked for yet."""
        self._notice_fork()
        cache = self._cache
        with self._lock:
            pending = list(self._pending)
        gone = [key for key in pending if key not in cache]
        with self._lock:
            for key in gone:
                self._drop(key)
            return PrefetchFigures(
                self._prefetched,
                self._used,
                self._wasted,
                self._failed,
                self._refused,
                len(self._successors),
            )

    def _on_read(self, key: str, stream: Hashable | None) -> None:
        check_key(key)
        self._notice_fork()
        now = self._cache.config.clock.monotonic()
        if key in self._pending:
            is_there = key in self._cache
            with self._lock:
                if not is_there:
                    self._drop(key)
                elif key in self._pending:
                    del self._pending[key]
                    self._used += 1
        wanted: Iterable[str] = self._declared.get(key, ())
        with self._lock:
            if key in self._under_way:
                self._under_way[key] = True
            if self._learns:
                wanted = (*wanted, *self._learn(key, stream, now))
        if self._hints:
            wanted = (*wanted, *self._hinted(key))
        for one in dict.fromkeys(wanted):
            if one != key:
                self._fetch(one, now)

    def _drop(self, key: str) -> None:
        if key in self._pending:
            del self._pending[key]
            self._wasted += 1

    def _learn(self, key: str, stream: Hashable | None, now: float) -> list[str]:
        """Note the step; what is to be expected next."""
        previous = self._step(key, stream, now)
        if previous is not None and previous[0] != key and now - previous[1] <= self._within:
            self._successors.note(previous[0], key)
        self._successors.visit(key)
        return self._successors.after(key, self._times, self._share)

    def _step(self, key: str, stream: Hashable | None, now: float) -> tuple[str, float] | None:
        """What was read before in that stream."""
        if stream is None:
            known = _previous.get()
            _previous.set({**known, self._number: (key, now)})
            return known.get(self._number)
        previous = self._streams.pop(stream, None)
        self._streams[stream] = (key, now)
        if len(self._streams) > _MOST_REMEMBERED:
            self._streams.popitem(last=False)
        return previous

    def _hinted(self, key: str) -> list[str]:
        keys: list[str] = []
        for hint in self._hints:
            try:
                said = hint(key)
                hinted = (said,) if isinstance(said, str) else tuple(said or ())
                for one in hinted:
                    check_key(one)
                keys += hinted
            except Exception as error:
                if destination_of(self._cache).flights.should_report():
                    logger.warning("A hint for keys to be loaded ahead failed (%s)", type(error).__name__)
                logger.debug("How a hint failed", exc_info=error)
        return keys

    # Loading

    def _fetch(self, key: str, now: float) -> None:
        try:
            if key in self._cache or not self._cache.enabled:
                return
            with self._lock:
                if key in self._under_way:
                    return
                if len(self._under_way) >= self._most_loads or now < self._not_before:
                    self._refused += 1
                    return
                self._under_way[key] = False
            if not self._begin(key):
                with self._lock:
                    self._under_way.pop(key, None)
        except StoreUnavailable:
            with self._lock:
                self._under_way.pop(key, None)

    def _begin(self, key: str) -> bool:
        to = destination_of(self._cache)
        loader = partial(self._load, key)
        loop = running_loop()
        if loop is None and is_asynchronous(self._load):
            return False  # nowhere to await it; the read itself says so
        return start_ahead(
            to, key, loader, self._options, to.store.look(key), loop, partial(self._ended, key, to)
        )

    def _ended(self, key: str, to: Destination, error: BaseException | None) -> None:
        failure = None if isinstance(error, Abandoned) else error
        if failure is not None:
            self._tell(failure, to.flights)
        with self._lock:
            was_asked_for = self._under_way.pop(key, False)
            if error is None:
                self._prefetched += 1
                if was_asked_for:
                    self._used += 1
                else:
                    self._drop(key)
                    self._pending[key] = None
                    if len(self._pending) > _MOST_REMEMBERED:
                        self._drop(next(iter(self._pending)))
            elif failure is not None:
                self._failed += 1
                self._not_before = self._cache.config.clock.monotonic() + self._options.retry_after

    def _tell(self, error: BaseException, flights: SingleFlight) -> None:
        if flights.should_report():
            # The type only: messages may show keys.
            logger.warning(
                "Loading ahead failed (%s); none is tried for %g s",
                type(error).__name__,
                self._options.retry_after,
            )
        logger.debug("How loading ahead failed", exc_info=error)


def _check_whole(name: str, number: object) -> None:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"{name}={number!r}: give a whole number above 0")


def _check_share(share: object) -> None:
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0.0 < share <= 1.0:
        raise ValueError(f"share={share!r}: give a number above 0, up to 1")
