"""What other people's code does to a backend: subclass it, replace methods of one object, ask what it is."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest import mock

import pytest
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache

from quickcache_django import QuickCache

# As django-debug-toolbar does for its cache panel.
WRAPPED = (
    "add",
    "get",
    "set",
    "get_or_set",
    "touch",
    "delete",
    "clear",
    "get_many",
    "set_many",
    "delete_many",
    "has_key",
    "incr",
    "decr",
    "incr_version",
    "decr_version",
)


class Panel:
    """Wraps the methods of one object, and writes down the outermost calls."""

    def __init__(self, cache: QuickCache) -> None:
        self.calls: list[str] = []
        self._depth = 0
        for name in WRAPPED:
            setattr(cache, name, self._wrapped(name, getattr(cache, name)))

    def _wrapped(self, name: str, method: Any) -> Any:
        def recorded(*args: Any, **kwargs: Any) -> Any:
            if not self._depth:
                self.calls.append(name)
            self._depth += 1
            try:
                return method(*args, **kwargs)
            finally:
                self._depth -= 1

        return recorded

    def taken(self) -> list[str]:
        calls, self.calls = self.calls, []
        return calls


def use_all(cache: Any) -> list[Any]:
    """Every operation once; what they answered."""
    return [
        cache.set("a", 1),
        cache.add("a", 2),
        cache.get("a"),
        cache.touch("a"),
        cache.has_key("a"),
        cache.incr("a"),
        cache.decr("a"),
        cache.set_many({"b": 1, "c": 2}),
        cache.get_many(["b", "c", "d"]),
        cache.get_or_set("d", 4),
        cache.incr_version("d"),
        cache.decr_version("d", version=2),
        cache.delete_many(["b"]),
        cache.delete("a"),
        cache.clear(),
    ]


class Awaited:
    """The `a` methods of a cache under the names of the others."""

    def __init__(self, cache: QuickCache) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: asyncio.run(getattr(self._cache, f"a{name}")(*args, **kwargs))


ANSWERS = [None, False, 1, True, True, 2, 1, [], {"b": 1, "c": 2}, 4, 2, 1, None, True, None]
ORDER = ["set", "add", "get", "touch", "has_key", "incr", "decr", "set_many", "get_many", "get_or_set"]
ORDER += ["incr_version", "decr_version", "delete_many", "delete", "clear"]


@pytest.mark.parametrize("awaited", [False, True], ids=["called", "awaited"])
def test_methods_replaced_per_object(make_cache: Any, awaited: bool) -> None:
    """Each call and each await is seen once, under its name, and answers as before."""
    cache, bystander = make_cache(), make_cache()
    panel = Panel(cache)
    assert use_all(Awaited(cache) if awaited else cache) == ANSWERS
    assert panel.taken() == ORDER
    bystander.set("k", 1)
    assert panel.taken() == []


@pytest.mark.parametrize("awaited", [False, True], ids=["called", "awaited"])
def test_nothing_replaced(cache: QuickCache, awaited: bool) -> None:
    """Called or awaited, the answers are the same."""
    assert use_all(Awaited(cache) if awaited else cache) == ANSWERS


class Suffixed(QuickCache):
    """Overrides the single-key methods only."""

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        value = super().get(key, default, version)
        return value if value is default else value.removesuffix("!")

    def set(self, key: Any, value: Any, *args: Any, **kwargs: Any) -> None:
        super().set(key, f"{value}!", *args, **kwargs)

    def delete(self, key: Any, version: int | None = None) -> bool:
        return key != "kept" and super().delete(key, version)


@pytest.mark.parametrize("awaited", [False, True], ids=["called", "awaited"])
def test_bulk_methods_of_a_subclass(location: str, awaited: bool) -> None:
    """As with LocMemCache, the bulk methods go through the single-key methods that a subclass overrides."""
    cache = Suffixed(location, {})
    use: Any = Awaited(cache) if awaited else cache
    assert use.set_many({"a": "x", "kept": "y"}) == []
    assert cache.engine.get(":1:a") == "x!"
    assert use.get_many(["a", "kept", "z"]) == {"a": "x", "kept": "y"}
    use.delete_many(["a", "kept"])
    assert use.get_many(["a", "kept"]) == {"kept": "y"}


def test_get_or_set_of_a_subclass(location: str) -> None:
    """aget_or_set of a subclass that overrides get_or_set is that."""

    class Own(QuickCache):
        def get_or_set(self, key: Any, default: Any, *args: Any, **kwargs: Any) -> Any:
            return "own"

    assert asyncio.run(Own(location, {}).aget_or_set("k", 1)) == "own"


def test_get_or_set_of_a_value_goes_through_add(cache: QuickCache) -> None:
    """When `add` fails because somebody was faster, the value that is there wins, else the default."""
    with mock.patch.object(QuickCache, "add", return_value=False) as add:
        assert cache.get_or_set("k", "default", 7) == "default"
        assert asyncio.run(cache.aget_or_set("k", "default", 7)) == "default"
    assert [call.args[:2] for call in add.call_args_list] == [("k", "default")] * 2
    assert cache.get("k") is None


def test_somebody_is_faster_than_a_callable(cache: QuickCache) -> None:
    """What was stored while it was called stays; what it returned is handed out."""

    def slower() -> str:
        cache.set("k", "theirs")
        return "ours"

    assert cache.get_or_set("k", slower) == "ours"
    assert cache.get("k") == "theirs"
    cache.delete("k")
    assert asyncio.run(cache.aget_or_set("k", slower)) == "ours"
    assert cache.get("k") == "theirs"


def test_get_or_set_callable(cache: QuickCache) -> None:
    """A callable is called on a miss only."""
    made = mock.Mock(return_value="made")
    assert [cache.get_or_set("k", made) for _ in range(3)] == ["made"] * 3
    assert asyncio.run(cache.aget_or_set("k", made)) == "made"
    made.assert_called_once_with()


def test_settings_after_a_subclass_set_attributes_first(location: str) -> None:
    """A subclass may set Django's attributes before it calls our __init__."""

    class Early(QuickCache):
        def __init__(self, *args: Any) -> None:
            self.version = 5
            self._max_entries = 7
            super().__init__(*args)

    cache = Early(location, {"VERSION": 6})
    cache.set("k", 1)
    assert list(cache.engine.keys()) == [":6:k"]
    assert cache._max_entries == 300


def test_what_it_is(default_cache: QuickCache) -> None:
    """It is one of Django's caches, with all methods of the current version in both forms."""
    assert isinstance(default_cache, BaseCache)
    assert isinstance(caches["default"], QuickCache)
    for name in WRAPPED:
        assert is_ours(name) or name in ("decr", "incr_version", "decr_version")
        assert is_ours(f"a{name}"), f"a{name} would leave the event loop"
    theirs = {
        name
        for name, value in vars(BaseCache).items()
        if name.startswith("a") and asyncio.iscoroutinefunction(value)
    }
    assert all(map(is_ours, theirs))


def is_ours(name: str) -> bool:
    """Whether a method isn't the one that Django's caches inherit."""
    return getattr(QuickCache, name) is not getattr(BaseCache, name, None)
