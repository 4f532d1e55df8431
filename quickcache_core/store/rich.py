"""An entry of a memory store that has more than a TTL."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from quickcache_core.entry import FOREVER, Entry
from quickcache_core.store.life import TAG_SLOTS, Found, Life

_ALWAYS_PAST: Final = 0.0
"""The deadline of an entry that each reader has to take a closer look at."""
_LONGEST_STALE: Final = 1e15
"""Seconds. What may be stale has to have an end, since an empty wheel is taken for "nothing ever expires"."""


class Tags:
    """When each tag was last invalidated, as the number of that invalidation.

    An entry is labelled with the number of the last invalidation before its value was computed, and is valid
    while none of its tags has a higher one. Writers change it under the store's lock, readers take none: the
    number of a tag is there before `label` is, so nobody gets a label that is too high.
    """

    __slots__ = ("_numbers", "label")

    def __init__(self) -> None:
        # Made when it is needed: 2 MiB.
        self._numbers: array[int] | None = None
        self.label = 0
        """The number of the last invalidation."""

    def invalidate(self, slots: Iterable[int]) -> None:
        number = self.label + 1
        numbers = self._numbers
        if numbers is None:
            numbers = array("Q", bytes(8 * TAG_SLOTS))
        for slot in slots:
            numbers[slot] = number
        self._numbers = numbers
        self.label = number

    def are_valid(self, slots: tuple[int, ...], label: int) -> bool:
        """Whether none of them was invalidated after that label."""
        numbers = self._numbers
        if numbers is not None:
            for slot in slots:
                if numbers[slot] > label:
                    return False
        return True


class RichEntry(Entry):
    """A value under a key, and how it lives.

    `deadline` says until when the hot table may answer by itself: never for an entry that has tags or slides,
    otherwise until it is due for a refresh or stale. Once such an entry, always one: without anything but a
    TTL its life is a plain one.

    Readers without a lock take `value` first, as with any entry. A value is only replaced while it is live,
    so whatever they go on to read, the value was live when they took it, or the rest says that it wasn't.
    """

    __slots__ = ("end", "fresh_until", "label", "last", "life", "refresh_at", "retry_at", "weight")

    life: Life
    fresh_until: float
    """Monotonic seconds, as all that follow. Later with each read of one that slides."""
    end: float
    """When it leaves: `fresh_until` and the time as a stale one. It is in the wheel for this time, unless
    this is `FOREVER`.
    """
    last: float
    """It is fresh no longer than that, however often it is read."""
    refresh_at: float
    """When it is due for a refresh, fresh as it is."""
    retry_at: float
    """It isn't due before that."""
    label: int
    """See `Tags`."""
    weight: int
    """Estimated bytes; 0 in a store that doesn't weigh."""

    def begin(self, life: Life, now: float, label: int) -> None:
        """Live so from now on. `end` is left to who keeps the wheel, see `planned_end`."""
        self.life = life
        self.label = label
        self.last = _after(now, life.max_age) if life.sliding else FOREVER
        self.refresh_at = _after(now, life.refresh_after)
        self.retry_at = 0.0
        self.fresh_until = min(_after(now, life.ttl), self.last)
        self._set_deadline()

    def live_for(self, ttl: float, now: float) -> None:
        """Begin the TTL anew, of another length, with all else as it is. Leaves `end` as `begin` does."""
        life = self.life
        if life.sliding and ttl != life.ttl:
            self.life = replace(life, ttl=ttl)
        self.fresh_until = min(_after(now, ttl), self.last)
        self._set_deadline()

    def slide(self, now: float) -> None:
        """The entry was read."""
        until = min(_after(now, self.life.ttl), self.last)
        # Only ever later, so the wheel finds out by itself.
        if until > self.fresh_until:
            self.fresh_until = until
            self.end = self.planned_end()

    def put_off(self, until: float) -> None:
        self.retry_at = until
        self._set_deadline()

    def live_until(self, time: float) -> None:
        """Have that for the end of the TTL."""
        self.fresh_until = min(time, self.last)
        self._set_deadline()

    def planned_end(self) -> float:
        fresh_until = self.fresh_until
        return (
            fresh_until if fresh_until is FOREVER else fresh_until + min(self.life.stale_ttl, _LONGEST_STALE)
        )

    def is_valid(self, tags: Tags) -> bool:
        """Whether none of its tags was invalidated."""
        return tags.are_valid(self.life.tags, self.label)

    def is_fresh(self, now: float, tags: Tags) -> bool:
        # The deadline last: an entry that left was marked before anything else.
        return now < self.fresh_until and self.is_valid(tags) and self.deadline >= 0.0

    def is_kept(self, now: float, tags: Tags) -> bool:
        """Whether it is there for those who ask for stale ones as well."""
        return now < self.end and self.is_valid(tags) and self.deadline >= 0.0

    def is_stale(self, now: float, tags: Tags) -> bool:
        return self.fresh_until <= now and self.is_kept(now, tags)

    def is_due(self, now: float) -> bool:
        return now >= self.retry_at and (now >= self.refresh_at or now >= self.fresh_until)

    def found(self, value: Any, now: float) -> Found:
        return Found(value, now < self.fresh_until, self.is_due(now), self.life.etag)

    def remaining_life(self, now: float) -> Life | None:
        """The life of an entry that is made of this one now; None for a plain one."""
        life = self.life
        if life.is_plain:
            return None
        if self.last is FOREVER and self.refresh_at is FOREVER:
            return life
        least = 1e-9
        return replace(
            life,
            max_age=FOREVER if self.last is FOREVER else max(self.last - now, least),
            refresh_after=FOREVER if self.refresh_at is FOREVER else max(self.refresh_at - now, least),
        )

    def _set_deadline(self) -> None:
        life = self.life
        if life.tags or life.sliding:
            self.deadline = _ALWAYS_PAST
        else:
            self.deadline = min(self.fresh_until, max(self.refresh_at, self.retry_at))


def _after(now: float, seconds: float) -> float:
    # `FOREVER` itself, which is compared by identity, whatever infinity came in.
    return FOREVER if seconds == FOREVER else now + seconds
