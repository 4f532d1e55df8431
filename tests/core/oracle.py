"""What threads may see: writers publish versions after each write, and readers hold the cache to them."""

from __future__ import annotations

import ctypes
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from quickcache_core import NEVER, QuickCache

_now = time.monotonic
NOTHING = object()


@dataclass(frozen=True, slots=True)
class Published:
    """What the one writer of a key says of it, after a write and before the next one begins."""

    version: int
    """The last that was written. Values are versions; they only grow."""
    live: bool | None
    """None while a write is under way."""
    clears_done_before: int = 0
    """Clears that had ended when this write began."""
    clears_begun_after: int = 0
    """Clears that had begun when this write returned."""
    ends_not_before: float = float("inf")
    ends_not_after: float = float("inf")


@dataclass
class Oracle:
    """Writers, one for each key, and readers, who note what no order of the operations explains.

    A get that starts after a write returned gives that version or a later one, or a miss that a deletion, a
    clear or a deadline explains; and nothing that was deleted, cleared or expired before it started.
    """

    cache: QuickCache
    keys: int = 8
    writers: int = 3
    readers: int = 4
    clears: bool = True
    short_ttls: bool = True
    misses_are_fine: bool = False
    """For caches that are too small, or switched off now and then."""
    other: Callable[[], object] | None = None
    """One more thread does this over and over."""
    violations: list[str] = field(default_factory=list)
    gets: int = 0

    def run(self, seconds: float, *, until_violation: bool = False) -> list[str]:
        self._published = {f"k{n}": Published(0, live=False) for n in range(self.keys)}
        self._seen = dict.fromkeys(self._published, 0)
        self._clears_begun = self._clears_done = 0
        self._counts: list[int] = []
        self._end = _now() + seconds
        self._until_violation = until_violation
        names = list(self._published)
        work: list[tuple[Any, ...]] = [
            *((self._write, names[n :: self.writers], n) for n in range(self.writers)),
            *((self._read, names, n) for n in range(self.readers)),
        ]
        if self.clears:
            work.append((self._clear,))
        if self.other is not None:
            work.append((self._do_other, self.other))
        threads = [threading.Thread(target=self._guarded, args=one, daemon=True) for one in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds + 60.0)
            if thread.is_alive():
                self.violations.append("a thread hangs")
        self.gets = sum(self._counts)
        """Gets that were made, to compare with what the cache has counted."""
        return self.violations

    def _goes_on(self) -> bool:
        return _now() < self._end and not (self.violations and self._until_violation)

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except Exception as error:
            self.violations.append(f"{type(error).__name__}: {error}")

    def _clear(self) -> None:
        while self._goes_on():
            time.sleep(0.003)
            self._clears_begun += 1
            self.cache.clear()
            self._clears_done = self._clears_begun

    def _do_other(self, other: Callable[[], object]) -> None:
        while self._goes_on():
            other()

    # One writer per key

    def _write(self, keys: list[str], seed: int) -> None:
        chance = random.Random(seed)
        while self._goes_on():
            key = chance.choice(keys)
            before = self._published[key]
            if before.live and chance.random() < 0.3:
                self._remove(key, before, chance)
            else:
                self._store(key, before, chance)

    def _remove(self, key: str, before: Published, chance: random.Random) -> None:
        self._published[key] = Published(before.version, live=None)
        way = chance.randrange(3)
        if way == 0:
            self.cache.delete(key, missing_ok=True)
        elif way == 1:
            self.cache.pop(key, None)
        else:
            self.cache.delete_many([key])
        self._published[key] = Published(before.version, live=False)

    def _store(self, key: str, before: Published, chance: random.Random) -> None:
        version = before.version + 1
        ttl = chance.choice((0.001, 0.004)) if self.short_ttls and chance.random() < 0.3 else None
        self._published[key] = Published(before.version, live=None)
        clears, began = self._clears_done, _now()
        self._put(key, version, ttl, chance)
        self._published[key] = Published(
            version,
            live=True,
            clears_done_before=clears,
            clears_begun_after=self._clears_begun,
            ends_not_before=float("inf") if ttl is None else began + ttl,
            ends_not_after=float("inf") if ttl is None else _now() + ttl,
        )

    def _put(self, key: str, version: int, ttl: float | None, chance: random.Random) -> None:
        lasts = NEVER if ttl is None else ttl
        way = chance.randrange(4)
        if way == 1:
            self.cache.set_many({key: version}, lasts)
        elif way == 2:
            # The number that is there, if any, may be this one's predecessor only.
            self.cache.delete(key, missing_ok=True)
            self.cache.add(key, version, lasts)
        elif way == 3:
            self.cache.set(key, version, NEVER)
            self.cache.touch(key, lasts, missing_ok=True)
        else:
            self.cache.set(key, version, lasts)

    # Many readers

    def _read(self, keys: list[str], seed: int) -> None:
        chance = random.Random(1000 + seed)
        count = 0
        try:
            while self._goes_on():
                key = chance.choice(keys)
                before, seen, cleared, began = (
                    self._published[key],
                    self._seen[key],
                    self._clears_done,
                    _now(),
                )
                value = self._get(key, chance)
                count += 1
                self._judge(key, value, before, seen, cleared, began)
        finally:
            self._counts.append(count)

    def _get(self, key: str, chance: random.Random) -> Any:
        way = chance.randrange(8)
        if way == 0:
            return self.cache.get_many([key]).get(key, NOTHING)
        if way == 1:
            try:
                return self.cache.get(key)
            except KeyError:
                return NOTHING
        return self.cache.get(key, NOTHING)

    def _judge(self, key: str, value: Any, before: Published, seen: int, cleared: int, began: float) -> None:
        after = self._published[key]
        if value is NOTHING:
            unexplained = (
                before.live
                and after is before
                and self._clears_begun == before.clears_done_before
                and _now() < before.ends_not_before
            )
            if unexplained and not self.misses_are_fine:
                self._note(key, "a miss without a reason", value, before)
            return
        if not isinstance(value, int):
            self._note(key, "no value that was ever stored", value, before)
            return
        if value < max(before.version, seen):
            self._note(key, f"an old version, {seen} was seen", value, before)
        elif value > after.version + 1:
            self._note(key, "a version that nobody has written", value, before)
        elif value <= before.version and before.live is False:
            self._note(key, "a deleted value", value, before)
        elif value == before.version and before.live:
            if cleared > before.clears_begun_after:
                self._note(key, "a cleared value", value, before)
            elif began >= before.ends_not_after:
                self._note(key, "an expired value", value, before)
        if value > self._seen[key]:
            self._seen[key] = value

    def _note(self, key: str, what: str, value: object, before: Published) -> None:
        self.violations.append(f"{key}: {what}: {value!r} after {before}")


@contextmanager
def eager_switching() -> Iterator[None]:
    """Let threads take turns a thousand times more often than usual, to see what is torn."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


def within(seconds: float, work: Callable[[], object]) -> None:
    """Run `work` in a thread. If it hangs, fail; the thread is told to end, so that other tests can go on."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        # Ends loops, not waits for a lock.
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit)
        )
        raise AssertionError(f"still running after {seconds} s")
    if errors:
        raise errors[0]
