"""Hit ratios where values differ in size and the bound is one of bytes, on the memory store itself.

A get, and a put when it missed. Capacities are 0.1, 1, 10 and 20 % of the bytes of all objects; only the
sizes of the objects count, not what the store takes for an entry. A miss reduction rate (MRR) is 1 - misses /
misses of `lru`, of objects (each request counts once) or of bytes (each counts with its size), averaged
within a family of traces first, then over the families. Nothing expires.

Two of the traces tell sizes. For the others sizes are drawn, the same in each run: that shows what the
policies do with keys that are asked for in this way, but not with the sizes of those applications.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import report, traces
from benchmarks.progress import progress_bar
from quickcache_core.clock import SYSTEM_CLOCK
from quickcache_core.entry import FOREVER
from quickcache_core.registry import eviction_policies
from quickcache_core.store import Bounds, MemoryStore

POLICIES = ("s3fifo", "lru", "gdsf", "lfuda")
BASE = "lru"
LEAST_OBJECTS = 32
"""Objects of mean size that have to fit in; smaller capacities are left out."""
MEDIAN, SPREAD = 2_000, 1.5
"""Bytes, and the standard deviation of their logarithm: what is drawn, 16 B to 1 MB."""


@dataclass(frozen=True)
class Hits:
    objects: int
    bytes: int


@dataclass(frozen=True)
class Point:
    """One trace at one capacity."""

    trace: str
    family: str
    recorded: bool
    """Whether the sizes are those of the trace."""
    share: float
    capacity: int
    """Bytes."""
    requests: Hits
    hits: Mapping[str, Hits]

    def ratio(self, policy: str, what: str) -> float:
        hits: int = getattr(self.hits[policy], what)
        requests: int = getattr(self.requests, what)
        return hits / requests

    def reduction(self, policy: str, what: str) -> float:
        """The MRR."""
        return 1 - (1 - self.ratio(policy, what)) / (1 - self.ratio(BASE, what))


@dataclass(frozen=True)
class Job:
    trace: traces.Trace
    folder: Path
    limit: int


def replay(policy: str, requests: Sequence[tuple[str, int]], capacity: int) -> Hits:
    def weight(key: str, size: int) -> int:
        return size

    store = MemoryStore(eviction_policies.resolve(policy), sys.maxsize, SYSTEM_CLOCK, weigher=weight)
    bounds = Bounds(sys.maxsize, None, capacity)
    get, put = store.get, store.put
    objects = total = 0
    for key, size in requests:
        if get(key, None) is not None:
            objects += 1
            total += size
        elif size <= capacity:
            put(key, size, FOREVER, bounds)
    used = store.used_bytes()
    assert used is not None
    assert used <= capacity
    return Hits(objects, total)


def sized_requests(job: Job) -> list[tuple[str, int]]:
    trace = job.trace
    if trace.sizes is not None:
        return trace.sized_keys(job.folder, job.limit)
    keys = trace.keys(job.folder, job.limit)
    chance = random.Random(trace.name)
    sizes: dict[str, int] = {}
    for key in keys:
        if key not in sizes:
            sizes[key] = min(1_000_000, max(16, int(MEDIAN * chance.lognormvariate(0.0, SPREAD))))
    return [(key, sizes[key]) for key in keys]


def measure(job: Job) -> list[Point]:
    requests = sized_requests(job)
    sizes = dict(requests)
    stored = sum(sizes.values())
    everything = Hits(len(requests), sum(size for _, size in requests))
    points = []
    for share in traces.SHARES:
        if len(sizes) * share < LEAST_OBJECTS:
            continue
        capacity = int(stored * share)
        hits = {policy: replay(policy, requests, capacity) for policy in POLICIES}
        recorded = job.trace.sizes is not None
        points.append(
            Point(job.trace.name, job.trace.family, recorded, share, capacity, everything, hits),
        )
    return points


def mean_reduction(points: Iterable[Point], policy: str, what: str) -> float:
    families = defaultdict(list)
    for point in points:
        families[point.family].append(point.reduction(policy, what))
    return statistics.mean(statistics.mean(each) for each in families.values())


def summary(points: Sequence[Point]) -> str:
    rows = []
    for policy in POLICIES:
        row = [policy]
        for what in ("objects", "bytes"):
            least = min(points, key=lambda point: point.reduction(policy, what))
            row += [
                f"{mean_reduction(points, policy, what):+.1%}",
                "-" if policy == BASE else f"{least.reduction(policy, what):+.1%} ({least.trace})",
                f"{statistics.mean(point.ratio(policy, what) for point in points):.4f}",
            ]
        rows.append(row)
    head = ("", "objects: MRR", "worst point", "hit ratio", "bytes: MRR", "worst point", "hit ratio")
    return report.table(head, rows)


def goals(points: Sequence[Point]) -> str:
    rows = []
    kinds = {
        "recorded sizes": [point for point in points if point.recorded],
        "drawn sizes": [point for point in points if not point.recorded],
        "all": points,
    }
    for policy, what, goal in (("gdsf", "objects", 0.12), ("s3fifo", "bytes", 0.015)):
        for kind, chosen in kinds.items():
            if chosen:
                measured = mean_reduction(chosen, policy, what)
                verdict = report.verdict(measured, goal, at_least=True)
                rows.append((f"{policy}, {what}, {kind}", f"≥ {goal:.1%}", f"{measured:.1%}", verdict))
    return report.table(("MRR against lru", "goal", "measured", ""), rows)


def render(points: Sequence[Point], limit: int) -> str:
    recorded = [point for point in points if point.recorded]
    drawn = [point for point in points if not point.recorded]
    by_point = [
        (
            point.trace + ("" if point.recorded else ", drawn"),
            f"{point.share:.1%}",
            *(
                f"{point.ratio(policy, 'objects'):.4f} / {point.ratio(policy, 'bytes'):.4f}"
                for policy in POLICIES
            ),
        )
        for point in points
    ]
    return f"""
