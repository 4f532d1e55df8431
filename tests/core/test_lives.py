"""Entries with more than a TTL, in the memory store with each eviction policy."""

from __future__ import annotations

import gc
import random
import sys
import threading
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from quickcache_core.entry import FOREVER, MISSING, Entry
from quickcache_core.events import RemovalCause
from quickcache_core.eviction_policy import EvictionPolicy
from quickcache_core.registry import eviction_policies
from quickcache_core.store import Bounds, MemoryStore
from quickcache_core.store.base import ABSENT, Presence
from quickcache_core.store.life import ASK, Found, Life, tag_slot
from quickcache_core.store.rich import RichEntry
from quickcache_core.store.weights import weigh
from quickcache_core.testing import LifeContract, ManualClock
from quickcache_core.testing.books import check_store_books
from quickcache_core.testing.lives import CHANGES, LIVES, STALE, TAGGED
from tests.core.books import BUILT_IN, POLICIES, WRONG, held

WIDE = Bounds(10_000)
LIVE, EXPIRED, GONE = Presence.LIVE, Presence.EXPIRED, Presence.ABSENT
RED = tag_slot("red")


class TestLives(LifeContract):
    @pytest.fixture(autouse=True, params=POLICIES)
    def _choose(self, request: pytest.FixtureRequest) -> None:
        self.policy: type[EvictionPolicy] = eviction_policies.resolve(POLICIES[request.param])

    def make_store(self, clock: ManualClock) -> MemoryStore:
        return MemoryStore(self.policy, 1000, clock)


class TestLivesWithListeners(LifeContract):
    """Who is told of removals must not change what happens."""

    def make_store(self, clock: ManualClock) -> MemoryStore:
        store = MemoryStore(eviction_policies.resolve("s3fifo"), 1000, clock)
        store.subscribe(lambda key, cause: None)
        return store


class TestWeighedLives(LifeContract):
    def make_store(self, clock: ManualClock) -> MemoryStore:
        return MemoryStore(eviction_policies.resolve("s3fifo"), 1000, clock, weigher=weigh)


def make(policy: str = "s3fifo") -> tuple[MemoryStore, ManualClock]:
    clock = ManualClock()
    return MemoryStore(eviction_policies.resolve(policy), 1000, clock), clock


# What a memory store promises beyond the contract


def test_causes() -> None:
    """An invalidated entry is told when it is met; a stale one that gives way has expired."""
    store, clock = make()
    told: list[tuple[str, RemovalCause]] = []
    store.subscribe(lambda key, cause: told.append((key, cause)))
    store.put_with("a", 1, TAGGED, WIDE)
    store.invalidate_tags([RED])
    assert told == []
    assert store.get("a", None) is None
    assert told == [("a", RemovalCause.INVALIDATED)]
    store.put_with("b", 1, TAGGED, WIDE)
    store.invalidate_tags([RED])
    store.put("b", 2, FOREVER, WIDE)
    store.put_with("b", 3, STALE, WIDE)
    clock.advance(8.0)
    store.put_with("b", 4, STALE, WIDE)
    store.remove("b")
    assert told[1:] == [
        ("b", RemovalCause.INVALIDATED),
        ("b", RemovalCause.REPLACED),
        ("b", RemovalCause.EXPIRED),
        ("b", RemovalCause.EXPLICIT),
    ]
    assert store.counters.manual_deletions == 3
    assert store.counters.expired_removals == 1
    assert store.counters.sets == 5


def test_sliding_is_exact() -> None:
    """However little time a read adds."""
    store, clock = make()
    store.put_with("a", 1, Life(8.0, sliding=True), WIDE)
    for _ in range(200):
        clock.advance(0.0625)
        assert store.get("a") == 1
        assert store.remaining("a") == (LIVE, 8.0)
    clock.advance(7.9375)
    assert store.get("a") == 1
    clock.advance(8.0)
    assert store.get("a", None) is None


@pytest.mark.parametrize("policy", POLICIES)
def test_the_hot_table_answers_by_itself(policy: str) -> None:
    """Entries that may be stale or refreshed cost a reader nothing while they are neither."""
    store, clock = make()
    store.put_with("stale", 1, STALE, WIDE)
    store.put_with("due", 1, LIVES["due"], WIDE)
    store.put_with("etag", 1, Life(FOREVER, etag="v"), WIDE)
    store.put_with("plain", 1, Life(8.0), WIDE)
    asked: list[str] = []
    store._table._on_stale = lambda key, default: asked.append(key)
    clock.advance(3.0)
    for key in ("stale", "due", "etag", "plain"):
        store.get(key)
        store.get(key, ASK)
    assert asked == []
    assert type(store._table.entries["plain"]) is Entry
    clock.advance(1.0)
    store.get("due")
    store.put_off("due", 2.0)
    store.get("due")
    assert asked == ["due"], "a refresh that was put off is no reason to look closer"


