"""Stores that go by bytes: the estimate, the bound, and the books about it."""

from __future__ import annotations

import random
import sys
from collections import OrderedDict
from typing import Any, NamedTuple

import pytest

from quickcache_core.entry import FOREVER
from quickcache_core.errors import ValueTooLarge
from quickcache_core.events import RemovalCause
from quickcache_core.registry import eviction_policies
from quickcache_core.serializer.isolation import Frozen
from quickcache_core.store import Bounds, MemoryStore
from quickcache_core.store.base import ABSENT, Presence
from quickcache_core.store.life import Life
from quickcache_core.store.weighing import WeighingPopulation
from quickcache_core.store.weights import ENTRY_BYTES, weigh
from quickcache_core.testing import ManualClock, StoreContract
from quickcache_core.testing.books import check_store_books
from tests.core.books import WEIGHING_BUILT_IN, WEIGHING_POLICIES, held
from tests.core.test_store_contract import Holds

LARGE = 10**9


def value_weight(value: Any) -> int:
    return weigh("", value) - weigh("", None) + sys.getsizeof(None)


# The estimate


class Point:
    def __init__(self, x: Any, y: Any) -> None:
        self.x = x
        self.y = y


class Pair(NamedTuple):
    x: Any
    y: Any


class Text(str):
    __slots__ = ()


