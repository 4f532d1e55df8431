"""The hot table, in Python and in C: one contract."""

from __future__ import annotations

import copy
import gc
import inspect
import os
import random
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcache_core import CacheEvent, EventKind, QuickCache, QuickCacheConfig
from quickcache_core.compiled import PURE_VARIABLE
from quickcache_core.entry import FOREVER, GONE, MISSING, Entry, WeighedEntry
from quickcache_core.errors import InvalidKey, KeyNotFound
from quickcache_core.serializer.isolation import Frozen
from quickcache_core.store import table as reference
from quickcache_core.store.accelerator import ACCELERATED, TABLES
from quickcache_core.store.table import HookedTable, OrderedTable, Table
from quickcache_core.testing import ManualClock

compiled: ModuleType | None
try:
    from quickcache_core.store import _table as compiled
except ImportError:
    compiled = None

in_c = pytest.mark.skipif(compiled is None, reason="the hot table in C isn't built here")
KINDS = {"counter": "Table", "order": "OrderedTable", "hook": "HookedTable"}


class Clock:
    """Stands still between two `advance`."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


class Text(str):
    pass


class Unequal(str):
    """Equal hashes, and a comparison that fails."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        raise TypeError("not with me")


def make(module: ModuleType, kind: str, entries: Any = None, now: Any = None, on_stale: Any = None) -> Any:
    table = getattr(module, KINDS[kind])(
        Clock() if now is None else now,
        (lambda key, default: ("stale", key, default)) if on_stale is None else on_stale,
        OrderedDict() if entries is None else entries,
    )
    if kind == "hook":
        table.on_hit = lambda entry: None
    return table


def put(table: Any, key: str, value: Any, deadline: Any = FOREVER) -> Entry:
    entry = Entry(key, value, deadline)
    table.entries[key] = entry
    return entry


@pytest.fixture(params=["python", pytest.param("c", marks=in_c)])
def module(request: pytest.FixtureRequest) -> Any:
    return reference if request.param == "python" else compiled


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def table(module: ModuleType, kind: str) -> Any:
    return make(module, kind)


# The contract


def test_a_hit_is_counted(table: Any) -> None:
    """The value is the stored object itself; `hits` and nothing else goes up."""
    value = object()
    put(table, "k", value)
    assert table.get("k") is value
    assert table.get("k", None) is value
    assert table.get("k", default=None) is value
    assert table.get(key="k") is value
    assert table.get(key="k", default=None) is value
    assert table.get(default=None, key="k") is value
    assert (table.hits, table.misses) == (6, 0)


def test_a_miss_is_counted(table: Any) -> None:
    """The default as it is, whatever it is; without one the key is in the error."""
    default = object()
    assert table.get("k", default) is default
    assert table.get("k", default=default) is default
    assert table.get("k", None) is None
    assert (table.hits, table.misses) == (0, 3)
    for arguments in (("k",), ("k", MISSING)):
        with pytest.raises(KeyNotFound) as caught:
            table.get(*arguments)
        assert caught.value.key == "k"
    assert table.misses == 5


@pytest.mark.parametrize("key", [1, None, b"k", ("k",), ["k"], {}])
def test_a_key_that_is_no_string(table: Any, key: Any) -> None:
    """An error with and without a default, and no get that would be counted."""
    put(table, "k", 1)
    for arguments in ((key,), (key, None)):
        with pytest.raises(InvalidKey) as caught:
            table.get(*arguments)
        assert caught.value.key is key
        assert caught.value.__cause__ is None
    assert (table.hits, table.misses) == (0, 0)


def test_a_subclass_of_str_is_a_key(table: Any) -> None:
    """Equal to the plain one."""
    put(table, "k", 1)
    assert table.get(Text("k")) == 1
    assert table.get(Text("other"), 2) == 2
    assert (table.hits, table.misses) == (1, 1)


def test_a_stored_key_that_can_not_be_compared(table: Any) -> None:
    """The error is the one for a bad key."""
    table.entries[Unequal("k")] = Entry("k", 1, FOREVER)
    with pytest.raises(InvalidKey):
        table.get("k", None)


def test_bad_arguments(table: Any) -> None:
    """As for any Python function."""
    put(table, "k", 1)
    for arguments, named in (((), {}), (("k", 1, 2), {}), (("k",), {"other": 1}), (("k",), {"key": "k"})):
        with pytest.raises(TypeError, match=r"get\(\)"):
            table.get(*arguments, **named)
    assert (table.hits, table.misses) == (0, 0)


