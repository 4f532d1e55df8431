"""What listeners hear: which events each operation causes, and what a listener may do."""

from __future__ import annotations

import dataclasses
import logging
import pickle
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import (
    CacheEvent,
    EventKind,
    InvalidKey,
    KeyAlreadyExists,
    KeyNotFound,
    QuickCache,
    QuickCacheConfig,
    RemovalCause,
)
from quickcache_core.testing import ManualClock

HIT, MISS, SET, REMOVED = EventKind.HIT, EventKind.MISS, EventKind.SET, EventKind.REMOVED
EXPLICIT, REPLACED, EXPIRED = RemovalCause.EXPLICIT, RemovalCause.REPLACED, RemovalCause.EXPIRED
EVICTED, CLEARED = RemovalCause.EVICTED, RemovalCause.CLEARED

Heard = list[tuple[Any, ...]]


class Ear:
    """Notes what it hears, as (kind, key) or (kind, key, cause)."""

    def __init__(self, cache: QuickCache, kinds: Iterable[EventKind] | None = None) -> None:
        self.events: list[CacheEvent] = []
        self.stop = cache.subscribe(self.events.append, kinds)

    def heard(self) -> Heard:
        """All since the last call."""
        events, self.events[:] = self.events[:], []
        return [
            (event.kind, event.key) if event.cause is None else (event.kind, event.key, event.cause)
            for event in events
        ]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["share", "auto", "copy"])
