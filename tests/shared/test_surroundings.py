"""Directories that can't be written, that vanish, that others use: modes, `rm -rf`, namespaces, boots."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.shared.checks import errors, eventually, works
from tests.shared.remote import Failed, Remote, Template

pytestmark = pytest.mark.slow

Start = Callable[..., Remote]

SCENES = "tests.shared.scenes"

NOBODY = 65534
"""A user."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")


@pytest.mark.parametrize(
    ("operation", "args"),
    [
        ("set", ["k", "old"]),
        ("set", ["k", "old", 60]),
        ("set_many", [{"k": "old"}]),
        ("add", ["k", "old"]),
        ("update", ["there", "old"]),
        ("incr", ["number"]),
        ("delete", ["there"]),
    ],
)
def test_directory_replaced_in_the_middle_of_a_write(start: Start, operation: str, args: list[Any]) -> None:
    """What was written to the old files isn't taken for what is in the new ones, however young these are."""
    writer = start()
    for n in range(20):
        writer.set("there", n)  # the transactions of the old files have higher numbers
    writer.set("number", 1)
    writer.do("run", f"{SCENES}:replace_files_within", operation, args)
    other = start()
    for key in ("k", "there", "number"):
        assert writer.get(key, "gone") == "gone"
        other.set(key, "new")
        assert writer.get(key) == "new"


# Modes


