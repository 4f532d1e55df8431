"""Locks: one holder at a time, and what becomes of a lock whose holder is slow, confused or gone."""

from __future__ import annotations

import _thread
import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import (
    NEVER,
    InvalidTTL,
    Lock,
    LockError,
    LockNotOwned,
    LockTimeout,
    QuickCache,
    QuickCacheConfig,
    StoreUnavailable,
)
from quickcache_core.store.shared import directory as shared_directory
from quickcache_core.store.shared.opening import shared_stores
from quickcache_core.testing import ManualClock, check_books
from tests.core.workers import ROOT

PATIENCE = 60.0
"""Seconds after which a process hangs."""

Make = Callable[..., QuickCache]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "shared"])
def make(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[Make]:
    """Makes caches of one location, with the manual clock."""
    location = f"shared://{tmp_path}/cache" if request.param == "shared" else f"memory://{tmp_path}"

    def one(**settings: Any) -> QuickCache:
        return QuickCache(QuickCacheConfig(**{"location": location, "clock": clock, **settings}))

    yield one
    close_all()


@pytest.fixture
def cache(make: Make) -> QuickCache:
    return make()


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "cache"
    close_all()


def close_all() -> None:
    for table in shared_stores._tables.values():
        table.connection.close()
    shared_stores.forget()


def in_thread(function: Callable[[], Any]) -> Any:
    """What a function gives in a thread of its own, or raises."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(PATIENCE)


class TestOneHolder:
    def test_a_block(self, cache: QuickCache) -> None:
        """Held within, free before and after."""
        lock = cache.lock("l")
        assert not lock.locked()
        with lock as same:
            assert same is lock
            assert lock.locked()
            assert lock.owned()
            assert cache.lock("l").locked()
        assert not lock.locked()
        assert not lock.owned()
        assert lock.token is None

    def test_a_block_that_fails(self, cache: QuickCache) -> None:
        """The lock is free, and the error goes on."""
        with pytest.raises(ZeroDivisionError), cache.lock("l"):
            raise ZeroDivisionError
        assert not cache.lock("l").locked()

    def test_somebody_else_has_it(self, cache: QuickCache) -> None:
        """`acquire` says so, at once or after a while; a block raises `LockTimeout` with the evidence."""
        with cache.lock("l"):
            other = cache.lock("l", wait=0.01)
            assert other.acquire(blocking=False) is False
            assert other.acquire(wait=0) is False
            assert other.acquire(wait=0.02) is False
            assert other.acquire() is False
            assert not other.owned()
            with pytest.raises(LockTimeout, match=r"'l' wasn't free within 0\.01 s") as caught, other:
                pass
            assert (caught.value.name, caught.value.seconds) == ("l", 0.01)

    def test_names(self, cache: QuickCache) -> None:
        """Different names are different locks; namespaces have their own, releases of a program don't."""
        namespace = cache.namespace("n")
        with cache.lock("a"), cache.lock("b"), namespace.lock("a"), namespace.namespace("a").lock("a"):
            assert not cache.namespace("m").lock("a").locked()
            assert namespace.lock("a").locked()

    def test_releases_share_locks(self, make: Make) -> None:
        """While one release takes the place of another, they still exclude each other."""
        with make(version="1").lock("l"):
            assert make(version="2").lock("l").locked()
            assert make().lock("l").locked()

    def test_odd_names(self, cache: QuickCache) -> None:
        """Any string but an empty one."""
        for name in ("ü☃🎉", "a" * 10_000, " ", "\0", "\x1f", "\ud800", "fence"):
            with cache.lock(name) as lock:
                assert cache.lock(name).locked()
                assert lock.fence() > 0
        for wrong in ("", None, 5, b"l"):
            with pytest.raises(ValueError, match="name="):
                cache.lock(wrong)  # type: ignore[arg-type]

    def test_threads(self, cache: QuickCache) -> None:
        """Never two at a time, and everybody gets it. One object or many makes no difference."""
        one = cache.lock("l", wait=PATIENCE)
        inside = most = 0

        def work(number: int) -> None:
            nonlocal inside, most
            lock = one if number % 2 else cache.lock("l", wait=PATIENCE)
            for _ in range(20):
                with lock:
                    inside += 1
                    most = max(most, inside)
                    time.sleep(0)
                    inside -= 1

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6)))
        assert (inside, most) == (0, 1)

    def test_tasks(self, cache: QuickCache) -> None:
        """The same of coroutines, which share a thread; others run while one waits."""
        inside = most = 0
        one = cache.lock("l", wait=PATIENCE)

        async def work() -> None:
            nonlocal inside, most
            async with one:
                assert await one.aowned()
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0.002)
                inside -= 1

        async def main() -> None:
            await asyncio.gather(*(work() for _ in range(10)))
            assert not await one.alocked()

        asyncio.run(main())
        assert (inside, most) == (0, 1)

    def test_a_task_that_is_cancelled_while_it_waits(self, cache: QuickCache) -> None:
        """It holds nothing, and leaves nothing behind."""

        async def main() -> None:
            async with cache.lock("l") as held:
                waiting = asyncio.create_task(cache.lock("l").aacquire())
                await asyncio.sleep(0.01)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                assert await held.aowned()
            assert await cache.lock("l").aacquire(wait=0)

        asyncio.run(main())

    def test_taken_twice(self, cache: QuickCache) -> None:
        """A thread that has it is told, instead of waiting for itself; other threads may wait for it."""
        lock = cache.lock("l")
        with lock:
            with pytest.raises(LockError, match="reentrant"):
                lock.acquire()
            assert lock.owned()
            assert in_thread(lambda: lock.acquire(wait=0)) is False
            assert in_thread(lock.owned) is False

    def test_taken_twice_by_a_task(self, cache: QuickCache) -> None:
        """The same of a task; a task within it is another one."""
        lock = cache.lock("l")

        async def main() -> None:
            async with lock:
                with pytest.raises(LockError, match="reentrant"):
                    await lock.aacquire()
                assert await asyncio.create_task(lock.aacquire(wait=0)) is False

        asyncio.run(main())


