"""The keys of all decorators, for calls and requests that nobody thought of: equal for what is equal, however
it is written and in whichever process; different for what differs.
"""

from __future__ import annotations

import ast
import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from functools import partial
from random import Random
from typing import Any
from urllib.parse import quote, quote_plus
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.key_maker import ROOT, Call, Colour, KeyMaker, Opaque, PageRequest, Point, Shop

DEFAULTS: dict[str, dict[str, Any]] = {"plain": {"b": 2, "c": (1, "x")}, "rich": {"b": None, "c": 0}}


@dataclass(frozen=True)
class Makers:
    """Two processes, in which sets have other orders and objects other addresses."""

    one: KeyMaker
    other: KeyMaker


@pytest.fixture(scope="module")
def makers() -> Iterator[Makers]:
    makers = Makers(KeyMaker(1), KeyMaker(2))
    yield makers
    makers.one.end()
    makers.other.end()


# Values: few enough that equal ones meet, and made of what separates the parts of keys.

TEXTS = st.text("a1',\\:=~()[]{}% \n\u00e9", max_size=5) | st.sampled_from(
    ["None", "True", "1", "1.0", "a=1,b=2", "x" * 300, "x" * 299 + "y", "\ud800"]
)
NUMBERS = st.one_of(
    st.integers(-2, 2),
    st.sampled_from([10**30, 10**4000, 0.0, -0.0, 1.0, 1e300, float("inf"), float("nan"), 1j, 1 + 0j]),
    st.sampled_from([Decimal(1), Decimal("1.0"), Decimal("1E+3"), Fraction(1, 2), Fraction(1)]),
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    TEXTS,
    st.binary(max_size=2),
    st.sampled_from([UUID(int=1), dt.date(2026, 1, 2), dt.datetime(2026, 1, 2, tzinfo=dt.UTC), dt.UTC]),
    st.sampled_from([Colour.RED, Colour.BLUE, int, len, Colour]),
    st.builds(Shop, TEXTS),
)
HASHABLE = st.none() | st.booleans() | st.integers(-2, 2) | TEXTS | st.tuples(TEXTS, st.integers(0, 1))


def containers(inside: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inside, max_size=3),
        st.lists(inside, max_size=3).map(tuple),
        st.dictionaries(HASHABLE, inside, max_size=3),
        st.sets(HASHABLE, max_size=4),
        st.frozensets(HASHABLE, max_size=4),
        st.builds(Point, inside),
    )


VALUES = st.recursive(LEAVES, containers, max_leaves=6)


def canonical(value: Any) -> str:
    """A text that is the same for the same values only; made here, in another way than keys are."""
    if isinstance(value, dict):
        return f"dict {sorted((canonical(key), canonical(item)) for key, item in value.items())}"
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__} {sorted(map(canonical, value))}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} {list(map(canonical, value))}"
    if isinstance(value, Point):
        return f"Point {canonical(value.x)}"
    if isinstance(value, Shop):
        return f"Shop {value.name!r}"
    return f"{type(value).__name__} {hex(value) if type(value) is int else repr(value)}"


def written_anew(value: Any, random: Random) -> Any:
    """An equal value, in another order where the order says nothing, of other objects."""
    again = partial(written_anew, random=random)
    kind = type(value)
    if kind in (list, tuple):
        return kind(map(again, value))
    if kind in (set, frozenset):
        return kind(shuffled(map(again, value), random))
    if kind is dict:
        return {again(key): again(item) for key, item in shuffled(value.items(), random)}
    if kind is Point:
        return Point(again(value.x))
    if kind is Shop:
        return Shop(again(value.name))
    if kind is str:
        return "".join(list(value))
    if kind is int:
        return int(hex(value), 16)
    if kind is float:
        return float(repr(value))
    if kind is Fraction:
        return Fraction(3 * value.numerator, 3 * value.denominator)
    return value


def shuffled(values: Any, random: Random) -> list[Any]:
    found = list(values)
    random.shuffle(found)
    return found


