"""What a caller does with a value never changes the cache."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

import pytest
from flask import Response
from markupsafe import Markup

from quickcache_flask import QuickCache


@dataclass
class Basket:
    fruits: list[str] = field(default_factory=list)


def flat_list() -> list[Any]:
    return [1, "two"]


def nested() -> dict[str, Any]:
    return {"fruits": ["apple"]}


def basket() -> Basket:
    return Basket(["apple"])


def spoil(value: Any) -> None:
    if isinstance(value, list):
        value.append("spoiled")
    elif isinstance(value, dict):
        value["fruits"].append("spoiled")
    else:
        value.fruits.append("spoiled")


@pytest.mark.parametrize("make", [flat_list, nested, basket])
@pytest.mark.parametrize("isolation", ["auto", "copy"])
def test_changes_outside_stay_outside(make_backend: Any, isolation: str, make: Any) -> None:
    """Neither changing what was stored nor changing what was read changes what is read next."""
    backend = make_backend(CACHE_OPTIONS={"isolation": isolation})
    stored = make()
    backend.set_many({"set_many": stored})
    backend.add("add", stored)
    backend.set("set", stored)
    spoil(stored)
    for key in ("set", "add", "set_many"):
        spoil(backend.get(key))
        spoil(backend.get_many(key)[0])
        assert backend.get(key) == make()


def test_shared_on_request(make_backend: Any) -> None:
    """With isolation "share" the object itself comes back."""
    backend = make_backend(CACHE_QUICKCACHE_ISOLATION="share")
    value = nested()
    backend.set("key", value)
    assert backend.get("key") is value


@pytest.mark.parametrize(
    "value",
    ["<p>", b"bytes", 1, 1.5, None, True, (1, ("two",)), Markup("<p>"), dt.date(2024, 1, 2)],
    ids=repr,
)
def test_what_cannot_change_is_not_copied(backend: QuickCache, value: Any) -> None:
    """Text, numbers, markup and the like come back as the very object."""
    backend.set("key", value)
    assert backend.get("key") is value


def test_further_immutable_types(make_backend: Any) -> None:
    """`immutable_types` come in addition to Markup."""
    backend = make_backend(CACHE_OPTIONS={"immutable_types": [Basket]})
    value, markup = basket(), Markup("<p>")
    backend.set_many({"value": value, "markup": markup})
    assert backend.get("value") is value
    assert backend.get("markup") is markup


def test_responses(backend: QuickCache) -> None:
    """A response, as a view may return it, comes back as another object with the same content."""
    backend.set("key", Response("body", status=201, headers={"X-Test": "1"}))
    read = backend.get("key")
    read.headers["X-Test"] = "2"
    assert (backend.get("key").data, backend.get("key").status_code) == (b"body", 201)
    assert backend.get("key").headers["X-Test"] == "1"
