"""Wrong input: for every field and every argument an error that names it and says what to do.

Two tables, and tests that fail when a field or an argument has no row in them.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import (
    FIELDS,
    NEVER,
    BaseEvictionPolicy,
    BaseSerializer,
    ConfigError,
    InvalidKey,
    InvalidTTL,
    QuickCache,
    QuickCacheConfig,
    QuickCacheError,
    SerializationError,
    nearest_option,
    register_eviction_policy,
    register_serializer,
)
from quickcache_core.eviction_policy import EvictionPolicy, LRUEvictionPolicy
from quickcache_core.loading.options import LoadArguments
from quickcache_core.serializer import JsonSerializer
from quickcache_core.testing import ManualClock

NAN, INFINITY = float("nan"), float("inf")
HUGE = 10**400


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Unhashable()"


class FailsToStart(LRUEvictionPolicy):
    def __init__(self) -> None:
        raise RuntimeError("no database")


class NeedsArguments(LRUEvictionPolicy):
    def __init__(self, size: int) -> None: ...


class NoSelection(BaseEvictionPolicy):
    pass


class NoDeserialize(BaseSerializer):
    extension = "x"
    is_binary = False

    def serialize(self, data: Any) -> str:
        return str(data)


class WithoutExtension(JsonSerializer):
    extension: Any = None


class WithPathInExtension(JsonSerializer):
    extension: Any = "../evil"


class WithoutMode(JsonSerializer):
    is_binary: Any = None


class NeedsIndent(JsonSerializer):
    def __init__(self, indent: int) -> None: ...


class BytesPath:
    def __fspath__(self) -> bytes:
        return b"x"


class NoWall:
    def monotonic(self) -> float:
        return 0.0


class TellsText:
    def monotonic(self) -> str:
        return "now"

    def wall(self) -> str:
        return "now"


NO_BOOLEANS = [None, 0, 1, "", "yes", "False", [], object()]
NO_DURATIONS = [
    *(0, 0.0, -1, -0.5, NAN, INFINITY, -INFINITY, HUGE, True, False),
    *("60", "", b"60", [], object(), timedelta(0), timedelta(seconds=-1), Decimal("NaN")),
]
NO_DIRECTORIES = ["", 0, 5, True, b"dir", ["dir"], object(), BytesPath(), "~no-such-user-here/cache"]
NO_FILENAMES = ["", ".", "..", "a/b", "/a", "a/", "a\0b", None, 5, b"name", Path("name"), ["name"]]
NO_SERIALIZERS: list[tuple[Any, str]] = [
    ("", "json"),
    ("jsn", "did you mean 'json'"),
    ("yaml", "'msgpack'"),
    (5, "give one of"),
    (None, "give one of"),
    (int, "derive it from"),
    (LRUEvictionPolicy, "derive it from"),
    (BaseSerializer, "abstract"),
    (NoDeserialize, "implement deserialize"),
    (NeedsIndent, "no arguments"),
    (NeedsIndent(2).__class__, "finished instance"),
    (WithoutExtension, "extension"),
    (WithPathInExtension, "extension"),
    (WithoutMode, "is_binary"),
    ("json:JSONEncoder", "derive it from"),
    ("no_such_module:Thing", "check module and class name"),
    ("quickcache_core.serializer:Nothing", "check module and class name"),
    ("quickcache_core.serializer.Nothing", "check module and class name"),
    (":", "check module and class name"),
]

CONFIG: dict[str, list[tuple[Any, str]]] = {
    "max_size": [
        (value, "give an integer")
        for value in (0, -1, 1.0, 1.5, NAN, INFINITY, True, False, "5", b"5", None, [5], HUGE, timedelta(1))
    ],
    "max_bytes": [
        *((value, "give bytes as an integer") for value in (0, -1, 999, 1.5e9, True, [5], NAN, HUGE)),
        *((value, "give bytes as an integer") for value in ("", "MB", "128 M", "1e9", "-5MB", "0.5kB")),
        *((value, "percentage above 0% and up to 90%") for value in ("0%", "91%", "1000%")),
    ],
    "oversized": [(value, "give 'raise' or 'skip'") for value in ("", "Skip", None, True, ["skip"])],
    "auto_resize": [(value, "give True or False") for value in NO_BOOLEANS],
    "near_size": [(value, "give an integer") for value in (-1, 1.0, True, None, "5", HUGE)],
    "fail": [(value, "give 'degrade' or 'raise'") for value in ("", "Raise", None, True, ["raise"])],
    "default_ttl": [
        (value, "give seconds or a timedelta above 0, or None or NEVER") for value in NO_DURATIONS
    ],
    "sliding": [(value, "give True or False") for value in NO_BOOLEANS],
    "max_age": [(value, "give seconds or a timedelta above 0, or None or NEVER") for value in NO_DURATIONS],
    "stale_ttl": [(value, "give seconds or a timedelta above 0, or None or NEVER") for value in NO_DURATIONS],
    "retry_after": [
        (value, "give seconds from 0 to")
        for value in (-1, NAN, INFINITY, True, None, "5", timedelta(1), NEVER)
    ],
    "soft_timeout": [
        (value, "give seconds or a timedelta, 0, or NEVER")
        for value in (-1, NAN, INFINITY, HUGE, True, False, None, "5", "", [])
    ],
    "hard_timeout": [
        (value, "give seconds or a timedelta above 0, or None or NEVER") for value in NO_DURATIONS
    ],
    "refresh_ahead": [
        (value, "give None, or a share of the TTL")
        for value in (0, 0.0, 1, 1.0, -0.5, 80, NAN, INFINITY, True, "0.8", [], Decimal("0.8"))
    ],
    "jitter": [
        (value, "give a share of the TTL")
        for value in (-0.1, 1, 1.0, 10, NAN, INFINITY, True, None, "0.1", Decimal("0.1"))
    ],
    "skip_none": [(value, "give True or False") for value in NO_BOOLEANS],
    "single_flight": [(value, "give True or False") for value in NO_BOOLEANS],
    "lease": [
        (value, "give seconds from 0.001 to")
        for value in (0, -1, NAN, INFINITY, HUGE, True, None, "30", timedelta(1), NEVER)
    ],
    "background_context": [
        (value, "give a function that gives a context manager") for value in (5, "app.app_context", [], True)
    ],
    "version": [
        (value, "give a string such as the number of the release") for value in (None, 5, 1.2, b"5", "1\x1f2")
    ],
    "cleanup_interval": [
        (value, r"give seconds from 0\.01 to")
        for value in (0, 0.0, 0.009, -1, NAN, INFINITY, HUGE, True, None, "10", [], timedelta(1), NEVER)
    ],
    "eviction_policy": [
        ("", "'s3fifo'"),
        ("lur", "did you mean 'lru'"),
        ("arc", "There are 'fifo', 'gdsf', 'lfu', 'lfuda', 'lru', .*'s3fifo', .*'sieve'"),
        (5, "give one of 'fifo'"),
        (None, "give one of 'fifo'"),
        (["lru"], "give one of 'fifo'"),
        (LRUEvictionPolicy(), "or a class"),
        (int, "derive it from"),
        (JsonSerializer, "derive it from"),
        (EvictionPolicy, "abstract"),
        (BaseEvictionPolicy, "implement select_eviction_key"),
        (NoSelection, "implement select_eviction_key"),
        (FailsToStart, "no database"),
        (NeedsArguments, "no arguments"),
        ("no_such_module:Thing", "check module and class name"),
        ("collections:OrderedDict", "derive it from"),
        ("collections.Nothing", "check module and class name"),
    ],
    "serializer": NO_SERIALIZERS,
    "publish_as": [(value, "give a name as a string") for value in ("", 5, b"shop", True, ["shop"])],
    "metrics_serializer": NO_SERIALIZERS,
    "location": [
        *((value, "give a string") for value in (None, 5, b"name", True, ["a"], Path("x"))),
        *(
            (value, "unknown scheme")
            for value in ("memcached://x", "file:///tmp", "MEMORY://x", "://", "mem://")
        ),
        *(
            (f"shared://{path}", "absolute path of a directory")
            for path in ("", "relative/path", "~/cache", "/", "/a/..", "/nul\0")
        ),
        *(
            (location, "give a URL such as 'redis://host:6379/0'")
            for location in (
                "redis://host:port",
                "redis://host/db",
                "redis://host#a",
                "redis://host,other",
                "redis://host?cluster=maybe",
                "redis://host/1?cluster=true",
                "valkey://host?cluster=true&sentinel=shop",
                "redis://host/1,redis://other/2",
                "redis://host,rediss://other",
                "unix://relative/path",
                "unix:///run/a?cluster=true",
            )
        ),
        *(
            (value, "give a string")
            for value in ([], ["shop"], ("shared:///a", "shared:///b"), ["redis://a", 5])
        ),
    ],
    "redis_prefix": [
        (value, "give 1 to 40 of the letters")
        for value in ("", "a:b", "a/b", "é", "a" * 41, "a\n", None, 5, b"qc")
    ],
    "redis_options": [
        (value, "give a mapping of names") for value in (None, 5, "hunter2", ["hunter2"], {5: "hunter2"})
    ],
    "isolation": [
        (value, "give 'auto', 'share' or 'copy'")
        for value in ("", "deep", "AUTO", None, True, 5, ["auto"], b"auto", Unhashable())
    ],
    "immutable_types": [
        (value, "give a tuple of types") for value in (None, 5, int, "int", [5], ("int",), [None])
    ],
    "cull_fraction": [
        (value, "give None, or a share")
        for value in (0, 0.0, -0.5, 1.01, 2, NAN, INFINITY, True, "0.5", [], Decimal("0.5"))
    ],
    "storage_dir": [(value, "give a path") for value in NO_DIRECTORIES],
    "metrics_storage_dir": [(value, "give a path") for value in NO_DIRECTORIES],
    "filename": [(value, "give a file name without directory") for value in NO_FILENAMES],
    "metrics_filename": [(value, "give a file name without directory") for value in NO_FILENAMES],
    "cache_timestamps": [(value, "give True or False") for value in NO_BOOLEANS],
    "cache_metrics_timestamps": [(value, "give True or False") for value in NO_BOOLEANS],
    "enable_metrics": [(value, "give True or False") for value in NO_BOOLEANS],
    "allow_unsigned_pickle": [(value, "give True or False") for value in NO_BOOLEANS],
    "enabled": [(value, "give True or False") for value in NO_BOOLEANS],
    "secret": [
        *((value, "at least 16 bytes") for value in ("", "hunter2", b"hunter2", "fifteen letters")),
        *((value, "a secret is str or bytes") for value in (5, 0, True, ["hunter2hunter2hunter2"], object())),
    ],
    "secret_fallbacks": [
        ("hunter2hunter2hunter2", "give a list of secrets"),
        (b"hunter2hunter2hunter2", "give a list of secrets"),
        *((value, "give a list of secrets") for value in (None, 5, object())),
        (["hunter2"], "at least 16 bytes"),
        (["long enough to be accepted", b"hunter2"], "at least 16 bytes"),
        ([None], "a secret is str or bytes"),
    ],
    "compression": [
        (value, "give 'zlib', 'zstd' or None")
        for value in ("", "gzip", "ZLIB", b"zlib", 5, True, False, ["zlib"], Unhashable())
    ],
    "clock": [
        (value, r"methods monotonic\(\) and wall\(\)")
        for value in (None, 5, "system", object(), NoWall(), TellsText(), ManualClock, dict)
    ],
}
SECRET_FIELDS = {"secret", "secret_fallbacks", "redis_options"}


def test_every_field_has_a_row() -> None:
    """A new field needs its bad values here."""
    assert set(CONFIG) == set(FIELDS)


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        pytest.param(field, *case, id=f"{field}-{n}")
        for field, cases in CONFIG.items()
        for n, case in enumerate(cases)
    ],
)
def test_bad_field(field: str, value: Any, remedy: str) -> None:
    """ConfigError, which is a ValueError; message and attributes name field, value and remedy."""
    with pytest.raises(ConfigError, match=remedy) as caught:
        QuickCacheConfig(**{field: value})
    error = caught.value
    assert isinstance(error, ValueError)
    assert error.field == field
    assert str(error).startswith(f"{field}=")
    assert str(error).endswith(error.remedy)
    if field not in SECRET_FIELDS:
        assert error.value is value
        assert repr(value) in str(error)
    with pytest.raises(ConfigError) as caught:
        QuickCacheConfig().replace(**{field: value})
    assert caught.value.field == field
    with pytest.raises(ConfigError) as caught:
        QuickCacheConfig.from_mapping({field: value})
    assert caught.value.field == field


class TestSecrets:
    """A secret gets into no message, no repr and no attribute of an error: those end up in logs."""

    SECRET = "hunter2"

    @pytest.mark.parametrize("field", sorted(SECRET_FIELDS))
    def test_bad_secret(self, field: str) -> None:
        """Not even a bad one is shown."""
        for value, _ in CONFIG[field]:
            with pytest.raises(ConfigError) as caught:
                QuickCacheConfig(**{field: value})
            assert self.SECRET not in str(caught.value)
            assert self.SECRET not in repr(vars(caught.value))

    def test_good_secret(self) -> None:
        """The configuration and the cache don't show it."""
        secret = self.SECRET * 5
        config = QuickCacheConfig(secret=secret, secret_fallbacks=[secret, secret.encode()])
        assert self.SECRET not in repr(config)
        assert self.SECRET not in repr(QuickCache(config))

    def test_secret_under_a_wrong_name(self) -> None:
        """The value of an unknown option is not shown: it may be a secret."""
        settings = {"secret_key": self.SECRET * 5}
        for make in (QuickCacheConfig.from_mapping, lambda given: QuickCacheConfig().replace(**given)):
            with pytest.raises(ConfigError, match="did you mean 'secret'") as caught:
                make(settings)
            assert self.SECRET not in str(caught.value)
            assert self.SECRET not in repr(vars(caught.value))

    @pytest.mark.parametrize("secret", ["hunter2", 5])
    def test_bad_secret_from_a_function(self, tmp_path: Path, secret: Any) -> None:
        """A secret that is asked for later is checked when it is used; saving and loading say so."""
        cache = QuickCache(QuickCacheConfig(secret=lambda: secret, storage_dir=tmp_path))
        for operation in (cache.save_to_disk, cache.load_from_disk):
            with pytest.raises(QuickCacheError, match="secret") as caught:
                operation()
            assert self.SECRET not in str(caught.value)


