from __future__ import annotations

import pickle
from collections import OrderedDict
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import CacheHandler, InvalidCacheBackendError
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from quickcache_core import (
    FIELDS,
    NEVER,
    CacheLoadError,
    CacheSaveError,
    QuickCacheConfig,
    SerializationError,
)
from quickcache_core.serializer import signing
from quickcache_core.testing import ManualClock
from quickcache_django import QuickCache
from quickcache_django.conf import CORE_OPTIONS, SettingError

BACKEND = "quickcache_django.QuickCache"

# For each option of the core: a value that differs from the default, and one that is wrong.
OPTIONS: dict[str, tuple[Any, Any]] = {
    "MAX_SIZE": (77, 0),
    "DEFAULT_TTL": (77.5, -1),
    "CLEANUP_INTERVAL": (3.0, 0),
    "SLIDING": (True, "yes"),
    "MAX_AGE": (3600, 0),
    "STALE_TTL": (timedelta(hours=1), -1),
    "RETRY_AFTER": (2.5, None),
    "SOFT_TIMEOUT": (0.2, "soon"),
    "HARD_TIMEOUT": (5, 0),
    "REFRESH_AHEAD": (0.8, 1),
    "JITTER": (0.1, 1),
    "SKIP_NONE": (True, 1),
    "SINGLE_FLIGHT": (False, 0),
    "LEASE": (7.5, 0),
    "BACKGROUND_CONTEXT": (nullcontext, "contextlib.nullcontext"),
    "VERSION": ("5.1", 5),
    "MAX_BYTES": ("1MB", "much"),
    "OVERSIZED": ("skip", "drop"),
    "AUTO_RESIZE": (True, 1),
    "NEAR_SIZE": (7, -1),
    "FAIL": ("raise", "loudly"),
    "REDIS_PREFIX": ("shop", ""),
    "REDIS_OPTIONS": ({"password": "hunter2"}, ["hunter2"]),
    "EVICTION_POLICY": ("lru", "best"),
    "SERIALIZER": ("json", "xml"),
    "ISOLATION": ("share", "none"),
    "IMMUTABLE_TYPES": ((Path,), ("Path",)),
    "CULL_FRACTION": (0.25, 2),
    "STORAGE_DIR": ("/tmp/snapshots", 5),
    "FILENAME": ("snapshot", "a/b"),
    "CACHE_TIMESTAMPS": (True, "yes"),
    "ENABLE_METRICS": (False, "no"),
    "PUBLISH_AS": ("shop", 5),
    "METRICS_SERIALIZER": ("pickle", 5),
    "METRICS_STORAGE_DIR": ("/tmp/metrics", 5),
    "METRICS_FILENAME": ("figures", ""),
    "CACHE_METRICS_TIMESTAMPS": (True, 1),
    "SECRET": ("a secret of more than 16 bytes", 5),
    "SECRET_FALLBACKS": (("another secret of 16 bytes",), 5),
    "ALLOW_UNSIGNED_PICKLE": (True, "yes"),
    "COMPRESSION": ("zlib", "rar"),
    "ENABLED": (False, 0),
    "CLOCK": (ManualClock(), "now"),
}


def build(location: str, **entry: Any) -> QuickCache:
    cache: QuickCache = CacheHandler({"default": {"BACKEND": BACKEND, "LOCATION": location, **entry}})[
        "default"
    ]
    assert cache.engine is not None  # wrong settings are an error at the first use
    return cache


def test_every_field_has_an_option() -> None:
    """Each field of the core's configuration but the location is an option, under its name in capitals."""
    assert set(OPTIONS) == {name.upper() for name in FIELDS} - {"LOCATION"} == set(CORE_OPTIONS)


@pytest.mark.parametrize("option", OPTIONS)
def test_right_option(location: str, option: str) -> None:
    """The value arrives in the engine's configuration."""
    value = OPTIONS[option][0]
    config = build(location, OPTIONS={option: value}).engine.config
    expected = getattr(QuickCacheConfig(**{option.lower(): value}), option.lower())
    arrived = getattr(config, option.lower())
    assert (arrived[1:] if option == "IMMUTABLE_TYPES" else arrived) == expected


