"""A source as the thread that writes behind calls it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from quickcache_core.sources.base import AsyncSource, Source, release


class Direct:
    """One whose methods are plain functions."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def store_many(self, values: dict[str, Any]) -> None:
        if len(values) == 1:
            for key, value in values.items():
                self._source.store(key, value)
        else:
            self._source.store_many(values)

    def remove(self, key: str) -> None:
        self._source.remove(key)

    def release(self) -> None:
        release(self._source)


class Awaited:
    """One whose methods are coroutine functions: awaited in the event loop that wrote last, since connections
    belong to a loop; in one of its own where there is none any more.
    """

    def __init__(self, source: AsyncSource) -> None:
        self._source = source
        self.loop: asyncio.AbstractEventLoop | None = None

    def store_many(self, values: dict[str, Any]) -> None:
        if len(values) == 1:
            ((key, value),) = values.items()
            self._run(lambda: self._source.store(key, value))
        else:
            self._run(lambda: self._source.store_many(values))

    def remove(self, key: str) -> None:
        self._run(lambda: self._source.remove(key))

    def release(self) -> None:
        pass

    def _run(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        loop = self.loop
        if loop is None or not loop.is_running():
            asyncio.run(call())
            return None
        coroutine = call()
        try:
            ahead = asyncio.run_coroutine_threadsafe(coroutine, loop)
        except RuntimeError:  # closed just now
            coroutine.close()
            raise
        while True:
            try:
                return ahead.result(1.0)
            except TimeoutError:
                if ahead.done():
                    raise  # the source's own
                if not loop.is_running():
                    ahead.cancel()
                    raise ConnectionError("the event loop ended in the middle of a write") from None
