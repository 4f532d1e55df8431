"""Starts the Django shop under gunicorn with 4 workers, sends it requests, and tells what its caches did.

python example_projects/demo.py            ends by itself
python example_projects/demo.py --serve    leaves the shop open in the end, until Ctrl-C
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from gunicorn_process import ExampleFailed, GunicornProcess, Part

WORKERS = 4
SHOP = Path(__file__).resolve().parent / "django_shop"

PARTS = {
    "catalogue": ("a whole page", "cache_page"),
    "product": ("an object", "cache.get, cache.set"),
    "shelf": ("part of a template", "{% cache %}"),
    "session": ("the visitor's session", "cached_db"),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--serve", action="store_true", help="leave the shop open in the end")
    parser.add_argument("--port", type=int, default=0, help="by default any that is free")
    options = parser.parse_args()

    # A terminated demo must not leave a server behind: SystemExit goes through all the `with` statements.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with TemporaryDirectory(prefix="quickcache-demo-") as folder:
            tell_the_story(Path(folder), options.port, serve=options.serve)
    except KeyboardInterrupt:
        print("\nStopped.")
        return 0 if options.serve else 130
    except ExampleFailed as failure:
        print(f"\nThe demo has failed. {failure}", file=sys.stderr)
        return 1
    return 0


def tell_the_story(folder: Path, port: int, *, serve: bool) -> None:
    print(f"A Django shop on SQLite, under gunicorn with {WORKERS} workers. One line switches QuickCache on:")
    print('\n    CACHES = {"default": {"BACKEND": "quickcache_django.QuickCache"}}', flush=True)
    started = time.monotonic()
    with GunicornProcess(SHOP / "run.py", "--workers", str(WORKERS), folder=folder, port=port) as shop:
        workers = await_all_workers(shop)
        title(f"The shop is open at {shop.url}")
        print(f"Workers {listed(workers)}; ready in {time.monotonic() - started:.1f} s, database included.")
        show_hits_and_misses(shop)
        show_a_purchase(shop)
        show_figures(shop, folder)
        if shop.has_complained():
            raise shop.failure("The answers were right, but gunicorn's log has something to say.")
        if serve:
            title("The shop stays open")
            print(f"Look at it: {shop.url}    Ctrl-C closes it.")
            while True:
                # signal.pause() would sleep on through a signal that came just before it.
                time.sleep(0.2)
    title("How to go on")
    python, here = os.path.relpath(sys.executable), os.path.relpath(Path(__file__).parent)
    rows = [
        (f"{python} {here}/demo.py --serve", "the same, and the shop stays open for your browser"),
        (f"{python} {here}/flask_notes/run.py", "the same idea with Flask and Flask-Caching"),
        (f"{here}/django_shop/README.md", "what to look at in the code"),
    ]
    print(table(rows))


def await_all_workers(shop: GunicornProcess) -> list[int]:
    """All workers answer before the story begins, so that no time in it is that of a worker's start."""
    answers = shop.answers_of_all(WORKERS, lambda: shop.visitor().get("/worker/"))
    return sorted({answer.worker for answer in answers})


def show_hits_and_misses(shop: GunicornProcess) -> None:
    title("What was cached: the first request to each worker, and those after it")
    visitor = shop.visitor()
    seen: dict[str, list[Part]] = defaultdict(list)
    bodies: dict[int, set[str]] = defaultdict(set)
    for path in ("/catalogue/", "/"):
        for answer in shop.answers_of_all(WORKERS, partial(visitor.get, path), each=6):
            for name, part in answer.parts.items():
                seen[name].append(part)
            if path == "/catalogue/":
                bodies[answer.worker].add(answer.text)

    rows: list[tuple[str, ...]] = [("", "in Django", "misses", "typically", "hits", "typically", "")]
    for name, (what, how) in PARTS.items():
        misses, hits = (
            [part.ms for part in seen[name] if part.outcome == outcome] for outcome in ("miss", "hit")
        )
        if not hits:
            raise shop.failure(f"{what}: no request was answered from the cache.")
        faster = f"{median(misses) / median(hits):.0f} times faster" if misses else ""
        rows.append((what, how, str(len(misses)), ms_of(misses), str(len(hits)), ms_of(hits), faster))
    print(table(rows))
    if any(len(texts) > 1 for texts in bodies.values()):
        raise shop.failure("A worker has answered one address with two different pages.")
    print(
        "\nEach worker has its own cache in scope memory, so each misses once (for the session, all but the"
    )
    print("one that made it). Each hit on the page was the same, byte for byte, as what the miss had made.")


def show_a_purchase(shop: GunicornProcess) -> None:
    title("A purchase: nothing old is shown, whichever worker answers")
    visitor = shop.visitor()
    before = visitor.get("/")
    name, left = before.data("name"), int(before.data("left"))
    bought = visitor.post(f"/buy/{before.data('product')}/")
    if bought.status != 302:
        raise shop.failure(f"The purchase was answered with status {bought.status}.")
    print(f"Before: {left} of '{name}' left. Worker {bought.worker} sells one.")
    after = shop.answers_of_all(WORKERS, lambda: visitor.get("/"))
    for worker, answer in sorted({answer.worker: answer for answer in reversed(after)}.items()):
        part = answer.parts["product"]
        left_now, bought_by = answer.data("left"), answer.data("purchases")
        print(
            f"Worker {worker}: {left_now} left ({part.outcome}, {part.ms:.2f} ms), {bought_by} bought by you"
        )
    if {(answer.data("left"), answer.data("purchases")) for answer in after} != {(str(left - 1), "1")}:
        raise shop.failure("A worker has shown something old.")


def show_figures(shop: GunicornProcess, folder: Path) -> None:
    title("The figures: asked of each worker over HTTP, added up here")
    answers = shop.answers_of_all(WORKERS, lambda: shop.visitor().get("/worker/"), each=1)
    workers = {answer.worker: json.loads(answer.text) for answer in answers}
    columns = ("gets", "hits", "misses", "sets", "entries")
    rows: list[tuple[str, ...]] = [("worker", "hit ratio", *columns)]
    rows += [figures_row(str(pid), figures, columns) for pid, figures in sorted(workers.items())]
    total = {column: sum(figures[column] for figures in workers.values()) for column in columns}
    rows.append(figures_row("total", total, columns))
    print(table(rows))

    title("From the command line: manage.py quickcache_stats")
    print("A process of its own: in scope memory it sees its own cache, which is empty.\n", flush=True)
    environment = {**os.environ, "SHOP_DATA": str(folder)}
    command = [sys.executable, str(SHOP / "manage.py"), "quickcache_stats"]
    stats = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    if stats.returncode:
        raise shop.failure(f"quickcache_stats has ended with status {stats.returncode}:\n{stats.stderr}")
    print(stats.stdout.rstrip())


def title(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


def listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def ms_of(times: list[float]) -> str:
    return f"{median(times):.2f} ms" if times else "-"


def figures_row(name: str, figures: dict[str, Any], columns: tuple[str, ...]) -> tuple[str, ...]:
    ratio = f"{figures['hits'] / figures['gets']:.0%}" if figures["gets"] else "-"
    return (name, ratio, *(str(figures[column]) for column in columns))


def table(rows: list[tuple[str, ...]]) -> str:
    """Words to the left, numbers to the right, as the first row of data has them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numeric = [cell[:1].isdigit() for cell in rows[1]]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in rows
    )


if __name__ == "__main__":
    sys.exit(main())
