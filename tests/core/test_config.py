"""What the settings mean. Wrong settings are in `test_bad_input`."""

from __future__ import annotations

import dataclasses
import pwd
import threading
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import (
    FIELDS,
    NEVER,
    BaseEvictionPolicy,
    CacheSaveError,
    ConfigError,
    QuickCache,
    QuickCacheConfig,
)
from quickcache_core.eviction_policy import LRUEvictionPolicy
from quickcache_core.serializer import JsonSerializer, PickleSerializer
from quickcache_core.testing import ManualClock

SECRET = "a secret that is long enough"


class Plain(BaseEvictionPolicy):
    """A policy of one's own."""

    def select_eviction_key(self, cache: Any) -> str:
        return next(iter(cache))


class HomePath:
    def __fspath__(self) -> str:
        return "/from/a/path/like"


GOOD: dict[str, list[Any]] = {
    "max_size": [1, 2, 10**9, 2**62],
    "max_bytes": [None, 1000, "256MB", "1.5 GiB", "10%"],
    "oversized": ["raise", "skip"],
    "auto_resize": [False, True],
    "near_size": [0, 1, 10**9],
    "fail": ["degrade", "raise"],
    "default_ttl": [0.001, 1, 10**12, timedelta(days=1), None, NEVER],
    "sliding": [True, False],
    "max_age": [0.001, 1, 10**12, timedelta(days=1), None, NEVER],
    "stale_ttl": [0.001, 1, 10**12, timedelta(days=1), None, NEVER],
    "retry_after": [0, 0.5, 1e9],
    "soft_timeout": [0, 0.0, 0.05, 5, timedelta(seconds=1), NEVER],
    "hard_timeout": [0.001, 5, timedelta(seconds=1), None, NEVER],
    "refresh_ahead": [None, 0.001, 0.8, 0.999],
    "jitter": [0, 0.0, 0.1, 0.999],
    "skip_none": [True, False],
    "single_flight": [True, False],
    "lease": [0.001, 30, 1e9],
    "background_context": [None, nullcontext],
    "version": ["", "5", "2026-11-24 beta", "é"],
    "cleanup_interval": [0.01, 1, 86_400.0, 1e9],
    "eviction_policy": [
        *("s3fifo", "lru", "lfu", "lfuda", "fifo", "sieve", "LRU", " lru "),
        *(LRUEvictionPolicy, Plain),
        "quickcache_core.eviction_policy:LRUEvictionPolicy",
        "quickcache_core.eviction_policy.LRUEvictionPolicy",
    ],
    "serializer": [
        *("json", "pickle", "msgpack", "Pickle", JsonSerializer, JsonSerializer(indent=2)),
        *("quickcache_core.serializer:JsonSerializer", "quickcache_core.serializer.PickleSerializer"),
    ],
    "publish_as": [None, "shop", "é/..", "x" * 10_000],
    "metrics_serializer": ["json", "pickle", "msgpack", JsonSerializer, JsonSerializer(indent=2)],
    "location": [
        "",
        "memory://",
        "memory://config good",
        "config good",
        "with/slash",
        "unique-snowflake",
        " ",
    ],
    "redis_prefix": ["qc", "a", "A-b_c.9", "a" * 40],
    "redis_options": [{}, {"password": "hunter2"}, {"socket_timeout": 0.2}],
    "isolation": ["share", "auto", "copy"],
    "immutable_types": [(), (int,), [int, str], {int}, iter([int])],
    "cull_fraction": [None, 1e-9, 0.3, 1, 1.0],
    "storage_dir": [None, "relative", "/absolute", Path("x"), HomePath(), "~/in-home", "."],
    "metrics_storage_dir": [None, "relative", "/absolute", Path("x"), HomePath(), "~/in-home", "."],
    "filename": ["a", "with.dot", "with space", "[glob]*?", "ключ", ".hidden", "~"],
    "metrics_filename": ["a", "with.dot", "with space", "[glob]*?", "ключ", ".hidden", "~"],
    "cache_timestamps": [True, False],
    "cache_metrics_timestamps": [True, False],
    "enable_metrics": [True, False],
    "allow_unsigned_pickle": [True, False],
    "enabled": [True, False],
    "secret": [None, SECRET, SECRET.encode(), "s" * 16, lambda: SECRET, lambda: None],
    "secret_fallbacks": [(), [], [SECRET], (SECRET.encode(), SECRET), lambda: [SECRET], iter([SECRET])],
    "compression": [None, "zlib", "zstd"],
    "clock": [ManualClock()],
}
DEFAULTS = {
    "max_size": 1000,
    "max_bytes": None,
    "near_size": 10_000,
    "fail": "degrade",
    "oversized": "raise",
    "auto_resize": False,
    "default_ttl": 500,
    "sliding": False,
    "max_age": None,
    "stale_ttl": None,
    "retry_after": 5.0,
    "soft_timeout": 0.0,
    "hard_timeout": None,
    "refresh_ahead": None,
    "jitter": 0.0,
    "skip_none": False,
    "single_flight": True,
    "lease": 30.0,
    "background_context": None,
    "version": "",
    "cleanup_interval": 10.0,
    "eviction_policy": "s3fifo",
    "serializer": "json",
    "location": "",
    "redis_prefix": "qc",
    "redis_options": {},
    "isolation": "share",
    "immutable_types": (),
    "cull_fraction": None,
    "filename": "cache_data",
    "cache_timestamps": False,
    "enable_metrics": True,
    "publish_as": None,
    "metrics_serializer": "json",
    "metrics_filename": "metrics",
    "cache_metrics_timestamps": False,
    "secret": None,
    "secret_fallbacks": (),
    "allow_unsigned_pickle": False,
    "compression": None,
    "enabled": True,
}


