"""The connections that are open: those of the threads of this process, and those of each event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final

import redis

from quickcache_core.errors import StoreUnavailable
from quickcache_core.store.redis import bridge
from quickcache_core.store.redis.address import Server
from quickcache_core.store.redis.wiring import BROKEN, AsyncChannel, Channel, Command, Wiring

LOOP_CONNECTIONS: Final = 32
"""Connections of one event loop to one server, unless `max_connections` says otherwise: each task may want
one, and there may be thousands of tasks.
"""
PATIENCE: Final = 5.0
"""Seconds to wait for one of the connections that there may be."""
_GREETING: Final = (("INFO", "server"), ("INFO", "replication"), ("ROLE",))
_TOO_FEW: Final = f"no connection came free in {PATIENCE:g} s; raise max_connections in redis_options"

Met = Callable[[Server, str], None]
"""Told of each new connection: the server, and what tells it from the one that was there before, if known."""


class Unreachable(redis.ConnectionError):
    """No connection could be made, and there is no point in trying again at once."""


class NotPrimary(Unreachable):
    """The server takes no writes: it copies another one."""


class Busy(StoreUnavailable):
    """All connections that there may be are in use, and none came free in time."""


class ThreadTurns:
    """Limits how many threads use a connection at the same time."""

    def __init__(self, limit: int | None) -> None:
        self._slots = None if limit is None else threading.Semaphore(limit)

    def take(self) -> bool:
        """Whether there was a wait for it. Raises `Busy`."""
        if self._slots is None or self._slots.acquire(blocking=False):
            return False
        if not self._slots.acquire(timeout=PATIENCE):
            raise Busy(_TOO_FEW)
        return True

    def give_back(self) -> None:
        if self._slots is not None:
            self._slots.release()


class TaskTurns:
    """The same for the tasks of an event loop."""

    def __init__(self, limit: int | None) -> None:
        self._slots = asyncio.Semaphore(LOOP_CONNECTIONS if limit is None else limit)

    def take(self) -> bool:
        is_locked = self._slots.locked()
        bridge.wait(self._take() if is_locked else self._slots.acquire())
        return is_locked

    async def _take(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._slots.acquire()
        except TimeoutError:
            raise Busy(_TOO_FEW) from None

    def give_back(self) -> None:
        self._slots.release()


class Pool:
    """Connections to one server, of the threads of a process or of the tasks of an event loop."""

    def __init__(self, server: Server, wiring: Wiring, met: Met, turns: ThreadTurns | TaskTurns) -> None:
        self.server = server
        self._wiring = wiring
        self._met = met
        self._turns = turns
        self._idle: list[Channel] = []
        self._generation = object()

    def exchange(self, commands: Sequence[Command], waited: Callable[[], object] | None = None) -> list[Any]:
        """Raises one of `BROKEN` if not all replies came, or `Busy`. `waited` is called after a wait for a
        connection, in which things may have changed, and may raise.
        """
        had_to_wait = self._turns.take()
        try:
            if had_to_wait and waited is not None:
                waited()
            generation = self._generation
            channel = self._take()
            try:
                replies = channel.exchange(commands)
            except BaseException:
                channel.close()
                raise
            if generation is self._generation:
                self._idle.append(channel)
            else:
                channel.close()
            return replies
        finally:
            self._turns.give_back()

    def drop(self) -> None:
        """Close the connections: those in use as soon as they aren't any more."""
        for channel in self._forget_all():
            channel.close()

    async def adrop(self) -> None:
        """`drop` outside the bridge, for those of an event loop."""
        for channel in self._forget_all():
            if isinstance(channel, AsyncChannel):
                await channel.aclose()

    def _forget_all(self) -> list[Channel]:
        self._generation = object()
        idle, self._idle = self._idle, []
        return idle

    def _take(self) -> Channel:
        while True:
            try:
                channel = self._idle.pop()
            except IndexError:
                break
            if channel.is_sound():
                return channel
            channel.close()
        channel = self._wiring.channel(self.server)
        try:
            channel.connect()
            self._met(self.server, _greet(channel))
        except (NotPrimary, redis.TimeoutError, TimeoutError):
            # A timeout says less: perhaps it is this process that had no time.
            channel.close()
            raise
        except BROKEN as error:
            channel.close()
            raise Unreachable(str(error)) from error
        except BaseException:
            channel.close()
            raise
        return channel


