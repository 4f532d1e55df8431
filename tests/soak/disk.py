"""A file system so small that a soak can fill it, mounted where nobody else sees it."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from pathlib import Path

_CLONE_NEWNS = 0x00020000


def leave_mounts() -> bool:
    """Give this process mounts of its own, which go with it and its children. False: that isn't allowed."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS):
        return False
    return _succeeds("mount", "--make-rprivate", "/")


class SmallDisk:
    """`mounted` is False where that isn't allowed; then nothing is ever full."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        path.mkdir()
        options = f"size={size},mode=700"
        self.mounted = leave_mounts() and _succeeds("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path))
        self._taken = path / "taken"

    def fill(self, left: int = 0) -> None:
        """Take all the room there is, but for so many bytes."""
        if not self.mounted:
            return
        with self._taken.open("ab", buffering=0) as file:
            free = os.statvfs(self.path)
            room = free.f_bavail * free.f_frsize - left
            try:
                while room > 0:
                    room -= file.write(b"x" * min(room, 1 << 20))
            except OSError as error:
                # Others write there, too.
                if error.errno != errno.ENOSPC:
                    raise

    def free(self) -> None:
        self._taken.unlink(missing_ok=True)

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.path)], check=True)


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False
