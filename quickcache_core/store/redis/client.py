"""Sends commands to the servers of an address, and gives their replies."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import redis
from redis.connection import AbstractConnection

from quickcache_core.clock import SYSTEM_CLOCK, Clock
from quickcache_core.errors import StoreUnavailable
from quickcache_core.store.redis.address import Address, Server
from quickcache_core.store.redis.delivery import Delivery
from quickcache_core.store.redis.wiring import Command, Wiring

getpid, monotonic = os.getpid, time.monotonic

_MEASURE_INTERVAL: Final = 60.0
"""Seconds between two looks at the server's clock."""


class Refused(StoreUnavailable):
    """The server answers, but not to this command: it is out of memory, say, or the user may not."""


class Script:
    """A Lua script of one key."""

    __slots__ = ("sha", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def on(self, key: bytes, *args: Any) -> ScriptCommand:
        """The command that runs it, for `Client.call_many`."""
        return ScriptCommand(self, ("EVALSHA", self.sha, 1, key, *args))


class ScriptCommand(tuple[Any, ...]):
    """The command that runs a script which the server knows."""

    script: Script

    def __new__(cls, script: Script, command: tuple[Any, ...]) -> ScriptCommand:
        made = super().__new__(cls, command)
        made.script = script
        return made

    def in_full(self) -> Command:
        """For a server that doesn't know the script yet."""
        return ("EVAL", self.script.source, *self[2:])


class Primary:
    """One server that entries are on."""

    def __init__(self, server: Server, wiring: Wiring) -> None:
        self.server = server
        self._wiring = wiring

    def __repr__(self) -> str:
        return f"Primary({self.server})"

    def connection(self, **options: Any) -> AbstractConnection:
        """A connection of the caller's own, not connected yet, that blocks and speaks RESP3."""
        return self._wiring.connection(self.server, **options)


class Client:
    """Replies come as they are: bytes, ints, lists, None.

    Any thread may use it, a child after a fork, and code that `bridge.run` runs in any event loop: there the
    loop goes on while a reply is waited for, so no lock of `threading` may be held then. A command isn't sent
    again if its reply didn't come: whether it was carried out is not known.

    Every method that asks the servers raises `StoreUnavailable` if they can't be reached or won't answer, at
    once during an outage, and `Refused` if it is this command that they don't want. No message has a
    password.
    """

    def __init__(
        self, address: Address, options: Mapping[str, Any] | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.address = address
        self.clock = clock
        self._wiring = Wiring(address, options or {})
        self._delivery = Delivery(address, self._wiring)
        self._inherited: list[Delivery] = []
        self._is_real = clock.monotonic is time.monotonic
        self._offset = 0.0 if self._is_real else clock.wall() - clock.monotonic()
        self._measured: object = None
        """The epoch in which the server's clock was looked at."""
        self._measure_at = 0.0

    def __repr__(self) -> str:
        return f"Client({self.address})"

    def __del__(self) -> None:
        delivery = getattr(self, "_delivery", None)
        if delivery is not None and delivery.pid == getpid():
            delivery.places.close()

    @property
    def is_cluster(self) -> bool:
        return self.address.arrangement == "cluster"

    @property
    def epoch(self) -> object:
        """Another one whenever the servers may be others, or may have lost what they had: after an outage, a
        restart, a failover, a change in a Cluster, and in a child delivery.
        """
        return self._here().epoch

    @property
    def is_down(self) -> bool:
        """Whether an outage goes on: of the server, or of all that could show the map of a Cluster."""
        return self._here().is_down

    def call(self, *command: Any) -> Any:
        """The reply to one command."""
        reply = self._here().deliver((command,))[0]
        if isinstance(reply, Exception):
            raise self._refusal(reply) from reply
        return reply

    def call_many(self, commands: Sequence[Command]) -> list[Any]:
        """The replies in order, in one round trip (to each server of a Cluster). Not a transaction.

        An error reply raises once all have been carried out. Scripts that the server doesn't know are run
        after all others.
        """
        if not commands:
            return []
        delivery = self._here()
        replies = delivery.deliver(commands)
        unknown = [
            number
            for number, reply in enumerate(replies)
            if isinstance(reply, redis.exceptions.NoScriptError)
            and isinstance(commands[number], ScriptCommand)
        ]
        if unknown:
            in_full = [commands[number].in_full() for number in unknown]  # type: ignore[attr-defined]
            for number, reply in zip(unknown, delivery.deliver(in_full), strict=True):
                replies[number] = reply
        for reply in replies:
            if isinstance(reply, Exception):
                raise self._refusal(reply) from reply
        return replies

    def run(self, script: Script, key: bytes, *args: Any) -> Any:
        """What the script returns."""
        return self.call_many((script.on(key, *args),))[0]

    def scan(self, match: bytes) -> Iterator[list[bytes]]:
        """Keys that match a pattern, some hundreds at a time, of all servers; a key may come twice."""
        delivery = self._here()
        for server in delivery.primaries():
            cursor: Any = 0
            while True:
                command = ("SCAN", cursor, "MATCH", match, "COUNT", 500)
                reply = delivery.deliver_to(server, (command,))[0]
                if isinstance(reply, Exception):
                    raise self._refusal(reply) from reply
                cursor = int(reply[0])
                if reply[1]:
                    yield reply[1]
                if cursor == 0:
                    break

    def now(self) -> float:
        """Seconds of the server's clock, looked at once a minute; in a Cluster that of whoever has slot 0.

        With another clock than the system's it is the time of that: its wall clock as it was when the client
        was made, and what its monotonic clock has added since.
        """
        if self._is_real and (monotonic() >= self._measure_at or self._measured is not self._here().epoch):
            self._measure()
        return self.clock.monotonic() + self._offset

    def primaries(self) -> list[Primary]:
        """The servers that entries are on, as they are now. Asks them, unless there is one alone."""
        return [Primary(server, self._wiring) for server in self._here().primaries()]

    def close(self) -> None:
        """Let go of the connections. A later use makes new ones."""
        self._here().places.close()

    def _measure(self) -> None:
        is_first = self._measured is None
        self._measure_at = monotonic() + _MEASURE_INTERVAL
        try:
            before = monotonic()
            seconds, micros = self.call("TIME")
            after = monotonic()
        except StoreUnavailable:
            if is_first:
                self._measure_at = 0.0
                raise
            return  # the clock goes on; the recovery makes a new epoch
        self._offset = int(seconds) + int(micros) / 1e6 - (before + after) / 2
        self._measured = self._here().epoch

    def _here(self) -> Delivery:
        delivery = self._delivery
        if delivery.pid == getpid():
            return delivery
        # The parent's are kept: closing an event loop's connection would reach into the parent's loop.
        self._inherited.append(delivery)
        self._delivery = delivery = Delivery(self.address, self._wiring)
        return delivery

    def _refusal(self, error: Exception) -> StoreUnavailable:
        return Refused(f"{self.address}: {error}")
