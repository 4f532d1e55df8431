"""A program that uses the public interface as its readers would: type checkers accept all of it.

Lines with `type: ignore` are mistakes that they have to find. `test_typing` checks and runs this file.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, assert_type

from quickcache_core import (
    MISSING,
    NEVER,
    TTL,
    BaseEvictionPolicy,
    BaseSerializer,
    CacheEvent,
    CacheMiss,
    ConfigError,
    EventKind,
    InvalidTTL,
    KeyExpired,
    KeyNotFound,
    Lock,
    LockNotOwned,
    MetricsSnapshot,
    QuickCache,
    QuickCacheConfig,
    QuickCacheError,
    RemovalCause,
    cached,
    register_eviction_policy,
    register_serializer,
)
from quickcache_core.testing import ManualClock

cache_of_functions = QuickCache()


@register_eviction_policy("typed_policy")
class MyPolicy(BaseEvictionPolicy):
    def on_add(self, cache: OrderedDict[str, Any], key: str) -> None:
        cache.move_to_end(key)

    def on_access(self, cache: OrderedDict[str, Any], key: str) -> None:
        cache.move_to_end(key)

    def select_eviction_key(self, cache: OrderedDict[str, Any]) -> str:
        return next(iter(cache))


@register_serializer("typed_serializer")
class MySerializer(BaseSerializer):
    extension = "txt"
    is_binary = False

    def serialize(self, data: Any) -> str:
        return repr(data)

    def deserialize(self, data: Any) -> Any:
        return eval(data)


class Clock:
    """A clock of one's own needs no base class."""

    def monotonic(self) -> float:
        return 1.0

    def wall(self) -> float:
        return 1.0


class AppCache(QuickCache):
    def get(self, key: str, default: Any = MISSING) -> Any:
        return super().get(f"app:{key}", default)


def configurations(folder: Path) -> Iterator[QuickCacheConfig]:
    yield QuickCacheConfig()
    yield QuickCacheConfig(
        max_size=10,
        default_ttl=timedelta(minutes=5),
        cleanup_interval=5,
        eviction_policy=MyPolicy,
        serializer=MySerializer(),
        location="memory://typed",
        isolation="auto",
        immutable_types=(Path,),
        cull_fraction=0.5,
        storage_dir=folder,
        metrics_storage_dir=str(folder),
        metrics_serializer=MySerializer,
        secret=lambda: "a secret that is long enough",
        secret_fallbacks=["a former one that is long enough", b"or one of bytes, long enough"],
        compression="zlib",
        clock=Clock(),
    )
    yield QuickCacheConfig(default_ttl=NEVER, secret=b"a secret that is long enough", clock=ManualClock())
    yield QuickCacheConfig(default_ttl=None).replace(eviction_policy="typed_policy")
    yield QuickCacheConfig.from_mapping({"max_size": 10})


def results(cache: QuickCache, folder: Path) -> None:
    ttl: TTL = 5
    cache.set("k", {"any": "value"}, ttl_sec=ttl)
    cache.set_many({"a": 1, "b": None}, ttl_sec=timedelta(seconds=1))
    assert_type(cache.get_many(key for key in ["a", "b"]), dict[str, Any])
    assert_type(cache.add("k", 1, exist_ok=True), bool)
    assert_type(cache.delete("x", missing_ok=True), bool)
    assert_type(cache.delete_many({"x", "y"}), int)
    assert_type(cache.touch("k", NEVER), bool)
    assert_type(cache.ttl("k"), float | None)
    assert_type("k" in cache, bool)
    assert_type(len(cache), int)
    assert_type(cache.size() + cache.valid_size() + cache.cleanup(), int)
    assert_type(cache.keys("k"), Iterator[str])
    assert_type([key.upper() for key in cache], list[str])
    assert_type(cache.save_to_disk(folder / "s"), Path)
    assert_type(cache.backup(str(folder)), Path)
    cache.restore(folder)
    cache.load_from_disk(str(folder / "s"))
    assert_type(cache.metrics(), MetricsSnapshot)
    assert_type(cache.metrics().hit_ratio, float)
    assert_type(cache.get_metrics_snapshot(), dict[str, int | float])
    assert_type(cache.config, QuickCacheConfig)
    assert_type(cache.max_size, int)
    assert_type(cache.enabled, bool)
    with cache.disabled():
        pass
    count: int = cache.incr("n", initial=0)
    assert_type(count, int)


def listeners(cache: QuickCache) -> None:
    def listener(event: CacheEvent) -> None:
        assert_type(event.kind, EventKind)
        assert_type(event.key, str)
        assert_type(event.cause, RemovalCause | None)

    stop = cache.subscribe(listener, [EventKind.REMOVED])
    assert_type(stop, Callable[[], None])
    stop()
    cache.subscribe(lambda event: None, EventKind.HIT)()


def errors(cache: QuickCache) -> None:
    try:
        cache.get("nothing")
    except (KeyNotFound, KeyExpired) as miss:
        assert_type(miss.key, str)
    try:
        cache.get("nothing")
    except KeyError as error:
        misses = [error] if isinstance(error, CacheMiss) else []
        assert_type(misses, list[CacheMiss])
    try:
        QuickCacheConfig(max_size=0)
    except ConfigError as error:
        assert_type((error.field, error.remedy), tuple[str, str])
    try:
        cache.set("k", 1, ttl_sec=-1)
    except (InvalidTTL, QuickCacheError):
        pass


