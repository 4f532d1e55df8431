"""`quickcache_flask.memoize` and `delete_memoized`."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask
from flask_caching import Cache, cache_memoize_hit, cache_memoize_miss

from quickcache_core import UnstableArgument
from quickcache_core.testing import ManualClock
from quickcache_flask import QuickCache, delete_memoized, memoize

CACHE_TYPE = "quickcache_flask.QuickCache"

cache = Cache()
"""Initialised by each test, as in an application factory."""
other = Cache()

count = itertools.count(1)


@memoize(cache, 60)
def total(customer: Any, year: int = 2024) -> int:
    return next(count)


@memoize(other, 60)
def elsewhere(customer: Any) -> int:
    return next(count)


@memoize(cache, 60, unless=lambda customer: customer == 0)
async def atotal(customer: int) -> int:
    return next(count)


@dataclass(frozen=True)
class Shop:
    number: int

    @memoize(cache, 60)
    def price(self, article: str) -> int:
        return next(count)

    @memoize(cache, 60, ignore=("self",))
    def tax(self, article: str) -> int:
        return next(count)

    @memoize(cache, 60)
    @classmethod
    def best(cls, article: str) -> int:
        return next(count)

    @memoize(cache, 60)
    @staticmethod
    def cheapest(article: str) -> int:
        return next(count)


class Basket:
    @memoize(cache, 60)
    def sum(self) -> int:
        return next(count)


@pytest.fixture(autouse=True)
def _in_app(app: Flask, clock: ManualClock) -> Any:
    global count
    count = itertools.count(1)
    for each in (cache, other):
        each.init_app(app, {"CACHE_TYPE": CACHE_TYPE, "CACHE_QUICKCACHE_CLOCK": clock})
        each.enable_signals = False
    with app.app_context():
        yield


def test_calls_with_the_same_arguments(clock: ManualClock) -> None:
    """However they are given, and with their defaults, until the timeout."""
    assert [total(7), total(customer=7), total(7, 2024), total(7, year=2024)] == [1] * 4
    assert [total("7"), total(7, 2025)] == [2, 3]
    clock.advance(60)
    assert total(7) == 4


def test_deleting_one_result_or_all() -> None:
    """By the arguments of a call, or without any."""
    total(7), total(8)
    delete_memoized(total, customer=7)
    assert [total(7), total(8)] == [3, 2]
    delete_memoized(total)
    assert [total(7), total(8)] == [4, 5]
    total.delete_memoized()
    assert total(7) == 6


def test_methods() -> None:
    """Instances have results of their own, which can be deleted together."""
    one, two = Shop(1), Shop(2)
    assert [one.price("tea"), one.price("milk"), two.price("tea"), Shop(1).price("tea")] == [1, 2, 3, 1]
    delete_memoized(one.price, "tea")
    assert [one.price("tea"), one.price("milk"), two.price("tea")] == [4, 2, 3]
    delete_memoized(one.price)
    assert [one.price("tea"), one.price("milk"), two.price("tea")] == [5, 6, 3]
    delete_memoized(Shop.price)
    assert two.price("tea") == 7


def test_methods_whose_instances_do_not_count() -> None:
    """They share results, so an instance has none to delete."""
    assert [Shop(1).tax("tea"), Shop(2).tax("tea")] == [1, 1]
    with pytest.raises(TypeError, match="by instance"):
        delete_memoized(Shop(1).tax)
    delete_memoized(Shop(1).tax, "tea")
    assert Shop(2).tax("tea") == 2


def test_class_methods_and_static_methods() -> None:
    """Below the decorator."""
    assert [Shop.best("tea"), Shop(1).best("tea"), Shop.cheapest("tea"), Shop(1).cheapest("tea")] == [
        1,
        1,
        2,
        2,
    ]
    delete_memoized(Shop.best)
    delete_memoized(Shop.cheapest, "tea")
    assert [Shop.best("tea"), Shop.cheapest("tea")] == [3, 4]


def test_arguments_without_a_stable_key() -> None:
    """No key is ever made of an address."""
    with pytest.raises(UnstableArgument, match="customer"):
        total(object())
    with pytest.raises(UnstableArgument, match="self"):
        Basket().sum()


def test_coroutine_functions() -> None:
    """Awaited; a call for which `unless` gives something true goes past the cache."""

    async def ask() -> list[int]:
        return [await atotal(7), await atotal(7), await atotal(0), await atotal(0)]

    assert asyncio.run(ask()) == [1, 1, 2, 3]


def test_signals() -> None:
    """Those of Flask-Caching, where they are switched on."""
    cache.enable_signals = True
    told: list[Any] = []

    def hit(sender: Any, **more: Any) -> None:
        told.append(("hit", more["f"], more["args"], more["cache_key"]))

    def miss(sender: Any, **more: Any) -> None:
        told.append(("miss", more["f"], more["args"], more["cache_key"]))

    with cache_memoize_hit.connected_to(hit), cache_memoize_miss.connected_to(miss):
        total(7), total(7)
        asyncio.run(atotal(7)), asyncio.run(atotal(7)), asyncio.run(atotal(0))
    assert told == [
        ("miss", total.uncached, (7,), total.key(7)),
        ("hit", total.uncached, (7,), total.key(7)),
        ("miss", atotal.uncached, (7,), atotal.key(7)),
        ("hit", atotal.uncached, (7,), atotal.key(7)),
    ]


def test_several_apps_and_caches(app: Flask, clock: ManualClock) -> None:
    """Each app has results of its own, and so has each cache of an app."""
    second = Flask("second")
    cache.init_app(second, {"CACHE_TYPE": CACHE_TYPE, "CACHE_QUICKCACHE_CLOCK": clock})
    assert [total(7), elsewhere(7)] == [1, 2]
    with second.app_context():
        assert total(7) == 3
        delete_memoized(total)
    assert [total(7), elsewhere(7)] == [1, 2]
    backends = app.extensions["cache"]
    assert isinstance(backends[cache], QuickCache)
    assert backends[cache].engine.size() == backends[other].engine.size() == 1


def test_deleting_what_is_not_memoized() -> None:
    """The error says what to give."""
    with pytest.raises(TypeError, match="memoize"):
        delete_memoized(len)
