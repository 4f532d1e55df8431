"""What is kept near of a server: never older than the bound, and gone whenever that isn't sure."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from quickcache_core.errors import KeyNotFound, StoreUnavailable
from quickcache_core.store.near import WHOLE
from quickcache_core.store.redis import near as near_module
from quickcache_core.store.redis.names import slot_of
from quickcache_core.store.redis.near import MOST_SECONDS, POLL_INTERVAL, CappedNearEntry, TrackedNear
from quickcache_core.store.redis.tracking import LEASE, RECONNECT_INTERVAL, SLICE, Tracking
from quickcache_core.testing import ManualClock
from tests.redis.reading_near import NearReader, raw
from tests.redis.servers import NO_TRACKING, RedisServer, wait_until
from tests.waiting import readable

ROOT = Path(__file__).parents[2]
A_POLL = 5 * POLL_INTERVAL
"""Seconds after which a get looks at what has arrived."""


@pytest.fixture
def reader_at() -> Iterator[Callable[..., NearReader]]:
    readers: list[NearReader] = []

    def one(url: str, **options: Any) -> NearReader:
        readers.append(reader := NearReader(url, **options))
        return reader

    yield one
    for reader in readers:
        reader.close()


@pytest.fixture
def reader(redis_url: str, reader_at: Callable[..., NearReader]) -> NearReader:
    return reader_at(redis_url)


@pytest.fixture
def other(redis_url: str) -> Iterator[redis.Redis]:
    """Somebody else, who isn't told of anything and tells nobody."""
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        yield client


def warm(reader: NearReader, *keys: str) -> None:
    """Have the keys near."""

    def all_near() -> bool:
        for key in keys:
            reader.get(key)
        reader.was_asked()
        for key in keys:
            reader.get(key)
        return not reader.was_asked()

    wait_until(all_near, f"{keys} are near")


def sees(reader: NearReader, key: str, value: str | None) -> None:
    """Long before the entry is read again by itself."""
    wait_until(lambda: reader.get(key) == value, f"{key} is {value}")


def near_again(reader: NearReader) -> None:
    wait_until(reader.is_trusted, "changes are heard of")


# In quiet times


def test_second_get(reader: NearReader, other: redis.Redis) -> None:
    """It doesn't ask the server; nor does one for a key that isn't there."""
    other.set(raw("k"), "value")
    assert [reader.get("k"), reader.get("nothing")] == ["value", None]
    assert reader.was_asked() == ["k", "nothing"]
    assert [reader.get("k"), reader.get("nothing")] == ["value", None]
    with pytest.raises(KeyNotFound):
        reader.near.get("nothing")
    assert reader.near.get_many(["k", "nothing", "else"]) == ({"k": "value"}, ["else"])
    assert reader.was_asked() == []
    assert (reader.near.hits, reader.near.misses) == (3, 4)


def test_write_of_somebody_else(reader: NearReader, other: redis.Redis) -> None:
    """Seen with the next poll, whatever kind of write it is; other keys stay near."""
    other.mset({raw("k"): 1, raw("j"): 1})
    writes: list[tuple[Callable[[], object], str | None]] = [
        (lambda: other.set(raw("k"), "2"), "2"),
        (lambda: other.delete(raw("k")), None),
        (lambda: other.incrby(raw("k"), 3), "3"),
        (lambda: other.rename(raw("j"), raw("k")), "1"),
        (lambda: other.eval("redis.call('SET', KEYS[1], 5)", 1, raw("k")), "5"),
        (lambda: other.pexpireat(raw("k"), 1), None),
    ]
    for write, value in writes:
        warm(reader, "k", "stays")
        write()
        sees(reader, "k", value)
        reader.get("stays")
        assert reader.was_asked() == ["k"]


def test_keys_of_other_prefixes(reader: NearReader, other: redis.Redis) -> None:
    """They disturb nothing, not even where they fall into the same slot."""
    warm(reader, "k")
    counter = reader.near.label()
    for n in range(1000):
        other.set(f"other:{n}", n)
    time.sleep(A_POLL)
    reader.get("k")
    assert reader.was_asked() == []
    assert reader.near.label() == counter


def test_own_write(reader: NearReader) -> None:
    """The next get has it, and keeps it: the news of one's own write doesn't throw out what was read
    after it.
    """
    for n in range(50):
        reader.set("k", str(n))
        assert reader.get("k") == str(n)
    reader.was_asked()
    counter = reader.near.label()
    reader.set("k", "last")
    wait_until(lambda: reader.near.label() >= counter + 2, "it is counted, and its news has come")
    assert [reader.get("k") for _ in range(3)] == ["last"] * 3
    assert reader.was_asked() == ["k"]


