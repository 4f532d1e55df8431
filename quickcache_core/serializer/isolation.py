"""What a caller may do with a value after it stored it, and with one that it got back."""

from __future__ import annotations

import datetime as dt
import pickle
import sys
from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

from quickcache_core.errors import ConfigError, SerializationError
from quickcache_core.serializer.base import BaseSerializer, serializer_name

# Exact types: a subclass may carry attributes that can be changed.
IMMUTABLE_TYPES: frozenset[type] = frozenset(
    {
        str,
        bytes,
        int,
        float,
        bool,
        type(None),
        complex,
        range,
        Decimal,
        Fraction,
        UUID,
        dt.date,
        dt.timedelta,
        dt.timezone,
    }
)


class Frozen:
    """A stored form that nobody outside holds: `load(data)` makes a fresh value on each read."""

    __slots__ = ("data", "load")

    def __init__(self, load: Callable[[Any], Any], data: Any) -> None:
        self.load = load
        self.data = data


def thaw(stored: Any) -> Any:
    """The value that a stored form stands for. The hot table spells this out for itself."""
    return stored.load(stored.data) if stored.__class__ is Frozen else stored


def freezer(
    mode: str, serializer: BaseSerializer, immutable_types: Iterable[type] = ()
) -> Callable[[Any], Any] | None:
    """The function that turns a value into what the cache keeps of it, or None if it keeps the value itself.

    The function returns the value or a `Frozen`. It runs the caller's code (`__reduce__`, a serializer): not
    under a lock. It and `Frozen.load` raise `SerializationError`, chained from what went wrong.

    `mode`: "share" keeps the object. "copy" sends every value through `serializer`. "auto" keeps what nobody
    can change, copies flat containers and pickles the rest; `immutable_types` names more types, compared
    exactly, of which every instance may be handed out as it is.
    """
    if mode == "share":
        return None
    if mode == "copy":
        return through(serializer, loader(serializer))
    if mode == "auto":
        return _automatic(IMMUTABLE_TYPES.union(_checked(immutable_types)))
    raise ConfigError("isolation", mode, "give 'auto', 'share' or 'copy'")


def _automatic(immutable: frozenset[type]) -> Callable[[Any], Any]:
    all_immutable = immutable.issuperset

    def freeze(value: Any) -> Any:
        kind = type(value)
        if kind in immutable:
            return value
        # Copied before it is looked at: between the two, another thread may put a list into a flat dict.
        if kind is dict:
            private = value.copy()
            if _flat(private, all_immutable, immutable) and _flat(private.values(), all_immutable, immutable):
                return Frozen(dict.copy, private)
        elif kind is list or kind is set:
            private = value.copy()
            if _flat(private, all_immutable, immutable):
                return Frozen(kind.copy, private)
        elif _deeply_immutable((value,), immutable):
            return value
        return Frozen(_unpickle, _pickle(value))

    freeze.kept_types = immutable  # type: ignore[attr-defined]
    return freeze


def kept_types(freeze: Callable[[Any], Any] | None) -> frozenset[type] | None:
    """The types whose instances a function of `freezer` returns as they are; None for those of all."""
    return None if freeze is None else getattr(freeze, "kept_types", frozenset())


def _flat(
    items: Iterable[Any], all_immutable: Callable[[Iterable[type]], bool], immutable: frozenset[type]
) -> bool:
    return all_immutable(map(type, items)) or _deeply_immutable(items, immutable)


def _deeply_immutable(items: Iterable[Any], immutable: frozenset[type]) -> bool:
    # A loop and a memory of what was seen, not a recursion: the nesting is the caller's, and may be deep or
    # share its parts (t = (t, t), forty times).
    waiting: list[Iterable[Any]] = [items]
    seen: set[int] = set()
    while waiting:
        for item in waiting.pop():
            kind = type(item)
            if kind in immutable:
                continue
            if kind is tuple or kind is frozenset:
                if id(item) not in seen:
                    seen.add(id(item))
                    waiting.append(item)
            elif not (kind is dt.datetime or kind is dt.time) or not _fixed_zone(item.tzinfo):
                return False
    return True


