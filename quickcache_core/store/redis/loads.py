"""Values that are being loaded, and whether they may still be stored when they come."""

from __future__ import annotations

from quickcache_core.errors import StoreUnavailable
from quickcache_core.store.debts import Debts
from quickcache_core.store.near import WHOLE
from quickcache_core.store.record import labelled
from quickcache_core.store.redis.known import Near
from quickcache_core.store.redis.names import slot_of, tail_of
from quickcache_core.store.redis.table import Load, Table


class Token:
    """What the beginning of a load is remembered by."""

    __slots__ = ("born", "debt", "label", "load")

    def __init__(self, load: Load | None, born: int, debt: object) -> None:
        self.load = load
        """None: the server could not be asked, and the value won't be stored."""
        self.born = born
        """The sequence of invalidations of that time."""
        self.debt = debt
        self.label = 0 if load is None else load.label
        """Up to this state of the near store it is known that nobody changed the key."""


class Loads:
    """A load marks its key on the server with a placeholder, or finds the mark of the last write there:
    whatever changes or removes the key takes the mark away, plain SET and DEL included.
    """

    def __init__(self, table: Table, near: Near, debts: Debts) -> None:
        self._table = table
        self._near = near
        self._debts = debts

    def begin(self, key: str) -> Token:
        """Raises `StoreUnavailable`."""
        debt = self._debts.mark(key)
        load = self._table.begin_load(tail_of(key))
        return Token(load, self._table.known.sequence(), debt)

    def begin_without_server(self, key: str) -> Token:
        return Token(None, 0, self._debts.mark(key))

    def is_overtaken(self, key: str, token: Token, tags: tuple[int, ...]) -> bool:
        """While the server is away, by what this process did."""
        if self._debts.mark(key) != token.debt:
            return True
        try:
            if token.load is None:
                # If it is back, others may have changed the key, of which nobody knows.
                self._table.client.call(b"PING")
                return True
            return self._is_changed(token, token.load) or self._are_invalidated(tags, token.born)
        except StoreUnavailable:
            return False

    def _is_changed(self, token: Token, load: Load) -> bool:
        label = self._near.label()
        generation, is_sure = self._table.known.generation(label)
        if is_sure:
            if generation != load.generation:
                return True
            stamps = self._near.stamps
            if stamps[slot_of(load.name)] <= token.label and stamps[WHOLE] <= token.label:
                return False
        if self._table.is_changed(load):
            return True
        token.label = label
        return False

    def _are_invalidated(self, tags: tuple[int, ...], born: int) -> bool:
        if not tags:
            return False
        numbers = self._table.known.tags(tags).values()
        if None in numbers and self._table.known.sequence() > born:
            return True
        return any(number is not None and number > born for number in numbers)

    def overtake(self, prefix: str) -> None:
        """Let no value be stored whose load has begun, and whose key begins so. Raises `StoreUnavailable`."""
        # A load's mark is there from before the scan until its end, so none is missed.
        for tails in self._table.scan(tail_of(prefix)):
            self._table.mark_anew(tails)

    def put(self, key: str, token: Token, record: bytes, px: int | None, tags: tuple[int, ...]) -> bool:
        """Store what was loaded, unless it may be outdated. Raises `StoreUnavailable`."""
        if token.load is None or self._debts.mark(key) != token.debt:
            return False
        if tags:
            numbers, _ = self._table.known.introduce(tags)
            if any(number > token.born for number in numbers.values()):
                return False
        return self._table.put_load(token.load, labelled(record, token.born), px)
