"""A shared cache made before a fork and used after it, on both sides."""

from __future__ import annotations

import fcntl
import inspect
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import lmdb._envid
import pytest

from tests.shared.remote import Died, Remote

pytestmark = pytest.mark.slow

Start = Callable[..., Remote]
SCENES = "tests.shared.scenes"


def users_left(directory: Path) -> bool:
    """Whether any process counts as one that has the store open. Opens no file that this process uses."""
    descriptor = os.open(directory / "open.lock", os.O_RDWR)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 1)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


@pytest.mark.parametrize("threads", [0, 2], ids=["single-threaded", "threads-writing"])
@pytest.mark.parametrize("depth", [1, 3], ids=["child", "child-of-child-of-child"])
@pytest.mark.parametrize("used", [True, False], ids=["used-before", "not-used-before"])
@pytest.mark.parametrize(
    ("hooks", "by_pid"),
    [(True, False), (False, False), (False, True)],
    ids=["os.fork", "fork-in-C", "fork-in-C-told-by-pid"],
)
def test_all_generations_share_the_entries(
    start: Start, threads: int, depth: int, used: bool, hooks: bool, by_pid: bool
) -> None:
    """At once, in all directions, with near hits on every side."""
    parent, other = start(), start()
    if by_pid:
        parent.do("run", f"{SCENES}:tell_forks_by_pid")
    if not hooks:
        # As in a master of uWSGI: a child has the interpreter's lock as any other thread left it.
        parent.do("run", f"{SCENES}:no_background_thread")
    if used:
        parent.set("before", 1)
    if threads:
        parent.do("run", f"{SCENES}:start_writers", threads)
    if not hooks and threads:
        pytest.skip("a thread that forks without telling Python leaves Python's own locks as they are")
    assert parent.do("run", f"{SCENES}:fork_and_compare", depth, used, hooks) == ["ok"] * depth
    parent.set("after", "parent")
    assert other.get("after") == "parent"
    assert other.get("from depth 1") == "child"
    assert parent.get_metrics_snapshot()["store_errors"] == 0, parent.log()
    assert other.get_metrics_snapshot()["store_errors"] == 0, other.log()


@pytest.mark.parametrize("threads", [0, 2], ids=["single-threaded", "threads-writing"])
@pytest.mark.parametrize("ending", ["_exit", "exit", "kill"])
def test_ends_of_children_leave_the_parent_alone(start: Start, threads: int, ending: str) -> None:
    """Whatever way a child ends, the parent's slots among LMDB's readers stay its own."""
    parent = start()
    parent.set("k", 1)
    if threads:
        parent.do("run", f"{SCENES}:start_writers", threads)
    else:
        parent.do("run", f"{SCENES}:stay_in_a_read")
    for _ in range(5):
        parent.do("run", f"{SCENES}:fork_and_end", ending)
        assert parent.pid in parent.do("run", f"{SCENES}:readers")
    assert parent.do("run", f"{SCENES}:end_reads") == (0 if threads else 1)
    parent.set("k", 2)
    assert parent.get("k") == 2
    assert parent.get_metrics_snapshot()["store_errors"] == 0, parent.log()


@pytest.mark.parametrize("threads", [0, 2], ids=["single-threaded", "threads-writing"])
def test_many_forks_leak_nothing(start: Start, threads: int) -> None:
    """No descriptors, no slots among the readers, in a parent that forks on and on; and none hangs."""
    parent, other = start(), start()
    parent.set("k", 1)
    if threads:
        parent.do("run", f"{SCENES}:start_writers", threads)
    held = []
    for _ in range(3):
        for _ in range(15):
            parent.do("run", f"{SCENES}:fork_and_end", "_exit")
        held.append(parent.do("run", f"{SCENES}:descriptors"))
    # The figures are opened at some time.
    assert len(held[-1]) <= len(held[0]) + 2
    assert len(held[-1]) <= 12
    other.do("run", f"{SCENES}:check_readers")
    pids = other.do("run", f"{SCENES}:readers")
    assert set(pids) <= {parent.pid, other.pid}
    assert len(pids) <= threads + 4
    assert parent.get_metrics_snapshot()["store_errors"] == 0, parent.log()


def test_children_of_a_preloaded_parent_hold_little(start: Start) -> None:
    """As with gunicorn --preload: what a worker has open doesn't grow with what the parent did before."""
    parent = start()
    parent.set("k", 1)
    parent.do("run", f"{SCENES}:start_writers", 1)
    held = [parent.do("run", f"{SCENES}:descriptors_of_child") for _ in range(3)]
    # The writer's thread doesn't exist in the child, but what it was using at the fork stays mapped there.
    assert all(set(one) == set(held[0]) for one in held)
    assert max(map(len, held)) - min(map(len, held)) <= 1
    assert max(map(len, held)) <= 12