LIFE = {"tags": ["t"], "sliding": True, "max_age": 60, "stale_ttl": 5}


def good_calls(
    cache: QuickCache, folder: Path, saved: Path
) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """For each public callable a call that works, all arguments by name."""
    return {
        "QuickCache": (QuickCache, {"config": None}),
        "get": (cache.get, {"key": "k", "default": None}),
        "set": (cache.set, {"key": "k", "value": 1, "ttl_sec": 5, **LIFE}),
        "add": (cache.add, {"key": "k", "value": 1, "ttl_sec": 5, "exist_ok": True}),
        "update": (cache.update, {"key": "k", "value": 1, "ttl_sec": 5}),
        "delete": (cache.delete, {"key": "k", "missing_ok": True}),
        "pop": (cache.pop, {"key": "k", "default": None}),
        "touch": (cache.touch, {"key": "k", "ttl_sec": 5, "missing_ok": True}),
        "ttl": (cache.ttl, {"key": "k"}),
        "incr": (cache.incr, {"key": "k", "delta": 1, "initial": 0, "ttl_sec": 5}),
        "decr": (cache.decr, {"key": "k", "delta": 1, "initial": 0, "ttl_sec": 5}),
        "get_many": (cache.get_many, {"keys": ["k"]}),
        "set_many": (cache.set_many, {"data": {"k": 1}, "ttl_sec": 5, **LIFE}),
        "get_or_set": (cache.get_or_set, {"key": "new", "loader": lambda: 1, "ttl_sec": 5}),
        "refresh": (cache.refresh, {"key": "new", "loader": lambda: 1, "ttl_sec": 5}),
        "namespace": (cache.namespace, {"name": "users"}),
        "delete_many": (cache.delete_many, {"keys": ["k"]}),
        "delete_prefix": (cache.delete_prefix, {"prefix": "z"}),
        "overtake_loads": (cache.overtake_loads, {"prefix": "z"}),
        "keys": (cache.keys, {"prefix": "", "stale": False}),
        "resize": (cache.resize, {"max_size": 10, "max_bytes": None}),
        "save_to_disk": (cache.save_to_disk, {"filepath": folder / "s", "use_timestamp": False}),
        "load_from_disk": (cache.load_from_disk, {"filepath": saved}),
        "backup": (cache.backup, {"directory": folder}),
        "restore": (cache.restore, {"path": saved}),
        "save_metrics_to_disk": (
            cache.save_metrics_to_disk,
            {"filepath": folder / "m", "use_timestamp": False},
        ),
        "subscribe": (cache.subscribe, {"listener": print, "kinds": None}),
        "from_mapping": (QuickCacheConfig.from_mapping, {"settings": {}}),
    }


