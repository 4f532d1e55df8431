"""Which server a command goes to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import redis
from redis.crc import key_slot

from quickcache_core.store.redis.address import Address, Server
from quickcache_core.store.redis.pool import Places, Unreachable
from quickcache_core.store.redis.wiring import BROKEN, Channel, Command, Wiring

_SLOTS: Final = 16384
_MAP: Final = ("CLUSTER", "SLOTS")
_LOOK_INTERVAL: Final = 1.0
"""Seconds between two looks at the map of a Cluster that failures suggest."""
_WITHOUT_KEY: Final = frozenset(
    ("CLIENT", "CLUSTER", "DBSIZE", "INFO", "PING", "ROLE", "SCAN", "SCRIPT", "TIME")
)
_KEY_IS_THIRD: Final = frozenset(("EVAL", "EVALSHA"))


class NoPrimary(Unreachable):
    """None of the servers that are known takes writes."""


class Route(Protocol):
    """Shared by the threads and event loops of a process. What asks servers raises one of `BROKEN`."""

    def server_for(self, command: Command) -> Server:
        """Where it goes. Asks the servers if that isn't known."""

    def primaries(self) -> list[Server]:
        """All servers that entries are on, as they are now. Asks the servers."""

    def forget(self, server: Server | None) -> None:
        """That server failed, or isn't the one any more."""


class One:
    """The only server there is."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def server_for(self, command: Command) -> Server:
        return self._server

    def primaries(self) -> list[Server]:
        return [self._server]

    def forget(self, server: Server | None) -> None:
        pass


class Elected:
    """One server at a time: `find` says which, until it fails."""

    def __init__(self, find: Callable[[], Server], changed: Callable[[], object]) -> None:
        self._find = find
        self._changed = changed
        self._server: Server | None = None
        self._last: Server | None = None

    def server_for(self, command: Command) -> Server:
        return self._server or self._look()

    def primaries(self) -> list[Server]:
        return [self._look()]

    def forget(self, server: Server | None) -> None:
        if server is None or self._server == server:
            self._server = None

    def _look(self) -> Server:
        server = self._find()
        last, self._last = self._last, server
        if last is not None and last != server:
            self._changed()
        self._server = server
        return server


def candidates(servers: Sequence[Server], places: Places) -> Callable[[], Server]:
    """Finds the one of the servers that takes writes; the one that was found last is asked first."""
    known = list(servers)

    def find() -> Server:
        reasons = []
        for server in list(known):
            try:
                places.here().of(server).exchange((("PING",),))
            except BROKEN as error:
                reasons.append(f"{server}: {error}")
            else:
                # At once: another thread may look at the list, which is empty while it is sorted in place.
                known[:] = sorted(known, key=lambda one: one != server)
                return server
        raise NoPrimary("none of the servers takes writes: " + "; ".join(reasons))

    return find


def sentinels(address: Address, wiring: Wiring) -> Callable[[], Server]:
    """Asks the Sentinels; the one that answered last comes first."""
    known = list(address.servers)
    question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service)

    def find() -> Server:
        reasons = []
        for sentinel in list(known):
            try:
                reply = _ask(wiring.channel(sentinel, sentinel=True), question)
            except BROKEN as error:
                reasons.append(f"{sentinel}: {error}")
                continue
            if isinstance(reply, list):
                known[:] = sorted(known, key=lambda one: one != sentinel)
                return Server(_text(reply[0]), int(reply[1]))
            reasons.append(f"{sentinel}: {reply or 'it knows no service of that name'}")
        raise NoPrimary(f"no Sentinel names a primary of {address.service!r}: " + "; ".join(reasons))

    return find


def _ask(channel: Channel, command: Command) -> Any:
    try:
        channel.connect()
        return channel.exchange((command,))[0]
    finally:
        channel.close()


class Cluster:
    """The servers of a Cluster, each for some of the slots that keys fall into."""

    def __init__(
        self,
        seeds: Sequence[Server],
        places: Places,
        wiring: Wiring,
        changed: Callable[[], object],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seeds = seeds
        self._places = places
        self._wiring = wiring
        self._changed = changed
        self._monotonic = monotonic
        self._owners: list[Server | None] = []
        self._suspects: set[Server] = set()
        self._informed: Server | None = None
        """Knows of a change that others may not have heard of yet."""
        self._look_at = float("inf")

    def server_for(self, command: Command) -> Server:
        if not self._owners or self._monotonic() >= self._look_at:
            self._look()
        owner = self._owners[slot_of(command)]
        if owner is None:
            self.forget(None)
            raise NoPrimary("no server of the Cluster has the slot of that key")
        return owner

    def primaries(self) -> list[Server]:
        self._look()
        return list(dict.fromkeys(one for one in self._owners if one is not None))

    def forget(self, server: Server | None) -> None:
        if server is not None:
            self._suspects.add(server)
        self._look_at = min(self._look_at, self._monotonic() + _LOOK_INTERVAL)

    def moved(self, slot: int, server: Server) -> None:
        """A server says that another one has the slot now."""
        owners = list(self._owners)
        owners[slot] = server
        self._owners = owners
        self._changed()
        self._informed = server
        self._look_at = self._monotonic()  # it is seldom one slot alone

    def _look(self) -> None:
        """Replaces the map. Those that failed are asked last."""
        self._look_at = self._monotonic() + _LOOK_INTERVAL  # the others go by the old map meanwhile
        suspects, self._suspects = self._suspects, set()
        informed, self._informed = self._informed, None
        owners = {one for one in self._owners if one is not None}
        known = sorted({*owners, *self._seeds}, key=lambda one: (one != informed, one in suspects))
        reasons = []
        for server in known:
            try:
                reply = self._map_of(server, is_owner=server in owners)
            except BROKEN as error:
                reasons.append(f"{server}: {error}")
                continue
            if isinstance(reply, list):
                self._replace(_owners_in(reply, server))
                return
            reasons.append(f"{server}: {reply}")
        raise NoPrimary("no server of the Cluster shows its map: " + "; ".join(reasons))

    def _map_of(self, server: Server, *, is_owner: bool) -> Any:
        if is_owner:
            return self._places.here().of(server).exchange((_MAP,))[0]
        # Perhaps a replica, which knows the map as well, but isn't let into a pool.
        return _ask(self._wiring.channel(server), _MAP)

    def _replace(self, owners: list[Server | None]) -> None:
        self._look_at = float("inf")
        before, self._owners = self._owners, owners
        if before and before != owners:
            self._changed()


def slot_of(command: Command) -> int:
    """The slot of the key of a command; 0 for a command without a key."""
    name = command[0] if isinstance(command[0], str) else command[0].decode()
    if name in _WITHOUT_KEY:
        return 0
    key = command[3 if name in _KEY_IS_THIRD else 1]
    slot: int = key_slot(key.encode() if isinstance(key, str) else key)
    return slot


def _owners_in(reply: list[Any], asked: Server) -> list[Server | None]:
    owners: list[Server | None] = [None] * _SLOTS
    for first, last, primary, *_ in reply:
        # Without a host it is the one that was asked.
        host = _text(primary[0] or b"")
        server = Server(host if host not in ("", "?") else asked.host, int(primary[1]))
        owners[first : last + 1] = [server] * (last + 1 - first)
    return owners


def server_in(error: redis.exceptions.AskError, asked: Server) -> Server:
    """Where a MOVED or an ASK points."""
    return Server(error.host or asked.host, error.port)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
