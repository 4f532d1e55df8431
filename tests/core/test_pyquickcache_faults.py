"""Faults of PyQuickCache 0.1.0 that must not come back: at least one test for each."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import quickcache_core
from quickcache_core import (
    BaseEvictionPolicy,
    BaseSerializer,
    CacheLoadError,
    CacheMiss,
    CacheSaveError,
    ConfigError,
    KeyExpired,
    KeyNotFound,
    QuickCache,
    QuickCacheConfig,
    QuickCacheError,
    register_eviction_policy,
    register_serializer,
)
from quickcache_core.maintenance import Maintenance
from quickcache_core.testing import ManualClock

POLICIES = ("s3fifo", "lru", "lfu", "lfuda", "fifo", "sieve")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def run(script: Path, **options: Any) -> str:
    """What a script of its own process prints; its warnings are errors."""
    result = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(quickcache_core.__file__).parents[1]),
            **options.pop("env", {}),
        },
        **options,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_metrics_switched_off() -> None:
    """`enable_metrics=False` gives a working cache with empty figures."""
    cache = QuickCache(QuickCacheConfig(enable_metrics=False, max_size=2))
    cache.set_many({"a": 1, "b": 2, "c": 3})
    cache.add("d", 4)
    cache.update("d", 5)
    cache.delete("d")
    cache.get("x", None)
    cache.clear()
    cache.reset_metrics()
    assert cache.get_metrics_snapshot() == {}


def test_metrics_switched_off_and_saved(tmp_path: Path) -> None:
    """There is nothing to save, and saving it does no harm."""
    cache = QuickCache(QuickCacheConfig(enable_metrics=False))
    path = cache.save_metrics_to_disk(tmp_path / "m.json")
    assert path.read_text().strip() == "{}"


class TestLFU:
    @pytest.fixture
    def cache(self, clock: ManualClock, tmp_path: Path) -> QuickCache:
        return QuickCache(
            QuickCacheConfig(max_size=3, eviction_policy="lfu", clock=clock, storage_dir=tmp_path)
        )

    def fill_and_check(self, cache: QuickCache, prefix: str) -> None:
        """The least used of three leaves for a fourth."""
        a, b, c, d = (prefix + name for name in "abcd")
        cache.set_many({a: 1, b: 2, c: 3})
        cache.get_many([a, a, c])
        cache.get(a)
        cache.set(d, 4)
        assert sorted(cache.keys()) == [a, c, d]
        for number in range(10):
            cache.set(f"{prefix}more {number}", 1)
            assert len(cache) == 3
        assert a in cache

    def test_after_clear(self, cache: QuickCache) -> None:
        """LFU begins anew after `clear`, whatever was counted before."""
        self.fill_and_check(cache, "first ")
        cache.clear()
        self.fill_and_check(cache, "second ")
        cache.clear()
        self.fill_and_check(cache, "first ")

    def test_after_load(self, cache: QuickCache) -> None:
        """LFU knows the loaded entries, and none of those before."""
        cache.set_many({"x": 1, "y": 2})
        cache.save_to_disk()
        self.fill_and_check(cache, "first ")
        cache.load_from_disk()
        cache.get_many(["x", "x"])
        cache.get("x")
        cache.set_many({"z": 3, "w": 4})
        assert len(cache) == 3
        assert "x" in cache
        cache.delete_many(["x", "y", "z", "w"])
        self.fill_and_check(cache, "second ")

    def test_after_expiry(self, cache: QuickCache, clock: ManualClock) -> None:
        """Expired entries leave LFU's books with their counts."""
        cache.set_many({"x": 1, "y": 2, "z": 3}, ttl_sec=1)
        for _ in range(5):
            cache.get_many(["x", "y", "z"])
        clock.advance(2)
        self.fill_and_check(cache, "first ")
        cache.delete_many(list(cache))
        cache.set_many({"x": 1, "y": 2, "z": 3}, ttl_sec=1)
        clock.advance(2)
        assert cache.cleanup() == 3
        self.fill_and_check(cache, "second ")


