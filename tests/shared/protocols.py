"""Eight protocols that look right and aren't. The oracle must find each of them out.

Each replaces how a shared table labels what it has read, and what it stamps when it commits. All keep the
rule that an entry is valid while no stamp of its slots is above its label.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.shared.board import COUNTER, Board

Nap = Callable[[], None]


class Right:
    """Stamped with the transaction's id before the commit; labelled with the snapshot's."""

    def __init__(self, board: Board, nap: Nap, committed: Nap, subject: Any) -> None:
        self.words = board.words
        self.nap = nap
        self.committed = committed
        self.stamps: Callable[[Any], Any] = subject.stamps
        self.table_begin_read = subject.SharedTable._begin_read
        self.table_commit = subject.SharedTable._commit

    def begin_read(self, table: Any, slot: int) -> tuple[Any, int]:
        return self.table_begin_read(table, slot)

    def commit(self, table: Any, txn: Any, slots: Any) -> int:
        return self.table_commit(table, self.slow(txn), slots)

    def slow(self, txn: Any) -> Slow:
        return Slow(txn, self.nap, self.committed)

    # For the wrong ones

    def counter(self) -> int:
        """Counts up with each stamping, from above all ids of transactions."""
        return (1 << 40) + self.words[COUNTER]

    def bump(self, table: Any, slots: Any) -> int:
        self.words[COUNTER] += 1
        label = self.counter()
        for slot in slots:
            self.stamps(table)[slot] = label
        self.nap()
        return label


class NoStamps(Right):
    """Nobody hears of a write."""

    def commit(self, table: Any, txn: Any, slots: Any) -> int:
        label = txn.id()
        self.slow(txn).commit()
        return label


class BumpAfter(Right):
    """The stamp comes after the commit: in between, others still serve the old value."""

    def begin_read(self, table: Any, slot: int) -> tuple[Any, int]:
        label = self.counter()
        self.nap()
        return self.table_begin_read(table, slot)[0], label

    def commit(self, table: Any, txn: Any, slots: Any) -> int:
        self.slow(txn).commit()
        return self.bump(table, slots)


class BumpBefore(Right):
    """The stamp comes before the commit: who reads in between labels the old value as new."""

    def begin_read(self, table: Any, slot: int) -> tuple[Any, int]:
        label = self.counter()
        self.nap()
        return self.table_begin_read(table, slot)[0], label

    def commit(self, table: Any, txn: Any, slots: Any) -> int:
        label = self.bump(table, slots)
        self.slow(txn).commit()
        return label


class BumpBoth(BumpBefore):
    """Before and after: who reads before the commit is still served after it, up to the second stamp; and
    for ever, if the writer dies in between.
    """

    def commit(self, table: Any, txn: Any, slots: Any) -> int:
        self.bump(table, slots)
        self.slow(txn).commit()
        return self.bump(table, slots)


class LabelFromStamp(Right):
    """Right stamps, but an entry is labelled with the stamp that its reader found."""

    def begin_read(self, table: Any, slot: int) -> tuple[Any, int]:
        txn, _ = self.table_begin_read(table, slot)
        return txn, max(self.stamps(table)[slot], self.stamps(table)[0])


class NoTagStamps(Right):
    """Nobody hears of an invalidation: it reaches what is read from the files only."""

    def __init__(self, board: Board, nap: Nap, committed: Nap, subject: Any) -> None:
        super().__init__(board, nap, committed, subject)
        self.first_tag: int = subject.FIRST_TAG

    def commit(self, table: Any, txn: Any, slots: Any) -> int:
        return super().commit(table, txn, [slot for slot in slots if slot < self.first_tag])


class TagsBySnapshot(Right):
    """Right stamps, but tags are judged by when an entry was read, not by when it was written: one that was
    invalidated before it was read lives on.
    """

    def __init__(self, board: Board, nap: Nap, committed: Nap, subject: Any) -> None:
        super().__init__(board, nap, committed, subject)
        subject.judge_tags_by_snapshot()


class LoadsUnchecked(Right):
    """What was computed before a change is stored after it."""

    def __init__(self, board: Board, nap: Nap, committed: Nap, subject: Any) -> None:
        super().__init__(board, nap, committed, subject)
        subject.store_any_load()


class Slow:
    """A transaction that takes its time around the commit."""

    def __init__(self, txn: Any, before: Nap, after: Nap) -> None:
        self._txn = txn
        self._before = before
        self._after = after

    def commit(self) -> None:
        self._before()
        self._txn.commit()
        self._after()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._txn, name)


WRONG: dict[str, type[Right]] = {
    "no-stamps": NoStamps,
    "bump-after": BumpAfter,
    "bump-before": BumpBefore,
    "bump-both": BumpBoth,
    "label-from-stamp": LabelFromStamp,
    "no-tag-stamps": NoTagStamps,
    "tags-by-snapshot": TagsBySnapshot,
    "loads-unchecked": LoadsUnchecked,
}
