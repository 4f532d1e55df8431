"""What values are called in keys: the same in every process, and no two alike."""

from __future__ import annotations

import ast
import datetime as dt
import decimal
import enum
import os
import subprocess
import sys
import threading
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import partial
from itertools import combinations
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcache_core import NoStableForm, register_stable_form
from quickcache_core.fingerprint import LONGEST_KEY, shortened, stable_form


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass(frozen=True)
class Point:
    x: int
    y: Any = field(default=0, compare=False)


@dataclass(frozen=True)
class OtherPoint:
    x: int
    y: Any = 0


class Undecorated(Point):
    """A subclass that a dataclass's fields don't describe."""


class Pair(NamedTuple):
    first: Any
    second: Any


Couple = namedtuple("Couple", "first second")


class LoadedPair(Pair):
    """A named tuple that may have attributes beside its fields."""


class Account:
    def __init__(self, number: str) -> None:
        self.number = number

    def __cache_key__(self) -> str:
        return self.number


class Savings(Account):
    pass


class Odd:
    def __cache_key__(self) -> int:
        return 5


class Shelf:
    def __init__(self, name: str, room: Any = None) -> None:
        self.name = name
        self.room = room


class TopShelf(Shelf):
    pass


class OwnText(str):
    __slots__ = ()


def a_function() -> None:
    pass


class Machine:
    def run(self) -> None:
        pass


def shelf_form(shelf: Shelf) -> object:
    return (shelf.name, shelf.room)


register_stable_form(Shelf, shelf_form)

BERLIN = ZoneInfo("Europe/Berlin")
NOON = dt.datetime(2026, 10, 25, 12, 0)  # noqa: DTZ001
DIFFERENT: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    10**30,
    10**5000,
    10**5000 + 1,
    0.0,
    -0.0,
    1.0,
    1e300,
    float("inf"),
    1j,
    1 + 0j,
    "",
    "1",
    "1.0",
    "None",
    "True",
    "a",
    "a b",
    "a\x20b\x00",
    "a\\x20b",
    "'a'",
    "a'",
    "a\\'",
    "a\\",
    "ä",
    "\ud800",
    b"",
    b"1",
    b"a",
    Decimal(1),
    Decimal("1.0"),
    Decimal("1E+3"),
    Decimal(1000),
    Decimal("NaN"),
    Decimal("sNaN"),
    Fraction(1),
    Fraction(1, 2),
    UUID(int=1),
    UUID(int=2),
    dt.date(2026, 10, 25),
    NOON,
    NOON.replace(fold=1),
    NOON.replace(tzinfo=dt.UTC),
    NOON.replace(tzinfo=dt.timezone(dt.timedelta(hours=1))),
    NOON.replace(tzinfo=dt.timezone(dt.timedelta(hours=1), "CET")),
    NOON.replace(tzinfo=BERLIN),
    NOON.time(),
    NOON.time().replace(tzinfo=dt.UTC),
    dt.timedelta(days=1),
    dt.timedelta(seconds=1),
    dt.timedelta(microseconds=1),
    dt.UTC,
    BERLIN,
    Colour.RED,
    Colour.BLUE,
    Size.SMALL,
    Rights.READ,
    Rights.READ | Rights.WRITE,
    Rights(0),
    (),
    (1,),
    ("1",),
    (1, 2),
    (2, 1),
    ((1,), 2),
    (1, (2,)),
    ("1,2",),
    ("1", "2"),
    [],
    [1],
    [1, 2],
    [[1], 2],
    set(),
    {1},
    {1, 2},
    frozenset(),
    frozenset({1}),
    {},
    {1: 2},
    {2: 1},
    {"1": 2},
    {"a": {}},
    {"a": []},
    {"a": 1, "b": 2},
    {"a": 2, "b": 1},
    OrderedDict(a=1, b=2),
    OrderedDict(b=2, a=1),
    MappingProxyType({"a": 1}),
    deque([1]),
    deque([1], maxlen=3),
    range(3),
    range(1, 3),
    range(0, 3, 2),
    ...,
    Point(1),
    Point(1, 2),
    Point(1, "2"),
    OtherPoint(1),
    Pair(1, 2),
    Couple(1, 2),
    int,
    str,
    Point,
    Colour,
    len,
    a_function,
    Account("1"),
    Account("2"),
    Savings("1"),
    Shelf("a"),
    Shelf("a", 1),
    Shelf("a", Shelf("b")),
    Path("a"),
    Path("a b"),
    PurePosixPath("a"),
    PureWindowsPath("a"),
]


