"""The timing wheel, next to a list of all deadlines; its cost is counted in entries looked at."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcache_core import NEVER, QuickCache, QuickCacheConfig
from quickcache_core.entry import FOREVER, GONE, Entry
from quickcache_core.store.deadlines import Deadlines
from quickcache_core.testing import ManualClock, check_books
from quickcache_core.testing.books import check_wheel, population_of

TICK = 1 / 16
"""Seconds: how late an expired entry may be found."""
CHUNK = 256
LATEST = 1e15
"""Seconds; no clock gets there, and a float has no sixteenths of a second any more."""

MINUTE, HOUR, DAY, YEAR = 60.0, 3600.0, 86400.0, 365.25 * 86400.0


class Wheel:
    """A wheel and a list that must agree."""

    def __init__(self, now: float = 1000.0) -> None:
        self.deadlines = Deadlines()
        self.now = now
        self.live: dict[str, Entry] = {}
        self.count = 0
        self.looked_at = 0
        """Entries and empty places that `take_expired` went through."""
        self.turns = 0
        """Calls of `take_expired`."""

    def add(self, ttl: float) -> Entry:
        entry = Entry(f"k{self.count}", None, self.now + ttl)
        self.count += 1
        self.live[entry.key] = entry
        self.deadlines.add(entry, entry.deadline, self.now)
        return entry

    def discard(self, entry: Entry) -> None:
        del self.live[entry.key]
        entry.deadline = GONE
        self.deadlines.discard(entry)

    def put_off(self, entry: Entry, seconds: float) -> None:
        entry.deadline += seconds

    def move(self, entry: Entry, ttl: float) -> None:
        self.deadlines.discard(entry)
        entry.deadline = self.now + ttl
        self.deadlines.add(entry, entry.deadline, self.now)

    def turn(self) -> list[Entry]:
        if self.deadlines._ticks:
            bucket = self.deadlines._buckets[self.deadlines._ticks[0]]
            self.looked_at += len(bucket.chunks[-1].entries) if bucket.chunks else 0
        self.turns += 1
        expired = self.deadlines.take_expired(self.now)
        assert len(expired) <= CHUNK
        for entry in expired:
            assert entry.deadline <= self.now, f"{entry.key} left {entry.deadline - self.now} s early"
            assert self.live.pop(entry.key) is entry, f"{entry.key} was not in there"
            entry.deadline = GONE
        return expired

    def sweep(self) -> None:
        while self.deadlines.next_due <= self.now:
            self.turn()
        for entry in self.live.values():
            assert entry.deadline > self.now - TICK, f"{entry.key} is {self.now - entry.deadline} s late"

    def check(self) -> None:
        check_wheel(self.deadlines, self.live.values())
        earliest = min((entry.deadline for entry in self.live.values()), default=FOREVER)
        assert self.deadlines.next_due <= earliest + TICK

    def end(self) -> None:
        """Go to each deadline that is left."""
        while self.live:
            self.now = max(self.now, min(entry.deadline for entry in self.live.values())) + TICK
            self.sweep()
        self.check()


TTLS = st.one_of(
    st.floats(0.001, 10.0),
    st.floats(1.0, 100 * YEAR),
    st.sampled_from([1e-9, TICK, 2 * TICK, 1.0, 300.0, 300.0, 300.0, HOUR, DAY, 30 * DAY, YEAR, 1e12, 1e300]),
)
PAUSES = st.one_of(
    st.sampled_from([0.0, 1e-6, TICK / 2, TICK, 1.0, 10.0, 299.0, HOUR, DAY, YEAR]), st.floats(0.0, 1000.0)
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), TTLS),
        st.tuples(st.just("add"), TTLS),
        st.tuples(st.just("many"), TTLS),
        st.tuples(st.just("discard"), st.floats(0.0, 1.0)),
        st.tuples(st.just("put off"), TTLS),
        st.tuples(st.just("move"), TTLS),
        st.tuples(st.just("wait"), PAUSES),
        st.tuples(st.just("turn"), st.just(0.0)),
        st.tuples(st.just("discard most"), st.floats(0.0, 1.0)),
    ),
    max_size=40,
)


@given(start=st.sampled_from([0.0, 0.03, 1000.0, 1e6 + 0.1, 1e9]), steps=STEPS, seed=st.integers(0, 9))
def test_any_sequence(start: float, steps: list[tuple[str, float]], seed: int) -> None:
    """Nothing leaves early, nothing stays longer than a sixteenth of a second, nothing is lost."""
    chance = random.Random(seed)
    wheel = Wheel(start)
    for step, number in steps:
        some = chance.choice(list(wheel.live.values())) if wheel.live else None
        if step == "add":
            wheel.add(number)
        elif step == "many":
            for _ in range(300):
                wheel.add(number * chance.uniform(0.99, 1.0))
        elif step == "wait":
            wheel.now += number
            wheel.sweep()
        elif step == "turn":
            wheel.turn()
        elif some is None:
            continue
        elif step == "discard":
            wheel.discard(some)
        elif step == "put off":
            wheel.put_off(some, number)
        elif step == "move":
            wheel.move(some, number)
        elif step == "discard most":
            for entry in list(wheel.live.values()):
                if chance.random() < number:
                    wheel.discard(entry)
    wheel.check()
    for _ in range(20):
        earliest = min((entry.deadline for entry in wheel.live.values()), default=FOREVER)
        if earliest > LATEST:
            break
        wheel.now = max(wheel.now, earliest) + TICK
        wheel.sweep()
        wheel.check()


def test_empty() -> None:
    """Nothing is due."""
    wheel = Wheel()
    assert wheel.deadlines.next_due is FOREVER
    assert wheel.deadlines.take_expired(1e12) == []
    entry = wheel.add(1.0)
    wheel.discard(entry)
    wheel.now += 2.0
    wheel.sweep()
    assert wheel.deadlines.next_due is FOREVER
    wheel.check()


@pytest.mark.parametrize("ttl", [1e-9, 0.001, 0.01, TICK, 0.1, 1.0, 7.3, 300.0, HOUR, DAY, YEAR, 1e9, 1e29])
@pytest.mark.parametrize("now", [0.0, 12.34, 1e5, 4e8])
def test_each_ttl_to_the_tick(ttl: float, now: float) -> None:
    """Not before the deadline, and at the latest one tick after it."""
    wheel = Wheel(now)
    entry = wheel.add(ttl)
    deadline = entry.deadline
    for moment in (now, now + ttl / 2, deadline - TICK, deadline - 1e-6):
        if now <= moment < deadline:
            wheel.now = moment
            wheel.sweep()
            assert entry.key in wheel.live
    wheel.now = deadline + TICK
    wheel.sweep()
    assert not wheel.live


def test_farther_than_integers_go() -> None:
    """A deadline at the end of the range of floats harms nobody."""
    wheel = Wheel()
    for ttl in (1e300, 1e308, 1.7e308):
        wheel.add(ttl)
    near = wheel.add(1.0)
    wheel.now += 2.0
    wheel.sweep()
    assert near.key not in wheel.live
    assert len(wheel.live) == 3
    wheel.check()


# Cost


def spread(chance: random.Random, kind: str) -> Callable[[], float]:
    if kind == "same":
        return lambda: 300.0
    if kind == "two":
        return lambda: chance.choice((5.0, DAY))
    if kind == "short":
        return lambda: chance.uniform(0.001, 1.0)
    if kind == "uniform":
        return lambda: chance.uniform(0.001, 1000.0)
    if kind == "years":
        return lambda: chance.uniform(DAY, 10 * YEAR)
    return lambda: 10 ** chance.uniform(-3, 8)


@pytest.mark.parametrize("kind", ["same", "two", "short", "uniform", "years", "all"])
def test_work_is_proportional_to_entries(kind: str) -> None:
    """Each entry is looked at a handful of times in its life, whatever the TTLs, however often one sweeps."""
    chance = random.Random(7)
    ttl = spread(chance, kind)
    costs = []
    for count in (1_000, 10_000):
        wheel = Wheel()
        for _ in range(count):
            wheel.add(ttl())
            if chance.random() < 0.1:
                wheel.now += 0.01
                wheel.sweep()
        last = max((entry.deadline for entry in wheel.live.values()), default=wheel.now) + 1.0
        while wheel.live:
            wheel.now = min(max(wheel.deadlines.next_due, wheel.now + (last - wheel.now) / 500), last)
            wheel.sweep()
        costs.append(wheel.looked_at / count)
        assert wheel.looked_at <= 7 * count
        # Turns that find nothing to look at are bounded by the number of buckets.
        assert wheel.turns <= wheel.looked_at + 2_000
    assert costs[1] < 1.5 * costs[0] + 0.5, costs


def test_work_of_entries_that_are_put_off() -> None:
    """An entry that gets its TTL anew all the time is looked at once per TTL, not once per time."""
    wheel = Wheel()
    entries = [wheel.add(100.0) for _ in range(1000)]
    for _ in range(2000):
        wheel.now += 1.0
        for entry in entries[::10]:
            wheel.put_off(entry, 1.0)
        wheel.sweep()
    kept = len(entries[::10])
    assert len(wheel.live) == kept
    # 20 lives of 100 entries, and one of 900.
    assert wheel.looked_at < 7 * (20 * kept + 900)


def test_work_of_entries_that_are_moved() -> None:
    """TTLs that change back and forth leave neither long chunks nor many of them."""
    wheel = Wheel()
    entries = [wheel.add(100.0) for _ in range(500)]
    chance = random.Random(3)
    longest = 0
    for n in range(30_000):
        wheel.move(entries[n % 500], chance.choice((50.0, 100.0, 1000.0, YEAR)))
        if n % 100 == 0:
            wheel.now += 0.1
            wheel.sweep()
            longest = max(longest, places(wheel.deadlines))
    assert longest < 20_000
    wheel.check()


@pytest.mark.parametrize("order", ["first", "last", "random", "every third"])
def test_entries_that_leave_early_are_dropped(order: str) -> None:
    """In any order: at no time are there many more places than entries."""
    chance = random.Random(11)
    wheel = Wheel()
    entries = [wheel.add(chance.uniform(90.0, 100.0)) for _ in range(20_000)]
    buckets = len(wheel.deadlines._buckets)
    if order == "last":
        entries.reverse()
    elif order == "random":
        chance.shuffle(entries)
    elif order == "every third":
        entries = [*entries[::3], *entries[1::3], *entries[2::3]]
    for n, entry in enumerate(entries):
        wheel.discard(entry)
        if n % 1000 == 0:
            assert places(wheel.deadlines) <= 4 * len(wheel.live) + buckets * CHUNK
    assert places(wheel.deadlines) <= buckets * CHUNK
    wheel.check()


def test_buckets_are_few() -> None:
    """As few as the resolution allows: some dozens per doubling of the TTL."""
    wheel = Wheel()
    chance = random.Random(5)
    for _ in range(50_000):
        wheel.add(10 ** chance.uniform(-2, 9))
    assert len(wheel.deadlines._buckets) < 64 * 35


def test_turns_are_short() -> None:
    """One turn looks at 256 entries at most, however many are due at once."""
    wheel = Wheel()
    for _ in range(10_000):
        wheel.add(1.0)
    wheel.now += 2.0
    before = 0
    while wheel.deadlines.next_due <= wheel.now:
        wheel.turn()
        assert wheel.looked_at - before <= CHUNK
        before = wheel.looked_at
    assert not wheel.live


def test_one_chunk_is_begun_for_256_entries() -> None:
    """Which is how often a write asks for the maintenance thread."""
    wheel = Wheel()
    begun = 0
    for _ in range(10_000):
        wheel.add(300.0)
        begun += wheel.deadlines.new_chunk
        wheel.deadlines.new_chunk = False
    assert begun == -(-10_000 // CHUNK)


@given(ttls=st.lists(st.floats(0.001, 20.0), max_size=200), pause=st.floats(0.0, 25.0))
def test_expired_chunks_are_exact(ttls: list[float], pause: float) -> None:
    """All that have expired by now, to the instant, and nothing changes."""
    wheel = Wheel()
    for ttl in ttls:
        wheel.add(ttl)
    wheel.now += pause
    found = [entry.key for chunk in wheel.deadlines.expired_chunks(wheel.now) for entry in chunk]
    assert sorted(found) == sorted(entry.key for entry in wheel.live.values() if entry.deadline <= wheel.now)
    wheel.check()


def places(deadlines: Deadlines) -> int:
    return sum(len(chunk.entries) for bucket in deadlines._buckets.values() for chunk in bucket.chunks)


# In a cache


def make(**settings: object) -> tuple[QuickCache, ManualClock]:
    clock = ManualClock()
    mapping = {"clock": clock, "cleanup_interval": 1e9, "max_size": 100_000, **settings}
    return QuickCache(QuickCacheConfig.from_mapping(mapping)), clock


def test_expired_entries_leave_with_writes() -> None:
    """Without any thread, read or sweep: a cache that is written to doesn't fill up with what has expired."""
    cache, clock = make()
    cache.stop()
    most = 0
    for n in range(40_000):
        cache.set(f"k{n}", n, 10.0)
        clock.advance(0.01)
        most = max(most, cache.size())
    # 1,000 are live at any time.
    assert most < 2_500


