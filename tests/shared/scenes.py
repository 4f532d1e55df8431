"""What processes of the tests do: called by name, with the cache, in a process of their own."""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quickcache_core import QuickCache, QuickCacheConfig
from quickcache_core.entry import FOREVER
from quickcache_core.maintenance import maintenance
from quickcache_core.serializer.isolation import thaw
from quickcache_core.store.base import Bounds
from quickcache_core.store.life import ASK, Found, Life, tag_slot
from quickcache_core.store.shared import directory as shared_directory
from quickcache_core.store.shared import environment, open_files
from quickcache_core.store.shared.fork_mark import MarkByPid
from tests.waiting import readable

_kept: list[Any] = []


def connection_of(cache: QuickCache) -> Any:
    return cache._store._connection  # type: ignore[attr-defined]


def store_of(cache: QuickCache) -> Any:
    return cache._store


def stay_in_a_read(cache: QuickCache) -> None:
    """Begin a read transaction and never end it."""
    link = connection_of(cache)
    link.ready()
    _kept.append(link._environment.begin())


def increment(cache: QuickCache, tally: str) -> None:
    """Increment until killed, and count what returned in a file."""
    with Path(tally).open("ab", buffering=0) as file:
        while True:
            cache.incr("n")
            file.write(b"1")


def tell_forks_by_pid(cache: QuickCache) -> None:
    """As where the kernel wipes no pages."""
    link = connection_of(cache)
    link._mark = MarkByPid()
    link._mark[0] = 1


def replace_files_within(cache: QuickCache, operation: str, args: list[Any]) -> None:
    """Call a method that writes, and have the directory replaced in the middle of it: after its commit,
    before it knows.
    """
    link = connection_of(cache)
    commit = link._commit

    def notice() -> None:
        link._next_look = 0.0
        link.ready()

    def commit_and_lose_it(txn: Any, slots: list[int]) -> int:
        label: int = commit(txn, slots)
        shutil.rmtree(link.path)
        # As when another thread looks whether the files are still the same.
        other = threading.Thread(target=notice)
        other.start()
        other.join()
        return label

    link._commit = commit_and_lose_it
    try:
        getattr(cache, operation)(*args)
    finally:
        del link._commit


def no_background_thread(cache: QuickCache) -> None:
    maintenance.wake = lambda member, interval: None  # type: ignore[method-assign]


def wait(cache: QuickCache, seconds: float) -> None:
    time.sleep(seconds)


def readers(cache: QuickCache) -> list[int]:
    """The processes that have a slot in LMDB's table of readers."""
    link = connection_of(cache)
    link.ready()
    lines = link._environment.readers().splitlines()[1:]
    return [int(line.split()[0]) for line in lines if line.split()]


def descriptors(cache: QuickCache) -> list[str]:
    """What is open in this process, of files in the cache's directory."""
    directory = str(connection_of(cache).path)
    found = []
    for one in Path("/proc/self/fd").iterdir():
        try:
            path = str(one.readlink())
        except FileNotFoundError:
            continue
        if path.startswith(directory):
            found.append(path[len(directory) + 1 :])
    return sorted(found)


def fill(cache: QuickCache, entries: int, value: str) -> None:
    for n in range(entries):
        cache.set(f"more{n}", value)


def write_for_ever(cache: QuickCache) -> None:
    n = 0
    while True:
        n += 1
        cache.set(f"k{n % 5}", n)
        cache.delete(f"k{n % 3}", missing_ok=True)
        cache.incr("theirs", initial=0)
        if n % 50 == 0:
            cache.set_many({f"many{m}": "x" * 2000 for m in range(50)}, 0.01)


