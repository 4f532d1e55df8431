"""What each operation does: single keys, numbers, bulk, the whole cache, durations, coroutines."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import pickle
import weakref
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from quickcache_core import (
    MISSING,
    NEVER,
    CacheMiss,
    ConfigError,
    EventKind,
    InvalidKey,
    InvalidTTL,
    KeyAlreadyExists,
    KeyExpired,
    KeyNotFound,
    QuickCache,
    QuickCacheConfig,
    SerializationError,
)
from quickcache_core.testing import ManualClock

ISOLATIONS = ("share", "auto", "copy")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=ISOLATIONS)
def cache(request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[QuickCache]:
    """One cache per isolation: what an operation does must not depend on how values are kept."""
    config = QuickCacheConfig(default_ttl=60, isolation=request.param, clock=clock)
    with QuickCache(config) as cache:
        yield cache


def expire(cache: QuickCache, clock: ManualClock, key: str) -> None:
    """Leave an entry under `key` whose TTL has ended."""
    cache.set(key, "old", ttl_sec=1)
    clock.advance(1)


class TestGet:
    def test_stored_value(self, cache: QuickCache) -> None:
        """What was stored comes back."""
        cache.set("k", {"a": [1, 2.5, "x", None, True]})
        assert cache.get("k") == {"a": [1, 2.5, "x", None, True]}

    def test_missing_key(self, cache: QuickCache) -> None:
        """Without a default a miss raises, and the error names the key."""
        with pytest.raises(KeyNotFound, match="nothing") as caught:
            cache.get("nothing")
        assert caught.value.key == "nothing"

    def test_expired_key(self, cache: QuickCache, clock: ManualClock) -> None:
        """An entry past its TTL raises KeyExpired as long as it was not swept, KeyNotFound afterwards."""
        expire(cache, clock, "k")
        with pytest.raises(KeyExpired, match="k"):
            cache.get("k")
        with pytest.raises(KeyNotFound):
            cache.get("k")

    def test_both_misses_are_one_family(self, cache: QuickCache, clock: ManualClock) -> None:
        """One `except` clause takes both: CacheMiss, or KeyError as with a dictionary."""
        expire(cache, clock, "k")
        with pytest.raises(CacheMiss):
            cache.get("k")
        with pytest.raises(KeyError):
            cache.get("nothing")

    @pytest.mark.parametrize("default", [None, 0, "", [], MISSING.__class__])
    def test_default(self, cache: QuickCache, clock: ManualClock, default: Any) -> None:
        """With a default nothing is raised, and the default itself is returned."""
        expire(cache, clock, "k")
        assert cache.get("k", default) is default
        assert cache.get("nothing", default=default) is default

    @pytest.mark.parametrize("value", [None, 0, False, "", [], {}])
    def test_falsy_values_are_hits(self, cache: QuickCache, value: Any) -> None:
        """None and other falsy values are cached like any other value, everywhere."""
        cache.set("k", value)
        default = object()
        assert cache.get("k") == value
        assert cache.get("k", default) == value
        assert cache.get_many(["k"]) == {"k": value}
        assert "k" in cache
        assert not cache.add("k", 1, exist_ok=True)
        assert cache.pop("k", default) == value

    @pytest.mark.parametrize("key", ["", " ", "ключ", "k" * 10_000, "a\0b", "\ud800", "new\nline"])
    def test_any_string_is_a_key(self, cache: QuickCache, key: str) -> None:
        """Keys may be of any length and content, the empty one included."""
        cache.set(key, 1)
        assert cache.get(key) == 1
        assert list(cache.keys()) == [key]

    def test_subclass_of_str_is_a_key(self, cache: QuickCache) -> None:
        """A str subclass, as template engines hand out, means the same key as the plain string."""

        class Markup(str):
            __slots__ = ()

        cache.set(Markup("k"), 1)
        assert cache.get("k") == 1
        assert cache.get(Markup("k"), None) == 1
        assert cache.get(Markup("x"), None) is None


class TestSet:
    def test_overwrite(self, cache: QuickCache) -> None:
        """The last value wins, and there is one entry."""
        cache.set("k", 1)
        cache.set("k", 2)
        assert cache.get("k") == 2
        assert len(cache) == 1

    def test_overwrite_gives_a_new_ttl(self, cache: QuickCache, clock: ManualClock) -> None:
        """A write starts the TTL anew, longer or shorter than the old one."""
        for old, new in ((100, 10), (10, 100), (NEVER, 10), (10, NEVER)):
            cache.set("k", 1, ttl_sec=old)
            cache.set("k", 1, ttl_sec=new)
            assert cache.ttl("k") == (None if new is NEVER else pytest.approx(new))
        cache.set("k", 1, ttl_sec=100)
        cache.set("k", 2, ttl_sec=10)
        clock.advance(10)
        assert "k" not in cache

    def test_overwrite_of_an_expired_entry(self, cache: QuickCache, clock: ManualClock) -> None:
        """An expired entry is no obstacle and leaves no trace."""
        expire(cache, clock, "k")
        cache.set("k", "new")
        assert cache.get("k") == "new"
        assert len(cache) == 1


class TestAddAndUpdate:
    def test_add_to_nothing(self, cache: QuickCache, clock: ManualClock) -> None:
        """`add` stores where nothing live is, an expired entry counting as nothing."""
        assert cache.add("k", 1) is True
        expire(cache, clock, "old")
        assert cache.add("old", 2) is True
        assert cache.get_many(["k", "old"]) == {"k": 1, "old": 2}

    def test_add_to_a_live_value(self, cache: QuickCache) -> None:
        """`add` never overwrites: it raises, or returns False with exist_ok; the value and its TTL stay."""
        cache.set("k", 1, ttl_sec=5)
        with pytest.raises(KeyAlreadyExists, match="k") as caught:
            cache.add("k", 2, ttl_sec=50)
        assert caught.value.key == "k"
        assert cache.add("k", 2, 50, exist_ok=True) is False
        assert cache.get("k") == 1
        assert cache.ttl("k") == pytest.approx(5)

    def test_update_of_a_live_value(self, cache: QuickCache) -> None:
        """`update` replaces the value and starts the TTL anew."""
        cache.set("k", 1, ttl_sec=5)
        cache.update("k", 2)
        assert cache.get("k") == 2
        assert cache.ttl("k") == pytest.approx(60)
        cache.update("k", 3, ttl_sec=7)
        assert cache.ttl("k") == pytest.approx(7)

    def test_update_of_nothing(self, cache: QuickCache, clock: ManualClock) -> None:
        """`update` never inserts: KeyNotFound or KeyExpired."""
        with pytest.raises(KeyNotFound):
            cache.update("k", 1)
        expire(cache, clock, "old")
        with pytest.raises(KeyExpired):
            cache.update("old", 1)
        assert len(cache) == 0


class TestDeleteAndPop:
    def test_delete(self, cache: QuickCache) -> None:
        """`delete` removes and says so."""
        cache.set("k", 1)
        assert cache.delete("k") is True
        assert "k" not in cache
        assert len(cache) == 0

    def test_delete_of_nothing(self, cache: QuickCache, clock: ManualClock) -> None:
        """Nothing live to delete: raises, or returns False with missing_ok."""
        with pytest.raises(KeyNotFound):
            cache.delete("k")
        expire(cache, clock, "old")
        with pytest.raises(KeyExpired):
            cache.delete("old")
        expire(cache, clock, "old")
        assert cache.delete("old", missing_ok=True) is False
        assert cache.delete("k", missing_ok=True) is False

    def test_pop(self, cache: QuickCache, clock: ManualClock) -> None:
        """`pop` hands the value out and removes it; the second one finds nothing."""
        cache.set("k", [1])
        assert cache.pop("k") == [1]
        with pytest.raises(KeyNotFound):
            cache.pop("k")
        assert cache.pop("k", None) is None
        assert cache.pop("k", default="d") == "d"
        expire(cache, clock, "old")
        with pytest.raises(KeyExpired):
            cache.pop("old")


class TestTouchAndTTL:
    def test_seconds_left(self, cache: QuickCache, clock: ManualClock) -> None:
        """`ttl` says what is left, and None for an entry without an end."""
        cache.set("k", 1, ttl_sec=10)
        clock.advance(4)
        assert cache.ttl("k") == pytest.approx(6)
        cache.set("forever", 1, ttl_sec=NEVER)
        clock.advance(1e9)
        assert cache.ttl("forever") is None

    def test_nothing_to_ask_for(self, cache: QuickCache, clock: ManualClock) -> None:
        """`ttl` and `touch` of nothing live raise as `get` does; `touch` can be told not to."""
        for operation in (cache.ttl, cache.touch):
            with pytest.raises(KeyNotFound):
                operation("k")
            expire(cache, clock, "old")
            with pytest.raises(KeyExpired):
                operation("old")
        expire(cache, clock, "old")
        assert cache.touch("old", missing_ok=True) is False
        assert cache.touch("k", 5, missing_ok=True) is False

    def test_touch_begins_anew(self, cache: QuickCache, clock: ManualClock) -> None:
        """`touch` counts from now, with the default TTL or the one given, shorter ones included."""
        cache.set("k", "value", ttl_sec=10)
        clock.advance(9)
        assert cache.touch("k") is True
        assert cache.ttl("k") == pytest.approx(60)
        cache.touch("k", ttl_sec=NEVER)
        assert cache.ttl("k") is None
        cache.touch("k", 2)
        clock.advance(2)
        assert cache.get("k", None) is None

    def test_put_off_again_and_again(self, cache: QuickCache, clock: ManualClock) -> None:
        """An entry whose end is put off before it comes never leaves, and ends when that stops."""
        cache.set("k", 1, ttl_sec=1)
        for _ in range(200):
            clock.advance(0.9)
            cache.touch("k", 1)
            cache.cleanup()
        assert cache.get("k") == 1
        clock.advance(1)
        assert "k" not in cache


class TestNumbers:
    def test_incr_and_decr(self, cache: QuickCache) -> None:
        """The new number is stored and returned."""
        cache.set("n", 10)
        assert cache.incr("n") == 11
        assert cache.incr("n", 5) == 16
        assert cache.decr("n") == 15
        assert cache.decr("n", delta=20) == -5
        assert cache.incr("n", -1) == -6
        assert cache.get("n") == -6

    def test_the_end_stays(self, cache: QuickCache, clock: ManualClock) -> None:
        """Counting keeps the deadline, whatever ttl_sec says: that one is for a new entry."""
        cache.set("n", 1, ttl_sec=10)
        clock.advance(4)
        cache.incr("n", ttl_sec=100)
        cache.decr("n", ttl_sec=100)
        assert cache.ttl("n") == pytest.approx(6)
        clock.advance(6)
        with pytest.raises(KeyExpired):
            cache.incr("n")
        cache.set("forever", 1, ttl_sec=NEVER)
        cache.incr("forever")
        assert cache.ttl("forever") is None

    def test_nothing_to_count_from(self, cache: QuickCache) -> None:
        """Without `initial`, KeyNotFound, and nothing is stored."""
        with pytest.raises(KeyNotFound):
            cache.incr("n")
        with pytest.raises(KeyNotFound):
            cache.decr("n", 2)
        assert len(cache) == 0

    def test_initial(self, cache: QuickCache, clock: ManualClock) -> None:
        """With `initial`, a missing or expired entry begins at initial + delta, with ttl_sec."""
        assert cache.incr("n", initial=0, ttl_sec=5) == 1
        assert cache.ttl("n") == pytest.approx(5)
        assert cache.incr("n", initial=100) == 2
        clock.advance(5)
        assert cache.decr("n", 3, initial=10) == 7
        assert cache.ttl("n") == pytest.approx(60)

    @pytest.mark.parametrize("number", [1.5, 10**30])
    def test_kinds_of_numbers(self, cache: QuickCache, number: Any) -> None:
        """Floats and integers of any size count on."""
        cache.set("n", number)
        assert cache.incr("n", 1) == number + 1
        assert cache.incr("n", 0.5) == number + 1 + 0.5

    @pytest.mark.parametrize("number", [Decimal("1.10"), Fraction(1, 3)])
    def test_exact_numbers(self, clock: ManualClock, number: Any) -> None:
        """Decimal and Fraction stay what they are."""
        for isolation in ("share", "auto"):
            cache = QuickCache(QuickCacheConfig(clock=clock, isolation=isolation))
            cache.set("n", number)
            assert cache.incr("n", number) == 2 * number
            assert type(cache.get("n")) is type(number)

    @pytest.mark.parametrize("policy", ["lru", "lfu", "lfuda", "sieve"])
    @pytest.mark.parametrize("number", [1, Decimal(1)])
    def test_counting_is_a_use(self, clock: ManualClock, policy: str, number: Any) -> None:
        """A number that is counted up is in use: something else leaves when the cache is full."""
        cache = QuickCache(QuickCacheConfig(max_size=2, eviction_policy=policy, clock=clock))
        cache.set("n", number)
        cache.set("k", 1)
        cache.incr("n")
        cache.set("new", 1)
        assert sorted(cache) == ["n", "new"]

    @pytest.mark.parametrize("value", ["text", None, [1], {"a": 1}])
    def test_no_number(self, cache: QuickCache, value: Any) -> None:
        """A value that is no number raises TypeError, which names the key, and stays."""
        cache.set("k", value)
        with pytest.raises(TypeError, match="'k'"):
            cache.incr("k")
        with pytest.raises(TypeError, match="'k'"):
            cache.decr("k")
        assert cache.get("k") == value


class TestSeveralKeys:
    def test_get_many(self, cache: QuickCache, clock: ManualClock) -> None:
        """The hits only, in any iterable of keys, doubles once."""
        expire(cache, clock, "old")
        cache.set_many({"a": 1, "b": None})
        assert cache.get_many(["a", "b", "old", "nothing", "a"]) == {"a": 1, "b": None}
        assert cache.get_many(key for key in "ab") == {"a": 1, "b": None}
        assert cache.get_many({"a": "ignored"}) == {"a": 1}
        assert cache.get_many([]) == {}

    def test_set_many(self, cache: QuickCache) -> None:
        """All with one TTL."""
        cache.set("a", 0)
        cache.set_many({"a": 1, "b": 2}, ttl_sec=5)
        assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
        assert cache.ttl("a") == cache.ttl("b") == pytest.approx(5)
        cache.set_many(data={"c": 3})
        assert cache.ttl("c") == pytest.approx(60)
        cache.set_many({})

    @pytest.mark.parametrize("count", [255, 256, 257, 700])
    def test_many_more_than_one_hold_of_the_lock(self, clock: ManualClock, count: int) -> None:
        """Nothing is lost where work is done in slices."""
        cache = QuickCache(QuickCacheConfig(clock=clock, max_size=1000))
        values = {str(number): number for number in range(count)}
        cache.set_many(values)
        assert cache.get_many(values) == values
        assert cache.delete_many(values) == count
        assert len(cache) == 0

    def test_set_many_is_all_or_nothing_for_bad_input(self, cache: QuickCache) -> None:
        """A bad key, value or TTL in the last place stores none of the others."""
        bad_key: Any = {"a": 1, 2: 2}
        with pytest.raises(InvalidKey):
            cache.set_many(bad_key)
        with pytest.raises(InvalidTTL):
            cache.set_many({"a": 1}, ttl_sec=0)
        if cache.config.isolation != "share":
            with pytest.raises(SerializationError):
                cache.set_many({"a": 1, "b": lambda: None})
        assert len(cache) == 0

    def test_delete_many(self, cache: QuickCache, clock: ManualClock) -> None:
        """How many live values went; what isn't there is passed over."""
        cache.set_many({"a": 1, "b": 2, "c": 3})
        expire(cache, clock, "old")
        assert cache.delete_many(["a", "b", "old", "nothing", "a"]) == 2
        assert list(cache.keys()) == ["c"]
        assert cache.delete_many(key for key in ["c"]) == 1
        assert cache.delete_many([]) == 0

    def test_delete_prefix(self, cache: QuickCache, clock: ManualClock) -> None:
        """How many live values went, of any number; nobody else's: no other keys, and no namespace's."""
        users = {f"user:{number}": number for number in range(600)}
        cache.set_many({**users, "users": 1, "page": 1})
        expire(cache, clock, "user:old")
        cache.namespace("user:").set("k", 1)
        assert cache.delete_prefix("user:") == len(users)
        assert sorted(cache.keys()) == ["page", "users"]
        assert cache.namespace("user:").get("k") == 1
        assert cache.delete_prefix("user:") == 0

    def test_delete_prefix_during_a_load(self, cache: QuickCache) -> None:
        """What is being loaded under such a key is handed out, and isn't stored. In scope `memory`, loads of
        other keys go on.
        """
        for part in (cache, cache.namespace("part")):

            def load(part: QuickCache = part) -> str:
                part.delete_prefix("user:")
                return "old"

            assert part.get_or_set("user:1", load) == "old"
            assert "user:1" not in part
            assert part.get_or_set("users", lambda part=part: part.delete_prefix("user:")) == 0
            assert "users" in part

    def test_delete_prefix_while_others_write(self, cache: QuickCache) -> None:
        """Keys that come meanwhile do no harm, whether or not they are removed."""
        cache.set_many({f"user:{number}": number for number in range(600)})
        stop = cache.subscribe(lambda event: cache.set(f"{event.key}:left", 1), EventKind.REMOVED)
        removed = cache.delete_prefix("user:")
        stop()
        assert removed >= 600
        assert not [key for key in cache.keys("user:") if not key.endswith(":left")]