def test_invalidation_looks_at_no_entry() -> None:
    """Whatever their number: nothing of them changes, and one number does."""
    store, _ = make()
    store.put_many({f"k{n}": n for n in range(100)}, FOREVER, WIDE)
    assert store._tags._numbers is None, "stores without tags have no room for them"
    for n in range(500):
        store.put_with(f"t{n}", n, TAGGED, WIDE)
    before = {key: entry.deadline for key, entry in store._table.entries.items()}
    store.invalidate_tags([RED])
    assert {key: entry.deadline for key, entry in store._table.entries.items()} == before
    assert sum(1 for _ in store.keys("t")) == 0


def test_tokens_leave_nothing_behind() -> None:
    """Whether their loads end or not, and in whatever order."""
    store, _ = make()
    tokens = [store.begin_load(f"k{n % 100}") for n in range(1000)]
    assert len(store._population.loads) == 100
    del tokens[:950]
    assert len(store._population.loads) == 50
    for change in CHANGES.values():
        store.put("a", 1, FOREVER, WIDE)
        tokens.append(store.begin_load("a"))
        change(store)
    del tokens
    gc.collect()
    assert store._population.loads == {}


class Dying:
    """A value that runs something when nobody holds it any more."""

    def __init__(self, action: Any) -> None:
        self.action = action

    def __del__(self) -> None:
        self.action()


def test_a_load_within_a_write() -> None:
    """A finaliser that runs in the middle of a write may load, and use tags: what it wants comes to pass
    later or not at all, and nobody gets an outdated value.
    """
    store, _ = make()
    done: list[Any] = []

    def load() -> None:
        token = store.begin_load("b")
        done.append(store.put_with("b", "loaded", TAGGED, WIDE, token))
        store.put_off("a", 5.0)
        store.invalidate_tags([RED])
        done.append(store.get("a", ASK))
        done.append(store.next_generation("n"))

    store.put_with("a", 1, TAGGED, WIDE)
    store.lock.acquire()
    store.lock.busy = True
    try:
        load()
    finally:
        store.lock.busy = False
        store.lock.release()
    store.put("c", Dying(load), FOREVER, WIDE)
    store.remove("c")
    gc.collect()
    assert done[1] is ASK
    assert done[2] == 1
    assert store.get("a", None) is None
    assert store.get("b", None) is None
    check_store_books(store)


def test_uses_outlive_a_change_of_kind() -> None:
    """A plain entry that gets tags is as old and as used as before, where the policy can tell."""
    for policy, victim in (("lfu", "b"), ("lfuda", "b"), ("lru", "b"), ("sieve", "b"), ("s3fifo", "b")):
        store, _ = make(policy)
        bounds = Bounds(2)
        store.put("a", 1, FOREVER, bounds)
        store.put("b", 1, FOREVER, bounds)
        for _ in range(3):
            store.get("a")
        store.put_with("a", 2, TAGGED, bounds)
        store.put("c", 1, FOREVER, bounds)
        assert victim not in store, policy
        assert "a" in store, policy


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES)
def test_readers_take_the_value_first(life: Life) -> None:
    """A value that left is never taken for None, nor a live one for another's."""
    store, clock = make()
    store.put_with("a", 1, life, WIDE)
    entry = store._table.entries["a"]
    store.remove("a")
    assert entry.value is None
    assert entry.deadline < 0.0
    if isinstance(entry, RichEntry):
        assert not entry.is_fresh(clock.monotonic(), store._tags)
        assert not entry.is_kept(clock.monotonic(), store._tags)


def test_a_reader_with_an_entry_that_became_another() -> None:
    """Who found the plain entry an instant before sees that it left, and looks again."""
    store, _ = make()
    store.put("a", 1, FOREVER, WIDE)
    entry = store._table.entries["a"]
    store.put_with("a", 2, STALE, WIDE)
    assert entry.deadline < 0.0
    assert store._get_stale("a", ABSENT) == 2


