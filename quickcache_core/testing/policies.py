"""The contract of an eviction policy, as tests to inherit."""
# ruff: noqa: S101 - asserts are what a test consists of

from __future__ import annotations

import gc
import random
import tempfile
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

from quickcache_core.cache import QuickCache
from quickcache_core.config import QuickCacheConfig
from quickcache_core.entry import Entry
from quickcache_core.errors import KeyNotFound
from quickcache_core.eviction_policy.base import EvictionPolicy
from quickcache_core.testing.books import check_books, population_of
from quickcache_core.testing.clock import ManualClock
from quickcache_core.ttl import NEVER

NO_SWEEPS = 1e9
"""A `cleanup_interval` after which no test is still running."""


class Case:
    """A cache under test, and what a test may expect of it: each value tells its key."""

    def __init__(self, cache: QuickCache, clock: ManualClock, check: Callable[[QuickCache], None]) -> None:
        self.cache = cache
        self.clock = clock
        self._check = check
        self._number = 0

    @property
    def max_size(self) -> int:
        return self.cache.max_size

    def value(self, key: str) -> str:
        self._number += 1
        return f"{key}={self._number}"

    def put(self, key: str, ttl: Any = NEVER) -> None:
        """Store, and see that it is there: a policy that evicts the newcomer makes `set` pointless."""
        value = self.value(key)
        self.cache.set(key, value, ttl)
        assert self.cache.get(key) == value

    def fill(self, ttl: Any = NEVER) -> list[str]:
        """Up to the bound with keys that weren't there; those keys."""
        self.cache.clear()
        keys = [f"k{n}" for n in range(self.max_size)]
        for key in keys:
            self.put(key, ttl)
        assert self.cache.size() == self.max_size
        return keys

    def live(self) -> set[str]:
        return set(self.cache.keys())

    def check(self) -> None:
        """The bound holds, the books agree, and no value is under another key."""
        assert self.cache.size() <= self.max_size
        self._check(self.cache)
        for key, value in self.cache.get_many(self.live()).items():
            assert not isinstance(value, str) or value.partition("=")[0] == key
        self._check(self.cache)

    def go_on(self) -> None:
        """Use the cache for a while: evictions work, down to the last entry and up again."""
        self.check()
        for round_, ttl in enumerate((NEVER, 5.0, NEVER)):
            for n in range(2 * self.max_size):
                self.put(f"r{round_}.{n}", ttl)
                self.cache.get(f"r{round_}.{n // 2}", None)
            self.check()
            assert self.cache.size() == self.max_size
        bound = self.max_size
        for size in (max(1, bound // 2), 1):
            self.cache.resize(size)
            assert self.cache.size() == size
            self.check()
        self.put("last")
        assert self.live() == {"last"}
        self.check()
        assert self.cache.delete("last")
        assert self.cache.size() == 0
        self.check()
        self.cache.resize(bound)
        for n in range(bound):
            self.put(f"again{n}")
        assert self.cache.size() == bound
        self.check()


class EvictionPolicyContract:
    """Derive a test class from this, name the policy in `policy`, and pytest finds the rest.

    Each operation of the cache is tested on its own and followed by each other one, always with a full cache,
    and always to the end that evicting still works.
    """

    policy: ClassVar[str | type[EvictionPolicy]]
    """As in `QuickCacheConfig.eviction_policy`."""
    max_size: ClassVar[int] = 8

    def held(self, policy: EvictionPolicy) -> Iterable[Entry] | None:
        """The live entries in the books of the policy, each as often as it is in there.

        Override it to have the books compared with the table; None leaves the policy unseen.
        """
        return None

    def make_cache(self, **settings: Any) -> QuickCache:
        """Override it for a cache that needs more than its policy."""
        return QuickCache(QuickCacheConfig(eviction_policy=self.policy, **settings))

    def case(self, max_size: int | None = None, **settings: Any) -> Case:
        clock = ManualClock()
        cache = self.make_cache(
            max_size=max_size or self.max_size,
            default_ttl=NEVER,
            cleanup_interval=NO_SWEEPS,
            clock=clock,
            **settings,
        )
        return Case(cache, clock, self.check_books)

    def check_books(self, cache: QuickCache) -> None:
        held = self.held(population_of(cache).policy)
        check_books(cache, None if held is None else lambda policy: held)

    # One operation

    def test_set(self) -> None:
        """One leaves for each that comes, at any bound."""
        for max_size in (1, 2, 3, 10, 100):
            case = self.case(max_size)
            for n in range(3 * max_size):
                case.put(f"k{n}")
                assert case.cache.size() == min(n + 1, max_size)
                case.check()
            case.go_on()

    def test_get(self) -> None:
        """Reading evicts nobody, hit or miss."""
        case = self.case()
        keys = case.fill()
        for key in keys * 3:
            assert case.cache.get(key).startswith(f"{key}=")
            assert case.cache.get(key + "?", None) is None
        case.cache.get_many([*keys, "nothing"])
        assert case.live() == set(keys)
        case.go_on()

    def test_overwrite(self) -> None:
        """A key that is there replaces itself and nobody else."""
        case = self.case()
        keys = case.fill()
        for key in keys * 2:
            case.put(key)
            case.cache.update(key, case.value(key))
        assert case.live() == set(keys)
        case.go_on()

    def test_delete(self) -> None:
        """The place is free for exactly one; the rest stays, whichever key it was."""
        for victim in range(self.max_size):
            case = self.case()
            keys = case.fill()
            assert case.cache.delete(keys[victim])
            case.check()
            case.put("new")
            assert case.live() == {*keys, "new"} - {keys[victim]}
            case.go_on()

    def test_delete_all(self) -> None:
        """In any order, then it goes on as new."""
        for step in (1, -1, 3):
            case = self.case()
            keys = case.fill()
            for key in dict.fromkeys([*keys[::step], *keys]):
                assert case.cache.delete(key)
                case.check()
            assert case.cache.size() == 0
            case.fill()
            case.go_on()

    def test_returning_key(self) -> None:
        """A key that was deleted or evicted and comes back is like any other."""
        case = self.case()
        for n in range(self.max_size * 5):
            case.put(f"k{n % (self.max_size + 2)}")
            if n % 3 == 0:
                case.cache.delete_many([f"k{n % 7}"])
            case.check()
        case.go_on()

    def test_pop(self) -> None:
        """As `delete`."""
        case = self.case()
        keys = case.fill()
        assert case.cache.pop(keys[0]).startswith(keys[0])
        assert case.cache.pop(keys[0], None) is None
        case.put("new")
        assert case.live() == {*keys, "new"} - {keys[0]}
        case.go_on()

    def test_add(self) -> None:
        """One that adds nothing evicts nobody; one that adds evicts one."""
        case = self.case()
        keys = case.fill()
        for key in keys:
            assert not case.cache.add(key, "other", exist_ok=True)
        assert case.live() == set(keys)
        assert case.cache.add("new", "new=1")
        assert len(case.live() & set(keys)) == self.max_size - 1
        case.go_on()

    def test_incr(self) -> None:
        """One that finds its number evicts nobody; one that begins evicts one."""
        case = self.case()
        for n in range(self.max_size):
            case.cache.set(f"k{n}", n)
        before = case.live()
        for n in range(self.max_size):
            assert case.cache.incr(f"k{n}", 10) == n + 10
            assert case.cache.decr(f"k{n}") == n + 9
        assert case.live() == before
        case.check()
        assert case.cache.incr("new", initial=0) == 1
        assert case.cache.size() == self.max_size
        case.go_on()

    def test_touch(self) -> None:
        """A new deadline evicts nobody."""
        case = self.case()
        keys = case.fill()
        for ttl in (5.0, 500.0, 1.0, NEVER, 50.0):
            for key in keys:
                assert case.cache.touch(key, ttl)
            case.check()
        assert case.live() == set(keys)
        case.go_on()

    def test_set_many(self) -> None:
        """More than fit: as many stay as do fit."""
        for count in (0, 1, self.max_size, 50 * self.max_size):
            case = self.case()
            case.fill()
            case.cache.set_many({f"m{n}": f"m{n}=" for n in range(count)})
            assert case.cache.size() == self.max_size
            case.go_on()

    def test_delete_many(self) -> None:
        """All at once."""
        case = self.case()
        keys = case.fill()
        assert case.cache.delete_many([*keys[1:], "nothing"]) == self.max_size - 1
        assert case.live() == {keys[0]}
        case.go_on()

    def test_expire(self) -> None:
        """What has expired leaves before anything that has not, whatever the policy prefers."""
        case = self.case()
        keys = case.fill()
        for key in keys[::2]:
            case.put(key, 5.0)
        case.clock.advance(6.0)
        for n in range(len(keys[::2])):
            case.put(f"new{n}")
        assert case.live() >= set(keys[1::2])
        assert case.cache.size() == self.max_size
        case.go_on()

    def test_expire_all(self) -> None:
        """By a sweep, by being read, by being written."""
        for name in ("cleanup", "get", "overwrite", "delete", "set", "touch", "clear"):
            case = self.case()
            keys = case.fill(ttl=5.0)
            case.clock.advance(6.0)
            OPERATIONS[name](case, keys)
            case.check()
            case.go_on()

    def test_clear(self) -> None:
        """As new."""
        case = self.case()
        keys = case.fill()
        case.cache.clear()
        assert case.cache.size() == 0
        case.check()
        for key in keys:
            try:
                case.cache.get(key)
            except KeyNotFound:
                continue
            raise AssertionError(f"{key} is there after clear()")
        assert case.fill() == keys
        case.go_on()

    def test_load(self) -> None:
        """What was saved is there, and evictions go on."""
        case = self.case()
        keys = case.fill()
        with tempfile.TemporaryDirectory() as folder:
            path = case.cache.save_to_disk(Path(folder) / "saved")
            for n in range(self.max_size):
                case.put(f"other{n}")
            case.cache.load_from_disk(path)
            assert case.live() == set(keys)
            case.go_on()
            case.cache.resize(max(1, self.max_size // 2))
            case.cache.load_from_disk(path)
            assert case.cache.size() == case.max_size
            assert case.live() <= set(keys)
            case.go_on()

    def test_resize(self) -> None:
        """Down at once, up when entries come."""
        case = self.case()
        keys = case.fill()
        case.cache.resize(2 * self.max_size)
        for n in range(self.max_size):
            case.put(f"new{n}")
        assert case.live() >= set(keys)
        for size in (self.max_size, 3, 1, 2, 2 * self.max_size):
            case.cache.resize(size)
            assert case.cache.size() <= size
            case.go_on()

    def test_cull(self) -> None:
        """Several leave at once, up to all."""
        for fraction in (0.01, 1 / 3, 0.5, 1.0):
            case = self.case(cull_fraction=fraction)
            keys = case.fill()
            case.put("new")
            assert case.cache.size() == self.max_size + 1 - max(1, int(self.max_size * fraction))
            case.check()
            for key in keys:
                case.put(key)
                case.check()

    # Several operations

    def test_operations_in_pairs(self) -> None:
        """Each operation after each other one."""
        for first, second in product(OPERATIONS, repeat=2):
            case = self.case()
            keys = case.fill()
            for name in (first, second):
                OPERATIONS[name](case, keys)
                try:
                    case.check()
                except AssertionError as error:
                    raise AssertionError(f"after {first}, {second}: {error}") from error
            for n in range(2 * self.max_size):
                case.put(f"new{n}")
            case.check()

    def test_random_operations(self) -> None:
        """Any sequence."""
        chance = random.Random(20_240_229)  # noqa: S311 - a test that can be repeated
        for _ in range(3):
            case = self.case()
            case.fill()
            for _ in range(300):
                name = chance.choice(list(OPERATIONS))
                keys = [f"k{chance.randrange(2 * self.max_size)}" for _ in range(chance.randrange(1, 4))]
                OPERATIONS[name](case, keys)
                case.clock.advance(chance.choice((0.0, 0.0, 0.3, 3.0)))
                self.check_books(case.cache)
            case.go_on()

    def test_nothing_piles_up(self) -> None:
        """Keys that come and go leave no traces: but for a bounded number, their entries are freed."""
        case = self.case(max_size=1000)
        case.fill()
        case.cache.clear()
        gc.collect()
        before = entries_alive()
        for n in range(10_000):
            key = f"k{n % 10}"
            case.cache.set(key, key, (NEVER, 3600.0, 5.0)[n % 3])
            if n % 2:
                case.cache.delete(key)
        gc.collect()
        assert entries_alive() - before < 1500
        case.check()


def entries_alive() -> int:
    """Entries in this process, in a table or not."""
    return sum(1 for thing in gc.get_objects() if type(thing) is Entry)


def _get(case: Case, keys: list[str]) -> None:
    for key in keys * 2:
        case.cache.get(key, None)


def _new(case: Case, keys: list[str]) -> None:
    for key in keys:
        case.put(f"{key}'")


def _overwrite(case: Case, keys: list[str]) -> None:
    for key in keys:
        case.put(key)


def _set_many(case: Case, keys: list[str]) -> None:
    case.cache.set_many({key: case.value(key) for key in ("many", *keys)}, 50.0)


def _delete(case: Case, keys: list[str]) -> None:
    for key in keys[::2]:
        case.cache.delete(key, missing_ok=True)


def _pop(case: Case, keys: list[str]) -> None:
    for key in keys[1::2]:
        case.cache.pop(key, None)


def _touch(case: Case, keys: list[str]) -> None:
    for key in keys:
        case.cache.touch(key, 3.0, missing_ok=True)


def _update(case: Case, keys: list[str]) -> None:
    for key in keys:
        if key in case.cache:
            case.cache.update(key, case.value(key))


def _add(case: Case, keys: list[str]) -> None:
    for key in ("added", *keys):
        case.cache.add(key, case.value(key), exist_ok=True)


def _incr(case: Case, keys: list[str]) -> None:
    for key in ("number", *keys):
        if key not in case.cache or isinstance(case.cache.get(key, None), int):
            case.cache.incr(key, initial=0)


def _expire(case: Case, keys: list[str]) -> None:
    for key in keys[::2]:
        case.put(key, 0.5)
    case.clock.advance(1.0)


def _resize(case: Case, keys: list[str]) -> None:
    bound = case.max_size
    case.cache.resize(max(1, bound // 2))
    case.cache.resize(bound)


def _load(case: Case, keys: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = case.cache.save_to_disk(Path(folder) / "saved")
        case.cache.delete_many(keys[:2])
        case.cache.load_from_disk(path)


def _disabled(case: Case, keys: list[str]) -> None:
    with case.cache.disabled():
        case.cache.set(keys[0], case.value(keys[0]))
        case.cache.delete_many(keys[1:2])


OPERATIONS: dict[str, Callable[[Case, list[str]], object]] = {
    "get": _get,
    "get_many": lambda case, keys: case.cache.get_many(keys),
    "set": _new,
    "overwrite": _overwrite,
    "set_many": _set_many,
    "add": _add,
    "update": _update,
    "delete": _delete,
    "delete_many": lambda case, keys: case.cache.delete_many(keys[1:]),
    "pop": _pop,
    "touch": _touch,
    "incr": _incr,
    "expire": _expire,
    "cleanup": lambda case, keys: case.cache.cleanup(),
    "resize": _resize,
    "clear": lambda case, keys: case.cache.clear(),
    "load": _load,
    "disabled": _disabled,
}
"""What can be done to a cache; each takes some keys that may or may not be there."""
