"""What others put into the way of files: before a directory was closed to them, or in one above it."""

from __future__ import annotations

import errno
import logging
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import CacheLoadError, CacheSaveError, ConfigError, QuickCache, QuickCacheConfig

if sys.platform == "win32":
    pytest.skip("POSIX", allow_module_level=True)

from quickcache_core.metrics.board import board_at
from quickcache_core.metrics.ring import read_answer
from quickcache_core.metrics.runtime import RUNTIME_VARIABLE, figures_path, make_private

NOBODY = 65534
"""A user."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")


@pytest.fixture
def open_umask() -> Iterator[None]:
    """As daemons have it."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of ours that everybody may write to, so far. Not below pytest's, which every run of it
    closes to others again.
    """
    with tempfile.TemporaryDirectory(prefix="quickcache-tests-") as name:
        Path(name).chmod(0o755)
        directory = Path(name) / "open"
        directory.mkdir()
        directory.chmod(0o777)
        yield directory


def as_nobody(command: str, directory: Path) -> None:
    """A shell command of another user, in that directory."""
    subprocess.run(
        ["/bin/sh", "-ec", command], cwd=directory, user=NOBODY, group=NOBODY, extra_groups=[], check=True
    )


def shared(directory: Path, **settings: Any) -> QuickCache:
    settings = {"max_bytes": "2MB", "serializer": "json", **settings}
    return QuickCache(QuickCacheConfig(location=f"shared://{directory}", **settings))


# The directory of a shared cache

FILES = [
    "data.mdb",
    "lock.mdb",
    "stamps.bin",
    "refs.bin",
    "open.lock",
    "write.lock",
    "lease.lock",
    "about.json",
]
FILES += ["stats.bin", "data.mdb.about", "writes.db"]


@as_root
@pytest.mark.parametrize("name", FILES)
def test_file_of_somebody_else(place: Path, name: str) -> None:
    """Whoever could write into the directory once may have left a file to read all entries from, or to write
    them to. It isn't used, and the error says what to do; after that, all is well.
    """
    as_nobody(f"umask 0; : > {name}", place)
    place.chmod(0o700)
    with pytest.raises(ConfigError, match=rf"{name} in it belongs to user {NOBODY}.*remove"):
        shared(place)
    assert (place / name).stat().st_size == 0
    assert [one.name for one in place.iterdir()] == [name]
    (place / name).unlink()
    cache = shared(place)
    cache.set("k", 1)
    assert cache.get("k") == 1


@pytest.mark.parametrize("name", ["data.mdb", "stamps.bin", "open.lock", "about.json", "writes.db"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "directory", "writable"])
def test_file_of_another_kind(tmp_path: Path, name: str, kind: str) -> None:
    """Nor is anything used, followed, waited for or written to that is no file, or that others may write."""
    directory = tmp_path / "shared"
    directory.mkdir(mode=0o700)
    target, planted = tmp_path / "target", directory / name
    if kind.endswith("link"):
        planted.symlink_to(target)
        if kind == "link":
            target.write_text("contents")
    elif kind == "pipe":
        os.mkfifo(planted)
    elif kind == "directory":
        planted.mkdir()
    else:
        planted.touch()
        planted.chmod(0o666)
    with pytest.raises(ConfigError, match=rf"{name} in it is .*remove"):
        shared(directory)
    assert target.exists() == (kind == "link")
    assert kind != "link" or target.read_text() == "contents"
    assert [one.name for one in directory.iterdir()] == [name]


def test_link_in_place_of_the_locks(tmp_path: Path) -> None:
    """Locks have a directory of their own, which is looked at in the same way."""
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "shared").mkdir(mode=0o700)
    (tmp_path / "shared" / "locks").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="locks in it is a symbolic link"):
        shared(tmp_path / "shared")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_hard_link_to_a_file_of_ours(tmp_path: Path) -> None:
    """The description of the files is written to a new file, never into one that has the name already."""
    valuable, directory = tmp_path / "valuable", tmp_path / "shared"
    valuable.write_text("contents")
    valuable.chmod(0o600)
    directory.mkdir(mode=0o700)
    (directory / "data.mdb.about").hardlink_to(valuable)
    cache = shared(directory)
    cache.set("k", 1)
    assert cache.get("k") == 1
    assert valuable.read_text() == "contents"


@as_root
@pytest.mark.parametrize("sticky", [True, False])
def test_directory_made_by_somebody_else_first(place: Path, sticky: bool) -> None:
    """In a place that all can write to, such as /tmp: a directory that is there is its owner's."""
    place.chmod(0o1777 if sticky else 0o777)
    as_nobody("umask 0; mkdir shop", place)
    with pytest.raises(ConfigError, match=f"belongs to user {NOBODY}"):
        shared(place / "shop")
    as_nobody("rmdir shop; ln -s . shop", place)
    with pytest.raises(ConfigError, match="others may write"):
        shared(place / "shop")


