"""The least that reads a server by way of a near store: what the rules of `near` ask of whoever uses it."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from quickcache_core.store.base import ABSENT
from quickcache_core.store.near import NearEntry
from quickcache_core.store.redis.address import read_address
from quickcache_core.store.redis.client import Client
from quickcache_core.store.redis.names import Names, slot_of
from quickcache_core.store.redis.near import TrackedNear

NAMES = Names("qc")


def raw(key: str) -> bytes:
    """The name of a key's entry, without a generation."""
    return NAMES.tracked + b"entries:" + key.encode()


class NearReader:
    """Texts under keys. `asked` are the keys that the server was asked for."""

    def __init__(
        self,
        url: str,
        *,
        client: Client | None = None,
        now: Callable[[], float] = monotonic,
        prefix: str = "qc",
        ttl: float = 30.0,
        **options: Any,
    ) -> None:
        self.client = client or Client(read_address(url), options)
        self.ttl = ttl
        self.asked: list[str] = []
        names = Names(prefix)
        self.near = TrackedNear(
            self.client, names.tracked, names.generation, now, 1000, self._behind, self._closer
        )

    def get(self, key: str) -> str | None:
        value: str | None = self.near.get(key, None)
        return value

    def set(self, key: str, value: str) -> None:
        try:
            self.client.call(b"SET", raw(key), value)
        finally:
            self.near.wrote(slot_of(raw(key)))

    def is_trusted(self) -> bool:
        return self.near.label() != 0

    def was_asked(self) -> list[str]:
        """The keys, since the last call of this."""
        asked, self.asked = self.asked, []
        return asked

    def close(self) -> None:
        self.near.close()
        self.client.close()

    def _behind(self, key: str, default: Any) -> Any:
        return self.near.answer(key, self._fetch(key), default)

    def _closer(self, key: str, entry: NearEntry, default: Any) -> Any:
        self.near.drop(key)
        return self._behind(key, default)

    def _fetch(self, key: str) -> NearEntry:
        young = self.near.young
        label = self.near.label()
        found = self._ask(key)
        value = ABSENT if found is None else found.decode()
        entry = self.near.entry(value, label, slot_of(raw(key)), monotonic() + self.ttl)
        self.near.keep(young, key, entry, 10)
        return entry

    def _ask(self, key: str) -> bytes | None:
        self.asked.append(key)
        found: bytes | None = self.client.call(b"GET", raw(key))
        return found
