"""The same calls to LocMemCache and to QuickCache must give the same answers."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

from django.core.cache import CacheKeyWarning
from django.core.cache.backends.locmem import LocMemCache
from hypothesis import given
from hypothesis import strategies as st

from quickcache_django import QuickCache

numbers = itertools.count()

keys = st.sampled_from(["a", "b", "c", "é", "a b", "", 1, "1", None])
versions = st.sampled_from([None, 1, 2])
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from("xyz"), st.lists(st.integers(), max_size=1), max_size=2),
    st.tuples(st.integers(), st.lists(st.text(max_size=1), max_size=1)),
)
timeouts = st.sampled_from([None, 300, 300.5, 0, -1, True])
several = st.lists(keys, max_size=4)
mappings = st.dictionaries(keys, values, max_size=4)
calls = st.one_of(
    st.tuples(st.just("get"), keys, values, versions),
    st.tuples(st.just("set"), keys, values, timeouts, versions),
    st.tuples(st.just("set"), keys, values),
    st.tuples(st.just("add"), keys, values, timeouts, versions),
    st.tuples(st.just("touch"), keys, timeouts, versions),
    st.tuples(st.just("delete"), keys, versions),
    st.tuples(st.just("has_key"), keys, versions),
    st.tuples(st.just("incr"), keys, st.integers(-2, 2), versions),
    st.tuples(st.just("decr"), keys, st.integers(-2, 2), versions),
    st.tuples(st.just("incr_version"), keys, st.integers(0, 2), versions),
    st.tuples(st.just("decr_version"), keys, st.integers(0, 2), versions),
    st.tuples(st.just("get_or_set"), keys, values, timeouts, versions),
    st.tuples(st.just("get_many"), several, versions),
    st.tuples(st.just("set_many"), mappings, timeouts, versions),
    st.tuples(st.just("set_many"), mappings),
    st.tuples(st.just("delete_many"), several, versions),
    st.tuples(st.just("clear")),
)


def answer(cache: Any, call: tuple[Any, ...]) -> tuple[Any, list[str]]:
    """What a call returned or raised, and what it warned of."""
    name, *arguments = call
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", CacheKeyWarning)
        try:
            result = getattr(cache, name)(*arguments)
        except Exception as error:
            result = type(error), str(error) if isinstance(error, ValueError) else ""
    return result, [str(warning.message) for warning in warned]


class LocMem(LocMemCache):
    def _delete(self, key: str) -> bool:
        # LocMemCache says True of an entry that has expired and is still there; with ours it is gone.
        was_live = not self._has_expired(key)
        return super()._delete(key) and was_live


@given(st.lists(calls, max_size=25))
def test_same_answers(sequence: list[tuple[Any, ...]]) -> None:
    """Results, exceptions and warnings are those of LocMemCache, call by call."""
    number = next(numbers)
    params: dict[str, Any] = {"KEY_PREFIX": "p", "OPTIONS": {"MAX_ENTRIES": 1000}}
    theirs, ours = LocMem(f"like {number}", params), QuickCache(f"like {number}", params)
    for call in sequence:
        assert answer(ours, call) == answer(theirs, call), call
