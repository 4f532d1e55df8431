"""The writer guard: writers that are killed or stopped in the middle cost others a bounded time."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import QuickCache, QuickCacheConfig
from tests.shared.remote import MAP, ROOT, Failed, Remote, Template

pytestmark = pytest.mark.slow

Start = Callable[..., Remote]

PATIENCE = 1.0
"""Seconds that a writer waits for another one."""
SLACK = 4.0
"""Seconds that a slow machine may add."""


@pytest.fixture
def stopped(start: Start) -> Remote:
    """A process that was stopped in the middle of `set("k", "theirs")`, with the guard in its hand."""
    remote = start()
    remote.set("k", "old")
    remote.do("trap_commit", "before", int(signal.SIGSTOP), 1)
    remote.ask("call", "set", ["k", "theirs"], {})
    remote.wait_until_stopped()
    return remote


def store_errors(remote: Remote) -> int:
    return int(remote.get_metrics_snapshot()["store_errors"])


def test_reads_go_on_beside_a_stopped_writer(start: Start, stopped: Remote) -> None:
    """Readers wait for nobody, in processes that have it open and in new ones."""
    began = time.monotonic()
    newcomer = start()
    assert newcomer.get("k") == "old"
    assert newcomer.get_many(["k", "nothing"]) == {"k": "old"}
    assert newcomer.size() == 1
    assert newcomer.keys() == ["k"]
    assert time.monotonic() - began < PATIENCE
    assert store_errors(newcomer) == 0
    stopped.signal(signal.SIGCONT)
    stopped.answer()
    assert newcomer.get("k") == "theirs"


def test_set_beside_a_stopped_writer(start: Start, stopped: Remote) -> None:
    """It gives up in time, counts an error and raises none; nobody takes an older value for the new one."""
    other, third = start(), start()
    assert other.get("k") == "old"
    began = time.monotonic()
    other.set("k", "mine")
    other.set_many({"k": "mine"})
    assert time.monotonic() - began < 2 * (PATIENCE + SLACK)
    assert store_errors(other) == 2
    assert other.get("k", "gone") == "gone"
    assert third.get("k") == "old"
    stopped.signal(signal.SIGCONT)
    stopped.answer()
    # Which `other` removes by itself in the next second.
    assert third.get("k", "gone") in ("theirs", "gone")
    other.set("k", "at last")
    for remote in (stopped, other, third):
        assert remote.get("k") == "at last"
    assert store_errors(other) == 2


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("delete", ["k"]),
        ("delete_many", [["k"]]),
        ("pop", ["k"]),
        ("clear", []),
        ("incr", ["n"]),
        ("incr", ["new", 1]),
        ("touch", ["k", 5]),
    ],
)
def test_what_must_not_be_answered_wrongly(
    start: Start, stopped: Remote, method: str, arguments: list[Any]
) -> None:
    """It raises `StoreUnavailable` in time, and nothing has happened; after SIGCONT it works."""
    other = start()
    began = time.monotonic()
    with pytest.raises(Failed) as failed:
        other.do("call", method, arguments, {"initial": 0} if method == "incr" else {})
    assert time.monotonic() - began < PATIENCE + SLACK
    assert failed.value.name in ("StoreUnavailable", "WriterBusy"), failed.value
    assert "stopped" in failed.value.text
    stopped.signal(signal.SIGCONT)
    stopped.answer()
    assert other.get("k") == "theirs"
    other.do("call", method, arguments, {"initial": 0} if method == "incr" else {})


def test_add_beside_a_stopped_writer(start: Start, stopped: Remote) -> None:
    """It never says that it stored what it didn't: who takes that for a lock would share it."""
    other = start()
    try:
        assert other.add("lock", 1, exist_ok=True) is False
    except Failed as failed:
        assert failed.name in ("StoreUnavailable", "WriterBusy")  # noqa: PT017


def test_fail_raise(start: Start, stopped: Remote) -> None:
    """With `fail="raise"` a set that wasn't carried out raises, too."""
    other = start(fail="raise")
    with pytest.raises(Failed, match=r"StoreUnavailable|WriterBusy"):
        other.set("k", "mine")


