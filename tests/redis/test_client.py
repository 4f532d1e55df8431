"""Commands and their replies, with a server that works."""

from __future__ import annotations

import threading
import time

import pytest
import redis

from quickcache_core import StoreUnavailable
from quickcache_core.clock import SystemClock
from quickcache_core.store.redis.address import read_address
from quickcache_core.store.redis.client import Client, Refused, Script
from quickcache_core.testing import ManualClock
from tests.redis.servers import RedisServer

ADD = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")


@pytest.fixture
def client(redis_url: str) -> Client:
    return Client(read_address(redis_url))


def test_replies_as_they_come(client: Client) -> None:
    """Nothing is decoded or turned into something else."""
    assert client.call("SET", "a", b"\xff\x00") == b"OK"
    assert client.call("GET", b"a") == b"\xff\x00"
    assert client.call("GET", "b") is None
    assert client.call("SET", "a", 1, "NX") is None
    assert client.call("DEL", "a", "b") == 1
    assert client.call("INFO", "server").startswith(b"# Server")
    assert client.call("HGETALL", "c") == []


def test_many_commands(client: Client) -> None:
    """Replies in the order of the commands, in one round trip."""
    assert client.call_many([("SET", "a", 1), ("GET", "a"), ("GET", "b"), ("INCR", "a")]) == [
        b"OK",
        b"1",
        None,
        2,
    ]
    assert client.call_many([]) == []


def test_large_values_in_both_directions(client: Client) -> None:
    """More than the buffers of sockets hold."""
    value = bytes(3_000_000)
    assert client.call_many([("SET", f"k{n}", value) for n in range(5)]) == [b"OK"] * 5
    assert client.call_many([("GET", f"k{n}") for n in range(5)]) == [value] * 5


def test_script(client: Client) -> None:
    """It is sent in full once, when the server doesn't know it."""
    client.call("SCRIPT", "FLUSH")
    assert client.run(ADD, b"n", 5) == 5
    client.call("CONFIG", "RESETSTAT")
    assert client.run(ADD, b"n", 5) == 10
    assert b"cmdstat_eval:" not in client.call("INFO", "commandstats")


def test_scripts_among_many_commands(client: Client) -> None:
    """Each reply stays in its place, although unknown scripts run later."""
    client.call("SCRIPT", "FLUSH")
    commands = [("SET", "a", 1), ADD.on(b"n", 2), ("GET", "a"), ADD.on(b"n", 3)]
    assert client.call_many(commands) == [b"OK", 2, b"1", 5]
    assert client.call_many(commands) == [b"OK", 7, b"1", 10]


def test_command_that_is_refused(client: Client) -> None:
    """`Refused`, with the reason; what stands beside it in a pipeline was carried out."""
    client.call("SET", "text", "x")
    with pytest.raises(Refused, match="not an integer"):
        client.call("INCR", "text")
    with pytest.raises(Refused, match=r"WRONGTYPE|wrong kind"):
        client.call_many([("SET", "a", 1), ("LPUSH", "text", 1), ("SET", "b", 2)])
    assert client.call_many([("GET", "a"), ("GET", "b")]) == [b"1", b"2"]
    with pytest.raises(Refused):
        client.run(Script("return redis.call('NO-SUCH-COMMAND')"), b"k")
    assert client.call("PING") == b"PONG"


def test_argument_that_can_not_be_sent(client: Client) -> None:
    """A mistake of the caller's is no outage, and leaves the connections alone."""
    for _ in range(3):
        with pytest.raises(redis.DataError):
            client.call("SET", "a", None)
        with pytest.raises(redis.DataError):
            client.call_many([("SET", "a", 1), ("SET", "a", None)])
    assert client.call("GET", "a") is None


def test_scan(client: Client) -> None:
    """All keys of the pattern, and no other; special characters can be escaped."""
    client.call_many([("SET", f"qc:{n}", n) for n in range(2000)])
    client.call("SET", "other", 1)
    found = [key for keys in client.scan(b"qc:*") for key in keys]
    assert {int(key[3:]) for key in found} == set(range(2000))
    assert list(client.scan(b"nothing*")) == []


