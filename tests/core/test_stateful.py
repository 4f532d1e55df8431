"""Any sequence of operations, next to a plain dictionary that says what must come of it."""

from __future__ import annotations

import copy
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from quickcache_core import (
    NEVER,
    CacheEvent,
    CacheLoadError,
    CacheMiss,
    EventKind,
    EvictionPolicy,
    KeyAlreadyExists,
    QuickCache,
    QuickCacheConfig,
    RemovalCause,
)
from quickcache_core.testing import ManualClock, check_books
from quickcache_core.testing.books import store_of
from tests.core.books import POLICIES, WRONG, held

# Times that floats add up exactly, so that deadlines can be compared exactly.
TTLS = st.sampled_from(
    [0.125, 0.5, 1, 1.5, 5, 60, 3600.0, timedelta(seconds=2), 10.0**6, 86400 * 3650, NEVER, None]
)
PAUSES = st.sampled_from([0.0, 0.0625, 0.125, 0.5, 1.0, 5.0, 59.5, 3600.0, 1e6, 1e8])
KEYS = st.sampled_from([f"k{n}" for n in range(12)])
NUMBERS = st.one_of(st.integers(-5, 5), st.sampled_from([0.5, -2.25, 10**25]))
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    st.text(max_size=5),
    st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(st.sampled_from("ab"), st.lists(st.integers(0, 9), max_size=2), max_size=2),
)
DEFAULT_TTL = 300.0
NOTHING = object()


def in_seconds(ttl: Any) -> float:
    if ttl is None:
        return DEFAULT_TTL
    if ttl is NEVER:
        return float("inf")
    return ttl.total_seconds() if isinstance(ttl, timedelta) else float(ttl)


