"""Backups of the caches of a project, each alias in a folder of its own, and their way back."""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from quickcache_core.cache import QuickCache
from quickcache_core.errors import CacheLoadError, ConfigError
from quickcache_core.metrics.tables import several
from quickcache_core.progress import busy
from quickcache_core.sizes import in_words
from quickcache_core.snapshot import about_snapshot
from quickcache_core.store.keyspace import SEPARATOR

_IN_FILE_NAMES = re.compile(r"[\w-][\w.-]*", re.ASCII)


class BackupRow(TypedDict):
    alias: str
    file: str
    entries: int
    bytes: int
    seconds: float


class RestoredRow(TypedDict):
    alias: str
    file: str
    saved_at: str
    """ISO 8601, in UTC."""
    entries_in_file: int
    """Those that haven't expired since."""
    entries_before: int
    entries: int
    seconds: float


class Chosen(NamedTuple):
    """A backup that is to be restored."""

    file: Path
    saved_at: datetime
    entries: int
    """Those that haven't expired since."""


def backup_folder(alias: str, cache: QuickCache, directory: Path | None) -> Path:
    """The folder for the backups of an alias: in `directory`, or else where the cache has its snapshots.

    Each alias has one of its own, since the files of all have the same name unless their settings say
    otherwise. Raises `ConfigError` if there is no directory at all.
    """
    root = directory or cache.files.snapshots.directory
    if root is None:
        raise ConfigError("storage_dir", None, "this user has no home directory; set it, or name a directory")
    name = alias
    if not _IN_FILE_NAMES.fullmatch(alias):
        plain = re.sub(r"[^\w-]+", "_", alias, flags=re.ASCII)
        name = f"{plain}-{zlib.crc32(alias.encode(errors='surrogatepass')):08x}"
    return root.expanduser().absolute() / name


def back_up(alias: str, cache: QuickCache, directory: Path | None, note: Callable[[str], Any]) -> BackupRow:
    """Write a backup, and read it again: one that can't be restored is none. Raises `CacheSaveError`,
    `CacheLoadError` and `ConfigError`.
    """
    begun = time.monotonic()
    with busy(f"{alias}: saving {several(cache.size(), 'entry', 'entries')}", note):
        path = cache.backup(backup_folder(alias, cache, directory))
        entries = _entries(cache, path)
    return {
        "alias": alias,
        "file": str(path),
        "entries": entries,
        "bytes": path.stat().st_size,
        "seconds": round(time.monotonic() - begun, 3),
    }


def backup_line(row: BackupRow) -> str:
    entries = several(row["entries"], "entry", "entries")
    return f"{row['alias']}: {entries} in {row['file']} ({in_words(row['bytes'])}, {row['seconds']:.1f} s)"


def chosen_backup(alias: str, cache: QuickCache, source: Path | None) -> Chosen:
    """The backup that `source` means: a file, or the newest in a directory, in which the alias may have a
    folder. None: where `back_up` puts them. The file is read as a whole, so that nobody is asked about one
    that can't be restored. Raises `CacheLoadError` and `ConfigError`.
    """
    path = source
    if path is None or path.is_dir():
        folder = backup_folder(alias, cache, path)
        if path is None or folder.is_dir():
            path = folder
        try:
            path = cache.files.snapshots.newest(path)
        except OSError as error:
            raise CacheLoadError(path, f"{error}; give the file, or the directory of its backups") from error
    saved_at = datetime.fromtimestamp(about_snapshot(path)["created_at"], tz=UTC)
    return Chosen(path, saved_at, _entries(cache, path))


def _entries(cache: QuickCache, path: Path) -> int:
    """How many the cache would get from that file now, which is read and checked for it."""
    records = cache.files.restore(path, None)
    # Beside them stand the numbers of generations, under a key that nobody can have.
    return sum(not record.key.startswith(SEPARATOR * 3) for record in records)


def restore_backup(alias: str, cache: QuickCache, chosen: Chosen, note: Callable[[str], Any]) -> RestoredRow:
    """Replace the entries by those of the backup. Raises `CacheLoadError`, and leaves them as they were."""
    begun, before = time.monotonic(), cache.size()
    with busy(f"{alias}: restoring {several(chosen.entries, 'entry', 'entries')}", note):
        cache.restore(chosen.file)
    return {
        "alias": alias,
        "file": str(chosen.file),
        "saved_at": chosen.saved_at.isoformat(timespec="seconds"),
        "entries_in_file": chosen.entries,
        "entries_before": before,
        "entries": cache.size(),
        "seconds": round(time.monotonic() - begun, 3),
    }


def restored_line(row: RestoredRow) -> str:
    entries = several(row["entries"], "entry", "entries")
    return (
        f"{row['alias']}: {entries} from {row['file']}, saved at {row['saved_at']}, in place of "
        f"{row['entries_before']:,} ({row['seconds']:.1f} s)"
    )


def question(alias: str, cache: QuickCache, chosen: Chosen) -> str:
    """What somebody who restores has to agree to."""
    return (
        f"{alias}: replace {several(cache.size(), 'entry', 'entries')} by "
        f"{several(chosen.entries, 'entry', 'entries')} of {chosen.file}, "
        f"saved at {chosen.saved_at:%Y-%m-%d %H:%M:%S} UTC?"
    )