@pytest.mark.parametrize("entry", [{"PASSWORD": "s3cret"}, {"OPTIONS": {"PASSWORD": "s3cret"}}])
def test_secret_under_another_name(location: str, entry: dict[str, Any]) -> None:
    """Is nowhere in the error: reporters of errors send its attributes along."""
    with pytest.raises(SettingError) as caught:
        build(location, **entry)
    assert "s3cret" not in f"{caught.value!r} {vars(caught.value)}"
    assert b"s3cret" not in pickle.dumps(caught.value)


@pytest.mark.parametrize("option", OPTIONS)
def test_wrong_option(location: str, option: str) -> None:
    """A wrong value is an error at the first use that names setting, value and remedy."""
    value = OPTIONS[option][1]
    with pytest.raises(ImproperlyConfigured) as caught:
        build(location, OPTIONS={option: value})
    error = caught.value
    assert isinstance(error, InvalidCacheBackendError)
    assert isinstance(error, SettingError)
    assert error.setting == option
    assert len(error.remedy) > 10
    hidden = option.startswith(("SECRET", "REDIS_OPTIONS"))
    shown = f"<{type(value).__name__}>" if hidden else repr(value)
    assert repr(error.value) == repr(pickle.loads(pickle.dumps(error)).value) == shown
    assert str(error) == f"{option}={shown}: {error.remedy}"


@pytest.mark.parametrize(
    ("entry", "setting", "said"),
    [
        ({"OPTIONS": {"MAX_ENTRYS": 5}}, "MAX_ENTRYS", "did you mean 'MAX_ENTRIES'?"),
        ({"OPTIONS": {"max_size": 5}}, "max_size", "did you mean 'MAX_SIZE'?"),
        ({"OPTIONS": {"XYZ": 5}}, "XYZ", "MAX_ENTRIES"),
        ({"OPTIONS": {5: 5}}, "5", "MAX_ENTRIES"),
        ({"OPTIONS": {"TIMEOUT": 5}}, "OPTIONS['TIMEOUT']", "beside BACKEND"),
        ({"OPTIONS": {"LOCATION": "x"}}, "OPTIONS['LOCATION']", "beside BACKEND"),
        ({"MAX_ENTRIES": 5}, "MAX_ENTRIES", "into OPTIONS"),
        ({"EVICTION_POLICY": "lru"}, "EVICTION_POLICY", "into OPTIONS"),
        ({"TIME_OUT": 5}, "TIME_OUT", "did you mean 'TIMEOUT'?"),
        ({"OPTIONS": None}, "OPTIONS", "dictionary"),
        ({"OPTIONS": ["MAX_ENTRIES"]}, "OPTIONS", "dictionary"),
        ({"OPTIONS": {"MAX_ENTRIES": 0}}, "MAX_ENTRIES", "at least 1"),
        ({"OPTIONS": {"MAX_ENTRIES": "many"}}, "MAX_ENTRIES", "at least 1"),
        ({"OPTIONS": {"MAX_ENTRIES": True}}, "MAX_ENTRIES", "at least 1"),
        ({"OPTIONS": {"MAX_ENTRIES": None}}, "MAX_ENTRIES", "at least 1"),
        ({"OPTIONS": {"MAX_ENTRIES": float("inf")}}, "MAX_ENTRIES", "at least 1"),
        ({"max_entries": "many"}, "max_entries", "at least 1"),
        ({"OPTIONS": {"CULL_FREQUENCY": -1}}, "CULL_FREQUENCY", "one in N"),
        ({"OPTIONS": {"CULL_FREQUENCY": "often"}}, "CULL_FREQUENCY", "one in N"),
        ({"OPTIONS": {"CULL_FREQUENCY": None}}, "CULL_FREQUENCY", "one in N"),
        ({"TIMEOUT": "soon"}, "TIMEOUT", "seconds"),
        ({"TIMEOUT": True}, "TIMEOUT", "seconds"),
        ({"TIMEOUT": timedelta(minutes=1)}, "TIMEOUT", "seconds"),
        ({"TIMEOUT": float("nan")}, "TIMEOUT", "seconds"),
        ({"timeout": "soon"}, "timeout", "seconds"),
        ({"OPTIONS": {"MAX_ENTRIES": 5, "MAX_SIZE": 5}}, "MAX_SIZE", "MAX_ENTRIES says the same"),
        ({"OPTIONS": {"MAX_SIZE": 5, "MAX_ENTRIES": 5}}, "MAX_ENTRIES", "MAX_SIZE says the same"),
        ({"max_entries": 5, "OPTIONS": {"MAX_ENTRIES": 5}}, "MAX_ENTRIES", "max_entries says the same"),
        (
            {"OPTIONS": {"CULL_FREQUENCY": 2, "CULL_FRACTION": 0.5}},
            "CULL_FRACTION",
            "CULL_FREQUENCY says the same",
        ),
        ({"TIMEOUT": 5, "OPTIONS": {"DEFAULT_TTL": 5}}, "DEFAULT_TTL", "TIMEOUT says the same"),
        ({"TIMEOUT": 5, "timeout": 5}, "timeout", "TIMEOUT says the same"),
        ({"LOCATION": "shared://tmp/x"}, "LOCATION", "absolute path"),
        ({"LOCATION": "shared:///tmp/x", "OPTIONS": {"EVICTION_POLICY": "lru"}}, "EVICTION_POLICY", "CLOCK"),
        ({"LOCATION": "redis://localhost:port"}, "LOCATION", "redis://host:6379"),
        ({"LOCATION": ["shop"]}, "LOCATION", "give a string"),
        ({"LOCATION": "ftp://x"}, "LOCATION", "unknown scheme"),
        ({"LOCATION": ["a", "b"]}, "LOCATION", "string"),
        ({"LOCATION": None}, "LOCATION", "string"),
        ({"LOCATION": Path("/tmp/x")}, "LOCATION", "string"),
    ],
    ids=str,
)
def test_wrong_entry(location: str, entry: dict[str, Any], setting: str, said: str) -> None:
    """What is wrong in an entry of CACHES is named, with what to write instead."""
    with pytest.raises(SettingError) as caught:
        build(location, **entry)
    assert caught.value.setting == setting
    assert said in caught.value.remedy
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (SettingError, str(caught.value))


