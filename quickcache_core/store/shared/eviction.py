"""Who leaves a shared store: CLOCK over the order of the keys."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any, NamedTuple

from quickcache_core.events import RemovalCause
from quickcache_core.store.shared.record import reason_to_leave
from quickcache_core.store.shared.values import original_key
from quickcache_core.store.shared.words import Words, slot_of

MOST_DELETIONS = 64
"""Entries that leave in one transaction."""
_MOST_LOOKS = 512
"""Entries in use that are passed over in one transaction before one has to go all the same."""

Removal = tuple[str, RemovalCause]


NO_LIMIT = sys.maxsize


class Victims(NamedTuple):
    """How many have to go."""

    most: int
    """Entries."""
    enough: int
    """Bytes of keys and records after which it may end."""
    now: float
    spared: Collection[int] = ()
    """Slots whose keys are passed over, unless all are such."""


def evict(txn: Any, words: Words, victims: Victims, slots: list[int], removals: list[Removal]) -> int:
    """Delete entries; the bytes they took.

    The hand goes through the keys in their order. An entry that was read since it last came by is spared and
    loses its mark; another one, and any that nobody can read any more, is deleted. Readers set the mark with
    a plain store (Corbató, "A Paging Experiment with the Multics System", 1968). Slots of what was deleted
    are added to `slots`, for the caller to stamp.
    """
    most, enough, now, spared = victims
    cursor = txn.cursor()
    references = words.references
    there = cursor.set_range(words.hand) or cursor.first()
    looks = deleted = freed = 0
    while there and deleted < most and freed < enough:
        raw = bytes(cursor.key())
        record = cursor.value()
        slot = slot_of(raw)
        cause = reason_to_leave(record, now, words.stamps)
        if (references[slot] or slot in spared) and cause is None and looks < _MOST_LOOKS:
            references[slot] = 0
            looks += 1
            there = cursor.next() or cursor.first()
            continue
        removals.append((original_key(raw, record), cause or RemovalCause.EVICTED))
        slots.append(slot)
        deleted += 1
        freed += len(raw) + len(record)
        there = cursor.delete() and bool(cursor.key())
        there = there or cursor.first()
    if there:
        words.hand = bytes(cursor.key())
    return freed