def test_a_deadline_has_passed_once_it_is_reached(module: ModuleType, kind: str) -> None:
    """`on_stale` answers, with the key and the default, and counts for itself."""
    clock = Clock()
    table = make(module, kind, now=clock)
    entry = put(table, "k", "value", 105.0)
    assert table.get("k") == "value"
    clock.time = 105.0
    assert table.get("k", 7) == ("stale", "k", 7)
    assert table.get("k") == ("stale", "k", MISSING)
    entry.deadline = GONE
    assert table.get("k", default=None) == ("stale", "k", None)
    assert (table.hits, table.misses) == (1, 0)


def test_deadlines_that_are_no_float(module: ModuleType) -> None:
    """They are compared as Python compares; so is another infinity than `FOREVER`."""
    table = make(module, "counter")
    put(table, "int", 1, 101)
    put(table, "past", 1, 100)
    put(table, "infinity", 1, float("inf"))
    assert table.get("int") == table.get("infinity") == 1
    assert table.get("past", 0) == ("stale", "past", 0)
    put(table, "text", 1, "soon")
    with pytest.raises(TypeError):
        table.get("text")


def test_the_clock_of_the_machine(module: ModuleType) -> None:
    """A deadline that was just read from it has passed; one in a moment hasn't."""
    table = make(module, "counter", now=time.monotonic)
    entry = put(table, "k", "value", 0.0)
    for _ in range(20_000):
        entry.deadline = time.monotonic()
        assert table.get("k", 1) == ("stale", "k", 1)
    entry.deadline = time.monotonic() + 3600
    assert table.get("k") == "value"
    before = time.monotonic()
    entry.deadline = before + 0.02
    while table.get("k", None) == "value":
        assert time.monotonic() < before + 1.0
    assert time.monotonic() >= before + 0.02


def test_ends_near_and_far_by_the_clock_of_the_machine(module: ModuleType) -> None:
    """Each is kept to: no value after it, and none missing before it."""
    table = make(module, "counter", now=time.monotonic)
    start = time.monotonic()
    entries = [put(table, f"k{n}", n, start + 0.01 + n * 0.11) for n in range(22)]
    live = list(entries)
    while live:
        for entry in live[:]:
            before = time.monotonic()
            found = table.get(entry.key, None)
            after = time.monotonic()
            if found == entry.value:
                assert before < entry.deadline
            else:
                assert after >= entry.deadline
                live.remove(entry)
        time.sleep(0.0005)
    assert time.monotonic() >= entries[-1].deadline


def test_the_clock_can_be_exchanged(table: Any) -> None:
    """Also for one that fails; the error is the caller's to see."""
    put(table, "k", "value", 150.0)
    assert table.get("k") == "value"
    table._now = lambda: 200.0
    assert table.get("k", 1) == ("stale", "k", 1)
    table._now = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        table.get("k", 1)
    table._now = lambda: 200.0
    table._on_stale = lambda key, default: 1 / 0
    with pytest.raises(ZeroDivisionError):
        table.get("k", 1)


def test_a_frozen_value_is_made_anew(table: Any) -> None:
    """By its `load`, on each read; an error of it is the caller's to see, and the hit was one."""
    private = {"a": 1}
    put(table, "dict", Frozen(dict.copy, private))
    put(table, "odd", Frozen(dict.copy, OrderedDict(a=1)))
    put(table, "list", Frozen(list.copy, [1]))
    put(table, "own", Frozen(lambda data: ("loaded", data), 5))
    put(table, "broken", Frozen(lambda data: 1 / data, 0))
    assert table.get("dict") == private
    assert table.get("dict") is not private
    assert table.get("odd") == {"a": 1}
    assert table.get("list") == [1]
    assert table.get("own") == ("loaded", 5)
    with pytest.raises(ZeroDivisionError):
        table.get("broken")
    assert table.hits == 6


@pytest.mark.parametrize(
    ("frequency", "after"), [(0, 1), (1, 2), (2, 3), (3, 3), (4, 4), (-1, 0), (10**20, 10**20)]
)
def test_a_use_is_noted_on_the_entry(module: ModuleType, frequency: int, after: int) -> None:
    """Up to 3."""
    table = make(module, "counter")
    entry = put(table, "k", 1)
    entry.frequency = frequency
    table.get("k")
    assert entry.frequency == after
    entry.frequency = frequency
    table.use(entry)
    assert entry.frequency == after


