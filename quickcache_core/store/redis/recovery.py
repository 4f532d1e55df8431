"""What is made up for when the servers answer again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from time import monotonic, sleep
from typing import Final, NamedTuple

from quickcache_core.errors import StoreUnavailable
from quickcache_core.store.debts import Debts
from quickcache_core.store.redis import bridge
from quickcache_core.store.redis.client import Refused
from quickcache_core.store.redis.names import tail_of
from quickcache_core.store.redis.table import Table

_DOUBT: Final = 1.0
"""Seconds after which a server that hung has carried out what it had received before."""


_PATIENCE: Final = 2.0
"""Seconds that others are waited for who pay."""
_PAUSE: Final = 0.001
_AGAIN: Final = 1.0
"""Seconds from one attempt to the next while a part of a Cluster is away."""
_MOST_SECONDS: Final = 0.05
"""Seconds that such an attempt takes."""


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
        self._again_at = 0.0
        self._pid = os.getpid()
        self._turn = [True]
        """Taken out by who pays."""

    @property
    def is_due(self) -> bool:
        doubts = self._doubts
        return self._debts.exist or bool(doubts and doubts[0].due <= monotonic())

    def settle(self, keys: Iterable[str] = ()) -> None:
        """Before something is done with these keys. Raises `StoreUnavailable`; while only some servers of a
        Cluster are away, only if one of the keys is owed still.

        One caller at a time does it, for when a server comes back, all come. The others wait: their keys may
        be among those that are owed.
        """
        self._have_settled()
        if self._debts.exist and any(map(self._debts.cover, keys)):
            raise StoreUnavailable(f"{self._table.client.address}: what it has of the key is out of date")

    def settle_if_possible(self) -> None:
        try:
            self._have_settled()
        except StoreUnavailable:
            pass  # later

    def _have_settled(self) -> None:
        turn = self._turn_here()
        until = monotonic() + _PATIENCE
        while self._debts.exist and monotonic() >= self._again_at:
            try:
                mine = turn.pop()
            except IndexError:
                if _may_wait() and monotonic() < until and not self._table.client.is_down:
                    _pause()
                    continue
                self._pay()
                return
            try:
                self._pay()
            finally:
                turn.append(mine)
            return

    def _turn_here(self) -> list[bool]:
        if self._pid != os.getpid():
            # A thread of the parent may have it.
            self._turn, self._pid = [True], os.getpid()
        return self._turn

    def _pay(self) -> None:
        given = self._table.nonces.given()
        try:
            paid = self._debts.settle()
        except Refused:
            return  # as before: reads go by the debts
        except StoreUnavailable:
            if not self._table.client.is_cluster or self._table.client.is_down:
                raise
            # Perhaps one server is away, and what is on the others can be paid.
            self._again_at = monotonic() + _AGAIN
            paid = self._debts.settle_some(_MOST_SECONDS)
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


def _may_wait() -> bool:
    """Not in the thread of an event loop but by the loop: it may be one of its tasks that is waited for."""
    if bridge.is_bridged():
        return True
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return True
    return False


def _pause() -> None:
    if bridge.is_bridged():
        bridge.wait(asyncio.sleep(_PAUSE))
    else:
        sleep(_PAUSE)
