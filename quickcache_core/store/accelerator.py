"""What stores use: that in C where it was built, the reference in Python elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MethodType
from typing import Any, Final, TypeVar, cast

from quickcache_core.compiled import found
from quickcache_core.metrics.counters import Counters
from quickcache_core.store import table
from quickcache_core.store.base import Bounds

F = TypeVar("F", bound=Callable[..., Any])

_table: Any = found("quickcache_core.store._table")
_writer: Any = found("quickcache_core.store._writer")

_OF_FUNCTIONS: Final = (
    *functools.WRAPPER_ASSIGNMENTS,
    *("__code__", "__closure__", "__defaults__", "__globals__", "__kwdefaults__"),
)
"""Attributes that make a method look like the function that it stands for."""

ACCELERATED: Final = _table is not None
"""Whether the hot table is the one in C."""
TABLES: Final[dict[str, type[table.Table]]] = (
    {"counter": _table.Table, "order": _table.OrderedTable, "hook": _table.HookedTable}
    if _table is not None
    else table.TABLES
)
"""By `EvictionPolicy.recency`."""
COUNTERS: Final[type[Counters]] = Counters if _writer is None else _writer.Counters


def writer() -> Any:
    """A new `_writer.Writer` for a store, which has to `bind` it; None where there is none."""
    return None if _writer is None else _writer.Writer()


def by_writer(put: F) -> F:
    """Let the writer of a store in C do a `put`, where there is one and it can."""
    if _writer is None:
        return put

    @functools.wraps(put)
    def run(self: Any, key: str, value: Any, ttl: float, bounds: Bounds) -> None:
        writer = self.writer
        if writer is None or not writer.put(key, value, ttl, bounds):
            put(self, key, value, ttl, bounds)

    return cast("F", run)


def without_writer(put: F) -> F:
    """A bound method as it was before `by_writer`: to ask a writer that refuses costs a tenth of a set."""
    function = getattr(put, "__wrapped__", None)
    return put if function is None else cast("F", MethodType(function, cast("MethodType", put).__self__))


def gate(writer: Any, ttl: float, bounds: Bounds, kept: frozenset[type] | None) -> Any:
    """What a `door` needs to write by itself; None if that is more than it knows about."""
    return _writer.Gate(writer, ttl, bounds, kept)


def door(method: F) -> F:
    """Let a method of a cache go straight to what is in C, if the cache has what that needs.

    `get` needs `_get`: see `_table.c`. `set` and `incr` need a gate: see `_writer.c`.
    """
    kind = getattr(_table if method.__name__ == "get" else _writer, "Door", None)
    return (
        method if kind is None else cast("F", functools.update_wrapper(kind(method), method, _OF_FUNCTIONS))
    )
