"""What it brings that expired entries leave first, on the caches themselves: a get, and a set when it missed.

A third of the keys has a TTL of a hundredth of the recording's length, a third one of a tenth, the others
have none. Time goes on by one second with each request. The base is the same cache with the same policy that
is told of no TTL: what has expired is found when it is read, deleted and set anew, and otherwise stays until
the policy's turn comes. A miss reduction rate (MRR) is 1 - misses / misses of that, averaged within a family
of traces first, then over the families.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import report, traces
from benchmarks.progress import progress_bar
from quickcache_core import NEVER, QuickCache, QuickCacheConfig
from quickcache_core.entry import FOREVER
from quickcache_core.testing import ManualClock

POLICIES = ("s3fifo", "lru")
GOAL = 0.02
LENGTHS = (0.01, 0.1, FOREVER)
"""TTLs, as shares of the number of requests."""


@dataclass(frozen=True)
class Point:
    """One trace at one capacity with one policy."""

    trace: str
    family: str
    policy: str
    capacity: int
    requests: int
    hits: int
    hits_late: int
    """Where what has expired stays until its turn comes."""

    @property
    def reduction(self) -> float:
        return 1 - (self.requests - self.hits) / (self.requests - self.hits_late)


@dataclass(frozen=True)
class Job:
    trace: traces.Trace
    folder: Path
    limit: int


def lives(name: str, keys: Sequence[str]) -> dict[str, float]:
    """The TTL of each key, the same in each run."""
    chance = random.Random(name)
    return {key: chance.choice(LENGTHS) * len(keys) for key in dict.fromkeys(keys)}


def replay(policy: str, keys: Sequence[str], ttls: dict[str, float], capacity: int) -> int:
    clock = ManualClock()
    cache = QuickCache(
        QuickCacheConfig(
            max_size=capacity, default_ttl=NEVER, eviction_policy=policy, clock=clock, cleanup_interval=1e9
        )
    )
    hits = 0
    for key in keys:
        clock.advance(1.0)
        if cache.get(key, None) is None:
            ttl = ttls[key]
            cache.set(key, True, NEVER if ttl == FOREVER else ttl)
        else:
            hits += 1
    cache.close()
    return hits


def replay_late(policy: str, keys: Sequence[str], ttls: dict[str, float], capacity: int) -> int:
    cache = QuickCache(QuickCacheConfig(max_size=capacity, default_ttl=NEVER, eviction_policy=policy))
    hits = 0
    for now, key in enumerate(keys, 1):
        deadline = cache.get(key, None)
        if deadline is not None and now < deadline:
            hits += 1
            continue
        if deadline is not None:
            cache.delete(key)
        cache.set(key, now + ttls[key])
    cache.close()
    return hits


def measure(job: Job) -> list[Point]:
    keys = job.trace.keys(job.folder, job.limit)
    ttls = lives(job.trace.name, keys)
    return [
        Point(
            job.trace.name,
            job.trace.family,
            policy,
            capacity,
            len(keys),
            replay(policy, keys, ttls, capacity),
            replay_late(policy, keys, ttls, capacity),
        )
        for capacity in traces.capacities(keys).values()
        for policy in POLICIES
    ]


def mean_reduction(points: Iterable[Point]) -> float:
    families = defaultdict(list)
    for point in points:
        families[point.family].append(point.reduction)
    return statistics.mean(statistics.mean(each) for each in families.values())


def render(points: Sequence[Point], limit: int) -> str:
    rows = []
    for policy in POLICIES:
        chosen = [point for point in points if point.policy == policy]
        least = min(chosen, key=lambda point: point.reduction)
        most = max(chosen, key=lambda point: point.reduction)
        measured = mean_reduction(chosen)
        rows.append(
            (
                policy,
                f"≥ {GOAL:.1%}",
                f"{measured:.2%}",
                f"{least.reduction:+.1%} ({least.trace} at {least.capacity})",
                f"{most.reduction:+.1%} ({most.trace} at {most.capacity})",
                report.verdict(measured, GOAL, at_least=True),
            )
        )
    return f"""
## Hit ratios with TTLs

{len({point.trace for point in points})} traces in {len({point.family for point in points})} families, the
first {limit:,} requests of each. A third of the keys has a TTL of a hundredth of the requests, a third one of
a tenth, the others have none. The base is the same policy in a cache where what has expired stays until its
turn comes.

{report.table(("policy", "goal", "MRR", "worst point", "best point", ""), rows)}
"""


def run(*, quick: bool = False, processes: int = 2) -> None:
    folder = traces.folder()
    limit = 50_000 if quick else traces.REQUESTS
    jobs = [
        Job(trace, folder, limit)
        for trace in traces.TRACES
        if (not quick or trace.name in traces.QUICK) and (folder / trace.file).exists()
    ]
    if not jobs:
        raise SystemExit(f"None of the files that benchmarks/traces.py lists is in {folder}.")
    step = progress_bar(len(jobs), "traces with TTLs")
    points = []
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for found in pool.imap(measure, jobs):
            points += found
            step()
    write(points, limit)


def write(points: Sequence[Point], limit: int) -> None:
    report.write_section("hit-ratio-ttls", render(points, limit))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ttl_hit_ratio", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="six traces, 50,000 requests of each")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given: Any = parser.parse_args(arguments)
    run(quick=given.quick, processes=given.processes)


if __name__ == "__main__":
    main()