def test_every_field_has_good_values() -> None:
    """A new field needs its good values here."""
    assert set(GOOD) == set(FIELDS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param(field, value, id=f"{field}-{n}")
        for field, values in GOOD.items()
        for n, value in enumerate(values)
    ],
)
def test_good_value(field: str, value: Any) -> None:
    """What a field accepts makes a cache that works."""
    with QuickCacheConfig(**{field: value}).build() as cache:
        cache.set("k", 1)
        assert cache.get("k", 1) == 1
        assert cache.config.replace() == cache.config


def test_defaults() -> None:
    """All fields are optional; these values are the documented ones."""
    config = QuickCacheConfig()
    assert {name: getattr(config, name) for name in DEFAULTS} == DEFAULTS
    assert set(FIELDS) - set(DEFAULTS) == {"storage_dir", "metrics_storage_dir", "clock"}


class TestTheObject:
    def test_frozen(self) -> None:
        """Settings can't be changed behind the cache's back."""
        with pytest.raises(dataclasses.FrozenInstanceError):
            QuickCacheConfig().max_size = 5  # type: ignore[misc]

    def test_equal(self) -> None:
        """Two configurations of the same settings are equal and have one hash."""
        for settings in ({}, {"max_size": 5, "immutable_types": [int], "secret_fallbacks": [SECRET]}):
            given: dict[str, Any] = settings
            assert QuickCacheConfig(**given) == QuickCacheConfig(**given)
            assert len({QuickCacheConfig(**given), QuickCacheConfig(**given)}) == 1
        assert QuickCacheConfig(max_size=5) != QuickCacheConfig(max_size=6)

    def test_replace(self) -> None:
        """`replace` gives a changed copy and leaves the original."""
        original = QuickCacheConfig(max_size=5, filename="f")
        changed = original.replace(max_size=6)
        assert (original.max_size, changed.max_size, changed.filename) == (5, 6, "f")

    def test_from_mapping(self) -> None:
        """Names and values as a mapping, for settings that come from a file or a framework."""
        assert QuickCacheConfig.from_mapping({}) == QuickCacheConfig()
        assert QuickCacheConfig.from_mapping({"max_size": 5}) == QuickCacheConfig(max_size=5)

    def test_fields(self) -> None:
        """FIELDS is what adapters derive their option names from."""
        assert list(FIELDS) == [field.name for field in dataclasses.fields(QuickCacheConfig)]

    def test_build(self) -> None:
        """`build` makes a cache of these settings; one configuration serves any number."""
        config = QuickCacheConfig(max_size=2)
        first, second = config.build(), QuickCache(config)
        first.set("k", 1)
        assert first.config is second.config is config
        assert "k" not in second

    def test_no_work_yet(self, tmp_path: Path) -> None:
        """Neither configuration nor cache touch the disk or start a thread."""
        threads = threading.active_count()
        QuickCache(QuickCacheConfig(storage_dir=tmp_path / "a", metrics_storage_dir=tmp_path / "b"))
        assert list(tmp_path.iterdir()) == []
        assert threading.active_count() == threads

    def test_policy_of_each_cache(self) -> None:
        """Caches of one configuration have a policy object each: their books must not mix."""
        made: list[object] = []

        class Noting(Plain):
            def on_add(self, cache: Any, key: str) -> None:
                made.append(self)

        config = QuickCacheConfig(eviction_policy=Noting)
        for _ in range(2):
            QuickCache(config).set("k", 1)
        assert made[0] is not made[1]

    def test_default_of_a_subclass(self) -> None:
        """`default_config` is what a subclass is made with when nothing is said."""

        class Small(QuickCacheConfig):
            def __init__(self) -> None:
                super().__init__(max_size=3)

        class SmallCache(QuickCache):
            default_config = Small

        assert SmallCache().max_size == 3


