"""The directory of a shared store: whose it is, who is using it, and whether what it holds can be trusted."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from quickcache_core.directories import make_directories
from quickcache_core.errors import ConfigError, StoreUnavailable
from quickcache_core.store.shared.guard import open_lock_file

logger = logging.getLogger(__name__)

# Not looked up when it is needed: where gevent patched after this was loaded, its sleep would let another
# greenlet in, to which locks from before are no obstacle.
_sleep = time.sleep

FORMAT = 2
"""Of everything in the directory. Another number is another format."""

DATA, LOCK = "data.mdb", "lock.mdb"
STAMPS, REFS, FIGURES = "stamps.bin", "refs.bin", "stats.bin"
_OPENING, _WRITING, _LEASING, _ABOUT = "open.lock", "write.lock", "lease.lock", "about.json"
QUEUE: Final = "writes."
"""How the names of the files begin in which writes wait for a source, see `sources`."""
LOCKS: Final = "locks"
"""A directory like this one, for locks: what is in it isn't evicted or cleared with the entries."""
_OURS = {LOCKS, DATA, LOCK, STAMPS, REFS, FIGURES, _OPENING, _WRITING, _LEASING, _ABOUT}
_CONTENT = (DATA, LOCK, STAMPS, REFS)
_MAY_BE_THERE = {"lost+found", ".gitignore", ".gitkeep"}
_ASIDE = ".broken-"

_NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre"}
_NETWORK_FILE_SYSTEMS |= {"fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.gcsfuse", "beegfs"}

_OPENING_PATIENCE = 10.0
"""Seconds. Opening takes milliseconds, and its lock goes with the process that holds it."""
_OPENING_BYTE, _PRESENCE_BYTE, _SWEEPING_BYTE = 0, 1, 2


