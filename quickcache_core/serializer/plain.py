"""Formats that know few types change the others without a word; this check refuses those first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from quickcache_core.errors import SerializationError


class PlainCheck:
    """Raises `SerializationError` for what a format would give back as something else.

    Accepted are lists and dicts, nested, of `leaves`, with dict keys of `keys`. Types are compared exactly:
    an IntEnum would come back as an int. Costs one pass in C over a flat container.
    """

    def __init__(self, serializer: str, leaves: Iterable[type], keys: Iterable[type]) -> None:
        self._serializer = serializer
        self._leaves = frozenset(leaves)
        self._keys = frozenset(keys)

    def __call__(self, value: Any) -> None:
        """Raises `RecursionError` for a value that contains itself."""
        kind = type(value)
        if kind in self._leaves:
            return
        if kind is dict:
            if not self._keys.issuperset(map(type, value)):
                self._refuse(
                    "dict key", next(key for key in value if type(key) not in self._keys), self._keys
                )
            children = value.values()
        elif kind is list:
            children = value
        else:
            self._refuse("value", value, self._leaves | {list, dict})
        if not self._leaves.issuperset(map(type, children)):
            for child in children:
                self(child)

    def _refuse(self, role: str, culprit: object, accepted: frozenset[type]) -> NoReturn:
        known = ", ".join(sorted("None" if each is type(None) else each.__name__ for each in accepted))
        raise SerializationError(
            f"{self._serializer} would not give a {role} of type {type(culprit).__qualname__} back as it is; "
            f"convert it to one of {known}, or use serializer='pickle'",
            serializer=self._serializer,
        )
