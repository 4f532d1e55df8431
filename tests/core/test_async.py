"""The twins for coroutines: the same operations under the same parameters, without leaving the loop."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import (
    NEVER,
    CacheLoadError,
    ConfigError,
    InvalidKey,
    InvalidTTL,
    KeyAlreadyExists,
    KeyNotFound,
    QuickCache,
    QuickCacheConfig,
)
from quickcache_core.testing import ManualClock

NO_OPERATIONS = {
    *("subscribe", "disabled", "namespace", "limits", "apply", "tag_slots", "shares_store_with"),
    *("cached", "with_source", "keep_fresh", "prefetcher", "lock"),
}
"""They change the cache object or make something of it, not its content; they take no time and may be called
from a coroutine.
"""
LOADING = {"get_or_set", "refresh", "warm"}
"""They may wait; see `test_async_loading` and `test_warm`."""
FILES = {"save_to_disk", "load_from_disk", "backup", "restore", "save_metrics_to_disk"}

OPERATIONS = sorted(
    name
    for name, member in vars(QuickCache).items()
    if inspect.isroutine(member)
    and not name.startswith("_")
    and not inspect.iscoroutinefunction(member)
    and name not in NO_OPERATIONS
)
MEMORY = [name for name in OPERATIONS if name not in FILES and name not in LOADING]

CALLS: dict[str, list[tuple[Any, ...]]] = {
    "get": [("there",), ("nothing",), ("nothing", 5), (5,)],
    "set": [("k", 1), ("there", 2, 5.0), ("k", 1, -1), (5, 1)],
    "add": [("k", 1), ("there", 1), ("k", 1, 0)],
    "update": [("there", 2), ("nothing", 2)],
    "delete": [("there",), ("nothing",)],
    "pop": [("there",), ("nothing",), ("nothing", 5)],
    "touch": [("there", 5.0), ("nothing",), ("there", "soon")],
    "ttl": [("there",), ("nothing",)],
    "incr": [("number",), ("number", 2.5), ("nothing",), ("there",)],
    "decr": [("number",), ("nothing",)],
    "get_many": [(["there", "nothing"],), ("there",)],
    "set_many": [({"a": 1, "b": 2},), ({"a": 1}, 5.0), ({5: 1},)],
    "delete_many": [(["there", "nothing"],)],
    "delete_prefix": [("num",), ("nothing",), ("",)],
    "overtake_loads": [("num",), ("",), (5,)],
    "keys": [(), ("num",)],
    "size": [()],
    "valid_size": [()],
    "clear": [()],
    "cleanup": [()],
    "resize": [(1,), (0,)],
    "invalidate_tags": [(), ("a", "b"), (5,)],
    "metrics": [()],
    "get_metrics_snapshot": [()],
    "reset_metrics": [()],
    "publish": [()],
    "stop": [()],
    "close": [()],
}


def make(**settings: Any) -> QuickCache:
    clock = ManualClock()
    cache = QuickCache(
        QuickCacheConfig.from_mapping({"clock": clock, "cleanup_interval": 1e9, "max_size": 5, **settings})
    )
    cache.set_many({"there": "value", "number": 7, "old": 1})
    cache.touch("old", 1.0)
    clock.advance(2.0)
    return cache


def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never waits; there is no loop that it could wait for."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    finally:
        coroutine.close()
    raise AssertionError("it left the event loop")


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        return type(error), str(error)


def test_calls_are_complete() -> None:
    """Every operation that takes no file is tested below."""
    assert sorted(CALLS) == MEMORY


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_has_a_twin(name: str) -> None:
    """A coroutine function with the same parameters, defaults and types; `keys` gives a list."""
    twin = getattr(QuickCache, f"a{name}", None)
    assert twin is not None, f"there is no a{name}"
    assert inspect.iscoroutinefunction(twin)
    operation = inspect.signature(getattr(QuickCache, name))
    assert inspect.signature(twin).parameters == operation.parameters
    if name != "keys":
        assert inspect.signature(twin).return_annotation == operation.return_annotation


def test_no_twin_without_an_operation() -> None:
    """Other than `acontains`, since `in` can't be awaited, and `arun`, which runs any of them."""
    twins = {name for name, member in vars(QuickCache).items() if inspect.iscoroutinefunction(member)}
    assert {name[1:] for name in twins if not name.startswith("_")} == {*OPERATIONS, "contains", "run"}


@pytest.mark.parametrize("name", MEMORY)
def test_same_outcome(name: str) -> None:
    """Result, exception and effect are those of the operation; nothing is waited for."""
    for arguments in CALLS[name]:
        plain, twin = make(), make()
        expected = outcome(lambda plain=plain, a=arguments: getattr(plain, name)(*a))  # type: ignore[misc]
        if name == "keys":
            expected = list(expected)
        found = outcome(lambda twin=twin, a=arguments: at_once(getattr(twin, f"a{name}")(*a)))  # type: ignore[misc]
        assert found == expected, arguments
        assert twin.get_metrics_snapshot() == plain.get_metrics_snapshot()
        assert twin.get_many(twin.keys()) == plain.get_many(plain.keys())
        assert twin.max_size == plain.max_size


