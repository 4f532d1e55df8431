"""What the command `check` finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import QuickCache, QuickCacheConfig
from quickcache_core.commands.check import (
    CheckedAlias,
    broken_alias,
    check_alias,
    check_lines,
    problems,
)
from quickcache_core.commands.check_directory import look as look_at_directory
from quickcache_core.commands.check_server import look as look_at_server
from quickcache_core.config import FIELDS
from quickcache_core.location import read_location
from quickcache_core.store.shared.opening import shared_stores
from quickcache_core.store.shared.store import SharedStore
from tests.redis.servers import RedisServer

SECRET = "a secret of some length"
Make = Callable[..., QuickCache]
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="scopes shared and redis are tried there")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def make(directory: Path) -> Iterator[Make]:
    """Makes a cache in the directory."""
    made: list[QuickCache] = []

    def build(**settings: Any) -> QuickCache:
        settings = {"max_bytes": "4MB", "secret": SECRET, "location": f"shared://{directory}", **settings}
        made.append(QuickCache(QuickCacheConfig(**settings)))
        return made[-1]

    yield build
    for cache in made:
        if isinstance(cache._bottom, SharedStore):
            cache._bottom.table.connection.close()
    shared_stores.forget()


def checked(cache: QuickCache, sources: dict[str, str] | None = None) -> CheckedAlias:
    return check_alias("default", cache, sources or {}, str.upper)


def found(alias: CheckedAlias, about: str) -> list[tuple[str, str]]:
    return [(one["level"], one["says"]) for one in alias["findings"] if one["about"] == about]


def levels(alias: CheckedAlias) -> set[str]:
    return {one["level"] for one in alias["findings"]}


def test_scope_memory() -> None:
    """An entry is stored, read and deleted; nothing of it stays."""
    cache = QuickCache()
    alias = checked(cache)
    assert levels(alias) == {"ok"}
    assert found(alias, "round trip") == [("ok", "an entry was stored, read and deleted")]
    assert cache.size() == 0


def test_cache_that_is_switched_off() -> None:
    """That is no error, but worth knowing."""
    alias = checked(QuickCache(QuickCacheConfig(enabled=False)))
    assert levels(alias) == {"ok", "warning"}
    assert problems({"aliases": [alias]}) == 0


def test_environment_that_switches_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in force is shown, and where it comes from."""
    monkeypatch.setenv("QUICKCACHE_DISABLED", "1")
    alias = checked(QuickCache())
    [row] = [row for row in alias["options"] if row["name"] == "ENABLED"]
    assert (row["value"], row["source"]) == ("False", "environment variable QUICKCACHE_DISABLED")


def test_every_option() -> None:
    """With its value and where it was set; secrets never, wherever they may be."""
    hidden = "the very secret text"
    cache = QuickCache(
        QuickCacheConfig(
            max_size=5,
            secret=lambda: hidden,
            secret_fallbacks=[hidden + "1", hidden + "2"],
            redis_options={"password": hidden},
        )
    )
    alias = checked(cache, {"max_size": "settings.py"})
    rows = {row["name"]: row for row in alias["options"]}
    assert list(rows) == [name.upper() for name in FIELDS]
    assert (rows["MAX_SIZE"]["value"], rows["MAX_SIZE"]["source"]) == ("5", "settings.py")
    assert rows["NEAR_SIZE"]["source"] == "default"
    assert rows["SECRET"]["value"] == "(not shown)"
    assert rows["SECRET_FALLBACKS"]["value"] == "(2, not shown)"
    assert rows["REDIS_OPTIONS"]["value"] == "password=(not shown)"
    assert hidden not in json.dumps(alias)
    assert not [row for row in alias["options"] if " at 0x" in row["value"]]
    [unset] = [row for row in checked(QuickCache())["options"] if row["name"] == "SECRET"]
    assert unset["value"] == "None"


def test_secret_that_cannot_be_had() -> None:
    """Its function fails: the rest is shown all the same, without the words of the error."""

    def fail() -> str:
        raise RuntimeError("password")

    rows = {
        row["name"]: row["value"] for row in checked(QuickCache(QuickCacheConfig(secret=fail)))["options"]
    }
    assert rows["SECRET"] == "(RuntimeError)"


def test_for_people() -> None:
    """One line each, and how many problems there are."""
    text = "\n".join(
        check_lines({"aliases": [checked(QuickCache()), broken_alias("b", "x", ["A is wrong"])]})
    )
    assert "default: no location, scope memory" in text
    assert "    MAX_SIZE " in text
    assert "  error    settings: A is wrong" in text
    assert text.endswith("1 problem.")
    assert "\n".join(check_lines({"aliases": []})).endswith("No problems.")


