"""Several servers: candidates, Sentinels, a Cluster; and servers behind TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import redis

from quickcache_core import QuickCache, QuickCacheConfig, StoreUnavailable
from quickcache_core.store.redis import bridge
from quickcache_core.store.redis.address import Server, read_address
from quickcache_core.store.redis.client import Client, Script
from quickcache_core.store.redis.opening import redis_stores
from quickcache_core.store.redis.route import candidates, slot_of
from tests.redis.servers import RedisCluster, RedisServer, Sentinels, wait_until
from tests.redis.tls import TlsFront

FAST = {"socket_timeout": 0.3}


def works(client: Client, *command: object) -> bool:
    try:
        client.call(*command)
    except StoreUnavailable:
        return False
    return True


def run_in_a_loop(function: Callable[..., object], *arguments: object) -> object:
    return asyncio.run(bridge.run(function, *arguments))


def directly(function: Callable[..., object], *arguments: object) -> object:
    return function(*arguments)


either_way = pytest.mark.parametrize("run", [directly, run_in_a_loop])


class Meddled(Server):
    """While it is compared, something else happens."""

    meanwhile: ClassVar[list[Callable[[], object]]] = []

    def __ne__(self, other: object) -> bool:
        if self.meanwhile:
            self.meanwhile.pop()()
        return super().__ne__(other)


class TestCandidates:
    @pytest.fixture
    def pair(self) -> Iterator[tuple[RedisServer, RedisServer]]:
        """The first is a replica of the second."""
        with RedisServer() as primary, RedisServer("--replicaof", "127.0.0.1", str(primary.port)) as replica:
            yield replica, primary

    @either_way
    def test_the_primary_is_found(
        self, pair: tuple[RedisServer, RedisServer], run: Callable[..., object]
    ) -> None:
        """Wherever it stands in the list."""
        replica, primary = pair
        client = Client(read_address(f"{replica.url},{primary.url}"))
        assert run(client.call, "SET", "a", 1) == b"OK"
        assert [one.server.port for one in client.primaries()] == [primary.port]

    def test_two_threads_look(self, pair: tuple[RedisServer, RedisServer]) -> None:
        """While one of them remembers which it was, the other one sees all candidates as well."""
        replica, primary = pair
        places = Client(read_address(primary.url))._here().places
        find = candidates([Meddled("127.0.0.1", server.port) for server in (replica, primary)], places)
        found = [find()]
        Meddled.meanwhile.append(lambda: found.append(find()))
        found.append(find())
        assert [one.port for one in found] == [primary.port] * 3
        places.close()

    def test_replica_that_takes_over(self, pair: tuple[RedisServer, RedisServer]) -> None:
        """It is found, and the epoch is another one."""
        replica, primary = pair
        client = Client(read_address(f"{primary.url},{replica.url}"))
        client.call("SET", "a", 1)
        epoch = client.epoch
        primary.kill()
        assert not works(client, "SET", "a", 2)
        with replica.client() as outside:
            outside.replicaof("NO", "ONE")
        wait_until(lambda: works(client, "SET", "a", 2), "the client finds the new primary")
        assert [one.server.port for one in client.primaries()] == [replica.port]
        assert client.epoch is not epoch

    def test_roles_that_change_places(self, pair: tuple[RedisServer, RedisServer]) -> None:
        """What a replica refuses is sent to the new primary: nobody sees an error."""
        replica, primary = pair
        client = Client(read_address(f"{primary.url},{replica.url}"))
        client.call("SET", "a", 1)
        epoch = client.epoch
        with primary.client() as old, replica.client() as new:
            new.replicaof("NO", "ONE")
            old.replicaof("127.0.0.1", str(replica.port))
        assert client.call_many([("SET", "a", 2), ("SET", "b", 3)]) == [b"OK", b"OK"]
        with replica.client() as new:
            assert (new.get("a"), new.get("b")) == (b"2", b"3")
        assert client.epoch is not epoch

    def test_primary_that_hangs(self, pair: tuple[RedisServer, RedisServer]) -> None:
        """The one that takes its place is used, and the old one isn't asked again."""
        replica, primary = pair
        client = Client(read_address(f"{primary.url},{replica.url}"), FAST)
        client.call("SET", "a", 1)
        primary.hang()
        with replica.client() as outside:
            outside.replicaof("NO", "ONE")
        wait_until(lambda: works(client, "SET", "a", 2), "the client finds the new primary")
        primary.resume()
        assert client.call("GET", "a") == b"2"

    def test_user_who_may_not_ask_for_information(self, pair: tuple[RedisServer, RedisServer]) -> None:
        """ROLE tells the primary as well."""
        replica, primary = pair
        for server in pair:
            with server.client() as outside:
                outside.execute_command("ACL", "SETUSER", "shop", "on", ">pw", "~*", "+role", "+set", "+ping")
        client = Client(read_address(f"{replica.url},{primary.url}"), {"username": "shop", "password": "pw"})
        assert client.call("SET", "a", 1) == b"OK"

    def test_none_is_primary(self, pair: tuple[RedisServer, RedisServer]) -> None:
        """The error says what is the matter with each."""
        replica, primary = pair
        client = Client(read_address(f"{primary.url},{replica.url}"))
        primary.kill()
        with pytest.raises(StoreUnavailable, match=r"takes writes: .*refused.*; .*replica"):
            client.call("GET", "a")


