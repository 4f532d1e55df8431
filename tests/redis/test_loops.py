"""The client in coroutines: in one event loop, in several, and in those that are gone."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator

import pytest

from quickcache_core import StoreUnavailable
from quickcache_core.store.redis import bridge
from quickcache_core.store.redis.address import read_address
from quickcache_core.store.redis.client import Client, Refused, Script
from tests.redis.proxy import Network
from tests.redis.servers import RedisServer, wait_until


@pytest.fixture
def client(redis_server: RedisServer) -> Client:
    return Client(read_address(redis_server.url), {"socket_timeout": 0.3})


@pytest.fixture
def network(redis_server: RedisServer) -> Iterator[Network]:
    with Network(redis_server.port) as network:
        yield network


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    """Whoever leaves something open has it warned of here, in its own test."""
    yield
    gc.collect()


def connections(server: RedisServer) -> int:
    with server.client() as outside:
        return len(outside.client_list()) - 1


async def until_closed(server: RedisServer) -> None:
    while connections(server):  # noqa: ASYNC110 - the server tells nobody
        await asyncio.sleep(0.01)


async def answers(client: Client) -> bool:
    try:
        return bool(await bridge.run(client.call, "PING") == b"PONG")
    except StoreUnavailable:
        return False


def test_same_replies_as_in_threads(client: Client) -> None:
    """One implementation serves both."""

    async def main() -> None:
        assert await bridge.run(client.call, "SET", "a", 1) == b"OK"
        assert await bridge.run(client.call_many, [("GET", "a"), ("GET", "b")]) == [b"1", None]
        assert await bridge.run(client.run, Script("return redis.call('GET', KEYS[1])"), b"a") == b"1"
        assert await bridge.run(lambda: list(client.scan(b"*"))) == [[b"a"]]
        with pytest.raises(Refused):
            await bridge.run(client.call, "LPUSH", "a", 1)
        assert client.call("GET", "a") == b"1"  # blocks the loop, and works

    asyncio.run(main())


def test_many_tasks(client: Client, redis_server: RedisServer) -> None:
    """Each gets the replies to its own commands, over a limited number of connections."""

    async def work(name: int) -> None:
        for n in range(5):
            replies = await bridge.run(client.call_many, [("SET", f"t{name}", n), ("ECHO", f"{name} {n}")])
            assert replies == [b"OK", f"{name} {n}".encode()]

    async def main() -> None:
        await asyncio.gather(*(work(name) for name in range(200)))
        assert connections(redis_server) <= 32

    asyncio.run(main())
    assert client.call("GET", "t199") == b"4"


def test_limit_of_connections(redis_server: RedisServer) -> None:
    """`max_connections` holds for each loop; tasks that are cancelled while they wait take nothing along."""
    client = Client(read_address(redis_server.url), {"max_connections": 2})

    async def main() -> None:
        tasks = [asyncio.create_task(bridge.run(client.call, "INCR", "n")) for _ in range(50)]
        await asyncio.sleep(0)
        for task in tasks[10:20]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert connections(redis_server) <= 2
        assert await asyncio.gather(*(bridge.run(client.call, "PING") for _ in range(10))) == [b"PONG"] * 10

    asyncio.run(main())


def test_very_many_tasks_that_wait_for_few_connections(redis_server: RedisServer) -> None:
    """They get their turns; once the server has failed, those that still wait don't try it one by one."""
    client = Client(read_address(redis_server.url), {"max_connections": 1, "socket_timeout": 0.3})

    async def main() -> None:
        assert set(await asyncio.gather(*(bridge.run(client.call, "PING") for _ in range(2000)))) == {b"PONG"}
        redis_server.hang()
        results = await asyncio.gather(
            *(bridge.run(client.call, "PING") for _ in range(100)), return_exceptions=True
        )
        assert all(isinstance(result, StoreUnavailable) for result in results)
        assert sum("not asked just now" in str(result) for result in results) == 98
        redis_server.resume()

    asyncio.run(main())