@linux_only
class TestDirectory:
    def test_all_is_well(self, make: Make, directory: Path) -> None:
        """Owner, rights, format, files, room, readers, round trip."""
        cache = make()
        alias = checked(cache)
        assert levels(alias) == {"ok"}, alias
        assert found(alias, "mode") == [("ok", "0700")]
        assert found(alias, "format")[0][1] == "2"
        assert "data.mdb 4 MB" in found(alias, "files")[0][1]
        assert found(alias, "room")[0][1].startswith("4 MB for the entries")
        assert "0 other processes" in found(alias, "readers")[0][1]
        assert cache.size() == 0

    def test_what_others_may_do(self, make: Make, directory: Path) -> None:
        """Names that can be seen are worth a warning, files that can be read too, what can be changed is an
        error.
        """
        cache = make()
        directory.chmod(0o755)
        (directory / "data.mdb").chmod(0o644)
        alias = checked(cache)
        assert found(alias, "mode")[0][0] == "warning"
        assert found(alias, "files")[1] == ("warning", "others may read data.mdb; chmod 600 them")
        directory.chmod(0o770)
        [(level, says)] = found(checked(cache), "mode")
        assert (level, f"chmod 700 {directory}" in says) == ("error", True)

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="takes root to give away")
    def test_somebody_elses(self, make: Make, directory: Path) -> None:
        """The command has to run as the user that the server runs as."""
        cache = make()
        os.chown(directory, 12345, -1)
        [(level, says)] = found(checked(cache), "owner")
        assert (level, "12345" in says) == ("error", True)

    def test_other_processes(self, make: Make, directory: Path) -> None:
        """Those that have it open are counted."""
        cache = make()
        code = (
            "import sys; from quickcache_core import QuickCache, QuickCacheConfig\n"
            f"cache = QuickCache(QuickCacheConfig(location='shared://{directory}', max_bytes='4MB'))\n"
            "cache.set('k', 1); cache.namespace('n').get('k', None); list(cache); print(1, flush=True)\n"
            "sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"1\n"
            assert "1 other process," in found(checked(cache), "readers")[0][1]
            assert other.stdin is not None
            other.stdin.close()

    def test_what_was_damaged(self, make: Make, directory: Path) -> None:
        """A file that was set aside is mentioned."""
        cache = make()
        (directory / "data.mdb.broken-20260101-000000").touch(0o600)
        assert ("warning", "delete it") in [
            (level, "delete it" if "delete it" in says else says)
            for level, says in found(checked(cache), "files")
        ]

    def test_files_that_cannot_be_opened(self, make: Make, directory: Path) -> None:
        """Said with the reason, and the round trip fails too rather than missing."""
        cache = make()
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()
        directory.touch()
        store = cache._bottom
        assert isinstance(store, SharedStore)
        store.table.connection._next_look = 0.0  # a second later
        alias = checked(cache)
        assert "error" in levels(alias)
        assert found(alias, "round trip")[0][0] == "error"
        directory.unlink()

    def test_room(self, make: Make, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Room that isn't taken, and that the disk doesn't have, will be missed one day."""
        cache = make()
        with (directory / "data.mdb").open("r+b") as file:
            file.truncate(16_384)
            file.truncate(4_000_000)
        real = os.statvfs

        def full(path: Any) -> os.statvfs_result:
            figures = list(real(path))
            figures[4] = 1  # blocks that are free for users
            return os.statvfs_result(figures)

        monkeypatch.setattr(os, "statvfs", full)
        location = read_location(cache.config.location)
        levels_of_disk = [
            one["level"] for one in look_at_directory(cache, location) if one["about"] == "disk"
        ]
        assert levels_of_disk == ["warning", "warning"]


@linux_only
class TestServer:
    @staticmethod
    def look(url: str, **options: Any) -> dict[str, tuple[str, str]]:
        # A store in memory: what is looked at is the server of the address.
        cache = QuickCache(QuickCacheConfig(redis_options=options))
        return {
            one["about"]: (one["level"], one["says"]) for one in look_at_server(cache, read_location(url))
        }

    def test_version_and_memory(self) -> None:
        """Which server it is, and what becomes of it when it is full."""
        with RedisServer() as server:
            found = self.look(server.url)
            assert found["server"][0] == "ok"
            assert found["server"][1].startswith("Valkey ")
            assert "standalone" in found["server"][1]
            assert found["memory"][0] == "warning"
        with RedisServer("--maxmemory", "50mb", "--maxmemory-policy", "noeviction") as server:
            assert "noeviction" in self.look(server.url)["memory"][1]
        with RedisServer("--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru") as server:
            assert self.look(server.url)["memory"][0] == "ok"

    def test_nobody_there(self) -> None:
        """Which address it is, without a password."""
        found = self.look("redis://:secret-word@127.0.0.1:1/0", socket_connect_timeout=0.5)
        level, says = found["server"]
        assert (level, "127.0.0.1:1" in says, "secret-word" in says) == ("error", True, False)