@pytest.mark.slow
class TestSentinels:
    @either_way
    def test_failover(self, sentinels: Sentinels, run: Callable[..., object]) -> None:
        """The primary of the service is used, and after its end the one that the Sentinels choose."""
        client = Client(read_address(sentinels.url))
        assert run(client.call, "SET", "a", 1) == b"OK"
        assert [one.server.port for one in client.primaries()] == [sentinels.primary.port]
        epoch = client.epoch
        sentinels.primary.kill()
        wait_until(lambda: works(client, "SET", "a", 2), "the client finds the new primary")
        assert [one.server.port for one in client.primaries()] == [sentinels.replica.port]
        assert client.epoch is not epoch
        assert run(client.call, "GET", "a") == b"2"

    def test_sentinel_that_is_down(self, sentinels: Sentinels) -> None:
        """The next one is asked; without any the primary that is known goes on being used."""
        client = Client(read_address(f"redis://127.0.0.1:1,{sentinels.url}"))
        client.call("SET", "a", 1)
        sentinels.sentinels[0].kill()
        assert client.call("GET", "a") == b"1"
        with pytest.raises(StoreUnavailable, match="no Sentinel names a primary of 'shop'"):
            client.primaries()

    def test_service_that_nobody_knows(self, sentinels: Sentinels) -> None:
        """The error names it."""
        client = Client(read_address(sentinels.url.replace("=shop", "=till")))
        with pytest.raises(StoreUnavailable, match=r"'till': .*no service of that name"):
            client.call("PING")