def test_loop_goes_on_while_a_server_hangs(redis_server: RedisServer, client: Client) -> None:
    """Other tasks don't notice; those that ask give up after the timeout."""

    async def main() -> None:
        await bridge.run(client.call, "PING")
        redis_server.hang()
        waiting = asyncio.create_task(bridge.run(client.call, "PING"))
        turns = 0
        while not waiting.done():
            turns += 1
            await asyncio.sleep(0.001)
        assert turns > 10
        with pytest.raises(StoreUnavailable, match=r"[Tt]imeout"):
            await waiting
        with pytest.raises(StoreUnavailable, match=r"[Tt]imeout"):  # a new connection isn't greeted, either
            await bridge.run(client.call, "PING")
        with pytest.raises(StoreUnavailable, match="not asked just now"):
            await bridge.run(client.call, "PING")
        redis_server.resume()
        while not await answers(client):  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)

    asyncio.run(main())


def test_cancelled_while_a_reply_is_under_way(redis_server: RedisServer, client: Client) -> None:
    """The late reply never comes as the reply to somebody else's command."""

    async def main() -> None:
        await bridge.run(client.call_many, [("SET", "a", "late"), ("SET", "b", "right")])
        for _ in range(3):
            redis_server.hang()
            tasks = [asyncio.create_task(bridge.run(client.call, "GET", "a")) for _ in range(5)]
            await asyncio.sleep(0.02)
            for task in tasks:
                task.cancel()
            redis_server.resume()
            for task in tasks:
                with pytest.raises(asyncio.CancelledError):
                    await task
            for _ in range(20):
                assert await bridge.run(client.call, "GET", "b") == b"right"

    asyncio.run(main())


def test_probe_that_is_cancelled(redis_server: RedisServer) -> None:
    """Whoever tries whether an outage is over, and is cancelled, doesn't prolong it for the others."""
    client = Client(read_address(redis_server.url), {"socket_timeout": 10.0, "socket_connect_timeout": 10.0})

    async def main() -> None:
        await bridge.run(client.call, "PING")
        await asyncio.to_thread(redis_server.kill)
        assert not await answers(client)
        await asyncio.to_thread(redis_server.start)
        redis_server.hang()
        while True:  # until it is time for a probe, all are turned away
            probe = asyncio.create_task(answers(client))
            await asyncio.sleep(0.05)
            if not probe.done():
                break
        probe.cancel()
        redis_server.resume()
        async with asyncio.timeout(8.0):
            while not await answers(client):  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.01)

    asyncio.run(main())


def test_cancelled_at_any_moment(redis_server: RedisServer, client: Client) -> None:
    """Wherever a task is when it is cancelled, connecting included, nothing is mixed up."""

    async def work(n: int) -> None:
        for value in range(100):
            reply = await bridge.run(client.call, "ECHO", f"{n} {value}")
            assert reply == f"{n} {value}".encode()

    async def main() -> None:
        for turns in range(60):
            tasks = [asyncio.create_task(work(n)) for n in range(3)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in results)
        await work(0)
        assert connections(redis_server) <= 3

    asyncio.run(main())


@pytest.mark.parametrize("count", [1, 5, 11, 40])
def test_cut_in_the_middle_of_a_pipeline(network: Network, count: int) -> None:
    """An error instead of half the replies; the next command is answered over another connection."""
    client = Client(read_address(network.url))

    async def main() -> None:
        await bridge.run(client.call_many, [("SET", "a", "12345"), ("SET", "b", "right")])
        network.cut_after(count)
        with pytest.raises(StoreUnavailable):
            await bridge.run(client.call_many, [("GET", "a")] * 10)
        assert await bridge.run(client.call_many, [("GET", "b"), ("GET", "a")]) == [b"right", b"12345"]

    asyncio.run(main())


def test_restarted_between_two_commands(redis_server: RedisServer, client: Client) -> None:
    """No error; but the epoch is another one."""

    async def main() -> None:
        await bridge.run(client.call, "SET", "a", 1)
        epoch = client.epoch
        await asyncio.to_thread(redis_server.restart)
        assert await bridge.run(client.call, "GET", "a") is None
        assert client.epoch is not epoch

    asyncio.run(main())


