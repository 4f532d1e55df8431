"""cachelib's interface: what each operation does and returns."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from quickcache_core import InvalidKey
from quickcache_flask import QuickCache


def test_set_get_has_delete(backend: QuickCache) -> None:
    """`set` is True, `get` gives the value or None, `delete` says whether there was something."""
    assert backend.get("key") is None
    assert not backend.has("key")
    assert backend.set("key", "value") is True
    assert backend.get("key") == "value"
    assert backend.has("key") is True
    assert backend.delete("key") is True
    assert backend.delete("key") is False
    assert backend.get("key") is None


def test_none_is_a_value(backend: QuickCache) -> None:
    """A cached None is told from a miss by `has`, and keeps `add` out."""
    assert backend.set("key", None)
    assert backend.get("key") is None
    assert backend.has("key")
    assert not backend.add("key", 1)


def test_add(backend: QuickCache) -> None:
    """`add` stores only where nothing is."""
    assert backend.add("key", 1) is True
    assert backend.add("key", 2) is False
    assert backend.get("key") == 1


def test_several_keys(backend: QuickCache) -> None:
    """`set_many` and `delete_many` return keys, `get_many` values in the keys' order, `get_dict` a dict."""
    assert backend.set_many({"a": 1, "b": [2]}) == ["a", "b"]
    assert backend.get_many("b", "nothing", "a", "a") == [[2], None, 1, 1]
    assert backend.get_dict("a", "nothing") == {"a": 1, "nothing": None}
    assert backend.delete_many("a", "nothing") == ["a", "nothing"]
    assert backend.get_many("a", "b") == [None, [2]]
    assert backend.get_many() == []
    assert backend.delete_many() == []
    assert backend.set_many({}) == []


def test_get_many_counts_a_get_per_key(backend: QuickCache) -> None:
    """Each key of a `get_many` is a hit or a miss; `has` is neither."""
    backend.set("a", 1)
    backend.get_many("a", "b")
    backend.has("a")
    figures = backend.engine.get_metrics_snapshot()
    assert (figures["gets"], figures["hits"], figures["misses"]) == (2, 1, 1)


@pytest.mark.parametrize("ignore", [True, False])
def test_absent_keys_count_as_deleted(make_backend: Any, ignore: bool) -> None:
    """`delete_many` of keys that aren't there is no failure, whatever CACHE_IGNORE_ERRORS says."""
    backend = make_backend(CACHE_IGNORE_ERRORS=ignore)
    assert backend.ignore_delete_many_errors is ignore
    assert backend.delete_many("nothing", "nowhere") == ["nothing", "nowhere"]


def test_clear(backend: QuickCache) -> None:
    """`clear` is True and leaves nothing."""
    backend.set_many({"a": 1, "b": 2})
    assert backend.clear() is True
    assert backend.engine.size() == 0


def test_inc_and_dec_begin_with_zero(backend: QuickCache) -> None:
    """A missing number begins with the delta, or with minus the delta for `dec`."""
    assert backend.inc("up") == 1
    assert backend.inc("up", 10) == 11
    assert backend.dec("down") == -1
    assert backend.dec("down", 10) == -11
    assert backend.inc("half", 0.5) == 0.5  # type: ignore[arg-type]
    assert backend.get_many("up", "down", "half") == [11, -11, 0.5]


def test_inc_of_what_is_no_number(backend: QuickCache) -> None:
    """`inc` of a text raises TypeError, and the text stays."""
    backend.set("key", "text")
    with pytest.raises(TypeError, match="key"):
        backend.inc("key")
    assert backend.get("key") == "text"


def test_threads_lose_no_increment(backend: QuickCache) -> None:
    """`inc` and `dec` are atomic, also where the number isn't there yet."""

    def work() -> None:
        for _ in range(2000):
            backend.inc("up", 2)
            backend.dec("down")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert backend.get_many("up", "down") == [32000, -16000]


