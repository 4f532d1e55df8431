"""What the commands that warm a cache have in common: which function they call, and what they show."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
from collections.abc import Callable, Mapping, Sized
from typing import TYPE_CHECKING, Any, NamedTuple

from quickcache_core.loading.context import is_asynchronous
from quickcache_core.loading.warm import Warmed, awarm, warm
from quickcache_core.progress import progress_bar, rate
from quickcache_core.ttl import TTL

if TYPE_CHECKING:
    from quickcache_core.cache import QuickCache


class Contents(NamedTuple):
    """What a cache is to be warmed with."""

    source: Any
    """Pairs, or keys if there is a loader, or the path of a backup."""
    loader: Callable[[Any], Any] | None
    total: int | None


def function_at(path: str) -> Callable[[], Any]:
    """The function that `package.module:function` names. Raises `ValueError` with what is wrong."""
    module_name, separator, name = path.partition(":")
    if not separator or not module_name or not name:
        raise ValueError(f"{path!r}: give a module and a function in it, such as shop.warming:products")
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"{path!r}: the module can't be imported ({error})") from error
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ValueError(f"{path!r}: the module has no function {name!r}")
    return found  # type: ignore[no-any-return]


def contents_of(function: Callable[[], Any]) -> Contents:
    """What the function gives: a mapping, (key, value) pairs, or keys and a loader as a tuple of the two.

    Raises `ValueError` if it gives something else.
    """
    given = function()
    if inspect.iscoroutine(given):
        given.close()
        raise ValueError("the function is a coroutine function; its loader may be one, it itself may not")
    loader = None
    if isinstance(given, tuple) and len(given) == 2 and callable(given[1]):
        given, loader = given
    total = len(given) if isinstance(given, Sized) else None
    if isinstance(given, Mapping) and loader is None:
        given = given.items()
    if isinstance(given, str | bytes | os.PathLike) or not hasattr(given, "__iter__"):
        raise ValueError(
            f"the function gave {type(given).__qualname__}; it has to give a mapping, (key, value) pairs, or "
            "(keys, loader)"
        )
    return Contents(given, loader, total)


def warm_and_show(
    label: str,
    cache: QuickCache,
    contents: Contents,
    note: Callable[[str], Any],
    *,
    ttl_sec: TTL | None = None,
    threads: int = 1,
    overwrite: bool = False,
    key_of: Callable[[Any], str] | None = None,
) -> Warmed:
    """Warm the cache, and show how it goes, see `progress_bar`. Raises what `warm` raises."""
    source, loader, total = contents
    with progress_bar(label, note) as progress:
        how: dict[str, Any] = {
            "overwrite": overwrite,
            "key_of": key_of,
            "progress": progress,
            "total": total,
        }
        if loader is not None and is_asynchronous(loader):
            return asyncio.run(awarm(cache, source, loader, ttl_sec, tasks=threads, **how))
        return warm(cache, source, loader, ttl_sec, threads=threads, **how)


def warmed_lines(label: str, warmed: Warmed) -> list[str]:
    """For people."""
    lines = [
        f"{label}: {warmed.stored:,} stored, {warmed.skipped:,} skipped, {warmed.failed:,} failed "
        f"in {warmed.seconds:.1f} s, {rate(warmed.done, warmed.seconds)}"
    ]
    if warmed.error is not None:
        lines.append(f"{label}: the first failure was {type(warmed.error).__name__}: {warmed.error}")
    return lines


def warmed_row(label: str, warmed: Warmed) -> dict[str, Any]:
    """For programs."""
    error = warmed.error
    return {
        "alias": label,
        "stored": warmed.stored,
        "skipped": warmed.skipped,
        "failed": warmed.failed,
        "seconds": round(warmed.seconds, 3),
        "error": None if error is None else f"{type(error).__name__}: {error}",
    }
