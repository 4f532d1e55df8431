"""The engine's tables: what an operation costs, as a ratio to a raw dict's, beside the peers."""

from __future__ import annotations

import argparse
import statistics
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import primitives, report
from benchmarks.contenders import BASELINE, OURS, RAW_DICT, Contender, Scope, contenders
from benchmarks.progress import progress_bar
from benchmarks.timing import Keys, Loop, Ratio, Task, compile_loop, interleave, ratio
from benchmarks.workload import FreshKeys, SameKeys, ZipfKeys, absent_keys, asked_keys, stored_keys

ENTRIES = 10_000
EVICTION_SIZES = (1_000, 10_000, 1_000_000)
TTL = 86_400.0
"""Seconds: nothing may expire while a slow machine is measuring."""
SLOW_FROM = 100_000
"""PyQuickCache looks at every entry whenever it is full: not measured in caches of this size."""
DISTRIBUTIONS = ("cachetools", "cachebox", "theine", "moka-py", "pyquickcache")

Cells = dict[str, dict[str, Ratio]]
"""Operation, contender, ratio to the raw dict."""

GET = "get hit"
ORDERED = "get hit, keys in the order of insertion"
MISS = "get miss"
RAISING = "get miss that raises"
SET = "set existing"
EVICT = "set new, evicting"


def prepare(contender: Contender, capacity: int, ttl: float | None) -> Scope | None:
    """A full cache, or None if the contender doesn't do this."""
    if contender is RAW_DICT:
        ttl = None
    scope = contender.make(capacity, ttl)
    if scope is not None:
        compile_loop(contender.set, scope)(stored_keys(capacity))
    return scope


def churn(contender: Contender, scope: Scope, keys: Sequence[str], seconds: float = 5.0) -> None:
    """New keys into a full cache until its policy has settled, or the time is up."""
    loop = compile_loop(contender.set, scope)
    deadline = time.perf_counter() + seconds
    for start in range(0, len(keys), 100):
        loop(keys[start : start + 100])
        if time.perf_counter() > deadline:
            break


def measure_operations(
    everyone: Sequence[Contender], ttl: float | None, rounds: int
) -> tuple[Cells, dict[str, float]]:
    """The ratios, and the raw dict's seconds for each operation."""
    scopes = {each.name: prepare(each, ENTRIES, ttl) for each in everyone}
    able = [each for each in everyone if scopes[each.name] is not None]
    asked, absent, stored = asked_keys(ENTRIES), absent_keys(ENTRIES), stored_keys(ENTRIES)
    fresh = FreshKeys(ENTRIES)
    operations: list[tuple[str, Callable[[Contender], str], Keys]] = [
        (GET, lambda each: each.get, SameKeys(asked)),
        (ORDERED, lambda each: each.get, SameKeys(stored)),
        (MISS, lambda each: each.look_up, SameKeys(absent)),
        (RAISING, lambda each: each.raising, SameKeys(absent)),
        (SET, lambda each: each.set, SameKeys(asked)),
        # Last, because it replaces the entries.
        (EVICT, lambda each: each.set if each.bounded else "", fresh),
    ]
    cells: Cells = {}
    base_seconds: dict[str, float] = {}
    step = progress_bar(len(operations) * rounds, f"engine, TTL {ttl}")
    for operation, statement, keys in operations:
        tasks = []
        for each in able:
            code = statement(each)
            if not code and each is RAW_DICT:
                # What a dict can't do is measured by what it does instead: it sets an existing key.
                tasks.append(
                    Task(each.name, compile_loop(each.set, scopes[each.name] or {}), SameKeys(asked))
                )
            elif code:
                tasks.append(Task(each.name, compile_loop(code, scopes[each.name] or {}), keys))
                if operation == EVICT:
                    churn(each, scopes[each.name] or {}, FreshKeys(ENTRIES).batch("settling"))
        done = interleave(tasks, rounds=rounds, progress=step)
        cells[operation] = {name: ratio(task, done[BASELINE]) for name, task in done.items()}
        base_seconds[operation] = done[BASELINE].best
    return cells, base_seconds