def test_loops_one_after_the_other(redis_server: RedisServer, client: Client) -> None:
    """Each has connections of its own, which end with it."""

    async def main(n: int) -> None:
        assert await bridge.run(client.call, "INCR", "n") == n
        await asyncio.gather(*(bridge.run(client.call, "PING") for _ in range(5)))

    for n in range(1, 6):
        asyncio.run(main(n))
        wait_until(lambda: connections(redis_server) == 0, "the connections of the loop are closed")


def test_loops_side_by_side(client: Client) -> None:
    """In as many threads as there are, with plain threads beside them."""
    errors: list[BaseException] = []

    async def work(name: str) -> None:
        for n in range(30):
            assert await bridge.run(client.call, "ECHO", f"{name}{n}") == f"{name}{n}".encode()

    async def main(name: str) -> None:
        await asyncio.gather(*(work(f"{name}{task}") for task in "abc"))

    def in_a_loop(name: str) -> None:
        try:
            asyncio.run(main(name))
        except BaseException as error:
            errors.append(error)

    def plain(name: str) -> None:
        for n in range(100):
            reply = client.call("ECHO", f"{name}{n}")
            errors.extend([] if reply == f"{name}{n}".encode() else [AssertionError(reply)])

    threads = [threading.Thread(target=in_a_loop, args=(str(n),)) for n in range(5)]
    threads += [threading.Thread(target=plain, args=(str(n),)) for n in range(5, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_client_that_goes_before_its_loop(redis_server: RedisServer) -> None:
    """Its connections are closed, in the loop that they belong to."""

    async def main() -> None:
        client = Client(read_address(redis_server.url))
        await bridge.run(client.call, "PING")
        assert connections(redis_server) == 1
        del client
        await until_closed(redis_server)

    asyncio.run(main())


def test_closed_and_used_again(redis_server: RedisServer, client: Client) -> None:
    """From within the loop or from elsewhere."""

    async def main() -> None:
        for close in (client.close, lambda: threading.Thread(target=client.close).start()):
            await bridge.run(client.call, "PING")
            close()
            await until_closed(redis_server)
            assert await bridge.run(client.call, "PING") == b"PONG"

    asyncio.run(main())


def test_task_that_its_loop_ends(redis_server: RedisServer, client: Client) -> None:
    """A request that is under way when the loop ends is cancelled like any other task."""

    async def main() -> None:
        await bridge.run(client.call, "PING")
        redis_server.hang()
        asyncio.get_running_loop().waiting = asyncio.create_task(  # type: ignore[attr-defined]
            bridge.run(client.call, "GET", "a")
        )
        await asyncio.sleep(0.01)

    asyncio.run(main())
    redis_server.resume()
    assert client.call("PING") == b"PONG"


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what Python says of such connections
def test_loop_that_is_closed_the_hard_way(client: Client) -> None:
    """It gives nobody notice; the next loop has connections of its own all the same."""
    for _ in range(3):
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(bridge.run(client.call, "PING")) == b"PONG"
        loop.close()
    client.close()
    assert asyncio.run(bridge.run(client.call, "PING")) == b"PONG"


def test_unix_socket() -> None:
    """As over TCP."""

    async def main(client: Client) -> None:
        assert await bridge.run(client.call, "SET", "a", 1) == b"OK"

    with RedisServer(unix=True) as server:
        asyncio.run(main(Client(read_address(server.url))))


def test_wrong_password() -> None:
    """An outage, without the password."""

    async def main(client: Client) -> None:
        with pytest.raises(StoreUnavailable) as raised:
            await bridge.run(client.call, "PING")
        assert "not-this" not in str(raised.value)

    with RedisServer("--requirepass", "hunter2") as server:
        asyncio.run(main(Client(read_address(server.url.replace("//", "//:not-this@")))))