NO_KEYS = [None, 5, 1.5, True, b"k", ("k",), ["k"], {"k": 1}, Unhashable(), ..., NAN]
KEY = (InvalidKey, NO_KEYS, "key=.*: keys are strings, this is .*; pass str")
NO_KEY_LISTS = [None, 5, "abc", b"abc", object()]
KEYS = (TypeError, NO_KEY_LISTS, "keys=.*: give a list")
KEYS_IN_LIST = (InvalidKey, [["k", key] for key in NO_KEYS], "key=.*: keys are strings")
TTL = (
    InvalidTTL,
    [0, -1, NAN, INFINITY, HUGE, True, False, "5", "", b"5", [], {}, object(), timedelta(0), timedelta(-1)],
    "ttl_sec=.*: give a number of seconds above 0, a timedelta above 0, None for the default, or NEVER",
)
TAGS = [
    (TypeError, [5, "user:7", b"user:7", True, object()], "tags=.*: give a list or tuple of strings"),
    (TypeError, [[5], [None], [("a",)], [["a"]], ["a", b"b"]], "tags=.*: a tag is a string"),
]
SLIDING = (TypeError, [0, 1, "yes", "", []], "sliding=.*: give True or False")
MAX_AGE = (InvalidTTL, TTL[1], "max_age=.*: give a number of seconds above 0")
STALE_TTL = (
    InvalidTTL,
    [value for value in TTL[1] if value is False or value != 0],
    "stale_ttl=.*: give a number of seconds",
)
LOADER = (TypeError, [None, 5, "value", [1], {}], "loader=.*: give a function that computes the value")
NUMBER = ["1", b"1", "", [], {}, object()]
PATHS = [5, 0, True, b"path", ["path"], object(), BytesPath()]
FLAG = (TypeError, ["no", 0, 1, [], object()], "use_timestamp=.*: give True, False, or None")
VALUE = (
    SerializationError,
    [lambda: None, (n for n in "a")],
    "'k'.*pickled.*; store plain data",
)
ANYTHING: tuple[Any, ...] = ()
"""Any object will do: there is nothing to check."""

