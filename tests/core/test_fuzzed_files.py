"""Files and settings of any content: only errors that are documented, nothing that runs, bounded memory."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import tracemalloc
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from quickcache_core import CacheLoadError, ConfigError, QuickCache, QuickCacheConfig
from quickcache_core.metrics import layout as at
from quickcache_core.metrics.board import Board
from quickcache_core.metrics.board_file import open_board_file
from quickcache_core.metrics.ring import read_answer
from tests.core.mutations import mutated

SECRET = "a secret of the tests, long enough"
reuses_fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


class Trap:
    """Whoever unpickles it makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


# Snapshots


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(("serializer", "secret"), [("json", None), ("json", SECRET), ("pickle", SECRET)])
def test_snapshot_that_was_changed(
    tmp_path: Path, serializer: str, secret: str | None, compression: str | None
) -> None:
    """It is the one that was saved, or an error that leaves the cache as it was."""
    config = QuickCacheConfig(
        serializer=serializer, secret=secret, compression=compression, default_ttl=600, storage_dir=tmp_path
    )
    saved = QuickCache(config)
    saved.set_many({"a": 1, "b": [1, 2], "c": "x" * 100})
    saved.set("d", "tagged", tags=["t"], stale_ttl=50)
    path = saved.save_to_disk(tmp_path / "snapshot")
    good, entries = path.read_bytes(), dict.fromkeys(saved.keys())

    @reuses_fixtures
    @given(mutated(good) | st.binary(max_size=100) | st.binary(max_size=50).map(lambda more: good + more))
    @example(good)
    def check(data: bytes) -> None:
        path.write_bytes(data)
        cache = QuickCache(config)
        cache.set("kept", 1)
        try:
            cache.load_from_disk(path)
        except CacheLoadError:
            assert list(cache.keys()) == ["kept"]
        else:
            assert data == good
            assert dict.fromkeys(cache.keys()) == entries

    check()


def test_pickle_put_into_a_snapshot(tmp_path: Path) -> None:
    """Whatever the header says, with a length and a checksum that are right, as anybody can make them."""
    trap = tmp_path / "trap"
    config = QuickCacheConfig(serializer="pickle", secret=SECRET, storage_dir=tmp_path)
    path = QuickCache(config).save_to_disk(tmp_path / "snapshot")
    header = json.loads(path.read_bytes().partition(b"\n")[0])
    del header["sha256"]
    evil = pickle.dumps([["k", Trap(trap), None]])
    changes = st.fixed_dictionaries(
        {},
        optional={
            "version": st.sampled_from([1, 2]),
            "serializer": st.sampled_from(["pickle", "json", "msgpack"]),
            "compression": st.sampled_from([None, "zlib", "zstd", "none"]),
            "signature": st.sampled_from([None, "", "0" * 64, header["signature"]]),
            "entries": st.integers(0, 2),
            "created_at": st.floats(),
        },
    )

    @reuses_fixtures
    @given(changes)
    @example({})
    @example({"signature": None})
    def check(changes: dict[str, Any]) -> None:
        said = {**header, "entries": 1, "length": len(evil), "raw_length": len(evil), **changes}
        text = json.dumps(said, separators=(",", ":")).encode()
        said["sha256"] = hashlib.sha256(text + hashlib.sha256(evil).digest()).hexdigest()
        path.write_bytes(json.dumps(said, separators=(",", ":")).encode() + b"\n" + evil)
        with pytest.raises(CacheLoadError):
            QuickCache(config).load_from_disk(path)
        assert not trap.exists()

    check()
    pickle.loads(evil)
    assert trap.exists()


