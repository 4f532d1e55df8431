"""The connections on which servers tell what changed: RESP3, `CLIENT TRACKING ON BCAST PREFIX`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from ssl import SSLWantReadError
from time import monotonic
from typing import Any, Final, Protocol

import redis
from redis.connection import AbstractConnection

from quickcache_core.errors import StoreUnavailable
from quickcache_core.store.near import WHOLE
from quickcache_core.store.redis.pushes import BadAnswer, PushReader
from quickcache_core.store.redis.wiring import close_when_dropped

LEASE: Final = 1.0
"""Seconds after a PING was sent during which its answer is proof that we hear of changes."""
SILENCE: Final = 3 * LEASE
"""Seconds without the answer to a PING after which the connection is given up."""
SLICE: Final = 32_768
"""Bytes read at a time: what a poll takes at most is about a millisecond."""
_LAST_SLICES: Final = 16
"""Of what a server has sent before it was given up; what is more isn't looked at."""
RECONNECT_INTERVAL: Final = 0.1
"""Seconds from one connection to the next, for a server that closes each."""
_FIRST_RETRY: Final = 1.0
_LAST_RETRY: Final = 30.0
"""Seconds between attempts to connect; they double from the one to the other."""
_REFUSED_RETRY: Final = 300.0
"""Seconds until a server that refuses to track is asked again."""
_PING: Final = b"*1\r\n$4\r\nPING\r\n"
_ANSWERS: Final = (b"+PONG", b"-BUSY", b"-NOPERM")
"""To a PING. An error is a sign of life as well: it runs a long script, or this user may not do that."""
_PASSING: Final = ("BUSY", "LOADING", "MASTERDOWN", "CLUSTERDOWN")
"""Errors of a server that only can't do it now."""

logger = logging.getLogger(__name__)


class Lost(Exception):
    """The connection is gone, or can't be trusted any more."""


class NotTracking(Exception):
    """The server is there, and won't tell us what changes."""


class Endpoint(Protocol):
    """A server to track, see `client.Primary`."""

    def connection(self, **options: Any) -> AbstractConnection: ...


class Servers(Protocol):
    """What this needs of a `client.Client`."""

    @property
    def epoch(self) -> object: ...

    @property
    def is_down(self) -> bool: ...

    def primaries(self) -> Sequence[Endpoint]: ...


class Stream:
    """What one server tells. One thread at a time.

    redis-py connects: TLS, credentials and all that. Then the socket is ours: it never blocks.
    """

    def __init__(self, endpoint: Endpoint, prefix: bytes, generation_key: bytes) -> None:
        """Connects; that takes up to the timeouts of the endpoint. Raises `Lost`, `NotTracking`."""
        self._connection = endpoint.connection()
        close_when_dropped(self, self._connection)
        self._socket: Any = None
        self._reader = PushReader(generation_key)
        self._pinged = 0.0
        self._is_tls = False
        self._waits = False
        """Whether an answer to a PING is to come."""
        self._told: list[int] = []
        """Slots that nobody has taken yet."""
        self.confirmed = 0.0
        """Monotonic seconds: what changed up to then has been heard of."""
        self.more = False
        """Whether the last read left something behind, as far as can be told."""
        try:
            self._start(prefix)
        except BaseException:
            self.close()
            raise

    def _start(self, prefix: bytes) -> None:
        try:
            self._connection.connect()
            self._socket = self._connection._sock
            began = monotonic()
            self._connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", prefix)
            # By our own reader: changes may come right behind, and must not stay in one of redis-py's.
            self._socket.settimeout(self._connection.socket_timeout)
            while not self._reader.replies:
                # What is pushed already is about nothing that anybody has.
                self._reader.feed(self._receive())
            reply = self._reader.replies.pop()
            if reply != b"+OK":
                raise _refusal(reply[1:].decode(errors="replace"))
            self._socket.settimeout(0.0)
            self._is_tls = hasattr(self._socket, "pending")
        except redis.ResponseError as error:
            raise _refusal(str(error)) from error
        except (redis.RedisError, OSError, BadAnswer) as error:
            raise Lost(str(error)) from error
        self.confirmed = began

    def _receive(self) -> bytes:
        data: bytes = self._socket.recv(SLICE)
        if not data:
            raise Lost("the server closed the connection")
        if self._is_tls:
            # A record at a time, and each push may be one.
            try:
                while len(data) < SLICE and (record := self._socket.recv(SLICE)):
                    data += record
            except OSError:
                # There is no more, or the next time shows what is wrong: what has come counts.
                pass
        return data

    def listen(self, now: float) -> None:
        """Hear what changed since; at most about `SLICE` bytes' worth, without waiting. Asks for a sign of
        life when it is time. Raises `Lost`.
        """
        self.more = False
        try:
            data = self._receive()
            self.more = len(data) >= SLICE
            self._told += self._reader.feed(data)
            if self._reader.replies:
                self._hear()
        except (BlockingIOError, SSLWantReadError):
            pass
        except OSError as error:
            raise Lost(str(error)) from error
        except BadAnswer as error:
            self._told.append(WHOLE)
            raise Lost(f"not understood: {error}") from error
        if self._waits:
            if now - self._pinged > SILENCE:
                # Or so much has piled up that what is near is as good as gone.
                raise Lost("the server does not answer")
        elif now - self.confirmed > LEASE / 2:
            self._ping(now)

    def take(self) -> list[int]:
        """The slots of the keys of which that was heard."""
        told, self._told = self._told, []
        return told

    def rest(self) -> list[int]:
        """The slots of all that it told and that nobody has taken; `WHOLE` is among them if that is too much
        to look at, or can't be understood. After that it is of no use any more.
        """
        told = self.take()
        try:
            for _ in range(_LAST_SLICES):
                told += self._reader.feed(self._receive())
        except (OSError, Lost):
            return told
        except BadAnswer:
            pass
        return [WHOLE]

    def _hear(self) -> None:
        for reply in self._reader.replies:
            if not reply.startswith(_ANSWERS) or not self._waits:
                raise Lost(reply[1:].decode(errors="replace"))
            self._waits = False
            self.confirmed = self._pinged
        self._reader.replies.clear()

    def _ping(self, now: float) -> None:
        try:
            if self._socket.send(_PING) != len(_PING):
                raise Lost("the connection is stuck")
        except OSError as error:
            raise Lost(str(error)) from error
        self._pinged = now
        self._waits = True

    def close(self) -> None:
        """In a child after a fork, this leaves the connection of the parent alone."""
        self._connection.disconnect()


