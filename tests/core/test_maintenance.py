"""The background thread: one for all caches, there when it is needed, gone when it isn't, hard to kill."""

from __future__ import annotations

import contextlib
import gc
import logging
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from quickcache_core import NEVER, EventKind, QuickCache, QuickCacheConfig
from quickcache_core.maintenance import Maintenance, maintenance
from quickcache_core.testing import ManualClock, check_books
from quickcache_core.testing.books import store_of

NAME = "quickcache-maintenance"
PATIENCE = 30.0


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


def until(condition: Callable[[], object], why: str = "") -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, why or "it did not come true"
        time.sleep(0.005)


def make(**settings: Any) -> QuickCache:
    return QuickCache(QuickCacheConfig.from_mapping({"cleanup_interval": 0.02, **settings}))


def ended() -> bool:
    """Whether the thread has. Those that it works for are dismissed first, whoever asks for it again."""
    for member in list(maintenance._intervals):
        maintenance.dismiss(member)
    # Members that are gone are noticed when the thread wakes up, which may be an hour hence.
    maintenance._note_change()
    return not threads()


@pytest.fixture(autouse=True)
def _nobody_else() -> Iterator[None]:
    """Caches of other tests are dropped, and the thread has ended, before and after."""
    for _ in range(2):
        gc.collect()
        until(ended, "the thread goes on although nobody needs it")
        if _ == 0:
            yield


# When there is one


def test_nothing_starts_without_need() -> None:
    """Not with a cache, nor with reads, nor with entries that have no end."""
    cache = make()
    cache.get("k", None)
    cache.set("k", 1, NEVER)
    cache.set_many({"a": 1, "b": 2}, NEVER)
    cache.incr("n", initial=0, ttl_sec=NEVER)
    cache.delete("a")
    assert threads() == []
    assert not maintenance.is_running


@pytest.mark.parametrize(
    "write",
    [
        lambda cache: cache.set("k", 1, 0.05),
        lambda cache: cache.set_many({"k": 1}, 0.05),
        lambda cache: cache.add("k", 1, 0.05),
        lambda cache: cache.incr("k", initial=1, ttl_sec=0.05),
        lambda cache: (cache.set("k", 1, NEVER), cache.touch("k", 0.05)),
        lambda cache: (cache.set("k", 1, NEVER), cache.set("k", 1, 0.05)),
        lambda cache: (cache.set("k", 1, NEVER), cache.update("k", 1, 0.05)),
    ],
    ids=["set", "set_many", "add", "incr", "touch", "overwrite", "update"],
)
def test_first_deadline_starts_it(write: Callable[[QuickCache], object]) -> None:
    """Whichever operation it comes with; the entry leaves without any further call."""
    cache = make()
    write(cache)
    assert len(threads()) == 1
    until(lambda: cache.size() == 0, "the expired entry is still there")
    cache.stop()


def test_load_starts_it(tmp_path: Any) -> None:
    """Entries that come from a file expire as well."""
    first = make(storage_dir=tmp_path)
    first.set("k", 1, 0.4)
    path = first.save_to_disk()
    first.stop()
    until(lambda: not threads())
    second = make()
    second.load_from_disk(path)
    until(lambda: second.size() == 0)
    second.stop()


def test_one_for_all() -> None:
    """However many caches."""
    caches = [make(cleanup_interval=0.02 + n / 1000) for n in range(50)]
    for cache in caches:
        cache.set("k", 1, 0.01)
    assert len(threads()) == 1
    until(lambda: all(cache.size() == 0 for cache in caches))
    assert len(threads()) == 1
    for cache in caches:
        cache.stop()


def test_it_is_a_daemon() -> None:
    """It keeps no process alive."""
    cache = make()
    cache.set("k", 1, 5.0)
    assert [thread.daemon for thread in threads()] == [True]
    cache.stop()


# When it ends


def test_stop() -> None:
    """The cache can be used on; the last one to stop ends the thread; twice is fine."""
    one, other = make(), make()
    one.set("k", 1, 5.0)
    other.set("k", 1, 5.0)
    one.stop()
    one.stop()
    assert len(threads()) == 1
    other.stop()
    until(lambda: not threads())
    other.set("more", 1, 0.01)
    assert other.get("k") == 1
    time.sleep(0.05)
    assert threads() == []
    assert other.get("more", None) is None


def test_with_block() -> None:
    """The end of the block stops it."""
    with make() as cache:
        cache.set("k", 1, 5.0)
        assert maintenance.is_running
    until(lambda: not threads())


