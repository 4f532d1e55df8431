from __future__ import annotations

import enum
import warnings
from typing import Any
from unittest import mock

import pytest
from django.core.cache import CacheKeyWarning
from django.core.cache.backends.base import default_key_func
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe

from quickcache_django import QuickCache

FORBIDDEN = [chr(code) for code in (*range(0x21), 0x7F)]
OPERATIONS: list[tuple[str, Any]] = [
    ("get", lambda cache, key: cache.get(key)),
    ("set", lambda cache, key: cache.set(key, 1)),
    ("add", lambda cache, key: cache.add(key, 1)),
    ("touch", lambda cache, key: cache.touch(key)),
    ("delete", lambda cache, key: cache.delete(key)),
    ("has_key", lambda cache, key: cache.has_key(key)),
    ("incr", lambda cache, key: cache.set(key, 1) or cache.incr(key)),
    ("get_many", lambda cache, key: cache.get_many(["fine", key])),
    ("set_many", lambda cache, key: cache.set_many({"fine": 1, key: 1})),
    ("delete_many", lambda cache, key: cache.delete_many(["fine", key])),
]


class Colour(str, enum.Enum):  # noqa: UP042 - StrEnum has another text
    RED = "red"


def test_stored_key(make_cache: Any) -> None:
    """KEY_PREFIX:VERSION:key, as Django makes it."""
    cache = make_cache(KEY_PREFIX="shop", VERSION=3)
    cache.set("k", 1)
    cache.set("k", 2, version=4)
    assert sorted(cache.engine.keys()) == ["shop:3:k", "shop:4:k"]
    assert cache.make_key("k") == "shop:3:k"


def test_versions_are_apart(cache: QuickCache) -> None:
    """A value is found under its version only."""
    cache.set("k", "one")
    cache.set("k", "two", version=2)
    cache.set_many({"k": "three"}, version=3)
    assert [cache.get("k", version=version) for version in (None, 1, 2, 3, 4)] == [
        "one",
        "one",
        "two",
        "three",
        None,
    ]
    assert cache.get_many(["k"], version=2) == {"k": "two"}
    cache.delete_many(["k"], version=2)
    assert cache.has_key("k", version=2) is False
    assert cache.has_key("k") is True


@pytest.mark.parametrize(
    "key", [7, 7.5, None, True, b"bytes", ("a", 1), Colour.RED, mark_safe("safe"), lazystr("lazy"), "é", ""]
)
def test_key_of_any_type(cache: QuickCache, key: Any) -> None:
    """The key function formats what it gets, so the fast way must give the same text as the slow one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheKeyWarning)
        cache.set(key, "value")
        assert list(cache.engine.keys()) == [default_key_func(key, "", 1)]
        assert cache.get(key) == "value"
        assert cache.get_many([key, "other"]) == {key: "value"}
        cache.delete_many([key])
        assert cache.get(key) is None


def test_two_keys_that_look_alike(cache: QuickCache) -> None:
    """1 and "1" are the same entry, and get_many answers under both."""
    cache.set(1, "value")
    assert cache.get_many([1, "1", 2]) == {1: "value", "1": "value"}


@pytest.mark.parametrize(("name", "operation"), OPERATIONS, ids=[name for name, _ in OPERATIONS])
def test_key_with_a_space(cache: QuickCache, name: str, operation: Any) -> None:
    """Django's own warning, from every operation."""
    with pytest.warns(CacheKeyWarning) as caught:
        operation(cache, "a b")
    assert str(caught[0].message) == (
        "Cache key contains characters that will cause errors if used with memcached: ':1:a b'"
    )


@pytest.mark.parametrize("character", FORBIDDEN, ids=repr)
def test_key_with_a_control_character(cache: QuickCache, character: str) -> None:
    """Every character that Django warns of is found by the quick look."""
    for operation in (
        cache.get,
        cache.delete,
        lambda key: cache.set(key, 1),
        lambda key: cache.get_many([key]),
    ):
        with pytest.warns(CacheKeyWarning, match="characters"):
            operation(f"a{character}b")