@pytest.fixture
def open_place() -> Iterator[Path]:
    """Which another user can enter, too. Not below pytest's, which every run of it closes to others again."""
    with tempfile.TemporaryDirectory(prefix="quickcache-tests-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
def user(template: Template) -> Iterator[Callable[[], Remote]]:
    """Processes that the modes of files mean something to."""
    started: list[Remote] = []

    def one() -> Remote:
        started.append(remote := Remote(template, None))
        if os.geteuid() == 0:
            remote.do("become", NOBODY)
        return remote

    yield one
    for remote in started:
        remote.close()


@pytest.fixture
def theirs(open_place: Path) -> Path:
    """A directory that belongs to that user."""
    path = open_place / "theirs"
    path.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    return path


def test_directory_that_can_not_be_written(user: Callable[[], Remote], theirs: Path) -> None:
    """An error at the start that names it; or a cache that is out of order, and no error in a request."""
    theirs.chmod(0o500)
    remote = user()
    try:
        remote.do("open", str(theirs / "cache"), {})
    except Failed as failed:
        assert failed.name == "ConfigError"  # noqa: PT017
        assert str(theirs) in failed.text  # noqa: PT017
        return
    assert remote.get("k", "nothing") == "nothing"
    remote.set("k", 1)
    assert str(theirs) in remote.log()
    theirs.chmod(0o700)
    eventually(lambda: remote.set("k", 1) is None and remote.get("k", 0) == 1)


def test_modes_taken_away_while_running(user: Callable[[], Remote], theirs: Path) -> None:
    """`chmod 000` while it runs: no request fails, and it works again afterwards."""
    directory = theirs / "cache"
    remote, second = user(), user()
    for one in (remote, second):
        one.do("open", str(directory), {})
    remote.set("k", 1)
    directory.chmod(0o000)
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        for one in (remote, second):
            one.get("k", 0)
            one.set("k", 2)
            one.delete("other", missing_ok=True)
            one.incr("n", initial=0)
        time.sleep(0.02)
    directory.chmod(0o700)
    eventually(lambda: remote.set("k", 3) is None and remote.get("k", 0) == second.get("k", 0) == 3)
    works(remote, second)


@as_root
def test_directory_of_another_user(user: Callable[[], Remote], start: Start, open_place: Path) -> None:
    """Refused, with the users in the message: an owner could make whoever reads it run code."""
    directory = open_place / "cache"
    start(directory).set("k", 1)
    directory.chmod(0o755)
    with pytest.raises(Failed, match="ConfigError") as failed:
        user().do("open", str(directory), {})
    assert str(NOBODY) in failed.value.text


def test_files_are_private(start: Start, directory: Path) -> None:
    """Nobody else can read what is cached, whatever the umask."""
    remote = start(None)
    remote.do("run", "tests.shared.scenes:umask", 0)
    remote.do("open", str(directory), {})
    remote.set("k", 1)
    assert directory.stat().st_mode & 0o777 == 0o700
    for path in directory.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


# Removed


@pytest.mark.parametrize("near_only", [True, False], ids=["near-hits-only", "reads-and-writes"])
def test_removed_while_running(start: Start, directory: Path, near_only: bool) -> None:
    """After `rm -rf` all processes soon see one new cache, and no request ever fails."""
    remotes = [start() for _ in range(3)]
    for remote in remotes:
        remote.set("k", "old")
        remote.get("k")
    shutil.rmtree(directory)

    def all_are_there() -> bool:
        for remote in remotes if not near_only else []:
            remote.incr("n", initial=0)
        return all(remote.get("k", "gone") == "gone" for remote in remotes)

    eventually(all_are_there)
    works(*remotes)
    works(*remotes, start())
    assert (directory / "data.mdb").exists()
    for remote in remotes:
        # A write may find another process busy with the new files.
        assert errors(remote) <= 2, remote.log()


def test_removed_again_and_again(start: Start, directory: Path) -> None:
    """In the middle of everything: no request fails, nothing hangs, and in the end there is one cache."""
    remotes = [start() for _ in range(3)]
    for remote in remotes:
        remote.ask("run", "tests.shared.scenes:use_for", 4.0)
    for _ in range(12):
        time.sleep(0.3)
        shutil.rmtree(directory, ignore_errors=True)
    for remote in remotes:
        assert remote.answer() == [], remote.log()
    # Until each has looked again they may agree on files that are gone.
    time.sleep(1.1)
    eventually(lambda: remotes[0].set("k", 1) is None and all(one.get("k", 0) == 1 for one in remotes))
    works(*remotes)
    leaks = [len(remote.do("run", "tests.shared.scenes:descriptors")) for remote in remotes]
    assert max(leaks) < 100


@pytest.mark.parametrize(
    "file",
    [
        "data.mdb",
        "lock.mdb",
        "stamps.bin",
        "refs.bin",
        "write.lock",
        "open.lock",
        "lease.lock",
    ],
)
def test_one_file_removed_while_running(start: Start, directory: Path, file: str) -> None:
    """Also when only one of them goes: no request fails, and all agree again."""
    remotes = [start() for _ in range(2)]
    remotes[0].set("k", 0)
    remotes[1].get("k")
    (directory / file).unlink()
    values = iter(range(1, 10_000))

    def agree() -> bool:
        n = next(values)
        remotes[n % 2].set("k", n)
        remotes[n % 2].delete("other", missing_ok=True)
        return all(one.get("k", "gone") == n for one in remotes)

    eventually(agree, 5.0)
    newcomer = start()
    remotes.append(newcomer)
    eventually(lambda: all(agree_on(remotes, next(values)) for _ in range(5)), 5.0)
    works(*remotes)


def agree_on(remotes: list[Remote], n: int) -> bool:
    remotes[n % len(remotes)].set("k", n)
    return all(one.get("k", "gone") == n for one in remotes)


# Namespaces and boots


@pytest.fixture
def namespaced(template: Template) -> Iterator[Callable[[], Remote]]:
    """Start processes in PID namespaces of their own."""
    command = ("unshare", "-Upf", "--mount-proc", "--kill-child")
    if not shutil.which("unshare") or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("no PID namespaces can be made here")
    started: list[Remote] = []

    def one() -> Remote:
        started.append(remote := Remote(template, None, command=command))
        return remote

    yield one
    for remote in started:
        remote.pid = remote._group  # its own idea of its id means nothing here
        remote.close()


def test_two_pid_namespaces(start: Start, namespaced: Callable[[], Remote], directory: Path) -> None:
    """Refused while a process of another namespace has it open, with what to do; fine once that is gone."""
    outside = start()
    outside.set("k", 1)
    inside = namespaced()
    with pytest.raises(Failed, match="ConfigError") as failed:
        inside.do("open", str(directory), {})
    assert "namespace" in failed.value.text
    works(outside)
    outside.kill()
    inside.do("open", str(directory), {})
    assert inside.get("k") == 1
    with pytest.raises(Failed, match="namespace"):
        start()
    works(inside)


def test_boot(start: Start, directory: Path) -> None:
    """After the system was started anew the cache is empty: what was not synced may be torn."""
    before = start()
    before.set("k", 1)
    before.kill()
    about = directory / "about.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "boot": "another"}))
    remote = start()
    assert remote.get("k", "gone") == "gone"
    works(remote)


def test_boot_id_while_in_use(start: Start, directory: Path) -> None:
    """Users prove that the content is of this boot."""
    user = start()
    user.set("k", 1)
    about = directory / "about.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "boot": "another"}))
    assert start().get("k") == 1
    works(user)