Row = tuple[type[Exception], list[Any], str]
LIVES: dict[str, list[Row]] = {
    "tags": TAGS,
    "sliding": [SLIDING],
    "max_age": [MAX_AGE],
    "stale_ttl": [STALE_TTL],
}
LOAD_KEYWORDS: dict[str, list[Row]] = {
    **LIVES,
    "tag_prefix": [(TypeError, [0, 1, b"", []], "tag_prefix=.*: give a string")],
    "refresh_ahead": [
        (ValueError, [0, 1, -0.5, 80, NAN, True, "0.8", []], "refresh_ahead=.*: give a share of the TTL")
    ],
    "jitter": [(ValueError, [-0.1, 1, 10, NAN, True, "0.1", []], "jitter=.*: give a share of the TTL")],
    "soft_timeout": [(InvalidTTL, STALE_TTL[1], "soft_timeout=.*: give a number of seconds")],
    "hard_timeout": [(InvalidTTL, TTL[1], "hard_timeout=.*: give a number of seconds above 0")],
    "retry_after": [(InvalidTTL, STALE_TTL[1], "retry_after=.*: give a number of seconds")],
    "skip_none": [(TypeError, [0, 1, "yes", "", []], "skip_none=.*: give True or False")],
    "single_flight": [(TypeError, [0, 1, "yes", "", []], "single_flight=.*: give True or False")],
    "lease": [
        (InvalidTTL, TTL[1], "lease=.*: give a number of seconds above 0"),
        (ValueError, [NEVER], "lease=.*: give a number of seconds above 0 that ends"),
    ],
}
ARGUMENTS: dict[str, dict[str, list[Row]]] = {
    "QuickCache": {
        "config": [
            (TypeError, [5, "lru", {"max_size": 5}, QuickCacheConfig], "config=.*: give a QuickCacheConfig")
        ]
    },
    "get": {"key": [KEY], "default": [*ANYTHING]},
    "set": {"key": [KEY], "value": [VALUE], "ttl_sec": [TTL], **LIVES},
    "add": {"key": [KEY], "value": [VALUE], "ttl_sec": [TTL], "exist_ok": [*ANYTHING]},
    "update": {"key": [KEY], "value": [VALUE], "ttl_sec": [TTL]},
    **{name: {"key": [KEY], "loader": [LOADER], "ttl_sec": [TTL]} for name in ("get_or_set", "refresh")},
    "namespace": {
        "name": [
            (ValueError, ["", 5, None, b"users", "a\nb", "\x1f"], "namespace .*: give a name of printable")
        ]
    },
    "delete": {"key": [KEY], "missing_ok": [*ANYTHING]},
    "pop": {"key": [KEY], "default": [*ANYTHING]},
    "touch": {"key": [KEY], "ttl_sec": [TTL], "missing_ok": [*ANYTHING]},
    "ttl": {"key": [KEY]},
    **{
        name: {
            "key": [KEY],
            "delta": [(TypeError, [None, *NUMBER], "delta=.*: give a number")],
            "initial": [(TypeError, NUMBER, "initial=.*: give a number")],
            "ttl_sec": [TTL],
        }
        for name in ("incr", "decr")
    },
    "get_many": {"keys": [KEYS, KEYS_IN_LIST]},
    "set_many": {
        "data": [
            (TypeError, [None, 5, "abc", ["k"], [("k", 1)], {"k"}, object()], "data=.*: give a mapping"),
            (InvalidKey, [{"k": 1, key: 1} for key in (None, 5, b"k", ("k",))], "key=.*: keys are strings"),
            (SerializationError, [{"a": 1, "k": lambda: None}], "'k'.*pickled"),
        ],
        "ttl_sec": [TTL],
        **LIVES,
    },
    "delete_many": {"keys": [KEYS, KEYS_IN_LIST]},
    "delete_prefix": {
        "prefix": [
            (TypeError, [None, 5, b"user:", ["a"]], "prefix=.*: give a string"),
            (ValueError, [""], "prefix=.*: every key begins with it; use clear"),
        ]
    },
    "overtake_loads": {"prefix": [(TypeError, [None, 5, b"user:", ["a"]], "prefix=.*: give a string")]},
    "keys": {
        "prefix": [(TypeError, [None, 5, b"user:", ["a"], ("a",)], "prefix=.*: give a string")],
        "stale": [*ANYTHING],
    },
    "resize": {
        "max_size": [(ConfigError, [0, -1, 1.5, True, "5", HUGE, NAN], "max_size=.*: give an integer")],
        "max_bytes": [(ConfigError, [0, 5, "1MB", True, "much"], "max_bytes=.*: this cache weighs nothing")],
    },
    "save_to_disk": {"filepath": [(TypeError, PATHS, "filepath=.*: give a path")], "use_timestamp": [FLAG]},
    "load_from_disk": {"filepath": [(TypeError, PATHS, "filepath=.*: give a path")]},
    "backup": {"directory": [(TypeError, PATHS, "directory=.*: give a path")]},
    "restore": {"path": [(TypeError, [None, *PATHS], "path=.*: give a path")]},
    "save_metrics_to_disk": {
        "filepath": [(TypeError, PATHS, "filepath=.*: give a path")],
        "use_timestamp": [FLAG],
    },
    "subscribe": {
        "listener": [(TypeError, [None, 5, "print", [print]], "listener=.*: give a function")],
        "kinds": [
            (TypeError, [5, "hit", ["hit"], [None], [[]], True], "kinds=.*: give members of EventKind")
        ],
    },
    "from_mapping": {
        "settings": [
            (TypeError, [None, 5, "lru", ["max_size"], [("max_size", 5)]], "settings=.*: give a mapping"),
            (ConfigError, [{"max_sise": 5}], "max_sise=.*: unknown option; did you mean 'max_size'"),
            (ConfigError, [{"MAX_SIZE": 5}], "MAX_SIZE=.*: unknown option; did you mean 'max_size'"),
            (ConfigError, [{"zzz": 5}, {5: 5}], "unknown option; there are .*cleanup_interval"),
        ]
    },
}


