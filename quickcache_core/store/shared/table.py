"""Records under stored keys: what can be done to them, each thing in one transaction."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

from quickcache_core.clock import Clock
from quickcache_core.events import RemovalCause
from quickcache_core.metrics.publisher import Publisher
from quickcache_core.store.base import Bounds, Presence
from quickcache_core.store.codec import added
from quickcache_core.store.record import HEADER, RICH, Raw, deadline_of, is_rich, labelled, touched
from quickcache_core.store.shared.connection import STOP, Connection, Crowded
from quickcache_core.store.shared.eviction import MOST_DELETIONS, NO_LIMIT, Removal, Victims, evict
from quickcache_core.store.shared.expiry import in_ms, note_due
from quickcache_core.store.shared.lives import Lives, Token, count_up
from quickcache_core.store.shared.record import presence
from quickcache_core.store.shared.values import original_key
from quickcache_core.store.shared.words import ENTRIES, NEW_DUE, WHOLE
from quickcache_core.store.shared.writing import Writing

# Looking a member up on an Enum class costs three dictionary look-ups in 3.11.
_LIVE, _EXPIRED = Presence.LIVE, Presence.EXPIRED
_EXPLICIT, _OVERDUE = RemovalCause.EXPLICIT, RemovalCause.EXPIRED
_INVALIDATED = RemovalCause.INVALIDATED
RECORDS: Final = 16
"""Of the largest size, so many would fill the map. A larger one may find no room, however many leave."""
_CHANGED = None, True
"""What an action returns that has no result but changed something."""


class Reader(Protocol):
    """One way to read the table, in terms of keys and values."""

    @property
    def hits(self) -> int: ...

    @property
    def misses(self) -> int: ...

    def clear(self) -> int: ...

    def keys(self, prefix: str, *, stale: bool = False) -> Iterator[str]: ...

    def remaining(self, key: str) -> tuple[Presence, float]: ...

    def remove_many(self, keys: Iterable[str]) -> int: ...

    def overtake_loads(self, prefix: str) -> None: ...

    def next_generation(self, namespace: str) -> int: ...

    def invalidate_tags(self, slots: Iterable[int]) -> None: ...

    def pay_debts(self) -> None: ...

    def count_from_zero(self) -> None: ...


class SharedTable:
    """Keys and records in bytes; deadlines in monotonic seconds, which all processes of a host share.

    Every method may raise `StoreUnavailable`; those that write run as the only writer of the host. Methods
    that return a label name the transaction whose outcome they tell.
    """

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self.connection = connection
        self.wanted_size = connection.map_size
        """Of the map, as this process's settings have it; an older process may have made it another one."""
        self.publisher: Publisher | None = None
        self.wake: Callable[[], None] = _nothing
        """Asks for background work; keeps alive what does it."""
        self.writing = Writing(connection, clock.monotonic)
        self.lives = Lives(self.writing, clock.monotonic)
        self.expiry = self.writing.expiry
        self.counters = self.writing.counters
        self.readers: list[Reader] = []
        """The stores of this process that read it."""
        self.capacity = 0
        """The largest bound, in entries, of the caches that use it in this process."""
        self.awake_in = 0
        """The process that asked for background work."""
        self._now = clock.monotonic
        self._write = self.writing.write

    @property
    def largest_record(self) -> int:
        """Bytes."""
        return self.connection.map_size // RECORDS

    def __len__(self) -> int:
        return self.connection.statistics()["entries"]

    def awaken(self) -> None:
        self.awake_in = self.connection.pid
        self.wake()

    # Writing one key

    def put(self, raw: bytes, slot: int, record: bytes, deadline: float, now: float, bounds: Bounds) -> int:
        """Insert or overwrite a record that ends then."""
        removals: list[Removal] = []
        given = raw, record, deadline, now, bounds, removals
        _, label = self._write(self._put, [slot], len(record), removals, given)
        self.counters.sets += 1
        return label

    def _put(self, txn: Any, slots: list[int], given: tuple[Any, ...]) -> tuple[None, bool]:
        raw, record, deadline, now, bounds, removals = given
        old = txn.get(raw)
        if old is not None and not self.writing.listeners:
            try:
                until, _, flags, _ = HEADER.unpack_from(old)
            except struct.error:  # none of us wrote it
                until, flags = now, 0
            if not flags & RICH and until > now:
                # As `_store`, for the common case.
                stamps = self.connection.words.stamps
                if deadline * 1000 < stamps[NEW_DUE]:
                    note_due(stamps, in_ms(deadline))
                txn.put(raw, record)
                return _CHANGED
        self._store(txn, slots, raw, record, old, bounds, removals)
        return _CHANGED

    def add(self, raw: bytes, slot: int, record: bytes, bounds: Bounds) -> tuple[bool, int]:
        """Insert unless a live entry is there."""

        def action(txn: Any, slots: list[int]) -> tuple[bool, bool]:
            old = txn.get(raw)
            if self.presence(old) is _LIVE:
                return False, False
            self._store(txn, slots, raw, labelled(record, txn.id()), old, bounds, removals)
            return True, True

        removals: list[Removal] = []
        stored, label = self._write(action, [slot], len(record), removals)
        if stored:
            self.counters.sets += 1
        else:
            self.counters.failed_ops += 1
        return stored, label

    def replace(self, raw: bytes, slot: int, record: bytes) -> tuple[Presence, int]:
        """Overwrite a live entry."""

        def action(txn: Any, slots: list[int]) -> tuple[Presence, bool]:
            old = txn.get(raw)
            state = self.presence(old)
            if state is not _LIVE:
                return state, False
            self._store(txn, slots, raw, labelled(record, txn.id()), old, None, removals)
            return state, True

        removals: list[Removal] = []
        state, label = self._write(action, [slot], len(record), removals)
        if state is _LIVE:
            self.counters.sets += 1
        else:
            self.counters.failed_ops += 1
        return state, label

    def swap(self, raw: bytes, slot: int, old: bytes | None, record: bytes, bounds: Bounds) -> int | None:
        """Store a record that was worked out from `old`, if that is what is there; None if it isn't."""

        def action(txn: Any, slots: list[int]) -> tuple[bool, bool]:
            found = txn.get(raw)
            if found != old:
                return False, False
            self._store(txn, slots, raw, record, found, bounds, None)
            return True, True

        stored, label = self._write(action, [slot], len(record), [])
        if not stored:
            return None
        self.counters.sets += 1
        return label

    def add_to(
        self, raw: bytes, slot: int, delta: int | float
    ) -> tuple[tuple[int | float, float | None] | None, int]:
        """Add to a live plain number; the sum and its deadline (None for an entry with more than a TTL), or
        None if there is none of that kind.
        """

        result, label = self._write(self._add_to, [slot], 0, [], (raw, delta))
        if result is not None:
            self.counters.sets += 1
        return result, label

    def _add_to(
        self, txn: Any, slots: list[int], given: tuple[bytes, int | float]
    ) -> tuple[tuple[int | float, float | None] | None, bool]:
        raw, delta = given
        old = txn.get(raw)
        if old is None or self.presence(old) is not _LIVE:
            return None, False
        summed = added(old, delta)
        if summed is None:
            return None, False
        record, number = summed
        deadline = None if is_rich(old) else deadline_of(old)
        txn.put(raw, record)
        return (number, deadline), True

    def touch(self, raw: bytes, slot: int, ttl: float) -> Presence:
        def action(txn: Any, slots: list[int]) -> tuple[Presence, bool]:
            old = txn.get(raw)
            state = self.presence(old)
            if state is not _LIVE:
                return state, False
            record = touched(old, ttl, self._now())
            note_due(self.connection.words.stamps, in_ms(deadline_of(record)))
            txn.put(raw, record)
            return state, True

        state, _ = self._write(action, [slot], 0, [])
        if state is not _LIVE:
            self.counters.failed_ops += 1
        return state

    def touch_record(self, raw: bytes, slot: int, record: bytes, ttl: float) -> bool:
        """Give a live entry a new deadline if that is its record; whether it was."""

        def action(txn: Any, slots: list[int]) -> tuple[bool, bool]:
            old = txn.get(raw)
            if old is None or old != record or self.presence(old) is not _LIVE:
                return False, False
            changed = touched(old, ttl, self._now())
            note_due(self.connection.words.stamps, in_ms(deadline_of(changed)))
            txn.put(raw, changed)
            return True, True

        return self._write(action, [slot], 0, [])[0]

    def remove_record(self, raw: bytes, slot: int, record: bytes) -> bool:
        """Remove a live entry if that is its record; whether it was."""

        def action(txn: Any, slots: list[int]) -> tuple[bool, bool]:
            old = txn.get(raw)
            if old is None or old != record or self.presence(old) is not _LIVE:
                return False, False
            removals[:] = [(original_key(raw, old), RemovalCause.EXPLICIT)]
            txn.delete(raw)
            return True, True

        removals: list[Removal] = []
        return self._write(action, [slot], 0, removals)[0]

    def remove(self, raw: bytes, slot: int, *, want: bool = False) -> tuple[Presence, bytes | None, int]:
        """What was there; with `want`, the record too.

        Where nothing was, it is stamped all the same: nobody may store what was computed before.
        """

        removals: list[Removal] = []
        (state, record), label = self._write(self._remove, [slot], 0, removals, (raw, want, removals))
        if state is not _LIVE:
            self.counters.failed_ops += 1
        return state, record, label

    def _remove(
        self, txn: Any, slots: list[int], given: tuple[bytes, bool, list[Removal]]
    ) -> tuple[tuple[Presence, bytes | None], bool]:
        raw, want, removals = given
        old = txn.get(raw)
        state = self.presence(old)
        if old is None:
            count_up(txn)
            return (state, None), True
        record = bytes(old) if want else None
        removals[:] = [(original_key(raw, old), _cause(state))]
        txn.delete(raw)
        return (state, record), True

    def put_with(
        self, raw: bytes, slot: int, record: bytes, bounds: Bounds, tags: list[int], load: Token | None
    ) -> tuple[bool, int]:
        """Insert or overwrite, unless the key was changed or a tag was invalidated since the load began;
        whether it was stored.
        """

        def is_overtaken(token: Token) -> bool:
            stamps = self.connection.words.stamps
            if self.connection.epoch is not token.epoch:
                return True
            return any(stamps[one] > token.label for one in (slot, WHOLE, *tags))

        def action(txn: Any, slots: list[int]) -> tuple[bool, bool]:
            if load is not None and is_overtaken(load):
                # A stamp may come from a writer that was killed before it could commit: the next load must
                # not find it above its label again.
                slots.clear()
                count_up(txn)
                return False, True
            slots[:] = [slot]
            self._store(txn, slots, raw, labelled(record, txn.id()), txn.get(raw), bounds, removals)
            return True, True

        removals: list[Removal] = []
        stored, label = self._write(action, [slot], len(record), removals)
        if stored:
            self.counters.sets += 1
        return stored, label

    def overtake_loads(self) -> None:
        """Let no value be stored whose load has begun."""

        def action(txn: Any, slots: list[int]) -> tuple[None, bool]:
            count_up(txn)
            return None, True

        self._write(action, [WHOLE], 0, [])

    # Writing several

    def put_many(self, records: list[tuple[bytes, int, bytes]], bounds: Bounds) -> int:
        """Insert or overwrite; each is (stored key, slot, record). Few enough for one transaction."""

        def action(txn: Any, slots: list[int]) -> tuple[None, bool]:
            for raw, _, record in records:
                self._store(txn, slots, raw, labelled(record, txn.id()), txn.get(raw), bounds, removals)
            return None, True

        removals: list[Removal] = []
        size = sum(len(record) for _, _, record in records)
        _, label = self._write(action, [slot for _, slot, _ in records], size, removals)
        self.counters.sets += len(records)
        return label

    def remove_many(self, keys: list[tuple[bytes, int]]) -> int:
        """How many live ones there were. Few enough for one transaction."""

        def action(txn: Any, slots: list[int]) -> tuple[int, bool]:
            live = 0
            removals.clear()
            for raw, _ in keys:
                old = txn.get(raw)
                if old is None:
                    continue
                state = self.presence(old)
                live += state is _LIVE
                removals.append((original_key(raw, old), _cause(state)))
                txn.delete(raw)
            if not removals:
                count_up(txn)  # as `remove` does
            return live, bool(keys)

        removals: list[Removal] = []
        live, _ = self._write(action, [slot for _, slot in keys], 0, removals)
        return live

    def clear(self) -> int:
        """Remove all; how many there were."""

        def action(txn: Any, slots: list[int]) -> tuple[int, bool]:
            count: int = txn.stat()["entries"]
            if self.writing.listeners:
                cleared = ((bytes(raw), record) for raw, record in txn.cursor().iternext())
                removals[:] = [(original_key(raw, record), RemovalCause.CLEARED) for raw, record in cleared]
            txn.drop(self.connection.main_database(txn), delete=False)
            return count, True

        removals: list[Removal] = []
        count, _ = self._write(action, [WHOLE], 0, removals)
        self.counters.manual_deletions += count
        return count

    def shrink(self, most: int) -> None:
        """Evict until there are no more than `most`, a slice at a time."""
        while (over := len(self) - most) > 0:
            if not self.writing.evict(over):
                return

    # Looking at all

    def scan(self, prefix: bytes, visit: Callable[[bytes, memoryview], Any]) -> Iterator[list[Any]]:
        """What `visit` returns for each record whose stored key begins with `prefix`, but None."""

        def within(raw: memoryview, record: memoryview) -> Any:
            key = bytes(raw)
            return visit(key, record) if key.startswith(prefix) else STOP

        return self.connection.scan(prefix, within)

    # Within a transaction

    def presence(self, record: Raw | None) -> Presence:
        """What a record counts as. Not only within a transaction."""
        return presence(record, self._now(), self.connection.words.stamps)

    def _store(
        self,
        txn: Any,
        slots: list[int],
        raw: bytes,
        record: bytes,
        old: memoryview | None,
        bounds: Bounds | None,
        removals: list[Removal] | None,
    ) -> None:
        stamps = self.connection.words.stamps
        if old is None:
            if bounds is not None and stamps[ENTRIES] >= bounds.max_size:
                self._make_way(txn, slots, bounds, removals)
            stamps[ENTRIES] += 1
        elif removals is not None:
            state = self.presence(old)
            if state is not _LIVE:
                removals.append((original_key(raw, old), _cause(state)))
            elif self.writing.listeners:
                removals.append((original_key(raw, old), RemovalCause.REPLACED))
        note_due(stamps, in_ms(deadline_of(record)))
        txn.put(raw, record)

    def _make_way(self, txn: Any, slots: list[int], bounds: Bounds, removals: list[Removal] | None) -> None:
        stamps = self.connection.words.stamps
        count = stamps[ENTRIES] = txn.stat()["entries"]
        over = count - bounds.max_size + 1
        if over <= 0:
            return
        if bounds.cull_fraction is not None:
            over = max(over, int(count * bounds.cull_fraction))
        due = self.expiry.is_due()
        if due or over > MOST_DELETIONS:
            raise Crowded(over, due=due)
        victims = Victims(over, NO_LIMIT, self._now())
        evict(txn, self.connection.words, victims, slots, [] if removals is None else removals)

    def reset_counters(self) -> None:
        """Of this process."""
        with self.writing.lock:
            for reader in self.readers:
                reader.count_from_zero()
            self.counters.reset(0)
            if self.publisher is not None:
                self.publisher.count_from_zero()


def _cause(state: Presence) -> RemovalCause:
    """Why an entry left that somebody removed, by what it was."""
    # No dictionary: the hash of a member is computed in Python.
    return _EXPLICIT if state is _LIVE else _OVERDUE if state is _EXPIRED else _INVALIDATED


def _nothing() -> None:
    pass
