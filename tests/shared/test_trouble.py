"""Full maps and disks, damaged and foreign files."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from quickcache_core.store.shared.environment import open_environment
from tests.shared.checks import errors, eventually, works
from tests.shared.remote import MAP, Failed, Remote, Template

pytestmark = pytest.mark.slow

Start = Callable[..., Remote]
SCENES = "tests.shared.scenes"


# Full


@pytest.mark.parametrize(
    ("sizes", "size"),
    [
        ([100], 1_000_000),
        ([3_000, 70_000], 8_000_000),
        ([1_000_000], 32_000_000),
        ([10, 900, 40_000, 300_000, 1_000_000], 32_000_000),
    ],
    ids=["small", "middling", "1-MB", "mixed"],
)
def test_map_full(start: Start, sizes: list[int], size: int) -> None:
    """Values of any size up to 1 MB, several times what fits: no error, and no wrong value."""
    bounds = {"max_bytes": size, "max_size": 10_000_000}
    writer, reader = start(**bounds), start(**bounds)
    for remote in (writer, reader):
        answer = remote.do("run", "tests.shared.scenes:fill_up", sizes, 3 * size)
        assert answer == {"errors": 0, "wrong": 0}, remote.log()
        assert "cleared" not in remote.log()
    assert 0 < writer.size() == reader.size()
    works(writer, reader)
    assert errors(writer) == errors(reader) == 0


def test_value_that_never_fits(start: Start) -> None:
    """It is refused with what to do, and an older value doesn't stay in its place."""
    remote = start()
    remote.set("k", "old")
    with pytest.raises(Failed) as failed:
        remote.set("k", "x" * MAP)
    assert "max_bytes" in failed.value.text
    works(remote)


@pytest.mark.parametrize("free", [7_500_000, 5_500_000, 2_000_000, 700_000, 100_000, 0])
def test_disk_full_at_the_start(start: Start, small_disk: Path, free: int) -> None:
    """Too small for the map: an error with the sizes, or it works with what there is. No SIGBUS."""
    taken = small_disk / "taken"
    taken.write_bytes(b"x" * (8 * 1024 * 1024 - free))
    for n in range(2):
        remote = start(None)
        try:
            remote.do("open", str(small_disk / "cache"), {"max_bytes": 4_000_000})
        except Failed as failed:
            assert failed.name == "ConfigError"  # noqa: PT017
            assert "max_bytes" in failed.text  # noqa: PT017
            continue
        assert remote.do("run", "tests.shared.scenes:fill_up", [100, 3_000, 40_000], 6_000_000)["errors"] == 0
        remote.set(f"k{n}", 1)
        if free >= 5_500_000:
            works(remote)
            assert errors(remote) == 0, remote.log()
    taken.unlink()
    remote = start(small_disk / "cache")
    eventually(lambda: remote.set("k", 1) is None and remote.get("k", 0) == 1)
    works(remote)


def test_disk_fills_up_later(start: Start, small_disk: Path) -> None:
    """The room was taken at the start: others can't take it away."""
    remote = start(small_disk / "cache")
    left = shutil.disk_usage(small_disk).free
    (small_disk / "taken").write_bytes(b"x" * left)
    assert shutil.disk_usage(small_disk).free == 0
    assert remote.do("run", "tests.shared.scenes:fill_up", [100, 3_000, 40_000], 10_000_000) == {
        "errors": 0,
        "wrong": 0,
    }
    works(remote)
    assert errors(remote) == 0


@pytest.mark.parametrize("where", ["environment:_used", "environment:allocate"])
def test_start_while_another_writes_without_room(start: Start, small_disk: Path, where: str) -> None:
    """Who starts neither takes what others write meanwhile for damage, nor cuts it off with the room that it
    couldn't get.
    """
    (small_disk / "taken").write_bytes(b"x" * 3_000_000)
    writer, opener = start(small_disk / "cache"), start(None)
    assert "No room" in writer.log()
    opener.trap(where, "before", signal.SIGSTOP)
    opener.ask("open", str(small_disk / "cache"), {})
    opener.wait_until_stopped_or_done()
    for n in range(50):
        writer.set(f"k{n}", f"{n}" * 10_000)
    opener.signal(signal.SIGCONT)
    opener.answer()
    for remote in (writer, opener):
        assert [remote.get(f"k{n}", "") for n in range(50)] == [f"{n}" * 10_000 for n in range(50)]
        assert "damaged" not in remote.log()
    works(writer, opener)


