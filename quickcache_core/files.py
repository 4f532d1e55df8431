"""The files of one cache: where they lie, what they are called, how they are written."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickcache_core.clock import Clock
from quickcache_core.entry import FOREVER
from quickcache_core.errors import CacheLoadError, CacheMetricsSaveError, CacheSaveError, ConfigError
from quickcache_core.serializer.base import BaseSerializer
from quickcache_core.serializer.compression import Codec
from quickcache_core.serializer.isolation import thaw
from quickcache_core.serializer.signing import Signer
from quickcache_core.snapshot import (
    SavedRecord,
    read_snapshot,
    resolve_path,
    write_metrics,
    write_snapshot,
)
from quickcache_core.store.base import Record

logger = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]


def check_path(name: str, value: object, *, optional: bool = False) -> None:
    """Raises `TypeError` for what is no path."""
    if value is None and optional:
        return
    if not isinstance(value, str) and not (
        isinstance(value, os.PathLike) and isinstance(os.fspath(value), str)
    ):
        raise TypeError(
            f"{name}={value!r}: give a path as str or os.PathLike{', or None' if optional else ''}"
        )


def check_flag(name: str, value: object) -> None:
    """Raises `TypeError` for what is neither a bool nor None."""
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: give True, False, or None for what is configured")


@dataclass(frozen=True, slots=True)
class FileRules:
    """Where files of one kind go unless the caller says otherwise."""

    setting: str
    """What `directory` is called in the configuration."""
    directory: Path | None
    """None: there is no home directory to have a default in."""
    filename: str
    timestamps: bool
    serializer: BaseSerializer

    def path(self, filepath: PathLike | None, *, timestamp: bool, now: float) -> Path:
        """Raises `ConfigError` if the name needs a directory and there is none."""
        directory = self.directory
        if filepath is not None and os.fspath(filepath).startswith("~"):
            # As storage_dir. A trailing separator means something, and Path would drop it.
            filepath = os.path.expanduser(filepath)  # noqa: PTH111
        if directory is None:
            if filepath is None or Path(filepath).name == os.fspath(filepath):
                raise ConfigError(
                    self.setting,
                    None,
                    "this user has no home directory; set a directory, or give a full path",
                )
            directory = Path()
        return resolve_path(
            filepath,
            directory=directory,
            filename=self.filename,
            extension=self.serializer.extension,
            timestamp=timestamp,
            now=now,
        )

    def newest(self, directory: PathLike | None) -> Path:
        """The file with the newest time in its name. Raises `FileNotFoundError`."""
        name = self.path(_inside(directory), timestamp=False, now=0.0)
        stem, suffix = re.escape(name.stem), re.escape(name.suffix)
        stamped = re.compile(rf"{stem}_(\d{{8}}_\d{{6}}_\d{{6}})(?:_(\d+))?{suffix}")
        files = name.parent.iterdir() if name.parent.is_dir() else ()
        found = [
            (match[1], int(match[2] or 0), path) for path in files if (match := stamped.fullmatch(path.name))
        ]
        if not found:
            raise FileNotFoundError(f"no file {name.stem}_DATE_TIME{name.suffix} in {name.parent}")
        return max(found)[2]


def _inside(directory: PathLike | None) -> str | None:
    """A path that means the usual name in this directory, whatever is there."""
    return None if directory is None else os.path.join(Path(directory).expanduser().absolute(), "")  # noqa: PTH118


def _saved(record: Record, now: float) -> SavedRecord:
    key, stored, remaining, life = record
    value, end = thaw(stored), None if remaining == FOREVER else now + remaining
    return (key, value, end) if life is None else (key, value, end, life)


@dataclass(frozen=True, slots=True)
class CacheFiles:
    """Snapshots and metrics files of a cache.

    `signer()` is asked whenever a snapshot is written or read, so that a secret may be set after the cache
    was made.
    """

    snapshots: FileRules
    metrics: FileRules
    codec: Codec | None
    signer: Callable[[], Signer | None]
    allow_unsigned_pickle: bool
    clock: Clock

    def save(
        self, records: Iterable[Record] | None, filepath: PathLike | None, timestamp: bool | None
    ) -> Path:
        """Raises `CacheSaveError`. With None for records nothing is written."""
        rules = self.snapshots
        stamped = rules.timestamps if timestamp is None else timestamp
        try:
            now = self.clock.wall()
            path = rules.path(filepath, timestamp=stamped, now=now)
            if records is None:
                logger.warning("The cache was made switched off: no snapshot is written to %s", path)
                return path
            return write_snapshot(
                path,
                [_saved(record, now) for record in records],
                serializer=rules.serializer,
                compression=self.codec,
                signer=self.signer(),
                allow_unsigned_pickle=self.allow_unsigned_pickle,
                wall_now=now,
                overwrite=not stamped,
            )
        except CacheSaveError:
            raise
        except Exception as error:
            raise CacheSaveError(filepath or rules.directory, error) from error

    def backup(self, records: Iterable[Record] | None, directory: PathLike | None) -> Path:
        """Raises `CacheSaveError`."""
        return self.save(records, _inside(directory), timestamp=True)

    def load(self, filepath: PathLike | None, freeze: Callable[[Any], Any] | None) -> list[Record]:
        """Entries whose time has not ended, in their stored form. Raises `CacheLoadError`."""
        rules = self.snapshots
        try:
            now = self.clock.wall()
            if filepath is None and rules.timestamps:
                path = rules.newest(None)
            else:
                path = rules.path(filepath, timestamp=False, now=now)
            entries = read_snapshot(
                path,
                serializer=rules.serializer,
                signer=self.signer(),
                allow_unsigned_pickle=self.allow_unsigned_pickle,
                wall_now=now,
            )
            return [
                Record(
                    key,
                    value if freeze is None else freeze(value),
                    FOREVER if end is None else end - now,
                    *lives,
                )
                for key, value, end, *lives in entries
            ]
        except CacheLoadError:
            raise
        except Exception as error:
            raise CacheLoadError(filepath or rules.directory, error) from error

    def restore(self, path: PathLike, freeze: Callable[[Any], Any] | None) -> list[Record]:
        """As `load`; in a directory, the backup with the newest time in its name."""
        path = Path(path).expanduser()
        if path.is_dir():
            try:
                path = self.snapshots.newest(path)
            except OSError as error:
                raise CacheLoadError(
                    path, f"{error}; give the file, or the directory of its backups"
                ) from error
        return self.load(path, freeze)

    def save_metrics(
        self, figures: Mapping[str, Any], filepath: PathLike | None, timestamp: bool | None
    ) -> Path:
        """Raises `CacheMetricsSaveError`."""
        rules = self.metrics
        stamped = rules.timestamps if timestamp is None else timestamp
        try:
            path = rules.path(filepath, timestamp=stamped, now=self.clock.wall())
            return write_metrics(path, figures, rules.serializer, overwrite=not stamped)
        except CacheMetricsSaveError:
            raise
        except Exception as error:
            raise CacheMetricsSaveError(filepath or rules.directory, error) from error