def test_large_file_that_is_no_snapshot(tmp_path: Path) -> None:
    """It is refused by its first line and its length, without being read."""
    path = tmp_path / "large.json"
    path.write_bytes(b"{")
    os.truncate(path, 1 << 34)
    tracemalloc.start()
    try:
        with pytest.raises(CacheLoadError):
            QuickCache().load_from_disk(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# Files for figures


def publish(path: Path) -> bytes:
    """A file in which one process has counted."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    board = Board(path)
    file = board.file(0.0, create=True)
    assert file is not None
    slot = board.claim(file, "a server", started=0.0)
    slot.words[slot.word + at.S_FIGURES] = 5
    good = path.read_bytes()
    path.unlink()
    return good[: at.FIXED_SIZE + 4 * at.SLOT_SIZE]


def test_figures_that_were_changed(tmp_path: Path) -> None:
    """They are numbers, or an error that figures have; the file is put aside if it is none."""
    path = tmp_path / "run" / "shop.figures"
    good = publish(path)
    words = st.lists(
        st.tuples(
            st.sampled_from([*range(80), *range(at.FIXED_SIZE // 8, at.FIXED_SIZE // 8 + 100)]),
            st.sampled_from([0, 1, 7, 2**31, 2**63, 2**64 - 1]),
        ),
        max_size=6,
    )

    @reuses_fixtures
    @given(words, st.booleans())
    def check(changes: list[tuple[int, int]], is_short: bool) -> None:
        data = bytearray(good)
        for word, value in changes:
            data[word * 8 : word * 8 + 8] = value.to_bytes(8, "little")
        path.write_bytes(data)
        path.chmod(0o600)
        if not is_short:
            os.truncate(path, at.FILE_SIZE)
        with suppress(OSError):
            reading = Board(path).read()
            assert all(one >= 0 for one in reading.ended.counts)
            assert len(reading.workers) <= at.SLOTS
        for one in path.parent.iterdir():
            one.unlink()

    check()


@reuses_fixtures
@given(data=st.binary(max_size=300) | mutated(b'{"pid": 1}\n["a key", 5.0]\n["b", null]\n'))
@example(data=b"[" * 100_000)
@example(data=b'{"pid": 1}\n' + b"[" * 100_000)
@example(data=b'{"pid": 1e999}\n')
@example(data=b'{"pid": 1}\n[5, 5]\n')
@example(data=b'{"pid": 1}\n["k", "soon"]\n')
def test_answers_of_workers(tmp_path: Path, data: bytes) -> None:
    """Keys with their times, or no answer."""
    path = tmp_path / "answer"
    path.write_bytes(data)
    answer = read_answer(path)
    if answer is not None:
        assert all(
            type(key) is str and (ttl is None or isinstance(ttl, int | float)) for key, ttl in answer[1]
        )


def test_file_of_any_bytes(tmp_path: Path) -> None:
    """It is no figures file: put aside, and a new one made."""
    path = tmp_path / "run" / "shop.figures"
    publish(path)

    @reuses_fixtures
    @given(st.binary(min_size=1, max_size=5000))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        path.chmod(0o600)
        file = open_board_file(path, create=True)
        assert file is not None
        assert path.stat().st_size == at.FILE_SIZE
        path.unlink()

    check()


# Settings

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 2**63, 10**400, 0.5, -0.5, 1e308, float("inf"), float("nan"), 1j]),
    st.sampled_from(
        ["", "lru", "json", "pickle", "10%", "1MB", "1e999MB", "\0", "\ud800", "/", "..", "~x", "é" * 300]
    ),
    st.sampled_from(
        [b"", b"x" * 20, [], [b""], {}, {"a": 1}, (), ("a",), object(), int, print, len, 10**5000]
    ),
    st.sampled_from(
        ["redis://", "redis://h:99999", "shared://", "shared:///", "memory://x", "redis://[", "unix://x"]
    ),
)


@given(st.dictionaries(st.sampled_from([one.name for one in fields(QuickCacheConfig)]), VALUES, max_size=3))
@example({"max_size": 10**5000})
@example({"default_ttl": 10**5000})
@example({"location": ["redis://:hunter2@h", None]})
def test_settings_of_any_kind(options: dict[str, Any]) -> None:
    """A configuration, or a `ConfigError` that says which field."""
    with suppress(ConfigError):
        QuickCacheConfig.from_mapping(options)


@pytest.mark.parametrize(
    "location",
    [
        ["redis://:hunter2@h", None],
        ["", "redis://:hunter2@h/0"],
        ("redis://:hunter2@h/0", b"redis://:hunter2@h"),
        b"redis://:hunter2@h",
        {"redis://:hunter2@h": 1},
        {"location": "redis://h", "password": "hunter2"},
        "redis:/:hunter2@h:6379",
        "redis//:hunter2@h",
        " rediss:/user:hunter2@h",
        "REDIS://:hunter2@h",
        "redis+tls://:hunter2@h",
        "rediss:hunter2@h",
        ":hunter2@127.0.0.1:6379:1",
        "user:hunter2@h",
        ":hun,hunter2@10.0.0.1:6379/0",
        "localhost:6379?db=1&password=hunter2",
    ],
)
def test_location_written_wrongly(location: Any) -> None:
    """The error has no password, nor does one slip through as the name of a store in memory."""
    with pytest.raises(ConfigError) as raised:
        QuickCacheConfig(location=location)
    assert "hunter2" not in f"{raised.value} {vars(raised.value)!r}"
