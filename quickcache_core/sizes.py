"""Amounts of bytes as people write them: `"256MB"`."""

from __future__ import annotations

import re

from quickcache_core.errors import ConfigError

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
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def bytes_of(field: str, amount: object, least: int) -> int:
    """The number of bytes that `amount` stands for: an int, or text such as "256MB" or "1.5 GiB".

    Raises `ConfigError`, naming `field`, for anything else and for less than `least`.
    """
    size = None
    if isinstance(amount, int) and not isinstance(amount, bool):
        size = amount
    elif isinstance(amount, str) and (found := _AMOUNT.fullmatch(amount)):
        number, unit = found.groups()
        if unit.upper() in _UNITS:
            size = int(float(number) * _UNITS[unit.upper()])
    if size is None or size < least:
        raise ConfigError(
            field, amount, f"give bytes as an integer or text such as '256MB', at least {in_words(least)}"
        )
    return size


def in_words(size: int) -> str:
    """As people write it: `67 MB`."""
    for unit in ("TB", "GB", "MB", "kB"):
        factor = _UNITS[unit.upper()]
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} B"
