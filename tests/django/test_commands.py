from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core import signals
from django.core.cache import caches
from django.core.management import CommandError, call_command
from django.db import close_old_connections
from django.test import AsyncClient, Client, override_settings

from quickcache_core.testing import ManualClock
from quickcache_django.conf import published_as

BACKEND = "quickcache_django.QuickCache"
FIGURES = [
    "hits",
    "misses",
    "hit_ratio",
    "gets",
    "sets",
    "ops_per_s",
    "entries",
    "max_entries",
    "bytes",
    "evictions",
    "expirations",
    "deletions",
    "failed_ops",
    "store_errors",
    "loads",
    "load_failures",
    "load_waits",
    "stale_hits",
]


@pytest.fixture(autouse=True)
def two_aliases(location: str, clock: ManualClock) -> Iterator[None]:
    entries = {
        "default": {
            "BACKEND": BACKEND,
            "LOCATION": f"{location} 1",
            "OPTIONS": {"MAX_ENTRIES": 3, "CLOCK": clock},
        },
        "pages": {
            "BACKEND": BACKEND,
            "LOCATION": f"{location} 2",
            "KEY_PREFIX": "p",
            "OPTIONS": {"EVICTION_POLICY": "lru", "CLOCK": clock},
        },
        "others": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    }
    with override_settings(CACHES=entries):
        yield


def run(*args: Any) -> str:
    out = io.StringIO()
    call_command(*args, stdout=out, no_color=True)
    return out.getvalue()


def use(clock: ManualClock) -> None:
    cache = caches["default"]
    cache.set("short", 1, 5)
    clock.advance(5)
    assert cache.get("short") is None
    cache.set_many({"a": 1, "b": 2, "c": 3})
    cache.set("d", 4)
    assert cache.get("d") == 4
    assert cache.get("d") == 4
    assert cache.get("missing") is None
    cache.delete("d")


def test_stats_as_json(clock: ManualClock, location: str) -> None:
    """Figures for programs: each alias with its workers and their totals."""
    use(clock)
    report = json.loads(run("quickcache_stats", "--json"))
    default, pages = report["aliases"]
    assert (default["alias"], default["location"], default["scope"]) == ("default", f"{location} 1", "memory")
    assert (default["policy"], pages["policy"], default["retired"]) == ("s3fifo", "lru", None)
    [worker] = default["workers"]
    assert worker.pop("pid") == os.getpid()
    assert worker.pop("host") == ""
    assert worker.pop("server")
    assert worker.pop("uptime_s") > 0
    assert list(worker) == FIGURES
    assert worker == default["totals"]
    assert worker == {
        "hits": 2,
        "misses": 2,
        "hit_ratio": 0.5,
        "gets": 4,
        "sets": 5,
        "ops_per_s": 0.0,
        "entries": 2,
        "max_entries": 3,
        "bytes": None,
        "evictions": 1,
        "expirations": 1,
        "deletions": 1,
        "failed_ops": 0,
        "store_errors": 0,
        "loads": 0,
        "load_failures": 0,
        "load_waits": 0,
        "stale_hits": 0,
    }
    assert pages["totals"]["hit_ratio"] is None
    assert str(os.getpid()) in report["notes"][0]


def test_stats_as_a_table(clock: ManualClock, location: str) -> None:
    """Figures for people, which say whose they are."""
    use(clock)
    text = run("quickcache_stats")
    assert f"default: {location} 1, scope memory, policy s3fifo" in text
    head, _, row = text.splitlines()[1:4]
    assert head.split()[:7] == ["pid", "server", "uptime", "hits", "misses", "hit", "ratio"]
    assert head.split()[7:] == [
        "ops/s",
        "sets",
        "entries",
        "limit",
        "evicted",
        "expired",
        "deleted",
        "errors",
    ]
    cells = row.replace(" s ", " ").split()
    assert cells[0] == str(os.getpid())
    assert cells[3:] == ["2", "2", "50.0%", "0", "5", "2", "3", "1", "1", "1", "0"]
    assert "publish_as" in text
    assert f"pid {os.getpid()}" in text


def test_aliases(location: str) -> None:
    """--alias chooses, may be repeated, and counts an alias once."""
    assert "pages:" not in run("quickcache_stats", "--alias", "default")
    both = run("quickcache_stats", "--alias", "pages", "--alias", "default", "--alias", "pages")
    assert both.index("pages:") < both.index("default:")
    assert both.count("pages:") == 1


