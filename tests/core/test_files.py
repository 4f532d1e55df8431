"""A cache and its files: what comes back, where files go, what time does to them, what a failure leaves."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import (
    NEVER,
    BaseSerializer,
    CacheLoadError,
    CacheSaveError,
    KeyExpired,
    QuickCache,
    QuickCacheConfig,
)
from quickcache_core.testing import ManualClock

SECRET = "a secret that is long enough"
OTHER_SECRET = "another secret that is long enough"
WALL = 1_700_000_000.25
"""Seconds since the epoch, and what a file name makes of them."""
STAMP = "20231114_221320_250000"


class TextSerializer(BaseSerializer):
    """One's own, as simple as can be."""

    extension = "txt"
    is_binary = False

    def serialize(self, data: Any) -> str:
        return repr(data)

    def deserialize(self, data: Any) -> Any:
        return eval(data)


class DottedExtension(TextSerializer):
    extension = ".dotted"


class NoExtension(TextSerializer):
    extension = ""


PLAIN = {
    "text": "it's ☃\n",
    "number": 1.5,
    "none": None,
    "list": [1, [2, {}]],
    "dict": {"a": {"b": [True]}},
    "": "",
}
VALUES: dict[Any, dict[str, Any]] = {
    "json": PLAIN,
    "msgpack": {**PLAIN, "bytes": b"\0\xff"},
    "pickle": {**PLAIN, "bytes": b"\0\xff", "tuple": (1, (2,)), "set": {1, 2}, "day": dt.date(2024, 2, 29)},
    TextSerializer: {**PLAIN, "bytes": b"\0\xff", "tuple": (1, (2,)), "set": {1, 2}},
}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(wall=WALL)


@pytest.fixture
def config(tmp_path: Path, clock: ManualClock) -> QuickCacheConfig:
    return QuickCacheConfig(storage_dir=tmp_path / "store", clock=clock)


@pytest.fixture
def cache(config: QuickCacheConfig) -> QuickCache:
    cache = QuickCache(config)
    cache.set("k", 1)
    return cache


def contents(cache: QuickCache) -> dict[str, Any]:
    return cache.get_many(list(cache))