class TestInterruptions:
    def test_while_it_waits(self, cache: QuickCache) -> None:
        """It holds nothing, and the error goes on."""
        with cache.lock("l") as held:
            threading.Timer(0.01, _thread.interrupt_main).start()
            with pytest.raises(KeyboardInterrupt):
                cache.lock("l").acquire()
            assert held.owned()
        assert not held.locked()

    def test_while_it_is_taken(self, cache: QuickCache) -> None:
        """Nobody would know of the lock, so it is given back."""
        lock = cache.lock("l")
        take = lock._locks.take

        def interrupted(*arguments: Any) -> bool:
            assert take(*arguments)
            raise KeyboardInterrupt

        lock._locks.take = interrupted  # type: ignore[method-assign]
        try:
            with pytest.raises(KeyboardInterrupt):
                lock.acquire()
            with pytest.raises(KeyboardInterrupt):
                asyncio.run(lock.aacquire())
        finally:
            del lock._locks.take
        assert lock.token is None
        assert lock.acquire(wait=0) is True
        lock.release()


class TestLeases:
    def test_the_lease_ends(self, cache: QuickCache, clock: ManualClock) -> None:
        """Then it is anybody's; the former holder learns of it when it asks, and disturbs nobody."""
        slow, next_one = cache.lock("l", lease=10), cache.lock("l", lease=10)
        slow.acquire()
        clock.advance(9.9)
        assert slow.owned()
        assert next_one.acquire(wait=0) is False
        clock.advance(0.1)
        assert not slow.locked()
        assert not slow.owned()
        assert next_one.acquire(wait=0) is True
        with pytest.raises(LockNotOwned):
            slow.extend()
        with pytest.raises(LockNotOwned):
            slow.release()
        assert next_one.owned()
        next_one.release()

    def test_a_block_that_takes_too_long(self, cache: QuickCache, clock: ManualClock) -> None:
        """Its end raises `LockNotOwned`: it wasn't alone. An error of its own comes first, with a note."""
        with pytest.raises(LockNotOwned), cache.lock("l", lease=1):
            clock.advance(1)
        with pytest.raises(ZeroDivisionError) as caught, cache.lock("l", lease=1):
            late(clock)
        assert "Lock 'l' isn't held" in caught.value.__notes__[0]

    def test_the_same_of_coroutines(self, cache: QuickCache, clock: ManualClock) -> None:
        async def main(error: type[Exception] | None) -> None:
            async with cache.lock("l", lease=1):
                clock.advance(1)
                if error is not None:
                    raise error

        with pytest.raises(LockNotOwned):
            asyncio.run(main(None))
        with pytest.raises(ZeroDivisionError) as caught:
            asyncio.run(main(ZeroDivisionError))
        assert "Lock 'l' isn't held" in caught.value.__notes__[0]

    def test_extend(self, cache: QuickCache, clock: ManualClock) -> None:
        """The lease begins anew: as long as before, or of another length."""
        with cache.lock("l", lease=10) as lock:
            clock.advance(9)
            lock.extend()
            clock.advance(9)
            assert lock.owned()
            lock.extend(100)
            clock.advance(99)
            assert lock.owned()
            lock.extend(5)
            clock.advance(4)
            asyncio.run(lock.aextend(token=lock.token))
            clock.advance(9)
            assert lock.owned()

    def test_no_end(self, cache: QuickCache, clock: ManualClock) -> None:
        """`NEVER` is a lease, too."""
        with cache.lock("l", lease=NEVER) as lock:
            clock.advance(1e9)
            assert lock.owned()

    def test_taken_again_after_the_lease(self, cache: QuickCache, clock: ManualClock) -> None:
        """Whoever lost it may take it again with the same object."""
        lock = cache.lock("l", lease=1)
        lock.acquire()
        clock.advance(1)
        assert lock.acquire(wait=0) is True
        lock.release()

    def test_lengths(self, cache: QuickCache) -> None:
        """A lease is above 0; a wait may be 0 or without an end."""
        for wrong in (0, -1, "5", None, True, float("inf")):
            with pytest.raises(InvalidTTL, match="lease="):
                cache.lock("l", lease=wrong)  # type: ignore[arg-type]
        for odd in (-1, "5", True, False, float("nan")):
            with pytest.raises(InvalidTTL, match="wait="):
                cache.lock("l", wait=odd)  # type: ignore[arg-type]
        with pytest.raises(InvalidTTL), cache.lock("l") as lock:
            lock.extend(0)
        assert cache.lock("l", wait=None).wait == float("inf")

    def test_forgotten_locks_leave(self, cache: QuickCache, clock: ManualClock) -> None:
        """Those that nobody released take no room for ever, nor do the signs of their holders."""
        locks = cache.lock("l")._locks
        for number in range(1000):
            cache.lock(f"l{number}", lease=1).acquire()
            clock.advance(0.01)
        assert len(locks._store) < 400
        assert len(locks._shown) < 400


