"""The figures of processes wherever they run, by way of the server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from quickcache_core import QuickCache, QuickCacheConfig
from quickcache_core.metrics.report import StatsReport, stats_report
from quickcache_core.metrics.tables import stats_table
from quickcache_core.store.redis.announcing import LIFE
from tests.redis.servers import wait_until

FAR_AWAY = {"host": "far-away", "pid": 5, "server": "", "uptime_s": 1, "ops_per_s": 0, "figures": {"hits": 3}}
ROOT = Path(__file__).parents[2]
WORKER = """
import sys
from quickcache_core import QuickCache, QuickCacheConfig
cache = QuickCache(QuickCacheConfig(location=sys.argv[1], redis_prefix="hosts"))
for n in range(int(sys.argv[2])):
    cache.set(f"k{n}", n)
    cache.get(f"k{n}")
    cache.get("nothing", None)
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def worker(url: str, number: int) -> Iterator[subprocess.Popen[str]]:
    """A process that has done so many sets, hits and misses, and stays."""
    command = [sys.executable, "-c", WORKER, url, str(number)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def cache_of(url: str) -> QuickCache:
    cache = QuickCache(QuickCacheConfig(location=url, redis_prefix="hosts"))
    control = cache.control
    assert control is not None
    control.stay_out()
    return cache


def report_of(cache: QuickCache) -> StatsReport:
    return stats_report([("default", "redis://…", cache)], everywhere=True)


@pytest.mark.slow
def test_all_processes_are_seen(redis_url: str) -> None:
    """Each with its host and its own counts; the total is what was done, and who only looks isn't there."""
    cache = cache_of(redis_url)
    with worker(redis_url, 7) as first, worker(redis_url, 13) as second:

        def both() -> Any:
            rows = report_of(cache)["aliases"][0]["workers"]
            return rows if sum(row["misses"] for row in rows) == 20 else None

        wait_until(both, "both have said what they did")
        alias = report_of(cache)["aliases"][0]
        assert alias["scope"] == "redis"
        by_pid = {row["pid"]: row for row in alias["workers"]}
        assert by_pid.keys() == {first.pid, second.pid}
        assert {row["host"] for row in alias["workers"]} == {socket.gethostname()}
        assert [by_pid[one.pid]["hits"] for one in (first, second)] == [7, 13]
        assert alias["totals"]["gets"] == 40
        assert socket.gethostname() in stats_table(report_of(cache))


@pytest.mark.slow
def test_who_was_killed_disappears(redis_url: str) -> None:
    """The server forgets the figures of a process that doesn't repeat them."""
    cache = cache_of(redis_url)
    with worker(redis_url, 1) as process, redis.Redis.from_url(redis_url, protocol=2) as client:
        wait_until(lambda: client.keys("hosts/f/w/*"), "it has said what it did")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        (name,) = client.keys("hosts/f/w/*")
        assert 0 < client.pttl(name) <= LIFE * 1000
        client.pexpire(name, 1)
        wait_until(lambda: not report_of(cache)["aliases"][0]["workers"], "it has gone")


def test_figures_of_another_release(redis_url: str) -> None:
    """What can't be read is left out; counts that aren't known are none."""
    cache = cache_of(redis_url)
    row = {**FAR_AWAY, "figures": {"hits": 3, "new": 1}}
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        client.set("hosts/f/w/a", json.dumps(row))
        client.set("hosts/f/w/b", b"\xff{")
        client.set("hosts/f/w/c", json.dumps({"host": "h"}))
        client.set("hosts2/f/w/d", json.dumps(row))
    (only,) = report_of(cache)["aliases"][0]["workers"]
    assert (only["host"], only["pid"], only["hits"], only["misses"]) == ("far-away", 5, 3, 0)


def test_a_cache_of_one_host() -> None:
    """It says so, and shows what there is."""
    report = stats_report([("default", "", QuickCache())], everywhere=True)
    assert "Only this process" in report["notes"][0]
    assert len(report["aliases"][0]["workers"]) == 1


def test_in_flask(redis_url: str) -> None:
    """`flask quickcache stats --cluster`."""
    from flask import Flask
    from flask_caching import Cache

    from quickcache_flask.cli import quickcache

    app = Flask(__name__)
    app.secret_key = "a secret of the tests, long enough"
    app.config["CACHE_TYPE"] = "quickcache_flask.QuickCache"
    app.config["CACHE_OPTIONS"] = {"location": redis_url, "redis_prefix": "hosts"}
    Cache(app)
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        client.set("hosts/f/w/a", json.dumps(FAR_AWAY))
    result = app.test_cli_runner().invoke(quickcache, ["stats", "--cluster"])
    assert result.exit_code == 0, result.output
    assert "far-away" in result.output
    assert "scope redis" in result.output


def test_in_django(redis_url: str) -> None:
    """`manage.py quickcache_stats --cluster`."""
    program = f"""
import django, sys
from django.conf import settings
settings.configure(
    SECRET_KEY="a secret of the tests, long enough", INSTALLED_APPS=["quickcache_django"],
    CACHES={{"default": {{"BACKEND": "quickcache_django.QuickCache", "LOCATION": {redis_url!r},
                         "OPTIONS": {{"REDIS_PREFIX": "hosts"}}}}}},
)
django.setup()
from django.core.management import call_command
call_command("quickcache_stats", "--cluster", "--json")
"""
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        client.set("hosts/f/w/a", json.dumps(FAR_AWAY))
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (alias,) = json.loads(ran.stdout)["aliases"]
    assert [(one["host"], one["hits"]) for one in alias["workers"]] == [("far-away", 3)]
