"""What a tracking connection tells, and how it is known that it still does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from quickcache_core.store.near import WHOLE
from quickcache_core.store.redis.address import read_address
from quickcache_core.store.redis.client import Client
from quickcache_core.store.redis.names import Names, slot_of
from quickcache_core.store.redis.pushes import BadAnswer, PushReader
from quickcache_core.store.redis.tracking import LEASE, SILENCE, Lost, NotTracking, Tracking
from tests.redis.servers import NO_TRACKING, RedisServer, wait_until
from tests.redis.tls import TlsFront
from tests.waiting import readable

NAMES = Names("qc")
KEY = b"qc:entries:k"


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(data), data)


def push(*keys: bytes) -> bytes:
    return b">2\r\n$10\r\ninvalidate\r\n*%d\r\n%s" % (len(keys), b"".join(map(bulk, keys)))


# What comes in


@given(
    st.lists(st.lists(st.binary(max_size=40), max_size=5), max_size=6),
    st.lists(st.integers(1, 30), min_size=1, max_size=20),
)
def test_pushes_in_any_pieces(messages: list[list[bytes]], sizes: list[int]) -> None:
    """However the network cuts it, and whatever bytes are in the keys: each key is told once, in order."""
    data = b"".join(push(*keys) + b"+PONG\r\n" for keys in messages)
    reader = PushReader(NAMES.generation)
    slots = []
    n = 0
    while data:
        size = sizes[n % len(sizes)]
        slots += reader.feed(data[:size])
        data = data[size:]
        n += 1
    wanted = [key for keys in messages for key in keys]
    assert slots == [WHOLE if key == NAMES.generation else slot_of(key) for key in wanted]
    assert reader.replies == [b"+PONG"] * len(messages)


def test_message_that_has_not_arrived_in_full() -> None:
    """The keys that have count at once: a script that changes 100,000 makes one message of them."""
    data = push(b"qc:a", b"qc:b", b"qc:c")
    reader = PushReader(NAMES.generation)
    assert reader.feed(data[:-4]) == [slot_of(b"qc:a"), slot_of(b"qc:b")]
    assert reader.feed(data[-4:]) == [slot_of(b"qc:c")]


@pytest.mark.parametrize("nothing", [b"_\r\n", b"*-1\r\n", b"$-1\r\n"])
def test_flush(nothing: bytes) -> None:
    """A push without keys is about all of them."""
    reader = PushReader(NAMES.generation)
    data = b">2\r\n$10\r\ninvalidate\r\n" + nothing
    assert reader.feed(data + push(KEY)) == [WHOLE, slot_of(KEY)]


def test_new_generation() -> None:
    """It concerns the whole cache."""
    assert PushReader(NAMES.generation).feed(push(KEY, b"qc:g")) == [slot_of(KEY), WHOLE]


@pytest.mark.parametrize(
    "other",
    [
        b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\n\r\n\r\n",
        b">4\r\n+MOVING\r\n:12\r\n#t\r\n*2\r\n,1.5\r\n_\r\n",
        b">2\r\n$1\r\nx\r\n%1\r\n+key\r\n~2\r\n(123\r\n=5\r\ntxt:a\r\n",
    ],
)
def test_push_of_another_kind(other: bytes) -> None:
    """It is skipped, and what comes after it is understood."""
    data = other + push(KEY)
    for cut in range(len(data)):
        reader = PushReader(NAMES.generation)
        assert reader.feed(data[:cut]) + reader.feed(data[cut:]) == [slot_of(KEY)]
        assert reader.replies == []


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"$3\r\nabc\r\n",
        b">2\r\n$10\r\ninvalidate\r\n*1\r\n:1\r\n",
        b">2\r\n$10\r\ninvalidate\r\n*x\r\n",
        b"\r\n\r\n",
        b"+" + b"x" * 70_000,
    ],
)
def test_nonsense(data: bytes) -> None:
    """Whoever doesn't speak the protocol isn't listened to."""
    with pytest.raises(BadAnswer):
        PushReader(NAMES.generation).feed(data)


# Real servers


class Ear:
    """Hears what a server tells."""

    def __init__(self, url: str, **options: object) -> None:
        self.client = Client(read_address(url), options)
        self.tracking = Tracking(self.client, NAMES.tracked, NAMES.generation)
        self.heard: list[int] = []

    def listen(self, now: float | None = None) -> list[int]:
        self.heard += self.tracking.read(time.monotonic() if now is None else now)
        return self.heard

    def hears(self, slot: int) -> None:
        wait_until(lambda: slot in self.listen(), f"the push for slot {slot}")

    def close(self) -> None:
        self.tracking.close()
        self.client.close()


@pytest.fixture
def ear_at() -> Iterator[Callable[..., Ear]]:
    ears: list[Ear] = []

    def one(url: str, **options: object) -> Ear:
        ears.append(ear := Ear(url, **options))
        return ear

    yield one
    for ear in ears:
        ear.close()


@pytest.fixture
def writer(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        yield client


def test_keys_that_somebody_else_changes(
    redis_url: str, writer: redis.Redis, ear_at: Callable[..., Ear]
) -> None:
    """They are told, those of other prefixes aren't."""
    ear = ear_at(redis_url)
    writer.mset({"qc/l/k": 1, "other:k": 1, "qcc:k": 1})
    writer.set(KEY, "value")
    ear.hears(slot_of(KEY))
    assert ear.heard == [slot_of(KEY)]


