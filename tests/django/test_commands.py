from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import caches
from django.core.management import CommandError, call_command
from django.test import override_settings

from quickcache_core.testing import ManualClock

BACKEND = "quickcache_django.QuickCache"
FIGURES = [
    "hits",
    "misses",
    "hit_ratio",
    "gets",
    "sets",
    "entries",
    "max_entries",
    "evictions",
    "expirations",
    "deletions",
    "store_errors",
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
    assert worker.pop("uptime_s") > 0
    assert list(worker) == FIGURES
    assert worker == default["totals"]
    assert worker == {
        "hits": 2,
        "misses": 2,
        "hit_ratio": 0.5,
        "gets": 4,
        "sets": 5,
        "entries": 2,
        "max_entries": 3,
        "evictions": 1,
        "expirations": 1,
        "deletions": 1,
        "store_errors": 0,
    }
    assert pages["totals"]["hit_ratio"] is None
    assert str(os.getpid()) in report["notes"][0]


def test_stats_as_a_table(clock: ManualClock, location: str) -> None:
    """Figures for people, which say whose they are."""
    use(clock)
    text = run("quickcache_stats")
    assert f"default: {location} 1, scope memory, policy s3fifo" in text
    head, _, row = text.splitlines()[1:4]
    assert head.split()[:7] == ["pid", "uptime", "gets", "hits", "misses", "hit", "ratio"]
    assert head.split()[7:] == ["sets", "entries", "limit", "evicted", "expired", "deleted", "errors"]
    cells = row.replace(" s ", " ").split()
    assert cells[0] == str(os.getpid())
    assert cells[2:] == ["4", "2", "2", "50.0%", "5", "2", "3", "1", "1", "1", "0"]
    assert "Scope memory" in text
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
        {"key": ":1:a", "ttl_s": 9.0},
        {"key": ":1:b", "ttl_s": None},
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
    assert "Scope memory" in text
    assert len(caches["default"].engine) == 0
    assert caches["pages"].get("k") == 1
    assert "pages: 1 entry removed" in run("quickcache_clear")
    assert caches["pages"].get("k") is None
