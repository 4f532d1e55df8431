"""Plots of the results, as SVG files beside `RESULTS.md`; without matplotlib there are none.

The same figures give the same file, byte for byte, and text stays text, so a plot is small and its changes
can be read.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
except ImportError:
    mpl = None

FOLDER = Path(__file__).with_name("plots")
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "quickcache",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
}
_OURS = ("#b2182b", "#ef8a62", "#fdb863", "#d6604d", "#67001f")
_OTHERS = (
    "#2166ac",
    "#1b7837",
    "#762a83",
    "#67a9cf",
    "#8c510a",
    "#7fbf7b",
    "#999999",
    "#c51b7d",
    "#01665e",
    "#333333",
)

Series = Mapping[str, Sequence[tuple[float, float]]]
"""Name of a line, its points."""


@dataclass(frozen=True)
class Panel:
    title: str
    series: Series


def line_plot(
    name: str,
    panels: Sequence[Panel],
    *,
    x: str,
    y: str,
    ours: Sequence[str] = (),
    dashed: Sequence[str] = (),
    columns: int = 1,
    log_y: bool = False,
    legend_columns: int = 3,
    ticks: Sequence[float] = (),
) -> str:
    """Small plots side by side with one legend; gives the Markdown that shows them. x is logarithmic.

    `ours` are drawn in warm colours, and wider.
    """
    names = list(dict.fromkeys(line for panel in panels for line in panel.series))
    colours = _colours(names, ours)
    rows = math.ceil(len(panels) / columns)
    legend = 0.2 * math.ceil(len(names) / legend_columns) + 0.5
    with _figure(name, (max(3.0 * columns, 8.0), 2.3 * rows + legend)) as figure:
        if figure is None:
            return ""
        grid = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for place, (axes, panel) in enumerate(zip(grid, panels, strict=False)):
            for line, points in panel.series.items():
                axes.plot(
                    [point[0] for point in points],
                    [point[1] for point in points],
                    label=line,
                    color=colours[line],
                    linewidth=2.0 if line in ours else 1.2,
                    linestyle="--" if line in dashed else "-",
                    marker="o",
                    markersize=3,
                    zorder=3 if line in ours else 2,
                )
            axes.set_xscale("log")
            if log_y:
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter(lambda value, _: _short(value))
            axes.minorticks_off()
            if ticks:
                axes.set_xticks(ticks)
            axes.xaxis.set_major_formatter(lambda value, _: _short(value))
            axes.set_title(panel.title, fontsize=9)
            if place % columns == 0:
                axes.set_ylabel(y)
            if place >= len(panels) - columns:
                axes.set_xlabel(x)
        handles: dict[str, Any] = {}
        for axes in grid[: len(panels)]:
            handles |= {
                label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
            }
        figure.legend(
            [handles[each] for each in names],
            names,
            loc="outside upper center",
            ncols=min(len(names), legend_columns),
        )
    return _shown(name, y)


def bar_plot(
    name: str,
    groups: Mapping[str, Mapping[str, float]],
    *,
    x: str,
    ours: Sequence[str] = (),
    log: bool = False,
) -> str:
    """Horizontal bars, a small plot for each group; gives the Markdown that shows them."""
    names = list(dict.fromkeys(bar for group in groups.values() for bar in group))
    colours = _colours(names, ours)
    height = 0.24 * max(len(group) for group in groups.values()) + 0.8
    with _figure(name, (max(3.0 * len(groups), 7.0), height)) as figure:
        if figure is None:
            return ""
        for place, (title, group) in enumerate(groups.items()):
            axes = figure.add_subplot(1, len(groups), place + 1)
            shown = list(group)[::-1]
            axes.barh(shown, [group[each] for each in shown], color=[colours[each] for each in shown])
            axes.set_title(title, fontsize=9)
            axes.set_xlabel(x)
            axes.grid(visible=False, axis="y")
            if log:
                axes.set_xscale("log")
                axes.minorticks_off()
            if place:
                axes.set_yticklabels([])
    return _shown(name, x)


def _colours(names: Sequence[str], ours: Sequence[str]) -> dict[str, str]:
    warm, cold = iter(_OURS * 2), iter(_OTHERS * 2)
    return {each: next(warm) if each in ours else next(cold) for each in names}


@contextmanager
def _figure(name: str, size: tuple[float, float]) -> Iterator[Any]:
    """An empty figure, saved afterwards; None without matplotlib."""
    if mpl is None:
        yield None
        return
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    FOLDER.mkdir(exist_ok=True)
    # More decimals than anybody can see make half of the file.
    rounded = re.sub(r'"[^"]*"', lambda attribute: _rounded(attribute[0]), text.getvalue())
    lines = [line.rstrip() for line in rounded.splitlines()]
    (FOLDER / f"{name}.svg").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rounded(text: str) -> str:
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", text)


def _short(number: float) -> str:
    for factor, letter in ((1_000_000, "M"), (1_000, "k")):
        if number >= factor:
            return f"{number / factor:g}{letter}"
    return f"{number:g}"


def _shown(name: str, what: str) -> str:
    return f"![{what}]({FOLDER.name}/{name}.svg)"
