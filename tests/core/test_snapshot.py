from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import signal
import stat
import subprocess
import sys
import textwrap
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import QuickCache, QuickCacheConfig, snapshot
from quickcache_core.atomic import write_atomically
from quickcache_core.entry import FOREVER
from quickcache_core.errors import CacheLoadError, CacheMetricsSaveError, CacheSaveError
from quickcache_core.serializer import BaseSerializer, JsonSerializer, MsgpackSerializer, PickleSerializer
from quickcache_core.serializer.compression import codec
from quickcache_core.serializer.signing import Signer
from quickcache_core.snapshot import (
    read_snapshot,
    resolve_path,
    write_metrics,
    write_snapshot,
)
from quickcache_core.store.base import Bounds
from quickcache_core.store.life import ASK, Life
from quickcache_core.testing import ManualClock

JSON = JsonSerializer()
PICKLE = PickleSerializer()
SIGNER = Signer("a secret of enough bytes", purpose="snapshot")
OTHER_SIGNER = Signer("another secret, of bytes", purpose="snapshot")
NOW = 1000.0
RECORDS: list[tuple[str, Any, float | None]] = [
    ("a", 1, None),
    ("b", ["ü", None], 1060.5),
    ("", {"x": 1.5}, 2000.0),
]
OLD = [("old", "value", None)]


def save(path: Path, records: Any = RECORDS, **options: Any) -> Path:
    return write_snapshot(path, records, **{"serializer": JSON, "wall_now": NOW} | options)


