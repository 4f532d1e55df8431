"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from quickcache_core.directories import make_directories

_ABANDONED_AFTER = 3600.0  # seconds
# O_EXCL: in a directory that others can write to, a name may be there already, as a link to somewhere.
_EXCLUSIVELY = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def write_atomically(path: str | os.PathLike[str], *chunks: bytes, overwrite: bool = True) -> Path:
    """Put a file at `path` that holds all `chunks`, or leave everything as it is and raise `OSError`.

    The bytes are on the disk before the name shows them, so a crash at any instant leaves the old file or the
    new one. The file is readable by its owner only; so are directories that had to be made. A symbolic link
    at `path` is replaced, not followed. Returns the path, which with `overwrite=False` may have got a number.
    """
    path = Path(path)
    make_directories(path.parent)
    _remove_abandoned(path.parent)
    temporary, descriptor = _create(path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        path = temporary.replace(path) if overwrite else _move_to_free_name(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)
    return path


def _remove_abandoned(directory: Path) -> None:
    """Remove what saves left behind that were killed; nobody else would."""
    oldest = time.time() - _ABANDONED_AFTER
    with suppress(OSError):
        for leftover in directory.glob(".quickcache-*.tmp"):
            with suppress(OSError):
                if leftover.lstat().st_mtime < oldest:
                    leftover.unlink()


def _create(directory: Path) -> tuple[Path, int]:
    for _ in range(100):
        temporary = directory / f".quickcache-{os.urandom(8).hex()}.tmp"
        with suppress(FileExistsError):
            return temporary, os.open(temporary, _EXCLUSIVELY, 0o600)
    raise FileExistsError(f"no free name for a temporary file in {directory}")


def _move_to_free_name(temporary: Path, path: Path) -> Path:
    target = path
    number = 0
    while True:
        try:
            _move_to_new_name(temporary, target)
        except FileExistsError:
            number += 1
            target = path.with_name(f"{path.stem}_{number}{path.suffix}")
        else:
            return target


def _move_to_new_name(temporary: Path, target: Path) -> None:
    try:
        # A hard link, because unlike a rename it fails where something has the name.
        target.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:
        # A file system without hard links. A crash between these two lines leaves an empty file.
        os.close(os.open(target, _EXCLUSIVELY, 0o600))
        temporary.replace(target)
    else:
        temporary.unlink()


def _sync_directory(directory: Path) -> None:
    # The file is in place by now. Where directories can't be synced, that is all there is to have.
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