@pytest.mark.parametrize("command", ["quickcache_stats", "quickcache_keys", "quickcache_clear"])
@pytest.mark.parametrize("alias", ["others", "nobody"])
def test_wrong_alias(command: str, alias: str) -> None:
    """An alias that doesn't exist or has another backend: an error that lists those that would do."""
    with pytest.raises(CommandError, match=rf"'{alias}'.*default, pages"):
        run(command, "--alias", alias)


@pytest.mark.parametrize("command", ["quickcache_stats", "quickcache_keys", "quickcache_clear"])
def test_no_alias_uses_the_backend(command: str) -> None:
    """An error that says what to write."""
    others = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    with (
        override_settings(CACHES=others),
        pytest.raises(CommandError, match=r"quickcache_django\.QuickCache"),
    ):
        run(command)


def test_keys_as_json(clock: ManualClock) -> None:
    """Stored keys with the seconds that they have left."""
    caches["default"].set("a", 1, 10)
    caches["default"].set("b", 1, None)
    caches["default"].set("gone", 1, 1)
    clock.advance(1)
    report = json.loads(run("quickcache_keys", "--json", "--alias", "default"))
    [alias] = report["aliases"]
    assert sorted(alias["keys"], key=lambda row: row["key"]) == [
        {"key": ":1:a", "ttl_s": 9.0, "pids": [os.getpid()]},
        {"key": ":1:b", "ttl_s": None, "pids": [os.getpid()]},
    ]
    assert alias["truncated"] is False


def test_keys_as_a_table() -> None:
    """For people; an alias without keys says so, and control characters don't reach the terminal."""
    engine = caches["default"].engine
    engine.set(":1:a", 1, 4000)
    engine.set(":1:\x1b[31mred", 1)
    text = run("quickcache_keys")
    assert ":1:a" in text
    assert "1:06:40" in text
    assert "\x1b" not in text
    assert ":1:\\x1b[31mred" in text
    assert "no keys" in text


def test_keys_by_prefix() -> None:
    """--prefix is about the keys as the application writes them, in the alias's own prefix and version."""
    caches["pages"].set_many({"user:1": 1, "user:2": 2, "other": 3})
    caches["pages"].set("user:3", 3, version=2)
    report = json.loads(run("quickcache_keys", "--json", "--alias", "pages", "--prefix", "user:"))
    assert sorted(row["key"] for row in report["aliases"][0]["keys"]) == ["p:1:user:1", "p:1:user:2"]


def test_keys_limit() -> None:
    """--limit bounds the list, and says so when there are more."""
    caches["pages"].set_many({f"k{number}": number for number in range(5)})
    for limit, truncated in ((4, True), (5, False)):
        report = json.loads(run("quickcache_keys", "--json", "--alias", "pages", "--limit", str(limit)))
        assert (len(report["aliases"][0]["keys"]), report["aliases"][0]["truncated"]) == (limit, truncated)
    assert "only the first 4 are shown" in run("quickcache_keys", "--limit", "4")
    for wrong in ("0", "-1", "x"):
        with pytest.raises(CommandError, match="whole number above 0"):
            run("quickcache_keys", f"--limit={wrong}")


def test_clear() -> None:
    """Removes all entries of the aliases asked for, and says how many."""
    caches["default"].set_many({"a": 1, "b": 2})
    caches["pages"].set("k", 1)
    text = run("quickcache_clear", "--alias", "default")
    assert "default: 2 entries removed" in text
    assert f"Only this process (pid {os.getpid()})" in text
    assert len(caches["default"].engine) == 0
    assert caches["pages"].get("k") == 1
    assert "pages: 1 entry removed" in run("quickcache_clear")
    assert caches["pages"].get("k") is None


def published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, location: str, **options: Any) -> Any:
    """The alias `default` as settings in a module would have it, in a runtime directory of its own."""
    monkeypatch.setenv("QUICKCACHE_RUNTIME_DIR", str(tmp_path / "run"))
    options = {"PUBLISH_AS": "shop", **options}
    return {"default": {"BACKEND": BACKEND, "LOCATION": f"{location} published", "OPTIONS": options}}


def test_called_by_a_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, location: str) -> None:
    """`call_command` counts the process that calls in, with what it has counted up to now."""
    with override_settings(CACHES=published(monkeypatch, tmp_path, location)):
        caches["default"].set("k", 1)
        report = json.loads(run("quickcache_stats", "--json"))
        [worker] = report["aliases"][0]["workers"]
        assert (worker["pid"], worker["sets"], report["notes"]) == (os.getpid(), 1, [])
        assert "1 of 1" in run("quickcache_keys")
        assert run("quickcache_clear", "--prefix", "no such") == "default: cleared in 1 worker\n"
        assert caches["default"].get("k") == 1
        run("quickcache_clear")
        assert caches["default"].get("k") is None


