"""Records on the server, and what can be done to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil
from struct import Struct
from typing import Any, Final, NamedTuple

from quickcache_core.store.redis import record as form
from quickcache_core.store.redis.client import Client, ScriptCommand
from quickcache_core.store.redis.known import Known, Near
from quickcache_core.store.redis.names import Names, escaped, slot_of
from quickcache_core.store.redis.scripts import (
    BEGIN_LOAD,
    MARK,
    PATCH,
    POP,
    PUT_NONCE,
    PUT_WHERE,
    REMOVE,
    REMOVE_NONCE,
    SWAP,
    WITHER,
)

LARGEST: Final = 512 * 2**20 - 1024
"""Bytes of a record that servers take, unless their administrators allow less."""
HEAD_READ: Final = 512
"""Bytes of a record that are read to see its head: enough for a hundred tags."""
LOAD_SECONDS: Final = 600
"""Seconds that a load may take whose value is to be stored."""
GRACE: Final = 1.0
"""Seconds that a server keeps entries after their end, since its clock is known to within a round trip
only, and no entry is to leave early.
"""
_SLICE: Final = 500
"""Commands sent in one round trip."""
_LONGEST: Final = 1e12
"""Seconds; an entry that lives longer has no end to the server."""
_DOUBLE = Struct("<d")

Make = Callable[[bytes], Sequence[Any]]


class Read(NamedTuple):
    """What was found under a name."""

    slot: int
    label: int
    """Of the near store, from before it was looked for."""
    found: form.Stored | None
    is_foreign: bool


class Load(NamedTuple):
    """The beginning of a load, on the server."""

    generation: bytes
    name: bytes
    nonce: bytes
    label: int


class Table:
    """By the part of their names behind the generation, see `names.tail_of`.

    Every method may raise `StoreUnavailable`. What is written is reported to the near store when the reply
    has come, or didn't.
    """

    def __init__(
        self, client: Client, names: Names, near: Near, known: Known, *, grace: float = GRACE
    ) -> None:
        self.client = client
        self.names = names
        self.known = known
        self.nonces = form.Nonces()
        self._near = near
        self._grace = grace

    # In the present generation

    def on(self, tail: bytes, make: Make, *, writes: bool = False) -> tuple[Any, bytes, int]:
        """The reply to the command that `make` makes of a name; the name, and the label from before."""
        near, client = self._near, self.client
        while True:
            label = near.label()
            generation, is_sure = self.known.generation(label)
            name = self.names.tracked + generation + tail
            command = make(name)
            try:
                if is_sure:
                    if command.__class__ is ScriptCommand:
                        return client.call_many((command,))[0], name, label
                    return client.call(*command), name, label
                reply, found = client.call_many((command, (b"GET", self.names.generation)))
            finally:
                if writes:
                    near.wrote(slot_of(name))
            if self.known.is_present(generation, found):
                return reply, name, label
            if writes:
                client.call(b"UNLINK", name)  # nobody ever looks there again

    def on_many(self, tails: Sequence[bytes], make: Make, *, writes: bool = False) -> tuple[list[Any], int]:
        """As `on`, with one command for each; the replies in order, and the label from before."""
        near, client = self._near, self.client
        while True:
            label = near.label()
            generation, is_sure = self.known.generation(label)
            place = self.names.entries(generation)
            names = [place + tail for tail in tails]
            replies: list[Any] = []
            try:
                for start in range(0, len(names), _SLICE):
                    replies += client.call_many([make(name) for name in names[start : start + _SLICE]])
            finally:
                if writes:
                    for name in names:
                        near.wrote(slot_of(name))
            if is_sure or self.known.is_present(generation, client.call(b"GET", self.names.generation)):
                return replies, label
            if writes:
                client.call_many([(b"UNLINK", name) for name in names])

    # Reading

    def read(self, tail: bytes) -> Read:
        reply, name, label = self.on(tail, _get)
        found = form.unpacked(reply)
        return Read(slot_of(name), label, found, found is None and form.is_foreign(reply))

    def read_many(self, tails: Sequence[bytes]) -> list[Read]:
        if self.client.is_cluster:
            replies, label = self.on_many(tails, _get)
            place = self.names.entries(self.known.generation(0)[0])
        else:
            replies, label, place = self._read_together(tails)
        reads = []
        for tail, reply in zip(tails, replies, strict=True):
            found = form.unpacked(reply)
            is_foreign = found is None and form.is_foreign(reply)
            reads.append(Read(slot_of(place + tail), label, found, is_foreign))
        return reads

    def _read_together(self, tails: Sequence[bytes]) -> tuple[list[Any], int, bytes]:
        near, client = self._near, self.client
        while True:
            label = near.label()
            generation, is_sure = self.known.generation(label)
            place = self.names.entries(generation)
            found: bytes | None = generation
            replies: list[Any] = []
            for start in range(0, len(tails), _SLICE):
                command = (b"MGET", *(place + tail for tail in tails[start : start + _SLICE]))
                if is_sure:
                    replies += client.call(*command)
                else:
                    some, found = client.call_many((command, (b"GET", self.names.generation)))
                    replies += some
            if is_sure or self.known.is_present(generation, found):
                return replies, label, place

    def raw(self, tail: bytes) -> bytes | None:
        """All that is there, whatever it is."""
        reply: bytes | None = self.on(tail, _get)[0]
        return reply

    def head(self, tail: bytes) -> bytes:
        """The head of the record, extras and tags included; empty if there is none."""
        reply: bytes = self.on(tail, lambda name: (b"GETRANGE", name, 0, HEAD_READ - 1))[0]
        if is_cut(reply):
            reply = self.on(tail, _get)[0] or b""
        return reply[: form.head_bytes(reply)] if form.unpacked(reply) is not None else b""

    # Writing

    def put(self, tail: bytes, record: bytes, px: int | None) -> None:
        """Insert or overwrite."""
        data = form.packed(self.nonces.new(), record)
        self.on(tail, lambda name: _set(name, data, px), writes=True)

    def put_many(self, records: dict[bytes, tuple[bytes, int | None]]) -> None:
        data = {tail: (form.packed(self.nonces.new(), record), px) for tail, (record, px) in records.items()}

        def make(name: bytes) -> Sequence[Any]:
            return _set(name, *data[name[self._tail_at :]])

        self.on_many(list(data), make, writes=True)

    @property
    def _tail_at(self) -> int:
        return len(self.names.tracked) + 8

    def put_where(
        self, tail: bytes, record: bytes, px: int | None, now: float, *, live: bool
    ) -> tuple[int, bytes]:
        """Store where something live is, or where nothing is; see `PUT_WHERE`."""
        data = form.packed(self.nonces.new(), record)
        arguments = (_DOUBLE.pack(now), int(live), data, _text(px))
        state, head = self.on(tail, lambda name: PUT_WHERE.on(name, *arguments), writes=True)[0]
        return state, head

    def swap(self, tail: bytes, expected: bytes, record: bytes, px: int | None) -> bool:
        """Store, if what is there begins so; empty: if nothing is there."""
        data = form.packed(self.nonces.new(), record)
        return bool(self.on(tail, lambda name: SWAP.on(name, expected, data, _text(px)), writes=True)[0])

    def patch(self, tail: bytes, expected: bytes, head: bytes, px: int | None) -> bool:
        """Change the head of a record, if it is what is expected. To loads that is no change."""
        return bool(self.on(tail, lambda name: PATCH.on(name, expected, head, _text(px)), writes=True)[0])

    def remove(self, tail: bytes) -> bytes:
        """Remove whatever is there: its head."""
        reply: bytes = self.on(tail, REMOVE.on, writes=True)[0]
        return reply

    def remove_many(self, tails: Sequence[bytes]) -> list[bytes]:
        """As `remove`, of each."""
        return self.on_many(tails, REMOVE.on, writes=True)[0]

    def pop(self, tail: bytes) -> Any:
        """Remove whatever is there: all of it."""
        return self.on(tail, POP.on, writes=True)[0]

    def remove_nonce(self, tail: bytes, nonce: bytes) -> bool:
        """Remove what that write stored, if it is still there."""
        return bool(self.on(tail, lambda name: REMOVE_NONCE.on(name, nonce), writes=True)[0])

    def forget(self, tails: Sequence[bytes]) -> None:
        """Remove whatever is there; nobody asks what it was."""
        self.on_many(tails, lambda name: (b"UNLINK", name), writes=True)

    def forget_own(self, tails: Sequence[bytes], given: tuple[int, int]) -> None:
        """Remove what this process stored with one of these nonces."""
        replies = self.on_many(tails, lambda name: (b"GETRANGE", name, form.NONCE_AT, form.START - 1))[0]
        for tail, nonce in zip(tails, replies, strict=True):
            if len(nonce) == form.NONCE_BYTES and self.nonces.is_among(nonce, given):
                self.remove_nonce(tail, nonce)

    def wither(self, tails: Sequence[bytes], now: float) -> list[bytes]:
        """Remove the values of those whose end has come; which these were. Others were written meanwhile."""
        arguments = _DOUBLE.pack(now), form.placeholder(b"")[1:], LOAD_SECONDS * 1000
        replies, _ = self.on_many(tails, lambda name: WITHER.on(name, *arguments), writes=True)
        return [tail for tail, is_done in zip(tails, replies, strict=True) if is_done]

    # Loads

    def begin_load(self, tail: bytes) -> Load:
        placeholder = form.placeholder(self.nonces.new())

        def make(name: bytes) -> Sequence[Any]:
            return BEGIN_LOAD.on(name, placeholder, LOAD_SECONDS * 1000)

        # To readers a placeholder is nothing, so this is no write.
        nonce, name, label = self.on(tail, make)
        return Load(name[len(self.names.tracked) : self._tail_at], name, nonce, label)

    def is_changed(self, load: Load) -> bool:
        """Whether anybody stored or removed something since the load began."""
        command = (b"GETRANGE", load.name, form.NONCE_AT, form.START - 1)
        nonce, found = self.client.call_many((command, (b"GET", self.names.generation)))
        return not self.known.is_present(load.generation, found) or nonce != load.nonce

    def mark_anew(self, tails: Sequence[bytes]) -> None:
        """Let what is there look to loads as if somebody had just stored it."""
        self.on_many(tails, lambda name: MARK.on(name, self.nonces.new()), writes=True)

    def put_load(self, load: Load, record: bytes, px: int | None) -> bool:
        """Store what was loaded, unless anybody stored or removed something since."""
        generation, is_sure = self.known.generation(self._near.label())
        if is_sure and generation != load.generation:
            return False
        data = form.packed(self.nonces.new(), record)
        commands: list[Sequence[Any]] = [PUT_NONCE.on(load.name, load.nonce, data, _text(px))]
        if not is_sure:
            commands.append((b"GET", self.names.generation))
        try:
            stored, *found = self.client.call_many(commands)
        finally:
            self._near.wrote(slot_of(load.name))
        if found and not self.known.is_present(load.generation, found[0]):
            self.client.call(b"UNLINK", load.name)
            return False
        return bool(stored)

    # All

    def scan(self, beginning: bytes) -> Iterator[list[bytes]]:
        """The names in the present generation whose rest begins so, as tails; each once."""
        generation, is_sure = self.known.generation(self._near.label())
        if not is_sure:
            found = self.client.call(b"GET", self.names.generation)
            if not self.known.is_present(generation, found):
                generation = self.known.generation(0)[0]
        place = self.names.entries(generation)
        seen: set[bytes] = set()
        for names in self.client.scan(escaped(place + beginning) + b"*"):
            tails = {name[len(place) :] for name in names} - seen
            seen |= tails
            if tails:
                yield list(tails)

    def px(self, seconds: float) -> int | None:
        """How long the server is to keep something that ends in so many seconds, in milliseconds; None
        for ever.
        """
        # Turned round, for what is no number: somebody else may have written the record.
        if not seconds <= _LONGEST:
            return None
        return max(ceil((max(seconds, -1.0) + self._grace) * 1000), 1)


def is_cut(reply: bytes) -> bool:
    """Whether the first `HEAD_READ` bytes of a record aren't all of its head."""
    return len(reply) == HEAD_READ and form.head_bytes(reply) > HEAD_READ


def _get(name: bytes) -> Sequence[Any]:
    return (b"GET", name)


def _set(name: bytes, data: bytes, px: int | None) -> Sequence[Any]:
    return (b"SET", name, data) if px is None else (b"SET", name, data, b"PX", px)


def _text(px: int | None) -> Any:
    return b"" if px is None else px


__all__ = ["GRACE", "HEAD_READ", "LARGEST", "Load", "Read", "Table", "is_cut"]
