"""Puts together what writes behind are made of."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from quickcache_core.errors import ConfigError
from quickcache_core.location import read_location
from quickcache_core.maintenance import maintenance
from quickcache_core.registry import serializers
from quickcache_core.sources.base import source_name
from quickcache_core.sources.flusher import Flusher
from quickcache_core.sources.options import BehindOptions
from quickcache_core.sources.queue import MemoryQueue, WriteQueue
from quickcache_core.sources.target import Awaited, Direct
from quickcache_core.sources.write_behind import WriteBehind

if TYPE_CHECKING:
    from quickcache_core.config import QuickCacheConfig


def make_flusher(
    config: QuickCacheConfig,
    source: Any,
    options: BehindOptions,
    gave_up: Callable[[str], object],
    *,
    is_async: bool,
) -> Flusher:
    """Raises `ConfigError`."""
    target = Awaited(source) if is_async else Direct(source)
    queue = _queue(config, source, options)
    return Flusher(WriteBehind(queue, target, options, config.clock, gave_up))


def _queue(config: QuickCacheConfig, source: Any, options: BehindOptions) -> WriteQueue:
    location = read_location(config.location)
    path = options.path(location.scope, location.name)
    if path is None:
        queue = MemoryQueue(config.clock)
        maintenance.adopt(queue)
        return queue
    try:
        import fcntl  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "queue", str(path), "this needs POSIX file locks, which Windows lacks; use 'memory'"
        ) from error
    from quickcache_core.sources.durable import DurableQueue, WriteCodec
    from quickcache_core.sources.queue_file import queue_files

    name = options.queue_name or source_name(source)
    codec = WriteCodec(
        serializers.create(config.serializer),
        config.secrets("write-behind").signer,
        config.allow_unsigned_pickle,
    )
    file = queue_files.get(path)
    _sources.claim(str(file.path), name, source)
    return DurableQueue(file, name, codec, config.clock)


class _Sources:
    """Whose writes are in which durable queue: two sources that share one would get each other's."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._by_queue: dict[tuple[str, str], ref[Any]] = {}

    def claim(self, path: str, name: str, source: Any) -> None:
        """Raises `ConfigError` if another source that is in use has the queue."""
        with self._lock:
            known = self._by_queue.get((path, name))
            other = None if known is None else known()
            if other is not None and other is not source:
                raise ConfigError(
                    "queue_name",
                    name,
                    f"another source of this process uses this queue in {path}, and would get what is "
                    "written to this one; use one source object, or give each source a queue_name of its own",
                )
            try:
                self._by_queue[path, name] = ref(source)
            except TypeError:
                pass  # can't be watched


_sources: Final = _Sources()
