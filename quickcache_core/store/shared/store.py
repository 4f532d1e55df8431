"""Scope `shared`: one cache for all processes of a host."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from threading import get_ident
from typing import Any, Concatenate, ParamSpec, TypeVar

from quickcache_core.clock import Clock
from quickcache_core.entry import FOREVER, MISSING
from quickcache_core.errors import SerializationError, StoreUnavailable, ValueTooLarge
from quickcache_core.keys import check_key
from quickcache_core.serializer.isolation import Frozen, thaw
from quickcache_core.store.base import ABSENT, Bounds, Presence, Record, RemovalListener, Store
from quickcache_core.store.near import NearEntry, NearStore
from quickcache_core.store.shared.connection import WriterBusy
from quickcache_core.store.shared.table import SharedTable
from quickcache_core.store.shared.values import Codec, deadline_of, original_key, stored_key, stored_range
from quickcache_core.store.shared.words import slot_of

logger = logging.getLogger(__name__)

_LIVE, _EXPIRED, _GONE = Presence.LIVE, Presence.EXPIRED, Presence.ABSENT
_SLICE = 64
"""Keys written in one transaction, during which all other writers of the host wait."""
_NUMBERS = (int, float)
_MOST_OWED = 10_000
"""Keys; with more, all of the cache is owed."""

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
                if self._in_debt:
                    self._settle_debts()
                result = method(self, *args, **kwargs)
            except StoreUnavailable as error:
                self._in_trouble(error, must=must)
                result = answer(self, *args, **kwargs)
            if connection.postponed:
                connection.catch_up()
            if self._awake_in != connection.pid:
                self._awake_in = connection.pid
                self._table.wake()
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
        self._table = table
        self._connection = table.connection
        self._codec = codec
        self._read, self._put = table.connection.read, table.put
        self._decode, self._encode = codec.decode, codec.encode
        self._now = clock.monotonic
        self._degrade = degrade
        self._near = NearStore(clock.monotonic, near_size, self._get_behind)
        self._awake_in = 0
        self._owed: dict[str, object] = {}
        self._owes_all: object = None
        self._in_debt = False
        self._complained = False
        self.table = table
        self.counters = table.counters
        self.lock = table.writing.lock
        table.connection.attach(self._near)
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

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        near = self._near
        found, unknown = near.get_many(keys)
        if not unknown:
            return found
        for key in unknown:
            check_key(key)
        young = near.young
        raws = list(map(stored_key, unknown))
        try:
            records, label = self._connection.read_many(raws)
        except StoreUnavailable as error:
            self._in_trouble(error)
            near.misses += len(unknown)
            return found
        for key, raw, record in zip(unknown, raws, records, strict=True):
            entry = self._keep(key, raw, slot_of(raw), record, label, young)
            value = self._answer(key, entry, ABSENT)
            if value is not ABSENT:
                found[key] = value
        return found

    def _get_behind(self, key: str, default: Any) -> Any:
        near = self._near
        if key.__class__ is not str:
            check_key(key)
        young = near.young
        entry = near.old.get(key)
        if entry is not None and near.valid(key) is entry:
            near.keep(young, key, entry, 0)
            return near.answer(key, entry, default)
        try:
            entry = self._fetch(key, young)
        except StoreUnavailable as error:
            self._in_trouble(error)
            return near.missing(key, default)
        return self._answer(key, entry, default)

    def _answer(self, key: str, entry: NearEntry, default: Any) -> Any:
        """What a get makes of what was just read from the files, where there may be anything."""
        value = entry.value
        if value.__class__ is Frozen and value.load == self._first_read:
            try:
                entry.value = self._codec.settle(value.data[1])[1]
            except SerializationError as error:
                self._unreadable(str(error.__cause__ or error))
                self._near.drop(key)
                return self._near.missing(key, default)
        return self._near.answer(key, entry, default)

    def _fetch(self, key: str, young: dict[str, NearEntry]) -> NearEntry:
        """What the table has, kept near."""
        raw = stored_key(key)
        slot = slot_of(raw)
        record, label = self._read(raw, slot)
        if self._awake_in != self._connection.pid:
            self._awake_in = self._connection.pid
            self._table.wake()
        return self._keep(key, raw, slot, record, label, young)

    def _keep(
        self,
        key: str,
        raw: bytes,
        slot: int,
        record: bytes | None,
        label: int,
        young: dict[str, NearEntry],
    ) -> NearEntry:
        if record is None or (self._in_debt and (self._owes_all is not None or key in self._owed)):
            entry = NearEntry(ABSENT, label, slot, FOREVER)
            self._near.keep(young, key, entry, 0)
            return entry
        decoded = self._decode(raw, key, record)
        if decoded is None:
            self._unreadable(self._codec.reason(record))
            entry = NearEntry(ABSENT, label, slot, FOREVER)
        else:
            value, deadline = decoded
            entry = NearEntry(
                self._near_form(key, value) if value.__class__ is Frozen else value, label, slot, deadline
            )
        self._near.keep(young, key, entry, len(record))
        return entry

    def _near_form(self, key: str, stored: Any) -> Any:
        return Frozen(self._first_read, (key, stored.data)) if self._codec.holds(stored) else stored

    def _first_read(self, packed: tuple[str, Any]) -> Any:
        """Load a value, and keep it in a form that is cheaper to read."""
        key, data = packed
        value, form = self._codec.settle(data)
        entry = self._near.young.get(key)
        if entry is not None and entry.value.__class__ is Frozen and entry.value.data is packed:
            entry.value = form
        return value if form.__class__ is not Frozen or self._codec.holds(form) else thaw(form)

    def _unreadable(self, reason: str) -> None:
        self.counters.store_errors += 1
        if not self._complained:
            self._complained = True
            logger.warning(
                "An entry of the shared cache in %s %s; such entries are misses, and are not reported again",
                self._connection.path,
                reason,
            )

    def _peek(self, key: str) -> NearEntry:
        check_key(key)
        return self._near.valid(key) or self._fetch(key, self._near.young)

    def _found(self, key: str) -> tuple[Presence, NearEntry | None]:
        """What is there. Counts nothing."""
        try:
            entry = self._peek(key)
        except StoreUnavailable as error:
            self._in_trouble(error)
            return _GONE, None
        if entry.value is ABSENT:
            return _GONE, None
        return (_LIVE, entry) if entry.deadline > self._now() else (_EXPIRED, entry)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._found(key)[0] is _LIVE

    def remaining(self, key: str) -> tuple[Presence, float]:
        presence, entry = self._found(key)
        if entry is None or presence is not _LIVE:
            return presence, 0.0
        return _LIVE, FOREVER if entry.deadline is FOREVER else entry.deadline - self._now()

    # Looking at all

    def __len__(self) -> int:
        return self._answer_or(0, lambda: len(self._table))

    def used_bytes(self) -> int:
        """What the entries take of the map."""
        return self._answer_or(0, lambda: self._table.writing.size()[1])

    def expired_size(self) -> int:
        return self._answer_or(0, self._table.expiry.size)

    def keys(self, prefix: str) -> Iterator[str]:
        def live(raw: bytes, record: memoryview) -> str | None:
            return original_key(raw, record) if deadline_of(record) > self._now() else None

        starts = [stored_range(prefix), *([] if not prefix else [b"\xfe"])]
        try:
            for start in starts:
                for chunk in self._table.scan(start, live):
                    yield from (key for key in chunk if key.startswith(prefix))
        except StoreUnavailable as error:
            self._in_trouble(error)

    def records(self) -> list[Record]:
        now = self._now()

        def live(raw: bytes, record: memoryview) -> tuple[bytes, bytes] | None:
            return (raw, bytes(record)) if deadline_of(record) > now else None

        records = []
        for chunk in self._table.scan(b"", live):
            for raw, record in chunk:
                key = original_key(raw, record)
                decoded = self._codec.decode(raw, key, record)
                if decoded is None:
                    self._unreadable(self._codec.reason(record))
                    continue
                remaining = FOREVER if decoded[1] is FOREVER else decoded[1] - now
                records.append(Record(key, decoded[0], remaining))
        return records

    # Writing

    def _kept(self, key: str, stored: Any, label: int, slot: int, deadline: float, size: int) -> None:
        if stored.__class__ is Frozen:
            stored = self._near_form(key, stored)
        near = self._near
        near.keep(near.young, key, NearEntry(stored, label, slot, deadline), size)

    def _encoded(self, key: str, value: Any, ttl: float) -> tuple[bytes, int, bytes, Any, float]:
        if key.__class__ is not str:
            check_key(key)
        raw = stored_key(key)
        deadline = FOREVER if ttl == FOREVER else self._now() + ttl
        record, stored = self._encode(raw, key, value, deadline)
        if len(record) > self._table.largest_record:
            # Not to be taken for the new one.
            self._table.remove(raw, slot_of(raw))
            raise ValueTooLarge(key, len(record), self._table.largest_record)
        return raw, slot_of(raw), record, stored, deadline

    def _unstored(self, key: str, *_: Any) -> None:
        """A value couldn't be stored: an older one must not be taken for it."""
        self._owe((key,))

    @_write(_unstored)
    def put(self, key: str, value: Any, ttl: float, bounds: Bounds) -> None:
        raw, slot, record, stored, deadline = self._encoded(key, value, ttl)
        label = self._put(raw, slot, record, deadline, bounds)
        self._kept(key, stored, label, slot, deadline, len(record))

    def put_many(self, values: Mapping[str, Any], ttl: float, bounds: Bounds) -> None:
        items = iter(values.items())
        while batch := list(islice(items, _SLICE)):
            self._put_batch(batch, ttl, bounds)

    @_write(lambda self, batch, ttl, bounds: self._owe(key for key, _ in batch))
    def _put_batch(self, batch: list[tuple[str, Any]], ttl: float, bounds: Bounds) -> None:
        encoded = [(key, *self._encoded(key, value, ttl)) for key, value in batch]
        label = self._table.put_many([(raw, slot, record) for _, raw, slot, record, *_ in encoded], bounds)
        for key, _, slot, record, stored, deadline in encoded:
            self._kept(key, stored, label, slot, deadline, len(record))

    def _added(self, key: str, value: Any, ttl: float, bounds: Bounds) -> bool:
        """As a cache does that is empty, and forgets at once."""
        self._owe((key,))
        return True

    @_write(_added, must=True)
    def add(self, key: str, value: Any, ttl: float, bounds: Bounds) -> bool:
        raw, slot, record, stored, deadline = self._encoded(key, value, ttl)
        done, label = self._table.add(raw, slot, record, bounds)
        if done:
            self._kept(key, stored, label, slot, deadline, len(record))
        return done

    @_write(lambda self, key, value, ttl: self._missing(key), must=True)
    def replace(self, key: str, value: Any, ttl: float) -> Presence:
        raw, slot, record, stored, deadline = self._encoded(key, value, ttl)
        presence, label = self._table.replace(raw, slot, record)
        if presence is _LIVE:
            self._kept(key, stored, label, slot, deadline, len(record))
        return presence

    @_write(lambda self, key: self._missing(key), must=True)
    def remove(self, key: str) -> Presence:
        check_key(key)
        raw = stored_key(key)
        slot = slot_of(raw)
        presence, _, label = self._table.remove(raw, slot)
        self._near.keep(self._near.young, key, NearEntry(ABSENT, label, slot, FOREVER), 0)
        return presence

    @_write(lambda self, key: (self._missing(key), None), must=True)
    def pop(self, key: str) -> tuple[Presence, Any]:
        check_key(key)
        raw = stored_key(key)
        slot = slot_of(raw)
        presence, record, _ = self._table.remove(raw, slot, want=True)
        if record is None or presence is not _LIVE:
            return presence, None
        decoded = self._codec.decode(raw, key, record)
        if decoded is None:
            self._unreadable(self._codec.reason(record))
            return _GONE, None
        return _LIVE, thaw(decoded[0])

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
        return self._table.touch(raw, slot_of(raw), FOREVER if ttl == FOREVER else self._now() + ttl)

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
        raw = stored_key(key)
        slot = slot_of(raw)
        if delta.__class__ in _NUMBERS:
            result, label = self._table.add_to(raw, slot, delta)
            if result is not None:
                number, deadline = result
                self._kept(key, number, label, slot, deadline, 0)
                return _LIVE, number
        while True:
            # Worked out without the guard, since thawing and adding may run code that isn't ours, and stored
            # if nobody stored anything meanwhile.
            old, _ = self._read(raw, slot)
            decoded = None if old is None else self._codec.decode(raw, key, old)
            live = decoded is not None and decoded[1] > self._now()
            presence = _LIVE if live else _GONE if old is None else _EXPIRED
            if not live and initial is MISSING:
                self.counters.failed_ops += 1
                return presence, None
            if decoded is not None and live:
                number, deadline = thaw(decoded[0]), decoded[1]
            else:
                number, deadline = initial, FOREVER if ttl == FOREVER else self._now() + ttl
            number = summed(key, number, delta)
            record, stored = self._codec.encode(raw, key, number, deadline)
            swapped = self._table.swap(raw, slot, old, record, bounds)
            if swapped is not None:
                self._kept(key, stored, swapped, slot, deadline, len(record))
                return presence, number

    # The whole store

    @_write(lambda self: self._owe(None), must=True)
    def clear(self) -> int:
        return self._table.clear()

    def load(self, records: Iterable[Record], bounds: Bounds) -> None:
        """As a rule not at once: others see the store empty, and then grow."""
        encoded = []
        for record in records:
            raw, slot, data, _, _ = self._encoded(record.key, record.value, record.remaining)
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
        if self._connection.guard.owner == get_ident():
            return 0  # put off, not failed
        debt = object()
        if keys is None or len(self._owed) > _MOST_OWED:
            self._owes_all = debt
        for key in keys or ():
            self._near.drop(key)
            self._owed[key] = debt
        self._in_debt = True
        return 0

    def _settle_debts(self) -> None:
        # Reads go by the debts until they are paid, and other threads make new ones meanwhile.
        owed, owes_all = self._owed.copy(), self._owes_all
        if owes_all is not None:
            self._table.clear()
        else:
            keys = [(raw, slot_of(raw)) for raw in map(stored_key, owed)]
            for start in range(0, len(keys), _SLICE):
                self._table.remove_many(keys[start : start + _SLICE])
        for key, debt in owed.items():
            if (newer := self._owed.pop(key, debt)) is not debt:
                self._owed[key] = newer
        if self._owes_all is owes_all:
            self._owes_all = None
        self._in_debt = False
        if self._owed or self._owes_all is not None:
            self._in_debt = True

    def pay_debts(self) -> None:
        """Remove what could not be removed when it should have been. Raises `StoreUnavailable`."""
        if self._in_debt:
            self._settle_debts()


def summed(key: str, number: Any, delta: Any) -> Any:
    try:
        return number + delta
    except TypeError as error:
        raise TypeError(
            f"key {key!r} holds {type(number).__name__}, which {delta!r} can't be added to"
        ) from error