def _fixed_zone(zone: dt.tzinfo | None) -> bool:
    if zone is None or type(zone) is dt.timezone:
        return True
    # Only looked up: who has a ZoneInfo has imported its module, and everybody else saves the import.
    zoneinfo = sys.modules.get("zoneinfo")
    return zoneinfo is not None and type(zone) is zoneinfo.ZoneInfo


def _pickle(value: Any) -> bytes:
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise SerializationError(
            f"A {type(value).__qualname__} can't be pickled ({type(error).__name__}: {error}), "
            "and isolation='auto' pickles what could be changed; store plain data, "
            "add the type to immutable_types, or choose isolation='share'",
            serializer="pickle",
        ) from error


def _unpickle(data: bytes) -> Any:
    try:
        return pickle.loads(data)  # noqa: S301 - pickled by this process, never left its memory
    except Exception as error:
        raise SerializationError(
            f"A stored value can't be unpickled ({type(error).__name__}: {error}); "
            "see __reduce__ or __setstate__ of its class, or add the class to immutable_types",
            serializer="pickle",
        ) from error


def settler(mode: str, immutable_types: Iterable[type] = ()) -> Callable[[Any, Frozen], Any]:
    """The function that says what to keep of a value that was just loaded, and that nobody else holds.

    It gets the value and the `Frozen` it came from, and returns a stored form that is at least as cheap to
    read. Modes as with `freezer`.
    """
    if mode == "share":
        return lambda value, frozen: value
    if mode == "copy":
        return lambda value, frozen: frozen
    immutable = IMMUTABLE_TYPES.union(_checked(immutable_types))
    all_immutable = immutable.issuperset

    def settle(value: Any, frozen: Frozen) -> Any:
        kind = type(value)
        if kind is dict:
            if _flat(value, all_immutable, immutable) and _flat(value.values(), all_immutable, immutable):
                return Frozen(dict.copy, value)
        elif kind is list or kind is set:
            if _flat(value, all_immutable, immutable):
                return Frozen(kind.copy, value)
        elif _deeply_immutable((value,), immutable):
            return value
        return frozen

    return settle


def loader(serializer: BaseSerializer) -> Callable[[Any], Any]:
    """`serializer.deserialize`, with a `SerializationError` for whatever it raises."""
    name = serializer_name(serializer)

    def load(data: Any) -> Any:
        try:
            return serializer.deserialize(data)
        except SerializationError:
            raise
        except Exception as error:
            raise SerializationError(
                f"Serializer {name} can't read what it wrote ({type(error).__name__}: {error}); "
                "store what it supports, or choose another serializer or isolation='auto'",
                serializer=name,
            ) from error

    return load


def through(serializer: BaseSerializer, load: Callable[[Any], Any]) -> Callable[[Any], Frozen]:
    """The function that sends every value through `serializer`; `load` is its `loader`."""
    name = serializer_name(serializer)

    def freeze(value: Any) -> Frozen:
        try:
            return Frozen(load, serializer.serialize(value))
        except SerializationError:
            raise
        except Exception as error:
            raise SerializationError(
                f"Serializer {name} can't keep a {type(value).__qualname__} "
                f"({type(error).__name__}: {error}); "
                "store what it supports, or choose another serializer or isolation='auto'",
                serializer=name,
            ) from error

    return freeze


def _checked(types: Iterable[type]) -> tuple[type, ...]:
    try:
        result = tuple(types)
    except TypeError:
        raise ConfigError("immutable_types", types, "give a tuple of types") from None
    for item in result:
        if not isinstance(item, type):
            raise ConfigError("immutable_types", types, f"{item!r} is no type; give a tuple of types")
    return result
