"""Scope `shared`: one cache for all processes of a host."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from threading import get_ident
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar

from quickcache_core.clock import Clock
from quickcache_core.entry import FOREVER, MISSING
from quickcache_core.errors import StoreUnavailable, ValueTooLarge
from quickcache_core.keys import check_key
from quickcache_core.serializer.isolation import Frozen
from quickcache_core.store import record as layout
from quickcache_core.store.base import ABSENT, Bounds, Presence, Record, RemovalListener, Store
from quickcache_core.store.codec import Codec
from quickcache_core.store.life import Found, Life
from quickcache_core.store.near import NearEntry, fresh_until
from quickcache_core.store.record import deadline_of, is_rich, packed_life
from quickcache_core.store.shared.change import Change
from quickcache_core.store.shared.connection import WriterBusy
from quickcache_core.store.shared.lives import Token
from quickcache_core.store.shared.reading import Reading
from quickcache_core.store.shared.record import presence
from quickcache_core.store.shared.table import RECORDS, SharedTable
from quickcache_core.store.shared.values import original_key, stored_key, stored_range
from quickcache_core.store.shared.words import FIRST_TAG, WHOLE, name_slot, slot_of

_LIVE, _EXPIRED, _GONE = Presence.LIVE, Presence.EXPIRED, Presence.ABSENT
_SLICE = 64
"""Keys written in one transaction, during which all other writers of the host wait."""

P = ParamSpec("P")
R = TypeVar("R")


def _write(
    answer: Callable[Concatenate[SharedStore, P], R], *, must: bool = False
) -> Callable[[Callable[Concatenate[SharedStore, P], R]], Callable[Concatenate[SharedStore, P], R]]:
    """What surrounds a method that writes.

    `answer` says what it returns where it can't be carried out: while the store is out of order, and at once
    in a finaliser that runs in the middle of a write of the same thread, which is carried out afterwards.
    With `must`, a store that is only busy is an error: an answer would be a lie that others can see.
    """

    def decorate(
        method: Callable[Concatenate[SharedStore, P], R],
    ) -> Callable[Concatenate[SharedStore, P], R]:
        def run(self: SharedStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
            connection = self._connection
            if connection.guard.owner == get_ident():
                connection.postponed.append(functools.partial(run, self, *args, **kwargs))
                return answer(self, *args, **kwargs)
            try:
                if self._debts.exist:
                    self._debts.settle()
                result = method(self, *args, **kwargs)
            except StoreUnavailable as error:
                self._in_trouble(error, must=must)
                result = answer(self, *args, **kwargs)
            if self._table.awake_in != connection.pid:
                self._table.awaken()
            return result

        functools.update_wrapper(run, method)
        return run

    return decorate


class SharedStore(Store):
    """Entries in the files of one directory, with a near store in front.

    Coherent over all processes of the host: a read gives the newest value that was committed when it began,
    or a newer one. A read of a key that nobody changed since this process last read it costs no system call.

    While the files can't be used (`degrade`), every read is a miss and nothing is stored; keys that were
    written or deleted meanwhile are removed when the files are back, so that no outdated value returns. With
    `degrade=False` operations raise `StoreUnavailable` instead. A finaliser that writes in the middle of a
    write has it done afterwards.

    After a fork parent and child go on with the same entries.
    """

    def __init__(
        self,
        table: SharedTable,
        codec: Codec,
        clock: Clock,
        near_size: int,
        *,
        degrade: bool = True,
    ) -> None:
        self._names: set[str] = set()
        self._table = table
        self._connection = table.connection
        self._codec = codec
        self._put, self._encode = table.put, codec.encode
        self._now = clock.monotonic
        self._degrade = degrade
        self._reading = Reading(table, codec, clock, near_size, self._in_trouble)
        self._near, self._debts = self._reading.near, self._reading.debts
        self._change = Change(table, codec, self._reading, clock.monotonic)
        self.table = table
        self.counters = table.counters
        self.lock = table.writing.lock
        table.readers.append(self)

    @property
    def freeze(self) -> Callable[[Any], Any]:
        """What turns a value into its stored form. Raises `SerializationError`."""
        return self._codec.freeze

    # Reading

    @property
    def get(self) -> Callable[..., Any]:
        return self._near.get

    @property
    def hits(self) -> int:
        return self._near.hits

    @property
    def misses(self) -> int:
        return self._near.misses

    def count(self, *, hit: bool) -> None:
        if hit:
            self._near.hits += 1
        else:
            self._near.misses += 1

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        return self._reading.get_many(keys)

    def look(self, key: str) -> Found | None:
        return self._reading.look(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._reading.find(key)[0] is _LIVE

    def remaining(self, key: str) -> tuple[Presence, float]:
        presence, entry = self._reading.find(key)
        if entry is None or presence is not _LIVE:
            return presence, 0.0
        until = fresh_until(entry)
        return _LIVE, FOREVER if until == FOREVER else until - self._now()

    # Looking at all

    def __len__(self) -> int:
        return self._answer_or(0, lambda: len(self._table))

    def used_bytes(self) -> int:
        """What the entries take of the map."""
        return self._answer_or(0, lambda: self._table.writing.size()[1])

    def expired_size(self) -> int:
        return self._answer_or(0, self._table.expiry.size)

    def keys(self, prefix: str, *, stale: bool = False) -> Iterator[str]:
        def live(raw: bytes, record: memoryview) -> str | None:
            return original_key(raw, record) if stale or self._table.presence(record) is _LIVE else None

        starts = [stored_range(prefix), *([] if not prefix else [b"\xfe"])]
        try:
            for start in starts:
                for chunk in self._table.scan(start, live):
                    yield from (key for key in chunk if key.startswith(prefix))
        except StoreUnavailable as error:
            self._in_trouble(error)

    def records(self) -> list[Record]:
        """Stale ones, too."""
        now = self._now()
        self._connection.ready()
        stamps = self._connection.words.stamps

        def kept(raw: bytes, record: memoryview) -> tuple[bytes, bytes] | None:
            if deadline_of(record) <= now or presence(record, now, stamps) is _GONE:
                return None
            return raw, bytes(record)

        records = []
        for chunk in self._table.scan(b"", kept):
            for raw, record in chunk:
                key = original_key(raw, record)
                decoded = self._codec.decode(raw, key, record)
                if decoded is None:
                    self._reading.forms.unreadable(self._codec.reason(record))
                    continue
                extras = layout.extras_of(record) if is_rich(record) else None
                until = decoded[1] if extras is None else extras.fresh_until
                remaining = FOREVER if until == FOREVER else until - now
                records.append(
                    Record(key, decoded[0], remaining, None if extras is None else extras.life(now))
                )
        return records

    # Writing

    def _encoded(
        self, key: str, value: Any, ttl: float, life: Life | None = None
    ) -> tuple[bytes, int, bytes, Any, float]:
        if key.__class__ is not str:
            check_key(key)
        raw = stored_key(key)
        deadline = FOREVER if ttl == FOREVER else self._now() + ttl
        extras = b""
        if life is not None and not life.is_plain:
            deadline, extras = packed_life(life, self._now(), deadline)
        record, stored = self._encode(raw, key, value, deadline, extras)
        if len(record) > self._table.largest_record:
            self._refuse(key, raw, slot_of(raw), record)
        return raw, slot_of(raw), record, stored, deadline

    def _refuse(self, key: str, raw: bytes, slot: int, record: bytes) -> NoReturn:
        """An older value must not be taken for one that is too large."""
        self._table.remove(raw, slot)
        raise ValueTooLarge(key, len(record), self._table.largest_record)

    def put(self, key: str, value: Any, ttl: float, bounds: Bounds) -> None:
        # As with `_write`, `_encoded` and `Reading.wrote`, written out: no other write is as common.
        connection = self._connection
        if connection.guard.owner == get_ident():
            connection.postponed.append(functools.partial(self.put, key, value, ttl, bounds))
            return
        table = self._table
        try:
            if self._debts.exist:
                self._debts.settle()
            if key.__class__ is not str:
                check_key(key)
            raw = stored_key(key)
            slot = slot_of(raw)
            now = self._now()
            deadline = FOREVER if ttl == FOREVER else now + ttl
            record, stored = self._encode(raw, key, value, deadline)
            if len(record) * RECORDS > connection.map_size:
                self._refuse(key, raw, slot, record)
            near = self._near
            young = near.young
            label = self._put(raw, slot, record, deadline, now, bounds)
            if stored.__class__ is Frozen:
                stored = self._reading.forms.near_form(key, stored)
            near.keep(young, key, NearEntry(stored, label, slot, deadline), len(record))
        except StoreUnavailable as error:
            self._in_trouble(error)
            self._owe((key,))
        if table.awake_in != connection.pid:
            table.awaken()

    def _unstored_with(self, key: str, value: Any, life: Life, bounds: Bounds, token: object = None) -> bool:
        # What was computed from the source doesn't make an older value wrong.
        if token is None:
            self._owe((key,))
        return False

    @_write(_unstored_with)
    def put_with(self, key: str, value: Any, life: Life, bounds: Bounds, token: object = None) -> bool:
        raw, slot, record, stored, deadline = self._encoded(key, value, life.ttl, life)
        load = None if token is None else _token(token)
        tags = [FIRST_TAG + tag for tag in life.tags]
        young = self._near.young
        done, label = self._table.put_with(raw, slot, record, bounds, tags, load)
        if done:
            self._reading.wrote(young, key, stored, label, slot, deadline, record)
        return done

    def put_many(self, values: Mapping[str, Any], ttl: float, bounds: Bounds) -> None:
        items = iter(values.items())
        too_large = None
        while batch := list(islice(items, _SLICE)):
            try:
                self._put_batch(batch, ttl, bounds)
            except ValueTooLarge as error:
                too_large = error
        if too_large is not None:
            raise too_large

    @_write(lambda self, batch, ttl, bounds: self._owe(key for key, _ in batch))
    def _put_batch(self, batch: list[tuple[str, Any]], ttl: float, bounds: Bounds) -> None:
        encoded = []
        too_large = None
        for key, value in batch:
            try:
                encoded.append((key, *self._encoded(key, value, ttl)))
            except ValueTooLarge as error:
                too_large = error
        young = self._near.young
        label = self._table.put_many([(raw, slot, record) for _, raw, slot, record, *_ in encoded], bounds)
        for key, _, slot, record, stored, deadline in encoded:
            self._reading.wrote(young, key, stored, label, slot, deadline, record)
        if too_large is not None:
            raise too_large

    def _added(self, key: str, value: Any, ttl: float, bounds: Bounds, life: Life | None = None) -> bool:
        """As a cache does that is empty, and forgets at once."""
        self._owe((key,))
        return True

    @_write(_added, must=True)
    def add(self, key: str, value: Any, ttl: float, bounds: Bounds, life: Life | None = None) -> bool:
        raw, slot, record, stored, deadline = self._encoded(
            key, value, ttl if life is None else life.ttl, life
        )
        young = self._near.young
        done, label = self._table.add(raw, slot, record, bounds)
        if done:
            self._reading.wrote(young, key, stored, label, slot, deadline, record)
        return done

    @_write(lambda self, key, value, ttl, life=None: self._missing(key), must=True)
    def replace(self, key: str, value: Any, ttl: float, life: Life | None = None) -> Presence:
        raw, slot, record, stored, deadline = self._encoded(
            key, value, ttl if life is None else life.ttl, life
        )
        young = self._near.young
        presence, label = self._table.replace(raw, slot, record)
        if presence is _LIVE:
            self._reading.wrote(young, key, stored, label, slot, deadline, record)
        return presence

    @_write(lambda self, key: self._missing(key), must=True)
    def remove(self, key: str) -> Presence:
        check_key(key)
        raw = stored_key(key)
        slot = slot_of(raw)
        young = self._near.young
        presence, _, label = self._table.remove(raw, slot)
        self._near.keep(young, key, NearEntry(ABSENT, label, slot, FOREVER), 0)
        return presence

    @_write(lambda self, key: (self._missing(key), None), must=True)
    def pop(self, key: str) -> tuple[Presence, Any]:
        check_key(key)
        return self._change.pop(key)

    def remove_many(self, keys: Iterable[str]) -> int:
        count = 0
        keys = iter(keys)
        while batch := list(islice(keys, _SLICE)):
            count += self._remove_batch(batch)
        return count

    @_write(lambda self, batch: self._owe(batch), must=True)
    def _remove_batch(self, batch: list[str]) -> int:
        raws = [stored_key(key) for key in batch]
        return self._table.remove_many([(raw, slot_of(raw)) for raw in raws])

    @_write(lambda self, key, ttl: self._missing(key), must=True)
    def touch(self, key: str, ttl: float) -> Presence:
        check_key(key)
        raw = stored_key(key)
        return self._table.touch(raw, slot_of(raw), ttl)

    @_write(lambda self, key, text: False, must=True)
    def remove_if(self, key: str, text: str) -> bool:
        check_key(key)
        done = self._change.remove_if(key, text)
        self.counters.failed_ops += not done
        return done

    @_write(lambda self, key, text, ttl: False, must=True)
    def touch_if(self, key: str, text: str, ttl: float) -> bool:
        check_key(key)
        done = self._change.touch_if(key, text, ttl)
        self.counters.failed_ops += not done
        return done

    def _unadded(
        self, key: str, delta: Any, freeze: Any, initial: Any, ttl: float, bounds: Bounds
    ) -> tuple[Presence, Any]:
        return self._missing(key), None if initial is MISSING else initial + delta

    @_write(_unadded, must=True)
    def incr(
        self,
        key: str,
        delta: Any,
        freeze: Callable[[Any], Any] | None,
        initial: Any,
        ttl: float,
        bounds: Bounds,
    ) -> tuple[Presence, Any]:
        check_key(key)
        state, number = self._change.increase(key, delta, initial, ttl, bounds)
        self.counters.failed_ops += number is None
        return state, number

    # Loads

    def begin_load(self, key: str) -> object:
        check_key(key)
        connection = self._connection
        try:
            epoch = connection.epoch
            return Token(epoch, connection.label(slot_of(stored_key(key))))
        except StoreUnavailable as error:
            self._in_trouble(error)
            return Token(None, 0)

    def is_overtaken(self, key: str, token: object, tags: tuple[int, ...] = ()) -> bool:
        epoch, label = _token(token)
        stamps = self._near.stamps
        return (
            epoch is not self._connection.epoch
            or stamps[slot_of(stored_key(key))] > label
            or stamps[WHOLE] > label
            or self._debts.cover(key)
            or any(stamps[FIRST_TAG + tag] > label for tag in tags)
        )

    @_write(lambda self, prefix: self._cannot_overtake(), must=True)
    def overtake_loads(self, prefix: str) -> None:
        """Loads of all keys: which are under way isn't written anywhere. Each process looks into the files
        once more for each key that it has near.
        """
        self._table.overtake_loads()

    def _cannot_overtake(self) -> None:
        # Nor can the entries be listed that are to be removed, so all of them leave.
        self._owe(None)

    def try_lease(self, key: str) -> Callable[[], None] | None:
        check_key(key)
        try:
            self._connection.ready()
        except StoreUnavailable:
            pass  # a load too many is better than none
        return self._connection.leases.take(stored_key(key))

    def show_life(self, sign: str) -> Callable[[], None] | None:
        """Have the kernel tell other processes that this one lives, until what is returned is called, from
        any thread. None if it can't. Raises `StoreUnavailable`.
        """
        # In a child that nobody told of its fork the leases are the parent's still: a sign among them would
        # be lost with them.
        self._connection.ready()
        try:
            return self._connection.leases.surely(stored_key(sign))
        except OSError:
            return None

    def has_died(self, sign: str) -> bool:
        """Whether the process that showed that sign has ended, or has taken it down. False if that can't be
        told. Raises `StoreUnavailable`.
        """
        self._connection.ready()
        try:
            taken_down = self._connection.leases.surely(stored_key(sign))
        except OSError:
            return False
        if taken_down is not None:
            taken_down()
        return taken_down is not None

    @_write(lambda self, key, seconds: None)
    def put_off(self, key: str, seconds: float) -> None:
        check_key(key)
        self._table.lives.put_off(stored_key(key), seconds)
        self._near.drop(key)

    # Tags and generations

    @_write(lambda self, slots: self._cannot_invalidate(), must=True)
    def invalidate_tags(self, slots: Iterable[int]) -> None:
        tags = [FIRST_TAG + slot for slot in slots]
        if tags:
            self._table.lives.invalidate(tags)

    def _cannot_invalidate(self) -> None:
        # Nobody knows which entries have the tags, so all of them leave.
        self._owe(None)

    def generation(self, namespace: str) -> int:
        if namespace not in self._names:
            self._names.add(namespace)
        index = name_slot(namespace)
        for _ in range(2):
            try:
                generation: int = self._near.stamps[index]
            except IndexError:  # the files aren't open
                self._answer_or(None, self._connection.ready)
            else:
                return generation
        return 0

    def _no_generation(self, namespace: str) -> int:
        # All that was stored in this one leaves.
        self._owe(None)
        return self.generation(namespace)

    @_write(_no_generation, must=True)
    def next_generation(self, namespace: str) -> int:
        self._names.add(namespace)
        return self._table.lives.next_generation(namespace)

    def generations(self) -> dict[str, int]:
        return {name: self.generation(name) for name in list(self._names)}

    @_write(lambda self, numbers: None, must=True)
    def set_generations(self, numbers: Mapping[str, int]) -> None:
        self._table.lives.set_generations({**dict.fromkeys(list(self._names), 0), **numbers})

    # The whole store

    @_write(lambda self: self._owe(None), must=True)
    def clear(self) -> int:
        return self._table.clear()

    def load(self, records: Iterable[Record], bounds: Bounds) -> None:
        """As a rule not at once: others see the store empty, and then grow."""
        encoded = []
        for record in records:
            raw, slot, data, _, _ = self._encoded(record.key, record.value, record.remaining, record.life)
            encoded.append((raw, slot, data))
        self._fill(encoded, bounds)

    @_write(lambda self, encoded, bounds: self._owe(None), must=True)
    def _fill(self, encoded: list[tuple[bytes, int, bytes]], bounds: Bounds) -> int:
        self._table.clear()
        for start in range(0, len(encoded), _SLICE):
            self._table.put_many(encoded[start : start + _SLICE], bounds)
        return len(encoded)

    def sweep(self) -> int:
        return self._answer_or(0, self._table.expiry.sweep)

    def shrink(self, bounds: Bounds) -> None:
        self._answer_or(None, lambda: self._table.shrink(bounds.max_size))

    def set_capacity(self, capacity: int) -> None:
        """For the figures only: the bound comes with each write, and nothing is planned by it."""
        self._table.capacity = capacity

    def widen(self, capacity: int) -> None:
        self._table.capacity = max(capacity, self._table.capacity)

    def subscribe(self, listener: RemovalListener) -> Callable[[], None]:
        return self._table.writing.subscribe(listener)

    def reset_counters(self) -> None:
        self._table.reset_counters()

    def count_from_zero(self) -> None:
        self._near.hits = self._near.misses = 0

    # Trouble

    def _in_trouble(self, error: StoreUnavailable, *, must: bool = False) -> None:
        self.counters.store_errors += 1
        if not self._degrade or (must and isinstance(error, WriterBusy)):
            raise error

    def _answer_or(self, otherwise: R, ask: Callable[[], R]) -> R:
        try:
            return ask()
        except StoreUnavailable as error:
            self._in_trouble(error)
            return otherwise

    def _missing(self, key: str) -> Presence:
        self._owe((key,))
        return _GONE

    def _owe(self, keys: Iterable[str] | None) -> int:
        """Note what has to leave the store as soon as it can be used; None for all. Returns 0."""
        if self._connection.guard.owner != get_ident():  # else it is put off, and hasn't failed
            self._debts.add(keys)
        return 0

    def pay_debts(self) -> None:
        """Remove what could not be removed when it should have been. Raises `StoreUnavailable`."""
        if self._debts.exist:
            self._debts.settle()


def _token(token: object) -> Token:
    assert isinstance(token, Token), "a token comes from begin_load"  # noqa: S101
    return token
