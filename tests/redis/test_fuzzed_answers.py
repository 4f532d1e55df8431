"""What a server could send that is none, or that somebody else writes to: only errors that are expected,
nothing that runs, no end of time or memory.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quickcache_core import SerializationError
from quickcache_core.metrics.board import Worker
from quickcache_core.metrics.figures import NOTHING
from quickcache_core.serializer import BaseSerializer, JsonSerializer, MsgpackSerializer, PickleSerializer
from quickcache_core.serializer.isolation import thaw
from quickcache_core.serializer.signing import Signer
from quickcache_core.store.codec import Codec
from quickcache_core.store.life import Life
from quickcache_core.store.near import WHOLE
from quickcache_core.store.record import HEADER, packed_life
from quickcache_core.store.redis import pushes
from quickcache_core.store.redis.address import BadAddress, read_address
from quickcache_core.store.redis.announcing import _packed, _unpacked
from quickcache_core.store.redis.pushes import WORDS, BadAnswer, PushReader
from quickcache_core.store.redis.record import (
    HEAD,
    SIGNATURE_BYTES,
    VERSION,
    decoded,
    head_bytes,
    is_foreign,
    packed,
    unpacked,
)
from tests.core.mutations import mutated

# Pushes

INVALIDATE = b">2\r\n$10\r\ninvalidate\r\n"
TOKENS = st.sampled_from(
    [
        *(INVALIDATE, b"*1\r\n", b"*2\r\n", b"*-1\r\n", b"_\r\n", b"$1\r\na\r\n", b"$4\r\nqc:g\r\n", b"\r\n"),
        *(
            b"$-1\r\n",
            b"$-7\r\n",
            b"$-9\r\n",
            b"*99999999999999\r\n",
            b">3\r\n",
            b"%2\r\n",
            b"|1\r\n",
            b"+PONG\r\n",
        ),
        *(
            b"-ERR\r\n",
            b"$99999999999999999999\r\n",
            b">99999999\r\n",
            b"*0\r\n",
            b"$0\r\n\r\n",
            b"=5\r\ntxt:a\r\n",
        ),
    ]
)
STREAMS = st.lists(TOKENS | st.binary(max_size=8), max_size=12).map(b"".join)


@given(STREAMS, st.lists(st.integers(1, 20), min_size=1, max_size=5))
@example(INVALIDATE + b"*99999999999999\r\n$-7\r\n", [100])
@example(INVALIDATE + b"*99999999999999\r\n$-2\r\n" * 2, [100])
def test_pushes_of_any_kind(data: bytes, sizes: list[int]) -> None:
    """They are understood, or they are not; what is told is no more than what was sent."""
    reader = PushReader(b"qc:g")
    told = 0
    with suppress(BadAnswer):
        sent, number = 0, 0
        while sent < len(data):
            size = sizes[number % len(sizes)]
            slots = reader.feed(data[sent : sent + size])
            told += len(slots) + len(reader.replies)
            assert all(slot == WHOLE or 0 < slot < WORDS for slot in slots)
            reader.replies.clear()
            sent, number = sent + size, number + 1
    assert told <= len(data)


@pytest.mark.parametrize(
    "beginning",
    [
        INVALIDATE + b"*1\r\n$536870912\r\n",
        b">2\r\n$536870912\r\n",
        b">99999999\r\n",
        b"*1\r\n=999999999\r\n",
    ],
)
def test_message_without_an_end(beginning: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """It isn't collected for ever."""
    monkeypatch.setattr(pushes, "_LONGEST_KEY", 100_000)
    reader = PushReader(b"qc:g")
    pieces = iter([beginning, *[b"+a long line\r\n" * 1000] * 12])
    with pytest.raises(BadAnswer):
        list(map(reader.feed, pieces))
    assert next(pieces)


# Records

SIGNER = Signer("a secret of the tests, long enough", purpose="redis")
SERIALIZERS: list[BaseSerializer] = [JsonSerializer(), PickleSerializer(), MsgpackSerializer()]
CODECS = {
    type(one).__name__: Codec(one, "auto", (), lambda: SIGNER, False, SIGNATURE_BYTES) for one in SERIALIZERS
}
VALUES = [1, 1.5, "text", b"bytes", None, True, [1, {"a": "b"}], 2**70, "x" * 300]
LIVES = [
    None,
    Life(60.0, 30.0, True, 600.0, 30.0, (1, 2, 3), '"etag"'),
    Life(math.inf, 0.0, False, math.inf, 1.0),
]
TAIL = b":key"


