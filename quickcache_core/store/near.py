"""The near store: what this process last read or wrote of a store that others can change."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from quickcache_core.entry import FOREVER, MISSING
from quickcache_core.errors import InvalidKey, KeyExpired, KeyNotFound
from quickcache_core.serializer.isolation import Frozen
from quickcache_core.store.base import ABSENT
from quickcache_core.store.keyspace import SEPARATOR
from quickcache_core.store.record import Extras

MOST_BYTES = 32_000_000
"""Serialized size of what a near store keeps."""
LARGEST_BYTES = MOST_BYTES // 16
"""A value larger than this is read from the store each time."""
WHOLE = 0
"""The slot of the whole cache."""
NO_STAMPS = (0,) * (WHOLE + 1)
NO_REFERENCES = bytearray()
"""As long as there is no store."""


class NearEntry:
    """A value, or the knowledge that there is none, as of one state of the store."""

    __slots__ = ("deadline", "label", "slot", "value")

    value: Any
    """In its stored form; `ABSENT` if there is no entry."""
    label: int
    """The transaction whose outcome this is. It holds while no slot of the key has a later stamp."""
    slot: int
    deadline: float

    def __init__(self, value: Any, label: int, slot: int, deadline: float) -> None:
        self.value = value
        self.label = label
        self.slot = slot
        self.deadline = deadline


class RichNearEntry(NearEntry):
    """One with more than a TTL.

    `deadline` says until when a get may answer without a closer look: never, if it slides or has tags.
    """

    __slots__ = (
        "etag",
        "fresh_until",
        "last",
        "off_until",
        "refresh_at",
        "source",
        "stale_ttl",
        "tags",
        "ttl",
        "written",
    )

    fresh_until: float
    """Later with each read of one that slides."""
    last: float
    """It is fresh no longer than that, however often it is read."""
    stale_ttl: float
    refresh_at: float
    """When it is due for a refresh, fresh as it is."""
    off_until: float
    """It isn't due before that."""
    ttl: float
    """Seconds by which a read prolongs it; 0 if it doesn't slide."""
    written: float
    """What the store has for `fresh_until`, as far as this process knows."""
    source: int
    """The transaction that wrote it. It holds while no tag has a later stamp."""
    tags: tuple[int, ...]
    """Indices into the stamps."""
    etag: str | None

    @property
    def end(self) -> float:
        """When it leaves."""
        return self.fresh_until + self.stale_ttl

    @property
    def due_at(self) -> float:
        """When readers are told to load it again."""
        return max(min(self.fresh_until, self.refresh_at), self.off_until)


R = TypeVar("R", bound=RichNearEntry)


