"""The contract of a serializer, as tests to inherit."""
# ruff: noqa: S101 - asserts are what a test consists of

from __future__ import annotations

import datetime as dt
import math
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

from quickcache_core.serializer.base import BaseSerializer
from quickcache_core.snapshot import read_snapshot, write_snapshot

PLAIN_VALUES: Sequence[Any] = (
    None,
    True,
    False,
    0,
    -(2**63),
    2**63 - 1,
    0.1,
    -0.0,
    1e308,
    5e-324,
    "",
    "text",
    "ünï ☃ 🎉 \x00 \n \" ' \\",
    [],
    {},
    [1, [2, [3, {}]], ""],
    {"a": None, "": {"nested": [True, 1, 1.0]}},
)

TRICKY_VALUES: Sequence[Any] = (
    (1, 2),
    {1, 2},
    frozenset((1, 2)),
    {1: "int key"},
    {None: "None key"},
    {True: "bool key"},
    {(1, 2): "tuple key"},
    b"bytes",
    bytearray(b"bytes"),
    math.nan,
    math.inf,
    1j,
    2**64,
    Decimal("1.10"),
    dt.date(2024, 2, 29),
    dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC),
    dt.timedelta(seconds=1),
    UUID(int=1),
    OrderedDict(b=1, a=2),
    range(3),
    "\ud800",
)


class SerializerContract:
    """Derive a test class from this, say in `make_serializer` what to test, and pytest finds the rest.

    `values` are what the serializer has to give back as they are; add what it can do beyond the plain ones.
    """

    values: ClassVar[Sequence[Any]] = PLAIN_VALUES

    def make_serializer(self) -> BaseSerializer:
        raise NotImplementedError("return the serializer to test")

    def test_round_trip(self) -> None:
        """A value comes back equal, with the same types all the way down."""
        serializer = self.make_serializer()
        for value in self.values:
            assert same(serializer.deserialize(serializer.serialize(value)), value), repr(value)

    def test_no_silent_change(self) -> None:
        """What is not supported is refused, on the way in or out; it never comes back changed."""
        serializer = self.make_serializer()
        for value in TRICKY_VALUES:
            # In a list, as in a snapshot: some formats are exact inside of containers only.
            try:
                back = serializer.deserialize(serializer.serialize([value]))
            except Exception:  # noqa: S112 - refusing is right, whatever it raises
                continue
            assert same(back, [value]), f"{value!r} came back as {back!r}"

    def test_kind_of_output(self) -> None:
        """`is_binary` tells the type of the output."""
        serializer = self.make_serializer()
        assert isinstance(serializer.is_binary, bool)
        for value in self.values:
            assert isinstance(serializer.serialize(value), bytes if serializer.is_binary else str)

    def test_extension(self) -> None:
        """The extension can be part of a file name, and comes without its dot."""
        extension = self.make_serializer().extension
        assert isinstance(extension, str)
        assert extension
        assert not set(extension) & set("./\\: \0")

    def test_cut_data(self) -> None:
        """Half of the data is an error, not half of the value."""
        serializer = self.make_serializer()
        data = serializer.serialize([1, "two", [3.0]])
        for end in range(len(data)):
            try:
                back = serializer.deserialize(data[:end])
            except Exception:  # noqa: S112 - any exception will do
                continue
            raise AssertionError(f"{data[:end]!r} was read as {back!r}")

    def test_fresh_values(self) -> None:
        """Each reading makes a new value: who changes one doesn't change the next."""
        serializer = self.make_serializer()
        data = serializer.serialize({"a": [1]})
        serializer.deserialize(data)["a"].append(2)
        assert same(serializer.deserialize(data), {"a": [1]})

    def test_input_untouched(self) -> None:
        """Serializing leaves the value as it was."""
        value = {"a": [1, {"b": None}]}
        self.make_serializer().serialize(value)
        assert same(value, {"a": [1, {"b": None}]})

    def test_several_threads(self) -> None:
        """Threads may share an instance."""
        serializer = self.make_serializer()
        values = [{"n": n, "items": [str(n)] * 50} for n in range(200)]

        def round_trip(value: Any) -> Any:
            return serializer.deserialize(serializer.serialize(value))

        with ThreadPoolExecutor(4) as threads:
            assert same(list(threads.map(round_trip, values)), values)

    def test_snapshot(self) -> None:
        """A cache with this serializer can be saved and loaded."""
        serializer = self.make_serializer()
        records = [(f"key {n}", value, 1000.5 + n if n % 2 else None) for n, value in enumerate(self.values)]
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, f"cache.{serializer.extension}")
            write_snapshot(path, records, serializer=serializer, allow_unsigned_pickle=True, wall_now=1.0)
            loaded = read_snapshot(path, serializer=serializer, allow_unsigned_pickle=True, wall_now=1.0)
        assert same([list(record) for record in loaded], [list(record) for record in records])

    def test_any_plain_value(self) -> None:
        """Whatever hypothesis builds of plain types comes back. Passes where hypothesis isn't installed."""
        try:
            from hypothesis import given, settings
            from hypothesis import strategies as st
        except ImportError:
            return
        serializer = self.make_serializer()
        leaves = (
            st.none()
            | st.booleans()
            | st.integers(-(2**63), 2**63 - 1)
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(st.characters(exclude_categories=["Cs"]))
        )

        @settings(deadline=None)
        @given(
            st.recursive(
                leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
            )
        )
        def round_trip(value: Any) -> None:
            assert same(serializer.deserialize(serializer.serialize([value])), [value])

        round_trip()


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down: `[True]` is not `[1]`, and NaN is NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same(a, b) and same(one[a], other[b]) for a, b in zip(one, other, strict=True)
        )
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return bool(one.hex() == other.hex())
    return bool(one == other)
