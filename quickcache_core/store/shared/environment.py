"""LMDB, opened so that forks, crashes and full disks do no harm."""

from __future__ import annotations

import ctypes
import logging
import os
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from quickcache_core.errors import ConfigError
from quickcache_core.sizes import in_words
from quickcache_core.store.shared.directory import DATA
from quickcache_core.store.shared.mapped import allocate

logger = logging.getLogger(__name__)

PAGE = 4096
"""Bytes; what LMDB 0.9 uses everywhere but on machines with larger pages, where this only makes checks
coarser."""
BLOCK = 512
"""Bytes; what `st_blocks` counts."""
_MAX_READERS = 1024
"""Read transactions at one instant, over all processes."""


def load_lmdb() -> Any:
    """The module. Raises `ConfigError` with the line to install it."""
    try:
        import lmdb
        import lmdb._envid as identities
    except ImportError as error:
        raise ConfigError(
            "location", "shared://…", f"this needs lmdb ({error}): pip install 'quickcache-web[shared]'"
        ) from error
    _know_processes_apart(identities)
    return lmdb


def _know_processes_apart(identities: Any) -> None:
    # py-lmdb refuses to open what it has open already, and takes what a parent had open before the fork for
    # that. Closing the parent's environment in the child would wipe the parent's reader slots. So its list of
    # open files gets the process as part of each file's name.
    original = getattr(identities, "env_keys", None)
    if original is None:
        logger.warning(
            "This version of lmdb lists open environments in another way; children that were forked after "
            "the first use of a shared cache run without it"
        )
        return
    if getattr(original, "per_process", False):
        return

    def env_keys(path: Any, subdir: bool) -> tuple[Any, ...]:
        pid = os.getpid()
        return tuple((pid, *key) for key in original(path, subdir))

    env_keys.per_process = True  # type: ignore[attr-defined]
    identities.env_keys = env_keys


class Damaged(Exception):
    """The data file isn't what LMDB left there."""


def open_environment(directory: Path, map_size: int, writemap: bool, *, alone: bool) -> Any:
    """The environment, with room on the disk for the whole map where `writemap` is asked for.

    Raises `Damaged`, `lmdb.Error` and `OSError`. The caller sees to it that nobody else opens it meanwhile;
    if it isn't `alone`, others that have it open may be writing.
    """
    lmdb = load_lmdb()
    path = directory / DATA
    size_before = path.stat().st_size if path.exists() else 0
    if 0 < size_before < 2 * PAGE:
        raise Damaged(f"{size_before} bytes are left of it")
    options = {
        "map_size": map_size,
        "mode": 0o600,
        # The engine of LMDB 1.0 aborts the process with a written map, in ordinary use.
        "lib_version": 0,
        "sync": False,
        "metasync": False,
        "max_readers": _MAX_READERS,
        "max_spare_txns": 1,
        "max_dbs": 0,
    }
    try:
        if alone or size_before == 0:
            # It makes its first pages now: a file that is allocated, and empty, is no data file to it.
            with closing(lmdb.open(str(directory), **options)) as environment:
                used = _used(environment, path)
            whole = _stretch(path, map_size, used, take=writemap)
        else:
            # Others may be writing. They found room for all of it, or do without.
            whole = path.stat().st_blocks * BLOCK >= map_size
        environment = lmdb.open(str(directory), writemap=writemap and whole, **options)
    except (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError) as error:
        raise Damaged(str(error)) from error
    try:
        _used(environment, path)
    except Damaged:
        environment.close()
        raise
    environment.reader_check()
    return environment


def _used(environment: Any, path: Path) -> int:
    """Bytes of the file that aren't mere room. Raises `Damaged` if some of them are gone."""
    # Where the pages of the machine are larger than `PAGE`, those of LMDB are, too.
    used: int = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    # In this order: others may be writing, and the file may grow.
    size = path.stat().st_size
    if used > size:
        raise Damaged(f"{size} bytes are left of {used}")
    return used


def _stretch(path: Path, size: int, used: int, *, take: bool) -> bool:
    """Make the file as long as it may become, while nobody else has it open; whether it has room on the disk
    for all of that, which is to be taken.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if take:
            try:
                allocate(descriptor, size)
                return True
            except OSError as error:
                # Some file systems have taken a part.
                os.ftruncate(descriptor, used)
                _tell_of_no_room(path, size, error)
        # LMDB doesn't write pages at the end that were freed in the transaction they come from, so a file
        # that grows with what is written may be too short. One that has its length from the beginning is that
        # only if somebody cut it off, and then whoever touches what is missing would be killed.
        with suppress(OSError):
            os.ftruncate(descriptor, max(size, used))
        return False
    finally:
        os.close(descriptor)


def _tell_of_no_room(path: Path, size: int, error: OSError) -> None:
    space = os.statvfs(path)
    logger.warning(
        "No room for a shared cache of %s in %s (%s free: %s); it works with what there is, and writes "
        "take twice as long. Choose a smaller max_bytes or another directory",
        in_words(size),
        path.parent,
        in_words(space.f_bavail * space.f_frsize),
        error.strerror,
    )


def never_close(environment: object) -> None:
    """Keep what a child inherited from ever being closed, at exit too: it would wipe the parent's readers."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(environment))