def test_flush(reader: NearReader, other: redis.Redis) -> None:
    """Nothing lives on."""
    other.mset({raw("k"): 1, raw("j"): 1})
    warm(reader, "k", "j")
    other.flushall()
    sees(reader, "k", None)
    assert reader.get("j") is None


def test_new_generation(reader: NearReader, other: redis.Redis) -> None:
    """Somebody cleared the cache."""
    other.set(raw("k"), "value")
    warm(reader, "k")
    label = reader.near.label()
    assert reader.near.holds(label, slot_of(b"qc:anything"))
    other.set("qc:g", "another")
    wait_until(lambda: not reader.near.holds(label), "it is heard of")
    assert reader.get("k") == "value"
    assert reader.was_asked() == ["k"]


def test_whole_cache_written(reader: NearReader) -> None:
    """As by a clear of one's own: nothing that was read before holds, what is read after it does."""
    warm(reader, "k")
    reader.near.wrote(WHOLE)
    warm(reader, "k")
    reader.near.close()
    reader.near.wrote(WHOLE)
    assert reader.near.stamps[WHOLE] == near_module.UNTRUSTED


def test_deadlines(reader: NearReader, other: redis.Redis) -> None:
    """An entry that ends is gone when it ends; one that lives long is read again after a while."""
    entry = reader.near.entry("v", 1, 8, time.monotonic() + MOST_SECONDS / 2)
    assert type(entry) is not CappedNearEntry
    long = reader.near.entry("v", 1, 8, float("inf"))
    assert type(long) is CappedNearEntry
    assert long.deadline <= time.monotonic() + MOST_SECONDS
    other.set(raw("k"), "value")
    warm(reader, "k")
    reader.near.young["k"] = CappedNearEntry("old", reader.near.label(), slot_of(raw("k")), time.monotonic())
    assert reader.get("k") == "value"
    assert reader.was_asked() == ["k"]


def test_clock_that_is_turned_by_hand(redis_url: str, other: redis.Redis) -> None:
    """It decides what has expired. Whether servers can be trusted is a matter of real time."""
    clock = ManualClock()
    reader = NearReader(redis_url, now=clock.monotonic)
    reader.ttl = float("-inf")
    other.set(raw("k"), "value")
    reader.near.keep(
        reader.near.young, "k", reader.near.entry("value", reader.near.label(), slot_of(raw("k")), 2000.0), 5
    )
    for _ in range(3):
        assert reader.get("k") == "value"
    clock.advance(MOST_SECONDS - 1)
    assert reader.get("k") == "value"
    assert reader.was_asked() == []
    other.set(raw("k"), "new")
    reader.ttl = float("inf")
    sees(reader, "k", "new")
    reader.close()


# The race of a fill that comes late


class Interrupted(NearReader):
    """Something happens between the answer of the server and its being kept, or before it is asked."""

    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None

    def _ask(self, key: str) -> bytes | None:
        before, self.before = self.before, None
        if before is not None:
            before()
        found = super()._ask(key)
        after, self.after = self.after, None
        if after is not None:
            after()
        return found


def test_write_while_a_read_is_under_way(redis_url: str, other: redis.Redis) -> None:
    """What was read is of before the write, whose news may come before the value is kept: it isn't served."""
    reader = Interrupted(redis_url)
    for n in range(20):
        other.set(raw("k"), f"old {n}")
        warm(reader, "j")

        def write(value: str = f"new {n}", poll: bool = n % 2 == 0) -> None:
            other.set(raw("k"), value)
            time.sleep(A_POLL)
            if poll:
                # The push is read here, as any other thread would.
                reader.near.poll(time.monotonic())

        reader.after = write
        reader.near.drop("k")
        assert reader.get("k") == f"old {n}", "it began before the write"
        sees(reader, "k", f"new {n}")
    reader.close()


def test_write_just_before_a_read(redis_url: str, other: redis.Redis) -> None:
    """What was read is of after it, though the news came later. It may cost another read, no more."""
    reader = Interrupted(redis_url)
    near_again(reader)
    reader.before = lambda: other.set(raw("k"), "new")
    assert reader.get("k") == "new"
    time.sleep(A_POLL)
    assert reader.get("k") == "new"
    reader.close()


