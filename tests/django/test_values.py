from __future__ import annotations

import pickle
import threading
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.http import HttpResponse
from django.utils.safestring import SafeString, mark_safe
from django.utils.timezone import now

from quickcache_core import SerializationError
from quickcache_core.testing import ManualClock
from quickcache_django import QuickCache


class Box:
    def __init__(self, content: Any) -> None:
        self.content = content


class Unpicklable:
    def __getstate__(self) -> Any:
        raise pickle.PicklingError("not this one")


def explode() -> Any:
    raise LookupError("gone")


class Treacherous:
    """Can be pickled, and not be loaded again."""

    def __reduce__(self) -> Any:
        return explode, ()


def test_changing_what_get_returned(cache: QuickCache) -> None:
    """A value that is taken out and changed stays as it was in the cache, however deep the change."""
    values: list[Any] = [{"a": [1]}, [1, [2]], {1, 2}, Box([1])]
    cache.set_many({f"k{number}": value for number, value in enumerate(values)})
    values[0]["a"].append(2)
    values[1].append(3)
    values[2].add(3)
    values[3].content.append(2)
    for _ in range(2):
        assert cache.get("k0") == {"a": [1]}
        assert cache.get_many(["k1", "k2"]) == {"k1": [1, [2]], "k2": {1, 2}}
        assert cache.get("k3").content == [1]
        cache.get("k0")["a"].append(2)
        cache.get("k1")[1].append(3)
        cache.get_many(["k2"])["k2"].add(3)
        cache.get("k3").content.append(2)


def test_safe_string(cache: QuickCache) -> None:
    """Text that Django marked as safe is safe when it comes back, and is not copied."""
    text = mark_safe("<b>")
    cache.set("k", text)
    cache.set("page", {"html": text})
    assert cache.get("k") is text
    assert type(cache.get("page")["html"]) is SafeString


def test_more_immutable_types(make_cache: Any) -> None:
    """IMMUTABLE_TYPES are added to SafeString, not put in its place."""
    cache = make_cache(options={"IMMUTABLE_TYPES": [Box]})
    box, text = Box(1), mark_safe("<b>")
    cache.set_many({"box": box, "text": text})
    assert cache.get("box") is box
    assert cache.get("text") is text


def test_response(cache: QuickCache) -> None:
    """A response comes back with its headers and cookies, as the cache middleware needs it."""
    response = HttpResponse("body", headers={"X-Answer": "42"})
    response.set_cookie("c", "v")
    cache.set("k", response)
    found = cache.get("k")
    assert found is not response
    assert (found.content, found["X-Answer"], found.cookies["c"].value) == (b"body", "42", "v")


def test_none_is_a_value(cache: QuickCache) -> None:
    """A cached None is a hit, everywhere."""
    cache.set("k", None)
    assert cache.get("k", "default") is None
    assert cache.get_many(["k"]) == {"k": None}
    assert "k" in cache
    assert cache.add("k", 1) is False
    assert cache.get_or_set("k", "default") is None


def local() -> Any:
    class Local:
        pass

    return Local()


@pytest.mark.parametrize("value", [Unpicklable(), threading.Lock(), local(), [threading.Lock()]])
def test_what_cannot_be_pickled(cache: QuickCache, value: Any) -> None:
    """What pickle raised reaches the caller, as from LocMemCache, and an old value stays."""
    with pytest.raises(Exception) as expected:  # noqa: PT011 - the oracle
        pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    cache.set("k", "old")
    for store in (
        lambda: cache.set("k", value),
        lambda: cache.add("new", value),
        lambda: cache.set_many({"k": "new", "m": value}),
        lambda: cache.get_or_set("new", value),
    ):
        with pytest.raises(type(expected.value)) as raised:
            store()
        assert str(raised.value) == str(expected.value)
    assert cache.get_many(["k", "new", "m"]) == {"k": "old"}


def test_what_cannot_be_loaded(cache: QuickCache) -> None:
    """The error of the value's own class reaches whoever reads it."""
    cache.set("k", Treacherous())
    with pytest.raises(LookupError, match="gone"):
        cache.get("k")
    with pytest.raises(LookupError, match="gone"):
        cache.get_many(["k"])


def test_serializer_that_refuses(make_cache: Any) -> None:
    """With ISOLATION "copy" and JSON, a refusal names the type and what to do."""
    cache = make_cache(options={"ISOLATION": "copy", "SERIALIZER": "json"})
    cache.set("k", {"a": [1]})
    assert cache.get("k") == {"a": [1]}
    with pytest.raises(SerializationError, match="tuple"):
        cache.set("k", (1, 2))


def test_isolation_share(make_cache: Any) -> None:
    """ISOLATION "share" hands out the very object."""
    cache = make_cache(options={"ISOLATION": "share"})
    box = Box(threading.Lock())
    cache.set("k", box)
    assert cache.get("k") is box


def test_queryset(cache: QuickCache, database: None) -> None:
    """A queryset is evaluated once, when it is stored."""
    sessions = Session.objects.all()
    cache.set("k", sessions)
    sessions.create(session_key="later", expire_date=now())
    assert "later" in {session.session_key for session in Session.objects.all()}
    assert "later" not in {session.session_key for session in cache.get("k")}


@pytest.mark.parametrize("value", ["text", None, [1], {"a": 1}])
def test_incr_of_what_is_no_number(cache: QuickCache, value: Any) -> None:
    """TypeError, as in LocMemCache."""
    cache.set("k", value)
    with pytest.raises(TypeError):
        cache.incr("k")
    assert cache.get("k") == value


def test_incr_of_a_missing_key(cache: QuickCache, clock: ManualClock) -> None:
    """ValueError in Django's words, for one that never was and one that expired."""
    cache.set("expired", 1, 1)
    clock.advance(1)
    for key in ("never", "expired"):
        for operation in (cache.incr, cache.decr):
            with pytest.raises(ValueError, match=f"^Key ':1:{key}' not found$"):
                operation(key)
        for operation in (cache.incr_version, cache.decr_version):
            with pytest.raises(ValueError, match=f"^Key '{key}' not found$"):
                operation(key)


def test_incr_by_something_else(cache: QuickCache) -> None:
    """Floats, negative numbers and numbers beyond 64 bits."""
    cache.set("n", 2**63)
    assert cache.incr("n", 2**63) == 2**64
    assert cache.decr("n", 2**64) == 0
    assert cache.incr("n", 0.5) == 0.5
    assert cache.incr("n", -1) == -0.5