class TestRoundTrip:
    @pytest.mark.parametrize("isolation", ["share", "auto", "copy"])
    @pytest.mark.parametrize("compression", [None, "zlib", "zstd"])
    @pytest.mark.parametrize("serializer", VALUES)
    def test_all_combinations(
        self, config: QuickCacheConfig, serializer: Any, compression: Any, isolation: Any
    ) -> None:
        """Values, deadlines and types come back in every format, compressed or not, however they are kept."""
        config = config.replace(
            serializer=serializer, compression=compression, isolation=isolation, secret=SECRET
        )
        values = VALUES[serializer]
        cache = QuickCache(config)
        cache.set_many(values, ttl_sec=100)
        cache.set("forever", 1, ttl_sec=NEVER)
        path = cache.save_to_disk()
        assert contents(cache) == {**values, "forever": 1}
        again = QuickCache(config)
        again.set("before", 1)
        again.load_from_disk()
        assert contents(again) == {**values, "forever": 1}
        assert [type(again.get(key)) for key in values] == [type(value) for value in values.values()]
        assert again.ttl("text") == pytest.approx(100)
        assert again.ttl("forever") is None
        again.clear()
        again.restore(path)
        assert contents(again) == {**values, "forever": 1}

    def test_isolation_of_what_was_loaded(self, config: QuickCacheConfig) -> None:
        """Loaded values are as safe from their readers as stored ones."""
        for isolation in ("auto", "copy"):
            cache = QuickCache(config.replace(isolation=isolation))
            cache.set("k", [1, [2]])
            cache.save_to_disk()
            cache.load_from_disk()
            cache.get("k")[1].append(3)
            assert cache.get("k") == [1, [2]]

    def test_compression_is_in_the_file(self, config: QuickCacheConfig) -> None:
        """A compressed file is smaller, and is read whatever compression the reader would use."""
        sizes = {}
        for compression in (None, "zlib", "zstd"):
            cache = QuickCache(config.replace(compression=compression))
            cache.set("k", "long " * 1000)
            path = cache.save_to_disk()
            sizes[compression] = path.stat().st_size
            for other in (None, "zlib", "zstd"):
                reader = QuickCache(config.replace(compression=other))
                reader.load_from_disk()
                assert reader.get("k") == "long " * 1000
        assert max(sizes["zlib"], sizes["zstd"]) < sizes[None] / 5

    def test_empty(self, config: QuickCacheConfig, cache: QuickCache) -> None:
        """An empty cache is saved and loaded like any other."""
        QuickCache(config).save_to_disk()
        cache.load_from_disk()
        assert len(cache) == 0

    def test_keys_of_a_subclass(self, config: QuickCacheConfig) -> None:
        """Keys come back as plain strings."""

        class Markup(str):
            __slots__ = ()

        for serializer in ("json", "pickle"):
            cache = QuickCache(config.replace(serializer=serializer, secret=SECRET))
            cache.set(Markup("k"), 1)
            cache.save_to_disk()
            cache.load_from_disk()
            assert [type(key) for key in cache] == [str]

    def test_order_of_use(self, config: QuickCacheConfig) -> None:
        """LRU and FIFO go on where they were: the next to leave is the same as before."""
        for policy, left in (("lru", ["a", "c", "d"]), ("fifo", ["b", "c", "d"])):
            cache = QuickCache(config.replace(eviction_policy=policy, max_size=3))
            cache.set_many({"a": 1, "b": 2, "c": 3})
            cache.get("a")
            cache.save_to_disk()
            cache.load_from_disk()
            cache.set("d", 4)
            assert sorted(cache) == left

    @pytest.mark.parametrize("policy", ["s3fifo", "lru", "lfu", "lfuda", "fifo", "sieve"])
    def test_more_than_there_is_room_for(self, config: QuickCacheConfig, policy: str) -> None:
        """A larger cache's file fills a smaller one up to its bound, and it works on."""
        large = QuickCache(config)
        large.set_many({str(number): number for number in range(500)})
        large.save_to_disk()
        small = QuickCache(config.replace(max_size=20, eviction_policy=policy))
        small.load_from_disk()
        assert len(small) == 20
        assert all(small.get(key) == int(key) for key in small)
        for number in range(100):
            small.set(f"new {number}", 1)
            assert len(small) == 20

    def test_of_a_shared_store(self, config: QuickCacheConfig) -> None:
        """A load replaces the entries of all caches that share the store."""
        config = config.replace(location="files of two")
        one, two = QuickCache(config), QuickCache(config)
        one.set("k", 1)
        one.save_to_disk()
        one.set("x", 1)
        two.load_from_disk()
        assert contents(one) == contents(two) == {"k": 1}

    def test_coroutines(self, cache: QuickCache, tmp_path: Path) -> None:
        """The twins for coroutines do the same, in a thread."""

        async def everything() -> None:
            path = await cache.asave_to_disk(tmp_path / "a", True)
            assert path == tmp_path / f"a_{STAMP}.json"
            cache.clear()
            await cache.aload_from_disk(path)
            assert cache.get("k") == 1
            assert (await cache.abackup(tmp_path / "b")).parent == tmp_path / "b"
            cache.clear()
            await cache.arestore(tmp_path / "b")
            assert cache.get("k") == 1
            assert (await cache.asave_metrics_to_disk(tmp_path / "m", False)).name == "m.json"

        asyncio.run(everything())