def test_own_write_while_a_read_is_under_way(redis_url: str, other: redis.Redis) -> None:
    """Another thread writes. Once it has its answer nobody here gets the old value, news or not."""
    reader = Interrupted(redis_url)
    for n in range(50):
        other.set(raw("k"), "old")
        reader.near.drop("k")
        near_again(reader)

        def write(value: str = str(n)) -> None:
            thread = threading.Thread(target=reader.set, args=("k", value))
            thread.start()
            thread.join()

        reader.after = write
        assert reader.get("k") == "old"
        assert reader.get("k") == str(n)
    reader.close()


def test_connection_lost_while_a_read_is_under_way(redis_url: str, other: redis.Redis) -> None:
    """What was read before there was a new one isn't kept: nobody would have told of changes in between."""
    reader = Interrupted(redis_url)
    other.set(raw("k"), "old")

    def lose_and_write() -> None:
        kill_tracking(other)
        other.set(raw("k"), "new")
        time.sleep(A_POLL)
        near_again(reader)

    for _ in range(3):
        reader.after = lose_and_write
        reader.near.drop("k")
        other.set(raw("k"), "old")
        assert reader.get("k") == "old"
        assert reader.get("k") == "new"
        time.sleep(RECONNECT_INTERVAL)
    reader.close()


def kill_tracking(admin: redis.Redis) -> None:
    """Cut all connections that track."""
    found = [one for one in admin.client_list() if "t" in one["flags"]]
    for one in found:
        admin.client_kill_filter(_id=one["id"])
    assert found, "nobody was told of changes"


# Trouble


def test_connection_that_was_cut(reader: NearReader, other: redis.Redis) -> None:
    """Nothing that was kept under it is served again: there may have been news."""
    other.set(raw("k"), "old")
    warm(reader, "k")
    kill_tracking(other)
    other.set(raw("k"), "new")
    sees(reader, "k", "new")
    near_again(reader)
    warm(reader, "k")


def test_server_that_hangs(redis_server: RedisServer, reader_at: Callable[..., NearReader]) -> None:
    """What is near is served until the lease is over, and then no more."""
    reader = reader_at(redis_server.url, socket_timeout=0.1)
    reader.set("k", "value")
    warm(reader, "k")
    redis_server.hang()
    hung = time.monotonic()
    last = hung
    while True:
        began = time.monotonic()
        try:
            reader.get("k")
        except StoreUnavailable:
            break
        last = began
    assert last - hung < LEASE + 1.0
    redis_server.resume()
    wait_until(lambda: works(reader), "it works again")
    near_again(reader)


def works(reader: NearReader) -> bool:
    try:
        return reader.client.call("PING") in (b"PONG", "PONG")
    except StoreUnavailable:
        return False


def test_server_that_hung_for_a_while(
    redis_server: RedisServer, reader_at: Callable[..., NearReader]
) -> None:
    """If the connection is still there it has told everything: what is near is served again, without what
    changed meanwhile.
    """
    reader = reader_at(redis_server.url)
    with redis_server.client() as other:
        other.mset({raw("k"): "old", raw("stays"): "value"})
        warm(reader, "k", "stays")
        tracking = reader.near._tracking
        redis_server.hang()
        time.sleep(LEASE + 0.1)
        assert not reader.is_trusted()
        # It lies in the server's socket, and is carried out before anything of ours.
        write = threading.Thread(target=other.set, args=(raw("k"), "new"))
        write.start()
        time.sleep(0.05)
        redis_server.resume()
        write.join()
    near_again(reader)
    assert reader.near._tracking is tracking
    assert [reader.get("stays"), reader.was_asked()] == ["value", []]
    assert [reader.get("k"), reader.was_asked()] == ["new", ["k"]]


def test_server_that_is_killed_and_started_empty(
    redis_server: RedisServer, reader_at: Callable[..., NearReader]
) -> None:
    """Nothing of its former life is served by it."""
    reader = reader_at(redis_server.url)
    reader.set("k", "value")
    warm(reader, "k")
    redis_server.kill()
    time.sleep(A_POLL)
    with pytest.raises(StoreUnavailable):
        reader.get("k")
    redis_server.start()
    wait_until(lambda: works(reader), "it works again")
    assert reader.get("k") is None
    near_again(reader)
    assert reader.get("k") is None