@pytest.mark.parametrize("entries", [20, 200])
def test_pages_at_the_end_that_were_never_written(directory: Path, entries: int) -> None:
    """Without room for all of the file, a page that one transaction takes and gives back is missing at its
    end. That is no damage: what is there is found again by the next process.
    """
    directory.mkdir()
    for _ in range(2):
        with closing(open_environment(directory, 8_000_000, writemap=False, alone=True)) as environment:
            for n in range(entries):
                with environment.begin(write=True) as txn:
                    txn.put(b"%d" % n, b"x" * 2_000)
                    txn.put(b"gone", b"x" * 100_000)
                    txn.delete(b"gone")
            assert environment.stat()["entries"] == entries


def test_disk_full_and_file_removed(start: Start, small_disk: Path) -> None:
    """Both at once are an outage like each of them: no request fails."""
    (small_disk / "taken").write_bytes(b"x" * 3_000_000)
    remote = start(small_disk / "cache")
    left = shutil.disk_usage(small_disk).free
    (small_disk / "taken too").write_bytes(b"x" * left)
    (small_disk / "cache" / "data.mdb").unlink()
    remote.set("k", "x" * 300_000)
    (small_disk / "taken too").unlink()
    (small_disk / "taken").unlink()
    eventually(lambda: remote.set("k", 1) is None and remote.get("k", 0) == 1)
    works(remote)


@pytest.mark.parametrize("limit", [2_000_000, 300_000, 1_000])
def test_files_may_not_grow(template: Template, start: Start, directory: Path, limit: int) -> None:
    """A limit on the size of files (RLIMIT_FSIZE) is like a full disk."""
    remote = start(None)
    remote.do("run", "tests.shared.scenes:limit", resource.RLIMIT_FSIZE, limit)
    try:
        remote.do("open", str(directory), {})
    except Failed as failed:
        assert failed.name == "ConfigError"  # noqa: PT017
    else:
        assert remote.do("run", "tests.shared.scenes:fill_up", [100, 3_000], 3_000_000)["errors"] == 0
    works(start())


