"""Counts the slow queries of all workers, in the cache that they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.cache import cache

COUNT = "slow-queries"


def slow_queries() -> int:
    return int(cache.get(COUNT, 0))


def watch(connection: Any, **_: Any) -> None:
    """A receiver of `connection_created`, which comes again when a connection is made anew."""
    if counting not in connection.execute_wrappers:
        connection.execute_wrappers.insert(0, counting)


def counting(execute: Callable[..., Any], sql: str, *args: Any) -> Any:
    if sql.startswith("SELECT") and "SUM(" in sql:
        cache.add(COUNT, 0, timeout=None)
        cache.incr(COUNT)
    return execute(sql, *args)