ELSEWHERE = {
    "apply",
    "cached",
    "keep_fresh",
    "lock",
    "prefetcher",
    "shares_store_with",
    "warm",
    "with_source",
}
"""Hands its arguments on, with bad ones in the tests of the module that takes them; or is for parts of the
library."""


@pytest.fixture
def cache() -> Iterator[QuickCache]:
    with QuickCache(QuickCacheConfig(isolation="auto")) as cache:
        cache.set("k", 1)
        yield cache


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot to load."""
    return QuickCache().save_to_disk(tmp_path_factory.mktemp("saved") / "snapshot")


def arguments(function: Callable[..., Any]) -> set[str]:
    return {
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self" and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }


def test_every_argument_has_a_row(cache: QuickCache, tmp_path: Path, saved: Path) -> None:
    """A new argument of a public method needs its bad values here; `a` twins share them."""
    public = {
        name: arguments(member)
        for name, member in vars(QuickCache).items()
        if inspect.isroutine(member) and not name.startswith("_") and not inspect.iscoroutinefunction(member)
    }
    public["QuickCache"] = arguments(QuickCache)
    public["from_mapping"] = arguments(QuickCacheConfig.from_mapping)
    walked = {name: names for name, names in public.items() if names and name not in ELSEWHERE}
    assert walked == {name: set(rows) for name, rows in ARGUMENTS.items()}
    assert {name: set(call[1]) for name, call in good_calls(cache, tmp_path, saved).items()} == {
        name: set(rows) for name, rows in ARGUMENTS.items()
    }


def test_the_calls_are_good(cache: QuickCache, tmp_path: Path, saved: Path) -> None:
    """Without a bad argument all calls of the table work, so it is the bad one that an error is about."""
    for name, (function, good) in good_calls(cache, tmp_path, saved).items():
        cache.set("k", 1)
        result = function(**good)
        if name == "subscribe":
            result()


CASES = [
    pytest.param(method, argument, error, value, words, id=f"{method}-{argument}-{number}")
    for method, rows in ARGUMENTS.items()
    for argument, cases in rows.items()
    for number, (error, value, words) in enumerate(
        (error, value, words) for error, values, words in cases for value in values
    )
]


@pytest.mark.parametrize(("method", "argument", "error", "value", "words"), CASES)
def test_bad_argument(
    cache: QuickCache,
    tmp_path: Path,
    saved: Path,
    method: str,
    argument: str,
    error: Any,
    value: Any,
    words: str,
) -> None:
    """The error names the argument and the value, and says what to give; the cache is as it was."""
    function, good = good_calls(cache, tmp_path, saved)[method]
    with pytest.raises(error, match=words) as caught:
        function(**{**good, argument: value})
    assert type(caught.value) is error
    if error in (InvalidKey, InvalidTTL, TypeError) and not isinstance(value, (list, dict)):
        assert repr(value) in str(caught.value)
    assert cache.get_many(["k"]) == {"k": 1}
    assert cache.ttl("k") == pytest.approx(500, abs=5)
    figures = cache.metrics()
    # What `get_or_set` can't do with is seen only when there is something to load.
    looked = method == "get_or_set" and argument != "key"
    assert (figures.sets, figures.misses, figures.failed_ops, figures.loads) == (1, int(looked), 0, 0)
    assert figures.current_total_keys == 1
    assert list(tmp_path.iterdir()) == []


def test_every_keyword_of_a_load_has_a_row() -> None:
    """A new option of loads needs its bad values here."""
    assert set(LOAD_KEYWORDS) == set(LoadArguments.__annotations__)


@pytest.mark.parametrize("method", ["get_or_set", "refresh"])
@pytest.mark.parametrize(
    ("keyword", "error", "value", "words"),
    [
        pytest.param(keyword, error, value, words, id=f"{keyword}-{number}")
        for keyword, rows in LOAD_KEYWORDS.items()
        for number, (error, value, words) in enumerate(
            (error, value, words) for error, values, words in rows for value in values
        )
    ],
)
def test_bad_keyword_of_a_load(
    cache: QuickCache, method: str, keyword: str, error: Any, value: Any, words: str
) -> None:
    """The error names it, in both worlds alike; the loader isn't called, and nothing is stored."""

    def loader() -> int:
        raise AssertionError("called")

    for call in (getattr(cache, method), lambda *a, **k: asyncio.run(getattr(cache, f"a{method}")(*a, **k))):
        with pytest.raises(error, match=words):
            call("new", loader, **{keyword: value})
    assert list(cache) == ["k"]
    assert cache.metrics().loads == 0


