"""The client after a fork."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable

import pytest

from quickcache_core.store.redis import bridge
from quickcache_core.store.redis.address import read_address
from quickcache_core.store.redis.client import Client
from tests.redis.servers import RedisServer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture
def client(redis_server: RedisServer) -> Client:
    return Client(read_address(redis_server.url))


def ports(server: RedisServer) -> set[str]:
    """The clients' ends of all connections but this one."""
    with server.client() as outside:
        mine = outside.client_info()["addr"]
        return {one["addr"] for one in outside.client_list()} - {mine}


def in_a_child(work: Callable[[], None]) -> None:
    """Runs it in a forked child, and fails if it does. The child ends without cleaning up."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_child_has_connections_of_its_own(redis_server: RedisServer, client: Client) -> None:
    """It never uses the parent's, which stay open when it ends or closes its own."""
    client.call("PING")
    parents = ports(redis_server)
    epoch = client.epoch

    def work() -> None:
        assert client.epoch is not epoch
        for n in range(20):
            assert client.call("ECHO", f"child {n}") == f"child {n}".encode()
        assert len(ports(redis_server) - parents) == 1
        client.close()

    in_a_child(work)
    assert ports(redis_server) == parents
    for n in range(20):
        assert client.call("ECHO", f"parent {n}") == f"parent {n}".encode()
    assert ports(redis_server) == parents


def test_parent_and_children_at_the_same_time(client: Client) -> None:
    """Nobody gets the replies to somebody else's commands."""
    client.call("PING")
    children = []
    for name in range(4):
        child = os.fork()
        if child == 0:
            right = all(client.call("ECHO", f"{name}-{n}") == f"{name}-{n}".encode() for n in range(200))
            os._exit(0 if right else 1)
        children.append(child)
    for n in range(200):
        assert client.call("ECHO", f"parent {n}") == f"parent {n}".encode()
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4


def test_fork_in_the_middle_of_an_exchange(redis_server: RedisServer, client: Client) -> None:
    """The child isn't held up by what a thread of the parent was doing, nor the parent by the child."""
    client.call("SET", "a", "1")
    stop = threading.Event()
    wrong: list[object] = []

    def ask() -> None:
        while not stop.is_set():
            if client.call_many([("GET", "a")] * 20) != [b"1"] * 20:
                wrong.append("mixed up")

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            right = all(client.call("ECHO", n) == str(n).encode() for n in range(20))
            os._exit(0 if right else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_client_that_goes_in_the_child(redis_server: RedisServer) -> None:
    """The parent's connections aren't closed with it."""
    clients = [Client(read_address(redis_server.url))]
    clients[0].call("PING")
    parents = ports(redis_server)
    in_a_child(clients.clear)
    assert ports(redis_server) == parents
    assert clients[0].call("PING") == b"PONG"
    assert ports(redis_server) == parents


def test_fork_in_an_event_loop(redis_server: RedisServer, client: Client) -> None:
    """A child of a process with a running loop has a loop and connections of its own."""

    def work() -> None:
        async def child() -> None:
            for n in range(20):
                assert await bridge.run(client.call, "ECHO", f"child {n}") == f"child {n}".encode()

        asyncio._set_running_loop(None)  # as `multiprocessing` does
        asyncio.run(child())
        assert client.call("PING") == b"PONG"

    async def main() -> None:
        await asyncio.gather(*(bridge.run(client.call, "PING") for _ in range(3)))
        parents = ports(redis_server)
        in_a_child(work)
        assert ports(redis_server) == parents
        for n in range(20):
            assert await bridge.run(client.call, "ECHO", f"parent {n}") == f"parent {n}".encode()
        assert ports(redis_server) == parents

    asyncio.run(main())


def test_outage_of_the_parent(redis_server: RedisServer, client: Client) -> None:
    """The child finds out for itself."""
    redis_server.kill()
    for _ in range(3):
        with pytest.raises(Exception, match="redis://"):
            client.call("PING")
    redis_server.start()

    def work() -> None:
        assert client.call("PING") == b"PONG"

    in_a_child(work)


WITH_GEVENT = """
from gevent import monkey
monkey.patch_all()
import sys, time, gevent
from quickcache_core import StoreUnavailable
from quickcache_core.store.redis.address import read_address
from quickcache_core.store.redis.client import Client

client = Client(read_address(sys.argv[1]), {"socket_timeout": 0.5})

def work(name):
    for n in range(50):
        assert client.call("ECHO", f"{name}-{n}") == f"{name}-{n}".encode()

gevent.joinall([gevent.spawn(work, name) for name in range(20)], raise_error=True)

# A greenlet that waits for a reply leaves the others alone, and one that is killed leaves none behind.
waiting = [gevent.spawn(client.call, "BLPOP", f"nothing{n}", 0) for n in range(5)]
gevent.sleep(0.05)
work("meanwhile")
gevent.killall(waiting)
client.call("RPUSH", "nothing0", "late")
work("afterwards")
try:
    client.call("BLPOP", "nothing1", 0)
except StoreUnavailable:
    work("after a timeout")
    print("done")
"""


def test_greenlets_of_gevent(redis_server: RedisServer) -> None:
    """They are what threads are elsewhere: each waits on its own, and gets its own replies."""
    pytest.importorskip("gevent")
    ran = subprocess.run(
        [sys.executable, "-c", WITH_GEVENT, redis_server.url], capture_output=True, text=True, timeout=60
    )
    assert (ran.returncode, ran.stdout) == (0, "done\n"), ran.stderr
