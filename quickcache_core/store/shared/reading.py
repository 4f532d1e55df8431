"""How one cache reads a shared store: what is near first, then the files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from quickcache_core.clock import Clock
from quickcache_core.entry import FOREVER
from quickcache_core.errors import StoreUnavailable
from quickcache_core.keys import check_key
from quickcache_core.serializer.isolation import Frozen
from quickcache_core.store.base import ABSENT, Presence
from quickcache_core.store.codec import Codec
from quickcache_core.store.debts import Debts
from quickcache_core.store.forms import Forms
from quickcache_core.store.life import ASK, Found
from quickcache_core.store.near import WHOLE, NearEntry, NearStore, RichNearEntry, fresh_until, rich_entry
from quickcache_core.store.record import FLAGS, RICH, Extras
from quickcache_core.store.shared.connection import Crowded
from quickcache_core.store.shared.record import extras_of, is_invalid
from quickcache_core.store.shared.table import SharedTable
from quickcache_core.store.shared.values import stored_key
from quickcache_core.store.shared.words import slot_of

_LIVE, _EXPIRED, _GONE = Presence.LIVE, Presence.EXPIRED, Presence.ABSENT
_STEP = 0.05
"""Share of its TTL by which a sliding entry may last longer here than the files say. It is what others may
miss of the last reads of this process, and how often a process that reads it writes that down.
"""
_PATIENCE = 0.01
"""Seconds that a reader who has to write that down waits for other writers; then the next one has to."""


class Reading:
    """Answers from the near store and from the table, and keeps near what it read.

    An entry that slides does so here with each read, and in the files once a read makes a difference of 5 %
    of its TTL. So it may end for others, and leave, earlier by that than after its last read and its TTL;
    nobody ever gets it later.
    """

    def __init__(
        self,
        table: SharedTable,
        codec: Codec,
        clock: Clock,
        near_size: int,
        trouble: Callable[[StoreUnavailable], None],
    ) -> None:
        self.near = NearStore(clock.monotonic, near_size, self._get_behind, self._closer)
        self.debts = Debts(self.near, self._pay, table.clear)
        self.forms = Forms(codec, self.near, table.counters, f"shared cache in {table.connection.path}")
        self._table = table
        self._connection = table.connection
        self._codec = codec
        self._read, self._decode = table.connection.read, codec.decode
        self._now = clock.monotonic
        self._trouble = trouble
        table.connection.attach(self.near)

    # Getting

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        near = self.near
        found, unknown = near.get_many(keys)
        if unknown:
            unknown = [key for key in unknown if not self._is_found_closer(key, found)]
        if not unknown:
            return found
        for key in unknown:
            check_key(key)
        young = near.young
        raws = list(map(stored_key, unknown))
        try:
            records, label = self._connection.read_many(raws)
        except StoreUnavailable as error:
            self._trouble(error)
            near.misses += len(unknown)
            return found
        for key, raw, record in zip(unknown, raws, records, strict=True):
            entry = self._keep(key, raw, slot_of(raw), record, label, young)
            if entry.value is ABSENT and record is not None and self._is_replaced(entry):
                value = self._get_behind(key, ABSENT)
            else:
                value = self._answer(key, entry, ABSENT)
            if value is not ABSENT:
                found[key] = value
        return found

    def _is_found_closer(self, key: Any, found: dict[str, Any]) -> bool:
        """Whether a rich entry that is near answers for the key."""
        entry = self.near.valid(key)
        if entry is None or entry.__class__ is NearEntry:
            return False
        value = self._closer(key, entry, ABSENT)
        if value is not ABSENT:
            found[key] = value
        return True

    def _get_behind(self, key: str, default: Any) -> Any:
        near = self.near
        if key.__class__ is not str:
            check_key(key)
        young = near.young
        entry = near.old.get(key)
        if entry is not None and near.valid(key) is entry:
            near.keep(young, key, entry, 0)
            if self.debts.exist:
                self.debts.drop_if_owed(key)
            return near.answer(key, entry, default)
        try:
            entry = self.fetch(key, young)
        except StoreUnavailable as error:
            self._trouble(error)
            return near.missing(key, default)
        return self._answer(key, entry, default)

    def _answer(self, key: str, entry: NearEntry, default: Any) -> Any:
        """What a get makes of what was just read from the files, where there may be anything."""
        if entry.value.__class__ is Frozen and not self.forms.is_readable(key, entry):
            return self.near.missing(key, default)
        if entry.__class__ is NearEntry:
            return self.near.answer(key, entry, default)
        return self._rich_answer(key, entry, default)

    def _closer(self, key: str, entry: Any, default: Any) -> Any:
        """What a get makes of a rich entry that is near."""
        now = self._now()
        doubt = now >= entry.due_at if default is ASK else now >= entry.fresh_until and entry.ttl
        if doubt and not self.is_invalid(entry):
            # Others may have read it, or have put off its refresh, of which nobody is told.
            try:
                entry = self.fetch(key, self.near.young)
            except StoreUnavailable as error:
                self._trouble(error)
                return self.near.missing(key, default)
            return self._answer(key, entry, default)
        return self._rich_answer(key, entry, default)

    def _rich_answer(self, key: str, entry: Any, default: Any) -> Any:
        now = self._now()
        if self.is_invalid(entry):
            if not self._is_replaced(entry):
                return self.near.missing(key, default)
            try:
                return self._answer(key, self.fetch(key, self.near.young), default)
            except StoreUnavailable as error:
                self._trouble(error)
                return self.near.missing(key, default)
        if now < entry.fresh_until:
            if entry.ttl:
                self._slide(key, entry, now)
            if default is ASK and now >= entry.due_at:
                self.near.hits += 1
                self.near.references[entry.slot] = 1
                return Found(entry.value, True, True, entry.etag)
            return self.near.hit(entry)
        if default is ASK and now < entry.end:
            self.near.references[entry.slot] = 1
            return Found(entry.value, False, now >= entry.due_at, entry.etag)
        return self.near.expired(key, default)

    def is_invalid(self, entry: Any) -> bool:
        """Whether a tag of a rich entry was invalidated. Sees what other processes do at once."""
        stamps, source = self.near.stamps, entry.source
        return any(stamps[tag] > source for tag in entry.tags)

    def _is_replaced(self, entry: NearEntry) -> bool:
        """Whether the key was written since the entry was read: a tag that is invalid by now may have become
        so after that, which says nothing of the new entry.
        """
        stamps, label = self.near.stamps, entry.label
        return bool(stamps[entry.slot] > label or stamps[WHOLE] > label)

    def _slide(self, key: str, entry: Any, now: float) -> None:
        until = min(now + entry.ttl, entry.last)
        if until <= entry.fresh_until:
            return
        entry.fresh_until = until
        written = entry.written
        if until - written < entry.ttl * _STEP or self._connection.guard.is_mine():
            return
        # Other threads needn't do the same.
        entry.written = until
        # No reader waits for writers as long as there is time for it later.
        patience = 0.0 if written - now > entry.ttl / 2 else _PATIENCE
        raw = stored_key(key)
        try:
            if not self._table.lives.slide(raw, entry.source, patience):
                self.near.drop(key)
        except (Crowded, StoreUnavailable):
            entry.written = written

    # Looking

    def find(self, key: str) -> tuple[Presence, NearEntry | None]:
        """What is there. Counts nothing."""
        check_key(key)
        entry = self.near.valid(key)
        try:
            if entry is None or entry.__class__ is not NearEntry:
                # Of a rich one, not all that others do is heard of.
                entry = self.fetch(key, self.near.young)
            while entry.__class__ is not NearEntry and self.is_invalid(entry):
                if not self._is_replaced(entry):
                    return _GONE, None
                entry = self.fetch(key, self.near.young)
        except StoreUnavailable as error:
            self._trouble(error)
            return _GONE, None
        if entry.value is ABSENT:
            return _GONE, None
        return (_LIVE, entry) if fresh_until(entry) > self._now() else (_EXPIRED, entry)

    def look(self, key: str) -> Found | None:
        """As `Store.look`."""
        presence, entry = self.find(key)
        if entry is None or not self.forms.is_readable(key, entry):
            return None
        now = self._now()
        if isinstance(entry, RichNearEntry):
            if now >= entry.end:
                return None
            return Found(entry.value, presence is _LIVE, now >= entry.due_at, entry.etag)
        return Found(entry.value, True, False, None) if presence is _LIVE else None

    # Keeping

    def wrote(
        self,
        young: dict[str, NearEntry],
        key: str,
        stored: Any,
        label: int,
        slot: int,
        deadline: float,
        record: bytes,
    ) -> None:
        """Keep near what this process has just written: the value, and its record; `b""` for a plain one.
        `young` as for `NearStore.keep`, from before it was written.
        """
        if stored.__class__ is Frozen:
            stored = self.forms.near_form(key, stored)
        near = self.near
        if record and record[FLAGS] & RICH:
            extras = extras_of(record)._replace(label=label)
            entry: NearEntry = rich_entry(stored, label, slot, extras)
        else:
            entry = NearEntry(stored, label, slot, deadline)
        near.keep(young, key, entry, len(record))

    def _pay(self, keys: list[str]) -> None:
        self._table.remove_many([(raw, slot_of(raw)) for raw in map(stored_key, keys)])

    def fetch(self, key: str, young: dict[str, NearEntry]) -> NearEntry:
        """What the table has, kept near."""
        raw = stored_key(key)
        slot = slot_of(raw)
        record, label = self._read(raw, slot)
        if self._table.awake_in != self._connection.pid:
            self._table.awaken()
        entry = self._keep(key, raw, slot, record, label, young)
        if entry.value is ABSENT and record is not None and self._is_replaced(entry):
            # Its tags are what they are now, the record was what it was then. One more look tells: a tag that
            # was invalid before it is so for what it finds.
            record, label = self._read(raw, slot)
            entry = self._keep(key, raw, slot, record, label, young)
        return entry

    def _keep(
        self,
        key: str,
        raw: bytes,
        slot: int,
        record: bytes | None,
        label: int,
        young: dict[str, NearEntry],
    ) -> NearEntry:
        if record is None or (self.debts.exist and self.debts.cover(key)):
            entry = NearEntry(ABSENT, label, slot, FOREVER)
            self.near.keep(young, key, entry, 0)
            return entry
        decoded = self._decode(raw, key, record)
        size = len(record)
        if decoded is None:
            self.forms.unreadable(self._codec.reason(record))
            entry = NearEntry(ABSENT, label, slot, FOREVER)
        else:
            value, deadline = decoded
            if value.__class__ is Frozen:
                value = self.forms.near_form(key, value)
            if record[FLAGS] & RICH:
                entry = self._rich_entry(value, label, slot, extras_of(record), key)
                if key in young:
                    # What is read again and again, since it is due, must not push out others.
                    size = 0
            else:
                entry = NearEntry(value, label, slot, deadline)
        self.near.keep(young, key, entry, size)
        if self.debts.exist:
            self.debts.drop_if_owed(key)
        return entry

    def _rich_entry(self, value: Any, label: int, slot: int, extras: Extras, key: str) -> NearEntry:
        if is_invalid(extras, self.near.stamps):
            # It will never be valid again.
            return NearEntry(ABSENT, label, slot, FOREVER)
        entry = rich_entry(value, label, slot, extras)
        known = self.near.valid(key) if entry.ttl else None
        if isinstance(known, RichNearEntry) and known.source == entry.source:
            # It was read here, and that isn't written down.
            entry.fresh_until = max(entry.fresh_until, known.fresh_until)
        return entry
