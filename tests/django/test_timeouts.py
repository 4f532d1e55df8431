from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from quickcache_core.testing import ManualClock
from quickcache_django import QuickCache

DAYS_31 = 31 * 24 * 3600


def test_no_timeout_given(make_cache: Any, clock: ManualClock) -> None:
    """An entry lives for the alias's TIMEOUT, 300 seconds by default."""
    cache = make_cache()
    assert cache.default_timeout == 300
    cache.set("k", 1)
    clock.advance(299.9)
    assert cache.get("k") == 1
    clock.advance(0.1)
    assert cache.get("k") is None


@pytest.mark.parametrize("setting", [60, "60", 60.0, " 60 "])
def test_timeout_setting(make_cache: Any, clock: ManualClock, setting: Any) -> None:
    """TIMEOUT may be a number or a string that Django reads as one."""
    cache = make_cache(TIMEOUT=setting)
    assert cache.default_timeout == 60
    cache.set("k", 1)
    cache.set_many({"m": 1})
    cache.add("a", 1)
    cache.set("t", 1, 1)
    assert cache.touch("t") is True
    clock.advance(59.9)
    assert cache.get_many("kmat") == {"k": 1, "m": 1, "a": 1, "t": 1}
    clock.advance(0.1)
    assert cache.get_many("kmat") == {}


def test_lower_case_timeout(make_cache: Any) -> None:
    """The old spelling, which Django's BaseCache still reads, works."""
    assert make_cache(timeout=7).default_timeout == 7


def test_timeout_setting_with_a_fraction(make_cache: Any, clock: ManualClock) -> None:
    """Half a second is half a second, not none at all."""
    cache = make_cache(TIMEOUT=0.5)
    cache.set("k", 1)
    clock.advance(0.4)
    assert cache.get("k") == 1
    clock.advance(0.1)
    assert cache.get("k") is None


def test_timeout_setting_none(make_cache: Any, clock: ManualClock) -> None:
    """TIMEOUT None: entries have no end."""
    cache = make_cache(TIMEOUT=None)
    cache.set("k", 1)
    clock.advance(1e9)
    assert cache.get("k") == 1
    assert cache.default_timeout is None
    assert cache.get_backend_timeout() is None


@pytest.mark.parametrize("setting", [0, -1, "0"])
def test_timeout_setting_of_nothing(make_cache: Any, setting: Any) -> None:
    """TIMEOUT 0 keeps nothing, unless a call asks for it."""
    cache = make_cache(TIMEOUT=setting)
    cache.set("k", 1)
    assert cache.add("a", 1) is True
    cache.set_many({"m": 1})
    assert cache.get_many("kam") == {}
    cache.set("k", 1, 5)
    assert cache.get("k") == 1


@pytest.mark.parametrize("timeout", [0, -1, -0.5, 0.0])
def test_timeout_of_nothing(cache: QuickCache, timeout: float) -> None:
    """0 and below: nothing is stored, and what was there goes."""
    for key in ("set", "many", "touch", "add"):
        cache.set(key, "old")
    cache.set("set", "new", timeout)
    assert cache.set_many({"many": "new"}, timeout) == []
    assert cache.touch("touch", timeout) is True
    assert cache.touch("nobody", timeout) is False
    assert cache.add("add", "new", timeout) is False
    assert cache.get_many(["set", "many", "touch", "add"]) == {"add": "old"}
    assert cache.add("nobody", "new", timeout) is True
    assert "nobody" not in cache


def test_timeout_none(cache: QuickCache, clock: ManualClock) -> None:
    """None: no end, for all that take a timeout."""
    cache.set("set", 1, None)
    cache.add("add", 1, None)
    cache.set_many({"many": 1}, None)
    cache.set("touch", 1, 1)
    assert cache.touch("touch", None) is True
    assert cache.get_or_set("or", 1, None) == 1
    clock.advance(1e9)
    assert cache.get_many(["set", "add", "many", "touch", "or"]) == dict.fromkeys(
        ["set", "add", "many", "touch", "or"], 1
    )


def test_float_timeout_is_kept(cache: QuickCache, clock: ManualClock) -> None:
    """Fractions of a second count."""
    cache.set("k", 1, 0.25)
    clock.advance(0.2)
    assert cache.get("k") == 1
    clock.advance(0.05)
    assert cache.get("k") is None


@pytest.mark.parametrize("timeout", [DAYS_31, float("inf"), 1e300])
def test_very_long_timeout(cache: QuickCache, clock: ManualClock, timeout: float) -> None:
    """More than 30 days is a duration, not a date as memcached has it."""
    cache.set("k", 1, timeout)
    clock.advance(DAYS_31 - 1)
    assert cache.get("k") == 1


@pytest.mark.parametrize("timeout", ["5", timedelta(seconds=5), object()])
def test_timeout_that_is_no_number(cache: QuickCache, timeout: Any) -> None:
    """As in LocMemCache, a TypeError."""
    with pytest.raises(TypeError):
        cache.set("k", 1, timeout)


def test_default_timeout_changed_on_the_object(cache: QuickCache, clock: ManualClock) -> None:
    """`default_timeout` may be set on a living object."""
    cache.default_timeout = 5
    cache.set("k", 1)
    clock.advance(5)
    assert cache.get("k") is None
    cache.default_timeout = 0
    cache.set("k", 1)
    assert cache.get("k") is None
    cache.default_timeout = None
    cache.set("k", 1)
    clock.advance(1e6)
    assert cache.get("k") == 1


def test_incr_keeps_the_expiry(cache: QuickCache, clock: ManualClock) -> None:
    """incr and decr change the value, not the time it has left."""
    cache.set("n", 1, 10)
    clock.advance(6)
    assert cache.incr("n", 5) == 6
    assert cache.decr("n", 2) == 4
    clock.advance(3.9)
    assert cache.get("n") == 4
    clock.advance(0.1)
    assert cache.get("n") is None


def test_incr_version_gives_the_default_timeout(cache: QuickCache, clock: ManualClock) -> None:
    """As in Django: the value is stored anew under the other version."""
    cache.set("k", 1, 10)
    assert cache.incr_version("k") == 2
    clock.advance(299)
    assert cache.get("k", version=2) == 1
