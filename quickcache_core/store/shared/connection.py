"""The way into the files of a shared store: transactions."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from quickcache_core.errors import StoreUnavailable
from quickcache_core.store.shared.open_files import OpenFiles

logger = logging.getLogger(__name__)

# Called with each operation: a global name is found faster than the attribute of a module.
monotonic = time.monotonic

T = TypeVar("T")
Action = Callable[..., tuple[T, bool]]
"""Gets the write transaction and the slots to be stamped, to which it may add, and what was given with it if
that isn't None; returns its result and whether it changed anything. It runs nobody else's code, and may be
run again from the start.
"""
Visit = Callable[[memoryview, memoryview], Any]
"""Gets a stored key and its record; returns what to collect, None to pass over it, or `STOP`."""

STOP = object()

_TWICE = (1, 2)
"""Attempts to have both the guard and the files that it guards."""
_CHUNK = 5_000
"""Entries visited in one read transaction, which keeps pages from being used again."""


class WriterBusy(StoreUnavailable):
    """Another process didn't let go of the writer guard in time: perhaps it is stopped."""


class Crowded(Exception):
    """There is no room for what an action wants to store. `count`: entries that have to leave first; 0 if it
    is the map that is full. `due`: some may have expired, and would leave in their place."""

    def __init__(self, count: int, *, due: bool = False) -> None:
        super().__init__(count)
        self.count = count
        self.due = due