class TestTokens:
    def test_another_thread_with_the_token(self, cache: QuickCache) -> None:
        """It may extend and release; without the token it may not."""
        lock = cache.lock("l")
        lock.acquire()
        token = lock.token
        assert token is not None
        for attempt in (lock.release, lock.extend, lock.fence):
            with pytest.raises(LockNotOwned):
                in_thread(attempt)
        assert in_thread(lambda: lock.owned(token=token))
        in_thread(lambda: lock.extend(5, token=token))
        in_thread(lambda: cache.lock("l").release(token=token))
        assert not lock.locked()
        with pytest.raises(LockNotOwned) as caught:
            lock.release()
        assert caught.value.name == "l"

    def test_a_token_of_ones_own(self, cache: QuickCache) -> None:
        """Any string that isn't empty."""
        lock = cache.lock("l")
        assert lock.acquire(token="mine") is True
        assert lock.token == "mine"
        assert cache.lock("l").owned(token="mine")
        cache.lock("l").release(token="mine")
        for wrong in ("", 5, b"mine"):
            with pytest.raises(ValueError, match="token="):
                cache.lock("x").acquire(token=wrong)  # type: ignore[arg-type]

    def test_somebody_elses(self, cache: QuickCache) -> None:
        """A wrong token changes nothing."""
        with cache.lock("l") as lock:
            for attempt in (
                lambda: cache.lock("l").release(token="wrong"),
                lambda: cache.lock("l").extend(token="wrong"),
                lambda: cache.lock("l").release(),
                lambda: cache.lock("l").extend(),
            ):
                with pytest.raises(LockNotOwned):
                    attempt()
            assert lock.owned()

    def test_fences_rise(self, cache: QuickCache, clock: ManualClock) -> None:
        """Each holder gets a higher number than the one before, and one that lost the lock gets none."""
        numbers = []
        for _ in range(5):
            with cache.lock("l") as lock:
                numbers.append(lock.fence())
        assert numbers == sorted(set(numbers))
        slow = cache.lock("l", lease=1)
        slow.acquire()
        clock.advance(1)
        with pytest.raises(LockNotOwned):
            slow.fence()


