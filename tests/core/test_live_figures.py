"""Figures that processes publish: right to the last request, whatever happens to processes and files."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import NEVER, QuickCache, QuickCacheConfig
from quickcache_core.maintenance import maintenance
from quickcache_core.metrics import layout as at
from quickcache_core.metrics import runtime
from quickcache_core.metrics.board import Reading, board_at
from quickcache_core.metrics.publisher import Publisher
from quickcache_core.metrics.runtime import figures_path, runtime_directory
from quickcache_core.metrics.server import server_name
from quickcache_core.testing import ManualClock
from tests.core.counting_workers import MortalBoard, totals, use_mortal_board
from tests.core.workers import ROOT, Worker

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

PATIENCE = 30.0
NAME = "tests"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runtime directory of this test alone; not made yet."""
    path = tmp_path / "run"
    monkeypatch.setenv("QUICKCACHE_RUNTIME_DIR", str(path))
    return path


def make(**settings: Any) -> QuickCache:
    return QuickCache(QuickCacheConfig(**{"publish_as": NAME, **settings}))


def read() -> Reading:
    return board_at(figures_path(NAME)).read()


def publisher_of(cache: QuickCache) -> Publisher:
    assert cache._publisher is not None
    return cache._publisher


def until(condition: Callable[[], object], why: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, why
        time.sleep(0.01)


def in_child(work: Callable[[], object], fork: Callable[[], int] = os.fork) -> int:
    """Run `work` in a child process that then ends without a farewell; its pid."""
    pid = fork()
    if pid == 0:
        try:
            work()
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "the work in the child failed"
    return pid


@pytest.fixture(autouse=True)
def _nobody_else() -> None:
    """Stores of other tests that the garbage collector hasn't found yet don't appear in the figures."""
    for member in list(maintenance._known):
        if isinstance(member, Publisher):
            member.mute()


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def down() -> None:
    raise OSError("down")


# What is shown


def test_what_a_process_shows() -> None:
    """All its counts, its size, and who it is."""
    cache = make(max_size=2, clock=(clock := ManualClock()), eviction_policy="fifo")
    cache.set("a", 1, 5)
    clock.advance(5)
    assert cache.get("a", None) is None
    cache.set_many({"b": 1, "c": 2}, NEVER)
    cache.set("d", 3)
    cache.get("d")
    cache.delete("d")
    cache.delete("d", missing_ok=True)
    cache.get_or_set("e", lambda: 4)
    with pytest.raises(OSError, match="down"):
        cache.get_or_set("f", down)
    cache.publish()
    [worker] = read().workers
    assert worker.figures._asdict() == {
        "hits": 1,
        "misses": 3,
        "sets": 5,
        "failed_ops": 1,
        "evictions": 1,
        "expirations": 1,
        "deletions": 1,
        "store_errors": 0,
        "loads": 2,
        "load_failures": 1,
        "load_waits": 0,
        "stale_hits": 0,
        "entries": 2,
        "max_entries": 2,
        "bytes": None,
    }
    assert (worker.pid, worker.server) == (os.getpid(), server_name())
    assert 0 <= worker.uptime_s < PATIENCE


def test_nothing_to_show(directory: Path) -> None:
    """A cache that has counted nothing makes no file; one that isn't published never does."""
    cache = make()
    cache.publish()
    silent = make(publish_as=None)
    silent.set("k", 1)
    silent.publish()
    assert silent.control is None
    assert not directory.exists()
    assert read() == Reading()


def test_nothing_new_is_not_written() -> None:
    """A publication without news leaves the file alone."""
    cache = make()
    cache.set("k", 1, NEVER)
    cache.publish()
    file = publisher_of(cache)._slot
    assert file is not None
    before = bytes(file.file.bytes[: at.slot_offset(1)])
    publisher_of(cache)._rate_since = time.monotonic() + 3600
    cache.publish()
    assert bytes(file.file.bytes[: at.slot_offset(1)]) == before


def test_background_thread_publishes() -> None:
    """Without any call, also for entries that have no end; and it starts with the first write only."""
    cache = make()
    cache.get("nothing", None)
    assert publisher_of(cache) not in maintenance._intervals
    cache.set("k", 1, NEVER)
    until(lambda: totals(read()) == [0, 1, 1], "nobody publishes")
    cache.get("k")
    until(lambda: totals(read()) == [1, 1, 1], "nobody publishes any more")
    cache.stop()
    assert publisher_of(cache) not in maintenance._intervals


def test_operations_per_second() -> None:
    """What was done in the last second or since the last look; nothing when nothing is published any more."""
    cache = make()
    cache.set("k", 1)
    cache.publish()
    publisher = publisher_of(cache)
    maintenance.dismiss(publisher)
    for _ in range(400):
        cache.get("k")
    publisher._rate_since = time.monotonic() - 4
    cache.publish()
    [worker] = read().workers
    assert worker.ops_per_s == pytest.approx(100, rel=0.2)
    slot = publisher._slot
    assert slot is not None
    slot.words[slot.word + at.S_PUBLISHED] = 0
    assert read().workers[0].ops_per_s == 0


def test_operations_per_second_of_a_child() -> None:
    """The first second of a child has nothing of what its parent did."""
    cache = make(max_size=100_000)
    cache.set_many(dict.fromkeys(map(str, range(50_000)), 0))

    def child() -> None:
        publisher = publisher_of(cache)
        for _ in range(400):
            cache.get("0")
        publisher._rate_since = time.monotonic() - 4
        cache.publish()
        [worker] = read().workers
        assert worker.ops_per_s == pytest.approx(100, rel=0.2)
        own = publisher.own()
        assert own is not None
        assert own.ops_per_s == pytest.approx(100, rel=0.2)

    in_child(child)


@pytest.mark.parametrize("in_a_child", [False, True], ids=["here", "in a child"])
def test_operations_per_second_after_a_reset(in_a_child: bool) -> None:
    """Unknown for the second of the reset, which counts as none; right from then on."""
    cache = make()
    cache.set_many(dict.fromkeys(map(str, range(500)), 0))

    def work() -> None:
        publisher = publisher_of(cache)
        publisher._rate_since = time.monotonic() - 4
        cache.publish()
        maintenance.dismiss(publisher)
        cache.reset_metrics()
        for expected in (0, 100):
            for _ in range(400):
                cache.get("0")
            publisher._rate_since = time.monotonic() - 4
            cache.publish()
            [worker] = read().workers
            assert worker.ops_per_s == pytest.approx(expected, rel=0.2)

    in_child(work) if in_a_child else work()


def test_resetting_the_metrics() -> None:
    """The process shows that it counts from zero, the totals of others stay."""
    other = Worker(publish_as=NAME)
    other.call("set", "k", 1)
    other.close()
    cache = make()
    cache.set("k", 1)
    cache.publish()
    assert totals(read()) == [0, 0, 2]
    cache.reset_metrics()
    cache.get("k")
    cache.publish()
    assert totals(read()) == [1, 0, 1]


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["/srv/venv/bin/gunicorn", "shop.wsgi"], "gunicorn"),
        (["/srv/lib/gunicorn/__main__.py", "shop.wsgi"], "gunicorn"),
        (["uvicorn"], "uvicorn"),
        (["/x/celery", "worker"], "celery"),
        (["manage.py", "runserver"], "runserver"),
        (["./manage.py"], "manage.py"),
        (["/venv/bin/flask", "--debug", "run"], "flask run"),
        (["app.py"], "app.py"),
        ([""], "python"),
        ([], "python"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_server_names(argv: list[str], name: str) -> None:
    """What an operator would call the process."""
    assert server_name(argv) == name


def test_longest_server_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is cut at a whole character."""
    monkeypatch.setattr(sys, "argv", ["é" * 40])
    cache = make()
    cache.set("k", 1)
    cache.publish()
    assert read().workers[0].server == "é" * 16


# Several caches of a process


def test_caches_of_one_store_are_one_worker() -> None:
    """They share a slot, whatever else they differ in; another name shows the same figures elsewhere."""
    first = make(location="live figures")
    second = make(location="live figures", default_ttl=7)
    elsewhere = make(location="live figures", publish_as="elsewhere")
    first.set("a", 1)
    second.set("b", 1)
    for cache in (first, second, elsewhere):
        cache.publish()
    assert [worker.figures.sets for worker in read().workers] == [2]
    [worker] = board_at(figures_path("elsewhere")).read().workers
    assert worker.figures.sets == 2
    for cache in (first, elsewhere):
        # The store lives as long as this process, and would be published among the figures of later tests.
        publisher_of(cache).mute()


def test_two_stores_under_one_name() -> None:
    """Each has a slot."""
    caches = [make(), make()]
    for number, cache in enumerate(caches, 1):
        cache.set_many(dict.fromkeys(map(str, range(number)), 0))
        cache.publish()
    assert sorted(worker.figures.sets for worker in read().workers) == [1, 2]


def test_dropped_cache() -> None:
    """A store that nobody has any more counts as ended; its entries aren't kept."""
    cache = make()
    cache.set("k", 1, NEVER)
    with pytest.raises(OSError, match="down"):
        cache.get_or_set("f", down)
    cache.publish()
    cache.stop()
    del cache
    gc.collect()
    # The background thread may have it for an instant.
    until(lambda: read().workers == (), "it counts as ended")
    reading = read()
    assert (reading.ended.sets, reading.ended_workers) == (1, 1)
    assert (reading.ended.loads, reading.ended.load_failures, reading.ended.stale_hits) == (1, 1, 0)
    again = make()
    again.set("k", 1)
    again.publish()
    assert totals(read()) == [0, 1, 2]


def test_slot_claimed_while_another_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that claims one in the middle of that keeps it: other processes see that its worker lives."""
    gone = make()
    gone.set("k", 1)
    gone.publish()
    slot = publisher_of(gone)._slot
    assert slot is not None
    unlock = slot.file.unlock
    others: list[threading.Thread] = []

    def slow_unlock(offset: int) -> None:
        if not others:
            others.append(threading.Thread(target=count, args=(10,)))
            others[0].start()
            others[0].join()
        unlock(offset)

    with monkeypatch.context() as patch:
        patch.setattr(slot.file, "unlock", slow_unlock)
        slot.board.let_go(slot)

    def child() -> None:
        reading = read()
        assert [worker.figures.sets for worker in reading.workers] == [10]
        assert (reading.ended.sets, reading.ended_workers) == (1, 1)

    in_child(child)
    gone.stop()


def test_threads_that_end_their_requests_together() -> None:
    """What every thread has counted is published when all are through."""
    cache = make()
    cache.set("k", 1, NEVER)

    def requests() -> None:
        for _ in range(300):
            cache.get("k")
            cache.publish()

    threads = [threading.Thread(target=requests) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counted = cache.metrics().hits
    assert totals(read()) == [counted, 0, 1]


def test_request_that_ends_while_another_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that came first publishes what the other one has counted, which doesn't wait for it."""
    cache = make()
    cache.set("k", 1, NEVER)
    cache.publish()
    source = publisher_of(cache).source
    figures = source.figures
    others: list[threading.Thread] = []

    def another_request() -> None:
        cache.get("k")
        cache.publish()

    def slow_figures() -> Any:
        before = figures()
        if not others:
            others.append(threading.Thread(target=another_request))
            others[0].start()
            others[0].join()
        return before

    monkeypatch.setattr(source, "figures", slow_figures)
    cache.publish()
    assert totals(read()) == [1, 0, 1]


# Processes that end


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_hundreds_of_kills(seed: int) -> None:
    """Totals never fall, and are exact to the publication that was under way at each kill."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.core.counting_workers", "250", str(seed)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    seen = json.loads(result.stdout)
    assert seen["problems"] == []
    assert seen["kills"] >= 250
    assert seen["folding_kills"] > 30
    assert min(seen["low"]) > 1000


@pytest.mark.parametrize("window", MortalBoard.WINDOWS)
def test_killed_while_adding_up_the_ended(window: str) -> None:
    """Wherever a process dies that adds up those that died before, each is counted once."""

    def several_slots() -> None:
        for sets in (1, 10, 100, 200):
            count(sets)

    def die() -> None:
        use_mortal_board(NAME, window)
        count(7)

    in_child(several_slots)
    assert totals(read()) == [0, 0, 311]
    for _ in range(3):
        in_child(die)
        assert totals(read()) == [0, 0, 311]
    in_child(lambda: count(500))
    reading = read()
    assert totals(reading) == [0, 0, 811]
    assert reading.ended_workers == 5


def test_end_of_a_program() -> None:
    """What was counted since the last publication is published at exit."""
    worker = Worker(publish_as=NAME, threads=False)
    worker.call("set", "k", 1)
    worker.call("get", "k")
    assert read() == Reading()
    worker.close()
    assert totals(read()) == [1, 0, 1]
    assert read().workers == ()


def test_killed_between_two_requests() -> None:
    """After a request's publication nothing of it can be lost."""
    worker = Worker(publish_as=NAME)
    worker.call("set", "k", 1)
    for _ in range(5):
        worker.call("get", "k")
    worker.call("publish")
    assert [one.pid for one in read().workers] == [worker.pid]
    worker.kill()
    assert read().workers == ()
    assert totals(read()) == [5, 0, 1]


# Forks


def test_child_of_a_fork() -> None:
    """It shows what it has counted itself; the parent goes on in its own slot."""
    cache = make()
    cache.set("k", 1, NEVER)
    cache.get("k")
    cache.publish()

    def child() -> None:
        cache.publish()
        assert len(read().workers) == 1
        for _ in range(3):
            cache.get("k")
        cache.publish()
        mine = [worker for worker in read().workers if worker.pid == os.getpid()]
        assert [worker.figures.hits for worker in mine] == [3]
        assert [worker.figures.sets for worker in mine] == [0]

    in_child(child)
    assert totals(read()) == [4, 0, 1]
    cache.get("k")
    cache.publish()
    reading = read()
    assert [worker.pid for worker in reading.workers] == [os.getpid()]
    assert totals(reading) == [5, 0, 1]


def test_child_of_a_parent_that_has_not_published() -> None:
    """What the parent has counted is the parent's, however late it publishes it."""
    cache = make()
    cache.set("k", 1, NEVER)

    def child() -> None:
        cache.get("k")
        cache.publish()

    in_child(child)
    assert totals(read()) == [1, 0, 0]
    cache.publish()
    assert totals(read()) == [1, 0, 1]


@pytest.mark.slow
def test_forks_while_threads_publish() -> None:
    """Whatever the parent's threads are doing at the fork, nothing is counted twice or hangs."""
    cache = make()
    cache.set("k", 1, NEVER)
    stop = threading.Event()

    def requests() -> None:
        while not stop.is_set():
            cache.get("k")
            cache.publish()

    def child() -> None:
        for _ in range(10):
            cache.get("k")
        cache.publish()

    threads = [threading.Thread(target=requests) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(40):
            in_child(child)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    cache.publish()
    assert totals(read()) == [cache.metrics().hits + 400, 0, 1]


@pytest.mark.parametrize("hook", [[], ["uwsgi"]], ids=["unnoticed", "with the hook of uWSGI"])
def test_fork_that_python_is_not_told_of(hook: list[str]) -> None:
    """As uWSGI's master does: what the parent has counted isn't counted again, and with uWSGI's hook, which
    others may use as well, everything that the child counts is.
    """
    result = subprocess.run(
        [sys.executable, "-m", "tests.core.silent_fork", NAME, *hook],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    shown, servers = json.loads(result.stdout)
    assert shown == [1, 0, 1]
    assert servers == hook or not hook


# Files


def check_no_figures(cache: QuickCache, caplog: pytest.LogCaptureFixture, said: str) -> None:
    """The cache works, nothing is raised, and one line says why there are no figures."""
    for number in range(3):
        cache.set("k", number)
        assert cache.get("k") == number
        publisher_of(cache)._retry_at = 0.0
        cache.publish()
    [line] = warnings_of(caplog)
    assert said in line
    assert "the cache works on" in line


def test_files_are_private(directory: Path) -> None:
    """Nobody else can read them, whatever the umask."""
    mask = os.umask(0)
    try:
        cache = make()
        cache.set("k", 1)
        cache.publish()
    finally:
        os.umask(mask)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(figures_path(NAME).stat().st_mode) == 0o600


def open_to_others(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o770)


def symbolic_link(directory: Path) -> None:
    real = directory.with_name("real")
    real.mkdir(mode=0o700)
    directory.symlink_to(real)


def no_directory(directory: Path) -> None:
    directory.touch()


def of_somebody_else(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    try:
        os.chown(directory, 12345, 12345)
    except PermissionError:
        pytest.skip("only root can give a directory away")


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (open_to_others, "open to other users (mode 770); chmod go= it"),
        (symbolic_link, "is a symbolic link; remove it"),
        (no_directory, "remove it"),
        (of_somebody_else, "belongs to user 12345"),
    ],
)
def test_directory_that_must_not_be_trusted(
    directory: Path, prepare: Callable[[Path], None], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No figures, and the cache works on; mended, they appear without a restart."""
    prepare(directory)
    cache = make()
    check_no_figures(cache, caplog, said)
    assert list(directory.iterdir() if directory.is_dir() else []) == []
    with pytest.raises(OSError, match=r"set QUICKCACHE_RUNTIME_DIR|chmod"):
        read()
    if directory.is_symlink() or directory.is_file():
        directory.unlink()
    else:
        directory.rmdir()
    publisher_of(cache)._retry_at = 0.0
    cache.publish()
    assert totals(read()) == [3, 0, 3]


def test_file_that_is_a_symbolic_link(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It isn't followed."""
    directory.mkdir(mode=0o700)
    target = directory / "valuable"
    target.write_text("contents")
    figures_path(NAME).symlink_to(target)
    check_no_figures(make(), caplog, "symbolic link")
    assert target.read_text() == "contents"


def a_text(path: Path) -> None:
    path.write_text("something else")


def zeros(path: Path) -> None:
    path.write_bytes(bytes(at.FILE_SIZE))


def cut_off(path: Path) -> None:
    os.truncate(path, at.FIXED_SIZE + 100)


def from_before(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(at.H_BOOT * at.WORD)
        file.write(b"another start...")


def other_version(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(at.H_VERSION * at.WORD)
        file.write(b"\x63")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (a_text, "is no figures file"),
        (zeros, "is no figures file"),
        (cut_off, "was cut off"),
        (from_before, "from before the last start"),
        (other_version, "another version"),
    ],
)
def test_file_that_cannot_be_used(
    spoil: Callable[[Path], None], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is put aside, figures start anew, and one line says so."""
    in_child(lambda: count(5))
    path = figures_path(NAME)
    path.chmod(0o600)
    spoil(path)
    count(2)
    assert totals(read()) == [0, 0, 2]
    [line] = warnings_of(caplog)
    assert said in line
    assert path.with_name(f"{path.name}.replaced").exists()


def count(sets: int) -> QuickCache:
    cache = make()
    cache.set_many(dict.fromkeys(map(str, range(sets)), 0))
    cache.publish()
    _kept.append(cache)
    return cache


_kept: list[QuickCache] = []


@pytest.fixture(autouse=True)
def _drop_caches() -> Iterator[None]:
    yield
    for cache in _kept:
        cache.stop()
    _kept.clear()
    gc.collect()


def test_version_that_others_use(caplog: pytest.LogCaptureFixture) -> None:
    """The file of another version isn't taken away from its running workers."""
    worker = Worker(publish_as=NAME)
    worker.call("set", "k", 1)
    worker.call("publish")
    other_version(figures_path(NAME))
    cache = make()
    check_no_figures(cache, caplog, "in use by another version")
    worker.kill()
    publisher_of(cache)._retry_at = 0.0
    cache.publish()
    assert totals(read()) == [3, 0, 3]


def test_removed_file(directory: Path) -> None:
    """Totals of running processes go on in a new one."""
    cache = count(5)
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
    cache.set("more", 1)
    publisher_of(cache)._rate_since = board_at(figures_path(NAME))._checked_at = 0.0
    cache.publish()
    assert totals(read()) == [0, 0, 6]
    assert len(read().workers) == 1


def test_descriptor_closed_by_the_application() -> None:
    """Closing any descriptor of the file drops the locks: others take the slot for that of a process that has
    ended, and what it had counted must not be counted again.
    """
    cache = count(5)
    figures_path(NAME).read_bytes()
    in_child(lambda: count(10))
    cache.set("more", 1)
    cache.publish()
    reading = read()
    assert totals(reading) == [0, 0, 16]
    assert [worker.pid for worker in reading.workers] == [os.getpid()]


@contextlib.contextmanager
def full_file_system(path: Path) -> Iterator[None]:
    path.mkdir(mode=0o700)
    options = ["-o", f"size=64k,mode=700,uid={os.geteuid()}"]
    if subprocess.run(["mount", "-t", "tmpfs", *options, "none", path], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        (path / "ballast").write_bytes(bytes(60 * 1024))
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def test_full_file_system(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No figures, and no SIGBUS; when there is room again, they appear."""
    with full_file_system(directory):
        cache = make()
        check_no_figures(cache, caplog, "No space left")
        (directory / "ballast").unlink()
        publisher_of(cache)._retry_at = 0.0
        cache.publish()
        assert totals(read()) == [3, 0, 3]
        with (directory / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(bytes(512))
        # Slots of processes to come are not allocated yet.
        for number in range(20):
            count(number + 1)
        assert len(read().workers) < 21


def test_limit_of_file_sizes() -> None:
    """As on a full file system, for users that may not mount one."""

    def child() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        cache = make()
        cache.set("k", 1)
        cache.publish()
        assert cache.get("k") == 1

    in_child(child)
    assert read() == Reading()
    count(1)
    assert totals(read()) == [0, 0, 1]


def test_no_slot_left(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """One more process than there is room for has no figures, until another one ends."""
    monkeypatch.setattr(at, "SLOTS", 2)
    first = Worker(publish_as=NAME)
    second = Worker(publish_as=NAME)
    for worker in (first, second):
        worker.call("set", "k", 1)
        worker.call("publish")
    cache = make()
    check_no_figures(cache, caplog, "no room for more")
    first.kill()
    publisher_of(cache)._retry_at = 0.0
    cache.publish()
    assert totals(read()) == [3, 0, 5]
    second.kill()


@contextlib.contextmanager
def process_with_the_lock(seconds: float, *, is_open_here: bool = True) -> Iterator[int]:
    """The pid of a process that has the lock of the figures for so long, if it isn't killed."""
    if is_open_here:
        count(1)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        if not is_open_here:
            count(1)
        board = board_at(figures_path(NAME))
        file = board.file(time.monotonic())
        assert file is not None
        with board.exclusive(file, patience=5.0):
            os.write(writing, b"x")
            time.sleep(seconds)
        os._exit(0)
    os.read(reading, 1)
    os.close(reading)
    os.close(writing)
    try:
        yield pid
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.waitpid(pid, 0)


@pytest.mark.parametrize("is_open_here", [True, False], ids=["of an open file", "of a file to be opened"])
def test_process_stopped_with_the_lock(is_open_here: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A process that is stopped in the middle of a claim holds up no command for good, and no request for
    more than an instant.
    """
    with process_with_the_lock(3600.0, is_open_here=is_open_here) as pid:
        cache = make()
        check_no_figures(cache, caplog, "holds the lock of the figures for over 0.05 s")
        with pytest.raises(TimeoutError, match="holds the lock"):
            board_at(figures_path(NAME)).read(patience=0.1)
        os.kill(pid, signal.SIGKILL)
    publisher_of(cache)._retry_at = 0.0
    cache.publish()
    assert totals(read()) == [3, 0, 4]


@pytest.mark.parametrize("has_slot", [True, False], ids=["publishing", "beginning"])
def test_command_that_waits_in_another_thread(has_slot: bool, caplog: pytest.LogCaptureFixture) -> None:
    """It holds up no request: who has a slot publishes as ever, who hasn't tries again."""
    cache = count(5) if has_slot else make()
    board = board_at(figures_path(NAME))
    with process_with_the_lock(3600.0) as pid:
        command = threading.Thread(target=lambda: board.read(patience=PATIENCE))
        command.start()
        until(board._thread_lock.locked, "the command doesn't begin")
        if has_slot:
            cache.set("more", 1)
            # As a second later.
            publisher_of(cache)._rate_since = board._checked_at = 0.0
            cache.publish()
            slot = publisher_of(cache)._slot
            assert slot is not None
            assert slot.words[slot.word + at.S_FIGURES + 2] == 6
            assert warnings_of(caplog) == []
        else:
            check_no_figures(cache, caplog, "another thread is busy with the figures for over 0.05 s")
        assert command.is_alive()
        os.kill(pid, signal.SIGKILL)
    command.join()
    publisher_of(cache)._retry_at = 0.0
    cache.publish()
    assert totals(read()) == ([0, 0, 7] if has_slot else [3, 0, 4])


def test_process_slow_with_the_lock(caplog: pytest.LogCaptureFixture) -> None:
    """As on a busy machine: nothing to complain of, and the figures come without another request."""
    with process_with_the_lock(0.3):
        cache = make()
        cache.set("k", 1)
        cache.publish()
        assert publisher_of(cache).claim is None
    end = time.monotonic() + 60.0
    while publisher_of(cache).claim is None and time.monotonic() < end:
        time.sleep(0.01)
    assert totals(read()) == [0, 0, 2]
    assert warnings_of(caplog) == []


def test_store_that_fails(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a bug in the store's figures reaches the request."""
    cache = make()

    def fail() -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(publisher_of(cache).source, "figures", fail)
    check_no_figures(cache, caplog, "a bug")


# Where


def test_where_without_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A directory that a service and a login shell of one user have in common."""
    monkeypatch.delenv("QUICKCACHE_RUNTIME_DIR")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    monkeypatch.setenv("TMPDIR", "/var/tmp")
    name = f"quickcache-{os.geteuid()}"
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"
    assert runtime_directory() == Path(parent, name)
    monkeypatch.setattr(runtime, "_SHARED_MEMORY", tmp_path / "nothing")
    assert runtime_directory() == Path("/tmp", name)


def test_names_make_files() -> None:
    """Each name has a file of its own, whatever characters it has."""
    names = ["a", "b", "../a", "a" * 5000, "\udcff", "é"]
    assert len({figures_path(name) for name in names}) == len(names)
    assert {figures_path(name).parent for name in names} == {runtime_directory()}