def test_end_of_a_request_publishes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, location: str) -> None:
    """Django closes its caches then; a cache with wrong settings doesn't mind."""
    entries = published(monkeypatch, tmp_path, location)
    entries["wrong"] = {"BACKEND": BACKEND, "TIMEOUT": "x"}
    with override_settings(CACHES=entries):
        caches["default"].set("k", 1)
        caches["wrong"].close()
        control = caches["default"].engine.control
        board = control._publisher.board
        assert board.read().workers == ()
        signals.request_finished.disconnect(close_old_connections)
        try:
            signals.request_finished.send(sender=None)
        finally:
            signals.request_finished.connect(close_old_connections)
        assert [worker.figures.sets for worker in board.read().workers] == [1]


@pytest.mark.parametrize("is_async", [False, True], ids=["wsgi", "asgi"])
def test_requests_publish(
    is_async: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, location: str
) -> None:
    """When a response has been sent, its request's counts can be seen by others."""
    with override_settings(CACHES=published(monkeypatch, tmp_path, location)):
        control = caches["default"].engine.control
        if is_async:
            asyncio.run(AsyncClient().get("/answer/"))
        else:
            Client().get("/page/")
        [worker] = control._publisher.board.read().workers
        assert worker.figures.sets == caches["default"].engine.metrics().sets > 0


def test_unusable_runtime_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, location: str) -> None:
    """The commands show this process's own cache, and say why and what to do."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    with override_settings(CACHES=published(monkeypatch, tmp_path, location)):
        caches["default"].set("k", 1)
        for command in ("quickcache_stats", "quickcache_keys", "quickcache_clear"):
            text = run(command)
            assert f"Only this process (pid {os.getpid()})" in text
            assert "chmod go=" in text
        assert "default: 0 entries removed" in run("quickcache_clear")


def test_names_for_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Workers and commands of a project have the file of the settings in common, not the way to it."""
    for name in ("real", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "shop_settings.py").touch()
    (tmp_path / "current").symlink_to(tmp_path / "real")
    names = []
    for folder in ("real", "current", "other"):
        module = type(sys)("shop_settings")
        module.__file__ = str(tmp_path / folder / "shop_settings.py")
        monkeypatch.setitem(sys.modules, "shop_settings", module)
        monkeypatch.setattr("quickcache_django.conf.django_settings", SettingsOf("shop_settings"))
        names.append(published_as("memory://a"))
        assert published_as("memory://b") != names[-1]
    assert names[0] == names[1] != names[2]
    monkeypatch.delitem(sys.modules, "shop_settings")
    assert published_as("memory://a") == "django shop_settings memory://a"
    monkeypatch.setattr("quickcache_django.conf.django_settings", SettingsOf(None))
    assert published_as("memory://a") is None


class SettingsOf:
    """Settings of that module."""

    def __init__(self, module: str | None) -> None:
        self.SETTINGS_MODULE = module


def test_prometheus_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error with what to install."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(CommandError, match=r"pip install 'quickcache-web\[prometheus\]'"):
        run("quickcache_stats", "--prometheus")


@pytest.mark.parametrize("rich", [True, False], ids=["no terminal", "no rich"])
def test_watch_as_text(rich: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be drawn in place, one block after the other."""
    if not rich:
        monkeypatch.setitem(sys.modules, "rich", None)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    text = run("quickcache_stats", "--watch", "0.05", "--count", "2", "--alias", "pages")
    assert text.count("scope memory, policy lru") == 2


def test_watch_until_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is how it ends, not an error."""

    def interrupt(seconds: float) -> None:
        assert seconds == 2.0
        raise KeyboardInterrupt

    monkeypatch.setattr("quickcache_core.metrics.watch.time.sleep", interrupt)
    assert run("quickcache_stats", "--watch").count("pages:") == 1


@pytest.mark.parametrize(
    "wrong",
    [
        ["--json", "--watch"],
        ["--json", "--prometheus"],
        ["--watch", "0"],
        ["--watch", "soon"],
        ["--watch", "1e9"],
        ["--watch", "--count", "0"],
    ],
    ids=" ".join,
)
def test_wrong_options_of_stats(wrong: list[str]) -> None:
    """Refused before anything is shown."""
    with pytest.raises(CommandError):
        run("quickcache_stats", *wrong)
