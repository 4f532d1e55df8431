"""What django-redis has beyond Django's interface, under its names: methods of the backend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING, Any

from quickcache_core import NEVER, CacheMiss, Lock
from quickcache_core.twins import called
from quickcache_django.patterns import KeyPattern

if TYPE_CHECKING:
    from quickcache_django.backend import QuickCache

_SLICE = 256
"""Keys that are handled together where many are."""


def ttl(cache: QuickCache, key: Any, version: int | None = None) -> int | None:
    """Seconds left, rounded, but at least 1 while it is there; None for an entry without an end, 0 for
    none.
    """
    left = _left(cache, key, version)
    return left if left is None else max(int(left + 0.5), int(left > 0))


def pttl(cache: QuickCache, key: Any, version: int | None = None) -> int | None:
    """As `ttl`, in milliseconds."""
    left = _left(cache, key, version)
    return left if left is None else ceil(left * 1000)


def persist(cache: QuickCache, key: Any, version: int | None = None) -> bool:
    """Let an entry have no end. False if it has none, or isn't there."""
    left = _left(cache, key, version)
    return bool(left) and cache.touch(key, None, version)


def expire(cache: QuickCache, key: Any, timeout: Any, version: int | None = None) -> bool:
    """As `touch`, also with a timedelta: whether it was there. With a timeout of 0 or less it leaves."""
    return cache.touch(key, timeout.total_seconds() if isinstance(timeout, timedelta) else timeout, version)


def pexpire(cache: QuickCache, key: Any, timeout: Any, version: int | None = None) -> bool:
    """As `expire`, in milliseconds."""
    return cache.expire(key, timeout / 1000 if isinstance(timeout, int | float) else timeout, version)


def expire_at(cache: QuickCache, key: Any, when: Any, version: int | None = None) -> bool:
    """As `expire`, with the end as a datetime or in seconds since 1970. The time until then is measured
    once, now.
    """
    end = when.timestamp() if isinstance(when, datetime) else when
    return cache.touch(key, end - cache.engine.config.clock.wall(), version)


def pexpire_at(cache: QuickCache, key: Any, when: Any, version: int | None = None) -> bool:
    """As `expire_at`, in milliseconds since 1970."""
    return cache.expire_at(key, when if isinstance(when, datetime) else when / 1000, version)


def lock(
    cache: QuickCache,
    key: Any,
    version: int | None = None,
    timeout: Any = None,
    sleep: float = 0.1,
    blocking: bool = True,
    blocking_timeout: Any = None,
    thread_local: bool = True,
) -> Lock:
    """A lock among all who use the `LOCATION`; see `quickcache_core.Lock`.

    `timeout`: seconds after which it ends by itself; None for never. `blocking_timeout`: how long a block
    waits for others before it raises `LockTimeout`; None for ever. It looks again as often as it sees
    fit, whatever `sleep` says. `thread_local`: True, since each thread and task has its own token; raises
    `TypeError` for False.
    """
    if not thread_local:
        raise TypeError("thread_local=False: each thread has a token of its own here; hand it on instead")
    return cache.engine.lock(
        cache._key(key, version),
        lease=NEVER if timeout is None else timeout,
        wait=blocking_timeout if blocking else 0,
    )


def iter_keys(
    cache: QuickCache, search: str, itersize: int | None = None, version: int | None = None
) -> Iterator[str]:
    """The keys of live entries that match a pattern, see `patterns.KeyPattern`, one after the other.

    Looks at all entries of the `LOCATION`, or in scope `shared` at those that begin as the pattern does.
    Those that come or go meanwhile may or may not be among them. `itersize` makes no difference. Raises
    `ImproperlyConfigured` if KEY_FUNCTION changes keys so that they can't be told any more.
    """
    return _found(cache, search, version, stale=False)


def _found(cache: QuickCache, search: str, version: int | None, *, stale: bool) -> Iterator[str]:
    pattern = KeyPattern(search)
    head = cache._before_keys(version)
    keys = cache._cache.keys(head + pattern.beginning, stale=stale)
    return (key for full in keys if pattern.matches(key := full[len(head) :]))


def keys(cache: QuickCache, search: str, version: int | None = None) -> list[str]:
    """As `iter_keys`, all at once."""
    return list(cache.iter_keys(search, version=version))


def delete_pattern(
    cache: QuickCache, pattern: str, version: int | None = None, itersize: int | None = None
) -> int:
    """Remove all entries whose keys match, so many at a time, and return their number; see `iter_keys`.

    Tags and namespaces take constant time.
    """
    keys = _found(cache, pattern, version, stale=True)
    # First, as the engine's `delete_prefix` does. Of all keys that begin as the pattern does.
    cache._cache.overtake_loads(cache._before_keys(version) + KeyPattern(pattern).beginning)
    count = 0
    while batch := list(islice(keys, itersize or _SLICE)):
        if cache._is_own("delete"):
            count += cache._cache.delete_many(cache._keys(batch, version))
        else:
            count += sum(cache.delete(key, version) for key in batch)
    return count


async def aiter_keys(
    cache: QuickCache, search: str, itersize: int | None = None, version: int | None = None
) -> AsyncIterator[str]:
    keys = cache.iter_keys(search, itersize, version)
    while batch := await called(cache.aside, _some, keys, itersize or _SLICE):
        for key in batch:
            yield key


def _left(cache: QuickCache, key: Any, version: int | None) -> float | None:
    try:
        return cache._cache.ttl(cache._key(key, version))
    except CacheMiss:
        return 0.0


def _some(keys: Iterator[str], count: int) -> list[str]:
    return list(islice(keys, count))