class TestDirectories:
    def test_relative(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A relative path counts from where the process was when the configuration was made."""
        monkeypatch.chdir(tmp_path)
        config = QuickCacheConfig(storage_dir="a/b", metrics_storage_dir=Path("c"))
        monkeypatch.chdir("/")
        assert config.storage_dir == tmp_path / "a" / "b"
        assert config.metrics_storage_dir == tmp_path / "c"
        assert config.replace(max_size=5).storage_dir == tmp_path / "a" / "b"

    def test_home(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`~` is the user's home."""
        monkeypatch.setenv("HOME", "/home/somebody")
        config = QuickCacheConfig(storage_dir="~/x", metrics_storage_dir=Path("~"))
        assert config.storage_dir == Path("/home/somebody/x")
        assert config.metrics_storage_dir == Path("/home/somebody")

    def test_symbolic_link(self, tmp_path: Path) -> None:
        """A link stays what the user named: it may lead elsewhere tomorrow."""
        (tmp_path / "link").symlink_to(tmp_path / "real")
        assert QuickCacheConfig(storage_dir=tmp_path / "link").storage_dir == tmp_path / "link"

    @pytest.fixture
    def homeless(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A user id that the system doesn't know, as in some containers."""

        def unknown(uid: int) -> Any:
            raise KeyError(f"getpwuid(): uid not found: {uid}")

        monkeypatch.setattr(pwd, "getpwuid", unknown)
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    @pytest.mark.usefixtures("homeless")
    def test_no_home(self, tmp_path: Path) -> None:
        """Without a home directory a cache works; only a file that would go there can't be written."""
        cache = QuickCache()
        cache.set("k", 1)
        assert cache.get("k") == 1
        with pytest.raises(CacheSaveError, match="storage_dir"):
            cache.save_to_disk()
        with pytest.raises(CacheSaveError, match="storage_dir"):
            cache.save_to_disk("name")
        with pytest.raises(CacheSaveError, match="storage_dir"):
            cache.backup()
        path = cache.save_to_disk(tmp_path / "s.json")
        cache.clear()
        cache.load_from_disk(path)
        assert cache.get("k") == 1
        assert cache.backup(tmp_path).parent == tmp_path
        cache.restore(tmp_path)

    @pytest.mark.usefixtures("homeless")
    def test_no_home_for_metrics(self) -> None:
        """The message of a metrics file that can't be written names its own setting."""
        with pytest.raises(Exception, match="metrics_storage_dir"):
            QuickCache().save_metrics_to_disk()

    def test_deleted_working_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A working directory that is gone matters to relative paths only."""
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        assert QuickCacheConfig(storage_dir=tmp_path).storage_dir == tmp_path
        QuickCacheConfig()
        with pytest.raises(ConfigError, match="storage_dir"):
            QuickCacheConfig(storage_dir="relative")


class TestSecret:
    def test_asked_when_needed(self, tmp_path: Path) -> None:
        """A function is asked at each save and load, so the secret may come, or change, later."""
        secret: list[str | None] = [None]
        config = QuickCacheConfig(serializer="pickle", storage_dir=tmp_path, secret=lambda: secret[0])
        cache = QuickCache(config)
        cache.set("k", (1,))
        with pytest.raises(CacheSaveError, match="secret"):
            cache.save_to_disk()
        secret[0] = SECRET
        cache.save_to_disk()
        cache.clear()
        cache.load_from_disk()
        assert cache.get("k") == (1,)

    def test_former_secrets_from_a_function(self, tmp_path: Path) -> None:
        """Former secrets may come from a function, too."""
        old = QuickCache(QuickCacheConfig(serializer="pickle", storage_dir=tmp_path, secret=SECRET))
        old.set("k", 1)
        old.save_to_disk()
        new = QuickCache(
            QuickCacheConfig(
                serializer=PickleSerializer(),
                storage_dir=tmp_path,
                secret=lambda: "another secret of some length",
                secret_fallbacks=lambda: [SECRET],
            )
        )
        new.load_from_disk()
        assert new.get("k") == 1