def test_a_hit_moves_the_key_to_the_end(module: ModuleType) -> None:
    """Where the policy reads the order; the number of uses is left alone."""
    table = make(module, "order")
    first = put(table, "a", 1)
    put(table, "b", 2)
    table.get("a")
    assert list(table.entries) == ["b", "a"]
    table.use(table.entries["b"])
    assert list(table.entries) == ["a", "b"]
    assert first.frequency == 0


def test_a_key_that_leaves_between_look_and_move(module: ModuleType) -> None:
    """It was a hit all the same; `use` says nothing either."""
    clock = Clock()
    table = make(module, "order", now=lambda: table.entries.clear() or clock.time)
    entry = put(table, "k", "value", 1e9)
    assert table.get("k") == "value"
    table.use(entry)
    assert table.hits == 1


def test_a_hook_is_told_of_each_hit(module: ModuleType) -> None:
    """Of the entry, before the hit is counted; its error is the caller's to see."""
    table = make(module, "hook")
    entry = put(table, "k", "value")
    told: list[Any] = []
    table.on_hit = told.append
    table.get("k")
    table.get("absent", None)
    table.use(entry)
    assert told == [entry, entry]
    table.on_hit = lambda entry: 1 / 0
    with pytest.raises(ZeroDivisionError):
        table.get("k")
    assert table.hits == 1


def test_python_code_has_the_counters_too(table: Any) -> None:
    """To add to and to set."""
    put(table, "k", 1)
    table.get("k")
    table.hits += 10
    table.misses += 1
    assert (table.hits, table.misses) == (11, 1)
    table.hits = table.misses = 0
    table.get("k")
    assert (table.hits, table.misses) == (1, 0)


def test_entries_are_replaced_as_a_whole(table: Any) -> None:
    """The next get reads the new ones."""
    put(table, "k", 1)
    assert table.get("k") == 1
    table.entries = OrderedDict(k=Entry("k", 2, FOREVER))
    assert table.get("k") == 2
    table.entries = OrderedDict()
    assert table.get("k", 3) == 3


def test_entries_of_other_classes(table: Any) -> None:
    """Subclasses, and what only looks like an entry."""

    class Computed(Entry):
        __slots__ = ()

        @property
        def value(self) -> Any:
            return "computed"

        @value.setter
        def value(self, value: Any) -> None:
            pass

    class Like:
        def __init__(self) -> None:
            self.key, self.value, self.deadline, self.frequency = "like", "alike", FOREVER, 0

    class Watched(Entry):
        def __getattribute__(self, name: str) -> Any:
            return "watched" if name == "value" else object.__getattribute__(self, name)

    table.entries["weighed"] = WeighedEntry("weighed", 1, FOREVER)
    table.entries["computed"] = Computed("computed", 1, FOREVER)
    table.entries["like"] = Like()
    table.entries["watched"] = Watched("watched", 1, FOREVER)
    assert [table.get(key) for key in list(table.entries)] == [1, "computed", "alike", "watched"]
    assert table.hits == 4


def test_what_is_not_set(table: Any) -> None:
    """An AttributeError with the name, as for any object."""
    entry = put(table, "k", 1, 150.0)
    for holder, name in ((entry, "value"), (entry, "deadline"), (table, "_now"), (table, "entries")):
        old = getattr(holder, name)
        delattr(holder, name)
        with pytest.raises(AttributeError, match=name):
            table.get("k")
        setattr(holder, name, old)
    del table._on_stale
    assert table.get("k") == 1
    table._now = lambda: 200.0
    with pytest.raises(AttributeError, match="_on_stale"):
        table.get("k")
    put(table, "frozen", frozen := Frozen(dict.copy, {}))
    del frozen.load
    with pytest.raises(AttributeError, match="load"):
        table.get("frozen")


def test_uses_that_are_not_set(module: ModuleType) -> None:
    """The same for these, where they are looked at."""
    table = make(module, "counter")
    entry = put(table, "k", 1)
    del entry.frequency
    with pytest.raises(AttributeError, match="frequency"):
        table.get("k")
    table = make(module, "hook")
    del table.on_hit
    put(table, "k", 1)
    with pytest.raises(AttributeError, match="on_hit"):
        table.get("k")


