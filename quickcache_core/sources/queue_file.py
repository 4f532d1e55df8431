"""The SQLite file of durable queues: opening it, one transaction after the other, forks, damage."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar
from zlib import crc32

from quickcache_core.errors import ConfigError, StoreUnavailable
from quickcache_core.maintenance import _will_be_forked_by_uwsgi, maintenance

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FORMAT: Final = 1
_PATIENCE: Final = 5.0
"""Seconds that a transaction waits for those of other processes, and a fork for one of this process."""
_CORRUPT, _NOT_A_DATABASE = 11, 26
_DAMAGED: Final = (_CORRUPT, _NOT_A_DATABASE)
"""Result codes of SQLite's, in their lowest byte."""

# Dead letters have an `error`. Counted by triggers: counting rows would take time by their number.
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS writes (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL, key BLOB NOT NULL, version INTEGER NOT NULL,
    format TEXT NOT NULL, value BLOB, since REAL NOT NULL, error TEXT,
    UNIQUE (name, key));
CREATE INDEX IF NOT EXISTS writes_in_line ON writes (name, error, place);
CREATE TABLE IF NOT EXISTS totals (name TEXT PRIMARY KEY, number INTEGER NOT NULL);
CREATE TRIGGER IF NOT EXISTS one_more AFTER INSERT ON writes BEGIN
    INSERT INTO totals VALUES (new.name, 1) ON CONFLICT (name) DO UPDATE SET number = number + 1; END;
CREATE TRIGGER IF NOT EXISTS one_less AFTER DELETE ON writes BEGIN
    UPDATE totals SET number = number - 1 WHERE name = old.name; END;