def test_one_of_many_threads_adds(backend: QuickCache) -> None:
    """Of threads that `add` one key at the same time, exactly one succeeds."""
    barrier = threading.Barrier(8)
    added: list[list[bool]] = []

    def work() -> None:
        barrier.wait()
        added.append([backend.add(f"key {number}", number) for number in range(200)])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sum(column) for column in zip(*added, strict=True)] == [1] * 200


@pytest.mark.parametrize(("setting", "bound"), [(3, 3), (0, 500), (None, 500)])
def test_threshold_bounds(make_backend: Any, setting: Any, bound: int) -> None:
    """There are never more entries than CACHE_THRESHOLD; 0 stands for 500, as in cachelib."""
    backend = make_backend(CACHE_THRESHOLD=setting)
    for number in range(bound + 100):
        backend.set(f"key {number}", number)
        assert backend.engine.size() <= bound
    assert backend.engine.size() == bound


def test_what_cannot_be_pickled(backend: QuickCache) -> None:
    """What has to be pickled and can't be raises PicklingError, as cachelib says; an older value stays."""
    backend.set("key", "old")
    for write in (
        lambda: backend.set("key", [lambda: 0]),
        lambda: backend.add("other", [lambda: 0]),
        lambda: backend.set_many({"a": 1, "key": [lambda: 0]}),
    ):
        with pytest.raises(pickle.PicklingError, match="can't be pickled"):
            write()
    assert backend.get_many("key", "other", "a") == ["old", None, None]


@pytest.mark.parametrize("key", [None, "", "dev"])
def test_no_secret_key(make_backend: Any, app: Flask, tmp_path: Path, key: str | None) -> None:
    """What would have to be signed can't be stored where others may read it; the error says what to set."""
    app.secret_key = key
    options = {"location": f"shared://{tmp_path}/cache", "max_bytes": 4_000_000}
    backend = make_backend(CACHE_OPTIONS=options)
    assert backend.set("plain", "text")
    for write in (
        lambda: backend.set("key", {"a": 1}),
        lambda: backend.add("key", {"a": 1}),
        lambda: backend.set_many({"key": {"a": 1}}),
        lambda: backend.get_or_set("key", lambda: {"a": 1}),
    ):
        with pytest.raises(pickle.PicklingError, match=r"set app\.secret_key, at least 16 bytes"):
            write()
    assert backend.get_many("plain", "key") == ["text", None]


@pytest.mark.parametrize("location", ["", "keys that are no strings"])
def test_key_that_is_no_string(make_backend: Any, location: str) -> None:
    """A key that is no string is refused in the same words with and without a prefix."""
    backend = make_backend(CACHE_QUICKCACHE_LOCATION=location)
    operations: list[Callable[[], object]] = [
        lambda: backend.get(1),
        lambda: backend.set(1, 1),
        lambda: backend.add(1, 1),
        lambda: backend.delete(1),
        lambda: backend.set_many({1: 1}),
        lambda: backend.inc(1),
    ]
    for operation in operations:
        with pytest.raises(InvalidKey, match="keys are strings, this is int"):
            operation()
    assert backend.engine.size() == 0


def test_no_figures_wanted(make_backend: Any) -> None:
    """Without metrics everything goes on as with them."""
    backend = make_backend(CACHE_OPTIONS={"enable_metrics": False})
    backend.set("key", 1)
    assert backend.get("key") == 1
    assert backend.engine.get_metrics_snapshot() == {}


def test_switched_off(make_backend: Any) -> None:
    """With `enabled=False` every read is a miss and no write fails."""
    backend = make_backend(CACHE_QUICKCACHE_ENABLED=False)
    assert backend.set("key", 1)
    assert backend.get("key") is None
    assert backend.set_many({"a": 1}) == ["a"]
    assert backend.get_many("a") == [None]
    assert backend.inc("number") == 1
    assert backend.inc("number") == 1
    assert backend.clear()
