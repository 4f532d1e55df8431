"""Who loads a key, among all hosts: leases that end by themselves if their process does."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from typing import Final

from quickcache_core.errors import StoreUnavailable
from quickcache_core.store.redis.client import Client
from quickcache_core.store.redis.scripts import RELEASE, RENEW

TENDED: Final = 5.0
"""Seconds that a lease lasts without being renewed, where a background thread renews it."""
UNTENDED: Final = 30.0
"""Seconds that it lasts where there is none."""


class Leases:
    """Of one process. Holds no lock: who gives a lease back may be in the middle of anything."""

    def __init__(self, client: Client, is_tended: Callable[[], bool]) -> None:
        self._client = client
        self._is_tended = is_tended
        self._pid = os.getpid()
        self._held: dict[bytes, bytes] = {}

    def take(self, name: bytes) -> Callable[[], None] | None:
        """What gives the lease back, or None if somebody has it. While the server can't be asked, everybody
        gets every lease: a load too many is better than none.
        """
        held = self._held_here()
        mine = secrets.token_bytes(16)
        seconds = TENDED if self._is_tended() else UNTENDED
        try:
            if self._client.call(b"SET", name, mine, b"NX", b"PX", int(seconds * 1000)) is None:
                return None
        except StoreUnavailable:
            return _nothing
        held[name] = mine

        def give_back() -> None:
            # A child of a fork has other leases.
            if self._held_here() is held and held.get(name) is mine:
                del held[name]
                try:
                    self._client.run(RELEASE, name, mine)
                except StoreUnavailable:
                    pass  # it ends by itself

        return give_back

    def renew(self) -> None:
        """Called about once a second. Raises `StoreUnavailable`."""
        held = list(self._held_here().items())
        if held:
            self._client.call_many([RENEW.on(name, mine, int(TENDED * 1000)) for name, mine in held])

    def _held_here(self) -> dict[bytes, bytes]:
        if self._pid != os.getpid():
            self._held, self._pid = {}, os.getpid()
        return self._held


def _nothing() -> None:
    pass
