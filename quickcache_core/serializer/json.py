"""Text that people and other programs can read."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

from quickcache_core.errors import SerializationError
from quickcache_core.registry.decorators import register_serializer
from quickcache_core.serializer.base import BaseSerializer
from quickcache_core.serializer.plain import PlainCheck

_check = PlainCheck("json", leaves=(str, int, float, bool, type(None)), keys=(str,))
_AS_ONE: Final = re.compile(r"\\ud[89ab]..\\ud[c-f]")
"""As JSON writes a character beyond U+FFFF, and two lone surrogates alike."""
_PAIR: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]")


@register_serializer("json")
class JsonSerializer(BaseSerializer):
    """JSON, without its silent conversions.

    A tuple, a set, a dict key that is no string, NaN or an infinity, two surrogates that JSON would read as
    one character, raise `SerializationError` instead of coming back as something else. `indent` (spaces)
    spreads the text over lines; about ten times slower.
    """

    extension = "json"
    is_binary = False

    def __init__(self, indent: int | None = None) -> None:
        self._encode = _encoder(indent)

    def serialize(self, data: Any) -> str:
        return _serialize(data, self._encode)

    def serialize_for_people(self, data: Any) -> str:
        return _serialize(data, _encoder(4))

    def deserialize(self, data: str | bytes) -> Any:
        try:
            return json.loads(data)
        except (ValueError, TypeError, RecursionError) as error:
            raise SerializationError(f"This is no JSON: {error}", serializer="json") from error


def _encoder(indent: int | None) -> Any:
    separators = (",", ":") if indent is None else (",", ": ")
    # The check for cycles is ours: `_check` has been through the value before.
    return json.JSONEncoder(
        allow_nan=False, check_circular=False, indent=indent, separators=separators
    ).encode


_encode_as_is: Final = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode
"""With every character for itself: what belongs to different strings has quotes in between."""


def _serialize(data: Any, encode: Any) -> str:
    try:
        _check(data)
        text: str = encode(data)
    except RecursionError as error:
        raise SerializationError(
            "The value is nested too deeply for JSON, or contains itself; flatten it, "
            "or use serializer='pickle'",
            serializer="json",
        ) from error
    except (ValueError, TypeError, RuntimeError) as error:
        raise SerializationError(
            f"JSON can't hold a {type(data).__qualname__} with this in it: {error}; "
            "leave out NaN and infinities, or use serializer='pickle'",
            serializer="json",
        ) from error
    # From the cheapest look to the dearest; nearly all text is done with the first two.
    is_ascii = data.__class__ is str and data.isascii()
    may_have_pairs = not is_ascii and "\\" in text and "\\ud" in text and _AS_ONE.search(text)
    if may_have_pairs and _PAIR.search(_encode_as_is(data)):
        _refuse_pairs()
    return text


def _refuse_pairs() -> NoReturn:
    raise SerializationError(
        "JSON would give two surrogates that follow each other back as one character; "
        "decode the text they come from as UTF-16, or use serializer='pickle'",
        serializer="json",
    )
