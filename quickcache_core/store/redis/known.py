"""Small things on the server that are needed again and again, and what is known of them in this process."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any, Final, NamedTuple, Protocol

from quickcache_core.errors import StoreUnavailable
from quickcache_core.store.near import WHOLE
from quickcache_core.store.redis.client import Client
from quickcache_core.store.redis.names import Names, is_generation, new_generation, slot_of
from quickcache_core.store.redis.scripts import (
    GENERATION,
    NEXT_GENERATION,
    NEXT_NUMBER,
    NEXT_SEQUENCE,
    NUMBER,
    RAISE,
    SEQUENCE,
)
from quickcache_core.store.redis.wiring import Command

_MOST = 10_000
"""Numbers that are kept at hand."""
_SLICE = 500
"""Commands sent in one round trip."""
MOST_DIGITS: Final = 20
"""Of a number that one of us may have written. Text of any length may be there instead."""
_TOO_LARGE: Final = 2**63
WARM_INTERVAL: Final = 20.0
"""Seconds after which the server is told of names that are in use here."""


class Near(Protocol):
    """What tells whether something that was read from the server still holds, see `near.TrackedNear`."""

    stamps: Any

    def label(self) -> int:
        """To be taken before something is read. 0: we don't hear of changes at present."""

    def wrote(self, slot: int) -> None:
        """Called after a write of one's own."""

    def drop_namespace(self, namespace: str) -> None:
        """Forget what is kept of it."""


class _Number(NamedTuple):
    value: int
    slot: int
    label: int


