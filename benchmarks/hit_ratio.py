"""Hit ratios on recorded traces, on the caches themselves: a get, and a set when it missed.

Each trace at 0.1, 1, 10 and 20 % of its distinct keys (capacities from 32). A miss reduction rate (MRR) is
1 - misses / misses of the base, averaged within a family of traces first, then over the families, so that no
family counts for more because there are more recordings of it. Nothing expires. theine and moka-py vary from
run to run: theirs are means of three runs, with other hashes in each.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import plots, references, report, traces
from benchmarks.progress import progress_bar
from quickcache_core import NEVER, QuickCache, QuickCacheConfig
from quickcache_core.entry import Entry
from quickcache_core.eviction_policy import S3FIFOEvictionPolicy

Replay = Callable[[Sequence[str], int], float]
"""Hits, from the requests and the capacity."""

OURS = "s3fifo"
COLD = "s3fifo, cold fill"
POLICIES = ("s3fifo", "lru", "lfu", "lfuda", "fifo", "sieve")
EXACT: Mapping[str, Replay] = {
    "lru": references.lru,
    "lfu": references.lfu,
    "lfuda": references.lfuda,
    "fifo": references.fifo,
}
OPTIMUM = "optimum"
RUNS = 3
SHORT = 20_000
"""Requests; on traces up to this length the model of LocMemCache is compared with LocMemCache."""
MOKA_LEAST = 200
"""moka-py's hit ratios below this capacity say little: it keeps an unknown number of entries more or less."""


class ColdS3FIFO(S3FIFOEvictionPolicy):
    """Without the warm fill: a newcomer never goes to the main queue just because there is room."""

    def attach(self, entries: Mapping[str, Entry], capacity: int) -> None:
        super().attach(entries, capacity)
        self._filling = False


def replay_ours(policy: str | type[S3FIFOEvictionPolicy]) -> Replay:
    def replay(keys: Sequence[str], capacity: int) -> float:
        cache = QuickCache(QuickCacheConfig(max_size=capacity, default_ttl=NEVER, eviction_policy=policy))
        put = cache.set
        hits = 0
        for key in keys:
            if cache.get(key, None) is None:
                put(key, True)
            else:
                hits += 1
        assert len(cache) <= capacity
        return hits

    return replay


def replay_theine(keys: Sequence[str], capacity: int) -> float:
    import theine

    cache: Any = theine.Cache(capacity)
    get, put = cache.get, cache.set
    hits = 0
    for key in keys:
        if get(key)[1]:
            hits += 1
        else:
            put(key, True)
    return hits


def replay_moka(keys: Sequence[str], capacity: int) -> float:
    import moka_py

    cache: Any = moka_py.Moka(capacity)
    get, put = cache.get, cache.set
    hits = 0
    for key in keys:
        if get(key) is None:
            put(key, True)
        else:
            hits += 1
    return hits


def replay_locmem(keys: Sequence[str], capacity: int) -> float:
    from django.conf import settings
    from django.core.cache.backends.locmem import LocMemCache

    if not settings.configured:
        settings.configure()
    options = {"MAX_ENTRIES": capacity}
    cache: Any = LocMemCache(f"{os.getpid()} {id(keys)} {capacity}", {"TIMEOUT": None, "OPTIONS": options})
    get, put = cache.get, cache.set
    hits = 0
    for key in keys:
        if get(key) is None:
            put(key, True)
        else:
            hits += 1
    cache.clear()
    return hits


def locmem_is_modelled(keys: Sequence[str], capacity: int) -> bool:
    return replay_locmem(keys, capacity) == references.locmem(keys, capacity)


def several_runs(replay: Replay) -> Replay:
    def replay_all(keys: Sequence[str], capacity: int) -> float:
        hits = []
        for run in range(RUNS):
            renamed: dict[str, str] = {}
            hits.append(replay([renamed.setdefault(key, f"{run} {key}") for key in keys], capacity))
        return statistics.mean(hits)

    return replay_all


CONTENDERS: dict[str, Replay] = {
    **{policy: replay_ours(policy) for policy in POLICIES},
    COLD: replay_ours(ColdS3FIFO),
    "theine": several_runs(replay_theine),
    "moka-py": several_runs(replay_moka),
    "LocMemCache": references.locmem,
    OPTIMUM: references.optimum,
}


