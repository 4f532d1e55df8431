"""Processes killed with -9 at any instant: the others go on, values stay right, nothing needs repair."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.shared.remote import MAP, Died, Remote

pytestmark = pytest.mark.slow

Start = Callable[..., Remote]

GUARD = 1.0
"""Seconds that a writer waits for another one at most."""


def is_well(*remotes: Remote) -> None:
    """Each sees what any of them does, at once, and none has met an error."""
    for n, writer in enumerate(remotes):
        began = time.monotonic()
        writer.set("well", n)
        assert writer.incr(f"well{n}", 1, initial=10) == 11
        assert time.monotonic() - began < GUARD
        for reader in remotes:
            assert reader.get("well") == n
        assert writer.delete("well")
        assert writer.delete(f"well{n}")
        for reader in remotes:
            assert reader.get("well", "gone") == "gone"
    for remote in remotes:
        assert remote.get_metrics_snapshot()["store_errors"] == 0, remote.log()


# A writer

BEFORE_COMMIT = [
    ("guard:WriterGuard.acquire", "before"),
    ("guard:WriterGuard.acquire", "after"),
    ("connection:Connection._commit", "before"),
    ("LMDB's commit", "before"),
]
AFTER_COMMIT = [
    ("LMDB's commit", "after"),
    ("connection:Connection._commit", "after"),
    ("guard:WriterGuard.release", "before"),
    ("guard:WriterGuard.release", "after"),
    ("connection:Connection.write", "after"),
    ("reading:NearStore.keep", "before"),
]


def trap(remote: Remote, where: str, when: str, number: int = signal.SIGKILL, count: int = 1) -> None:
    if where == "LMDB's commit":
        remote.do("trap_commit", when, int(number), count)
    else:
        remote.trap(where, when, number, count)


@pytest.mark.parametrize(
    ("where", "when", "committed"),
    [(*one, False) for one in BEFORE_COMMIT] + [(*one, True) for one in AFTER_COMMIT],
)
@pytest.mark.parametrize("operation", ["set", "delete", "incr", "set_many", "touch"])
def test_writer_killed(start: Start, where: str, when: str, committed: bool, operation: str) -> None:
    """What was committed stays, what wasn't never happened, and every near store knows which."""
    survivor, reader, victim = start(), start(), start()
    survivor.set("k", 1)
    for remote in (survivor, reader, victim):
        assert remote.get("k") == 1
    if operation == "touch" and "NearStore.keep" in where:
        pytest.skip("nothing is kept")
    trap(victim, where, when)
    arguments = {
        "set": ["k", 2],
        "delete": ["k"],
        "incr": ["k"],
        "set_many": [{"k": 2, "other": 2}],
        "touch": ["k", 0.001],
    }
    victim.ask("call", operation, arguments[operation], {})
    assert victim.dies() == signal.SIGKILL
    expected = 1 if not committed else "gone" if operation in ("delete", "touch") else 2
    newcomer = start()
    time.sleep(0.001)
    for remote in (reader, newcomer, survivor, reader):
        assert remote.get("k", "gone") == expected
    is_well(survivor, reader, newcomer)
    survivor.set("k", 3)
    for remote in (reader, newcomer, survivor):
        assert remote.get("k") == 3


@pytest.mark.parametrize(
    ("where", "when", "cleared"),
    [(*one, False) for one in BEFORE_COMMIT] + [(*one, True) for one in AFTER_COMMIT[:-1]],
)
def test_killed_during_clear(start: Start, where: str, when: str, cleared: bool) -> None:
    """All entries are there, or none."""
    survivor, victim = start(), start()
    survivor.set_many({f"k{n}": n for n in range(100)})
    assert survivor.get("k7") == 7
    trap(victim, where, when)
    victim.ask("call", "clear", [], {})
    assert victim.dies() == signal.SIGKILL
    left = {} if cleared else {f"k{n}": n for n in range(100)}
    for remote in (survivor, start()):
        assert remote.get_many([f"k{n}" for n in range(100)]) == left
        assert remote.size() == len(left)
    is_well(survivor)


