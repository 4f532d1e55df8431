"""Caches made before a fork and used after it, in both processes."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from quickcache_core import NEVER, BaseEvictionPolicy, CacheMiss, QuickCache, QuickCacheConfig
from quickcache_core.maintenance import maintenance
from quickcache_core.store import memory
from quickcache_core.testing import check_books
from quickcache_core.testing.books import store_of
from tests.core.books import BUILT_IN, held

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    # Python 3.12 and later warn of any fork of a process with threads. That is what is tested here.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
]

PATIENCE = 60.0
"""Seconds after which a child hangs."""


def in_child(work: Callable[[], object], *, fork: Callable[[], int] = os.fork) -> None:
    """Run `work` in a child process; fail with its traceback, or with its stacks if it hangs."""
    with tempfile.TemporaryFile("w+") as report:
        child = fork()
        if child == 0:
            status = 1
            try:
                faulthandler.register(signal.SIGUSR1, file=report)
                work()
                status = 0
            except BaseException:
                traceback.print_exc(file=report)
                report.flush()
            finally:
                os._exit(status)
        outcome = wait_for(child)
        report.seek(0)
        assert outcome == 0, f"the child {'hung' if outcome is None else 'failed'}:\n{report.read()}"


def wait_for(child: int) -> int | None:
    """The exit status, or None for a child that hung."""
    for _ in poll(PATIENCE):
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
    # For its stacks.
    os.kill(child, signal.SIGUSR1)
    time.sleep(1.0)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def poll(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.005)


def expires_by_itself(cache: QuickCache, key: str = "short") -> None:
    """A new entry leaves without being read and without another write: there is a maintenance thread."""
    before = cache.get_metrics_snapshot()["expired_removals"]
    cache.set(key, 1, 0.01)
    leaves_by_itself(cache, before)


def leaves_by_itself(cache: QuickCache, before: float) -> None:
    for _ in poll(PATIENCE / 3):
        if cache.get_metrics_snapshot()["expired_removals"] > before:
            assert maintenance.is_running
            return
    raise AssertionError("the expired entry is still there")


def make(**settings: Any) -> QuickCache:
    return QuickCache(QuickCacheConfig.from_mapping({"cleanup_interval": 0.02, **settings}))


@pytest.fixture
def cache() -> Iterator[QuickCache]:
    cache = make()
    yield cache
    cache.stop()


@contextlib.contextmanager
def running(*work: Callable[[], object]) -> Iterator[None]:
    """Do all that, over and over, each in a thread."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def run(one: Callable[[], object]) -> None:
        try:
            while not stop.is_set():
                one()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(one,), daemon=True) for one in work]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "a thread of the parent hangs"
    if errors:
        raise errors[0]


# Both go on


@pytest.mark.parametrize("policy", BUILT_IN)
@pytest.mark.parametrize("location", ["", "test-fork"])
def test_both_go_on(policy: str, location: str) -> None:
    """With the same entries at first, then each with its own; a maintenance thread works for both."""
    name = location and f"{location}-{policy}"
    cache = make(eviction_policy=policy, location=name, max_size=50)
    for n in range(40):
        cache.set(f"k{n}", n, NEVER if n % 2 else 100.0)
    expires_by_itself(cache)

    def child() -> None:
        assert cache.get_many(f"k{n}" for n in range(40)) == {f"k{n}": n for n in range(40)}
        assert not maintenance.is_running
        cache.set("k0", "child")
        cache.delete("k1")
        expires_by_itself(cache)
        cache.set_many({f"c{n}": n for n in range(100)})
        assert cache.size() == 50
        check_books(cache, held)
        cache.clear()
        if name:
            assert make(eviction_policy=policy, location=name).size() == 0

    in_child(child)
    assert cache.get_many(f"k{n}" for n in range(40)) == {f"k{n}": n for n in range(40)}
    assert maintenance.is_running
    expires_by_itself(cache)
    check_books(cache, held)
    cache.stop()


def test_cache_not_used_before(cache: QuickCache) -> None:
    """As with gunicorn --preload: made in the parent, first used in the children."""
    in_child(lambda: expires_by_itself(cache))
    in_child(lambda: expires_by_itself(cache))
    expires_by_itself(cache)


