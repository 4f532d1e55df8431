"""Which entries have expired, without a look at the others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Final

from quickcache_core.entry import FOREVER, Entry
from quickcache_core.store.rich import RichEntry

_TICKS_PER_SECOND = 16
"""The finest resolution: an expired entry is due at most 1/16 s after its deadline."""
_FINE_BITS = 6
"""A bucket spans at most 1/32 of the time that was left when its entries came in."""
_CHUNK_SIZE = 256
_SPARSE = 176
_FARTHEST = 1e30
"""Seconds; deadlines beyond it count as this one, since larger floats have no integer."""


class Bucket:
    """The entries to look at when a tick has come. Only the last chunk takes new ones."""

    __slots__ = ("chunks",)

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []


class Chunk:
    """At most `_CHUNK_SIZE` entries of one bucket; an entry that left is replaced by None."""

    __slots__ = ("bucket", "entries", "gone", "limit", "place")

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.entries: list[Entry | None] = []
        self.gone = 0
        self.limit = _SPARSE
        """So many may be gone before the rest moves on."""
        self.place = len(bucket.chunks)
        """Index in `bucket.chunks`."""


def keep_out(entry: Entry) -> None:
    """Let `discard` of an entry that isn't in any wheel do no harm.

    Entries with a finite deadline are in the wheel, with one kind of exception: those that have no end, but
    a time when readers have to take a closer look. Whoever removes an entry is spared the difference.
    """
    entry.chunk = _NOWHERE
    entry.index = 0


class Deadlines:
    """A timing wheel: entries with a finite deadline, in buckets by time.

    Far deadlines share coarse buckets, which are looked at when their earliest entry may be due; what
    isn't due then moves on into finer ones, so an entry moves a handful of times in its life. An entry whose
    deadline is put off stays where it is until its bucket comes up. Entries that leave early are dropped at
    once through their index: no garbage, whatever the churn. All operations take amortised constant time, and
    none takes longer than one chunk needs. Not thread-safe: the store calls it under its lock.

    Varghese and Lauck, "Hashed and hierarchical timing wheels" (SOSP 1987), with lazy buckets instead of a
    ring, since deadlines have no upper bound.
    """

    __slots__ = ("_buckets", "_chunk", "_high", "_low", "_ticks", "new_chunk", "next_due")

    def __init__(self) -> None:
        self._buckets: dict[int, Bucket] = {}
        self._ticks: list[int] = []
        # The chunk that the last entry went to, and the deadlines it takes: most writes have the same TTL.
        self.forget_recent()
        self.next_due = FOREVER
        """Monotonic seconds: until then nothing in here can have expired. `FOREVER` itself when there is
        nothing.
        """
        self.new_chunk = False
        """Set when a chunk was begun.

        The store takes this as the moment to see to expired entries, and resets it.
        """

    def add(self, entry: Entry, end: float, now: float) -> None:
        """Look at the entry when `end` has come, which isn't `FOREVER`."""
        chunk = self._chunk
        entries = chunk.entries
        index = len(entries)
        if index >= _CHUNK_SIZE or not self._low <= end < self._high:
            chunk = self._chunk_for(end, now)
            entries = chunk.entries
            index = len(entries)
        entry.chunk = chunk
        entry.index = index
        entries.append(entry)

    def discard(self, entry: Entry) -> None:
        """The entry was added before, and no longer is to be looked at."""
        chunk: Chunk = entry.chunk
        chunk.entries[entry.index] = None
        chunk.gone += 1
        if chunk.gone >= chunk.limit:
            self._thin_out(chunk)

    def take_expired(self, now: float) -> list[Entry]:
        """Look at one chunk that is due; the expired entries in it, which are no longer in here.

        May be empty although more is due: compare `next_due`.
        """
        if now < self.next_due:
            return []
        bucket = self._buckets[self._ticks[0]]
        expired: list[Entry] = []
        if bucket.chunks:
            chunk = bucket.chunks.pop()
            self._forget_recent(chunk)
            for entry in chunk.entries:
                if entry is None:
                    continue
                end = entry.end if entry.__class__ is RichEntry else entry.deadline
                if end <= now:
                    expired.append(entry)
                else:
                    self.add(entry, end, now)
        if not bucket.chunks:
            del self._buckets[heappop(self._ticks)]
            self.next_due = self._ticks[0] / _TICKS_PER_SECOND if self._ticks else FOREVER
        return expired

    def expired_chunks(self, now: float) -> Iterator[list[Entry]]:
        """The expired entries chunk by chunk, those included whose bucket comes up within the next tick.

        Changes nothing. Chunks may change while the caller takes its time between two of them.
        """
        limit = now * _TICKS_PER_SECOND + 1
        for bucket in [bucket for tick, bucket in list(self._buckets.items()) if tick <= limit]:
            for chunk in list(bucket.chunks):
                yield [entry for entry in chunk.entries if entry is not None and _has_ended(entry, now)]

    def forget_recent(self) -> None:
        """The next `add` will look its chunk up, or begin one."""
        self._chunk = Chunk(Bucket())
        self._low = self._high = 0.0

    def _forget_recent(self, chunk: Chunk) -> None:
        if self._chunk is chunk:
            self.forget_recent()

    def _chunk_for(self, deadline: float, now: float) -> Chunk:
        """The chunk with room for this deadline, which becomes the recent one."""
        tick = int(min(deadline, _FARTHEST) * _TICKS_PER_SECOND)
        coarse = (tick - int(now * _TICKS_PER_SECOND)).bit_length() - _FINE_BITS
        if coarse > 0:
            # Rounded down: some of its entries aren't expired when the bucket comes up.
            tick = tick >> coarse << coarse
            low, high = tick, tick + (1 << coarse)
        else:
            # Rounded up: all of them are.
            low, high = tick, tick + 1
            tick += 1
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = Bucket()
            heappush(self._ticks, tick)
            self.next_due = self._ticks[0] / _TICKS_PER_SECOND
        chunks = bucket.chunks
        if not chunks or len(chunks[-1].entries) >= _CHUNK_SIZE:
            chunks.append(Chunk(bucket))
            self.new_chunk = True
        self._chunk = chunks[-1]
        # A coarse and a fine bucket may share a tick; what matters is that the entry is looked at then.
        self._low, self._high = low / _TICKS_PER_SECOND, high / _TICKS_PER_SECOND
        return chunks[-1]

    def _thin_out(self, chunk: Chunk) -> None:
        """Give up a sparse chunk: the last one of its bucket takes its place, its survivors go to the end."""
        bucket = chunk.bucket
        sparse = [chunk]
        while sparse:
            chunk = sparse.pop()
            self._forget_recent(chunk)
            last = bucket.chunks.pop()
            if last is not chunk:
                bucket.chunks[chunk.place] = last
                last.place = chunk.place
                # No longer the last, it takes no more: what is full is measured by what is in it.
                last.limit = max(1, len(last.entries) * 2 // 3)
                if last.gone >= last.limit:
                    sparse.append(last)
            for entry in chunk.entries:
                if entry is not None:
                    if not bucket.chunks or len(bucket.chunks[-1].entries) >= _CHUNK_SIZE:
                        bucket.chunks.append(Chunk(bucket))
                    end = bucket.chunks[-1]
                    entry.chunk = end
                    entry.index = len(end.entries)
                    end.entries.append(entry)


def _has_ended(entry: Entry, now: float) -> bool:
    if entry.__class__ is RichEntry:
        return entry.deadline >= 0.0 and entry.end <= now
    return 0.0 <= entry.deadline <= now


_NOWHERE: Final = Chunk(Bucket())
_NOWHERE.entries.append(None)
_NOWHERE.limit = sys.maxsize
