"""Amounts of bytes as people write them: `"256MB"`, `"10%"`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from quickcache_core.errors import ConfigError
from quickcache_core.free_memory import memory_limit

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*|%)\s*")
_MOST_PERCENT = 90


def bytes_of(field: str, amount: object, least: int, memory: Callable[[], int] = memory_limit) -> int:
    """The number of bytes that `amount` stands for: an int, or text such as "256MB", "1.5 GiB" or "10%".

    Percentages, above 0 and up to 90, are of `memory()`: what this process may have at most. They are worked
    out anew in each call, in a fraction of a millisecond.

    Raises `ConfigError`, naming `field`, for anything else, for less than `least`, and for a percentage where
    the system doesn't tell how much memory there is.
    """
    size: float | None = None
    if isinstance(amount, int) and not isinstance(amount, bool):
        size = amount
    elif isinstance(amount, str) and (found := _AMOUNT.fullmatch(amount)):
        number, unit = found.groups()
        if unit == "%":
            return _percentage(field, amount, float(number), least, memory)
        if unit.upper() in _UNITS:
            size = float(number) * _UNITS[unit.upper()]
    if size is None or not least <= size <= sys.maxsize:
        raise ConfigError(
            field,
            amount,
            f"give bytes as an integer or text such as '256MB', at least {in_words(least)}, "
            "or a share of the memory such as '10%'",
        )
    return int(size)


def _percentage(field: str, amount: str, percentage: float, least: int, memory: Callable[[], int]) -> int:
    if not 0 < percentage <= _MOST_PERCENT:
        raise ConfigError(field, amount, f"give a percentage above 0% and up to {_MOST_PERCENT}%")
    try:
        total = memory()
    except OSError as error:
        raise ConfigError(
            field, amount, "this system doesn't tell how much memory there is; give bytes, such as '256MB'"
        ) from error
    size = int(total * percentage / 100)
    if size < least:
        raise ConfigError(
            field,
            amount,
            f"of {in_words(total)} of memory that is {in_words(size)}; give at least {in_words(least)}",
        )
    return size


def in_words(size: int) -> str:
    """As people write it: `67 MB`."""
    for unit in ("TB", "GB", "MB", "kB"):
        factor = _UNITS[unit.upper()]
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} B"