class TestTime:
    """TTLs go on running while a file lies there, by the wall clock: the other one is a process's own."""

    @pytest.mark.parametrize("monotonic", [0.0, 5.0, 1e6])
    def test_in_another_process(self, config: QuickCacheConfig, monotonic: float) -> None:
        """What was left of a TTL is what is left, less the time since then."""
        cache = QuickCache(config)
        cache.set_many({"short": 1, "shorter": 2}, ttl_sec=10)
        cache.set("long", 3, ttl_sec=100.5)
        cache.save_to_disk()
        later = QuickCache(config.replace(clock=ManualClock(monotonic=monotonic, wall=WALL + 30)))
        later.load_from_disk()
        assert contents(later) == {"long": 3}
        assert later.ttl("long") == pytest.approx(70.5)

    def test_in_this_process(self, cache: QuickCache, clock: ManualClock) -> None:
        """The same where the cache lives on."""
        cache.set("k", 1, ttl_sec=10)
        cache.save_to_disk()
        clock.advance(4)
        cache.set("k", 2, ttl_sec=1000)
        cache.load_from_disk()
        assert cache.ttl("k") == pytest.approx(6)
        clock.advance(6)
        with pytest.raises(KeyExpired):
            cache.get("k")

    def test_what_has_expired_is_not_saved(self, cache: QuickCache, clock: ManualClock) -> None:
        """An expired entry doesn't come back to life through a file."""
        cache.set("old", 1, ttl_sec=1)
        clock.advance(2)
        path = cache.save_to_disk()
        assert b"old" not in path.read_bytes()
        clock.step_wall(-1000)
        cache.load_from_disk()
        assert contents(cache) == {"k": 1}

    def test_at_the_very_end(self, cache: QuickCache, clock: ManualClock) -> None:
        """An entry that ends at the instant of the load is out."""
        cache.set("k", 1, ttl_sec=8)
        cache.save_to_disk()
        clock.advance(8)
        cache.load_from_disk()
        assert len(cache) == 0

    def test_wall_clock_set_before_the_save(self, cache: QuickCache, clock: ManualClock) -> None:
        """What the wall clock did before the save doesn't matter."""
        cache.set("k", 1, ttl_sec=10)
        clock.step_wall(1e8)
        cache.save_to_disk()
        cache.load_from_disk()
        assert cache.ttl("k") == pytest.approx(10)

    def test_wall_clock_set_forward(self, cache: QuickCache, clock: ManualClock) -> None:
        """Set forward in between, it looks as if time had passed: nobody can know better."""
        cache.set("k", 1, ttl_sec=10)
        cache.save_to_disk()
        clock.step_wall(11)
        cache.load_from_disk()
        assert len(cache) == 0

    def test_wall_clock_set_back(self, cache: QuickCache, clock: ManualClock) -> None:
        """Set back in between, no entry gets more time than it had left when it was saved."""
        cache.set("k", 1, ttl_sec=10)
        clock.advance(4)
        cache.save_to_disk()
        clock.step_wall(-3600)
        cache.load_from_disk()
        remaining = cache.ttl("k")
        assert remaining is not None
        assert 0 < remaining <= 6.001

    @pytest.mark.parametrize("ttl", [0.001, 0.5, 86_400 * 365 * 100, 1e300])
    def test_short_and_long(self, cache: QuickCache, ttl: float) -> None:
        """Fractions of a second and ages both keep."""
        cache.set("k", 1, ttl_sec=ttl)
        cache.save_to_disk()
        cache.load_from_disk()
        assert cache.ttl("k") == pytest.approx(ttl, abs=1e-6)

    def test_loaded_entries_leave_by_themselves(self, cache: QuickCache, clock: ManualClock) -> None:
        """What was loaded is swept like everything else."""
        cache.set_many({str(number): number for number in range(300)}, ttl_sec=10)
        cache.save_to_disk()
        cache.load_from_disk()
        clock.advance(11)
        assert cache.cleanup() == 300
        assert len(cache) == 1


PLACES: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Path]]] = {
    "nothing": (lambda folder: None, lambda folder: folder / "store" / "cache_data.json"),
    "an empty name": (lambda folder: "", lambda folder: folder / "store" / "cache_data.json"),
    "a bare name": (lambda folder: "name", lambda folder: folder / "store" / "name.json"),
    "a bare name with extension": (lambda folder: "name.json", lambda folder: folder / "store" / "name.json"),
    "another extension": (lambda folder: "name.v2", lambda folder: folder / "store" / "name.v2.json"),
    "a path": (lambda folder: f"{folder}/new/name", lambda folder: folder / "new" / "name.json"),
    "a path with extension": (lambda folder: folder / "name.json", lambda folder: folder / "name.json"),
    "a directory": (lambda folder: folder, lambda folder: folder / "cache_data.json"),
    "a directory to be": (lambda folder: f"{folder}/new/", lambda folder: folder / "new" / "cache_data.json"),
    "a relative path": (lambda folder: "sub/name", lambda folder: folder / "work" / "sub" / "name.json"),
    "here": (lambda folder: "./name", lambda folder: folder / "work" / "name.json"),
    "this directory": (lambda folder: ".", lambda folder: folder / "work" / "cache_data.json"),
    "the directory above": (lambda folder: "..", lambda folder: folder / "cache_data.json"),
}


