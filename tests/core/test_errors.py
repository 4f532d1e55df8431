"""The errors themselves: families, evidence, pickling, causes."""

from __future__ import annotations

import copy
import inspect
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest

import quickcache_core
from quickcache_core import (
    CacheLoadError,
    CacheMetricsSaveError,
    CacheMiss,
    CacheSaveError,
    ConfigError,
    InvalidKey,
    InvalidTTL,
    KeyAlreadyExists,
    KeyExpired,
    KeyNotFound,
    LoaderTimeout,
    LockError,
    LockNotOwned,
    LockTimeout,
    QueueFull,
    QuickCache,
    QuickCacheConfig,
    QuickCacheError,
    SerializationError,
    StoreUnavailable,
    UnstableArgument,
    ValueTooLarge,
    errors,
)

EXAMPLES: dict[type[QuickCacheError], tuple[QuickCacheError, dict[str, Any]]] = {
    QuickCacheError: (QuickCacheError("something"), {}),
    ConfigError: (ConfigError("f", [1], "do this"), {"field": "f", "value": [1], "remedy": "do this"}),
    CacheMiss: (CacheMiss("k"), {"key": "k"}),
    KeyNotFound: (KeyNotFound("k"), {"key": "k"}),
    KeyExpired: (KeyExpired("k"), {"key": "k"}),
    KeyAlreadyExists: (KeyAlreadyExists("k"), {"key": "k"}),
    InvalidTTL: (InvalidTTL(-1), {"ttl": -1, "field": "ttl_sec"}),
    InvalidKey: (InvalidKey(5), {"key": 5}),
    SerializationError: (
        SerializationError("no", key="k", serializer="json", lacks="secret"),
        {"key": "k", "serializer": "json", "lacks": "secret"},
    ),
    LoaderTimeout: (LoaderTimeout("k", 0.5), {"key": "k", "seconds": 0.5}),
    LockError: (LockError("k"), {"name": "k"}),
    LockTimeout: (LockTimeout("k", 0.5), {"name": "k", "seconds": 0.5}),
    LockNotOwned: (LockNotOwned("k"), {"name": "k"}),
    UnstableArgument: (
        UnstableArgument("m.f", "a", "m.C", "because"),
        {"function": "m.f", "argument": "a", "kind": "m.C", "reason": "because"},
    ),
    QueueFull: (QueueFull(9, 10, 0.5), {"pending": 9, "max_pending": 10, "patience": 0.5}),
    StoreUnavailable: (StoreUnavailable("away"), {}),
    ValueTooLarge: (ValueTooLarge("k", 7, 5), {"key": "k", "size": 7, "limit": 5}),
    CacheSaveError: (CacheSaveError(Path("/x"), "why"), {"filepath": "/x", "reason": "why"}),
    CacheLoadError: (CacheLoadError("/x", OSError("why")), {"filepath": "/x", "reason": "why"}),
    CacheMetricsSaveError: (CacheMetricsSaveError(None, "why"), {"filepath": None, "reason": "why"}),
}


def test_every_error_has_an_example() -> None:
    """A new error needs its example here; all are public, and can be imported from the package."""
    defined = {
        member
        for name, member in vars(errors).items()
        if inspect.isclass(member) and issubclass(member, QuickCacheError) and not name.startswith("_")
    }
    assert set(EXAMPLES) == defined
    assert all(getattr(quickcache_core, error.__name__) is error for error in defined)
    assert {error.__name__ for error in defined} <= set(quickcache_core.__all__)


@pytest.mark.parametrize("cls", EXAMPLES)
def test_evidence(cls: type[QuickCacheError]) -> None:
    """What an error knows is in attributes, not only in its message."""
    error, evidence = EXAMPLES[cls]
    assert vars(error) == evidence


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("cls", EXAMPLES)
def test_pickling(cls: type[QuickCacheError], protocol: int) -> None:
    """Type, message, arguments, evidence and notes come through, with every protocol."""
    error = copy.copy(EXAMPLES[cls][0])
    error.add_note("a note")
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is cls
    assert str(again) == str(error)
    assert again.args == error.args
    assert vars(again) == vars(error)
    assert again.__notes__ == ["a note"]


@pytest.mark.parametrize("cls", EXAMPLES)
def test_copying(cls: type[QuickCacheError]) -> None:
    """`copy` and `deepcopy` work as well."""
    error = EXAMPLES[cls][0]
    for again in (copy.copy(error), copy.deepcopy(error)):
        assert (type(again), str(again), vars(again)) == (cls, str(error), vars(error))


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("clock", threading.Lock(), "do this"),
        ConfigError("eviction_policy", lambda: None, "do this"),
        InvalidKey(threading.Lock()),
        InvalidTTL(threading.Lock()),
    ],
)
def test_pickling_what_cannot_be_pickled(error: QuickCacheError) -> None:
    """Evidence that can't be pickled becomes its repr: the error gets through all the same."""
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    for name, value in vars(error).items():
        assert vars(again)[name] in (value, repr(value))


def test_pickling_of_an_error_of_ones_own() -> None:
    """A subclass with a constructor of its own needs nothing special."""
    error = OwnError("k", 5)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is OwnError
    assert (again.key, again.number, str(again)) == ("k", 5, str(error))


class OwnError(KeyNotFound):
    def __init__(self, key: str, number: int) -> None:
        super().__init__(key)
        self.number = number