def test_different_values_have_different_forms() -> None:
    """Types count: what is equal for `==` may still be two values."""
    forms = [stable_form(value) for value in DIFFERENT]
    for (one, form), (other, other_form) in combinations(zip(DIFFERENT, forms, strict=True), 2):
        assert form != other_form, f"{type(one)} and {type(other)} are both {form[:200]}"


def test_forms_can_stand_in_any_key() -> None:
    """No spaces and no control characters, which memcached refuses and Django warns about."""
    for value in DIFFERENT:
        assert not any(ord(char) < 33 or ord(char) == 127 for char in stable_form(value))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
        ({1, "1", (2,)}, {(2,), "1", 1}),
        (Point(1, [2]), Point(1, [2])),
        (Path("a/b"), Path("a") / "b"),
        (10**20, 10**20),
        ("ab", "".join(["a", "b"])),
        (Savings("1"), Savings("1")),
        (float("nan"), float("nan")),
        ({"z": {3, 1}, "a": {"y": None, "x": ()}}, {"a": {"x": (), "y": None}, "z": {1, 3}}),
    ],
)
def test_equal_values_have_one_form(one: Any, other: Any) -> None:
    """Neither identity nor the order of insertion makes a difference."""
    assert stable_form(one) == stable_form(other)


nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda children: (
        st.lists(children)
        | st.tuples(children)
        | st.tuples(children, children)
        | st.dictionaries(st.text(), children)
    ),
    max_leaves=8,
)


@given(nested, nested)
def test_any_two_nested_values(one: Any, other: Any) -> None:
    """Two values have one form if they read alike as source code, dictionaries sorted, and only then."""
    assert (stable_form(one) == stable_form(other)) == (_source(one) == _source(other))


def _source(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(sorted(f'{key!r}: {_source(item)}' for key, item in value.items()))}}}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({', '.join(map(_source, value))})"
    return repr(value)


def test_the_same_in_another_process() -> None:
    """Hash seeds and addresses have no part in it."""
    code = (
        "from quickcache_core.fingerprint import stable_form\n"
        "from collections import OrderedDict\n"
        "values = ({'a', 'b', 'c', 'd'}, {'x': {'p', 'q'}}, OrderedDict(z=1), len, int)\n"
        "print([stable_form(value) for value in values])"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(answers) == 1
    assert ast.literal_eval(answers.pop())[0] == "set('a','b','c','d')"


def test_the_decimal_context_has_no_say() -> None:
    """A context that writes exponents in lower case changes no key."""
    with decimal.localcontext() as context:
        context.capitals = 0
        lower = stable_form(Decimal("1E+3"))
    assert lower == stable_form(Decimal("1E+3"))


def make_local() -> tuple[type, Callable[[], None]]:
    @dataclass
    class Local:
        x: int

    def inner() -> None:
        pass

    return Local, inner


LOCAL_CLASS, LOCAL_FUNCTION = make_local()


class Tz(dt.tzinfo):
    pass


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (object(), "object has no stable form"),
        (threading.Lock(), "lock"),
        (Machine(), "test_fingerprint.Machine has no stable form"),
        (Machine().run, "method"),
        ([Machine()], "Machine"),
        ({"a": {"b": Machine()}}, "Machine"),
        (Point(1, Machine()), "Machine"),
        (Undecorated(1), "Undecorated"),
        (OwnText("a"), "OwnText"),
        (Counter("a"), "Counter"),
        (defaultdict(list), "defaultdict"),
        (bytearray(b"a"), "bytearray"),
        (iter([]), "iterator"),
        (lambda: None, "<lambda>"),
        (partial(a_function), "partial"),
        ([].append, "append"),
        (LOCAL_CLASS, "define it at the top level"),
        (LOCAL_CLASS(1), "define it at the top level"),
        (LOCAL_FUNCTION, "define it at the top level"),
        (Odd(), "a __cache_key__ that returns int"),
        (Shelf("a", Machine()), "Machine"),
        (NOON.replace(tzinfo=Tz()), "Tz"),
    ],
)
def test_value_without_stable_form(value: Any, part: str) -> None:
    """What nothing is known of is an error that names the type, never a key made of an address."""
    with pytest.raises(NoStableForm) as caught:
        stable_form(value)
    assert part in str(caught.value)
    assert "0x" not in str(caught.value)


