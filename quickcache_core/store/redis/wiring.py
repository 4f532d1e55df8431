"""Connections of redis-py: how they are made, and what they carry, one exchange at a time."""

from __future__ import annotations

import asyncio

# Python takes it when a host is looked up for the first time. A child that was forked while a thread of its
# parent did that would wait for ever for the lock of the import.
import encodings.idna  # noqa: F401
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol
from weakref import finalize

import redis
import redis.asyncio.connection as asynchronous
import redis.connection as synchronous
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from quickcache_core.store.redis import bridge
from quickcache_core.store.redis.address import Address, Server

Command = Sequence[Any]
"""The name of a command and its arguments: bytes, str, int or float."""

CONNECT_TIMEOUT: Final = 0.5
"""Seconds to wait for a connection; `socket_connect_timeout` of the client's options."""
ANSWER_TIMEOUT: Final = 1.0
"""Seconds to wait for a reply; `socket_timeout` of the client's options."""
BROKEN: Final = (redis.ConnectionError, redis.TimeoutError, redis.InvalidResponse, OSError)
"""What an exchange raises after which the connection is of no use. The reply may still be under way."""

_OURS: Final = {
    "host": "say it in the location",
    "port": "say it in the location",
    "path": "say it in the location",
    "url": "say it in the location",
    "db": "say it in the location, as in redis://host:6379/2",
    "ssl": "write rediss:// in the location",
    **dict.fromkeys(
        ("retry", "retry_on_timeout", "retry_on_error"),
        "a command is not sent twice, since it may have been carried out; leave it out",
    ),
    **dict.fromkeys(
        (
            "cache",
            "cache_config",
            "connection_class",
            "connection_pool",
            "decode_responses",
            "encoder_class",
            "encoding",
            "encoding_errors",
            "event_dispatcher",
            "maint_notifications_config",
            "parser_class",
            "protocol",
            "redis_connect_func",
            "single_connection_client",
        ),
        "the cache sees to that itself; leave it out",
    ),
}
_NOT_OF_CONNECTIONS: Final = ("max_connections", "sentinel_kwargs")


def refusal(name: str) -> str:
    """Why an option of redis-py can't be given; nothing if it can."""
    return _OURS.get(name, "")


class Channel(Protocol):
    """One connection. After any exception of `exchange` it has to be closed: a reply may be on its way."""

    def connect(self) -> None: ...

    def is_sound(self) -> bool:
        """Whether it can be used again: it wasn't closed by the server, and nothing waits to be read."""

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """The replies in order, error replies as `redis.ResponseError`."""

    def close(self) -> None: ...


class SyncChannel:
    """Blocks the thread."""

    def __init__(self, connection: synchronous.AbstractConnection) -> None:
        self._connection = connection
        close_when_dropped(self, connection)

    def connect(self) -> None:
        self._connection.connect()

    def is_sound(self) -> bool:
        try:
            return not self._connection.can_read()
        except BROKEN:
            return False

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        connection = self._connection
        if len(commands) == 1:
            packed = connection.pack_command(*commands[0])
        else:
            packed = connection.pack_commands(commands)
        connection.send_packed_command(packed)
        replies = []
        for _ in commands:
            try:
                replies.append(connection.read_response())
            except redis.ResponseError as error:
                replies.append(error)
        return replies

    def close(self) -> None:
        _disconnect(self._connection)


def close_when_dropped(owner: object, connection: synchronous.AbstractConnection) -> None:
    """Close `connection` once nobody has `owner` any more.

    Not left to the finalizer of redis-py's connection: where objects refer to each other in a circle, the
    collector calls those of all in any order, and a socket whose own comes first warns that it was left open.
    """
    finalize(owner, _disconnect, connection).atexit = False


def _disconnect(connection: synchronous.AbstractConnection) -> None:
    try:
        connection.disconnect()
    except BROKEN:
        pass


