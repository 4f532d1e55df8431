"""Under each server, both scopes at once: the caches of all workers, and their figures seen from outside."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.servers.running import (
    ANSWERS_WITHIN,
    SCOPES,
    UVICORN,
    WORKERS,
    Kind,
    Server,
    gunicorn,
    is_alive,
    serving,
    uwsgi,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(170)]

READERS = 4
SECONDS = 0.7
OPERATIONS = 40
"""Of a writer, at least, while readers check what comes of them."""
FIGURES_WITHIN = 10.0  # seconds; workers publish after each request, masters once a second

SYNC = gunicorn()
SYNC_PRELOAD = gunicorn("--preload")
THREADS = gunicorn("--threads=3")
THREADS_PRELOAD = gunicorn("--threads=3", "--preload")
GEVENT = gunicorn("--worker-class=gevent", needs=["gevent"])
GEVENT_PRELOAD = gunicorn("--worker-class=gevent", "--preload", needs=["gevent"])
UVICORN_WORKER = gunicorn(
    "--worker-class=uvicorn_worker.UvicornWorker", needs=["uvicorn", "uvicorn_worker"], protocol="asgi"
)
# Newer ones have --enable-threads by default, and no way back.
UWSGI = uwsgi()
UWSGI_THREADS = uwsgi("--enable-threads", "--threads=3", "--py-call-uwsgi-fork-hooks")
UWSGI_LAZY = uwsgi("--lazy-apps")
UWSGI_LAZY_THREADS = uwsgi("--lazy-apps", "--enable-threads", "--threads=3")

WSGI = [
    SYNC,
    SYNC_PRELOAD,
    THREADS,
    THREADS_PRELOAD,
    GEVENT,
    GEVENT_PRELOAD,
    UWSGI,
    UWSGI_THREADS,
    UWSGI_LAZY,
    UWSGI_LAZY_THREADS,
]
WITH_DJANGO = [SYNC_PRELOAD, THREADS, GEVENT, UWSGI, UWSGI_LAZY_THREADS]
WITH_FLASK = [kind for kind in WSGI if kind not in WITH_DJANGO]
if os.environ.get("QUICKCACHE_TEST_ALL_SERVERS"):
    # Each with both: twice the time.
    WITH_DJANGO = WITH_FLASK = WSGI


class Versions:
    """What a writer has done to some keys, one after the other, and what readers may find of it."""

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys
        self.states: list[dict[str, int | None]] = [dict.fromkeys(keys)]
        """After each operation; the last one may be on its way."""
        self.done = 0
        """Operations that the writer had an answer to."""

    def write_until(self, stop: threading.Event, server: Server) -> None:
        chance = random.Random(7)
        while not stop.is_set():
            number, key = len(self.states), chance.choice(self.keys)
            state = dict(self.states[-1])
            op = chance.choices(["set", "delete", "clear"], [6, 2, 1])[0]
            if op == "clear":
                state = dict.fromkeys(self.keys)
            else:
                state[key] = number if op == "set" else None
            self.states.append(state)
            server.ask(op, key=key, value=number)
            self.done = number

    def read_until(self, stop: threading.Event, server: Server, seed: int) -> int:
        """Number of reads. Fails at the first one that is out of date."""
        chance = random.Random(seed)
        reads = 0
        while not stop.is_set():
            key = chance.choice(self.keys)
            first = self.done
            answer = server.ask("get", key=key)
            possible = [state[key] for state in self.states[first:]]
            assert answer.result in possible, (
                f"{server.kind.name}: worker {answer.pid} gave {answer.result} for {key} after {first} "
                f"operations, which made it {possible}"
            )
            reads += 1
        return reads


@pytest.fixture(scope="class")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One for all tests of a class."""
    kind, framework = request.param
    with serving(kind, framework) as server:
        yield server


def done(jobs: list[Future[Any]]) -> bool:
    """Whether one has ended, which is too early."""
    return any(job.done() for job in jobs)


def check_figures(server: Server) -> None:
    """The published totals of both scopes are what was asked for, soon and from then on."""
    deadline = time.monotonic() + FIGURES_WITHIN
    while True:
        totals = server.console.totals()
        wrong = {scope: server.tally.difference(scope, totals[scope]) for scope in SCOPES}
        if not any(wrong.values()):
            return
        if time.monotonic() > deadline:
            raise server.failure(f"{wrong}, of {totals}")


