"""Brings commands to the servers that they are for, and tells outages from answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import redis
from redis.exceptions import AskError, ClusterDownError, MovedError, ReadOnlyError

from quickcache_core.errors import StoreUnavailable
from quickcache_core.store.redis.address import Address, Server
from quickcache_core.store.redis.circuit import Circuit
from quickcache_core.store.redis.pool import Places, Unreachable
from quickcache_core.store.redis.route import (
    Cluster,
    Elected,
    One,
    Route,
    candidates,
    sentinels,
    server_in,
    slot_of,
)
from quickcache_core.store.redis.wiring import BROKEN, Command, Wiring

T = TypeVar("T")

_REDIRECTIONS: Final = 5
"""How often a command is sent somewhere else before it is given up."""


class Delivery:
    """What a process knows of the servers of an address, and its connections to them.

    Any thread and any event loop of the process may use it. Error replies are returned, not raised. Every
    method that asks the servers raises `StoreUnavailable` if no reply comes; it isn't known then whether the
    commands were carried out, and they are never sent again.
    """

    def __init__(self, address: Address, wiring: Wiring) -> None:
        self.pid = os.getpid()
        self.epoch = object()
        """See `Client.epoch`."""
        self.address = address
        self.places = Places(wiring, self._met)
        self._circuits: dict[Server | None, Circuit] = {}
        self._identities: dict[Server | None, str] = {}
        self._cluster: Cluster | None = None
        self._route: Route
        if address.arrangement == "cluster":
            self._route = self._cluster = Cluster(address.servers, self.places, wiring, self._renew)
        elif address.arrangement == "sentinel":
            self._route = Elected(sentinels(address, wiring), self._renew)
        elif address.arrangement == "candidates":
            self._route = Elected(candidates(address.servers, self.places), self._renew)
        else:
            self._route = One(address.servers[0])

    @property
    def is_down(self) -> bool:
        """See `Client.is_down`."""
        # Not those of single servers of a Cluster: one that was replaced may stay open for good.
        circuit = self._circuits.get(None)
        return circuit is not None and circuit.is_open

    def deliver(self, commands: Sequence[Command]) -> list[Any]:
        """The replies in order, for one round trip to each server that is concerned."""
        replies: list[Any] = [None] * len(commands)
        pending: Sequence[int] = range(len(commands))
        for _ in range(_REDIRECTIONS):
            for server, numbers in self._by_server(commands, pending):
                asked, answers = self._attempt(server, [commands[number] for number in numbers])
                for number, reply in zip(numbers, answers, strict=True):
                    replies[number] = self._follow(commands[number], reply, asked)
            pending = [
                number for number in pending if isinstance(replies[number], MovedError | ReadOnlyError)
            ]
            if not pending:
                return replies
        raise StoreUnavailable(
            f"{self.address}: the servers send each other the command: {replies[pending[0]]}"
        )

    def deliver_to(self, server: Server, commands: Sequence[Command]) -> list[Any]:
        """The same for commands that concern one server, whatever it has."""
        return self._attempt(server, commands)[1]

    def primaries(self) -> list[Server]:
        if isinstance(self._route, One):
            return self._route.primaries()  # nobody was asked, so there is no answer to an outage in it
        return self._guarded(self._circuit(None), self._route.primaries)

    def _by_server(
        self, commands: Sequence[Command], numbers: Sequence[int]
    ) -> list[tuple[Server | None, Sequence[int]]]:
        """Which commands go to which server; None: the only one there is, whichever that is now."""
        cluster = self._cluster
        if cluster is None:
            return [(None, numbers)]

        def sort() -> dict[Server | None, list[int]]:
            groups: dict[Server | None, list[int]] = {}
            for number in numbers:
                groups.setdefault(cluster.server_for(commands[number]), []).append(number)
            return groups

        return list(self._guarded(self._circuit(None), sort).items())

    def _follow(self, command: Command, reply: Any, asked: Server) -> Any:
        """Learns from replies that point elsewhere, and gets what an ASK points to."""
        if isinstance(reply, ReadOnlyError):
            self.places.here().drop(asked)
            self._route.forget(asked)
        elif isinstance(reply, MovedError):
            if self._cluster is not None:
                self._cluster.moved(slot_of(command), server_in(reply, asked))
        elif isinstance(reply, AskError):
            return self._attempt(server_in(reply, asked), (("ASKING",), command))[1][1]
        return reply

    def _attempt(self, server: Server | None, commands: Sequence[Command]) -> tuple[Server, list[Any]]:
        circuit = self._circuit(server if self._cluster else None)

        def exchange() -> tuple[Server, list[Any]]:
            target = server or self._route.server_for(commands[0])
            try:
                replies = self.places.here().of(target).exchange(commands, circuit.check)
            except BROKEN:
                self._route.forget(target)
                raise
            for reply in replies:
                if isinstance(reply, Exception) and _is_outage(reply):
                    self._route.forget(target)
                    raise redis.ConnectionError(str(reply))
            return target, replies

        return self._guarded(circuit, exchange)

    def _guarded(self, circuit: Circuit, action: Callable[[], T]) -> T:
        is_probe = circuit.enter()
        try:
            result = action()
        except BROKEN as error:
            circuit.failed(error, is_certain=isinstance(error, Unreachable))
            raise StoreUnavailable(f"{circuit.name}: {error}") from error
        except BaseException:
            if is_probe:
                circuit.abandoned()
            raise
        circuit.worked()
        return result

    def _circuit(self, server: Server | None) -> Circuit:
        circuit = self._circuits.get(server)
        if circuit is None:
            name = str(self.address) if server is None else f"{server} of {self.address}"
            circuit = self._circuits.setdefault(server, Circuit(name, self._renew))
        return circuit

    def _met(self, server: Server, identity: str) -> None:
        """A connection was made. Nothing is what it was if another server answers than the last time."""
        key = server if self._cluster else None
        before = self._identities.get(key)
        self._identities[key] = identity
        if before is not None and (before != identity or not identity):
            self._renew()

    def _renew(self) -> None:
        self.epoch = object()


def _is_outage(error: Exception) -> bool:
    """Whether an error reply means that the server answers nobody."""
    return isinstance(error, ClusterDownError) or str(error).startswith("BUSY ")