class AsyncChannel:
    """For code that `bridge.run` runs, in one event loop: the loop goes on meanwhile."""

    def __init__(
        self,
        connection: asynchronous.AbstractConnection,
        connect_timeout: float | None,
        timeout: float | None,
    ) -> None:
        self._connection = connection
        self._timeout = timeout
        # Making a connection takes replies as well: to the password, say.
        unlimited = connect_timeout is None or timeout is None
        self._connect_timeout = None if unlimited else (connect_timeout or 0.0) + (timeout or 0.0)

    def connect(self) -> None:
        bridge.wait(self._connect())

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self._connect_timeout):
                await self._connection.connect()
        except TimeoutError:
            await self.aclose()
            raise redis.TimeoutError("Timeout connecting to server") from None
        except BaseException:
            await self.aclose()
            raise

    def is_sound(self) -> bool:
        # Both look at what has arrived, and never wait; but they are coroutines.
        look = getattr(self._connection, "can_read", None) or self._connection.can_read_destructive
        try:
            return self._connection.is_connected and not bridge.wait(look())
        except BROKEN:
            return False

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        connection = self._connection
        if len(commands) == 1:
            packed = connection.pack_command(*commands[0])
        else:
            packed = connection.pack_commands(commands)
        return bridge.wait(self._exchange(packed, len(commands)))

    async def _exchange(self, packed: Any, count: int) -> list[Any]:
        connection = self._connection
        replies: list[Any] = []
        try:
            async with asyncio.timeout(self._timeout):
                await connection.send_packed_command(packed)
                while len(replies) < count:
                    try:
                        replies.append(await connection.read_response())
                    except redis.ResponseError as error:
                        replies.append(error)
        except TimeoutError:
            await self.aclose()
            raise redis.TimeoutError("Timeout reading from socket") from None
        except BaseException:
            # Here, where a coroutine can still be awaited: the task may have been cancelled.
            await self.aclose()
            raise
        return replies

    def close(self) -> None:
        """Nothing if it is closed already, as after an exchange that failed."""
        if self._connection.is_connected:
            bridge.wait(self.aclose())

    async def aclose(self) -> None:
        """Waits for nothing."""
        # A polite end of TLS takes turns of the loop, which may be about to end, and the server's help.
        writer = getattr(self._connection, "_writer", None)
        if writer is not None:
            writer.transport.abort()
        try:
            await self._connection.disconnect(nowait=True)
        except BROKEN:
            pass


class Wiring:
    """Makes connections to servers with the options of a configuration."""

    def __init__(self, address: Address, options: Mapping[str, Any]) -> None:
        self.address = address
        rest = {name: value for name, value in options.items() if name not in _NOT_OF_CONNECTIONS}
        self._options = {
            "socket_connect_timeout": CONNECT_TIMEOUT,
            "socket_timeout": ANSWER_TIMEOUT,
            **rest,
        }
        self._sentinel_options = dict(options.get("sentinel_kwargs") or {})
        self.max_connections: int | None = options.get("max_connections")

    def try_out(self) -> None:
        """Makes connections without connecting. Raises whatever redis-py raises of wrong options."""
        server = self.address.servers[0]
        is_sentinel = self.address.arrangement == "sentinel"
        self._sync_channel(server, is_sentinel)
        self._async_channel(server, is_sentinel)
        if is_sentinel:
            self._sync_channel(server, False)

    def channel(self, server: Server, *, sentinel: bool = False) -> Channel:
        """A new one, not connected yet; of the kind that suits the code that asks."""
        make = self._async_channel if bridge.is_bridged() else self._sync_channel
        return make(server, sentinel)

    def connection(self, server: Server, **options: Any) -> synchronous.AbstractConnection:
        """One that speaks RESP3, not connected yet, and belongs to the caller."""
        own = self._kwargs(server, False, synchronous.parse_url)
        kind = own.pop("connection_class", synchronous.Connection)
        made: synchronous.AbstractConnection = kind(
            **{**own, "retry": Retry(NoBackoff(), 0), "protocol": 3, **options}
        )
        return made

    def _sync_channel(self, server: Server, sentinel: bool) -> SyncChannel:
        options = self._kwargs(server, sentinel, synchronous.parse_url)
        kind = options.pop("connection_class", synchronous.Connection)
        return SyncChannel(kind(**options, retry=Retry(NoBackoff(), 0)))

    def _async_channel(self, server: Server, sentinel: bool) -> AsyncChannel:
        options = self._kwargs(server, sentinel, asynchronous.parse_url)
        kind = options.pop("connection_class", asynchronous.Connection)
        # One limit for all of an exchange costs less than one for each step of it.
        timeout = options.pop("socket_timeout")
        connection = kind(**options, retry=AsyncRetry(NoBackoff(), 0), socket_timeout=None)
        return AsyncChannel(connection, options["socket_connect_timeout"], timeout)

    def _kwargs(self, server: Server, sentinel: bool, parse: Any) -> dict[str, Any]:
        if not sentinel:
            return {**self._options, **parse(self.address.url(server)), "protocol": 2}
        # A Sentinel has users and a password of its own; what secures the connection is the same.
        shared = {
            name: value
            for name, value in {**self._options, **parse(self.address.sentinel_url(server))}.items()
            if name not in ("username", "password", "credential_provider", "db")
        }
        return {**shared, **self._sentinel_options, "protocol": 2}
