"""Celery's prefork pool: children that the worker forks after the caches were made."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.neighbours.conftest import Run, environment

pytestmark = pytest.mark.slow

PATIENCE = 90.0
"""Seconds that a worker may take to start, and a task to end."""
SETTINGS = """
SECRET_KEY = "a key of these tests, long enough to sign with"
USE_TZ = True
BACKEND = "quickcache_django.QuickCache"
CACHES = {{
    "default": {{"BACKEND": BACKEND}},
    "shared": {{
        "BACKEND": BACKEND,
        "LOCATION": "shared://{folder}/cache",
        "TIMEOUT": None,
        "OPTIONS": {{"MAX_BYTES": "4MB", "FAIL": "raise"}},
    }},
}}
INSTALLED_APPS = ["quickcache_django"]
DATABASES = {{}}
"""
TASKS = """
import os, time
from celery import Celery

app = Celery("tasks")
app.conf.update(
    broker_url="filesystem://",
    broker_transport_options={{
        "data_folder_in": "{folder}/queue", "data_folder_out": "{folder}/queue",
        "control_folder": "{folder}/control",
    }},
    result_backend="file://{folder}/results",
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    task_acks_late=True,
)

import django
django.setup()
from django.core.cache import caches

# Before the pool forks, as an application does that reads something when it is loaded.
caches["shared"].set("from the parent", 1)
caches["default"].set("from the parent", 1)


@app.task
def count(number):
    caches["shared"].get_or_set("total", 0)
    caches["shared"].incr("total")
    own = caches["default"]
    own.add("mine", 0)
    return {{
        "pid": os.getpid(),
        "mine": own.incr("mine"),
        "parents": (caches["shared"].get("from the parent"), own.get("from the parent")),
    }}


@app.task
def load(number):
    def loader():
        time.sleep(0.3)
        caches["shared"].incr("loads")
        return os.getpid()

    return caches["shared"].get_or_set("loaded", loader)
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    (tmp_path / "project.py").write_text(SETTINGS.format(folder=tmp_path))
    (tmp_path / "tasks.py").write_text(TASKS.format(folder=tmp_path))
    for name in ("queue", "control", "results"):
        (tmp_path / name).mkdir()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "celery", "-A", "tasks", "worker", "-P", "prefork", "-c", "2"),
                *("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "INFO"),
            ],
            cwd=tmp_path,
            env={**environment(tmp_path), "C_FORCE_ROOT": "1"},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


SHARED = "import django; django.setup(); from django.core.cache import caches; cache = caches['shared']"
Send = Callable[..., list[Any]]


@pytest.fixture
def send(tmp_path: Path, worker: subprocess.Popen[bytes], run: Run) -> Send:
    """Sends tasks, and gives their results."""

    def send(task: str, times: int) -> list[Any]:
        code = f"""
import json, sys
from tasks import app, {task}
results = [{task}.delay(number) for number in range({times})]
print(json.dumps([result.get(timeout={PATIENCE}) for result in results]))
"""
        try:
            return json.loads(run("-c", code).stdout.splitlines()[-1])  # type: ignore[no-any-return]
        except (AssertionError, subprocess.TimeoutExpired):
            sys.stderr.write((tmp_path / "log").read_text())
            raise

    return send


def test_children_of_the_pool(send: Send, run: Run, worker: subprocess.Popen[bytes]) -> None:
    """Scope shared is one cache for all; in memory each child goes on with a copy of its own. Both are seen
    by the commands.
    """
    results = send("count", 40)
    pids = {result["pid"] for result in results}
    assert worker.pid not in pids
    assert all(result["parents"] == [1, 1] for result in results)
    for pid in pids:
        own = sorted(result["mine"] for result in results if result["pid"] == pid)
        assert own == list(range(1, len(own) + 1))
    report = json.loads(run("-m", "django", "quickcache_stats", "--json").stdout)
    default, shared = report["aliases"]
    rows = {row["pid"]: row for row in default["workers"]}
    assert pids <= rows.keys()
    assert {rows[pid]["server"] for pid in pids} == {"celery"}
    assert total(run) == 40
    assert shared["totals"]["store_errors"] == 0


def total(run: Run) -> int:
    """What all have counted in scope shared."""
    return int(run("-c", f"{SHARED}; print(cache.get('total'))").stdout)


def test_clear_reaches_the_children(send: Send, run: Run) -> None:
    """Within a second or so, while they wait for tasks."""
    send("count", 20)
    said = run("-m", "django", "quickcache_clear", "--alias", "default").stdout
    assert "cleared in" in said
    assert "no answer" not in said
    again = send("count", 10)
    for pid in {result["pid"] for result in again}:
        assert min(result["mine"] for result in again if result["pid"] == pid) == 1


def test_one_load_for_all_children(send: Send, run: Run) -> None:
    """Tasks that miss one key together wait for one load, also in another child."""
    run("-c", f"{SHARED}; cache.set('loads', 0)")
    results = send("load", 8)
    assert len(set(results)) == 1
    assert int(run("-c", f"{SHARED}; print(cache.get('loads'))").stdout) == 1