@pytest.mark.parametrize("method", ["get_or_set", "refresh"])
def test_unknown_keyword_of_a_load(cache: QuickCache, method: str) -> None:
    """All that there are are listed."""
    with pytest.raises(TypeError, match="unknown option 'tag'; there are stale_ttl, tags, "):
        getattr(cache, method)("new", lambda: 1, tag="a")
    with pytest.raises(TypeError, match="unknown option 'tag'; there are stale_ttl, tags, "):
        asyncio.run(getattr(cache, f"a{method}")("new", lambda: 1, tag="a"))


def test_bad_tags_to_invalidate(cache: QuickCache) -> None:
    """Tags are strings, one per argument."""
    for bad in (5, None, ["user:7"], b"user:7"):
        tag: Any = bad
        with pytest.raises(TypeError, match="a tag is a string"):
            cache.invalidate_tags("user:7", tag)


@pytest.mark.parametrize(
    "method", sorted(set(ARGUMENTS) - {"QuickCache", "from_mapping", "subscribe", "namespace"})
)
def test_bad_argument_in_a_coroutine(cache: QuickCache, tmp_path: Path, saved: Path, method: str) -> None:
    """The twins for coroutines complain in the same words."""
    function, good = good_calls(cache, tmp_path, saved)[method]
    twin = getattr(cache, f"a{method}")
    for argument, cases in ARGUMENTS[method].items():
        for error, (value, *_), _ in cases:
            given = {**good, argument: value}
            with pytest.raises(error) as sync:
                function(**given)
            with pytest.raises(error) as coroutine:
                asyncio.run(twin(**given))
            assert str(coroutine.value) == str(sync.value)