def _greet(channel: Channel) -> str:
    """What tells a server from the one that was there before it; nothing if it won't say.

    Raises `NotPrimary` if it copies another one.
    """
    identity, role = "", "master"
    for reply in channel.exchange(_GREETING):
        if isinstance(reply, bytes):
            lines = dict(line.partition(":")[::2] for line in reply.decode("ascii", "replace").splitlines())
            role = lines.get("role", role)
            identity += lines.get("run_id", "") + lines.get("master_replid", "")
        elif isinstance(reply, list) and reply[0] != b"master":
            role = "slave"
    if role != "master":
        raise NotPrimary("it is a replica, which takes no writes")
    return identity


class Pools:
    """The pools of the threads of a process, or of one event loop: one for each server."""

    keeper: AsyncGenerator[None, None] | None = None
    """Closes them when the loop ends."""
    closing: object = None
    """The task that does it earlier."""

    def __init__(self, wiring: Wiring, met: Met, turns: type[ThreadTurns | TaskTurns]) -> None:
        self._wiring = wiring
        self._met = met
        self._turns = turns
        self._pools: dict[Server, Pool] = {}

    def of(self, server: Server) -> Pool:
        pool = self._pools.get(server)
        if pool is None:
            turns = self._turns(self._wiring.max_connections)
            pool = self._pools.setdefault(server, Pool(server, self._wiring, self._met, turns))
        return pool

    def drop(self, server: Server) -> None:
        pool = self._pools.pop(server, None)
        if pool is not None:
            pool.drop()

    def drop_all(self) -> None:
        for server in list(self._pools):
            self.drop(server)

    async def adrop_all(self) -> None:
        while self._pools:
            await self._pools.popitem()[1].adrop()
        await asyncio.sleep(0)  # the turn in which the loop closes the sockets


class Places:
    """All connections of a process. A connection of an event loop can't be used in any other."""

    def __init__(self, wiring: Wiring, met: Met) -> None:
        self._wiring = wiring
        self._met = met
        self._threads = Pools(wiring, met, ThreadTurns)
        self._loops: dict[asyncio.AbstractEventLoop, Pools] = {}

    def here(self) -> Pools:
        """Those that the code that asks can use."""
        if not bridge.is_bridged():
            return self._threads
        loop = asyncio.get_running_loop()
        return self._loops.get(loop) or self._open(loop)

    def close(self) -> None:
        """Close all connections; those of event loops as soon as these get round to it."""
        self._threads.drop_all()
        for loop, pools in list(self._loops.items()):
            try:
                loop.call_soon_threadsafe(_close_soon, pools)
            except RuntimeError:  # it is closed
                self._loops.pop(loop, None)

    def _open(self, loop: asyncio.AbstractEventLoop) -> Pools:
        for other in list(self._loops):
            if other.is_closed():
                self._loops.pop(other, None)
        pools = self._loops[loop] = Pools(self._wiring, self._met, TaskTurns)
        # A loop that ends closes its asynchronous generators, which is the only notice it gives.
        pools.keeper = self._keep(loop, pools)
        bridge.wait(anext(pools.keeper))
        return pools

    async def _keep(self, loop: asyncio.AbstractEventLoop, pools: Pools) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._loops.pop(loop, None)
            await pools.adrop_all()


def _close_soon(pools: Pools) -> None:
    if pools.keeper is not None:
        pools.closing = asyncio.ensure_future(pools.keeper.aclose())