class ServerChecks:
    """What holds under every server."""

    def test_master_without_threads(self, server: Server) -> None:
        """uWSGI forks whatever threads are doing, so its master has none of ours, even if it uses caches."""
        if "pyuwsgi" in server.kind.needs:
            assert server.threads_of_master() == 1

    def test_no_stale_read(self, server: Server) -> None:
        """A read that begins after a write, delete or clear was answered sees it, in whichever worker."""
        versions = Versions(["a", "b", "c"])
        stop = threading.Event()
        with ThreadPoolExecutor(READERS + 1) as pool:
            jobs: list[Future[Any]] = [
                pool.submit(versions.read_until, stop, server, seed) for seed in range(READERS)
            ]
            jobs.append(pool.submit(versions.write_until, stop, server))
            try:
                time.sleep(SECONDS)
                server.wait(lambda: versions.done >= OPERATIONS or done(jobs), ANSWERS_WITHIN, "it is stuck")
            finally:
                stop.set()
            for job in jobs:
                job.result()

    def test_seen_by_all(self, server: Server) -> None:
        """What one worker writes, deletes or clears, all others have at once, though they had it near."""
        for number in range(3):
            for op, result in [("set", number), ("delete", None), ("set", number), ("clear", None)]:
                server.ask(op, key="seen", value=number)
                answers = server.from_all("get", key="seen")
                assert {answer.result for answer in answers} == {result}

    def test_increments(self, server: Server) -> None:
        """None of 400 concurrent increments gets lost or is told twice."""
        server.ask("set", key="count", value=0)
        answers = server.at_once(400, "incr", key="count")
        assert sorted(answer.result for answer in answers) == list(range(1, 401))
        assert server.ask("get", key="count").result == 400

    def test_delete_from_outside(self, server: Server) -> None:
        """A delete, and a write, by another process than the workers is seen by all of them at once."""
        for number in range(3):
            server.ask("set", key="outside", value=number)
            assert {one.result for one in server.from_all("get", key="outside")} == {number}
            server.console.perform("delete", scope="shared", key="outside")
            assert {one.result for one in server.from_all("get", key="outside")} == {None}
            server.console.perform("set", scope="shared", key="outside", value="-1")
            assert {one.result for one in server.from_all("get", key="outside")} == {-1}

    def test_clear_command(self, server: Server) -> None:
        """The clear command empties the store of all processes."""
        server.ask("set", key="cleared", value=1)
        assert {one.result for one in server.from_all("get", key="cleared")} == {1}
        output = server.console.command("clear", *server.console.choose("shared"))
        assert {one.result for one in server.from_all("get", key="cleared")} == {None}, output

    def test_clear_command_in_memory(self, server: Server) -> None:
        """The clear command empties the memory of each worker soon, though it has nothing to do."""
        server.from_all("set", "memory", key="cleared", value=1)

        def having() -> set[int]:
            keys = server.console.keys("memory").items()
            return {pid for key, pids in keys if key.endswith("cleared") for pid in pids}

        server.wait(lambda: server.workers <= having(), FIGURES_WITHIN, "a worker doesn't tell its keys")
        server.console.command("clear", *server.console.choose("memory"))
        server.wait(lambda: not server.console.keys("memory"), FIGURES_WITHIN, "a worker hasn't cleared")
        answers = server.from_all("get", "memory", key="cleared")
        assert {answer.result for answer in answers} == {None}

    def test_figures(self, server: Server) -> None:
        """Hits, misses and writes that the command shows are those that were asked for, worker by worker."""
        for scope in SCOPES:
            server.from_all("get", scope, key="counted")
            server.at_once(30, "set", scope, key="counted", value=1)
            server.at_once(60, "get", scope, key="counted")
        check_figures(server)
        for scope, alias in server.console.report().items():
            pids = {worker["pid"] for worker in alias["workers"]}
            assert server.workers <= pids, scope
            assert all(is_alive(pid) for pid in pids), scope
            assert {worker["server"] for worker in alias["workers"]} == {server.kind.name.split()[0]}

    def test_worker_killed_at_rest(self, server: Server) -> None:
        """What a killed worker had counted stays in the totals, and nothing is counted twice."""
        server.at_once(40, "get", "memory", key="counted")
        server.at_once(40, "get", "shared", key="counted")
        check_figures(server)
        pid = server.kill_worker()
        check_figures(server)
        server.meet_workers()
        assert pid not in server.workers
        server.from_all("get", "memory", key="counted")
        server.from_all("get", "shared", key="counted")
        check_figures(server)

    def test_worker_killed_under_load(self, server: Server) -> None:
        """No request fails but those that the killed worker had begun, no read is stale, no count is lost."""
        versions = Versions(["x", "y"])
        stop = threading.Event()
        with ThreadPoolExecutor(READERS + 1) as pool:
            jobs: list[Future[Any]] = [
                pool.submit(versions.read_until, stop, server, seed) for seed in range(READERS)
            ]
            jobs.append(pool.submit(versions.write_until, stop, server))
            try:
                time.sleep(0.2)
                server.kill_worker()
                # Each client may have had its answer, and the worker not yet published it.
                server.tally.unpublished += READERS + 1
                before = versions.done
                time.sleep(SECONDS)
                server.wait(
                    lambda: versions.done >= before + OPERATIONS or done(jobs), ANSWERS_WITHIN, "it is stuck"
                )
            finally:
                stop.set()
            for job in jobs:
                job.result()
        server.meet_workers()
        server.from_all("get", key="x")
        check_figures(server)
        server.tally.unpublished = 0
        for scope, totals in server.console.totals().items():
            server.tally.settle(scope, totals)

    def test_full_stop(self, server: Server) -> None:
        """A stop and a start lose no value of the shared store, and none of the figures."""
        for number in range(10):
            server.ask("set", key=f"kept{number}", value=number)
        check_figures(server)
        former = set(server.workers)
        server.stop()
        assert not any(is_alive(pid) for pid in former)
        check_figures(server)
        server.start()
        assert not server.workers & former
        found = [server.ask("get", key=f"kept{number}").result for number in range(10)]
        assert found == list(range(10))
        server.from_all("get", key="kept0")
        server.from_all("get", "memory", key="kept0")
        check_figures(server)
        assert len(server.workers) == WORKERS

    def test_nothing_was_complained_of(self, server: Server) -> None:
        """Through all of this, neither a worker nor a cache has logged that anything went wrong."""
        for complaint in ("Traceback", "can't be used", "No figures", "failed", "damaged"):
            assert complaint not in server.log, server.failure("it has complained")


def under(framework: str, kinds: list[Kind]) -> pytest.MarkDecorator:
    params = [pytest.param((kind, framework), id=kind.name.replace(" ", "_")) for kind in kinds]
    return pytest.mark.parametrize("server", params, indirect=True, scope="class")


@under("django", [*WITH_DJANGO, UVICORN_WORKER, UVICORN])
class TestDjango(ServerChecks):
    pass


@under("flask", WITH_FLASK)
class TestFlask(ServerChecks):
    pass