# Damaged


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def cut_odd(path: Path) -> None:
    os.truncate(path, 4097)


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def head_gone(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\0" * 8192)


def foreign(path: Path) -> None:
    path.write_text("This is a shopping list: milk, eggs, bread.\n")


def larger(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x" * 10_000)


def gone(path: Path) -> None:
    path.unlink()


DAMAGES = [truncate, empty, cut_odd, garbage, head_gone, foreign, larger, gone]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "file", ["data.mdb", "lock.mdb", "stamps.bin", "refs.bin", "stats.bin", "about.json"]
)
def test_damaged_while_nobody_used_it(
    start: Start, directory: Path, file: str, damage: Callable[[Path], None]
) -> None:
    """The cache starts, empty if it has to, with at most one warning, which names the file."""
    before = start()
    before.set_many({f"k{n}": n for n in range(100)})
    before.end()
    path = directory / file
    if not path.exists():
        pytest.skip(f"there is no {file} yet")
    damage(path)
    remote, second = start(), start()
    found = remote.get_many([f"k{n}" for n in range(100)])
    assert found in ({}, {f"k{n}": n for n in range(100)}), remote.log()
    for n in range(100):
        remote.set(f"k{n}", -n)
    assert second.get_many([f"k{n}" for n in range(100)]) == {f"k{n}": -n for n in range(100)}
    works(remote, second)
    assert errors(remote) == errors(second) == 0, remote.log() + second.log()
    warnings = [line for line in remote.log().splitlines() if line.startswith(("WARNING", "ERROR"))]
    assert len(warnings) <= 1, warnings
    if file == "data.mdb" and damage in (cut_odd, garbage, head_gone, foreign):
        assert not found
        assert "was moved to" in warnings[0]
        assert list(directory.glob("data.mdb.*"))
    if file == "lock.mdb" and damage is not gone:
        assert found


@pytest.mark.parametrize("damage", [garbage, foreign, head_gone])
def test_pages_damaged_in_use(start: Start, directory: Path, damage: Callable[[Path], None]) -> None:
    """Whoever writes over the file of a running cache: no crash, and right values afterwards."""
    remote, second = start(), start()
    remote.set_many({f"k{n}": "x" * 1000 for n in range(100)})
    with (directory / "data.mdb").open("r+b") as file:
        size = (directory / "data.mdb").stat().st_size
        file.write(os.urandom(size) if damage is garbage else b"\0" * (8192 if damage is head_gone else size))
    for user in (remote, second, remote, second):
        try:
            for n in range(100):
                assert user.get(f"k{n}", "x" * 1000) == "x" * 1000
            user.set("k", 1)
        except Failed:
            pass
    third = start()
    eventually(lambda: third.set("k", 2) is None and third.get("k", 0) == 2)


@pytest.mark.parametrize("size", [None, "none", "4MB", -1, 10**30, 4e6, [4_000_000]], ids=str)
def test_description_edited_in_use(start: Start, directory: Path, size: object) -> None:
    """A size that is none can't be shared: whoever comes begins anew, and the others come over."""
    remote = start()
    remote.set("k", 1)
    about = json.loads((directory / "about.json").read_text())
    (directory / "about.json").write_text(json.dumps({**about, "map_size": size}))
    newcomer = start()
    eventually(lambda: newcomer.set("k", 2) is None and remote.get("k", 0) == 2)
    works(remote, newcomer)
    assert json.loads((directory / "about.json").read_text()) == about


def test_lost_presence(start: Start, directory: Path) -> None:
    """Damage found in use is set aside; those who go on are still counted as users, long afterwards."""
    remote = start()
    remote.do("run", "tests.shared.scenes:short_grace")
    remote.set("k", 1)
    shutil.move(directory / "data.mdb", directory / "data.mdb.moved")
    eventually(
        lambda: remote.set("k", 2) is None and remote.get("k", 0) == 2 and (directory / "data.mdb").exists()
    )
    time.sleep(0.5)
    remote.do("run", "tests.shared.scenes:look")
    assert start(None).do("run", "tests.shared.scenes:others", str(directory)) is True


def test_directory_moved_away_and_back(start: Start, directory: Path) -> None:
    """Who used it before, and another one meanwhile, counts as its user again, long afterwards; what it was
    loading then keeps nobody waiting.
    """
    remote = start()
    remote.do("run", f"{SCENES}:short_grace")
    remote.set("k", 1)
    assert remote.do("run", f"{SCENES}:take_lease", "k")
    away = directory.with_name("away")
    directory.rename(away)
    remote.do("run", f"{SCENES}:look")
    remote.set("k", 2)
    shutil.rmtree(directory)
    away.rename(directory)
    remote.do("run", f"{SCENES}:look")
    assert remote.get("k") == 1
    other = start()
    assert other.do("run", f"{SCENES}:take_lease", "k")
    other.end()
    time.sleep(0.5)
    remote.do("run", f"{SCENES}:look")
    assert start(None).do("run", f"{SCENES}:others", str(directory)) is True
    assert remote.do("run", f"{SCENES}:descriptors") == start().do("run", f"{SCENES}:descriptors")


@pytest.mark.parametrize("what", ["file", "full", "dangling"])
def test_location_that_is_no_cache(start: Start, directory: Path, what: str) -> None:
    """What somebody else has there is left alone, and the error says so."""
    if what == "file":
        directory.write_text("mine")
    elif what == "full":
        directory.mkdir(mode=0o700)
        (directory / "thesis.tex").write_text("mine")
        (directory / "data.mdb").write_text("mine")
    else:
        directory.symlink_to(directory.parent / "nowhere" / "at all")
    remote = start(None)
    if what == "dangling":
        remote.do("open", str(directory), {})
        return
    with pytest.raises(Failed, match="ConfigError") as failed:
        remote.do("open", str(directory), {})
    assert "location" in failed.value.text
    kept = directory if what == "file" else directory / "thesis.tex"
    assert kept.read_text() == "mine"
    assert what == "file" or (directory / "data.mdb").read_text() == "mine"
