"""The reports behind the commands, with more workers than one process can show."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import KeyNotFound, QuickCache, QuickCacheConfig
from quickcache_core.eviction_policy import BaseEvictionPolicy
from quickcache_core.metrics.prometheus import to_prometheus
from quickcache_core.metrics.report import (
    Figures,
    WorkerFigures,
    add_up,
    keys_report,
    stats_report,
    to_json,
)
from quickcache_core.metrics.tables import keys_table, stats_table
from quickcache_core.testing import ManualClock
from tests.core.workers import Worker


def figures(**changes: Any) -> Figures:
    counts: Any = dict.fromkeys(Figures.__annotations__, 0)
    return {**counts, "hit_ratio": None, "ops_per_s": 0.0, "bytes": None, **changes}


def worker(pid: int, uptime_s: float, **changes: Any) -> WorkerFigures:
    return {**figures(**changes), "host": "", "pid": pid, "server": "gunicorn", "uptime_s": uptime_s}


@pytest.fixture
def cache() -> QuickCache:
    return QuickCache(QuickCacheConfig(clock=ManualClock(), default_ttl=100))


def test_totals() -> None:
    """Sums of the counts; the ratio is that of the sums, not a mean of ratios."""
    rows = [
        worker(
            1, 1.0, hits=9, misses=1, gets=10, hit_ratio=0.9, sets=3, entries=2, max_entries=5, evictions=1
        ),
        worker(
            2,
            1.0,
            misses=90,
            gets=90,
            hit_ratio=0.0,
            expirations=2,
            deletions=3,
            store_errors=4,
            max_entries=5,
        ),
    ]
    assert add_up(rows) == figures(
        hits=9,
        misses=91,
        gets=100,
        hit_ratio=0.09,
        sets=3,
        entries=2,
        max_entries=10,
        evictions=1,
        expirations=2,
        deletions=3,
        store_errors=4,
    )
    assert add_up([]) == figures()


@pytest.mark.parametrize(
    ("weights", "weight"),
    [([5], 5), ([5, 0], 5), ([5, None], None), ([None], None), ([], None)],
    ids=["one", "two", "one of two doesn't weigh", "nobody weighs", "nobody runs"],
)
def test_total_weight(weights: list[int | None], weight: int | None) -> None:
    """That of the entries of the workers that run, known if all of them weigh; those that have ended have
    none, and count for the rest.
    """
    rows = [worker(pid, 1.0, sets=1, bytes=one) for pid, one in enumerate(weights)]
    assert add_up(rows) == figures(sets=len(rows), bytes=weight)
    assert add_up(rows, ended=figures(sets=7)) == figures(sets=len(rows) + 7, bytes=weight)


def test_weight_after_the_end_of_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is shown as before, in the report and to Prometheus."""
    monkeypatch.setenv("QUICKCACHE_RUNTIME_DIR", str(tmp_path / "run"))
    settings: dict[str, Any] = {"publish_as": "weighed", "max_bytes": "1MB"}
    cache = QuickCache(QuickCacheConfig(**settings))
    cache.set("k", "x" * 100)
    ended = Worker(**settings)
    ended.call("set", "k", 1)
    ended.close()
    report = stats_report([("pages", "", cache)])
    [alias] = report["aliases"]
    [row] = alias["workers"]
    assert alias["retired"] is not None
    assert row["bytes"] is not None
    assert alias["totals"]["bytes"] == row["bytes"]
    assert f'quickcache_bytes{{alias="pages"}} {row["bytes"]}' in to_prometheus(report)
    cache.stop()


def test_several_workers_in_a_table(cache: QuickCache) -> None:
    """A row per worker, one for those that ended, one for the total."""
    report = stats_report([("pages", "somewhere", cache)])
    [alias] = report["aliases"]
    alias["workers"] = [worker(11, 59.94, gets=2, hits=1, hit_ratio=0.5), worker(12, 100_000.0, gets=1)]
    alias["retired"] = figures(gets=7)
    alias["totals"] = figures(gets=10, hits=1, hit_ratio=0.1)
    head, columns, _, *rows = stats_table(report).split("\n\n")[0].splitlines()
    assert head == "pages: somewhere, scope memory, policy s3fifo"
    assert columns.split()[:4] == ["pid", "server", "uptime", "hits"]
    assert [row.split()[0] for row in rows] == ["11", "12", "ended", "total"]
    assert "59.9 s" in rows[0]
    assert "50.0%" in rows[0]
    assert "1 d 3:46:40" in rows[1]
    assert len({len(line.rstrip()) for line in [columns, *rows]}) == 1


