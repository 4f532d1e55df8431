from __future__ import annotations

import datetime as dt
import enum
import json
import math
import sys
import zlib
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcache_core.errors import ConfigError, SerializationError
from quickcache_core.registry import serializers
from quickcache_core.serializer import BaseSerializer, JsonSerializer, MsgpackSerializer, PickleSerializer
from quickcache_core.serializer.base import serializer_name
from quickcache_core.serializer.compression import codec
from quickcache_core.serializer.signing import MIN_SECRET_BYTES, Signer
from quickcache_core.testing.serializers import PLAIN_VALUES, TRICKY_VALUES, SerializerContract, same


class Size(enum.IntEnum):
    BIG = 3


class Text(str):
    pass


class StrEvalSerializer(BaseSerializer):
    extension = "txt"
    is_binary = False

    def serialize(self, data: Any) -> str:
        return str(data)

    def deserialize(self, data: Any) -> Any:
        return eval(data)


class TestJson(SerializerContract):
    values = (*PLAIN_VALUES, 10**1000, "\ud800", ["\ud800"])

    def make_serializer(self) -> JsonSerializer:
        return JsonSerializer()


class TestIndentedJson(SerializerContract):
    def make_serializer(self) -> JsonSerializer:
        return JsonSerializer(indent=2)


class TestPickle(SerializerContract):
    values = (*PLAIN_VALUES, *TRICKY_VALUES, [Size.BIG], Text("subclass"), [OrderedDict(a=(1,))])

    def make_serializer(self) -> PickleSerializer:
        return PickleSerializer()


class TestMsgpack(SerializerContract):
    values = (*PLAIN_VALUES, b"", b"\xff", 2**64 - 1, math.inf, math.nan, {1: 2, None: 3, 1.5: 4, b"k": 5})

    def make_serializer(self) -> MsgpackSerializer:
        return MsgpackSerializer()


class TestStrAndEval(SerializerContract):
    """A serializer of a user's own, as simple as it gets."""

    values = (*(value for value in PLAIN_VALUES if not isinstance(value, str)), ["text"])

    def make_serializer(self) -> StrEvalSerializer:
        return StrEvalSerializer()


REFUSED = [
    pytest.param((1, 2), "tuple", id="tuple"),
    pytest.param([[(1, 2)]], "tuple", id="nested tuple"),
    pytest.param({"a": {1, 2}}, "set", id="set"),
    pytest.param(Text("x"), "Text", id="str subclass"),
    pytest.param({Text("x"): 1}, "Text", id="str subclass as key"),
    pytest.param([Size.BIG], "Size", id="int subclass"),
    pytest.param(OrderedDict(a=1), "OrderedDict", id="dict subclass"),
    pytest.param({("a", "b"): 1}, "tuple", id="tuple as key"),
    pytest.param({"a": [{"b": object()}]}, "object", id="object"),
    pytest.param(dt.date(2024, 1, 1), "date", id="date"),
]


class TestRefusals:
    @pytest.mark.parametrize("serializer", [JsonSerializer(), MsgpackSerializer()], ids=serializer_name)
    @pytest.mark.parametrize(("value", "type_name"), REFUSED)
    def test_what_would_come_back_changed(
        self, serializer: BaseSerializer, value: object, type_name: str
    ) -> None:
        """The error names the type and what to do."""
        with pytest.raises(SerializationError, match=rf"{type_name}.*serializer='pickle'") as caught:
            serializer.serialize(value)
        assert caught.value.serializer == serializer_name(serializer)

    @pytest.mark.parametrize(
        "value", [math.nan, [math.inf], {"a": -math.inf}, {1: "a"}, {None: 1}, {True: 1}, b"x"]
    )
    def test_what_only_json_lacks(self, value: object) -> None:
        """JSON's own gaps: no NaN, no infinities, no keys but strings, no bytes."""
        with pytest.raises(SerializationError, match="pickle"):
            JsonSerializer().serialize(value)

    @pytest.mark.parametrize("indent", [None, 2])
    def test_surrogates_that_json_takes_for_one_character(self, indent: int | None) -> None:
        """They are refused, wherever they are; what only resembles them comes back as it is."""
        serializer = JsonSerializer(indent=indent)
        pair = "\ud83d\ude00"
        for value in (pair, ["a", f"b{pair}c"], {"a": {pair: 1}}):
            with pytest.raises(SerializationError, match=r"two surrogates.*serializer='pickle'"):
                serializer.serialize(value)
            with pytest.raises(SerializationError):
                serializer.serialize_for_people(value)
        alike = ["\U0001f600", "\ud83d", "\ude00\ud83d", "\ud83d \ude00", r"\ud83d\ude00", "한국어", "\ud83d"]
        for value in (alike, ["\ud83d", "\ude00"], {"\ud83d": "\ude00"}, "\U0001f600"):
            assert serializer.deserialize(serializer.serialize(value)) == value

    @pytest.mark.parametrize("value", [2**64, [-(2**63) - 1], "\ud800"])
    def test_what_only_msgpack_lacks(self, value: object) -> None:
        """MessagePack's own gaps: integers of more than 64 bits and text that is no UTF-8."""
        with pytest.raises(SerializationError, match="pickle") as caught:
            MsgpackSerializer().serialize(value)
        assert caught.value.__cause__ is not None

    @pytest.mark.parametrize("serializer", [JsonSerializer(), MsgpackSerializer()], ids=serializer_name)
    def test_endless_value(self, serializer: BaseSerializer) -> None:
        """A value that contains itself, or is nested without end, is refused."""
        endless: list[Any] = []
        endless.append(endless)
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        for value in (endless, deep):
            with pytest.raises(SerializationError, match="deep"):
                serializer.serialize(value)

    @pytest.mark.parametrize("value", [lambda: 1, sys, (item for item in ())])
    def test_unpicklable(self, value: object) -> None:
        """Pickle's reasons are kept as the cause."""
        with pytest.raises(SerializationError, match="can't be pickled") as caught:
            PickleSerializer().serialize(value)
        assert caught.value.__cause__ is not None

    @pytest.mark.parametrize(
        ("serializer", "data"),
        [
            (JsonSerializer(), ""),
            (JsonSerializer(), "{"),
            (JsonSerializer(), "[" * 100_000),
            (JsonSerializer(), b"\xff"),
            (JsonSerializer(), None),
            (PickleSerializer(), b""),
            (PickleSerializer(), b"garbage"),
            (PickleSerializer(), b"cno_such_module\nThing\n."),
            (PickleSerializer(), "text"),
            (MsgpackSerializer(), b""),
            (MsgpackSerializer(), b"\xc1"),
            (MsgpackSerializer(), b"\x91" * 100_000),
            (MsgpackSerializer(), None),
        ],
    )
    def test_garbage(self, serializer: BaseSerializer, data: Any) -> None:
        """What can't be read is our error with the cause."""
        with pytest.raises(SerializationError) as caught:
            serializer.deserialize(data)
        assert caught.value.__cause__ is not None


