"""A worker that lives long, or is killed and starts again, with a cache that others use as well.

Each of its threads has keys that only it writes: it knows what is under them. Of what others wrote it knows
at least whose it must be.

    python -m tests.soak.dweller JOB
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import random
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.soak import wall

wall.enter()

from quickcache_core import NEVER, QuickCache, QuickCacheConfig  # noqa: E402
from quickcache_core.errors import StoreUnavailable  # noqa: E402
from tests.soak.crew import Words  # noqa: E402
from tests.soak.life import Diary, Job, live  # noqa: E402
from tests.soak.mistakes import spoil  # noqa: E402

THREADS = 3
KEYS = 30
"""Of each thread."""
STEPS = 150
"""Of each thread, in a round."""
PATIENCE = 60.0
"""Seconds within which a cache works again, and a child ends."""
UNKNOWN = -1
"""As a version: whatever a worker of this name left that was killed."""
NOTHING = object()
_SIZES = (0, 10, 100, 1000, 3000)
_VALUE = re.compile(r"<([^<>]+):(\d+)>(x*)")


@dataclass
class Known:
    """What is under a key."""

    version: int | None = UNKNOWN
    """None: nothing."""
    trouble: int = -1
    """How much trouble there had been with the server when it was written; odd: there was just then."""
    doubted_until: float = field(default=float("-inf"))

    @property
    def is_doubted(self) -> bool:
        return time.monotonic() < self.doubted_until


class Dweller:
    def __init__(self, job: Job) -> None:
        self.job = job
        self.words = Words(Path(job.words))
        self.diary = Diary()
        config = QuickCacheConfig.from_mapping({"fail": "raise", "max_size": 100_000, **job.settings})
        self.cache = spoil(QuickCache(config), job.mistake)
        self.known = [{self.key(n, k): Known() for k in range(KEYS)} for n in range(THREADS)]
        self.sums = [Known() for _ in range(THREADS)]
        self.versions = time.monotonic_ns()
        self.giving = threading.Lock()
        self.random = random.Random()

    def key(self, thread: int, number: int, name: str = "") -> str:
        return f"{name or self.job.name}/{thread}/{number}"

    def value(self, key: str, version: int) -> Any:
        head, filling = f"<{key}:{version}>", "x" * _SIZES[version % len(_SIZES)]
        return [head, filling] if version % 3 == 0 else head + filling

    def version(self) -> int:
        with self.giving:
            self.versions += 1
            return self.versions

    # A round

    def work(self) -> None:
        threads = [threading.Thread(target=self._thread, args=(n,), daemon=True) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        self.fork()
        for thread in threads:
            thread.join(PATIENCE + STEPS)
            if thread.is_alive():
                self.diary.note("hang", what="a thread")
        try:
            asyncio.run(self.look_in_a_loop())
        except StoreUnavailable:
            self.diary.counts["unavailable"] += 1

    def come_to_rest(self) -> None:
        """As soon as the cache works: connections are there again, and near stores trust theirs."""
        end = time.monotonic() + PATIENCE
        key = f"rest of {self.job.name}"
        while True:
            try:
                self.cache.set(key, end)
                if self.cache.get(key, None) == end:
                    return
            except StoreUnavailable:
                pass
            if time.monotonic() > end:
                self.diary.note("hang", what="the cache doesn't work again")
                return
            time.sleep(0.02)

    def fork(self) -> None:
        """A child in the middle of it all, that uses the cache and ends."""
        pid = os.fork()
        if not pid:
            status = 1
            try:
                key = f"child of {self.job.name}"
                self.cache.set(key, "child")
                status = 0 if self.cache.get(key, None) in ("child", None) else 2
            except StoreUnavailable:
                status = 0
            finally:
                os._exit(status)
        end = time.monotonic() + PATIENCE
        while True:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                break
            if time.monotonic() > end:
                self.diary.note("hang", what="a child")
                # Where it hangs is in the log then.
                os.kill(pid, signal.SIGUSR1)
                time.sleep(1.0)
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return
            time.sleep(0.005)
        self.diary.counts["forked"] += 1
        if status:
            self.diary.note("died", what="a child", status=os.waitstatus_to_exitcode(status))

    async def look_in_a_loop(self) -> None:
        for n in range(THREADS):
            for key in self.chance_keys(n):
                self.judge(key, self.known[n][key], self.trouble(), await self.cache.aget(key, NOTHING))

    def chance_keys(self, thread: int) -> list[str]:
        return self.random.sample(list(self.known[thread]), 4)

    def _thread(self, number: int) -> None:
        chance = random.Random()
        steps: list[tuple[Callable[[int, random.Random], None], float]] = [
            (self.look, 50),
            (self.look_at_others, 12),
            (self.put, 14),
            (self.put_many, 2),
            (self.remove, 4),
            (self.fill, 6),
            (self.add_up, 5),
            (self.touch, 3),
            (self.invalidate, 0.5),
            (self.look_at_many, 3),
        ]
        ways, weights = zip(*steps, strict=True)
        try:
            for _ in range(STEPS):
                self.diary.counts["operations"] += 1
                try:
                    chance.choices(ways, weights)[0](number, chance)
                except StoreUnavailable:
                    self.diary.counts["unavailable"] += 1
        except Exception:
            self.diary.note("error", traceback=traceback.format_exc())

    # What is known

    def doubt(self) -> float:
        """Until when nobody knows what a write that failed now leaves."""
        return time.monotonic() + self.job.doubt

    def trouble(self) -> int:
        return self.words.trouble

    def judge(self, key: str, known: Known, trouble: int, value: Any) -> None:
        """What a read that began with so much trouble gave. Nobody else writes meanwhile."""
        if value is not NOTHING and not self.is_of(key, value):
            self.diary.note("foreign", key=key, value=repr(value)[:200])
        elif known.version == UNKNOWN or known.is_doubted:
            self.diary.counts["doubted"] += 1
        elif value is NOTHING:
            # A server that was killed has nothing left, and nobody can read while one is away.
            calm = known.trouble == trouble == self.trouble() and trouble % 2 == 0
            if known.version is not None and calm:
                self.diary.note("lost", key=key, version=known.version)
        elif known.version is None or value != self.value(key, known.version):
            self.diary.note("stale", key=key, version=known.version, value=repr(value)[:200])

    def is_of(self, key: str, value: Any) -> bool:
        whole = "".join(value) if isinstance(value, list) else value
        match = _VALUE.fullmatch(whole) if isinstance(whole, str) else None
        return bool(match and match[1] == key and value == self.value(key, int(match[2])))

    def write(self, known: dict[str, Known], version: int | None, work: Callable[[], object]) -> None:
        """Do what leaves this version under the keys, if it is done."""
        trouble = self.trouble()
        try:
            work()
        except BaseException:
            for one in known.values():
                one.doubted_until, one.trouble = self.doubt(), -1
            raise
        for one in known.values():
            one.version, one.trouble = version, trouble

    # Steps

    def choose(self, number: int, chance: random.Random) -> tuple[str, Known]:
        return chance.choice(list(self.known[number].items()))

    def look(self, number: int, chance: random.Random) -> None:
        key, known = self.choose(number, chance)
        trouble = self.trouble()
        self.judge(key, known, trouble, self.cache.get(key, NOTHING))

    def look_at_many(self, number: int, chance: random.Random) -> None:
        keys = chance.sample(list(self.known[number]), 5)
        trouble = self.trouble()
        found = self.cache.get_many(keys)
        for key in keys:
            self.judge(key, self.known[number][key], trouble, found.get(key, NOTHING))

    def look_at_others(self, number: int, chance: random.Random) -> None:
        if not self.job.others:
            return
        key = self.key(chance.randrange(THREADS), chance.randrange(KEYS), chance.choice(self.job.others))
        value = self.cache.get(key, NOTHING)
        if value is not NOTHING and not self.is_of(key, value):
            self.diary.note("foreign", key=key, value=repr(value)[:200])

    def put(self, number: int, chance: random.Random) -> None:
        key, known = self.choose(number, chance)
        version = self.version()
        tags = [self.tag(number)] if self.is_tagged(key) else []
        value = self.value(key, version)
        ttl = chance.choice((NEVER, 3600.0))
        self.write({key: known}, version, lambda: self.cache.set(key, value, ttl, tags=tags))

    def put_many(self, number: int, chance: random.Random) -> None:
        keys = [key for key in chance.sample(list(self.known[number]), 5) if not self.is_tagged(key)]
        version = self.version()
        values = {key: self.value(key, version) for key in keys}
        self.write(
            {key: self.known[number][key] for key in keys},
            version,
            lambda: self.cache.set_many(values, NEVER),
        )

    def remove(self, number: int, chance: random.Random) -> None:
        key, known = self.choose(number, chance)
        way = chance.choice((self.cache.delete, self.cache.delete, self.take_out))
        self.write({key: known}, None, lambda: way(key, missing_ok=True))

    def take_out(self, key: str, *, missing_ok: bool) -> None:
        assert missing_ok
        self.cache.pop(key, None)

    def fill(self, number: int, chance: random.Random) -> None:
        """A miss is filled by a loader, a hit isn't."""
        key, known = self.choose(number, chance)
        version = self.version()
        loaded: list[int] = []

        def load() -> Any:
            loaded.append(version)
            return self.value(key, version)

        if self.is_tagged(key):
            return
        trouble = self.trouble()
        try:
            value = self.cache.get_or_set(key, load, ttl_sec=NEVER)
        except BaseException:
            known.doubted_until = self.doubt()
            raise
        if not loaded:
            self.judge(key, known, trouble, value)
        elif self.words.trouble == trouble and trouble % 2 == 0:
            self.judge(key, known, trouble, NOTHING)
            known.version, known.trouble = version, trouble
        else:
            # Stored or not, as it was possible.
            known.version, known.doubted_until, known.trouble = version, self.doubt(), -1

    def add_up(self, number: int, _: random.Random) -> None:
        """Of a sum that is known the next is known as well; the first says what was there."""
        known, key = self.sums[number], f"sum/{self.job.name}/{number}"
        trouble = self.trouble()
        try:
            total = self.cache.incr(key, 1, initial=0, ttl_sec=NEVER)
        except BaseException:
            known.doubted_until = self.doubt()
            raise
        calm = known.trouble == trouble == self.trouble() and trouble % 2 == 0
        if calm and not known.is_doubted and total != (known.version or 0) + 1:
            self.diary.note("wrong sum", key=key, total=total, known=known.version)
        known.version, known.trouble = total, trouble

    def touch(self, number: int, chance: random.Random) -> None:
        key, known = self.choose(number, chance)
        trouble = self.trouble()
        found = self.cache.touch(key, 3600.0, missing_ok=True)
        if not found:
            self.judge(key, known, trouble, NOTHING)

    def tag(self, number: int) -> str:
        return f"tag of {self.job.name}/{number}"

    @staticmethod
    def is_tagged(key: str) -> bool:
        return key.endswith(("0", "5"))

    def invalidate(self, number: int, _: random.Random) -> None:
        tagged = {key: one for key, one in self.known[number].items() if self.is_tagged(key)}
        self.write(tagged, None, lambda: self.cache.invalidate_tags(self.tag(number)))


def main() -> None:
    faulthandler.register(signal.SIGUSR1)
    job = Job.loads(sys.argv[1])
    dweller = Dweller(job)
    live(job, dweller.diary, dweller.work, dweller.come_to_rest)


if __name__ == "__main__":
    main()
