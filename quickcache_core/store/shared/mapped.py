"""Files that all processes of a host have mapped into their memory."""

from __future__ import annotations

import mmap
import os
from pathlib import Path


def mapped(path: Path, size: int) -> memoryview:
    """The bytes of a file of `size` bytes, shared with everybody who maps it; made, full of zeros, if needed.

    Its room on the disk is taken at once: a write to a mapped file that finds the file system full would kill
    the process (SIGBUS). Raises `OSError`, with ENOSPC where there is no room. The mapping lives as long as
    somebody holds the result, and stays common to parent and child over a fork.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        allocate(descriptor, size)
        return memoryview(mmap.mmap(descriptor, size))
    finally:
        os.close(descriptor)


def allocate(descriptor: int, size: int) -> None:
    """Take the room for `size` bytes on the disk; what is there stays. Raises `OSError`."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    # macOS. Zeros are written where the file has not been yet.
    end = os.lseek(descriptor, 0, os.SEEK_END)
    while end < size:
        end += os.pwrite(descriptor, bytes(min(size - end, 1 << 20)), end)