class TestBesideTheEntries:
    def test_what_clears_entries_leaves_locks(self, make: Make, tmp_path: Path) -> None:
        """A lock is no entry: it is neither evicted nor cleared, saved, counted, listed or switched off."""
        cache = make(max_size=2, isolation="auto")
        with cache.lock("l") as lock:
            for number in range(50):
                cache.set(f"k{number}", number)
            saved = cache.save_to_disk(tmp_path / "s")
            cache.clear()
            assert (cache.size(), list(cache.keys()), cache.metrics().sets) == (0, [], 50)
            assert lock.owned()
            cache.load_from_disk(saved)
            cache.resize(1)
            with cache.disabled():
                assert lock.owned()
                assert cache.lock("l").acquire(wait=0) is False
            assert lock.owned()
        assert not cache.lock("l").locked()

    def test_a_cache_that_is_switched_off(self, make: Make) -> None:
        """What excludes others goes on doing so."""
        cache = make(enabled=False)
        with cache.lock("l"):
            assert cache.lock("l").acquire(wait=0) is False

    def test_a_key_of_the_same_name(self, cache: QuickCache) -> None:
        """They know nothing of each other."""
        with cache.lock("l") as lock:
            cache.set("l", 1)
            cache.delete("l")
            assert lock.owned()

    def test_caches_without_a_location(self) -> None:
        """Each has locks of its own, as it has entries of its own."""
        with QuickCache() as one, QuickCache() as other, one.lock("l"):
            assert not other.lock("l").locked()

    def test_books(self, cache: QuickCache) -> None:
        """The entries' books are untouched."""
        with cache.lock("l"):
            cache.set("k", 1)
        if cache.config.location.startswith("memory"):
            check_books(cache)

    def test_how_it_looks(self, cache: QuickCache) -> None:
        assert repr(cache.lock("l", lease=5, wait=None)) == "<Lock 'l' lease=5 wait=inf>"
        assert type(cache.lock("l")) is Lock


# Processes

HOLDER = """
import sys, time
from quickcache_core import QuickCache, QuickCacheConfig
cache = QuickCache(QuickCacheConfig(location=sys.argv[1]))
lock = cache.lock("l", lease=float(sys.argv[3]))
token = sys.argv[2] or None
assert lock.acquire(token=token)
print("held", flush=True)
sys.stdin.read()
"""

COUNTER = """
import sys
from pathlib import Path
from quickcache_core import QuickCache, QuickCacheConfig
cache = QuickCache(QuickCacheConfig(location=sys.argv[1]))
number = Path(sys.argv[2])
for _ in range(int(sys.argv[3])):
    with cache.lock("l", wait=None):
        number.write_text(str(int(number.read_text()) + 1))
"""