class TestTheWholeCache:
    def test_membership(self, cache: QuickCache, clock: ManualClock) -> None:
        """`in` sees live entries only, and counts no get."""
        cache.set("k", None)
        expire(cache, clock, "old")
        assert "k" in cache
        assert "old" not in cache
        assert "nothing" not in cache
        assert cache.get_metrics_snapshot()["gets"] == 0

    def test_keys_by_prefix(self, cache: QuickCache, clock: ManualClock) -> None:
        """Live keys that begin with the prefix; all of them without one."""
        cache.set_many({"user:1": 1, "user:2": 2, "page:1": 3, "my user:3": 4})
        expire(cache, clock, "user:old")
        assert sorted(cache.keys("user:")) == ["user:1", "user:2"]
        assert sorted(cache.keys(prefix="page")) == ["page:1"]
        assert sorted(cache.keys()) == sorted(cache) == ["my user:3", "page:1", "user:1", "user:2"]
        assert list(cache.keys("x")) == []

    def test_keys_while_the_cache_changes(self, cache: QuickCache) -> None:
        """Deleting while iterating is safe."""
        cache.set_many({str(number): number for number in range(10)})
        for key in cache:
            cache.delete(key)
        assert len(cache) == 0

    def test_sizes(self, cache: QuickCache, clock: ManualClock) -> None:
        """`len` and `size` count what takes room; `valid_size` what has not expired."""
        cache.set("k", 1)
        cache.set("old", 1, ttl_sec=1)
        clock.advance(2)
        assert len(cache) == cache.size() == 2
        assert cache.valid_size() == 1

    @pytest.mark.parametrize("ttl", [0.001, 0.03, 0.0625, 0.1, 1, 1.01, 59, 86_400.5])
    def test_cleanup_at_the_very_instant(self, clock: ManualClock, ttl: float) -> None:
        """What `get` calls expired, `cleanup` removes and `valid_size` and the figures leave out."""
        cache = QuickCache(QuickCacheConfig(clock=clock))
        cache.set("old", 1, ttl_sec=ttl)
        cache.set("live", 1, ttl_sec=ttl * 2)
        clock.advance(ttl)
        assert "old" not in cache
        assert cache.metrics().current_valid_keys == 1
        assert cache.cleanup() == 1
        assert cache.valid_size() == cache.size() == 1
        assert "live" in cache

    def test_an_empty_cache_is_true(self, cache: QuickCache) -> None:
        """`if cache:` asks whether there is a cache, not whether it is empty."""
        assert cache
        assert len(cache) == 0

    def test_clear(self, cache: QuickCache) -> None:
        """Nothing is left, and the cache goes on."""
        cache.set_many({"a": 1, "b": 2})
        cache.clear()
        assert len(cache) == 0
        assert list(cache.keys()) == []
        cache.clear()
        cache.set("a", 3)
        assert cache.get("a") == 3

    def test_resize(self, clock: ManualClock) -> None:
        """A smaller bound evicts at once, a larger one lets more in; config and max_size follow."""
        cache = QuickCache(QuickCacheConfig(max_size=600, clock=clock, eviction_policy="fifo"))
        cache.set_many({str(number): number for number in range(600)})
        cache.resize(10)
        assert sorted(cache.keys()) == sorted(map(str, range(590, 600)))
        assert cache.max_size == cache.config.max_size == 10
        cache.set("new", 1)
        assert len(cache) == 10
        cache.resize(20)
        cache.set_many({f"more {number}": number for number in range(50)})
        assert len(cache) == 20

    def test_bad_size(self, cache: QuickCache) -> None:
        """A bad bound is refused, and the old one stays."""
        for size in (0, -1, True, 1.5, "5"):
            bad: Any = size
            with pytest.raises(ConfigError, match="max_size"):
                cache.resize(bad)
        assert cache.max_size == 1000
        weighing = QuickCache(QuickCacheConfig(max_bytes="1MB"))
        for weight in (0, -1, True, 1.5, "much", "0%"):
            bad = weight
            with pytest.raises(ConfigError, match="max_bytes"):
                weighing.resize(max_bytes=bad)
        assert weighing.limits() == (1000, 1_000_000)
        weighing.resize(max_bytes="2MB")
        assert weighing.limits() == (1000, 2_000_000)

    def test_full_cache(self, clock: ManualClock) -> None:
        """The bound holds, and the newest value is always in."""
        for policy in ("s3fifo", "lru", "lfu", "lfuda", "fifo", "sieve"):
            cache = QuickCache(QuickCacheConfig(max_size=5, clock=clock, eviction_policy=policy))
            for number in range(50):
                cache.set(str(number), number)
                assert cache.get(str(number)) == number
                assert len(cache) <= 5

    def test_expired_entries_make_room_first(self, clock: ManualClock) -> None:
        """When the cache is full, nothing live leaves while something expired is there."""
        cache = QuickCache(QuickCacheConfig(max_size=10, clock=clock, eviction_policy="fifo"))
        cache.set_many({f"live {number}": number for number in range(5)}, ttl_sec=1000)
        cache.set_many({f"old {number}": number for number in range(5)}, ttl_sec=1)
        clock.advance(2)
        cache.set_many({f"new {number}": number for number in range(5)})
        assert len(list(cache.keys("live"))) == 5
        assert cache.get_metrics_snapshot()["evictions"] == 0

    @pytest.mark.parametrize(("share", "left"), [(None, 30), (0.5, 16), (1 / 3, 21), (1.0, 1), (0.01, 30)])
    def test_cull_fraction(self, clock: ManualClock, share: float | None, left: int) -> None:
        """A full cache of 30 lets that share of its entries go for one newcomer, but at least one."""
        cache = QuickCache(QuickCacheConfig(max_size=30, cull_fraction=share, clock=clock))
        cache.set_many({str(number): number for number in range(30)})
        assert len(cache) == 30
        cache.set("new", 1)
        assert len(cache) == left
        assert "new" in cache

    @pytest.mark.parametrize(("size", "frequency"), [(98, 49), (186, 93), (30, 3), (100, 7)])
    def test_cull_frequency(self, clock: ManualClock, size: int, frequency: int) -> None:
        """A share of 1/n lets exactly one n-th go, although floats can't hold most of these shares."""
        cache = QuickCache(QuickCacheConfig(max_size=size, cull_fraction=1 / frequency, clock=clock))
        cache.set_many({str(number): number for number in range(size)})
        cache.set("new", 1)
        assert len(cache) == size - size // frequency + 1

    def test_representation(self, cache: QuickCache) -> None:
        """`repr` says what matters and shows no values."""
        cache.set("key-name", "a value")
        text = repr(cache)
        assert "QuickCache" in text
        assert "size=1" in text
        assert "max_size=1000" in text
        assert "a value" not in text
        assert "key-name" not in text

    def test_stop_twice(self, cache: QuickCache, clock: ManualClock) -> None:
        """`stop` may be called twice; the cache still works, and expired entries still count as gone."""
        cache.stop()
        cache.close()
        cache.set("k", 1, ttl_sec=1)
        assert cache.get("k") == 1
        clock.advance(1)
        assert cache.get("k", None) is None

    def test_copies(self, cache: QuickCache) -> None:
        """A cache can't be copied or pickled by accident; the error says what to do instead."""
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            operation: Any = attempt
            with pytest.raises(TypeError, match="location"):
                operation(cache)

    def test_subclass_may_override_get(self, clock: ManualClock) -> None:
        """A subclass's `get` is called, and can call ours."""

        class Counting(QuickCache):
            calls = 0

            def get(self, key: str, default: Any = MISSING) -> Any:
                self.calls += 1
                return super().get(key, default)

        cache = Counting(QuickCacheConfig(clock=clock))
        cache.set("k", 1)
        assert cache.get("k") == 1
        with pytest.raises(KeyNotFound):
            cache.get("x")
        assert cache.calls == 2

    def test_method_replaced_on_the_instance(self, cache: QuickCache) -> None:
        """Tools that replace `get` on one object, as debug panels do, get to see the calls."""
        original = cache.get
        seen: list[str] = []

        def spy(key: str, default: Any = MISSING) -> Any:
            seen.append(key)
            return original(key, default)

        cache.get = spy  # type: ignore[method-assign]
        cache.set("k", 1)
        assert cache.get("k") == 1
        assert asyncio.run(cache.aget("k")) == 1
        assert seen == ["k", "k"]