def test_stopped_writer_killed(start: Start, stopped: Remote) -> None:
    """The guard goes with it."""
    other = start()
    stopped.kill()
    began = time.monotonic()
    other.set("k", "mine")
    assert time.monotonic() - began < PATIENCE
    assert other.get("k") == "mine"
    assert store_errors(other) == 0


def test_writer_goes_on_after_a_long_stop(start: Start) -> None:
    """Stopped after the commit, before it knew: its near store learns what the others did meanwhile."""
    other, sleeper = start(), start()
    sleeper.trap("reading:NearStore.keep", "before", signal.SIGSTOP)
    sleeper.ask("call", "set", ["k", "theirs"], {})
    sleeper.wait_until_stopped()
    assert other.get("k") == "theirs"
    other.set("k", "mine")
    other.delete("k")
    other.set("k", "mine")
    sleeper.signal(signal.SIGCONT)
    sleeper.answer()
    assert sleeper.get("k") == "mine"


def test_process_stopped_while_opening(start: Start, directory: Path) -> None:
    """Those who have it open notice nothing; who wants to open it waits a bounded time, and has it later."""
    user = start()
    user.set("k", 1)
    opener = start(None)
    opener.trap("open_files:open_environment", "before", signal.SIGSTOP)
    opener.ask("open", str(directory), {})
    opener.wait_until_stopped()
    user.set("k", 2)
    assert user.get("k") == 2
    newcomer = start(None)
    newcomer.do("run", "tests.shared.scenes:open_impatiently")
    newcomer.do("open", str(directory), {})
    assert newcomer.get("k", "nothing") == "nothing"
    assert "kept by a process that is opening it" in newcomer.log()
    opener.signal(signal.SIGCONT)
    opener.answer()
    assert opener.get("k") == 2
    end = time.monotonic() + 10
    while newcomer.get("k", "nothing") != 2:
        assert time.monotonic() < end, newcomer.log()
        time.sleep(0.05)


def test_kills_under_contention(template: Template, directory: Path, stress_seconds: float) -> None:
    """However many writers are killed while they contend: nobody ever hangs, no increment is lost."""
    watcher = Remote(template, directory)
    workers: list[Remote] = []
    chance = random.Random(7)
    kills = 0
    watcher.set("n", 0)
    try:
        end = time.monotonic() + stress_seconds
        while time.monotonic() < end:
            while len(workers) < 4:
                workers.append(Remote(template, directory))
                workers[-1].ask("run", "tests.shared.scenes:write_for_ever")
            time.sleep(chance.random() * 0.01)
            victims = [
                workers.pop(chance.randrange(len(workers))) for _ in range(chance.choice([1, 1, 2, 3]))
            ]
            for victim in victims:
                victim.signal(signal.SIGKILL)
            began = time.monotonic()
            watcher.set("k", kills)
            assert watcher.get("k") == kills
            assert watcher.incr("n") == kills + 1
            assert time.monotonic() - began < PATIENCE + SLACK
            kills += 1
            for victim in victims:
                victim.close()
        assert watcher.get("n") == kills > 0
        assert store_errors(watcher) == 0, watcher.log()
    finally:
        for remote in (watcher, *workers):
            remote.close()


def test_threads_wait_for_each_other_in_bounds(directory: Path) -> None:
    """Many threads of one process and of another, all writing one number: the sum is exact, nobody fails."""
    cache = QuickCache(QuickCacheConfig(location=f"shared://{directory}", max_bytes=MAP))
    cache.set("n", 0)

    def count() -> None:
        for _ in range(500):
            cache.incr("n")

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert cache.get("n") == 4000
    assert cache.metrics().store_errors == 0


def test_increments_over_processes_and_threads(start: Start) -> None:
    """4 processes x 8 threads lose none."""
    workers = [start() for _ in range(4)]
    workers[0].set("n", 0)
    for worker in workers:
        worker.ask("run", "tests.shared.scenes:increment_in_threads", 8, 500)
    results = [worker.answer() for worker in workers]
    assert results == [0] * 4, "how many increments failed"
    for worker in workers:
        assert worker.get("n") == 4 * 8 * 500


def test_writes_that_signal_handlers_end(directory: Path) -> None:
    """An exception of a handler (a time limit of Celery or RQ, Ctrl-C) leaves the guard free."""
    program = [sys.executable, "-m", "tests.shared.interrupted", str(directory), "3"]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert int(ended.stdout) > 50
