"""How many entries there are: counted by one process now and then, which tells the others."""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import Iterator
from time import monotonic
from typing import Final

from quickcache_core.errors import StoreUnavailable
from quickcache_core.store.redis.client import Client
from quickcache_core.store.redis.known import MOST_DIGITS, Known
from quickcache_core.store.redis.names import Names, escaped

_LOOK_INTERVAL: Final = 10.0
"""Seconds between two looks at what others have counted."""
_AGE: Final = 60.0
"""Seconds after which the entries are counted again, if that takes little time."""
_COMMAND_SECONDS: Final = 60.0
_SHARE: Final = 100
"""Counting takes at most one part in so many of the time."""


class Size:
    """Of one cache on a server. Loads under way count as entries, and so does what has expired and hasn't
    left.
    """

    def __init__(self, client: Client, names: Names, known: Known) -> None:
        self._client = client
        self._names = names
        self._known = known
        self._entries: int | None = None
        self._due = 0.0
        self._rest: Iterator[int] | None = None

    def entries(self) -> int:
        """As of the last minute or so; 0 until this process knows. Asks nobody, for requests ask this."""
        return self._entries or 0

    def look(self) -> None:
        """Find out, for a command, unless the background does or an event loop would wait. May go through all
        keys of the server, for `_COMMAND_SECONDS` at most.
        """
        now = monotonic()
        is_left = self._rest is None and now >= self._due + _LOOK_INTERVAL
        if now < self._due or not (self._entries is None or is_left) or _is_in_loop():
            return
        try:
            self.work(_COMMAND_SECONDS)
        except StoreUnavailable:
            pass

    @property
    def is_due(self) -> bool:
        return monotonic() >= self._due

    def work(self, seconds: float) -> None:
        """For so long at most, a command more or less. Raises `StoreUnavailable`."""
        end = monotonic() + seconds
        rest, self._rest = self._rest, None
        if rest is None:
            found = self._client.call(b"GET", self._names.size)
            if found is not None and found.isdigit() and len(found) <= MOST_DIGITS:
                self._entries = int(found)
                self._due = monotonic() + _LOOK_INTERVAL
                return
            if not self._client.call(b"SET", self._names.counting, b"", b"NX", b"PX", int(_AGE * 1000)):
                self._due = monotonic() + _LOOK_INTERVAL
                return
            rest = self._count()
        for _ in rest:
            if monotonic() >= end:
                self._rest = rest
                return

    def _count(self) -> Iterator[int]:
        generation = self._known.generation(0)[0]
        place = self._names.entries(generation)
        count, spent, began = 0, 0.0, monotonic()
        for found in self._client.scan(escaped(place) + b":*"):
            count += len(found)
            spent += monotonic() - began
            yield count
            began = monotonic()
        self._entries = count
        age = max(_AGE, spent * _SHARE)
        self._client.call(b"SET", self._names.size, count, b"PX", int(age * 1000))
        self._client.call(b"UNLINK", self._names.counting)
        self._due = monotonic() + _LOOK_INTERVAL


def _is_in_loop() -> bool:
    try:
        get_running_loop()
    except RuntimeError:
        return False
    return True
