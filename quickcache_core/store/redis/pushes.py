"""What a server sends on a tracking connection, read as it arrives: replies, and keys that changed."""

from __future__ import annotations

from typing import Final
from zlib import crc32

from quickcache_core.store.near import WHOLE
from quickcache_core.store.redis.names import FIRST_SLOT, SLOTS

WORDS: Final = FIRST_SLOT + SLOTS

_INVALIDATE: Final = b">2\r\n$10\r\ninvalidate\r\n"
_LONGEST_LINE: Final = 65_536
"""Bytes, also of a whole message that isn't about keys: nobody has asked for any."""
_LONGEST_KEY: Final = 1 << 24
"""Bytes. Each piece of a key that arrives is put to those before it, so this bounds the time as well as the
memory. A longer one ends the connection, and another is made.
"""
_END: Final = b"\r\n"
_NESTED: Final = {ord("*"): 1, ord("~"): 1, ord(">"): 1, ord("%"): 2, ord("|"): 2}
"""Elements per unit of their count."""
_COUNTED: Final = b"$=!"
_LINES: Final = b"+-:_#,("


class BadAnswer(Exception):
    """The server doesn't speak RESP3, or we lost the thread."""


class PushReader:
    """Takes the bytes of a RESP3 connection in whatever pieces they come, and tells what they mean.

    Not redis-py's parsers: a message with the 100,000 keys of a script is for them one reply, which is there
    when all of it is; here each key counts as soon as it has arrived. And they hand pushes to callbacks that
    differ from version to version.

    Keys may hold any bytes. Pushes of other kinds are skipped.
    """

    def __init__(self, generation_key: bytes) -> None:
        self._generation_key = generation_key
        """The key whose change concerns the whole cache."""
        self._rest = b""
        self._keys = 0
        """Keys to come of the message that we are in."""
        self.replies: list[bytes] = []
        """Simple replies and errors, with their first byte; whoever sent the commands takes them out."""

    def feed(self, data: bytes) -> list[int]:
        """The slots of the keys that changed, as far as they have arrived. `WHOLE` is among them if the
        server was flushed, or a new generation of the cache began. Raises `BadAnswer`.
        """
        if self._rest:
            data = self._rest + data
        slots: list[int] = []
        at, size = 0, len(data)
        try:
            while at < size:
                at = self._read_keys(data, at, slots) if self._keys else self._read_one(data, at, slots)
                if at < 0:
                    at = ~at
                    break
        except (ValueError, IndexError):
            raise BadAnswer(data[at : at + 40]) from None
        self._rest = data[at:]
        if len(self._rest) > (_LONGEST_KEY if self._keys else _LONGEST_LINE):
            raise BadAnswer(self._rest[:40])
        return slots

    # Both give where they ended: `~at` if the rest has to come first.

    def _read_keys(self, data: bytes, at: int, slots: list[int]) -> int:
        add, find, whole, size = slots.append, data.find, self._generation_key, len(data)
        left = self._keys
        while left:
            end = find(_END, at)
            if end < 0:
                break
            if data[at] != 36:
                raise ValueError
            start = end + 2
            stop = start + int(data[at + 1 : end])
            if stop < start:
                raise ValueError  # who goes back by it never comes to the end
            if stop + 2 > size:
                break
            key = data[start:stop]
            add(FIRST_SLOT + crc32(key) % SLOTS if key != whole else WHOLE)
            at = stop + 2
            left -= 1
        self._keys = left
        if left and size - at > _LONGEST_LINE and find(_END, at, at + 32) < 0:
            raise ValueError
        return ~at if left else at

    def _read_one(self, data: bytes, at: int, slots: list[int]) -> int:
        if data.startswith(_INVALIDATE, at):
            start = at + len(_INVALIDATE)
            end = data.find(_END, start)
            if end < 0:
                return ~at
            if data[start] == 42 and data[start + 1] != 45:
                self._keys = int(data[start + 1 : end])
            else:
                # `_`, by some servers `*-1`: there was a FLUSHALL or FLUSHDB.
                slots.append(WHOLE)
            return end + 2
        end = _end_of(data, at)
        if end < 0:
            return ~at
        if data[at] in b"+-":
            self.replies.append(data[at : end - 2])
        elif data[at] != 62:
            raise ValueError
        return end


def _end_of(data: bytes, at: int) -> int:
    """Where the element ends that starts there; -1 if it isn't all there. Raises `ValueError`."""
    left = 1
    while left:
        end = data.find(_END, at)
        if end < 0:
            if len(data) - at > _LONGEST_LINE:
                raise ValueError
            return -1
        kind = data[at]
        if kind in _COUNTED:
            at = end + 2 + max(int(data[at + 1 : end]) + 2, 0)
            if at > len(data):
                return -1
        else:
            if kind in _NESTED:
                left += max(int(data[at + 1 : end]), 0) * _NESTED[kind]
            elif kind not in _LINES:
                raise ValueError
            at = end + 2
        left -= 1
    return at