def altered(value: Any, random: Random) -> Any:
    """Something that looks much like it."""
    if type(value) in (list, tuple) and value and random.random() < 0.6:
        place = random.randrange(len(value))
        return type(value)(altered(one, random) if at == place else one for at, one in enumerate(value))
    if isinstance(value, dict) and value and random.random() < 0.6:
        place = random.choice(list(value))
        return {key: altered(item, random) if key == place else item for key, item in value.items()}
    changes: list[Callable[[Any], Any]] = [str, lambda v: [v], lambda v: (v,), lambda v: [v, v]]
    if isinstance(value, list | tuple | set | frozenset):
        changes += [list, tuple, lambda v: list(v)[::-1]]
    if isinstance(value, int):
        changes += [float, bool, Decimal] if abs(value) < 10**300 else [lambda v: v + 1]
    if isinstance(value, str):
        changes += [lambda v: v + "'", lambda v: v[:-1], lambda v: v.encode(errors="replace"), Shop]
    try:
        return random.choice(changes)(value)
    except ValueError:  # more digits than a text may have
        return None


# Calls


@dataclass(frozen=True)
class Meant:
    """A call, whichever way it is written."""

    function: str
    a: Any
    b: Any
    c: Any
    rest: tuple[Any, ...] = ()
    more: Any = ()

    def told(self) -> str:
        return canonical([self.function, self.a, self.b, self.c, self.rest, dict(self.more)])


def calls() -> st.SearchStrategy[Meant]:
    ordinary = st.builds(Meant, st.just("plain"), VALUES, VALUES | st.just(2), VALUES | st.just((1, "x")))
    extra = st.dictionaries(st.sampled_from(["a", "d", "rest", "more", "x=1,c"]), VALUES, max_size=3)
    with_all = st.builds(
        Meant,
        st.just("rich"),
        VALUES,
        VALUES | st.none(),
        VALUES | st.just(0),
        st.lists(VALUES, max_size=2).map(tuple),
        extra.map(lambda found: tuple(found.items())),
    )
    return ordinary | with_all


def written(call: Meant, random: Random) -> Call:
    """By position or by name, defaults given or left out, keywords in any order."""
    defaults = DEFAULTS[call.function]
    named = dict(call.more)
    args: list[Any] = []
    positional = ["a", "b", "c"] if call.function == "plain" else ["a", "b"]
    count = random.randint(0 if call.function == "plain" else 1, len(positional))
    if call.rest:
        count = len(positional)
    for place, name in enumerate(["a", "b", "c"]):
        value = getattr(call, name)
        if name in positional and place < count:
            args.append(value)
        elif not (
            name in defaults and canonical(defaults[name]) == canonical(value) and random.random() < 0.7
        ):
            named[name] = value
    return Call(call.function, (*args, *call.rest), dict(shuffled(named.items(), random)))


RANDOM = st.randoms(use_true_random=False)


@given(calls(), RANDOM)
def test_one_call(makers: Makers, call: Meant, random: Random) -> None:
    """However it is written, and in another process with another hash seed: one key."""
    anew = replace(
        call,
        **{name: written_anew(getattr(call, name), random) for name in ("a", "b", "c", "rest", "more")},
    )
    [first, second] = makers.one.keys(written(call, random), written(anew, random))
    [third] = makers.other.keys(written(anew, random))
    assert first == second == third
    for key in first.values():
        assert isinstance(key, str)
        assert len(key) <= 250
        assert not any(ord(char) < 33 or ord(char) == 127 for char in key)


@st.composite
def pairs_of_calls(draw: st.DrawFn) -> tuple[Meant, Meant]:
    one = draw(calls())
    random = draw(RANDOM)
    kind = random.choice(["another", "altered", "moved"])
    if kind == "another":
        return one, draw(calls())
    if kind == "moved":
        return one, replace(one, a=one.b, b=one.a)
    name = random.choice(["a", "b", "c"])
    return one, replace(one, **{name: altered(getattr(one, name), random)})


