"""Changes that depend on what is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, Final

from quickcache_core.entry import FOREVER, MISSING
from quickcache_core.keys import check_key
from quickcache_core.serializer.isolation import thaw
from quickcache_core.store.base import Presence, summed
from quickcache_core.store.codec import Codec
from quickcache_core.store.life import Life
from quickcache_core.store.record import (
    deadline_of,
    is_rich,
    labelled,
    packed_life,
    put_off,
    raw_extras,
    touched,
)
from quickcache_core.store.redis import record as form
from quickcache_core.store.redis.names import tail_of
from quickcache_core.store.redis.scripts import INCREASE
from quickcache_core.store.redis.survey import Survey
from quickcache_core.store.redis.table import Table

_LIVE, _EXPIRED, _GONE = Presence.LIVE, Presence.EXPIRED, Presence.ABSENT
_STATES: Final = (_GONE, _EXPIRED, _LIVE)
_UNCLEAR: Final = 3
"""What the scripts call a state that they can't tell."""
_INTEGER, _FRACTION = b"\x02", b"\x03"
_INT = Struct("<q")
_DOUBLE = Struct("<d")
_EXACT: Final = 2**52
"""From here on, scripts of the server lose digits of integers."""


class Change:
    """Of the entries of one table. Every method may raise `StoreUnavailable`.

    What a script can tell of an entry it decides at once. Where that takes more, such as the numbers of its
    tags, it is decided here, and done only if nobody changed the entry meanwhile; else all begins anew.
    """

    def __init__(self, table: Table, codec: Codec, survey: Survey) -> None:
        self._table = table
        self._codec = codec
        self._survey = survey
        self._now = table.client.now

    def _state(self, stored: form.Stored | None) -> Presence:
        return self._survey.states([stored], self._now())[0]

    # Records

    def encoded(
        self, key: str, value: Any, ttl: float, life: Life | None = None, born: int | None = None
    ) -> tuple[bytes, bytes, int | None]:
        """What stands behind the generation in its name, its record, and how long the server keeps it.

        `born`: the sequence of invalidations that the value belongs to; None: the present one.
        """
        if key.__class__ is not str:
            check_key(key)
        tail = tail_of(key)
        now = self._now()
        deadline = FOREVER if ttl == FOREVER else now + ttl
        extras = b""
        if life is not None and not life.is_plain:
            deadline, extras = packed_life(life, now, deadline)
        record, _ = self._codec.encode(tail, key, value, deadline, extras)
        if life is not None and life.tags and born is None:
            numbers, born = self._table.known.introduce(life.tags)
            record = labelled(record, max(born, *numbers.values()))
        return tail, record, self._table.px(deadline - now)

    # Storing

    def put_where(self, tail: bytes, record: bytes, px: int | None, *, live: bool) -> Presence:
        """Store where something live is, or where nothing is: what was there."""
        while True:
            code, head = self._table.put_where(tail, record, px, self._now(), live=live)
            if code != _UNCLEAR:
                return _STATES[code]
            state = self._state(form.unpacked(head))
            if (state is _LIVE) is not live or self._table.swap(tail, head, record, px):
                return state

    def increase(self, key: str, delta: Any, initial: Any, ttl: float) -> tuple[Presence, Any]:
        """As `Store.incr`."""
        if delta.__class__ in (int, float):
            state, number = self._increase_there(key, delta, initial, ttl)
            if state is not None:
                return state, number
        tail = tail_of(key)
        while True:
            # Worked out here, and stored if nobody stored anything meanwhile.
            raw = self._table.raw(tail)
            stored = form.unpacked(raw)
            state = self._state(stored)
            decoded = None if stored is None else form.decoded(self._codec, tail, key, stored)
            if decoded is None and state is _LIVE:
                state = _EXPIRED
            now = self._now()
            extras = b""
            if stored is not None and decoded is not None and state is _LIVE:
                number, deadline, extras = thaw(decoded[0]), decoded[1], raw_extras(stored.record)
            elif initial is MISSING:
                return state, None
            else:
                number, deadline = initial, FOREVER if ttl == FOREVER else now + ttl
            number = summed(key, number, delta)
            record, _ = self._codec.encode(tail, key, number, deadline, extras)
            expected = b"" if raw is None else raw[: form.HEAD if stored is None else form.head_bytes(raw)]
            if self._table.swap(tail, expected, record, self._table.px(deadline - now)):
                return state, number

    def _increase_there(
        self, key: str, delta: int | float, initial: Any, ttl: float
    ) -> tuple[Presence | None, Any]:
        """None: the server can't add that."""
        first, px, tail = b"", None, tail_of(key)
        number = None
        if initial is not MISSING:
            number = summed(key, initial, delta)
            _, record, px = self.encoded(key, number, ttl)
            first = form.packed(self._table.nonces.new(), record)
        if delta.__class__ is int:
            if not -_EXACT < delta < _EXACT:
                return None, None
            packed = _INTEGER + _INT.pack(delta)
        else:
            packed = _FRACTION + _DOUBLE.pack(delta)
        now, nonce = _DOUBLE.pack(self._now()), self._table.nonces.new()
        arguments = (now, packed, nonce, first, b"" if px is None else px, _EXACT)
        code, result = self._table.on(tail, lambda name: INCREASE.on(name, *arguments), writes=True)[0]
        if code == _UNCLEAR:
            return None, None
        if _STATES[code] is not _LIVE:
            return _STATES[code], number
        return _LIVE, (_INT if result[:1] == _INTEGER else _DOUBLE).unpack_from(result, 1)[0]

    # Removing

    def remove(self, tail: bytes) -> tuple[Presence, bool]:
        """What was there, and whether anything was."""
        stored = form.unpacked(self._table.remove(tail))
        return self._state(stored), stored is not None

    def remove_many(self, tails: Sequence[bytes]) -> list[tuple[Presence, bool]]:
        found = list(map(form.unpacked, self._table.remove_many(tails)))
        states = self._survey.states(found, self._now())
        return [(state, stored is not None) for state, stored in zip(states, found, strict=True)]

    def pop(self, tail: bytes, key: str) -> tuple[Presence, form.Stored | None, Any]:
        """What was there, and its value; `MISSING` if that can't be read."""
        stored = form.unpacked(self._table.pop(tail))
        state = self._state(stored)
        if stored is None or state is not _LIVE:
            return state, stored, None
        decoded = form.decoded(self._codec, tail, key, stored)
        return state, stored, MISSING if decoded is None else thaw(decoded[0])

    def remove_if(self, tail: bytes, key: str, text: str) -> bool:
        """Remove a live entry whose value is that string; whether it was."""
        while True:
            stored = self._of_text(tail, key, text)
            if stored is None:
                return False
            # Another one by now? Perhaps of the same value.
            if self._table.remove_nonce(tail, stored.nonce):
                return True

    def _of_text(self, tail: bytes, key: str, text: str) -> form.Stored | None:
        """The record of a live entry whose value is that string."""
        stored = form.unpacked(self._table.raw(tail))
        if stored is None or self._state(stored) is not _LIVE:
            return None
        decoded = form.decoded(self._codec, tail, key, stored)
        if decoded is None:
            return None
        value = thaw(decoded[0])
        return stored if value.__class__ is str and value == text else None

    # New deadlines

    def touch(self, tail: bytes, ttl: float) -> Presence:
        """Give a live entry a new deadline: what was there."""
        return self._patched(tail, lambda head: touched(head, ttl, self._now()))

    def touch_if(self, tail: bytes, key: str, text: str, ttl: float) -> bool:
        """The same of an entry whose value is that string; whether it was."""
        while True:
            stored = self._of_text(tail, key, text)
            if stored is None:
                return False
            state = self._patched(tail, lambda head: touched(head, ttl, self._now()), stored.nonce)
            if state is _LIVE:
                return True

    def put_off(self, tail: bytes, seconds: float) -> None:
        self._patched(
            tail,
            lambda head: put_off(head, self._now() + seconds) if is_rich(head) else None,
            is_stale_too=True,
        )

    def _patched(
        self,
        tail: bytes,
        change: Callable[[bytes], bytes | None],
        nonce: bytes | None = None,
        *,
        is_stale_too: bool = False,
    ) -> Presence:
        """Change the head of a live entry, and nothing else; what was there. With a `nonce`, one of another
        write counts as nothing.
        """
        while True:
            head = self._table.head(tail)
            stored = form.unpacked(head)
            state = self._state(stored)
            if stored is None or (nonce is not None and stored.nonce != nonce):
                return _GONE
            if state is not _LIVE and not (is_stale_too and state is _EXPIRED):
                return state
            changed = change(stored.record)
            if changed is None:
                return state
            px = self._table.px(deadline_of(changed) - self._now())
            if self._table.patch(tail, head, head[: form.START] + changed, px):
                return state