class TestLayout:
    def test_compact(self) -> None:
        """JSON spends no space on values."""
        assert JsonSerializer().serialize({"a": [1, None]}) == '{"a":[1,null]}'

    def test_for_people(self) -> None:
        """JSON for reading has a line for each thing, and is the same JSON."""
        text = JsonSerializer().serialize_for_people({"a": 1, "b": 2})
        assert text.splitlines() == ["{", '    "a": 1,', '    "b": 2', "}"]
        assert json.loads(text) == {"a": 1, "b": 2}
        assert JsonSerializer(indent=4).serialize({"a": 1, "b": 2}) == text

    def test_for_people_elsewhere(self) -> None:
        """A format without a choice serializes as ever."""
        assert PickleSerializer().serialize_for_people([1]) == PickleSerializer().serialize([1])


class TestMissingMsgspec:
    def test_install_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without msgspec, making the serializer says how to install it; naming the others works."""
        monkeypatch.setitem(sys.modules, "msgspec", None)
        with pytest.raises(ConfigError) as caught:
            serializers.create("msgpack", field="metrics_serializer")
        assert caught.value.field == "metrics_serializer"
        assert caught.value.remedy == 'needs msgspec: pip install "quickcache-web[msgpack]"'
        serializers.create("json")


class TestBase:
    def test_incomplete(self) -> None:
        """A serializer that leaves something out can't be made."""

        class Incomplete(BaseSerializer):
            extension = "x"

        with pytest.raises(TypeError, match="abstract"):
            Incomplete()  # type: ignore[abstract]

    def test_attributes_as_properties(self) -> None:
        """`extension` and `is_binary` may be properties as well."""

        class Properties(StrEvalSerializer):
            @property
            def extension(self) -> str:  # type: ignore[override]
                return "txt"

        assert Properties().extension == "txt"

    def test_name(self) -> None:
        """A registered class is called by its name, another one by where it is."""
        assert serializer_name(JsonSerializer()) == "json"
        assert serializers.resolve(serializer_name(StrEvalSerializer())) is StrEvalSerializer