class TestFailingLoad:
    @pytest.fixture
    def cache(self, clock: ManualClock, tmp_path: Path) -> QuickCache:
        cache = QuickCache(QuickCacheConfig(clock=clock, storage_dir=tmp_path, eviction_policy="lfu"))
        cache.set_many({"a": [1], "b": 2}, ttl_sec=50)
        cache.get("a")
        return cache

    @pytest.mark.parametrize(
        "content", [None, b"", b"{", b"[]", b'{"a": {"value": 1}}', b"\x80\x05", b"\xff" * 5000]
    )
    def test_leaves_the_cache(self, cache: QuickCache, tmp_path: Path, content: bytes | None) -> None:
        """A missing, empty, broken or foreign file raises; entries, deadlines and figures are as before."""
        if content is not None:
            (tmp_path / "cache_data.json").write_bytes(content)
        before = cache.get_metrics_snapshot()
        with pytest.raises(CacheLoadError, match=r"cache_data\.json"):
            cache.load_from_disk()
        assert cache.get_metrics_snapshot() == before
        assert cache.get_many(["a", "b"]) == {"a": [1], "b": 2}
        assert cache.ttl("a") == pytest.approx(50)


class FailsLate(BaseSerializer):
    """Serializes until it is told not to."""

    extension = "txt"
    is_binary = False
    failing = False

    def serialize(self, data: Any) -> str:
        if self.failing:
            raise RuntimeError("boom")
        return repr(data)

    def deserialize(self, data: Any) -> Any:
        return eval(data)


class TestFailingSave:
    def test_serializer_fails(self, tmp_path: Path) -> None:
        """The old file is as it was, and nothing else lies around."""
        serializer = FailsLate()
        cache = QuickCache(QuickCacheConfig(serializer=serializer, storage_dir=tmp_path))
        cache.set("a", 1)
        path = cache.save_to_disk()
        old = path.read_bytes()
        serializer.failing = True
        cache.set("a", 2)
        with pytest.raises(CacheSaveError, match="boom"):
            cache.save_to_disk()
        assert path.read_bytes() == old
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("operation", ["fsync", "replace"])
    def test_disk_full(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str) -> None:
        """An error of the operating system half-way does no harm to the old file either."""
        cache = QuickCache(QuickCacheConfig(storage_dir=tmp_path))
        cache.set("a", 1)
        path = cache.save_to_disk()
        old = path.read_bytes()
        cache.set("a", 2)

        def fail(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, operation, fail)
            if operation == "replace":
                patch.setattr(Path, "replace", fail)
            with pytest.raises(CacheSaveError, match="No space left"):
                cache.save_to_disk()
        assert path.read_bytes() == old
        assert list(tmp_path.iterdir()) == [path]
        cache.save_to_disk()
        cache.clear()
        cache.load_from_disk()
        assert cache.get("a") == 2


@pytest.mark.parametrize("serializer", ["json", "msgpack", FailsLate])
def test_saving_while_writing(tmp_path: Path, serializer: Any) -> None:
    """Saves succeed while other threads insert, overwrite and delete."""
    cache = QuickCache(QuickCacheConfig(serializer=serializer, storage_dir=tmp_path, max_size=500))
    stop = threading.Event()

    def write(name: str) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            cache.set(f"{name}{number % 300}", [number])
            cache.delete(f"{name}{(number * 7) % 300}", missing_ok=True)

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    try:
        for _ in range(15):
            cache.save_to_disk()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    cache.load_from_disk()
    assert all(type(cache.get(key)) is list for key in cache)


@pytest.mark.parametrize("policy", POLICIES)
def test_insert_at_capacity(policy: str) -> None:
    """An insert into a full cache costs the same at 1,000 and at 100,000 entries.

    A scan would cost a hundred times as much; the factor allows for memory caches and a busy machine.
    """

    def best(size: int) -> float:
        cache = QuickCache(QuickCacheConfig(max_size=size, eviction_policy=policy))
        for number in range(size):
            cache.set(str(number), number)
        times = []
        for attempt in range(5):
            start = time.perf_counter()
            for number in range(500):
                cache.set(f"{attempt} {number}", number)
            times.append(time.perf_counter() - start)
        assert len(cache) == size
        return min(times)

    assert best(100_000) < best(1000) * 10


def test_no_log_line_per_eviction(caplog: pytest.LogCaptureFixture) -> None:
    """A full cache at work says nothing, at any level."""
    caplog.set_level(logging.DEBUG)
    for policy in POLICIES:
        cache = QuickCache(QuickCacheConfig(max_size=10, eviction_policy=policy))
        for number in range(100):
            cache.set(str(number), number)
        assert cache.get_metrics_snapshot()["evictions"] == 90
    assert caplog.records == []


