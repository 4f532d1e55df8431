"""What an entry weighs over its key and its value.

Each contender gets a process of its own, and keys and values exist before the measuring starts. Two figures:
`tracemalloc` counts every byte that Python allocates and none that Rust does; the growth of the process's
resident memory (RSS) counts both, pages and fragments too, over 20 caches so that pages don't matter.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.contenders import Contender, contenders
from benchmarks.progress import progress_bar
from benchmarks.timing import compile_loop
from benchmarks.workload import stored_keys

ENTRIES = 10_000
CACHES = 20
TTL = 86_400.0
CHURN = 3
"""Times the capacity that is set in new keys after the cache is full."""
STEPS = 10
"""Samples per capacity's worth of churn. What grows and shrinks in turns has a mean and a peak."""

Figures = dict[str, float]
"""`full`, then the `mean` and the `peak` of the last third of the churn: bytes per entry."""


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def traced_bytes() -> int:
    return tracemalloc.get_traced_memory()[0]


def measure_here(contender: Contender, ttl: float | None, *, traced: bool) -> Figures | None:
    """In this process, which should be a fresh one."""
    first = contender.make(10, ttl)
    if first is None:
        return None
    keys = stored_keys(ENTRIES * (1 + CHURN))
    compile_loop(contender.set, first)(keys[:100])
    count = 2 if traced else CACHES
    if traced:
        tracemalloc.start()
    used: Callable[[], int] = traced_bytes if traced else resident_bytes
    gc.collect()
    before = used()
    scopes = []
    for _ in range(count):
        scope = contender.make(ENTRIES, ttl)
        assert scope is not None
        compile_loop(contender.set, scope)(keys[:ENTRIES])
        scopes.append(scope)
    gc.collect()
    figures = {"full": (used() - before) / (ENTRIES * count)}
    # PyQuickCache sweeps the whole cache for each new key: that would take minutes, and weighs nothing.
    if contender.bounded and not contender.name.startswith("PyQuickCache"):
        loops = [compile_loop(contender.set, scope) for scope in scopes]
        samples = []
        slice_size = ENTRIES // STEPS
        for start in range(ENTRIES, len(keys), slice_size):
            for loop in loops:
                loop(keys[start : start + slice_size])
            gc.collect()
            samples.append((used() - before) / (ENTRIES * count))
        settled = samples[-len(samples) // CHURN :]
        figures["mean"] = statistics.mean(settled)
        figures["peak"] = max(settled)
    return figures


def measure_elsewhere(name: str, ttl: float | None, *, traced: bool) -> Figures | None:
    command = [sys.executable, "-m", "benchmarks.memory", "--child", json.dumps([name, ttl, traced])]
    root = Path(__file__).parent.parent
    output = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    figures: Figures | None = json.loads(output.splitlines()[-1])
    return figures


BUDGETS = {"QuickCache fifo": 165, "QuickCache sieve": 165, "QuickCache s3fifo": 240}


def run() -> None:
    everyone = contenders()
    step = progress_bar(len(everyone) * 4, "memory")
    rows = []
    budget_rows = []
    for each in everyone:
        row: list[object] = [each.name]
        traced_figures: dict[bool, Figures | None] = {}
        for ttl in (None, TTL):
            for traced in (True, False):
                skip = traced and each.native
                figures = None if skip else measure_elsewhere(each.name, ttl, traced=traced)
                row.append(_cell(figures))
                step()
                if traced:
                    traced_figures[ttl is not None] = figures
        rows.append(row)
        if each.name in BUDGETS:
            for with_ttl, figures in traced_figures.items():
                most = max(figures["full"], figures["mean"]) if figures else float("nan")
                budget = BUDGETS[each.name]
                what = f"{each.name}, TTL {'on' if with_ttl else 'off'}"
                budget_rows.append((what, f"≤ {budget}", f"{most:.0f}", report.verdict(most, budget)))
    head = ("", "no TTL, tracemalloc", "no TTL, RSS", "TTL, tracemalloc", "TTL, RSS")
    body = f"""
## Memory

Bytes per entry over its key and value, {ENTRIES:,} entries (a dict grows in steps, and these just fit: a
thousand more would add 20 bytes for everybody who has one): full / mean / peak while {CHURN} times as many
new keys come in.

### Budgets

{report.table(("full or mean, whichever is larger, by tracemalloc", "budget", "measured", ""), budget_rows)}

### Everyone

{report.table(head, rows)}

tracemalloc doesn't see what Rust allocates, so the native ones have RSS only.
"""
    report.write_section("memory", body, "cachetools", "cachebox", "theine", "moka-py", "pyquickcache")


def _cell(figures: Figures | None) -> str:
    return "-" if figures is None else " / ".join(f"{value:.0f}" for value in figures.values())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="no difference: it is quick")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given: Any = parser.parse_args(arguments)
    if given.child is None:
        run()
        return
    name, ttl, traced = json.loads(given.child)
    contender = next(each for each in contenders() if each.name == name)
    figures = measure_here(contender, ttl, traced=traced)
    print(json.dumps(figures), flush=True)
    # Peers' threads and destructors have nothing more to say.
    os._exit(0)


if __name__ == "__main__":
    main()