@pytest.mark.parametrize("name", ["get", "delete", "has_key", "incr", "touch"])
def test_wrong_settings_and_any_operation(location: str, name: str) -> None:
    """Making the object is no error, or Django's own checks would fail before ours; every use of it is."""
    entry = {"BACKEND": BACKEND, "LOCATION": location, "TIMEOUT": 0, "OPTIONS": {"MAX_SIZE": -5}}
    cache = CacheHandler({"default": entry})["default"]
    for _ in range(2):
        with pytest.raises(SettingError, match="MAX_SIZE=-5"):
            getattr(cache, name)("k")
    for operation in (lambda: cache.set("k", 1), lambda: cache.add("k", 1), lambda: cache.set_many({"k": 1})):
        with pytest.raises(SettingError, match="MAX_SIZE=-5"):
            operation()
    for operation in (
        cache.clear,
        lambda: cache.get_many("k"),
        lambda: cache.delete_many("k"),
        lambda: "k" in cache,
    ):
        with pytest.raises(SettingError, match="MAX_SIZE=-5"):
            operation()
    cache.close()


def test_wrong_value_that_equals_a_right_one(location: str) -> None:
    """True is 1 in Python; having seen the one doesn't let the other pass."""
    assert build(location, OPTIONS={"MAX_SIZE": 1}).engine.max_size == 1
    with pytest.raises(SettingError):
        build(location, OPTIONS={"MAX_SIZE": True})
    assert build(location, OPTIONS={"ENABLED": True}).engine.enabled
    with pytest.raises(SettingError):
        build(location, OPTIONS={"ENABLED": 1})


def test_one_location_two_policies(location: str) -> None:
    """Entries can't leave by two rules."""
    build(location, OPTIONS={"EVICTION_POLICY": "lru"})
    with pytest.raises(SettingError, match="EVICTION_POLICY") as caught:
        build(location, OPTIONS={"EVICTION_POLICY": "fifo"})
    assert caught.value.check_id == "quickcache.E006"


@pytest.mark.parametrize(
    ("value", "timeout"), [(5, 5), (0.5, 0.5), (timedelta(minutes=2), 120.0), (None, None), (NEVER, None)]
)
def test_default_ttl(location: str, value: Any, timeout: Any) -> None:
    """DEFAULT_TTL, the core's word for TIMEOUT, also in the core's ways of saying it."""
    assert build(location, OPTIONS={"DEFAULT_TTL": value}).default_timeout == timeout


def test_options_that_are_no_plain_dict(location: str) -> None:
    """Any mapping will do, and lists for tuples."""
    options = OrderedDict(
        MAX_ENTRIES=7, IMMUTABLE_TYPES=[Path], SECRET_FALLBACKS=["another secret of 16 bytes"]
    )
    cache = build(location, OPTIONS=options)
    assert cache.engine.max_size == 7
    assert build(location, OPTIONS=options).engine is cache.engine


