"""The way to the servers: the only place that talks to redis-py."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, parse_url
from redis.retry import Retry

from quickcache_core.clock import SYSTEM_CLOCK, Clock
from quickcache_core.errors import StoreUnavailable
from quickcache_core.store.redis.address import Address, Server

Command = Sequence[Any]
"""The name of a command and its arguments: bytes, str, int or float."""

CONNECT_TIMEOUT: Final = 0.5
"""Seconds to wait for a connection; `socket_connect_timeout` of the client's options."""
ANSWER_TIMEOUT: Final = 1.0
"""Seconds to wait for a reply; `socket_timeout` of the client's options."""
_MEASURE_INTERVAL: Final = 60.0
"""Seconds between two looks at the server's clock."""


class Refused(StoreUnavailable):
    """The server answers, but not to this command: it is out of memory, or the user may not."""


class Script:
    """A Lua script of one key."""

    __slots__ = ("sha", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def on(self, key: bytes, *args: Any) -> Command:
        """The command that runs it, for `Client.call_many`."""
        return ScriptCommand(self, ("EVALSHA", self.sha, 1, key, *args))


class ScriptCommand(tuple[Any, ...]):
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

    def __init__(
        self, name: str, connection_class: type[AbstractConnection], options: dict[str, Any]
    ) -> None:
        self.name = name
        self._class = connection_class
        self._options = options

    def connection(self, **options: Any) -> AbstractConnection:
        """A connection of its own, not connected yet, that speaks RESP3."""
        return self._class(**{**self._options, "protocol": 3, **options})


class Client:
    """Sends commands and gives replies as they come: bytes, ints, lists, None.

    Any thread may use it, and a child after a fork. Every method raises `StoreUnavailable` if the servers
    can't be reached or won't answer now.
    """

    def __init__(
        self, address: Address, options: Mapping[str, Any] | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.address = address
        self.clock = clock
        self.epoch: object = object()
        """Another one whenever the server, or the connection to it, may be another one."""
        self._options = dict(options or {})
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._redis: redis.Redis | None = None
        self._offset = 0.0
        self._measure_at = float("-inf")

    @property
    def is_cluster(self) -> bool:
        return self.address.arrangement == "cluster"

    def call(self, *command: Any) -> Any:
        """The reply to one command."""
        try:
            return self._connected().execute_command(*command)
        except (redis.RedisError, OSError) as error:
            raise self._unavailable(error) from error

    def call_many(self, commands: Sequence[Command]) -> list[Any]:
        """The replies in order, for one round trip. An error reply raises, once all have been carried out."""
        if not commands:
            return []
        try:
            pipeline = self._connected().pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            replies = pipeline.execute(raise_on_error=False)
        except (redis.RedisError, OSError) as error:
            raise self._unavailable(error) from error
        for number, reply in enumerate(replies):
            command = commands[number]
            if isinstance(reply, redis.exceptions.NoScriptError) and isinstance(command, ScriptCommand):
                replies[number] = self.call(*command.in_full())
            elif isinstance(reply, Exception):
                raise self._unavailable(reply) from reply
        return replies

    def run(self, script: Script, key: bytes, *args: Any) -> Any:
        """What the script returns."""
        return self.call_many([script.on(key, *args)])[0]

    def scan(self, match: bytes) -> Iterator[list[bytes]]:
        """Keys that match the pattern, in lists of some hundreds; a key may come twice."""
        cursor: Any = 0
        while True:
            cursor, keys = self.call("SCAN", cursor, "MATCH", match, "COUNT", 500)
            if keys:
                yield keys
            if int(cursor) == 0:
                return

    def now(self) -> float:
        """Seconds of the server's clock, by the clock of this process since the last look at the server's."""
        now = self.clock.monotonic()
        if now >= self._measure_at:
            seconds, micros = self.call("TIME")
            self._offset = int(seconds) + int(micros) / 1e6 - self.clock.monotonic()
            self._measure_at = now + _MEASURE_INTERVAL
        return self._offset + self.clock.monotonic()

    def primaries(self) -> list[Primary]:
        server = self.address.servers[0]
        options = self._kwargs(server)
        connection_class = options.pop("connection_class", redis.Connection)
        return [Primary(str(server), connection_class, options)]

    def close(self) -> None:
        """Let go of the connections; a later use makes new ones."""
        with self._lock:
            client, self._redis = self._redis, None
        if client is not None and self._pid == os.getpid():
            client.close()

    def _connected(self) -> redis.Redis:
        client = self._redis
        if client is None or self._pid != os.getpid():
            client = self._connect()
        return client

    def _connect(self) -> redis.Redis:
        if self._pid != os.getpid():
            self._lock = threading.Lock()
            self._redis, self._pid = None, os.getpid()
        with self._lock:
            if self._redis is None:
                options = self._kwargs(self.address.servers[0])
                client = redis.Redis(connection_pool=redis.ConnectionPool(**options))
                client.response_callbacks.clear()  # replies stay as they come
                self._redis, self.epoch = client, object()
            return self._redis

    def _kwargs(self, server: Server) -> dict[str, Any]:
        return {
            "socket_connect_timeout": CONNECT_TIMEOUT,
            "socket_timeout": ANSWER_TIMEOUT,
            **self._options,
            **parse_url(self.address.url(server)),
            "protocol": 2,
            # A command whose reply didn't come may have been carried out: it isn't sent again.
            "retry": Retry(NoBackoff(), 0),
        }

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        kind = Refused if isinstance(error, redis.ResponseError) else StoreUnavailable
        return kind(f"{self.address}: {error}")