def test_memory_returns_in_a_full_cache() -> None:
    """Expired entries make room before a live one has to leave, over a long time."""
    cache, clock = make(max_size=500)
    cache.stop()
    for n in range(200):
        cache.set(f"keep{n}", n, NEVER)
    for n in range(20_000):
        cache.set(f"k{n}", n, 1.0)
        clock.advance(0.01)
    assert sum(1 for key in cache.keys("keep")) == 200
    assert cache.get_metrics_snapshot()["evictions"] == 0


@given(
    ttls=st.lists(st.one_of(st.floats(0.001, 100.0), st.none()), min_size=1, max_size=60),
    pauses=st.lists(st.floats(0.001, 40.0), min_size=1, max_size=6),
)
def test_each_entry_ends_when_it_should(ttls: list[float | None], pauses: list[float]) -> None:
    """After a sweep exactly the live ones are there, with the time that they have left."""
    cache, clock = make()
    start = clock.monotonic()
    for n, ttl in enumerate(ttls):
        cache.set(f"k{n}", n, NEVER if ttl is None else ttl)
    for pause in pauses:
        clock.advance(pause)
        cache.cleanup()
        now = clock.monotonic()
        live = {f"k{n}" for n, ttl in enumerate(ttls) if ttl is None or now < start + ttl}
        assert set(cache.keys()) == live
        assert len(cache) == len(live) == cache.valid_size()
        check_books(cache)


def test_deadlines_keep_their_order() -> None:
    """Entries leave in the order of their deadlines, to within a tick."""
    cache, clock = make()
    chance = random.Random(2)
    ends: dict[str, float] = {}
    for n in range(2_000):
        ttl = chance.uniform(0.01, 50.0)
        cache.set(f"k{n}", n, ttl)
        ends[f"k{n}"] = ttl
    left: list[float] = []
    cache.subscribe(lambda event: left.append(ends[event.key]))
    while len(cache):
        clock.advance(0.05)
        cache.cleanup()
    assert len(left) == 2_000
    assert all(later > sooner - 0.05 for sooner, later in pairwise(left))
    clock.advance(TICK)
    cache.cleanup()
    assert population_of(cache).deadlines.next_due is FOREVER
