"""Caches in files: one line of JSON that says what follows, then what the serializer made.

A file is written whole or not at all, and read whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from quickcache_core.atomic import write_atomically
from quickcache_core.entry import FOREVER
from quickcache_core.errors import (
    CacheLoadError,
    CacheMetricsSaveError,
    CacheSaveError,
    QuickCacheError,
    SerializationError,
)
from quickcache_core.serializer.base import BaseSerializer, serializer_name
from quickcache_core.serializer.compression import Codec, codec
from quickcache_core.serializer.signing import Signer
from quickcache_core.store.life import TAG_SLOTS, Life
from quickcache_core.store.saved import GENERATIONS, are_generations

FORMAT = "quickcache-snapshot"
VERSION = 2
"""Version 1 knew no lives. Files without any are still of that version, so that older releases read them."""

SavedRecord = tuple[str, Any, float | None] | tuple[str, Any, float | None, Life]
"""Key, value, the end of its freshness (seconds since the epoch, None for never), and if it has more than a
TTL its life, as in `Record`.
"""

_HEADER_FIELDS: dict[str, tuple[type, ...]] = {
    "format": (str,),
    "version": (int,),
    "serializer": (str,),
    "compression": (str, type(None)),
    "created_at": (float,),
    "entries": (int,),
    "length": (int,),
    "raw_length": (int,),
    "signature": (str, type(None)),
    "sha256": (str,),
}
_DURATIONS = ("ttl", "stale_ttl", "max_age", "refresh_after")
"""What is saved of a `Life`, in this order; then whether it slides, the slots of its tags, its ETag."""
_INSTANT = 1e-9  # seconds: a duration that has just begun to be over
_FIRST_DAY, _DAY_AFTER_THE_LAST = -62135596800.0, 253402300800.0  # seconds since the epoch
_LONGEST_HEADER = 1 << 16  # bytes


def write_snapshot(
    path: str | os.PathLike[str],
    records: Iterable[SavedRecord],
    *,
    serializer: BaseSerializer,
    compression: Codec | None = None,
    signer: Signer | None = None,
    allow_unsigned_pickle: bool = False,
    wall_now: float,
    overwrite: bool = True,
) -> Path:
    """Write `records` to `path` and return where they are.

    With `overwrite=False` a file that has the name keeps it, and the new one gets a number. Anything that
    goes wrong is a `CacheSaveError`, and the old file is as it was. Holds the serialized cache in memory.
    """
    path = Path(path)
    if serializer.needs_signature and signer is None and not allow_unsigned_pickle:
        raise CacheSaveError(
            path,
            f"loading {serializer_name(serializer)} runs what the file says, so it has to be signed; "
            "set secret=..., or allow_unsigned_pickle=True if nobody else can write this file, "
            "or use serializer='json'",
        )
    # Lists, not tuples, so that every format can hold them. Exact str: a key may be a subclass.
    rows = [_row(record) for record in records]
    raw = _serialized(path, rows, serializer)
    payload = raw if compression is None else compression.compress(raw)
    header = {
        "format": FORMAT,
        "version": VERSION if any(len(row) > 3 for row in rows) else 1,
        "serializer": serializer_name(serializer),
        "compression": None if compression is None else compression.name,
        "created_at": float(wall_now),
        "entries": len(rows),
        "length": len(payload),
        "raw_length": len(raw),
    }
    digest = hashlib.sha256(payload).digest()
    header["signature"] = None if signer is None else signer.sign(_dump(header) + digest)
    header["sha256"] = hashlib.sha256(_dump(header) + digest).hexdigest()
    try:
        return write_atomically(path, _dump(header), b"\n", payload, overwrite=overwrite)
    except (OSError, ValueError) as error:
        raise CacheSaveError(path, f"{error}; check name, space and permissions of the directory") from error


def read_snapshot(
    path: str | os.PathLike[str],
    *,
    serializer: BaseSerializer,
    signer: Signer | None = None,
    allow_unsigned_pickle: bool = False,
    wall_now: float,
) -> list[SavedRecord]:
    """The records of a snapshot that are of use at `wall_now`, fresh or stale; their ends are in the reader's
    time.

    Raises `CacheLoadError` for every file that isn't exactly what `write_snapshot` wrote. The serializer sees
    the data only after checksum and signature were found right. With a signer, files without a signature are
    refused in every format, unless `allow_unsigned_pickle`.
    """
    path = Path(path)
    try:
        header, payload = _read(path)
        digest = hashlib.sha256(payload).digest()
        _check_sum(header, digest)
        _check_serializer(header, serializer)
        _check_signature(header, digest, serializer, signer, allow_unsigned_pickle)
        rows = _deserialized(header, payload, serializer)
        # A clock that stood later when the file was written must not lengthen anybody's life.
        ahead = max(header["created_at"] - wall_now, 0.0)
        away = max(wall_now - header["created_at"], 0.0)
        records = [_record(row, ahead, away) for row in rows]
        return [record for record in records if _is_kept(record, wall_now)]
    except OSError as error:
        reason = f"{error}; save_to_disk writes such a file, check its name and permissions"
        raise CacheLoadError(path, reason) from error
    except (ValueError, QuickCacheError) as error:
        raise CacheLoadError(path, error) from error


def about_snapshot(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The first line of a snapshot: among others `created_at` (seconds since the epoch), `entries` and
    `serializer`. Nothing is checked but its form. Raises `CacheLoadError`.
    """
    path = Path(path)
    try:
        return _read(path)[0]
    except OSError as error:
        reason = f"{error}; save_to_disk writes such a file, check its name and permissions"
        raise CacheLoadError(path, reason) from error
    except ValueError as error:
        raise CacheLoadError(path, error) from error


