"""Looking at all entries: what only SCAN can tell, which goes through all names of the database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from quickcache_core.store.base import Presence
from quickcache_core.store.record import deadline_of, presence_of
from quickcache_core.store.redis import record as form
from quickcache_core.store.redis.names import tail_of
from quickcache_core.store.redis.table import HEAD_READ, Table, is_cut

_LIVE, _GONE = Presence.LIVE, Presence.ABSENT


class Seen(NamedTuple):
    tail: bytes
    stored: form.Stored


class Survey:
    """Every method may raise `StoreUnavailable`. Entries that come or go meanwhile may or may not be seen."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def heads(self, prefix: str = "") -> Iterator[list[Seen]]:
        """The heads of all records whose keys begin so, with their tags."""
        for tails in self._table.scan(tail_of(prefix)):
            replies = self._read(tails, HEAD_READ)
            if any(map(is_cut, replies)):
                replies = self._read(tails, 0)
            yield _seen(tails, replies)

    def _read(self, tails: Sequence[bytes], most: int) -> list[bytes]:
        return self._table.on_many(tails, lambda name: (b"GETRANGE", name, 0, most - 1))[0]

    def whole(self) -> Iterator[list[Seen]]:
        """All records, those aside whose tags were invalidated."""
        for tails in self._table.scan(tail_of("")):
            reads = self._table.read_many(tails)
            found = [
                Seen(tail, read.found)
                for tail, read in zip(tails, reads, strict=True)
                if read.found is not None
            ]
            states = self.states([one.stored for one in found], float("-inf"))
            yield [one for one, state in zip(found, states, strict=True) if state is not _GONE]

    def count(self) -> int:
        return sum(map(len, self.heads()))

    def expired(self) -> Iterator[list[Seen]]:
        """Those whose end has come."""
        for some in self.heads():
            now = self._table.client.now()
            yield [one for one in some if deadline_of(one.stored.record) <= now]

    def live(self, prefix: str) -> Iterator[list[bytes]]:
        for some in self.heads(prefix):
            states = self.states([one.stored for one in some], self._table.client.now())
            yield [one.tail for one, state in zip(some, states, strict=True) if state is _LIVE]

    def states(self, found: Sequence[form.Stored | None], now: float) -> list[Presence]:
        """What records, or their heads, count as for those who don't ask for stale ones."""
        tags = {tag for one in found if one is not None and one.extras is not None for tag in one.extras.tags}
        numbers = self._table.known.tags(tags) if tags else {}
        states = []
        for one in found:
            if one is None:
                states.append(_GONE)
                continue
            extras = one.extras
            if extras is not None and any(
                (number := numbers[tag]) is None or number > extras.label for tag in extras.tags
            ):
                states.append(_GONE)
                continue
            states.append(presence_of(one.record, now, extras))
        return states


def _seen(tails: Sequence[bytes], replies: Sequence[bytes]) -> list[Seen]:
    found = zip(tails, map(form.unpacked, replies), strict=True)
    return [Seen(tail, stored) for tail, stored in found if stored is not None]
