"""What a value is called in a key: a text that is the same in every process, and another value has another.

Never made of `repr()` of an object, which tells an address, and addresses are used again. Values are told
apart more finely than `==` does it: 1, 1.0 and True have three forms, and so have [1], (1,) and {1}.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from decimal import Decimal
from enum import Enum, Flag
from fractions import Fraction
from hashlib import blake2b
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any, Final, TypeVar
from uuid import UUID

from quickcache_core.errors import UnstableArgument

T = TypeVar("T")

LONGEST_KEY: Final = 200
"""Characters; what is longer ends in a digest. Leaves room for a prefix within the 250 of memcached, which
Django warns about."""

_DEEPEST: Final = 50
"""Containers within containers."""

_DIGEST: Final = 20  # bytes


class NoStableForm(TypeError):
    """A value can't be told from all others in a way that holds in other processes.

    `kind` is its type. `reason` completes "it ..." where there is more to say than that nothing is known.
    """

    def __init__(self, kind: type, reason: str | None = None) -> None:
        super().__init__(f"{type_name(kind)} has no stable form" + (f": it {reason}" if reason else ""))
        self.kind = kind
        self.reason = reason


def unstable(function: str, argument: str, error: NoStableForm) -> UnstableArgument:
    """The error for those who called a cached function."""
    return UnstableArgument(function, argument, type_name(error.kind), error.reason)


def stable_form(value: object) -> str:
    """The text for a value, of printable characters without spaces, and as long as the value is large.

    Raises `NoStableForm`. Classes and functions are known by the name under which they can be imported;
    dataclasses by all their fields; other objects by what `__cache_key__` or a function of
    `register_stable_form` says of them.
    """
    try:
        return SIMPLE[type(value)](value)
    except (KeyError, ValueError):
        pass
    # Not within the `except`: what this raises would bring that error with it.
    return _form(value, 0)


def register_stable_form(kind: type[T], form: Callable[[T], object]) -> None:
    """Let `form(value)` stand for the values of a type and its subclasses in keys.

    It returns what tells the value from all others of the type, as anything that has a stable form itself,
    such as a string or a tuple; or raises `NoStableForm`. Of several forms in a class's ancestry, and
    `__cache_key__`, the nearest holds. Registering the same function again is fine; raises `ValueError` if
    the type has another one.
    """
    _check_registration(kind, form)
    if kind in SIMPLE or kind in _CONTAINERS:
        raise ValueError(f"register_stable_form: {type_name(kind)} has a stable form already")
    if _registered.setdefault(kind, form) is not form:
        raise ValueError(
            f"register_stable_form: {type_name(kind)} has the form {_registered[kind]!r} already; "
            "register one for a subclass"
        )


def _check_registration(kind: object, form: object) -> None:
    if not isinstance(kind, type) or not callable(form):
        raise TypeError(
            f"register_stable_form({kind!r}, {form!r}): give a class, and a function of its values"
        )


_registered: Final[dict[type, Callable[[Any], object]]] = {}


def shortened(key: str) -> str:
    """The key itself, or its beginning and a digest of all of it."""
    if len(key) <= LONGEST_KEY:
        return key
    digest = blake2b(key.encode(errors="surrogatepass"), digest_size=_DIGEST).hexdigest()
    return f"{key[: LONGEST_KEY - 2 * _DIGEST - 1]}~{digest}"


def type_name(kind: type) -> str:
    """How an error calls a type."""
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def module_name(module: str) -> str:
    """What identifies a module in other processes, too: the main one by what was run."""
    if module not in {"__main__", "__mp_main__"}:
        return module
    # Also in a child of multiprocessing, which calls the module by the second name.
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    return spec.name if spec is not None else getattr(main, "__file__", None) or "__main__"


def quoted(text: str) -> str:
    return f"'{text}'" if text.isalnum() else f"'{text.translate(_QUOTING)}'"


# Space and control characters are for no key: Django warns about them, and memcached refuses them.
CONTROL: Final = (*range(33), 127)

_QUOTING: Final = {code: f"\\x{code:02x}" for code in CONTROL} | {ord("'"): "\\'", ord("\\"): "\\\\"}


# Exact types below: a subclass may know more than its base does.


def _integer(value: Any) -> str:
    try:
        return int.__repr__(value)
    except ValueError:  # past the limit of digits that a number may be written with
        return hex(value)


def _decimal(value: Decimal) -> str:
    # The context has a say in the case of the exponent.
    return f"Decimal({str(value).upper()})"


def _complex(value: complex) -> str:
    return f"complex({value.real!r},{value.imag!r})"


def _timedelta(value: dt.timedelta) -> str:
    return f"timedelta({value.days},{value.seconds},{value.microseconds})"


def _timezone(value: dt.timezone) -> str:
    return f"timezone({_timedelta(value.utcoffset(None))},{quoted(value.tzname(None))})"


def _zone(value: Any) -> str:
    if value.key is None:
        raise NoStableForm(type(value), "was made of a file, without a key")
    return f"ZoneInfo({quoted(value.key)})"


# Read on every call of a cached function. The one for int raises ValueError beyond some thousand digits.
SIMPLE: Final[dict[type, Callable[[Any], str]]] = {
    type(None): lambda value: "None",
    # As their `__repr__` says them, in less time.
    bool: str,
    int: str,
    float: str,
    str: quoted,
    bytes: lambda value: f"b'{value.hex()}'",
    complex: _complex,
    Decimal: _decimal,
    Fraction: lambda value: f"Fraction({_integer(value.numerator)},{_integer(value.denominator)})",
    UUID: lambda value: f"UUID({value.hex})",
    range: lambda value: f"range({','.join(map(_integer, (value.start, value.stop, value.step)))})",
    dt.date: lambda value: f"date({value.isoformat()})",
    dt.timedelta: _timedelta,
    dt.timezone: _timezone,
    type(...): lambda value: "...",
    **{
        path: lambda value: f"{type(value).__name__}({quoted(str(value))})"
        for path in (PosixPath, WindowsPath, PurePosixPath, PureWindowsPath)
    },
}


def _form(value: object, depth: int) -> str:
    kind = type(value)
    simple = SIMPLE.get(kind)
    if simple is not None:
        return _integer(value) if kind is int else simple(value)
    if depth > _DEEPEST:
        raise NoStableForm(kind, f"contains itself, or is nested more than {_DEEPEST} levels deep")
    container = _CONTAINERS.get(kind)
    return _other(value, depth) if container is None else container(value, depth + 1)


def _forms(values: Iterable[object], depth: int) -> str:
    return ",".join([_form(value, depth) for value in values])


def _pairs(pairs: Iterable[tuple[object, object]], depth: int) -> list[str]:
    return [f"{_form(key, depth)}:{_form(value, depth)}" for key, value in pairs]


def _set(value: Iterable[object], depth: int) -> str:
    return ",".join(sorted([_form(one, depth) for one in value]))


def _time(value: dt.time | dt.datetime, depth: int) -> str:
    zone = "" if value.tzinfo is None else f",{_form(value.tzinfo, depth)}"
    fold = ",fold" if value.fold else ""
    return f"{type(value).__name__}({value.replace(tzinfo=None).isoformat()}{fold}{zone})"


_CONTAINERS: Final[dict[type, Callable[[Any, int], str]]] = {
    tuple: lambda value, depth: f"({_forms(value, depth)})",
    list: lambda value, depth: f"[{_forms(value, depth)}]",
    set: lambda value, depth: f"set({_set(value, depth)})",
    frozenset: lambda value, depth: f"frozenset({_set(value, depth)})",
    deque: lambda value, depth: f"deque({_integer(value.maxlen or 0)},{_forms(value, depth)})",
    # A function sees the order of a dict, too, but two with the same items are equal.
    dict: lambda value, depth: f"{{{','.join(sorted(_pairs(value.items(), depth)))}}}",
    OrderedDict: lambda value, depth: f"OrderedDict({','.join(_pairs(value.items(), depth))})",
    types.MappingProxyType: lambda value, depth: f"mappingproxy({_form(dict(value), depth)})",
    dt.datetime: _time,
    dt.time: _time,
}


def _other(value: Any, depth: int) -> str:
    # Not `type(value)`: a lazy object stands for what it is made of, and says so here.
    kind = value.__class__
    for base in kind.__mro__:
        form = _registered.get(base)
        if form is not None:
            return f"{type_name(base)}({_form(form(value), depth + 1)})"
        if "__cache_key__" in vars(base):
            return f"{_name_of(kind)}({quoted(_cache_key(value, kind))})"
    kind = type(value)
    if isinstance(value, Enum):
        # A combination of flags has a name in some versions of Python only.
        member = _form(value.value, depth + 1) if isinstance(value, Flag) else str(value.name)
        return f"{_name_of(kind)}.{member}"
    if isinstance(value, type):
        return f"class({_name_of(value)})"
    if "__dataclass_fields__" in vars(kind):
        fields = [f"{one.name}={_form(getattr(value, one.name), depth + 1)}" for one in _fields(value)]
        return f"{_name_of(kind)}({','.join(fields)})"
    if isinstance(value, tuple) and hasattr(kind, "_fields") and not getattr(value, "__dict__", None):
        return f"{_name_of(kind)}({_forms(value, depth + 1)})"
    # The module costs some milliseconds; where there are such values it is loaded already.
    zoneinfo = sys.modules.get("zoneinfo")
    if zoneinfo is not None and kind is zoneinfo.ZoneInfo:
        return _zone(value)
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType):
        return f"function({_name_of(value)})"
    raise NoStableForm(kind)


def _cache_key(value: Any, kind: type) -> str:
    text = value.__cache_key__()
    if not isinstance(text, str):
        raise NoStableForm(kind, f"has a __cache_key__ that returns {type_name(type(text))}, not a string")
    return text


def _fields(value: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(value)


def _name_of(thing: Any) -> str:
    """The name under which a class or a function can be imported."""
    found: Any = sys.modules.get(thing.__module__)
    for part in thing.__qualname__.split("."):
        found = getattr(found, part, None)
    if found is not thing:
        path = f"{thing.__module__}.{thing.__qualname__}"
        raise NoStableForm(
            thing if isinstance(thing, type) else type(thing),
            f"can't be imported as {path}; define it at the top level of a module",
        )
    return f"{module_name(thing.__module__)}.{thing.__qualname__}"
