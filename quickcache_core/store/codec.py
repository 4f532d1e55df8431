"""What a value looks like on its way to other processes: the layout of a record, and who wrote it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any, Final
from zlib import crc32

from quickcache_core.entry import FOREVER
from quickcache_core.errors import SerializationError
from quickcache_core.serializer import BaseSerializer, JsonSerializer, MsgpackSerializer, PickleSerializer
from quickcache_core.serializer.base import serializer_name
from quickcache_core.serializer.isolation import Frozen, loader, settler, thaw, through
from quickcache_core.serializer.signing import DIGEST_BYTES, Signer
from quickcache_core.store.record import (
    FLAGS,
    HEADER,
    KEY_LENGTH,
    LONG_KEY,
    RICH,
    Raw,
    after_extras,
)

_INT = struct.Struct("<q")
_FLOAT = struct.Struct("<d")

_KIND = 8
"""Where the kind of the payload is."""
_SERIALIZED, _SIGNED, _INTEGER, _FRACTION, _TEXT, _BYTES, _NONE, _TRUE, _FALSE = range(9)
_NUMBERS = (_INTEGER, _FRACTION)
_NATIVE: dict[type, int] = {int: _INTEGER, float: _FRACTION, str: _TEXT, bytes: _BYTES}
_LARGEST = 2**63
_OWN_FORMATS = (JsonSerializer, MsgpackSerializer, PickleSerializer)

DIGEST: Final = b"\xfe"
"""A stored key whose first byte is this one or higher, which no text in UTF-8 has, isn't the key itself: the
record has that in full.
"""


class Codec:
    """Turns stored forms into records and back, by the serializer and the isolation of one cache.

    Plain values (int, float, str, bytes, bool, None) are written as they are; a serializer that isn't one of
    the library's own gets everything but 64-bit integers and floats, which are left to the store to add to.
    What can run code when it is read is signed, together with its key, and read only if the signature is
    right. `signer()` is asked whenever one is needed.
    """

    def __init__(
        self,
        serializer: BaseSerializer,
        isolation: str,
        immutable_types: Iterable[type],
        signer: Callable[[], Signer | None],
        allow_unsigned: bool,
        signature_bytes: int = DIGEST_BYTES,
    ) -> None:
        self._load = loader(serializer)
        self._serialize = through(serializer, self._load)
        self._settle = settler(isolation, immutable_types)
        self._signer = signer
        self._allow_unsigned = allow_unsigned
        self._signature_bytes = signature_bytes
        self._needs_signature = serializer.needs_signature
        self._is_binary = serializer.is_binary
        self._name = serializer_name(serializer)
        self._format = crc32(self._name.encode()) & 0xFFFF
        plain: tuple[type, ...] = (int, float)
        if type(serializer) in _OWN_FORMATS:
            plain = (int, float, str, bytes, bool, type(None))
        self._plain = frozenset(plain)
        self._keeps_text = str in plain

    def freeze(self, value: Any) -> Any:
        """The stored form of a value. Raises `SerializationError`."""
        kind = value.__class__
        if kind in self._plain and (kind is not int or -_LARGEST <= value < _LARGEST):
            return value
        return self._serialize(value)

    def settle(self, data: Any) -> tuple[Any, Any]:
        """The value that serialized data stands for, and the form to keep it in for further reads."""
        value = self._load(data)
        return value, self._settle(value, Frozen(self._load, data))

    def encode(
        self, raw: bytes, key: str, stored: Any, deadline: float, extras: bytes = b""
    ) -> tuple[bytes, Any]:
        """The record of a stored form, and the form itself, in this codec's terms."""
        if stored.__class__ is str and self._keeps_text and raw[0] < DIGEST[0] and not extras:  # commonly
            return HEADER.pack(deadline, _TEXT, 0, self._format) + _utf8(stored), stored
        if stored.__class__ is Frozen:
            if stored.load is not self._load:
                stored = self.freeze(thaw(stored))
        else:
            stored = self.freeze(stored)
        kind, payload = self._payload(raw, stored)
        flags = RICH if extras else 0
        if raw[0] >= DIGEST[0]:
            full = key.encode(errors="surrogatepass")
            head = HEADER.pack(deadline, kind, flags | LONG_KEY, self._format) + extras
            return head + KEY_LENGTH.pack(len(full)) + full + payload, stored
        return HEADER.pack(deadline, kind, flags, self._format) + extras + payload, stored

    def decode(self, raw: bytes, key: str, record: bytes) -> tuple[Any, float] | None:
        """The stored form and the deadline; None for a record that is another key's, or isn't to be trusted:
        see `reason`.
        """
        try:
            deadline, kind, flags, form = HEADER.unpack_from(record)
            start = HEADER.size
            if flags:
                if flags & LONG_KEY and long_key(record) != key.encode(errors="surrogatepass"):
                    return None
                start = _payload_at(record)
            if deadline == FOREVER:
                deadline = FOREVER
            if kind > _SIGNED:
                return _native(kind, record, start), deadline
            if form != self._format:
                return None
            if kind == _SIGNED:
                size = self._signature_bytes
                payload = record[start + size :]
                signer = self._signer()
                if signer is None:
                    if not self._allow_unsigned:
                        return None
                elif not signer.has_signed(_signed(raw, payload), record[start : start + size], size):
                    return None
            elif self._needs_signature and not self._allow_unsigned:
                return None
            else:
                payload = record[start:]
            return Frozen(self._load, payload if self._is_binary else payload.decode()), deadline
        except (struct.error, UnicodeDecodeError):  # damaged, or none of us wrote it
            return None

    def reason(self, record: bytes) -> str:
        """Why `decode` gave None, without a word on the key or the value."""
        if len(record) < HEADER.size:
            return "is damaged"
        _, kind, flags, form = HEADER.unpack_from(record)
        if kind > _SIGNED and not flags & LONG_KEY:
            return "is damaged"
        if kind <= _SIGNED and form != self._format:
            return f"was written by another serializer than {self._name}"
        if kind == _SIGNED:
            return "has a signature that isn't ours: the secret changed, or somebody else wrote it"
        return "isn't signed" if not flags & LONG_KEY else "has another key with the same digest"

    def holds(self, stored: Any) -> bool:
        """Whether a stored form is still serialized, as this codec does it."""
        return stored.__class__ is Frozen and stored.load is self._load

    def _payload(self, raw: bytes, stored: Any) -> tuple[int, bytes]:
        kind = stored.__class__
        if kind is not Frozen:
            if kind is str:
                return _TEXT, _utf8(stored)
            if kind is int:
                return _INTEGER, _INT.pack(stored)
            if kind is bytes:
                return _BYTES, stored
            if kind is float:
                return _FRACTION, _FLOAT.pack(stored)
            return (_NONE if stored is None else _TRUE if stored else _FALSE), b""
        data = stored.data
        payload: bytes = data if data.__class__ is bytes else _as_bytes(data)
        if not self._needs_signature:
            return _SERIALIZED, payload
        signer = self._signer()
        if signer is not None:
            return _SIGNED, signer.digest(_signed(raw, payload), self._signature_bytes) + payload
        if self._allow_unsigned:
            return _SERIALIZED, payload
        raise SerializationError(
            f"Serializer {self._name} needs a signature here, since others may read what is stored, and "
            "there is no secret; set secret=..., or choose another serializer",
            serializer=self._name,
            lacks="secret",
        )