def test_rest_of_more_than_a_lease(reader: NearReader, other: redis.Redis) -> None:
    """What changed meanwhile is noticed by the first get; what didn't is near again after it."""
    other.mset({raw("k"): "old", raw("stays"): "value"})
    warm(reader, "k", "stays")
    other.set(raw("k"), "new")
    time.sleep(LEASE + 0.1)
    assert reader.get("k") == "new"
    near_again(reader)
    reader.was_asked()
    assert [reader.get("stays"), reader.was_asked()] == ["value", []]


def test_rest_that_is_tended(redis_server: RedisServer, reader_at: Callable[..., NearReader]) -> None:
    """Whatever piled up is taken from the server, and the lease is renewed."""
    reader = reader_at(redis_server.url)
    with redis_server.client() as other:
        other.set(raw("stays"), "value")
        warm(reader, "stays")
        names = [raw(f"{n} {'x' * 200}") for n in range(50_000)]
        with other.pipeline(transaction=False) as pipeline:
            for name in names:
                if slot_of(name) != slot_of(raw("stays")):
                    pipeline.set(name, "value")
            pipeline.execute()
        time.sleep(LEASE)
        wait_until(lambda: reader.near.tend() is None and tracked(other)["omem"] == "0", "it is all taken")
    wait_until(lambda: reader.near.tend() is None and reader.is_trusted(), "the lease is renewed")
    assert [reader.get("stays"), reader.was_asked()] == ["value", []]


def tracked(admin: redis.Redis) -> dict[str, str]:
    (found,) = [one for one in admin.client_list() if "t" in one["flags"]]
    return found


def test_burst_of_news(reader: NearReader, other: redis.Redis) -> None:
    """100,000 changes at once: no get takes long over them, and none is forgotten."""
    keys = [f"k{n}" for n in range(100)]
    other.mset({raw(key): "old" for key in keys})
    warm(reader, *keys)
    with other.pipeline(transaction=False) as pipeline:
        for n in range(100_000):
            pipeline.set(raw(f"k{n}"), "new")
        pipeline.execute()
    tracking = reader.near._tracking
    assert tracking is not None
    read, told = tracking.read, []

    def counted(now: float) -> list[int]:
        slots = read(now)
        told.append(len(slots))
        return slots

    tracking.read = counted  # type: ignore[method-assign]
    wait_until(lambda: reader.get("k99") == "new" and sum(told) >= 100_000, "the news has come")
    assert max(told) < SLICE / len(b"$14\r\nqc:entries:k0\r\n")
    assert {reader.get(key) for key in keys} == {"new"}
    warm(reader, *keys)


def test_script_that_changes_a_lot(reader: NearReader, other: redis.Redis) -> None:
    """One message with all its keys."""
    keys = [f"k{n}" for n in range(100)]
    other.mset({raw(key): "old" for key in keys})
    warm(reader, *keys)
    script = "for n = 0, 49999 do redis.call('SET', 'qc:entries:k' .. n, 'new') end"
    other.eval(script, 0)
    wait_until(lambda: reader.get("k99") == "new", "the news has come")
    assert {reader.get(key) for key in keys} == {"new"}


def test_client_that_talks_to_other_servers(reader: NearReader, other: redis.Redis) -> None:
    """Nothing is trusted until these have been asked to tell."""
    other.set(raw("k"), "value")
    warm(reader, "k")
    tracking = reader.near._tracking
    reader.client._delivery.epoch = object()
    time.sleep(A_POLL)
    assert reader.get("k") == "value"
    assert reader.was_asked() == ["k"]
    near_again(reader)
    assert reader.near._tracking is not tracking


def test_server_that_does_not_tell(
    redis_server: RedisServer, reader_at: Callable[..., NearReader], caplog: pytest.LogCaptureFixture
) -> None:
    """Everything is asked for each time; that is said once."""
    with redis_server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", *NO_TRACKING)
    reader = reader_at(redis_server.url.replace("//", "//app:secret@"))
    reader.set("k", "value")
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            assert reader.get("k") == "value"
            time.sleep(POLL_INTERVAL)
            # As if minutes had passed.
            reader.near._connector.due_at = 0.0
    assert reader.was_asked() == ["k"] * 5
    (record,) = caplog.records
    assert "CLIENT TRACKING" in record.message
    assert "secret" not in caplog.text
    with redis_server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "app", "+client|tracking")
    reader.near._connector.due_at = 0.0
    near_again(reader)