def test_named_tuple_with_attributes() -> None:
    """A named tuple that carries more than its fields has no form."""
    pair = LoadedPair(1, 2)
    form = stable_form(pair)
    assert form != stable_form(Pair(1, 2))
    pair.extra = 3  # type: ignore[attr-defined]
    with pytest.raises(NoStableForm, match="LoadedPair"):
        stable_form(pair)


def test_container_that_contains_itself() -> None:
    """A cycle ends in an error, and so does nesting without measure."""
    cycle: list[Any] = []
    cycle.append({"a": cycle})
    deep: Any = ()
    for _ in range(10_000):
        deep = (deep,)
    for value in (cycle, deep):
        with pytest.raises(NoStableForm, match="contains itself, or is nested"):
            stable_form(value)


def test_class_that_another_one_replaced() -> None:
    """A name that leads to something else by now names nothing."""
    hidden = type("Point", (), {"__module__": __name__, "__qualname__": "Point"})
    with pytest.raises(NoStableForm, match="can't be imported"):
        stable_form(hidden)


def test_registered_form_of_a_subclass() -> None:
    """A registered form holds for subclasses, until one has a form of its own."""
    assert stable_form(TopShelf("a")) == stable_form(Shelf("a"))

    class Cellar(Shelf):
        pass

    register_stable_form(Cellar, lambda shelf: shelf.name)
    assert stable_form(Cellar("a")) != stable_form(Shelf("a"))


def test_nearest_form_holds() -> None:
    """Of `__cache_key__` and registered forms in the ancestry of a class the nearest is taken."""

    class Numbered(Account):
        pass

    register_stable_form(Numbered, lambda account: int(account.number))
    assert stable_form(Numbered("1")).endswith("Numbered(1)")
    assert stable_form(Savings("1")).endswith("Savings('1')")


def test_lazy_object() -> None:
    """An object that says it is of a registered class, as lazy ones do, gets that class's form."""

    class Lazy:
        def __init__(self, real: Any) -> None:
            self.real = real

        @property
        def __class__(self) -> type:
            return type(self.real)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    assert stable_form(Lazy(Shelf("a", 1))) == stable_form(Shelf("a", 1))


def test_registering_twice() -> None:
    """The same function again is fine, another one is an error."""
    register_stable_form(Shelf, shelf_form)
    with pytest.raises(ValueError, match=r"Shelf has the form .* already"):
        register_stable_form(Shelf, lambda shelf: shelf.name)
    assert stable_form(Shelf("a")) == stable_form(Shelf("a", None))


@pytest.mark.parametrize("kind", [int, str, list, dt.datetime, "Shelf", None])
def test_registering_what_has_a_form(kind: Any) -> None:
    """Built-in types keep their form; only classes can be given one."""
    with pytest.raises((TypeError, ValueError), match="register_stable_form"):
        register_stable_form(kind, str)


def test_long_keys_are_shortened() -> None:
    """A key comes to at most 200 characters, whatever its length; its end counts; a short one stays."""
    long = "k" * 1000
    assert shortened("k" * LONGEST_KEY) == "k" * LONGEST_KEY
    assert shortened(long + "a") != shortened(long + "b")
    assert len(shortened(long)) == LONGEST_KEY == 200
    assert shortened(long).startswith("kkk")
    assert shortened("\ud800" * 500) != shortened("\ud801" * 500)
