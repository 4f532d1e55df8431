"""The entries of a memory store that goes by bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from quickcache_core.entry import Entry, WeighedEntry
from quickcache_core.errors import ValueTooLarge
from quickcache_core.events import RemovalCause
from quickcache_core.eviction_policy.base import EvictionPolicy
from quickcache_core.metrics.counters import Counters
from quickcache_core.store.base import Bounds, Life
from quickcache_core.store.population import CHUNKS_PER_WRITE, SLICE, Population
from quickcache_core.store.rich import RichEntry, Tags
from quickcache_core.store.weights import Weigher

_EVICTED, _EXPLICIT = RemovalCause.EVICTED, RemovalCause.EXPLICIT


class WeighingPopulation(Population):
    """A population that knows how many bytes its entries take, by estimate, and keeps them within
    `Bounds.max_bytes`.

    What is written without bounds goes by those of the last write. Each value is weighed once, when it is
    stored; one that is changed afterwards by who shares it isn't weighed again.

    A class of its own, so that stores that count entries only don't pay for this.
    """

    __slots__ = ("_planned", "_weigh", "limit", "used")

    def __init__(
        self,
        policy: EvictionPolicy,
        capacity: int,
        now: Callable[[], float],
        counters: Counters,
        tags: Tags,
        weigher: Weigher,
    ) -> None:
        super().__init__(policy, capacity, now, counters, tags)
        self._weigh = weigher
        self._may_swap = False
        self._planned = capacity
        self.used = 0
        """The sum of all weights."""
        self.limit: int | None = None
        """Bytes that are allowed at present."""

    # Every way in, and every change

    def put(self, key: str, value: Any, ttl: float, bounds: Bounds) -> Any:
        if self.loads:
            self.loads.pop(key, None)
        self.limit = bounds.max_bytes
        now = self._now()
        deadline = self.deadline(ttl)
        entry = self.entries.get(key)
        if entry is not None and self.is_live(entry):
            garbage = self.overwrite(entry, value, deadline)
        else:
            garbage = None if entry is None else self.dismiss(entry)
            garbage = garbage, self.admit(WeighedEntry(key, value, deadline), bounds, now)
        return garbage, self.see_to_expired()

    def put_rich(self, key: str, value: Any, life: Life, bounds: Bounds, label: int) -> Any:
        self.limit = bounds.max_bytes
        return super().put_rich(key, value, life, bounds, label)

    def admit(self, entry: Entry, bounds: Bounds, now: float) -> Any:
        self.limit = bounds.max_bytes
        weight = self._accepted(entry.key, entry.value)
        evicted = self._fit(weight)
        _weighed(entry).weight = weight
        garbage = super().admit(entry, bounds, now)
        self.used += weight
        return evicted, garbage

    def overwrite(self, entry: Entry, value: Any, deadline: float) -> Any:
        weight = self._accepted(entry.key, value)
        garbage = super().overwrite(entry, value, deadline)
        self._change(entry, weight)
        return garbage, self._fit(0, entry)

    def overwrite_rich(self, entry: Entry, value: Any, life: Life, label: int) -> Any:
        weight = self._accepted(entry.key, value)
        garbage = super().overwrite_rich(entry, value, life, label)
        entry = self.entries[entry.key]
        self._change(entry, weight)
        return garbage, self._fit(0, entry)

    def add_up(self, entry: Entry, value: Any) -> None:
        super().add_up(entry, value)
        self._change(entry, self._weigh(entry.key, value))
        if self._is_over():
            self.unfinished = True

    def leave(self, entry: Entry, cause: RemovalCause, *, in_wheel: bool = True) -> Any:
        value = super().leave(entry, cause, in_wheel=in_wheel)
        self.used -= _weighed(entry).weight
        return value

    def _exchange(self, old: Entry, new: RichEntry, now: float) -> None:
        new.weight = _weighed(old).weight
        super()._exchange(old, new, now)

    def _change(self, entry: Entry, weight: int) -> None:
        weighed = _weighed(entry)
        if weight != weighed.weight:
            self.used += weight - weighed.weight
            weighed.weight = weight
            self.policy.reweigh(entry)

    def _accepted(self, key: str, value: Any) -> int:
        """The weight. Raises `ValueTooLarge` for a value that has no room even alone; what was under its key
        is outdated, and leaves.
        """
        weight = self._weigh(key, value)
        if self.limit is not None and weight > self.limit:
            self.loads.pop(key, None)
            entry = self.entries.get(key)
            if entry is not None:
                if self.is_live(entry):
                    self.leave(entry, _EXPLICIT)
                else:
                    self.dismiss(entry)
            raise ValueTooLarge(key, weight, self.limit)
        return weight

    # Making room

    @property
    def owes(self) -> bool:
        return self.debt > 0 or self._is_over()

    def evict_debt(self) -> list[Any]:
        return [*super().evict_debt(), *self._fit()]

    def shrink_some(self, bounds: Bounds) -> tuple[bool, list[Any]]:
        self.limit = bounds.max_bytes
        more, garbage = super().shrink_some(bounds)
        garbage += self._fit()
        return more or self._is_over(), garbage

    def resize(self, capacity: int) -> None:
        self._planned = capacity
        super().resize(capacity)

    def _is_over(self) -> bool:
        return self.limit is not None and self.used > self.limit and len(self.entries) > 0

    def _fit(self, more: int = 0, spared: Entry | None = None) -> list[Any]:
        """Evict until so many more bytes fit in, as far as one hold of the lock has time for it; expired
        entries first. One entry is spared if it can be: it was written just now.
        """
        garbage: list[Any] = []
        limit = self.limit
        if limit is None or self.used + more <= limit:
            return garbage
        limit -= more
        now = self._now()
        for _ in range(CHUNKS_PER_WRITE):
            garbage += self.expire_chunk(now)
        self._plan()
        # A policy that gives the spared one away gets it back when others have left.
        aside: Entry | None = None
        for _ in range(SLICE):
            if self.used <= limit or not self.entries:
                break
            entry = self.policy.evict()
            if entry is spared and self._evict_lets_go and aside is None and len(self.entries) > 1:
                aside = entry
            else:
                garbage.append(self.leave(entry, _EVICTED))
                if entry is aside or (aside is not None and len(self.entries) == 1):
                    break
        if aside is not None and aside.deadline >= 0.0:
            self.policy.insert(aside)
        if self.used > limit:
            self.unfinished = True
        return garbage

    def _plan(self) -> None:
        # Policies plan with a number of entries. Where bytes are what runs out, that is how many there are.
        size = max(1, len(self.entries))
        if abs(size - self._planned) * 8 > self._planned:
            self._planned = size
            self.policy.resize(size)


def _weighed(entry: Entry) -> WeighedEntry:
    """All entries in here have a weight: they are weighed or rich ones."""
    return cast("WeighedEntry", entry)
