"""The files of one cache: where they lie, what they are called, how they are written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickcache_core.clock import Clock
from quickcache_core.entry import FOREVER
from quickcache_core.errors import CacheLoadError, CacheMetricsSaveError, CacheSaveError
from quickcache_core.serializer.base import BaseSerializer
from quickcache_core.serializer.compression import Codec
from quickcache_core.serializer.isolation import thaw
from quickcache_core.serializer.signing import Signer
from quickcache_core.snapshot import read_snapshot, resolve_path, write_metrics, write_snapshot
from quickcache_core.store.base import Record

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class FileRules:
    """Where files of one kind go unless the caller says otherwise."""

    directory: Path
    filename: str
    timestamps: bool
    serializer: BaseSerializer

    def path(self, filepath: PathLike | None, *, timestamp: bool) -> Path:
        return resolve_path(
            filepath,
            directory=self.directory,
            filename=self.filename,
            extension=self.serializer.extension,
            timestamp=timestamp,
        )


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

    def save(self, records: Iterable[Record], filepath: PathLike | None, timestamp: bool | None) -> Path:
        """Raises `CacheSaveError`."""
        rules = self.snapshots
        stamped = rules.timestamps if timestamp is None else timestamp
        try:
            now = self.clock.wall()
            return write_snapshot(
                rules.path(filepath, timestamp=stamped),
                [
                    (key, thaw(value), None if remaining == FOREVER else now + remaining)
                    for key, value, remaining in records
                ],
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

    def backup(self, records: Iterable[Record], directory: PathLike | None) -> Path:
        """Raises `CacheSaveError`."""
        target = self.snapshots.directory if directory is None else Path(directory)
        return self.save(records, target / self.snapshots.filename, timestamp=True)

    def load(self, filepath: PathLike | None, freeze: Callable[[Any], Any] | None) -> list[Record]:
        """Entries whose TTL has not ended, in their stored form. Raises `CacheLoadError`."""
        try:
            path = self.snapshots.path(filepath, timestamp=False)
            now = self.clock.wall()
            entries = read_snapshot(
                path,
                serializer=self.snapshots.serializer,
                signer=self.signer(),
                allow_unsigned_pickle=self.allow_unsigned_pickle,
                wall_now=now,
            )
            return [
                Record(key, value if freeze is None else freeze(value), FOREVER if end is None else end - now)
                for key, value, end in entries
                if end is None or end > now
            ]
        except CacheLoadError:
            raise
        except Exception as error:
            raise CacheLoadError(filepath or self.snapshots.directory, error) from error

    def restore(self, path: PathLike, freeze: Callable[[Any], Any] | None) -> list[Record]:
        """As `load`; in a directory, the backup with the newest time in its name."""
        directory = Path(path)
        if directory.is_dir():
            pattern = f"{self.snapshots.filename}_*.{self.snapshots.serializer.extension}"
            backups = sorted(directory.glob(pattern))
            if not backups:
                raise CacheLoadError(path, f"no backup in this directory; backups here are called {pattern}")
            path = backups[-1]
        return self.load(path, freeze)

    def save_metrics(
        self, figures: Mapping[str, Any], filepath: PathLike | None, timestamp: bool | None
    ) -> Path:
        """Raises `CacheMetricsSaveError`."""
        rules = self.metrics
        stamped = rules.timestamps if timestamp is None else timestamp
        try:
            path = rules.path(filepath, timestamp=stamped)
            return write_metrics(path, figures, rules.serializer, overwrite=not stamped)
        except CacheMetricsSaveError:
            raise
        except Exception as error:
            raise CacheMetricsSaveError(filepath or rules.directory, error) from error
