"""Scope `memory`: the entries of this process."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from quickcache_core.clock import Clock
from quickcache_core.compiled import FREE_THREADED
from quickcache_core.entry import FOREVER, MISSING, Entry
from quickcache_core.errors import KeyExpired, KeyNotFound, ValueTooLarge
from quickcache_core.events import RemovalCause
from quickcache_core.eviction_policy.base import EvictionPolicy
from quickcache_core.metrics.counters import Counters
from quickcache_core.metrics.figures import StoreFigures
from quickcache_core.metrics.publisher import Publisher
from quickcache_core.serializer.isolation import Frozen, thaw
from quickcache_core.store import loads
from quickcache_core.store.accelerator import COUNTERS, TABLES, by_writer, without_writer, writer
from quickcache_core.store.base import (
    ABSENT,
    ASK,
    Bounds,
    Found,
    Life,
    Presence,
    Record,
    RemovalListener,
    Store,
)
from quickcache_core.store.population import PLAIN_NUMBERS, Population
from quickcache_core.store.rich import RichEntry, Tags
from quickcache_core.store.table import HookedTable, Table
from quickcache_core.store.weighing import WeighingPopulation
from quickcache_core.store.weights import Weigher
from quickcache_core.store.write_lock import PATIENCE, WriteLock, exclusive

if TYPE_CHECKING:
    from collections import OrderedDict

    from quickcache_core.sizing import AutoSizer

logger = logging.getLogger(__name__)

_SLICE = 256
"""Entries handled under one hold of the lock where many are handled at once."""
# Looking a member up on an Enum class costs three dictionary look-ups in 3.11.
_LIVE, _EXPIRED, _ABSENT = Presence.LIVE, Presence.EXPIRED, Presence.ABSENT
_FORK_PATIENCE = 1.0
"""Seconds that a fork waits for a writer to finish."""


class MemoryStore(Store):
    """A population of entries under one write lock; reads take no lock.

    `wake(store)` is called now and then by writes that leave something for a background thread to do. Without
    such a thread expired entries leave all the same: when they are read, when room is needed, and a bounded
    number at a time with writes that carry a TTL.

    With a `weigher`, such as `weights.weigh`, the store goes by `Bounds.max_bytes` too: a value that is
    larger raises `ValueTooLarge`, and an older one under its key is removed. Without one, bytes don't count.

    After a fork parent and child have separate stores with the same entries.
    """

    def __init__(
        self,
        policy: Callable[[], EvictionPolicy],
        capacity: int,
        clock: Clock,
        wake: Callable[[MemoryStore], None] | None = None,
        weigher: Weigher | None = None,
    ) -> None:
        self._make_policy = policy
        self._capacity = capacity
        self._now = clock.monotonic
        self._wake = wake
        self._weigher = weigher
        self._listeners: tuple[RemovalListener, ...] = ()
        self.publishers: dict[str, Publisher] = {}
        """By the names under which the figures are published."""
        self.sizers: list[AutoSizer] = []
        """Those of the caches that shrink while memory is short."""
        self.lock = WriteLock()
        self.counters = COUNTERS()
        self._tags = Tags()
        self._generations: dict[str, int] = {}
        self._population = self._new_population()
        recency = self._population.policy.recency
        # An OrderedDict is torn by threads without a GIL: there a hit takes the lock to move its key.
        self._moves_under_lock = FREE_THREADED and recency == "order"
        if self._moves_under_lock:
            recency = "hook"
        self._table: Table = TABLES[recency](self._now, self._get_stale, self._population.entries)
        if isinstance(self._table, HookedTable):
            self._table.on_hit = self._hit
        plain = weigher is None and not self._population.tells_of_overwrites
        self.writer = writer() if plain else None
        """Does plain writes by itself; None if there is none, bytes count, or the policy hears of all."""
        self._bind_writer()
        if self.writer is None:
            self.put = without_writer(self.put)  # type: ignore[method-assign]

    def _bind_writer(self) -> None:
        if self.writer is not None:
            self.writer.bind(self._population, self.lock)

    @property
    def weighs(self) -> bool:
        """Whether bytes count."""
        return self._weigher is not None

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

    def keys(self, prefix: str, *, stale: bool = False) -> Iterator[str]:
        is_live = self._population.is_live
        for entry in self._all():
            if entry.key.startswith(prefix) and (stale or is_live(entry)):
                yield entry.key

    def remaining(self, key: str) -> tuple[Presence, float]:
        entry = self._table.entries.get(key)
        if entry is None:
            return _ABSENT, 0.0
        now = self._now()
        if isinstance(entry, RichEntry):
            if entry.is_fresh(now, self._tags):
                return _LIVE, entry.fresh_until - now
            return (_EXPIRED if entry.is_valid(self._tags) else _ABSENT), 0.0
        remaining = entry.deadline - now
        return (_LIVE, remaining) if remaining > 0.0 else (_EXPIRED, 0.0)

    def look(self, key: str) -> Found | None:
        entry = self._table.entries.get(key)
        if entry is None:
            return None
        # The value before all else, as on the hit path.
        value, now = entry.value, self._now()
        if isinstance(entry, RichEntry):
            return entry.found(value, now) if entry.is_kept(now, self._tags) else None
        return Found(value, True, False, None) if entry.deadline > now else None

    def records(self) -> list[Record]:
        now, tags = self._now(), self._tags
        records = []
        for entry in self._all():
            # As above.
            value, deadline = entry.value, entry.deadline
            if isinstance(entry, RichEntry):
                if entry.is_kept(now, tags):
                    life = entry.remaining_life(now)
                    records.append(Record(entry.key, value, entry.fresh_until - now, life))
            elif deadline > now:
                records.append(Record(entry.key, value, deadline - now))
        return records

    def _all(self) -> list[Entry]:
        # list() of a dict is one step for other threads; iterating over it isn't. Nor is list() of an
        # OrderedDict without a GIL.
        if FREE_THREADED and self._table.entries.__class__ is not dict:
            with self.lock:
                return list(self._table.entries.values())
        return list(self._table.entries.values())

    def expired_size(self) -> int:
        chunks = self._population.deadlines.expired_chunks(self._now())
        count = 0
        while True:
            with self.lock:
                expired = next(chunks, None)
            if expired is None:
                return count
            count += len(expired)

    def _hit(self, entry: Entry) -> None:
        lock = self.lock
        lock.acquire()
        if lock.busy:
            lock.release()
            return
        lock.busy = True
        try:
            entries = self._table.entries
            if entries.get(entry.key) is entry:
                if self._moves_under_lock:
                    cast("OrderedDict[str, Entry]", entries).move_to_end(entry.key)
                else:
                    self._population.policy.access(entry)
        finally:
            lock.busy = False
            lock.release()
        if lock.postponed:
            self.finish()

    def _get_stale(self, key: str, default: Any) -> Any:
        """Answer a get that found an entry past its deadline."""
        rich = self._table.entries.get(key)
        if isinstance(rich, RichEntry):
            answer = self._get_rich(rich, default)
            if answer is not _ABSENT:
                return answer
        entry, presence = self._find(key)
        if entry is not None:
            # Somebody stored a new value between the reader's look and ours.
            return self._table.get(key, default)
        self._table.misses += 1
        if default is not MISSING:
            return default
        raise KeyExpired(key) if presence is _EXPIRED else KeyNotFound(key)

    def _get_rich(self, entry: RichEntry, default: Any) -> Any:
        """Answer a get; `_ABSENT` for an entry that has to leave, if it is still there."""
        # The value before all else, as on the hit path.
        value, now, table = entry.value, self._now(), self._table
        life = entry.life
        # As `is_fresh` and `is_due`, spelled out: all hits of entries with tags come here.
        if now < entry.fresh_until and self._tags.are_valid(life.tags, entry.label) and entry.deadline >= 0.0:
            if life.sliding:
                self._slide(entry)
            table.use(entry)
            table.hits += 1
            if default is ASK and now >= entry.refresh_at and entry.is_due(now):
                return Found(value, True, True, life.etag)
            return value.load(value.data) if value.__class__ is Frozen else value
        if not entry.is_stale(now, self._tags):
            return _ABSENT
        if default is ASK:
            table.use(entry)
            return entry.found(value, now)
        table.misses += 1
        if default is MISSING:
            raise KeyExpired(entry.key)
        return default

    def _slide(self, entry: RichEntry) -> None:
        # Under the lock: a writer may be giving the entry another life. As `_hit`.
        lock = self.lock
        if not (lock.acquire(False) or lock.acquire(True, PATIENCE)):
            return
        if lock.busy:
            lock.release()
            return
        lock.busy = True
        try:
            now = self._now()
            # It may have got another life since the reader saw that it slides.
            if entry.life.sliding and entry.is_fresh(now, self._tags):
                entry.slide(now)
        finally:
            lock.busy = False
            lock.release()
        if lock.postponed:
            self.finish()

    def count(self, *, hit: bool) -> None:
        if hit:
            self._table.hits += 1
        else:
            self._table.misses += 1

    def _peek(self, key: str) -> tuple[Entry | None, Presence]:
        """What `_find` would find, without a change."""
        entry = self._table.entries.get(key)
        if entry is None:
            return None, _ABSENT
        return (entry, _LIVE) if self._population.is_live(entry) else (None, self.remaining(key)[0])

    @exclusive(_peek, postpone=False)
    def _find(self, key: str) -> tuple[tuple[Entry | None, Presence], Any]:
        """The live entry, and what was there."""
        entry, presence, garbage = self._population.find(key)
        return (entry, presence), garbage

    def figures(self) -> StoreFigures:
        """What is published: cheap, without a lock, and no look at any entry."""
        table, counters = self._table, self.counters
        return StoreFigures(
            hits=table.hits,
            misses=table.misses,
            sets=counters.sets,
            failed_ops=counters.failed_ops,
            evictions=counters.evictions,
            expirations=counters.expired_removals,
            deletions=counters.manual_deletions,
            store_errors=counters.store_errors,
            loads=counters.loads,
            load_failures=counters.load_failures,
            load_waits=counters.load_waits,
            stale_hits=counters.stale_hits,
            entries=len(table.entries),
            max_entries=self._capacity,
            bytes=self.used_bytes(),
        )

    def used_bytes(self) -> int | None:
        """The estimated size of all entries; None for a store that doesn't weigh them."""
        population = self._population
        return population.used if isinstance(population, WeighingPopulation) else None

    # Writing

    @by_writer
    def put(self, key: str, value: Any, ttl: float, bounds: Bounds) -> None:
        # As `exclusive`, written out: this is the hot one, and `with` on a lock costs twice as much. What is
        # called is loaded into a local name first, see `Table`.
        lock = self.lock
        acquire, release = lock.acquire, lock.release
        if not (acquire(False) or acquire(True, PATIENCE)):
            lock.postponed.append(functools.partial(self.put, key, value, ttl, bounds))
            if lock.is_idle():
                self.finish()
            return
        if lock.busy:
            release()
            lock.postponed.append(functools.partial(self.put, key, value, ttl, bounds))
            return
        lock.busy = True
        population = self._population
        try:
            _garbage = population.put(key, value, ttl, bounds)
        finally:
            lock.busy = False
            release()
            # Also after a value that was too large, which made an older one leave.
            if population.unfinished or lock.postponed:
                self.finish()

    def put_many(self, values: Mapping[str, Any], ttl: float, bounds: Bounds) -> None:
        items = iter(values.items())
        too_large = None
        while batch := list(islice(items, _SLICE)):
            error = self._put_batch(batch, ttl, bounds)
            if error is not None:
                too_large = error
        if too_large is not None:
            raise too_large

    def _put_no_batch(self, batch: list[tuple[str, Any]], ttl: float, bounds: Bounds) -> ValueTooLarge | None:
        return None

    @exclusive(_put_no_batch)
    def _put_batch(
        self, batch: list[tuple[str, Any]], ttl: float, bounds: Bounds
    ) -> tuple[ValueTooLarge | None, Any]:
        """Put them all but for those that are too large; the error for one of these."""
        put = self._population.put
        too_large = None
        garbage = []
        for key, value in batch:
            try:
                garbage.append(put(key, value, ttl, bounds))
            except ValueTooLarge as error:
                too_large = error
        return too_large, garbage

    @exclusive(lambda self, key, value, life, bounds, token=None: True)
    def put_with(
        self, key: str, value: Any, life: Life, bounds: Bounds, token: object = None
    ) -> tuple[bool, Any]:
        population = self._population
        label = self._tags.label
        if token is not None:
            if not isinstance(token, loads.Token) or loads.is_overtaken(population.loads, key, token):
                return False, None
            label = token.label
            if not self._tags.are_valid(life.tags, label):
                return False, None
        return True, population.put_rich(key, value, life, bounds, label)

    @exclusive(lambda self, key, value, ttl, bounds, life=None: self._peek(key)[0] is None)
    def add(
        self, key: str, value: Any, ttl: float, bounds: Bounds, life: Life | None = None
    ) -> tuple[bool, Any]:
        population = self._population
        entry, _, garbage = population.find(key)
        if entry is None:
            if life is None:
                return True, (garbage, population.put(key, value, ttl, bounds))
            return True, (garbage, population.put_rich(key, value, life, bounds, self._tags.label))
        self.counters.failed_ops += 1
        return False, None

    @exclusive(lambda self, key, value, ttl, life=None: self._peek(key)[1])
    def replace(self, key: str, value: Any, ttl: float, life: Life | None = None) -> tuple[Presence, Any]:
        population = self._population
        entry, presence, garbage = population.find(key)
        if entry is None:
            self.counters.failed_ops += 1
            return presence, garbage
        if life is None or life.is_plain:
            ttl = ttl if life is None else life.ttl
            garbage = population.overwrite(entry, value, population.deadline(ttl))
        else:
            garbage = population.overwrite_rich(entry, value, life, self._tags.label)
        return presence, (garbage, population.see_to_expired())

    def remove(self, key: str) -> Presence:
        return self._remove(key)[0]

    def pop(self, key: str) -> tuple[Presence, Any]:
        presence, value = self._remove(key)
        return presence, thaw(value)

    def _value(self, key: str) -> tuple[Presence, Any]:
        entry, presence = self._peek(key)
        return presence, None if entry is None else entry.value

    def _remove(self, key: str) -> tuple[Presence, Any]:
        # Written out as `put`, for it is what frameworks delete with.
        lock = self.lock
        acquire, release = lock.acquire, lock.release
        if not (acquire(False) or acquire(True, PATIENCE)):
            found = self._value(key)
            lock.postponed.append(functools.partial(self._remove, key))
            if lock.is_idle():
                self.finish()
            return found
        if lock.busy:
            release()
            lock.postponed.append(functools.partial(self._remove, key))
            return self._value(key)
        lock.busy = True
        population = self._population
        value = None
        try:
            presence, value, _garbage = population.take(key)
            if presence is not _LIVE:
                self.counters.failed_ops += 1
        finally:
            lock.busy = False
            release()
        if population.unfinished or lock.postponed:
            self.finish()
        return presence, value

    def remove_many(self, keys: Iterable[str]) -> int:
        count = 0
        keys = iter(keys)
        while batch := list(islice(keys, _SLICE)):
            count += self._remove_batch(batch)
        return count

    @exclusive(lambda self, batch: sum(self._peek(key)[0] is not None for key in batch))
    def _remove_batch(self, batch: list[str]) -> tuple[int, Any]:
        population = self._population
        count = 0
        garbage = []
        for key in batch:
            presence, *values = population.take(key)
            garbage.append(values)
            count += presence is _LIVE
        return count, garbage

    @exclusive(lambda self, key, ttl: self._peek(key)[1])
    def touch(self, key: str, ttl: float) -> tuple[Presence, Any]:
        population = self._population
        entry, presence, garbage = population.find(key)
        if entry is None:
            self.counters.failed_ops += 1
            return presence, garbage
        return presence, population.touch(entry, ttl)

    def _holds(self, key: str, text: str) -> bool:
        entry, _ = self._peek(key)
        return entry is not None and _is_text(entry.value, text)

    @exclusive(lambda self, key, text: self._holds(key, text))
    def remove_if(self, key: str, text: str) -> tuple[bool, Any]:
        population = self._population
        entry, _, garbage = population.find(key)
        if entry is None or not _is_text(entry.value, text):
            self.counters.failed_ops += 1
            return False, garbage
        return True, population.take(key)

    @exclusive(lambda self, key, text, ttl: self._holds(key, text))
    def touch_if(self, key: str, text: str, ttl: float) -> tuple[bool, Any]:
        population = self._population
        entry, _, garbage = population.find(key)
        if entry is None or not _is_text(entry.value, text):
            self.counters.failed_ops += 1
            return False, garbage
        return True, population.touch(entry, ttl)

    @exclusive(lambda self, key, seconds: None)
    def put_off(self, key: str, seconds: float) -> tuple[None, Any]:
        entry = self._population.entries.get(key)
        if isinstance(entry, RichEntry) and entry.is_kept(self._now(), self._tags):
            entry.put_off(self._now() + seconds)
        return None, None

    def incr(
        self,
        key: str,
        delta: Any,
        freeze: Callable[[Any], Any] | None,
        initial: Any,
        ttl: float,
        bounds: Bounds,
    ) -> tuple[Presence, Any]:
        # Ints and floats, which run nobody's code when they are added, are added under the lock; as `put`,
        # for speed.
        if delta.__class__ in PLAIN_NUMBERS:
            lock = self.lock
            acquire, release = lock.acquire, lock.release
            if acquire(False) or acquire(True, PATIENCE):
                if lock.busy:
                    release()
                    return self._incr(key, delta, freeze, initial, ttl, bounds)
                lock.busy = True
                population = self._population
                try:
                    number = population.add_to_plain_number(key, delta)
                finally:
                    lock.busy = False
                    release()
                if population.unfinished or lock.postponed:
                    self.finish()
                if number is not None:
                    return _LIVE, number
        return self._incr(key, delta, freeze, initial, ttl, bounds)

    def _incr(
        self,
        key: str,
        delta: Any,
        freeze: Callable[[Any], Any] | None,
        initial: Any,
        ttl: float,
        bounds: Bounds,
    ) -> tuple[Presence, Any]:
        while True:
            # The sum is worked out without the lock, since thawing and adding may run code that isn't ours,
            # and stored if nobody stored anything meanwhile.
            presence, old = self._number(key, initial is MISSING)
            if presence is not _LIVE and initial is MISSING:
                return presence, None
            number = _sum(key, thaw(old) if presence is _LIVE else initial, delta)
            stored = number if freeze is None else freeze(number)
            if presence is _LIVE:
                done = self._swap(key, old, stored)
            else:
                done = self._insert(key, stored, ttl, bounds)
            if done is None:
                again = functools.partial(self.incr, key, delta, freeze, initial, ttl, bounds)
                self.lock.postponed.append(again)
            if done is not False:
                return presence, number

    @exclusive(lambda self, key, must_exist: self._value(key), postpone=False)
    def _number(self, key: str, must_exist: bool) -> tuple[tuple[Presence, Any], Any]:
        entry, presence, garbage = self._population.find(key)
        if entry is None and must_exist:
            self.counters.failed_ops += 1
        return (presence, None if entry is None else entry.value), garbage

    def _no_swap(self, key: str, old: Any, value: Any) -> bool | None:
        return None

    @exclusive(_no_swap, postpone=False)
    def _swap(self, key: str, old: Any, value: Any) -> tuple[bool | None, Any]:
        """Store a value derived from `old` if `old` is still the live value; None within another write."""
        entry, _, garbage = self._population.find(key)
        if entry is None or entry.value is not old:
            return False, garbage
        self._population.add_up(entry, value)
        return True, old

    def _no_insert(self, key: str, value: Any, ttl: float, bounds: Bounds) -> bool | None:
        return None

    @exclusive(_no_insert, postpone=False)
    def _insert(self, key: str, value: Any, ttl: float, bounds: Bounds) -> tuple[bool | None, Any]:
        entry, _, garbage = self._population.find(key)
        if entry is not None:
            return False, None
        return True, (garbage, self._population.put(key, value, ttl, bounds))

    # Loads, tags, namespaces

    def _no_load(self, key: str) -> object:
        """A token that is good for nothing."""
        return loads.begin({}, key, 0)

    @exclusive(_no_load, postpone=False)
    def begin_load(self, key: str) -> tuple[object, Any]:
        return loads.begin(self._population.loads, key, self._tags.label), None

    def is_overtaken(self, key: str, token: object, tags: tuple[int, ...] = ()) -> bool:
        # Another store's, if a switch was turned meanwhile.
        if not isinstance(token, loads.Token):
            return True
        if loads.is_overtaken(self._population.loads, key, token):
            return True
        return not self._tags.are_valid(tags, token.label)

    def overtake_loads(self, prefix: str) -> None:
        self._overtake(prefix)

    # Within another write of this thread, at once and again after it, as `_invalidate`.
    @exclusive(lambda self, prefix: loads.overtake(self._population.loads, prefix))
    def _overtake(self, prefix: str) -> tuple[None, Any]:
        loads.overtake(self._population.loads, prefix)
        return None, None

    def try_lease(self, key: str) -> Callable[[], None]:
        return _nothing

    def invalidate_tags(self, slots: Iterable[int]) -> None:
        self._invalidate(tuple(slots))

    # Within another write of this thread, at once all the same: whoever was told may rely on it. And again
    # after that write, which may have begun before.
    @exclusive(lambda self, slots: self._tags.invalidate(slots))
    def _invalidate(self, slots: tuple[int, ...]) -> tuple[None, Any]:
        self._tags.invalidate(slots)
        return None, None

    def generation(self, namespace: str) -> int:
        return self._generations.get(namespace, 0)

    def next_generation(self, namespace: str) -> int:
        with self.lock:
            number = self._generations[namespace] = self._generations.get(namespace, 0) + 1
        return number

    def generations(self) -> dict[str, int]:
        with self.lock:
            return dict(self._generations)

    def set_generations(self, numbers: Mapping[str, int]) -> None:
        with self.lock:
            self._generations = dict(numbers)

    # The whole table

    def clear(self) -> int:
        count, old = self._exchange(self._new_population(), self.counters)
        _empty(old)
        return count

    def load(self, records: Iterable[Record], bounds: Bounds) -> None:
        # Populated where nobody sees it, with counters that nobody reads.
        fresh = self._new_population(Counters())
        for key, value, remaining, life in records:
            with suppress(ValueTooLarge):
                if life is None:
                    fresh.put(key, value, FOREVER if remaining == FOREVER else remaining, bounds)
                else:
                    fresh.resume(key, value, remaining, life, bounds)
            fresh.evict_debt()
        fresh.counters = self.counters
        _, old = self._exchange(fresh, None)
        _empty(old)

    def _would_exchange(self, fresh: Population, clears: Counters | None) -> tuple[int, Population | None]:
        return len(self), None

    @exclusive(_would_exchange)
    def _exchange(
        self, fresh: Population, clears: Counters | None
    ) -> tuple[tuple[int, Population | None], Any]:
        """Go on with another population; how many entries the old one had, and the old one."""
        old, self._population = self._population, fresh
        self._table.entries = fresh.entries
        self._bind_writer()
        count = len(old.entries)
        counters = self.counters
        counters.peak_total_keys = max(counters.peak_total_keys, len(fresh.entries))
        if clears is not None:
            clears.manual_deletions += count
        fresh.wants_thread = fresh.wants_thread or old.wants_thread
        fresh.unfinished = True
        if self._listeners:
            fresh.removals = [*(old.removals or ()), *((key, RemovalCause.CLEARED) for key in old.entries)]
        return (count, old), None

    def shrink(self, bounds: Bounds) -> None:
        self.sweep()
        while self._shrink_slice(bounds):
            pass

    @exclusive(lambda self, bounds: False)
    def _shrink_slice(self, bounds: Bounds) -> tuple[bool, Any]:
        """Evict some of what is over the bounds; whether there is more."""
        return self._population.shrink_some(bounds)

    @exclusive(lambda self, capacity: None)
    def set_capacity(self, capacity: int) -> tuple[None, Any]:
        """Tell the eviction policy how many entries there may be. Evicts nothing."""
        if capacity != self._capacity:
            self._capacity = capacity
            self._population.resize(capacity)
        return None, None

    def widen(self, capacity: int) -> None:
        """One more cache uses the store; the largest bound is what the policy plans with."""
        self.set_capacity(max(capacity, self._capacity))

    def sweep(self) -> int:
        count = 0
        while self._population.deadlines.next_due <= self._now():
            left = self._expire_chunk()
            if left is None:
                return count
            count += left
            # Gives others a chance at the lock.
            time.sleep(0)
        # What has expired within the present tick of the wheel.
        population = self._population
        chunks = population.deadlines.expired_chunks(self._now())
        while (expired := self._expire_next(population, chunks)) is not None:
            count += expired
            time.sleep(0)
        return count

    def _expire_none(self) -> int | None:
        return None

    @exclusive(_expire_none, postpone=False)
    def _expire_chunk(self) -> tuple[int | None, Any]:
        garbage = self._population.expire_chunk(self._now())
        return len(garbage), garbage

    def _expire_nothing(self, population: Population, chunks: Iterator[list[Entry]]) -> int | None:
        return None

    @exclusive(_expire_nothing, postpone=False)
    def _expire_next(self, population: Population, chunks: Iterator[list[Entry]]) -> tuple[int | None, Any]:
        # Cleared meanwhile? Then these chunks are of no interest any more.
        expired = next(chunks, None) if self._population is population else None
        if expired is None:
            return None, None
        garbage = population.expire(expired)
        return len(garbage), garbage

    def want_thread(self) -> None:
        """Have the next write ask for the background thread, whether or not it leaves something to do."""
        self._population.wants_thread = self._population.unfinished = True

    def stay_asleep(self) -> None:
        """Ask for no background thread any more."""
        self._wake = None

    # A write, though it changes no entry: none may count between two of these lines.
    @exclusive(lambda self: None)
    def _reset_counters(self) -> tuple[None, Any]:
        self._table.hits = self._table.misses = 0
        self.counters.reset(len(self._table.entries))
        for publisher in self.publishers.values():
            publisher.count_from_zero()
        return None, None

    def reset_counters(self) -> None:
        self._reset_counters()

    def _new_population(self, counters: Counters | None = None) -> Population:
        counters = counters or self.counters
        policy = self._make_policy()
        if self._weigher is None:
            return Population(policy, self._capacity, self._now, counters, self._tags)
        return WeighingPopulation(policy, self._capacity, self._now, counters, self._tags, self._weigher)

    # What follows a write, without the lock

    def subscribe(self, listener: RemovalListener) -> Callable[[], None]:
        with self.lock:
            self._listeners = (*self._listeners, listener)
            if self._population.removals is None:
                self._population.removals = []

        def unsubscribe() -> None:
            with self.lock:
                self._listeners = tuple(one for one in self._listeners if one is not listener)
                if not self._listeners:
                    self._population.removals = None

        return unsubscribe

    def finish(self) -> None:
        """Evict what one hold of the lock had no time for, tell listeners, run what was postponed."""
        lock = self.lock
        while self._population.unfinished or lock.postponed:
            with lock:
                if lock.busy:
                    return  # a finaliser within a write of this thread; that write will see to it
                population = self._population
                lock.busy = True
                try:
                    _garbage = population.evict_debt()
                    removals, postponed = population.removals or (), lock.postponed
                    if removals:
                        population.removals = []
                    lock.postponed = []
                    wants_thread, population.wants_thread = population.wants_thread, False
                    population.unfinished = population.owes
                finally:
                    lock.busy = False
            # Without the lock: to start a thread is slow, and takes a lock of its own.
            if wants_thread and self._wake is not None:
                self._wake(self)
            for key, cause in removals:
                for listener in self._listeners:
                    listener(key, cause)
            for call in postponed:
                try:
                    call()
                except Exception as error:
                    logger.error("A write by a finaliser failed (%s)", type(error).__name__)
                    logger.debug("How it failed", exc_info=error)

    # Forks

    def before_fork(self) -> bool:
        """Wait for writers to finish, so that the child gets whole books. False if one doesn't."""
        return self.lock.acquire(timeout=_FORK_PATIENCE)

    def after_fork_in_parent(self, held: bool) -> None:
        if held:
            self.lock.release()

    def after_fork_in_child(self, held: bool) -> None:
        torn = not held or self.lock.busy
        self.lock = WriteLock()
        self._bind_writer()
        if torn:
            logger.warning("A write was under way during a fork; the child's cache starts empty")
            self._exchange(self._new_population(), None)
        # The maintenance thread exists in the parent only: have the next write with a TTL call for one.
        self._population.deadlines.forget_recent()
        self._population.deadlines.new_chunk = True
        if self.publishers or self.sizers:
            self.want_thread()


def _nothing() -> None:
    pass


def _empty(population: Population | None) -> None:
    # Dropping a large dictionary is one long step for all threads; emptying it first is many short ones.
    while population is not None and population.entries:
        population.entries.popitem()


def _is_text(stored: Any, text: str) -> bool:
    # Exactly a string: a subclass may compare as it likes, and this is asked under the lock.
    return stored.__class__ is str and bool(stored == text)


def _sum(key: str, number: Any, delta: Any) -> Any:
    try:
        return number + delta
    except TypeError as error:
        raise TypeError(
            f"key {key!r} holds {type(number).__name__}, which {delta!r} can't be added to"
        ) from error