def increment_in_threads(cache: QuickCache, threads: int, times: int) -> int:
    """How many increments failed."""
    failed: list[Exception] = []

    def count() -> None:
        for _ in range(times):
            try:
                cache.incr("n")
            except Exception as error:
                failed.append(error)

    running = [threading.Thread(target=count) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return len(failed)


def open_impatiently(_: None) -> None:
    shared_directory._OPENING_PATIENCE = 0.2  # type: ignore[misc]


# Forks


def start_writers(cache: QuickCache, threads: int) -> None:
    def write(n: int) -> None:
        count = 0
        while True:
            count += 1
            cache.set(f"writer{n}", count)
            # Never near: it takes a slot among the readers.
            cache.get(f"nothing{n} {count}", None)
            if count % 10 == 0:
                time.sleep(0.001)  # others want to write, too

    for n in range(threads):
        threading.Thread(target=write, args=(n,), daemon=True).start()


def _fork(hooks: bool = True) -> int:
    # Not CDLL: that lets go of the interpreter's lock. A child in which another thread has it waits for ever.
    return os.fork() if hooks else int(ctypes.PyDLL(None).fork())


def _in_child(work: Callable[[], Any], *, hooks: bool = True) -> Any:
    """What `work` returns in a child process; an error's text if it raises, and a complaint if it hangs."""
    reading, writing = os.pipe()
    child = _fork(hooks)
    if child == 0:
        try:
            answer = work()
        except BaseException:
            answer = traceback.format_exc()
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        ready = readable(file, 20.0)
        if not ready:
            os.kill(child, signal.SIGABRT)
        answer = file.read()
    os.waitpid(child, 0)
    return json.loads(answer) if answer else "the child hung" if not ready else "the child died"


def fork_and_compare(cache: QuickCache, depth: int, used: bool, hooks: bool, level: int = 1) -> list[str]:
    """In `depth` generations: "ok", or what went wrong, for each."""

    def child() -> list[str]:
        if used:
            assert cache.get("before") == 1
        if level > 1:
            assert cache.get(f"from depth {level - 1}") == "child"
        name = f"from depth {level}"
        cache.set(name, "child")
        assert connection_of(cache).pid == os.getpid(), "it wrote by what it inherited"
        assert cache.get(name) == "child"
        assert cache.incr("n", initial=0) == level
        assert cache.add(f"added {level}", 1, exist_ok=True)
        assert cache.metrics().store_errors == 0
        further = fork_and_compare(cache, depth, used, hooks, level + 1) if level < depth else []
        if level < depth:
            assert cache.get(f"from depth {level + 1}") == "child"
        return ["ok", *further]

    answer = _in_child(child, hooks=hooks)
    if not isinstance(answer, list):
        return [answer]
    assert cache.get(f"from depth {level}") == "child"
    assert cache.get("n") == depth
    return answer


def fork_and_end(cache: QuickCache, ending: str) -> None:
    """A child that uses the cache and ends: at once, as programs do, or killed."""
    cache.set("fork", os.getpid())
    child = os.fork()
    if child == 0:
        try:
            assert cache.get("fork") == os.getppid()
            cache.set(f"child{os.getpid() % 7}", 1)
            assert cache.metrics().store_errors == 0
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        if ending == "_exit":
            os._exit(0)
        if ending == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        # What the interpreter does at its end, without what the caller left on the stack.
        atexit._run_exitfuncs()
        gc.collect()
        ctypes.CDLL(None).exit(0)
    end = time.monotonic() + 20.0
    found = status = 0
    while not found:
        found, status = os.waitpid(child, os.WNOHANG)
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError("the child hung")
        time.sleep(0.001)
    code = os.waitstatus_to_exitcode(status)
    assert code == (-signal.SIGKILL if ending == "kill" else 0), f"the child ended with {code}"


def fork_and_stay(cache: QuickCache) -> int:
    """The id of a child that goes on using the cache."""
    cache.get("k")
    child = os.fork()
    if child == 0:
        # Not one who keeps the pipes of the tests open.
        os.closerange(0, 2)
        while True:
            cache.incr("beats", initial=0)
            time.sleep(0.005)
    while cache.get("beats", 0) < 3:
        time.sleep(0.005)
    return child


def fork_and_race(cache: QuickCache, threads: int) -> str:
    def child() -> str:
        barrier = threading.Barrier(threads)
        failed: list[str] = []

        def use(n: int) -> None:
            barrier.wait()
            try:
                assert cache.get(f"nothing{n}", None) is None
                cache.set(f"k{n}", n)
                assert cache.get(f"k{n}") == n
                cache.delete(f"k{n}")
            except BaseException:
                failed.append(traceback.format_exc())

        running = [threading.Thread(target=use, args=(n,)) for n in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        errors = cache.metrics().store_errors
        return failed[0] if failed else f"{errors} errors" if errors else "ok"

    return str(_in_child(child, hooks=False))


def fork_and_lock(cache: QuickCache) -> dict[str, bool]:
    """Whether the lock that a child takes first of all is its own, and whether another thread does, too."""
    cache.lock("any")  # which opens their files

    def child() -> dict[str, bool]:
        lock = cache.lock("l", lease=3600.0)
        took = lock.acquire(wait=0)
        others: list[bool] = []
        other = threading.Thread(target=lambda: others.append(cache.lock("l").acquire(wait=0)))
        other.start()
        other.join()
        return {"took": took, "took again": others[0], "owned": lock.owned()}

    return dict(_in_child(child, hooks=False))


def descriptors_of_child(cache: QuickCache) -> list[str]:
    def child() -> list[str]:
        cache.get("k")
        cache.set("child", 1)
        return descriptors(cache)

    return list(_in_child(child))


def _increment_from_pool(location: str) -> int:
    global _pool_cache
    if _pool_cache is None:
        _pool_cache = QuickCache(QuickCacheConfig(location=location, max_bytes=4_000_000, default_ttl=None))
    _pool_cache.incr("n")
    return 1


_pool_cache: QuickCache | None = None


def increment_in_pool(cache: QuickCache, method: str, processes: int, each: int) -> int:
    context = multiprocessing.get_context(method)
    with context.Pool(processes) as pool:
        return sum(pool.map(_increment_from_pool, [cache.config.location] * processes * each))


def end_reads(cache: QuickCache) -> int:
    """How many reads that were begun were still good."""
    good = sum(txn.get(b"k") is not None for txn in _kept)
    for txn in _kept:
        txn.abort()
    _kept.clear()
    return good


def check_readers(cache: QuickCache) -> None:
    link = connection_of(cache)
    link.ready()
    link._environment.reader_check()


# py-lmdb's private name


def forget_processes_apart(_: None) -> None:
    environment._know_processes_apart = lambda identities: None


def remove_private_name(_: None) -> None:
    """As with a py-lmdb that has no such name."""
    original = environment._know_processes_apart
    environment._know_processes_apart = lambda identities: original(object())


def open_twice(_: None) -> str:
    """A child opens what its parent has open."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        held = environment.open_environment(path, 4_000_000, True, alone=True)

        def child() -> str:
            environment.never_close(held)
            environment.open_environment(path, 4_000_000, True, alone=False).begin().abort()
            return "ok"

        return str(_in_child(child))


# Trouble


def fill_up(cache: QuickCache, sizes: list[int], total: int) -> dict[str, int]:
    """Write so many bytes: how many calls raised, and how many reads gave another value than was written."""
    chance = random.Random(3)
    wrong = failed = 0
    while total > 0:
        size = chance.choice(sizes)
        key, value = f"fill{chance.randrange(10_000)}", f"{chance.random()}".ljust(size, "x")
        total -= size
        try:
            cache.set(key, value)
            wrong += cache.get(key, value) != value
        except Exception:
            traceback.print_exc()
            failed += 1
    return {"errors": failed, "wrong": wrong}


def limit(_: None, what: int, size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(what, (size, size))


def umask(_: None, mask: int) -> None:
    os.umask(mask)


def short_grace(cache: QuickCache) -> None:
    open_files._GRACE = 0.1  # type: ignore[misc]


def look(cache: QuickCache) -> None:
    connection_of(cache).look()


def others(_: None, directory: str) -> bool:
    """Whether others have the store open."""
    with shared_directory.SharedDirectory(Path(directory)).opening() as alone:
        return not alone


def use_for(cache: QuickCache, seconds: float) -> list[str]:
    """The errors that requests met meanwhile."""
    failed = []
    end = time.monotonic() + seconds
    n = 0
    while time.monotonic() < end:
        n += 1
        try:
            cache.set(f"k{n % 10}", n)
            cache.get(f"k{n % 7}", None)
            cache.incr("n", initial=0)
            cache.delete(f"k{n % 5}", missing_ok=True)
            cache.set_many({f"m{n % 10}": n, f"m{n % 11}": n}, 0.1)
        except Exception:
            failed.append(traceback.format_exc())
    return failed[:3]


def use_in_child(cache: QuickCache) -> list[Any]:
    def child() -> list[Any]:
        first = cache.get("k", "nothing")
        cache.set("k", 2)
        return [first, cache.get("k", "nothing")]

    return list(_in_child(child))


# Lives


_loads: dict[str, Any] = {}
_leases: dict[str, Any] = {}


def begin_load(cache: QuickCache, key: str) -> None:
    _loads[key] = store_of(cache).begin_load(key)


def end_load(cache: QuickCache, key: str, value: Any, *tags: str) -> bool:
    """Whether the value was stored."""
    life = Life(FOREVER, tags=tuple(map(tag_slot, tags)))
    return bool(store_of(cache).put_with(key, value, life, Bounds(1000), _loads.pop(key)))


def take_lease(cache: QuickCache, key: str) -> bool:
    """Whether this process got it; it keeps it."""
    lease = store_of(cache).try_lease(key)
    if lease is not None:
        _leases[key] = lease
    return lease is not None


def give_back_lease(cache: QuickCache, key: str) -> None:
    _leases.pop(key)()


def lease_over_fork(cache: QuickCache, key: str) -> list[bool]:
    """Whether a child gets the lease that its parent has, before and after it gives back what it inherited;
    and whether it gets another one.
    """

    def child() -> list[bool]:
        before = take_lease(cache, key)
        give_back_lease(cache, key)
        return [before, take_lease(cache, key), take_lease(cache, "another")]

    return list(_in_child(child))


def lease_given_back_after_a_fork(cache: QuickCache, key: str) -> bool:
    """Whether a child gets the lease that its parent had at the fork, and has given back since."""
    asked, asking = os.pipe()
    told, telling = os.pipe()

    def give_back() -> None:
        os.read(asked, 1)
        give_back_lease(cache, key)
        os.write(telling, b"1")

    def child() -> bool:
        os.write(asking, b"1")
        os.read(told, 1)
        return take_lease(cache, key)

    thread = threading.Thread(target=give_back)
    thread.start()
    answer = bool(_in_child(child))
    thread.join()
    return answer


def put_stale(cache: QuickCache, key: str, value: Any) -> None:
    """An entry that is stale at once."""
    assert store_of(cache).put_with(key, value, Life(1e-6, stale_ttl=1000.0), Bounds(1000))


def ask(cache: QuickCache, key: str) -> list[Any]:
    """What one gets who takes stale values: fresh, due, value; nothing for none."""
    found = store_of(cache).get(key, ASK)
    if found is ASK:
        return []
    if isinstance(found, Found):
        return [found.is_fresh, found.is_due, thaw(found.stored)]
    return [True, False, found]


def put_off(cache: QuickCache, key: str, seconds: float) -> None:
    store_of(cache).put_off(key, seconds)


def read_until(cache: QuickCache, key: str, seconds: float) -> bool:
    """Read again and again for so long; whether it was there each time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if cache.get(key, None) is None:
            return False
        time.sleep(0.005)
    return True


def generation(cache: QuickCache, name: str, begin: bool = False) -> int:
    store = store_of(cache)
    return int(store.next_generation(name) if begin else store.generation(name))