@pytest.mark.parametrize("switched", ["heard", "off"])
@pytest.mark.parametrize("key", NO_KEYS, ids=repr)
def test_bad_key_whatever_is_switched(cache: QuickCache, switched: str, key: Any) -> None:
    """With a listener, and while switched off, a bad key is as bad as ever."""
    if switched == "heard":
        cache.subscribe(lambda event: None)
        check_bad_key(cache, key)
    else:
        with cache.disabled():
            check_bad_key(cache, key)


def check_bad_key(cache: QuickCache, key: Any) -> None:
    for call in (
        *(lambda: cache.get(key), lambda: cache.get(key, None), lambda: cache.get_many([key])),
        *(lambda: cache.set(key, 1), lambda: cache.add(key, 1), lambda: cache.delete_many([key])),
        *(lambda: cache.delete(key, missing_ok=True), lambda: cache.pop(key, None), lambda: cache.incr(key)),
    ):
        operation: Callable[[], Any] = call
        with pytest.raises(InvalidKey, match="keys are strings"):
            operation()


@pytest.mark.parametrize("key", NO_KEYS, ids=repr)
def test_membership_of_what_is_no_key(cache: QuickCache, key: Any) -> None:
    """What can't be a key isn't in the cache; asking is no error."""
    assert key not in cache


