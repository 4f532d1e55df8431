"""Durations, translated once: what a caller means by a TTL becomes seconds, or `FOREVER`."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Final

from quickcache_core.entry import FOREVER
from quickcache_core.errors import InvalidTTL


class Never(Enum):
    """The type of `NEVER`."""

    NEVER = "never"

    def __repr__(self) -> str:
        return "NEVER"


NEVER: Final = Never.NEVER
"""As a TTL: the entry has no end. Other than `None`, which asks for the cache's default."""

_NUMBERS = (int, float, Decimal, Fraction)

TTL = int | float | timedelta | Never


def seconds(ttl: object, field: str = "ttl_sec") -> float:
    """`ttl` in seconds, fractions kept; `FOREVER` for `NEVER`.

    Raises `InvalidTTL` for zero, negative and non-finite durations and for anything that is no duration
    (a bool and a string are none).
    """
    if ttl is NEVER:
        return FOREVER
    duration = 0.0
    try:
        if isinstance(ttl, _NUMBERS) and not isinstance(ttl, bool):
            duration = float(ttl)
        elif isinstance(ttl, timedelta):
            duration = ttl.total_seconds()
    except (OverflowError, ValueError) as error:
        raise InvalidTTL(ttl, field) from error
    if 0.0 < duration < math.inf:
        return duration
    raise InvalidTTL(ttl, field)