class Known:
    """The generation, numbers of namespaces, the sequence of invalidations and what it was for each tag.

    Everything may raise `StoreUnavailable`. While changes are heard of, what was read once costs nothing
    until it changes. Otherwise each number is asked for, and the generation is only a guess, which has to
    be checked with each operation.
    """

    def __init__(self, client: Client, names: Names, near: Near) -> None:
        self._client = client
        self._names = names
        self._near = near
        # With the label of the near store from before it was read. Together, for threads.
        self._generation: tuple[bytes, int] | None = None
        self._numbers: dict[bytes, _Number] = {}
        self._names_of: dict[str, bytes] = {}
        self._used: set[bytes] = set()
        self._warm_at = 0.0
        self.moved: Callable[[], None] = _nothing
        """Called when there is a former generation whose entries have to leave."""

    # The generation

    def generation(self, label: int) -> tuple[bytes, bool]:
        """The generation of entries, and whether that is sure to be the present one."""
        known = self._generation
        if known is not None:
            if self._near.stamps[WHOLE] <= known[1]:
                return known[0], True
            if not label:
                return known[0], False
        found: bytes = self._client.call(b"GET", self._names.generation)
        if not is_generation(found):
            found = self._client.run(GENERATION, self._names.generation, new_generation())
        self._adopt(found, label)
        return found, self._near.stamps[WHOLE] <= label

    def is_present(self, generation: bytes, found: bytes | None) -> bool:
        """Whether a guess was right, as the server says in the same exchange. If not, the right one is
        taken over.

        None means that it was lost, and with it all that was stored.
        """
        if found == generation:
            return True
        if found is None or not is_generation(found):
            found = bytes(self._client.run(GENERATION, self._names.generation, new_generation()))
        self._adopt(found, 0)
        return False

    def next_generation(self) -> None:
        """What was stored so far can't be found any more."""
        label = self._near.label()
        found = self._client.call(b"GET", self._names.generation)
        while found is not None:
            # First of all, so that nothing is left behind by a process that is killed here.
            self._client.call(b"SADD", self._names.former, found)
            mine = new_generation()
            found = self._client.run(NEXT_GENERATION, self._names.generation, found, mine)
            if found == mine:
                self._generation = None
                self._near.wrote(WHOLE)
                self.moved()
                return
        self._adopt(self._client.run(GENERATION, self._names.generation, new_generation()), label)

    def _adopt(self, found: bytes, label: int) -> None:
        former = self._generation
        is_new = former is not None and former[0] != found
        if is_new:
            # Where no push says so.
            self._near.wrote(WHOLE)
        self._generation = (found, label)
        if former is None or not is_new:
            return
        # Whoever began the new one said so as well, unless the name was lost.
        if not self._client.call(b"SISMEMBER", self._names.removed, former[0]):
            self._client.call(b"SADD", self._names.former, former[0])
            self.moved()

    # Numbers

    def _at_hand(self, name: bytes) -> int | None:
        known = self._numbers.get(name)
        if known is None:
            return None
        stamps, label = self._near.stamps, known.label
        if stamps[known.slot] > label or stamps[WHOLE] > label:
            return None
        self._used.add(name)
        return known.value

    def _keep(self, name: bytes, value: int, label: int) -> int:
        """With the label 0 it isn't at hand, but the last that is known."""
        if len(self._numbers) >= _MOST:
            self._numbers = {}
        self._numbers[name] = _Number(value, slot_of(name), label)
        return value

    def number(self, namespace: str) -> int:
        """Of a namespace. It begins anywhere, so that one that was lost never comes back."""
        name = self._name_of(namespace)
        known = self._at_hand(name)
        if known is not None:
            return known
        label = self._near.label()
        return self._keep(name, _number(name, self._client.run(NUMBER, name, secrets.randbits(48))), label)

    def last_number(self, namespace: str) -> int:
        """As it was when the server last answered; 0 if it never did.

        If a change was heard of since, what is near of the namespace is dropped.
        """
        name = self._name_of(namespace)
        known = self._numbers.get(name)
        if known is None:
            return 0
        if 0 < known.label < self._near.stamps[known.slot]:
            # Not another number instead: one that isn't sure would make the debts those of other keys.
            self._near.drop_namespace(namespace)
            self._numbers[name] = known._replace(label=0)
        return known.value

    def _name_of(self, namespace: str) -> bytes:
        name = self._names_of.get(namespace)
        if name is None:
            if len(self._names_of) >= _MOST:
                self._names_of = {}
            name = self._names_of[namespace] = self._names.namespace(namespace)
        return name

    def next_number(self, namespace: str) -> int:
        name = self._names.namespace(namespace)
        try:
            number = _number(name, self._client.run(NEXT_NUMBER, name, secrets.randbits(48)))
        finally:
            self._near.wrote(slot_of(name))
        return self._keep(name, number, 0)

    def set_numbers(self, numbers: dict[str, int]) -> None:
        names = {self._names.namespace(name): number for name, number in numbers.items()}
        try:
            self._call_all([(b"SET", name, number) for name, number in names.items()])
        finally:
            for name in names:
                self._near.wrote(slot_of(name))
        for name, number in names.items():
            self._keep(name, number, 0)

    def sequence(self, *, anew: bool = False) -> int:
        """Of the last invalidation; not `anew`: as far as we heard of it, or an earlier one."""
        name = self._names.sequence
        known = None if anew else self._at_hand(name)
        if known is not None:
            return known
        label = self._near.label()
        found = self._client.call(b"GET", name)
        if found is None:
            found = self._client.run(SEQUENCE, name)
        return self._keep(name, _number(name, found), label)

    def keep_warm(self) -> None:
        """Have the server know, now and then, that what is at hand is in use. It would evict it else, if that
        is its policy, as something that nobody has asked for since long ago; and with the generation the
        cache would be lost.
        """
        now = monotonic()
        if now < self._warm_at:
            return
        self._warm_at = now + WARM_INTERVAL
        used, self._used = self._used, set()
        if self._generation is not None:
            used |= {self._names.generation, self._names.sequence}
        self._call_all([(b"TOUCH", name) for name in used])

    def _call_all(self, commands: Sequence[Command]) -> list[Any]:
        """The replies in order, to as many commands as there may be."""
        replies: list[Any] = []
        for start in range(0, len(commands), _SLICE):
            replies += self._client.call_many(commands[start : start + _SLICE])
        return replies

    # Tags

    def tags_at_hand(self, slots: Iterable[int]) -> dict[int, int] | None:
        """When the tags were last invalidated, as far as we heard; None unless all of that is known."""
        found = {}
        for slot in slots:
            number = self._at_hand(self._names.tag(slot))
            if number is None:
                return None
            found[slot] = number
        return found

    def tags(self, slots: Iterable[int]) -> dict[int, int | None]:
        """When the tags were last invalidated; None for one of which the server knows nothing: it may have
        been at any time.
        """
        found: dict[int, int | None] = {}
        asked = []
        for slot in slots:
            number = found[slot] = self._at_hand(self._names.tag(slot))
            if number is None:
                asked.append(slot)
        if asked:
            label = self._near.label()
            names = [self._names.tag(slot) for slot in asked]
            replies = self._call_all([(b"GET", name) for name in names])
            for slot, name, reply in zip(asked, names, replies, strict=True):
                found[slot] = None if reply is None else self._keep(name, _number(name, reply), label)
        return found

    def introduce(self, slots: Iterable[int]) -> tuple[dict[int, int], int]:
        """As `tags`, of tags that an entry is about to be stored with, and the sequence: those that the
        server knows nothing of count as invalidated just now.
        """
        found = self.tags(slots)
        missing = [slot for slot, number in found.items() if number is None]
        born = self.sequence(anew=bool(missing))
        if missing:
            names = [self._names.tag(slot) for slot in missing]
            pairs = [((b"SET", name, born, b"NX"), (b"GET", name)) for name in names]
            try:
                replies = self._call_all([command for pair in pairs for command in pair])
            finally:
                for name in names:
                    self._near.wrote(slot_of(name))
            for slot, name, reply in zip(missing, names, replies[1::2], strict=True):
                found[slot] = born if reply is None else _number(name, reply)
        return {slot: number for slot, number in found.items() if number is not None}, born

    def invalidate(self, slots: Iterable[int]) -> None:
        try:
            name = self._names.sequence
            number = _number(name, self._client.run(NEXT_SEQUENCE, name))
        finally:
            self._near.wrote(slot_of(self._names.sequence))
        names = [self._names.tag(slot) for slot in slots]
        try:
            self._call_all([RAISE.on(name, number) for name in names])
        finally:
            for name in names:
                self._near.wrote(slot_of(name))


def _number(name: bytes, reply: Any) -> int:
    """Raises `StoreUnavailable` for what none of us wrote there."""
    if not isinstance(reply, int):
        text = bytes(reply)
        reply = int(text) if text.isdigit() and len(text) <= MOST_DIGITS else -1
    if not 0 <= reply < _TOO_LARGE:
        raise StoreUnavailable(f"{name!r} on the server holds something else than a number; delete it")
    return int(reply)


def _nothing() -> None:
    pass
