"""The commands, typed into a shell beside a server with several workers."""

from __future__ import annotations

import json
import os
import pty
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
from tests.waiting import readable

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SITE = """
import os, sys
from pathlib import Path
import django
from django.core.cache import caches
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

SECRET_KEY = "a key of these tests, long enough to sign with"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = __name__
INSTALLED_APPS = ["quickcache_django"]
CACHES = {
    "default": {"BACKEND": "quickcache_django.QuickCache", "OPTIONS": {"MAX_ENTRIES": 100}},
    "pages": {"BACKEND": "quickcache_django.QuickCache", "LOCATION": "pages", "KEY_PREFIX": "p"},
}


def pid(request):
    return HttpResponse(str(os.getpid()))


def visit(request, key):
    cache = caches[request.GET.get("alias", "default")]
    found = cache.get(key)
    if found is None:
        cache.set(key, 1, 600)
    return HttpResponse(f"{os.getpid()} {'miss' if found is None else 'hit'}")


def mark(request):
    drafts = caches["default"].namespace("drafts")
    for cache in (caches["default"], drafts):
        cache.set("plain", 1, 600)
        cache.set("tagged", 1, 600, tags=["news"])
    return HttpResponse(str(os.getpid()))


def marked(request):
    drafts = caches["default"].namespace("drafts")
    found = [cache.get(key) for cache in (caches["default"], drafts) for key in ("plain", "tagged")]
    return HttpResponse(f"{os.getpid()} {found}")


urlpatterns = [path("pid", pid), path("visit/<key>", visit), path("mark", mark), path("marked", marked)]
"""
WSGI = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "site_settings.py").write_text(SITE)
    (tmp_path / "site_wsgi.py").write_text(WSGI)
    return tmp_path