def test_keyword_arguments() -> None:
    """They are handed on."""
    cache = make()
    assert at_once(cache.aadd("there", 1, exist_ok=True)) is False
    assert at_once(cache.adelete("nothing", missing_ok=True)) is False
    assert at_once(cache.atouch("nothing", missing_ok=True)) is False
    assert at_once(cache.aincr("n", 2, initial=10, ttl_sec=7.0)) == 12
    assert cache.ttl("n") == 7.0
    assert at_once(cache.adecr("m", initial=10, ttl_sec=NEVER)) == 9
    assert cache.ttl("m") is None
    at_once(cache.aset("k", None, ttl_sec=5))
    assert at_once(cache.aget("k")) is None
    assert at_once(cache.aget("nothing", default=None)) is None
    assert at_once(cache.akeys(prefix="num")) == ["number"]


def test_contains() -> None:
    """As `in`."""
    cache = make()
    assert at_once(cache.acontains("there")) is True
    assert at_once(cache.acontains("old")) is False
    assert at_once(cache.acontains("nothing")) is False


def test_errors() -> None:
    """Come out of the await."""

    async def work() -> None:
        cache = make()
        with pytest.raises(KeyNotFound):
            await cache.aget("nothing")
        with pytest.raises(KeyAlreadyExists):
            await cache.aadd("there", 1)
        with pytest.raises(InvalidTTL):
            await cache.aset("k", 1, 0)
        with pytest.raises(InvalidKey):
            await cache.aset(5, 1)  # type: ignore[arg-type]
        with pytest.raises(ConfigError):
            await cache.aresize(0)
        with pytest.raises(CacheLoadError):
            await cache.aload_from_disk("/nowhere/at/all.json")

    asyncio.run(work())


def test_an_overridden_operation_is_used() -> None:
    """A subclass changes one method, and its twin follows."""

    class Prefixed(QuickCache):
        def get(self, key: str, default: Any = None) -> Any:
            return super().get(f"x:{key}", default)

        def set(self, key: str, value: Any, ttl_sec: Any = None) -> None:
            super().set(f"x:{key}", value, ttl_sec)

    cache = Prefixed()
    at_once(cache.aset("k", 1))
    assert at_once(cache.aget("k")) == 1
    assert list(cache.keys()) == ["x:k"]


def test_switched_off() -> None:
    """The kill switch holds for twins."""
    cache = make()
    with cache.disabled():
        at_once(cache.aset("k", 1))
        assert at_once(cache.aget("k", None)) is None
        assert at_once(cache.asize()) == 0
    assert at_once(cache.aget("there")) == "value"


# Files


def test_files(tmp_path: Path) -> None:
    """Saved, loaded, backed up and restored as by the operations."""

    async def work() -> None:
        cache = make(storage_dir=tmp_path, metrics_storage_dir=tmp_path)
        path = await cache.asave_to_disk("saved")
        assert path == tmp_path / "saved.json"
        backup = await cache.abackup(tmp_path / "backups")
        await cache.aclear()
        await cache.aload_from_disk(path)
        assert await cache.aget("there") == "value"
        await cache.aset("there", "changed")
        await cache.arestore(backup)
        assert await cache.aget("there") == "value"
        assert (await cache.asave_metrics_to_disk("figures")).exists()

    asyncio.run(work())


@pytest.mark.parametrize("name", sorted(FILES))
def test_files_do_not_block_the_loop(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tasks run while a file is written or read."""
    cache = make(storage_dir=tmp_path)
    backup = cache.backup()
    go_on = threading.Event()
    workers: list[int] = []
    operation = getattr(cache, name)
    begun = asyncio.Event()

    def slow(*arguments: Any) -> Any:
        workers.append(threading.get_ident())
        loop[0].call_soon_threadsafe(begun.set)
        assert go_on.wait(10.0), "the loop stood still"
        return operation(*arguments)

    loop: list[asyncio.AbstractEventLoop] = []

    monkeypatch.setattr(cache, name, slow)

    async def work() -> None:
        loop.append(asyncio.get_running_loop())
        arguments = (backup,) if name in ("restore", "load_from_disk") else ()
        task = asyncio.create_task(getattr(cache, f"a{name}")(*arguments))
        await begun.wait()
        assert await cache.aget("there") == "value"
        assert not task.done()
        go_on.set()
        await task

    asyncio.run(work())
    assert workers[0] != threading.get_ident()


# Many tasks


def test_increments_of_tasks() -> None:
    """None is lost, between tasks of several loops in several threads."""
    cache = QuickCache()
    cache.set("n", 0)

    async def one() -> None:
        for _ in range(100):
            await cache.aincr("n")
            await asyncio.sleep(0)

    async def many() -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(20):
                tasks.create_task(one())

    threads = [threading.Thread(target=lambda: asyncio.run(many())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.get("n") == 4 * 20 * 100


def test_add_has_one_winner_among_tasks() -> None:
    """As among threads."""
    cache = QuickCache()

    async def work() -> list[bool]:
        return await asyncio.gather(*(cache.aadd("k", n, exist_ok=True) for n in range(100)))

    assert sum(asyncio.run(work())) == 1
    assert cache.get("k") == 0