def test_hit_ratio_of_bulk_reads(clock: ManualClock) -> None:
    """Ratios stay between 0 and 1 and add up to 1: `get_many` counts a get per key."""
    cache = QuickCache(QuickCacheConfig(clock=clock))
    cache.set_many({str(number): number for number in range(10)})
    cache.get_many([str(number) for number in range(10)])
    figures = cache.get_metrics_snapshot()
    assert (figures["gets"], figures["hit_ratio"], figures["miss_ratio"]) == (10, 1.0, 0.0)
    cache.get_many([str(number) for number in range(40)])
    cache.delete_many(["x", "y"])
    figures = cache.get_metrics_snapshot()
    assert figures["hits"] + figures["misses"] == figures["gets"] == 50
    assert (figures["hit_ratio"], figures["miss_ratio"]) == (0.4, 0.6)


@pytest.mark.parametrize("operation", ["get", "pop", "delete", "ttl", "touch", "incr"])
def test_one_except_clause_for_a_miss(clock: ManualClock, operation: str) -> None:
    """Missing or expired, caught as one: the caller needn't know whether a sweep came first."""
    cache = QuickCache(QuickCacheConfig(clock=clock))
    cache.set("k", 1, ttl_sec=1)
    clock.advance(2)
    kinds = set()
    for _ in range(2):
        with pytest.raises(CacheMiss) as caught:
            getattr(cache, operation)("k")
        kinds.add(caught.type)
        cache.cleanup()
    assert kinds == {KeyExpired, KeyNotFound}


@pytest.mark.parametrize("step", [-1e9, -3600, 3600, 1e9])
def test_wall_clock_set(clock: ManualClock, step: float) -> None:
    """Setting the machine's clock makes no entry live longer or shorter."""
    cache = QuickCache(QuickCacheConfig(clock=clock))
    cache.set("k", 1, ttl_sec=10)
    clock.step_wall(step)
    cache.set("after", 1, ttl_sec=10)
    cache.cleanup()
    assert cache.get_many(["k", "after"]) == {"k": 1, "after": 1}
    assert cache.ttl("k") == pytest.approx(10)
    clock.advance(10)
    assert cache.get_many(["k", "after"]) == {}


@pytest.mark.parametrize("ttl", [0.5, 0.05, 1.9])
def test_fractional_ttl(clock: ManualClock, ttl: float) -> None:
    """Half a second is half a second: neither 0 nor 1."""
    cache = QuickCache(QuickCacheConfig(clock=clock, default_ttl=ttl))
    cache.set("given", 1, ttl_sec=ttl)
    cache.set("default", 1)
    clock.advance(ttl * 0.9)
    assert cache.get_many(["given", "default"]) == {"given": 1, "default": 1}
    clock.advance(ttl * 0.2)
    assert cache.get_many(["given", "default"]) == {}


