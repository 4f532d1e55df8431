"""Lets a cache shrink while memory is short, and grow back afterwards."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from typing import Final, Protocol

from quickcache_core.free_memory import MemoryState, give_back, read_memory
from quickcache_core.sizes import in_words

logger = logging.getLogger(__name__)

LOOK_INTERVAL: Final = 5.0
"""Seconds between two looks at the memory."""

_LOW: Final = 0.10
_HIGH: Final = 0.20
"""Shares of the memory. With less than the first available the cache shrinks, with more than the second it
may grow; in between it stays as it is.
"""
_FLOOR: Final = 1 / 16
"""Of the configured bounds."""
_SHRINK: Final = 0.7
"""What a look at short memory leaves of the bounds. Eight such looks get from the whole to the floor."""
_GROW: Final = 1 / 16
"""Added by one step of growth: memory is given up faster than it is taken again, and a step of even the
largest cache is smaller than the gap between the marks.
"""
_PATIENCE: Final = 6
_MOST_PATIENCE: Final = 16 * _PATIENCE
_QUICKLY: Final = 60
"""Looks. Growth that is followed by a shrink within so many came too early."""
_TOO_SMALL: Final = 1 / 200
"""A cache of no more than this share of the memory could not help."""


class Sizable(Protocol):
    """A cache whose bounds can be lowered for a time."""

    def limits(self) -> tuple[int, int | None]:
        """The configured `max_size` and `max_bytes`."""

    def apply(self, share: float) -> None:
        """Let `share` of the configured bounds be in force from now on: of `max_bytes` if there is one, else
        of `max_size`, and one entry at least. What is over that leaves, in slices.

        The share is above 0 and at most 1. May be slow, but must let others at the cache in between.
        """


class AutoSizer:
    """Looks at the memory from time to time and sets how much of its configured bounds a cache may use.

    One for each cache, and to be looked after by `maintenance` every `LOOK_INTERVAL` seconds; `sweep` is one
    look. The target is held weakly: a cache that nobody uses any more shall go.

    Memory is short when less than a tenth of it is available: then each look takes three tenths of what the
    cache still has, down to a sixteenth of its configured bounds. With more than a fifth available for
    several looks on end, a sixteenth of the configured bounds is given back, and so on. How many looks, that
    is six at first, and twice as many each time growth turned out to have come too early. So a cache that
    doesn't fit settles at a size that does, instead of swinging.

    A cache whose `max_bytes` is less than half a percent of the memory is left alone. Where the memory can't
    be read nothing is done, and a warning says so, one for each time.

    Not for several threads at once; the figures may be read from any.
    """

    def __init__(
        self,
        target: Sizable,
        read: Callable[[], MemoryState] = read_memory,
        trim: Callable[[], None] = give_back,
    ) -> None:
        self._target = weakref.ref(target)
        self._read = read
        self._trim = trim
        self._patience = _PATIENCE
        self._calm = 0
        self._since_growth = _QUICKLY
        self._has_warned = False
        self.share = 1.0
        """Of the configured bounds: what is in force."""
        self.shrinks = 0
        self.grows = 0
        """How often the bounds were lowered and raised."""
        self.last_state: MemoryState | None = None
        """What the last look found; None before the first, and if the memory can't be read."""

    def sweep(self) -> None:
        """Have a look, and shrink or grow by a step if it is time to."""
        target = self._target()
        if target is None:
            return
        self.last_state = state = self._look()
        if state is None or self._is_too_small(target, state):
            self._calm = 0
            return
        self._since_growth += 1
        if state.share < _LOW:
            self._calm = 0
            self._shrink(target, state)
        elif state.share > _HIGH:
            self._calm += 1
            if self._calm >= self._patience:
                self._calm = 0
                self._grow(target)
        else:
            self._calm = 0

    def _look(self) -> MemoryState | None:
        try:
            state = self._read()
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                logger.warning("No automatic sizing: %s", error)
            return None
        self._has_warned = False
        return state

    def _is_too_small(self, target: Sizable, state: MemoryState) -> bool:
        _, max_bytes = target.limits()
        # Not of one that has shrunk already: it has to get back to where it was.
        return self.share == 1.0 and max_bytes is not None and max_bytes < state.total * _TOO_SMALL

    def _shrink(self, target: Sizable, state: MemoryState) -> None:
        if self.share <= _FLOOR:
            return
        if self.share == 1.0:
            logger.info(
                "Memory is short, %s of %s available: the cache shrinks",
                in_words(state.available),
                in_words(state.total),
            )
        share = max(self.share * _SHRINK, _FLOOR)
        target.apply(share)
        if self._since_growth < _QUICKLY:
            # Once for each time that it grew too early, not for each step down.
            self._patience = min(self._patience * 2, _MOST_PATIENCE)
            self._since_growth = _QUICKLY
        self.share = share
        self.shrinks += 1
        # Else the process keeps what was freed, for itself, and the next look finds as little as this one.
        self._trim()

    def _grow(self, target: Sizable) -> None:
        if self.share >= 1.0:
            # Long enough at its full size: what was learned about patience is of yesterday.
            self._patience = max(self._patience // 2, _PATIENCE)
            return
        share = min(self.share + _GROW, 1.0)
        target.apply(share)
        if share == 1.0:
            logger.info("The cache has its configured size again")
        self.share = share
        self.grows += 1
        self._since_growth = 0

    # Forks

    def before_fork(self) -> bool:
        return True

    def after_fork_in_parent(self, held: bool) -> None:
        pass

    def after_fork_in_child(self, held: bool) -> None:
        # The child's cache has the bounds of the parent's, and goes on from there.
        pass