def write_metrics(
    path: str | os.PathLike[str],
    figures: Mapping[str, Any],
    serializer: BaseSerializer,
    *,
    overwrite: bool = True,
) -> Path:
    """Write `figures` as `write_atomically` does. Raises `CacheMetricsSaveError`."""
    path = Path(path)
    try:
        return write_atomically(
            path, _as_bytes(serializer, serializer.serialize_for_people(dict(figures))), overwrite=overwrite
        )
    except OSError as error:
        reason = f"{error}; check name, space and permissions of the directory"
        raise CacheMetricsSaveError(path, reason) from error
    # Any exception: the serializer may be the user's.
    except Exception as error:
        raise CacheMetricsSaveError(path, error) from error


def resolve_path(
    filepath: str | os.PathLike[str] | None,
    *,
    directory: str | os.PathLike[str],
    filename: str,
    extension: str,
    timestamp: bool = False,
    now: float | None = None,
) -> Path:
    """The absolute path that a caller's `filepath` means. Touches nothing.

    None is `filename` in `directory`; a directory, or a name that ends in a separator, is `filename` in
    there; a bare name is a file in `directory`; any other path counts from the working directory. The
    extension is appended unless it is there. A timestamp is UTC to the microsecond, at `now` (seconds since
    the epoch; None: the present).
    """
    given = "" if filepath is None else os.fspath(filepath)
    if not given:
        target = Path(directory, filename)
    elif given.endswith(("/", os.sep)) or Path(given).is_dir():
        target = Path(given, filename)
    elif Path(given).name == given:
        target = Path(directory, given)
    else:
        target = Path(given)
    suffix = f".{extension.lstrip('.')}" if extension else ""
    stem = target.name.removesuffix(suffix)
    if timestamp:
        moment = datetime.fromtimestamp(time.time() if now is None else now, tz=UTC)
        stem = f"{stem}_{moment:%Y%m%d_%H%M%S_%f}"
    # Not Path.resolve: a symbolic link stays what the caller named.
    return Path(os.path.abspath(target.with_name(stem + suffix)))  # noqa: PTH100


def _dump(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, separators=(",", ":")).encode()