@pytest.mark.usefixtures("open_umask")
def test_directories_above(tmp_path: Path) -> None:
    """Those that had to be made are closed, too, whatever the umask: others could replace the last."""
    shared(tmp_path / "a" / "b" / "cache").set("k", 1)
    make_private(tmp_path / "c" / "d" / "figures")
    QuickCache().save_to_disk(tmp_path / "e" / "f" / "snapshot")
    modes = {
        str(one.relative_to(tmp_path)): stat.S_IMODE(one.stat().st_mode)
        for one in tmp_path.rglob("*")
        if one.is_dir()
    }
    assert set(modes) >= {"a", "a/b", "a/b/cache", "c", "c/d", "c/d/figures", "e", "e/f"}
    assert set(modes.values()) == {0o700}, modes


# The runtime directory


@pytest.fixture
def figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the figures of caches called "shop" are to be; the directory is there."""
    monkeypatch.setenv(RUNTIME_VARIABLE, str(tmp_path / "run"))
    (tmp_path / "run").mkdir(mode=0o700)
    return figures_path("shop")


def counted() -> QuickCache:
    cache = QuickCache(QuickCacheConfig(publish_as="shop"))
    cache.set("k", 1)
    cache.publish()
    return cache


@pytest.mark.parametrize("kind", ["pipe", "directory", "writable", "somebody else's"])
def test_file_for_figures_of_another_kind(figures: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """No figures, no waiting, and the cache works on."""
    if kind == "pipe":
        os.mkfifo(figures)
    elif kind == "directory":
        figures.mkdir()
    else:
        figures.touch()
        figures.chmod(0o666 if kind == "writable" else 0o600)
        if kind != "writable":
            if os.geteuid() != 0:
                pytest.skip("only root can give a file away")
            os.chown(figures, NOBODY, NOBODY)
    before = figures.lstat()
    with caplog.at_level(logging.WARNING):
        cache = counted()
    assert cache.get("k") == 1
    assert len(caplog.records) == 1
    assert (figures.lstat().st_ino, figures.lstat().st_size) == (before.st_ino, before.st_size)
    with pytest.raises(OSError, match=r"."):
        board_at(figures).read()


def test_hard_link_to_a_file_of_ours_for_figures(figures: Path, tmp_path: Path) -> None:
    """It isn't written to: only its name in the directory changes."""
    valuable = tmp_path / "valuable"
    valuable.write_text("contents")
    valuable.chmod(0o600)
    figures.hardlink_to(valuable)
    cache = counted()
    assert valuable.read_text() == "contents"
    assert cache.get("k") == 1
    assert len(board_at(figures).read().workers) == 1