@pytest.mark.parametrize(
    "write",
    [
        lambda cache: cache.set("k", 1, 0.05),
        lambda cache: cache.set_many({"k": 1}, 0.05),
        lambda cache: cache.update("k", 1, 0.05),
        lambda cache: cache.touch("k", 0.05),
        lambda cache: (cache.delete("k"), cache.add("k", 1, 0.05)),
        lambda cache: (cache.delete("k"), cache.incr("k", initial=1, ttl_sec=0.05)),
    ],
    ids=["set", "set_many", "update", "touch", "add", "incr"],
)
def test_any_write_with_a_ttl_brings_the_thread_back(
    cache: QuickCache, write: Callable[[QuickCache], object]
) -> None:
    """Also one that overwrites: most writes of a web application do."""
    cache.set("k", 1, 0.05)
    cache.set("k", 1, 100.0)

    def child() -> None:
        before = cache.get_metrics_snapshot()["expired_removals"]
        write(cache)
        leaves_by_itself(cache, before)

    in_child(child)


def test_entries_of_the_parent_expire_in_the_child(cache: QuickCache) -> None:
    """Once its thread works, it sweeps what was there before as well."""
    for n in range(600):
        cache.set(f"k{n}", n, 0.3)

    def child() -> None:
        cache.set("own", 1, 100.0)
        for _ in poll(PATIENCE / 3):
            if cache.size() == 1:
                return
        raise AssertionError(f"{cache.size()} entries are left")

    in_child(child)


def test_grandchildren(cache: QuickCache) -> None:
    """A child may fork again."""
    cache.set("k", 1)

    def child() -> None:
        cache.set("child", 1, 100.0)
        expires_by_itself(cache)
        in_child(grandchild)
        expires_by_itself(cache)

    def grandchild() -> None:
        assert cache.get_many(["k", "child"]) == {"k": 1, "child": 1}
        expires_by_itself(cache)

    in_child(child)
    assert "child" not in cache


def test_figures_and_listeners_go_on(cache: QuickCache) -> None:
    """Counts are continued, listeners are told, in each process for itself."""
    told: list[str] = []
    cache.subscribe(lambda event: told.append(event.key))
    cache.set("k", 1)
    cache.get("k")
    count = len(told)

    def child() -> None:
        cache.get("k")
        cache.delete("k")
        assert cache.get_metrics_snapshot()["hits"] == 2
        assert len(told) == count + 2

    in_child(child)
    assert cache.get_metrics_snapshot()["hits"] == 1
    assert len(told) == count


def test_a_stopped_cache_stays_stopped(cache: QuickCache) -> None:
    """`stop` before the fork holds after it."""
    cache.set("k", 1, 100.0)
    cache.stop()

    def child() -> None:
        cache.set("other", 1, 100.0)
        assert not maintenance.is_running
        assert cache.get("k") == 1

    in_child(child)


# At a bad moment


@pytest.mark.parametrize("policy", [*BUILT_IN, "tests.core.books:OwnBooks"])
def test_fork_while_threads_write(policy: str) -> None:
    """The child gets whole books, whatever the parent's threads were at, and never waits for them."""
    cache = make(eviction_policy=policy, max_size=100)
    numbers = itertools.count()

    def write() -> None:
        n = next(numbers)
        key = f"k{n % 150}"
        cache.set(key, f"{key}|{n}", (None, NEVER, 0.001)[n % 3])
        cache.get(f"k{n % 70}", None)
        if n % 5 == 0:
            cache.delete(f"k{n % 149}", missing_ok=True)
        if n % 1000 == 0:
            cache.clear()
        if n % 7 == 0:
            cache.incr("n", initial=0)

    def child() -> None:
        check_books(cache, held)
        for key, value in cache.get_many(f"k{n}" for n in range(150)).items():
            assert value.partition("|")[0] == key
        for n in range(300):
            cache.set(f"c{n}", n)
        assert cache.size() == 100
        cache.incr("n", initial=0)
        check_books(cache, held)

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with running(write, write, write, write):
            for n in range(8):
                in_child(child if n else lambda: (child(), expires_by_itself(cache)))
    finally:
        sys.setswitchinterval(usual)
    expires_by_itself(cache)
    check_books(cache, held)
    cache.stop()


def test_fork_while_threads_make_caches() -> None:
    """The child can make caches, find named ones, switch them off and listen."""
    numbers = itertools.count()
    old = make(location="test-fork-making")
    old.set("k", 1)

    def make_some() -> None:
        n = next(numbers)
        make().set("k", 1, 0.01)
        cache = make(location=f"test-fork-{n % 20}")
        cache.set("k", n, 5.0)
        with cache.disabled(), old.disabled():
            pass
        cache.subscribe(lambda event: None)()

    def child() -> None:
        for n in range(20):
            cache = make(location=f"test-fork-{n}")
            cache.set("own", n)
            assert cache.get("own") == n
            with cache.disabled(), old.disabled():
                assert cache.get("own", None) is None
            cache.subscribe(lambda event: None)()
        new = make()
        expires_by_itself(new)
        assert make(location="test-fork-making").max_size == 1000

    with running(make_some, make_some, make_some):
        for _ in range(10):
            in_child(child)
    make_some()


