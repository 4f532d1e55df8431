"""What operations cost in caches of a thousand to a million entries.

Each size goes through the same steps in every round, in a cache made for it; small ones several times in a
row, so that there is something to time. Counted is the processor's time, as in the other tables.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import plots, report
from benchmarks.progress import progress_bar
from benchmarks.timing import Ratio
from benchmarks.workload import FreshKeys, stored_keys
from quickcache_core import QuickCache, QuickCacheConfig
from quickcache_core.clock import SYSTEM_CLOCK, Clock
from quickcache_core.testing import ManualClock

SIZES = (1_000, 10_000, 100_000, 1_000_000)
SHARED_SIZES = (1_000, 10_000, 100_000)
"""A million entries of scope `shared` take a minute to write, in each round."""
ROUNDS = 5
FRESH = 2_000
SOON, DAY = 60.0, 86_400.0  # seconds
EXPIRING = 500
TAGS = tuple(f"group:{number}" for number in range(10))
VALUE = "a value of forty characters or thereabout"

SET = "set of a new key in a full cache"
NOTHING = "cleanup, nothing has expired"
SOME = f"cleanup, {EXPIRING} have expired"
TAG = "invalidate_tags, a tag of a tenth of the entries"
STALE = "get of an entry with an invalidated tag"
ALL = "cleanup, everything has expired"
CLEAR = "clear"
SAVE = "save_to_disk"
LOAD = "load_from_disk"

UNITS = {
    SET: "set",
    TAG: "call",
    NOTHING: "call",
    SOME: "expired entry",
    STALE: "get",
    ALL: "expired entry",
    CLEAR: "entry",
    SAVE: "entry",
    LOAD: "entry",
}
"""What the time of an operation is divided by, in the order of the table."""
FLAT = 1.5
"""Times the cost in the smallest cache, up to which one in a larger one counts as the same. The processor's
caches hold a thousand entries and not a million, which a raw dict pays for, too.
"""


Seconds = dict[tuple[str, int], list[float]]
"""Of each operation and size, one for each round."""


@dataclass(frozen=True)
class Scope:
    name: str
    sizes: Sequence[int]
    at_least: int
    """Entries that a size goes through in a round, in as many caches as that takes."""
    make: Callable[[int, Path, Clock], QuickCache]


def in_memory(size: int, folder: Path, clock: Clock) -> QuickCache:
    # Nobody else may sweep meanwhile.
    return QuickCache(
        QuickCacheConfig(
            max_size=size, default_ttl=DAY, clock=clock, cleanup_interval=1e9, storage_dir=folder
        )
    )


def shared(size: int, folder: Path, clock: Clock) -> QuickCache:
    room = max(16_000_000, 1_000 * size)
    return QuickCache(
        QuickCacheConfig(
            location=f"shared://{Path(tempfile.mkdtemp(dir=folder)).resolve()}/cache",
            max_size=size,
            max_bytes=room,
            default_ttl=DAY,
            clock=clock,
            cleanup_interval=1e9,
            storage_dir=folder,
        )
    )


@dataclass
class Stopwatch:
    """Collects the seconds."""

    seconds: Seconds = field(default_factory=lambda: defaultdict(list))
    _now: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def time(self, name: str, units: int, action: Callable[[], object]) -> None:
        start = time.process_time()
        action()
        self._now[name].append((time.process_time() - start) / units)

    def end_round(self, size: int) -> None:
        for name, found in self._now.items():
            self.seconds[name, size].append(statistics.mean(found))
        self._now.clear()


def full_cache(scope: Scope, size: int, folder: Path, watch: Stopwatch) -> None:
    """What doesn't need time to pass, in a cache with the clock that everybody has."""
    cache = scope.make(size, folder, SYSTEM_CLOCK)
    cache.set_many(dict.fromkeys(stored_keys(size), VALUE))
    fresh = FreshKeys(FRESH)
    put = cache.set

    def set_all(keys: Sequence[str]) -> None:
        for key in keys:
            put(key, VALUE)

    set_all(fresh.batch("settling"))
    keys = fresh.batch("timed")
    watch.time(SET, FRESH, lambda: set_all(keys))
    entries = len(cache)
    paths: list[Path] = []
    watch.time(SAVE, entries, lambda: paths.append(cache.save_to_disk(folder / "snapshot")))
    watch.time(CLEAR, entries, cache.clear)
    assert len(cache) == 0
    watch.time(LOAD, entries, lambda: cache.load_from_disk(paths[0]))
    assert len(cache) == entries, (len(cache), entries)
    cache.stop()


