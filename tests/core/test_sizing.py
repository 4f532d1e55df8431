"""Memory gets short: the cache shrinks, and grows back when there is enough again, without swinging."""

from __future__ import annotations

import gc
import logging
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcache_core import QuickCache, QuickCacheConfig
from quickcache_core.eviction_policy.fifo import FIFOEvictionPolicy
from quickcache_core.free_memory import MemoryState, read_memory
from quickcache_core.maintenance import maintenance
from quickcache_core.sizing import AutoSizer
from quickcache_core.testing import check_books

MB = 2**20
TOTAL = 1000 * MB
FLOOR = 1 / 16
DOWN_TO_THE_FLOOR = 8
"""Looks."""
PATIENCE = 6
"""Looks with memory to spare before the first step of growth."""


class Target:
    """A cache that notes what is asked of it."""

    def __init__(self, max_size: int = 1000, max_bytes: int | None = None) -> None:
        self.configured = max_size, max_bytes
        self.share = 1.0
        self.shares: list[float] = []

    def limits(self) -> tuple[int, int | None]:
        return self.configured

    def apply(self, share: float) -> None:
        self.share = share
        self.shares.append(share)


class Machine:
    """A container's files as the kernel writes them, and what a test makes of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc/self").mkdir(parents=True)
        (root / "sys/fs/cgroup").mkdir(parents=True)
        self.write("proc/meminfo", "MemTotal: 64000000 kB\nMemFree: 1000 kB\nMemAvailable: 32000000 kB")
        self.write("proc/self/cgroup", "0::/")
        self.write("proc/self/mountinfo", "1026 1025 0:23 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw")
        self.write("sys/fs/cgroup/memory.max", str(TOTAL))
        self.write("sys/fs/cgroup/memory.stat", f"anon 1\ninactive_file {10 * MB}\nslab 1")
        self.has(50)

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text + "\n")

    def has(self, percentage: float) -> None:
        """So much is available from now on, in percent of the limit."""
        used = TOTAL - round(TOTAL * percentage / 100) + 10 * MB
        self.write("sys/fs/cgroup/memory.current", str(used))

    def read(self) -> MemoryState:
        return read_memory(self.root)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def target() -> Target:
    return Target()


@pytest.fixture
def sizer(target: Target, machine: Machine) -> AutoSizer:
    return AutoSizer(target, machine.read, trim=lambda: None)


def look(sizer: AutoSizer, times: int = 1) -> None:
    for _ in range(times):
        sizer.sweep()


# Shrinking


def test_memory_to_spare(sizer: AutoSizer, target: Target) -> None:
    """Nothing is done, however often one looks; the figures say what was seen."""
    assert sizer.last_state is None
    look(sizer, 100)
    assert target.shares == []
    assert (sizer.share, sizer.shrinks, sizer.grows) == (1.0, 0, 0)
    assert sizer.last_state == MemoryState(TOTAL, TOTAL // 2)


def test_memory_gets_short(sizer: AutoSizer, target: Target, machine: Machine) -> None:
    """Each look takes three tenths of what is left."""
    machine.has(9.9)
    look(sizer)
    assert target.share == pytest.approx(0.7)
    look(sizer)
    assert target.share == pytest.approx(0.49)
    assert (sizer.share, sizer.shrinks, sizer.grows) == (target.share, 2, 0)


def test_memory_stays_short(sizer: AutoSizer, target: Target, machine: Machine) -> None:
    """A sixteenth is kept whatever happens: what else is short of memory is not the cache's fault, and it is
    not shrunk over and over.
    """
    machine.has(0)
    look(sizer, DOWN_TO_THE_FLOOR)
    assert target.share == FLOOR
    look(sizer, 100)
    assert len(target.shares) == DOWN_TO_THE_FLOOR
    assert sizer.shrinks == DOWN_TO_THE_FLOOR


@pytest.mark.parametrize("percentage", [10, 15, 20])
def test_between_the_marks(sizer: AutoSizer, target: Target, machine: Machine, percentage: float) -> None:
    """Everything stays as it is, at the configured bounds and below them."""
    machine.has(percentage)
    look(sizer, 50)
    assert target.shares == []
    machine.has(5)
    look(sizer)
    machine.has(percentage)
    look(sizer, 50)
    assert len(target.shares) == 1


def test_freed_memory_is_given_back(target: Target, machine: Machine) -> None:
    """After each shrink, not before it, and not after growth."""
    seen: list[float] = []
    sizer = AutoSizer(target, machine.read, trim=lambda: seen.append(target.share))
    machine.has(5)
    look(sizer, 2)
    assert seen == target.shares
    machine.has(50)
    look(sizer, 100)
    assert sizer.grows > 0
    assert len(seen) == 2


# Growing


def test_memory_comes_back(sizer: AutoSizer, target: Target, machine: Machine) -> None:
    """A sixteenth at a time, after six looks each, up to the configured bounds and no further."""
    machine.has(0)
    look(sizer, DOWN_TO_THE_FLOOR)
    machine.has(50)
    look(sizer, PATIENCE - 1)
    assert target.share == FLOOR
    look(sizer)
    assert target.share == 2 * FLOOR
    look(sizer, 14 * PATIENCE)
    assert target.share == sizer.share == 1.0
    assert sizer.grows == 15
    look(sizer, 100)
    assert len(target.shares) == DOWN_TO_THE_FLOOR + 15


def test_the_last_step_of_growth(sizer: AutoSizer, target: Target, machine: Machine) -> None:
    """Shares on the way up needn't add up to one; the last one is one."""
    machine.has(5)
    look(sizer)
    machine.has(50)
    look(sizer, 5 * PATIENCE)
    assert target.shares[-2:] == [pytest.approx(0.7 + 4 / 16), 1.0]