ALONE = """
import os, random, sys, time
from pathlib import Path
from quickcache_core import QuickCache, QuickCacheConfig
cache = QuickCache(QuickCacheConfig(location=sys.argv[1]))
sign, chance = Path(sys.argv[2]), random.Random()
EXITING = 4

def lives(pid):
    try:
        state, *_, flags = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:7]
    except OSError:
        return False
    # One that is on its way out runs none of its code any more, and has no locks of the kernel's.
    return state not in "ZX" and not int(flags) & EXITING

while True:
    with cache.lock("l", lease=3600.0, wait=None):
        if sign.exists() and (other := sign.read_text()) and lives(other):
            print(f"not alone: {other} is here, too", flush=True)
        sign.write_text(str(os.getpid()))
        time.sleep(chance.random() / 500)
        sign.unlink()
        print("done", flush=True)
    # Waiting isn't fair: who took it again at once would keep the others out.
    time.sleep(chance.random() / 50)
"""

OPENER = """
import fcntl, os, sys
os.makedirs(sys.argv[1], 0o700)
descriptor = os.open(f"{sys.argv[1]}/open.lock", os.O_RDWR | os.O_CREAT, 0o600)
fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, 0)
print("held", flush=True)
sys.stdin.read()
"""


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def holder(location: str, token: str = "", lease: float = 3600.0) -> subprocess.Popen[str]:
    """A process that has the lock."""
    process = start(HOLDER, location, token, str(lease))
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@pytest.mark.slow
class TestProcesses:
    def cache(self, directory: Path, **settings: Any) -> QuickCache:
        return QuickCache(QuickCacheConfig(location=f"shared://{directory}", **settings))

    def test_never_two_at_a_time(self, directory: Path, tmp_path: Path) -> None:
        """Processes that read a file, add one and write it lose nothing."""
        number = tmp_path / "number"
        number.write_text("0")
        location = f"shared://{directory}"
        processes = [start(COUNTER, location, str(number), "50") for _ in range(4)]
        assert [process.wait(PATIENCE) for process in processes] == [0, 0, 0, 0]
        for process in processes:
            process.communicate()
        assert number.read_text() == "200"

    def test_a_holder_that_lives(self, directory: Path) -> None:
        """Keeps it, stopped or not."""
        process = holder(f"shared://{directory}")
        try:
            lock = self.cache(directory).lock("l")
            assert lock.locked()
            assert lock.acquire(wait=0.05) is False
            process.send_signal(signal.SIGSTOP)
            assert lock.acquire(wait=0.05) is False
        finally:
            end(process)

    def test_a_holder_that_is_killed(self, directory: Path) -> None:
        """Nobody waits for its lease, which has an hour to go."""
        process = holder(f"shared://{directory}")
        lock = self.cache(directory).lock("l")
        assert lock.locked()
        end(process)
        assert not lock.locked()
        assert lock.acquire(wait=PATIENCE) is True
        lock.release()

    def test_those_who_wait_for_a_holder_that_is_killed(self, directory: Path) -> None:
        """One of them gets it, then the next: never two."""
        process = holder(f"shared://{directory}")
        cache = self.cache(directory)
        inside = most = 0

        def work(_: int) -> None:
            nonlocal inside, most
            with cache.lock("l", wait=PATIENCE):
                inside += 1
                most = max(most, inside)
                time.sleep(0.005)
                inside -= 1

        with ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(work, number) for number in range(4)]
            time.sleep(0.05)
            assert not any(one.done() for one in waiting)
            end(process)
            for one in waiting:
                one.result(PATIENCE)
        assert most == 1

    def test_holders_that_are_killed_again_and_again(self, directory: Path, tmp_path: Path) -> None:
        """Each is alone while it has the lock, the others go on at once, and none waits for a lease."""
        arguments = (ALONE, f"shared://{directory}", str(tmp_path / "inside"))
        workers = [start(*arguments) for _ in range(3)]
        said: list[str] = []
        chance = random.Random(7)
        try:
            for _ in range(10):
                victim = workers.pop(0)
                assert victim.stdout is not None
                said += [victim.stdout.readline() for _ in range(2)]
                time.sleep(chance.random() / 50)
                victim.kill()
                said += victim.stdout.readlines()
                end(victim)
                workers.append(start(*arguments))
        finally:
            for worker in workers:
                end(worker)
        # The last thing that one said may be torn.
        assert {line for line in said if line.endswith("\n")} == {"done\n"}

    def test_a_token_that_was_handed_on(self, directory: Path) -> None:
        """With a token of its own a lock outlives its process: another one may have it by now."""
        end(holder(f"shared://{directory}", token="handed on"))
        lock = self.cache(directory).lock("l")
        assert lock.locked()
        assert lock.acquire(wait=0.05) is False
        lock.release(token="handed on")
        assert lock.acquire(wait=0) is True
        lock.release()

    # Python 3.12 and later warn of any fork of a process with threads. That is what is tested here.
    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
    def test_a_child_of_the_holder(self, directory: Path) -> None:
        """A fork makes no second holder, and the end of the child doesn't free the lock."""
        cache = self.cache(directory)
        with cache.lock("l") as lock:
            child = os.fork()
            if child == 0:
                os._exit(0 if cache.lock("l").acquire(wait=0) is False else 1)
            assert os.waitpid(child, 0)[1] == 0
            other = start(
                "import sys; " + HOLDER.replace('print("held"', 'print("took it"'),
                *[f"shared://{directory}", "", "3600"],
            )
            try:
                threading.Event().wait(0.3)
                assert lock.owned()
                assert other.poll() is None
            finally:
                end(other)

    def test_another_way_to_the_directory(self, directory: Path, tmp_path: Path) -> None:
        """By a symbolic link one comes to the same locks."""
        (tmp_path / "link").symlink_to(directory.parent)
        with self.cache(directory).lock("l"):
            assert self.cache(tmp_path / "link" / directory.name).lock("l").locked()

    # As above.
    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
    def test_a_child_that_leaves_the_block(self, directory: Path) -> None:
        """The lock is its parent's: the child doesn't have it, and can't release it."""
        with self.cache(directory).lock("l") as lock:
            child = os.fork()
            if child == 0:
                is_its = lock.token is not None or lock.owned() or outcome(lock.release) is not LockNotOwned
                os._exit(is_its)
            assert os.waitpid(child, 0)[1] == 0
            assert lock.owned()

    def test_files_that_cannot_be_used(self, directory: Path) -> None:
        """No lock is better than one that everybody gets: `StoreUnavailable`, whatever `fail` says."""
        cache = self.cache(directory)
        assert cache.config.fail == "degrade"
        lock = cache.lock("l")
        with lock:
            shutil.rmtree(directory / "locks")
            (directory / "locks").touch()
            wait_until(lambda: outcome(lock.locked) is StoreUnavailable)
            cache.set("k", 1)
            assert cache.get("k") == 1
            assert outcome(lambda: cache.lock("l").acquire(wait=0)) is StoreUnavailable
            assert outcome(lock.extend) is StoreUnavailable
            (directory / "locks").unlink()
            wait_until(lambda: outcome(lock.locked) is False)
            # Who deletes the files of locks frees them.
            lock.acquire()

    def test_files_that_cannot_be_opened_at_first(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The same error as later on, and no longer than that lasts."""
        monkeypatch.setattr(shared_directory, "_OPENING_PATIENCE", 0.1)
        cache = self.cache(directory)
        process = start(OPENER, str(directory / "locks"))
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            lock = cache.lock("l")
            for _ in range(2):
                assert outcome(lambda: lock.acquire(wait=0)) is StoreUnavailable
            assert outcome(lock.locked) is StoreUnavailable
        finally:
            end(process)
        wait_until(lambda: outcome(lambda: lock.acquire(wait=0)) is True)
        assert lock.owned()
        lock.release()


def late(clock: ManualClock) -> None:
    clock.advance(1)
    raise ZeroDivisionError


def outcome(call: Callable[[], Any]) -> Any:
    """What it gives, or the type of what it raises."""
    try:
        return call()
    except Exception as error:
        return type(error)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
