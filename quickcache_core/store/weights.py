"""How many bytes an entry takes, roughly."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from itertools import islice
from types import MethodDescriptorType
from typing import Any, Final

from quickcache_core.serializer.isolation import Frozen

Weigher = Callable[[str, Any], int]
"""`weigh(key, stored)`: bytes, at least 0. Called under the store's lock, once for each value that is stored:
it has to be quick, and must not use the cache.
"""

ENTRY_BYTES: Final = 160
"""What the store and its eviction policy remember of each entry, as measured."""
_FROZEN_BYTES: Final = 48
_UNSEEN_BYTES: Final = 56
"""An element at which nobody looks."""
_OBJECTS: Final = 20
"""Looked at, for one value."""
_SAMPLE: Final = 6
"""Elements of a container that are looked at; the others are taken to be like them."""


def weigh(key: str, stored: Any) -> int:
    """The bytes that an entry takes, of which at most 20 objects are looked at.

    Less than a microsecond for text, tens of them for what is nested: `python -m benchmarks costs`.

    Right to some bytes for text, bytes, numbers, and whatever is kept as bytes, which is all that isn't flat
    with `isolation="auto"` or `"copy"`. Containers are taken for as large as their elements at up to six
    places make them look: right to some percent if the elements are alike, and wrong by any factor if they
    aren't. Of objects of your own classes, the attributes in `__dict__` are looked at like a dictionary's
    values; a `__sizeof__` that is written in Python isn't called. Objects in two places are counted twice.
    """
    return ENTRY_BYTES + _own_size(key) + _size(stored, _OBJECTS)


def _size(item: Any, budget: int) -> int:
    """Of the item and all in it, after a look at `budget` objects, at least 1."""
    kind = type(item)
    if kind is Frozen:
        return _FROZEN_BYTES + _size(item.data, budget)
    size = _own_size(item)
    if kind in _LEAVES:
        return size
    try:
        for elements, count in _parts(item, kind):
            size += _sampled(elements, count, budget - 1)
    except Exception:  # noqa: S110 - changed by another thread meanwhile, or an odd class: the estimate is rough
        pass
    return size


def _parts(item: Any, kind: type) -> list[tuple[Iterable[Any], int]]:
    """What is in it: samples, and of how many."""
    count: int
    if issubclass(kind, dict):
        count = dict.__len__(item)
        return [(islice(dict.keys(item), _SAMPLE // 2), count), (islice(dict.values(item), _SAMPLE), count)]
    if issubclass(kind, (list, tuple)):
        count = (
            len(item) if kind in (list, tuple) else (list if issubclass(kind, list) else tuple).__len__(item)
        )
        step = max(1, count // _SAMPLE)
        get = (list if issubclass(kind, list) else tuple).__getitem__
        return [([get(item, n) for n in range(0, count, step)][:_SAMPLE], count)]
    if issubclass(kind, (set, frozenset)):
        base = set if issubclass(kind, set) else frozenset
        return [(islice(base.__iter__(item), _SAMPLE), base.__len__(item))]
    if kind.__dictoffset__:
        attributes = object.__getattribute__(item, "__dict__")
        return [([attributes], 1)]
    return []


def _sampled(elements: Iterable[Any], count: int, budget: int) -> int:
    """The size of `count` elements like these."""
    if budget < 1:
        return count * _UNSEEN_BYTES
    sample = list(elements)
    if not sample:
        return 0
    del sample[budget:]
    share = max(1, budget // len(sample))
    return sum(_size(element, share) for element in sample) * count // len(sample)


def _own_size(item: Any) -> int:
    # The user's code must not run here, so not `sys.getsizeof` in any case.
    if type(type(item).__sizeof__) is MethodDescriptorType:
        return sys.getsizeof(item)
    return object.__sizeof__(item)


_LEAVES: Final = frozenset({str, bytes, bytearray, int, float, bool, complex, type(None)})
