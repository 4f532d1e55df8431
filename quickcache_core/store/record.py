"""The layout of a record: its head, and what an entry brings along whose life is more than a TTL."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from quickcache_core.entry import FOREVER
from quickcache_core.store.base import Presence
from quickcache_core.store.life import Life

# A record: when it leaves (seconds), kind of payload, flags, whose format; then the extras if there
# are any, then the full key with its length if the store knows it by a digest, then the payload.
HEADER: Final = struct.Struct("<dBBH")
KEY_LENGTH: Final = struct.Struct("<I")
_DEADLINE = struct.Struct("<d")
FLAGS: Final = 9
"""Where the flags are."""
LONG_KEY: Final = 1
RICH: Final = 2
"""The flag of a record with extras."""

# Extras: label; fresh until; put off until; born, ttl, stale_ttl, max_age, refresh_after; whether it slides,
# number of tags, bytes of the ETag; then the slots of the tags, then the ETag.
_EXTRAS = struct.Struct("<QdddddddBII")
_LABEL = struct.Struct("<Q")
_SIZES = struct.Struct("<II")
_SIZES_AT = HEADER.size + _EXTRAS.size - _SIZES.size
_FRESH_AND_OFF = struct.Struct("<dd")
_FRESH_AT = HEADER.size + _LABEL.size
_TTL_AT = HEADER.size + 8 * 4
_TAGS_AT = HEADER.size + _EXTRAS.size

# Looking a member up on an Enum class costs three dictionary look-ups in 3.11.
_LIVE, _EXPIRED = Presence.LIVE, Presence.EXPIRED

_AT_ONCE = 1e-9
"""Seconds."""

Raw = bytes | memoryview


class Extras(NamedTuple):
    """As stored. Times are seconds, by the clock that all who share the store go by."""

    label: int
    """The state of the store that the value belongs to. Later marks of its tags make it invalid."""
    fresh_until: float
    """As far as it was written down: readers of a sliding entry may know of a later time."""
    off_until: float
    """Nobody is told before that it is due for a refresh."""
    born: float
    ttl: float
    stale_ttl: float
    max_age: float
    refresh_after: float
    sliding: bool
    tags: tuple[int, ...]
    """Their slots, see `life.tag_slot`."""
    etag: str | None

    @property
    def last(self) -> float:
        """It can't be fresh longer than that, however often it is read."""
        return self.born + self.max_age if self.sliding else FOREVER

    @property
    def refresh_at(self) -> float:
        return self.born + self.refresh_after

    def life(self, now: float) -> Life:
        """Such that `packed_life`, with the time that is left, gives an entry that ends as this one."""
        shift = self.born - _born(self.ttl, now, self.fresh_until)
        return Life(
            _normal(self.ttl),
            self.stale_ttl,
            self.sliding,
            _normal(self.max_age + shift),
            _normal(max(self.refresh_after + shift, _AT_ONCE)),
            self.tags,
            self.etag,
        )


def is_rich(record: Raw) -> int:
    return len(record) > FLAGS and record[FLAGS] & RICH


def deadline_of(record: Raw) -> float:
    """When it leaves; `FOREVER` itself for a record without an end."""
    deadline: float = _DEADLINE.unpack_from(record)[0] if len(record) >= HEADER.size else 0.0
    return FOREVER if deadline == FOREVER else deadline


def packed_life(life: Life, now: float, fresh_until: float) -> tuple[float, bytes]:
    """The deadline and the extras of an entry that is fresh until then."""
    born = _born(life.ttl, now, fresh_until)
    if life.sliding:
        fresh_until = min(fresh_until, born + life.max_age)
    etag = b"" if life.etag is None else life.etag.encode(errors="surrogatepass")
    times = (fresh_until, 0.0, born, life.ttl, life.stale_ttl, life.max_age, life.refresh_after)
    # One more than the length, so that an empty ETag isn't none.
    sizes = len(life.tags), 0 if life.etag is None else len(etag) + 1
    packed = _EXTRAS.pack(0, *times, life.sliding, *sizes)
    if life.tags:
        packed += struct.pack(f"<{len(life.tags)}I", *life.tags)
    return fresh_until + life.stale_ttl, packed + etag


def _born(ttl: float, now: float, fresh_until: float) -> float:
    # One that comes back from a snapshot has been there for a while.
    return now if ttl == FOREVER else min(now, fresh_until - ttl)


def extras_of(record: Raw) -> Extras:
    """Of a record that has some."""
    label, fresh, off, born, ttl, stale, age, refresh, sliding, tags, etag = _EXTRAS.unpack_from(
        record, HEADER.size
    )
    slots: tuple[int, ...] = ()
    if tags:
        slots = struct.unpack_from(f"<{tags}I", record, _TAGS_AT)
    name = None
    if etag:
        start = _TAGS_AT + 4 * tags
        try:
            name = bytes(record[start : start + etag - 1]).decode(errors="surrogatepass")
        except UnicodeDecodeError:
            pass  # none of us wrote it
    return Extras(label, fresh, off, born, ttl, stale, age, refresh, bool(sliding), slots, name)


def raw_extras(record: Raw) -> bytes:
    """The extras as they are; nothing if there are none."""
    return bytes(record[HEADER.size : after_extras(record)])


def after_extras(record: Raw) -> int:
    """Where the extras end, or would begin. Raises `struct.error` for a record that ends before."""
    if not record[FLAGS] & RICH:
        return HEADER.size
    tags, etag = _SIZES.unpack_from(record, _SIZES_AT)
    end = int(_TAGS_AT + 4 * tags + max(etag - 1, 0))
    if end > len(record):
        raise struct.error("the extras are cut off")
    return end


def labelled(record: bytes, label: int) -> bytes:
    """The record as of that state of the store."""
    if not record[FLAGS] & RICH:
        return record
    changed = bytearray(record)
    _LABEL.pack_into(changed, HEADER.size, label)
    return bytes(changed)


def touched(record: Raw, ttl: float, now: float) -> bytes:
    """The record with a new TTL that begins now, and all the rest as it was."""
    changed = bytearray(record)
    until = now + ttl
    if is_rich(record):
        extras = extras_of(record)
        until = min(until, extras.last)
        _DEADLINE.pack_into(changed, _TTL_AT, ttl)
        _DEADLINE.pack_into(changed, _FRESH_AT, until)
        until += extras.stale_ttl
    _DEADLINE.pack_into(changed, 0, until)
    return bytes(changed)


def slid(record: Raw, extras: Extras, now: float) -> bytes | None:
    """The record as of a read; None if that makes no difference."""
    until = min(now + extras.ttl, extras.last)
    if until <= extras.fresh_until:
        return None
    changed = bytearray(record)
    _DEADLINE.pack_into(changed, _FRESH_AT, until)
    _DEADLINE.pack_into(changed, 0, until + extras.stale_ttl)
    return bytes(changed)


def put_off(record: Raw, until: float) -> bytes:
    changed = bytearray(record)
    _DEADLINE.pack_into(changed, _FRESH_AT + _DEADLINE.size, until)
    return bytes(changed)


def presence_of(record: Raw, now: float, extras: Extras | None) -> Presence:
    """What a record with these extras, if it has some, counts as for those who don't ask for stale ones. Of
    its tags nothing is known here.
    """
    until = _DEADLINE.unpack_from(record)[0] if extras is None else extras.fresh_until
    return _LIVE if until > now else _EXPIRED


def _normal(seconds: float) -> float:
    # `FOREVER` is told by identity.
    return FOREVER if seconds == FOREVER else seconds
