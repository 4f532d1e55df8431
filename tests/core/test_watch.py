"""The live table on terminals of any width."""

from __future__ import annotations

import pytest

from quickcache_core.metrics.watch import fitting

HEADS = [
    *("pid", "server", "uptime", "hits", "misses", "hit ratio", "ops/s", "sets", "entries", "limit", "bytes"),
    *("evicted", "expired", "deleted", "errors", "loads", "failed", "waits", "stale"),
]
ROW = [
    *("12345", "gunicorn", "1:18:31", "55555", "345", "97.0%", "1234", "411", "3000", "10000", "36864000"),
    *("7", "0", "0", "0", "0", "0", "0", "0"),
]


def width_of(heads: list[str], rows: list[list[str]]) -> int:
    """Of a table with one space on both sides of each cell, and a line between two."""
    return sum(max(map(len, column)) + 3 for column in zip(heads, *rows, strict=True)) + 1


@pytest.mark.parametrize("width", [60, 70, 80, 100, 120, 140])
def test_narrow_terminal(width: int) -> None:
    """Columns are left out until the others fit; none is cut, and cells stay under their heads."""
    heads, rows = fitting(HEADS, [ROW, ROW], width)
    assert width_of(heads, rows) <= width
    for row in rows:
        assert {head: ROW[HEADS.index(head)] for head in heads} == dict(zip(heads, row, strict=True))
    assert {"pid", "hits", "misses", "hit ratio", "entries"} <= set(heads)


def test_wide_terminal() -> None:
    assert fitting(HEADS, [ROW], 500) == (HEADS, [ROW])


def test_columns_that_say_nothing_leave_first() -> None:
    """Before those with figures, and one with a figure stays longer than those without."""
    heads, _ = fitting(HEADS, [ROW], width_of(HEADS, [ROW]) - 1)
    assert [head for head in HEADS if head not in heads] == ["waits"]
    heads, _ = fitting(HEADS, [ROW], 120)
    assert "evicted" in heads
    assert "deleted" not in heads


def test_no_rows() -> None:
    """As long as no worker runs, there are heads only."""
    heads, rows = fitting(HEADS, [], 80)
    assert width_of(heads, rows) <= 80
    assert rows == []
