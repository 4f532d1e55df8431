"""Under which names a shared store keeps its entries."""

from __future__ import annotations

import hashlib

from quickcache_core.store.codec import DIGEST, long_key
from quickcache_core.store.record import Raw
from quickcache_core.store.shared.record import MALFORMED
from quickcache_core.store.shared.words import LONGEST_KEY

_EMPTY_KEY = b"\xff"
"""Nor has a text in UTF-8 this one, see `DIGEST`."""


def stored_key(key: str) -> bytes:
    """The name of a key in the store: itself in UTF-8, or a digest if that is too long for LMDB.

    Any string will do, lone surrogates included. Raises `AttributeError` for what is no string.
    """
    try:
        raw = key.encode()
    except UnicodeEncodeError:
        raw = key.encode(errors="surrogatepass")
    if 0 < len(raw) <= LONGEST_KEY:
        return raw
    return DIGEST + hashlib.blake2b(raw, digest_size=32).digest() if raw else _EMPTY_KEY


def original_key(raw: bytes, record: Raw) -> str:
    """The key that a record was stored under."""
    if raw == _EMPTY_KEY:
        return ""
    if raw[:1] == DIGEST:
        try:
            raw = long_key(record)
        except MALFORMED:
            raw = b""
    try:
        return raw.decode(errors="surrogatepass")
    except UnicodeDecodeError:  # none of us wrote it
        return raw.decode(errors="replace")


def stored_range(prefix: str) -> bytes:
    """Where the stored keys that begin with `prefix` begin; digests lie in no order."""
    return prefix.encode(errors="surrogatepass")[:LONGEST_KEY]
