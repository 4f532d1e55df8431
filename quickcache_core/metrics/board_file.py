"""The figures file, opened and mapped."""

from __future__ import annotations

import logging
import mmap
import os
import stat
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quickcache_core.metrics import layout as at
from quickcache_core.metrics.runtime import Unusable, boot_id, check_private

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows, where everything else works
    fcntl = None

logger = logging.getLogger(__name__)

# As in store.shared.directory: of one kind with the locks that are held meanwhile, also under gevent.
_sleep = time.sleep

_ATTEMPTS = 5
_LONGEST_PAUSE = 0.001
"""Seconds between two looks at a lock that somebody else has."""


class BoardFile:
    """One file, from opening to replacement.

    Locks are POSIX locks, which the kernel drops when a process ends, and also when a process closes *any*
    descriptor of the file: so there is one object for a file in a process, and neither the descriptor nor the
    mapping (which has a descriptor of its own) is closed while it is in use.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        # Not at exit, where slots still unlock with it; the system closes it then.
        weakref.finalize(self, os.close, descriptor).atexit = False
        info = os.fstat(descriptor)
        self.identity = info.st_dev, info.st_ino
        self._map = mmap.mmap(descriptor, at.FILE_SIZE)
        self.bytes = memoryview(self._map)
        self.words = self.bytes.cast("Q")

    def try_lock(self, offset: int) -> bool:
        """Never to be called for what this process has locked already: the lock would be lost."""
        return _try_lock(self.descriptor, offset)

    def unlock(self, offset: int) -> None:
        fcntl.lockf(self.descriptor, fcntl.LOCK_UN, 1, offset)

    def allocate_slot(self, number: int) -> None:
        """Raises `OSError` on a full file system, where to touch an unallocated page would be a SIGBUS."""
        _allocate(self.descriptor, at.slot_offset(number), at.SLOT_SIZE)


def open_board_file(path: Path, *, create: bool, patience: float = 2.0) -> BoardFile | None:
    """None if there is no file and `create` is False. Waits for other processes, `patience` seconds at most.

    A file that is no figures file, was cut off, or is from before the last start of the system is replaced.
    Raises `OSError`, among them `Unusable` for a file that must not be trusted, and `TimeoutError`.
    """
    if fcntl is None:
        raise Unusable("figures of other processes need the file locks of POSIX systems")
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    deadline = time.monotonic() + patience
    for _ in range(_ATTEMPTS):
        try:
            descriptor = os.open(path, flags, 0o600)
        except FileNotFoundError:
            if create:
                raise
            return None
        try:
            with locked(descriptor, 0, patience=deadline - time.monotonic()):
                usable = _is_usable(descriptor, path)
            if usable:
                found, descriptor = descriptor, -1
                return BoardFile(found)
        finally:
            if descriptor >= 0:
                os.close(descriptor)
    raise Unusable(f"{path} is replaced again and again; another program seems to use it")


@contextmanager
def locked(descriptor: int, offset: int, *, patience: float) -> Iterator[None]:
    """Hold a lock against other processes. Raises `TimeoutError` after `patience` seconds."""
    patience = max(patience, 0.0)
    deadline = time.monotonic() + patience
    pause = 20e-6
    # Not the kernel's queue: a process that is stopped while it has the lock must not stop the others.
    while not _try_lock(descriptor, offset):
        if time.monotonic() > deadline:
            raise TimeoutError(f"another process holds the lock of the figures for over {patience:.2g} s")
        _sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    try:
        yield
    finally:
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, offset)


def _try_lock(descriptor: int, offset: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is_usable(descriptor: int, path: Path) -> bool:
    """Make the file if it is empty. False if it isn't the one under its name any more."""
    info = os.fstat(descriptor)
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    if (there.st_dev, there.st_ino) != (info.st_dev, info.st_ino):
        return False
    check_private(info, path, stat.S_ISREG)
    if info.st_size == 0:
        _write_new(descriptor, path)
        return True
    problem = _problem(descriptor, info)
    if problem is None:
        return True
    if problem == _OTHER_VERSION and _has_users(descriptor):
        raise Unusable(f"{path} is in use by another version of QuickCache; no figures until that has ended")
    aside = path.with_name(f"{path.name}.replaced")
    path.replace(aside)
    logger.warning("Figures start anew: %s %s, and is now %s", path, problem, aside.name)
    return False


_OTHER_VERSION = "is from another version of QuickCache"


def _problem(descriptor: int, info: os.stat_result) -> str | None:
    header = memoryview(os.pread(descriptor, at.HEADER_SIZE, 0))
    if len(header) < at.HEADER_SIZE:
        return "is no figures file"
    words = header.cast("Q")
    if words[at.H_MAGIC] != at.MAGIC:
        return "is no figures file"
    if words[at.H_VERSION] != at.VERSION:
        return _OTHER_VERSION
    if info.st_size < at.FILE_SIZE:
        return "was cut off"
    if bytes(header[at.H_BOOT * at.WORD : (at.H_BOOT + 2) * at.WORD]) != boot_id():
        return "is from before the last start of the system"
    return None


def _has_users(descriptor: int) -> bool:
    # From the first slot of any version to the end; byte 0 is locked by ourselves.
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 1)
    except (BlockingIOError, PermissionError):
        return True
    fcntl.lockf(descriptor, fcntl.LOCK_UN, 0, 1)
    return False


def _write_new(descriptor: int, path: Path) -> None:
    try:
        _allocate(descriptor, 0, at.FIXED_SIZE)
        os.ftruncate(descriptor, at.FILE_SIZE)
    except OSError:
        # What is left would be taken for a file that was cut off.
        os.ftruncate(descriptor, 0)
        raise
    os.pwrite(descriptor, at.VERSION.to_bytes(at.WORD, sys.byteorder), at.H_VERSION * at.WORD)
    os.pwrite(descriptor, boot_id(), at.H_BOOT * at.WORD)
    # Last: without it the file is none of ours yet.
    os.pwrite(descriptor, at.MAGIC.to_bytes(at.WORD, sys.byteorder), at.H_MAGIC * at.WORD)


def _allocate(descriptor: int, offset: int, length: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, offset, length)
    else:  # macOS; what is allocated is free, so zeros do no harm
        os.pwrite(descriptor, bytes(length), offset)
