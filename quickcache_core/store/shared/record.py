"""Records as a shared store judges them: their tags are looked up in the stamps."""

from __future__ import annotations

import struct
from typing import Any, Final

from quickcache_core.events import RemovalCause
from quickcache_core.store import record as layout
from quickcache_core.store.base import Presence
from quickcache_core.store.life import TAG_SLOTS
from quickcache_core.store.record import FLAGS, HEADER, RICH, Extras, Raw, deadline_of, presence_of
from quickcache_core.store.shared.words import FIRST_TAG

# Looking a member up on an Enum class costs three dictionary look-ups in 3.11.
_OVERDUE, _INVALIDATED = RemovalCause.EXPIRED, RemovalCause.INVALIDATED
_LIVE, _EXPIRED, _GONE = Presence.LIVE, Presence.EXPIRED, Presence.ABSENT

MALFORMED: Final = (struct.error, IndexError, ValueError)
"""What reading a record raises that none of us wrote."""


def extras_of(record: Raw) -> Extras:
    """Of a record that has some; the tags are indices into the stamps."""
    extras = layout.extras_of(record)
    if not extras.tags:
        return extras
    return extras._replace(tags=tuple(FIRST_TAG + slot % TAG_SLOTS for slot in extras.tags))


def is_invalid(extras: Extras, stamps: Any) -> bool:
    """Whether one of its tags was invalidated since it was written."""
    label = extras.label
    return any(stamps[tag] > label for tag in extras.tags)


def presence(record: Raw | None, now: float, stamps: Any) -> Presence:
    """What a record counts as for those who don't ask for stale ones."""
    if record is None:
        return _GONE
    try:
        until, _, flags, _ = HEADER.unpack_from(record)
        if not flags & RICH:  # commonly
            return _LIVE if until > now else _EXPIRED
        extras = extras_of(record)
        return _GONE if is_invalid(extras, stamps) else presence_of(record, now, extras)
    except MALFORMED:
        return _GONE


def reason_to_leave(record: Raw, now: float, stamps: Any) -> RemovalCause | None:
    """Why it is of no use to anybody any more; None if it may be."""
    try:
        if deadline_of(record) <= now:
            return _OVERDUE
        if record[FLAGS] & RICH and is_invalid(extras_of(record), stamps):
            return _INVALIDATED
    except MALFORMED:
        return _OVERDUE
    return None
