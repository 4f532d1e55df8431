"""What is made up for when the servers answer again."""

from __future__ import annotations

from time import monotonic
from typing import Final, NamedTuple

from quickcache_core.store.debts import Debts
from quickcache_core.store.redis.client import Refused
from quickcache_core.store.redis.names import tail_of
from quickcache_core.store.redis.table import Table

_DOUBT: Final = 1.0
"""Seconds after which a server that hung has carried out what it had received before."""


class _Doubt(NamedTuple):
    due: float
    """Monotonic seconds."""
    keys: list[str]
    given: tuple[int, int]
    """Nonces of the writes in question."""


class Recovery:
    """Pays the debts of one store, and looks again a second later: a write that nobody waited for any more
    may have been carried out after its key was removed.
    """

    def __init__(self, debts: Debts, table: Table) -> None:
        self._debts = debts
        self._table = table
        self._doubts: list[_Doubt] = []

    @property
    def is_due(self) -> bool:
        doubts = self._doubts
        return self._debts.exist or bool(doubts and doubts[0].due <= monotonic())

    def settle(self) -> None:
        """Raises `StoreUnavailable`."""
        given = self._table.nonces.given()
        try:
            paid = self._debts.settle()
        except Refused:
            return  # as before: reads go by the debts
        if paid.keys and not paid.everything:
            self._doubts.append(_Doubt(monotonic() + _DOUBT, paid.keys, given))

    def sweep(self) -> None:
        """What is due. Raises `StoreUnavailable`."""
        if self._debts.exist:
            self.settle()
        while self._doubts and self._doubts[0].due <= monotonic():
            try:
                doubt = self._doubts.pop(0)
            except IndexError:
                return  # another thread has it
            try:
                self._table.forget_own([tail_of(key) for key in doubt.keys], doubt.given)
            except BaseException:
                self._doubts.append(doubt)
                raise
