"""Reports as text for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from quickcache_core.metrics.report import (
    AliasFigures,
    AliasKeys,
    ClearedAlias,
    Figures,
    KeysReport,
    StatsReport,
)

_FIGURE_HEADS = (
    *(
        "host",
        "pid",
        "server",
        "uptime",
        "hits",
        "misses",
        "hit ratio",
        "ops/s",
        "sets",
        "entries",
        "limit",
        "bytes",
    ),
    *("evicted", "expired", "deleted", "errors", "loads", "failed", "waits", "stale"),
)
_HIDDEN: Final = {"host": "", "bytes": "-", "loads": "0", "failed": "0", "waits": "0", "stale": "0"}
"""Columns that are shown if a row has something else there: many caches load nothing."""


def stats_table(report: StatsReport) -> str:
    """For each alias one line per worker, one for those that have ended, and totals if there are several."""
    blocks = [f"{stats_heading(alias)}\n{_table(*stats_cells(alias))}" for alias in report["aliases"]]
    return "\n\n".join([*blocks, *report["notes"]])


def stats_heading(alias: AliasFigures) -> str:
    nobody = "" if alias["workers"] else ", no worker is running"
    return f"{_heading(alias)}, policy {alias['policy']}{nobody}"


def stats_cells(alias: AliasFigures) -> tuple[list[str], list[list[str]]]:
    """The heads of the columns, and the rows."""
    rows = [
        [row["host"], *_figure_cells(str(row["pid"]), row["server"], _duration(row["uptime_s"]), row)]
        for row in alias["workers"]
    ]
    if alias["retired"] is not None:
        rows.append(["", *_figure_cells("ended", "", "", alias["retired"])])
    if len(rows) > 1:
        rows.append(["", *_figure_cells("total", "", "", alias["totals"])])
    shown = [
        place
        for place, head in enumerate(_FIGURE_HEADS)
        # A column that says nothing takes the room of one that does.
        if head not in _HIDDEN or any(row[place] != _HIDDEN[head] for row in rows)
    ]
    return [_FIGURE_HEADS[place] for place in shown], [[row[place] for place in shown] for row in rows]


def keys_table(report: KeysReport) -> str:
    """For each alias its keys with the time they have left, and how many workers have them."""
    blocks: list[str] = []
    for alias in report["aliases"]:
        asked = len(alias["workers"])
        rows = [
            (
                printable(row["key"]),
                _ttl_cell(row["ttl_s"]),
                *([f"{len(row['pids'])} of {asked}"] if asked else []),
            )
            for row in alias["keys"]
        ]
        heads = ("key", "expires in", *(["workers"] if asked else []))
        text = _table(heads, rows) if rows else "no keys"
        if alias["truncated"]:
            text += f"\nonly the first {len(rows)} are shown"
        blocks.append(f"{_heading(alias)}\n{text}")
    return "\n\n".join([*blocks, *report["notes"]])


def cleared_lines(row: ClearedAlias) -> list[str]:
    alias, removed = row["alias"], row["removed"]
    what = (
        f"{alias}: cleared" if removed is None else f"{alias}: {several(removed, 'entry', 'entries')} removed"
    )
    if row["note"]:
        return [what, row["note"]]
    if row["everywhere"]:
        return [f"{what}, for all processes"]
    lines = [f"{alias}: cleared in {several(len(row['workers']), 'worker')}"]
    if not row["workers"] and not row["silent"]:
        lines = [f"{alias}: no worker is running"]
    if row["silent"]:
        pids = ", ".join(map(str, row["silent"]))
        lines.append(f"{alias}: no answer from pid {pids}; cleared at the end of the next request")
    return lines


def several(count: int, one: str, many: str = "") -> str:
    """A number and what it counts."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _figure_cells(name: str, server: str, uptime: str, row: Figures) -> list[str]:
    ratio, weight = row["hit_ratio"], row["bytes"]
    counts = (
        *(row["evictions"], row["expirations"], row["deletions"], row["store_errors"]),
        *(row["loads"], row["load_failures"], row["load_waits"], row["stale_hits"]),
    )
    return [
        *(name, printable(server), uptime, str(row["hits"]), str(row["misses"])),
        "-" if ratio is None else f"{ratio:.1%}",
        f"{row['ops_per_s']:.0f}",
        *(str(row["sets"]), str(row["entries"]), str(row["max_entries"])),
        "-" if weight is None else str(weight),
        *map(str, counts),
    ]


def _ttl_cell(ttl_s: float | None) -> str:
    return "never" if ttl_s is None else _duration(ttl_s)


def _heading(alias: AliasFigures | AliasKeys) -> str:
    return f"{alias['alias']}: {printable(alias['location']) or 'no location'}, scope {alias['scope']}"


def printable(text: str) -> str:
    """Text that does a terminal no harm."""
    # Keys are often made of what visitors send: escape sequences in them must not reach a terminal.
    return text if text.isprintable() else ascii(text)[1:-1]


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, whole = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours}:{minutes:02}:{whole:02}"
    return f"{days} d {clock}" if days else clock


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [_line(row, widths) for row in (heads, *rows)]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])
