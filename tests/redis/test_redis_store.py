"""Scope `redis` beyond the contract: several processes, other applications, outages, and losses."""

from __future__ import annotations

import logging
import os
import pickle
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from quickcache_core import QuickCache, QuickCacheConfig, StoreUnavailable, ValueTooLarge
from quickcache_core.metrics.report import stats_report
from quickcache_core.store.redis import former, known, store
from quickcache_core.store.redis.opening import redis_stores
from tests.redis import remote
from tests.redis.servers import NO_TRACKING, RedisServer, wait_until

SECRET = "a secret of the tests, long enough"


@pytest.fixture(autouse=True)
def _no_stores() -> Iterator[None]:
    yield
    redis_stores.forget()


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    """The server as other applications see it."""
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        yield client


def make(url: str, **settings: Any) -> QuickCache:
    return QuickCache(QuickCacheConfig(location=url, **settings))


def name_of(raw: redis.Redis, key: str, prefix: str = "qc") -> bytes:
    return f"{prefix}:".encode() + raw.get(f"{prefix}:g") + f":{key}".encode()  # type: ignore[operator]


def commands_of(raw: redis.Redis, function: Callable[[], Any]) -> dict[str, int]:
    """How often the server was given which command meanwhile, by name."""
    raw.config_resetstat()
    function()
    found: dict[str, dict[str, int]] = raw.info("commandstats")  # type: ignore[assignment]
    counts = {name.removeprefix("cmdstat_"): one["calls"] for name, one in found.items()}
    ours = ("config", "config|resetstat", "info", "ping")
    return {name: calls for name, calls in counts.items() if name not in ours}


# Commands


def test_one_command_per_operation(redis_server: RedisServer) -> None:
    """What is near costs none, and a round trip is never made twice."""
    cache = make(redis_server.url)
    cache.set("a", 1)
    cache.get("nothing", None)
    with redis_server.client() as raw:
        assert commands_of(raw, lambda: cache.set("a", 2)) == {"set": 1}
        assert commands_of(raw, lambda: cache.get("a")) == {"get": 1}
        assert commands_of(raw, lambda: cache.get("a")) == {}
        assert commands_of(raw, lambda: cache.get("new", None)) == {"get": 1}
        assert commands_of(raw, lambda: cache.get("new", None)) == {}
        assert commands_of(raw, lambda: cache.get_many(["a", "b", "c"])) == {"mget": 1}
        assert commands_of(raw, lambda: cache.set_many({"a": 1, "b": 2})) == {"set": 2}
        cache.add("other", 1)
        counts = commands_of(raw, lambda: cache.add("more", 1))
        assert counts.pop("evalsha") == 1


def test_figures_of_a_request_cost_no_command(redis_server: RedisServer) -> None:
    """However many keys others have on the server: these are gone through for who asks for the size."""
    cache = make(redis_server.url)
    # What is done in the background would be counted with it.
    cache._store.background.wake = lambda: None  # type: ignore[union-attr]
    cache._store.publisher.stay_asleep()  # type: ignore[union-attr]
    with redis_server.client() as raw:
        raw.mset({f"others:{n}": "" for n in range(3000)})
        cache.set_many({"a": 1, "b": 1})
        assert commands_of(raw, cache.publish) == {}
        report: list[Any] = []
        counts = commands_of(raw, lambda: report.append(stats_report([("default", "", cache)])))
        assert counts["scan"] > 1
        assert report[0]["aliases"][0]["totals"]["entries"] == 2
        assert "scan" not in commands_of(raw, lambda: stats_report([("default", "", cache)]))


def test_one_round_trip_without_near_store(redis_server: RedisServer) -> None:
    """The generation is looked at along with each operation."""
    cache = make(redis_server.url, near_size=0)
    cache.set("a", 1)
    with redis_server.client() as raw:
        assert commands_of(raw, lambda: cache.get("a")) == {"get": 2}
        assert commands_of(raw, lambda: cache.set("a", 2)) == {"set": 1, "get": 1}
        assert not any("t" in one["flags"] for one in raw.client_list()), "nobody is told of changes"