@given(pairs_of_calls(), RANDOM)
def test_two_calls(makers: Makers, pair: tuple[Meant, Meant], random: Random) -> None:
    """Their keys differ if anything in them does, be it the type of a number, and only then."""
    one, other = pair
    of_one, of_other = makers.one.keys(written(one, random), written(other, random))
    for way, key in of_one.items():
        assert (key == of_other[way]) == (one.told() == other.told()), way


@given(st.lists(TEXTS, min_size=2, max_size=3), st.sampled_from(["','", ",", "', '", "':'", "',b='"]))
def test_texts_that_grow_together(makers: Makers, texts: list[str], between: str) -> None:
    """Several texts are never taken for one that has in it what stands between them in a key."""
    one = between.join(texts)
    pairs = [
        (Call("plain", (texts,), {}), Call("plain", ([one],), {})),
        (Call("plain", ({texts[0]: texts[1]},), {}), Call("plain", ({one},), {})),
        (Call("rich", (*texts, *texts), {}), Call("rich", (one, *texts), {})),
        (Call("plain", (texts[0], texts[1]), {}), Call("plain", (one, 2), {})),
        (Call("rich", (1,), {"x": texts[0], "y": texts[1]}), Call("rich", (1,), {"x": one})),
    ]
    for pair in pairs:
        of_one, of_other = makers.one.keys(*pair)
        assert not set(of_one.values()) & set(of_other.values())


@given(calls(), RANDOM)
def test_object_without_a_form(makers: Makers, call: Meant, random: Random) -> None:
    """However deep it lies: an error that names the argument, and no key with an address in it."""
    hidden: Any = Opaque()
    for _ in range(random.randrange(4)):
        hidden = random.choice(
            [[hidden], (1, hidden), {"k": hidden}, Point(hidden), {"a": 1, "b": [hidden]}, [hidden, "x"]]
        )
    places = ["a", "b", "c"] + (["rest", "more"] if call.function == "rich" else [])
    name = random.choice(places)
    value = {"rest": (*call.rest, hidden), "more": (*call.more, ("z", hidden))}.get(name, hidden)
    [made] = makers.one.keys(written(replace(call, **{name: value}), random))
    for told in made.values():
        assert isinstance(told, tuple)
        argument, message = told
        assert argument == name
        assert "Opaque" in message
        assert "0x" not in message


# Requests

QUERY = st.lists(
    st.tuples(
        st.text("abA&=~ é\xff", min_size=1, max_size=2),
        st.text("a1&=~%+;? \né", max_size=3) | st.just("x" * 300),
    ),
    max_size=4,
)
NAMES = st.none() | st.text("ab',~=\\:/ ", min_size=1, max_size=3).map(str.strip)
"""Values of headers."""


@dataclass(frozen=True)
class Asked:
    path: str
    query: tuple[tuple[str, str], ...]
    host: str
    user: str | None
    language: str | None
    tenant: str | None

    def told(self) -> str:
        by_name: dict[str, list[str]] = {}
        for name, value in self.query:
            by_name.setdefault(name, []).append(value)
        return canonical([by_name, replace(self, query=()).__dict__])


REQUESTS = st.builds(
    Asked,
    st.text("a~?:/%é'\\ ", max_size=4).map("/page/x".__add__),
    QUERY.map(tuple),
    st.sampled_from(["testserver", "a.example", "a.example:8000"]),
    NAMES,
    NAMES,
    NAMES,
)


def sent(asked: Asked, random: Random) -> PageRequest:
    """Names in any order, the values of one name in theirs, and anything encoded that may be."""
    names = shuffled({name for name, _ in asked.query}, random)
    pairs = [pair for wanted in names for pair in asked.query if pair[0] == wanted]
    if random.random() < 0.5:  # one between others
        random.shuffle(names)
        left = {name: [value for other, value in asked.query if other == name] for name in names}
        pairs = []
        while any(left.values()):
            name = random.choice([name for name, values in left.items() if values])
            pairs.append((name, left[name].pop(0)))
    query = "&".join(f"{_encoded(name, random)}={_encoded(value, random)}" for name, value in pairs)
    return PageRequest(quote(asked.path), query, asked.host, asked.user, asked.language, asked.tenant)


