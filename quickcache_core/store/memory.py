"""Scope `memory`: the entries of this process."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from quickcache_core.clock import Clock
from quickcache_core.entry import FOREVER, GONE, MISSING, Entry
from quickcache_core.errors import KeyExpired, KeyNotFound
from quickcache_core.events import RemovalCause
from quickcache_core.eviction_policy.base import EvictionPolicy
from quickcache_core.metrics.counters import Counters
from quickcache_core.serializer.isolation import thaw
from quickcache_core.store.base import ABSENT, Bounds, Presence, Record, RemovalListener, Store
from quickcache_core.store.deadlines import Deadlines
from quickcache_core.store.table import TABLES, HookedTable, Table

logger = logging.getLogger(__name__)

# Looking a member up on an Enum class runs Python code in 3.11 (300 ns), so the hot methods use these.
_LIVE, _EXPIRED, _ABSENT = Presence.LIVE, Presence.EXPIRED, Presence.ABSENT
_EXPLICIT, _EVICTED, _OVERDUE = RemovalCause.EXPLICIT, RemovalCause.EVICTED, RemovalCause.EXPIRED
_REPLACED = RemovalCause.REPLACED

_SLICE = 256
"""Entries handled under one hold of the lock where many are handled at once."""
_CHUNKS_PER_WRITE = 2
"""Chunks of deadlines that a write looks at when the table is full, before a live entry is evicted."""
_FORK_PATIENCE = 1.0
"""Seconds that a fork waits for a writer to finish."""


class MemoryStore(Store):
    """A table, an eviction policy and a timing wheel under one write lock; reads take no lock.

    `wake(store)` is called now and then by writes that leave something for a background thread to do. Without
    such a thread expired entries leave all the same: when they are read, when room is needed, and a bounded
    number at a time with writes that carry a TTL.

    After a fork parent and child have separate stores with the same entries.
    """

    def __init__(
        self,
        policy: Callable[[], EvictionPolicy],
        capacity: int,
        clock: Clock,
        wake: Callable[[MemoryStore], None] | None = None,
    ) -> None:
        self._make_policy = policy
        self._capacity = capacity
        self._clock = clock
        self._now = clock.monotonic
        self._wake = wake
        self._listeners: tuple[RemovalListener, ...] = ()
        self._unheard: list[tuple[str, RemovalCause]] = []
        self.counters = Counters()
        self._new_lock()
        self._policy = policy()
        self._deadlines = Deadlines()
        entries: dict[str, Entry] = OrderedDict() if self._policy.ordered_table else {}
        self._table: Table = TABLES[self._policy.recency](self._now, self._get_stale, entries)
        if isinstance(self._table, HookedTable):
            self._table.on_hit = self._hit
        self._policy.attach(entries, capacity)
        # A built-in policy that ignores overwrites costs them nothing.
        self._on_update = None if type(self._policy).update is EvictionPolicy.update else self._policy.update

    # Reading

    @property
    def get(self) -> Callable[..., Any]:
        return self._table.get

    @property
    def policy(self) -> EvictionPolicy:
        return self._policy

    @property
    def hits(self) -> int:
        return self._table.hits

    @property
    def misses(self) -> int:
        return self._table.misses

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        get = self._table.get
        return {key: value for key in keys if (value := get(key, ABSENT)) is not ABSENT}

    def __contains__(self, key: object) -> bool:
        entry = self._table.entries.get(key)  # type: ignore[call-overload]
        return entry is not None and self._is_live(entry)

    def __len__(self) -> int:
        return len(self._table.entries)

    def keys(self, prefix: str) -> Iterator[str]:
        # list() of a dict is one step for other threads; iterating over it isn't.
        for entry in list(self._table.entries.values()):
            if entry.key.startswith(prefix) and self._is_live(entry):
                yield entry.key

    def remaining(self, key: str) -> tuple[Presence, float]:
        entry = self._table.entries.get(key)
        if entry is None:
            return _ABSENT, 0.0
        remaining = entry.deadline - self._now()
        return (_LIVE, remaining) if remaining > 0.0 else (_EXPIRED, 0.0)

    def records(self) -> list[Record]:
        now = self._now()
        records = []
        for entry in list(self._table.entries.values()):
            # The value before the deadline, as on the hit path.
            value, deadline = entry.value, entry.deadline
            if deadline > now:
                records.append(Record(entry.key, value, deadline - now))
        return records

    def expired_size(self) -> int:
        now = self._now()
        self._acquire()
        try:
            return sum(1 for entry in self._deadlines.due_entries(now) if entry.deadline <= now)
        finally:
            self._release()

    def _is_live(self, entry: Entry) -> bool:
        deadline = entry.deadline
        return deadline is FOREVER or self._now() < deadline

    def _hit(self, entry: Entry) -> None:
        self._acquire()
        try:
            if self._table.entries.get(entry.key) is entry:
                self._policy.access(entry)
        finally:
            self._release()

    def _get_stale(self, key: str, default: Any) -> Any:
        """Answer a get that found an entry past its deadline."""
        expired = False
        self._acquire()
        try:
            entry = self._table.entries.get(key)
            if entry is not None and not self._is_live(entry):
                _garbage = self._leave(entry, _OVERDUE)
                self._expired_left()
                entry = None
                expired = True
        finally:
            self._release()
        self._tell()
        if entry is not None:
            # Somebody stored a new value between the reader's look and ours.
            return self._table.get(key, default)
        self._table.misses += 1
        if default is not MISSING:
            return default
        raise KeyExpired(key) if expired else KeyNotFound(key)

    # Writing. What leaves the table is kept in a local name until the lock is free: dropping the last
    # reference to a value may run its finaliser, which may call the cache.

    def put(self, key: str, value: Any, ttl: float, bounds: Bounds) -> None:
        self._acquire()
        try:
            _garbage = self._put(key, value, ttl, bounds)
        finally:
            self._release()
        if self._unheard:
            self._tell()

    def put_many(self, values: Mapping[str, Any], ttl: float, bounds: Bounds) -> None:
        items = iter(values.items())
        while batch := list(islice(items, _SLICE)):
            self._acquire()
            try:
                _garbage = [self._put(key, value, ttl, bounds) for key, value in batch]
            finally:
                self._release()
            self._tell()

    def add(self, key: str, value: Any, ttl: float, bounds: Bounds) -> bool:
        self._acquire()
        try:
            entry = self._table.entries.get(key)
            if entry is not None and self._is_live(entry):
                self.counters.failed_ops += 1
                return False
            _garbage = self._put(key, value, ttl, bounds)
        finally:
            self._release()
        self._tell()
        return True

    def replace(self, key: str, value: Any, ttl: float) -> Presence:
        self._acquire()
        try:
            entry, presence, _garbage = self._find(key)
            if entry is None:
                self.counters.failed_ops += 1
            else:
                _garbage = self._overwrite(entry, value, self._deadline(ttl))
        finally:
            self._release()
        self._tell()
        return presence

    def remove(self, key: str) -> Presence:
        return self.pop(key)[0]

    def remove_many(self, keys: Iterable[str]) -> int:
        count = 0
        keys = iter(keys)
        while batch := list(islice(keys, _SLICE)):
            garbage = []
            self._acquire()
            try:
                for key in batch:
                    entry, _, expired_value = self._find(key)
                    garbage.append(expired_value)
                    if entry is not None:
                        garbage.append(self._leave(entry, _EXPLICIT))
                        count += 1
            finally:
                self._release()
            self._tell()
        return count

    def pop(self, key: str) -> tuple[Presence, Any]:
        value: Any = None
        self._acquire()
        try:
            entry, presence, _garbage = self._find(key)
            if entry is None:
                self.counters.failed_ops += 1
            else:
                value = self._leave(entry, _EXPLICIT)
        finally:
            self._release()
        self._tell()
        return presence, thaw(value)

    def touch(self, key: str, ttl: float) -> Presence:
        self._acquire()
        try:
            entry, presence, _garbage = self._find(key)
            if entry is None:
                self.counters.failed_ops += 1
            else:
                self._move(entry, self._deadline(ttl))
        finally:
            self._release()
        self._tell()
        return presence

    def incr(
        self,
        key: str,
        delta: Any,
        freeze: Callable[[Any], Any] | None,
        *,
        initial: Any,
        ttl: float,
        bounds: Bounds,
    ) -> tuple[Presence, Any]:
        while True:
            # The sum is worked out without the lock, since thawing and adding may run code that isn't ours,
            # and stored if nobody stored anything meanwhile.
            entry = self._table.entries.get(key)
            old = None
            live = False
            if entry is not None:
                old = entry.value
                live = self._is_live(entry)
            if not live and initial is MISSING:
                presence = self._confirm_missing(key)
                if presence is None:
                    continue
                return presence, None
            number = _sum(key, thaw(old) if live else initial, delta)
            stored = number if freeze is None else freeze(number)
            if live and entry is not None:
                if self._swap(key, entry, old, stored):
                    return _LIVE, number
            elif self._insert_if_missing(key, stored, ttl, bounds):
                return _ABSENT, number

    def clear(self) -> int:
        count = self._exchange(MemoryStore(self._make_policy, self._capacity, self._clock))
        with self._lock:
            self.counters.manual_deletions += count
        return count

    def load(self, records: Iterable[Record], bounds: Bounds) -> None:
        fresh = MemoryStore(self._make_policy, self._capacity, self._clock)
        for record in records:
            fresh.put(record.key, record.value, record.remaining, bounds)
        self._exchange(fresh)
        if self._wake is not None and len(fresh):
            self._wake(self)

    def shrink(self, bounds: Bounds) -> None:
        over = True
        while over:
            self._acquire()
            try:
                garbage: list[Any] = []
                while (over := len(self._table.entries) > bounds.max_size) and len(garbage) < _SLICE:
                    garbage.append(self._evict())
            finally:
                self._release()
            self._tell()

    def set_capacity(self, capacity: int) -> None:
        """Tell the eviction policy how many entries there may be. Evicts nothing."""
        with self._lock:
            if capacity != self._capacity:
                self._capacity = capacity
                self._policy.resize(capacity)

    def widen(self, capacity: int) -> None:
        """One more cache uses the store; the largest bound is what the policy plans with."""
        self.set_capacity(max(capacity, self._capacity))

    def stay_asleep(self) -> None:
        """Ask for no background thread any more."""
        self._wake = None

    def reset_counters(self) -> None:
        with self._lock:
            self._table.hits = self._table.misses = 0
            self.counters.reset(len(self._table.entries))

    def sweep(self) -> int:
        count = 0
        while self._deadlines.next_due <= self._now():
            count += self._sweep_slice()
            time.sleep(0)
        return count

    def subscribe(self, listener: RemovalListener) -> Callable[[], None]:
        with self._lock:
            self._listeners = (*self._listeners, listener)

        def unsubscribe() -> None:
            with self._lock:
                self._listeners = tuple(one for one in self._listeners if one is not listener)

        return unsubscribe

    # Below, everything that starts with `_` and takes an entry or a key is called under the lock.

    def _put(self, key: str, value: Any, ttl: float, bounds: Bounds) -> Any:
        """Store, and return what must outlive the lock."""
        entries = self._table.entries
        # Looked up under the lock, whatever the caller saw before.
        entry = entries.get(key)
        deadlines = self._deadlines
        # While nothing can expire, nobody needs to know the time.
        now = self._now() if ttl is not FOREVER or deadlines.next_due is not FOREVER else 0.0
        deadline = ttl if ttl is FOREVER else now + ttl
        garbage = None
        if entry is not None:
            if now < entry.deadline:
                return self._overwrite(entry, value, deadline)
            garbage = self._leave(entry, _OVERDUE)
        size = len(entries)
        if size >= bounds.max_size:
            garbage = garbage, self._make_room(bounds, now)
        entry = Entry(key, value, deadline)
        entries[key] = entry
        self._policy.insert(entry)
        counters = self.counters
        counters.sets += 1
        if size >= counters.peak_total_keys:
            counters.peak_total_keys = len(entries)
        if deadline is not FOREVER:
            deadlines.add(entry, now)
            if deadlines.new_chunk:
                garbage = garbage, self._see_to_expired(now)
        return garbage

    def _overwrite(self, entry: Entry, value: Any, deadline: float) -> Any:
        """Give a live entry a new value and deadline; the old value."""
        old = entry.value
        entry.value = value
        if entry.deadline <= deadline < FOREVER:
            # Put off: the wheel finds out when it looks at the entry.
            entry.deadline = deadline
        elif deadline is not entry.deadline:
            self._move(entry, deadline)
        self.counters.sets += 1
        if self._on_update is not None:
            self._on_update(entry)
        if self._listeners:
            self._unheard.append((entry.key, _REPLACED))
        return old

    def _deadline(self, ttl: float) -> float:
        return ttl if ttl is FOREVER else self._now() + ttl

    def _move(self, entry: Entry, deadline: float) -> None:
        """Change the deadline of a live entry."""
        if entry.deadline is not FOREVER:
            self._deadlines.discard(entry)
        entry.deadline = deadline
        if deadline is not FOREVER:
            self._deadlines.add(entry, self._now())

    def _find(self, key: str) -> tuple[Entry | None, Presence, Any]:
        """The live entry, what was there, and the value of an expired entry that had to leave."""
        entry = self._table.entries.get(key)
        if entry is None:
            return None, _ABSENT, None
        if self._is_live(entry):
            return entry, _LIVE, None
        garbage = self._leave(entry, _OVERDUE)
        self._expired_left()
        return None, _EXPIRED, garbage

    def _leave(self, entry: Entry, cause: RemovalCause, *, in_wheel: bool = True) -> Any:
        """The one way out of the table for a single entry; returns its value."""
        del self._table.entries[entry.key]
        value, deadline = entry.value, entry.deadline
        # In this order, see `Entry`.
        entry.deadline = GONE
        entry.value = None
        if in_wheel and deadline is not FOREVER:
            self._deadlines.discard(entry)
        counters = self.counters
        if cause is _EVICTED:
            counters.evictions += 1
        elif cause is _OVERDUE:
            counters.expired_removals += 1
        else:
            counters.manual_deletions += 1
        if cause is not _EVICTED or not self._policy.evict_lets_go:
            self._policy.remove(entry)
        if self._listeners:
            self._unheard.append((entry.key, cause))
        return value

    def _make_room(self, bounds: Bounds, now: float) -> Any:
        """Bring the table below its bound: expired entries first, then as the policy says."""
        entries = self._table.entries
        over = len(entries) - bounds.max_size
        if not over and bounds.cull_fraction is None and now < self._deadlines.next_due:
            return self._leave(self._policy.evict(), _EVICTED)
        garbage: list[Any] = []
        for _ in range(_CHUNKS_PER_WRITE):
            if now < self._deadlines.next_due:
                break
            garbage += self._expire_chunk(now)
        over = len(entries) - bounds.max_size
        if over >= 0:
            leaving = over + 1
            if bounds.cull_fraction is not None:
                # The small number makes up for shares such as 1/3, which floats can't hold.
                leaving = max(leaving, int(len(entries) * bounds.cull_fraction + 1e-9))
            for _ in range(min(leaving, len(entries))):
                garbage.append(self._evict())
        return garbage

    def _evict(self) -> Any:
        return self._leave(self._policy.evict(), _EVICTED)

    def _expire_chunk(self, now: float) -> list[Any]:
        expired = self._deadlines.take_expired(now)
        garbage = [self._leave(entry, _OVERDUE, in_wheel=False) for entry in expired]
        self._expired_left()
        return garbage

    def _expired_left(self) -> None:
        size = len(self._table.entries)
        if size > self.counters.peak_valid_keys:
            self.counters.peak_valid_keys = size

    def _see_to_expired(self, now: float) -> Any:
        """A write began a new chunk of deadlines, so it is time to look at one that is due."""
        self._deadlines.new_chunk = False
        if self._wake is not None:
            self._wake(self)
        return self._expire_chunk(now) if self._deadlines.next_due <= now else None

    def _sweep_slice(self) -> int:
        self._acquire()
        try:
            garbage = self._expire_chunk(self._now())
        finally:
            self._release()
        self._tell()
        return len(garbage)

    # Parts of `incr`

    def _confirm_missing(self, key: str) -> Presence | None:
        """Whether the key is still missing under the lock; None if it isn't."""
        self._acquire()
        try:
            entry, presence, _garbage = self._find(key)
            if entry is not None:
                return None
            self.counters.failed_ops += 1
        finally:
            self._release()
        self._tell()
        return presence

    def _swap(self, key: str, entry: Entry, old: Any, value: Any) -> bool:
        """Store a value derived from `old` if `old` is still the live value."""
        self._acquire()
        try:
            if (
                entry.value is not old
                or self._table.entries.get(key) is not entry
                or not self._is_live(entry)
            ):
                return False
            entry.value = value
            self.counters.sets += 1
            if self._on_update is not None:
                self._on_update(entry)
            elif entry.frequency < 3:
                # Unlike an overwrite this is a use: the caller gets to see the value.
                entry.frequency += 1
            if self._listeners:
                self._unheard.append((key, _REPLACED))
        finally:
            self._release()
        self._tell()
        return True

    def _insert_if_missing(self, key: str, value: Any, ttl: float, bounds: Bounds) -> bool:
        self._acquire()
        try:
            entry = self._table.entries.get(key)
            if entry is not None and self._is_live(entry):
                return False
            _garbage = self._put(key, value, ttl, bounds)
        finally:
            self._release()
        self._tell()
        return True

    # The whole table

    def _exchange(self, fresh: MemoryStore) -> int:
        """Take over the entries of a store that nobody else knows; how many there were before."""
        with self._lock:
            entries = self._table.entries
            garbage = self._policy, self._deadlines
            size = len(entries)
            if size > self.counters.peak_valid_keys:
                self.counters.peak_valid_keys = size
            if self._listeners:
                self._unheard += [(key, RemovalCause.CLEARED) for key in entries]
            self._policy = fresh._policy
            self._on_update = fresh._on_update
            self._deadlines = fresh._deadlines
            self._table.entries = fresh._table.entries
            self.counters.peak_total_keys = max(self.counters.peak_total_keys, len(self._table.entries))
        self._tell()
        del garbage
        # Dropping a large dictionary is one long step for all threads; emptying it first is many short ones.
        while entries:
            entries.popitem()
        return size

    def _tell(self) -> None:
        """Call the listeners, without the lock, for what has left."""
        while self._unheard:
            with self._lock:
                unheard, self._unheard = self._unheard, []
            for key, cause in unheard:
                for listener in self._listeners:
                    try:
                        listener(key, cause)
                    except Exception:
                        logger.exception("A removal listener failed; the cache goes on")

    # Forks

    def _new_lock(self) -> None:
        # Reentrant: a finaliser that runs while this thread holds the lock may use the cache.
        self._lock = threading.RLock()
        # `with` on a lock costs twice as much as these two in a try block.
        self._acquire = self._lock.acquire
        self._release = self._lock.release

    def before_fork(self) -> bool:
        """Wait for writers to finish, so that the child gets whole books. False if one doesn't."""
        return self._lock.acquire(timeout=_FORK_PATIENCE)

    def after_fork_in_parent(self, held: bool) -> None:
        if held:
            self._lock.release()

    def after_fork_in_child(self, held: bool) -> None:
        self._new_lock()
        # The maintenance thread exists in the parent only: have the next write call for one.
        self._deadlines.forget_recent()
        self._deadlines.new_chunk = True
        if not held:
            logger.warning(
                "A write was under way in another thread during a fork; the child's cache starts empty"
            )
            self._exchange(MemoryStore(self._make_policy, self._capacity, self._clock))


def _sum(key: str, number: Any, delta: Any) -> Any:
    try:
        return number + delta
    except TypeError as error:
        raise TypeError(
            f"key {key!r} holds {type(number).__name__}, which {delta!r} can't be added to"
        ) from error