@pytest.mark.slow
class TestCluster:
    @either_way
    def test_keys_of_all_servers(self, redis_cluster: RedisCluster, run: Callable[..., object]) -> None:
        """Each command goes to the server of its key, with one round trip to each; replies stay in order."""
        client = Client(read_address(redis_cluster.url))
        add = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")

        def work() -> None:
            assert client.call_many([("SET", f"k{n}", n) for n in range(100)]) == [b"OK"] * 100
            assert client.call_many([("GET", f"k{n}") for n in range(100)]) == [b"%d" % n for n in range(100)]
            assert client.call_many([add.on(b"k%d" % n, 1) for n in range(100)]) == list(range(1, 101))
            assert client.run(add, b"k7", 5) == 13
            found = sorted(key for keys in client.scan(b"k*") for key in keys)
            assert found == sorted(b"k%d" % n for n in range(100))

        run(work)
        ports = {node.port for node in redis_cluster.primaries}
        assert {one.server.port for one in client.primaries()} == ports
        assert client.is_cluster
        assert abs(client.now() - Client(client.address).now()) < 0.5

    def test_one_seed_is_enough(self, redis_cluster: RedisCluster) -> None:
        """The others are learnt from it, and used when it is gone."""
        port = redis_cluster.primaries[0].port
        client = Client(read_address(f"redis://127.0.0.1:1,redis://127.0.0.1:{port}?cluster=true"))
        assert len(client.primaries()) == 3
        redis_cluster.primaries[0].hang()
        wait_until(lambda: len(client.primaries()) == 3, "another one is asked")

    def test_slot_that_has_moved(self, redis_cluster: RedisCluster) -> None:
        """The command is sent to the new owner: nobody sees an error, and the epoch is another one."""
        client = Client(read_address(redis_cluster.url))
        client.call("GET", "a")
        epoch = client.epoch
        slot = slot_of(("GET", "a"))
        source = next(
            node for node in redis_cluster.primaries if Server("127.0.0.1", node.port) == owner(client, "a")
        )
        target = next(node for node in redis_cluster.primaries if node is not source)
        redis_cluster.move_slot(slot, source, target)
        assert client.call("SET", "a", 1) == b"OK"
        assert owner(client, "a") == Server("127.0.0.1", target.port)
        assert client.epoch is not epoch
        with target.client() as outside:
            assert outside.get("a") == b"1"

    def test_slot_on_its_way(self, redis_cluster: RedisCluster) -> None:
        """A key that is at the new owner already is asked for there, before the slot is."""
        client = Client(read_address(redis_cluster.url))
        client.call("GET", "a")
        slot = slot_of(("GET", "a"))
        source = next(
            node for node in redis_cluster.primaries if Server("127.0.0.1", node.port) == owner(client, "a")
        )
        target = next(node for node in redis_cluster.primaries if node is not source)
        with source.client() as old, target.client() as new:
            identities = [one.execute_command("CLUSTER", "MYID").decode() for one in (old, new)]
            new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", identities[0])
            old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", identities[1])
            assert client.call_many([("SET", "a", 1), ("GET", "a")]) == [b"OK", b"1"]
            assert owner(client, "a") == Server("127.0.0.1", source.port)
            new.execute_command("CLUSTER", "SETSLOT", slot, "NODE", identities[1])
            old.execute_command("CLUSTER", "SETSLOT", slot, "NODE", identities[1])
        assert client.call("GET", "a") == b"1"

    def test_load_that_began_in_an_outage(self, redis_cluster: RedisCluster) -> None:
        """It is told of the end of the outage like any other: its value is not stored."""
        cache = QuickCache(QuickCacheConfig(location=redis_cluster.url))
        store: Any = cache._store
        token = store._loads.begin_without_server("key")
        assert store.is_overtaken("key", token)
        redis_stores.forget()

    def test_server_that_hangs(self) -> None:
        """The keys of the others go on being used at full speed."""
        with RedisCluster("--cluster-require-full-coverage", "no") as cluster:
            client = Client(read_address(cluster.url), FAST)
            client.call_many([("SET", f"k{n}", n) for n in range(30)])
            keys = {owner(client, f"k{n}").port: f"k{n}" for n in range(30)}
            hung, *others = cluster.primaries
            hung.hang()
            wait_until(lambda: not works(client, "GET", keys[hung.port]), "it is noticed")
            for _ in range(200):
                for other in others:
                    assert works(client, "GET", keys[other.port])
            hung.resume()
            wait_until(lambda: works(client, "GET", keys[hung.port]), "it is used again")

    def test_failover(self) -> None:
        """A replica that takes over is found by itself."""
        with RedisCluster(replicas=True) as cluster:
            client = Client(read_address(cluster.url), FAST)
            client.call_many([("SET", f"k{n}", n) for n in range(30)])
            epoch = client.epoch
            seed = Client(read_address(f"redis://127.0.0.1:{cluster.replicas[1].port}?cluster=true"))
            assert len(seed.primaries()) == 3  # a replica knows them as well
            cluster.primaries[0].kill()

            def all_work() -> bool:
                return all(works(client, "SET", f"k{n}", n) for n in range(30))

            wait_until(all_work, "the replica takes over", 60.0)
            ports = {one.server.port for one in client.primaries()}
            assert cluster.primaries[0].port not in ports
            assert len(ports) == 3
            assert client.epoch is not epoch

    def test_all_are_down(self, redis_cluster: RedisCluster) -> None:
        """The error says so of each."""
        client = Client(read_address(redis_cluster.url))
        client.call("GET", "a")
        for node in redis_cluster.primaries:
            node.kill()
        assert not works(client, "GET", "a")
        with pytest.raises(StoreUnavailable):
            client.call("GET", "a")
        with pytest.raises(StoreUnavailable):
            client.primaries()


def owner(client: Client, key: str) -> Server:
    cluster = client._delivery._cluster
    assert cluster is not None
    return cluster.server_for(("GET", key))


@either_way
def test_tls(redis_server: RedisServer, run: Callable[..., object]) -> None:
    """With redis-py's own options for it."""
    with TlsFront(redis_server.port) as front:
        options = {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
        client = Client(read_address(front.url), options)
        for n in range(20):
            assert run(client.call, "ECHO", n) == str(n).encode()
        with pytest.raises(StoreUnavailable, match="certificate"):
            run(Client(read_address(front.url)).call, "PING")
        client.close()


def test_tracking_connection(redis_server: RedisServer) -> None:
    """What `primaries` gives makes connections of one's own that speak RESP3."""
    client = Client(read_address(redis_server.url), {"client_name": "shop"})
    [primary] = client.primaries()
    connection = primary.connection(client_name="tracker")
    assert isinstance(connection, redis.Connection)
    connection.connect()
    connection.send_command("CLIENT", "TRACKINGINFO")
    assert isinstance(connection.read_response(), dict)
    with redis_server.client() as outside:
        assert [(one["name"], one.get("resp", "3")) for one in outside.client_list() if one["name"]] == [
            ("tracker", "3")
        ]
    connection.disconnect()