def _row(record: SavedRecord) -> list[Any]:
    key, value, end, *lives = record
    row = [_exact(key), value, None if end is None else float(end)]
    for life in lives:
        # What every format can hold, and JSON holds no infinity: None for never.
        durations = [_number(getattr(life, name)) for name in _DURATIONS]
        row.append([*durations, life.sliding, list(life.tags), life.etag])
    return row


def _number(seconds: float) -> float | None:
    return None if seconds == FOREVER else float(seconds)


def _record(row: list[Any], ahead: float, away: float) -> SavedRecord:
    """What `_row` made a row of, so many seconds ago; the clock stands so much behind."""
    key, value, end, *rest = row
    if end is not None:
        end -= ahead
    if not rest:
        return key, value, end
    *durations, sliding, tags, etag = rest[0]
    ttl, stale_ttl, max_age, refresh_after = (FOREVER if one is None else one for one in durations)
    max_age, refresh_after = max(max_age - away, _INSTANT), max(refresh_after - away, _INSTANT)
    return key, value, end, Life(ttl, stale_ttl, sliding, max_age, refresh_after, tuple(tags), etag)


def _is_kept(record: SavedRecord, wall_now: float) -> bool:
    _, _, end, *lives = record
    return end is None or end + sum(life.stale_ttl for life in lives) > wall_now


def _exact(key: str) -> str:
    return key if type(key) is str else str.__str__(key)


def _serialized(path: Path, rows: list[list[Any]], serializer: BaseSerializer) -> bytes:
    try:
        return _as_bytes(serializer, serializer.serialize(rows))
    except Exception as error:
        raise CacheSaveError(path, _culprit(rows, serializer, error)) from error


def _culprit(rows: list[list[Any]], serializer: BaseSerializer, error: Exception) -> str:
    name = serializer_name(serializer)
    for row in rows:
        try:
            serializer.serialize([row])
        except Exception as reason:
            what = f"serializer {name} can't take the value of key {row[0]!r}, a {type(row[1]).__qualname__}"
            if isinstance(reason, SerializationError):
                return f"{what}: {reason}"
            return (
                f"{what}: {type(reason).__name__}: {reason}; store another value, or use another serializer"
            )
    return f"serializer {name} failed: {error}"


def _as_bytes(serializer: BaseSerializer, data: object) -> bytes:
    if serializer.is_binary and isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    if not serializer.is_binary and isinstance(data, str):
        return data.encode(errors="surrogatepass")
    raise TypeError(
        f"{serializer_name(serializer)}.serialize returned {type(data).__qualname__}; "
        f"with is_binary={serializer.is_binary} it has to be {'bytes' if serializer.is_binary else 'str'}"
    )


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    # Opened without blocking, because opening a pipe that nobody writes to would wait for ever.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file; give a file that save_to_disk wrote")
        line = file.readline(_LONGEST_HEADER)
        header = _header(line)
        size = status.st_size - len(line)
        # Looked at before reading, so that a foreign file of any size costs nothing.
        if size != header["length"]:
            state = "cut off" if size < header["length"] else "longer than it was"
            raise ValueError(
                f"it is {state}: {size} bytes follow the header, {header['length']} were written; "
                "use another copy"
            )
        return header, file.read(size)


def _header(line: bytes) -> dict[str, Any]:
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(
            "it is no QuickCache snapshot, or its beginning is damaged; give a file that save_to_disk wrote"
        )
    version = header.get("version")
    if isinstance(version, int) and version > VERSION:
        raise ValueError(
            f"it has format version {version}, and this QuickCache reads up to {VERSION}; "
            "upgrade quickcache-web, or save the file again with this version"
        )
    # Compared with how we would have written it: JSON has many spellings for one meaning.
    if line != _dump(header) + b"\n" or not _well_formed(header) or version not in (1, VERSION):
        raise ValueError("its header is damaged; use another copy")
    return header