def _refusal(text: str) -> Lost | NotTracking:
    return Lost(text) if text.startswith(_PASSING) else NotTracking(text)


class Tracking:
    """All connections of one cache: one, or one to each primary of a Cluster."""

    def __init__(self, servers: Servers, prefix: bytes, generation_key: bytes) -> None:
        """Connects, as `Stream`. Also raises `StoreUnavailable`."""
        # First of all: if it changes meanwhile, these may be connections to others.
        self.epoch = servers.epoch
        self._streams: list[Stream] = []
        try:
            # One by one, so that after a failure those that there are get closed.
            for endpoint in servers.primaries():
                self._streams.append(Stream(endpoint, prefix, generation_key))
            if not self._streams:
                raise Lost("there are no servers")
        except BaseException:
            self.close()
            raise

    @property
    def trusted_until(self) -> float:
        """Monotonic seconds; until then, all servers have told us all that is older than the lease."""
        return min(stream.confirmed for stream in self._streams) + LEASE

    @property
    def more(self) -> bool:
        """Whether something is left to be read at once."""
        return any(stream.more for stream in self._streams)

    def read(self, now: float) -> list[int]:
        """The slots of keys that changed since, as `Stream.listen` hears of them; of all."""
        for stream in self._streams:
            stream.listen(now)
        if len(self._streams) == 1:
            return self._streams[0].take()
        return [slot for stream in self._streams for slot in stream.take()]

    def rest(self) -> list[int]:
        """As `Stream.rest`, of all."""
        return [slot for stream in self._streams for slot in stream.rest()]

    def close(self) -> None:
        for stream in self._streams:
            stream.close()


class Connector:
    """Makes the connections, if it is time to try. One thread at a time."""

    def __init__(self, servers: Servers, prefix: bytes, generation_key: bytes) -> None:
        self._servers = servers
        self._prefix = prefix
        self._generation_key = generation_key
        self._tried: object = None
        """The epoch of the servers when that was tried last."""
        self.due_at = float("-inf")
        self._retry = _FIRST_RETRY
        self._is_refused = False

    def anew(self) -> Connector:
        """One that has tried nothing yet."""
        return Connector(self._servers, self._prefix, self._generation_key)

    def is_due(self, now: float) -> bool:
        """Not during an outage. Other servers needn't wait for what those before have done."""
        servers = self._servers
        return (now >= self.due_at or servers.epoch is not self._tried) and not servers.is_down

    def connect(self) -> Tracking | None:
        """None if they can't be reached, or refuse; that is logged once."""
        self._tried = self._servers.epoch
        try:
            tracking = Tracking(self._servers, self._prefix, self._generation_key)
        except (Lost, StoreUnavailable) as error:
            logger.debug("Changes are not heard of: %s", error)
            self.put_off()
            return None
        except NotTracking as error:
            self._refused(error)
            return None
        self._retry = _FIRST_RETRY
        self.due_at = monotonic() + RECONNECT_INTERVAL
        self._is_refused = False
        return tracking

    def put_off(self) -> None:
        """After an attempt that failed."""
        self.due_at = monotonic() + self._retry
        self._retry = min(2 * self._retry, _LAST_RETRY)

    def _refused(self, error: NotTracking) -> None:
        self.due_at = monotonic() + _REFUSED_RETRY
        if self._is_refused:
            return
        self._is_refused = True
        logger.warning(
            "The server does not tell this process what changes: nothing is kept near, and each get asks it. "
            "CLIENT TRACKING was answered with: %s. It is tried again every %d minutes",
            error,
            _REFUSED_RETRY // 60,
        )
