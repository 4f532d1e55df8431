"""Where the processes of one user find each other's files without configuration.

Not XDG_RUNTIME_DIR, and not TMPDIR: a service and a login shell of one user have different ones, and the
command that is typed into the shell shall find the workers of the service.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from quickcache_core.directories import make_directories

RUNTIME_VARIABLE: Final = "QUICKCACHE_RUNTIME_DIR"
"""Environment variable; the directory to use instead."""

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - what follows looks after its rights
_TEMPORARY = Path("/tmp")  # noqa: S108


class Unusable(OSError):
    """A file or directory that must not be trusted, or can't be used; the message says what to do."""


def runtime_directory() -> Path:
    """That of the user that this process has now; servers change it after they loaded the application."""
    given = os.environ.get(RUNTIME_VARIABLE)
    if given:
        return Path(given).absolute()
    fits = _SHARED_MEMORY.is_dir() and os.access(_SHARED_MEMORY, os.W_OK | os.X_OK)
    return (_SHARED_MEMORY if fits else _TEMPORARY) / f"quickcache-{os.geteuid()}"


def figures_path(name: str) -> Path:
    """The file for the figures of stores that are published under this name."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
    return runtime_directory() / f"{digest}.figures"


def make_private(directory: Path) -> None:
    """Make the directory unless it is there.

    Raises `Unusable` if others could read it or put files there: what they write would be obeyed.
    """
    make_directories(directory.parent)
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        pass
    is_private(directory)


def is_private(directory: Path) -> bool:
    """Whether it is there. Raises `Unusable` as `make_private`."""
    try:
        info = directory.lstat()
    except FileNotFoundError:
        return False
    check_private(info, directory, stat.S_ISDIR)
    return True


def check_private(info: os.stat_result, path: Path, is_kind: Callable[[int], bool]) -> None:
    """Raises `Unusable` unless it is of that kind (`stat.S_ISDIR` ...) and ours, others can't change it, and
    they can't read it if it is a file.
    """
    if not is_kind(info.st_mode):
        what = "symbolic link" if stat.S_ISLNK(info.st_mode) else "something else"
        raise Unusable(f"{path} is a {what}; remove it, or set {RUNTIME_VARIABLE} to another directory")
    if info.st_uid != os.geteuid():
        raise Unusable(
            f"{path} belongs to user {info.st_uid}, not to {os.geteuid()}; "
            f"remove it, or set {RUNTIME_VARIABLE} to another directory"
        )
    if info.st_mode & (0o022 if stat.S_ISDIR(info.st_mode) else 0o077):
        raise Unusable(f"{path} is open to other users (mode {stat.S_IMODE(info.st_mode):o}); chmod go= it")


def boot_id() -> bytes:
    """16 bytes that are others after each start of the system; zeros where the system has none."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
        return bytes.fromhex(text.strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)
