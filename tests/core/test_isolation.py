from __future__ import annotations

import datetime as dt
import enum
import pickle
import threading
from collections import OrderedDict, defaultdict, namedtuple
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcache_core.errors import ConfigError, SerializationError
from quickcache_core.serializer import JsonSerializer, PickleSerializer
from quickcache_core.serializer.isolation import Frozen, freezer, thaw


class Colour(enum.Enum):
    RED = 1


class Text(str):
    """A string with room for more, as many libraries have one."""


class Pair(tuple):
    pass


class Members(frozenset):
    pass


class Box:
    def __init__(self, content: Any) -> None:
        self.content = content

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box) and self.content == other.content

    __hash__ = None  # type: ignore[assignment]


class HashableBox(Box):
    def __hash__(self) -> int:
        return 1


class Zone(dt.tzinfo):
    """A time zone that can be changed."""

    offset = dt.timedelta(0)

    def utcoffset(self, _: dt.datetime | None) -> dt.timedelta:
        return self.offset

    def dst(self, _: dt.datetime | None) -> None:
        return None


class Unpicklable:
    def __reduce__(self) -> Any:
        raise RuntimeError("not me")


class BadToLoad:
    def __setstate__(self, state: object) -> None:
        raise RuntimeError("no way back")


Point = namedtuple("Point", "x y")


def automatic(*immutable_types: type) -> Any:
    freeze = freezer("auto", JsonSerializer(), immutable_types)
    assert freeze is not None
    return freeze


MUTATORS = {
    dict: lambda value: value.update(new=1),
    list: lambda value: value.append(1),
    set: lambda value: value.add("new"),
    bytearray: lambda value: value.extend(b"x"),
    Box: lambda value: setattr(value, "content", "new"),
    HashableBox: lambda value: setattr(value, "content", "new"),
    Text: lambda value: setattr(value, "mark", "new"),
    Zone: lambda value: setattr(value, "offset", dt.timedelta(hours=1)),
}


def mutate_everything(value: Any) -> int:
    """Change all that can be changed inside of a value; how many things that were."""
    changed = 0
    if isinstance(value, dict):
        changed += sum(mutate_everything(item) for pair in list(value.items()) for item in pair)
    elif isinstance(value, (list, tuple, set, frozenset)):
        changed += sum(map(mutate_everything, list(value)))
    elif isinstance(value, (dt.datetime, dt.time)):
        changed += mutate_everything(value.tzinfo)
    elif isinstance(value, Box):
        changed += mutate_everything(value.content)
    if mutator := next((MUTATORS[kind] for kind in type(value).__mro__ if kind in MUTATORS), None):
        mutator(value)
        changed += 1
    return changed


MUTABLE = [
    pytest.param(lambda: {"a": 1, "b": (1, 2)}, id="flat dict"),
    pytest.param(dict, id="empty dict"),
    pytest.param(lambda: [1, "a", None, (1, frozenset((2,)))], id="flat list"),
    pytest.param(lambda: {1, "a"}, id="flat set"),
    pytest.param(lambda: {"a": [1]}, id="list in dict"),
    pytest.param(lambda: [{}], id="dict in list"),
    pytest.param(lambda: ([1],), id="list in tuple"),
    pytest.param(lambda: (((([1],),),),), id="list deep in tuples"),
    pytest.param(lambda: [([1],)], id="list in tuple in list"),
    pytest.param(lambda: {"a": ([1],)}, id="list in tuple in dict"),
    pytest.param(lambda: bytearray(b"abc"), id="bytearray"),
    pytest.param(lambda: [bytearray(b"abc")], id="bytearray in list"),
    pytest.param(lambda: Box([1]), id="object"),
    pytest.param(lambda: {HashableBox(1): 2}, id="object as key"),
    pytest.param(lambda: {HashableBox(1)}, id="object in set"),
    pytest.param(lambda: frozenset((HashableBox(1),)), id="object in frozenset"),
    pytest.param(lambda: {(HashableBox(1),): 2}, id="object in tuple as key"),
    pytest.param(lambda: Text("abc"), id="str subclass"),
    pytest.param(lambda: [Text("abc")], id="str subclass in list"),
    pytest.param(lambda: {Text("abc"): 1}, id="str subclass as key"),
    pytest.param(lambda: OrderedDict(a=1), id="OrderedDict"),
    pytest.param(lambda: defaultdict(list, a=[1]), id="defaultdict"),
    pytest.param(lambda: Point([1], 2), id="namedtuple"),
    pytest.param(lambda: dt.datetime(2024, 1, 1, tzinfo=Zone()), id="changeable zone"),
    pytest.param(lambda: [dt.time(1, tzinfo=Zone())], id="changeable zone in list"),
]