@pytest.mark.parametrize(
    ("cls", "parents"),
    [
        (ConfigError, (ValueError,)),
        (CacheMiss, (KeyError, LookupError)),
        (KeyNotFound, (CacheMiss,)),
        (KeyExpired, (CacheMiss,)),
        (InvalidTTL, (ValueError,)),
        (InvalidKey, (ValueError,)),
        (LockTimeout, (LockError, TimeoutError)),
        (LockNotOwned, (LockError,)),
    ],
)
def test_families(cls: type[QuickCacheError], parents: tuple[type[Exception], ...]) -> None:
    """What Python code expects to catch catches them, too."""
    assert all(issubclass(cls, parent) for parent in (QuickCacheError, *parents))
    assert not issubclass(KeyNotFound, KeyExpired)
    assert not issubclass(KeyExpired, KeyNotFound)


def test_codes() -> None:
    """Each error has a code of its own, for logs and interfaces."""
    codes = [cls.code for cls in EXAMPLES]
    assert len(set(codes)) == len(codes)
    assert all(code == code.upper() and " " not in code for code in codes)


@pytest.mark.parametrize("cls", [CacheMiss, KeyNotFound, KeyExpired])
def test_message_of_a_miss(cls: type[CacheMiss]) -> None:
    """The message reads as text, not as the repr that KeyError makes of it."""
    assert str(cls("it's")).startswith('Key "it\'s" ')


@pytest.mark.parametrize("cls", [CacheSaveError, CacheLoadError, CacheMetricsSaveError])
def test_message_of_a_file(cls: type[CacheSaveError]) -> None:
    """Which file, and why; a bytes or odd path can't break the error itself."""
    assert str(cls("/some/file", "disk full")).endswith("/some/file: disk full")
    for path in (None, b"bytes", 5):
        odd: Any = path
        assert "why" in str(cls(odd, "why"))


class TestCauses:
    """What went wrong underneath is chained."""

    def test_of_a_load(self, tmp_path: Path) -> None:
        """The error of the operating system."""
        with pytest.raises(CacheLoadError, match="missing") as caught:
            QuickCache().load_from_disk(tmp_path / "missing.json")
        assert isinstance(caught.value.__cause__, FileNotFoundError)
        assert caught.value.filepath == str(tmp_path / "missing.json")

    def test_of_a_damaged_file(self, tmp_path: Path) -> None:
        """What was found wrong."""
        with pytest.raises(CacheLoadError) as caught:
            QuickCache().load_from_disk(write(tmp_path))
        assert isinstance(caught.value.__cause__, ValueError)
        assert str(caught.value.__cause__) in str(caught.value)

    def test_of_a_save(self, tmp_path: Path) -> None:
        """The error of the operating system, or of the serializer."""
        (tmp_path / "file").touch()
        cache = QuickCache()
        with pytest.raises(CacheSaveError) as caught:
            cache.save_to_disk(tmp_path / "file" / "x")
        assert isinstance(caught.value.__cause__, OSError)
        cache.set("bad", {1, 2})
        with pytest.raises(CacheSaveError, match="bad") as caught:
            cache.save_to_disk(tmp_path / "x")
        assert isinstance(caught.value.__cause__, SerializationError)

    def test_of_a_value(self) -> None:
        """The error of the pickler."""
        cache = QuickCache(QuickCacheConfig(isolation="auto"))
        with pytest.raises(SerializationError) as caught:
            cache.set("k", lambda: None)
        assert isinstance(caught.value.__cause__, (pickle.PicklingError, AttributeError))
        assert (caught.value.key, caught.value.serializer) == ("k", "pickle")

    def test_of_a_setting(self) -> None:
        """The error of the import."""
        with pytest.raises(ConfigError) as caught:
            QuickCacheConfig(eviction_policy="no_such_module:Policy")
        assert isinstance(caught.value.__cause__, ModuleNotFoundError)
        with pytest.raises(ConfigError) as caught:
            QuickCacheConfig(default_ttl=-1)
        assert isinstance(caught.value.__cause__, InvalidTTL)


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: QuickCache().load_from_disk(folder / "missing.json"),
        lambda folder: QuickCache().restore(folder),
        lambda folder: QuickCache().restore(folder / "missing"),
        lambda folder: QuickCache(QuickCacheConfig(serializer="pickle")).save_to_disk(folder / "x"),
        lambda folder: QuickCache(QuickCacheConfig(serializer="pickle")).load_from_disk(write(folder)),
        lambda folder: QuickCache().load_from_disk(write(folder)),
        lambda folder: QuickCache().save_to_disk(write(folder) / "below"),
        lambda folder: QuickCache().save_metrics_to_disk(write(folder) / "below"),
    ],
)
def test_what_to_do_next(tmp_path: Path, make: Any) -> None:
    """An error of a file ends in an advice, not only in a number of the operating system."""
    with pytest.raises(QuickCacheError) as caught:
        make(tmp_path)
    *_, advice = str(caught.value).rpartition(";")
    assert advice != str(caught.value)
    assert any(word in advice for word in ("give", "use", "set", "check", "load", "save")), advice


def write(folder: Path) -> Path:
    """Files that are no snapshots; the path without extension."""
    for name in ("foreign", "foreign.json", "foreign.pkl"):
        (folder / name).write_text("not ours\n")
    return folder / "foreign"
