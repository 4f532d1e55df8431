"""A worker in scope `memory` that lives long: threads that an oracle judges, forks, finalisers, snapshots to
a disk that is full now and then, and clocks that jump.

    python -m tests.soak.in_memory JOB
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.soak import wall

wall.enter()

from quickcache_core import NEVER, QuickCache, QuickCacheConfig  # noqa: E402
from quickcache_core.errors import CacheSaveError  # noqa: E402
from tests.core.oracle import NOTHING, Oracle  # noqa: E402
from tests.soak.life import Diary, Job, live  # noqa: E402
from tests.soak.mistakes import spoil  # noqa: E402
from tests.soak.turned import TurnedCache  # noqa: E402

POLICIES = ("s3fifo", "lru", "lfu", "lfuda", "fifo", "sieve")
SECONDS = 0.3
"""Of the threads in each round."""
PATIENCE = 60.0
"""Seconds within which a child ends."""
SAVED = 50
"""Entries of a snapshot."""


class Meddler:
    """A value that uses its cache when it goes. In a cycle, the garbage collector chooses the moment."""

    def __init__(self, cache: QuickCache, number: int) -> None:
        self.cache = cache
        self.number = number
        self.me = self

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (self.number,)

    def __del__(self) -> None:
        way, key = self.number % 5, f"meddled{self.number % 7}"
        if way == 0:
            self.cache.set(key, self.number)
        elif way == 1:
            self.cache.get(key, None)
        elif way == 2:
            self.cache.delete(key, missing_ok=True)
        elif way == 3:
            self.cache.set(key, self.number, 0.001)
        else:
            self.cache.get_many([key, "k1"])


class InMemory:
    def __init__(self, job: Job) -> None:
        self.diary = Diary()
        self.random = random.Random()
        self.directory = Path(job.settings["directory"])
        published = {POLICIES[0]: {"publish_as": "soak"}}
        self.caches = [
            spoil(self.make(policy, **published.get(policy, {})), job.mistake) for policy in POLICIES
        ]
        self.saved = 0
        """Which version is in the snapshot; 0 for none."""
        self.rounds = self.meddlers = 0
        self.turned = TurnedCache(self.random, self.directory / "turned.qc")
        # What finalisers raise, Python can only report.
        sys.unraisablehook = lambda report: self.diary.note(
            "error", raised=repr(report.exc_value), where=repr(report.object)
        )

    @staticmethod
    def make(policy: str, **settings: Any) -> QuickCache:
        pickles = {"serializer": "pickle", "allow_unsigned_pickle": True}
        return QuickCache(
            QuickCacheConfig(max_size=10_000, eviction_policy=policy, **pickles, **settings)  # type: ignore[arg-type]
        )

    # A round

    def work(self) -> None:
        cache = self.caches[self.rounds % len(self.caches)]
        self.rounds += 1
        self.let_threads_work(cache)
        for step in (self.save, self.turn_clock, self.come_and_go):
            step(cache)

    def come_to_rest(self) -> None:
        for cache in self.caches:
            cache.clear()

    def let_threads_work(self, cache: QuickCache) -> None:
        before = cache.get_metrics_snapshot()
        cache.clear()
        self.oracle = oracle = Oracle(cache, writers=2, readers=2, other=lambda: self.meddle(cache))
        for one in oracle.run(SECONDS):
            kind = "lost" if "without a reason" in one else "failure" if "hang" in one else "wrong"
            self.diary.note(kind, what=one)
        after = cache.get_metrics_snapshot()
        self.diary.counts["operations"] += sum(after[name] - before[name] for name in ("gets", "sets"))

    def meddle(self, cache: QuickCache) -> None:
        """What one more thread does while the others work."""
        chance = self.random.random()
        if chance < 0.1:
            self.fork(cache)
        elif chance < 0.2:
            gc.collect()
        elif chance < 0.9:
            self.meddlers += 1
            cache.set(f"meddler{self.meddlers % 5}", Meddler(cache, self.meddlers), NEVER)
            self.diary.counts["finalisers"] += 1
        else:
            # Each write is in it or isn't; nobody waits for it long.
            self.attempt(lambda: cache.save_to_disk(self.directory / "meanwhile.qc"))
        time.sleep(0.001)

    def attempt(self, save: Callable[[], object]) -> bool:
        """Whether that was saved: the disk may be full."""
        try:
            save()
        except CacheSaveError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            self.diary.counts["failed saves"] += 1
            return False
        return True

    # Forks

    def fork(self, cache: QuickCache) -> None:
        """A child in the middle of it all has what there was, can go on with it, and ends."""
        ours, theirs = os.pipe()
        pid = os.fork()
        if not pid:
            self._be_child(cache, theirs)
        os.close(theirs)
        with os.fdopen(ours, "rb") as said:
            status = self._wait(pid)
            told = said.read().decode()
        self.diary.counts["forked"] += 1
        if status or told:
            kind = "lost" if "without a reason" in told else "wrong" if told else "died"
            self.diary.note(kind, what=f"in a child: {told}", status=status)

    def _be_child(self, cache: QuickCache, told: int) -> None:
        status = 1
        try:
            oracle = self.oracle
            oracle.violations = []
            for key in oracle._published:
                before, seen, began = oracle._published[key], oracle._seen[key], time.monotonic()
                value = cache.get(key, NOTHING)
                oracle._judge(key, value, before, seen, oracle._clears_done, began)
            cache.set("of a child", 1, NEVER)
            if cache.get("of a child", None) != 1:
                oracle.violations.append("a miss without a reason")
            os.write(told, "\n".join(oracle.violations).encode()[:4000])
            status = 0
        except BaseException:
            os.write(told, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(status)

    @staticmethod
    def _wait(pid: int) -> int | None:
        """The status; None for a child that hung."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return None

    # Snapshots

    def save(self, cache: QuickCache) -> None:
        """A save that fails leaves the snapshot before it whole."""
        path = self.directory / "saved.qc"
        cache.clear()
        cache.set_many({f"s{n}": [self.rounds] * 100 for n in range(SAVED)}, NEVER)
        if self.attempt(lambda: cache.save_to_disk(path)):
            self.saved = self.rounds
        if self.saved:
            with self.make("lru") as other:
                other.load_from_disk(path)
                found = other.get_many([f"s{n}" for n in range(SAVED)])
            self.diary.counts["operations"] += SAVED
            if len(found) != SAVED:
                self.diary.note("lost", what=f"{SAVED - len(found)} entries of {path}")
            if any(value != [self.saved] * 100 for value in found.values()):
                self.diary.note("wrong", what=f"{path} isn't the last that was saved")

    # Clocks

    def turn_clock(self, _: QuickCache) -> None:
        for one in self.turned.use(200):
            self.diary.note(**one)
        self.diary.counts.update(self.turned.counts)
        self.turned.counts.clear()

    # Caches

    def come_and_go(self, _: QuickCache) -> None:
        """Nothing stays of caches that are stopped, nor of those that are forgotten."""
        for n in range(4):
            cache = self.make(self.random.choice(POLICIES), default_ttl=5.0)
            cache.set_many({f"k{k}": k for k in range(100)}, self.random.choice((0.01, 60.0)))
            self.diary.counts["operations"] += 100
            if n % 2:
                cache.stop()


def main() -> None:
    job = Job.loads(sys.argv[1])
    worker = InMemory(job)
    live(job, worker.diary, worker.work, worker.come_to_rest)


if __name__ == "__main__":
    main()
