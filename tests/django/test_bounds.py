from __future__ import annotations

from typing import Any

import pytest

from quickcache_django import QuickCache


def fill(cache: QuickCache, count: int) -> int:
    """Set so many keys; how many are left."""
    for number in range(count):
        cache.set(f"k{number}", number)
    return sum(cache.has_key(f"k{number}") for number in range(count))


def test_no_bound_given(make_cache: Any) -> None:
    """300 entries, Django's own default."""
    assert fill(make_cache(), 400) == 300


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"MAX_ENTRIES": 30}, 30),
        ({"MAX_ENTRIES": "30"}, 30),
        ({"MAX_ENTRIES": 30.0}, 30),
        ({"MAX_SIZE": 30}, 30),
        ({"MAX_ENTRIES": 30, "CULL_FREQUENCY": 3}, 29),
        ({"MAX_ENTRIES": 30, "CULL_FREQUENCY": "3"}, 29),
        ({"MAX_ENTRIES": 30, "CULL_FREQUENCY": 0}, 19),
        ({"MAX_ENTRIES": 30, "CULL_FREQUENCY": 1}, 19),
        ({"MAX_ENTRIES": 10e9}, 49),
    ],
)
def test_49_entries(make_cache: Any, options: dict[str, Any], left: int) -> None:
    """With CULL_FREQUENCY as many leave at once as in LocMemCache; without, one makes room for one."""
    assert fill(make_cache(options=options), 49) == left


@pytest.mark.parametrize("frequency", [0, 1, 2, 3, 7, 49])
def test_cull_frequency_is_exact(make_cache: Any, frequency: int) -> None:
    """One in N leaves, for every N: no share is lost to the rounding of floats. 0: all of them."""
    cache = make_cache(options={"MAX_ENTRIES": 49, "CULL_FREQUENCY": frequency})
    assert fill(cache, 49) == 49
    cache.set("more", 1)
    assert len(cache.engine) == 49 - 49 // (frequency or 1) + 1


def test_old_spelling_beside_backend(make_cache: Any) -> None:
    """max_entries and cull_frequency, which Django's BaseCache still reads, work."""
    assert fill(make_cache(max_entries=30, cull_frequency=3), 49) == 29


def test_limits_belong_to_the_alias(make_cache: Any) -> None:
    """Aliases with one LOCATION share the entries, and each keeps its own limit."""
    small, large = make_cache(options={"MAX_ENTRIES": 5}), make_cache(options={"MAX_ENTRIES": 50})
    assert fill(large, 20) == 20
    small.set("small", 1)
    assert len(small.engine) == 5
    assert small.get("small") == 1
    assert fill(large, 30) == 30


@pytest.mark.parametrize("limit", [-1, 0, 1])
def test_max_entries_changed_on_the_object(make_cache: Any, limit: int) -> None:
    """Django's tests set `_max_entries` to -1; whatever it is, what was just set is there."""
    cache = make_cache(options={"MAX_ENTRIES": 30, "CULL_FREQUENCY": 3})
    fill(cache, 10)
    cache._max_entries = limit
    cache.set("new", "value")
    assert cache.get("new") == "value"
    assert len(cache.engine) == 1
    cache._max_entries = 30
    assert fill(cache, 20) == 20


def test_max_entries_of_one_object(make_cache: Any) -> None:
    """`_max_entries` of one object is nothing to another of the same alias."""
    one, other = make_cache(), make_cache()
    one._max_entries = 2
    assert fill(one, 10) == 2
    assert fill(other, 10) == 10
    assert other._max_entries == 300
