"""Who takes part in the engine's tables, and the exact code each of them runs.

Every statement is what a user of that library writes for a cache that threads share; a library that brings no
lock of its own gets one. `scope` gives a statement its names: `cache`, `value` and whatever else it needs.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Literal

from quickcache_core import NEVER, QuickCache, QuickCacheConfig

VALUE = "a value of forty characters or thereabout"
Scope = dict[str, Any]


@dataclass(frozen=True)
class Contender:
    name: str
    make: Callable[[int, float | None], Scope | None]
    """From the capacity and a TTL in seconds (None: entries stay); None if it can't do that."""
    get: str
    """Reads a key that is there."""
    look_up: str
    """Leaves the value in `found`, or None when the key isn't there."""
    set: str
    bounded: bool = True
    """Whether it evicts at all."""
    raising: str = ""
    """Reads a key that isn't there, and catches what is raised."""
    native: bool = False
    """Its memory is not Python's, so that only the process shows it."""


def contenders(*, policies: Iterable[str] = ("s3fifo", "lru", "lfu", "fifo", "sieve")) -> list[Contender]:
    """Peers that are not installed are left out."""
    found = [RAW_DICT, LOCKED_DICT, LOCKED_LRU]
    for make_peer in (_pyquickcache, _cachetools, _cachebox, _theine, _moka):
        try:
            found.append(make_peer())
        except ImportError:
            continue
    found += [quickcache(policy) for policy in policies]
    found.append(quickcache("s3fifo", isolation="auto"))
    return found


OURS = "QuickCache s3fifo"
BASELINE = "raw dict"


def quickcache(policy: str, isolation: Literal["share", "auto"] = "share") -> Contender:
    def make(capacity: int, ttl: float | None) -> Scope:
        config = QuickCacheConfig(
            max_size=capacity,
            default_ttl=NEVER if ttl is None else ttl,
            eviction_policy=policy,
            isolation=isolation,
        )
        return {"cache": QuickCache(config), "value": VALUE}

    return Contender(
        f"QuickCache {policy}" + ("" if isolation == "share" else f", isolation {isolation}"),
        make,
        get="cache.get(key)",
        look_up="found = cache.get(key, None)",
        set="cache.set(key, value)",
        raising="""
            try:
                cache.get(key)
            except KeyError:
                pass
        """,
    )


def _make_dict(capacity: int, ttl: float | None, *, lock: bool) -> Scope | None:
    if ttl is not None:
        return None
    scope: Scope = {"cache": {}, "value": VALUE}
    return {**scope, "lock": threading.Lock()} if lock else scope


RAW_DICT = Contender(
    BASELINE,
    partial(_make_dict, lock=False),
    get="cache[key]",
    look_up="found = cache.get(key)",
    set="cache[key] = value",
    bounded=False,
    raising="""
        try:
            cache[key]
        except KeyError:
            pass
    """,
)

LOCKED_DICT = Contender(
    "dict with a lock",
    partial(_make_dict, lock=True),
    get="""
        with lock:
            cache[key]
    """,
    look_up="""
        with lock:
            found = cache.get(key)
    """,
    set="""
        with lock:
            cache[key] = value
    """,
    bounded=False,
)


def _make_lru(capacity: int, ttl: float | None) -> Scope | None:
    if ttl is not None:
        return None
    return {"cache": OrderedDict(), "value": VALUE, "lock": threading.Lock(), "capacity": capacity}


LOCKED_LRU = Contender(
    "OrderedDict as LRU with a lock",
    _make_lru,
    get="""
        with lock:
            cache[key]
            cache.move_to_end(key)
    """,
    look_up="""
        with lock:
            found = cache.get(key)
            if found is not None:
                cache.move_to_end(key)
    """,
    set="""
        with lock:
            cache[key] = value
            cache.move_to_end(key)
            if len(cache) > capacity:
                cache.popitem(last=False)
    """,
)


def _pyquickcache() -> Contender:
    import pyquickcache

    # It writes a warning per eviction, and without a handler logging prints each of them to stderr. What is
    # measured is the cache, so they are switched off at the logger, as its users would do.
    logging.getLogger("pyquickcache").setLevel(logging.CRITICAL)

    def make(capacity: int, ttl: float | None) -> Scope | None:
        if ttl is None:
            return None
        # The interval only keeps its thread, one per cache, from sweeping in the middle of a round.
        config = pyquickcache.QuickCacheConfig(
            max_size=capacity, default_ttl=int(ttl), cleanup_interval=86_400
        )
        return {"cache": pyquickcache.QuickCache(config), "value": VALUE}

    return Contender(
        "PyQuickCache lru",
        make,
        get="cache.get(key)",
        look_up="""
            try:
                found = cache.get(key)
            except Exception:
                found = None
        """,
        set="cache.set(key, value)",
        raising="""
            try:
                cache.get(key)
            except Exception:
                pass
        """,
    )


def _cachetools() -> Contender:
    import cachetools

    def make(capacity: int, ttl: float | None) -> Scope:
        cache = cachetools.LRUCache(capacity) if ttl is None else cachetools.TTLCache(capacity, ttl)
        return {"cache": cache, "value": VALUE, "lock": threading.Lock()}

    return Contender(
        "cachetools TTLCache (no TTL: LRUCache) with a lock",
        make,
        get="""
            with lock:
                cache[key]
        """,
        look_up="""
            with lock:
                found = cache.get(key)
        """,
        set="""
            with lock:
                cache[key] = value
        """,
    )


def _cachebox() -> Contender:
    import cachebox

    def make(capacity: int, ttl: float | None) -> Scope:
        return {"cache": cachebox.VTTLCache(capacity), "value": VALUE, "ttl": ttl}

    return Contender(
        "cachebox VTTLCache (Rust)",
        make,
        get="cache.get(key)",
        look_up="found = cache.get(key)",
        set="cache.insert(key, value, ttl)",
        native=True,
    )


def _theine() -> Contender:
    import theine

    def make(capacity: int, ttl: float | None) -> Scope:
        duration = None if ttl is None else timedelta(seconds=ttl)
        return {"cache": theine.Cache(capacity), "value": VALUE, "ttl": duration}

    return Contender(
        "theine",
        make,
        get="cache.get(key)",
        look_up="found, _ = cache.get(key)",
        set="cache.set(key, value, ttl)",
        native=True,
    )


def _moka() -> Contender:
    import moka_py

    def make(capacity: int, ttl: float | None) -> Scope:
        return {"cache": moka_py.Moka(capacity, ttl=ttl), "value": VALUE}

    return Contender(
        "moka-py (Rust)",
        make,
        get="cache.get(key)",
        look_up="found = cache.get(key)",
        set="cache.set(key, value)",
        native=True,
    )
