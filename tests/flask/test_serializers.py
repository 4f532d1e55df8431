"""CACHE_SERIALIZER, and the `serializer` attribute of a backend."""

from __future__ import annotations

import pickle
from decimal import Decimal
from typing import Any

import pytest
from cachelib.serializers import BaseSerializer, JSONSerializer, SimpleSerializer

from quickcache_core import ConfigError
from quickcache_flask import QuickCache


class Counting(SimpleSerializer):
    """Pickles, and counts how often."""

    def __init__(self) -> None:
        self.dumped = self.loaded = 0

    def dumps(self, value: Any, protocol: int = pickle.HIGHEST_PROTOCOL) -> bytes | None:
        self.dumped += 1
        return super().dumps(value, protocol)

    def loads(self, bvalue: bytes) -> Any:
        self.loaded += 1
        return super().loads(bvalue)


def test_default(backend: QuickCache) -> None:
    """A backend looks as if it used cachelib's default serializer."""
    assert type(backend.serializer) is SimpleSerializer


@pytest.mark.parametrize("given", [JSONSerializer, JSONSerializer()], ids=["class", "instance"])
def test_values_go_through_the_serializer(make_backend: Any, given: Any) -> None:
    """The cache holds what `dumps` made of a value, however written; each read goes through `loads`."""
    backend = make_backend(CACHE_SERIALIZER=given)
    backend.set("set", (1, 2))
    backend.add("add", (1, 2))
    backend.set_many({"set_many": (1, 2)})
    for key in ("set", "add", "set_many"):
        assert backend.engine.get(key).data == b"[1, 2]"
        assert backend.engine.get(key) is backend.engine.get(key), "copied although nobody can change it"
        assert backend.get(key) == [1, 2]
    assert backend.get_many("set", "nothing", "add") == [[1, 2], None, [1, 2]]


def test_each_read_loads(make_backend: Any) -> None:
    """What is read can be changed without changing the cache; a miss loads nothing."""
    serializer = Counting()
    backend = make_backend(CACHE_SERIALIZER=serializer)
    backend.set("key", {"a": [1]})
    backend.get("key")["a"].append(2)
    assert backend.get("key") == {"a": [1]}
    assert backend.get("nothing") is None
    assert (serializer.dumped, serializer.loaded) == (1, 2)


def test_none_is_serialized_too(make_backend: Any) -> None:
    """None goes through the serializer, and is a value."""
    backend = make_backend(CACHE_SERIALIZER=JSONSerializer)
    assert backend.set("key", None)
    assert backend.engine.get("key").data == b"null"
    assert backend.get("key") is None
    assert backend.has("key")


def test_numbers_stay_numbers(make_backend: Any) -> None:
    """Ints and floats are kept as they are, so that `inc` and `dec` are atomic under a serializer too."""
    backend = make_backend(CACHE_SERIALIZER=Counting())
    backend.set("number", 5)
    assert backend.engine.get("number") == 5
    assert backend.inc("number") == 6
    assert backend.inc("new") == 1
    backend.set("share", 0.5)
    assert backend.inc("share") == 1.5
    assert backend.serializer.dumped == 0
    backend.set("amount", Decimal("1.5"))
    with pytest.raises(TypeError, match="amount"):
        backend.inc("amount")
    assert backend.get("amount") == Decimal("1.5")


@pytest.mark.filterwarnings("ignore")
def test_serializer_gives_up(make_backend: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Where cachelib's serializers log and return None, nothing is stored and nothing outdated stays."""
    backend = make_backend(CACHE_SERIALIZER=JSONSerializer)
    backend.set_many({"key": "old", "many": "old", "added": "old"})
    assert backend.set("key", object()) is False
    assert backend.set_many({"many": object(), "other": "new"}) == ["other"]
    assert backend.add("added", object()) is False
    assert backend.add("free", object()) is False
    assert backend.get_many("key", "many", "other", "added", "free") == [None, None, "new", "old", None]
    assert "not JSON serializable" in caplog.text


def test_replaced_while_in_use(backend: QuickCache) -> None:
    """Values from before a change of the serializer can be read after it, and the other way round."""
    backend.set("before", {"a": 1})
    serializer = Counting()
    backend.serializer = serializer
    backend.set("after", {"b": 2})
    assert backend.get_many("before", "after") == [{"a": 1}, {"b": 2}]
    assert (serializer.dumped, serializer.loaded) == (1, 1)
    backend.serializer = SimpleSerializer()
    assert backend.get_many("before", "after") == [{"a": 1}, {"b": 2}]


def test_with_isolation_copy(make_backend: Any) -> None:
    """A serializer copies already: with isolation "copy" it is an error at `init_app`."""
    with pytest.raises(ConfigError, match=r'^CACHE_SERIALIZER=.*leave out isolation="copy"'):
        make_backend(CACHE_SERIALIZER=JSONSerializer, CACHE_OPTIONS={"isolation": "copy"})


@pytest.mark.parametrize("isolation", ["auto", "share"])
def test_with_other_isolation(make_backend: Any, isolation: str) -> None:
    """With a serializer the other kinds of isolation make no difference."""
    backend = make_backend(CACHE_SERIALIZER=JSONSerializer, CACHE_OPTIONS={"isolation": isolation})
    backend.set("key", [1])
    backend.get("key").append(2)
    assert backend.get("key") == [1]


def test_snapshot_of_serialized_values(make_backend: Any, tmp_path: Any) -> None:
    """What a serializer made survives a snapshot."""
    backend = make_backend(
        CACHE_SERIALIZER=JSONSerializer, CACHE_OPTIONS={"storage_dir": tmp_path, "secret": "s" * 32}
    )
    backend.set_many({"key": {"a": 1}, "number": 5})
    path = backend.engine.save_to_disk()
    backend.clear()
    backend.engine.load_from_disk(path)
    assert backend.get_many("key", "number") == [{"a": 1}, 5]


def test_any_subclass_counts_as_custom(backend: QuickCache) -> None:
    """Only cachelib's own default is left out; whatever else is a serializer, and is used."""

    class Reversing(BaseSerializer):
        def dumps(self, value: Any, protocol: int = 0) -> bytes:
            return bytes(reversed(value.encode()))

        def loads(self, bvalue: bytes) -> Any:
            return bytes(reversed(bvalue)).decode()

    backend.serializer = Reversing()
    backend.set("key", "abc")
    assert backend.engine.get("key").data == b"cba"
    assert backend.get("key") == "abc"