def measure_evictions(everyone: Sequence[Contender], sizes: Sequence[int], rounds: int) -> Cells:
    """By size of the cache. The baseline is one dict of `ENTRIES` that sets existing keys, for all sizes."""
    base_scope = prepare(RAW_DICT, ENTRIES, None)
    asked = asked_keys(ENTRIES)
    fresh = FreshKeys(2_000)
    tasks = [Task(BASELINE, compile_loop(RAW_DICT.set, base_scope or {}), SameKeys(asked))]
    for size in sizes:
        settling = FreshKeys(size).batch("settling")
        for each in everyone:
            too_slow = size >= SLOW_FROM and each.name.startswith("PyQuickCache")
            scope = prepare(each, size, TTL) if each.bounded and not too_slow else None
            if scope is not None:
                churn(each, scope, settling)
                tasks.append(Task(f"{size} {each.name}", compile_loop(each.set, scope), fresh))
    done = interleave(tasks, rounds=rounds, progress=progress_bar(rounds, "evictions by size"))
    return {
        str(size): {
            each.name: ratio(done[f"{size} {each.name}"], done[BASELINE])
            for each in everyone
            if f"{size} {each.name}" in done
        }
        for size in sizes
    }


LRU_BASELINE = "OrderedDict as LRU with a lock"


def measure_mix(everyone: Sequence[Contender], rounds: int) -> Cells:
    """Ratios to an LRU with a lock: a hit, a miss that is then set, and a Zipf mix of the two. TTL off.

    In the mix the capacity is 10 % of the keys.
    """
    cells: Cells = {}
    asked = asked_keys(ENTRIES)
    able = [each for each in everyone if each.bounded and each.make(1, None) is not None]
    fill_on_miss = "{look_up}\nif found is None:\n    {set}"
    operations: list[tuple[str, Keys]] = [
        ("hit", SameKeys(asked)),
        ("miss, then set", FreshKeys(ENTRIES)),
        ("Zipf mix", ZipfKeys(2 * ENTRIES, 10 * ENTRIES)),
    ]
    for operation, keys in operations:
        tasks = []
        for each in able:
            scope = prepare(each, ENTRIES, None) or {}
            code = fill_on_miss.format(look_up=_dedent(each.look_up), set=_indent(each.set))
            tasks.append(Task(each.name, compile_loop(code, scope), keys))
            if operation == "Zipf mix":
                tasks[-1].loop(keys.warm_up(-2))
        done = interleave(tasks, rounds=rounds, progress=progress_bar(rounds, operation))
        cells[operation] = {name: ratio(task, done[LRU_BASELINE]) for name, task in done.items()}
    return cells


def _dedent(code: str) -> str:
    return textwrap.dedent(code).strip()


def _indent(code: str) -> str:
    return _dedent(code).replace("\n", "\n    ")


THREADS = 8


def measure_threads(everyone: Sequence[Contender], rounds: int) -> dict[str, float]:
    """CPU time per get of 8 threads over that of one. TTL on where there is one."""
    asked = asked_keys(ENTRIES)
    scopes = {
        each.name: prepare(each, ENTRIES, TTL) or prepare(each, ENTRIES, None) or {} for each in everyone
    }
    loops = {each.name: compile_loop(each.get, scopes[each.name]) for each in everyone}
    repeats: dict[str, int] = {}
    for name, loop in loops.items():
        start = time.perf_counter()
        loop(asked)
        repeats[name] = max(1, int(0.02 / (time.perf_counter() - start)))
    empty = compile_loop("pass", {})
    step = progress_bar(rounds, "threads")
    alone: dict[str, list[float]] = {name: [] for name in loops}
    together: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(rounds):
        names = list(loops)
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            # The same number of gets both times, so that what the threads themselves cost is small in both.
            count = repeats[name] * THREADS
            alone[name].append(_cpu_seconds(loops[name], asked, 1, count))
            together[name].append(_cpu_seconds(loops[name], asked, THREADS, repeats[name]))
        step()
    per_pass = min(_cpu_seconds(empty, asked, 1, 20) for _ in range(7)) / 20
    result = {}
    for name in loops:
        loop_cost = per_pass * repeats[name] * THREADS
        ratios = [
            (many - loop_cost) / (one - loop_cost)
            for one, many in zip(alone[name], together[name], strict=True)
        ]
        result[name] = statistics.median(ratios)
    return result