class TestCompression:
    @pytest.mark.parametrize("name", ["zlib", "zstd"])
    @given(data=st.binary(max_size=300) | st.binary(max_size=9).map(lambda part: part * 50_000))
    def test_round_trip(self, name: str, data: bytes) -> None:
        """What was compressed comes back."""
        method = codec(name)
        assert method.name == name
        assert method.decompress(method.compress(data), len(data)) == data

    @pytest.mark.parametrize("name", ["zlib", "zstd"])
    def test_bomb(self, name: str) -> None:
        """Data that swell to more than was declared are refused before they do."""
        import tracemalloc

        method = codec(name)
        bomb = method.compress(bytes(64_000_000))
        tracemalloc.start()
        try:
            with pytest.raises(SerializationError, match="more than"):
                method.decompress(bomb, 1000)
            assert tracemalloc.get_traced_memory()[1] < 10_000_000
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("name", ["zlib", "zstd"])
    def test_damage(self, name: str) -> None:
        """Too short, too long, cut off, continued and no such data at all."""
        method = codec(name)
        data = b"some text " * 100
        packed = method.compress(data)
        for broken, length in [
            (packed, len(data) - 1),
            (packed, len(data) + 1),
            (packed[:-1], len(data)),
            (packed[: len(packed) // 2], len(data)),
            (packed + b"x", len(data)),
            (b"", len(data)),
            (b"no such data", len(data)),
        ]:
            with pytest.raises(SerializationError, match="damaged"):
                method.decompress(broken, length)

    @pytest.mark.parametrize("name", ["", "gzip", "ZLIB", None, 6, ["zlib"]])
    def test_unknown(self, name: object) -> None:
        """An unknown method names the known ones."""
        with pytest.raises(ConfigError, match=r"zlib.*zstd"):
            codec(name)

    @pytest.mark.skipif(sys.version_info >= (3, 14), reason="zstd is part of Python there")
    def test_missing_zstandard(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the library the error has the install line."""
        monkeypatch.setitem(sys.modules, "zstandard", None)
        with pytest.raises(ConfigError, match="pip install"):
            codec("zstd")

    def test_zlib_is_plain_zlib(self) -> None:
        """Other programs can read it."""
        assert zlib.decompress(codec("zlib").compress(b"abc")) == b"abc"


SECRET = "a secret of enough bytes"
OTHER = b"another secret, of bytes"


class TestSigner:
    def test_own_signature(self) -> None:
        """A signature is good for these data only."""
        signer = Signer(SECRET, purpose="test")
        signature = signer.sign(b"data")
        assert len(signature) == 64
        assert signer.verify(b"data", signature)
        assert not signer.verify(b"Data", signature)
        assert not signer.verify(b"", signature)

    def test_any_change_to_a_signature(self) -> None:
        """No other spelling of a signature is good."""
        signer = Signer(SECRET, purpose="test")
        signature = signer.sign(b"data")
        wrong = {"", signature[:-1], signature + "0", signature.upper(), " " + signature, "☃" * 64, "\ud800"}
        wrong |= {signature[:at] + chr(ord(signature[at]) ^ 1) + signature[at + 1 :] for at in range(64)}
        assert not any(signer.verify(b"data", each) for each in wrong)

    def test_other_secret(self) -> None:
        """Another secret makes another signature."""
        assert not Signer(OTHER, purpose="test").verify(b"data", Signer(SECRET, purpose="test").sign(b"data"))

    def test_other_purpose(self) -> None:
        """What was signed for one purpose is no good for another."""
        assert not Signer(SECRET, purpose="b").verify(b"data", Signer(SECRET, purpose="a").sign(b"data"))

    def test_plain_hmac_of_the_secret(self) -> None:
        """A signature that another program makes with the same secret is no good here."""
        import hmac

        stranger = hmac.digest(SECRET.encode(), b"data", "sha256").hex()
        assert not Signer(SECRET, purpose="test").verify(b"data", stranger)

    def test_rotation(self) -> None:
        """Former secrets check, and the present one signs."""
        old, new = Signer(SECRET, purpose="test"), Signer(OTHER, [SECRET], purpose="test")
        assert new.verify(b"data", old.sign(b"data"))
        assert not old.verify(b"data", new.sign(b"data"))
        assert new.sign(b"data") == Signer(OTHER, purpose="test").sign(b"data")

    def test_text_and_bytes(self) -> None:
        """Text means its UTF-8."""
        signature = Signer("ü" * 16, purpose="test").sign(b"data")
        assert Signer(("ü" * 16).encode(), purpose="test").verify(b"data", signature)

    @pytest.mark.parametrize("secret", ["", b"", "x", "x" * (MIN_SECRET_BYTES - 1), None, 12345, ["list"]])
    def test_bad_secret(self, secret: Any) -> None:
        """A short secret or none is refused as present and as former one, and is not shown."""
        for field, arguments in (("secret", (secret,)), ("secret_fallbacks", (SECRET, [secret]))):
            with pytest.raises(ConfigError) as caught:
                Signer(*arguments, purpose="test")
            assert caught.value.field == field
            assert "xxx" not in str(caught.value)
            assert "12345" not in str(caught.value)

    @pytest.mark.parametrize("fallbacks", [SECRET, OTHER])
    def test_fallbacks_without_a_list(self, fallbacks: Any) -> None:
        """One secret where a list belongs is refused, not taken for a list of letters, and not shown."""
        with pytest.raises(ConfigError, match="list") as caught:
            Signer(SECRET, fallbacks, purpose="test")
        assert "secret of" not in str(caught.value)

    def test_not_shown(self) -> None:
        """A signer in a log or traceback gives nothing away."""
        assert SECRET not in repr(Signer(SECRET, purpose="test"))


class TestSame:
    """The comparison of the contract: if it were lenient, the contract would be."""

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (1, True),
            (1, 1.0),
            ([1], (1,)),
            (0.0, -0.0),
            ({"a": 1}, {"a": 1.0}),
            ({1: 2}, {True: 2}),
            ("a", Text("a")),
        ],
    )
    def test_different(self, one: object, other: object) -> None:
        """Equal is not enough."""
        assert not same(one, other)
        assert not same([one], [other])

    def test_nan(self) -> None:
        """NaN is NaN."""
        assert same([math.nan], [math.nan])
