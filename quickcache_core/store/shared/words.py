"""The words that processes share besides the entries: stamps, marks of use, and a few figures."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from zlib import crc32

from quickcache_core.store.life import TAG_SLOTS
from quickcache_core.store.shared.directory import REFS, STAMPS
from quickcache_core.store.shared.mapped import mapped

LONGEST_KEY: Final = 511
"""Bytes that LMDB takes as a key."""

WHOLE: Final = 0
"""Slot of the whole cache: `clear` stamps it."""
NEXT_DUE: Final = 1
"""No entry has a deadline before this, in milliseconds; 0 if that isn't known."""
NEW_DUE: Final = 2
"""The same for the entries that were written since the last look at all of them began."""
NEXT_SCAN: Final = 3
"""When, in milliseconds, all entries may be looked at again for expired ones."""
ENTRIES: Final = 4
"""As many as there are or more: counted up before an entry is stored, and put right when a bound is reached,
so that a writer that is killed leaves no bound that is never reached.
"""
# 5 is the guard's, see `guard.WAITED`.
FIRST_SLOT: Final = 8
SLOTS: Final = 65_536
FIRST_TAG: Final = FIRST_SLOT + SLOTS
"""From here on: by slot of a tag, the last transaction that invalidated one of its tags."""
FIRST_NAME: Final = FIRST_TAG + TAG_SLOTS
"""From here on: by slot of a namespace, how many generations were begun. These are no stamps."""
NAMES: Final = 4096
NO_DUE: Final = 2**64 - 1

_WORD = 8
_WORDS = FIRST_NAME + NAMES
_HAND = FIRST_SLOT + SLOTS


class Words:
    """Files that are mapped by every process.

    Words are aligned, so that loads and stores don't tear. They change under the writer guard only, and
    always by a plain store: `+=` on a word that others write loses counts.
    """

    def __init__(self, directory: Path) -> None:
        self.stamps = mapped(directory / STAMPS, _WORDS * _WORD).cast("Q")
        """By slot: the last transaction that changed one of its keys, or invalidated one of its tags. The
        first eight are other words, and so are those from `FIRST_NAME` on.
        """
        self.references = mapped(directory / REFS, _HAND + 2 + LONGEST_KEY)
        """By slot: whether a key of it was read since eviction last came by. Then the hand of the clock."""

    @property
    def hand(self) -> bytes:
        """The key where eviction goes on."""
        length = int.from_bytes(self.references[_HAND : _HAND + 2], "little")
        return bytes(self.references[_HAND + 2 : _HAND + 2 + min(length, LONGEST_KEY)])

    @hand.setter
    def hand(self, key: bytes) -> None:
        # A writer that is killed in between leaves a hand that points elsewhere, which does no harm.
        self.references[_HAND : _HAND + 2 + len(key)] = len(key).to_bytes(2, "little") + key


def slot_of(raw: bytes | memoryview) -> int:
    return FIRST_SLOT + crc32(raw) % SLOTS


def name_slot(namespace: str) -> int:
    return FIRST_NAME + crc32(namespace.encode(errors="surrogatepass")) % NAMES


def sizes_are_right(directory: Path) -> bool:
    """Whether the files are whole; a shortened one would kill whoever touches what is missing."""
    wanted = {STAMPS: _WORDS * _WORD, REFS: _HAND + 2 + LONGEST_KEY}
    for name, size in wanted.items():
        try:
            if (directory / name).stat().st_size != size:
                return False
        except FileNotFoundError:
            continue
    return True