class TestPlaces:
    @pytest.fixture(autouse=True)
    def _working_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")

    @pytest.mark.parametrize("place", PLACES)
    def test_where_it_goes(self, cache: QuickCache, tmp_path: Path, place: str) -> None:
        """The absolute path comes back; nothing else is written; a load finds it by the same name."""
        given, expected = (function(tmp_path) for function in PLACES[place])
        assert cache.save_to_disk(given) == expected
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == [expected]
        cache.clear()
        cache.load_from_disk(given)
        assert cache.get("k") == 1

    @pytest.mark.parametrize(
        ("directory", "expected"),
        [
            (None, "store"),
            (".", "work"),
            ("..", "."),
            ("backups", "work/backups"),
            ("./backups", "work/backups"),
            ("a/b", "work/a/b"),
            (Path("backups"), "work/backups"),
            (Path(), "work"),
        ],
    )
    def test_where_a_backup_goes(
        self, cache: QuickCache, tmp_path: Path, directory: Any, expected: str
    ) -> None:
        """Always into the directory, which is made; the name has the time in it."""
        path = cache.backup(directory)
        assert path == (tmp_path / expected).resolve() / f"cache_data_{STAMP}.json"
        assert path.is_file()
        cache.clear()
        cache.restore(path)
        assert cache.get("k") == 1

    def test_home(self, cache: QuickCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`~` is the user's home wherever a path is given, as in `storage_dir`."""
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert cache.save_to_disk("~/a/name") == tmp_path / "home" / "a" / "name.json"
        assert cache.save_to_disk(Path("~/a")) == tmp_path / "home" / "a" / "cache_data.json"
        assert cache.backup("~/b").parent == tmp_path / "home" / "b"
        assert cache.save_metrics_to_disk("~/b/") == tmp_path / "home" / "b" / "metrics.json"
        cache.clear()
        cache.load_from_disk("~/a/name")
        assert cache.get("k") == 1
        cache.clear()
        cache.restore("~/b")
        assert cache.get("k") == 1
        assert list((tmp_path / "work").iterdir()) == []

    def test_directory_with_the_name_of_a_backup(self, cache: QuickCache, tmp_path: Path) -> None:
        """A folder that has the configured name doesn't swallow backups."""
        (tmp_path / "store" / "cache_data").mkdir(parents=True)
        assert cache.backup().parent == tmp_path / "store"
        assert cache.backup(tmp_path / "store").parent == tmp_path / "store"

    @pytest.mark.parametrize(
        ("configured", "asked", "stamped"),
        [(False, None, False), (True, None, True), (True, False, False), (False, True, True)],
    )
    def test_time_in_the_name(
        self, config: QuickCacheConfig, configured: bool, asked: bool | None, stamped: bool
    ) -> None:
        """`use_timestamp` decides, and `cache_timestamps` where it is left out; the time is the clock's."""
        cache = QuickCache(config.replace(cache_timestamps=configured))
        path = cache.save_to_disk(use_timestamp=asked)
        assert path.name == (f"cache_data_{STAMP}.json" if stamped else "cache_data.json")

    def test_round_trip_with_the_time_in_the_name(self, config: QuickCacheConfig, clock: ManualClock) -> None:
        """With `cache_timestamps`, a load without a name takes the newest."""
        cache = QuickCache(config.replace(cache_timestamps=True))
        for value in (1, 2, 3):
            cache.set("k", value)
            cache.save_to_disk()
            clock.advance(0.5)
        cache.clear()
        cache.load_from_disk()
        assert cache.get("k") == 3

    def test_load_with_the_time_in_the_name_and_nothing_there(self, config: QuickCacheConfig) -> None:
        """Nothing was saved yet: the error says what was looked for."""
        with pytest.raises(CacheLoadError, match="cache_data_"):
            QuickCache(config.replace(cache_timestamps=True)).load_from_disk()

    @pytest.mark.parametrize(
        ("serializer", "name"),
        [
            (TextSerializer, "cache_data.txt"),
            (DottedExtension, "cache_data.dotted"),
            (NoExtension, "cache_data"),
            ("pickle", "cache_data.pkl"),
            ("msgpack", "cache_data.msgpack"),
        ],
    )
    def test_extensions(self, config: QuickCacheConfig, serializer: Any, name: str) -> None:
        """The extension is the serializer's, with or without a dot; backups are found again."""
        cache = QuickCache(config.replace(serializer=serializer, secret=SECRET))
        cache.set("k", 1)
        assert cache.save_to_disk().name == name
        cache.backup()
        for load in (cache.load_from_disk, lambda: cache.restore(config.storage_dir or "")):
            cache.clear()
            load()
            assert cache.get("k") == 1

    def test_modes(self, cache: QuickCache, tmp_path: Path) -> None:
        """Only the owner can read files and new directories; a directory that was there keeps its mode."""
        (tmp_path / "mine").mkdir(mode=0o755)
        (tmp_path / "mine").chmod(0o755)
        for umask in (0, 0o077):
            before = os.umask(umask)
            try:
                paths = [
                    cache.save_to_disk(tmp_path / "mine" / f"new{umask}" / "deep" / "x"),
                    cache.backup(tmp_path / "mine" / f"new{umask}"),
                    cache.save_metrics_to_disk(tmp_path / "mine" / f"new{umask}" / "m"),
                ]
            finally:
                os.umask(before)
            assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}
            assert {stat.S_IMODE(path.parent.stat().st_mode) for path in paths} == {0o700}
        assert stat.S_IMODE((tmp_path / "mine").stat().st_mode) == 0o755