class SharedDirectory:
    """What a process does with the directory before and besides reading and writing entries.

    `open.lock` has three bytes: the first is locked while somebody opens the store, the second, shared, by
    each process that has it open, the third while somebody sweeps; all of it goes with the process. One
    object per directory and process, since closing any descriptor of a file drops a process's locks on it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opening = -1
        self.write_lock = -1
        """Descriptor of the file for the `WriterGuard`."""
        self.lease_lock = -1
        """The same for `Leases`."""
        self.replaced: list[int] = []
        """Descriptors of files that others took the place of, to be closed when nobody can be using them."""

    @contextmanager
    def opening(self) -> Iterator[bool]:
        """Make the directory if it is missing, and keep others from opening it meanwhile.

        Gives whether nobody has the store open. Raises `ConfigError` for a directory that can't be ours, and
        `OSError`.
        """
        self._make()
        self._opening = self._current(self._opening, _OPENING)
        self.write_lock = self._current(self.write_lock, _WRITING)
        self.lease_lock = self._current(self.lease_lock, _LEASING)
        _wait_for(self._opening, _OPENING_BYTE, self.path)
        try:
            yield self._lock(_PRESENCE_BYTE, fcntl.LOCK_EX)
        except BaseException:
            # Whoever comes next must not take this process for a user.
            fcntl.lockf(self._opening, fcntl.LOCK_UN, 1, _PRESENCE_BYTE)
            raise
        finally:
            fcntl.lockf(self._opening, fcntl.LOCK_UN, 1, _OPENING_BYTE)

    @contextmanager
    def sweeping(self) -> Iterator[bool]:
        """Gives whether no other process is looking for expired entries."""
        mine = self._lock(_SWEEPING_BYTE, fcntl.LOCK_EX)
        try:
            yield mine
        finally:
            if mine:
                fcntl.lockf(self._opening, fcntl.LOCK_UN, 1, _SWEEPING_BYTE)

    def stay(self) -> None:
        """Be counted as a user from now on. To be called while `opening`."""
        fcntl.lockf(self._opening, fcntl.LOCK_SH, 1, _PRESENCE_BYTE)

    def close(self) -> None:
        """Drop all descriptors, and with them all locks of this process."""
        self.replaced += [one for one in (self._opening, self.write_lock, self.lease_lock) if one >= 0]
        self._opening = self.write_lock = self.lease_lock = -1
        self.close_replaced()

    def close_replaced(self) -> None:
        while self.replaced:
            os.close(self.replaced.pop())

    def _current(self, descriptor: int, name: str) -> int:
        """A descriptor of the file that has this name now, which may be another one than it was, or one that
        was replaced before. A file must not get a second one."""
        path = self.path / name
        for known in (descriptor, *self.replaced):
            if known >= 0 and _is_of(known, path):
                break
        else:
            known = open_lock_file(path)
        if known != descriptor:
            if known in self.replaced:
                self.replaced.remove(known)
            if descriptor >= 0:
                self.replaced.append(descriptor)
        return known

    def identity(self) -> tuple[int, ...] | None:
        """Which files they are; another answer means that somebody replaced one. None: one is gone."""
        return self._inodes(*_CONTENT, _OPENING, _WRITING, _LEASING)

    def data_identity(self) -> tuple[int, ...] | None:
        """The same of the files that LMDB has open."""
        return self._inodes(DATA, LOCK)

    def _inodes(self, *names: str) -> tuple[int, ...] | None:
        try:
            # Of a list: a tuple that is filled step by step, while another thread looks at all objects of the
            # collector (as profilers do), ends in a SystemError.
            return tuple([(self.path / name).stat().st_ino for name in names])
        except OSError:
            return None

    def admit(self, alone: bool, map_size: int) -> int:
        """Let this process in, with the content if it can be trusted and without it if not.

        Returns the size of the map. Raises `ConfigError`. To be called while `opening`.
        """
        about = self.about()
        here = _surroundings()
        if not alone and about:
            if about.get("pid_namespace") != here["pid_namespace"]:
                raise ConfigError(
                    "location",
                    f"shared://{self.path}",
                    "a process of another PID namespace, such as another container, has this directory open, "
                    "and LMDB can't tell such processes apart; give each container a directory of its own, "
                    "or run them in one PID namespace",
                )
            if about.get("format") != FORMAT:
                raise ConfigError(
                    "location",
                    f"shared://{self.path}",
                    f"it is in use in format {about.get('format')!r}, this version has {FORMAT}; stop the "
                    "others, or give this version a directory of its own",
                )
            size = _map_size(about)
            if size:
                if reason := self._incomplete():
                    # The others notice, and come over.
                    self.discard(reason)
                return size
            # Maps of different sizes don't go together, and the others can't be asked. They come over.
            reason = "the description of the files doesn't say how large they are"
        else:
            reason = self._distrust(about, here) or self._incomplete()
        if reason:
            self.discard(reason)
        self._write_about({**here, "format": FORMAT, "map_size": map_size})
        return map_size

    def discard(self, reason: str) -> None:
        """Start empty."""
        found = [name for name in _CONTENT if (self.path / name).exists()]
        if found:
            logger.info("The shared cache in %s starts empty: %s", self.path, reason)
        for name in found:
            (self.path / name).unlink()

    def set_aside(self, reason: str) -> None:
        """Start empty, and keep the data for whoever wants to see what happened to it."""
        aside = self.path / f"{DATA}{_ASIDE}{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
        for old in self.path.glob(f"{DATA}{_ASIDE}*"):
            old.unlink(missing_ok=True)
        try:
            (self.path / DATA).rename(aside)
        except FileNotFoundError:
            pass
        logger.warning(
            "The shared cache was damaged (%s); it was moved to %s and starts empty", reason, aside
        )
        for name in (LOCK, STAMPS, REFS):
            (self.path / name).unlink(missing_ok=True)

    def _make(self) -> None:
        make_directories(self.path)
        check_own(self.path)

    def _distrust(self, about: dict[str, Any], here: dict[str, Any]) -> str:
        """Why the content is not to be used; nothing if it is."""
        if not about:
            return "there is no description of the files"
        if about.get("format") != FORMAT:
            return f"the files have format {about.get('format')!r}"
        for name in ("boot", "time_namespace"):
            # Deadlines are told by a clock that begins at boot; and data that was not synced may be torn.
            if about.get(name) != here[name]:
                return "the system was started anew since"
        return ""

    def _incomplete(self) -> str:
        missing = [name for name in _CONTENT if not (self.path / name).exists()]
        return f"{missing[0]} is missing" if 0 < len(missing) < len(_CONTENT) else ""

    def about(self) -> dict[str, Any]:
        """What the files are: `format`, `map_size`, and in what surroundings they were made."""
        try:
            about = json.loads((self.path / _ABOUT).read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return about if isinstance(about, dict) else {}

    def _write_about(self, about: dict[str, Any]) -> None:
        fresh = self.path / f"{DATA}.about"
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, json.dumps(about).encode())
        finally:
            os.close(descriptor)
        fresh.rename(self.path / _ABOUT)

    def _lock(self, byte: int, kind: int) -> bool:
        try:
            fcntl.lockf(self._opening, kind | fcntl.LOCK_NB, 1, byte)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True


def _map_size(about: dict[str, Any]) -> int:
    """0 if somebody edited it, and it is none."""
    size = about.get("map_size")
    return size if type(size) is int and 0 < size <= sys.maxsize else 0


def check_own(path: Path) -> None:
    """Raises `ConfigError` for what is there but can't be the directory of a store; `OSError`."""
    location = f"shared://{path}"
    found = path.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError("location", location, "this is no directory; name one")
    if found.st_uid != os.geteuid():
        raise ConfigError(
            "location",
            location,
            f"the directory belongs to user {found.st_uid}, this process runs as {os.geteuid()}; give "
            "each user a directory of its own",
        )
    if found.st_mode & 0o022:
        raise ConfigError("location", location, f"others may write into this directory; chmod 700 {path}")
    kind = file_system(path)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise ConfigError(
            "location",
            location,
            f"{kind} is a network file system, which can't be shared by mapping; name a local directory",
        )
    names = sorted(one.name for one in path.iterdir())
    ours = [name for name in names if name in _OURS or name.startswith((DATA, QUEUE))]
    for name in ours:
        _check_file(path / name, location)
    foreign = [name for name in names if name not in ours and name not in _MAY_BE_THERE]
    if foreign and not (path / _ABOUT).exists():
        raise ConfigError(
            "location",
            location,
            f"the directory has other things in it ({', '.join(foreign[:3])}); name an empty or new one",
        )


