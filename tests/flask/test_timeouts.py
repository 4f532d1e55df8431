"""What a timeout means: None the default, 0 no end, negative keeps nothing, fractions count."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from quickcache_core.testing import ManualClock
from quickcache_flask import QuickCache

Write = Callable[[QuickCache, Any], object]
WRITES: dict[str, Write] = {
    "set": lambda backend, timeout: backend.set("key", "value", timeout),
    "add": lambda backend, timeout: backend.add("key", "value", timeout),
    "set_many": lambda backend, timeout: backend.set_many({"key": "value"}, timeout),
}
every_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)


@every_write
@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [
        (None, 300),
        (1, 1),
        (0.25, 0.25),
        (timedelta(milliseconds=50), 0.05),
        (timedelta(days=1), 86400),
        (True, 1),
    ],
)
def test_entry_lives_as_long_as_its_timeout(
    backend: QuickCache, clock: ManualClock, write: Write, timeout: Any, seconds: float
) -> None:
    """An entry is there until its timeout is over, to the fraction of a second; None is the default."""
    assert write(backend, timeout)
    clock.advance(seconds * 0.99)
    assert backend.get("key") == "value"
    clock.advance(seconds * 0.02)
    assert backend.get("key") is None
    assert not backend.has("key")


@every_write
@pytest.mark.parametrize("timeout", [0, 0.0, timedelta(0), float("inf")])
def test_zero_is_never(backend: QuickCache, clock: ManualClock, write: Write, timeout: Any) -> None:
    """An entry with timeout 0 has no end."""
    assert write(backend, timeout)
    clock.advance(1e9)
    assert backend.get("key") == "value"
    assert backend.engine.ttl("key") is None


@every_write
@pytest.mark.parametrize("timeout", [-1, -0.001, timedelta(seconds=-1), float("-inf")])
def test_negative_keeps_nothing(backend: QuickCache, write: Write, timeout: Any) -> None:
    """With a negative timeout nothing is stored; the operation counts as done."""
    assert write(backend, timeout)
    assert not backend.has("key")
    assert backend.engine.size() == 0


@pytest.mark.parametrize("write", [WRITES["set"], WRITES["set_many"]])
def test_negative_removes_an_older_entry(backend: QuickCache, write: Write) -> None:
    """Overwriting with a negative timeout removes what was there."""
    backend.set("key", "old")
    assert write(backend, -1)
    assert backend.get("key") is None


def test_add_with_negative_leaves_an_older_entry(backend: QuickCache) -> None:
    """`add` never touches an entry that is there."""
    backend.set("key", "old")
    assert not backend.add("key", "new", -1)
    assert backend.get("key") == "old"


@every_write
@pytest.mark.parametrize("timeout", ["5", ..., [], float("nan")], ids=repr)
def test_what_is_no_timeout(backend: QuickCache, write: Write, timeout: Any) -> None:
    """Anything else raises TypeError, as cachelib does, says what is accepted, and stores nothing."""
    with pytest.raises(TypeError, match=r"timeout=.*give seconds or a timedelta, 0 for no end"):
        write(backend, timeout)
    assert backend.engine.size() == 0


@pytest.mark.parametrize(
    ("setting", "seconds"), [(7, 7), (0.5, 0.5), ("7", 7), (timedelta(seconds=1.5), 2), (0, None)]
)
def test_default_timeout(make_backend: Any, clock: ManualClock, setting: Any, seconds: float | None) -> None:
    """CACHE_DEFAULT_TIMEOUT: seconds, 0 for no end. Flask-Caching itself rounds up timedeltas."""
    backend = make_backend(CACHE_DEFAULT_TIMEOUT=setting)
    assert backend.default_timeout == (seconds or 0)
    backend.set("key", "value")
    assert backend.inc("number") == 1
    assert backend.engine.ttl("key") == backend.engine.ttl("number") == seconds


def test_default_timeout_can_change(backend: QuickCache, clock: ManualClock) -> None:
    """`default_timeout` can be assigned to, as on any cachelib cache, and counts from the next write."""
    backend.default_timeout = 10
    backend.set("key", "value")
    backend.inc("number")
    backend.default_timeout = 0
    backend.add("for ever", "value")
    assert backend.default_timeout == 0
    clock.advance(11)
    assert backend.get_many("key", "number", "for ever") == [None, None, "value"]


def test_inc_keeps_the_end(backend: QuickCache, clock: ManualClock) -> None:
    """`inc` and `dec` change the number and not the time that it has left."""
    backend.set("number", 1, timeout=10)
    clock.advance(9)
    assert backend.inc("number") == 2
    assert backend.dec("number", 5) == -3
    assert backend.engine.ttl("number") == pytest.approx(1)
    clock.advance(1.5)
    assert backend.get("number") is None
    assert backend.inc("number") == 1