def _encoded(text: str, random: Random) -> str:
    if random.random() < 0.2:
        return "".join(f"%{byte:02x}" for byte in text.encode())
    return random.choice([quote, quote_plus])(text, safe=random.choice(["", "~'"]))


@given(REQUESTS, RANDOM)
def test_one_page(makers: Makers, asked: Asked, random: Random) -> None:
    """However the address is written, and in another process: one key."""
    [first, second] = makers.one.keys(sent(asked, random), sent(asked, random))
    [third] = makers.other.keys(sent(asked, random))
    assert first == second == third
    for key in first.values():
        assert len(key) <= 250
        assert not any(ord(char) < 33 or ord(char) == 127 for char in key)


@st.composite
def pairs_of_requests(draw: st.DrawFn) -> tuple[Asked, Asked]:
    one, other = draw(REQUESTS), draw(REQUESTS)
    fields = ["path", "query", "host", "user", "language", "tenant"]
    differing = draw(st.lists(st.sampled_from(fields), max_size=2))
    changes = {name: getattr(other, name) for name in differing}
    if draw(st.booleans()):
        changes |= {"user": one.language, "language": one.user}
    return one, replace(one, **changes)


@given(pairs_of_requests(), RANDOM)
def test_two_pages(makers: Makers, pair: tuple[Asked, Asked], random: Random) -> None:
    """Their keys differ if path, parameters, host, user, language or a chosen header do, and only then."""
    one, other = pair
    of_one, of_other = makers.one.keys(sent(one, random), sent(other, random))
    for way, key in of_one.items():
        assert (key == of_other[way]) == (one.told() == other.told()), way


# The code itself

MODULES = [
    "quickcache_core/fingerprint.py",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "quickcache_core/decorators").glob("*.py"))),
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "quickcache_core/http").glob("*.py"))),
    "quickcache_django/decorators.py",
    "quickcache_django/views.py",
    "quickcache_django/templatetags/quickcache.py",
    "quickcache_flask/decorators.py",
    "quickcache_flask/fragments.py",
    "quickcache_flask/memoized.py",
    "quickcache_flask/views.py",
]
"""Where keys are made."""

OF_NUMBERS = {"bool", "int", "float"}
HARMLESS = {"__repr__", "__hash__", "_complex"}
"""Functions that make no keys; and one that writes two floats."""


@pytest.mark.parametrize("module", MODULES)
def test_no_repr_in_a_key(module: str) -> None:
    """Modules that make keys have no use for `repr`, `id` and `hash`, but in what they raise."""
    assert list(_suspects(ast.parse((ROOT / module).read_text()))) == []


def test_what_would_be_found() -> None:
    """The test above sees the ways there are to make a key of an address."""
    code = """
def key(value):
    several = repr(value), id(value), hash(value), f"{value!r}", object.__repr__(value), value.__hash__()
    return several, map(repr, [])

def fine(value):
    return int.__repr__(value)
    raise ValueError(f"{value!r}")
"""
    assert len(list(_suspects(ast.parse(code)))) == 7


def _suspects(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Raise) or (isinstance(node, ast.FunctionDef) and node.name in HARMLESS):
        return
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "fail":
        return  # Jinja's way to raise
    found = None
    if isinstance(node, ast.Name) and node.id in ("repr", "id", "hash", "ascii"):
        found = node.id
    if isinstance(node, ast.Attribute) and node.attr in ("__repr__", "__hash__", "__str__"):
        found = None if isinstance(node.value, ast.Name) and node.value.id in OF_NUMBERS else node.attr
    if isinstance(node, ast.FormattedValue) and node.conversion in (ord("r"), ord("a")):
        found = "!r"
    if found is not None:
        yield f"line {getattr(node, 'lineno', '?')}: {found}"
    for child in ast.iter_child_nodes(node):
        yield from _suspects(child)
