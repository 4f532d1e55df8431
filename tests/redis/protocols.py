"""Protocols of a near store that look right and aren't. The oracle must find each of them out.

Each is put into this process, in the place of what is right.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from quickcache_core.store.near import WHOLE, NearStore
from quickcache_core.store.redis import tracking
from quickcache_core.store.redis.near import TrackedNear
from quickcache_core.store.redis.pushes import PushReader

_feed = PushReader.feed
_keep = NearStore.keep
_lose = TrackedNear._lose


def pushes_ignored() -> None:
    """Nobody hears of what others write."""

    def feed(self: PushReader, data: bytes) -> list[int]:
        _feed(self, data)
        return []

    PushReader.feed = feed  # type: ignore[method-assign]


def whole_ignored() -> None:
    """Nobody hears of a clear."""

    def feed(self: PushReader, data: bytes) -> list[int]:
        return [slot for slot in _feed(self, data) if slot != WHOLE]

    PushReader.feed = feed  # type: ignore[method-assign]


def label_after() -> None:
    """The label is taken when what was read is kept: news that came in between is taken for older."""

    def keep(self: Any, young: Any, key: str, entry: Any, size: int) -> None:
        if entry.label:
            entry.label = self._counter
        _keep(self, young, key, entry, size)

    TrackedNear.keep = keep  # type: ignore[method-assign]


def no_lease() -> None:
    """As long as the connection is there it is trusted, whether or not anything comes through."""
    tracking.Tracking.trusted_until = float("inf")  # type: ignore[assignment, method-assign]
    tracking.SILENCE = float("inf")  # type: ignore[misc]


def kept_over_reconnect() -> None:
    """What was near is near again when there is another connection."""
    was_near: dict[str, Any] = {}

    def lose(self: Any) -> None:
        if self._tracking is not None:
            was_near.clear()
            was_near.update(self.young)
        _lose(self)

    def connect(self: Any) -> None:
        # What makes the gap wide enough for others to write in.
        time.sleep(0.05)
        new = self._connector.connect()
        if new is not None:
            with self._stamping:
                self._tracking = new
                self._trusted_until = new.trusted_until
                self.young.update(was_near)
                self.stamps[WHOLE] = self._whole

    TrackedNear._lose = lose  # type: ignore[method-assign]
    TrackedNear._connect = connect  # type: ignore[method-assign]


def own_writes_ignored() -> None:
    """Of what this process writes it hears as of anybody's."""
    TrackedNear.wrote = lambda self, slot: None  # type: ignore[method-assign]


WRONG: dict[str, Callable[[], None]] = {
    "pushes-ignored": pushes_ignored,
    "whole-ignored": whole_ignored,
    "label-after": label_after,
    "no-lease": no_lease,
    "kept-over-reconnect": kept_over_reconnect,
    "own-writes-ignored": own_writes_ignored,
}