class CacheMachine(RuleBasedStateMachine):
    """What is in `model` is in the cache; with a small cache, unless it was evicted."""

    policy: ClassVar[str | type[EvictionPolicy]] = "s3fifo"
    max_size: ClassVar[int] = 10_000

    @initialize(isolation=st.sampled_from(["share", "auto", "copy"]), heard=st.booleans())
    def make(self, isolation: str, heard: bool) -> None:
        self.clock = ManualClock(monotonic=1024.0, wall=1_700_000_000.0)
        self.folder = Path(tempfile.mkdtemp())
        self.isolation = isolation
        self.cache = QuickCache(
            QuickCacheConfig(
                max_size=self.max_size,
                eviction_policy=self.policy,
                isolation=isolation,  # type: ignore[arg-type]
                default_ttl=DEFAULT_TTL,
                clock=self.clock,
                cleanup_interval=1e9,
                storage_dir=self.folder,
            )
        )
        self.model: dict[str, tuple[Any, float]] = {}
        self.gets = 0
        self.heard: set[str] | None = None
        if heard:
            self.heard = set()
            self.cache.subscribe(self.hear, [EventKind.SET, EventKind.REMOVED])

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def hear(self, event: CacheEvent) -> None:
        assert self.heard is not None
        if event.kind is EventKind.SET:
            self.heard.add(event.key)
        else:
            assert event.key in self.heard, f"{event.key} left, and was never there"
            if event.cause is not RemovalCause.REPLACED:
                self.heard.remove(event.key)

    # What the model says

    @property
    def exact(self) -> bool:
        return self.max_size > 100

    def now(self) -> float:
        return self.clock.monotonic()

    def expected(self, key: str) -> Any:
        """The live value in the model, or NOTHING."""
        value, deadline = self.model.get(key, (NOTHING, 0.0))
        if value is not NOTHING and self.now() >= deadline:
            del self.model[key]
            return NOTHING
        return value

    def agree(self, key: str, found: bool) -> bool:
        """Whether the cache found something live must be as the model has it."""
        expected = self.expected(key)
        if found:
            assert expected is not NOTHING, f"{key} came from nowhere"
        elif expected is not NOTHING:
            assert not self.exact, f"{key} is lost"
            del self.model[key]
        return found

    def read(self, key: str, value: Any) -> None:
        """The cache gave this value, and the model has it. Spoiling it may matter only if it is shared."""
        expected = self.expected(key)
        assert expected is not NOTHING, f"{key} came from nowhere"
        assert value == expected
        assert type(value) is type(expected)
        if self.isolation != "share":
            spoil(value)

    def store(self, key: str, value: Any, ttl: Any) -> None:
        self.model[key] = (value, self.now() + in_seconds(ttl))

    def private(self, value: Any) -> Any:
        """A value to hand to the cache; spoiled later on, if the cache is to keep its own."""
        return value if self.isolation == "share" else copy.deepcopy(value)

    # One key

    @rule(key=KEYS, value=VALUES, ttl=TTLS)
    def set(self, key: str, value: Any, ttl: Any) -> None:
        given = self.private(value)
        self.cache.set(key, given, ttl)
        if self.isolation != "share":
            spoil(given)
        self.store(key, value, ttl)
        self.gets += 1
        self.read(key, self.cache.get(key))

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        self.gets += 1
        try:
            value = self.cache.get(key)
        except CacheMiss as miss:
            self.agree(miss.key, False)
        else:
            self.read(key, value)

    @rule(key=KEYS)
    def get_with_default(self, key: str) -> None:
        self.gets += 1
        value = self.cache.get(key, NOTHING)
        if self.agree(key, value is not NOTHING):
            self.read(key, value)

    @rule(key=KEYS, value=VALUES, ttl=TTLS)
    def add(self, key: str, value: Any, ttl: Any) -> None:
        try:
            self.cache.add(key, self.private(value), ttl)
        except KeyAlreadyExists as error:
            self.agree(error.key, True)
        else:
            self.agree(key, False)
            self.store(key, value, ttl)

    @rule(key=KEYS, value=VALUES, ttl=TTLS)
    def update(self, key: str, value: Any, ttl: Any) -> None:
        try:
            self.cache.update(key, self.private(value), ttl)
        except CacheMiss:
            self.agree(key, False)
        else:
            self.agree(key, True)
            self.store(key, value, ttl)

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        if self.agree(key, self.cache.delete(key, missing_ok=True)):
            del self.model[key]
        assert key not in self.cache

    @rule(key=KEYS)
    def pop(self, key: str) -> None:
        value = self.cache.pop(key, NOTHING)
        if self.agree(key, value is not NOTHING):
            self.read(key, value)
            del self.model[key]
        assert key not in self.cache

    @rule(key=KEYS, ttl=TTLS)
    def touch(self, key: str, ttl: Any) -> None:
        if self.agree(key, self.cache.touch(key, ttl, missing_ok=True)):
            self.store(key, self.model[key][0], ttl)

    @rule(key=KEYS)
    def ttl(self, key: str) -> None:
        try:
            left = self.cache.ttl(key)
        except CacheMiss:
            self.agree(key, False)
        else:
            self.agree(key, True)
            assert (float("inf") if left is None else left) == self.model[key][1] - self.now()

    @rule(key=KEYS, delta=NUMBERS, initial=st.one_of(st.none(), NUMBERS), ttl=TTLS, down=st.booleans())
    def incr(self, key: str, delta: Any, initial: Any, ttl: Any, down: bool) -> None:
        there = self.agree(key, key in self.cache)
        change = self.cache.decr if down else self.cache.incr
        by = -delta if down else delta
        expected, deadline = self.model[key] if there else (initial, self.now() + in_seconds(ttl))
        try:
            total = change(key, delta, initial=initial, ttl_sec=ttl)
        except CacheMiss:
            assert not there
            assert initial is None
        except TypeError:
            assert there
            assert not isinstance(expected, int | float)
        else:
            assert total == expected + by
            self.model[key] = (total, deadline)

    @rule(key=KEYS)
    def contains(self, key: str) -> None:
        self.agree(key, key in self.cache)

    # Several keys

    @rule(data=st.dictionaries(KEYS, VALUES, max_size=6), ttl=TTLS)
    def set_many(self, data: dict[str, Any], ttl: Any) -> None:
        self.cache.set_many({key: self.private(value) for key, value in data.items()}, ttl)
        for key, value in data.items():
            self.store(key, value, ttl)
        self.hear_anew()

    @rule(keys=st.lists(KEYS, max_size=8))
    def get_many(self, keys: list[str]) -> None:
        self.gets += len(keys)
        found = self.cache.get_many(keys)
        for key in dict.fromkeys(keys):
            if self.agree(key, key in found):
                self.read(key, found.pop(key))
        assert not found

    @rule(keys=st.lists(KEYS, max_size=5))
    def delete_many(self, keys: list[str]) -> None:
        expected = {key for key in keys if self.expected(key) is not NOTHING}
        count = self.cache.delete_many(keys)
        assert count == len(expected) if self.exact else count <= len(expected)
        for key in expected:
            del self.model[key]

    # All of it

    @rule(prefix=st.sampled_from(["", "k", "k1", "x"]))
    def keys(self, prefix: str) -> None:
        found = list(self.cache.keys(prefix))
        assert len(found) == len(set(found))
        for key in list(self.model):
            if key.startswith(prefix):
                self.agree(key, key in found)
        assert {key for key in self.model if key.startswith(prefix)} == set(found)

    @rule()
    def valid_size(self) -> None:
        size = self.cache.valid_size()
        assert size == len(self.cache) == len(list(self.cache))
        self.keys("")
        assert size == len(self.model)

    @rule()
    def cleanup(self) -> None:
        before = self.cache.size()
        assert self.cache.cleanup() == before - self.cache.size()
        assert self.cache.cleanup() == 0

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.model = {}
        assert self.cache.size() == 0
        assert not list(self.cache)

    @rule(factor=st.sampled_from([0.5, 1, 2]))
    def resize(self, factor: float) -> None:
        size = max(1, int(self.max_size * factor))
        self.cache.resize(size)
        assert self.cache.max_size == size == self.cache.config.max_size
        assert self.cache.size() <= size

    @rule(pause=PAUSES)
    def save_and_load(self, pause: float) -> None:
        """The time that a file lies there counts."""
        try:
            path = self.cache.save_to_disk()
        except Exception as error:
            raise AssertionError("these values are plain") from error
        self.clear()
        self.clock.advance(pause)
        saved = self.saved(path)
        self.cache.load_from_disk(path)
        self.model = saved
        self.hear_anew()

    def saved(self, path: Path) -> dict[str, tuple[Any, float]]:
        """What another cache gets from the file."""
        other = QuickCache(self.cache.config.replace(max_size=10_000, isolation="copy"))
        other.load_from_disk(path)
        return {
            key: (other.get(key), self.now() + (float("inf") if (left := other.ttl(key)) is None else left))
            for key in list(other)
        }

    @rule()
    def snapshot_has_everything(self) -> None:
        self.keys("")
        saved = self.saved(self.cache.backup())
        assert saved == {
            key: entry for key, entry in list(self.model.items()) if self.expected(key) is not NOTHING
        }

    @rule()
    def load_what_is_broken(self) -> None:
        path = self.folder / "broken.json"
        path.write_text("{}\n[1, 2")
        with pytest.raises(CacheLoadError):
            self.cache.load_from_disk(path)
        self.keys("")

    @rule(key=KEYS, other=KEYS, value=VALUES)
    def switch_off(self, key: str, other: str, value: Any) -> None:
        with self.cache.disabled():
            assert not self.cache.enabled
            self.cache.set(key, value)
            assert self.cache.get(key, NOTHING) is NOTHING
            assert not self.cache.delete(other, missing_ok=True)
            assert len(self.cache) == 0
        for gone in (key, other):
            self.model.pop(gone, None)
            assert gone not in self.cache
        self.hear_anew()

    @rule()
    def reset_metrics(self) -> None:
        self.cache.reset_metrics()
        self.gets = 0

    # Time

    @rule(pause=PAUSES)
    def wait(self, pause: float) -> None:
        self.clock.advance(pause)

    @rule(seconds=st.sampled_from([-1e9, -3600.0, 1.0, 1e9]))
    def step_wall_clock(self, seconds: float) -> None:
        self.clock.step_wall(seconds)

    # Always

    def hear_anew(self) -> None:
        if self.heard is not None:
            self.heard = set(store_of(self.cache)._table.entries)

    @invariant()
    @precondition(lambda self: hasattr(self, "cache"))
    def books_agree(self) -> None:
        assert len(self.cache) <= self.cache.max_size
        check_books(self.cache, held)
        entries = store_of(self.cache)._table.entries
        if self.exact:
            assert set(entries) >= {key for key in list(self.model) if self.expected(key) is not NOTHING}
        if self.heard is not None:
            assert self.heard == set(entries)

    @invariant()
    @precondition(lambda self: hasattr(self, "cache"))
    def figures_add_up(self) -> None:
        figures = self.cache.get_metrics_snapshot()
        assert figures["gets"] == figures["hits"] + figures["misses"] == self.gets
        assert 0.0 <= figures["hit_ratio"] <= 1.0
        assert figures["current_total_keys"] == len(self.cache)
        assert figures["current_valid_keys"] == len(list(self.cache))
        assert figures["peak_total_keys"] >= figures["current_total_keys"]
        assert figures["peak_valid_keys"] >= figures["current_valid_keys"]
        if self.exact:
            assert figures["evictions"] == 0


def spoil(value: Any) -> None:
    """Change whatever can be changed about it."""
    if isinstance(value, list):
        value.append("spoiled")
    elif isinstance(value, dict):
        for inner in value.values():
            spoil(inner)
        value["spoiled"] = True


@pytest.mark.parametrize("max_size", [10_000, 4, 1])
@pytest.mark.parametrize("policy", [name for name in POLICIES if name not in WRONG])
def test_any_sequence_of_operations(policy: str, max_size: int) -> None:
    """Equal to the dictionary while there is room; when there isn't, nothing that it hasn't got."""
    machine = type("Machine", (CacheMachine,), {"policy": POLICIES[policy], "max_size": max_size})
    examples = max(1, settings().max_examples // (5 if max_size > 1 else 10))
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=40))