TTLS = [
    (1, 1.0),
    (0.25, 0.25),
    (1e-3, 1e-3),
    (1.9, 1.9),
    (10**9, 1e9),
    (1e300, 1e300),
    (timedelta(milliseconds=1500), 1.5),
    (timedelta(days=400), 400 * 86_400.0),
    (Decimal("0.5"), 0.5),
    (Fraction(1, 4), 0.25),
]
NO_TTLS = [
    *(0, 0.0, -0.0, -1, -0.001, -(10**400), 10**400, float("nan"), float("inf"), float("-inf")),
    *(timedelta(0), timedelta(seconds=-1), Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity")),
    *("", "5", "never", b"5", True, False, [], [5], {}, ..., int, 5j),
]


WRITES = ("set", "add", "update", "set_many", "touch", "incr")


class TestDurations:
    """One meaning of `ttl_sec` for all operations."""

    @staticmethod
    def write(cache: QuickCache, operation: str, *ttl: Any) -> None:
        """Store something under "k" with that operation, with `ttl` or none."""
        if operation in ("update", "touch"):
            cache.set("k", 1, ttl_sec=NEVER)
        named = {"ttl_sec": ttl[0]} if ttl else {}
        {
            "set": lambda: cache.set("k", 1, **named),
            "add": lambda: cache.add("k", 1, **named),
            "update": lambda: cache.update("k", 1, **named),
            "set_many": lambda: cache.set_many({"k": 1}, **named),
            "touch": lambda: cache.touch("k", **named),
            "incr": lambda: cache.incr("k", initial=0, **named),
        }[operation]()

    @pytest.mark.parametrize("operation", WRITES)
    @pytest.mark.parametrize(("ttl", "seconds"), TTLS)
    def test_positive(self, clock: ManualClock, operation: str, ttl: Any, seconds: float) -> None:
        """Numbers and timedeltas above zero are seconds, fractions kept; the entry ends then, not before."""
        cache = QuickCache(QuickCacheConfig(clock=clock))
        self.write(cache, operation, ttl)
        assert cache.ttl("k") == pytest.approx(seconds)
        clock.advance(seconds * 0.999)
        assert "k" in cache
        clock.advance(seconds * 0.002)
        assert "k" not in cache

    @pytest.mark.parametrize("operation", WRITES)
    @pytest.mark.parametrize("omitted", [(), (None,)])
    @pytest.mark.parametrize(
        ("default", "seconds"), [(7, 7), (0.5, 0.5), (timedelta(minutes=1), 60), (None, None), (NEVER, None)]
    )
    def test_omitted_or_none(
        self, clock: ManualClock, operation: str, omitted: tuple[()], default: Any, seconds: float | None
    ) -> None:
        """Omitted and None both mean the configured default, which may be never."""
        cache = QuickCache(QuickCacheConfig(clock=clock, default_ttl=default))
        self.write(cache, operation, *omitted)
        assert cache.ttl("k") == (None if seconds is None else pytest.approx(seconds))

    @pytest.mark.parametrize("operation", WRITES)
    def test_never(self, clock: ManualClock, operation: str) -> None:
        """NEVER is never, whatever the default."""
        cache = QuickCache(QuickCacheConfig(clock=clock, default_ttl=1))
        self.write(cache, operation, NEVER)
        clock.advance(1e12)
        cache.cleanup()
        assert "k" in cache
        assert cache.ttl("k") is None

    @pytest.mark.parametrize("operation", WRITES)
    @pytest.mark.parametrize(
        "ttl",
        NO_TTLS,
        ids=lambda ttl: f"{type(ttl).__name__} {str(ttl)[:12]}" if type(ttl) is not object else "object",
    )
    def test_everything_else(self, clock: ManualClock, operation: str, ttl: Any) -> None:
        """Zero, negative, not finite, no duration: InvalidTTL with the evidence, and nothing is stored."""
        cache = QuickCache(QuickCacheConfig(clock=clock, default_ttl=60))
        with pytest.raises(InvalidTTL, match="ttl_sec") as caught:
            self.write(cache, operation, ttl)
        assert isinstance(caught.value, ValueError)
        assert caught.value.ttl is ttl
        if operation in ("update", "touch"):
            assert cache.ttl("k") is None
        else:
            assert len(cache) == 0

    def test_the_last_instant(self, clock: ManualClock) -> None:
        """An entry is live up to its deadline, and expired at it."""
        cache = QuickCache(QuickCacheConfig(clock=clock))
        cache.set("k", 1, ttl_sec=8)
        clock.advance(7.5)
        assert cache.get("k") == 1
        clock.advance(0.5)
        with pytest.raises(KeyExpired):
            cache.get("k")


def test_dropped_without_the_garbage_collector() -> None:
    """A cache that nobody has any more is gone at once, and publishes no more."""

    def used() -> QuickCache:
        cache = QuickCache(QuickCacheConfig(isolation="auto", stale_ttl=5, version="1"))
        cache.set("k", 1, tags=["t"])
        cache.get_or_set("made", lambda: 1)
        cache.namespace("users").set("k", 1)
        cache.subscribe(print, EventKind.REMOVED)()
        cache.stop()
        return cache

    gc.disable()
    try:
        cache = used()
        watched = weakref.ref(cache)
        del cache
        assert watched() is None
    finally:
        gc.enable()


TWINS = (
    *("get", "set", "add", "update", "delete", "pop", "touch", "ttl", "incr", "decr"),
    *("get_many", "set_many", "delete_many", "keys", "size", "valid_size", "clear", "cleanup", "resize"),
    *("save_to_disk", "load_from_disk", "backup", "restore"),
    *("get_metrics_snapshot", "reset_metrics", "save_metrics_to_disk", "stop", "close", "publish"),
    *("get_or_set", "refresh", "invalidate_tags", "warm", "delete_prefix", "overtake_loads"),
)
WITHOUT = frozenset(
    {
        *("subscribe", "disabled", "metrics", "namespace", "limits", "apply"),
        *("cached", "with_source", "keep_fresh", "prefetcher", "lock", "tag_slots", "shares_store_with"),
    }
)
"""These don't wait, and what they make is for coroutines as well."""


class TestCoroutines:
    """Every operation has a twin for coroutines."""

    def test_each_public_method_has_one(self) -> None:
        """A new method needs a twin, or a reason to have none."""
        public = {
            name
            for name, member in vars(QuickCache).items()
            if inspect.isroutine(member)
            and not name.startswith("_")
            and not inspect.iscoroutinefunction(member)
        }
        assert public == set(TWINS) | WITHOUT

    @pytest.mark.parametrize("name", TWINS)
    def test_same_parameters(self, name: str) -> None:
        """Parameters have the same names, kinds, order and defaults."""
        sync = inspect.signature(getattr(QuickCache, name))
        twin = getattr(QuickCache, f"a{name}")
        assert inspect.iscoroutinefunction(twin)
        assert inspect.signature(twin).parameters == sync.parameters

    def test_they_do_the_same(self, cache: QuickCache) -> None:
        """Each twin does what its namesake does, and hands its arguments on."""

        async def everything() -> None:
            await cache.aset("k", 1, 5)
            assert await cache.aget("k") == 1
            assert await cache.attl("k") == pytest.approx(5)
            assert await cache.aget("x", "d") == "d"
            assert await cache.aadd("n", 1, ttl_sec=7) is True
            assert await cache.attl("n") == pytest.approx(7)
            assert await cache.aadd("n", 2, exist_ok=True) is False
            await cache.aupdate("n", 5, ttl_sec=9)
            assert await cache.attl("n") == pytest.approx(9)
            assert await cache.aincr("n", 2) == 7
            assert await cache.adecr("n", 3) == 4
            assert await cache.aincr("fresh", 2, initial=10, ttl_sec=3) == 12
            assert await cache.attl("fresh") == pytest.approx(3)
            assert await cache.adecr("fresh2", 2, initial=10, ttl_sec=4) == 8
            assert await cache.attl("fresh2") == pytest.approx(4)
            assert await cache.atouch("n", 11) is True
            assert await cache.attl("n") == pytest.approx(11)
            assert await cache.atouch("x", missing_ok=True) is False
            assert await cache.apop("n") == 4
            assert await cache.apop("n", None) is None
            await cache.aset_many({"a": 1, "b": 2}, 6)
            assert await cache.attl("a") == pytest.approx(6)
            assert await cache.aget_many(["a", "b", "x"]) == {"a": 1, "b": 2}
            assert sorted(await cache.akeys()) == ["a", "b", "fresh", "fresh2", "k"]
            assert await cache.akeys("fresh2") == ["fresh2"]
            assert await cache.acontains("a") is True
            assert await cache.adelete("a") is True
            assert await cache.adelete("a", missing_ok=True) is False
            assert await cache.adelete_many(["b", "x"]) == 1
            assert await cache.asize() == await cache.avalid_size() == 3
            await cache.aresize(2)
            assert await cache.asize() == 2
            assert await cache.acleanup() == 0
            assert (await cache.aget_metrics_snapshot())["hits"] == cache.metrics().hits
            await cache.areset_metrics()
            assert cache.metrics().hits == 0
            await cache.aclear()
            assert len(cache) == 0
            with pytest.raises(KeyNotFound):
                await cache.aget("k")
            await cache.aset("tagged", 1, tags=["t"])
            await cache.aset_many({"tagged 2": 1, "other": 1}, tags=["t"], stale_ttl=5)
            await cache.ainvalidate_tags("u", "t")
            assert list(cache) == []
            assert await cache.aget_or_set("computed", lambda: 1, 8, tags=["t"]) == 1
            assert await cache.aget_or_set("computed", lambda: 2) == 1
            assert await cache.attl("computed") == pytest.approx(8)
            assert await cache.arefresh("computed", lambda: 3, 9, tags=["t"]) == cache.get("computed") == 3
            assert await cache.attl("computed") == pytest.approx(9)
            await cache.ainvalidate_tags("t")
            assert "computed" not in cache
            await cache.astop()
            await cache.aclose()

        asyncio.run(everything())

    def test_an_expired_key(self, cache: QuickCache, clock: ManualClock) -> None:
        """Errors are the same."""
        expire(cache, clock, "old")
        with pytest.raises(KeyExpired):
            asyncio.run(cache.aget("old"))
        with pytest.raises(InvalidTTL):
            asyncio.run(cache.aset("k", 1, 0))
