"""Starts the Django shop under gunicorn with 4 workers, and shows what they share: one cache.

python example_projects/demo.py            ends by itself
python example_projects/demo.py --serve    leaves the shop open in the end, until Ctrl-C
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from html import escape
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event, Thread

from gunicorn_process import Answer, ExampleFailed, GunicornProcess, Part

WORKERS = 4
SHOP = Path(__file__).resolve().parent / "django_shop"
NOTICE = "Closed on Sundays"

PARTS = {
    "catalogue": ("a whole page", "cache_page"),
    "category": ("one that follows rows", "@cached_view"),
    "product": ("an object", "cache.get, cache.set"),
    "shelf": ("part of a template", "{% cache %}"),
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
    print(f"A Django shop on SQLite, under gunicorn with {WORKERS} workers. Its cache, in settings.py:")
    print('\n    "BACKEND": "quickcache_django.QuickCache",')
    print('    "LOCATION": "shared:///a/directory",       one cache for all workers', flush=True)
    with opened_shop(folder, port) as shop:
        show_hits_and_misses(shop)
        show_a_value_for_all(shop)
        show_a_purchase(shop)
        show_live_figures(shop, folder)
        show_clear(shop, folder)
        writer = write_for_later(shop)
        ends_well(shop)
        port = shop.port
    title("All workers are stopped, and started again")
    with opened_shop(folder, port) as shop:
        show_what_was_kept(shop, writer)
        ends_well(shop)
        if serve:
            stay_open(shop)
    title("How to go on")
    python, here = os.path.relpath(sys.executable), os.path.relpath(Path(__file__).parent)
    rows = [
        (f"{python} {here}/demo.py --serve", "the same, and the shop stays open for your browser"),
        (f"{python} {here}/flask_notes/run.py", "the same idea with Flask and Flask-Caching"),
        (f"{here}/django_shop/README.md", "what to look at in the code"),
        ("docs/scopes.md", "one cache for all workers, or one for each: which, and what is promised"),
    ]
    print(table(rows))


@contextmanager
def opened_shop(folder: Path, port: int) -> Iterator[GunicornProcess]:
    started = time.monotonic()
    with GunicornProcess(SHOP / "run.py", "--workers", str(WORKERS), folder=folder, port=port) as shop:
        # All workers answer before the story goes on, so that no time in it is that of a worker's start.
        workers = first_of_each(shop.answers_of_all(WORKERS, lambda: shop.visitor().get("/worker/")))
        print(f"\nThe shop is open at {shop.url} after {time.monotonic() - started:.1f} s.")
        print(f"Workers {', '.join(map(str, workers))}.")
        yield shop


def category_of(home: Answer) -> str:
    """The path of the category that the home page leads to."""
    found = re.search(r"/category/\d+/", home.text)
    if found is None:
        raise ExampleFailed("The home page leads to no category.")
    return found[0]


def ends_well(shop: GunicornProcess) -> None:
    if shop.has_complained():
        raise shop.failure("The answers were right, but gunicorn's log has something to say.")


def show_hits_and_misses(shop: GunicornProcess) -> None:
    title("What one worker has made, all others have")
    visitor = shop.visitor()
    seen: dict[str, list[tuple[int, Part]]] = defaultdict(list)
    pages: set[str] = set()
    paths = ["/catalogue/", "/"]
    for path in paths:
        for answer in shop.answers_of_all(WORKERS, partial(visitor.get, path), each=3):
            for name, part in answer.parts.items():
                seen[name].append((answer.worker, part))
            if path == "/catalogue/":
                pages.add(answer.text)
            if path == "/" and len(paths) == 2:
                paths.append(category_of(answer))

    rows: list[tuple[str, ...]] = [("", "in Django", "made once", "by worker", "hits", "by", "typically")]
    for name, (what, how) in PARTS.items():
        misses = [(worker, part.ms) for worker, part in seen[name] if part.outcome == "miss"]
        hits = [(worker, part.ms) for worker, part in seen[name] if part.outcome == "hit"]
        readers = {worker for worker, _ in hits}
        if len(misses) != 1 or len(readers) != WORKERS:
            raise shop.failure(f"{what}: {len(misses)} misses, and hits by the workers {sorted(readers)}.")
        [(maker, slow)] = misses
        fast = median(ms for _, ms in hits)
        by = f"{len(readers)} workers"
        rows.append((what, how, f"{slow:.1f} ms", str(maker), str(len(hits)), by, f"{fast:.2f} ms"))
    print(table(rows))
    if len(pages) > 1:
        raise shop.failure("One address was answered with two different pages.")
    print("\nThe first request made each part. Every worker answered from the cache after that.")


def show_a_value_for_all(shop: GunicornProcess) -> None:
    title("A value written by one worker is read by all")
    visitor = shop.visitor()
    visitor.get("/")
    written = visitor.post("/notice/", text=NOTICE)
    print(f'Worker {written.worker}: cache.set("notice", "{NOTICE}")')
    for worker, notice in notices(shop).items():
        if notice.get("written_by") != written.worker or notice.get("text") != NOTICE:
            raise shop.failure(f"Worker {worker} has another notice: {notice}.")
        print(f'Worker {worker}: cache.get("notice") gives "{notice["text"]}"')


def show_a_purchase(shop: GunicornProcess) -> None:
    title("A purchase: nothing old is shown, whichever worker answers")
    visitor = shop.visitor()
    before = visitor.get("/")
    visitor.get(category_of(before))
    name, left = before.data("name"), int(before.data("left"))
    bought = visitor.post(f"/buy/{before.data('product')}/")
    if bought.status != 302:
        raise shop.failure(f"The purchase was answered with status {bought.status}.")
    print(f"Before: {left} of '{name}' left. Worker {bought.worker} sells one.")
    after = shop.answers_of_all(WORKERS, lambda: visitor.get("/"))
    for worker, answer in first_of_each(after).items():
        part = answer.parts["product"]
        made = "looked up in the database" if part.outcome == "miss" else "from the cache"
        print(f"Worker {worker}: {answer.data('left')} left, {made} in {part.ms:.2f} ms")
    if {(answer.data("left"), answer.data("purchases")) for answer in after} != {(str(left - 1), "1")}:
        raise shop.failure("A worker has shown something old.")
    page, again = visitor.get(category_of(before)), visitor.get(category_of(before))
    shown = re.search(rf"<td>{re.escape(escape(name))}</td>" + r'<td class="n">(\d+)</td>' * 2, page.text)
    labels = page.headers["X-Cache"], again.headers["X-Cache"]
    if shown is None or shown[2] != str(left - 1) or labels != ("MISS", "HIT"):
        raise shop.failure("The page of the category doesn't follow its rows.")
    print(
        f"The page of its category left the cache with the commit: X-Cache is {labels[0]}, then {labels[1]}."
    )


def show_live_figures(shop: GunicornProcess, folder: Path) -> None:
    title("Live, while visitors come: manage.py quickcache_stats --watch")
    with visitors(shop):
        # On a terminal the table stays in its place; elsewhere one follows the other.
        manage(shop, folder, "quickcache_stats", "--watch", "1", "--count", "3")


def show_clear(shop: GunicornProcess, folder: Path) -> None:
    title("Emptied from a terminal: manage.py quickcache_clear")
    manage(shop, folder, "quickcache_clear")
    for worker, notice in notices(shop).items():
        if notice:
            raise shop.failure(f"Worker {worker} still has the notice.")
        print(f'Worker {worker}: cache.get("notice") gives nothing')


def write_for_later(shop: GunicornProcess) -> int:
    """Fill the cache, and return the worker that wrote the notice."""
    visitor = shop.visitor()
    for path in ("/", "/catalogue/"):
        visitor.get(path)
    written = visitor.post("/notice/", text=NOTICE)
    print(f"\nThe next visitor fills it again, and worker {written.worker} writes the notice.")
    return written.worker


def show_what_was_kept(shop: GunicornProcess, writer: int) -> None:
    for worker, notice in notices(shop).items():
        if notice.get("written_by") != writer:
            raise shop.failure(f"Worker {worker} has lost the notice.")
        print(f'Worker {worker}: cache.get("notice") gives "{notice["text"]}", written by worker {writer}')
    visitor = shop.visitor()
    for worker, answer in first_of_each(
        shop.answers_of_all(WORKERS, lambda: visitor.get("/catalogue/"))
    ).items():
        part = answer.parts["catalogue"]
        if part.outcome != "hit":
            raise shop.failure(f"Worker {worker} has made the catalogue anew.")
        print(f"Worker {worker}: its first catalogue page is a hit, {part.ms:.2f} ms")


def stay_open(shop: GunicornProcess) -> None:
    title("The shop stays open")
    print(f"Look at it: {shop.url}    Ctrl-C closes it.", flush=True)
    while True:
        # signal.pause() would sleep on through a signal that came just before it.
        time.sleep(0.2)


@contextmanager
def visitors(shop: GunicornProcess, count: int = 2) -> Iterator[None]:
    """Some that look around until the block is left. What goes wrong for one ends the demo."""
    enough = Event()
    failures: list[ExampleFailed] = []

    def look_around() -> None:
        visitor = shop.visitor()
        try:
            while not enough.is_set():
                for path in ("/", "/catalogue/", "/catalogue/"):
                    visitor.get(path)
        except ExampleFailed as failure:
            failures.append(failure)

    threads = [Thread(target=look_around) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def manage(shop: GunicornProcess, folder: Path, *command: str) -> None:
    """Run a management command, which writes where this program writes."""
    sys.stdout.flush()
    words = [sys.executable, str(SHOP / "manage.py"), *command]
    environment = {**os.environ, "SHOP_DATA": str(folder)}
    status = subprocess.run(words, env=environment, timeout=60, check=False).returncode
    if status:
        raise shop.failure(f"{command[0]} has ended with status {status}.")


def notices(shop: GunicornProcess) -> dict[int, dict[str, object]]:
    """What each worker has in its cache as the notice."""
    answers = shop.answers_of_all(WORKERS, lambda: shop.visitor().get("/notice/"))
    return {worker: json.loads(answer.text) for worker, answer in first_of_each(answers).items()}


def first_of_each(answers: list[Answer]) -> dict[int, Answer]:
    """By worker."""
    return dict(sorted({answer.worker: answer for answer in reversed(answers)}.items()))


def title(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


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
