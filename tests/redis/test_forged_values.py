"""What somebody can do who may write to the server, but has no secret; and what keys can't do to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from quickcache_core import CacheMiss, KeyAlreadyExists, QuickCache, QuickCacheConfig, SerializationError
from quickcache_core.store.record import HEADER
from quickcache_core.store.redis.opening import redis_stores
from quickcache_core.store.redis.record import SIGNATURE_BYTES, START
from tests.core.mutations import mutated

SECRET = "a secret of the tests, long enough"
HEAD = START + HEADER.size


@pytest.fixture(autouse=True)
def _no_stores() -> Iterator[None]:
    yield
    redis_stores.forget()


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    """The server as somebody else sees it."""
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        yield client


def make(url: str, **settings: Any) -> QuickCache:
    # Nothing near: what is planted is seen by the next read.
    settings = {"serializer": "pickle", "secret": SECRET, "near_size": 0, **settings}
    return QuickCache(QuickCacheConfig(location=url, **settings))


def name_of(raw: redis.Redis, key: str, prefix: str = "qc") -> bytes:
    generation: Any = raw.get(f"{prefix}:g")
    return f"{prefix}:".encode() + generation + f":{key}".encode(errors="surrogatepass")


def record_of(raw: redis.Redis, key: str, prefix: str = "qc") -> bytes:
    found: Any = raw.get(name_of(raw, key, prefix))
    return bytes(found)


# Signatures


def test_key_that_ends_in_a_payload(redis_url: str, raw: redis.Redis, tmp_path: Path) -> None:
    """A visitor may choose the end of a key, such as what is searched for. The signature made for that key
    isn't good for a shorter key and a payload that begins with the rest.
    """
    trap = tmp_path / "trap"
    evil = b"cos\nmkdir\n(V%b\ntR." % os.fsencode(trap)
    cache = make(redis_url)
    key = f"search:shoes\0{evil.decode()}"
    cache.set(key, ["nothing found"])
    record = record_of(raw, key)
    signature, payload = record[HEAD : HEAD + SIGNATURE_BYTES], record[HEAD + SIGNATURE_BYTES :]
    for between in (b"\0", b""):
        raw.set(name_of(raw, "search:shoes"), record[:HEAD] + signature + evil + between + payload)
        assert cache.get("search:shoes", "a miss") == "a miss"
    assert cache.get(key) == ["nothing found"]
    assert not trap.exists()


def test_former_value_of_the_same_key(redis_url: str, raw: redis.Redis) -> None:
    """A value that was good once is good again if somebody puts it back, and its end may be put off:
    a signature says who wrote a value and for which key, not when, nor until when.
    """
    cache = make(redis_url)
    cache.set("user", ["may do all"], 60)
    former = record_of(raw, "user")
    cache.set("user", ["may do nothing"], 60)
    raw.set(name_of(raw, "user"), former)
    assert cache.get("user") == ["may do all"]
    endless = HEADER.pack(float("inf"), *HEADER.unpack_from(former, START)[1:])
    raw.set(name_of(raw, "user"), former[:START] + endless + former[HEAD:])
    assert cache.ttl("user") is None


def test_value_of_the_same_key_under_another_prefix(redis_url: str, raw: redis.Redis) -> None:
    """Applications with one secret sign for each other: the prefix isn't signed. With another secret it is
    a miss.
    """
    staging = make(redis_url, redis_prefix="staging")
    live = make(redis_url, redis_prefix="live")
    stranger = make(redis_url, redis_prefix="stranger", secret="another secret, as long as that one")
    for cache in (staging, live, stranger):
        cache.set("user", ["own"])
    staging.set("user", ["staging"])
    for prefix in ("live", "stranger"):
        raw.set(name_of(raw, "user", prefix), record_of(raw, "user", "staging"))
    assert live.get("user") == ["staging"]
    assert stranger.get("user", "a miss") == "a miss"


# Keys

HOSTILE = {
    "RESP": "x\r\n*1\r\n$8\r\nFLUSHALL\r\n",
    "inline": "\r\nFLUSHALL\r\n",
    "NUL": "\0a\0b\0",
    "glob": "*?[a-z]\\{}^",
    "Cluster": "{}{a}{",
    "Lua": "']] redis.call('FLUSHALL') --",
    "push": ">2\r\n$10\r\ninvalidate\r\n_\r\n",
    "surrogate": "\ud800\udfff",
    "long": "k" * 1_000_000,
    "empty": "",
    "control": ":g",
    "escape": "\x1b]0;owned\x07\x1b[2J",
}


@pytest.mark.parametrize("key", HOSTILE.values(), ids=HOSTILE)
def test_key_that_looks_like_something_else(redis_url: str, raw: redis.Redis, key: str) -> None:
    """It is a key, to every operation, and nothing else on the server is touched."""
    raw.set("somebody else's", "alive")
    cache = make(redis_url, near_size=100)
    cache.set("victim", 1)
    part = cache.namespace(key) if key.isprintable() and 0 < len(key) < 100 else cache
    for one in (cache, part):
        one.set(key, [1], tags=[key] if key else ())
        assert one.get(key) == [1]
        assert one.get_many([key, "nothing"]) == {key: [1]}
        assert sorted(one.keys(prefix=key)) == ([key] if key else sorted(one.keys()))
        assert one.get_or_set(key, lambda: 2) == [1]
        assert one.touch(key, 60) is True
        assert one.delete(key) is True
        assert one.incr(key, 1, initial=5) == 6
        assert one.pop(key) == 6
        assert key not in one
    if part is not cache:
        part.clear()
    cache.set(key, "x", tags=[key] if key else ())
    if key:
        cache.invalidate_tags(key)
        assert key not in cache
    assert raw.get("somebody else's") == b"alive"
    assert cache.get("victim") == 1


@pytest.mark.parametrize("prefix", ["*", "?", "[a-z]", "a*", "\\", "[^x]", "a\r\n*", "\0"])
def test_prefix_to_clear_that_is_a_pattern(redis_url: str, raw: redis.Redis, prefix: str) -> None:
    """It stands for itself: what begins with those characters goes, and nothing else."""
    raw.set("somebody else's", "alive")
    cache = make(redis_url, near_size=100)
    kept = ["a", "ab", "b", "x*"]
    cache.set_many({**dict.fromkeys(kept, 1), f"{prefix}1": 1, prefix: 1})
    removed = cache.control.clear(prefix).removed
    assert removed == 2
    assert sorted(cache.keys()) == kept
    assert raw.get("somebody else's") == b"alive"


@pytest.mark.parametrize("prefix", ["a*", "a[bc]", "", "a:b", "a\r\n", "a{b}", "\ud800", "é", "a\0"])
def test_prefix_of_a_cache_that_would_reach_further(prefix: str) -> None:
    """A prefix has no characters that mean something to the server."""
    with pytest.raises(ValueError, match="redis_prefix"):
        QuickCacheConfig(location="redis://localhost", redis_prefix=prefix)


def test_clearing_reaches_only_its_own_prefix(redis_url: str, raw: redis.Redis) -> None:
    """Neither a longer prefix, nor one where a dot of this one would mean any character."""
    prefixes = ["a.b", "axb", "a.b2", "a", "a.b."]
    caches = [make(redis_url, redis_prefix=prefix) for prefix in prefixes]
    for cache in caches:
        cache.set("k", 1)
    caches[0].clear()
    caches[0].control.clear("k")
    assert [cache.get("k", None) for cache in caches] == [None, 1, 1, 1, 1]


# Names that all else hangs on

GARBAGE = [b"", b"garbage", b"-1", b"9" * 26, b"9" * 19, b"\xff" * 8, b"1" * 5000, b"*" * 8]


@pytest.mark.parametrize("kind", ["string", "list"])
@pytest.mark.parametrize("name", ["g", "s", "n:users", "t", "o", "/f/size"])
def test_names_of_the_cache_with_something_else_in_them(
    redis_url: str, raw: redis.Redis, name: str, kind: str
) -> None:
    """Whoever writes to them can lose the cache, and make no request fail."""
    for garbage in GARBAGE:
        raw.flushdb()
        writer = make(redis_url)
        writer.set("k", 1, tags=["t"])
        writer.namespace("users").set("k", 1)
        tag: Any = raw.keys("qc:t:*")
        for full in [tag[0] if name == "t" else f"qc{name}" if name[0] == "/" else f"qc:{name}"]:
            raw.delete(full)
            if kind == "list":
                raw.rpush(full, garbage)
            else:
                raw.set(full, garbage)
        redis_stores.forget()
        cache = make(redis_url)
        users = cache.namespace("users")
        for one in (cache, users):
            assert one.get("k", None) in (1, None)
            one.set("k", 2, tags=["t"])
            assert one.get("k", None) in (2, None)
            assert one.get_many(["k", "x"]) in ({"k": 2}, {})
            assert one.get_or_set("new", lambda: 3) == 3
            assert len(list(one.keys())) <= 2
            assert cache.size() >= 0
        redis_stores.forget()


# Records of any kind, on a real server


def good_records(raw: redis.Redis, cache: QuickCache) -> list[bytes]:
    cache.set("plain", 5)
    cache.set("list", [1, {"a": "b"}], 60)
    cache.set("rich", "text", 60, tags=["t", "u"], stale_ttl=30)
    cache.set("sliding", [1], 60, sliding=True, max_age=600, tags=["t"])
    cache.get_or_set("loaded", lambda context: _with_etag(context), refresh_ahead=0.5, stale_ttl=30)
    return [record_of(raw, key) for key in ("plain", "list", "rich", "sliding", "loaded")]


def _with_etag(context: Any) -> list[int]:
    context.etag = '"v1"'
    return [1, 2]


@pytest.mark.parametrize("serializer", ["pickle", "json", "msgpack"])
def test_records_that_were_changed(redis_url: str, raw: redis.Redis, serializer: str) -> None:
    """Whatever becomes of the bytes of an entry, each operation answers, or says what its users expect."""
    cache = make(redis_url, serializer=serializer, default_ttl=60)
    goods = good_records(raw, cache)
    name = name_of(raw, "k")

    @given(st.sampled_from(goods).flatmap(mutated))
    def check(data: bytes) -> None:
        for work, *errors in OPERATIONS:
            raw.set(name, data)
            with suppress(CacheMiss, KeyAlreadyExists, TypeError, *errors):
                work(cache)
        cache.set("k", "new", tags=["t"])
        assert cache.get("k") == "new"

    check()


# Each with what it may raise besides: what changes a value needs one that can be read.
OPERATIONS: list[tuple[Any, ...]] = [
    (lambda cache: cache.get("k"),),
    (lambda cache: cache.get_many(["k", "plain"]),),
    (lambda cache: cache.get_or_set("k", lambda: 1, stale_ttl=5, refresh_ahead=0.5),),
    (lambda cache: cache.ttl("k"),),
    (lambda cache: cache.touch("k", 5),),
    (lambda cache: cache.add("k", 1),),
    (lambda cache: cache.update("k", 1),),
    (lambda cache: cache.incr("k", 1), SerializationError),
    (lambda cache: cache.incr("k", 0.5, initial=1.5), SerializationError),
    (lambda cache: cache.pop("k"), SerializationError),
    (lambda cache: "k" in cache,),
    (lambda cache: list(cache.keys()),),
    (lambda cache: cache.delete("k"),),
]