def added(record: Raw, delta: int | float) -> tuple[bytes, int | float] | None:
    """A record whose number is larger by `delta`, and the number; None if that isn't a plain 64-bit sum."""
    try:
        _, kind, flags, _ = HEADER.unpack_from(record)
        if kind not in _NUMBERS:
            return None
        start = _payload_at(record) if flags else HEADER.size
        number: int | float = (_INT if kind == _INTEGER else _FLOAT).unpack_from(record, start)[0] + delta
    except struct.error:  # damaged
        return None
    if number.__class__ is int and not -_LARGEST <= number < _LARGEST:
        return None
    packed = _INT.pack(number) if number.__class__ is int else _FLOAT.pack(number)
    head = bytearray(record[:start])
    head[_KIND] = _NATIVE[number.__class__]
    return bytes(head) + packed, number


def _signed(raw: bytes, payload: bytes) -> bytes:
    # Not a separator: keys hold any bytes, and part of one could be passed off as the beginning of a payload.
    return KEY_LENGTH.pack(len(raw)) + raw + payload


def _native(kind: int, record: bytes, start: int) -> Any:
    if kind == _TEXT:
        data = record[start:]
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data.decode(errors="surrogatepass")
    if kind == _INTEGER:
        return _INT.unpack_from(record, start)[0]
    if kind == _FRACTION:
        return _FLOAT.unpack_from(record, start)[0]
    if kind == _BYTES:
        return record[start:]
    return None if kind == _NONE else kind == _TRUE


def long_key(record: Raw) -> bytes:
    """The key in full, of a record that has it."""
    at = after_extras(record)
    start = at + KEY_LENGTH.size
    return bytes(record[start : start + KEY_LENGTH.unpack_from(record, at)[0]])


def _payload_at(record: Raw) -> int:
    start = after_extras(record)
    if record[FLAGS] & LONG_KEY:
        start += KEY_LENGTH.size + int(KEY_LENGTH.unpack_from(record, start)[0])
    return start


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="surrogatepass")


def _as_bytes(data: Any) -> bytes:
    return _utf8(data) if isinstance(data, str) else bytes(data)