class NearStore:
    """Answers a get without a system call and without a lock while the key is unchanged in the store.

    `stamps` and `references` belong to the store and are shared by all processes: `stamps[slot]` is the last
    transaction that changed a key of the slot, and a nonzero byte in `references` keeps the slot's keys from
    being evicted. `behind(key, default)` answers for what isn't here, and `closer(key, entry, default)` for
    a `RichNearEntry` past its deadline.

    At most `limit` entries, in two generations: a full one pushes out the other, and a read brings an entry
    from the old one into the young one. That is close to LRU and needs neither order nor lock: threads may
    lose one another's entries, never each other's values.

    `hits` and `misses` are exact on CPython builds with a GIL, as in `table.Table`.
    """

    __slots__ = (
        "__weakref__",
        "_behind",
        "_closer",
        "_half",
        "_now",
        "_weight",
        "hits",
        "misses",
        "old",
        "references",
        "stamps",
        "young",
    )

    def __init__(
        self,
        now: Callable[[], float],
        limit: int,
        behind: Callable[[Any, Any], Any],
        closer: Callable[[str, Any, Any], Any],
    ) -> None:
        self._now = now
        self._behind = behind
        self._closer = closer
        self._half = limit // 2
        self._weight = 0
        self.young: dict[str, NearEntry] = {}
        self.old: dict[str, NearEntry] = {}
        self.hits = 0
        self.misses = 0
        self.stamps: Any = NO_STAMPS
        self.references: Any = NO_REFERENCES

    def get(self, key: str, default: Any = MISSING) -> Any:
        """The live value under `key`; errors as with `table.Table.get`."""
        try:
            entry = self.young.get(key)
        except TypeError:
            raise InvalidKey(key) from None
        if entry is not None:
            stamps = self.stamps
            label = entry.label
            slot = entry.slot
            if stamps[slot] <= label and stamps[WHOLE] <= label:
                value = entry.value
                deadline = entry.deadline
                if deadline is not FOREVER:
                    now = self._now
                    if now() >= deadline:
                        return self.past(key, entry, default)
                if value is ABSENT:
                    self.misses += 1
                    if default is MISSING:
                        raise KeyNotFound(key)
                    return default
                self.hits += 1
                references = self.references
                if not references[slot]:
                    references[slot] = 1
                return value.load(value.data) if value.__class__ is Frozen else value
        behind = self._behind
        return behind(key, default)

    def get_many(self, keys: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
        """The hits, and the keys that can't be answered for from here."""
        found: dict[str, Any] = {}
        unknown: list[str] = []
        young, stamps, references, now = self.young, self.stamps, self.references, self._now()
        for key in keys:
            try:
                entry = young.get(key)
            except TypeError:
                raise InvalidKey(key) from None
            if entry is None or stamps[entry.slot] > entry.label or stamps[WHOLE] > entry.label:
                unknown.append(key)
                continue
            value = entry.value
            if value is ABSENT or entry.deadline <= now:
                if entry.__class__ is NearEntry:
                    self.misses += 1
                else:
                    unknown.append(key)
                continue
            self.hits += 1
            if not references[entry.slot]:
                references[entry.slot] = 1
            found[key] = value.load(value.data) if value.__class__ is Frozen else value
        return found, unknown

    def answer(self, key: str, entry: NearEntry, default: Any) -> Any:
        """What a get makes of an entry that was found to be valid."""
        if entry.deadline is not FOREVER and self._now() >= entry.deadline:
            return self.past(key, entry, default)
        value = entry.value
        if value is ABSENT:
            return self.missing(key, default)
        # As `hit`, for the common case.
        self.hits += 1
        self.references[entry.slot] = 1
        return value.load(value.data) if value.__class__ is Frozen else value

    def hit(self, entry: NearEntry) -> Any:
        self.hits += 1
        self.references[entry.slot] = 1
        value = entry.value
        return value.load(value.data) if value.__class__ is Frozen else value

    def past(self, key: str, entry: NearEntry, default: Any) -> Any:
        """What a get makes of a valid entry past its deadline."""
        if entry.__class__ is NearEntry:
            return self.expired(key, default)
        return self._closer(key, entry, default)

    def expired(self, key: str, default: Any) -> Any:
        self.misses += 1
        if default is MISSING:
            raise KeyExpired(key)
        return default

    def missing(self, key: str, default: Any) -> Any:
        self.misses += 1
        if default is MISSING:
            raise KeyNotFound(key)
        return default

    def valid(self, key: str) -> NearEntry | None:
        """The entry, if it still holds; one past its deadline may."""
        entry = self.young.get(key) or self.old.get(key)
        if entry is None or self.stamps[entry.slot] > entry.label or self.stamps[WHOLE] > entry.label:
            return None
        return entry

    def keep(self, young: dict[str, NearEntry], key: str, entry: NearEntry, size: int) -> None:
        """Remember an entry of `size` bytes in that young generation: the one that was there before the store
        was asked, since what was read from files that somebody replaced meanwhile must not come in here.
        """
        if size > LARGEST_BYTES or not self._half:
            self.drop(key)
            return
        young[key] = entry
        if young is self.young:
            self._weight += size
            if len(young) > self._half or self._weight > MOST_BYTES // 2:
                self.old = young
                self.young = {}
                self._weight = 0

    def drop(self, key: str) -> None:
        self.young.pop(key, None)
        self.old.pop(key, None)

    def drop_namespace(self, namespace: str) -> None:
        """Its keys of all generations, and perhaps some others. Takes time by the number of all keys here."""
        part = SEPARATOR + namespace.rpartition(SEPARATOR)[2] + SEPARATOR
        for keys in (self.young, self.old):
            for key in [key for key in list(keys) if part in key]:
                keys.pop(key, None)

    def forget(self) -> None:
        self.young = {}
        self.old = {}
        self._weight = 0

    def replace_store(self, stamps: Any, references: Any) -> None:
        """Forget all, and go by other files from now on."""
        self.forget()
        self.stamps = stamps
        self.references = references


def fresh_until(entry: NearEntry) -> float:
    return entry.fresh_until if isinstance(entry, RichNearEntry) else entry.deadline


def rich_entry(value: Any, label: int, slot: int, extras: Extras) -> RichNearEntry:
    """What is kept near of a record with extras."""
    return filled(RichNearEntry(value, label, slot, FOREVER), extras)


def filled(entry: R, extras: Extras) -> R:
    """The entry, as the extras have it live."""
    deadline = min(extras.fresh_until, max(extras.refresh_at, extras.off_until))
    if extras.sliding or extras.tags:
        deadline = 0.0
    elif deadline == FOREVER:
        deadline = FOREVER
    entry.deadline = deadline
    entry.fresh_until = entry.written = extras.fresh_until
    entry.last = extras.last
    entry.stale_ttl = extras.stale_ttl
    entry.refresh_at = extras.refresh_at
    entry.off_until = extras.off_until
    entry.ttl = extras.ttl if extras.sliding else 0.0
    entry.source = extras.label
    entry.tags = extras.tags
    entry.etag = extras.etag
    return entry