def test_many_entries_with_tags_of_their_own(redis_url: str, raw: redis.Redis) -> None:
    """Their tags are asked for in one round trip, and what was invalidated in one more."""
    cache = make(redis_url, near_size=0)
    for number in range(200):
        cache.set(f"k{number}", number, tags=[f"t{number}"])
    cache.invalidate_tags(*(f"t{number}" for number in range(100)))
    # One for each round trip of anybody.
    before = raw.info("stats")["total_reads_processed"]
    found = cache.get_many([f"k{number}" for number in range(200)])
    assert raw.info("stats")["total_reads_processed"] - before < 50
    # Tags may share a slot.
    assert 90 <= len(found) <= 100
    assert all(found[f"k{number}"] == number for number in range(100, 200) if f"k{number}" in found)
    assert min(int(key[1:]) for key in found) >= 100


def test_loading_entries_with_tags_of_their_own(redis_url: str, raw: redis.Redis) -> None:
    """Some round trips for all of them; they are there, and can be invalidated."""
    cache = make(redis_url)
    store: Any = cache._store
    for number in range(600):
        cache.set(f"k{number}", number, tags=[f"t{number}", "all"])
    records = store.records()
    raw.flushdb()
    before = raw.info("stats")["total_reads_processed"]
    store.load(records, None)
    assert raw.info("stats")["total_reads_processed"] - before < 100
    keys = [f"k{number}" for number in range(600)]
    assert cache.get_many(keys) == {f"k{number}": number for number in range(600)}
    cache.invalidate_tags("t1")
    assert cache.get("k1", None) is None
    cache.invalidate_tags("all")
    assert cache.get_many(keys) == {}


@pytest.mark.parametrize("settings", [{"serializer": "pickle", "secret": SECRET}, {"serializer": "json"}])
def test_memory_of_a_key(redis_url: str, raw: redis.Redis, settings: dict[str, Any]) -> None:
    """Little more than a plain key with the same value: for a mark of the write, a deadline, a signature."""
    cache = make(redis_url, **settings)
    value = {"id": 12345, "name": "Somebody Somewhere", "roles": ["admin", "staff"], "city": "Paris" * 20}
    plain = ours = 0
    for number in range(50):
        value["more"] = "x" * number
        data = pickle.dumps(value, 5)
        cache.set("user:1", value, 300)
        raw.set(":1:user:1", data, px=300_000)
        ours += raw.memory_usage(name_of(raw, "user:1"))
        plain += raw.memory_usage(":1:user:1")
    assert ours <= 1.25 * plain, f"{ours / plain:.2f} times as much as a plain key takes"


# Other applications


FOREIGN: dict[str, Any] = {
    "qc": "a name that is the prefix",
    "qc:": "nothing behind it",
    "qcx:g": "abcdefgh",
    "qc2:abcdefgh:key": "another cache",
    "qc-:abcdefgh:key": "another cache",
    "q:abcdefgh:key": "another cache",
    "xqc:abcdefgh:key": "another cache",
    "qc:aaaaaaaa:key": "a generation that nobody began",
    "qc:aaaaaaaa": "without a key",
    "key": "the key itself",
    ":1:key": "of django-redis",
    "celery-task-meta-1": "{}",
    "*": "a star",
    "qc:*": "a pattern",
}
OPERATIONS: list[Callable[[QuickCache], Any]] = [
    lambda cache: cache.set("key", 1),
    lambda cache: cache.set("*", 1),
    lambda cache: cache.set("tagged", 1, tags=["t", "*"]),
    lambda cache: cache.add("key", 2, exist_ok=True),
    lambda cache: cache.get_many(["key", "aaaaaaaa", "*", "[a-z]*"]),
    lambda cache: cache.set_many({"key": 1, "?": 2}),
    lambda cache: cache.incr("n", 1, initial=0),
    lambda cache: cache.touch("key", 50),
    lambda cache: cache.pop("*", None),
    lambda cache: cache.delete_many(["key", "q*"]),
    lambda cache: list(cache.keys("*")),
    lambda cache: list(cache.keys("")),
    lambda cache: cache.invalidate_tags("t", "*"),
    lambda cache: cache.namespace("n").set("key", 1),
    lambda cache: cache.namespace("n").clear(),
    lambda cache: cache.get_or_set("loaded", lambda: 1),
    lambda cache: cache.set_many({f"k{n}": n for n in range(1000)}),
    lambda cache: cache.cleanup(),
    lambda cache: cache.size(),
    lambda cache: cache.clear(),
    lambda cache: cache.set("key", 1),
    lambda cache: cache.clear(),
]