class Connection(OpenFiles):
    """One per directory and process. Any thread may use it, and a child after a fork.

    What `OpenFiles` says of its methods holds for these.
    """

    def __init__(self, path: Path, map_size: int, patience: float, *, writemap: bool = True) -> None:
        super().__init__(path, map_size, patience, writemap=writemap)
        self.postponed: deque[Callable[[], object]] = deque()
        """Writes that finalisers asked for in the middle of a write. Each write is followed by them."""

    def read(self, raw: bytes, slot: int) -> tuple[bytes | None, int]:
        """The record, and the label of the state in which it was found."""
        # As `ready` begins, written out: this is behind every get that the near store can't answer.
        if self._environment is None or monotonic() >= self._next_look or not self._mark[0]:
            self.ready()
        try:
            txn, label = self._begin_read(slot)
            try:
                record: bytes | None = txn.get(raw)
            finally:
                txn.abort()
        except (self._lmdb.Error, OSError) as error:
            raise self._failed(error) from error
        if self._outage:
            self._recovered()
        return record, label

    def label(self, slot: int) -> int:
        """The label of the state that a read would find now."""
        self.ready()
        try:
            txn, label = self._begin_read(slot)
            txn.abort()
        except (self._lmdb.Error, OSError) as error:
            raise self._failed(error) from error
        return label

    def read_many(self, raws: list[bytes]) -> tuple[list[bytes | None], int]:
        """The records of several keys in one state of the store."""
        self.ready()
        try:
            # The slot is of use to wrong protocols only.
            txn, label = self._begin_read(0)
            try:
                records = list(map(txn.get, raws))
            finally:
                txn.abort()
        except (self._lmdb.Error, OSError) as error:
            raise self._failed(error) from error
        if self._outage:
            self._recovered()
        return records, label

    def write(
        self, action: Action[T], slots: list[int], given: Any = None, patience: float | None = None
    ) -> tuple[T, int]:
        """Run an action as the only writer of the host; its result, and the label of its outcome.

        Raises `Crowded`, and whatever the action raises; nothing has happened then. `given` is for actions
        that are run often: a method that gets all it needs is cheaper than a function made for each call.
        `patience`: seconds that it waits for other writers, if not as long as always.
        """
        for _ in _TWICE:
            # As `ready` begins, written out.
            if self._environment is None or monotonic() >= self._next_look or not self._mark[0]:
                self.ready()
            guard = self.guard
            if not guard.acquire(patience):
                raise WriterBusy(
                    f"{self.path}: another writer has had the cache for {self.patience:g} s; "
                    "look for a stopped process"
                )
            environment = self._environment
            if environment is not None and guard is self.guard:
                break
            # Another thread found the files replaced meanwhile, and these have a guard of their own.
            guard.release()
        else:
            raise StoreUnavailable(f"{self.path}: {self._outage or 'it is being opened'}")
        try:
            txn = environment.begin(None, None, True, True)
            try:
                result, changed = action(txn, slots) if given is None else action(txn, slots, given)
                if changed:
                    label = self._commit(txn, slots)
                else:
                    label = txn.id() - 1
                    txn.abort()
            except BaseException:
                txn.abort()
                raise
        except (self._lmdb.Error, OSError) as error:
            raise self._refused(error) from error
        finally:
            try:
                guard.release()
            except BaseException:
                guard.give_up()
                raise
            if self.postponed:
                self._catch_up()
        if self._outage:
            self._recovered()
        return result, label

    def _refused(self, error: Exception) -> Exception:
        if isinstance(error, self._lmdb.MapFullError) or self._disk_is_full(error):
            return Crowded(0)
        return self._failed(error)

    def _catch_up(self) -> None:
        """Do what was postponed, after a write."""
        while self.postponed:
            try:
                call = self.postponed.popleft()
            except IndexError:
                return  # another thread took the last
            try:
                call()
            except Exception as error:
                logger.error("A write by a finaliser failed (%s)", type(error).__name__)
                logger.debug("How it failed", exc_info=error)

    def scan(self, start: bytes, visit: Visit) -> Iterator[list[Any]]:
        """What `visit` collects of all records from the key `start` on, in lists, each of one state of the
        store.
        """
        while True:
            self.ready()
            try:
                found, start, more = self._scan_chunk(start, visit)
            except (self._lmdb.Error, OSError) as error:
                raise self._failed(error) from error
            yield found
            if not more:
                return

    def _scan_chunk(self, start: bytes, visit: Visit) -> tuple[list[Any], bytes, bool]:
        found: list[Any] = []
        key: Any = b""
        number = 0
        txn = self._opened().begin(buffers=True)
        try:
            cursor = txn.cursor()
            if not (cursor.set_range(start) if start else cursor.first()):
                return [], b"", False
            for key, record in islice(cursor.iternext(), _CHUNK):
                number += 1
                item = visit(key, record)
                if item is STOP:
                    return found, b"", False
                if item is not None:
                    found.append(item)
            return found, bytes(key) + b"\0", number == _CHUNK
        finally:
            txn.abort()

    def statistics(self) -> dict[str, int]:
        """LMDB's: `entries`, and pages by kind."""
        self.ready()
        try:
            figures: dict[str, int] = self._opened().stat()
        except (self._lmdb.Error, OSError) as error:
            raise self._failed(error) from error
        return figures

    def survey(self) -> tuple[dict[str, int], set[int], int]:
        """LMDB's figures (`map_size`, `last_pgno`, `num_readers` ...), the pids of those who read now or did
        with threads that they still have, and how many readers of dead processes were just struck off.
        """
        self.ready()
        try:
            environment = self._opened()
            cleaned: int = environment.reader_check()
            lines = environment.readers().splitlines()[1:]
            return environment.info(), {int(line.split()[0]) for line in lines if line.split()}, cleaned
        except (self._lmdb.Error, OSError) as error:
            raise self._failed(error) from error

    def main_database(self, txn: Any) -> Any:
        """LMDB's handle of the only database, for what takes no default."""
        return self._opened().open_db(txn=txn)

    # The protocol of coherence: tests replace these two by protocols that are wrong.

    def _begin_read(self, slot: int) -> tuple[Any, int]:
        txn = (self._environment or self._opened()).begin()
        return txn, txn.id()

    def _commit(self, txn: Any, slots: list[int]) -> int:
        # Stamped before it is committed: whoever finds the old stamp after this transaction was visible would
        # take an outdated value for valid. A writer that dies in between has stamped a key that it never
        # changed, and the next transaction, which gets the same number, makes up for it.
        label: int = txn.id()
        stamps = self.words.stamps
        for slot in slots:
            stamps[slot] = label
        txn.commit()
        return label
