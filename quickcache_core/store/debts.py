"""What has to leave a store as soon as it can be used again."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from itertools import islice
from time import monotonic
from typing import NamedTuple

from quickcache_core.errors import StoreUnavailable
from quickcache_core.store.near import NearStore

_MOST = 10_000
"""Keys; with more, all of the cache is owed."""
_SLICE = 64
"""Keys removed at a time."""


class Paid(NamedTuple):
    """What was removed."""

    keys: list[str]
    everything: bool


class Debts:
    """Of one store: keys that were written or deleted in vain, whose old values must not be taken for new.

    Reads go by the debts until they are paid: they look before they take a record for what it says, and call
    `drop_if_owed` once they have kept it near. Looking takes no lock.
    """

    def __init__(
        self,
        near: NearStore,
        remove: Callable[[list[str]], object],
        clear: Callable[[], object],
    ) -> None:
        self._near = near
        self._remove = remove
        self._clear = clear
        self._keys: dict[str, object] = {}
        self._all: object = None
        self.exist = False
        """Whether there are any."""
        self._locks: dict[int, threading.RLock] = {}
        """By process, see `_changing`."""

    def add(self, keys: Iterable[str] | None) -> None:
        """Owe these keys; None for all that there are."""
        debt = object()
        owed = list(keys or ())
        with self._changing():
            everything = keys is None or len(self._keys) > _MOST
            if everything:
                self._all = debt
            for key in owed:
                self._keys[key] = debt
            self.exist = True
        # Not before: a read that had looked by then might keep the old value after it was dropped. One that
        # keeps it after this finds the debt.
        if everything:
            self._near.forget()
        for key in owed:
            self._near.drop(key)

    def cover(self, key: str) -> bool:
        return self.exist and (self._all is not None or key in self._keys)

    def drop_if_owed(self, key: str) -> None:
        """After something was kept near: the key may have been written in vain since that was read."""
        if self.cover(key):
            self._near.drop(key)

    def mark(self, key: str) -> object:
        """What tells whether the key was written in vain since: then it is another one."""
        return self._all, self._keys.get(key)

    def settle(self) -> Paid:
        """Remove what is owed. Raises `StoreUnavailable`."""
        # Other threads make new debts meanwhile.
        keys, everything = self._keys.copy(), self._all
        if everything is not None:
            self._clear()
        else:
            owed = iter(keys)
            while batch := list(islice(owed, _SLICE)):
                self._remove(batch)
        self._strike_out(keys, everything)
        return Paid(list(keys), everything is not None)

    def settle_some(self, seconds: float) -> Paid:
        """Remove those that can be, one by one, for so long; for a store of which a part is away."""
        paid: dict[str, object] = {}
        end = monotonic() + seconds
        if self._all is None:
            for key, debt in self._keys.copy().items():
                try:
                    self._remove([key])
                    paid[key] = debt
                except StoreUnavailable:
                    pass
                if monotonic() >= end:
                    break
        self._strike_out(paid, None)
        return Paid(list(paid), False)

    def _strike_out(self, paid: dict[str, object], everything: object) -> None:
        """All but what was owed anew meanwhile. Nothing that is owed seems to be paid for a moment."""
        with self._changing():
            owed = self._keys
            for key, debt in paid.items():
                # No method is called in between, at whose end a finaliser might run that owes the key anew.
                if key in owed and owed[key] is debt:
                    del owed[key]
            if self._all is everything:
                self._all = None
            if not owed and self._all is None:
                self.exist = False

    def _changing(self) -> threading.RLock:
        """The lock of those who change what is owed. A finaliser may do so in the middle of it."""
        # One for each process: a thread of the parent may have had it at the fork, of which servers that fork
        # in C tell nobody.
        pid = os.getpid()
        return self._locks.get(pid) or self._locks.setdefault(pid, threading.RLock())