@pytest.mark.parametrize("flush", ["flushdb", "flushall"])
def test_flush_of_a_server(
    redis_url: str, writer: redis.Redis, ear_at: Callable[..., Ear], flush: str
) -> None:
    """All keys are told to be gone, though it doesn't name them."""
    ear = ear_at(redis_url)
    getattr(writer, flush)()
    ear.hears(WHOLE)


def test_key_that_expires_or_is_evicted(
    redis_url: str, writer: redis.Redis, ear_at: Callable[..., Ear]
) -> None:
    """The server's own changes are told like anybody's."""
    writer.set(KEY, "value", px=30)
    ear = ear_at(redis_url)
    ear.hears(slot_of(KEY))


@pytest.mark.parametrize("hiredis", [True, False])
def test_unix_socket(ear_at: Callable[..., Ear], monkeypatch: pytest.MonkeyPatch, hiredis: bool) -> None:
    """Where the server is, and with which parser redis-py shakes hands, makes no difference."""
    if hiredis:
        pytest.importorskip("hiredis")
    parser = getattr(redis.connection, "_HiredisParser" if hiredis else "_RESP3Parser")
    with RedisServer(unix=True) as server, server.client() as writer:
        ear = ear_at(server.url)
        ear.tracking.close()
        endpoint = ear.client.primaries()[0]
        made = endpoint.connection
        monkeypatch.setattr(endpoint, "connection", lambda: made(parser_class=parser))
        monkeypatch.setattr(ear.client, "primaries", lambda: [endpoint])
        ear.tracking = Tracking(ear.client, NAMES.tracked, NAMES.generation)
        writer.set(KEY, "value")
        ear.hears(slot_of(KEY))


def test_tls(redis_server: RedisServer, ear_at: Callable[..., Ear]) -> None:
    """Encrypted pushes come through, however many there are in a record or records in a read."""
    with TlsFront(redis_server.port) as front, redis_server.client() as writer:
        ear = ear_at(front.url, ssl_cert_reqs="none", ssl_check_hostname=False)
        for n in range(300):
            writer.set(f"qc:{n}", "value")
        with writer.pipeline(transaction=False) as pipeline:
            for n in range(20_000):
                pipeline.set(f"qc:many:{n}", "value")
            pipeline.execute()
        ear.hears(slot_of(b"qc:many:19999"))
        assert len(ear.heard) == 20_300


def test_answer_to_a_ping(redis_url: str, ear_at: Callable[..., Ear]) -> None:
    """Trust is renewed by it, as of when the PING was sent."""
    ear = ear_at(redis_url)
    began = ear.tracking.trusted_until - LEASE
    ear.listen(began + LEASE / 4)
    time.sleep(0.05)
    ear.listen(began + LEASE / 4)
    assert ear.tracking.trusted_until == began + LEASE, "there was no need for one yet"
    sent = began + LEASE * 0.6
    ear.listen(sent)

    def is_renewed() -> bool:
        ear.listen(sent + 0.1)
        return ear.tracking.trusted_until == sent + LEASE

    wait_until(is_renewed, "the PONG")


def test_server_that_hangs(redis_server: RedisServer, ear_at: Callable[..., Ear]) -> None:
    """It isn't trusted beyond the lease, and given up after a while."""
    ear = ear_at(redis_server.url)
    until = ear.tracking.trusted_until
    redis_server.hang()
    for n in range(10):
        ear.listen(until + SILENCE * n / 10)
    assert ear.tracking.trusted_until == until
    with pytest.raises(Lost):
        ear.listen(until + SILENCE + LEASE)


