"""Servers that are killed, stopped, replaced or cut off."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from quickcache_core import StoreUnavailable
from quickcache_core.store.redis.address import read_address
from quickcache_core.store.redis.circuit import PROBE_INTERVAL, REPORT_INTERVAL, Circuit
from quickcache_core.store.redis.client import Client, Refused, Script
from quickcache_core.testing import ManualClock
from tests.redis.proxy import Network
from tests.redis.servers import RedisServer, wait_until


@pytest.fixture
def client(redis_server: RedisServer) -> Client:
    """Doesn't wait as long as usual for a server that hangs."""
    return Client(read_address(redis_server.url), {"socket_timeout": 0.2})


@pytest.fixture
def network(redis_server: RedisServer) -> Iterator[Network]:
    with Network(redis_server.port) as network:
        yield network


def answers(client: Client) -> bool:
    try:
        return bool(client.call("PING") == b"PONG")
    except StoreUnavailable:
        return False


def test_server_that_is_not_there() -> None:
    """An error at once, which says where it should be."""
    client = Client(read_address("redis://127.0.0.1:1/0"))
    with pytest.raises(StoreUnavailable, match=r"redis://127.0.0.1:1/0: .*refused"):
        client.call("PING")


def test_killed(redis_server: RedisServer, client: Client) -> None:
    """Errors until there is a server again; then it is used, in a new epoch."""
    client.call("SET", "a", 1)
    epoch = client.epoch
    redis_server.kill()
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            client.call("GET", "a")
    redis_server.start()
    wait_until(lambda: answers(client), "the client comes back")
    assert client.call("GET", "a") is None
    assert client.epoch is not epoch


def test_restarted_between_two_commands(redis_server: RedisServer, client: Client) -> None:
    """No error: that the connection is gone is seen before anything is sent. But the epoch is another one."""
    client.call("SET", "a", 1)
    epoch = client.epoch
    redis_server.restart()
    assert client.call("GET", "a") is None
    assert client.epoch is not epoch


