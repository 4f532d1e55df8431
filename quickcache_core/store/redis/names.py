"""Under which names things are kept on the server."""

from __future__ import annotations

import re
import secrets
from typing import Final
from zlib import crc32

FIRST_SLOT: Final = 8
SLOTS: Final = 65_536
_GENERATION_BYTES: Final = 5
_LETTERS: Final = b"abcdefghijklmnopqrstuvwxyz234567"
_GENERATION = re.compile(rb"[a-z2-7]{8}")
_SPECIAL = re.compile(rb"([*?\[\]\\])")


def slot_of(name: bytes) -> int:
    """The stamp that a change of that name sets, in this process."""
    return FIRST_SLOT + crc32(name) % SLOTS


def new_generation() -> bytes:
    """A name that no other generation has: 40 random bits."""
    number = int.from_bytes(secrets.token_bytes(_GENERATION_BYTES), "big")
    return bytes(_LETTERS[number >> shift & 31] for shift in range(35, -1, -5))


def is_generation(name: object) -> bool:
    return isinstance(name, bytes) and _GENERATION.fullmatch(name) is not None


def tail_of(key: str) -> bytes:
    """What stands behind the generation in the name of a key's entry. Any string will do, lone surrogates
    included. Raises `AttributeError` for what is no string.
    """
    try:
        return b":" + key.encode()
    except UnicodeEncodeError:
        return b":" + key.encode(errors="surrogatepass")


def key_of(tail: bytes) -> str:
    return tail[1:].decode(errors="surrogatepass")


def escaped(name: bytes) -> bytes:
    """A pattern of SCAN that matches this name only."""
    return _SPECIAL.sub(rb"\\\1", name)


class Names:
    """Of what one prefix keeps apart from everything else in the database.

    Of the names with a colon behind the prefix, the server tells those who ask about all changes. Of those
    with a slash it tells nobody.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix.encode()
        self.tracked = self.prefix + b":"
        self.generation = self.prefix + b":g"
        """The generation that entries are in: `clear` begins another one. It is random, so that losing this
        name clears the cache, and never brings a former state back.
        """
        self.sequence = self.prefix + b":s"
        """The number of the last invalidation of a tag."""
        self.former = self.prefix + b":o"
        """A set: former generations, of which something may be left."""
        self.removed = self.prefix + b"/o"
        """A set: former generations that were removed not long ago."""
        self.unlinking = self.prefix + b"/u"
        """Held by the process that removes what former generations left."""
        self.size = self.prefix + b"/f/size"
        """How many entries there are, as somebody counted a while ago."""
        self.counting = self.prefix + b"/f/counting"
        """Held by the process that counts them."""

    def figures(self, process: bytes) -> bytes:
        """What a process has counted."""
        return b"%s/f/w/%s" % (self.prefix, process)

    def entries(self, generation: bytes) -> bytes:
        """What all names of entries of that generation begin with, up to the colon before the key."""
        return self.tracked + generation

    def namespace(self, name: str) -> bytes:
        """The number of the generation of a namespace."""
        return self.tracked + b"n" + tail_of(name)

    def tag(self, slot: int) -> bytes:
        """The number of the last invalidation of a tag of that slot."""
        return b"%st:%d" % (self.tracked, slot)

    def lease(self, generation: bytes, tail: bytes) -> bytes:
        return b"%s/l/%s%s" % (self.prefix, generation, tail)
