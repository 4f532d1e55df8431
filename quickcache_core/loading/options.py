"""What a caller may say of a load."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from quickcache_core.entry import FOREVER
from quickcache_core.store.life import Life
from quickcache_core.ttl import TTL, seconds


class LoadArguments(TypedDict, total=False):
    """The keywords of `get_or_set` and whatever else loads; None or left out: as the cache is configured."""

    stale_ttl: TTL | None
    """Seconds or timedelta that the value is kept after its TTL, to be served while the source is slow or
    down."""
    tags: Iterable[str]
    """Names that the entry can be invalidated by."""
    tag_prefix: str
    """What the cache puts before each of them, those that the loader names included."""
    sliding: bool | None
    """Whether each read lets the TTL begin anew."""
    max_age: TTL | None
    """With `sliding`: the longest life, in seconds or as timedelta, however often it is read."""
    refresh_ahead: float | None
    """Share of the TTL, above 0 and below 1, after which a reader sets off a refresh in the background."""
    jitter: float | None
    """Share of the TTL, from 0 to 1, by which it is shortened at random, so that entries that were loaded
    together don't end together."""
    soft_timeout: float | None
    """Seconds that a reader who could have a stale value waits for a fresh one; `NEVER` for as long as the
    load takes."""
    hard_timeout: float | None
    """Seconds that a reader waits for a value at all; then `LoaderTimeout`. `NEVER`: as long as it takes."""
    retry_after: float | None
    """Seconds for which a failed load isn't tried again while there is a stale value to serve."""
    skip_none: bool | None
    """Whether a loader's None is handed out and not stored."""
    single_flight: bool | None
    """Whether callers who miss one key together wait for one load."""
    lease: float | None
    """Seconds that a caller waits for somebody else's load before it loads by itself."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What holds for one load: durations in seconds, `FOREVER` for no limit."""

    ttl: float
    stale_ttl: float = 0.0
    tags: tuple[str, ...] = ()
    tag_prefix: str = ""
    sliding: bool = False
    max_age: float = FOREVER
    refresh_ahead: float | None = None
    jitter: float = 0.0
    soft_timeout: float = 0.0
    hard_timeout: float = FOREVER
    retry_after: float = 5.0
    skip_none: bool = False
    single_flight: bool = True
    lease: float = 30.0

    def changed(self, ttl_sec: TTL | None, arguments: Mapping[str, Any]) -> LoadOptions:
        """With what one call says otherwise. Raises `InvalidTTL`, `TypeError` and `ValueError`."""
        changes = {
            name: _READERS[name](name, value) for name, value in arguments.items() if value is not None
        }
        if ttl_sec is not None:
            changes["ttl"] = seconds(ttl_sec)
        return replace(self, **changes) if changes else self

    def life(self, slots: tuple[int, ...] = ()) -> Life:
        """Of an entry that is stored without a load. `slots`: those of its tags."""
        max_age = self.max_age if self.sliding else FOREVER
        return Life(self.ttl, self.stale_ttl, self.sliding, max_age, tags=slots)


def duration(name: str, value: object) -> float:
    return seconds(value, name)


def timeout(name: str, value: object) -> float:
    """As `duration`; 0 for not waiting at all."""
    if value == 0 and not isinstance(value, bool):
        return 0.0
    return seconds(value, name)


def tag_names(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise TypeError(f'{name}={value!r}: give a list or tuple of strings, such as ("user:7",)')
    names = tuple(value)
    for one in names:
        if not isinstance(one, str):
            raise TypeError(f"{name}={value!r}: a tag is a string, {one!r} is {type(one).__name__}")
    return names


def text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}={value!r}: give a string")
    return value


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: give True or False")
    return value


def share(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0.0 < value < 1.0:
        raise ValueError(f"{name}={value!r}: give a share of the TTL above 0 and below 1, such as 0.8")
    return float(value)


def jitter(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0.0 <= value < 1.0:
        raise ValueError(f"{name}={value!r}: give a share of the TTL from 0 to below 1, such as 0.1")
    return float(value)


def finite(name: str, value: object) -> float:
    period = seconds(value, name)
    if period == math.inf:
        raise ValueError(f"{name}={value!r}: give a number of seconds above 0 that ends")
    return period


_READERS: dict[str, Callable[[str, object], Any]] = {
    "stale_ttl": timeout,
    "tags": tag_names,
    "tag_prefix": text,
    "sliding": flag,
    "max_age": duration,
    "refresh_ahead": share,
    "jitter": jitter,
    "soft_timeout": timeout,
    "hard_timeout": duration,
    "retry_after": timeout,
    "skip_none": flag,
    "single_flight": flag,
    "lease": finite,
}


def check_names(arguments: Mapping[str, Any]) -> None:
    """Raises `TypeError` for a keyword that doesn't exist."""
    for name in arguments:
        if name not in _READERS:
            raise TypeError(f"unknown option {name!r}; there are {', '.join(_READERS)}")