@pytest.mark.parametrize(
    ("where", "when"),
    [
        ("expiry:Expiry._sweep", "before"),
        ("expiry:Expiry._expire", "before"),
        ("LMDB's commit", "before"),
        ("LMDB's commit", "after"),
        ("expiry:Expiry._expire", "after"),
        ("expiry:Expiry._change_words", "before"),
        ("expiry:Expiry._change_words", "after"),
        ("expiry:Expiry._sweep", "after"),
    ],
)
def test_killed_during_a_sweep(start: Start, where: str, when: str) -> None:
    """Others sweep on, and nothing alive leaves."""
    survivor, victim = start(), start()
    survivor.set_many({f"short{n}": n for n in range(300)}, 0.01)
    survivor.set_many({f"long{n}": n for n in range(300)})
    time.sleep(0.02)
    trap(victim, where, when)
    victim.ask("call", "cleanup", [], {})
    assert victim.dies() == signal.SIGKILL
    survivor.cleanup()
    assert survivor.size() == 300
    assert survivor.get_many([f"long{n}" for n in range(300)]) == {f"long{n}": n for n in range(300)}
    survivor.set("late", 1, 0.01)
    time.sleep(0.02)
    survivor.cleanup()
    assert survivor.size() == 300
    is_well(survivor)


@pytest.mark.parametrize(
    ("where", "when"),
    [
        ("evict", "before"),
        ("evict", "after"),
        ("LMDB's commit", "before"),
        ("LMDB's commit", "after"),
    ],
)
@pytest.mark.parametrize("bound", ["entries", "bytes"])
def test_killed_during_eviction(start: Start, where: str, when: str, bound: str) -> None:
    """The others evict on, and the bound holds."""
    settings = {"max_size": 100} if bound == "entries" else {"max_size": 10_000}
    survivor, victim = start(**settings), start(**settings)
    value = "x" * (10 if bound == "entries" else 30_000)
    full = 100 if bound == "entries" else 150
    victim.set_many({f"k{n}": value for n in range(full)})
    if where == "LMDB's commit":
        victim.do("trap_commit", when, int(signal.SIGKILL), 3)
    else:
        # What is bounded by entries makes way within its own transaction.
        module = "table" if bound == "entries" else "writing"
        victim.trap(f"{module}:{where}", when)
    with pytest.raises(Died):
        victim.do("run", "tests.shared.scenes:fill", full, value)
    for n in range(full):
        survivor.set(f"again{n}", value)
        assert survivor.get(f"again{n}", value) == value
    if bound == "entries":
        assert survivor.size() <= 100
    assert survivor.get_metrics_snapshot()["store_errors"] == 0, survivor.log()
    survivor.clear()
    is_well(survivor)


# Opening

OPENING = [
    ("directory:SharedDirectory._make", "before"),
    ("directory:SharedDirectory._make", "after"),
    ("directory:_wait_for", "after"),
    ("directory:SharedDirectory.admit", "before"),
    ("directory:SharedDirectory._write_about", "before"),
    ("directory:SharedDirectory._write_about", "after"),
    ("open_files:open_environment", "before"),
    ("environment:_stretch", "before"),
    ("environment:_stretch", "after"),
    ("open_files:open_environment", "after"),
    ("words:mapped", "before"),
    ("words:mapped", "after"),
    ("directory:SharedDirectory.stay", "before"),
    ("directory:SharedDirectory.stay", "after"),
]


@pytest.mark.parametrize(("where", "when"), OPENING)
@pytest.mark.parametrize("there", ["missing", "there", "in use"])
def test_killed_while_opening(start: Start, directory: Path, where: str, when: str, there: str) -> None:
    """The next one opens it, with all that was in it."""
    user = None
    if there != "missing":
        user = start()
        user.set("k", 1)
    if there == "there":
        assert user is not None
        user.kill()
    victim = start(None)
    victim.trap(where, when)
    victim.ask("open", str(directory), {})
    try:
        victim.answer()
    except Died as died:
        assert died.status == -signal.SIGKILL  # noqa: PT017
    else:
        assert "_write_about" in where or (there == "in use" and "_stretch" in where), (
            "the trap is where nobody comes by"
        )
        return
    newcomer = start()
    assert newcomer.get("k", "nothing") == ("nothing" if there == "missing" else 1)
    if there == "in use":
        assert user is not None
        assert user.get("k") == 1
        is_well(newcomer, user)
    else:
        is_well(newcomer)