def test_subclasses(module: ModuleType, kind: str) -> None:
    """May add slots and override; `get` finds the rest."""

    class Mine(getattr(module, KINDS[kind])):  # type: ignore[misc]
        __slots__ = ("more",)

        def get(self, key: str, default: Any = MISSING) -> Any:
            self.more = key
            return super().get(key, default)

    table = Mine(Clock(), lambda key, default: default, OrderedDict())
    if kind == "hook":
        table.on_hit = lambda entry: None
    put(table, "k", 1)
    assert table.get("k") == 1
    assert table.get("absent", 2) == 2
    assert (table.more, table.hits, table.misses) == ("absent", 1, 1)


def test_bound_methods(table: Any) -> None:
    """What a cache holds: equal ones for one table, and the table lives as long as it does."""
    put(table, "k", 1)
    get = table.get
    assert get == table.get
    del table
    gc.collect()
    assert get("k") == 1


def test_a_table_in_a_circle_is_collected(module: ModuleType, kind: str) -> None:
    """Through what it holds, as a store is."""

    class Store:
        table: Any

        def stale(self, key: str, default: Any) -> Any:
            return default

    store = Store()
    store.table = make(module, kind, on_stale=store.stale)
    put(store.table, "k", store.table.get)
    gone = weakref.ref(store)
    del store
    gc.collect()
    assert gone() is None


@in_c
def test_the_type_in_c_is_one_of_the_reference(kind: str) -> None:
    """So `isinstance` holds for both, and what isn't in C is the reference's."""
    ours, theirs = getattr(compiled, KINDS[kind]), getattr(reference, KINDS[kind])
    assert issubclass(ours, theirs)
    assert ours.use is theirs.use
    assert "live value under `key`" in ours.get.__doc__
    with pytest.raises(TypeError):
        object.__new__(ours)
    with pytest.raises(TypeError):
        theirs.__new__(ours)
    with pytest.raises(TypeError):
        ours.get(make(reference, kind), "k")


# Both, side by side

_KEYS = st.sampled_from(["a", "b", "c", "absent", Text("a"), Text("absent"), 1, None, ("a",), ["a"]])
_DEFAULTS = st.sampled_from([(), (None,), (MISSING,), (5,)])
_VALUES = st.sampled_from(
    [
        1,
        None,
        "text",
        Frozen(dict.copy, {"a": 1}),
        Frozen(list.copy, [1, 2]),
        Frozen(dict.copy, OrderedDict(b=1)),
        Frozen(lambda data: 1 / data, 0),
    ]
)
_STEPS = st.one_of(
    st.tuples(st.just("get"), _KEYS, _DEFAULTS, st.booleans()),
    st.tuples(st.just("get"), _KEYS, _DEFAULTS, st.booleans()),
    st.tuples(
        st.just("put"),
        st.sampled_from(["a", "b", "c", Text("c")]),
        _VALUES,
        st.sampled_from([FOREVER, float("inf"), 100.0, 102.5, 104, GONE, float("nan")]),
        st.integers(-2, 5),
    ),
    st.tuples(st.just("remove"), st.sampled_from("abc")),
    st.tuples(st.just("wipe"), st.sampled_from("abc"), st.sampled_from(["value", "deadline", "frequency"])),
    st.tuples(st.just("advance"), st.sampled_from([0.5, 1.0])),
    st.tuples(st.just("clear")),
    st.tuples(st.just("count"), st.integers(-3, 3)),
)


class Subject:
    """A table and everything that it may leave traces on."""

    def __init__(self, module: ModuleType, kind: str) -> None:
        self.clock = Clock()
        self.told: list[Any] = []
        self.table = make(module, kind, now=self.clock, on_stale=self._stale)
        if kind == "hook":
            self.table.on_hit = lambda entry: self.told.append(("hit", entry.key))

    def _stale(self, key: str, default: Any) -> Any:
        self.told.append(("stale", key, default))
        return "stale"

    def run(self, step: tuple[Any, ...]) -> Any:
        name, *rest = step
        return getattr(self, name)(*rest)

    def get(self, key: Any, default: tuple[Any, ...], named: bool) -> Any:
        try:
            if named and default:
                return self.table.get(key, default=default[0])
            return self.table.get(key, *default)
        except Exception as error:
            return type(error), str(error), error.__suppress_context__

    def put(self, key: str, value: Any, deadline: Any, frequency: int) -> None:
        put(self.table, key, copy.copy(value), deadline).frequency = frequency

    def remove(self, key: str) -> None:
        self.table.entries.pop(key, None)

    def wipe(self, key: str, name: str) -> None:
        entry = self.table.entries.get(key)
        if hasattr(entry, name):
            delattr(entry, name)

    def advance(self, seconds: float) -> None:
        self.clock.time += seconds

    def clear(self) -> None:
        self.table.entries = OrderedDict()

    def count(self, number: int) -> None:
        self.table.hits += number
        self.table.misses -= number

    def traces(self) -> Any:
        entries = [
            (key, getattr(entry, "frequency", "unset")) for key, entry in list(self.table.entries.items())
        ]
        return self.table.hits, self.table.misses, self.told, entries


