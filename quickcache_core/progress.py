"""How a long piece of work is going: a bar on a terminal, lines elsewhere. Always on standard error."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

Progress = Callable[[int, int | None], object]
"""Told how much is done, and of how much; None: nobody knows."""

_LINE_EVERY: Final = 2.0
"""Seconds between two lines where no bar can be drawn."""


@contextmanager
def progress_bar(label: str, note: Callable[[str], Any]) -> Iterator[Progress]:
    """Shows what it is told. Where standard error is a terminal, and with rich, that is a bar with the rate;
    elsewhere `note` gets a line every two seconds.
    """
    if not _can_draw():
        yield _Lines(label, note)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    begun = time.monotonic()
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None, rate="")

        def show(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total, rate=rate(done, time.monotonic() - begun))

        yield show


@contextmanager
def busy(label: str, note: Callable[[str], Any]) -> Iterator[None]:
    """Around work that can't say how far it is: a bar that moves, with the time it has taken; elsewhere a
    line if it takes longer than two seconds, from another thread.
    """
    if not _can_draw():
        timer = threading.Timer(_LINE_EVERY, note, [f"{label} ..."])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bar.add_task(label, total=None)
        yield


def rate(done: int, seconds: float) -> str:
    """`1,234/s`."""
    return f"{done / seconds:,.0f}/s" if seconds > 0.0 else "-"


def _can_draw() -> bool:
    if not sys.stderr.isatty():
        return False
    try:
        import rich.progress  # noqa: F401
    except ImportError:
        return False
    return True


class _Lines:
    def __init__(self, label: str, note: Callable[[str], Any]) -> None:
        self._label = label
        self._note = note
        self._begun = time.monotonic()
        self._next = self._begun + _LINE_EVERY

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _LINE_EVERY
        of = "" if total is None else f" of {total:,}"
        self._note(f"{self._label}: {done:,}{of}, {rate(done, now - self._begun)}")
