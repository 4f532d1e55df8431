"""Scope `memory`: the entries of this process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from quickcache_core.clock import Clock
from quickcache_core.entry import MISSING, Entry
from quickcache_core.errors import KeyExpired, KeyNotFound
from quickcache_core.events import RemovalCause
from quickcache_core.eviction_policy.base import EvictionPolicy
from quickcache_core.metrics.counters import Counters
from quickcache_core.serializer.isolation import thaw
from quickcache_core.store.base import ABSENT, Bounds, Presence, Record, RemovalListener, Store
from quickcache_core.store.population import Population
from quickcache_core.store.table import TABLES, HookedTable, Table

logger = logging.getLogger(__name__)

_SLICE = 256
"""Entries handled under one hold of the lock where many are handled at once."""
_FORK_PATIENCE = 1.0
"""Seconds that a fork waits for a writer to finish."""


class MemoryStore(Store):
    """A population of entries under one write lock; reads take no lock.

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
        self._now = clock.monotonic
        self._wake = wake
        self._listeners: tuple[RemovalListener, ...] = ()
        # Reentrant: a finaliser that runs while this thread holds the lock may use the cache.
        self._lock = threading.RLock()
        self.counters = Counters()
        self._population = self._new_population()
        recency = self._population.policy.recency
        self._table: Table = TABLES[recency](self._now, self._get_stale, self._population.entries)
        if isinstance(self._table, HookedTable):
            self._table.on_hit = self._hit

    # Reading

    @property
    def get(self) -> Callable[..., Any]:
        return self._table.get

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
        return entry is not None and self._population.is_live(entry)

    def __len__(self) -> int:
        return len(self._table.entries)

    def keys(self, prefix: str) -> Iterator[str]:
        is_live = self._population.is_live
        # list() of a dict is one step for other threads; iterating over it isn't.
        for entry in list(self._table.entries.values()):
            if entry.key.startswith(prefix) and is_live(entry):
                yield entry.key

    def remaining(self, key: str) -> tuple[Presence, float]:
        entry = self._table.entries.get(key)
        if entry is None:
            return Presence.ABSENT, 0.0
        remaining = entry.deadline - self._now()
        return (Presence.LIVE, remaining) if remaining > 0.0 else (Presence.EXPIRED, 0.0)

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
        with self._lock:
            return sum(len(expired) for expired in self._population.deadlines.expired_chunks(now))

    def _hit(self, entry: Entry) -> None:
        lock = self._lock
        lock.acquire()
        try:
            if self._table.entries.get(entry.key) is entry:
                self._population.policy.access(entry)
        finally:
            lock.release()

    def _get_stale(self, key: str, default: Any) -> Any:
        """Answer a get that found an entry past its deadline."""
        with self._lock:
            entry, presence, _garbage = self._population.find(key)
        self._tell()
        if entry is not None:
            # Somebody stored a new value between the reader's look and ours.
            return self._table.get(key, default)
        self._table.misses += 1
        if default is not MISSING:
            return default
        raise KeyExpired(key) if presence is Presence.EXPIRED else KeyNotFound(key)

    # Writing. `_garbage` keeps what left the table until the lock is free, see `Population`.

    def put(self, key: str, value: Any, ttl: float, bounds: Bounds) -> None:
        # `with` on a lock costs twice as much as this.
        lock = self._lock
        lock.acquire()
        try:
            _garbage = self._population.put(key, value, ttl, bounds)
        finally:
            lock.release()
        if self._listeners:
            self._tell()

    def put_many(self, values: Mapping[str, Any], ttl: float, bounds: Bounds) -> None:
        items = iter(values.items())
        while batch := list(islice(items, _SLICE)):
            with self._lock:
                put = self._population.put
                _garbage = [put(key, value, ttl, bounds) for key, value in batch]
            self._tell()

    def add(self, key: str, value: Any, ttl: float, bounds: Bounds) -> bool:
        with self._lock:
            entry, _, _garbage = self._population.find(key)
            if entry is None:
                _garbage = _garbage, self._population.put(key, value, ttl, bounds)
            else:
                self.counters.failed_ops += 1
        self._tell()
        return entry is None

    def replace(self, key: str, value: Any, ttl: float) -> Presence:
        with self._lock:
            population = self._population
            entry, presence, _garbage = population.find(key)
            if entry is None:
                self.counters.failed_ops += 1
            else:
                _garbage = population.overwrite(entry, value, population.deadline(ttl))
        self._tell()
        return presence

    def remove(self, key: str) -> Presence:
        return self._remove(key)[0]

    def remove_many(self, keys: Iterable[str]) -> int:
        count = 0
        keys = iter(keys)
        while batch := list(islice(keys, _SLICE)):
            _garbage = []
            with self._lock:
                population = self._population
                for key in batch:
                    entry, _, expired = population.find(key)
                    _garbage.append(expired)
                    if entry is not None:
                        _garbage.append(population.leave(entry, RemovalCause.EXPLICIT))
                        count += 1
            self._tell()
        return count

    def pop(self, key: str) -> tuple[Presence, Any]:
        presence, value = self._remove(key)
        return presence, thaw(value)

    def touch(self, key: str, ttl: float) -> Presence:
        with self._lock:
            population = self._population
            entry, presence, _garbage = population.find(key)
            if entry is None:
                self.counters.failed_ops += 1
            else:
                population.move(entry, population.deadline(ttl))
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
            with self._lock:
                entry, presence, _garbage = self._population.find(key)
                old = None if entry is None else entry.value
                if entry is None and initial is MISSING:
                    self.counters.failed_ops += 1
            self._tell()
            if entry is None and initial is MISSING:
                return presence, None
            number = _sum(key, initial if entry is None else thaw(old), delta)
            stored = number if freeze is None else freeze(number)
            if entry is None:
                if self._insert_if_missing(key, stored, ttl, bounds):
                    return presence, number
            elif self._swap(entry, old, stored):
                return presence, number

    def _remove(self, key: str) -> tuple[Presence, Any]:
        value: Any = None
        with self._lock:
            entry, presence, _garbage = self._population.find(key)
            if entry is None:
                self.counters.failed_ops += 1
            else:
                value = self._population.leave(entry, RemovalCause.EXPLICIT)
        self._tell()
        return presence, value

    def _swap(self, entry: Entry, old: Any, value: Any) -> bool:
        """Store a value derived from `old` if `old` is still the live value."""
        with self._lock:
            population = self._population
            found = population.entries.get(entry.key)
            if found is not entry or entry.value is not old or not population.is_live(entry):
                return False
            population.add_up(entry, value)
        self._tell()
        return True

    def _insert_if_missing(self, key: str, value: Any, ttl: float, bounds: Bounds) -> bool:
        with self._lock:
            entry, _, _garbage = self._population.find(key)
            if entry is None:
                _garbage = _garbage, self._population.put(key, value, ttl, bounds)
        self._tell()
        return entry is None

    # The whole table

    def clear(self) -> int:
        count = self._exchange(self._new_population())
        with self._lock:
            self.counters.manual_deletions += count
        return count

    def load(self, records: Iterable[Record], bounds: Bounds) -> None:
        # Populated where nobody sees it, with counters that nobody reads.
        fresh = self._new_population(Counters())
        for record in records:
            fresh.put(record.key, record.value, record.remaining, bounds)
        fresh.counters = self.counters
        self._exchange(fresh)

    def shrink(self, bounds: Bounds) -> None:
        over = True
        while over:
            _garbage: list[Any] = []
            with self._lock:
                population = self._population
                while (over := len(population.entries) > bounds.max_size) and len(_garbage) < _SLICE:
                    _garbage.append(population.evict())
            self._tell()

    def set_capacity(self, capacity: int) -> None:
        """Tell the eviction policy how many entries there may be. Evicts nothing."""
        with self._lock:
            if capacity != self._capacity:
                self._capacity = capacity
                self._population.policy.resize(capacity)

    def widen(self, capacity: int) -> None:
        """One more cache uses the store; the largest bound is what the policy plans with."""
        self.set_capacity(max(capacity, self._capacity))

    def sweep(self) -> int:
        count = 0
        while self._population.deadlines.next_due <= self._now():
            with self._lock:
                _garbage = self._population.expire_chunk(self._now())
            count += len(_garbage)
            del _garbage
            self._let_others_in()
        # What has expired within the present tick of the wheel.
        population = self._population
        chunks = population.deadlines.expired_chunks(self._now())
        while True:
            with self._lock:
                # Cleared meanwhile? Then these chunks are of no interest any more.
                expired = next(chunks, None) if self._population is population else None
                if expired is None:
                    return count
                _garbage = population.expire(expired)
            count += len(_garbage)
            del _garbage
            self._let_others_in()

    def _let_others_in(self) -> None:
        self._tell()
        time.sleep(0)

    def stay_asleep(self) -> None:
        """Ask for no background thread any more."""
        self._wake = None

    def reset_counters(self) -> None:
        with self._lock:
            self._table.hits = self._table.misses = 0
            self.counters.reset(len(self._table.entries))

    def _new_population(self, counters: Counters | None = None) -> Population:
        return Population(
            self._make_policy(), self._capacity, self._now, counters or self.counters, self._see_to_expired
        )

    def _see_to_expired(self) -> None:
        if self._wake is not None:
            self._wake(self)

    def _exchange(self, fresh: Population) -> int:
        """Go on with another population; how many entries the old one had."""
        with self._lock:
            old, self._population = self._population, fresh
            self._table.entries = fresh.entries
            counters = self.counters
            counters.peak_valid_keys = max(counters.peak_valid_keys, len(old.entries))
            counters.peak_total_keys = max(counters.peak_total_keys, len(fresh.entries))
            if self._listeners:
                fresh.removals = [
                    *(old.removals or ()),
                    *((key, RemovalCause.CLEARED) for key in old.entries),
                ]
        self._tell()
        count = len(old.entries)
        # Dropping a large dictionary is one long step for all threads; emptying it first is many short ones.
        while old.entries:
            old.entries.popitem()
        return count

    # Listeners

    def subscribe(self, listener: RemovalListener) -> Callable[[], None]:
        with self._lock:
            self._listeners = (*self._listeners, listener)
            if self._population.removals is None:
                self._population.removals = []

        def unsubscribe() -> None:
            with self._lock:
                self._listeners = tuple(one for one in self._listeners if one is not listener)
                if not self._listeners:
                    self._population.removals = None

        return unsubscribe

    def _tell(self) -> None:
        """Call the listeners, without the lock, for what has left."""
        while self._listeners and self._population.removals:
            with self._lock:
                removals = self._population.removals or []
                self._population.removals = []
            for key, cause in removals:
                for listener in self._listeners:
                    listener(key, cause)

    # Forks

    def before_fork(self) -> bool:
        """Wait for writers to finish, so that the child gets whole books. False if one doesn't."""
        return self._lock.acquire(timeout=_FORK_PATIENCE)

    def after_fork_in_parent(self, held: bool) -> None:
        if held:
            self._lock.release()

    def after_fork_in_child(self, held: bool) -> None:
        self._lock = threading.RLock()
        if not held:
            logger.warning(
                "A write was under way in another thread during a fork; the child's cache starts empty"
            )
            self._exchange(self._new_population())
        # The maintenance thread exists in the parent only: have the next write with a TTL call for one.
        self._population.deadlines.forget_recent()
        self._population.deadlines.new_chunk = True


def _sum(key: str, number: Any, delta: Any) -> Any:
    try:
        return number + delta
    except TypeError as error:
        raise TypeError(
            f"key {key!r} holds {type(number).__name__}, which {delta!r} can't be added to"
        ) from error
