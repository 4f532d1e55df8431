"""Keys whose values are loaded anew without a reader."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Unpack

from quickcache_core.entry import FOREVER
from quickcache_core.errors import StoreUnavailable
from quickcache_core.keys import check_key
from quickcache_core.loading.ahead import destination_of, in_own_loop, running_loop, start_ahead
from quickcache_core.loading.background import background
from quickcache_core.loading.context import Loader, is_asynchronous
from quickcache_core.loading.load import Destination
from quickcache_core.loading.options import LoadArguments, LoadOptions, check_names
from quickcache_core.loading.single_flight import Abandoned
from quickcache_core.maintenance import maintenance
from quickcache_core.ttl import TTL

if TYPE_CHECKING:
    from quickcache_core.cache import QuickCache

logger = logging.getLogger(__name__)

Keys = str | Iterable[str] | Callable[[], Iterable[str]]

_INTERVAL: Final = 1.0
"""Seconds between two looks at all keys."""
_SHARE: Final = 0.9
"""Of the TTL, after which a value is loaded anew, unless the caller or the configuration says otherwise."""
_MARGIN: Final = 2.5
"""Seconds before the end of the TTL at the latest: two looks and half a second for the load."""
_MOST_UNDER_WAY: Final = 8
"""Loads at a time, for all keys of a cache: readers need background threads too."""
_LONGEST_PAUSE: Final = 300.0
"""Seconds between two attempts, however often the loader has failed."""
_KEYS_INTERVAL: Final = 30.0
"""Seconds between two calls of a function that gives the keys."""


def keep_fresh(
    cache: QuickCache,
    keys: Keys,
    loader: Loader,
    ttl_sec: TTL | None = None,
    **options: Unpack[LoadArguments],
) -> KeptFresh:
    """Have the value under `keys` loaded before its TTL ends, and whenever it is missing, without a reader.

    `keys` is a key, several, or a function that gives them, which is called every 30 seconds in a background
    thread. `loader` and the keywords are those of `get_or_set`; a loader that takes an argument finds the key
    in it. A value is due after `refresh_ahead`, a share of the TTL: by default that of the configuration,
    else 0.9, and at least 2.5 seconds before the end. One that something else stored is replaced when its TTL
    has ended. A coroutine function is awaited in the event loop that runs in the calling thread, until that
    is closed; if there is none, in one of its own.

    A background thread looks once a second at each key, which takes microseconds, and at most 8 keys of a
    cache are loaded at a time, in background threads. Processes that share the store may all do this: one of
    them loads. If the loader fails, it is called again after `retry_after`, then after pauses that double up
    to 5 minutes; the first failure is logged. So it is, silently, if nothing was stored.

    Ends with `stop` of the result, of the cache, and with the cache object. A key that is kept already has
    the new loader from now on. While the cache is switched off nothing is loaded. After a fork the child goes
    on with its next write, or its next `keep_fresh`.
    """
    if not callable(loader):
        raise TypeError(f"loader={loader!r}: give a function that computes the value")
    check_names(options)
    settled = cache._load_options.changed(ttl_sec, {**options, "sliding": False})
    if options.get("sliding"):
        raise ValueError("sliding=True: each read would put off the end of the TTL; leave it out here")
    if settled.refresh_ahead is None:
        settled = dataclasses.replace(settled, refresh_ahead=_share_of(settled.ttl))
    loop = running_loop() if is_asynchronous(loader) else None
    keeper = _keeper_of(cache)
    kept = KeptFresh(keeper, keys, in_own_loop(loader) if loop is None else loader, settled, loop)
    keeper.keep(kept)
    return kept


def stop_keeping_fresh(cache: QuickCache) -> None:
    """Stop all that `keep_fresh` began for this cache object."""
    keeper = vars(cache).get("_keeper")
    if keeper is not None and keeper.cache is cache:
        for kept in keeper.all():
            kept.stop()


def _share_of(ttl: float) -> float:
    return _SHARE if ttl == FOREVER else max(0.1, min(_SHARE, 1.0 - _MARGIN / ttl))


@dataclasses.dataclass(slots=True)
class _Pause:
    failures: int
    end: float
    """By the clock of the cache."""


class KeptFresh:
    """What `keep_fresh` began. May be used in a `with` block, which stops it at its end."""

    def __init__(
        self,
        keeper: Keeper,
        keys: Keys,
        loader: Loader,
        options: LoadOptions,
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self._keeper = keeper
        self.name: object = keys if isinstance(keys, str) or callable(keys) else self
        """A later one with the same name takes its place."""
        self._find = keys if callable(keys) else None
        self._keys: tuple[str, ...] = () if callable(keys) else _checked(keys)
        self._next_find = 0.0
        self._finding = False
        self._lock = threading.RLock()
        self.loader = loader
        self.options = options
        self.loop = loop
        self._pauses: dict[str, _Pause] = {}
        self._failing: set[str] = set()
        self._fails_to_find = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} keys={len(self._keys)} failing={len(self._failing)}>"

    @property
    def keys(self) -> tuple[str, ...]:
        """What is kept fresh; of a function, what it gave last."""
        return self._keys

    def let_go(self, keys: Collection[str]) -> bool:
        """Leave these to somebody else; whether nothing is left. What a function gives stays as it is."""
        if self._find is not None:
            return False
        self._keys = tuple(key for key in self._keys if key not in keys)
        return not self._keys

    def stop(self) -> None:
        """Let the values expire from now on. May be called twice."""
        self._keeper.drop(self)

    def __enter__(self) -> KeptFresh:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def due(self, to: Destination, now: float) -> list[str]:
        """The keys to be loaded now."""
        if self._find is not None and now >= self._next_find and not self._finding:
            self._next_find = now + _KEYS_INTERVAL
            self._finding = True
            try:
                background.run(self._find_keys, to.around)
            except RuntimeError:  # no threads any more
                self._finding = False
        found = []
        for key in self._keys:
            pause = self._pauses.get(key)
            if pause is not None and now < pause.end:
                continue
            entry = to.store.look(key)
            if entry is None or entry.is_due:
                found.append(key)
        return found

    def note(self, key: str, error: BaseException | None, to: Destination, now: float) -> None:
        """What became of a load."""
        if isinstance(error, Abandoned):
            return  # another process loads it
        if error is None:
            self._succeeded(key)
            entry = to.store.look(key)
            if entry is not None and not entry.is_due:
                self._pauses.pop(key, None)
                return
        pause = self._pauses.get(key)
        failures = 0 if pause is None else pause.failures
        longest = max(_LONGEST_PAUSE, self.options.retry_after)
        wait = min(self.options.retry_after * 2.0 ** min(failures, 64), longest)
        self._pauses[key] = _Pause(failures + 1, now + wait)
        if error is not None:
            self._failed(key, error)

    def _failed(self, key: str, error: BaseException) -> None:
        with self._lock:
            is_first = not self._failing
            self._failing.add(key)
        if is_first:
            # The type only: messages may show keys.
            logger.warning(
                "Keeping values fresh fails (%s); it is tried again, and this is logged once until it works",
                type(error).__name__,
            )
        logger.debug("How a value was not kept fresh", exc_info=error)

    def _succeeded(self, key: str) -> None:
        with self._lock:
            is_last = self._failing == {key}
            self._failing.discard(key)
        if is_last:
            logger.info("Keeping values fresh works again")

    def forget_work(self) -> None:
        """After a fork: what was under way is not in this process."""
        self._lock = threading.RLock()
        self._finding = False

    def _find_keys(self) -> None:
        try:
            self._keys = _checked(() if self._find is None else self._find())
        except Exception as error:
            if not self._fails_to_find:
                logger.warning(
                    "The function that gives the keys to be kept fresh failed (%s); those of before "
                    "are kept, and it is called again every %g s",
                    type(error).__name__,
                    _KEYS_INTERVAL,
                )
            logger.debug("How it failed", exc_info=error)
            self._fails_to_find = True
            return
        finally:
            self._finding = False
        self._fails_to_find = False
        known = set(self._keys)
        with self._lock:
            self._failing &= known
        self._pauses = {key: pause for key, pause in list(self._pauses.items()) if key in known}
        self._keeper.sweep()


class Keeper:
    """Of one cache object: a member of `maintenance` that has loaded what is due. No user code runs in that
    thread, and none under the lock.
    """

    def __init__(self, cache: QuickCache) -> None:
        self.cache = cache
        self._kept: dict[object, KeptFresh] = {}
        self._forget()

    def _forget(self) -> None:
        # Reentrant: a finaliser may stop one in the middle of this.
        self._lock = threading.RLock()
        self._taken: set[tuple[KeptFresh, str]] = set()
        """In the line, or under way."""
        self._line: deque[tuple[KeptFresh, str]] = deque()
        self._under_way = 0
        self._pid = os.getpid()
        for kept in list(self._kept.values()):
            kept.forget_work()

    def keep(self, kept: KeptFresh) -> None:
        with self._lock:
            for other in self.all():
                if other is not kept and other.let_go(kept.keys) and self._kept.get(other.name) is other:
                    del self._kept[other.name]
            self._kept[kept.name] = kept
        maintenance.adopt(self)
        maintenance.wake(self, _INTERVAL)

    def drop(self, kept: KeptFresh) -> None:
        with self._lock:
            if self._kept.get(kept.name) is not kept:
                return
            del self._kept[kept.name]
            if self._kept:
                return
        maintenance.dismiss(self)

    def all(self) -> list[KeptFresh]:
        return list(self._kept.values())

    def sweep(self) -> None:
        """Have loaded what is due."""
        if self._pid != os.getpid():
            # uWSGI's master forks without telling Python.
            self._forget()
        if not self.cache.enabled:
            return
        to, now = destination_of(self.cache), self.cache.config.clock.monotonic()
        for kept in self.all():
            if kept.loop is not None and kept.loop.is_closed():
                kept.stop()
                continue
            try:
                keys = kept.due(to, now)
            except StoreUnavailable:
                return  # logged where it was found
            with self._lock:
                fresh = [(kept, key) for key in keys if (kept, key) not in self._taken]
                self._taken.update(fresh)
                self._line.extend(fresh)
        self._start()

    def _start(self) -> None:
        while True:
            with self._lock:
                if not self._line or self._under_way >= _MOST_UNDER_WAY:
                    return
                kept, key = self._line.popleft()
                self._under_way += 1
            if not self._begin(kept, key):
                self._done(kept, key)

    def _begin(self, kept: KeptFresh, key: str) -> bool:
        if self._kept.get(kept.name) is not kept or not self.cache.enabled:
            return False
        to = destination_of(self.cache)
        ended = partial(self._ended, kept, key, to)
        try:
            return start_ahead(to, key, kept.loader, kept.options, to.store.look(key), kept.loop, ended)
        except StoreUnavailable:
            return False

    def _ended(self, kept: KeptFresh, key: str, to: Destination, error: BaseException | None) -> None:
        try:
            kept.note(key, error, to, self.cache.config.clock.monotonic())
        except StoreUnavailable:
            pass
        finally:
            self._done(kept, key)
        self._start()

    def _done(self, kept: KeptFresh, key: str) -> None:
        with self._lock:
            self._taken.discard((kept, key))
            self._under_way -= 1

    def before_fork(self) -> bool:
        return False

    def after_fork_in_parent(self, held: bool) -> None:
        pass

    def after_fork_in_child(self, held: bool) -> None:
        self._forget()


_made: Final = threading.RLock()


def _keeper_of(cache: QuickCache) -> Keeper:
    # An attribute, so that it lives as long as the cache. A namespace begins with those of its parent.
    with _made:
        keeper = vars(cache).get("_keeper")
        if not isinstance(keeper, Keeper) or keeper.cache is not cache:
            keeper = Keeper(cache)
            vars(cache)["_keeper"] = keeper
        return keeper


def _checked(keys: Any) -> tuple[str, ...]:
    if isinstance(keys, str):
        check_key(keys)
        return (keys,)
    if isinstance(keys, bytes) or not isinstance(keys, Iterable):
        raise TypeError(f"keys={keys!r}: give a key, several, or a function that gives them")
    checked = tuple(dict.fromkeys(keys))
    for key in checked:
        check_key(key)
    return checked