def test_forks_of_several_threads(cache: QuickCache) -> None:
    """Two threads may fork at once, while a third one writes."""
    numbers = itertools.count()

    def fork() -> None:
        in_child(lambda: (cache.set("child", 1, 5.0), check_books(cache, held)))

    def write() -> None:
        cache.set(f"k{next(numbers) % 2000}", 1)

    end = time.monotonic() + 1.0
    with running(fork, fork, write):
        while time.monotonic() < end:
            time.sleep(0.05)
    expires_by_itself(cache)
    check_books(cache, held)


def test_many_caches() -> None:
    """All of them are there in the child, and are swept."""
    caches = [make(location=f"test-fork-many-{n}" if n % 2 else "") for n in range(100)]
    for n, cache in enumerate(caches):
        cache.set("k", n, 100.0)

    def child() -> None:
        for n, cache in enumerate(caches):
            assert cache.get("k") == n
        for cache in caches:
            cache.set("short", 1, 0.01)
        for _ in poll(PATIENCE / 3):
            if all(cache.size() == 1 for cache in caches):
                assert sum("quickcache" in thread.name for thread in threading.enumerate()) == 1
                return
        raise AssertionError("some are not swept")

    in_child(child)
    for cache in caches:
        cache.stop()


def test_fork_while_a_writer_is_stuck(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After a moment of patience the child gets an empty cache rather than torn books, and a warning."""
    monkeypatch.setattr(memory, "_FORK_PATIENCE", 0.1)
    in_write, go_on = threading.Event(), threading.Event()

    class Stuck(BaseEvictionPolicy):
        def on_add(self, cache: Any, key: str) -> None:
            if key == "stuck":
                in_write.set()
                go_on.wait(PATIENCE)

        def select_eviction_key(self, cache: Any) -> str:
            return next(iter(cache))

    cache = make(eviction_policy=Stuck)
    cache.set("k", 1)
    thread = threading.Thread(target=cache.set, args=("stuck", 1))
    thread.start()
    assert in_write.wait(PATIENCE)

    def child() -> None:
        assert cache.size() == 0
        assert "child's cache starts empty" in caplog.text
        cache.set("k", 2)
        assert cache.get("k") == 2
        expires_by_itself(cache)
        check_books(cache)

    try:
        in_child(child)
    finally:
        go_on.set()
        thread.join()
    assert cache.get_many(["k", "stuck"]) == {"k": 1, "stuck": 1}
    check_books(cache)
    cache.stop()


@pytest.mark.parametrize("in_the_middle", [True, False], ids=["of a write", "after it"])
def test_fork_by_a_finaliser(in_the_middle: bool) -> None:
    """Parent and child return from the same call, and both can go on."""
    parent = os.getpid()
    children: list[int] = []

    def fork() -> None:
        child = os.fork()
        if child:
            children.append(child)

    class Value:
        def __del__(self) -> None:
            if not in_the_middle:
                fork()

    class Forking(BaseEvictionPolicy):
        def on_update(self, cache: Any, key: str) -> None:
            # As if the garbage collector had run a finaliser here.
            if in_the_middle and not children:
                fork()

        def select_eviction_key(self, cache: Any) -> str:
            return next(iter(cache))

    cache = make(eviction_policy=Forking)
    cache.set("k", Value())
    cache.set("other", 1)
    try:
        cache.set("k", 2)
        cache.set("after", 3)
        if os.getpid() == parent:
            assert cache.get("k") == 2
        check_books(cache)
        assert cache.get("after") == 3
        expires_by_itself(cache)
        cache.delete_many(["k"])
        assert "k" not in cache
        in_time = threading.Thread(target=cache.set, args=("by another thread", 1), daemon=True)
        in_time.start()
        in_time.join(PATIENCE)
        assert not in_time.is_alive()
    except BaseException:
        if os.getpid() != parent:
            traceback.print_exc()
            os._exit(1)
        raise
    if os.getpid() != parent:
        os._exit(0)
    assert [wait_for(child) for child in children] == [0]
    cache.stop()


def test_fork_while_finalisers_use_the_cache(cache: QuickCache) -> None:
    """Nothing that was put off in the parent is lost or done twice in the child."""

    class Value:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            cache.incr("gone", initial=0)

    def write() -> None:
        for n in range(50):
            cache.set(f"k{n % 10}", Value())
        gc.collect(0)

    with running(write, write):
        for _ in range(5):
            in_child(lambda: (cache.incr("gone", initial=0), check_books(cache, held)))
    check_books(cache, held)
    cache.clear()


# In other ways


def _in_process(cache: QuickCache, results: Any) -> None:
    expires_by_itself(cache)
    results.put(cache.get("k"))


def test_multiprocessing(cache: QuickCache) -> None:
    """Its children by fork inherit the cache."""
    context = multiprocessing.get_context("fork")
    cache.set("k", "inherited", NEVER)
    results = context.Queue()
    # Not as an argument: caches can't be pickled, nor need they be.
    processes = [context.Process(target=lambda: _in_process(cache, results)) for _ in range(3)]
    for process in processes:
        process.start()
    assert [results.get(timeout=PATIENCE) for _ in processes] == ["inherited"] * 3
    for process in processes:
        process.join(PATIENCE)
        assert process.exitcode == 0


FORK_IN_SECRET = """
import ctypes, faulthandler, os, sys, time
from quickcache_core import NEVER, QuickCache, QuickCacheConfig
from quickcache_core.maintenance import maintenance
faulthandler.dump_traceback_later(30, exit=True)
cache = QuickCache(QuickCacheConfig(cleanup_interval=0.5))
cache.set("k", 1, NEVER)
if sys.argv[1] == "used":
    # And the thread is asleep by then: nobody can help who forks in secret while a thread is at work.
    cache.set("short", 1, 0.01)
    while cache.get_metrics_snapshot()["expired_removals"] < 1:
        time.sleep(0.01)
    time.sleep(0.1)
child = ctypes.PyDLL(None).fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
faulthandler.enable()
if sys.argv[2] == "told afterwards":
    ctypes.pythonapi.PyOS_AfterFork_Child()
assert cache.get("k") == 1
assert not maintenance.is_running
for n in range(300):
    cache.set(f"k{n}", n, 0.01)
end = time.monotonic() + 20.0
while cache.get_metrics_snapshot()["expired_removals"] < 250 and time.monotonic() < end:
    time.sleep(0.01)
assert time.monotonic() < end
assert maintenance.is_running
os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="calls the C library by its Linux name")
@pytest.mark.parametrize("used", ["used", "unused"])
@pytest.mark.parametrize("told", ["not told", "told afterwards"])
def test_fork_that_python_is_not_told_of(used: str, told: str) -> None:
    """As uWSGI's master forks: no hook runs, or only those of the child, and it sweeps all the same."""
    if told == "told afterwards" and sys.version_info >= (3, 13):
        pytest.skip("Python itself does not survive this any more")
    result = subprocess.run(
        [sys.executable, "-c", FORK_IN_SECRET, used, told],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_children_exit_at_once() -> None:
    """A child that ends in the usual way waits for no thread of its parent, however it was forked."""
    code = """
import ctypes, os, sys, time
from quickcache_core import QuickCache, QuickCacheConfig
cache = QuickCache(QuickCacheConfig(cleanup_interval=60.0))
cache.set("k", 1, 5.0)
fork = ctypes.PyDLL(None).fork if sys.argv[1] == "libc" else os.fork
child = fork()
if child == 0:
    if sys.argv[2] == "used":
        cache.set("child", 1, 5.0)
    sys.exit(0)
began = time.monotonic()
_, status = os.waitpid(child, 0)
print(time.monotonic() - began < 0.8, os.waitstatus_to_exitcode(status))
"""
    ways = [("os", "used"), ("os", "unused")]
    if sys.platform == "linux":
        ways += [("libc", "used"), ("libc", "unused")]
    for way in ways:
        for _ in range(3):
            result = subprocess.run(
                [sys.executable, "-c", code, *way], capture_output=True, text=True, timeout=60, check=False
            )
            if result.stdout == "True 0\n":
                break
        assert result.stdout == "True 0\n", (way, result)
        assert not [
            line for line in result.stderr.splitlines() if "Deprecat" not in line and "fork" not in line
        ]


def test_locks_are_free_in_the_child(cache: QuickCache) -> None:
    """Those of the store and of the maintenance, also if another thread had them."""
    hold, held_by_other = threading.Event(), threading.Event()

    def keep() -> None:
        with maintenance._lock:
            held_by_other.set()
            hold.wait(PATIENCE)

    thread = threading.Thread(target=keep, daemon=True)
    cache.set("k", 1)
    thread.start()
    held_by_other.wait(PATIENCE)
    timer = threading.Timer(0.3, hold.set)
    timer.start()

    def child() -> None:
        assert store_of(cache).lock.acquire(timeout=1.0)
        store_of(cache).lock.release()
        expires_by_itself(cache)
        with contextlib.suppress(CacheMiss):
            cache.pop("k")

    in_child(child)
    thread.join()
    timer.join()