class TestBackups:
    def test_newest(self, cache: QuickCache, clock: ManualClock, tmp_path: Path) -> None:
        """Of a directory, the backup with the latest time is restored."""
        for value in (1, 2, 3):
            cache.set("k", value)
            cache.backup(tmp_path)
            clock.advance(0.001)
        clock.step_wall(-1e6)
        cache.set("k", 4)
        cache.backup(tmp_path)
        cache.restore(tmp_path)
        assert cache.get("k") == 3

    def test_at_one_instant(self, cache: QuickCache, tmp_path: Path) -> None:
        """Backups of one instant don't overwrite each other; the last one is the newest."""
        paths = []
        for value in range(12):
            cache.set("k", value)
            paths.append(cache.backup(tmp_path))
        assert len(set(paths)) == len(list(tmp_path.glob("*.json"))) == 12
        cache.restore(tmp_path)
        assert cache.get("k") == 11
        cache.restore(str(paths[0]))
        assert cache.get("k") == 0

    @pytest.mark.parametrize(
        ("mine", "other"),
        [
            ("cache", "cache_data"),
            ("cache_data", "cache"),
            ("cache", "cache_20231114"),
            ("a", "a_a"),
            ("[ab]", "a"),
            ("*", "x"),
            ("x.y", "x-y"),
        ],
    )
    def test_of_two_caches_in_one_directory(
        self, config: QuickCacheConfig, clock: ManualClock, mine: str, other: str
    ) -> None:
        """A cache restores its own backups, however similar another one's name is."""
        for name in (mine, other):
            cache = QuickCache(config.replace(filename=name))
            cache.set("whose", name)
            cache.backup()
            clock.advance(1)
        cache = QuickCache(config.replace(filename=mine))
        cache.restore(config.storage_dir or "")
        assert cache.get("whose") == mine

    def test_other_files_around(self, cache: QuickCache, tmp_path: Path) -> None:
        """Plain snapshots, metrics, foreign files and folders are passed over."""
        cache.backup(tmp_path)
        for name in ("cache_data.json", "cache_data_z.json", f"cache_data_{STAMP}x.json", "cache_data_.json"):
            (tmp_path / name).write_text("foreign")
        cache.save_metrics_to_disk(tmp_path / "cache_data_9")
        for name in ("pkl", "json.part", "json~"):
            (tmp_path / f"cache_data_99990101_000000_000000.{name}").write_text("foreign")
        cache.restore(tmp_path)
        assert cache.get("k") == 1

    def test_none_there(self, cache: QuickCache, tmp_path: Path) -> None:
        """A directory without backups: the error says what they are called, and the cache is as it was."""
        with pytest.raises(CacheLoadError, match=r"cache_data_.*json.*give") as caught:
            cache.restore(tmp_path)
        assert caught.value.filepath == str(tmp_path)
        with pytest.raises(CacheLoadError, match="missing"):
            cache.restore(tmp_path / "missing")
        assert contents(cache) == {"k": 1}