def test_what_is_logged(sizer: AutoSizer, machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """When it begins, and when it is over; not each step."""
    caplog.set_level(logging.INFO)
    machine.has(5)
    look(sizer, 20)
    assert caplog.messages == ["Memory is short, 52.4 MB of 1.05 GB available: the cache shrinks"]
    machine.has(50)
    look(sizer, 200)
    assert caplog.messages[1:] == ["The cache has its configured size again"]


def test_a_moment_of_relief(sizer: AutoSizer, target: Target, machine: Machine) -> None:
    """What counts is looks on end with memory to spare."""
    machine.has(5)
    look(sizer)
    for _ in range(20):
        machine.has(50)
        look(sizer, PATIENCE - 1)
        machine.has(15)
        look(sizer)
    assert target.shares == [pytest.approx(0.7)]


def test_growth_that_came_too_early(sizer: AutoSizer, target: Target, machine: Machine) -> None:
    """If memory gets short soon after growth, the next growth waits for twice as many looks, up to a bound of
    96, about eight minutes.
    """
    patience = []
    for _ in range(8):
        machine.has(5)
        look(sizer)
        machine.has(50)
        grows, looks = sizer.grows, 0
        while sizer.grows == grows:
            look(sizer)
            looks += 1
        patience.append(looks)
    assert patience == [6, 12, 24, 48, 96, 96, 96, 96]


def test_a_long_shrink_after_early_growth(sizer: AutoSizer, machine: Machine) -> None:
    """Each growth is blamed once, not with each step down."""
    machine.has(5)
    look(sizer)
    machine.has(50)
    look(sizer, PATIENCE)
    machine.has(5)
    look(sizer, DOWN_TO_THE_FLOOR)
    machine.has(50)
    look(sizer, 2 * PATIENCE)
    assert sizer.grows == 2


def test_growth_that_did_well_for_long(sizer: AutoSizer, machine: Machine) -> None:
    """A shortage much later is none of its fault."""
    machine.has(5)
    look(sizer, 2)
    machine.has(50)
    look(sizer, PATIENCE)
    machine.has(15)
    look(sizer, 100)
    machine.has(5)
    look(sizer)
    machine.has(50)
    look(sizer, PATIENCE)
    assert sizer.grows == 2


def test_patience_is_forgotten(sizer: AutoSizer, machine: Machine) -> None:
    """After a long time at full size with memory to spare it begins with six looks again."""
    for _ in range(4):
        machine.has(5)
        look(sizer)
        machine.has(50)
        look(sizer, 48)
    look(sizer, 2000)
    assert sizer.share == 1.0
    grows = sizer.grows
    machine.has(5)
    look(sizer)
    machine.has(50)
    look(sizer, PATIENCE)
    assert sizer.grows == grows + 1


# No swinging


@given(st.lists(st.floats(0, 100), max_size=300))
def test_any_course_of_the_memory(course: list[float]) -> None:
    """The share stays between floor and one; nothing shrinks without need and nothing grows without leave;
    between two changes of direction lie six looks at least.
    """
    target, available = Target(), [0.0]
    sizer = AutoSizer(target, lambda: MemoryState(TOTAL, int(TOTAL * available[0] / 100)), lambda: None)
    before, last_shrink = 1.0, -1000
    for number, available[0] in enumerate(course):
        sizer.sweep()
        assert FLOOR <= sizer.share <= 1.0
        assert sizer.share == target.share
        if sizer.share < before:
            assert available[0] <= 10
            last_shrink = number
        elif sizer.share > before:
            assert min(course[number - PATIENCE + 1 : number + 1]) >= 20
            assert number - last_shrink >= PATIENCE
        elif before > FLOOR:
            assert available[0] >= 9.99
        before = sizer.share
    assert len(target.shares) == sizer.shrinks + sizer.grows


@given(st.lists(st.floats(0, 19.9), max_size=100))
def test_around_the_low_mark(course: list[float]) -> None:
    """What goes up and down around the low mark only shrinks, to the floor at most, and doesn't grow."""
    target, available = Target(), [0.0]
    sizer = AutoSizer(target, lambda: MemoryState(TOTAL, int(TOTAL * available[0] / 100)), lambda: None)
    for available[0] in course:
        sizer.sweep()
    assert sizer.grows == 0
    assert sizer.shrinks <= DOWN_TO_THE_FLOOR


@given(st.lists(st.floats(10.1, 100), max_size=100))
def test_around_the_high_mark(course: list[float]) -> None:
    """What goes up and down around the high mark only grows, and doesn't shrink."""
    target, available = Target(), [5.0]
    sizer = AutoSizer(target, lambda: MemoryState(TOTAL, int(TOTAL * available[0] / 100)), lambda: None)
    sizer.sweep()
    for available[0] in course:
        sizer.sweep()
    assert sizer.shrinks == 1


@given(
    cache=st.floats(0.01, 1.0),
    others=st.floats(0, 0.95),
    fill=st.sampled_from([1.0, 0.1, 0.01]),
    given_back=st.floats(0.1, 1.0),
)
def test_a_cache_that_causes_the_shortage(
    cache: float, others: float, fill: float, given_back: float
) -> None:
    """What it frees makes room, and what it takes makes memory short: it settles at some size, however large
    it is, however fast it fills and however late the C library gives memory back.
    """
    target = Target()
    used = resident = 0.0

    def read() -> MemoryState:
        return MemoryState(TOTAL, max(int(TOTAL * (1 - others - resident)), 0))

    sizer = AutoSizer(target, read, trim=lambda: None)
    shares = []
    short = 0
    for number in range(2000):
        used = min(used + fill * cache, target.share * cache)
        resident = max(used, resident - (resident - used) * given_back)
        sizer.sweep()
        if number >= 1000:
            shares.append(target.share)
            short += others + resident > 0.9 and target.share > FLOOR
    changes = [after - before for before, after in pairwise(shares) if after != before]
    assert sum((one > 0) != (other > 0) for one, other in pairwise(changes)) <= 3
    assert short < 50, "memory stays short, and the cache could help it"


# What it leaves alone


@pytest.mark.parametrize(("max_bytes", "shrinks"), [(TOTAL // 201, 0), (TOTAL // 199, 1)])
def test_a_cache_too_small_to_help(machine: Machine, max_bytes: int, shrinks: int) -> None:
    """What has less than half a percent of the memory could not make a difference."""
    target = Target(max_bytes=max_bytes)
    sizer = AutoSizer(target, machine.read, trim=lambda: None)
    machine.has(5)
    look(sizer)
    assert sizer.shrinks == shrinks


def test_a_limit_that_is_raised(machine: Machine) -> None:
    """A cache that shrank and is small against the new limit still gets its size back."""
    target = Target(max_bytes=TOTAL // 100)
    sizer = AutoSizer(target, machine.read, trim=lambda: None)
    machine.has(5)
    look(sizer)
    machine.write("sys/fs/cgroup/memory.max", str(10 * TOTAL))
    look(sizer, 5 * PATIENCE)
    assert target.share == 1.0


def test_memory_that_can_not_be_read(
    sizer: AutoSizer, target: Target, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning for each outage, nothing is done meanwhile, and it goes on afterwards."""
    caplog.set_level(logging.WARNING)
    machine.has(5)
    look(sizer)
    (machine.root / "proc").rename(machine.root / "hidden")
    look(sizer, 10)
    assert (len(caplog.records), sizer.last_state, sizer.shrinks) == (1, None, 1)
    assert "meminfo" in caplog.text
    (machine.root / "hidden").rename(machine.root / "proc")
    look(sizer)
    assert (sizer.shrinks, len(caplog.records)) == (2, 1)
    (machine.root / "proc").rename(machine.root / "hidden")
    look(sizer)
    assert len(caplog.records) == 2


def test_a_target_that_fails(target: Target, machine: Machine) -> None:
    """What couldn't be applied is not in force, and is tried again."""

    class Failing(Target):
        def apply(self, share: float) -> None:
            if not self.shares:
                self.shares.append(share)
                raise MemoryError
            super().apply(share)

    failing = Failing()
    sizer = AutoSizer(failing, machine.read, trim=lambda: None)
    machine.has(5)
    with pytest.raises(MemoryError):
        look(sizer)
    assert (sizer.share, sizer.shrinks) == (1.0, 0)
    look(sizer)
    assert sizer.share == failing.share == pytest.approx(0.7)


def test_a_cache_that_nobody_uses_any_more(machine: Machine) -> None:
    """The sizer keeps nothing alive, and has nothing to do without its target."""
    target = Target()
    sizer = AutoSizer(target, machine.read, trim=lambda: None)
    machine.has(5)
    del target
    gc.collect()
    look(sizer)
    assert (sizer.share, sizer.last_state) == (1.0, None)


# In the background


def test_looks_in_the_background(machine: Machine) -> None:
    """The maintenance thread looks, in the interval that it is told."""
    shrunk = threading.Event()

    class Waiting(Target):
        def apply(self, share: float) -> None:
            super().apply(share)
            shrunk.set()

    waiting = Waiting()
    sizer = AutoSizer(waiting, machine.read, trim=lambda: None)
    machine.has(5)
    maintenance.adopt(sizer)
    maintenance.wake(sizer, 0.01)
    try:
        assert shrunk.wait(30)
    finally:
        maintenance.dismiss(sizer)


FORKING = """
import os
from quickcache_core.free_memory import MemoryState
from quickcache_core.maintenance import maintenance
from quickcache_core.sizing import AutoSizer

class Target:
    def limits(self):
        return 1000, None

    def apply(self, share):
        pass

target = Target()
sizer = AutoSizer(target, lambda: MemoryState(1000, 5))
maintenance.adopt(sizer)
sizer.sweep()
child = os.fork()
sizer.sweep()
if child == 0:
    os._exit(sizer.shrinks)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), sizer.shrinks)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_fork() -> None:
    """Parent and child go on from what was in force, each for itself."""
    result = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.split() == ["2", "2"]


# With a cache


class Sized:
    """A cache of which the sizer is told."""

    def __init__(self, cache: QuickCache) -> None:
        self.cache = cache
        self.max_size = cache.max_size

    def limits(self) -> tuple[int, int | None]:
        return self.max_size, None

    def apply(self, share: float) -> None:
        self.cache.resize(max(1, int(self.max_size * share)))


def test_a_cache_under_pressure(machine: Machine) -> None:
    """Its entries leave as others do that are evicted, and there is room again afterwards."""
    cache = QuickCache(QuickCacheConfig(max_size=1600, default_ttl=None, eviction_policy="fifo"))
    cache.set_many({str(number): number for number in range(1600)})
    sized = Sized(cache)
    sizer = AutoSizer(sized, machine.read, trim=lambda: None)
    machine.has(5)
    look(sizer, DOWN_TO_THE_FLOOR)
    assert sorted(map(int, cache.keys())) == list(range(1500, 1600))
    assert cache.metrics().evictions == 1500
    check_books(cache)
    machine.has(50)
    look(sizer, 15 * PATIENCE)
    cache.set_many({str(number): number for number in range(5000)})
    assert cache.size() == 1600


def test_others_get_at_the_cache_meanwhile(machine: Machine) -> None:
    """A large cache shrinks in many short holds of its lock: at most 256 entries leave in one."""
    evictions: list[int] = [0]

    class Counting(FIFOEvictionPolicy):
        def evict(self):  # type: ignore[no-untyped-def]
            evictions[-1] += 1
            return super().evict()

    cache = QuickCache(QuickCacheConfig(max_size=10_000, default_ttl=None, eviction_policy=Counting))
    cache.set_many({str(number): number for number in range(10_000)})
    lock = cache._real_store.lock
    acquire: Callable[..., bool] = lock.acquire

    def counted(*arguments: object, **more: object) -> bool:
        evictions.append(0)
        return acquire(*arguments, **more)

    lock.acquire = counted  # type: ignore[assignment]
    sized = Sized(cache)
    machine.has(5)
    look(AutoSizer(sized, machine.read, trim=lambda: None))
    assert sum(evictions) == 3000
    assert max(evictions) <= 256


REAL_PROCESS = """
import sys
from quickcache_core import QuickCache, QuickCacheConfig
from quickcache_core.free_memory import MemoryState
from quickcache_core.sizing import AutoSizer

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

class Sized:
    def limits(self):
        return 100_000, None

    def apply(self, share):
        cache.resize(int(100_000 * share))

cache = QuickCache(QuickCacheConfig(max_size=100_000, default_ttl=None, eviction_policy="fifo"))
before = resident()
for number in range(100_000):
    cache.set(str(number), str(number).ljust(1000, "x"))
full = resident()
limit = (full - before) * 1.05

# As if this much were all there is, beside the interpreter.
def read():
    return MemoryState(int(limit), max(int(limit - (resident() - before)), 0))

sized = Sized()
sizer = AutoSizer(sized, read)
for _ in range(20):
    sizer.sweep()
print(full - before, resident() - before, sizer.shrinks, sizer.share)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives back what it is asked for")
def test_a_real_process() -> None:
    """Memory that the cache frees is memory that others can have: with a cache that fills all there is, the
    process takes less after a step or two, and that is enough.
    """
    result = subprocess.run(
        [sys.executable, "-c", REAL_PROCESS], capture_output=True, text=True, timeout=120, check=True
    )
    full, left, shrinks, share = map(float, result.stdout.split())
    assert full > 100_000_000
    assert shrinks <= 3
    assert share > 0.3
    assert left < 0.95 * full
