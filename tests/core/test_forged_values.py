"""What somebody can do who may write to the files of scope `shared`, but has no secret."""

from __future__ import annotations

import logging
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcache_core import CacheMiss, KeyAlreadyExists, QuickCache, QuickCacheConfig, SerializationError
from quickcache_core.serializer.signing import DIGEST_BYTES
from quickcache_core.store.record import FLAGS, HEADER
from tests.core.mutations import mutated

if sys.platform == "win32":
    pytest.skip("scope shared needs POSIX", allow_module_level=True)

from quickcache_core.store.shared.opening import shared_stores
from quickcache_core.store.shared.store import SharedStore
from quickcache_core.store.shared.values import stored_key

SECRET = "a secret of the tests, long enough"
KIND = 8


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A directory that is there as soon as a forged pickle was read."""
    return tmp_path / "trap"


@pytest.fixture
def evil(trap: Path) -> bytes:
    """The pickle that makes it: in the oldest protocol, which is text, and behind whose end anything may
    come.
    """
    return b"cos\nmkdir\n(V%b\ntR." % os.fsencode(trap)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., QuickCache]]:
    made: list[QuickCache] = []

    def build(**settings: Any) -> QuickCache:
        settings = {"serializer": "pickle", "secret": SECRET, "max_bytes": "4MB", **settings}
        made.append(QuickCache(QuickCacheConfig(location=f"shared://{tmp_path / 'shared'}", **settings)))
        return made[-1]

    yield build
    for cache in made:
        _store_of(cache)._connection.close()
    shared_stores.forget()


Make = Callable[..., QuickCache]


def _store_of(cache: QuickCache) -> SharedStore:
    store = cache._real_store
    assert isinstance(store, SharedStore)
    return store


def record_of(cache: QuickCache, raw: bytes) -> bytes:
    record, _ = _store_of(cache)._connection.read(raw, 0)
    assert record is not None
    return bytes(record)


def plant(cache: QuickCache, raw: bytes, record: bytes) -> None:
    """As somebody does who opens the file of LMDB."""

    def action(txn: Any, slots: list[int]) -> tuple[None, bool]:
        txn.put(raw, record)
        return None, True

    _store_of(cache)._connection.write(action, [0])


def test_the_trap_works(trap: Path, evil: bytes) -> None:
    """Whoever unpickles it makes the directory, with anything behind it."""
    pickle.loads(evil + b"\0anything")
    assert trap.is_dir()


def test_key_that_ends_in_a_payload(make: Make, trap: Path, evil: bytes) -> None:
    """A visitor may choose the end of a key, such as what is searched for. The signature made for that key
    isn't good for a shorter key and a payload that begins with the rest.
    """
    cache = make()
    key = f"search:shoes\0{evil.decode()}"
    cache.set(key, ["nothing found"])
    record = record_of(cache, key.encode())
    head, signature = record[: HEADER.size], record[HEADER.size : HEADER.size + DIGEST_BYTES]
    payload = record[HEADER.size + DIGEST_BYTES :]
    for between in (b"\0", b""):
        plant(cache, b"search:shoes", head + signature + evil + between + payload)
        assert cache.get("search:shoes", "a miss") == "a miss"
    assert cache.get(key) == ["nothing found"]
    assert not trap.exists()


@pytest.mark.parametrize("what", ["unsigned", "zeros", "empty", "another purpose", "short"])
def test_pickle_that_nobody_signed(
    make: Make, trap: Path, evil: bytes, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a miss that is counted, and said once without the key, whatever it claims to be."""
    cache = make()
    cache.set("k", ["fine"])
    head = bytearray(record_of(cache, b"k")[: HEADER.size])
    if what == "unsigned":
        head[KIND] = 0
        forged = bytes(head) + evil
    elif what == "another purpose":
        signer = cache.config.secrets("snapshot").signer()
        assert signer is not None
        forged = bytes(head) + signer.digest(b"\1\0\0\0k" + evil) + evil
    else:
        forged = bytes(head) + {"zeros": bytes(DIGEST_BYTES) + evil, "empty": b"", "short": evil[:9]}[what]
    plant(cache, b"k", forged)
    errors = cache.metrics().store_errors
    with caplog.at_level(logging.WARNING):
        assert cache.get("k", "a miss") == "a miss"
        assert cache.get_many(["k"]) == {}
        assert cache.get_or_set("k", lambda: "loaded") == "loaded"
    assert not trap.exists()
    assert cache.metrics().store_errors > errors
    assert len([one for one in caplog.records if one.levelno >= logging.WARNING]) == 1
    assert str(trap) not in caplog.text