def deep_size(value: Any) -> int:
    """All of it, each object as often as it is in there."""
    size = sys.getsizeof(value)
    if isinstance(value, dict):
        return size + sum(deep_size(key) + deep_size(one) for key, one in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return size + sum(map(deep_size, value))
    if isinstance(value, Point):
        return size + deep_size(value.__dict__)
    return size


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        5,
        10**1000,
        1.5,
        "",
        "a" * 100_000,
        "ü☃" * 500,
        b"x" * 12_345,
        bytearray(999),
        Text("t" * 5000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_exact_for_text_bytes_and_numbers(value: Any) -> None:
    """And for whatever else is one object."""
    assert value_weight(value) == sys.getsizeof(value)


@pytest.mark.parametrize(
    "value",
    [
        list(range(1000, 3000)),
        tuple("abc" * n for n in range(100)),
        {f"key{n}": "v" * 200 for n in range(500)},
        {n + 1000 for n in range(300)},
        frozenset(map(str, range(1000, 2000))),
        [{"id": n, "name": "n" * 20} for n in range(1000, 1300)],
        OrderedDict((str(n), [1000, 2000, 3000]) for n in range(1000, 1100)),
        Pair("x" * 1000, [1.5, 2.5]),
        Point("x" * 1000, "y" * 2000),
        [Point(n, str(n)) for n in range(1000, 1200)],
        [],
        {},
        ((),),
    ],
    ids=lambda value: type(value).__name__,
)
def test_close_for_containers_of_like_elements(value: Any) -> None:
    """Within a third."""
    assert deep_size(value) * 2 / 3 - 150 <= value_weight(value) <= deep_size(value) * 4 / 3 + 150


def test_frozen_values() -> None:
    """Weighed by what is kept of them."""
    assert 0 <= value_weight(Frozen(bytes, b"x" * 10_000)) - 10_000 < 150
    assert value_weight(Frozen(list.copy, ["x" * 1000] * 50)) > 50_000


def test_key_and_entry_count() -> None:
    """A long key weighs what it weighs, and nothing is free."""
    assert weigh("k", None) >= ENTRY_BYTES
    assert weigh("k" * 5000, None) - weigh("k", None) == 4999


def test_a_bounded_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """However large, deep or entangled a value is, few objects of it are looked at."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep, deep]
    circle: list[Any] = []
    circle.append(circle)
    grid = [[[[n] * 50 for n in range(50)] for _ in range(50)] for _ in range(20)]
    seen: list[object] = []
    own_size = sys.getsizeof
    monkeypatch.setattr(
        "quickcache_core.store.weights.sys",
        type("", (), {"getsizeof": lambda o: (seen.append(o), own_size(o))[1]}),
    )
    for value in (
        deep,
        circle,
        grid,
        dict.fromkeys(range(10000), grid),
        set(range(100_000)),
        Point(deep, circle),
    ):
        seen.clear()
        weigh("k", value)
        assert len(seen) <= 25
    while deep:  # or its end would be a recursion
        deep = deep.pop()


def test_no_code_of_the_users() -> None:
    """The store's lock is held meanwhile: what a class wants to do when it is looked at isn't done."""

    class Touchy(list[int]):
        def __sizeof__(self) -> int:
            raise AssertionError("asked for its size")

        def __len__(self) -> int:
            raise AssertionError("asked for its length")

        def __iter__(self) -> Any:
            raise AssertionError("iterated over")

        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(f"asked for {name}")

    class TouchyMapping(dict[str, int]):
        __len__ = __iter__ = keys = values = items = __sizeof__ = Touchy.__sizeof__  # type: ignore[assignment]

    assert value_weight(Touchy([1000] * 100)) > 800
    assert value_weight(TouchyMapping(a=1, b=2)) > 100
    assert value_weight([Touchy()] * 10) > 80


# The bound


class TestWeighingStore(StoreContract):
    """A store that weighs is a store as any other."""

    @pytest.fixture(autouse=True, params=WEIGHING_BUILT_IN)
    def _choose(self, request: pytest.FixtureRequest) -> None:
        self.policy = eviction_policies.resolve(request.param)

    def make_store(self, clock: ManualClock) -> MemoryStore:
        return MemoryStore(self.policy, 1000, clock, weigher=weigh)


def by_length(key: str, stored: Any) -> int:
    """A weigher with round numbers."""
    return len(stored) if isinstance(stored, str) else 1


def make(policy: str = "s3fifo", capacity: int = 10_000) -> tuple[MemoryStore, ManualClock]:
    clock = ManualClock()
    return MemoryStore(
        eviction_policies.resolve(WEIGHING_POLICIES[policy]), capacity, clock, weigher=by_length
    ), clock


def bounds(max_bytes: int, max_size: int = 10_000) -> Bounds:
    return Bounds(max_size, None, max_bytes)


@pytest.mark.parametrize("policy", WEIGHING_POLICIES)
def test_any_writes(policy: str) -> None:
    """After each write of whatever kind the sum of all weights is right, and within the bound."""
    rng = random.Random(5)
    store, clock = make(policy)
    lives = [Life(5.0, 5.0), Life(FOREVER, tags=(1,)), Life(3.0, sliding=True), Life(2.0)]
    limit = 1000
    for step in range(3000):
        key = f"k{rng.randrange(60)}"
        value = "x" * rng.choice([1, 5, 20, 100, 300])
        ttl = rng.choice([FOREVER, 1.0, 7.0])
        limit = rng.choice([limit] * 50 + [500, 1000, 2000])
        bound = bounds(limit, rng.choice([30, 10_000]))
        match rng.randrange(13):
            case 0 | 1 | 2:
                store.put(key, value, ttl, bound)
                assert store.get(key, ABSENT) == value or policy not in WEIGHING_BUILT_IN
            case 3 | 4:
                store.put_with(key, value, rng.choice(lives), bound)
            case 5:
                store.replace(key, value, ttl, rng.choice([None, *lives]))
            case 6:
                store.add(key, value, ttl, bound, rng.choice([None, *lives]))
            case 7:
                store.put_many({f"k{rng.randrange(60)}": value for _ in range(10)}, ttl, bound)
            case 8:
                store.remove(key)
            case 9:
                store.put(key, 1, ttl, bound)
                store.incr(key, 1, None, 1, ttl, bound)
            case 10:
                clock.advance(rng.choice([0.0, 0.5, 3.0]))
                store.invalidate_tags([rng.randrange(2)])
            case 11:
                store.touch(key, 5.0)
                store.get(key, None)
            case 12:
                store.load(store.records(), bound)
        check_store_books(store, held)
        used = store.used_bytes()
        assert used is not None
        assert used <= limit or step % 13 in (8, 10, 11) or used <= 2000
    store.shrink(bounds(100))
    assert (store.used_bytes() or 0) <= 100
    check_store_books(store, held)
    assert store.clear() >= 0
    assert store.used_bytes() == 0


@pytest.mark.parametrize("policy", WEIGHING_BUILT_IN)
def test_never_more_than_max_bytes(policy: str) -> None:
    """As many leave as the newcomer takes room for; the newcomer itself stays."""
    store, _ = make(policy)
    rng = random.Random(1)
    for n in range(500):
        value = "x" * rng.randrange(1, 100)
        store.put(f"k{n}", value, FOREVER, bounds(1000))
        assert (store.used_bytes() or 0) <= 1000
        assert store.get(f"k{n}") == value
    assert (store.used_bytes() or 0) > 800
    assert store.counters.evictions > 400


@pytest.mark.parametrize("policy", WEIGHING_BUILT_IN)
def test_a_value_that_grows(policy: str) -> None:
    """Others make room for it."""
    store, _ = make(policy)
    for n in range(10):
        store.put(f"k{n}", "x" * 100, FOREVER, bounds(1000))
    store.put("k0", "y" * 500, FOREVER, bounds(1000))
    assert store.get("k0") == "y" * 500
    assert len(store) == 6
    assert store.used_bytes() == 1000
    store.put("k0", "z", FOREVER, bounds(1000))
    assert store.used_bytes() == 501


def test_a_number_that_grows() -> None:
    """What a sum takes more than the number before is made room for as well."""
    clock = ManualClock()
    store = MemoryStore(
        eviction_policies.resolve("s3fifo"), 100, clock, weigher=lambda key, stored: sys.getsizeof(stored)
    )
    one = sys.getsizeof(1)
    for n in range(10):
        store.put(f"k{n}", 1, FOREVER, bounds(10 * one))
    assert len(store) == 10
    for delta in (2**100, 2**200):
        presence, _ = store.incr("k5", delta, None, 0, FOREVER, bounds(10 * one))
        assert presence is Presence.LIVE
        assert (store.used_bytes() or 0) <= 10 * one
    assert len(store) < 10
    check_store_books(store, held)


def test_a_value_that_is_too_large() -> None:
    """It is refused, whatever would store it, and an older one under its key is gone."""
    life = Life(5.0, 5.0, tags=(1,))
    writes: dict[str, Any] = {
        "put": lambda store: store.put("a", "x" * 11, FOREVER, bounds(10)),
        "put_with": lambda store: store.put_with("a", "x" * 11, life, bounds(10)),
        "replace": lambda store: store.replace("a", "x" * 11, 5.0),
        "replace with a life": lambda store: store.replace("a", "x" * 11, 5.0, life),
        "put_many": lambda store: store.put_many({"b": "1", "a": "x" * 11, "c": "2"}, 5.0, bounds(10)),
    }
    for name, write in writes.items():
        for before in (None, life):
            store, _ = make()
            told: list[tuple[str, RemovalCause]] = []
            store.put("b", "there", FOREVER, bounds(10))
            if before is None:
                store.put("a", "old", FOREVER, bounds(10))
            else:
                store.put_with("a", "old", before, bounds(10))
            stop = store.subscribe(lambda key, cause, told=told: told.append((key, cause)))
            with pytest.raises(ValueTooLarge) as caught:
                write(store)
            assert (caught.value.key, caught.value.size, caught.value.limit) == ("a", 11, 10)
            assert store.get("a", None) is None, name
            assert ("a", RemovalCause.EXPLICIT) in told, "listeners are told at once"
            assert store.get("b") in ("there", "1")
            stop()
            check_store_books(store)
            store.put("a", "x" * 10, FOREVER, bounds(10))
            assert store.get("a") == "x" * 10
    store, _ = make()
    with pytest.raises(ValueTooLarge):
        store.add("a", "x" * 11, FOREVER, bounds(10))
    assert len(store) == 0


@pytest.mark.parametrize("life", [None, Life(5.0, 5.0, tags=(1,))], ids=["plain", "with a life"])
def test_a_refused_value_overtakes_loads(life: Life | None) -> None:
    """What was loaded before isn't stored after it: nothing was to be left under the key."""
    store, _ = make()
    store.put("a", "old", FOREVER, bounds(10))
    token = store.begin_load("a")
    with pytest.raises(ValueTooLarge):
        store.replace("a", "x" * 11, 5.0, life)
    assert not store.put_with("a", "from before", Life(5.0), bounds(10), token)
    assert store.get("a", None) is None


def test_put_many_stores_what_fits() -> None:
    """One that doesn't is told, after all others are stored."""
    store, _ = make()
    values = {f"k{n}": "x" for n in range(600)}
    values["k300"] = "x" * 2000
    with pytest.raises(ValueTooLarge):
        store.put_many(values, FOREVER, bounds(1000))
    assert len(store) == 599


def test_load_leaves_out_what_is_too_large() -> None:
    """A snapshot of a larger cache is no error."""
    store, _ = make()
    store.put("small", "x", FOREVER, bounds(1000))
    store.put("large", "x" * 100, FOREVER, bounds(1000))
    store.put_with("rich", "x" * 100, Life(5.0, 5.0), bounds(1000))
    other, _ = make()
    other.load(store.records(), bounds(50))
    assert list(other.keys("")) == ["small"]
    assert other.used_bytes() == 1


def test_expired_ones_leave_first() -> None:
    """No live entry leaves while expired ones take the room."""
    store, clock = make()
    for n in range(10):
        store.put(f"k{n}", "x" * 100, 1.0 if n % 2 else FOREVER, bounds(1000))
    clock.advance(2.0)
    store.put("new", "x" * 500, FOREVER, bounds(1000))
    assert store.counters.evictions == 0
    assert len(store) == 6


def test_stores_that_do_not_weigh() -> None:
    """They know no bytes, and don't go by them."""
    store = MemoryStore(eviction_policies.resolve("s3fifo"), 100, ManualClock())
    store.put("a", "x" * 1000, FOREVER, Bounds(100, None, 10))
    assert store.get("a") == "x" * 1000
    assert store.used_bytes() is None
    assert store.figures().bytes is None
    assert not isinstance(store._population, WeighingPopulation)


def test_figures() -> None:
    """The sum is published with the other figures."""
    store, _ = make()
    store.put("a", "x" * 70, FOREVER, bounds(1000))
    assert store.figures().bytes == 70
    assert store.remove("a") is Presence.LIVE
    assert store.figures().bytes == 0


COUNT = 20_000
SLICE = 256


@pytest.mark.parametrize("policy", WEIGHING_BUILT_IN)
class TestHolds:
    """Other threads never wait for more than some 256 entries to be handled."""

    def store(self, policy: str) -> tuple[MemoryStore, Holds]:
        store, _ = make(policy, COUNT)
        store.put_many({f"k{n}": "x" for n in range(COUNT)}, FOREVER, bounds(COUNT, COUNT))
        return store, Holds(store, lambda: len(store))

    def test_shrink(self, policy: str) -> None:
        store, holds = self.store(policy)
        store.shrink(bounds(10, COUNT))
        assert len(store) == 10
        assert 0 < holds.most <= SLICE

    def test_one_large_value(self, policy: str) -> None:
        store, holds = self.store(policy)
        store.put("large", "x" * (COUNT - 10), FOREVER, bounds(COUNT, COUNT))
        assert (store.used_bytes() or 0) <= COUNT
        assert 0 < holds.most <= SLICE

    def test_a_lower_bound(self, policy: str) -> None:
        store, holds = self.store(policy)
        store.put("new", "x", FOREVER, bounds(100, COUNT))
        assert len(store) == 100
        assert 0 < holds.most <= SLICE


@pytest.mark.parametrize("policy", WEIGHING_BUILT_IN)
def test_policies_plan_with_what_fits(policy: str) -> None:
    """Although the bound in entries is far away, entries that are used stay: the small queue of the default
    policy, for one, must not be as large as the whole cache.
    """
    store, _ = make(policy, 1_000_000)
    limit = bounds(100 * 100, 1_000_000)
    for key in range(20):
        store.put(f"hot{key}", "x" * 100, FOREVER, limit)
    hits = 0
    for n in range(4000):
        for key in (n % 20, (n * 7) % 20):
            if store.get(f"hot{key}", None) is None:
                store.put(f"hot{key}", "x" * 100, FOREVER, limit)
            else:
                hits += 1
        store.put(f"once{n}", "x" * 100, FOREVER, limit)
    # In first-in-first-out order a hot one leaves after 100 newcomers, and comes back at the next use.
    assert hits / 8000 > (0.8 if policy == "fifo" else 0.97)