def _check_file(path: Path, location: str) -> None:
    # Others may have put it there before the directory was closed to them, to write to it later.
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    is_kind = stat.S_ISDIR if path.name == LOCKS else stat.S_ISREG
    if not is_kind(found.st_mode):
        problem = "is a symbolic link" if stat.S_ISLNK(found.st_mode) else "is no file of a cache"
    elif found.st_uid != os.geteuid():
        problem = f"belongs to user {found.st_uid}"
    elif found.st_mode & 0o022:
        problem = f"is open to others (mode {stat.S_IMODE(found.st_mode):o})"
    else:
        return
    raise ConfigError(
        "location",
        location,
        f"{path.name} in it {problem}, and may be a trap; remove what is in the directory",
    )


def file_system(path: Path) -> str:
    """The kind of file system that the path is on, as the system calls it; empty if that can't be told."""
    try:
        with Path("/proc/self/mountinfo").open() as mounts:
            device = path.stat().st_dev
            wanted = f"{os.major(device)}:{os.minor(device)}"
            for line in mounts:
                fields, _, rest = line.partition(" - ")
                if fields.split()[2] == wanted:
                    return rest.split()[0]
    except (OSError, IndexError):
        pass
    return ""


def _surroundings() -> dict[str, Any]:
    """What has to be equal for processes to share the files."""
    return {
        "boot": _first_line("/proc/sys/kernel/random/boot_id"),
        "pid_namespace": _namespace("pid"),
        "time_namespace": _namespace("time"),
    }


def _namespace(kind: str) -> str:
    try:
        return str(Path(f"/proc/self/ns/{kind}").readlink())
    except OSError:
        return ""


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _is_of(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _wait_for(descriptor: int, byte: int, path: Path) -> None:
    give_up = time.monotonic() + _OPENING_PATIENCE
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            if time.monotonic() > give_up:
                raise StoreUnavailable(
                    f"{path} has been kept by a process that is opening it for {_OPENING_PATIENCE:g} s; "
                    "is one stopped?"
                ) from None
            _sleep(0.002)
        else:
            return