def test_connections_of_many_threads_after_a_restart(redis_server: RedisServer, client: Client) -> None:
    """All that lie idle are found out, not only the first."""
    barrier = threading.Barrier(8)

    def at_once() -> None:
        barrier.wait()
        client.call_many([("GET", "a")] * 200)

    threads = [threading.Thread(target=at_once) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    redis_server.restart()
    assert [client.call("INCR", "n") for _ in range(10)] == list(range(1, 11))


def test_same_epoch_as_long_as_nothing_happens(client: Client) -> None:
    """More connections are no reason for another one."""
    client.call("PING")
    epoch = client.epoch
    client.close()
    threads = [threading.Thread(target=client.call, args=("PING",)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.epoch is epoch


def test_hanging_server(redis_server: RedisServer, client: Client) -> None:
    """After two waits for a reply nobody waits any more, but for one caller in a second."""
    client.call("SET", "a", 1)
    redis_server.hang()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"[Tt]imeout"):
            client.call("GET", "a")
    for _ in range(1000):  # 200 s, if each waited
        with pytest.raises(StoreUnavailable, match=r"not asked just now|[Tt]imeout"):
            client.call("GET", "a")
    redis_server.resume()
    wait_until(lambda: answers(client), "the client comes back")
    assert client.call("GET", "a") == b"1"


def test_late_reply_is_nobody_elses(redis_server: RedisServer, client: Client) -> None:
    """What a hanging server answers later never comes as the reply to another command."""
    client.call_many([("SET", "a", "late"), ("SET", "b", "right")])
    for _ in range(3):
        redis_server.hang()
        with pytest.raises(StoreUnavailable):
            client.call("GET", "a")
        with pytest.raises(StoreUnavailable):
            client.call_many([("GET", "a")] * 3)
        redis_server.resume()
        wait_until(lambda: answers(client), "the client comes back")
        for _ in range(20):
            assert client.call("GET", "b") == b"right"


def test_commands_are_not_sent_twice(redis_server: RedisServer, client: Client) -> None:
    """A command whose reply didn't come may have been carried out, once."""
    client.call("SET", "n", 0)
    sent = 0
    for _ in range(3):
        redis_server.hang()
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                client.call("INCR", "n")
            sent += 1
        redis_server.resume()
        wait_until(lambda: answers(client), "the client comes back")
    with redis_server.client() as outside:
        assert int(outside.get("n") or 0) <= sent


@pytest.mark.parametrize("count", [0, 1, 5, 11, 40])
def test_cut_in_the_middle_of_a_pipeline(network: Network, count: int) -> None:
    """An error instead of half the replies; the next command is answered over another connection."""
    client = Client(read_address(network.url))
    client.call_many([("SET", "a", "12345"), ("SET", "b", "right")])
    before = network.connections
    if not count:
        network.cut()
    else:
        network.cut_after(count)
        with pytest.raises(StoreUnavailable):
            client.call_many([("GET", "a")] * 10)
    assert client.call_many([("GET", "b"), ("GET", "a")]) == [b"right", b"12345"]
    assert network.connections == before + 1


def test_connection_that_is_cut_is_no_outage(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody else is turned away for it, and there is nothing to log."""
    client = Client(read_address(network.url))
    client.call("PING")
    network.cut_after(2)
    with pytest.raises(StoreUnavailable):
        client.call("PING")
    assert client.call("PING") == b"PONG"
    assert not caplog.records


def test_network_that_answers_nonsense() -> None:
    """Something else than a server is an outage like any other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        client = Client(read_address(f"redis://127.0.0.1:{listener.getsockname()[1]}"))
        with pytest.raises(StoreUnavailable) as raised:
            client.call("PING")
        assert not isinstance(raised.value, Refused)
        thread.join()


class TestPasswords:
    PASSWORD = "hunter2 and more"

    def test_right_one(self) -> None:
        """In the URL, or in the options, with or without a user."""
        with RedisServer("--requirepass", self.PASSWORD) as server:
            place = server.url.removeprefix("redis://")
            for location, options in (
                (f"redis://:hunter2%20and%20more@{place}", {}),
                (f"redis://default:hunter2%20and%20more@{place}", {}),
                (server.url, {"password": self.PASSWORD}),
                (server.url, {"username": "default", "password": self.PASSWORD}),
            ):
                assert Client(read_address(location), options).call("PING") == b"PONG"

    def test_wrong_one(self, caplog: pytest.LogCaptureFixture) -> None:
        """An outage, whose message and log have neither password."""
        with RedisServer("--requirepass", self.PASSWORD) as server:
            place = server.url.removeprefix("redis://")
            for location in (f"redis://:not-this@{place}", server.url):
                client = Client(read_address(location))
                for _ in range(2):
                    with pytest.raises(StoreUnavailable) as raised:
                        client.call("PING")
                    assert not isinstance(raised.value, Refused)
                    told = f"{raised.value} {raised.value.__cause__!r} {client!r} {client.primaries()!r}"
                    assert "not-this" not in told + caplog.text
                    assert "hunter2" not in told + caplog.text

    def test_changed_while_in_use(self, redis_server: RedisServer) -> None:
        """Connections that are open stay so; new ones fail until it is right again."""
        client = Client(read_address(redis_server.url))
        client.call("PING")
        with redis_server.client() as outside:
            outside.config_set("requirepass", self.PASSWORD)
            assert client.call("PING") == b"PONG"
            client.close()
            with pytest.raises(StoreUnavailable, match=r"[Aa]uthentication"):
                client.call("PING")
            outside.config_set("requirepass", "")
        wait_until(lambda: answers(client), "the client comes back")


class TestRefusals:
    def test_out_of_memory(self, redis_server: RedisServer, client: Client) -> None:
        """Writes are refused, in scripts too; reads go on, and nobody is turned away."""
        client.call("SET", "a", 1)
        with redis_server.client() as outside:
            outside.config_set("maxmemory", 1)
        for _ in range(4):
            with pytest.raises(Refused, match=r"maxmemory|memory"):
                client.call("SET", "b", 1)
            with pytest.raises(Refused):
                client.run(Script("return redis.call('SET', KEYS[1], 1)"), b"b")
            assert client.call("GET", "a") == b"1"

    def test_user_who_may_not(self, redis_server: RedisServer) -> None:
        """What the user may not do is refused, the rest works, even without INFO."""
        with redis_server.client() as outside:
            outside.execute_command("ACL", "SETUSER", "shop", "on", ">pw", "~qc*", "+get", "+set", "+ping")
        client = Client(read_address(redis_server.url.replace("//", "//shop:pw@")))
        assert client.call("SET", "qc:a", 1) == b"OK"
        for _ in range(4):
            with pytest.raises(Refused):
                client.call("SET", "other", 1)
            with pytest.raises(Refused):
                client.call("DEL", "qc:a")
        assert client.call("GET", "qc:a") == b"1"

    def test_busy_with_a_script(self, redis_server: RedisServer) -> None:
        """A server that answers nobody is an outage."""
        client = Client(read_address(redis_server.url))
        client.call("PING")
        other = Client(client.address)

        def loop_for_ever() -> None:
            with pytest.raises(StoreUnavailable):
                other.run(Script("while true do end"), b"k")

        with redis_server.client() as outside:
            outside.config_set("lua-time-limit", 1)
            thread = threading.Thread(target=loop_for_ever)
            thread.start()
            wait_until(lambda: not answers(client), "the script runs")
            assert not answers(client)
            outside.script_kill()
        thread.join()
        wait_until(lambda: answers(client), "the client comes back")


def test_replica_instead_of_a_primary(redis_server: RedisServer) -> None:
    """A server that takes no writes isn't used, as it may have old values; it is as soon as it takes them."""
    client = Client(read_address(redis_server.url))
    client.call("SET", "a", 1)
    epoch = client.epoch
    with redis_server.client() as outside:
        outside.replicaof("127.0.0.1", "1")
        with pytest.raises(StoreUnavailable, match="replica"):
            client.call("SET", "a", 2)
        with pytest.raises(StoreUnavailable):
            client.call("GET", "a")
        outside.replicaof("NO", "ONE")
    wait_until(lambda: answers(client), "the client comes back")
    assert client.call("GET", "a") == b"1"
    assert client.epoch is not epoch


class TestCircuit:
    """One circuit, with a clock that stands still."""

    def make(self) -> tuple[Circuit, ManualClock, list[str]]:
        clock = ManualClock()
        recovered: list[str] = []
        return Circuit("the server", lambda: recovered.append("yes"), clock.monotonic), clock, recovered

    def open(self, circuit: Circuit) -> None:
        circuit.failed(OSError("no route"), is_certain=True)

    def test_one_probe_in_a_second(self) -> None:
        """Everybody else is turned away, and told why."""
        circuit, clock, recovered = self.make()
        assert circuit.enter() is False
        self.open(circuit)
        with pytest.raises(StoreUnavailable, match=r"the server .* no route"):
            circuit.enter()
        clock.advance(PROBE_INTERVAL)
        assert circuit.enter() is True
        with pytest.raises(StoreUnavailable):
            circuit.enter()
        circuit.failed(OSError("still none"))
        with pytest.raises(StoreUnavailable, match="still none"):
            circuit.enter()
        clock.advance(PROBE_INTERVAL)
        assert circuit.enter() is True
        circuit.worked()
        assert circuit.enter() is False
        assert recovered == ["yes"]

    def test_failures_in_a_row(self) -> None:
        """One that isn't certain is none as long as the next attempt works."""
        circuit, _, recovered = self.make()
        for _ in range(5):
            circuit.failed(OSError("cut"))
            assert circuit.enter() is False
            circuit.worked()
        circuit.failed(OSError("cut"))
        circuit.failed(OSError("cut"))
        with pytest.raises(StoreUnavailable):
            circuit.enter()
        assert recovered == []

    def test_probe_without_a_result(self) -> None:
        """The next caller takes its place; a lost one doesn't keep the circuit open for ever."""
        circuit, clock, _ = self.make()
        self.open(circuit)
        clock.advance(PROBE_INTERVAL)
        assert circuit.enter() is True
        circuit.abandoned()
        assert circuit.enter() is True
        clock.advance(60.0)
        assert circuit.enter() is True

    def test_log(self, caplog: pytest.LogCaptureFixture) -> None:
        """One line for an outage, one for its end; none for those that follow within a minute."""
        circuit, clock, _ = self.make()
        for _ in range(3):
            self.open(circuit)
            circuit.failed(OSError("again"))
            circuit.worked()
        assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
        assert "no route" in caplog.messages[0]
        assert "answers again" in caplog.messages[1]
        clock.advance(REPORT_INTERVAL)
        self.open(circuit)
        assert len(caplog.records) == 3

    def test_many_threads(self, redis_server: RedisServer) -> None:
        """During an outage with many callers the server is asked once in a second."""
        with Network(redis_server.port) as network:
            client = Client(read_address(network.url), {"socket_timeout": 0.2})
            client.call("PING")
            redis_server.hang()
            stop = threading.Event()

            def ask() -> None:
                while not stop.is_set():
                    answers(client)
                    time.sleep(0.001)

            threads = [threading.Thread(target=ask) for _ in range(8)]
            for thread in threads:
                thread.start()
            time.sleep(1.0)  # all have noticed
            before = network.connections
            begun = time.monotonic()
            time.sleep(2.5)
            seconds = time.monotonic() - begun
            asked = network.connections - before
            stop.set()
            for thread in threads:
                thread.join()
            redis_server.resume()
        assert asked <= seconds / PROBE_INTERVAL + 2