def test_dropped_caches_are_collected() -> None:
    """The thread keeps no cache alive, while it sleeps and in between; it ends after the last one."""
    caches = [make() for _ in range(5)]
    for cache in caches:
        cache.set("k", 1, 0.01)
    stores = [weakref.ref(store_of(cache)) for cache in caches]
    del cache, caches
    until(lambda: gc.collect() >= 0 and not any(store() for store in stores), "a store is kept alive")
    until(lambda: not threads(), "the thread goes on for nobody")
    cache = make()
    cache.set("k", 1, 0.01)
    until(lambda: cache.size() == 0)
    cache.stop()


def test_a_long_interval_keeps_nothing_alive() -> None:
    """Nor does the thread hold on to a cache for as long as it waits."""
    cache = make(cleanup_interval=1000.0)
    cache.set("k", 1, 0.01)
    time.sleep(0.05)
    store = weakref.ref(store_of(cache))
    del cache
    gc.collect()
    assert store() is None


def test_named_stores_go_on() -> None:
    """A store that is shared by name is swept although one of its caches was stopped or dropped."""
    first = make(location="test-maintenance")
    second = make(location="test-maintenance")
    first.set("k", 1, 0.01)
    first.stop()
    del first
    gc.collect()
    until(lambda: second.size() == 0)
    maintenance.dismiss(store_of(second))


# How often


def test_each_interval_is_kept() -> None:
    """A short one isn't slowed down by a long one, which isn't hurried either."""
    quick, slow = make(cleanup_interval=0.02), make(cleanup_interval=1000.0)
    slow.set("k", 1, 0.01)
    quick.set("k", 1, 0.01)
    until(lambda: quick.size() == 0)
    for _ in range(3):
        quick.set("k", 1, 0.01)
        until(lambda: quick.size() == 0)
    assert slow.size() == 1
    quick.stop()
    slow.stop()


def test_a_new_member_is_seen_at_once() -> None:
    """Although the thread is asleep for longer."""
    slow = make(cleanup_interval=1000.0)
    slow.set("k", 1, 0.01)
    time.sleep(0.05)
    quick = make(cleanup_interval=0.02)
    quick.set("k", 1, 0.01)
    until(lambda: quick.size() == 0)
    quick.stop()
    slow.stop()


@pytest.mark.parametrize("settings", [{"cleanup_interval": 1000.0}, {"cleanup_interval": 0.1}])
def test_no_spinning(settings: dict[str, float]) -> None:
    """It wakes up once per interval, whatever is due or written meanwhile."""
    cache = make(**settings)
    sweeps = 0
    sweep = store_of(cache).sweep

    def counting() -> int:
        nonlocal sweeps
        sweeps += 1
        return sweep()

    store_of(cache).sweep = counting  # type: ignore[method-assign]
    before = time.thread_time(), time.monotonic()
    for n in range(500):
        cache.set(f"k{n}", n, 0.001 * n + 0.001)
        time.sleep(0.001)
    passed = time.monotonic() - before[1]
    assert sweeps <= passed / settings["cleanup_interval"] + 1
    cache.stop()


def test_writes_do_not_ask_each_time() -> None:
    """256 writes with one TTL come to one or two requests."""
    cache = make(cleanup_interval=1000.0, clock=ManualClock())
    requests = 0
    wake = store_of(cache)._wake

    def counting(store: Any) -> None:
        nonlocal requests
        requests += 1
        assert wake is not None
        wake(store)

    store_of(cache)._wake = counting
    for n in range(10_000):
        cache.set(f"k{n % 500}", n, 300.0)
    assert requests <= 3
    for n in range(10_240):
        cache.set(f"new{n}", n, 300.0)
    assert requests <= 60
    cache.stop()


# Hard to kill


class Member:
    """Something to be swept, which may fail."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.sweeps = 0

    def sweep(self) -> int:
        self.sweeps += 1
        if self.error is not None:
            raise self.error
        return 0

    def before_fork(self) -> bool:
        return True

    def after_fork_in_parent(self, held: bool) -> None:
        pass

    def after_fork_in_child(self, held: bool) -> None:
        pass


def test_a_member_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, tried again in its interval, and the others are swept."""
    bad, good = Member(RuntimeError("sweep")), Member()
    with caplog.at_level(logging.CRITICAL, logger="quickcache_core.maintenance"):
        maintenance.wake(bad, 0.02)
        maintenance.wake(good, 0.02)
        until(lambda: bad.sweeps > 3 and good.sweeps > 3)
        maintenance.dismiss(bad)
        maintenance.dismiss(good)
    assert len(threads()) <= 1