THREADS = """
import os, sys, threading, time
from quickcache_core import QuickCache, QuickCacheConfig

def ours():
    return sum(thread.name == "quickcache-maintenance" for thread in threading.enumerate())

def sweeps(cache):
    # Never read: only a sweep can make it leave.
    cache.set("short", 1, ttl_sec=0.05)
    end = time.monotonic() + 20
    while len(cache) and time.monotonic() < end:
        time.sleep(0.01)
    return len(cache) == 0

caches = [QuickCache(QuickCacheConfig(cleanup_interval=0.05)) for _ in range(5)]
assert ours() == 0, "constructors start nothing"
assert all([sweeps(cache) for cache in caches]), "swept before the fork"
assert ours() == 1, ours()
child = os.fork()
if not child:
    status = 1
    try:
        assert all([sweeps(cache) for cache in caches]), "swept in the child"
        assert ours() == 1, ours()
        status = 0
    finally:
        os._exit(status)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "child"
assert all([sweeps(cache) for cache in caches]), "swept in the parent after the fork"
assert ours() == 1, ours()
for cache in caches:
    cache.stop()
end = time.monotonic() + 20
while ours() and time.monotonic() < end:
    time.sleep(0.01)
assert ours() == 0, "stopped"
print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system doesn't fork")
def test_one_background_thread_and_after_a_fork(tmp_path: Path) -> None:
    """Any number of caches share one thread; parent and child of a fork have one each; `stop` ends it."""
    script = tmp_path / "threads.py"
    # Python 3.12 warns of every fork with threads around, which is what is tested here.
    script.write_text("import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n" + THREADS)
    assert run(script) == "fine\n"


def test_exceptions_survive_pickling() -> None:
    """An error that crosses a process boundary keeps its type, message and evidence."""
    for raised in (KeyNotFound("k"), KeyExpired("k"), CacheSaveError("/x", "why"), ConfigError("f", 1, "do")):
        error: QuickCacheError = raised
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_size", 0),
        ("default_ttl", -1),
        ("eviction_policy", "nope"),
        ("storage_dir", ""),
        ("filename", ""),
    ],
)
def test_configuration_is_checked(field: str, value: Any) -> None:
    """A wrong setting fails at once, under its name; `test_bad_input` has them all."""
    with pytest.raises(ConfigError, match=field):
        QuickCacheConfig(**{field: value})


@pytest.mark.parametrize("interval", [0, 0.0, -1, -0.001, 1e-9, float("nan"), float("inf"), "1", None, True])
def test_interval_that_would_spin(interval: Any) -> None:
    """An interval that would keep a thread busy, or kill it, is refused."""
    with pytest.raises(ConfigError, match="cleanup_interval"):
        QuickCacheConfig(cleanup_interval=interval)


def test_shortest_interval_does_not_spin() -> None:
    """Even the shortest interval leaves the thread asleep nearly all the time."""

    class Member:
        sweeps = 0

        def sweep(self) -> int:
            self.sweeps += 1
            return 0

        def before_fork(self) -> bool:
            return True

        def after_fork_in_parent(self, held: bool) -> None: ...

        def after_fork_in_child(self, held: bool) -> None: ...

    interval = QuickCacheConfig(cleanup_interval=0.01).cleanup_interval
    member, maintenance = Member(), Maintenance()
    began = time.monotonic()
    maintenance.wake(member, interval)
    time.sleep(0.3)
    maintenance.dismiss(member)
    assert 1 <= member.sweeps <= (time.monotonic() - began) / interval + 1


def test_registering_the_same_class_again() -> None:
    """A module that is imported twice, or reloaded by a test, registers its classes twice without harm."""

    class Policy(BaseEvictionPolicy):
        def select_eviction_key(self, cache: Any) -> str:
            return next(iter(cache))

    for _ in range(2):
        assert register_eviction_policy("registered_twice")(Policy) is Policy
        assert register_serializer("registered_twice")(FailsLate) is FailsLate
    with pytest.raises(ConfigError, match="registered_twice"):
        register_eviction_policy("registered_twice")(type("Other", (Policy,), {}))


BESIDE = """
import os
from quickcache_core import QuickCache, QuickCacheConfig

default = QuickCache()
relative = QuickCache(QuickCacheConfig(storage_dir="snapshots", metrics_storage_dir="figures"))
os.chdir("/")
for cache in (default, relative):
    cache.set("a", 1)
    print(cache.save_to_disk())
    print(cache.save_metrics_to_disk())
    print(cache.backup())
"""


def test_files_beside_main(tmp_path: Path) -> None:
    """Where the program's code lies nothing is written.

    Files go to the user's cache directory, or to where a relative path led when the configuration was made.
    """
    code, home, work = (tmp_path / name for name in ("code", "home", "work"))
    for folder in (code, home, work):
        folder.mkdir()
    script = code / "program.py"
    script.write_text(BESIDE)
    environment = {"HOME": str(home), "XDG_CACHE_HOME": "", "PYTHONDONTWRITEBYTECODE": "1"}
    printed = [Path(line) for line in run(script, cwd=work, env=environment).splitlines()]
    assert list(code.iterdir()) == [script]
    assert [path.parent for path in printed] == [
        *[home / ".cache" / "quickcache"] * 3,
        *(work / "snapshots", work / "figures", work / "snapshots"),
    ]
    assert all(path.is_file() for path in printed)


def test_files_of_an_interactive_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XDG_CACHE_HOME moves the user's cache directory; a relative one is ignored, as its standard demands."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert QuickCacheConfig().storage_dir == tmp_path / "xdg" / "quickcache"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert QuickCacheConfig().metrics_storage_dir == tmp_path / "home" / ".cache" / "quickcache"