def test_one_worker_needs_no_total(cache: QuickCache) -> None:
    """A single row is its own total."""
    assert "total" not in stats_table(stats_report([("a", "", cache)]))


def test_loads_in_a_table(cache: QuickCache) -> None:
    """Columns on loads are shown where there is something to show."""
    cache.get_or_set("k", lambda: 1)
    report = stats_report([("a", "", cache)])
    columns, _, row = stats_table(report).splitlines()[1:4]
    assert (columns.split()[-2:], row.split()[-2:]) == (["errors", "loads"], ["0", "1"])
    [alias] = report["aliases"]
    alias["workers"] = [
        worker(11, 1.0, loads=7, load_failures=2),
        worker(12, 1.0, loads=1, load_waits=3, stale_hits=4),
    ]
    alias["totals"] = add_up(alias["workers"])
    columns, _, *rows = stats_table(report).splitlines()[1:6]
    assert columns.split()[-4:] == ["loads", "failed", "waits", "stale"]
    assert [row.split()[-4:] for row in rows] == [list("7200"), list("1034"), list("8234")]


def test_what_the_cache_did(cache: QuickCache) -> None:
    """The row of this process comes from the cache's metrics."""
    cache.set("k", 1)
    cache.get("k")
    cache.get("nothing", None)
    report = stats_report([("a", "", cache)])
    assert json.loads(to_json(report)) == report
    [row] = report["aliases"][0]["workers"]
    assert (row["hits"], row["misses"], row["gets"], row["hit_ratio"]) == (1, 1, 2, 0.5)
    assert (row["sets"], row["entries"], row["max_entries"]) == (1, 1, 1000)


def test_metrics_switched_off() -> None:
    """A cache that gives no metrics of its own is reported all the same."""
    cache = QuickCache(QuickCacheConfig(enable_metrics=False))
    cache.set("k", 1)
    assert stats_report([("a", "", cache)])["aliases"][0]["totals"]["entries"] == 1


def test_name_of_a_policy_class() -> None:
    """A policy that was given as a class is shown by its name."""

    class Mine(BaseEvictionPolicy):
        def on_add(self, key: str, *args: Any) -> None: ...
        def on_access(self, key: str, *args: Any) -> None: ...
        def on_update(self, key: str, *args: Any) -> None: ...
        def on_delete(self, key: str, *args: Any) -> None: ...
        def select_eviction_key(self, *args: Any) -> Any: ...

    cache = QuickCache(QuickCacheConfig(eviction_policy=Mine))
    assert stats_report([("a", "", cache)])["aliases"][0]["policy"] == "Mine"


def test_key_that_leaves_meanwhile(cache: QuickCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is gone when its time left is asked for is left out."""
    cache.set_many({"a": 1, "b": 2})
    ttl = cache.ttl

    def gone(key: str) -> float | None:
        if key == "a":
            raise KeyNotFound(key)
        return ttl(key)

    monkeypatch.setattr(cache, "ttl", gone)
    [alias] = keys_report([("x", "", cache, "")])["aliases"]
    assert alias["keys"] == [{"key": "b", "ttl_s": 100.0, "pids": [os.getpid()]}]
    assert alias["truncated"] is False


def test_keys_in_a_table(cache: QuickCache) -> None:
    """Keys with the time left; what is no printable text is escaped."""
    cache.set("plain", 1)
    cache.set("é\n\x1b[2J", 1)
    text = keys_table(keys_report([("x", "", cache, "")]))
    assert "plain" in text
    assert "1:40" in text
    assert "\\xe9\\n\\x1b[2J" in text
    assert "\x1b" not in text