def test_keys_of_other_applications(
    redis_url: str, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is done to the cache, none of them is changed or removed, however similar its name. What the
    cache leaves behind itself is removed.
    """
    monkeypatch.setattr(former, "_AGAIN", 0.2)
    for name, value in FOREIGN.items():
        raw.set(name, value, px=10_000_000)
    raw.rpush("list", 1, 2)
    raw.hset("qc.hash", mapping={"a": 1})
    before = dumped(raw, [*FOREIGN, "list", "qc.hash"])
    cache = make(redis_url)
    for operation in OPERATIONS:
        operation(cache)
        assert dumped(raw, before) == before
    wait_until(lambda: not raw.exists("qc:o"), "what former generations left is removed")
    assert dumped(raw, before) == before
    rest = {name.decode() for name in raw.scan_iter()} - set(before)  # type: ignore[union-attr]
    assert all(name.startswith(("qc:n:", "qc:t:", "qc:g", "qc:s", "qc/")) for name in rest), rest


def dumped(raw: redis.Redis, names: Any) -> dict[str, Any]:
    return {name: (raw.dump(name), raw.pttl(name) > 9_000_000) for name in names}


def test_two_caches_on_one_database(redis_url: str) -> None:
    """Their prefixes keep them apart, where one is the beginning of the other as well."""
    one, two = make(redis_url), make(redis_url, redis_prefix="qc2")
    one.set("a", 1)
    two.set("a", 2)
    one.clear()
    assert one.get("a", None) is None
    assert two.get("a") == 2
    assert list(two.keys()) == ["a"]


# What servers and administrators do


def test_the_generation_is_lost(redis_url: str, raw: redis.Redis) -> None:
    """Everything is a miss: nothing of a former state can come back. What is left of it is removed."""
    cache = make(redis_url)
    cache.set_many({f"k{n}": n for n in range(100)})
    left = name_of(raw, "k1")
    for _ in range(3):
        raw.delete("qc:g")
        wait_until(lambda: cache.get("k1", None) is None, "it is heard of")
        assert cache.get_many(["k1", "k2"]) == {}
        assert list(cache.keys()) == []
        cache.set("k1", "new")
        assert cache.get("k1") == "new"
    wait_until(lambda: not raw.exists(left), "it is removed")


def test_the_database_is_flushed(redis_url: str, raw: redis.Redis) -> None:
    """Nothing is served from near, and the cache goes on."""
    cache = make(redis_url)
    cache.set("a", 1)
    cache.set("t", 1, tags=["t"])
    number = cache.namespace("n")
    number.set("a", 1)
    assert (cache.get("a"), cache.get("t"), number.get("a")) == (1, 1, 1)
    raw.flushdb()
    wait_until(lambda: cache.get("a", None) is None, "it is heard of")
    assert (cache.get("t", None), number.get("a", None)) == (None, None)
    cache.set("t", 2, tags=["t"])
    assert cache.get("t") == 2
    cache.invalidate_tags("t")
    assert cache.get("t", None) is None


def test_a_tag_is_lost(redis_url: str, raw: redis.Redis) -> None:
    """Whether it was invalidated isn't known any more, so its entries are gone. If it was, they don't come
    back when it is introduced again.
    """
    cache, other = make(redis_url), make(redis_url, near_size=0)
    for is_invalidated in (True, False):
        cache.set("a", 1, tags=["red"])
        assert (cache.get("a"), other.get("a")) == (1, 1)
        if is_invalidated:
            cache.invalidate_tags("red")
        assert raw.delete(*raw.keys("qc:t:*")) == 1
        wait_until(lambda: cache.get("a", None) is None, "it is heard of")
        assert other.get("a", None) is None
        # Somebody introduces it again.
        cache.set("b", 1, tags=["red"])
        assert (cache.get("b"), other.get("b")) == (1, 1)
        if is_invalidated:
            assert (cache.get("a", None), other.get("a", None)) == (None, None)


def test_the_sequence_is_lost(redis_url: str, raw: redis.Redis) -> None:
    """It goes on above all numbers that it ever had."""
    cache = make(redis_url)
    cache.set("a", 1, tags=["red"])
    cache.invalidate_tags("red")
    before = int(raw.get("qc:s"))  # type: ignore[arg-type]
    raw.delete("qc:s")
    cache.set("a", 2, tags=["red"])
    assert cache.get("a") == 2
    cache.invalidate_tags("red")
    assert cache.get("a", None) is None
    assert int(raw.get("qc:s")) > before  # type: ignore[arg-type]


def test_the_number_of_a_namespace_is_lost(redis_url: str, raw: redis.Redis) -> None:
    """A new one begins, in which there is nothing."""
    cache = make(redis_url)
    users = cache.namespace("users")
    users.set("a", 1)
    raw.delete("qc:n:users")
    wait_until(lambda: users.get("a", None) is None, "it is heard of")


def test_what_is_near_is_in_use(redis_url: str, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that evicts what nobody has asked for lately doesn't take the names that all else hangs on,
    although they are seldom read there.
    """
    monkeypatch.setattr(known, "WARM_INTERVAL", 0.2)
    cache = make(redis_url)
    users = cache.namespace("users")
    cache.set("t", 1, tags=["t"])
    users.set("a", 1)
    names = ["qc:g", "qc:s", "qc:n:users"]
    end = time.monotonic() + 4.0
    while time.monotonic() < end:
        assert (cache.get("t"), users.get("a")) == (1, 1)
        time.sleep(0.05)
    idle = [int(raw.object("idletime", name)) for name in names]  # type: ignore[arg-type, no-untyped-call]
    assert max(idle) < 3, dict(zip(names, idle, strict=True))


def test_what_others_wrote(redis_url: str, raw: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    """What can't be read is a miss, is counted, logged once, and may be overwritten. Nothing is unpickled
    that isn't signed.
    """
    cache = make(redis_url, serializer="pickle", secret=SECRET)
    cache.set("a", {1: 2}, 500)
    good: bytes = raw.get(name_of(raw, "a"))  # type: ignore[assignment]
    assert good.count(pickle.dumps({1: 2}, 5)) == 1
    evil = pickle.dumps(os.getcwd)
    bad = [
        b"",
        b"x",
        b"\x02" + good[1:],
        good[:15],
        good[:21],
        good[:-1],
        good[:17] + b"\x00" + good[18:],
        good[:17] + b"\x4d" + good[18:],
        good[:18] + b"\x02" + good[19:],
        good[:17] + b"\x02\x00\x00\x00" + b"123",
        good[:17] + b"\x04\x00\x00\x00" + b"\xff\xfe",
        good[:17] + b"\x00" + good[18:21] + evil,
        good[:21] + b"\0" * 32 + evil,
        bytes(random.Random(5).randbytes(500)),
    ]
    for number, data in enumerate(bad):
        errors = cache.metrics().store_errors
        key = f"k{number}"
        raw.set(name_of(raw, key), data)
        with caplog.at_level(logging.WARNING):
            assert cache.get(key, None) is None, data
            assert cache.get_many([key]) == {}
            assert key not in list(cache.keys()) or data[17:18] != b"\x4d"
            assert cache.delete(key, missing_ok=True) in (True, False)
            raw.set(name_of(raw, key), data)
            assert cache.pop(key, None) is None
            raw.set(name_of(raw, key), data)
            assert cache.incr(key, 1, initial=5) == 6, data
            raw.set(name_of(raw, key), data)
            assert cache.get_or_set(key, lambda: "loaded") == "loaded"
            cache.set(key, "new")
        assert cache.get(key) == "new"
        assert cache.metrics().store_errors > errors, data
    assert sum("is a miss" in one or "such entries are misses" in one for one in caplog.messages) == 1
    raw.delete(name_of(raw, "k1"))
    raw.rpush(name_of(raw, "k1"), 1)
    wait_until(lambda: cache.get("k1", None) is None, "it is heard of")


def test_a_value_of_another_key(redis_url: str, raw: redis.Redis) -> None:
    """The signature is good for one key only."""
    cache = make(redis_url, serializer="pickle", secret=SECRET)
    cache.set("a", [1])
    raw.copy(name_of(raw, "a"), name_of(raw, "b"))
    assert cache.get("b", None) is None


def test_a_value_that_is_too_large(redis_url: str, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before it is sent, or skipped; the old value is removed either way."""
    monkeypatch.setattr(store, "LARGEST", 1000)
    for oversized in ("raise", "skip"):
        cache = make(redis_url, oversized=oversized)
        cache.set("a", "old")
        if oversized == "raise":
            with pytest.raises(ValueTooLarge):
                cache.set("a", "x" * 1000)
        else:
            cache.set("a", "x" * 1000)
        assert cache.get("a", None) is None


def test_a_server_without_memory(caplog: pytest.LogCaptureFixture) -> None:
    """It takes no values, which is an error that is counted, and answers reads. An old value isn't taken for
    the new one, and all is well when there is room again.
    """
    with RedisServer("--maxmemory-policy", "noeviction") as server, server.client() as raw:
        cache, strict = make(server.url), make(server.url, fail="raise", redis_prefix="strict")
        cache.set("kept", 1)
        cache.set("a", "old")
        strict.set("a", "old")
        raw.config_set("maxmemory", 1)
        cache.set("a", "new")
        assert cache.get("a", None) is None
        assert cache.get("kept") == 1
        with pytest.raises(StoreUnavailable, match="maxmemory"):
            strict.set("a", "new")
        assert cache.delete("kept", missing_ok=True) is True
        assert cache.metrics().store_errors
        raw.config_set("maxmemory", 0)
        cache.set("a", "new")
        assert cache.get("a") == "new"


# Outages


ANYTHING: list[Callable[[QuickCache, str], Any]] = [
    lambda cache, key: cache.get(key, None),
    lambda cache, key: cache.set(key, 1, stale_ttl=50),
    lambda cache, key: cache.delete(key, missing_ok=True),
    lambda cache, key: cache.get_or_set(key, lambda: 1),
    lambda cache, key: cache.get_many([key, "x"]),
    lambda cache, key: cache.set_many({key: 1}),
    lambda cache, key: cache.incr(f"n{key}", 1, initial=0),
    lambda cache, key: cache.touch(key, missing_ok=True),
    lambda cache, key: cache.invalidate_tags("t"),
    lambda cache, key: cache.set(key, 1, tags=["t"]),
    lambda cache, key: cache.namespace("n").set(key, 1),
    lambda cache, key: cache.namespace("n").get(key, None),
    lambda cache, key: cache.pop(key, None),
    lambda cache, key: cache.add(key, 1, exist_ok=True),
    lambda cache, key: cache.clear() if key == "k7" else None,
]


def test_a_server_that_is_killed_under_load(redis_server: RedisServer) -> None:
    """No operation fails, and afterwards all is right."""
    cache = make(redis_server.url, redis_options={"socket_timeout": 0.3})
    errors: list[BaseException] = []
    busy = threading.Event()
    busy.set()

    def work(seed: int) -> None:
        chance = random.Random(seed)
        try:
            while busy.is_set():
                chance.choice(ANYTHING)(cache, f"k{chance.randrange(50)}")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            time.sleep(0.5)
            redis_server.kill()
            time.sleep(0.5)
            redis_server.start()
            wait_until(lambda: works(cache), "the cache works again")
    finally:
        busy.clear()
        for thread in threads:
            thread.join()
    assert not errors, errors[:3]
    cache.set("a", "after")
    assert cache.get("a") == "after"


def works(cache: QuickCache) -> bool:
    token = random.random()
    cache.set("probe", token)
    return cache.get("probe", None) == token


def test_what_a_hung_server_missed(redis_server: RedisServer) -> None:
    """What was deleted or written in vain meanwhile isn't served when it answers again, and doesn't come back
    when it carries out what it had received before.
    """
    cache = make(redis_server.url, redis_options={"socket_timeout": 0.2}, near_size=0)
    other = make(redis_server.url, redis_prefix="qc", serializer="json")
    cache.set_many({"deleted": 1, "written": "old", "kept": 1, "twice": "old"})
    redis_server.hang()
    cache.set("written", "new")
    cache.set("twice", "in between")
    cache.delete("twice", missing_ok=True)
    cache.delete("deleted", missing_ok=True)
    redis_server.resume()
    wait_until(lambda: cache.get("kept", None) == 1, "the server answers")
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        assert cache.get("deleted", None) is None
        assert cache.get("written", None) in (None, "new")
        assert cache.get("twice", None) is None
        time.sleep(0.05)
    assert other.get("twice", None) is None
    assert other.get("deleted", None) is None


def test_a_write_that_comes_late(redis_server: RedisServer) -> None:
    """One that was carried out after its key had been removed again is undone; what others wrote meanwhile
    stays.
    """
    cache = make(redis_server.url)
    cache.set_many({"late": 1, "others": 1, "untouched": 1})
    server_side = cache._store.table  # type: ignore[union-attr]
    cache._store._owe(["late", "others", "gone"])  # type: ignore[union-attr]
    data = {key: server_side.raw(b":" + key.encode()) for key in ("late", "others")}
    cache.set("untouched", 2)  # pays
    assert cache.get_many(["late", "others"]) == {}
    with redis_server.client() as raw:
        raw.set(name_of(raw, "late"), data["late"])
        assert remote.run("cache.set('others', 'new'); print(cache.get('others'))", location=redis_server.url)
        wait_until(lambda: not raw.exists(name_of(raw, "late")), "it is undone")
        assert cache.get("others") == "new"
        assert cache.get("untouched") == 2


def test_stale_values_while_the_server_is_away(redis_server: RedisServer) -> None:
    """Who loads gets a stale value from near, and nothing is fresh."""
    cache = make(redis_server.url, stale_ttl=500, redis_options={"socket_timeout": 0.2})
    cache.set("a", "stale", 500)
    assert cache.get("a") == "stale"
    redis_server.kill()

    def fail() -> Any:
        raise RuntimeError("the source is away as well")

    wait_until(lambda: cache.get("a", None) is None, "it is noticed")
    assert cache.get_or_set("a", fail) == "stale"
    redis_server.start()
    wait_until(lambda: works(cache), "the cache works again")
    assert cache.get("a", None) is None


OWN_CHANGES: dict[str, Callable[[QuickCache], Any]] = {
    "delete": lambda cache: cache.delete("a"),
    "pop": lambda cache: cache.pop("a"),
    "set": lambda cache: cache.set("a", "new", 500, stale_ttl=500),
    "set without more": lambda cache: cache.set("a", "new", 500, stale_ttl=0),
    "set_many": lambda cache: cache.set_many({"a": "new"}),
    "invalidate_tags": lambda cache: cache.invalidate_tags("t"),
    "clear": lambda cache: cache.clear(),
}


@pytest.mark.parametrize("change", OWN_CHANGES)
@pytest.mark.parametrize("part", ["whole", "namespace"])
def test_own_change_before_an_outage(redis_server: RedisServer, change: str, part: str) -> None:
    """What this process has removed, overwritten or invalidated doesn't come back when the server dies before
    it was read again. What nobody has touched is served, expired or not.
    """
    whole = make(redis_server.url, stale_ttl=500, redis_options={"socket_timeout": 0.2})
    cache = whole if part == "whole" else whole.namespace("n")
    cache.set("a", "old", 500, tags=["t"])
    cache.set("stays", "old", 500, tags=["another"])
    cache.set("expired", "old", 0.01)
    assert cache.get_many(["a", "stays"]) == {"a": "old", "stays": "old"}
    time.sleep(0.02)
    assert cache.get("expired", None) is None
    OWN_CHANGES[change](cache)
    redis_server.kill()
    assert cache.get_or_set("a", lambda: "loaded") == "loaded"
    if change != "clear":
        assert cache.get_or_set("stays", lambda: "loaded") == "old"
        assert cache.get_or_set("expired", lambda: "loaded") == "old"


@pytest.mark.parametrize(
    "change", ["a.delete('a')", "a.set('a', 'new')", "a.invalidate_tags('t')", "a.clear()"]
)
@pytest.mark.parametrize("part", ["whole", "namespace"])
@pytest.mark.parametrize("noticed", ["by a get", "by a set", "by something else"])
def test_change_of_others_before_an_outage(
    redis_server: RedisServer, change: str, part: str, noticed: str
) -> None:
    """What the server has told before it died doesn't come back either, however its end is noticed."""
    cache = make(redis_server.url, stale_ttl=500, redis_options={"socket_timeout": 0.2})
    store = cache._store
    if part == "namespace":
        cache = cache.namespace("n")
    cache.set("a", "old", 500, tags=["t"])
    cache.set("stays", "old", 500, tags=["another"])
    assert cache.get_many(["a", "stays"]) == {"a": "old", "stays": "old"}
    namespace = "" if part == "whole" else ".namespace('n')"
    remote.run(f"a = cache{namespace}; {change}", location=redis_server.url)
    redis_server.kill()
    if noticed == "by a set":
        cache.set("else", 1)
    elif noticed == "by something else":
        with pytest.raises(StoreUnavailable):
            store.client.call("PING")  # type: ignore[union-attr]
    assert cache.get_or_set("a", lambda: "loaded") == "loaded"
    if not change.startswith("a.clear"):
        assert cache.get_or_set("stays", lambda: "loaded") == "old"


def test_clear_that_nobody_told_of_before_an_outage(redis_server: RedisServer) -> None:
    """That there is a new generation is also known from the answer to a read."""
    with redis_server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all")
        cache = make(
            redis_server.url.replace("//", "//app:secret@"),
            stale_ttl=500,
            redis_options={"socket_timeout": 0.2},
        )
        cache.set("a", "old", 500)
        assert cache.get("a") == "old"
        admin.execute_command("ACL", "SETUSER", "app", *NO_TRACKING)
        for one in admin.client_list():
            if one["user"] == "app":
                admin.client_kill_filter(_id=one["id"])
        wait_until(lambda: not cache._store._near.label(), "nothing is told any more")  # type: ignore[union-attr]
        remote.run("cache.clear()", location=redis_server.url)
        assert cache.get("b", None) is None
    redis_server.kill()
    assert cache.get_or_set("a", lambda: "loaded") == "loaded"


@pytest.mark.parametrize("near_size", [0, 100])
def test_namespace_that_is_deleted_from_in_an_outage(redis_server: RedisServer, near_size: int) -> None:
    """What was deleted there meanwhile is gone when the server is back, with and without a near store."""
    cache = make(redis_server.url, near_size=near_size, redis_options={"socket_timeout": 0.2})
    part = cache.namespace("n")
    part.set("a", "old")
    redis_server.hang()
    part.delete("a", missing_ok=True)
    redis_server.resume()
    wait_until(lambda: works(cache), "the cache works again")
    assert part.get("a", None) is None


def test_single_flight_while_the_server_is_away(redis_server: RedisServer) -> None:
    """The callers of this process still wait for one load."""
    cache = make(redis_server.url, redis_options={"socket_timeout": 0.2})
    redis_server.kill()
    cache.set("a", 1)
    cache.set("a", 1)
    loads: list[int] = []

    def load() -> str:
        loads.append(1)
        time.sleep(0.5)
        return "loaded"

    results: list[str] = []
    threads = [
        threading.Thread(target=lambda: results.append(cache.get_or_set("k", load))) for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["loaded"] * 10
    assert len(loads) == 1


# Several processes


def test_loads_that_another_process_overtakes(redis_url: str, raw: redis.Redis) -> None:
    """Whatever it does to the key, plain commands included: what was computed before isn't stored."""
    cache = make(redis_url)
    changes: dict[str, Callable[[], Any]] = {
        "set": lambda: remote.run("cache.set('a', 'new')", location=redis_url),
        "delete": lambda: remote.run("cache.delete('a', missing_ok=True)", location=redis_url),
        "clear": lambda: remote.run("cache.clear()", location=redis_url),
        "DEL": lambda: raw.delete(name_of(raw, "a")),
        "UNLINK": lambda: raw.unlink(name_of(raw, "a")),
        "tags": lambda: remote.run("cache.invalidate_tags('t')", location=redis_url),
    }
    for name, change in changes.items():
        for is_there in (False, True):
            cache.delete("a", missing_ok=True)
            cache.set("b", 1, tags=["t"])
            if is_there:
                cache.set("a", "before", tags=["t"])

            def load(change: Callable[[], Any] = change) -> str:
                change()
                return "outdated"

            assert cache.refresh("a", load, tags=["t"]) == "outdated", name
            assert cache.get("a", None) in ("new", None), name


def test_namespace_that_another_process_clears(redis_url: str) -> None:
    """The first read afterwards knows, even if nobody has looked for a while at what the server tells."""
    cache = make(redis_url).namespace("n")
    for _ in range(3):
        cache.set("a", "old")
        assert [cache.get("a"), cache.get("a")] == ["old"] * 2
        remote.run("cache.namespace('n').clear()", location=redis_url)
        assert cache.get("a", None) is None


def test_single_flight_over_processes(redis_url: str, raw: redis.Redis) -> None:
    """Of all who miss one key, one loads it."""
    code = """
sys.stdin.readline()
def load():
    import redis
    redis.Redis.from_url(settings["location"]).incr("loads")
    time.sleep(0.5)
    return "loaded"
print(cache.get_or_set("k", load))
"""
    processes = [
        remote.start("cache.get('x', None); print('ready', flush=True)" + code, location=redis_url)
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert outputs == ["loaded"] * 4
    assert raw.get("loads") == b"1"


def test_the_owner_of_a_load_is_killed(redis_url: str) -> None:
    """Others load instead, once its lease has ended."""
    owner = remote.start(
        "cache.get_or_set('k', lambda: (print('loading', flush=True), time.sleep(600)))", location=redis_url
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "loading\n"
    owner.kill()
    owner.communicate()
    cache = make(redis_url, lease=60.0)
    began = time.monotonic()
    assert cache.get_or_set("k", lambda: "loaded") == "loaded"
    assert time.monotonic() - began < 30.0, "it waited for its own patience to end, not for the lease"
    assert cache.get("k") == "loaded"


def test_increments_of_processes(redis_url: str) -> None:
    """None is lost, and the deadline stays."""
    cache = make(redis_url)
    cache.set("n", 0, 500)
    code = """
def work():
    for number in range(250):
        cache.incr("n", 1)
        cache.incr("from nothing", 1, initial=0)
        cache.incr("large", 1, initial=2**53)
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
    processes = [remote.start(code, location=redis_url) for _ in range(4)]
    for process in processes:
        process.communicate(timeout=120)
        assert process.returncode == 0
    wait_until(lambda: cache.get("n") == 8000, f"{cache.get('n')}")
    assert cache.get("from nothing") == 8000
    assert cache.get("large") == 2**53 + 8000
    left = cache.ttl("n")
    assert left is not None
    assert left <= 500


def test_namespaces_and_tags_of_processes(redis_url: str) -> None:
    """What one process clears or invalidates is gone for the others."""
    cache = make(redis_url)
    users = cache.namespace("users")
    users.set("a", 1)
    cache.set("t", 1, tags=["t"])
    assert (users.get("a"), cache.get("t")) == (1, 1)
    assert remote.run("print(cache.namespace('users').get('a'), cache.get('t'))", location=redis_url) == "1 1"
    remote.run("cache.namespace('users').clear(); cache.invalidate_tags('t')", location=redis_url)
    wait_until(lambda: users.get("a", None) is None, "the namespace is cleared")
    wait_until(lambda: cache.get("t", None) is None, "the tag is invalidated")


def test_without_a_background_thread(
    redis_url: str, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operations do its work now and then: debts, leases, and what former generations left."""
    from quickcache_core.store.redis import background

    monkeypatch.setattr(background, "INTERVAL", 0.01)
    monkeypatch.setattr(former, "_AGAIN", 0.1)
    cache = make(redis_url)
    tended = cache._store.background  # type: ignore[union-attr]
    tended.wake = lambda: None
    tended.has_thread = lambda: False
    cache.set_many({f"k{n}": n for n in range(5000)})
    cache.clear()

    def is_gone() -> bool:
        cache.set("probe", 1)
        return not raw.exists("qc:o")

    wait_until(is_gone, "former entries have left")
    assert len(raw.keys("qc:????????:*")) == 1  # type: ignore[arg-type]