@pytest.mark.parametrize("key", ["plain", "~!@", "é", "清", "\xa0", "x" * 247, "\x80"])
def test_key_without_a_warning(cache: QuickCache, key: str) -> None:
    """What Django says nothing about stays without a warning; the tests turn warnings into errors."""
    cache.set(key, 1)
    assert cache.get(key) == 1
    assert cache.get_many([key]) == {key: 1}


@pytest.mark.parametrize(("name", "operation"), OPERATIONS, ids=[name for name, _ in OPERATIONS])
def test_key_of_251_characters(cache: QuickCache, name: str, operation: Any) -> None:
    """The stored key counts, prefix and version included."""
    with pytest.warns(CacheKeyWarning, match="longer than 250"):
        operation(cache, "x" * 248)


def test_key_prefix_with_a_space(make_cache: Any) -> None:
    """The warning is about the stored key."""
    cache = make_cache(KEY_PREFIX="my shop")
    with pytest.warns(CacheKeyWarning, match="my shop:1:k"):
        cache.set("k", 1)


def test_key_function(make_cache: Any) -> None:
    """KEY_FUNCTION makes the keys, for every operation."""
    cache = make_cache(KEY_FUNCTION=lambda key, prefix, version: f"{version}/{key}")
    cache.set("k", 1)
    cache.set_many({"m": 2})
    assert sorted(cache.engine.keys()) == ["1/k", "1/m"]
    assert cache.get_many(["k", "m"]) == {"k": 1, "m": 2}


@pytest.mark.parametrize("name", ["key_func", "key_prefix", "version", "make_key", "validate_key"])
def test_changed_on_the_object(cache: QuickCache, name: str) -> None:
    """What tests and tools set on an object takes effect at once, and ends when it is undone."""
    values: dict[str, Any] = {
        "key_func": lambda key, prefix, version: f"{prefix}|{version}|{key}",
        "key_prefix": "p",
        "version": 9,
        "make_key": lambda key, version=None: f"made:{key}",
        "validate_key": lambda key: seen.append(key),
    }
    seen: list[str] = []
    expected = {"key_func": "|1|k", "key_prefix": "p:1:k", "version": ":9:k", "make_key": "made:k"}
    cache.set("before", 1)
    with mock.patch.object(cache, name, values[name]):
        cache.set("k", 1)
        assert cache.get("k") == 1
        if name == "validate_key":
            assert seen == [":1:k", ":1:k"]
        else:
            assert expected[name] in cache.engine
    cache.set("after", 1)
    assert ":1:after" in cache.engine
    assert cache._head == ":1:", "keys are still made the slow way"


def test_overridden_in_a_subclass(location: str) -> None:
    """make_key and validate_key of a subclass are honoured by every operation, the quick ones too."""
    seen = []

    class Careful(QuickCache):
        def make_key(self, key: Any, version: int | None = None) -> str:
            return f"careful:{key}"

        def validate_key(self, key: str) -> None:
            seen.append(key)

    cache = Careful(location, {})
    for _, operation in OPERATIONS:
        operation(cache, "a b")
    assert set(seen) == {"careful:a b", "careful:fine"}
    assert list(cache.engine.keys()) == []


@pytest.mark.parametrize("name", ["make_key", "make_and_validate_key"])
def test_only_one_method_overridden(location: str, name: str) -> None:
    """Each of the methods that make keys is honoured on its own."""

    def own(self: QuickCache, key: Any, version: int | None = None) -> str:
        return f"own:{key}"

    cache = type("Own", (QuickCache,), {name: own})(location, {})
    for _, operation in OPERATIONS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CacheKeyWarning)
            operation(cache, "k")
        assert all(key.startswith("own:") for key in cache.engine)
    cache.set("k", 1)
    assert list(cache.engine.keys()) == ["own:k"]


def test_key_that_a_subclass_forbids(location: str) -> None:
    """An exception of validate_key reaches the caller, and nothing is stored."""

    class Strict(QuickCache):
        def validate_key(self, key: str) -> None:
            raise ValueError(key)

    cache = Strict(location, {})
    with pytest.raises(ValueError, match=":1:k"):
        cache.set("k", 1)
    with pytest.raises(ValueError, match=":1:k"):
        cache.set_many({"k": 1})
    assert len(cache.engine) == 0