class TestFailures:
    """Whatever goes wrong, the cache, its deadlines and the older file are as they were."""

    def check_load(self, cache: QuickCache, path: Path, words: str) -> None:
        cache.set("k", 1, ttl_sec=50)
        before = (contents(cache), cache.ttl("k"))
        figures = cache.metrics()
        for load in (cache.load_from_disk, cache.restore):
            with pytest.raises(CacheLoadError, match=words) as caught:
                load(path)
            assert caught.value.filepath == str(path)
        assert cache.metrics() == figures
        assert (contents(cache), cache.ttl("k")) == before

    def test_other_secret(self, config: QuickCacheConfig) -> None:
        """A file that was signed with another secret."""
        path = QuickCache(config.replace(secret=OTHER_SECRET)).save_to_disk()
        self.check_load(
            QuickCache(config.replace(secret=SECRET)), path, "signature is wrong.*secret_fallbacks"
        )

    def test_former_secret(self, config: QuickCacheConfig, cache: QuickCache) -> None:
        """A former secret is good for loading; the next save signs with the new one."""
        old = QuickCache(config.replace(secret=OTHER_SECRET, serializer="pickle"))
        old.set("k", (1,))
        old.save_to_disk()
        new = QuickCache(config.replace(secret=SECRET, secret_fallbacks=[OTHER_SECRET], serializer="pickle"))
        new.load_from_disk()
        assert new.get("k") == (1,)
        path = new.save_to_disk()
        self.check_load(old, path, "signature is wrong")

    def test_pickle_without_a_secret(self, config: QuickCacheConfig) -> None:
        """Neither written nor read, unless that was allowed."""
        config = config.replace(serializer="pickle")
        plain, allowed = QuickCache(config), QuickCache(config.replace(allow_unsigned_pickle=True))
        plain.set("k", 1)
        allowed.set("k", (2,))
        for save in (plain.save_to_disk, plain.backup):
            with pytest.raises(CacheSaveError, match=r"secret=.*allow_unsigned_pickle=True.*json"):
                save()
        assert config.storage_dir is not None
        assert not Path(config.storage_dir).exists()
        path = allowed.save_to_disk()
        self.check_load(plain, path, r"secret=.*allow_unsigned_pickle=True")
        allowed.clear()
        allowed.load_from_disk()
        assert allowed.get("k") == (2,)

    def test_other_serializer(self, config: QuickCacheConfig, cache: QuickCache, tmp_path: Path) -> None:
        """A file of another format says so, and which one it is."""
        path = QuickCache(config.replace(serializer="msgpack")).save_to_disk()
        renamed = path.rename(tmp_path / "x.json")
        self.check_load(cache, renamed, "serializer 'msgpack'.*'json'")

    @pytest.mark.parametrize("cut", [0, 10, 200, -1])
    def test_cut_off(self, cache: QuickCache, cut: int) -> None:
        """A file that wasn't written to its end, say by a copy."""
        path = cache.save_to_disk()
        path.write_bytes(path.read_bytes()[:cut])
        self.check_load(cache, path, "no QuickCache snapshot|cut off|damaged")

    def test_flipped_bit(self, cache: QuickCache) -> None:
        """A damaged disk or memory."""
        path = cache.save_to_disk()
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)
        self.check_load(cache, path, "damaged")

    def test_newer_format(self, cache: QuickCache) -> None:
        """A file of a later version of the format: what to do is to upgrade."""
        path = cache.save_to_disk()
        path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":3'))
        self.check_load(cache, path, "version 3.*upgrade")

    def test_file_of_pyquickcache(self, cache: QuickCache, tmp_path: Path) -> None:
        """A file of PyQuickCache 0.1.0 isn't ours: its TTLs and its safety are unknown."""
        path = tmp_path / "old.json"
        path.write_text('{\n    "a": {\n        "value": 1,\n        "ttl": 60\n    }\n}')
        self.check_load(cache, path, "no QuickCache snapshot")

    def test_value_that_a_load_cannot_keep(
        self, config: QuickCacheConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A value that the isolation refuses at load time leaves everything as it was."""
        cache = QuickCache(config.replace(serializer=Choosy, isolation="copy"))
        cache.set("tuple", (1, 2))
        path = cache.save_to_disk()
        cache.clear()
        monkeypatch.setattr(Choosy, "refused", tuple)
        self.check_load(cache, path, "no tuple")

    def test_value_that_cannot_be_saved(self, cache: QuickCache) -> None:
        """The error names key and type, and nothing is written."""
        path = cache.save_to_disk()
        old = path.read_bytes()
        cache.set("wrong one", {1, 2})
        for save in (cache.save_to_disk, cache.backup):
            with pytest.raises(CacheSaveError, match=r"'wrong one'.*set.*convert"):
                save()
        assert [path.name for path in path.parent.iterdir()] == [path.name]
        assert path.read_bytes() == old
        assert cache.get("wrong one") == {1, 2}


class Choosy(TextSerializer):
    refused: type = type(None)

    def serialize(self, data: Any) -> str:
        if isinstance(data, self.refused):
            raise TypeError(f"no {self.refused.__name__}")
        return super().serialize(data)


class TestThreads:
    @pytest.mark.parametrize("isolation", ["share", "auto"])
    @pytest.mark.parametrize("policy", ["s3fifo", "lru", "lfu"])
    def test_saving_while_four_threads_write(
        self, config: QuickCacheConfig, policy: str, isolation: Any
    ) -> None:
        """Each save is whole: every value under its key, none torn, no more than there is room for."""
        cache = QuickCache(config.replace(max_size=200, eviction_policy=policy, isolation=isolation))
        stop = threading.Event()
        errors: list[BaseException] = []

        def write(seed: int) -> None:
            number = 0
            try:
                while not stop.is_set():
                    number += 1
                    key = str((number * 7 + seed) % 400)
                    cache.set(key, [key, number, key], ttl_sec=60)
                    if number % 5 == 0:
                        cache.delete(str(number % 400), missing_ok=True)
                    if number % 500 == 0:
                        cache.clear()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        try:
            paths = [cache.backup() for _ in range(8)]
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert errors == []
        reader = QuickCache(config.replace(max_size=1000))
        for path in paths:
            reader.load_from_disk(path)
            assert len(reader) <= 201
            for key, value in contents(reader).items():
                assert value[0] == value[2] == key

    def test_loading_while_others_read_and_write(self, config: QuickCacheConfig) -> None:
        """Readers see values of before or after, under their keys; the bound holds."""
        cache = QuickCache(config.replace(max_size=100))
        cache.set_many({str(number): [str(number)] for number in range(100)})
        cache.save_to_disk()
        stop = threading.Event()
        errors: list[object] = []

        def work() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                key = str(number % 150)
                if cache.get(key, [key]) != [key]:
                    errors.append(key)
                cache.set(key, [key])

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(30):
                cache.load_from_disk()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert errors == []
        assert len(cache) <= 100
        figures = cache.metrics()
        assert figures.hits + figures.misses == figures.gets
