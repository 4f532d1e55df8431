"""What former generations left on the server, and how it leaves."""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator
from time import monotonic
from typing import Final

from quickcache_core.metrics.counters import Counters
from quickcache_core.store.redis.client import Client
from quickcache_core.store.redis.names import Names, escaped, is_generation
from quickcache_core.store.redis.scripts import RELEASE, RENEW

_LOOK_INTERVAL: Final = 60.0
"""Seconds between two looks at whether others left something behind."""
_AGAIN: Final = 5.0
"""Seconds after which nobody stores anything in a former generation any more, since all have heard."""
_REMEMBERED: Final = 86_400
"""Seconds for which processes that were idle meanwhile are told that a generation is gone."""
_LEASE: Final = 30.0
"""Seconds that a process has this to itself."""


class Former:
    """Removes the entries of former generations, and nothing else: of each it is written down that it was
    one.

    One process at a time does it, in slices. Each generation is gone through twice, for those who hadn't
    heard yet of the end of it when it was gone through first.
    """

    def __init__(self, client: Client, names: Names, counters: Counters) -> None:
        self._client = client
        self._names = names
        self._counters = counters
        self._owner = secrets.token_bytes(16)
        self._due = 0.0
        self._rest: Iterator[int] | None = None

    def hurry(self) -> None:
        """There is a new one."""
        self._due = 0.0

    @property
    def is_due(self) -> bool:
        return monotonic() >= self._due

    def work(self, seconds: float) -> None:
        """For so long at most, a command more or less. Raises `StoreUnavailable`."""
        end = monotonic() + seconds
        rest = self._rest or self._all()
        self._rest = None
        for removed in rest:
            self._counters.manual_deletions += removed
            if monotonic() >= end or not self.is_due:
                self._rest = rest
                return

    def _all(self) -> Iterator[int]:
        """Removes them as it is asked for more; how many at a time."""
        names, client = self._names, self._client
        found = self._generations()
        mine = found and client.call(b"SET", names.unlinking, self._owner, b"NX", b"PX", int(_LEASE * 1000))
        if not mine:
            self._due = monotonic() + _LOOK_INTERVAL
            return
        if not (yield from self._remove(found)):
            return
        # What is stored there from now on, nobody stores who has heard of the end.
        again = monotonic() + _AGAIN
        while monotonic() < again:
            self._due = again
            yield 0
        if not (yield from self._remove(found)):
            return
        client.call_many(
            (
                (b"SADD", names.removed, *found),
                (b"EXPIRE", names.removed, _REMEMBERED),
                (b"SREM", names.former, *found),
            )
        )
        # If this process ends before, it goes by itself.
        client.run(RELEASE, names.unlinking, self._owner)

    def _generations(self) -> set[bytes]:
        members, present = self._client.call_many(
            ((b"SMEMBERS", self._names.former), (b"GET", self._names.generation))
        )
        return {one for one in members if is_generation(one) and one != present}

    def _remove(self, generations: set[bytes]) -> Generator[int, None, bool]:
        """False: it took so long that another process does it now."""
        start = len(self._names.tracked)
        for found in self._client.scan(escaped(self._names.tracked) + b"????????:*"):
            gone = [name for name in found if name[start : start + 8] in generations]
            if not self._client.run(RENEW, self._names.unlinking, self._owner, int(_LEASE * 1000)):
                return False
            yield sum(self._client.call_many([(b"UNLINK", name) for name in gone]))
        return True
