"""The files of a shared store, kept open: also when others remove or damage them, and after a fork."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any
from weakref import WeakSet

from quickcache_core.errors import ConfigError, StoreUnavailable
from quickcache_core.sizes import in_words
from quickcache_core.store.near import NO_REFERENCES, NO_STAMPS, NearStore
from quickcache_core.store.shared.directory import DATA, SharedDirectory
from quickcache_core.store.shared.environment import (
    BLOCK,
    Damaged,
    load_lmdb,
    never_close,
    open_environment,
)
from quickcache_core.store.shared.fork_mark import fork_mark
from quickcache_core.store.shared.guard import WriterGuard
from quickcache_core.store.shared.leases import Leases
from quickcache_core.store.shared.words import Words, sizes_are_right

logger = logging.getLogger(__name__)

_LOOK = 1.0
"""Seconds between two looks at whether the files are still the same, and between two attempts to open them.
"""
_SETTLE = 0.25
"""Seconds that a write to files that were replaced gets to its end; longer ones are of stopped processes."""
_READER_CHECK = 60.0
_REPORT = 60.0
"""Seconds between two outages that are logged."""
_WRONG_PATH = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_GRACE = 30.0
"""Seconds after which no thread can still be using files that were replaced."""


class OpenFiles:
    """Of one directory and process, for any thread, and for a child after a fork.

    Every method that needs the files raises `StoreUnavailable` while they can't be used, at once and without
    trying more often than once a second; what is wrong is logged once per outage.
    """

    words: Words

    def __init__(self, path: Path, map_size: int, patience: float, *, writemap: bool = True) -> None:
        self.path = path
        self.patience = patience
        self.map_size = map_size
        self._disk_room: int | None = None
        self._writemap = writemap
        self._lmdb = load_lmdb()
        self.directory = SharedDirectory(path)
        self._nears: WeakSet[NearStore] = WeakSet()
        self._retired: list[tuple[float, tuple[int, ...] | None, Any]] = []
        """When to close it, which files it is about, the environment."""
        self._damage = ""
        self._outage = ""
        self._is_reported = False
        self._next_report = 0.0
        self._identity: tuple[int, ...] | None = None
        self._data_identity: tuple[int, ...] | None = None
        self._next_look = self._next_reader_check = self._retry_at = 0.0
        self.pid = os.getpid()
        self._mark = fork_mark()
        """0 in a child that has yet to learn of it, see `ready`."""
        self._mark[0] = 1
        self._environment: Any = None
        self.guard = WriterGuard(-1, patience)
        """A thread that finds itself its owner, where it begins a write, is running a finaliser in the middle
        of another one."""
        self.leases = Leases(-1)
        self.epoch = object()
        """Another one whenever the files are others, so that labels mean nothing any more."""
        self._opening = threading.RLock()
        self._fork_lock = threading.Lock()

    def open(self) -> None:
        """Raises `ConfigError` where the settings or the machine have to be changed, else as all others."""
        with self._opening:
            if self._environment is None or self.pid != os.getpid():
                try:
                    self._reopen(first=True)
                except ConfigError:
                    self.directory.close()
                    raise

    @property
    def is_open(self) -> bool:
        """Whether this process has the files open."""
        return self._environment is not None and self.pid == os.getpid()

    def close(self) -> None:
        """Let go of the files. The caller sees to it that no other thread uses them; a later use opens them
        again.
        """
        with self._opening:
            if self.pid != os.getpid():
                return
            if self._environment is not None:
                self._environment.close()
                self._environment = None
            for _, _, environment in self._retired:
                environment.close()
            self._retired = []
            if self._identity is not None:
                # Whoever holds a view of them keeps the files mapped, each with a descriptor.
                self._identity = self._data_identity = None
                for near in list(self._nears):
                    near.replace_store(NO_STAMPS, NO_REFERENCES)
                self.guard = WriterGuard(-1, self.patience)
                self.leases.end()
                self.epoch = object()
                del self.words
            self.directory.close()

    def attach(self, near: NearStore) -> None:
        """Keep a near store on the files in use."""
        with self._opening:
            self._nears.add(near)
            if self._identity is not None:
                near.replace_store(self.words.stamps, self.words.references)

    @property
    def room(self) -> int:
        """Bytes that the entries may take: the map, or what the disk had left of it."""
        return self.map_size if self._disk_room is None else self._disk_room

    def _disk_is_full(self, error: Exception) -> bool:
        """Whether it is that, which can only be where the room could not be taken at the start."""
        code = getattr(error, "code", getattr(error, "errno", 0))
        # LMDB calls it an input/output error when a part of the data found room.
        if code not in (errno.ENOSPC, errno.EDQUOT, errno.EIO) or self._opened().flags()["writemap"]:
            return False
        if self._disk_room is None:
            try:
                self._disk_room = (self.path / DATA).stat().st_blocks * BLOCK
            except OSError:
                # Somebody removed it; soon all go over to another one.
                return False
            logger.warning(
                "The disk of the shared cache in %s is full; it goes on with the %s that it has",
                self.path,
                in_words(self._disk_room),
            )
        return True

    # Opening

    def _opened(self) -> Any:
        if self._environment is None:
            # Another thread found the files replaced, and is about to open others.
            self._reopen()
        environment = self._environment
        if environment is None:
            raise StoreUnavailable(f"{self.path}: {self._outage or 'it is being opened'}")
        return environment

    def ready(self) -> None:
        """Have the files open, and still the same ones."""
        if not self._mark[0]:
            # uWSGI's master forks without telling Python. Whoever comes second finds it done.
            with self._fork_lock:
                if not self._mark[0]:
                    self.after_fork_in_child(held=False)
        if self._environment is None:
            self._reopen()
        elif time.monotonic() >= self._next_look:
            self.look()

    def look(self) -> None:
        """Go over to other files if somebody replaced them, and let LMDB clean up after killed readers."""
        now = time.monotonic()
        self._next_look = now + _LOOK
        if self._environment is None or self.directory.identity() != self._identity:
            self._give_up_environment()
            self._reopen()
        if now >= self._next_reader_check:
            self.free_readers()
        if self._retired or self.directory.replaced:
            self._close_retired(now)

    def _close_retired(self, now: float) -> None:
        """Let go of the replaced files whose grace is over."""
        # Whoever opens files may be taking some of them back: then the next look is soon enough.
        opening = self._opening
        if not opening.acquire(False):
            return
        try:
            while self._retired and self._retired[0][0] < now:
                self._retired.pop(0)[2].close()
            if self.directory.replaced and not self._retired:
                self.directory.close_replaced()
        finally:
            opening.release()

    def free_readers(self) -> None:
        """Killed readers keep pages from being used again until somebody strikes them off."""
        self._next_reader_check = time.monotonic() + _READER_CHECK
        try:
            self._environment.reader_check()
        except (self._lmdb.Error, AttributeError) as error:
            logger.debug("No check of readers: %s", error)

    def _reopen(self, *, first: bool = False) -> None:
        with self._opening:
            if self._environment is not None:
                return
            now = time.monotonic()
            if now < self._retry_at:
                raise StoreUnavailable(f"{self.path}: {self._outage}")
            try:
                self._open()
            except (self._lmdb.Error, Damaged, ConfigError, OSError, StoreUnavailable) as error:
                self._retry_at = now + _LOOK
                if first and isinstance(error, ConfigError):
                    raise
                if first and isinstance(error, OSError) and error.errno in _WRONG_PATH:
                    raise ConfigError(
                        "location",
                        f"shared://{self.path}",
                        f"{error.strerror}: {error.filename}; name a directory that this process can use",
                    ) from error
                raise self._failed(error) from error
            if self._outage:
                self._recovered()

    def _open(self) -> None:
        directory = self.directory
        with directory.opening() as alone:
            self.map_size = directory.admit(alone, self.map_size)
            if self._damage and directory.data_identity() == self._data_identity:
                directory.set_aside(self._damage)
            self._damage = ""
            if not sizes_are_right(self.path):
                directory.set_aside("a file of it was shortened")
            environment = self._taken_back()
            try:
                environment = environment or self._open_environment(alone)
            except Damaged as damage:
                directory.set_aside(str(damage))
                environment = self._open_environment(alone)
            former = self.guard
            # A thread in the middle of a write to the former files would stamp these with numbers of those.
            held = former.hold_writers(_SETTLE)
            try:
                self.words = Words(self.path)
                self.guard = WriterGuard(directory.write_lock, self.patience, self.words.stamps)
            finally:
                if held:
                    former.let_writers_go()
            directory.stay()
        identity = directory.identity()
        if identity != self._identity:
            self.epoch = object()
        if self.leases.descriptor != directory.lease_lock:
            self.leases.end()
            leases = Leases(directory.lease_lock)
            leases.give_back_all()
            self.leases = leases
        self._identity, self._data_identity = identity, directory.data_identity()
        self._next_look = time.monotonic() + _LOOK
        for near in list(self._nears):
            near.replace_store(self.words.stamps, self.words.references)
        self._environment = environment

    def _taken_back(self) -> Any:
        """The environment of files that were out of reach, and are back: a second one must not be opened."""
        identity = self.directory.data_identity()
        for retired in self._retired:
            if identity is not None and retired[1] == identity:
                self._retired.remove(retired)
                return retired[2]
        return None

    def _open_environment(self, alone: bool) -> Any:
        # These take their room first: a map that finds less works with that, they can't.
        Words(self.path)
        return open_environment(self.path, self.map_size, self._writemap, alone=alone)

    def _failed(self, error: Exception) -> StoreUnavailable:
        """Note an outage, and log it if it is a new one."""
        lmdb = self._lmdb
        if isinstance(error, lmdb.ReadersFullError):
            self.free_readers()
        damaged = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.PanicError, lmdb.InvalidError)
        if isinstance(error, damaged):
            self._damage = str(error)
            self._give_up_environment()
        reason = f"{type(error).__name__}: {error}"
        if not self._outage:
            # One that comes and goes fills no log.
            self._is_reported = time.monotonic() >= self._next_report
            if self._is_reported:
                self._next_report = time.monotonic() + _REPORT
                logger.error("The shared cache in %s can't be used: %s", self.path, reason)
        self._outage = reason
        return StoreUnavailable(f"{self.path}: {reason}")

    def _give_up_environment(self) -> None:
        with self._opening:
            if self._environment is not None:
                # Threads may be in the middle of using it.
                self._retired.append((time.monotonic() + _GRACE, self._data_identity, self._environment))
                self._environment = None
                for near in list(self._nears):
                    near.replace_store(self.words.stamps, self.words.references)

    def _recovered(self) -> None:
        self._outage = ""
        if self._is_reported:
            logger.warning("The shared cache in %s works again", self.path)

    # Forks

    def before_fork(self) -> bool:
        held = self._identity is not None and self.guard.hold_writers(_LOOK)
        if held and threading.active_count() == 1 and self._environment is not None:
            # Nobody can be using it. Both sides open it anew when they need it, and nothing is inherited.
            self._environment.close()
            self._environment = None
        return held

    def after_fork_in_parent(self, held: bool) -> None:
        if held:
            self.guard.let_writers_go()

    def after_fork_in_child(self, held: bool) -> None:
        self._opening = threading.RLock()
        for environment in (self._environment, *(one[2] for one in self._retired)):
            if environment is not None:
                never_close(environment)
        self._retired = []
        self._environment = None
        self._retry_at = 0.0
        self.leases.end()
        self.leases = Leases(self.directory.lease_lock)
        words = None if self._identity is None else self.words.stamps
        self.guard = WriterGuard(self.directory.write_lock, self.patience, words)
        self.pid = os.getpid()
        # Last: for other threads it is the sign that all of this is done.
        self._mark[0] = 1
