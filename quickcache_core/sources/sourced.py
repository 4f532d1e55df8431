"""A cache in front of a data source."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

from quickcache_core import checks
from quickcache_core.entry import MISSING
from quickcache_core.errors import ConfigError, KeyNotFound, QueueFull
from quickcache_core.loading.context import LoaderContext
from quickcache_core.sources.base import check_source, key_list, release
from quickcache_core.sources.behind import make_flusher
from quickcache_core.sources.entries import NO_ROW, Entries, is_no_row
from quickcache_core.sources.options import STRATEGIES, BehindOptions, Writes, split
from quickcache_core.sources.queue import REMOVED, DeadLetter
from quickcache_core.sources.target import Awaited
from quickcache_core.ttl import TTL, seconds

if TYPE_CHECKING:
    from quickcache_core.cache import QuickCache

R = TypeVar("R")


class SourcedCache:
    """Reads through a cache from a source, and writes to both, see `QuickCache.with_source`.

    Keys are strings. A key that the source doesn't have is a `KeyNotFound`, or the default. All methods may
    be called from any thread. The methods with an `a` in front don't block the event loop while the source
    works: one with plain functions does so in a thread, one with coroutine functions (`AsyncSource`) is
    awaited, and has these methods only. The cache itself is asked in the loop, but by `aget`: in scope
    `redis` the others have it wait for the server.

    Writes, by `writes`:

    * `through`: to the source, then to the cache.
    * `around`: to the source; the key is deleted from the cache, and the next reader loads it.
    * `behind`: to the cache and a queue; the source gets them in batches, a moment later.

    If the source raises, the error is raised and the key leaves the cache: nobody knows whether it was
    written. Values of concurrent writers, and of loads that began before a write, never outlive it in the
    cache.

    Use the same object, or objects with the same strategy, for all writes of a source. After a fork, the
    parent writes what was pending in memory.
    """

    def __init__(
        self,
        cache: QuickCache,
        source: Any,
        *,
        writes: Writes = "through",
        ttl_sec: TTL | None = None,
        missing_ttl: TTL | None = None,
        **options: Any,
    ) -> None:
        """`ttl_sec`: of loaded and written values, as everywhere. `missing_ttl`: seconds or timedelta for
        which it is remembered that the source has no such row; None: not at all.

        Options: those of `get_or_set`, for all loads; with `writes="behind"` also those of `BehindOptions`.
        Raises `ConfigError`, and `TypeError` for a source that lacks a method. Starts nothing.
        """
        checks.one_of("writes", writes, STRATEGIES)
        if missing_ttl is not None:
            seconds(missing_ttl, "missing_ttl")
        behind, loading = split(options)
        if behind and writes != "behind":
            name = next(iter(behind))
            raise ConfigError(name, behind[name], f"only writes='behind' has this option, not {writes!r}")
        self._is_async = check_source(source)
        self._cache = cache
        self._source = source
        self._writes = writes
        self._ttl_sec = ttl_sec
        self._missing_ttl = missing_ttl
        self._loading = loading
        self._entries = Entries(cache, ttl_sec, loading)
        self._flusher = None
        if writes == "behind":
            # It must not keep itself alive through its flusher.
            forget = ref(self._entries)
            self._flusher = make_flusher(
                cache.config,
                source,
                BehindOptions(**behind),
                lambda key: None if (entries := forget()) is None else entries.forget((key,)),
                is_async=self._is_async,
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._source!r} writes={self._writes!r} cache={self._cache!r}>"

    @property
    def cache(self) -> QuickCache:
        return self._cache

    @property
    def source(self) -> Any:
        return self._source

    # Reading

    def get(self, key: str, default: Any = MISSING) -> Any:
        """From the cache, else what is pending, else from the source; loaded once for all who ask
        together.
        """
        self._check_direct("get")
        value = self._cache.get_or_set(key, self._loader(), self._ttl_sec, **self._loading)
        return value if not is_no_row(value) else _absent(key, default)

    def refresh(self, key: str, default: Any = MISSING) -> Any:
        """As `get`, from the source whatever is in the cache."""
        self._check_direct("refresh")
        value = self._cache.refresh(key, self._loader(), self._ttl_sec, **self._loading)
        return value if not is_no_row(value) else _absent(key, default)

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Those that are in the cache or the source. What isn't in the cache is loaded with one `load_many`,
        not shared with others who ask at the same time. If that fails and all have stale values, these.
        """
        self._check_direct("get_many")
        found, missing = self._hits(keys)
        if not missing:
            return found
        tokens = self._entries.begin(missing)
        loaded = self._pending(missing)
        try:
            if wanted := [key for key in missing if key not in loaded]:
                loaded.update(self._source.load_many(wanted))
        except Exception:
            return found | self._stale_or_raise(missing)
        return found | self._filled(tokens, loaded)

    def _loader(self) -> Callable[[LoaderContext], Any]:
        caller = threading.get_ident()

        def load(context: LoaderContext) -> Any:
            pending = self._pending((context.key,))
            if pending:
                return self._answer(context, pending[context.key])
            try:
                return self._answer(context, self._source.load(context.key))
            finally:
                if threading.get_ident() != caller:
                    release(self._source)

        return load

    def _answer(self, context: LoaderContext, value: Any) -> Any:
        if value is not MISSING and value is not REMOVED:
            return value
        if self._missing_ttl is not None:
            context.ttl_sec = self._missing_ttl
            # Else it would never end while somebody asks for it.
            context.sliding = False
            context.keep_stale_for(0)
        else:
            context.dont_store()
            if context.has_stale:
                self._entries.forget((context.key,))
        return NO_ROW

    def _hits(self, keys: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
        wanted = key_list(keys)
        hits = self._cache.get_many(wanted)
        missing = [key for key in wanted if key not in hits]
        return {key: value for key, value in hits.items() if not is_no_row(value)}, missing

    def _pending(self, keys: Iterable[str]) -> dict[str, Any]:
        if self._flusher is None:
            return {}
        self._flusher.look()
        return self._flusher.behind.queue.peek(keys)

    def _filled(self, tokens: Mapping[str, object], loaded: Mapping[str, Any]) -> dict[str, Any]:
        values = {
            key: value
            for key, value in loaded.items()
            if key in tokens and value is not REMOVED and value is not MISSING
        }
        self._entries.fill(tokens, values, self._missing_ttl)
        return values

    def _stale_or_raise(self, keys: list[str]) -> dict[str, Any]:
        stale = self._entries.stale(keys)
        if len(stale) < len(keys):
            raise
        return {key: value for key, value in stale.items() if not is_no_row(value)}

    # Writing

    def set(self, key: str, value: Any, ttl_sec: TTL | None = None) -> None:
        """Insert or overwrite. Raises what the source raises; with writes behind `QueueFull`, and
        `SerializationError` and `StoreUnavailable` from a durable queue.
        """
        self.set_many({key: value}, ttl_sec)

    def set_many(self, data: Mapping[str, Any], ttl_sec: TTL | None = None) -> None:
        """Insert or overwrite several, with one `store_many`. Whether that is all or nothing is the source's
        business; with writes behind it is, unless there are more than `max_pending`.
        """
        self._check_direct("set")
        self._set_many(data, ttl_sec)

    def _set_many(self, data: Mapping[str, Any], ttl_sec: TTL | None, patience: float | None = None) -> None:
        with self._entries.writing(data, ttl_sec, keep=self._writes != "around") as stored:
            if self._flusher is not None:
                self._enqueue(stored, patience)
            elif len(data) == 1:
                self._source.store(*next(iter(data.items())))
            elif data:
                self._source.store_many(data)

    def delete(self, key: str) -> None:
        """Remove from the source and the cache; no error if it is in neither."""
        self.delete_many((key,))

    def delete_many(self, keys: Iterable[str]) -> None:
        self._check_direct("delete")
        self._delete_many(keys)

    def _delete_many(self, keys: Iterable[str], patience: float | None = None) -> None:
        with self._entries.removing(keys) as gone:
            if self._flusher is not None:
                self._enqueue(dict.fromkeys(gone, REMOVED), patience)
            else:
                for key in gone:
                    self._source.remove(key)

    def _enqueue(self, values: Mapping[str, Any], patience: float | None) -> None:
        flusher = self._flusher
        if flusher is None or not values:
            return
        options = flusher.behind.options
        patience = options.patience if patience is None else patience
        if len(values) <= options.max_pending:
            flusher.put(values, patience)
            return
        # More than there is room for: in parts, as it gets free.
        rest = list(values.items())
        for start in range(0, len(rest), options.max_batch):
            flusher.put(dict(rest[start : start + options.max_batch]), patience)

    # Writes behind

    def pending(self) -> int:
        """Writes that the source hasn't got yet, dead letters left aside. Takes time by their number."""
        return 0 if self._flusher is None else self._flusher.behind.queue.size()

    @property
    def failures(self) -> int:
        """Calls of the source by this process's thread that raised."""
        return 0 if self._flusher is None else self._flusher.behind.failures

    def dead_letters(self) -> list[DeadLetter]:
        """Writes that the source refused again and again while it took others; oldest first. A later write of
        the key takes its place.
        """
        return [] if self._flusher is None else self._flusher.behind.queue.dead()

    def retry_dead_letters(self, keys: Iterable[str] | None = None) -> int:
        """Let them be written once more, None: all; how many."""
        if self._flusher is None:
            return 0
        number = self._flusher.behind.queue.revive(keys)
        self._flusher.wake(0)
        return number

    def discard_dead_letters(self, keys: Iterable[str] | None = None) -> int:
        """Give them up for good, None: all; how many."""
        return 0 if self._flusher is None else self._flusher.behind.queue.discard(keys)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until what is pending now is in the source; whether it is, within so many seconds (None:
        `close_timeout`). Dead letters don't count.
        """
        flusher = self._flusher
        if flusher is None:
            return True
        self._check_outside_loop("flush")
        return flusher.flush(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """`flush`, and end the thread. What couldn't be written in time is logged, and stays pending.

        May be called twice; the cache may be used on. The end of the program does it as well, unless that
        ends by a signal or `os._exit`.
        """
        flusher = self._flusher
        if flusher is None:
            return True
        self._check_outside_loop("close")
        return flusher.close(timeout)

    stop = close

    def __enter__(self) -> SourcedCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # For coroutines

    async def aget(self, key: str, default: Any = MISSING) -> Any:
        value = await self._cache.aget_or_set(key, self._aloader(), self._ttl_sec, **self._loading)
        return value if not is_no_row(value) else _absent(key, default)

    async def arefresh(self, key: str, default: Any = MISSING) -> Any:
        value = await self._cache.arefresh(key, self._aloader(), self._ttl_sec, **self._loading)
        return value if not is_no_row(value) else _absent(key, default)

    async def aget_many(self, keys: Iterable[str]) -> dict[str, Any]:
        if not self._is_async:
            return await self._in_thread(lambda: self.get_many(keys))
        found, missing = self._hits(keys)
        if not missing:
            return found
        tokens = self._entries.begin(missing)
        loaded = await self._apending(missing)
        try:
            if wanted := [key for key in missing if key not in loaded]:
                loaded.update(await self._source.load_many(wanted))
        except Exception:
            return found | self._stale_or_raise(missing)
        return found | self._filled(tokens, loaded)

    def _aloader(self) -> Callable[[LoaderContext], Any]:
        return self._aload if self._is_async else self._loader()

    async def _aload(self, context: LoaderContext) -> Any:
        pending = await self._apending((context.key,))
        if pending:
            return self._answer(context, pending[context.key])
        return self._answer(context, await self._source.load(context.key))

    async def _apending(self, keys: Iterable[str]) -> dict[str, Any]:
        if self._is_durable:
            return await asyncio.to_thread(self._pending, keys)
        return self._pending(keys)

    @property
    def _is_durable(self) -> bool:
        return self._flusher is not None and self._flusher.behind.queue.is_durable

    async def aset(self, key: str, value: Any, ttl_sec: TTL | None = None) -> None:
        await self.aset_many({key: value}, ttl_sec)

    async def aset_many(self, data: Mapping[str, Any], ttl_sec: TTL | None = None) -> None:
        """As `set_many`. A task that is cancelled meanwhile may have written or not; the cache agrees with
        the source in either case.
        """
        if self._is_async and self._flusher is None:
            with self._entries.writing(data, ttl_sec, keep=self._writes != "around"):
                if len(data) == 1:
                    await self._source.store(*next(iter(data.items())))
                elif data:
                    await self._source.store_many(data)
            return
        await self._write(lambda patience: self._set_many(data, ttl_sec, patience), len(data))

    async def adelete(self, key: str) -> None:
        await self.adelete_many((key,))

    async def adelete_many(self, keys: Iterable[str]) -> None:
        keys = key_list(keys)
        if self._is_async and self._flusher is None:
            with self._entries.removing(keys) as gone:
                for key in gone:
                    await self._source.remove(key)
            return
        await self._write(lambda patience: self._delete_many(keys, patience), len(keys))

    async def _write(self, work: Callable[[float | None], None], number: int) -> None:
        """In place if that takes microseconds, else in a thread; there as a whole, so that cancelling the
        task stops neither half of it.
        """
        flusher = self._flusher
        if flusher is not None:
            if isinstance(flusher.behind.target, Awaited):
                flusher.behind.target.loop = asyncio.get_running_loop()
            if not self._is_durable and number <= flusher.behind.options.max_pending:
                with suppress(QueueFull):
                    work(0.0)
                    return
        await self._in_thread(lambda: work(None))

    async def aflush(self, timeout: float | None = None) -> bool:
        flusher = self._flusher
        if flusher is None:
            return True
        return await asyncio.to_thread(flusher.flush, timeout)

    async def aclose(self, timeout: float | None = None) -> bool:
        flusher = self._flusher
        if flusher is None:
            return True
        return await asyncio.to_thread(flusher.close, timeout)

    astop = aclose

    async def __aenter__(self) -> SourcedCache:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _in_thread(self, work: Callable[[], R]) -> R:
        def released() -> R:
            try:
                return work()
            finally:
                if not self._is_async:
                    release(self._source)

        return await asyncio.to_thread(released)

    def _check_direct(self, method: str) -> None:
        if self._is_async:
            raise TypeError(
                f"{type(self._source).__qualname__} is asynchronous; use `await cache.a{method}(...)`"
            )

    def _check_outside_loop(self, method: str) -> None:
        if not self._is_async:
            return
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        raise TypeError(f"{method} would block the loop that the source needs; use `await cache.a{method}()`")


def _absent(key: str, default: Any) -> Any:
    if default is MISSING:
        raise KeyNotFound(key)
    return default