def test_defaults(location: str) -> None:
    """Django's defaults where Django has some, and isolation."""
    config = build(location).engine.config
    assert (config.max_size, config.default_ttl, config.isolation, config.serializer) == (
        300,
        300,
        "auto",
        "pickle",
    )


def test_two_versions(location: str) -> None:
    """Django's VERSION stands beside BACKEND and is a number; that in OPTIONS is the release's."""
    old = build(location, VERSION=3, OPTIONS={"VERSION": "1"})
    new = build(location, VERSION=3, OPTIONS={"VERSION": "2"})
    assert (old.version, old.engine.config.version) == (3, "1")
    old.set("k", "old")
    assert new.get("k") is None
    new.set("k", "new")
    assert (old.get("k"), new.get("k")) == ("old", "new")
    assert (old.get("k", version=4), list(old.engine.keys())) == (None, [":3:k"])
    with pytest.raises(SettingError, match="Django's VERSION stands beside BACKEND"):
        build(location, OPTIONS={"VERSION": 3})


def test_switched_off(location: str) -> None:
    """ENABLED False: every read is a miss, nothing is stored, nothing fails."""
    cache = build(location, OPTIONS={"ENABLED": False})
    cache.set("k", 1)
    assert cache.get("k") is None
    assert cache.set_many({"k": 1}) == []
    assert cache.get_many(["k"]) == {}
    assert cache.get_or_set("k", 2) == 2
    with pytest.raises(ValueError, match="not found"):
        cache.incr("k")


def test_snapshot_is_signed_with_the_secret_key(location: str, tmp_path: Path) -> None:
    """Snapshots are signed with SECRET_KEY without being told to, and accepted with SECRET_KEY_FALLBACKS."""
    cache = build(location)
    cache.set("k", {"a": [1]})
    path = cache.engine.save_to_disk(tmp_path / "snapshot")
    former = settings.SECRET_KEY
    with override_settings(SECRET_KEY="quite another key, also long enough"):
        with pytest.raises(CacheLoadError):
            cache.engine.load_from_disk(path)
        with override_settings(SECRET_KEY_FALLBACKS=[former]):
            cache.clear()
            cache.engine.load_from_disk(path)
    assert cache.get("k") == {"a": [1]}


def test_former_key_that_is_too_short(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It can't have signed anything, and is left out with one warning that doesn't show it; one in the
    cache's own option is an error."""
    shared = f"shared://{tmp_path}/c"
    weak, former = "old-weak-key", settings.SECRET_KEY
    build(shared).set("k", {"a": [1]})
    signing._told.clear()
    with override_settings(
        SECRET_KEY="quite another key, also long enough", SECRET_KEY_FALLBACKS=[weak, former]
    ):
        cache = build(shared)
        assert cache.get("k") == {"a": [1]}
        for value in ({"b": 1}, {"c": 2}):
            cache.set("k", value)
            assert cache.get("k") == value
        with pytest.raises(SettingError, match="16 bytes"):
            build(shared, OPTIONS={"SECRET": former, "SECRET_FALLBACKS": [weak]})
    [message] = [each.getMessage() for each in caplog.records if "SECRET_KEY" in each.getMessage()]
    assert message.startswith("1 of 2 in SECRET_KEY_FALLBACKS are shorter than 16 bytes")
    assert weak not in message


def test_key_that_is_too_short(tmp_path: Path) -> None:
    """It counts as none: what must be signed is refused, with the error that says so."""
    with override_settings(SECRET_KEY="short"):
        cache = build(f"shared://{tmp_path}/c")
        cache.set("plain", 1)
        assert cache.get("plain") == 1
        with pytest.raises(SerializationError, match="needs a signature"):
            cache.set("k", {"a": [1]})


def test_no_secret_key(location: str, tmp_path: Path) -> None:
    """A project without SECRET_KEY can cache; only what must be signed is refused."""
    with override_settings(SECRET_KEY=""):
        cache = build(location)
        cache.set("k", [1, [2]])
        assert cache.get("k") == [1, [2]]
        with pytest.raises(CacheSaveError):
            cache.engine.save_to_disk(tmp_path / "snapshot")
        assert (
            build(f"{location} 2", OPTIONS={"SERIALIZER": "json"})
            .engine.save_to_disk(tmp_path / "plain")
            .exists()
        )
