"""Smaller bytes: zlib, which is always there, and zstd, which is better at it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from quickcache_core.errors import ConfigError, SerializationError

_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Codec:
    """`decompress(data, length)` returns exactly `length` bytes or raises `SerializationError`.

    It never unpacks much more than `length`, whatever the data would swell to.
    """

    name: str
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes, int], bytes]


def codec(name: object) -> Codec:
    """Raises `ConfigError` for a name that is unknown, or whose library isn't installed."""
    if name == "zlib":
        return _zlib()
    if name == "zstd":
        return _zstd()
    raise ConfigError("compression", name, "give 'zlib', 'zstd' or None")


def _zlib() -> Codec:
    import zlib

    def decompress(data: bytes, length: int) -> bytes:
        decompressor = zlib.decompressobj()
        try:
            # One byte more than declared is enough to see that there is more.
            raw = decompressor.decompress(data, length + 1)
        except zlib.error as error:
            raise _damaged("zlib", str(error)) from error
        return _exactly("zlib", raw, length, decompressor.eof and not decompressor.unused_data)

    return Codec("zlib", zlib.compress, decompress)


def _zstd() -> Codec:
    if sys.version_info >= (3, 14):
        return _zstd_of_python()
    return _zstd_of_package()


def _zstd_of_python() -> Codec:
    from compression import zstd  # type: ignore[import-not-found, unused-ignore]

    def decompress(data: bytes, length: int) -> bytes:
        decompressor = zstd.ZstdDecompressor()
        try:
            raw = decompressor.decompress(data, length + 1)
        except zstd.ZstdError as error:
            raise _damaged("zstd", str(error)) from error
        return _exactly("zstd", raw, length, decompressor.eof and not decompressor.unused_data)

    return Codec("zstd", zstd.compress, decompress)


def _zstd_of_package() -> Codec:
    try:
        import zstandard
    except ImportError as error:
        raise ConfigError(
            "compression", "zstd", 'needs Python 3.14 or: pip install "quickcache-web[zstd]"'
        ) from error

    def compress(data: bytes) -> bytes:
        # Made per call: one compressor may not be used by two threads at a time.
        return zstandard.ZstdCompressor().compress(data)

    def decompress(data: bytes, length: int) -> bytes:
        # Not the one-shot function: it allocates whatever size the frame claims for itself.
        raw = bytearray()
        try:
            with zstandard.ZstdDecompressor().stream_reader(data) as reader:
                while len(raw) <= length and (chunk := reader.read(min(_CHUNK, length + 1 - len(raw)))):
                    raw += chunk
        except zstandard.ZstdError as error:
            raise _damaged("zstd", str(error)) from error
        return _exactly("zstd", bytes(raw), length, True)

    return Codec("zstd", compress, decompress)


def _exactly(name: str, raw: bytes, length: int, complete: bool) -> bytes:
    if len(raw) > length:
        raise _damaged(name, f"they hold more than the {length} bytes that were declared")
    if len(raw) < length:
        raise _damaged(name, f"they hold {len(raw)} bytes where {length} were declared")
    if not complete:
        raise _damaged(name, "they do not end where they should")
    return raw


def _damaged(name: str, reason: str) -> SerializationError:
    return SerializationError(f"The {name} data are damaged: {reason}; use another copy")