def test_connections_are_used_again(client: Client) -> None:
    """One for commands that follow each other; closed connections are made anew."""
    client.call("PING")
    before = client.call("INFO", "stats")
    for _ in range(50):
        client.call("PING")
    after = client.call("INFO", "stats")
    line = b"total_connections_received:"
    assert before.split(line)[1].split()[0] == after.split(line)[1].split()[0]
    client.close()
    assert client.call("PING") == b"PONG"


def test_client_that_goes(redis_server: RedisServer) -> None:
    """Its connections go with it."""
    client = Client(read_address(redis_server.url))
    client.call("PING")
    with redis_server.client() as outside:
        assert len(outside.client_list()) == 2
        del client
        while len(outside.client_list()) > 1:
            time.sleep(0.01)


def test_many_threads(client: Client) -> None:
    """Each gets the replies to its own commands."""
    wrong: list[object] = []

    def work(name: int) -> None:
        for n in range(100):
            client.call("SET", f"t{name}", n)
            replies = client.call_many([("GET", f"t{name}"), ("ECHO", f"{name} {n}")])
            if replies != [str(n).encode(), f"{name} {n}".encode()]:
                wrong.append(replies)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_limit_of_connections(redis_server: RedisServer) -> None:
    """`max_connections` is kept: threads wait for each other."""
    client = Client(read_address(redis_server.url), {"max_connections": 2})
    threads = [threading.Thread(target=client.call, args=("INCR", "n")) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.call("GET", "n") == b"20"
    with redis_server.client() as outside:
        assert len(outside.client_list()) <= 3  # with that of this very question


def test_options_reach_redis_py(redis_server: RedisServer) -> None:
    """From the options and from the query of the URL, which wins."""
    with redis_server.client() as outside:
        for url, options, name in (
            (redis_server.url, {"client_name": "shop"}, "shop"),
            (f"{redis_server.url}?client_name=till", {"client_name": "shop"}, "till"),
        ):
            client = Client(read_address(url), options)
            client.call("PING")
            assert name in [one["name"] for one in outside.client_list()]


def test_database(redis_server: RedisServer) -> None:
    """That of the location."""
    Client(read_address(redis_server.url.replace("/0", "/3"))).call("SET", "a", 1)
    with redis_server.client() as outside:
        assert outside.exists("a") == 0
        outside.select(3)
        assert outside.get("a") == b"1"


def test_unix_socket() -> None:
    """As over TCP."""
    with RedisServer(unix=True) as server:
        client = Client(read_address(server.url))
        client.call("SET", "a", 1)
        server.restart()
        assert client.call("GET", "a") is None


class TestClock:
    def test_time_of_the_server(self, client: Client) -> None:
        """`now` is the server's, whatever this machine's clocks say."""
        seconds, micros = client.call("TIME")
        before = int(seconds) + int(micros) / 1e6
        now = client.now()
        seconds, micros = client.call("TIME")
        assert before - 0.1 < now < int(seconds) + int(micros) / 1e6 + 0.1

    def test_goes_on_between_two_looks(self, client: Client) -> None:
        """The server is asked once a minute, not each time."""
        first = client.now()
        client.call("CONFIG", "RESETSTAT")
        for _ in range(100):
            assert client.now() >= first
        assert b"cmdstat_time" not in client.call("INFO", "commandstats")

    def test_clock_of_a_test(self, client: Client) -> None:
        """Two clients with one clock agree, whenever they were made and whatever time it is at the server."""
        clock = ManualClock()
        first = Client(client.address, clock=clock)
        start = first.now()
        clock.advance(100.0)
        second = Client(client.address, clock=clock)
        assert first.now() == second.now() == start + 100.0
        clock.step_wall(50.0)
        assert first.now() == second.now() == start + 100.0

    def test_server_that_is_down(self, redis_server: RedisServer) -> None:
        """Without a first look there is no time; after one the clock goes on."""
        client = Client(read_address(redis_server.url), clock=SystemClock())
        redis_server.kill()
        with pytest.raises(StoreUnavailable):
            client.now()
        redis_server.start()
        while True:
            try:
                client.now()
            except StoreUnavailable:
                time.sleep(0.05)
            else:
                break
        redis_server.kill()
        with pytest.raises(StoreUnavailable):
            client.call("PING")
        assert client.now() > 0