def load(path: Path, **options: Any) -> list[Any]:
    return read_snapshot(path, **{"serializer": JSON, "wall_now": NOW} | options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.json"


class StrEvalSerializer(BaseSerializer):
    """A serializer of a user's own, as simple as it gets."""

    extension = "txt"
    is_binary = False

    def serialize(self, data: Any) -> str:
        return str(data)

    def deserialize(self, data: Any) -> Any:
        return eval(data)


class TestRoundTrip:
    @pytest.mark.parametrize("signer", [None, SIGNER], ids=["unsigned", "signed"])
    @pytest.mark.parametrize("compression", [None, "zlib", "zstd"])
    @pytest.mark.parametrize("serializer", [JSON, PICKLE, MsgpackSerializer(), StrEvalSerializer()])
    def test_every_combination(
        self, path: Path, serializer: BaseSerializer, compression: str | None, signer: Signer | None
    ) -> None:
        """Records come back as they were, in their order."""
        options = {"serializer": serializer, "signer": signer, "allow_unsigned_pickle": True}
        method = None if compression is None else codec(compression)
        assert save(path, compression=method, **options) == path
        assert load(path, **options) == RECORDS

    def test_empty(self, path: Path) -> None:
        """An empty cache has a snapshot too."""
        save(path, [])
        assert load(path) == []

    def test_any_iterable(self, path: Path) -> None:
        """Records may come one by one."""
        save(path, iter(RECORDS))
        assert load(path) == RECORDS

    def test_pickle_keeps_everything(self, path: Path) -> None:
        """Pickle keeps types that the other formats lack."""
        records = [("a", (1, {2}, b"3"), None)]
        save(path, records, serializer=PICKLE, signer=SIGNER)
        assert load(path, serializer=PICKLE, signer=SIGNER) == records

    def test_key_of_a_subclass(self, path: Path) -> None:
        """A key may be a subclass of str: the text is the key."""

        class Safe(str):
            def __str__(self) -> str:
                return "not this"

        save(path, [(Safe("key"), 1, None)])
        assert load(path) == [("key", 1, None)]

    def test_lone_surrogates(self, path: Path) -> None:
        """Text that is no UTF-8 survives."""

        class Raw(JsonSerializer):
            def serialize(self, data: Any) -> str:
                return json.dumps(data, ensure_ascii=False)

        save(path, [("\ud800", 1, None)], serializer=Raw())
        assert load(path, serializer=Raw()) == [("\ud800", 1, None)]

    def test_header(self, path: Path) -> None:
        """The first line tells people and programs what the file is; a JSON snapshot is JSON lines."""
        save(path, compression=None)
        header, payload = path.read_text().split("\n")
        assert json.loads(payload) == [list(record) for record in RECORDS]
        fields = json.loads(header)
        assert fields.pop("sha256")
        assert fields == {
            "format": "quickcache-snapshot",
            "version": 1,
            "serializer": "json",
            "compression": None,
            "created_at": NOW,
            "entries": 3,
            "length": len(payload),
            "raw_length": len(payload),
            "signature": None,
        }


class TestExpiry:
    def test_ttl_runs_in_the_file(self, path: Path) -> None:
        """What expired while it was stored is dropped, at the instant of its deadline."""
        save(path)
        assert [key for key, _, _ in load(path, wall_now=1060.4)] == ["a", "b", ""]
        assert [key for key, _, _ in load(path, wall_now=1060.5)] == ["a", ""]
        assert [key for key, _, _ in load(path, wall_now=1e12)] == ["a"]

    def test_whole_seconds(self, path: Path) -> None:
        """A deadline given as an integer works as any other."""
        save(path, [("a", 1, 1001)])
        assert load(path) == [("a", 1, 1001.0)]


class TestUnserializable:
    @pytest.mark.parametrize("serializer", [JSON, MsgpackSerializer()])
    def test_names_the_key(self, path: Path, serializer: BaseSerializer) -> None:
        """One bad value among many is named by key and type, with the remedy; the old file stays."""
        save(path, OLD, serializer=serializer)
        records = [*RECORDS, ("culprit", {1, 2}, None), ("z", 1, None)]
        with pytest.raises(CacheSaveError, match=r"'culprit', a set.*serializer='pickle'") as caught:
            save(path, records, serializer=serializer)
        assert caught.value.filepath == str(path)
        assert caught.value.__cause__ is not None
        assert load(path, serializer=serializer) == OLD

    def test_unpicklable(self, path: Path) -> None:
        """The same with pickle."""
        with pytest.raises(CacheSaveError, match=r"'culprit', a function.*pickle"):
            save(path, [*RECORDS, ("culprit", lambda: 1, None)], serializer=PICKLE, signer=SIGNER)
        assert not list(path.parent.iterdir())

    def test_custom_serializer_that_raises(self, path: Path) -> None:
        """Whatever a user's serializer raises is a failed save that keeps the cause."""

        class Picky(StrEvalSerializer):
            def serialize(self, data: Any) -> str:
                if "bad" in str(data):
                    raise KeyError("no bad things")
                return str(data)

        with pytest.raises(CacheSaveError, match=r"'k', a str.*KeyError.*no bad things") as caught:
            save(path, [*RECORDS, ("k", "bad", None)], serializer=Picky())
        assert isinstance(caught.value.__cause__, KeyError)

    def test_fails_only_on_the_whole(self, path: Path) -> None:
        """A failure that no single record shows is reported as it is."""

        class Small(StrEvalSerializer):
            def serialize(self, data: Any) -> str:
                if len(data) > 2:
                    raise ValueError("too many")
                return str(data)

        with pytest.raises(CacheSaveError, match="too many"):
            save(path, serializer=Small())

    @pytest.mark.parametrize(
        ("is_binary", "output"), [(True, "text"), (False, b"bytes"), (False, None), (True, 5)]
    )
    def test_wrong_output(self, path: Path, is_binary: bool, output: object) -> None:
        """A serializer whose output isn't what `is_binary` says is told so, not guessed at."""

        class Wrong(StrEvalSerializer):
            def serialize(self, data: Any) -> Any:
                return output

        Wrong.is_binary = is_binary
        with pytest.raises(CacheSaveError, match="is_binary"):
            save(path, serializer=Wrong())
        assert not list(path.parent.iterdir())


class TestDamage:
    @pytest.fixture(params=["unsigned", "signed", "compressed", "signed, read without the secret"])
    def damaged(self, request: pytest.FixtureRequest, path: Path) -> tuple[bytes, Callable[[bytes], None]]:
        """The bytes of a good snapshot, and a function that reads others in their place."""
        writer = None if request.param in ("unsigned", "compressed") else SIGNER
        reader = SIGNER if request.param == "signed" else None
        save(
            path,
            [("key", "value", 5000.5)],
            signer=writer,
            compression=codec("zlib") if request.param == "compressed" else None,
        )

        def read(data: bytes) -> None:
            path.write_bytes(data)
            load(path, signer=reader)

        good = path.read_bytes()
        read(good)
        return good, read

    def test_every_flipped_byte(self, damaged: tuple[bytes, Callable[[bytes], None]]) -> None:
        """No byte can change unnoticed: not in the data, not in the header, not by case or by space."""
        good, read = damaged
        for at in range(len(good)):
            for flip in (0x01, 0x20, 0x80):
                bad = bytearray(good)
                bad[at] ^= flip
                try:
                    read(bytes(bad))
                except CacheLoadError:
                    continue
                pytest.fail(f"byte {at} of {good!r}, flipped by {flip:#x}, went unnoticed")

    def test_every_length(self, damaged: tuple[bytes, Callable[[bytes], None]]) -> None:
        """A file that is cut off anywhere is refused."""
        good, read = damaged
        for length in range(len(good)):
            with pytest.raises(CacheLoadError):
                read(good[:length])

    def test_more_than_was_written(self, damaged: tuple[bytes, Callable[[bytes], None]]) -> None:
        """So is one that goes on."""
        good, read = damaged
        for bad in (
            good + b"\n",
            good + good,
            b"\n" + good,
            b"\xef\xbb\xbf" + good,
            good.replace(b"\n", b"\r\n"),
        ):
            with pytest.raises(CacheLoadError):
                read(bad)

    def test_says_what_happened(self, damaged: tuple[bytes, Callable[[bytes], None]]) -> None:
        """A wrong size is told apart from wrong bytes, before anything is read."""
        good, read = damaged
        for bad, message in (
            (good[:-1], "cut off: .* use another copy"),
            (good + b"x", "longer than it was"),
            (good[:-1] + b"x", "checksum"),
        ):
            with pytest.raises(CacheLoadError, match=message):
                read(bad)

    def test_header_spelled_otherwise(self, damaged: tuple[bytes, Callable[[bytes], None]]) -> None:
        """A header that means the same in other letters isn't ours."""
        good, read = damaged
        header, payload = good.split(b"\n", 1)
        fields = json.loads(header)
        for other in (
            json.dumps(fields).encode(),
            json.dumps(fields, separators=(",", ":"), sort_keys=True).encode(),
            header.replace(b"json", b"\\u006ason"),
            header.replace(b'"version":1', b'"version":1.0'),
            header.replace(b'"version":1', b'"version":true'),
            header.replace(b'"version":1', b'"version":2,"version":1'),
            header[:-1] + b',"more":1}',
        ):
            with pytest.raises(CacheLoadError):
                read(other + b"\n" + payload)


def forge(path: Path, payload: bytes, **changes: Any) -> None:
    """A file with a right checksum, as somebody can make who knows the format but no secret."""
    header: dict[str, Any] = {
        "format": "quickcache-snapshot",
        "version": 1,
        "serializer": "json",
        "compression": None,
        "created_at": NOW,
        "entries": 1,
        "length": len(payload),
        "raw_length": len(payload),
        "signature": None,
    } | changes
    digest = hashlib.sha256(payload).digest()
    header["sha256"] = hashlib.sha256(json.dumps(header, separators=(",", ":")).encode() + digest).hexdigest()
    path.write_bytes(json.dumps(header, separators=(",", ":")).encode() + b"\n" + payload)


LIVES = [
    Life(5.0, stale_ttl=50.0, etag="v1"),
    Life(FOREVER, tags=(0, 5, 262_143)),
    Life(5.0, sliding=True, max_age=100.0, refresh_after=4.0),
    Life(FOREVER, refresh_after=0.5, etag='"ü"'),
]


class TestLives:
    """Entries that have more than a TTL."""

    @pytest.mark.parametrize(
        "serializer", [JSON, PICKLE, MsgpackSerializer()], ids=lambda one: type(one).__name__
    )
    def test_round_trip(self, path: Path, serializer: BaseSerializer) -> None:
        """They come back with their lives, among others that have none."""
        records = [(f"k{n}", n, NOW + 5.0 if life.ttl == 5.0 else None, life) for n, life in enumerate(LIVES)]
        options: dict[str, Any] = {"serializer": serializer, "allow_unsigned_pickle": True}
        save(path, [*RECORDS, *records], **options)
        assert load(path, **options) == [*RECORDS, *records]

    def test_stale_ones(self, path: Path) -> None:
        """Kept until their time as stale ones is over, and no longer."""
        life = Life(5.0, stale_ttl=50.0)
        save(path, [("k", 1, NOW - 10.0, life)])
        assert load(path) == [("k", 1, NOW - 10.0, life)]
        assert len(load(path, wall_now=NOW + 39.0)) == 1
        assert load(path, wall_now=NOW + 40.0) == []

    def test_time_goes_on(self, path: Path) -> None:
        """The longest life and the time to a refresh are counted from when the file was written."""
        save(path, [("k", 1, NOW + 90.0, Life(90.0, sliding=True, max_age=100.0, refresh_after=40.0))])
        [(_, _, end, life)] = load(path, wall_now=NOW + 30.0)
        assert end == NOW + 90.0
        assert (life.max_age, life.refresh_after) == (70.0, 10.0)
        [(_, _, _, life)] = load(path, wall_now=NOW + 60.0)
        assert life.max_age == 40.0
        assert 0.0 < life.refresh_after < 0.001

    def test_a_clock_that_was_ahead(self, path: Path) -> None:
        """Nobody lives longer for it."""
        life = Life(5.0, stale_ttl=50.0)
        save(path, [("k", 1, NOW + 5.0, life)])
        [(_, _, end, _)] = load(path, wall_now=NOW - 500.0)
        assert end == NOW - 500.0 + 5.0

    def test_files_without_any_are_of_version_1(self, path: Path) -> None:
        """Older releases go on reading what they can."""
        save(path)
        assert b'"version":1,' in path.read_bytes()
        save(path, [("k", 1, None, Life(FOREVER, tags=(5,)))])
        assert b'"version":2,' in path.read_bytes()

    @pytest.mark.parametrize(
        "life",
        [
            None,
            [],
            "life",
            [5.0, 0.0, None, None, False, []],
            [5.0, 0.0, None, None, False, [], None, None],
            [-5.0, 0.0, None, None, False, [], None],
            [5, 0.0, None, None, False, [], None],
            ["5", 0.0, None, None, False, [], None],
            [5.0, 0.0, None, None, 0, [], None],
            [5.0, 0.0, None, None, False, None, None],
            [5.0, 0.0, None, None, False, [262_144], None],
            [5.0, 0.0, None, None, False, [-1], None],
            [5.0, 0.0, None, None, False, [1.0], None],
            [5.0, 0.0, None, None, False, [], 5],
        ],
    )
    def test_lives_that_are_none(self, path: Path, life: object) -> None:
        """A file that nobody wrote is refused as a whole."""
        forge(path, json.dumps([["k", 1, None, life]]).encode(), version=2)
        with pytest.raises(CacheLoadError):
            load(path)

    def test_through_caches(self, tmp_path: Path) -> None:
        """A cache gives another, by way of a file, entries that live as they did."""
        clocks = ManualClock(), ManualClock(monotonic=5.0)
        first, second = (QuickCache(QuickCacheConfig(clock=clock, storage_dir=tmp_path)) for clock in clocks)
        bounds = Bounds(100)
        for n, life in enumerate(LIVES):
            first._real_store.put_with(f"k{n}", n, life, bounds)
        clocks[0].advance(7.0)
        clocks[1].advance(7.0)
        first.save_to_disk("lives")
        second.load_from_disk("lives")
        stale = second._real_store.get("k0", ASK)
        assert (stale.stored, stale.is_fresh, stale.etag) == (0, False, "v1")
        assert second.get("k1") == 1
        second._real_store.invalidate_tags([5])
        assert second.get("k1", None) is None
        assert second.get("k2", None) is None
        assert second.ttl("k3") is None
        clocks[1].advance(1.0)
        assert second._real_store.look("k3").is_due  # type: ignore[union-attr]
        clocks[1].advance(47.0)
        assert second._real_store.get("k0", ASK) is ASK


class TestForeignFiles:
    def test_forge_works(self, path: Path) -> None:
        """The forgery of these tests is good apart from what each test changes."""
        forge(path, b'[["k",1,null]]')
        assert load(path) == [("k", 1, None)]

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\n",
            b"{}",
            b"{}\n",
            b"[]\n[]",
            b"null\n",
            b'{"a": {"value": 1, "ttl": 60}}',
            b"\x80\x05}\x94.",
            b"text\nmore text\n",
            b"\xff\xfe\x00\n",
            b"[" * 70_000,
            b"x" * 1_000_000,
            bytes(1_000_000),
            b'{"format":"quickcache-snapshot"}\n',
            b'{"format":"quickcache-snapshot","version":' + b"9" * 5000 + b"}\n",
        ],
        ids=lambda content: repr(content[:30]),
    )
    def test_other_content(self, path: Path, content: bytes) -> None:
        """Files of other programs are refused, with the path and what to do."""
        path.write_bytes(content)
        with pytest.raises(CacheLoadError, match="; ") as caught:
            load(path)
        assert caught.value.filepath == str(path)

    def test_huge_file(self, path: Path) -> None:
        """A foreign file of any size costs no memory."""
        path.touch()
        os.truncate(path, 200_000_000)
        tracemalloc.start()
        try:
            with pytest.raises(CacheLoadError, match="no QuickCache snapshot"):
                load(path)
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()

    def test_newer_format(self, path: Path) -> None:
        """A file of a later version says so, whatever else its header has."""
        path.write_bytes(b'{"format": "quickcache-snapshot", "version": 3, "news": []}\nfuture')
        with pytest.raises(CacheLoadError, match=r"version 3.*upgrade"):
            load(path)

    @pytest.mark.parametrize("version", [0, -1, "1", None, 1.0, [2]])
    def test_version_that_never_was(self, path: Path, version: object) -> None:
        """No other version is taken for ours."""
        forge(path, b'[["k",1,null]]', version=version)
        with pytest.raises(CacheLoadError, match="damaged"):
            load(path)

    def test_missing_file(self, path: Path) -> None:
        """A file that isn't there is a failed load with the system's reason."""
        with pytest.raises(CacheLoadError, match="No such file") as caught:
            load(path)
        assert isinstance(caught.value.__cause__, FileNotFoundError)

    def test_directory(self, tmp_path: Path) -> None:
        """A directory is no snapshot."""
        with pytest.raises(CacheLoadError):
            load(tmp_path)

    def test_pipe(self, tmp_path: Path) -> None:
        """A pipe that nobody writes to doesn't make the reader wait."""
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(CacheLoadError, match="regular"):
            load(tmp_path / "pipe")

    def test_null_in_the_name(self, tmp_path: Path) -> None:
        """A path that the system refuses is ours to report."""
        with pytest.raises(CacheLoadError):
            load(tmp_path / "a\0b")
        with pytest.raises(CacheSaveError):
            save(tmp_path / "a\0b")

    def test_other_serializer(self, path: Path) -> None:
        """A file of another format names both, and what to set."""
        save(path)
        with pytest.raises(CacheLoadError, match=r"'json'.*'msgpack'.*serializer='json'"):
            load(path, serializer=MsgpackSerializer())

    @pytest.mark.parametrize(
        "payload",
        [
            b"{}",
            b"null",
            b"[]",
            b'[["a",1,null],["b",1,null]]',
            b'[{"a":1}]',
            b'["abc"]',
            b'[["a",1]]',
            b"[[1,1,null]]",
            b'[["a",1,"soon"]]',
            b'[["a",1,true]]',
            b'[["a",1,NaN]]',
            b'[["a",1,1e999]]',
            b'[["a",1,' + b"9" * 400 + b"]]",
            b"no json",
            b"\xff",
        ],
    )
    def test_other_structure(self, path: Path, payload: bytes) -> None:
        """A payload that is no list of that many records is refused before any of it is used."""
        forge(path, payload)
        with pytest.raises(CacheLoadError):
            load(path)

    def test_custom_serializer_that_raises(self, path: Path) -> None:
        """Whatever a user's serializer raises on reading is a failed load."""

        class OneWay(StrEvalSerializer):
            def deserialize(self, data: Any) -> Any:
                raise ZeroDivisionError("no way back")

        save(path, serializer=OneWay())
        with pytest.raises(CacheLoadError, match="ZeroDivisionError: no way back"):
            load(path, serializer=OneWay())

    @pytest.mark.parametrize(
        ("compression", "raw_length"),
        [
            ("zlib", 10),
            ("zlib", 2_000_000),
            ("zlib", sys.maxsize - 1),
            ("zlib", sys.maxsize),
            ("zlib", 10**30),
            ("zlib", -1),
            ("zstd", 10),
            ("gzip", 1_000_000),
            ("", 1_000_000),
        ],
    )
    def test_false_claims(self, path: Path, compression: str, raw_length: int) -> None:
        """A wrong size or method is found out before it costs anything."""
        payload = codec("zlib" if compression != "zstd" else "zstd").compress(b" " * 1_000_000)
        forge(path, payload, compression=compression, raw_length=raw_length)
        with pytest.raises(CacheLoadError):
            load(path)

    @pytest.mark.skipif(sys.version_info >= (3, 14), reason="zstd is part of Python there")
    def test_zstd_not_installed(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where zstd is missing, such a file can't be read, and the error says what to install."""
        save(path, compression=codec("zstd"))
        monkeypatch.setitem(sys.modules, "zstandard", None)
        with pytest.raises(CacheLoadError, match="pip install"):
            load(path)


class Mark:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


class TestUnsafePickles:
    @pytest.fixture(autouse=True)
    def marker(self, tmp_path: Path) -> Iterator[Path]:
        """The file that unpickling would leave: it must not be there in the end, unless a test removes it."""
        marker = tmp_path / "unpickled"
        yield marker
        assert not marker.exists()

    @pytest.fixture
    def payload(self, marker: Path) -> bytes:
        return pickle.dumps([["k", Mark(marker), None]])

    def test_marker_works(self, payload: bytes, marker: Path) -> None:
        """The payload does what these tests are afraid of."""
        pickle.loads(payload)
        marker.unlink()

    @pytest.mark.parametrize("signature", [None, "", "0" * 64, OTHER_SIGNER.sign(b"x")], ids=repr)
    @pytest.mark.parametrize("signer", [None, SIGNER], ids=["no secret", "secret"])
    def test_forged(self, path: Path, payload: bytes, signer: Signer | None, signature: str | None) -> None:
        """A pickle without a good signature is never unpickled."""
        forge(path, payload, serializer="pickle", signature=signature)
        with pytest.raises(CacheLoadError, match=r"sign.*secret"):
            load(path, serializer=PICKLE, signer=signer)

    def test_forged_signature_in_spite_of_permission(self, path: Path, payload: bytes) -> None:
        """Permission for unsigned pickles is none for wrongly signed ones."""
        forge(path, payload, serializer="pickle", signature="0" * 64)
        with pytest.raises(CacheLoadError, match="signature is wrong"):
            load(path, serializer=PICKLE, signer=SIGNER, allow_unsigned_pickle=True)

    def test_pretends_to_be_json(self, path: Path, payload: bytes) -> None:
        """What the header says about the format decides nothing."""
        forge(path, payload, serializer="json")
        for serializer in (PICKLE, JSON):
            with pytest.raises(CacheLoadError):
                load(path, serializer=serializer)

    def test_payload_of_another_file(self, path: Path, payload: bytes) -> None:
        """A good signature is good for its own file only."""
        save(path, serializer=PICKLE, signer=SIGNER)
        good = json.loads(path.read_bytes().split(b"\n", 1)[0])
        forge(path, payload, serializer="pickle", signature=good["signature"])
        with pytest.raises(CacheLoadError, match="signature is wrong"):
            load(path, serializer=PICKLE, signer=SIGNER)

    @pytest.mark.parametrize("field", ["created_at", "entries", "raw_length", "compression"])
    def test_signed_header(self, path: Path, field: str) -> None:
        """The signature covers the header as well."""
        save(path, serializer=PICKLE, signer=SIGNER)
        line, payload = path.read_bytes().split(b"\n", 1)
        header = json.loads(line)
        header[field] = "zlib" if field == "compression" else header[field] + 1
        del header["sha256"]
        forge(path, payload, **header)
        with pytest.raises(CacheLoadError, match="signature is wrong"):
            load(path, serializer=PICKLE, signer=SIGNER)

    def test_subclass(self, path: Path, payload: bytes) -> None:
        """A serializer derived from pickle is as dangerous."""

        class Mine(PickleSerializer):
            pass

        forge(path, payload, serializer=f"{__name__}:{Mine.__qualname__}")
        with pytest.raises(CacheLoadError, match="secret"):
            load(path, serializer=Mine())

    def test_with_permission(self, path: Path, payload: bytes, marker: Path) -> None:
        """Who asked for it gets it."""
        forge(path, payload, serializer="pickle")
        load(path, serializer=PICKLE, allow_unsigned_pickle=True)
        marker.unlink()

    def test_saving_without_a_secret(self, path: Path) -> None:
        """What couldn't be loaded isn't saved; the error says what to set."""
        save(path, OLD)
        with pytest.raises(CacheSaveError, match=r"secret=.*allow_unsigned_pickle"):
            save(path, serializer=PICKLE)
        assert load(path) == OLD


class TestSignatures:
    def test_other_secret(self, path: Path) -> None:
        """A file signed with another secret is refused in every format."""
        save(path, signer=OTHER_SIGNER)
        with pytest.raises(CacheLoadError, match="secret_fallbacks"):
            load(path, signer=SIGNER)

    def test_former_secret(self, path: Path) -> None:
        """A former secret is still good for loading."""
        save(path, serializer=PICKLE, signer=SIGNER)
        rotated = Signer("another secret, of bytes", ["a secret of enough bytes"], purpose="snapshot")
        assert load(path, serializer=PICKLE, signer=rotated) == RECORDS

    def test_unsigned_json_with_a_secret(self, path: Path) -> None:
        """Who has a secret takes only signed files, else a signature could simply be taken off."""
        save(path)
        with pytest.raises(CacheLoadError, match="isn't signed"):
            load(path, signer=SIGNER)
        assert load(path, signer=SIGNER, allow_unsigned_pickle=True) == RECORDS

    def test_signed_json_without_a_secret(self, path: Path) -> None:
        """A harmless format can be read without the secret."""
        save(path, signer=SIGNER)
        assert load(path) == RECORDS


def entries(directory: Path) -> set[str]:
    return {each.name for each in directory.iterdir()}


class TestAtomicity:
    def test_order(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The bytes are on the disk before the name shows them, and the name is, before it is done."""
        steps = []
        fsync, replace = os.fsync, Path.replace

        def watched_fsync(descriptor: int) -> None:
            steps.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
            fsync(descriptor)

        def watched_replace(self: Path, target: Path) -> Path:
            steps.append("replace")
            return replace(self, target)

        monkeypatch.setattr(os, "fsync", watched_fsync)
        monkeypatch.setattr(Path, "replace", watched_replace)
        save(path)
        assert steps == ["file", "replace", "directory"]

    @pytest.mark.parametrize("step", ["os.fsync", "os.fdopen", "pathlib.Path.replace"])
    @pytest.mark.parametrize("error", [OSError(errno.EIO, "broken disk"), KeyboardInterrupt()], ids=repr)
    def test_failing_step(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
    ) -> None:
        """Whichever step fails, the old file stays and nothing else does."""
        save(path, OLD)

        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(step, fail)
        with pytest.raises(CacheSaveError if isinstance(error, OSError) else KeyboardInterrupt):
            save(path)
        monkeypatch.undo()
        assert load(path) == OLD
        assert entries(path.parent) == {path.name}

    def test_directory_that_cannot_be_synced(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where only the last step fails the new file is there, so the save has worked."""
        fsync = os.fsync

        def fail_on_directories(descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "no such thing here")
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", fail_on_directories)
        save(path)
        assert load(path) == RECORDS

    def test_reader_during_a_save(self, path: Path) -> None:
        """Who reads while others save sees one whole file or another, never a part."""
        sizes = {1, 300, 2000}
        save(path, [("k", 0, None)])

        def write(size: int) -> None:
            for _ in range(10):
                save(path, [(f"k{n}", n, None) for n in range(size)])

        with ThreadPoolExecutor(3) as threads:
            writers = [threads.submit(write, size) for size in sizes]
            while not all(writer.done() for writer in writers):
                assert len(load(path)) in sizes
            for writer in writers:
                writer.result()
        assert entries(path.parent) == {path.name}


SAVING_PROCESS = """
import os, pathlib, sys, time
from quickcache_core.serializer import JsonSerializer
from quickcache_core.snapshot import write_snapshot

path, stop_at = sys.argv[1:]
def stop(*_):
    print("here", flush=True)
    time.sleep(60)
if stop_at == "before fsync":
    os.fsync = stop
elif stop_at == "before replace":
    pathlib.Path.replace = stop
elif stop_at == "after replace":
    replace = pathlib.Path.replace
    pathlib.Path.replace = lambda self, target: (replace(self, target), stop())
records = [(f"key {n}", "x" * 1000, None) for n in range(20_000 if stop_at == "anywhere" else 10)]
print("ready", flush=True)
while True:
    write_snapshot(path, records, serializer=JsonSerializer(), wall_now=0.0)
"""


class TestKilledProcess:
    @pytest.mark.parametrize(
        ("stop_at", "saved"), [("before fsync", False), ("before replace", False), ("after replace", True)]
    )
    def test_at_each_step(self, path: Path, stop_at: str, saved: bool) -> None:
        """kill -9 at any step leaves the old file or the new one, whole."""
        save(path, OLD)
        with self.saving(path, stop_at) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            assert process.stdout.readline() == "here\n"
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert len(load(path)) == (10 if saved else 1)

    @pytest.mark.parametrize("delay", [0.05, 0.13, 0.31])
    def test_anywhere(self, path: Path, delay: float) -> None:
        """kill -9 in the middle of writing 20 MB leaves a whole file."""
        save(path, OLD)
        with self.saving(path, "anywhere") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(delay)
            process.kill()
        assert len(load(path)) in (1, 20_000)

    def test_what_it_left(self, path: Path) -> None:
        """A killed save's temporary file goes with a later save, but not while it may be in use."""
        with self.saving(path, "before fsync") as process:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == ["ready\n", "here\n"]
            process.kill()
        (leftover,) = entries(path.parent)
        save(path)
        assert entries(path.parent) == {leftover, path.name}
        os.utime(path.parent / leftover, (0, 0))
        save(path)
        assert entries(path.parent) == {path.name}

    @staticmethod
    def saving(path: Path, stop_at: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", SAVING_PROCESS, str(path), stop_at],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(snapshot.__file__).parents[1],
        )


class TestFullDisk:
    @pytest.mark.parametrize("what", ["snapshot", "metrics"])
    def test_no_space(self, path: Path, what: str) -> None:
        """A disk that gets full is a failed save; the old file stays, and no part of the new one."""
        save(path, OLD)
        script = textwrap.dedent(
            """
            import resource, sys
            from quickcache_core.errors import CacheMetricsSaveError, CacheSaveError
            from quickcache_core.serializer import JsonSerializer
            from quickcache_core.snapshot import write_metrics, write_snapshot

            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            path, what = sys.argv[1:]
            big = "x" * 1_000_000
            try:
                if what == "snapshot":
                    write_snapshot(path, [("k", big, None)], serializer=JsonSerializer(), wall_now=0.0)
                else:
                    write_metrics(path, {"k": big}, JsonSerializer())
            except (CacheSaveError, CacheMetricsSaveError) as error:
                print(type(error).__name__, error.filepath == path, isinstance(error.__cause__, OSError))
            """
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(path), what],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(snapshot.__file__).parents[1],
        )
        assert done.stdout == f"Cache{'' if what == 'snapshot' else 'Metrics'}SaveError True True\n"
        assert load(path) == OLD
        assert entries(path.parent) == {path.name}


class TestOtherUsersOfTheMachine:
    @pytest.fixture(autouse=True)
    def permissive_umask(self) -> Iterator[None]:
        """The most careless setting there is."""
        old = os.umask(0)
        yield
        os.umask(old)

    @pytest.mark.parametrize("overwrite", [True, False])
    def test_modes(self, tmp_path: Path, overwrite: bool) -> None:
        """Files are for the owner only, and so is every directory that was made."""
        path = tmp_path / "one" / "two" / "cache.json"
        save(path, overwrite=overwrite)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700

    def test_mode_of_an_older_file(self, path: Path) -> None:
        """A file that others could read is replaced by one that they can't."""
        path.touch(mode=0o666)
        save(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_directory_that_exists(self, path: Path) -> None:
        """A directory that was there keeps its mode."""
        path.parent.chmod(0o755)
        save(path)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755

    @pytest.mark.parametrize("kind", ["link", "dangling link", "file"])
    def test_temporary_name_is_taken(self, path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        """A trap under the name of the temporary file is neither followed nor overwritten."""
        victim = path.parent / "victim"
        if kind != "dangling link":
            victim.write_text("precious")
        trap = path.parent / f".quickcache-{bytes(8).hex()}.tmp"
        trap.write_text("trap") if kind == "file" else trap.symlink_to(victim)
        tokens = iter([bytes(8), bytes(8), b"unguessd"])
        monkeypatch.setattr(os, "urandom", lambda _: next(tokens))
        save(path)
        assert load(path) == RECORDS
        assert trap.is_symlink() == (kind != "file")
        assert victim.exists() == (kind != "dangling link")
        assert not victim.exists() or victim.read_text() == "precious"

    def test_every_temporary_name_is_taken(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """When no name is free, that is a failed save and no endless loop."""
        (path.parent / f".quickcache-{bytes(8).hex()}.tmp").touch()
        monkeypatch.setattr(os, "urandom", bytes)
        with pytest.raises(CacheSaveError, match="free name"):
            save(path)

    def test_target_is_a_link(self, path: Path) -> None:
        """A link under the name of the snapshot is replaced; what it points to stays as it is."""
        victim = path.parent / "victim"
        victim.write_text("precious")
        path.symlink_to(victim)
        save(path)
        assert victim.read_text() == "precious"
        assert not path.is_symlink()

    def test_target_is_a_directory(self, path: Path) -> None:
        """A directory under the name is a failed save."""
        path.mkdir()
        with pytest.raises(CacheSaveError):
            save(path)
        assert entries(path.parent) == {path.name}

    def test_parent_is_a_file(self, path: Path) -> None:
        """So is a file where a directory should be."""
        path.touch()
        with pytest.raises(CacheSaveError):
            save(path / "below" / "cache.json")

    def test_only_own_leftovers_go(self, path: Path) -> None:
        """Cleaning up touches no file of anybody else, however old."""
        names = {"old.tmp", ".quickcache-x", "quickcache-1.tmp", ".other-1.tmp"}
        for name in names:
            (path.parent / name).touch()
            os.utime(path.parent / name, (0, 0))
        save(path)
        assert entries(path.parent) == names | {path.name}


class TestNeverOverwriting:
    def test_numbers(self, path: Path) -> None:
        """A taken name stays whose it is, and the new file gets a number."""
        paths = [save(path, [(str(n), n, None)], overwrite=False) for n in range(3)]
        assert [each.name for each in paths] == ["cache.json", "cache_1.json", "cache_2.json"]
        assert [load(each)[0][0] for each in paths] == ["0", "1", "2"]
        assert len(entries(path.parent)) == 3

    def test_dots_in_the_name(self, tmp_path: Path) -> None:
        """The number goes before the extension."""
        for _ in range(2):
            write_atomically(tmp_path / "a.v2.json", b"", overwrite=False)
        assert entries(tmp_path) == {"a.v2.json", "a.v2_1.json"}

    @pytest.mark.parametrize("links", [True, False])
    def test_race(self, path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
        """Threads that save under one name all get a file, also where there are no hard links."""
        if not links:

            def no_links(*_: object) -> None:
                raise OSError(errno.EPERM, "no hard links here")

            monkeypatch.setattr(Path, "hardlink_to", no_links)
        with ThreadPoolExecutor(8) as threads:
            paths = list(threads.map(lambda n: save(path, [(str(n), n, None)], overwrite=False), range(24)))
        assert len(set(paths)) == 24
        assert entries(path.parent) == {each.name for each in paths}
        assert [load(each)[0][0] for each in paths] == [str(n) for n in range(24)]

    def test_no_links_and_taken(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A link of somebody else counts as taken."""
        (path.parent / "victim").write_text("precious")
        path.symlink_to(path.parent / "victim")
        assert save(path, overwrite=False).name == "cache_1.json"
        assert (path.parent / "victim").read_text() == "precious"


class TestResolvePath:
    @pytest.fixture(autouse=True)
    def directories(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "here" / "folder").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "here")

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (None, "storage/cache_data.json"),
            ("", "storage/cache_data.json"),
            ("mine", "storage/mine.json"),
            ("mine.json", "storage/mine.json"),
            ("cache.v2", "storage/cache.v2.json"),
            ("cache.pkl", "storage/cache.pkl.json"),
            ("folder", "here/folder/cache_data.json"),
            ("folder/", "here/folder/cache_data.json"),
            ("new/", "here/new/cache_data.json"),
            ("new/mine", "here/new/mine.json"),
            ("./mine", "here/mine.json"),
            ("../mine.json", "mine.json"),
            (".", "here/cache_data.json"),
            (Path("new", "mine"), "here/new/mine.json"),
            ("/abs/mine", "/abs/mine.json"),
            ("/abs/cache.v2/mine.json", "/abs/cache.v2/mine.json"),
        ],
    )
    def test_rules(self, tmp_path: Path, given: Any, expected: str) -> None:
        """What each kind of path means."""
        found = resolve_path(given, directory=tmp_path / "storage", filename="cache_data", extension="json")
        assert found == tmp_path / expected

    def test_touches_nothing(self, tmp_path: Path) -> None:
        """Looking for a path makes no directory, so that a load from nowhere leaves no trace."""
        resolve_path("new/mine", directory=tmp_path / "storage", filename="cache_data", extension="json")
        assert entries(tmp_path) == {"here"}
        assert entries(tmp_path / "here") == {"folder"}

    @pytest.mark.parametrize("extension", ["json", ".json"])
    def test_extension(self, tmp_path: Path, extension: str) -> None:
        """The dot of an extension is ours."""
        assert resolve_path("a", directory=tmp_path, filename="f", extension=extension).name == "a.json"

    def test_filename_with_its_extension(self, tmp_path: Path) -> None:
        """A configured name that has the extension keeps one of it."""
        assert resolve_path(None, directory=tmp_path, filename="f.json", extension="json").name == "f.json"

    @pytest.fixture
    def far_away(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """A machine whose clocks on the wall are nine hours ahead of UTC."""
        monkeypatch.setenv("TZ", "JST-9")
        time.tzset()
        yield
        monkeypatch.undo()
        time.tzset()

    @pytest.mark.usefixtures("far_away")
    def test_timestamp(self, tmp_path: Path) -> None:
        """The time goes before the extension, in UTC, to the microsecond, and sorts by age."""

        def name(now: float) -> str:
            return resolve_path(
                "a.v2.json", directory=tmp_path, filename="f", extension="json", timestamp=True, now=now
            ).name

        assert name(86_400.25) == "a.v2_19700102_000000_250000.json"
        times = [0.0, 0.000_001, 0.5, 1.0, 3_600.0, 1e9, 1.7e9]
        assert [name(now) for now in times] == sorted(name(now) for now in times)
        assert len({name(now) for now in times}) == len(times)

    def test_timestamp_of_the_present(self, tmp_path: Path) -> None:
        """Without a time it is the present one."""
        before = time.strftime("%Y%m%d", time.gmtime())
        found = resolve_path(None, directory=tmp_path, filename="f", extension="json", timestamp=True)
        assert before in found.name or time.strftime("%Y%m%d", time.gmtime()) in found.name

    def test_not_beside_the_program(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the running program lies plays no part."""
        monkeypatch.setattr(sys.modules["__main__"], "__file__", "/elsewhere/program.py", raising=False)
        for given in (None, "mine", "new/mine"):
            found = resolve_path(given, directory=tmp_path / "storage", filename="f", extension="json")
            assert found.is_relative_to(tmp_path)


class TestMetrics:
    def test_readable(self, path: Path) -> None:
        """Metrics are for people: one figure a line."""
        assert write_metrics(path, {"hits": 1, "hit_ratio": 0.5}, JSON) == path
        assert path.read_text() == '{\n    "hits": 1,\n    "hit_ratio": 0.5\n}'
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_any_serializer(self, path: Path) -> None:
        """Any serializer will do."""
        write_metrics(path, {"hits": 1}, PICKLE)
        assert pickle.loads(path.read_bytes()) == {"hits": 1}
        write_metrics(path, {"hits": 1}, StrEvalSerializer())
        assert path.read_text() == "{'hits': 1}"

    def test_failure(self, path: Path) -> None:
        """A failure is a `CacheMetricsSaveError` with the cause, and leaves the old file."""
        write_metrics(path, {"hits": 1}, JSON)
        with pytest.raises(CacheMetricsSaveError) as caught:
            write_metrics(path, {"hits": {1}}, JSON)
        assert caught.value.filepath == str(path)
        assert caught.value.__cause__ is not None
        assert json.loads(path.read_text()) == {"hits": 1}

    def test_never_overwriting(self, path: Path) -> None:
        """As for snapshots."""
        for _ in range(2):
            write_metrics(path, {}, JSON, overwrite=False)
        assert entries(path.parent) == {"cache.json", "cache_1.json"}