## Hit ratios with sizes

{len({point.trace for point in points})} traces in {len({point.family for point in points})} families, the
first {limit:,} requests of each, at shares of the bytes of all objects. "Objects" counts requests, "bytes"
counts them with their sizes; a mean is one of families.

### Goals

{goals(points)}

### Sizes as recorded

{summary(recorded) if recorded else "(none of these traces)"}

### Sizes drawn

Log-normal, median {MEDIAN:,} bytes, sigma {SPREAD}, one for each key.

{summary(drawn) if drawn else "(none of these traces)"}

### Every point

<details><summary>Hit ratios of objects / bytes, trace by trace</summary>

{report.table(("trace", "share of bytes", *POLICIES), by_point)}

</details>
"""


def run(*, quick: bool = False, processes: int = 2) -> None:
    folder = traces.folder()
    limit = 100_000 if quick else traces.REQUESTS
    names = (*traces.QUICK, "adapt_size_request", "cloudPhysicsIO")
    jobs = [
        Job(trace, folder, limit)
        for trace in traces.TRACES
        if (not quick or trace.name in names) and (folder / trace.file).exists()
    ]
    if not jobs:
        raise SystemExit(f"None of the files that benchmarks/traces.py lists is in {folder}.")
    write(measure_all(jobs, processes), limit)


def measure_all(jobs: Sequence[Job], processes: int) -> list[Point]:
    step = progress_bar(len(jobs), "traces with sizes")
    points = []
    ordered = sorted(jobs, key=lambda job: -(job.folder / job.trace.file).stat().st_size)
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for found in pool.imap_unordered(measure, ordered):
            points += found
            step()
    return points


def write(points: Iterable[Point], limit: int) -> None:
    order = {trace.name: place for place, trace in enumerate(traces.TRACES)}
    ordered = sorted(points, key=lambda point: (not point.recorded, order[point.trace], point.share))
    report.write_section("hit-ratio-sizes", render(ordered, limit))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sized_hit_ratio", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="eight traces, 100,000 requests of each")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given: Any = parser.parse_args(arguments)
    run(quick=given.quick, processes=given.processes)


if __name__ == "__main__":
    main()