def cache(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> QuickCache:
    """Holds "k" = 1 without an end and "old", which has expired; room for three."""
    config = QuickCacheConfig(
        max_size=3,
        default_ttl=None,
        eviction_policy="fifo",
        isolation=request.param,
        clock=clock,
        storage_dir=tmp_path,
    )
    cache = QuickCache(config)
    cache.set("k", 1)
    cache.set("old", 1, ttl_sec=1)
    clock.advance(2)
    return cache


def raises(error: type[Exception], operation: Callable[..., Any], *arguments: Any) -> None:
    with pytest.raises(error):
        operation(*arguments)


OVERDUE = (REMOVED, "old", EXPIRED)
SAYS: dict[str, tuple[Callable[[QuickCache], Any], Heard]] = {
    "get, hit": (lambda c: c.get("k"), [(HIT, "k")]),
    "get, hit with a default": (lambda c: c.get("k", None), [(HIT, "k")]),
    "get, miss": (lambda c: raises(KeyNotFound, c.get, "x"), [(MISS, "x")]),
    "get, miss with a default": (lambda c: c.get("x", None), [(MISS, "x")]),
    "get, expired": (lambda c: c.get("old", None), [OVERDUE, (MISS, "old")]),
    "get, bad key": (lambda c: raises(InvalidKey, c.get, 5), []),
    "get_many": (lambda c: c.get_many(["k", "x", "old"]), [(HIT, "k"), (MISS, "x"), OVERDUE, (MISS, "old")]),
    "in": (lambda c: ("k" in c, "x" in c, "old" in c), []),
    "ttl": (lambda c: c.ttl("k"), []),
    "keys": (lambda c: list(c.keys()), []),
    "sizes": (lambda c: (len(c), c.size()), []),
    "valid_size": (lambda c: c.valid_size(), [OVERDUE]),
    "set, new": (lambda c: c.set("n", 1), [(SET, "n")]),
    "set, overwrite": (lambda c: c.set("k", 2), [(REMOVED, "k", REPLACED), (SET, "k")]),
    "set, expired": (lambda c: c.set("old", 2), [OVERDUE, (SET, "old")]),
    "set, refused": (lambda c: raises(InvalidKey, c.set, 5, 1), []),
    "add": (lambda c: c.add("n", 1), [(SET, "n")]),
    "add, there": (lambda c: raises(KeyAlreadyExists, c.add, "k", 1), []),
    "add, there and fine": (lambda c: c.add("k", 1, exist_ok=True), []),
    "update": (lambda c: c.update("k", 2), [(REMOVED, "k", REPLACED), (SET, "k")]),
    "update, missing": (lambda c: raises(KeyNotFound, c.update, "x", 1), []),
    "delete": (lambda c: c.delete("k"), [(REMOVED, "k", EXPLICIT)]),
    "delete, missing": (lambda c: c.delete("x", missing_ok=True), []),
    "delete, expired": (lambda c: c.delete("old", missing_ok=True), [OVERDUE]),
    "pop": (lambda c: c.pop("k"), [(REMOVED, "k", EXPLICIT)]),
    "touch": (lambda c: c.touch("k"), []),
    "incr": (lambda c: c.incr("k"), [(REMOVED, "k", REPLACED), (SET, "k")]),
    "decr, new": (lambda c: c.decr("n", initial=0), [(SET, "n")]),
    "incr, missing": (lambda c: raises(KeyNotFound, c.incr, "x"), []),
    "set_many": (
        lambda c: c.set_many({"k": 2, "n": 1}),
        [(REMOVED, "k", REPLACED), (SET, "k"), (SET, "n")],
    ),
    "delete_many": (lambda c: c.delete_many(["k", "x", "old"]), [(REMOVED, "k", EXPLICIT), OVERDUE]),
    "clear": (lambda c: c.clear(), [(REMOVED, "k", CLEARED), (REMOVED, "old", CLEARED)]),
    "cleanup": (lambda c: c.cleanup(), [OVERDUE]),
    "load": (
        lambda c: (c.save_to_disk(), c.load_from_disk()),
        [(REMOVED, "k", CLEARED), (REMOVED, "old", CLEARED)],
    ),
    "save": (lambda c: c.save_to_disk(), []),
    "metrics": (lambda c: (c.metrics(), c.reset_metrics()), []),
    "eviction": (
        lambda c: c.set_many({"1": 1, "2": 2, "3": 3}),
        [OVERDUE, (REMOVED, "k", EVICTED), (SET, "1"), (SET, "2"), (SET, "3")],
    ),
    "resize": (lambda c: (c.set("n", 1), c.resize(1)), [(SET, "n"), OVERDUE, (REMOVED, "k", EVICTED)]),
}


@pytest.mark.parametrize("operation", SAYS)
def test_events_of(cache: QuickCache, operation: str) -> None:
    """Each operation causes these events, whatever the order among several."""
    ear = Ear(cache)
    function, expected = SAYS[operation]
    function(cache)
    heard = ear.heard()
    assert sorted(heard, key=repr) == sorted(expected, key=repr)


@pytest.mark.parametrize("operation", SAYS)
def test_results_with_a_listener(cache: QuickCache, operation: str) -> None:
    """A listener changes nothing of what an operation does and counts."""
    cache.subscribe(lambda event: None)
    SAYS[operation][0](cache)
    figures = cache.metrics()
    assert figures.hits + figures.misses == figures.gets


def test_order_of_replacement(cache: QuickCache) -> None:
    """The old value has left when the new one is announced."""
    ear = Ear(cache)
    cache.set("k", 2)
    assert ear.heard() == [(REMOVED, "k", REPLACED), (SET, "k")]


def test_value_is_there_when_announced(cache: QuickCache) -> None:
    """A listener that reads sees the state after the operation."""
    seen: list[Any] = []
    cache.subscribe(lambda event: seen.append(cache.get(event.key)), [SET])
    cache.set("n", 5)
    cache.subscribe(lambda event: seen.append(event.key in cache), REMOVED)
    cache.delete("n")
    assert seen == [5, False]


@pytest.mark.parametrize("kind", EventKind)
def test_one_kind(cache: QuickCache, kind: EventKind) -> None:
    """A listener hears the kinds it asked for, given alone or in any iterable, and no others."""
    ears = [Ear(cache, kinds) for kinds in ([kind], (kind, kind), {kind}, iter([kind]))]
    alone: list[CacheEvent] = []
    cache.subscribe(alone.append, kind)
    cache.get("k")
    cache.get("x", None)
    cache.set("k", 2)
    expected = {
        HIT: [(HIT, "k")],
        MISS: [(MISS, "x")],
        SET: [(SET, "k")],
        REMOVED: [(REMOVED, "k", REPLACED)],
        EventKind.STALE: [],
    }[kind]
    assert [ear.heard() for ear in ears] == [expected] * 4
    assert len(alone) == len(expected)


def test_no_kinds(cache: QuickCache) -> None:
    """A listener to nothing hears nothing."""
    ear = Ear(cache, [])
    cache.set("k", cache.get("k"))
    assert ear.heard() == []


class TestUnsubscribing:
    def test_ends_it(self, cache: QuickCache) -> None:
        """After that nothing is heard; doing it twice is fine; others hear on."""
        ear, other = Ear(cache), Ear(cache)
        ear.stop()
        ear.stop()
        cache.set("k", cache.get("k"))
        assert ear.heard() == []
        assert other.heard() == [(HIT, "k"), (REMOVED, "k", REPLACED), (SET, "k")]

    def test_one_of_two(self, cache: QuickCache) -> None:
        """A listener subscribed twice hears everything twice, and once after one of them ended."""
        heard: list[CacheEvent] = []
        listener = heard.append
        stops = [cache.subscribe(listener) for _ in range(2)]
        cache.set("k", 2)
        assert len(heard) == 4
        stops[0]()
        cache.set("k", 3)
        assert len(heard) == 6
        stops[1]()
        cache.set("k", 4)
        assert len(heard) == 6

    def test_from_inside(self, cache: QuickCache) -> None:
        """A listener may end its own subscription while it is called."""
        heard: list[CacheEvent] = []

        def once(event: CacheEvent) -> None:
            heard.append(event)
            stop()

        stop = cache.subscribe(once, [SET, HIT])
        cache.set("k", 2)
        cache.set("k", 3)
        cache.get("k")
        assert len(heard) == 1

    def test_leaves_no_trace(self, cache: QuickCache) -> None:
        """When nobody listens any more, a hit goes the short way again."""
        before = cache.get
        stop = cache.subscribe(lambda event: None)
        assert cache.get != before
        stop()
        assert cache.get == before


class TestHarm:
    def test_listener_that_raises(self, cache: QuickCache, caplog: pytest.LogCaptureFixture) -> None:
        """It is logged, the traceback at DEBUG; neither the operation nor other listeners take notice."""

        def bad(event: CacheEvent) -> None:
            raise RuntimeError("mine")

        caplog.set_level(logging.DEBUG)
        cache.subscribe(bad)
        ear = Ear(cache)
        for name in ("set, overwrite", "get, hit", "get, miss", "delete", "eviction", "clear"):
            SAYS[name][0](cache)
        assert {event[0] for event in ear.heard()} == set(EventKind) - {EventKind.STALE}
        assert any("mine" in (record.exc_text or "") for record in caplog.records)
        assert {record.levelname for record in caplog.records} <= {"ERROR", "DEBUG"}

    def test_no_flood(self, cache: QuickCache, caplog: pytest.LogCaptureFixture) -> None:
        """A listener that always raises is reported once, not once per event."""

        def bad(event: CacheEvent) -> None:
            raise RuntimeError("mine")

        caplog.set_level(logging.INFO)
        cache.subscribe(bad)
        for _ in range(100):
            cache.set("k", 1)
        assert len(caplog.records) == 1

    def test_use_of_the_cache(self, cache: QuickCache) -> None:
        """A listener may use the cache, writes included."""
        cache.subscribe(
            lambda event: cache.set(f"copy of {event.key}", 1) if len(event.key) == 1 else None, SET
        )
        cache.set("a", 1)
        assert "copy of a" in cache

    def test_no_lock(self, cache: QuickCache) -> None:
        """No lock is held meanwhile: another thread can write, and is waited for."""
        done: list[str] = []

        def listener(event: CacheEvent) -> None:
            def write() -> None:
                quiet.delete("other", missing_ok=True)
                quiet.get("k", None)
                done.append(event.kind.name)

            thread = threading.Thread(target=write)
            thread.start()
            thread.join(timeout=10)
            assert not thread.is_alive()

        quiet = QuickCache(cache.config.replace(location="events of another thread"))
        loud = QuickCache(quiet.config)
        loud.subscribe(listener)
        loud.set("k", 1)
        loud.get("k")
        loud.get("x", None)
        loud.set("k", 2)
        loud.delete("k")
        loud.set_many({"a": 1, "b": 2, "c": 3, "d": 4})
        loud.clear()
        assert len(done) == 1 + 1 + 1 + 2 + 1 + 5 + 3


class TestSharedStore:
    def test_who_hears_what(self, clock: ManualClock) -> None:
        """Hits, misses and sets are heard at the cache that they went through, removals at every one."""
        config = QuickCacheConfig(location="events of two", clock=clock)
        one, two = QuickCache(config), QuickCache(config)
        ear_one, ear_two = Ear(one), Ear(two)
        one.set("k", 1)
        one.get("k")
        two.get("x", None)
        two.delete("k")
        assert ear_one.heard() == [(SET, "k"), (HIT, "k"), (REMOVED, "k", EXPLICIT)]
        assert ear_two.heard() == [(MISS, "x"), (REMOVED, "k", EXPLICIT)]


class TestSwitchedOff:
    def test_nothing_is_stored(self, cache: QuickCache) -> None:
        """While switched off every read is a miss, and no write is announced, because nothing is stored."""
        ear = Ear(cache)
        with cache.disabled():
            cache.get("k", None)
            cache.set("n", 1)
            cache.add("n", 1)
            cache.set_many({"n": 1})
            cache.incr("n", initial=1)
        assert ear.heard() == [(MISS, "k")]

    def test_what_leaves(self, cache: QuickCache) -> None:
        """What is written meanwhile leaves the cache, and that is heard; afterwards all is as before."""
        ear = Ear(cache)
        with cache.disabled():
            cache.set("k", 2)
        assert ear.heard() == [(REMOVED, "k", EXPLICIT)]
        cache.set("k", 3)
        assert ear.heard() == [(SET, "k")]


def test_the_record() -> None:
    """An event is a frozen record that can be compared and pickled; `cause` is for removals only."""
    event = CacheEvent(REMOVED, "k", EVICTED)
    assert event == CacheEvent(REMOVED, "k", EVICTED)
    assert pickle.loads(pickle.dumps(event)) == event
    assert CacheEvent(HIT, "k").cause is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.key = "x"  # type: ignore[misc]
    assert {cause.value for cause in RemovalCause} == {
        "explicit",
        "replaced",
        "expired",
        "evicted",
        "invalidated",
        "cleared",
    }
