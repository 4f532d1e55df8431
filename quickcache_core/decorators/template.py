"""Texts with fields, such as "user:{user_id}": for keys, tags and namespaces."""

from __future__ import annotations

import datetime as dt
import re
import string
from collections.abc import Callable, Sequence
from decimal import Decimal
from operator import attrgetter, itemgetter
from typing import Any, Final
from uuid import UUID

from quickcache_core.errors import ConfigError
from quickcache_core.fingerprint import CONTROL, NoStableForm, stable_form, unstable

_FIELD: Final = re.compile(r"(?P<name>[^\W\d]\w*)(?P<steps>(?:\.[^\W\d]\w*|\[[^\[\]]+\])*)")
_STEP: Final = re.compile(r"\.(?P<attribute>\w+)|\[(?P<item>[^\[\]]+)\]")

# Exact types whose text is short and says all.
_PLAIN: Final[dict[type, Callable[[Any], str]]] = {
    type(None): str,
    bool: str,
    int: stable_form,
    float: str,
    Decimal: lambda value: str(value).upper(),  # the context has a say in the case of the exponent
    UUID: str,
    dt.date: str,
}
# Those that know formats, and never answer with an address.
_WITH_FORMATS: Final = frozenset({str, bool, int, float, complex, Decimal, dt.date, dt.time, dt.datetime})

# A string that reads like one of these isn't one.
_WORDS: Final = {"None": "%4Eone", "True": "%54rue", "False": "%46alse"}
_ESCAPES: Final = {code: f"%{code:02X}" for code in (*CONTROL, ord("%"), ord("~"))}


class Template:
    """A text with fields that name parameters: `{user_id}`, `{user.pk}`, `{options[page]}`, `{day:%Y-%m}`.

    Strings, numbers, UUIDs and dates stand for themselves: 7 and "7" give one text. Everything else stands
    there in its stable form, see `fingerprint`, after a "~".

    With `exact` no two lists of such values give one text: in each field the character that ends it, spaces,
    control characters, "%" and "~" are escaped. Without it, for tags, nothing is: whoever names a tag
    elsewhere need not know of that.

    Raises `ConfigError`, for `setting`, if `text` can't be used with the parameters called `names`.
    """

    def __init__(
        self, setting: str, text: str, function: str, names: Sequence[str], *, exact: bool = True
    ) -> None:
        self.text = text
        self._setting = setting
        self._function = function
        self._names = names
        self._exact = exact
        try:
            pieces = list(string.Formatter().parse(text))
        except ValueError as error:
            raise self._error(f"{error}; braces that mark no field are written twice") from error
        self._fields = tuple(
            self._field(field, spec or "", conversion, _end_of(pieces, place))
            for place, (_, field, spec, conversion) in enumerate(pieces)
            if field is not None
        )
        self._frame = "".join(
            literal.replace("%", "%%") + ("" if field is None else "%s") for literal, field, _, _ in pieces
        )

    @property
    def is_constant(self) -> bool:
        """Whether it has no fields."""
        return not self._fields

    def render(self, values: Sequence[Any]) -> str:
        """With the values of the parameters, in their order. Raises `UnstableArgument`."""
        return self._frame % tuple([field(values) for field in self._fields])

    def _field(
        self, field: str, spec: str, conversion: str | None, end: str | None
    ) -> Callable[[Sequence[Any]], str]:
        match = _FIELD.fullmatch(field)
        if match is None or match["name"] not in self._names:
            known = ", ".join(self._names) or "none"
            raise self._error(f"there is no parameter {field!r}; there are: {known}")
        if conversion or "{" in spec:
            raise self._error(f"{{{field}}} may have a format, as in {{day:%Y-%m}}, but no conversion")
        if self._exact and end is not None and (not end or end.isalnum() or end in "%~"):
            raise self._error(f"put a ':' or the like between {{{field}}} and the next field")
        name, place = match["name"], self._names.index(match["name"])
        steps = tuple(_step(one) for one in _STEP.finditer(match["steps"]))
        text = _exact(end) if self._exact else _loose
        function = self._function

        def of(values: Sequence[Any]) -> str:
            value = values[place]
            for step in steps:
                value = step(value)
            try:
                return text(_formatted(value, spec) if spec else value)
            except NoStableForm as error:
                raise unstable(function, name, error) from error

        return of

    def _error(self, remedy: str) -> ConfigError:
        return ConfigError(self._setting, self.text, f"in the decorator of {self._function}: {remedy}")


def _end_of(pieces: list[tuple[str, str | None, str | None, str | None]], place: int) -> str | None:
    """The character that ends the field, "" if the next one follows at once, None for the last field."""
    following = pieces[place + 1 :]
    if all(field is None for _, field, _, _ in following):
        return None
    return following[0][0][:1]


def _step(match: re.Match[str]) -> Callable[[Any], Any]:
    item = match["item"]
    if item is None:
        return attrgetter(match["attribute"])
    return itemgetter(int(item) if item.isdecimal() else item)


def _formatted(value: Any, spec: str) -> str:
    if type(value) not in _WITH_FORMATS:
        raise NoStableForm(type(value), "can't be formatted in a key; name an attribute of it")
    return format(value, spec)


def _loose(value: Any) -> str:
    return value if type(value) is str else _PLAIN.get(type(value), stable_form)(value)


def _exact(end: str | None) -> Callable[[Any], str]:
    """What makes the text of a field that ends with a character."""
    escape = "" if end is None else _escape(ord(end))

    def text_of(value: Any) -> str:
        kind = type(value)
        if kind is str:
            text: str = value if value.isalnum() else value.translate(_ESCAPES)
            text = _WORDS.get(text, text)
        elif (plain := _PLAIN.get(kind)) is not None:
            text = plain(value)
        else:
            text = "~" + stable_form(value).replace("%", "%25")
        # No escape has a character in it that may end a field.
        return text if end is None else text.replace(end, escape)

    return text_of


def _escape(code: int) -> str:
    return f"%{code:02X}" if code < 128 else f"%u{code:X};"