IMMUTABLE = [
    None,
    True,
    1,
    2**100,
    1.5,
    1j,
    "text",
    b"bytes",
    range(3),
    Decimal("1.1"),
    Fraction(1, 3),
    UUID(int=5),
    dt.date(2024, 1, 1),
    dt.timedelta(1),
    dt.UTC,
    dt.time(1),
    dt.time(1, tzinfo=dt.UTC),
    dt.datetime(2024, 1, 1),  # noqa: DTZ001 - a naive one is meant
    dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
    dt.datetime(2024, 1, 1, tzinfo=ZoneInfo("UTC")),
    (),
    (1, ("a", (b"b", frozenset((1, (2,)))))),
    frozenset(),
]


class TestAutomatic:
    @pytest.mark.parametrize("value", IMMUTABLE, ids=repr)
    def test_immutable_value(self, value: object) -> None:
        """What nobody can change is kept as it is."""
        assert automatic()(value) is value

    @pytest.mark.parametrize("value", IMMUTABLE, ids=repr)
    def test_flat_containers(self, value: object) -> None:
        """Containers of such values are copied, never pickled."""
        for flat in ([value], {"a": value}, {value: "a"}, {value}):
            frozen = automatic()(flat)
            assert frozen.load in (list.copy, dict.copy, set.copy)
            assert thaw(frozen) == flat
            assert type(thaw(frozen)) is type(flat)

    @pytest.mark.parametrize("make", MUTABLE)
    def test_stored_value_changed(self, make: Any) -> None:
        """Changing what one stored changes nothing in the cache."""
        value = make()
        frozen = automatic()(value)
        assert mutate_everything(value)
        assert describe(thaw(frozen)) == describe(make())

    @pytest.mark.parametrize("make", MUTABLE)
    def test_returned_value_changed(self, make: Any) -> None:
        """Changing what one got back changes nothing for the next reader."""
        frozen = automatic()(make())
        assert mutate_everything(thaw(frozen))
        assert describe(thaw(frozen)) == describe(make())

    def test_enum_member(self) -> None:
        """An enum member comes back as the one member that it is."""
        assert thaw(automatic()([Colour.RED]))[0] is Colour.RED

    @pytest.mark.parametrize("wrap", [lambda inner: inner, lambda inner: (inner,), lambda inner: [inner]])
    @pytest.mark.parametrize("kind", [Pair, Members])
    def test_tuple_with_attributes(self, kind: Any, wrap: Any) -> None:
        """An instance of a subclass is never handed out, even if all that it contains is immutable."""
        value = kind((1, 2))
        value.mark = "before"
        frozen = automatic()(wrap(value))
        value.mark = "after"
        back = thaw(frozen)
        while type(back) is not kind:
            (back,) = back
        assert back.mark == "before"

    def test_shared_parts(self) -> None:
        """Parts that a value holds twice are looked at once, however often they are nested in each other."""
        value: Any = ()
        for _ in range(100):
            value = (value, value)
        assert automatic()(value) is value

    def test_deep_tuple(self) -> None:
        """Immutable values may be nested deeper than Python's stack."""
        value: Any = ()
        for _ in range(100_000):
            value = (value,)
        assert automatic()(value) is value

    def test_deep_list(self) -> None:
        """What is nested too deeply to be pickled is refused, not a crash."""
        value: Any = []
        for _ in range(100_000):
            value = [value]
        with pytest.raises(SerializationError) as caught:
            automatic()(value)
        assert isinstance(caught.value.__cause__, RecursionError)

    def test_value_that_contains_itself(self) -> None:
        """A cycle is kept."""
        value: list[Any] = []
        value.append(value)
        back = thaw(automatic()(value))
        assert back[0] is back
        assert back is not value

    @pytest.mark.parametrize(
        "value", [lambda: 1, threading.Lock(), Unpicklable(), [Unpicklable()], (Unpicklable(),)]
    )
    def test_unpicklable(self, value: object) -> None:
        """What can't be pickled is refused, with the reason as the cause and a remedy."""
        with pytest.raises(SerializationError, match="immutable_types") as caught:
            automatic()(value)
        assert isinstance(
            caught.value.__cause__, (pickle.PicklingError, TypeError, AttributeError, RuntimeError)
        )
        assert caught.value.serializer == "pickle"

    def test_fails_on_reading(self) -> None:
        """A value whose class can't restore it fails with our error on reading, with the cause."""
        broken = BadToLoad()
        broken.state = 1  # type: ignore[attr-defined]
        frozen = automatic()(broken)
        with pytest.raises(SerializationError, match="no way back") as caught:
            thaw(frozen)
        assert isinstance(caught.value.__cause__, RuntimeError)

    def test_changed_by_another_thread_meanwhile(self) -> None:
        """A dict is judged by the copy that is kept: one that gets a list in between is not kept flat."""
        freeze = automatic()
        shared: dict[str, Any] = {"a": 1}
        done = threading.Event()

        def toggle() -> None:
            while not done.is_set():
                shared["a"] = [1]
                shared["a"] = 1

        thread = threading.Thread(target=toggle)
        thread.start()
        try:
            for _ in range(3000):
                frozen = freeze(shared)
                if frozen.load is dict.copy:
                    assert type(frozen.data["a"]) is int
        finally:
            done.set()
            thread.join()

    @given(
        st.recursive(
            st.none()
            | st.integers()
            | st.text()
            | st.binary()
            | st.builds(bytearray)
            | st.builds(Box, st.integers()),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(st.text(), inner, max_size=4)
                | st.lists(inner, max_size=4).map(tuple)
                | st.sets(st.integers())
            ),
            max_leaves=12,
        )
    )
    def test_any_value(self, value: Any) -> None:
        """No change to what went in or came out shows up in what the cache holds."""
        before = describe(value)
        frozen = automatic()(value)
        assert describe(thaw(frozen)) == before
        mutate_everything(thaw(frozen))
        mutate_everything(value)
        assert describe(thaw(frozen)) == before


