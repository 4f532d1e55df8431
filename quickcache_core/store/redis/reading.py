"""How one cache reads entries on a server: what is near first, then the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from quickcache_core.entry import FOREVER
from quickcache_core.errors import SerializationError, StoreUnavailable
from quickcache_core.keys import check_key
from quickcache_core.serializer.isolation import Frozen
from quickcache_core.store.base import ABSENT, Presence
from quickcache_core.store.codec import Codec
from quickcache_core.store.debts import Debts
from quickcache_core.store.forms import Forms
from quickcache_core.store.life import ASK, Found
from quickcache_core.store.near import NearEntry, RichNearEntry, filled, fresh_until
from quickcache_core.store.record import Extras, deadline_of
from quickcache_core.store.redis import record as form
from quickcache_core.store.redis.names import slot_of, tail_of
from quickcache_core.store.redis.near import MOST_SECONDS, CappedNearEntry, TrackedNear
from quickcache_core.store.redis.slides import Slides
from quickcache_core.store.redis.table import Read, Table
from quickcache_core.store.redis.untracked import Untracked

_LIVE, _EXPIRED, _GONE = Presence.LIVE, Presence.EXPIRED, Presence.ABSENT


class _CappedRichEntry(RichNearEntry):
    """One that has to be read again after a while."""

    __slots__ = ("again_at",)

    again_at: float


class Reading:
    """Answers from the near store and from the server, and keeps near what it read.

    Times near are those of this process's clock; records have the server's.

    An entry that slides does so here with each read, and on the server once a read makes a difference of 5 %
    of its TTL. So it may end for others, and leave, earlier by that than after its last read and its TTL;
    nobody ever gets it later.
    """

    def __init__(
        self,
        table: Table,
        near: TrackedNear | Untracked,
        codec: Codec,
        forms: Forms,
        debts: Debts,
        trouble: Callable[[StoreUnavailable], None],
        attend: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self.near = near
        self.forms = forms
        self.debts = debts
        self._table = table
        self._codec = codec
        self._trouble = trouble
        self._attend = attend
        self._now = now
        self._slides = Slides(table)

    # Getting

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        near = self.near
        found, unknown = near.get_many(keys)
        if unknown:
            unknown = [key for key in dict.fromkeys(unknown) if not self._is_found_near(key, found)]
        if not unknown:
            return found
        for key in unknown:
            check_key(key)
        try:
            entries = self._fetch_many(unknown)
        except StoreUnavailable as error:
            self._trouble(error)
            near.misses += len(unknown)
            return found
        for key, entry in zip(unknown, entries, strict=True):
            value = self._answer(key, entry, ABSENT)
            if value is not ABSENT:
                found[key] = value
        return found

    def _is_found_near(self, key: Any, found: dict[str, Any]) -> bool:
        """Whether an entry that is near answers for the key where the near store alone can't."""
        near = self.near
        if key not in near.young and key not in near.old:
            return False
        entry = near.valid(key)
        if entry is None or not self._is_settled(entry):
            return False
        value = self._answer(key, entry, ABSENT)
        if value is not ABSENT:
            found[key] = value
        return True

    def get_behind(self, key: str, default: Any) -> Any:
        """As `Store.get`, of what the near store has no answer to."""
        near = self.near
        if key.__class__ is not str:
            check_key(key)
        young = near.young
        entry = near.old.get(key)
        if entry is not None and near.valid(key) is entry and self._is_settled(entry):
            near.keep(young, key, entry, 0)
            if self.debts.exist:
                self.debts.drop_if_owed(key)
            return self._answer(key, entry, default)
        return self._get_there(key, default)

    def closer(self, key: str, entry: NearEntry, default: Any) -> Any:
        """The same of a valid entry past its deadline."""
        if self._is_settled(entry):
            return self._answer(key, entry, default)
        return self._get_there(key, default)

    def _get_there(self, key: str, default: Any) -> Any:
        try:
            entry = self.fetch(key)
        except StoreUnavailable as error:
            self._trouble(error)
            return self._without_server(key, default)
        return self._answer(key, entry, default)

    def _without_server(self, key: str, default: Any) -> Any:
        """Something stale is better than nothing, to those who ask for it: perhaps it is outdated as well.
        What is known to be isn't given.
        """
        near = self.near
        if default is ASK and not self.debts.cover(key):
            entry = near.young.get(key) or near.old.get(key)
            if (
                isinstance(entry, RichNearEntry)
                and entry.stale_ttl
                and self._now() < entry.end
                and near.held(entry.label, entry.slot, *entry.tags)
            ):
                return Found(entry.value, False, True, entry.etag)
        return near.missing(key, default)

    def _is_settled(self, entry: NearEntry) -> bool:
        """Whether a valid entry tells all that there is to say at present."""
        now = self._now()
        if not isinstance(entry, _CappedRichEntry):
            return entry.__class__ is NearEntry or now < entry.deadline
        if now >= entry.again_at or not self.near.holds(entry.label, *entry.tags):
            return False
        # Others may have read it, of which we hear a little later.
        return now < entry.fresh_until or not entry.ttl

    def _answer(self, key: str, entry: NearEntry, default: Any) -> Any:
        """What a get makes of an entry that is as the server has it."""
        value = entry.value
        if value is ABSENT:
            return self.near.missing(key, default)
        first = ABSENT
        if value.__class__ is Frozen and self.forms.is_unread(value):
            try:
                first, entry.value = self.forms.read(value)
            except SerializationError as error:
                self.forms.unreadable(str(error.__cause__ or error))
                self.near.drop(key)
                return self.near.missing(key, default)
        now = self._now()
        if not isinstance(entry, RichNearEntry):
            if now >= entry.deadline:
                return self.near.expired(key, default)
            return self._hit(entry, first)
        if now < entry.fresh_until:
            if entry.ttl and not self._slides.slide(tail_of(key), entry, now):
                self.near.drop(key)
            if default is ASK and now >= entry.due_at:
                self.near.hits += 1
                return Found(entry.value, True, True, entry.etag)
            return self._hit(entry, first)
        if default is ASK and now < entry.end:
            return Found(entry.value, False, now >= entry.due_at, entry.etag)
        return self.near.expired(key, default)

    def _hit(self, entry: NearEntry, first: Any) -> Any:
        """`first`: the value, if this is the first time that it is read."""
        if first is ABSENT:
            return self.near.hit(entry)
        self.near.hits += 1
        return first

    # Looking

    def find(self, key: str) -> tuple[Presence, NearEntry | None]:
        """What is there. Counts nothing."""
        check_key(key)
        entry = self.near.valid(key)
        if entry is None or not self._is_settled(entry):
            try:
                entry = self.fetch(key)
            except StoreUnavailable as error:
                self._trouble(error)
                return _GONE, None
        if entry.value is ABSENT:
            return _GONE, None
        return (_LIVE, entry) if fresh_until(entry) > self._now() else (_EXPIRED, entry)

    def remaining(self, key: str) -> tuple[Presence, float]:
        """As `Store.remaining`."""
        presence, entry = self.find(key)
        if entry is None or presence is not _LIVE:
            return presence, 0.0
        if entry.__class__ is CappedNearEntry:
            try:
                return self._remaining_there(key)
            except StoreUnavailable as error:
                self._trouble(error)
                return _GONE, 0.0
        until = fresh_until(entry)
        return _LIVE, FOREVER if until == FOREVER else until - self._now()

    def _remaining_there(self, key: str) -> tuple[Presence, float]:
        record = self._read_sure(tail_of(key)).found
        if record is None:
            return _GONE, 0.0
        until = deadline_of(record.record) if record.extras is None else record.extras.fresh_until
        left = until - self._table.client.now()
        if left <= 0.0:
            return _EXPIRED, 0.0
        return _LIVE, FOREVER if left == FOREVER else left

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

    def fetch(self, key: str) -> NearEntry:
        """What the server has, kept near. Raises `StoreUnavailable`."""
        young = self.near.young
        tail = tail_of(key)
        read = self._read_sure(tail)
        self._attend()
        return self._keep(key, tail, read, young)

    def _fetch_many(self, keys: Sequence[str]) -> list[NearEntry]:
        young = self.near.young
        tails = [tail_of(key) for key in keys]
        reads = self._table.read_many(tails)
        self._attend()
        return [
            self._keep(key, tail, read, young)
            for key, tail, read in zip(keys, tails, self._all_with_tags(tails, reads), strict=True)
        ]

    def _read_sure(self, tail: bytes) -> Read:
        """The record, unless one of its tags was invalidated."""
        return self._with_tags(tail, self._table.read(tail))

    def _with_tags(self, tail: bytes, read: Read) -> Read:
        known = self._table.known
        while read.found is not None:
            extras = read.found.extras
            if extras is None or not extras.tags:
                return read
            at_hand = known.tags_at_hand(extras.tags)
            if at_hand is not None:
                return read if _is_valid(read, at_hand) else read._replace(found=None)
            if _is_valid(read, known.tags(extras.tags)):
                return read
            # That is so now. The record may have been replaced before.
            again = self._table.read(tail)
            if again.found is None or again.found.nonce == read.found.nonce:
                return again._replace(found=None)
            read = again
        return read

    def _all_with_tags(self, tails: Sequence[bytes], reads: list[Read]) -> list[Read]:
        """`_with_tags` of each, in as many round trips as if it were one."""
        known = self._table.known
        tags = {tag for read in reads for tag in _tags_of(read)}
        if not tags:
            return reads
        at_hand = known.tags_at_hand(tags)
        numbers = known.tags(tags) if at_hand is None else at_hand
        sure = [read if _is_valid(read, numbers) else read._replace(found=None) for read in reads]
        if at_hand is None:
            doubtful = [number for number, read in enumerate(reads) if sure[number] is not read]
            found = self._table.read_many([tails[number] for number in doubtful]) if doubtful else []
            for number, again in zip(doubtful, found, strict=True):
                is_same = _nonce_of(again) in (None, _nonce_of(reads[number]))
                sure[number] = (
                    again._replace(found=None) if is_same else self._with_tags(tails[number], again)
                )
        return sure

    def _keep(self, key: str, tail: bytes, read: Read, young: dict[str, NearEntry]) -> NearEntry:
        near = self.near
        slot, label, stored, is_foreign = read
        if is_foreign:
            self.forms.unreadable("was written by something else")
        if stored is None or (self.debts.exist and self.debts.cover(key)):
            return self._keep_absence(key, label, slot, young)
        record = stored.record
        decoded = form.decoded(self._codec, tail, key, stored)
        if decoded is None:
            self.forms.unreadable(self._codec.reason(record))
            return self._keep_absence(key, label, slot, young)
        value, deadline = decoded
        if value.__class__ is Frozen:
            value = self.forms.near_form(key, value)
        extras = stored.extras
        if extras is None:
            if deadline is not FOREVER:
                deadline -= self._shift()
            entry = near.entry(value, label, slot, deadline)
            near.keep(young, key, entry, len(record))
        else:
            entry = self._rich_entry(key, value, label, slot, extras, stored.nonce)
            near.keep(young, key, entry, 0 if key in young else len(record))
        if self.debts.exist:
            self.debts.drop_if_owed(key)
        return entry

    def _keep_absence(self, key: str, label: int, slot: int, young: dict[str, NearEntry]) -> NearEntry:
        entry = self.near.entry(ABSENT, label, slot, FOREVER)
        self.near.keep(young, key, entry, 0)
        return entry

    def _rich_entry(
        self, key: str, value: Any, label: int, slot: int, extras: Extras, nonce: bytes
    ) -> _CappedRichEntry:
        shift = self._shift()
        local = extras._replace(
            label=int.from_bytes(nonce, "big"),
            fresh_until=extras.fresh_until - shift,
            off_until=extras.off_until - shift,
            born=extras.born - shift,
            tags=tuple(slot_of(self._table.names.tag(tag)) for tag in extras.tags),
        )
        entry = filled(_CappedRichEntry(value, label, slot, FOREVER), local)
        entry.again_at = self._now() + MOST_SECONDS
        entry.deadline = min(entry.deadline, entry.again_at)
        known = self.near.valid(key) if entry.ttl else None
        if isinstance(known, RichNearEntry) and known.source == entry.source:
            # It was read here, and that isn't written down.
            entry.fresh_until = max(entry.fresh_until, min(known.fresh_until, entry.last))
        return entry

    def _shift(self) -> float:
        """What the server's clock is ahead of that of this process."""
        return self._table.client.now() - self._now()


def _tags_of(read: Read) -> tuple[int, ...]:
    extras = None if read.found is None else read.found.extras
    return () if extras is None else extras.tags


def _is_valid(read: Read, numbers: Mapping[int, int | None]) -> bool:
    """Whether none of its tags was invalidated since; of an entry that is there."""
    extras = None if read.found is None else read.found.extras
    return extras is None or all(
        (number := numbers[tag]) is not None and number <= extras.label for tag in extras.tags
    )


def _nonce_of(read: Read) -> bytes | None:
    return None if read.found is None else read.found.nonce