def _well_formed(header: dict[str, Any]) -> bool:
    return (
        header.keys() == _HEADER_FIELDS.keys()
        and all(type(header[name]) in kinds for name, kinds in _HEADER_FIELDS.items())
        # What a date can be made of.
        and _FIRST_DAY <= header["created_at"] < _DAY_AFTER_THE_LAST
        # Below maxsize, because a decompressor is asked for one byte more.
        and all(0 <= header[name] < sys.maxsize for name in ("entries", "length", "raw_length"))
    )


def _check_sum(header: dict[str, Any], digest: bytes) -> None:
    rest = {name: value for name, value in header.items() if name != "sha256"}
    if hashlib.sha256(_dump(rest) + digest).hexdigest() != header["sha256"]:
        raise ValueError("its checksum is wrong, so it is damaged; use another copy")


def _check_serializer(header: dict[str, Any], serializer: BaseSerializer) -> None:
    name = serializer_name(serializer)
    if header["serializer"] != name:
        raise ValueError(
            f"it was saved with serializer {header['serializer']!r}, and this cache has {name!r}; "
            f"load it with serializer={header['serializer']!r}"
        )


def _check_signature(
    header: dict[str, Any],
    digest: bytes,
    serializer: BaseSerializer,
    signer: Signer | None,
    allow_unsigned: bool,
) -> None:
    signature = header["signature"]
    if signer is not None and signature is not None:
        signed = {name: value for name, value in header.items() if name not in ("signature", "sha256")}
        if not signer.verify(_dump(signed) + digest, signature):
            raise ValueError(
                "its signature is wrong: it was made with another secret, or the file was tampered with; "
                "set the secret it was saved with, or name that one in secret_fallbacks"
            )
    elif allow_unsigned:
        return
    elif signer is not None:
        raise ValueError(
            "it isn't signed, and this cache has a secret; save it again with the secret, "
            "or load it with allow_unsigned_pickle=True if nobody else can write this file"
        )
    elif serializer.needs_signature:
        raise ValueError(
            f"loading {header['serializer']} runs what the file says, so its signature has to be checked; "
            "set the secret=... that it was saved with, "
            "or allow_unsigned_pickle=True if nobody else can write this file"
        )


def _deserialized(header: dict[str, Any], payload: bytes, serializer: BaseSerializer) -> list[list[Any]]:
    if header["compression"] is not None:
        payload = codec(header["compression"]).decompress(payload, header["raw_length"])
    try:
        rows = serializer.deserialize(
            payload if serializer.is_binary else payload.decode(errors="surrogatepass")
        )
    except QuickCacheError:
        raise
    # Any exception: the serializer may be the user's.
    except Exception as error:
        raise ValueError(
            f"serializer {header['serializer']} can't read what it wrote ({type(error).__name__}: {error}); "
            "mend the serializer, or use another one"
        ) from error
    if not isinstance(rows, list) or len(rows) != header["entries"] or not all(map(_is_record, rows)):
        raise ValueError(
            f"serializer {header['serializer']} gives back something else than was saved; mend the serializer"
        )
    return rows


def _is_record(row: object) -> bool:
    if not isinstance(row, (list, tuple)) or not 3 <= len(row) <= 4 or not isinstance(row[0], str):
        return False
    if row[0] == GENERATIONS and not are_generations(row[1]):
        return False
    return _is_time(row[2]) and (len(row) == 3 or _is_life(row[3]))


def _is_time(time: object) -> bool:
    return time is None or (type(time) is float and math.isfinite(time))


def _is_life(row: object) -> bool:
    if not isinstance(row, (list, tuple)) or len(row) != len(_DURATIONS) + 3:
        return False
    *durations, sliding, tags, etag = row
    return (
        all(_is_time(one) and (one is None or one >= 0.0) for one in durations)
        and type(sliding) is bool
        and isinstance(tags, (list, tuple))
        and all(type(slot) is int and 0 <= slot < TAG_SLOTS for slot in tags)
        and (etag is None or isinstance(etag, str))
    )