def test_failures_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With their traceback."""
    bad = Member(RuntimeError("sweep failed"))
    maintenance.wake(bad, 0.02)
    until(lambda: bad.sweeps > 0)
    maintenance.dismiss(bad)
    until(lambda: not threads())
    assert any(record.exc_info and "sweep failed" in str(record.exc_info[1]) for record in caplog.records)


def test_a_member_that_raises_at_a_fork() -> None:
    """The other members hear of the fork, on both sides, and there can be further ones."""
    # In a process of its own, for one that waits for a lock which nobody lets go of can't be ended otherwise.
    code = """
import logging, os
from quickcache_core.maintenance import maintenance

class Member:
    def __init__(self): self.told = []
    def before_fork(self): return True
    def after_fork_in_parent(self, held): self.told.append("parent")
    def after_fork_in_child(self, held): self.told.append("child")

class Bad(Member):
    def after_fork_in_parent(self, held): raise RuntimeError
    after_fork_in_child = after_fork_in_parent

logging.disable()
members = [Member(), Bad(), Member(), Bad(), Member()]
for member in members:
    maintenance.adopt(member)
for _ in range(2):
    child = os.fork()
    if child == 0:
        print([one.told for one in members if type(one) is Member], flush=True)
        os._exit(0)
    os.waitpid(child, 0)
print([one.told for one in members if type(one) is Member])
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    told = [[[*forks, "child"]] * 3 for forks in ([], ["parent"])] + [[["parent", "parent"]] * 3]
    assert result.stdout.splitlines() == [str(one) for one in told], result


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_is_replaced() -> None:
    """By the next write that needs one."""
    bad = Member(SystemExit())
    maintenance.wake(bad, 0.02)
    until(lambda: bad.sweeps > 0)
    time.sleep(0.05)
    maintenance.dismiss(bad)
    cache = make()
    cache.set("k", 1, 0.01)
    until(lambda: cache.size() == 0)
    assert maintenance.is_running
    cache.stop()


def test_a_listener_that_raises() -> None:
    """Sweeping goes on."""
    cache = make()

    def fail(event: object) -> None:
        raise RuntimeError("listener")

    cache.subscribe(fail, [EventKind.REMOVED])
    logging.getLogger("quickcache_core.events").disabled = True
    try:
        for n in range(3):
            cache.set(f"k{n}", n, 0.01)
            until(lambda: cache.size() == 0)
    finally:
        logging.getLogger("quickcache_core.events").disabled = False
    check_books(cache)
    cache.stop()


def test_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none can be started, writes succeed, and sweep; the next request tries again."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    clock = ManualClock()
    cache = make(clock=clock, max_size=100_000)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for n in range(5000):
            cache.set(f"k{n}", n, 1.0)
            clock.advance(0.01)
        assert cache.size() < 1000
    assert threads() == []
    for n in range(600):
        cache.set(f"more{n}", n, 1.0)
    assert len(threads()) == 1
    cache.stop()


def test_members_come_and_go_from_many_threads() -> None:
    """Nobody is lost, nothing is raised, and in the end there is one thread, or none."""
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for n in range(40):
                cache = make()
                cache.set("k", 1, 0.01)
                if n % 3 == seed % 3:
                    cache.stop()
                elif n % 3 == 0:
                    until(lambda cache=cache: cache.size() == 0)  # type: ignore[misc]
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert errors == []
    assert len(threads()) <= 1
    cache = make()
    cache.set("k", 1, 0.01)
    until(lambda: cache.size() == 0)
    cache.stop()


@pytest.mark.slow
def test_a_finaliser_while_the_thread_is_being_looked_after() -> None:
    """A finaliser may run under the lock of the maintenance, too, and wait there for a store."""
    # In a process of its own: two threads that wait for each other would hold up all other tests.
    result = run(
        """
import os, threading, time
from quickcache_core import NEVER, QuickCache, QuickCacheConfig
from quickcache_core.maintenance import maintenance
cache = QuickCache()
store = cache._real_store
has_lock, asks = threading.Event(), threading.Event()
wake = store._wake
def announced(store):
    asks.set()
    wake(store)
store._wake = announced
def finaliser():
    with maintenance._lock:
        has_lock.set()
        asks.wait(10.0)
        time.sleep(0.05)
        cache.set("by a finaliser", 1, NEVER)
def write():
    has_lock.wait(10.0)
    cache.set("k", 1, 5.0)
both = [threading.Thread(target=work, daemon=True) for work in (finaliser, write)]
for thread in both:
    thread.start()
for thread in both:
    thread.join(5.0)
print(any(thread.is_alive() for thread in both), cache.size(), maintenance.is_running, flush=True)
os._exit(0)
""",
        within=20.0,
    )
    assert result.stdout == "False 2 True\n", "they wait for each other"