def test_server_that_refuses_is_seldom_asked(
    redis_server: RedisServer, reader_at: Callable[..., NearReader]
) -> None:
    """Nor is one that can't be reached."""
    with redis_server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", *NO_TRACKING)
        reader = reader_at(redis_server.url.replace("//", "//app:secret@"))
        reader.get("k")
        before = admin.info("stats")["total_connections_received"]
        for _ in range(20):
            reader.get("k")
            time.sleep(POLL_INTERVAL)
        assert admin.info("stats")["total_connections_received"] == before


def test_outage(redis_server: RedisServer, reader_at: Callable[..., NearReader]) -> None:
    """While the client knows of one, nobody tries to connect; when it is over, somebody does at once."""
    reader = reader_at(redis_server.url)
    near_again(reader)
    redis_server.kill()
    wait_until(lambda: not works(reader) and reader.client.is_down, "the outage is known")
    reader.near.poll(time.monotonic())
    tried = reader.near._connector.due_at
    for _ in range(20):
        assert not reader.is_trusted()
    assert reader.near._connector.due_at == tried
    redis_server.start()
    wait_until(lambda: works(reader), "it works again")
    assert reader.is_trusted()


# Threads, greenlets, forks and signals


def test_thread_that_gets_stuck_while_it_polls(reader: NearReader, other: redis.Redis) -> None:
    """The others go on, and end the trust when the lease is over."""
    other.set(raw("k"), "value")
    warm(reader, "k")
    assert reader.near._polling.acquire(False)
    try:
        reader.get("k")
        assert reader.was_asked() == []
        time.sleep(LEASE + 0.1)
        other.set(raw("k"), "new")
        assert reader.get("k") == "new"
        assert reader.was_asked() == ["k"]
    finally:
        reader.near._polling.release()
    near_again(reader)


