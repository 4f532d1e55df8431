"""What the commands that warm a cache have in common: which function they call, and what they show."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from quickcache_core.loading.context import is_asynchronous
from quickcache_core.loading.warm import Progress, Warmed, awarm, warm
from quickcache_core.ttl import TTL

if TYPE_CHECKING:
    from quickcache_core.cache import QuickCache

_LINE_EVERY: Final = 2.0
"""Seconds between two lines where no bar can be drawn."""


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
    write: Callable[[str], Any],
    *,
    ttl_sec: TTL | None = None,
    threads: int = 1,
    overwrite: bool = False,
    key_of: Callable[[Any], str] | None = None,
) -> Warmed:
    """Warm the cache, and show how it goes.

    On a terminal, and with rich, that is a bar with the rate. Elsewhere `write` gets a line every two
    seconds; it gets one at the end in any case. Raises what `warm` raises.
    """
    source, loader, total = contents
    with _shown(label, write) as progress:
        how: dict[str, Any] = {
            "overwrite": overwrite,
            "key_of": key_of,
            "progress": progress,
            "total": total,
        }
        if loader is not None and is_asynchronous(loader):
            warmed = asyncio.run(awarm(cache, source, loader, ttl_sec, tasks=threads, **how))
        else:
            warmed = warm(cache, source, loader, ttl_sec, threads=threads, **how)
    write(_summary(label, warmed))
    if warmed.error is not None:
        write(f"{label}: the first failure was {type(warmed.error).__name__}: {warmed.error}")
    return warmed


@contextmanager
def _shown(label: str, write: Callable[[str], Any]) -> Iterator[Progress]:
    if not sys.stdout.isatty():
        yield _Lines(label, write)
        return
    try:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        yield _Lines(label, write)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    begun = time.monotonic()
    with Progress(*columns) as bar:
        task = bar.add_task(label, total=None, rate="")

        def show(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total, rate=_rate(done, time.monotonic() - begun))

        yield show


class _Lines:
    def __init__(self, label: str, write: Callable[[str], Any]) -> None:
        self._label = label
        self._write = write
        self._begun = time.monotonic()
        self._next = self._begun + _LINE_EVERY

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _LINE_EVERY
        of = "" if total is None else f" of {total:,}"
        self._write(f"{self._label}: {done:,}{of}, {_rate(done, now - self._begun)}")
        sys.stdout.flush()


def _summary(label: str, warmed: Warmed) -> str:
    return (
        f"{label}: {warmed.stored:,} stored, {warmed.skipped:,} skipped, {warmed.failed:,} failed "
        f"in {warmed.seconds:.1f} s, {_rate(warmed.done, warmed.seconds)}"
    )


def _rate(done: int, seconds: float) -> str:
    return f"{done / seconds:,.0f}/s" if seconds > 0.0 else "-"