class TestImmutableTypes:
    def test_named_type(self) -> None:
        """Instances of a named type are handed out as they are, also inside of flat containers."""
        freeze = automatic(Text)
        text = Text("abc")
        assert freeze(text) is text
        assert thaw(freeze([text]))[0] is text
        assert freeze([text]).load is list.copy

    def test_subclass_of_named_type(self) -> None:
        """Exactly the named type is meant."""

        freeze = automatic(Box)
        box = HashableBox(1)
        assert thaw(freeze(box)) is not box

    def test_unpicklable_named_type(self) -> None:
        """A named type need not be picklable."""
        lock = Unpicklable()
        assert automatic(Unpicklable)(lock) is lock

    @pytest.mark.parametrize("types", [3, ("str",), [str, None], "str"])
    def test_bad_types(self, types: Any) -> None:
        """What isn't a tuple of types is refused."""
        with pytest.raises(ConfigError) as caught:
            freezer("auto", JsonSerializer(), types)
        assert caught.value.field == "immutable_types"


class TestOtherModes:
    def test_share(self) -> None:
        """Sharing needs no function at all."""
        assert freezer("share", JsonSerializer()) is None

    @pytest.mark.parametrize("mode", ["", "AUTO", None, True])
    def test_unknown(self, mode: Any) -> None:
        """An unknown mode names the known ones."""
        with pytest.raises(ConfigError, match=r"auto.*share.*copy"):
            freezer(mode, JsonSerializer())

    @pytest.mark.parametrize("serializer", [JsonSerializer(), PickleSerializer()])
    def test_copy(self, serializer: Any) -> None:
        """Every value goes through the serializer, once on writing and on each reading."""
        freeze = freezer("copy", serializer)
        assert freeze is not None
        value = {"a": [1]}
        frozen = freeze(value)
        assert isinstance(frozen, Frozen)
        value["a"].append(2)
        thaw(frozen)["a"].append(3)
        assert thaw(frozen) == {"a": [1]}

    def test_copy_refuses(self) -> None:
        """What the serializer refuses is refused."""
        freeze = freezer("copy", JsonSerializer())
        assert freeze is not None
        with pytest.raises(SerializationError, match="tuple"):
            freeze((1,))

    def test_copy_with_a_failing_serializer(self) -> None:
        """Any exception of a user's serializer becomes ours, with the cause, both ways."""

        class Failing(JsonSerializer):
            def serialize(self, data: object) -> str:
                if data == "bad":
                    raise ZeroDivisionError("in")
                return "text"

            def deserialize(self, data: object) -> object:
                raise ZeroDivisionError("out")

        freeze = freezer("copy", Failing())
        assert freeze is not None
        with pytest.raises(SerializationError, match="in") as caught:
            freeze("bad")
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        with pytest.raises(SerializationError, match="out") as caught:
            thaw(freeze("good"))
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


def describe(value: Any) -> Any:
    """All that there is to a value, comparable."""
    if isinstance(value, dict):
        return (type(value), sorted(((describe(k), describe(v)) for k, v in value.items()), key=repr))
    if isinstance(value, (set, frozenset)):
        return (type(value), sorted(map(describe, value), key=repr))
    if isinstance(value, (list, tuple)):
        return (type(value), list(map(describe, value)))
    if isinstance(value, (dt.datetime, dt.time)):
        return (type(value), value.replace(tzinfo=None), describe(value.tzinfo))
    if isinstance(value, Box):
        return (type(value), describe(value.content))
    if isinstance(value, bytearray):
        return (type(value), bytes(value))
    return (type(value), value if not isinstance(value, Zone) else None, getattr(value, "__dict__", None))
