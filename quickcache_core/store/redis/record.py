"""What stands before a record on the server: the version of the format, and a mark of the write."""

from __future__ import annotations

import itertools
import os
import secrets
import struct
from typing import Any, Final, NamedTuple

from quickcache_core.store.codec import Codec
from quickcache_core.store.record import HEADER, RICH, Extras, extras_of

VERSION: Final = b"\x01"
"""Of the format. A record that begins with anything else is no record to this version."""
NONCE_AT: Final = 1
NONCE_BYTES: Final = 8
START: Final = NONCE_AT + NONCE_BYTES
"""Where the record itself begins."""
HEAD: Final = START + HEADER.size
"""Bytes that every record has at least."""
FLAGS_AT: Final = START + 9
KIND_AT: Final = START + 8
EXTRAS_BYTES: Final = 73
"""Of the extras that every entry with more than a TTL has; tags and ETag come after them."""
RICH_HEAD: Final = HEAD + EXTRAS_BYTES
SIGNATURE_BYTES: Final = 16
"""Each entry pays for them in the server's memory. 128 bits can't be guessed where each guess has to be
written there, and read by one of us.
"""
PLACEHOLDER: Final = 255
"""The kind of a record that is none: it only marks that a load is under way."""

_LAST_KIND = 8
"""Of the payloads that `store.codec` knows."""
_WHOLE = 1 << 8 * NONCE_BYTES


class Nonces:
    """Marks, each for one write, so that it can be told from all others. Those of a process are consecutive,
    from a random number on.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._first = int.from_bytes(secrets.token_bytes(NONCE_BYTES), "big")
        self._next = itertools.count().__next__
        # Last: from now on, other threads go by the above.
        self._pid = os.getpid()

    def new(self) -> bytes:
        if self._pid != os.getpid():
            self._begin()
        return ((self._first + self._next()) % _WHOLE).to_bytes(NONCE_BYTES, "big")

    def given(self) -> tuple[int, int]:
        """Where those that were given so far begin, and how many there are."""
        return self._first, self._next()

    @staticmethod
    def is_among(nonce: bytes, given: tuple[int, int]) -> bool:
        first, count = given
        return (int.from_bytes(nonce, "big") - first) % _WHOLE < count


class Stored(NamedTuple):
    """What was found under a name."""

    nonce: bytes
    record: bytes
    """As the codec reads it."""

    @property
    def extras(self) -> Extras | None:
        return extras_of(self.record) if self.record[9] & RICH else None


def unpacked(reply: bytes | None) -> Stored | None:
    """Of a record, or of its head in full. None for nothing, for a load under way, and for what is
    foreign.
    """
    if reply is None:
        return None
    # Commonly a record without extras.
    is_plain = len(reply) >= HEAD and reply[0] == 1 and reply[KIND_AT] <= _LAST_KIND and not reply[FLAGS_AT]
    if not is_plain and (not reply or is_foreign(reply) or reply[KIND_AT] == PLACEHOLDER):
        return None
    return Stored(reply[NONCE_AT:START], reply[START:])


def is_foreign(reply: bytes | None) -> bool:
    """Whether something is there that can't be a record of this version."""
    if not reply:
        return reply is not None
    if len(reply) < HEAD or reply[:1] != VERSION:
        return True
    kind = reply[KIND_AT]
    return (kind > _LAST_KIND and kind != PLACEHOLDER) or len(reply) < head_bytes(reply)


def decoded(codec: Codec, tail: bytes, key: str, stored: Stored) -> tuple[Any, float] | None:
    """As `Codec.decode`, of what anybody may have written."""
    try:
        return codec.decode(tail, key, stored.record)
    except (ValueError, struct.error):
        return None


def packed(nonce: bytes, record: bytes) -> bytes:
    return VERSION + nonce + record


def placeholder(nonce: bytes) -> bytes:
    return VERSION + nonce + HEADER.pack(0.0, PLACEHOLDER, 0, 0)


def head_bytes(head: bytes) -> int:
    """How much of a record that begins so is its head, extras with all tags included."""
    if not head[FLAGS_AT] & RICH:
        return HEAD
    if len(head) < RICH_HEAD:
        return RICH_HEAD
    return RICH_HEAD + 4 * int.from_bytes(head[RICH_HEAD - 8 : RICH_HEAD - 4], "little")