def test_process_that_was_stopped_until_the_lease_was_over(
    reader: NearReader, other: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one thread reads what was told meanwhile, the others don't go on with what was known."""
    other.set(raw("k"), "value")
    warm(reader, "k")
    tracking = reader.near._tracking
    assert tracking is not None
    read, reads, told = tracking.read, threading.Event(), threading.Event()

    def slow(now: float) -> list[int]:
        reads.set()
        assert told.wait(20.0)
        return read(now)

    tracking.read = slow  # type: ignore[method-assign]
    time.sleep(LEASE + 0.1)
    other.set(raw("k"), "new")
    # However late the others come, they have no need to look for themselves.
    monkeypatch.setattr(near_module, "POLL_INTERVAL", 60.0)
    first = threading.Thread(target=reader.get, args=("other",))
    first.start()
    try:
        assert reads.wait(20.0)
        assert reader.get("k") == "new"
    finally:
        told.set()
        first.join()


def test_process_that_is_stopped_while_it_polls(reader: NearReader) -> None:
    """When it goes on, it doesn't take what it knew before for proof of now."""
    warm(reader, "k")
    tracking = reader.near._tracking
    assert tracking is not None
    read = tracking.read

    def stopped(now: float) -> list[int]:
        slots = read(now)
        time.sleep(LEASE + 0.1)
        return slots

    tracking.read = stopped  # type: ignore[method-assign]
    reader.near.poll(time.monotonic())
    assert reader.near.stamps[WHOLE] == near_module.UNTRUSTED


def test_many_threads(redis_url: str, other: redis.Redis) -> None:
    """No thread is left with an old value once another has written and its news have come."""
    reader = NearReader(redis_url)
    wrong: list[tuple[int, str | None]] = []
    written = 0
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            # What was written a while ago, by this clock.
            least, began = written, time.monotonic()
            while time.monotonic() < began + 0.1 and not stop.is_set():
                if time.monotonic() > began + 0.05 and int(reader.get("k") or 0) < least:
                    wrong.append((least, reader.get("k")))
                    return
                reader.get("k")

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(1, 100):
        if n % 3:
            other.set(raw("k"), n)
        else:
            reader.set("k", str(n))
        written = n
        time.sleep(0.002)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    reader.close()


@pytest.mark.parametrize("silent", [False, True], ids=["fork", "fork in C"])
def test_child_after_a_fork(redis_server: RedisServer, silent: bool) -> None:
    """It has a connection of its own, and takes nothing from its parent's."""
    for busy in ("", "busy"):
        how = "silent" if silent else "fork"
        run_program("tests.redis.forked_reader", redis_server.url, how, busy)


def run_program(module: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_greenlets(redis_server: RedisServer) -> None:
    """Under gevent a poll doesn't wait, and no greenlet holds up the others while one connects."""
    pytest.importorskip("gevent")
    run_program("tests.redis.greenlet_reader", redis_server.url)


def test_event_loop(redis_url: str, other: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection is made in the thread that it runs in."""
    threads: list[threading.Thread] = []
    made = Tracking.__init__

    def noted(*args: Any) -> None:
        threads.append(threading.current_thread())
        made(*args)

    monkeypatch.setattr(Tracking, "__init__", noted)
    reader = NearReader(redis_url)

    async def use() -> None:
        for _ in range(500):
            reader.near.poll(time.monotonic())
            if reader.near.label():
                break
            await asyncio.sleep(0.01)
        assert reader.near.label()

    asyncio.run(use())
    assert threads
    assert threading.main_thread() not in threads
    other.set(raw("k"), "value")
    assert reader.get("k") == "value"
    reader.close()


def test_signal_while_news_is_read(reader: NearReader, other: redis.Redis) -> None:
    """Its handler raises, as those of servers do that end a request: what was read isn't lost uncounted."""
    other.set(raw("k"), "old")
    warm(reader, "k")
    tracking = reader.near._tracking
    assert tracking is not None
    read = tracking.read

    def interrupted(now: float) -> list[int]:
        assert read(now) == [slot_of(raw("k"))]
        raise SystemExit

    other.set(raw("k"), "new")
    assert readable(tracking._streams[0]._socket, 20.0)
    time.sleep(A_POLL)
    tracking.read = interrupted  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        reader.get("k")
    assert reader.get("k") == "new"
    near_again(reader)


def test_close(redis_server: RedisServer) -> None:
    """Connections are closed; whoever reads on makes new ones."""
    reader = NearReader(redis_server.url)
    with redis_server.client() as other:
        other.set(raw("k"), "value")
        warm(reader, "k")
        reader.close()
        wait_until(lambda: len(other.client_list()) == 1, "the server is left alone")
        other.set(raw("k"), "new")
        assert reader.get("k") == "new"
        near_again(reader)
        reader.close()
        wait_until(lambda: len(other.client_list()) == 1, "the server is left alone")


def test_near_store_that_is_dropped(redis_server: RedisServer) -> None:
    """Its connections go with it, without a warning, whichever object the collector comes to first."""
    with redis_server.client() as other:
        sockets = [socket.create_connection(("127.0.0.1", redis_server.port)) for _ in range(2)]
        reader = NearReader(redis_server.url)
        near_again(reader)
        reader.get("k")
        tracking = reader.near._tracking
        assert tracking is not None
        (channel,) = reader.client._delivery.places.here().of(reader.client.address.servers[0])._idle
        for one in (tracking._streams[0], channel):
            # Older than all that refers to it: the collector comes to it first.
            one._connection._sock.close()
            one._connection._sock = sockets.pop()
        tracking._streams[0]._socket = None
        del reader, tracking, channel, one
        gc.collect()
        wait_until(lambda: len(other.client_list()) == 1, "all are closed")


def test_poll_is_bounded(reader: NearReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most once in a millisecond while nothing is to come, however many gets there are."""
    warm(reader, "k")
    polls = 0
    poll = TrackedNear.poll

    def counted(near: TrackedNear, now: float) -> None:
        nonlocal polls
        polls += 1
        poll(near, now)

    monkeypatch.setattr(TrackedNear, "poll", counted)
    began = time.monotonic()
    while time.monotonic() < began + 0.1:
        reader.get("k")
    assert 0 < polls <= (time.monotonic() - began) / POLL_INTERVAL + 1


def test_worker_that_is_stopped(redis_url: str, other: redis.Redis) -> None:
    """When it goes on, its first answers aren't from before: what began before may be."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            reader = NearReader(redis_url)
            warm(reader, "k")
            os.write(theirs, b"ready\n")
            while reader.get("k") != "new":
                pass
            # From here on it may never be anything else.
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                assert reader.get("k") == "new"
            os.write(theirs, b"fine\n")
        finally:
            os._exit(0)
    os.close(theirs)
    assert os.read(ours, 10) == b"ready\n"
    os.kill(pid, signal.SIGSTOP)
    other.set(raw("k"), "new")
    time.sleep(LEASE + 0.2)
    os.kill(pid, signal.SIGCONT)
    assert os.read(ours, 10) == b"fine\n"
    os.waitpid(pid, 0)
    os.close(ours)