def test_an_instance_of_its_own() -> None:
    """The class has no state outside of its instances."""
    own = Maintenance()
    member = Member()
    own.adopt(member)
    own.wake(member, 0.01)
    until(lambda: member.sweeps > 2)
    assert own.is_running
    assert not maintenance.is_running
    own.dismiss(member)
    until(lambda: not own.is_running)
    own._shut_down()


# The end of the process


def run(code: str, *, within: float) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter, warnings being errors. It has a few chances, for the sake of busy machines."""
    began = passed = 0.0
    result = None
    for _ in range(3):
        began = time.monotonic()
        result = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", code],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        passed = time.monotonic() - began
        if passed < within:
            break
    assert result is not None
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert passed < within
    return result


@pytest.mark.slow
@pytest.mark.parametrize("interval", [0.01, 3600.0])
def test_exit_is_quick_and_clean(interval: float) -> None:
    """With a thread at work, or asleep for an hour."""
    run(
        f"""
from quickcache_core import QuickCache, QuickCacheConfig
cache = QuickCache(QuickCacheConfig(cleanup_interval={interval}, max_size=100_000))
cache.set_many({{f"k{{n}}": n for n in range(20_000)}}, 0.05)
""",
        within=5.0,
    )


@pytest.mark.slow
def test_exit_while_another_thread_writes() -> None:
    """A thread that isn't a daemon ends in its own time; daemons that write are no trouble either."""
    result = run(
        """
import threading, time
from quickcache_core import QuickCache, QuickCacheConfig
cache = QuickCache(QuickCacheConfig(cleanup_interval=0.01))
def write(count):
    n = 0
    while n < count:
        n += 1
        cache.set(f"k{n % 5000}", n, 0.001)
        if n % 50 == 0:
            time.sleep(0.001)
    print("done", flush=True)
threading.Thread(target=write, args=(5000,)).start()
threading.Thread(target=write, args=(10**12,), daemon=True).start()
""",
        within=15.0,
    )
    assert result.stdout == "done\n"


@pytest.mark.slow
def test_first_write_at_exit() -> None:
    """When no thread can be started any more, a write is still a write."""
    result = run(
        """
import atexit
from quickcache_core import QuickCache, QuickCacheConfig
early = QuickCache()
late = QuickCache()
def at_exit():
    for cache in (early, late):
        cache.set("k", 1, 5.0)
        print(cache.get("k"))
atexit.register(at_exit)
early.set("k", 0, 5.0)
""",
        within=5.0,
    )
    assert result.stdout == "1\n1\n"


@pytest.mark.slow
def test_caches_in_module_globals_at_exit() -> None:
    """Values whose finalisers use the cache while the interpreter goes down."""
    run(
        """
from quickcache_core import QuickCache, QuickCacheConfig
cache = QuickCache(QuickCacheConfig(cleanup_interval=0.01))
class Value:
    def __del__(self, cache=cache):
        cache.set("again", 1, 5.0)
        cache.get("k", None)
for n in range(100):
    cache.set(f"k{n}", Value(), 5.0)
""",
        within=5.0,
    )


def test_sweeping_while_others_write() -> None:
    """The thread sweeps a large cache while it is in use; nothing is lost that hasn't expired."""
    cache = make(max_size=200_000, cleanup_interval=0.01)
    cache.set_many({f"keep{n}": n for n in range(1000)}, 500.0)
    for n in range(30):
        cache.set_many({f"k{n}.{i}": i for i in range(500)}, 0.001 + (n % 7) / 100)
    until(lambda: cache.size() == 1000)
    assert len(cache.get_many(f"keep{n}" for n in range(1000))) == 1000
    with contextlib.closing(cache):
        check_books(cache)


def test_finalisers_run_by_the_thread_itself() -> None:
    """Wherever the garbage collector runs a finaliser in the maintenance thread, that may ask for work."""
    # In a process of its own: the thread that waits for itself would hold up all other tests. A profiler's
    # hook stands for the finaliser, in each place where Python calls or returns.
    code = """
import os, random, sys, threading
from quickcache_core.maintenance import maintenance

class Member:
    def sweep(self): swept.release()

swept = threading.Semaphore(0)
members = [Member() for _ in range(3)]
inside = False
def finaliser(frame, event, argument):
    global inside
    if not inside and random.random() < 0.2:
        inside = True
        maintenance.wake(random.choice(members), random.uniform(0.001, 0.01))
        inside = False
threading.setprofile(finaliser)
maintenance.wake(members[0], 0.001)
print(all(swept.acquire(timeout=10.0) for _ in range(200)), flush=True)
os._exit(0)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stdout == "True\n", result