def test_a_reader_that_comes_late_to_slide() -> None:
    """The entry it saw slide may have got a life without that; then nothing is prolonged."""
    store, clock = make()
    store.put_with("a", 1, LIVES["sliding"], WIDE)
    entry = store._table.entries["a"]
    assert isinstance(entry, RichEntry)
    store.put("a", 2, 16.0, WIDE)
    clock.advance(2.0)
    store._slide(entry)
    assert store.remaining("a") == (LIVE, 14.0)
    store.put_with("a", 3, LIVES["sliding"], WIDE)
    store.remove("a")
    store._slide(entry)
    check_store_books(store)


@pytest.mark.parametrize("policy", BUILT_IN)
def test_no_reader_sees_what_has_ended(policy: str) -> None:
    """Whatever kind a value was of, and whatever ended it: after the call that did, nobody gets it, whether
    it was read with a lock or without.
    """
    store, clock = make(policy)
    rng = random.Random(policy)
    lives = list(LIVES.values())
    ended = [0]
    reading = [True]
    problems: list[str] = []

    def read() -> None:
        while reading:
            before = ended[0]
            found = store.get("a", ASK)
            seen = [
                store.get("a", None),
                store.get_many(["a"]).get("a"),
                *(record.value for record in store.records() if record.remaining > 0.0),
                found.stored if isinstance(found, Found) and found.is_fresh else None,
                None if isinstance(found, Found) or found is ASK else found,
            ]
            problems.extend(
                f"{value} was read after {before} had ended"
                for value in seen
                if value is not None and value <= before
            )

    readers = [threading.Thread(target=read, daemon=True) for _ in range(2)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for reader in readers:
            reader.start()
        for n in range(1, 1500):
            life = rng.choice(lives)
            if rng.random() < 0.3:
                store.put("a", n, rng.choice([FOREVER, 8.0]), WIDE)
            else:
                store.put_with("a", n, life, WIDE)
            # The one before was replaced if nothing else had ended it.
            ended[0] = n - 1
            match rng.randrange(5):
                case 0:
                    store.remove("a")
                case 1:
                    store.invalidate_tags([RED])
                    if store.get("a", None) is not None:
                        continue
                case 2:
                    clock.advance(64.0)
                    if store.get("a", None) is not None:
                        continue
                case 3:
                    store.clear()
                case 4:
                    continue
            ended[0] = n
    finally:
        reading.clear()
        sys.setswitchinterval(interval)
        for reader in readers:
            reader.join()
    assert not problems, problems[:3]
    check_store_books(store, held)


# Any sequence of operations, next to a model

KEYS = st.sampled_from(["a", "b", "c", "d"])
TIMES = st.sampled_from([0.5, 1.0, 4.0, 8.0, 64.0])
TAGS = [3, 5]
LIFE = st.builds(
    Life,
    ttl=st.one_of(TIMES, st.just(FOREVER)),
    stale_ttl=st.sampled_from([0.0, 2.0, 8.0, FOREVER]),
    sliding=st.booleans(),
    max_age=st.sampled_from([16.0, FOREVER]),
    refresh_after=st.sampled_from([0.5, 2.0, FOREVER, FOREVER]),
    tags=st.sampled_from([(), (3,), (3, 5)]),
    etag=st.sampled_from([None, "v"]),
)
NOTHING = object()


@dataclass
class Kept:
    """What the model knows of an entry."""

    value: int
    life: Life
    fresh_until: float
    last: float
    refresh_at: float
    retry_at: float = 0.0

    @property
    def end(self) -> float:
        return self.fresh_until + self.life.stale_ttl


class LifeMachine(RuleBasedStateMachine):
    """What is in `model` is in the store, as it says."""

    policy: ClassVar[str] = "s3fifo"

    @initialize(heard=st.booleans(), weighs=st.booleans())
    def make(self, heard: bool, weighs: bool) -> None:
        self.clock = ManualClock(monotonic=1024.0)
        policy = eviction_policies.resolve(POLICIES[self.policy])
        self.store = MemoryStore(policy, 100, self.clock, weigher=weigh if weighs else None)
        if heard:
            self.store.subscribe(lambda key, cause: None)
        self.model: dict[str, Kept] = {}
        self.tokens: list[tuple[str, object]] = []
        self.good: dict[int, set[int] | None] = {}
        self.number = 0

    # The model

    def now(self) -> float:
        return self.clock.monotonic()

    def value(self) -> int:
        self.number += 1000
        return self.number

    def keep(self, key: str, value: int, life: Life) -> None:
        now = self.now()
        last = now + life.max_age if life.sliding else FOREVER
        fresh_until = min(now + life.ttl, last)
        self.model[key] = Kept(value, life, fresh_until, last, now + life.refresh_after)
        self.overtake(key)

    def kept(self, key: str) -> Kept | None:
        kept = self.model.get(key)
        if kept is not None and self.now() >= kept.end:
            del self.model[key]
            return None
        return kept

    def live(self, key: str) -> Kept | None:
        kept = self.kept(key)
        return kept if kept is not None and self.now() < kept.fresh_until else None

    def is_due(self, kept: Kept) -> bool:
        now = self.now()
        return now >= kept.retry_at and now >= min(kept.refresh_at, kept.fresh_until)

    def slide(self, kept: Kept) -> None:
        if kept.life.sliding:
            until = min(self.now() + kept.life.ttl, kept.last)
            kept.fresh_until = max(kept.fresh_until, until)

    def overtake(self, key: str) -> None:
        for index, (loaded, _) in enumerate(self.tokens):
            if loaded == key:
                self.good[index] = None

    # Reading

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        kept = self.live(key)
        assert self.store.get(key, NOTHING) == (NOTHING if kept is None else kept.value)
        if kept is not None:
            self.slide(kept)

    @rule(key=KEYS)
    def get_many(self, key: str) -> None:
        kept = self.live(key)
        assert self.store.get_many([key]) == ({} if kept is None else {key: kept.value})
        if kept is not None:
            self.slide(kept)

    @rule(key=KEYS)
    def ask(self, key: str) -> None:
        kept, live = self.kept(key), self.live(key)
        found = self.store.get(key, ASK)
        if live is not None:
            self.slide(live)
            if self.is_due(live):
                assert (found.stored, found.is_fresh, found.is_due) == (live.value, True, True)
            else:
                assert found == live.value
        elif kept is not None:
            assert isinstance(found, Found)
            assert (found.stored, found.is_fresh) == (kept.value, False)
            assert found.is_due == self.is_due(kept)
            assert found.etag == kept.life.etag
        else:
            assert found is ASK

    @rule(key=KEYS)
    def look(self, key: str) -> None:
        kept = self.kept(key)
        found = self.store.look(key)
        if kept is None:
            assert found is None
        else:
            assert found is not None
            assert found.stored == kept.value
            assert found.is_fresh == (self.live(key) is not None)
            assert found.is_due == self.is_due(kept)

    @rule(key=KEYS)
    def remaining(self, key: str) -> None:
        live = self.live(key)
        presence, left = self.store.remaining(key)
        assert (presence is LIVE) == (live is not None)
        assert left == (0.0 if live is None else live.fresh_until - self.now())
        assert (key in self.store) == (live is not None)

    @rule()
    def keys(self) -> None:
        assert sorted(self.store.keys("")) == sorted(key for key in list(self.model) if self.live(key))

    # Writing

    @rule(key=KEYS, ttl=st.one_of(TIMES, st.just(FOREVER)))
    def put(self, key: str, ttl: float) -> None:
        value = self.value()
        self.store.put(key, value, ttl, WIDE)
        self.keep(key, value, Life(ttl))

    @rule(key=KEYS, life=LIFE)
    def put_with(self, key: str, life: Life) -> None:
        value = self.value()
        assert self.store.put_with(key, value, life, WIDE) is True
        self.keep(key, value, life)

    @rule(key=KEYS, life=st.one_of(st.none(), LIFE))
    def add(self, key: str, life: Life | None) -> None:
        value, there = self.value(), self.live(key) is not None
        assert self.store.add(key, value, 4.0, WIDE, life) is not there
        if not there:
            self.keep(key, value, life or Life(4.0))

    @rule(key=KEYS, life=st.one_of(st.none(), LIFE))
    def replace(self, key: str, life: Life | None) -> None:
        value, there = self.value(), self.live(key) is not None
        assert (self.store.replace(key, value, 4.0, life) is LIVE) == there
        if there:
            self.keep(key, value, life or Life(4.0))

    @rule(key=KEYS, initial=st.booleans())
    def incr(self, key: str, initial: bool) -> None:
        live = self.live(key)
        start = self.value() if initial else MISSING
        presence, number = self.store.incr(key, 1, None, start, 4.0, WIDE)
        if live is not None:
            live.value += 1
            assert (presence, number) == (LIVE, live.value)
            self.overtake(key)
        elif initial:
            self.keep(key, self.number + 1, Life(4.0))
            assert number == self.number + 1
        else:
            assert number is None

    @rule(key=KEYS, ttl=st.one_of(TIMES, st.just(FOREVER)))
    def touch(self, key: str, ttl: float) -> None:
        live = self.live(key)
        assert (self.store.touch(key, ttl) is LIVE) == (live is not None)
        if live is not None:
            life = live.life
            live.life = Life(
                ttl, life.stale_ttl, life.sliding, life.max_age, life.refresh_after, life.tags, life.etag
            )
            live.fresh_until = min(self.now() + ttl, live.last)

    @rule(key=KEYS, how=st.sampled_from(["remove", "pop", "remove_many"]))
    def remove(self, key: str, how: str) -> None:
        live = self.live(key)
        if how == "pop":
            presence, value = self.store.pop(key)
            assert value == (None if live is None else live.value)
            assert (presence is LIVE) == (live is not None)
        elif how == "remove":
            assert (self.store.remove(key) is LIVE) == (live is not None)
        else:
            assert self.store.remove_many([key]) == (live is not None)
        self.model.pop(key, None)
        self.overtake(key)

    @rule(tag=st.sampled_from(TAGS))
    def invalidate(self, tag: int) -> None:
        self.store.invalidate_tags([tag])
        self.model = {key: kept for key, kept in self.model.items() if tag not in kept.life.tags}
        for tags in self.good.values():
            if tags is not None:
                tags.add(tag)

    @rule(key=KEYS, seconds=TIMES)
    def put_off(self, key: str, seconds: float) -> None:
        self.store.put_off(key, seconds)
        kept = self.kept(key)
        if kept is not None and not kept.life.is_plain:
            kept.retry_at = self.now() + seconds

    # Loads

    @rule(key=KEYS)
    def begin_load(self, key: str) -> None:
        self.good[len(self.tokens)] = set()
        self.tokens.append((key, self.store.begin_load(key)))

    @rule(which=st.integers(0, 5), life=LIFE)
    def end_load(self, which: int, life: Life) -> None:
        if which < len(self.tokens):
            key, token = self.tokens[which]
            invalidated = self.good[which]
            assert self.store.is_overtaken(key, token) == (invalidated is None)
            value = self.value()
            # A plain life has no tags that could have been invalidated.
            fits = invalidated is not None and not invalidated.intersection(life.tags)
            assert self.store.put_with(key, value, life, WIDE, token) is fits
            if fits:
                self.keep(key, value, life)

    # The whole

    @rule()
    def clear(self) -> None:
        self.store.clear()
        self.model.clear()
        self.good = dict.fromkeys(self.good)

    @rule()
    def load_what_was_recorded(self) -> None:
        records = self.store.records()
        assert sorted(record.key for record in records) == sorted(
            key for key in list(self.model) if self.kept(key) is not None
        )
        self.store.load(records, WIDE)
        for kept in self.model.values():
            # What is left of it is told, not the times at which it began.
            if kept.life.refresh_after != FOREVER:
                kept.refresh_at = max(kept.refresh_at, self.now() + 1e-9)
            kept.retry_at = 0.0
            assert kept.last > self.now() or kept.fresh_until <= self.now()
        self.good = dict.fromkeys(self.good)

    @rule()
    def sweep(self) -> None:
        self.store.sweep()
        left = sum(self.now() >= entry_end(entry) for entry in self.store._table.entries.values())
        assert left == 0
        assert self.store.expired_size() == 0

    @rule(seconds=st.sampled_from([0.0, 0.125, 0.5, 2.0, 8.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def books(self) -> None:
        if hasattr(self, "store"):
            check_store_books(self.store, held)
            assert len(self.store) >= sum(self.kept(key) is not None for key in list(self.model))


def entry_end(entry: Entry) -> float:
    return entry.end if isinstance(entry, RichEntry) else entry.deadline


@pytest.mark.parametrize("policy", [name for name in POLICIES if name not in WRONG])
def test_any_sequence(policy: str) -> None:
    """Every kind of entry and every operation, with each policy: store and books agree with the model."""
    machine = type(LifeMachine.__name__, (LifeMachine,), {"policy": policy})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine, settings=settings(max_examples=40, stateful_step_count=40, deadline=None)
    )