@pytest.mark.parametrize("policy", ["s3fifo", "lru", "lfu"])
@pytest.mark.parametrize("key", NO_KEYS, ids=repr)
def test_bad_key_for_every_kind_of_table(policy: str, key: Any) -> None:
    """Each of the ways in which a hit is made knows a bad key."""
    cache = QuickCache(QuickCacheConfig(eviction_policy=policy))
    for arguments in ((), (None,)):
        with pytest.raises(InvalidKey):
            cache.get(key, *arguments)
    assert cache.get_metrics_snapshot()["gets"] == 0


def test_unwritable_storage_directory(tmp_path: Path) -> None:
    """Making a cache touches no directory; saving into one that can't be made says which and why."""
    (tmp_path / "file").write_text("")
    config = QuickCacheConfig(storage_dir=tmp_path / "file" / "below")
    cache = QuickCache(config)
    cache.set("a", 1)
    with pytest.raises(QuickCacheError, match=r"file.below.*check"):
        cache.save_to_disk()
    assert cache.get("a") == 1


@pytest.mark.parametrize("name", [None, 5, "", " ", "a.b", "a:b", b"x"])
def test_bad_name_to_register(name: Any) -> None:
    """A name must be a word that can't be taken for an import path."""
    with pytest.raises(ConfigError, match="a name is a word"):
        register_eviction_policy(name)(LRUEvictionPolicy)
    with pytest.raises(ConfigError, match="a name is a word"):
        register_serializer(name)(JsonSerializer)


@pytest.mark.parametrize("cls", [None, 5, "lru", int, LRUEvictionPolicy()])
def test_bad_class_to_register(cls: Any) -> None:
    """Only classes derived from the right base can be registered; the message names it."""
    with pytest.raises(TypeError, match=r"derived from .*EvictionPolicy"):
        register_eviction_policy("unused_name")(cls)
    with pytest.raises(TypeError, match=r"derived from .*BaseSerializer"):
        register_serializer("unused_name")(cls)


def test_unknown_names_of_options() -> None:
    """The nearest option is suggested in any case of letters, else all are listed."""
    assert nearest_option("defualt_ttl") == "did you mean 'default_ttl'?"
    assert nearest_option("DEFAULT_TTL") == "did you mean 'default_ttl'?"
    assert nearest_option("MAXSIZE") == "did you mean 'max_size'?"
    assert nearest_option("TIMEOUT", ["TIMEOUT_S", "OTHER"]) == "did you mean 'TIMEOUT_S'?"
    assert set(FIELDS) <= set(nearest_option("qqq").removeprefix("there are ").split(", "))


@pytest.mark.parametrize("value", ["2", "maybe", "disabled", "-1"])
def test_bad_environment_variable(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The kill switch in the environment is either on or off; guessing could be expensive."""
    monkeypatch.setenv("QUICKCACHE_DISABLED", value)
    with pytest.raises(ConfigError, match=r"QUICKCACHE_DISABLED=.*1 or 0"):
        QuickCache()


@pytest.mark.parametrize("seconds", [-1, NAN, -INFINITY])
def test_clock_turned_back(seconds: float) -> None:
    """The clock for tests can't run backwards."""
    with pytest.raises(ValueError, match="seconds="):
        ManualClock().advance(seconds)