@pytest.mark.parametrize(
    ("where", "when"),
    [
        ("directory:SharedDirectory.set_aside", "before"),
        ("directory:SharedDirectory.set_aside", "after"),
        ("open_files:open_environment", "after"),
        ("words:mapped", "after"),
        ("directory:SharedDirectory.stay", "before"),
    ],
)
def test_killed_while_setting_aside_what_was_damaged(
    start: Start, directory: Path, where: str, when: str
) -> None:
    """The next one does it, or finds it done."""
    with_content = start()
    with_content.set("k", 1)
    with_content.kill()
    data = directory / "data.mdb"
    data.write_bytes(b"\x55" * data.stat().st_size)
    victim = start(None)
    victim.trap(where, when)
    victim.ask("open", str(directory), {})
    assert victim.dies() == signal.SIGKILL
    newcomer = start()
    assert newcomer.size() == 0
    is_well(newcomer)


# Readers


def test_killed_readers_pin_no_pages(start: Start, directory: Path) -> None:
    """A reader killed in the middle of a read transaction doesn't fill the map."""
    writer = start()
    for _ in range(5):
        reader = start()
        reader.set("k", 1)
        reader.do("run", "tests.shared.scenes:stay_in_a_read")
        reader.kill()
        for n in range(300):
            writer.set(f"k{n % 20}", "x" * (MAP // 100))
            assert len(writer.get(f"k{n % 20}")) == MAP // 100
    assert writer.get_metrics_snapshot()["store_errors"] == 0, writer.log()
    assert "cleared" not in writer.log()


def test_stopped_reader_costs_no_error(start: Start) -> None:
    """It pins what it reads: the writers live with less room, and no request sees an error."""
    writer, reader = start(), start()
    writer.set("k", 1)
    reader.do("run", "tests.shared.scenes:stay_in_a_read")
    for n in range(300):
        writer.set(f"k{n % 20}", "x" * (MAP // 100))
    reader.kill()
    for n in range(300):
        writer.set(f"k{n % 20}", "x" * (MAP // 100))
        assert len(writer.get(f"k{n % 20}")) == MAP // 100


# Many


def test_warm_after_everybody_was_killed(start: Start) -> None:
    """Nobody said good-bye, and the next start finds it all."""
    remotes = [start() for _ in range(3)]
    for n, remote in enumerate(remotes):
        remote.set_many({f"{n}-{m}": [n, m] for m in range(200)})
        remote.set(f"short{n}", 1, 0.01)
    for remote in remotes:
        remote.kill()
    newcomer = start()
    assert newcomer.get_many([f"{n}-{m}" for n in range(3) for m in range(200)]) == {
        f"{n}-{m}": [n, m] for n in range(3) for m in range(200)
    }
    assert newcomer.get("short0", "gone") == "gone"
    is_well(newcomer)


def test_acknowledged_increments_survive_kills(start: Start, tmp_path: Path, stress_seconds: float) -> None:
    """Every one that returned counts, and of those in flight at most one per kill."""
    watcher = start()
    watcher.set("n", 0)
    tallies: list[Path] = []
    end = time.monotonic() + stress_seconds / 2
    while time.monotonic() < end or not tallies:
        workers = [start() for _ in range(3)]
        for worker in workers:
            tallies.append(tmp_path / f"tally{len(tallies)}")
            worker.ask("run", "tests.shared.scenes:increment", str(tallies[-1]))
        before = watcher.get("n")
        while watcher.get("n") < before + 300:
            time.sleep(0.01)
        for worker in workers:
            worker.kill()
    acknowledged = sum(tally.stat().st_size for tally in tallies if tally.exists())
    assert acknowledged <= watcher.get("n") <= acknowledged + len(tallies)
    is_well(watcher)
