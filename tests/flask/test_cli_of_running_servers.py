"""`flask quickcache`, typed into a shell beside a server with several workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.gunicorn_server import PATIENCE, Server, gunicorn

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
APP = """
import os
from flask import Flask
from flask_caching import Cache

app = Flask(__name__)
app.config.update(CACHE_TYPE="quickcache_flask.QuickCache", CACHE_THRESHOLD=50)
cache = Cache(app)
other = Cache(app, config={**app.config, "CACHE_OPTIONS": {"location": "shops"}, "CACHE_KEY_PREFIX": "shop:"})


@app.get("/pid")
def pid():
    return str(os.getpid())


@app.get("/visit/<key>")
def visit(key):
    found = cache.get(key)
    if found is None:
        cache.set(key, 1)
        other.set(key, 1)
    return f"{os.getpid()} {'miss' if found is None else 'hit'}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "visits.py").write_text(APP)
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "QUICKCACHE_RUNTIME_DIR": str(folder / "run"), "PYTHONPATH": f"{folder}:{ROOT}"}


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with (
        tempfile.TemporaryDirectory() as short,
        gunicorn(
            "visits:app",
            *("--workers", "2", "--threads", "2"),
            folder=folder,
            socket_path=Path(short) / "socket",
            environment=environment(folder),
        ) as server,
    ):
        yield server


@pytest.fixture
def command(folder: Path) -> Callable[..., str]:
    # The group as the entry point gives it, also where the project isn't installed.
    code = (
        "from flask.cli import FlaskGroup; from quickcache_flask.cli import quickcache; "
        "group = FlaskGroup(); group.add_command(quickcache); group.main()"
    )

    def run(*arguments: str) -> str:
        result = subprocess.run(
            [sys.executable, "-c", code, "--app", "visits", "quickcache", *arguments],
            cwd=folder,
            env=environment(folder),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


def stats(command: Callable[..., str]) -> Any:
    return json.loads(command("stats", "--json"))["aliases"]


def test_running_workers(server: Server, command: Callable[..., str]) -> None:
    """Figures equal the requests, also of a killed worker; keys and clear reach all of them."""
    seen: dict[int, int] = {}
    while len(seen) < 2:
        for key in "abcabc":
            pid = int(server.get(f"/visit/{key}").split()[0])
            seen[pid] = seen.get(pid, 0) + 1
    first, second = stats(command)
    assert {row["pid"]: row["gets"] for row in first["workers"]} == seen
    assert first["totals"]["sets"] == second["totals"]["sets"] == first["totals"]["misses"]
    assert first["totals"]["max_entries"] == 100
    assert "no worker" not in command("stats")

    keys = json.loads(command("keys", "--json"))["aliases"]
    assert [row["key"] for row in keys[0]["keys"]] == ["a", "b", "c"]
    assert [row["key"] for row in keys[1]["keys"]] == ["shop:a", "shop:b", "shop:c"]
    assert command("clear", "--cache", "shops", "--prefix", "a") == "cache2: cleared in 2 workers\n"
    assert [row["entries"] for row in stats(command)[1]["workers"]] != [3, 3]
    assert command("clear") == "cache1: cleared in 2 workers\ncache2: cleared in 2 workers\n"
    first, second = stats(command)
    assert (first["totals"]["entries"], second["totals"]["entries"]) == (0, 0)

    victim = min(seen)
    os.kill(victim, signal.SIGKILL)
    end = time.monotonic() + PATIENCE
    while victim in [row["pid"] for row in stats(command)[0]["workers"]]:
        assert time.monotonic() < end
    [first, _] = stats(command)
    assert first["retired"]["gets"] == seen[victim]
    assert first["totals"]["gets"] == sum(seen.values())

    parsed = {
        (sample.name, sample.labels["alias"]): sample.value
        for family in text_string_to_metric_families(command("stats", "--prometheus"))
        for sample in family.samples
    }
    assert parsed["quickcache_hits_total", "cache1"] == first["totals"]["hits"]
    assert command("stats", "--watch", "0.05", "--count", "2").count("cache1: no location") == 2