def good_records() -> list[tuple[str, bytes]]:
    found = []
    for name, codec in CODECS.items():
        for value in VALUES:
            for life in LIVES:
                with suppress(SerializationError):
                    deadline, extras = (math.inf, b"") if life is None else packed_life(life, 1000.0, 1060.0)
                    record, _ = codec.encode(TAIL, "key", codec.freeze(value), deadline, extras)
                    found.append((name, packed(b"12345678", record)))
    return found


def read_as_a_get_does(codec: Codec, reply: bytes) -> Any:
    """The value, or None."""
    assert is_foreign(reply) in (True, False)
    head_bytes(reply[:HEAD]) if len(reply) >= HEAD else None
    stored = unpacked(reply)
    if stored is None or is_foreign(reply):
        return None
    extras = stored.extras
    if extras is not None:
        extras.life(1000.0)
    found = decoded(codec, TAIL, "key", stored)
    if found is None:
        assert codec.reason(stored.record)
        return None
    with suppress(SerializationError):
        return thaw(found[0])
    return None


@pytest.mark.parametrize("name", CODECS)
@given(st.binary(max_size=200), st.integers(0, 9), st.integers(0, 7))
def test_records_of_any_bytes(name: str, data: bytes, kind: int, flags: int) -> None:
    """Whatever stands under the name of an entry, with or without a beginning that looks like ours."""
    codec = CODECS[name]
    head = HEADER.pack(math.inf, kind, flags, codec._format)
    for reply in (data, VERSION + data, packed(b"12345678", head + data)):
        read_as_a_get_does(codec, reply)


@given(st.sampled_from(good_records()), st.data())
def test_records_that_were_changed(record: tuple[str, bytes], data: st.DataObject) -> None:
    """A few bytes changed, cut, doubled or put in: a value or none, and no pickle that was touched."""
    name, good = record
    codec = CODECS[name]
    changed = data.draw(mutated(good))
    read_as_a_get_does(codec, changed)
    stored = unpacked(changed)
    if name == "PickleSerializer" and stored is not None and len(changed) > HEAD and not is_foreign(changed):
        found = decoded(codec, TAIL, "key", stored)
        if found is not None and codec.holds(found[0]):
            original = unpacked(good)
            assert original is not None
            # Signed: the payload is the one that we wrote.
            assert original.record.endswith(found[0].data)


# What else is on the server

NAMES = ["host", "pid", "server", "uptime_s", "ops_per_s", "figures", "hits", "misses", "bytes"]
LEAVES = st.sampled_from([None, True, 0, 1, -1, 2**70, 0.5, math.inf, math.nan, "", "1", "x" * 300, [], {}])
SAID = st.dictionaries(st.sampled_from(NAMES), LEAVES | st.dictionaries(st.sampled_from(NAMES), LEAVES))
GOOD = _packed(Worker(1, "gunicorn", 1.5, NOTHING, 2.5, 0, 0))


@given(st.binary(max_size=100) | SAID.map(lambda said: json.dumps(said).encode()) | mutated(GOOD))
@example(b"[" * 100_000)
@example(GOOD.replace(b'"pid": 1', b'"pid": 1e999'))
@example(GOOD.replace(b'"hits": 0', b'"hits": "many"'))
@example(GOOD.replace(b'"uptime_s": 1.5', b'"uptime_s": NaN'))
def test_figures_of_other_hosts(said: bytes) -> None:
    """They are those of a process, or nothing; and can be added to those of others."""
    worker = _unpacked(said)
    if worker is not None:
        assert all(type(one) is int and one >= 0 for one in worker.figures.counts)
        assert 0 <= worker.uptime_s < math.inf
        assert 0 <= worker.ops_per_s < math.inf
        assert type(worker.host) is type(worker.server) is str
        _packed(worker)


# Addresses


@given(
    st.lists(
        st.sampled_from(
            [
                "redis://",
                "unix://",
                ",",
                "@",
                ":",
                "/",
                "?",
                "cluster=true",
                "&",
                "db=",
                "sentinel=",
                "[",
                "]",
            ]
        )
        | st.text("a1.-_% ;é\0", max_size=4),
        max_size=8,
    ).map("".join)
)
def test_addresses_of_any_text(text: str) -> None:
    """An address, or what is wrong with it, without the text."""
    said = ""
    try:
        address = read_address("redis://:hunter2@" + text)
        said = f"{address} {address!r}"
        assert all(server.host or server.path for server in address.servers)
    except BadAddress as error:
        said = str(error)
    assert said
    assert "hunter2" not in said
