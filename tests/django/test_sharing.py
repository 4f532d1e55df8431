from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Any

import pytest
from django.core import signals
from django.core.cache import CacheHandler, caches
from django.test import override_settings

from quickcache_django import QuickCache

BACKEND = "quickcache_django.QuickCache"


def in_threads(count: int, work: Any) -> list[Any]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def test_each_thread_has_an_object(default_cache: QuickCache) -> None:
    """Django makes an object per thread, and all see the same entries."""
    objects: list[Any] = []
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        cache = caches["default"]
        objects.append(cache)
        cache.set(f"k{number}", number)
        barrier.wait()
        assert cache.get_many([f"k{other}" for other in range(8)]) == {
            f"k{other}": other for other in range(8)
        }

    in_threads(8, work)
    assert len({id(cache) for cache in objects}) == 8
    assert len(default_cache.engine) == 8


def test_each_task_has_an_object(default_cache: QuickCache) -> None:
    """The same for tasks, each in a context of its own as an ASGI server starts them."""
    objects: list[Any] = []

    async def work(number: int) -> Any:
        objects.append(caches["default"])
        await caches["default"].aset(f"k{number}", number)

    async def main() -> None:
        tasks = [asyncio.create_task(work(number), context=Context()) for number in range(5)]
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert len({id(cache) for cache in objects}) == 5
    assert default_cache.get_many([f"k{number}" for number in range(5)]) == {f"k{n}": n for n in range(5)}


def test_objects_share_one_engine(default_cache: QuickCache) -> None:
    """A further object of an alias builds nothing: it takes the engine that is there."""
    engines = in_threads(4, lambda _: caches["default"].engine)
    assert {id(engine) for engine in engines} == {id(default_cache.engine)}


def test_the_object_is_gone(location: str) -> None:
    """Entries outlive the objects, which end with their thread."""

    def handler() -> CacheHandler:
        return CacheHandler({"default": {"BACKEND": BACKEND, "LOCATION": location}})

    in_threads(1, lambda _: handler()["default"].set("k", 1))
    assert handler()["default"].get("k") == 1


def test_end_of_a_request(default_cache: QuickCache) -> None:
    """Django closes all caches after each request; nothing is lost."""
    default_cache.set("k", 1)
    signals.request_finished.send(type(None))
    default_cache.close()
    assert default_cache.get("k") == 1
    default_cache.set("k", 2)
    assert default_cache.get("k") == 2


def test_one_location(location: str) -> None:
    """Aliases with one LOCATION share entries, although prefix, version and options differ."""
    handler = CacheHandler(
        {
            "plain": {"BACKEND": BACKEND, "LOCATION": location},
            "prefix": {"BACKEND": BACKEND, "LOCATION": location, "KEY_PREFIX": "p"},
            "version": {
                "BACKEND": BACKEND,
                "LOCATION": f"memory://{location}",
                "VERSION": 2,
                "TIMEOUT": None,
            },
            "limits": {
                "BACKEND": BACKEND,
                "LOCATION": location,
                "OPTIONS": {"MAX_ENTRIES": 10, "ISOLATION": "share"},
            },
            "another": {"BACKEND": BACKEND, "LOCATION": f"{location} 2"},
        }
    )
    for alias in handler:
        handler[alias].set("k", alias)
    assert [handler[alias].get("k") for alias in handler] == [
        "limits",
        "prefix",
        "version",
        "limits",
        "another",
    ]
    assert handler["plain"].get("k", version=2) == "version"
    assert len(handler["plain"].engine) == 3
    handler["prefix"].clear()
    assert len(handler["plain"].engine) == 0
    assert handler["another"].get("k") == "another"


@pytest.mark.parametrize("other", ["", "memory://"])
def test_no_location(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Aliases without a LOCATION share one store too, which is nobody else's."""
    # Other tests drop all named stores, and leave settings that were read with a store of their own.
    monkeypatch.setattr("quickcache_django.conf._read", {})
    handler = CacheHandler(
        {
            "default": {"BACKEND": BACKEND},
            "other": {"BACKEND": BACKEND, "LOCATION": other},
            "named": {"BACKEND": BACKEND, "LOCATION": "default"},
        }
    )
    handler["default"].set("unnamed", 1)
    assert handler["other"].get("unnamed") == 1
    assert handler["named"].get("unnamed") is None
    handler["default"].clear()


def test_settings_overridden_in_a_test(default_cache: QuickCache, location: str) -> None:
    """Other settings take effect, and the former ones come back."""
    default_cache.set("k", "outer")
    inner = {"default": {"BACKEND": BACKEND, "LOCATION": location, "TIMEOUT": 5}}
    with override_settings(CACHES=inner):
        assert caches["default"].default_timeout == 5
        assert caches["default"].get("k") is None
        caches["default"].set("k", "inner")
    assert caches["default"].get("k") == "outer"


def test_options_changed_in_place(location: str) -> None:
    """Settings are compared by what they say, not by which dictionary says it."""
    entry: dict[str, Any] = {"BACKEND": BACKEND, "LOCATION": location, "OPTIONS": {"MAX_ENTRIES": 10}}
    assert CacheHandler({"default": entry})["default"]._max_entries == 10
    entry["OPTIONS"]["MAX_ENTRIES"] = 20
    assert CacheHandler({"default": entry})["default"]._max_entries == 20


def test_incr_from_many_threads(default_cache: QuickCache) -> None:
    """8 threads, each with its own object, lose none of 8 x 2,000 increments."""
    default_cache.set("n", 0)

    def work(_: int) -> None:
        cache = caches["default"]
        for _ in range(2_000):
            cache.incr("n")

    in_threads(8, work)
    assert default_cache.get("n") == 16_000


def test_add_from_many_threads(default_cache: QuickCache) -> None:
    """Of 8 threads that add one key, one succeeds."""
    for round_ in range(200):
        added = in_threads(8, lambda _, round_=round_: caches["default"].add(f"k{round_}", 1))
        assert sum(added) == 1