@in_c
@pytest.mark.parametrize("kind", KINDS)
@given(steps=st.lists(_STEPS, max_size=40))
def test_c_and_python_do_the_same(kind: str, steps: list[tuple[Any, ...]]) -> None:
    """Every answer and every trace, whatever was done before."""
    assert compiled is not None
    ours, theirs = Subject(compiled, kind), Subject(reference, kind)
    for step in steps:
        assert ours.run(step) == theirs.run(step), step
        assert ours.traces() == theirs.traces(), step


# References and memory


class Held:
    """Counts the references to what takes part in a get."""

    def __init__(self, objects: dict[str, Any]) -> None:
        self._objects = objects

    def counts(self) -> dict[str, int]:
        gc.collect()
        return {name: sys.getrefcount(each) for name, each in self._objects.items()}


def everything(table: Any, kind: str, objects: dict[str, Any]) -> Iterator[Callable[[], Any]]:
    """A call for each way through `get`; those that raise do so."""
    get, key, default = table.get, objects["key"], objects["default"]
    yield lambda: get(key)
    yield lambda: get(key, default)
    yield lambda: get(key, default=default)
    yield lambda: get(key=key, default=default)
    yield lambda: get(objects["timed key"], default)
    yield lambda: get(objects["expired key"], default)
    yield lambda: get(objects["frozen key"])
    yield lambda: get(objects["dict key"])
    yield lambda: get(objects["broken key"])
    yield lambda: get(objects["unset key"])
    yield lambda: get(objects["absent key"], default)
    yield lambda: get(objects["absent key"])
    yield lambda: get(objects["like key"])
    yield lambda: get(5, default)
    yield lambda: get([], default)
    yield lambda: get(key, default, default)
    yield lambda: get(key, other=default)


def fails(data: Any) -> Any:
    raise ValueError(data)


@pytest.mark.parametrize("clock", ["own", "machine"])
def test_no_reference_is_lost_or_left(module: ModuleType, kind: str, clock: str) -> None:
    """By no way through `get`, in 10,000 calls."""
    now = Clock() if clock == "own" else time.monotonic
    objects: dict[str, Any] = {name: object() for name in ("value", "default")}
    for name in ("", "timed ", "expired ", "frozen ", "dict ", "broken ", "unset ", "absent ", "like "):
        objects[f"{name}key"] = "".join(["a key: ", name])
    table = make(module, kind, now=now, on_stale=lambda key, default: default)
    value = objects["value"]
    objects["entry"] = put(table, objects["key"], value)
    objects["timed"] = put(table, objects["timed key"], value, now() + 3600.0)
    objects["expired"] = put(table, objects["expired key"], value, now() - 1.0)
    objects["frozen"] = Frozen(lambda data: [data], value)
    objects["data"] = {"a": value}
    objects["dict"] = Frozen(dict.copy, objects["data"])
    objects["broken"] = Frozen(fails, value)
    for name in ("frozen", "dict", "broken"):
        put(table, objects[f"{name} key"], objects[name])
    del put(table, objects["unset key"], value).value

    class Like:
        value, deadline, frequency, key = objects["value"], FOREVER, 0, objects["like key"]

    table.entries[objects["like key"]] = Like()
    objects.update(
        table=table, entries=table.entries, deadline=objects["timed"].deadline, on_stale=table._on_stale
    )
    objects.update(
        missing=MISSING,
        forever=FOREVER,
        now=now,
        Entry=Entry,
        Frozen=Frozen,
        KeyNotFound=KeyNotFound,
        InvalidKey=InvalidKey,
        reference=reference.Table.get,
        type=type(table),
    )
    held = Held(objects)
    calls = list(everything(table, kind, objects))

    def run(times: int) -> None:
        for call in calls:
            for _ in range(times):
                try:
                    call()
                except (ValueError, KeyError, TypeError, AttributeError):
                    pass

    run(10)
    before = held.counts()
    run(600)
    assert {
        name: number - before[name] for name, number in held.counts().items() if number != before[name]
    } == {}
    tracemalloc.start()
    try:
        run(20)
        gc.collect()
        start = tracemalloc.get_traced_memory()[0]
        run(600)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - start
    finally:
        tracemalloc.stop()
    assert grown < 2000, f"{grown} bytes more after 10,000 calls"