def expiring_cache(scope: Scope, size: int, folder: Path, watch: Stopwatch) -> None:
    """What has to do with time and tags. All fit in, none is evicted."""
    clock = ManualClock()
    cache = scope.make(2 * size, folder, clock)
    keys = stored_keys(size)
    soon = EXPIRING
    for place, tag in enumerate(TAGS):
        mine = keys[soon + place :: len(TAGS)]
        cache.set_many(dict.fromkeys(mine, VALUE), tags=(tag,))
    cache.set_many(dict.fromkeys(keys[:soon], VALUE), SOON)
    cache.cleanup()
    watch.time(NOTHING, 10, lambda: [cache.cleanup() for _ in range(10)])
    clock.advance(SOON + 1)
    watch.time(SOME, soon, cache.cleanup)
    assert len(cache) == size - soon, (len(cache), size, soon)
    cache.invalidate_tags("another")  # the first one makes room for all
    half = TAGS[::2]

    def invalidate() -> None:
        for tag in half:
            cache.invalidate_tags(tag)

    watch.time(TAG, len(half), invalidate)
    gone = keys[soon :: len(TAGS)][:EXPIRING]
    found: list[Any] = []
    watch.time(STALE, len(gone), lambda: found.extend(cache.get(key, None) for key in gone))
    assert not any(found)
    clock.advance(DAY)
    left = size - soon - len(gone)
    watch.time(ALL, left, cache.cleanup)
    assert len(cache) == 0
    cache.stop()


def measure(scope: Scope, rounds: int, folder: Path) -> Seconds:
    watch = Stopwatch()
    step = progress_bar(rounds * len(scope.sizes), f"scale, scope {scope.name}")
    was_enabled = gc.isenabled()
    for number in range(rounds):
        turn = number % len(scope.sizes)
        for size in (*scope.sizes[turn:], *scope.sizes[:turn]):
            for _ in range(max(1, scope.at_least // size)):
                for scenario in (full_cache, expiring_cache):
                    own = Path(tempfile.mkdtemp(dir=folder))
                    gc.collect()
                    gc.disable()
                    scenario(scope, size, own, watch)
                    if was_enabled:
                        gc.enable()
                    shutil.rmtree(own)
            watch.end_round(size)
            step()
    return dict(watch.seconds)


def _ratio(mine: Sequence[float], base: Sequence[float]) -> Ratio:
    pairs = zip(mine, base, strict=True)
    return Ratio(min(mine) / min(base), statistics.median(a / b for a, b in pairs))


def section(scope: Scope, seconds: Seconds) -> Iterator[str]:
    least = scope.sizes[0]
    rows = []
    for name, unit in UNITS.items():
        base = seconds[name, least]
        ratios = [_ratio(seconds[name, size], base) for size in scope.sizes[1:]]
        most = max(each.best for each in ratios)
        rows.append(
            (
                name,
                unit,
                f"{min(base) * 1e6:.2f}",
                *(f"{each}" for each in ratios),
                "the same" if most <= FLAT else f"up to {most:.1f} ×",
            )
        )
    head = ("", "per", f"{least:,} entries, µs", *(f"{size:,}" for size in scope.sizes[1:]), "")
    yield f"### Scope `{scope.name}`"
    yield report.table(head, rows)


def plot(found: Sequence[tuple[Scope, Seconds]]) -> str:
    panels = [
        plots.Panel(
            f"scope {scope.name}",
            {name: [(size, min(seconds[name, size]) * 1e6) for size in scope.sizes] for name in UNITS},
        )
        for scope, seconds in found
    ]
    return plots.line_plot(
        "scale", panels, x="entries", y="microseconds", columns=len(panels), log_y=True, legend_columns=2
    )


def run(sizes: Sequence[int], shared_sizes: Sequence[int], rounds: int) -> None:
    scopes = [Scope("memory", sizes, 20_000, in_memory), Scope("shared", shared_sizes, 3_000, shared)]
    found = []
    for scope in scopes:
        # In a process of its own: one that uses a shared cache makes its folder again if somebody removes it.
        with (
            tempfile.TemporaryDirectory(prefix="quickcache-bench-") as folder,
            ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other,
        ):
            seconds = other.submit(measure, scope, rounds, Path(folder).resolve()).result()
        found.append((scope, seconds))
    tables = "\n\n".join(part for scope, seconds in found for part in section(scope, seconds))
    body = f"""
## Scale

What an operation costs in a large cache, as a ratio to the cost in one of {sizes[0]:,} entries; "the same"
is up to {FLAT} times. Fastest of {rounds} rounds, the processor's time: what the disk takes isn't in it.
Each entry has a TTL, and in the lines about cleanups and tags a tag. In scope `shared` a process has the
last 10,000 entries near, so all of a small cache; and a cleanup that has something to remove looks at all
entries, without a lock.

{tables}

{plot(found)}
"""
    report.write_section("scale", body, "lmdb")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, up to 100,000 entries")
    given: Any = parser.parse_args(arguments)
    if given.quick:
        run(SIZES[:-1], SHARED_SIZES[:-1], 3)
    else:
        run(SIZES, SHARED_SIZES, ROUNDS)


if __name__ == "__main__":
    main()