def test_child_counts_as_a_user(start: Start, directory: Path) -> None:
    """The parent may end; nobody takes the store for one that is not in use."""
    parent = start()
    parent.set("k", 1)
    child = parent.do("run", f"{SCENES}:fork_and_stay")
    try:
        parent.end()
        assert users_left(directory)
    finally:
        os.kill(child, signal.SIGKILL)
    end = time.monotonic() + 10
    while users_left(directory):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_parent_ends_while_child_goes_on(start: Start) -> None:
    """The end of the parent, with all that runs at exit, does the child no harm."""
    parent, other = start(), start()
    parent.set("k", 1)
    child = parent.do("run", f"{SCENES}:fork_and_stay")
    try:
        parent.end()
        before = other.get("beats", 0)
        end = time.monotonic() + 10
        while other.get("beats", 0) < before + 20:
            assert time.monotonic() < end, other.log()
            time.sleep(0.01)
    finally:
        os.kill(child, signal.SIGKILL)


def test_threads_begin_at_once_in_a_child_that_python_was_not_told_of(start: Start) -> None:
    """uWSGI's workers: several threads make their first use of the inherited cache at one instant."""
    parent = start()
    # That thread may hold one of Python's locks when the process forks, and the child would wait for ever.
    parent.do("run", f"{SCENES}:no_background_thread")
    parent.set("k", 1)
    for _ in range(10):
        assert parent.do("run", f"{SCENES}:fork_and_race", 8) == "ok", parent.log()
    assert parent.get("k") == 1


def test_lock_taken_first_of_all_in_a_child_that_python_was_not_told_of(start: Start) -> None:
    """uWSGI's workers: what they show of themselves isn't lost with what they have of their parent."""
    parent = start()
    # As above.
    parent.do("run", f"{SCENES}:no_background_thread")
    parent.set("k", 1)
    said = parent.do("run", f"{SCENES}:fork_and_lock")
    assert said == {"took": True, "took again": False, "owned": True}, parent.log()


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_multiprocessing(start: Start, method: str) -> None:
    """A pool whose workers make a cache of their own, whatever they inherit."""
    parent = start()
    parent.set("n", 0)
    assert parent.do("run", f"{SCENES}:increment_in_pool", method, 3, 20) == 60
    assert parent.get("n") == 60


def test_fork_while_another_thread_writes(start: Start, stress_seconds: float) -> None:
    """A child never inherits half a write or a lock that nobody will release."""
    parent = start()
    parent.set("k", 1)
    parent.do("run", f"{SCENES}:start_writers", 3)
    end = time.monotonic() + stress_seconds / 2
    forks = 0
    while time.monotonic() < end:
        parent.do("run", f"{SCENES}:fork_and_end", "_exit")
        forks += 1
    assert forks > 5
    assert parent.get_metrics_snapshot()["store_errors"] == 0, parent.log()


# py-lmdb's private name


def test_name_that_py_lmdb_keeps_to_itself() -> None:
    """If this fails, a new py-lmdb lists open environments in another way: see `environment.load_lmdb`."""
    assert list(inspect.signature(lmdb._envid.env_keys).parameters) == ["path", "subdir"]


def test_py_lmdb_asks_it_for_each_open(start: Start) -> None:
    """The same for who calls it: without ours, a child can't open what its parent has open."""
    parent = start(None)
    parent.do("run", f"{SCENES}:forget_processes_apart")
    with pytest.raises((AssertionError, Died)):
        assert parent.do("run", f"{SCENES}:open_twice") == "ok"
    fresh = start(None)
    assert fresh.do("run", f"{SCENES}:open_twice") == "ok"


def test_py_lmdb_without_that_name(start: Start, directory: Path) -> None:
    """It is said once; the cache works, and a child that can't open it runs without it, with no error."""
    parent = start(None)
    parent.do("run", f"{SCENES}:remove_private_name")
    parent.do("open", str(directory), {})
    assert "lists open environments in another way" in parent.log()
    parent.set("k", 1)
    assert parent.get("k") == 1
    assert parent.do("run", f"{SCENES}:start_writers", 1) is None
    assert parent.do("run", f"{SCENES}:use_in_child") == [1, "nothing"]
    assert "can't be used" in parent.log()
    assert parent.get("k") == 1
