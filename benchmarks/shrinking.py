"""What the system gets back when a cache is made smaller: the C library's part in `auto_resize`.

Each line has a process of its own. It fills a cache, resizes it, and then has `malloc_trim` called, as
`auto_resize` does; what counts is the growth of its resident memory over what it had before.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.memory import resident_bytes
from benchmarks.progress import progress_bar
from benchmarks.workload import SEED
from quickcache_core import NEVER, QuickCache, QuickCacheConfig
from quickcache_core.free_memory import give_back

MIB = 2**20


@dataclass(frozen=True)
class Case:
    name: str
    policy: str
    share: int
    """One in so many entries is left."""
    characters: int = 1_000
    entries: int = 200_000
    overwritten: bool = False


CASES = (
    Case("entries leave in the order in which they came (`fifo`)", "fifo", 2),
    Case("the same", "fifo", 4),
    Case("entries leave here and there (`s3fifo`)", "s3fifo", 2),
    Case("the same", "s3fifo", 4),
    Case("here and there, after all were overwritten in random order", "s3fifo", 16, overwritten=True),
    Case("here and there, texts of 10 kB", "s3fifo", 4, 10_000, 20_000),
    Case("here and there, texts of 200 bytes", "s3fifo", 4, 200),
    Case("in order, texts of 200 bytes", "fifo", 4, 200),
)


def measure_here(case: Case) -> dict[str, float]:
    """In this process, which should be a fresh one. Bytes, and milliseconds."""
    chooser = random.Random(SEED)
    numbers = list(range(case.entries))
    gc.collect()
    start = resident_bytes()
    cache = QuickCache(QuickCacheConfig(max_size=case.entries, eviction_policy=case.policy))
    for _ in range(2 if case.overwritten else 1):
        for number in numbers:
            cache.set(f"key:{number}", f"{number:0{case.characters}d}", NEVER)
        chooser.shuffle(numbers)
    # Those that were asked for stay longer, wherever they lie.
    for number in numbers[: case.entries // case.share]:
        cache.get(f"key:{number}", None)
    before = resident_bytes() - start
    cache.resize(case.entries // case.share)
    gc.collect()
    after = resident_bytes() - start
    pauses: list[float] = []
    stop = threading.Event()
    other = threading.Thread(target=_allocate, args=(stop, pauses))
    other.start()
    time.sleep(0.05)
    pauses.clear()
    begin = time.perf_counter()
    give_back()
    took = time.perf_counter() - begin
    stop.set()
    other.join()
    return {
        "before": before,
        "after": after,
        "trimmed": resident_bytes() - start,
        "needed": before / case.share,
        "took": took * 1e3,
        "paused": max(pauses, default=0.0) * 1e3,
    }


def _allocate(stop: threading.Event, pauses: list[float]) -> None:
    """Notes how long it took to get memory, and the interpreter's lock."""
    while not stop.is_set():
        begin = time.perf_counter()
        bytearray(2_000)
        pauses.append(time.perf_counter() - begin)


def measure_elsewhere(case: Case) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.shrinking", "--child", json.dumps(asdict(case))]
    root = Path(__file__).parent.parent
    output = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    figures: dict[str, float] = json.loads(output.splitlines()[-1])
    return figures


def run() -> None:
    step = progress_bar(len(CASES), "shrinking")
    rows = []
    for case in CASES:
        figures = measure_elsewhere(case)
        sizes = (f"{figures[each] / MIB:.0f}" for each in ("before", "after", "trimmed", "needed"))
        times = (f"{figures[each]:.1f}" for each in ("took", "paused"))
        rows.append((case.name, f"1/{case.share}", *sizes, *times))
        step()
    head = (
        "",
        "shrunk to",
        "before, MiB",
        "after the shrink",
        "after `malloc_trim`",
        "what is left needs",
        "`malloc_trim` took, ms",
        "another thread waited at most, ms",
    )
    body = f"""
## Shrinking

What a cache holds of the system's memory before and after it is made smaller, with 200,000 texts of 1,000
characters unless it says otherwise. "What is left needs" is its share of what there was before. The other
thread allocates all the time.

{report.table(head, rows)}
"""
    report.write_section("shrinking", body)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shrinking", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="no difference: it is quick")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given: Any = parser.parse_args(arguments)
    if given.child is None:
        run()
        return
    print(json.dumps(measure_here(Case(**json.loads(given.child)))), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
