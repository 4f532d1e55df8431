"""LMDB, opened so that forks, crashes and full disks do no harm."""

from __future__ import annotations

import ctypes
import logging
import os
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
        if size_before == 0:
            # It makes its first pages now: a file that is allocated, and empty, is no data file to it.
            lmdb.open(str(directory), **options).close()
            alone = True
        writemap = writemap and _allocate(path, map_size, alone)
        environment = lmdb.open(str(directory), writemap=writemap, **options)
    except (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError) as error:
        raise Damaged(str(error)) from error
    wanted = (environment.info()["last_pgno"] + 1) * PAGE
    # In this order: others may be writing, and the file grows.
    size = path.stat().st_size
    if size_before and wanted > size:
        environment.close()
        raise Damaged(f"{size} bytes are left of {wanted}")
    environment.reader_check()
    return environment


def _allocate(path: Path, size: int, alone: bool) -> bool:
    """Take the room on the disk; whether there was enough."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    length = os.fstat(descriptor).st_size
    try:
        if length < size and not alone:
            # Others found no room, and go on without. To take a part of it and to give that back could cut
            # off what they write meanwhile.
            logger.info("The processes that use the shared cache in %s do without room for it", path.parent)
            return False
        allocate(descriptor, size)
    except OSError as error:
        # Some file systems have taken a part.
        os.ftruncate(descriptor, length)
        space = os.statvfs(path)
        logger.warning(
            "No room for a shared cache of %s in %s (%s free: %s); it works with what there is, and writes "
            "take twice as long. Choose a smaller max_bytes or another directory",
            in_words(size),
            path.parent,
            in_words(space.f_bavail * space.f_frsize),
            error.strerror,
        )
        return False
    finally:
        os.close(descriptor)
    return True


def never_close(environment: object) -> None:
    """Keep what a child inherited from ever being closed, at exit too: it would wipe the parent's readers."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(environment))