def _cpu_seconds(loop: Loop, keys: Sequence[str], threads: int, passes: int) -> float:
    def work() -> None:
        for _ in range(passes):
            loop(keys)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    start = time.process_time()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.process_time() - start


def budgets(plain: Cells, timed: Cells, evictions: Cells, threads: dict[str, float]) -> str:
    ours = {"no TTL": plain, "TTL": timed}
    lines: list[tuple[str, float, float]] = [
        ("get hit, no TTL", 5.5, ours["no TTL"][GET][OURS].best),
        ("get hit, TTL", 8, ours["TTL"][GET][OURS].best),
        ("get miss", 4.5, ours["TTL"][MISS][OURS].best),
        ("set existing", 16, ours["TTL"][SET][OURS].best),
        *(
            (f"set new with eviction, {int(size):,} entries", 36, row[OURS].best)
            for size, row in evictions.items()
        ),
        ("CPU per get, 8 threads to 1", 1.15, threads[OURS]),
    ]
    rows = [(what, f"≤ {budget}", f"{got:.2f}", report.verdict(got, budget)) for what, budget, got in lines]
    return report.table(
        ("operation (QuickCache, s3fifo, isolation share)", "budget, pure Python", "measured", ""), rows
    )


def _rows(everyone: Sequence[Contender], cells: Cells, columns: Sequence[str]) -> list[list[object]]:
    return [
        [each.name, *(cells[column].get(each.name, "-") for column in columns)]
        for each in everyone
        if any(each.name in cells[column] for column in columns)
    ]


def run(rounds: int = 21, sizes: Sequence[int] = EVICTION_SIZES) -> None:
    everyone = contenders()
    plain, plain_seconds = measure_operations(everyone, None, rounds)
    timed, timed_seconds = measure_operations(everyone, TTL, rounds)
    quick = [each for each in everyone if each.name != "QuickCache s3fifo, isolation auto"]
    threads = measure_threads(quick, 9)
    mix = measure_mix(everyone, max(9, rounds // 2))
    evictions = measure_evictions(quick, sizes, max(7, rounds // 2))
    operations = (GET, ORDERED, MISS, RAISING, SET, EVICT)

    def operation_table(cells: Cells, seconds: dict[str, float]) -> str:
        rows = _rows(everyone, cells, operations)
        rows.insert(0, ["raw dict, nanoseconds", *(f"{seconds[each] * 1e9:.0f}" for each in operations)])
        return report.table(("", *operations), rows)

    size_names = [f"{size:,} entries" for size in sizes]
    thread_rows = [(name, f"{value:.2f}") for name, value in threads.items()]
    body = f"""
## Engine

### Budgets

{budgets(plain, timed, evictions, threads)}

### {ENTRIES:,} entries, TTL on (every entry has one, of a day)

{operation_table(timed, timed_seconds)}

The raw dict has no TTL. In the last column its figure is that of setting an existing key.

### {ENTRIES:,} entries, TTL off

{operation_table(plain, plain_seconds)}

### Setting a new key in a full cache, by its size (TTL on)

The ratio is to setting an existing key in a dict of {ENTRIES:,} entries, for all sizes.

{report.table(("", *size_names), _rows(everyone, evictions, [str(size) for size in sizes]))}

### Against an LRU of an OrderedDict with a lock (TTL off, {ENTRIES:,} entries; ratio to it)

{report.table(("", *mix), _rows(everyone, mix, list(mix)))}

### CPU time per get, {THREADS} threads over one

{report.table(("", "ratio"), thread_rows)}

### What the pieces cost here

{primitives.measure()}
"""
    report.write_section("engine", body, *DISTRIBUTIONS)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--quick", action="store_true", help="few rounds, and no cache of a million entries")
    given: Any = parser.parse_args(arguments)
    if given.quick:
        run(rounds=7, sizes=(1_000, 10_000, 50_000))
    else:
        run(rounds=given.rounds)


if __name__ == "__main__":
    main()