@dataclass(frozen=True)
class Point:
    """One trace at one capacity."""

    trace: str
    family: str
    share: float
    capacity: int
    requests: int
    hits: Mapping[str, float]
    inexact: tuple[str, ...]
    """Policies whose hits differ from the textbook's, and LocMemCache if the model of it differs from it."""

    def ratio(self, name: str) -> float:
        return self.hits[name] / self.requests

    def reduction(self, name: str, base: str) -> float:
        return 1 - (self.requests - self.hits[name]) / (self.requests - self.hits[base])


@dataclass(frozen=True)
class Job:
    trace: traces.Trace
    folder: Path
    limit: int
    names: tuple[str, ...]


def measure(job: Job) -> list[Point]:
    keys = job.trace.keys(job.folder, job.limit)
    points = []
    for share, capacity in traces.capacities(keys).items():
        hits = {name: CONTENDERS[name](keys, capacity) for name in job.names}
        inexact = [name for name, reference in EXACT.items() if hits[name] != reference(keys, capacity)]
        if len(keys) <= SHORT and "LocMemCache" in job.names and not locmem_is_modelled(keys, capacity):
            inexact.append("LocMemCache")
        points.append(
            Point(job.trace.name, job.trace.family, share, capacity, len(keys), hits, tuple(inexact)),
        )
    return points


def measure_all(jobs: Sequence[Job], processes: int) -> list[Point]:
    step = progress_bar(len(jobs), "traces")
    points = []
    # The largest first, so that the last one to end isn't the one that began last.
    ordered = sorted(jobs, key=lambda job: -(job.folder / job.trace.file).stat().st_size)
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for found in pool.imap_unordered(measure, ordered):
            points += found
            step()
    order = {trace.name: place for place, trace in enumerate(traces.TRACES)}
    return sorted(points, key=lambda point: (order[point.trace], point.share))


def mean_reduction(points: Iterable[Point], name: str, base: str) -> float:
    families = defaultdict(list)
    for point in points:
        families[point.family].append(point.reduction(name, base))
    return statistics.mean(statistics.mean(each) for each in families.values())


def worst(points: Iterable[Point], name: str, base: str) -> tuple[float, Point]:
    return min(((point.reduction(name, base), point) for point in points), key=lambda pair: pair[0])


def not_worse(points: Sequence[Point], base: str, tolerance: float) -> float:
    return statistics.mean(point.ratio(OURS) >= point.ratio(base) - tolerance for point in points)


def goals(points: Sequence[Point], names: Sequence[str]) -> str:
    rows: list[tuple[str, str, str, str]] = []

    def add(what: str, goal: float, measured: float, *, percent: bool = True) -> None:
        shown = f"{measured:.1%}" if percent else f"{measured:.3f}"
        rows.append((what, f"≥ {goal:.1%}", shown, report.verdict(measured, goal, at_least=True)))

    inexact = [f"{name} on {point.trace} at {point.capacity}" for point in points for name in point.inexact]
    exact = f"{len(points)} of {len(points)} points" if not inexact else "not on " + ", ".join(inexact)
    rows.append(
        ("lru, lfu, lfuda, fifo: hits equal the textbook's", "all", exact, "missed" if inexact else "met")
    )
    add("MRR against FIFO", 0.095, mean_reduction(points, OURS, "fifo"))
    add("MRR against LRU", 0.05, mean_reduction(points, OURS, "lru"))
    least, where = worst(points, OURS, "lru")
    rows.append(
        (
            "worst point against LRU",
            "≥ -6.0%",
            f"{least:.1%} ({where.trace} at {where.capacity})",
            "met" if least >= -0.06 else "missed",
        )
    )
    add("lfuda: MRR against LRU", 0.02, mean_reduction(points, "lfuda", "lru"))
    if "theine" in names:
        add("MRR against theine", 0.04, mean_reduction(points, OURS, "theine"))
        add("points within 0.005 of theine, or above", 0.75, not_worse(points, "theine", 0.005))
    if "moka-py" in names:
        large = [point for point in points if point.capacity >= MOKA_LEAST]
        add("MRR against moka-py, capacity from 200", 0.05, mean_reduction(large, OURS, "moka-py"))
        add("points within 0.005 of moka-py, or above", 0.8, not_worse(large, "moka-py", 0.005))
    if "LocMemCache" in names:
        add("points at LocMemCache's hit ratio or above", 1.0, not_worse(points, "LocMemCache", 0.0))
    return report.table(("s3fifo, the default", "goal", "measured", ""), rows)