@pytest.fixture
def server(folder: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as short:
        environment = {"QUICKCACHE_RUNTIME_DIR": str(folder / "run"), "PYTHONPATH": str(ROOT)}
        with gunicorn(
            "site_wsgi",
            *("--workers", "2", *getattr(request, "param", [])),
            folder=folder,
            socket_path=Path(short) / "socket",
            environment=environment,
        ) as server:
            yield server


@pytest.fixture
def command(folder: Path) -> Callable[..., str]:
    def run(*arguments: str, code: int = 0) -> str:
        result = subprocess.run(
            manage(*arguments),
            cwd=folder,
            env=environment(folder),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert result.returncode == code, result.stderr
        return result.stdout + result.stderr

    return run


def manage(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "django", *arguments]


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "site_settings",
        "PYTHONPATH": f"{folder}:{ROOT}",
        "QUICKCACHE_RUNTIME_DIR": str(folder / "run"),
    }


def figures(command: Callable[..., str], alias: str = "default") -> Any:
    [one] = json.loads(command("quickcache_stats", "--json", "--alias", alias))["aliases"]
    return one


def visits(server: Server, keys: list[str]) -> dict[int, dict[str, int]]:
    """What each worker has answered."""
    seen: dict[int, dict[str, int]] = {}
    for key in keys:
        pid, outcome = server.get(f"/visit/{key}").split()
        counts = seen.setdefault(int(pid), {"hit": 0, "miss": 0})
        counts[outcome] += 1
    return seen


@pytest.mark.parametrize("server", [[], ["--preload"]], indirect=True, ids=["workers load", "master loads"])
def test_figures_equal_the_requests(server: Server, command: Callable[..., str]) -> None:
    """Over both workers, over a kill -9 and over the worker that takes the place of the killed one."""
    seen = visits(server, [f"k{number % 7}" for number in range(60)])
    shown = figures(command)
    assert {row["pid"]: (row["hits"], row["misses"], row["sets"]) for row in shown["workers"]} == {
        pid: (counts["hit"], counts["miss"], counts["miss"]) for pid, counts in seen.items()
    }
    assert {row["server"] for row in shown["workers"]} == {"gunicorn"}
    assert shown["retired"] is None
    victim = max(seen)
    os.kill(victim, signal.SIGKILL)
    more = visits(server, [f"k{number % 7}" for number in range(40)])
    more.pop(victim, None)
    end = time.monotonic() + PATIENCE
    while len(figures(command)["workers"]) < len(more):
        assert time.monotonic() < end
    shown = figures(command)
    assert shown["totals"]["gets"] == 100
    assert shown["retired"]["gets"] == sum(seen[victim].values())
    assert victim not in [row["pid"] for row in shown["workers"]]
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(PATIENCE)
    shown = figures(command)
    assert (shown["workers"], shown["totals"]["gets"]) == ([], 100)
    assert "no worker is running" in command("quickcache_stats")


def test_clear_and_keys(server: Server, command: Callable[..., str]) -> None:
    """Keys of all workers with their number, cleared by prefix and altogether, without a further request."""
    while len(seen := visits(server, ["user:1", "user:2", "other", "other"] * 5)) < 2:
        pass
    [shown] = json.loads(command("quickcache_keys", "--json", "--alias", "default"))["aliases"]
    assert sorted(shown["workers"]) == sorted(seen)
    assert [row["key"] for row in shown["keys"]] == [":1:other", ":1:user:1", ":1:user:2"]
    assert set(shown["keys"][0]["pids"]) <= set(seen)
    table = command("quickcache_keys", "--alias", "default")
    assert f"{len(shown['keys'][0]['pids'])} of 2" in table
    said = command("quickcache_clear", "--prefix", "user:", "--alias", "default")
    assert said == "default: cleared in 2 workers\n"
    [shown] = json.loads(command("quickcache_keys", "--json", "--alias", "default"))["aliases"]
    assert [row["key"] for row in shown["keys"]] == [":1:other"]
    assert "default: cleared in 2 workers" in command("quickcache_clear")
    assert figures(command)["totals"]["entries"] == 0
    assert server.get("/visit/other").split()[1] == "miss"
    assert "give a shorter one" in command("quickcache_clear", "--prefix", "x" * 600, code=1)


def test_clear_by_tag_and_namespace(server: Server, command: Callable[..., str]) -> None:
    """In all workers, without a further request."""
    while len(pids := {server.get("/mark") for _ in range(10)}) < 2:
        pass

    def answers() -> set[str]:
        seen: dict[str, str] = {}
        while seen.keys() < pids:
            pid, _, found = server.get("/marked").partition(" ")
            seen[pid] = found
        return set(seen.values())

    assert answers() == {"[1, 1, 1, 1]"}
    assert "cleared in 2 workers" in command("quickcache_clear", "--tag", "news", "--alias", "default")
    assert answers() == {"[1, None, 1, 1]"}
    said = command("quickcache_clear", "--namespace", "drafts", "--alias", "default")
    assert said == "default: cleared in 2 workers\n"
    assert answers() == {"[1, None, None, None]"}


def test_prometheus(server: Server, command: Callable[..., str]) -> None:
    """A parser reads it, and finds what JSON says."""
    visits(server, ["a", "b", "a"])
    server.get("/visit/c?alias=pages")
    parsed = {
        (sample.name, sample.labels["alias"]): sample.value
        for family in text_string_to_metric_families(command("quickcache_stats", "--prometheus"))
        for sample in family.samples
    }
    for alias in ("default", "pages"):
        totals = figures(command, alias)["totals"]
        for name in ("hits", "misses", "sets", "evictions", "expirations", "deletions", "store_errors"):
            assert parsed[f"quickcache_{name}_total", alias] == totals[name]
        for name in ("entries", "max_entries"):
            assert parsed[f"quickcache_{name}", alias] == totals[name]
        assert parsed["quickcache_workers", alias] == len(figures(command, alias)["workers"])
    assert parsed["quickcache_misses_total", "pages"] == 1


def test_watching_into_a_pipe(server: Server, command: Callable[..., str]) -> None:
    """Blocks of text, each with the time."""
    visits(server, ["a", "a"])
    text = command("quickcache_stats", "--watch", "0.1", "--count", "3", "--alias", "default")
    assert text.count("default: no location, scope memory, policy s3fifo") == 3
    assert text.count("gunicorn") >= 3


def test_watching_on_a_terminal(server: Server, folder: Path) -> None:
    """The table is drawn anew in its place, and Ctrl-C ends it without a traceback."""
    visits(server, ["a", "a"])
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        manage("quickcache_stats", "--watch", "0.2"),
        cwd=folder,
        env={**environment(folder), "TERM": "xterm", "COLUMNS": "160"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        shown = b""
        end = time.monotonic() + PATIENCE
        while shown.count(b"gunicorn") < 3:
            assert time.monotonic() < end, shown
            if readable(ours, 0.5):
                shown += os.read(ours, 65536)
        assert b"\x1b[" in shown
        process.send_signal(signal.SIGINT)
        while readable(ours, PATIENCE):
            try:
                shown += os.read(ours, 65536)
            except OSError:  # its end is closed
                break
        assert process.wait(PATIENCE) == 0
        assert b"Traceback" not in shown
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_command_is_no_worker(server: Server, command: Callable[..., str]) -> None:
    """However often figures are shown, there are no more workers, running or ended."""
    visits(server, ["a"] * 10)
    for _ in range(3):
        shown = figures(command)
    assert shown["retired"] is None
    assert len(shown["workers"]) <= 2
