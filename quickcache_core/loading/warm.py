"""Many entries at once, before anybody asks for them."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Unpack

from quickcache_core.entry import MISSING
from quickcache_core.errors import ValueTooLarge
from quickcache_core.keys import check_key
from quickcache_core.loading.ahead import destination_of
from quickcache_core.loading.context import LoaderContext, is_asynchronous
from quickcache_core.loading.options import LoadArguments, check_names
from quickcache_core.progress import Progress
from quickcache_core.store.base import Record
from quickcache_core.store.life import Life
from quickcache_core.ttl import TTL
from quickcache_core.twins import called

if TYPE_CHECKING:
    from quickcache_core.cache import QuickCache

logger = logging.getLogger(__name__)

Contents = Mapping[Any, Any] | Iterable[Any] | str | os.PathLike[str]
Load = Callable[[Any], Any]
LoadMany = Callable[[Sequence[Any]], Any]

_SHOWN_EVERY: Final = 0.1
"""Seconds between two calls of `progress`."""
_AT_A_TIME: Final = 20
"""Keys that a thread takes with a loader for one key."""


@dataclasses.dataclass(frozen=True, slots=True)
class Warmed:
    """What `warm` did."""

    stored: int
    skipped: int
    """Keys that had a live value, or for which there was nothing to store."""
    failed: int
    seconds: float
    error: Exception | None = None
    """Of the first key that failed."""

    @property
    def done(self) -> int:
        return self.stored + self.skipped + self.failed


def warm(
    cache: QuickCache,
    source: Contents,
    loader: Load | None = None,
    ttl_sec: TTL | None = None,
    *,
    load_many: LoadMany | None = None,
    overwrite: bool = False,
    threads: int = 1,
    batch: int = 1000,
    progress: Progress | None = None,
    total: int | None = None,
    key_of: Callable[[Any], str] | None = None,
    **options: Unpack[LoadArguments],
) -> Warmed:
    """Fill the cache from a mapping, from (key, value) pairs, from keys with a loader, or from a backup.

    With `loader` the source gives keys, and `loader(key)` a value; `load_many(keys)` gives a mapping for up
    to `batch` keys, and leaves out what there is none for; `loader` returns `MISSING` for that. A str or path
    is a file that `save_to_disk` or `backup` wrote, or a directory of backups, of which the newest is taken;
    its entries live as they did, unless there is a `ttl_sec`. Any iterable is read bit by bit.

    Keys that have a live value are left as they are, and not loaded, unless `overwrite`. A value whose key
    was written or deleted while it was loaded is not stored. What fails for a key is counted; what the source
    itself raises is raised, and so is `CacheLoadError` for a file.

    With several `threads` that many call the loader at a time, each in a copy of the caller's context and in
    the `background_context` of the configuration. `progress(done, total)` is called in the caller's thread
    some ten times a second and at the end; `total` is the source's length, None if it has none and isn't
    given. `key_of(key)` is what the cache calls a key of the source. The other keywords are those of
    `get_or_set` that say how entries live; with `jitter` they don't expire all together. While the cache is
    switched off nothing happens.
    """
    _check(loader, load_many, threads, batch)
    if _is_asynchronous(loader, load_many):
        raise TypeError(f"loader={loader or load_many!r} is a coroutine function; await awarm")
    warming = _Warming(cache, ttl_sec, options, overwrite, key_of, progress)
    items, counted = _items(cache, source, loader, load_many)
    warming.total = counted if total is None else total
    work: Callable[[list[Any]], None]
    if isinstance(source, str | os.PathLike):
        work = partial(warming.restore, keeps_life=ttl_sec is None)
    elif load_many is not None:
        work = partial(warming.load_all, load_many)
    elif loader is not None:
        work = partial(warming.load_each, loader)
    else:
        work = warming.store
    if cache.enabled:
        if threads == 1:
            for part in _parts(items, batch):
                work(part)
        else:
            size = batch if loader is None else min(batch, _AT_A_TIME)
            _in_threads(partial(warming.surrounded, work), _parts(items, size), threads, warming.show)
        warming.show(at_last=True)
    return warming.result()


async def awarm(
    cache: QuickCache,
    source: Contents,
    loader: Load | None = None,
    ttl_sec: TTL | None = None,
    *,
    load_many: LoadMany | None = None,
    overwrite: bool = False,
    tasks: int = 1,
    batch: int = 1000,
    progress: Progress | None = None,
    total: int | None = None,
    key_of: Callable[[Any], str] | None = None,
    **options: Unpack[LoadArguments],
) -> Warmed:
    """As `warm`; `loader` or `load_many` may be a coroutine function, awaited by so many `tasks` at a time.

    Without a coroutine function it is `warm` in a thread, with as many threads; `progress` is called there.
    """
    if not _is_asynchronous(loader, load_many):
        plain = partial(warm, cache, source, loader, ttl_sec, load_many=load_many, overwrite=overwrite)
        rest = partial(plain, threads=tasks, batch=batch, progress=progress, total=total, key_of=key_of)
        return await asyncio.to_thread(rest, **options)
    _check(loader, load_many, tasks, batch, "tasks")
    warming = _Warming(cache, ttl_sec, options, overwrite, key_of, progress)
    items, counted = _items(cache, source, loader, load_many)
    warming.total = counted if total is None else total
    # One iterator for all tasks: they run in one thread, and none of them waits within it.
    parts = _parts(items, 1 if load_many is None else batch)

    async def take() -> None:
        for part in parts:
            if load_many is not None:
                await warming.aload_all(load_many, part)
            elif loader is not None:
                await warming.aload(loader, part[0])
            # Where nothing is awaited, because all is there, others shall have their turn.
            await asyncio.sleep(0)

    if cache.enabled:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(tasks):
                    group.create_task(take(), name="quickcache warm")
        except BaseExceptionGroup as errors:
            # As without tasks: what the source raised.
            raise errors.exceptions[0] from None
        warming.show(at_last=True)
    return warming.result()


class _Wanted(NamedTuple):
    key: Any
    """As the source has it."""
    name: str
    """As the cache has it."""
    token: object


class _Warming:
    """What one call has in common for all its keys. Several threads may work on it."""

    def __init__(
        self,
        cache: QuickCache,
        ttl_sec: TTL | None,
        options: LoadArguments,
        overwrite: bool,
        key_of: Callable[[Any], str] | None,
        progress: Progress | None,
    ) -> None:
        check_names(options)
        self._to = destination_of(cache)
        self._options = cache._load_options.changed(ttl_sec, options)
        self._overwrite = overwrite
        self._key_of = key_of
        self._life = None if self._options.jitter else self._next_life()
        self._progress = progress
        self.total: int | None = None
        self._shown_at = self._begun = time.monotonic()
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._stored = self._skipped = self._failed = 0
        self._error: Exception | None = None

    def result(self) -> Warmed:
        took = time.monotonic() - self._begun
        return Warmed(self._stored, self._skipped, self._failed, took, self._error)

    def show(self, *, at_last: bool = False) -> None:
        """Tell `progress`, unless it was told just now."""
        now = time.monotonic()
        if self._progress is not None and (at_last or now >= self._shown_at + _SHOWN_EVERY):
            self._shown_at = now
            self._progress(self._stored + self._skipped + self._failed, self.total)

    def surrounded(self, work: Callable[[list[Any]], None], part: list[Any]) -> None:
        if self._to.around is None:
            work(part)
            return
        with self._to.around():
            work(part)

    # The kinds of work, each for a part of the source

    def store(self, pairs: list[Any]) -> None:
        for pair in pairs:
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise TypeError(f"{pair!r} is no (key, value) pair; for keys give a loader as well")
            key, value = pair
            self._count(self._attempt(partial(self._insert, key, value)))

    def restore(self, records: list[Any], *, keeps_life: bool) -> None:
        for record in records:
            self._count(self._attempt(partial(self._insert_record, record, keeps_life)))

    def load_each(self, loader: Load, keys: list[Any]) -> None:
        for key in keys:
            for wanted in self._wanted((key,)):
                try:
                    value = loader(key)
                except Exception as error:
                    self._count(error)
                else:
                    self._finish(wanted, value)

    def load_all(self, load_many: LoadMany, keys: list[Any]) -> None:
        wanted = self._wanted(keys)
        if wanted:
            try:
                values = load_many([one.key for one in wanted])
            except Exception as error:
                self._count(error, len(wanted))
            else:
                self._finish_all(wanted, values)

    async def aload(self, loader: Load, key: Any) -> None:
        aside = self._to.aside
        for wanted in await called(aside, self._wanted, (key,)):
            try:
                value = await loader(key)
            except Exception as error:
                self._count(error)
            else:
                await called(aside, self._finish, wanted, value)

    async def aload_all(self, load_many: LoadMany, keys: list[Any]) -> None:
        aside = self._to.aside
        wanted = await called(aside, self._wanted, keys)
        if wanted:
            try:
                values = await load_many([one.key for one in wanted])
            except Exception as error:
                self._count(error, len(wanted))
            else:
                await called(aside, self._finish_all, wanted, values)

    # One key

    def _wanted(self, keys: Iterable[Any]) -> list[_Wanted]:
        """Those to be loaded; the others are counted."""
        wanted = []
        for key in keys:
            try:
                name = self._name(key)
                if self._overwrite or name not in self._to.store:
                    wanted.append(_Wanted(key, name, self._to.store.begin_load(name)))
                    continue
            except Exception as error:
                self._count(error)
            else:
                self._count(False)
        return wanted

    def _finish(self, wanted: _Wanted, value: Any) -> None:
        self._count(self._attempt(partial(self._put, wanted.name, value, wanted.token)))

    def _finish_all(self, wanted: list[_Wanted], values: Mapping[Any, Any]) -> None:
        if not isinstance(values, Mapping):
            raise TypeError(f"load_many returned {type(values).__qualname__}; it has to return a mapping")
        for one in wanted:
            self._finish(one, values.get(one.key, MISSING))

    def _insert(self, key: Any, value: Any) -> bool:
        name = self._name(key)
        if not self._overwrite and name in self._to.store:
            return False  # before the work of making its stored form
        return self._put(name, value, None)

    def _insert_record(self, record: Record, keeps_life: bool) -> bool:
        if not keeps_life:
            life = self._life or self._next_life()
        elif record.remaining <= 0.0:
            return False  # stale ones are for those who had them
        elif record.life is None:
            life = Life(record.remaining)
        else:
            life = dataclasses.replace(record.life, ttl=record.remaining)
        return self._write(self._name(record.key), record.value, life, None)

    def _put(self, name: str, value: Any, token: object) -> bool:
        if value is MISSING or (value is None and self._options.skip_none):
            return False
        return self._write(name, self._to.freeze(name, value), self._life or self._next_life(), token)

    def _write(self, name: str, stored: Any, life: Life, token: object) -> bool:
        """Whether it was stored."""
        to = self._to
        try:
            if token is not None:
                done = to.store.put_with(name, stored, life, to.bounds, token)
            elif not self._overwrite:
                done = to.store.add(name, stored, life.ttl, to.bounds, None if life.is_plain else life)
            elif life.is_plain:
                to.store.put(name, stored, life.ttl, to.bounds)
                done = True
            else:
                done = to.store.put_with(name, stored, life, to.bounds)
        except ValueTooLarge:
            if not to.skips_oversized:
                raise
            return False
        if done:
            to.stored(name)
        return done

    def _name(self, key: Any) -> str:
        name = key if self._key_of is None else self._key_of(key)
        check_key(name)
        return name

    def _next_life(self) -> Life:
        return self._to.life(LoaderContext("", self._options, None), self._options)

    @staticmethod
    def _attempt(step: Callable[[], bool]) -> bool | Exception:
        try:
            return step()
        except Exception as error:
            return error

    def _count(self, outcome: bool | Exception, keys: int = 1) -> None:
        with self._lock:
            if outcome is True:
                self._stored += keys
            elif outcome is False:
                self._skipped += keys
            else:
                self._failed += keys
                self._error = self._error or outcome
        if isinstance(outcome, Exception):
            logger.debug("What was not warmed", exc_info=outcome)
        if self._thread == threading.get_ident():
            self.show()


def _is_asynchronous(loader: Load | None, load_many: LoadMany | None) -> bool:
    return any(one is not None and is_asynchronous(one) for one in (loader, load_many))


def _check(
    loader: object, load_many: object, workers: object, batch: object, workers_name: str = "threads"
) -> None:
    if loader is not None and load_many is not None:
        raise TypeError("loader and load_many: give one of them")
    for name, function in (("loader", loader), ("load_many", load_many)):
        if function is not None and not callable(function):
            raise TypeError(f"{name}={function!r}: give a function")
    for name, number in ((workers_name, workers), ("batch", batch)):
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ValueError(f"{name}={number!r}: give a whole number above 0")


def _items(
    cache: QuickCache, source: Contents, loader: object, load_many: object
) -> tuple[Iterable[Any], int | None]:
    """What is to be gone through, and how much that is."""
    has_loader = loader is not None or load_many is not None
    if isinstance(source, str | os.PathLike):
        if has_loader:
            raise TypeError(f"source={source!r}: a file has values; for keys give a list or another iterable")
        records = cache._files.restore(source, cache._freeze)
        return records, len(records)
    if isinstance(source, bytes) or not isinstance(source, Iterable):
        raise TypeError(f"source={source!r}: give a mapping, pairs, keys and a loader, or a path")
    if isinstance(source, Mapping) and not has_loader:
        return source.items(), len(source)
    return source, len(source) if isinstance(source, Sized) else None


def _parts(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


def _in_threads(
    work: Callable[[list[Any]], None], parts: Iterator[list[Any]], threads: int, show: Callable[[], None]
) -> None:
    """Raises what `work` or the source raises. Takes up to two parts for each thread ahead."""
    ahead: set[Future[None]] = set()
    with ThreadPoolExecutor(threads, thread_name_prefix="quickcache-warm") as executor:
        try:
            for part in parts:
                ahead.add(executor.submit(contextvars.copy_context().run, work, part))
                while len(ahead) >= 2 * threads:
                    ahead = _ended(ahead, show)
            while ahead:
                ahead = _ended(ahead, show)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def _ended(ahead: set[Future[None]], show: Callable[[], None]) -> set[Future[None]]:
    done, rest = wait(ahead, timeout=_SHOWN_EVERY, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
    show()
    return rest
