"""What has to leave a store as soon as it can be used again."""

from __future__ import annotations

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

    Reads go by the debts until they are paid.
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

    def add(self, keys: Iterable[str] | None) -> None:
        """Owe these keys; None for all that there are."""
        debt = object()
        if keys is None or len(self._keys) > _MOST:
            self._all = debt
            self._near.forget()
        for key in keys or ():
            self._near.drop(key)
            self._keys[key] = debt
        self.exist = True

    def cover(self, key: str) -> bool:
        return self.exist and (self._all is not None or key in self._keys)

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
        self._strike_out(keys)
        if self._all is everything:
            self._all = None
        self._note()
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
        self._strike_out(paid)
        self._note()
        return Paid(list(paid), False)

    def _strike_out(self, paid: dict[str, object]) -> None:
        for key, debt in paid.items():
            if (newer := self._keys.pop(key, debt)) is not debt:
                self._keys[key] = newer

    def _note(self) -> None:
        self.exist = False
        if self._keys or self._all is not None:
            self.exist = True
