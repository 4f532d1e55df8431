"""The entries of a memory store, with all books about them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from quickcache_core.entry import FOREVER, GONE, Entry
from quickcache_core.events import RemovalCause
from quickcache_core.eviction_policy.base import EvictionPolicy
from quickcache_core.metrics.counters import Counters
from quickcache_core.store.base import Bounds, Life, Presence
from quickcache_core.store.deadlines import Deadlines, keep_out
from quickcache_core.store.loads import Loads
from quickcache_core.store.rich import RichEntry, Tags

# Looking a member up on an Enum class runs Python code in 3.11, and costs three dictionary look-ups.
_LIVE, _EXPIRED, _ABSENT = Presence.LIVE, Presence.EXPIRED, Presence.ABSENT
_EVICTED, _OVERDUE, _REPLACED = RemovalCause.EVICTED, RemovalCause.EXPIRED, RemovalCause.REPLACED
_EXPLICIT, _INVALIDATED = RemovalCause.EXPLICIT, RemovalCause.INVALIDATED

_PLAIN = Life(FOREVER)

new_entry = object.__new__

PLAIN_NUMBERS = (int, float)

SLICE = 256
"""Entries evicted under one hold of the lock."""
CHUNKS_PER_WRITE = 2
"""Chunks of deadlines that a write looks at when the table is full, before a live entry is evicted."""


class Population:
    """A table of entries, the eviction policy and the timing wheel that belong to it.

    Not thread-safe: the store calls it under its write lock. Methods return the values that left the table,
    and the caller keeps them until the lock is free: dropping the last reference to a value may run its
    finaliser, which may call the cache.
    """

    __slots__ = (
        "_evict",
        "_evict_lets_go",
        "_insert",
        "_may_swap",
        "_now",
        "_on_update",
        "counters",
        "deadlines",
        "debt",
        "entries",
        "loads",
        "plain_keys",
        "policy",
        "removals",
        "tags",
        "unfinished",
        "wants_thread",
    )

    def __init__(
        self,
        policy: EvictionPolicy,
        capacity: int,
        now: Callable[[], float],
        counters: Counters,
        tags: Tags,
    ) -> None:
        self.entries: dict[str, Entry] = OrderedDict() if policy.ordered_table else {}
        self.deadlines = Deadlines()
        self.counters = counters
        self.tags = tags
        self.loads: Loads = {}
        self.removals: list[tuple[str, RemovalCause]] | None = None
        """What left, for listeners to be told of; None if nobody listens."""
        self.debt = 0
        """Entries that are to leave although the write that made them leave could not wait for all of them.
        """
        self.unfinished = False
        """Whether there is something to do after the write:

        A debt, listeners to tell, a thread to ask for.
        """
        self.wants_thread = False
        """Whether a background thread should have a look from time to time. Set at most once for 256 changes
        of deadlines.
        """
        self.plain_keys = True
        """Whether no key has ever been of a subclass of `str`, which may compare in a way of its own."""
        self.policy = policy
        policy.attach(self.entries, capacity)
        # Bound once, and loaded into local names before they are called: cheaper than two attribute look-ups.
        self._now = now
        self._insert = policy.insert
        self._evict = policy.evict
        self._evict_lets_go = policy.evict_lets_go
        # A policy that ignores overwrites costs them nothing.
        self._on_update = None if type(policy).update is EvictionPolicy.update else policy.update
        # Whether an overwrite is no more than another value and a later deadline: not if the policy is told,
        # nor once there is any entry that has more.
        self._may_swap = self._on_update is None

    @property
    def tells_of_overwrites(self) -> bool:
        """Whether the policy has to hear of each."""
        return self._on_update is not None

    def is_live(self, entry: Entry) -> bool:
        deadline = entry.deadline
        if deadline is FOREVER:
            return True
        now = self._now()
        return now < deadline or (entry.__class__ is RichEntry and entry.is_fresh(now, self.tags))

    def deadline(self, ttl: float) -> float:
        return ttl if ttl is FOREVER else self._now() + ttl

    def find(self, key: str) -> tuple[Entry | None, Presence, Any]:
        """The live entry, what was there, and the value of an entry that had to leave. Stale ones stay."""
        entry = self.entries.get(key)
        if entry is None:
            return None, _ABSENT, None
        if self.is_live(entry):
            return entry, _LIVE, None
        if entry.__class__ is RichEntry and entry.is_stale(self._now(), self.tags):
            return None, _EXPIRED, None
        return None, *self.dismiss(entry)

    def dismiss(self, entry: Entry) -> tuple[Presence, Any]:
        """Let an entry leave that isn't live; what it was, and its value."""
        if entry.__class__ is RichEntry and not entry.is_valid(self.tags):
            presence, garbage = _ABSENT, self.leave(entry, _INVALIDATED)
        else:
            presence, garbage = _EXPIRED, self.leave(entry, _OVERDUE)
        self.note_valid()
        return presence, garbage

    def take(self, key: str) -> tuple[Presence, Any, Any]:
        """Let what is under the key leave, stale or not; what was there, its value if it was live, and the
        value of an entry that wasn't.
        """
        if self.loads:
            self.loads.pop(key, None)
        entry = self.entries.get(key)
        if entry is None:
            return _ABSENT, None, None
        if self.is_live(entry):
            return _LIVE, self.leave(entry, _EXPLICIT), None
        presence, garbage = self.dismiss(entry)
        return presence, None, garbage

    def put(self, key: str, value: Any, ttl: float, bounds: Bounds) -> Any:
        """Insert or overwrite."""
        if self.loads:
            self.loads.pop(key, None)
        entries = self.entries
        # Looked up under the lock, whatever the caller saw before.
        entry = entries.get(key)
        deadlines = self.deadlines
        if ttl is FOREVER and deadlines.next_due is FOREVER:
            # Nothing can expire, so nobody needs to know the time.
            now, deadline = 0.0, ttl
        else:
            clock = self._now
            now = clock()
            deadline = ttl if ttl is FOREVER else now + ttl
        garbage = None
        if entry is not None:
            if now < entry.deadline:
                if (
                    (entry.deadline <= deadline < FOREVER or deadline is entry.deadline)
                    and self._may_swap
                    and self.removals is None
                ):
                    # As `overwrite`, in the most frequent case, for speed.
                    garbage = entry.value
                    entry.value = value
                    entry.deadline = deadline
                    self.counters.sets += 1
                else:
                    garbage = self.overwrite(entry, value, deadline)
                return (garbage, self.see_to_expired()) if deadlines.new_chunk else garbage
            if entry.__class__ is RichEntry and self.is_live(entry):
                return self.overwrite(entry, value, deadline), self.see_to_expired()
            garbage = self.dismiss(entry)
        counters = self.counters
        size = len(entries)
        if size >= bounds.max_size:
            if size == bounds.max_size and bounds.cull_fraction is None and now < deadlines.next_due:
                evict = self._evict
                garbage = garbage, self.leave(evict(), _EVICTED)
            else:
                garbage = garbage, self._make_room(bounds, now)
        elif size >= counters.peak_valid_keys:
            self._note_peak(size + 1, now)
        self.plain_keys &= key.__class__ is str
        # As Entry(key, value, deadline), at a third of the cost.
        entry = new_entry(Entry)
        entry.key = key
        entry.value = value
        entry.deadline = deadline
        entry.frequency = 0
        entries[key] = entry
        insert = self._insert
        insert(entry)
        counters.sets += 1
        if deadline is not FOREVER:
            deadlines.add(entry, deadline, now)
            if deadlines.new_chunk:
                garbage = garbage, self.see_to_expired()
        return garbage

    def put_rich(self, key: str, value: Any, life: Life, bounds: Bounds, label: int) -> Any:
        """Insert or overwrite, for any life; the label as in `rich.Tags`."""
        if life.is_plain:
            return self.put(key, value, FOREVER if life.ttl == FOREVER else life.ttl, bounds)
        if self.loads:
            self.loads.pop(key, None)
        now = self._now()
        entry = self.entries.get(key)
        if entry is not None and self.is_live(entry):
            garbage = self.overwrite_rich(entry, value, life, label)
        else:
            garbage = None if entry is None else self.dismiss(entry)
            new = RichEntry(key, value, GONE)
            new.begin(life, now, label)
            garbage = garbage, self.admit(new, bounds, now)
        return garbage, self.see_to_expired()

    def overwrite_rich(self, entry: Entry, value: Any, life: Life, label: int) -> Any:
        """Give a live entry a new value and another life; the old value."""
        if self.loads:
            self.loads.pop(entry.key, None)
        old = entry.value
        now = self._now()
        if isinstance(entry, RichEntry):
            entry.value = value
            entry.begin(life, now, label)
            self._refile(entry, now)
        else:
            new = RichEntry(entry.key, value, GONE)
            new.begin(life, now, label)
            self._exchange(entry, new, now)
            entry = new
        self._note_overwrite(entry)
        return old

    def resume(self, key: str, value: Any, remaining: float, life: Life, bounds: Bounds) -> Any:
        """Insert an entry that was saved, fresh or stale."""
        now = self._now()
        entry = RichEntry(key, value, GONE)
        entry.begin(life, now, self.tags.label)
        entry.live_until(FOREVER if remaining == FOREVER else now + remaining)
        if entry.planned_end() <= now:
            return None
        old = self.entries.get(key)
        garbage = None if old is None else self.dismiss(old)
        return garbage, self.admit(entry, bounds, now)

    def admit(self, entry: Entry, bounds: Bounds, now: float) -> Any:
        """Insert an entry that is ready but for its place in the wheel; the values that made room for it."""
        entries = self.entries
        garbage = self._make_room(bounds, now) if len(entries) >= bounds.max_size else None
        self._note_peak(len(entries) + 1, now)
        end = entry.deadline
        if isinstance(entry, RichEntry):
            self._may_swap = False
            end = entry.end = entry.planned_end()
            keep_out(entry)
        if entry.key.__class__ is not str:
            self.plain_keys = False
        entries[entry.key] = entry
        self._insert(entry)
        self.counters.sets += 1
        if end is not FOREVER:
            self.deadlines.add(entry, end, now)
        return garbage

    def _exchange(self, old: Entry, new: RichEntry, now: float) -> None:
        """Put another object, which is ready, in the place of a live plain entry."""
        self._may_swap = False
        new.frequency = old.frequency
        new.end = new.planned_end()
        keep_out(new)
        # At once, for readers without a lock.
        self.entries[old.key] = new
        had_end = old.deadline is not FOREVER
        old.deadline = GONE
        old.value = None
        if had_end:
            self.deadlines.discard(old)
        if new.end is not FOREVER:
            self.deadlines.add(new, new.end, now)
        self.policy.exchange(old, new)

    def see_to_expired(self) -> Any:
        """After a change of deadlines: if it began a new chunk, it is time to look at one that is due."""
        if not self.deadlines.new_chunk:
            return None
        self.deadlines.new_chunk = False
        self.wants_thread = self.unfinished = True
        return self.expire_chunk(self._now())

    def overwrite(self, entry: Entry, value: Any, deadline: float) -> Any:
        """Give a live entry a new value and deadline, and nothing else; the old value."""
        if self.loads:
            self.loads.pop(entry.key, None)
        old = entry.value
        entry.value = value
        if entry.__class__ is RichEntry:
            self._make_plain(entry, deadline)
        elif entry.deadline <= deadline < FOREVER:
            # Put off: the wheel finds out when it looks at the entry.
            entry.deadline = deadline
        elif deadline is not entry.deadline:
            self.move(entry, deadline)
        self._note_overwrite(entry)
        return old

    def _note_overwrite(self, entry: Entry) -> None:
        self.counters.sets += 1
        if self._on_update is not None:
            self._on_update(entry)
        if self.removals is not None:
            self._log(entry.key, _REPLACED)

    def _make_plain(self, entry: RichEntry, deadline: float) -> None:
        now = self._now()
        entry.begin(_PLAIN, now, 0)
        entry.live_until(deadline)
        self._refile(entry, now)

    def add_to_plain_number(self, key: str, delta: int | float) -> int | float | None:
        """Add to a live int or float, and the sum; None if no such thing is there."""
        entry = self.entries.get(key)
        if entry is None or entry.value.__class__ not in PLAIN_NUMBERS:
            return None
        if entry.deadline is not FOREVER:
            clock = self._now
            if clock() >= entry.deadline:
                return None
        number: int | float = entry.value + delta
        self.add_up(entry, number)
        return number

    def add_up(self, entry: Entry, value: Any) -> None:
        """Give a live entry a new value that was derived from its present one."""
        if self.loads:
            self.loads.pop(entry.key, None)
        entry.value = value
        self.counters.sets += 1
        if self._on_update is not None:
            self._on_update(entry)
        elif entry.frequency < 3:
            # Unlike an overwrite this is a use: the caller gets to see the value.
            entry.frequency += 1
        if self.removals is not None:
            self._log(entry.key, _REPLACED)

    def touch(self, entry: Entry, ttl: float) -> Any:
        """Let a live entry's TTL begin anew."""
        if entry.__class__ is RichEntry:
            now = self._now()
            entry.live_for(ttl, now)
            self._refile(entry, now)
        else:
            self.move(entry, self.deadline(ttl))
        return self.see_to_expired()

    def _refile(self, entry: RichEntry, now: float) -> None:
        """See to it that the wheel knows when the entry is to leave."""
        before, end = entry.end, entry.planned_end()
        entry.end = end
        if before <= end < FOREVER:
            return  # put off: the wheel finds out when it looks at the entry
        if before is not FOREVER:
            self.deadlines.discard(entry)
            keep_out(entry)
        if end is not FOREVER:
            self.deadlines.add(entry, end, now)

    def move(self, entry: Entry, deadline: float) -> None:
        """Change the deadline of a live plain entry."""
        if entry.deadline <= deadline < FOREVER:
            # Put off: the wheel finds out when it looks at the entry.
            entry.deadline = deadline
            return
        if entry.deadline is not FOREVER:
            self.deadlines.discard(entry)
        entry.deadline = deadline
        if deadline is not FOREVER:
            self.deadlines.add(entry, deadline, self._now())

    def leave(self, entry: Entry, cause: RemovalCause, *, in_wheel: bool = True) -> Any:
        """The one way out of the table for a single entry; its value."""
        del self.entries[entry.key]
        value, deadline = entry.value, entry.deadline
        # In this order, see `Entry`.
        entry.deadline = GONE
        entry.value = None
        if in_wheel and deadline is not FOREVER:
            self.deadlines.discard(entry)
        counters = self.counters
        if cause is _EVICTED:
            counters.evictions += 1
            if not self._evict_lets_go:
                self.policy.remove(entry)
        else:
            if cause is _OVERDUE:
                counters.expired_removals += 1
            else:
                counters.manual_deletions += 1
            self.policy.remove(entry)
        if self.removals is not None:
            self._log(entry.key, cause)
        return value

    def _log(self, key: str, cause: RemovalCause) -> None:
        if self.removals is not None:
            self.removals.append((key, cause))
            self.unfinished = True

    def evict(self) -> Any:
        return self.leave(self.policy.evict(), _EVICTED)

    def expire_chunk(self, now: float) -> list[Any]:
        """Let the expired entries of one chunk leave, if one is due."""
        if now < self.deadlines.next_due:
            return []
        return self.expire(self.deadlines.take_expired(now), in_wheel=False)

    def expire(self, entries: Iterable[Entry], *, in_wheel: bool = True) -> list[Any]:
        garbage = [self.leave(entry, _OVERDUE, in_wheel=in_wheel) for entry in entries]
        self.note_valid()
        return garbage

    def _note_peak(self, size: int, now: float) -> None:
        """So many entries are there in a moment."""
        counters = self.counters
        if size > counters.peak_total_keys:
            counters.peak_total_keys = size
        if now < self.deadlines.next_due and size > counters.peak_valid_keys:
            counters.peak_valid_keys = size

    def note_valid(self) -> None:
        """Expired entries have left: see whether there never were as many live ones."""
        size = len(self.entries)
        if size > self.counters.peak_valid_keys:
            self.counters.peak_valid_keys = size

    def _make_room(self, bounds: Bounds, now: float) -> Any:
        """Bring the table below its bound: expired entries first, then as the policy says."""
        entries = self.entries
        garbage: list[Any] = []
        for _ in range(CHUNKS_PER_WRITE):
            garbage += self.expire_chunk(now)
        leaving = len(entries) - bounds.max_size + 1
        if leaving > 0:
            if bounds.cull_fraction is not None:
                # The small number makes up for shares such as 1/3, which floats can't hold.
                leaving = max(leaving, int(len(entries) * bounds.cull_fraction + 1e-9))
            owed, self.debt = self.debt, min(leaving, len(entries))
            # Many writes under one hold: the first one has evicted what the hold has time for.
            if not owed:
                garbage += self.evict_debt()
        return garbage

    @property
    def owes(self) -> bool:
        return self.debt > 0

    def evict_debt(self) -> list[Any]:
        """Evict what is owed, as much of it as fits into one hold of the lock."""
        count = min(self.debt, SLICE, len(self.entries))
        self.debt = self.debt - count if self.entries else 0
        if self.debt:
            self.unfinished = True
        return [self.evict() for _ in range(count)]

    def shrink_some(self, bounds: Bounds) -> tuple[bool, list[Any]]:
        """Evict some of what is over the bounds; whether there is more, and the values."""
        over = len(self.entries) - bounds.max_size
        return over > SLICE, [self.evict() for _ in range(min(over, SLICE))]

    def resize(self, capacity: int) -> None:
        """Tell the eviction policy how many entries there may be."""
        self.policy.resize(capacity)