@in_c
def test_tables_come_and_go(kind: str) -> None:
    """With all they hold, and no reference to their type is lost or left."""
    assert compiled is not None
    table_type = getattr(compiled, KINDS[kind])
    value = object()

    def run() -> None:
        for _ in range(1000):
            table = make(compiled, kind)  # type: ignore[arg-type]
            put(table, "k", value)
            table.get("k")

    run()
    gc.collect()
    before = sys.getrefcount(table_type), sys.getrefcount(value)
    run()
    gc.collect()
    assert (sys.getrefcount(table_type), sys.getrefcount(value)) == before


# Threads


def test_readers_beside_a_writer(module: ModuleType, kind: str) -> None:
    """No value of another key, none of an entry that left, and every get counted once."""
    table = make(module, kind, now=time.monotonic, on_stale=lambda key, default: default)
    lock = threading.Lock()
    if kind == "hook":
        table.on_hit = lambda entry: lock.acquire() and lock.release()
    keys = [f"key {number}" for number in range(8)]
    stop = threading.Event()
    wrong: list[Any] = []
    gets = [0] * 4

    def read(number: int) -> None:
        chance = random.Random(number)
        while not stop.is_set():
            for _ in range(200):
                key = chance.choice(keys)
                value = table.get(key, stop)
                if value is None or (value is not stop and value[0] != key):
                    wrong.append((key, value))
                gets[number] += 1

    def write() -> None:
        chance = random.Random(99)
        while not stop.is_set():
            for _ in range(50):
                key = chance.choice(keys)
                entry = table.entries.pop(key, None)
                if entry is not None:
                    entry.deadline = GONE
                    entry.value = None
                deadline = chance.choice([FOREVER, time.monotonic() + 3600])
                table.entries[key] = Entry(key, (key, object()), deadline)
            if chance.random() < 0.05:
                table.entries = OrderedDict()

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    threads.append(threading.Thread(target=write))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        time.sleep(0.4)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert wrong == []
    # `on_stale` counts nothing here, so hits and misses may be fewer, by what was found past its deadline.
    assert 0 < table.hits + table.misses <= sum(gets)


@in_c
def test_threads_lose_no_count(kind: str) -> None:
    """All gets of all threads, in C."""
    assert compiled is not None
    table = make(compiled, kind)
    put(table, "k", 1)

    def read() -> None:
        for _ in range(20_000):
            table.get("k")
            table.get("absent", None)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (table.hits, table.misses) == (80_000, 80_000)


# What a cache has for it

SHAPES: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    *(
        (("k",), {}),
        (("k", 5), {}),
        (("k",), {"default": 5}),
        ((), {"key": "k"}),
        ((), {"key": "k", "default": 5}),
    ),
    *((("no",), {}), (("no", 5), {}), (("no",), {"default": None}), (("no", MISSING), {})),
    *((("late",), {}), (("late", 5), {}), ((Text("k"),), {}), ((Text("no"), 5), {})),
    *(((1,), {}), ((None, 5), {}), ((["k"],), {})),
]
ALL_POLICIES = ("s3fifo", "fifo", "lru", "lfu", "sieve")