def test_server_that_goes(redis_server: RedisServer, ear_at: Callable[..., Ear]) -> None:
    """That is noticed with the next look."""
    ear = ear_at(redis_server.url)
    redis_server.kill()
    with pytest.raises(Lost):
        wait_until(lambda: bool(ear.listen()), "never")


@pytest.mark.parametrize("listened", [False, True])
def test_last_words(redis_server: RedisServer, ear_at: Callable[..., Ear], listened: bool) -> None:
    """What a server told before it went is not lost, even if a look heard it and then failed."""
    ear = ear_at(redis_server.url)
    with redis_server.client() as writer:
        writer.set(KEY, 1)
    redis_server.kill()
    if listened:
        with pytest.raises(Lost):
            wait_until(lambda: ear.tracking._streams[0].listen(time.monotonic() + LEASE), "never")
    assert slot_of(KEY) in ear.tracking.rest()
    assert ear.tracking.rest() == []


def test_too_many_last_words(redis_server: RedisServer, ear_at: Callable[..., Ear]) -> None:
    """They aren't gone through for long: anything may be among them."""
    ear = ear_at(redis_server.url)
    with redis_server.client() as writer:
        writer.eval("for n = 0, 49999 do redis.call('SET', 'qc:entries:k' .. n, 'new') end", 0)
    assert readable(ear.tracking._streams[0]._socket, 20.0)
    wait_until(lambda: WHOLE in ear.tracking.rest(), "a rest that is too long")


def test_user_who_may_not_track(redis_server: RedisServer, ear_at: Callable[..., Ear]) -> None:
    """That is no outage: everything else works."""
    with redis_server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", *NO_TRACKING)
    with pytest.raises(NotTracking, match="client"):
        ear_at(redis_server.url.replace("//", "//app:secret@"))


def test_server_that_does_not_speak_the_protocol(ear_at: Callable[..., Ear]) -> None:
    """As before Redis 6, or behind a proxy."""
    with RedisServer("--rename-command", "HELLO", "") as server, pytest.raises(NotTracking, match="HELLO"):
        ear_at(server.url)


def test_server_that_is_busy(ear_at: Callable[..., Ear]) -> None:
    """A long script keeps it from everything else: it is alive, and doesn't refuse anything."""
    with RedisServer("--lua-time-limit", "20") as server, server.client() as admin:
        ear = ear_at(server.url)
        script = threading.Thread(target=run_for_ever, args=(server,))
        script.start()
        wait_until(lambda: is_busy(admin), "it is busy")
        with pytest.raises(Lost, match="BUSY"):
            ear_at(server.url)
        until = ear.tracking.trusted_until

        def is_renewed() -> bool:
            ear.listen()
            return ear.tracking.trusted_until > until

        wait_until(is_renewed, "an answer to the PING")
        admin.execute_command("SCRIPT", "KILL")
        script.join()
        admin.set(KEY, "value")
        ear.hears(slot_of(KEY))


def run_for_ever(server: RedisServer) -> None:
    with suppress(redis.ResponseError), server.client() as client:
        client.eval("while true do end", 0)


def is_busy(client: redis.Redis) -> bool:
    try:
        client.ping()
    except redis.ResponseError:
        return True
    return False


def test_user_who_may_not_ping(redis_server: RedisServer, ear_at: Callable[..., Ear]) -> None:
    """That is an answer, too."""
    with redis_server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "-ping")
    ear = ear_at(redis_server.url.replace("//", "//app:secret@"))
    until = ear.tracking.trusted_until

    def is_renewed() -> bool:
        ear.listen()
        return ear.tracking.trusted_until > until

    wait_until(is_renewed, "an answer to the PING")


def test_server_that_can_not_be_reached(redis_server: RedisServer, ear_at: Callable[..., Ear]) -> None:
    """Another matter than one that won't."""
    redis_server.kill()
    with pytest.raises(Lost):
        ear_at(redis_server.url)


def test_nothing_stays_behind(redis_server: RedisServer) -> None:
    """Connections are closed, made in vain or not."""
    with redis_server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", *NO_TRACKING)
        for url in (redis_server.url, redis_server.url.replace("//", "//app:secret@")):
            with suppress(NotTracking):
                Ear(url).close()
        wait_until(lambda: len(admin.client_list()) == 1, "the server is left alone")
