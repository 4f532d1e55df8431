"""`flask quickcache`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from flask_caching import Cache

from quickcache_core.store.named import named_stores
from quickcache_core.testing import ManualClock
from quickcache_flask.cli import quickcache
from quickcache_flask.conf import published_as


@pytest.fixture(autouse=True)
def _nobody_elses_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is alone in its runtime directory, with stores of its own."""
    monkeypatch.setenv("QUICKCACHE_RUNTIME_DIR", str(tmp_path / "run"))
    named_stores.forget()


@pytest.fixture
def caches(make_backend: Any, clock: ManualClock) -> list[Any]:
    """cache1 has a store of its own, cache2 one by the name of "second"."""
    first = make_backend(CACHE_THRESHOLD=7)
    second = make_backend(CACHE_OPTIONS={"location": "second"}, CACHE_KEY_PREFIX="app:")
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
    """The figures of each cache of the app, as a table with a row for each worker, here the calling one."""
    result = run(app, "stats")
    assert result.exit_code == 0
    assert "cache1: no location, scope memory, policy s3fifo" in result.output
    assert "cache2: second, scope memory, policy s3fifo" in result.output
    assert "50.0%" in result.output
    rows = [line.split() for line in result.output.splitlines() if line]
    assert [row[0] for row in rows].count(str(os.getpid())) == 2


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
    assert result.output == "cache2: cleared in 1 worker\n"
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
    assert ["a", "0:01:00", "1", "of", "1"] in lines
    assert ["app:c", "never", "1", "of", "1"] in lines
    assert "another app's" not in result.output


def test_keys_as_json(app: Flask, caches: list[Any]) -> None:
    """The same for programs, cut by --prefix and --limit."""
    first, second = read(app, "keys")["aliases"]
    assert sorted(row["key"] for row in first["keys"]) == ["a", "b"]
    assert {row["ttl_s"] for row in first["keys"]} == {60.0}
    assert second["keys"] == [{"key": "app:c", "ttl_s": None, "pids": [os.getpid()]}]
    assert read(app, "keys", "--prefix", "b", "--cache", "cache1")["aliases"][0]["keys"][0]["key"] == "b"
    cut = read(app, "keys", "--limit", "1")["aliases"][0]
    assert (len(cut["keys"]), cut["truncated"]) == (1, True)
    assert run(app, "keys", "--limit", "0").exit_code == 2


def test_clear(app: Flask, caches: list[Any]) -> None:
    """All caches are emptied; what other apps have in a shared store stays."""
    result = run(app, "clear")
    assert result.exit_code == 0
    assert result.output == "cache1: cleared in 1 worker\ncache2: cleared in 1 worker\n"
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


def test_end_of_a_request_publishes(app: Flask, make_backend: Any) -> None:
    """For each cache of the app, also for one that is made when the app is serving already."""
    early = make_backend()
    app.add_url_rule("/", view_func=lambda: str(early.add("k", 1)))
    app.test_client().get("/")
    assert figures(early) == [1]
    late = make_backend()
    late.set("k", 1)
    assert figures(late) == []
    app.test_client().get("/")
    assert figures(late) == [1]


def figures(backend: Any) -> list[int]:
    """Values stored, as other processes see it."""
    reading = backend.engine.control._publisher.board.read()
    return [worker.figures.sets for worker in reading.workers]


def test_names_for_commands(tmp_path: Path) -> None:
    """Workers and commands of an app have its name, its folder, and the order of its caches in common, not
    the way it was started.
    """
    started, imported = Flask("shop", root_path=str(tmp_path)), Flask("shop", root_path=f"{tmp_path}/./")
    assert published_as(started, "", 1) == published_as(imported, "", 1)
    assert published_as(started, "", 1) != published_as(started, "", 2)
    assert published_as(started, "a", 1) == published_as(started, "memory://a", 2)
    assert published_as(started, "a", 1) != published_as(Flask("shop2", root_path=str(tmp_path)), "a", 1)


def test_caches_in_their_order(app: Flask, make_backend: Any) -> None:
    """Each unnamed cache has a name of its own, which the next process gives it again."""
    names = [make_backend().engine.config.publish_as for _ in range(2)]
    assert len(set(names)) == 2
    again = Flask(app.import_name)
    for name in names:
        cache = Cache(again, config={"CACHE_TYPE": "quickcache_flask.QuickCache"})
        assert again.extensions["cache"][cache].engine.config.publish_as == name


@pytest.mark.parametrize(
    "wrong",
    [["--json", "--watch"], ["--json", "--prometheus"], ["--watch", "0"], ["--watch", "soon"]],
    ids=" ".join,
)
def test_wrong_options_of_stats(app: Flask, caches: list[Any], wrong: list[str]) -> None:
    """Refused before anything is shown."""
    assert run(app, "stats", *wrong).exit_code == 2


def test_watch(app: Flask, caches: list[Any]) -> None:
    """One block after the other, where there is no terminal."""
    result = run(app, "stats", "--watch", "0.05", "--count", "2")
    assert result.output.count("cache1: no location") == 2


def test_prometheus_without_its_library(
    app: Flask, caches: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error with what to install."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    result = run(app, "stats", "--prometheus")
    assert result.exit_code == 1
    assert "pip install 'quickcache-web[prometheus]'" in result.output


def test_prefix_that_is_too_long(app: Flask, caches: list[Any]) -> None:
    """One line that says how long it may be."""
    for command in ("keys", "clear"):
        result = run(app, command, "--prefix", "x" * 600)
        assert result.exit_code == 1
        assert "give a shorter one" in result.output