def outcome(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    try:
        return call(*arguments, **named)
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("isolation", ["share", "auto"])
@pytest.mark.parametrize("policy", ALL_POLICIES)
def test_a_get_of_a_cache_is_that_of_its_function(policy: str, isolation: Any) -> None:
    """However it is called, whatever it reads with."""
    clock = ManualClock()
    cache = QuickCache(QuickCacheConfig(clock=clock, eviction_policy=policy, isolation=isolation))
    function = inspect.unwrap(QuickCache.get)
    assert type(function) is FunctionType
    heard: list[Any] = []

    def prepared() -> tuple[int, int]:
        cache.set("k", {"a": [1]})
        cache.set("late", 1, 1)
        clock.advance(1.5)
        snapshot = cache.metrics()
        return snapshot.hits, snapshot.misses

    def traces(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        hits, misses = prepared()
        answer = outcome(call, *arguments, **named)
        after = cache.metrics()
        return answer, after.hits - hits, after.misses - misses

    def same() -> None:
        for arguments, named in SHAPES:
            expected = traces(function, cache, *arguments, **named)
            assert traces(cache.get, *arguments, **named) == expected
            assert traces(QuickCache.get, cache, *arguments, **named) == expected

    same()
    stop = cache.subscribe(heard.append)
    same()
    assert heard
    stop()
    with cache.disabled():
        cache.set("k", 1)
        assert cache.get("k", 5) == 5
        same()
    same()


def test_a_get_of_other_stores() -> None:
    """A namespace and a cache with a version read with functions in Python."""
    cache = QuickCache(QuickCacheConfig(version="2", default_ttl=60))
    part = cache.namespace("part")
    for one in (cache, part):
        one.set("k", one)
        assert one.get("k") is one
        assert one.get("no", 5) == one.get("no", default=5) == 5
        with pytest.raises(KeyNotFound):
            one.get("no")
        with pytest.raises(TypeError):
            one.get("k", 1, 2)  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            one.get()  # type: ignore[call-arg]


def test_gets_that_are_no_gets() -> None:
    """Bad arguments raise what a function does; nobody but a cache can be asked."""
    cache = QuickCache()
    for arguments, named in (((), {}), (("k", 1, 2), {}), (("k",), {"other": 1}), (("k",), {"key": "k"})):
        with pytest.raises(TypeError, match=r"get\(\)"):
            cache.get(*arguments, **named)
    with pytest.raises(TypeError):
        QuickCache.get()  # type: ignore[call-arg]
    assert QuickCache.get(self=cache, key="k", default=3) == 3  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        QuickCache.get("no cache", "k")  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        QuickCache.get(object.__new__(QuickCache), "k")
    assert cache.get_metrics_snapshot()["misses"] == 1


def test_gets_that_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one object, in a subclass, which still has that of the class, or kept by a caller."""

    class Upper(QuickCache):
        def get(self, key: str, default: Any = MISSING) -> Any:
            return str(super().get(key, default)).upper()

    cache, upper = QuickCache(), Upper()
    for one in (cache, upper):
        one.set("k", "value")
    kept = cache.get
    assert [cache.get("k"), kept("k"), upper.get("k"), QuickCache.get(upper, "k")] == [
        "value",
        "value",
        "VALUE",
        "value",
    ]
    monkeypatch.setattr(cache, "get", lambda key: "patched")
    assert cache.get("k") == "patched"
    monkeypatch.undo()
    assert cache.get("k") == "value"
    with mock.patch.object(cache, "get", autospec=True, return_value=1) as patched:
        assert cache.get("k") == 1
    patched.assert_called_once_with("k")
    assert cache.get("k") == "value"


def test_a_reader_that_goes_while_it_reads() -> None:
    """What is in the middle of a get may give the cache another one, and let the old one go."""
    cache = QuickCache(QuickCacheConfig(max_size=10))
    active: list[int] = []

    class Odd(str):
        def __hash__(self) -> int:
            return hash("odd")

        def __eq__(self, other: object) -> bool:
            if not active:
                active.append(1)
                cache.subscribe(lambda event: None)()
                cache.clear()
                with cache.disabled():
                    gc.collect()
                cache.set("odd", 1)
                active.clear()
            return str.__eq__(self, str(other))

    for _ in range(20):
        cache.clear()
        cache.set(Odd("odd"), 2)
        assert cache.get("odd", None) in (None, 1, 2)


@pytest.mark.parametrize("policy", ["s3fifo", "lru", "lfu"])
def test_no_reference_is_lost_by_a_cache(policy: str) -> None:
    """By no way through the get of a cache."""
    cache = QuickCache(QuickCacheConfig(eviction_policy=policy, isolation="share"))
    value, key, absent, default = object(), "a key " + policy, "no key " + policy, object()
    cache.set(key, value)
    reader = cache._get

    def run(times: int) -> None:
        for _ in range(times):
            cache.get(key)
            cache.get(key, default)
            cache.get(absent, default)
            cache.get(key=key, default=default)
            QuickCache.get(cache, key)
            outcome(cache.get, absent)
            outcome(cache.get, 1, default)
            outcome(cache.get, key, default, default)
            outcome(QuickCache.get)
            _ = cache.get

    run(10)
    objects = [cache, value, key, absent, default, reader, QuickCache.get, QuickCache]
    before = [sys.getrefcount(one) for one in objects]
    run(1_000)
    assert [sys.getrefcount(one) for one in objects] == before
    tracemalloc.start()
    try:
        run(10)
        used = tracemalloc.get_traced_memory()[0]
        run(1_000)
        assert tracemalloc.get_traced_memory()[0] < used + 2_000
    finally:
        tracemalloc.stop()


@in_c
def test_calls_of_a_cache_are_specialised() -> None:
    """CPython finds the methods by a short cut. It does that only if their type can't be changed."""
    for method in map(vars(QuickCache).get, ("get", "set", "incr")):
        if type(method) is not FunctionType:
            with pytest.raises(TypeError):
                type(method).more = 1  # type: ignore[attr-defined]


# Which one is used


def run_python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_stores_use_the_one_that_was_chosen() -> None:
    """In C if it is there and nobody refused it."""
    refused = os.environ.get(PURE_VARIABLE, "0") not in ("", "0")
    assert ACCELERATED is (compiled is not None and not refused)
    assert set(TABLES) == set(reference.TABLES)
    with QuickCache() as cache:
        assert type(cache.get.__self__) is TABLES["counter"]  # type: ignore[attr-defined]
    assert all(issubclass(TABLES[kind], reference.TABLES[kind]) for kind in TABLES)
    assert issubclass(TABLES["hook"], HookedTable)
    assert issubclass(TABLES["order"], OrderedTable)
    assert issubclass(TABLES["counter"], Table)


@pytest.mark.parametrize(("value", "refused"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_the_one_in_c_can_be_refused(value: str, refused: bool) -> None:
    """By the environment, at import."""
    code = (
        "import sys; from quickcache_core.store import accelerator as a;"
        "print(a.ACCELERATED, 'quickcache_core.store._table' in sys.modules)"
    )
    expected = compiled is not None and not refused
    assert run_python(code, **{PURE_VARIABLE: value}) == f"{expected} {expected}"


@in_c
@pytest.mark.slow
def test_this_page_with_checks_of_memory() -> None:
    """Python's allocator checks what is written around blocks and to freed ones."""
    options = [__file__, "-q", "-m", "not slow", "-p", "no:xdist", "-p", "no:cacheprovider"]
    code = f"import pytest, sys; sys.exit(pytest.main({options}))"
    run_python(code, PYTHONMALLOC="debug", PYTHONFAULTHANDLER="1")


@pytest.mark.parametrize(
    "change",
    ["del Population._may_swap", "from quickcache_core.store import deadlines; del deadlines._SPARSE"],
)
def test_what_was_built_for_other_classes_is_not_used(change: str) -> None:
    code = (
        f"from quickcache_core.compiled import found; import sys;"
        "from quickcache_core.store.population import Population;"
        f"{change}; sys.modules.pop('quickcache_core.store._writer', None);"
        "print(found('quickcache_core.store._writer'))"
    )
    assert run_python(code).split() == ["None"]


def test_get_of_the_class_is_replaced_for_a_while() -> None:
    """Caches made, switched off or listened to meanwhile go by their own `get` afterwards."""
    before = QuickCache(QuickCacheConfig())
    before.set("k", 1)
    with mock.patch.object(QuickCache, "get", autospec=True):
        made = QuickCache(QuickCacheConfig())
    made.set("k", 1)
    with mock.patch.object(QuickCache, "get"):
        before.subscribe(lambda event: None)()
    for cache in (before, made):
        heard: list[CacheEvent] = []
        subscription = cache.subscribe(heard.append, EventKind.HIT)
        assert cache.get("k") == 1
        assert len(heard) == 1
        subscription()
        with cache.disabled():
            assert cache.get("k", "off") == "off"
        assert cache.get("k") == 1


def test_methods_are_referenced_weakly() -> None:
    """As bound methods are by what tells others of events."""
    cache = QuickCache(QuickCacheConfig())
    for method in (cache.set, cache.incr, cache.delete):
        assert weakref.WeakMethod(method)() == method
    assert weakref.ref(QuickCache.get)() is QuickCache.get
