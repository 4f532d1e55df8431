"""The table of figures again and again, until Ctrl-C."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from quickcache_core.metrics.report import StatsReport
from quickcache_core.metrics.tables import stats_cells, stats_heading, stats_table

if TYPE_CHECKING:
    from rich.console import RenderableType

WATCH_INTERVAL: Final = 2.0
"""Seconds between two tables, unless the user says otherwise."""
_SELDOM: Final = ("waits", "failed", "stale", "loads", "errors", "deleted", "expired", "evicted")
_LEFT_OUT: Final = ("bytes", "uptime", "limit", "server", "sets", *_SELDOM)
"""Columns that a narrow terminal does without, in this order; before them those of `_SELDOM` that say 0."""
_AROUND: Final = 3
"""Characters between two columns."""


def watch(
    make_report: Callable[[], StatsReport],
    write: Callable[[str], Any],
    *,
    interval: float,
    count: int | None = None,
) -> None:
    """Show a report every `interval` seconds, `count` times or until Ctrl-C.

    On a terminal, and with rich, the table stays in its place. Elsewhere each goes to `write` as a block of
    text.
    """
    reports = _reports(make_report, interval, count)
    try:
        if sys.stdout.isatty() and _has_rich():
            _watch_in_place(reports)
        else:
            for report in reports:
                write(f"{time.strftime('%H:%M:%S')}\n{stats_table(report)}")
                write("")
                sys.stdout.flush()
    except KeyboardInterrupt:
        # How one ends it.
        write("")


def _reports(
    make_report: Callable[[], StatsReport], interval: float, count: int | None
) -> Iterator[StatsReport]:
    shown = 0
    while True:
        yield make_report()
        shown += 1
        if shown == count:
            return
        time.sleep(interval)


def _has_rich() -> bool:
    try:
        import rich  # noqa: F401
    except ImportError:
        return False
    return True


def _watch_in_place(reports: Iterator[StatsReport]) -> None:
    from rich.live import Live

    # Its own thread would draw tables that haven't changed.
    with Live(auto_refresh=False) as live:
        for report in reports:
            live.update(_drawn(report, live.console.width), refresh=True)


def fitting(
    heads: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> tuple[list[str], list[list[str]]]:
    """The columns that a terminal of `width` characters has room for: better none than numbers cut short."""
    columns = {head: [row[place] for row in rows] for place, head in enumerate(heads)}
    silent = [head for head in _SELDOM if set(columns.get(head, ())) <= {"0"}]
    for head in (*silent, *_LEFT_OUT):
        if sum(max(map(len, (name, *cells))) + _AROUND for name, cells in columns.items()) < width:
            break
        columns.pop(head, None)
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]


def _drawn(report: StatsReport, width: int) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    tables: list[RenderableType] = []
    for alias in report["aliases"]:
        heads, rows = fitting(*stats_cells(alias), width)
        # Text, since names in square brackets would be taken for styles.
        table = Table(title=Text(stats_heading(alias)), title_justify="left")
        for place, head in enumerate(heads):
            left = place == 0 or head == "server"
            table.add_column(head, justify="left" if left else "right", no_wrap=True)
        for row in rows:
            style = "bold" if row[0] == "total" else "dim" if row[0] == "ended" else ""
            table.add_row(*map(Text, row), style=style)
        tables.append(table)
    return Group(*tables, *map(Text, report["notes"]), Text(time.strftime("%H:%M:%S"), style="dim"))