def test_former_value_of_the_same_key(make: Make) -> None:
    """A value that was good once is good again if somebody puts it back, and its end may be put off:
    a signature says who wrote a value and for which key, not when, nor until when.
    """
    cache = make()
    cache.set("user", ["may do all"], 60)
    former = bytearray(record_of(cache, b"user"))
    cache.set("user", ["may do nothing"], 60)
    plant(cache, b"user", bytes(former))
    assert cache.get("user") == ["may do all"]
    plant(cache, b"user", HEADER.pack(float("inf"), *HEADER.unpack_from(former)[1:]) + former[HEADER.size :])
    assert cache.ttl("user") is None
    assert former[FLAGS] == 0


def test_plain_values_are_not_signed(make: Make) -> None:
    """Numbers and texts can't run anything, and can be forged by whoever may write the file."""
    cache = make()
    cache.set("n", 1)
    plant(cache, b"n", record_of(cache, b"n")[:-8] + (1000).to_bytes(8, "little"))
    assert cache.get("n") == 1000


class Gone:
    """Its module loses it."""


@pytest.mark.parametrize("method", ["get_or_set", "refresh"])
def test_value_that_nobody_can_read(make: Make, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """A class that a new release doesn't have any more: it is loaded anew, as with any miss."""
    cache = make()
    cache.set("k", Gone())
    near = _store_of(cache)._near
    near.replace_store(near.stamps, near.references)
    monkeypatch.delattr(sys.modules[Gone.__module__], "Gone")
    assert getattr(cache, method)("k", lambda: "loaded") == "loaded"
    assert cache.get("k") == "loaded"


@pytest.mark.parametrize("serializer", ["pickle", "json", "msgpack"])
def test_records_that_were_changed(make: Make, serializer: str) -> None:
    """Whatever becomes of the bytes of an entry, each operation answers, or says what its users expect."""
    cache = make(serializer=serializer, default_ttl=60)
    cache.set("plain", 5)
    cache.set("list", [1, {"a": "b"}], 60)
    cache.set("rich", "text", 60, tags=["t", "u"], stale_ttl=30)
    cache.set("sliding", [1], 60, sliding=True, max_age=600, tags=["t"])
    cache.get_or_set("loaded", _with_etag, refresh_ahead=0.5, stale_ttl=30)
    goods = [record_of(cache, key) for key in (b"plain", b"list", b"rich", b"sliding", b"loaded")]

    @given(st.sampled_from(goods).flatmap(mutated), st.sampled_from(["k", "k" * 600]))
    def check(data: bytes, key: str) -> None:
        raw = stored_key(key)
        for work, *errors in OPERATIONS:
            plant(cache, raw, data)
            with suppress(CacheMiss, KeyAlreadyExists, TypeError, *errors):
                work(cache, key)
        cache.set(key, "new", tags=["t"])
        assert cache.get(key) == "new"
        cache.delete(key)

    check()


def _with_etag(context: Any) -> list[int]:
    context.etag = '"v1"'
    return [1, 2]


# Each with what it may raise besides: what changes a value needs one that can be read.
OPERATIONS: list[tuple[Any, ...]] = [
    (lambda cache, key: cache.get(key),),
    (lambda cache, key: cache.get_many([key, "plain"]),),
    (lambda cache, key: cache.get_or_set(key, lambda: 1, stale_ttl=5, refresh_ahead=0.5),),
    (lambda cache, key: cache.ttl(key),),
    (lambda cache, key: cache.touch(key, 5),),
    (lambda cache, key: cache.add(key, 1),),
    (lambda cache, key: cache.update(key, 1),),
    (lambda cache, key: cache.incr(key, 1), SerializationError),
    (lambda cache, key: cache.incr(key, 0.5, initial=1.5), SerializationError),
    (lambda cache, key: cache.pop(key), SerializationError),
    (lambda cache, key: key in cache,),
    (lambda cache, key: list(cache.keys()),),
    (lambda cache, key: cache.cleanup(),),
    (lambda cache, key: cache.invalidate_tags("t"),),
    (lambda cache, key: cache.delete(key),),
]