@as_root
def test_runtime_directory_that_is_replaced(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By somebody who may write to the one above: commands that are put there aren't obeyed."""
    monkeypatch.setenv(RUNTIME_VARIABLE, str(place / "run"))
    cache = counted()
    as_nobody("mv run gone; mkdir run; chmod 755 run", place)
    publisher: Any = cache._publisher
    publisher._board._checked_at = 0.0
    publisher._rate_since = 0.0
    with caplog.at_level(logging.WARNING):
        cache.publish()
        cache.set("k", 2)
        cache.publish()
    assert f"belongs to user {NOBODY}" in caplog.text
    assert cache.get("k") == 2
    assert list((place / "run").iterdir()) == []


def test_answer_that_is_a_pipe(tmp_path: Path) -> None:
    """Nobody waits for it."""
    os.mkfifo(tmp_path / "answer")
    assert read_answer(tmp_path / "answer") is None


# Snapshots


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "directory", "socket-like", "dangling link"])
def test_snapshot_to_load_that_is_no_file(tmp_path: Path, kind: str) -> None:
    """It is an error at once."""
    path = tmp_path / "snapshot.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a pipe":
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
    elif kind == "directory":
        path.mkdir()
    elif kind == "socket-like":
        path.symlink_to("/dev/zero")
    else:
        path.symlink_to(tmp_path / "nowhere")
    cache = QuickCache()
    cache.set("k", 1)
    with pytest.raises(CacheLoadError):
        cache.load_from_disk(path)
    assert cache.get("k") == 1


@pytest.mark.parametrize("kind", ["pipe", "hard link"])
def test_snapshot_saved_over_something_else(tmp_path: Path, kind: str) -> None:
    """The name gets the new file, and nothing is written into what had it."""
    path, valuable = tmp_path / "snapshot.json", tmp_path / "valuable"
    valuable.write_text("contents")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.hardlink_to(valuable)
    cache = QuickCache()
    cache.set("k", 1)
    cache.save_to_disk(path)
    assert path.is_file()
    assert path.stat().st_nlink == 1
    assert valuable.read_text() == "contents"


@as_root
def test_snapshot_saved_where_others_hold_the_name(place: Path) -> None:
    """In a place like /tmp, a name that somebody else has taken is theirs: an error, and nothing is left."""
    place.chmod(0o1777)
    as_nobody("umask 0; : > snapshot.json", place)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY - 1)
            os.setuid(NOBODY - 1)
            cache = QuickCache()
            cache.set("k", 1)
            try:
                cache.save_to_disk(place / "snapshot.json")
            except CacheSaveError as error:
                code = 0 if os.strerror(errno.EPERM) in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert [one.name for one in place.iterdir()] == ["snapshot.json"]
    assert (place / "snapshot.json").stat().st_size == 0


def test_time_that_is_none(tmp_path: Path, forge: Callable[..., Path]) -> None:
    """A snapshot says when it was saved; one of no time at all is damaged."""
    for created in (float("nan"), float("inf"), -float("inf"), 1e300, 253402300800.0):
        path = forge(created_at=created)
        cache = QuickCache()
        with pytest.raises(CacheLoadError, match="header is damaged"):
            cache.load_from_disk(path)
    assert QuickCache().load_from_disk(forge(created_at=time.time())) is None


@pytest.fixture
def forge(tmp_path: Path) -> Callable[..., Path]:
    """Makes a snapshot with right checksums, as anybody can."""
    import hashlib
    import json

    def make(**changes: Any) -> Path:
        payload = b'[["k",1,null]]'
        header = {
            "format": "quickcache-snapshot",
            "version": 1,
            "serializer": "json",
            "compression": None,
            "created_at": 1.0,
            "entries": 1,
            "length": len(payload),
            "raw_length": len(payload),
            "signature": None,
            **changes,
        }
        text = json.dumps(header, separators=(",", ":")).encode()
        header["sha256"] = hashlib.sha256(text + hashlib.sha256(payload).digest()).hexdigest()
        path = tmp_path / "forged.json"
        path.write_bytes(json.dumps(header, separators=(",", ":")).encode() + b"\n" + payload)
        return path

    return make
