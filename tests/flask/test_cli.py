"""`flask quickcache`."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from flask_caching import Cache

from quickcache_core.testing import ManualClock
from quickcache_flask.cli import quickcache


@pytest.fixture
def caches(make_backend: Any, clock: ManualClock) -> list[Any]:
    """cache1 has a store of its own, cache2 one by the name of "second"."""
    first = make_backend(CACHE_THRESHOLD=7)
    second = make_backend(CACHE_OPTIONS={"location": "second"}, CACHE_KEY_PREFIX="app:")
    second.engine.clear()
    second.engine.reset_metrics()
    first.set_many({"a": 1, "b": 2}, timeout=90)
    first.get("a")
    first.get("nothing")
    second.set("c", 3, timeout=0)
    second.engine.set("another app's", 4)
    clock.advance(30)
    return [first, second]


def run(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(quickcache, arguments)


def read(app: Flask, *arguments: str) -> Any:
    result = run(app, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_stats(app: Flask, caches: list[Any]) -> None:
    """The figures of each cache of the app, as a table that says whose they are."""
    result = run(app, "stats")
    assert result.exit_code == 0
    assert "cache1: no location, scope memory, policy s3fifo" in result.output
    assert "cache2: second, scope memory, policy s3fifo" in result.output
    assert "50.0%" in result.output
    assert "this process" in result.output


def test_stats_as_json(app: Flask, caches: list[Any]) -> None:
    """The same for programs."""
    first, second = read(app, "stats")["aliases"]
    assert (first["alias"], first["location"], second["alias"], second["location"]) == (
        "cache1",
        "",
        "cache2",
        "second",
    )
    totals = first["totals"]
    assert (totals["hits"], totals["misses"], totals["gets"], totals["sets"]) == (1, 1, 2, 2)
    assert (totals["entries"], totals["max_entries"]) == (2, 7)
    assert len(first["workers"]) == 1


@pytest.mark.parametrize("name", ["cache2", "second"])
def test_one_cache_only(app: Flask, caches: list[Any], name: str) -> None:
    """--cache takes the name from the output or the location."""
    assert [alias["alias"] for alias in read(app, "stats", "--cache", name)["aliases"]] == ["cache2"]
    assert [alias["alias"] for alias in read(app, "keys", "--cache", name)["aliases"]] == ["cache2"]
    result = run(app, "clear", "--cache", name)
    assert result.output.startswith("cache2: 1 entry removed\n")
    assert caches[0].has("a")


def test_several_caches_by_name(app: Flask, caches: list[Any]) -> None:
    """--cache may be repeated."""
    names = [
        alias["alias"] for alias in read(app, "stats", "--cache", "second", "--cache", "cache1")["aliases"]
    ]
    assert names == ["cache1", "cache2"]


def test_keys(app: Flask, caches: list[Any]) -> None:
    """Live keys with the time left; of a shared store those of this app."""
    result = run(app, "keys")
    assert result.exit_code == 0
    lines = [line.split() for line in result.output.splitlines()]
    assert ["a", "0:01:00"] in lines
    assert ["app:c", "never"] in lines
    assert "another app's" not in result.output


def test_keys_as_json(app: Flask, caches: list[Any]) -> None:
    """The same for programs, cut by --prefix and --limit."""
    first, second = read(app, "keys")["aliases"]
    assert sorted(row["key"] for row in first["keys"]) == ["a", "b"]
    assert {row["ttl_s"] for row in first["keys"]} == {60.0}
    assert second["keys"] == [{"key": "app:c", "ttl_s": None}]
    assert read(app, "keys", "--prefix", "b", "--cache", "cache1")["aliases"][0]["keys"][0]["key"] == "b"
    cut = read(app, "keys", "--limit", "1")["aliases"][0]
    assert (len(cut["keys"]), cut["truncated"]) == (1, True)
    assert run(app, "keys", "--limit", "0").exit_code == 2


def test_clear(app: Flask, caches: list[Any]) -> None:
    """All caches are emptied; what other apps have in a shared store stays."""
    result = run(app, "clear")
    assert result.exit_code == 0
    assert result.output.startswith("cache1: 2 entries removed\ncache2: 1 entry removed\n")
    assert "this process" in result.output
    first, second = caches
    assert first.engine.size() == 0
    assert list(second.engine.keys()) == ["another app's"]


@pytest.mark.parametrize("command", ["stats", "keys", "clear"])
def test_app_without_quickcache(app: Flask, command: str) -> None:
    """An app without a QuickCache gets one line with the remedy, and exit code 1."""
    for _ in range(2):
        result = run(app, command)
        assert result.exit_code == 1
        assert result.output.startswith("Error: The app ")
        assert "CACHE_TYPE to 'quickcache_flask.QuickCache'" in result.output
        assert len(result.output.splitlines()) == 1
        Cache(app, config={"CACHE_TYPE": "SimpleCache"})


def test_without_flask_caching() -> None:
    """Where Flask-Caching is missing, Flask's command line works, and ours says what to install or to set."""
    code = """
import sys
sys.modules["flask_caching"] = None
from flask import Flask
from quickcache_flask.cli import quickcache
result = Flask("bare").test_cli_runner().invoke(quickcache, ["stats"])
assert result.exit_code == 1 and "CACHE_TYPE" in result.output, result.output
try:
    from quickcache_flask import QuickCache
except ImportError as error:
    assert "pip install 'quickcache-web[flask]'" in str(error), error
else:
    raise AssertionError
import quickcache_flask
assert not hasattr(quickcache_flask, "nothing")
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_unknown_cache(app: Flask, caches: list[Any]) -> None:
    """A name that no cache has gets the names there are."""
    result = run(app, "stats", "--cache", "cache3")
    assert result.exit_code == 1
    assert result.output == "Error: There is no cache 'cache3'; there are: cache1, cache2, second.\n"


def test_without_metrics(app: Flask, make_backend: Any) -> None:
    """A cache that keeps no figures doesn't stop the others from being shown."""
    make_backend(CACHE_QUICKCACHE_ENABLE_METRICS=False)
    assert run(app, "stats").exit_code == 0