async def coroutines(cache: QuickCache) -> None:
    await cache.aset("k", 1, ttl_sec=5)
    value: int = await cache.aget("k", 0)
    assert_type(value, int)
    assert_type(await cache.aget_many(["k"]), dict[str, Any])
    assert_type(await cache.adelete("k"), bool)
    assert_type(await cache.attl("n"), float | None)
    assert_type(await cache.akeys(), list[str])


class Shop:
    @cached(cache_of_functions, ignore=("self",))
    def price(self, article: str) -> float:
        return float(len(article))


@cached(cache_of_functions, "user:{user_id}", ttl_sec=timedelta(minutes=1), tags=("users",), stale_ttl=60)
def user(user_id: int, *, upper: bool = False) -> str:
    return f"USER {user_id}" if upper else f"user {user_id}"


def is_nowhere(city: str) -> bool:
    return not city


@cached(lambda: cache_of_functions, unless=is_nowhere)
async def weather(city: str) -> list[str]:
    return [city]


def functions() -> None:
    assert_type(user(7, upper=True), str)
    assert_type(user.invalidate(7), bool)
    assert_type(user.key(user_id=7), str)
    assert_type(user.refresh(7), str)
    assert_type(user.uncached(7), str)
    user.invalidate_all()
    assert_type(Shop().price("tea"), float)
    assert_type(Shop().price.refresh("tea"), float)
    assert_type(Shop().price.invalidate("tea"), bool)
    assert_type(Shop.price(Shop(), "tea"), float)


async def coroutine_functions() -> None:
    assert_type(await weather("Rome"), list[str])
    assert_type(await weather.ainvalidate("Rome"), bool)
    await weather.arefresh("Rome")


def wrong_calls() -> None:
    user("7")  # type: ignore[arg-type]
    user(7, True)  # type: ignore[call-arg]
    user.invalidate()  # type: ignore[call-arg]
    Shop().price(5)  # type: ignore[arg-type]
    cached(cache_of_functions, 5)  # type: ignore[arg-type]


def locks(cache: QuickCache) -> None:
    with cache.lock("a", lease=timedelta(minutes=1), wait=None) as lock:
        assert_type(lock, Lock)
        assert_type(lock.token, str | None)
        assert_type(lock.fence(), int)
        assert_type(cache.lock("a").acquire(wait=0), bool)
        assert_type(cache.lock("a").acquire(False, token="t"), bool)
        lock.extend(NEVER)
        lock.extend(token=lock.token)
        assert_type(lock.owned(), bool)
    try:
        cache.lock("a", wait=0).release()
    except LockNotOwned as error:
        assert_type(error.name, str)
    assert_type(cache.delete_prefix("lock:"), int)


async def locks_of_coroutines(cache: QuickCache) -> None:
    async with cache.lock("a") as lock:
        assert_type(lock, Lock)
        assert_type(await lock.afence(), int)
        assert_type(await cache.lock("a").aacquire(wait=0), bool)
        await lock.aextend(5)
        assert_type(await lock.aowned(token=lock.token), bool)
        assert_type(await lock.alocked(), bool)
    assert_type(await cache.adelete_prefix("lock:"), int)


def mistakes(cache: QuickCache) -> None:
    cache.lock(5)  # type: ignore[arg-type]
    cache.lock("a", lease=None)  # type: ignore[arg-type]
    cache.lock("a", 5)  # type: ignore[call-arg]
    cache.lock("a").release("t")  # type: ignore[call-arg]
    cache.set(5, 1)  # type: ignore[arg-type]
    cache.set("k", 1, ttl_sec="5")  # type: ignore[arg-type]
    cache.set("k")  # type: ignore[call-arg]
    cache.add("k", 1, 5, True)  # type: ignore[call-arg]
    cache.get_many(5)  # type: ignore[arg-type]
    cache.set_many([("k", 1)])  # type: ignore[arg-type]
    cache.ttl("k") + 1  # type: ignore[operator]
    cache.subscribe(lambda: None)  # type: ignore[arg-type, misc]
    cache.config = QuickCacheConfig()  # type: ignore[misc]
    cache.config.max_size = 5  # type: ignore[misc]
    QuickCacheConfig(5)  # type: ignore[call-arg]
    QuickCacheConfig(max_sise=5)  # type: ignore[call-arg]
    QuickCacheConfig(max_size="5")  # type: ignore[arg-type]
    QuickCacheConfig(isolation="deep")  # type: ignore[arg-type]
    QuickCacheConfig(compression="gzip")  # type: ignore[arg-type]
    QuickCacheConfig(eviction_policy=int)  # type: ignore[arg-type]
    QuickCacheConfig(serializer=MyPolicy)  # type: ignore[arg-type]
    QuickCacheConfig(clock=5)  # type: ignore[arg-type]


def main() -> None:
    with TemporaryDirectory() as name:
        for config in configurations(Path(name)):
            with AppCache(config) as cache:
                cache.set("app:k", 1)
                assert cache.get("k") == 1
    with TemporaryDirectory() as name, QuickCache() as cache:
        results(cache, Path(name))
        listeners(cache)
        errors(cache)
        locks(cache)
        asyncio.run(coroutines(cache))
        asyncio.run(locks_of_coroutines(cache))
    functions()
    asyncio.run(coroutine_functions())
    print("fine")


if __name__ == "__main__":
    main()