def render(points: Sequence[Point], names: Sequence[str], limit: int) -> str:
    summary = []
    for name in names:
        least, where = worst(points, name, "lru") if name != "lru" else (0.0, points[0])
        summary.append(
            (
                name,
                f"{mean_reduction(points, name, 'fifo'):+.1%}",
                f"{mean_reduction(points, name, 'lru'):+.1%}",
                "-" if name == "lru" else f"{least:+.1%} ({where.trace} at {where.capacity})",
                f"{statistics.mean(point.ratio(name) for point in points):.4f}",
            )
        )
    summary.sort(key=lambda row: -float(row[2].rstrip("%")))
    losses: list[Point] = []
    if "theine" in names:
        losses = sorted(points, key=lambda point: point.ratio(OURS) - point.ratio("theine"))[:8]
    by_point = [
        (point.trace, point.capacity, *(f"{point.ratio(name):.4f}" for name in names)) for point in points
    ]
    families = len({point.family for point in points})
    lost = report.table(
        ("trace", "capacity", "s3fifo", "theine"),
        [
            (point.trace, point.capacity, f"{point.ratio(OURS):.4f}", f"{point.ratio('theine'):.4f}")
            for point in losses
        ],
    )
    recordings = len({point.trace for point in points})
    return f"""
## Hit ratios

{recordings} traces in {families} families, the first {limit:,} requests of each, {len(points)} points; the
goals are meant for a million requests of all traces. "optimum" is Belady's algorithm, which knows the future.

### Goals

{goals(points, names)}

### Miss reduction rates

{report.table(("", "against FIFO", "against LRU", "worst point against LRU", "mean hit ratio"), summary)}

### Over the size of the cache

Traces with three sizes or more; the capacity is in percent of their distinct keys.

{plot(points, names) or "(no plot without matplotlib)"}

### Where it loses most to theine

{lost if losses else "(theine did not take part)"}

### Every point

<details><summary>Hit ratios, trace by trace</summary>

{report.table(("trace", "capacity", *names), by_point)}

</details>

Traces: cache2k's ORM traces © headissue GmbH, Jens Wilke, CC BY 4.0; OLTP from N. Megiddo and D. S. Modha,
"ARC: a self-tuning, low overhead replacement cache", FAST 2003; the others as `benchmarks/traces.py` names
them.
"""


PLOTTED = (OURS, "lru", "theine", "moka-py", "LocMemCache", OPTIMUM)


def plot(points: Sequence[Point], names: Sequence[str]) -> str:
    by_trace = defaultdict(list)
    for point in points:
        by_trace[point.trace].append(point)
    panels = [
        plots.Panel(
            trace,
            {
                name: [(100 * point.share, point.ratio(name)) for point in found]
                for name in PLOTTED
                if name in names
            },
        )
        for trace, found in by_trace.items()
        if len(found) > 2
    ]
    return plots.line_plot(
        "hit-ratio",
        panels,
        x="capacity, %",
        y="hit ratio",
        ours=(OURS,),
        dashed=(OPTIMUM,),
        columns=4,
        legend_columns=6,
    )


def installed(names: Iterable[str]) -> tuple[str, ...]:
    modules = {"theine": "theine", "moka-py": "moka_py", "LocMemCache": "django"}
    found = []
    for name in names:
        try:
            __import__(modules.get(name, "quickcache_core"))
        except ImportError:
            continue
        found.append(name)
    return tuple(found)


def run(*, quick: bool = False, processes: int = 2) -> None:
    folder = traces.folder()
    limit = 100_000 if quick else traces.REQUESTS
    chosen = [trace for trace in traces.TRACES if not quick or trace.name in traces.QUICK]
    names = installed(CONTENDERS)
    jobs = [Job(trace, folder, limit, names) for trace in chosen if (folder / trace.file).exists()]
    if not jobs:
        raise SystemExit(f"None of the files that benchmarks/traces.py lists is in {folder}.")
    points = measure_all(jobs, processes)
    report.write_section("hit-ratio", render(points, names, limit), "theine", "moka-py", "Django")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hit_ratio", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="six traces, 100,000 requests of each")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given: Any = parser.parse_args(arguments)
    run(quick=given.quick, processes=given.processes)


if __name__ == "__main__":
    main()