"""


class QueueFile:
    """One per path and process: what is committed survives the process, and a crash of it.

    The connection is closed before a fork, since SQLite's locks don't survive one, and opened again when it
    is needed. A power failure may take the last moments with it; the file stays whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._opened_by = 0
        self._locks = -1
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._flushing: set[str] = set()
        self._pid = os.getpid()

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Carry out `work`, a single statement that changes nothing. Waits for nobody. Errors as with
        `run`.
        """
        return self._guarded(lambda: work(self._opened()))

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Carry out `work` in one transaction, in which no other thread or process writes.

        Raises `StoreUnavailable`; then nothing was changed. A damaged file is set aside.
        """
        return self._guarded(lambda: self._transaction(work))

    def _guarded(self, action: Callable[[], T]) -> T:
        self._note_fork()
        with self._lock:
            try:
                return self._mended(action)
            finally:
                if _will_be_forked_by_uwsgi():
                    self.close()

    def _mended(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF not in _DAMAGED:
                raise self._unavailable(error) from error
            self._set_aside(error)
        except OSError as error:
            raise self._unavailable(error) from error
        try:
            return action()
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(
            f"The queue of writes in {self.path}: {error}; check the disk and who uses it"
        )

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._opened()
        if connection.in_transaction:  # a finaliser, in the middle of a transaction of this very thread
            return work(connection)
        connection.execute("BEGIN IMMEDIATE")
        try:
            answer = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return answer

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self._identity == _identity(self.path):
                return self._connection
            # Somebody set it aside, or removed it.
            self.close()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _check_owner(self.path, os.fstat(descriptor))
        finally:
            os.close(descriptor)
        connection = sqlite3.connect(
            self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
            # What is committed survives this process; NORMAL syncs at checkpoints only.
            connection.execute("PRAGMA synchronous=NORMAL")
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._opened_by = os.getpid()
        self._identity = _identity(self.path)
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found == _FORMAT:
            return
        if found:
            raise ConfigError("queue", str(self.path), f"it has format {found}, this version {_FORMAT}")
        connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={_FORMAT}; COMMIT")

    def close(self) -> None:
        """It is opened again when it is used."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        damaged = self._identity or _identity(self.path)
        try:
            self.close()
        except sqlite3.Error as another:
            logger.debug("The damaged file didn't close: %s", another)
        locks = self._lock_file()
        fcntl.lockf(locks, fcntl.LOCK_EX, 1, 0)
        try:
            if _identity(self.path) != damaged:
                return  # another process did it
            aside = f"{self.path}.broken-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
            for ending in ("", "-wal", "-shm"):
                try:
                    os.rename(f"{self.path}{ending}", f"{aside}{ending}")  # noqa: PTH104
                except FileNotFoundError:
                    pass
            logger.error(
                "The queue of writes in %s is damaged (%s). It was moved to %s, with whatever had not been "
                "written to the source; the queue starts empty",
                self.path,
                error,
                aside,
            )
        finally:
            fcntl.lockf(locks, fcntl.LOCK_UN, 1, 0)

    # Who may flush

    @contextmanager
    def flushing(self, name: str) -> Iterator[bool]:
        """The kernel drops the lock with the process that has it."""
        self._note_fork()
        byte = 1 + crc32(name.encode(errors="surrogatepass"))
        with self._lock:
            # The lock is the process's, and would let its other threads in.
            mine = name not in self._flushing and self._try_lock(byte)
            if mine:
                self._flushing.add(name)
        try:
            yield mine
        finally:
            if mine:
                with self._lock:
                    self._flushing.discard(name)
                    fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, byte)

    def _try_lock(self, byte: int) -> bool:
        try:
            fcntl.lockf(self._lock_file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise StoreUnavailable(f"{self._lock_path}: {error}; check the directory") from error
        return True

    @property
    def _lock_path(self) -> Path:
        return self.path.with_suffix(".lock")

    def _lock_file(self) -> int:
        """Its descriptor. There must not be a second one: closing it would drop the locks."""
        if self._locks >= 0 and not self._flushing:
            try:
                if not os.path.samestat(os.fstat(self._locks), self._lock_path.stat()):
                    raise FileNotFoundError
            except FileNotFoundError:
                os.close(self._locks)
                self._locks = -1
        if self._locks < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._locks = os.open(self._lock_path, flags, 0o600)
        return self._locks

    # At forks, see `maintenance.Member`

    def sweep(self) -> None:
        pass

    def before_fork(self) -> bool:
        if not self._lock.acquire(timeout=_PATIENCE):
            return False
        if self._connection is not None and not self._connection.in_transaction:
            self.close()
        return True

    def after_fork_in_parent(self, held: bool) -> None:
        if held:
            self._lock.release()

    def after_fork_in_child(self, held: bool) -> None:
        self._reset()

    def _note_fork(self) -> None:
        if self._pid != os.getpid():
            # uWSGI's master forks without telling Python.
            self._reset()
        if self._connection is not None and self._opened_by != self._pid:
            raise StoreUnavailable(
                f"{self.path} was in use when this process was forked, which SQLite doesn't survive; "
                "use the cache after the fork only (uWSGI: lazy-apps)"
            )


class QueueFiles:
    """For the life of the process, since there must be one set of locks per file."""

    def __init__(self) -> None:
        self._files: dict[str, QueueFile] = {}
        self._lock = threading.RLock()

    def get(self, path: Path) -> QueueFile:
        """Raises `ConfigError` for a path that can't be a queue."""
        if not path.is_absolute():
            raise ConfigError("queue", str(path), "give an absolute path")
        if not path.parent.is_dir():
            raise ConfigError("queue", str(path), "its directory doesn't exist; make it first")
        if path.exists():
            _check_owner(path, path.stat())
        real = os.path.realpath(path)
        with self._lock:
            file = self._files.get(real)
            if file is None:
                file = self._files[real] = QueueFile(Path(real))
                maintenance.adopt(file)
            return file

    def after_fork_in_child(self) -> None:
        self._lock = threading.RLock()


queue_files: Final = QueueFiles()
os.register_at_fork(after_in_child=queue_files.after_fork_in_child)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _check_owner(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError("queue", str(path), "this is no file; name one, it is made if it is missing")
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ConfigError(
            "queue",
            str(path),
            "it belongs to another user, or others may write to it; chmod 600, or name another",
        )
