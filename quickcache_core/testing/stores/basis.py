"""What the tests in this package are made of."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from quickcache_core.entry import FOREVER
from quickcache_core.store.base import Bounds, Presence, Store
from quickcache_core.testing.clock import ManualClock

E = TypeVar("E", bound=BaseException)

WIDE = Bounds(10_000)
LIVE, EXPIRED, GONE = Presence.LIVE, Presence.EXPIRED, Presence.ABSENT


def raised(kind: type[E], function: Callable[..., Any], *arguments: Any) -> E:
    """The exception of that kind that the call raises. Fails if there is none."""
    try:
        function(*arguments)
    except kind as error:
        return error
    raise AssertionError(f"{function} raised no {kind.__name__}")


class Basis:
    """Stores, empty and filled."""

    def make_store(self, clock: ManualClock) -> Store:
        raise NotImplementedError("return an empty store that takes its time from `clock`")

    def cleared(self, count: int) -> int:
        """What `clear` tells of so many entries; a store that can't count them tells 0."""
        return count

    def make(self) -> tuple[Store, ManualClock]:
        clock = ManualClock()
        return self.make_store(clock), clock

    def filled(self, count: int, ttl: float = FOREVER) -> tuple[Store, ManualClock]:
        """A store with the values 0, 1, ... under `k0`, `k1`, ..."""
        store, clock = self.make()
        store.put_many({f"k{n}": n for n in range(count)}, ttl, WIDE)
        return store, clock


def in_threads(count: int, work: Callable[[], None]) -> None:
    """Run `work` in that many threads at once. Raises what one of them raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(count)

    def run() -> None:
        try:
            barrier.wait()
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
