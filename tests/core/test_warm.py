"""Many entries at once, before anybody asks for them."""

from __future__ import annotations

import asyncio
import contextvars
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import MISSING, CacheLoadError, InvalidKey, QuickCache, QuickCacheConfig
from quickcache_core.loading.warm import Warmed, awarm, warm
from quickcache_core.loading.warm_command import contents_of, function_at, warm_and_show, warmed_lines
from quickcache_core.testing import ManualClock

PATIENCE = 30.0
NUMBERS = range(2500)
TTL = 100.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "shared"])
def cache(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> Iterator[QuickCache]:
    shared = {"location": f"shared://{tmp_path}/cache", "max_bytes": 8_000_000}
    settings = {"clock": clock, "serializer": "json", "max_size": 10_000, "storage_dir": tmp_path}
    if request.param == "shared":
        settings |= shared
    with QuickCache(QuickCacheConfig.from_mapping(settings)) as cache:
        yield cache


def counts(warmed: Warmed) -> tuple[int, int, int]:
    assert warmed.seconds >= 0
    assert warmed.done == warmed.stored + warmed.skipped + warmed.failed
    return warmed.stored, warmed.skipped, warmed.failed


def test_mapping(cache: QuickCache) -> None:
    """All of it is stored, with the TTL that is given; no gets are counted."""
    assert counts(warm(cache, {f"k{n}": n for n in NUMBERS}, ttl_sec=TTL)) == (2500, 0, 0)
    assert cache.metrics().gets == 0
    assert cache.get("k2499") == 2499
    assert cache.ttl("k0") == TTL


def test_pairs(cache: QuickCache) -> None:
    """Any iterable of them is gone through bit by bit, not read as a whole first."""
    read = 0

    def pairs() -> Iterator[tuple[str, int]]:
        nonlocal read
        for n in NUMBERS:
            read += 1
            assert cache.size() >= (n // 100) * 100
            yield f"k{n}", n

    assert counts(warm(cache, pairs(), batch=100)) == (2500, 0, 0)
    assert read == 2500


def test_keys_with_a_loader(cache: QuickCache) -> None:
    """What is there is not loaded, unless all is to be overwritten."""
    loaded: list[str] = []

    def loader(key: str) -> str:
        loaded.append(key)
        return key.upper()

    cache.set("b", "theirs")
    assert counts(warm(cache, ["a", "b", "c"], loader)) == (2, 1, 0)
    assert loaded == ["a", "c"]
    assert cache.get_many("abc"[i] for i in range(3)) == {"a": "A", "b": "theirs", "c": "C"}
    assert counts(warm(cache, ["a", "b", "c"], loader, overwrite=True)) == (3, 0, 0)
    assert cache.get("b") == "B"


@pytest.mark.parametrize("overwrite", [False, True])
def test_values_for_keys_that_are_there(cache: QuickCache, overwrite: bool) -> None:
    """They stay, unless all is to be overwritten. Expired ones don't count as being there."""
    cache.set("a", "theirs", TTL)
    warmed = warm(cache, {"a": "ours", "b": "ours"}, overwrite=overwrite)
    assert counts(warmed) == ((2, 0, 0) if overwrite else (1, 1, 0))
    assert cache.get("a") == ("ours" if overwrite else "theirs")


def test_loader_for_many(cache: QuickCache) -> None:
    """It is called with as many keys as a batch has, without those that are there; what it leaves out is
    skipped.
    """
    calls: list[int] = []

    def load_many(keys: Sequence[str]) -> dict[str, str]:
        calls.append(len(keys))
        return {key: key for key in keys if key != "k7"}

    cache.set("k0", "theirs")
    keys = (f"k{n}" for n in NUMBERS)
    assert counts(warm(cache, keys, load_many=load_many, batch=1000)) == (2498, 2, 0)
    assert calls == [999, 1000, 500]
    assert "k7" not in cache


def test_nothing_to_store(cache: QuickCache) -> None:
    """A loader says so with MISSING, and with None where that isn't stored."""
    warmed = warm(cache, ["a", "b"], lambda key: MISSING if key == "a" else None, skip_none=True)
    assert counts(warmed) == (0, 2, 0)
    assert counts(warm(cache, ["b"], lambda key: None)) == (1, 0, 0)
    assert cache.get("b") is None


def test_some_fail(cache: QuickCache) -> None:
    """They are counted, the first error is there to be looked at, and the others are stored."""

    def loader(key: str) -> object:
        if key == "raises":
            raise OSError("no such row")
        return object() if key == "not to be serialized" else 1

    keys: list[Any] = ["a", "raises", 5, "b"]
    warmed = warm(cache, keys, loader)
    assert counts(warmed) == (2, 0, 2)
    assert isinstance(warmed.error, OSError)
    assert isinstance(warm(cache, {5: 1}).error, InvalidKey)
    assert sorted(cache.keys()) == ["a", "b"]


def test_loader_for_many_fails(cache: QuickCache) -> None:
    """All keys of the batch count as failed, and the next batch has its turn."""

    def load_many(keys: Sequence[str]) -> dict[str, int]:
        if "a" in keys:
            raise OSError
        return dict.fromkeys(keys, 1)

    assert counts(warm(cache, ["a", "b", "c"], load_many=load_many, batch=2)) == (1, 0, 2)


def test_source_fails(cache: QuickCache) -> None:
    """Its error reaches the caller, with and without threads; what came before is stored."""

    def pairs() -> Iterator[tuple[str, int]]:
        yield "a", 1
        yield "b", 2
        raise OSError("the connection broke")

    for threads in (1, 3):
        with pytest.raises(OSError, match="connection broke"):
            warm(cache, pairs(), batch=1, threads=threads)
    assert cache.get("a") == 1


@pytest.mark.parametrize("change", ["set", "delete"])
def test_write_during_the_load(cache: QuickCache, change: str) -> None:
    """What was loaded before it is not stored after it."""

    def loader(key: str) -> str:
        cache.set(key, "newer")
        if change == "delete":
            cache.delete(key)
        return "older"

    assert counts(warm(cache, ["a"], loader, overwrite=True)) == (0, 1, 0)
    assert cache.get("a", None) == ("newer" if change == "set" else None)


def test_threads(cache: QuickCache) -> None:
    """So many call the loader at a time, with the caller's context variables."""
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
    name.set("caller")
    together = threading.Barrier(3, timeout=PATIENCE)
    here: set[int] = set()

    def load_many(keys: Sequence[str]) -> dict[str, str]:
        together.wait()
        here.add(threading.get_ident())
        return dict.fromkeys(keys, name.get())

    keys = [f"k{n}" for n in range(9)]
    assert counts(warm(cache, keys, load_many=load_many, batch=1, threads=3)) == (9, 0, 0)
    assert len(here) == 3
    assert threading.get_ident() not in here
    assert set(cache.get_many(keys).values()) == {"caller"}
    assert not [one for one in threading.enumerate() if one.name.startswith("quickcache-warm")]


def test_threads_read_the_source_bit_by_bit() -> None:
    """Only a few parts ahead, so that memory doesn't fill with what waits."""
    taken, loaded, most_ahead = 0, 0, 0

    def keys() -> Iterator[str]:
        nonlocal taken, most_ahead
        for n in NUMBERS:
            taken += 1
            most_ahead = max(most_ahead, taken - loaded)
            yield f"k{n}"

    lock = threading.Lock()

    def load_many(names: Sequence[str]) -> dict[str, int]:
        nonlocal loaded
        with lock:
            loaded += len(names)
        return {}

    warm(QuickCache(), keys(), load_many=load_many, batch=10, threads=2)
    assert loaded == 2500
    assert most_ahead <= 60


def test_context_of_background_work() -> None:
    """Threads work within it, as loads in the background do."""
    entered: list[str] = []

    @contextmanager
    def around() -> Iterator[None]:
        entered.append("in")
        yield
        entered.append("out")

    cache = QuickCache(QuickCacheConfig(background_context=around))
    warm(cache, ["a"], str.upper)
    assert entered == []
    warm(cache, ["b"], str.upper, threads=2)
    assert entered == ["in", "out"]


def test_progress(cache: QuickCache) -> None:
    """Called in the caller's thread, never backwards, and at the end in any case."""
    for threads in (1, 4):
        told: list[tuple[int, int | None]] = []
        here = set()

        def progress(done: int, total: int | None) -> None:
            told.append((done, total))  # noqa: B023
            here.add(threading.get_ident())  # noqa: B023

        keys = [f"{threads}:{n}" for n in NUMBERS]
        warm(cache, keys, str.upper, threads=threads, progress=progress)
        assert told == sorted(told)
        assert told[-1] == (2500, 2500)
        assert here == {threading.get_ident()}
    warm(cache, iter(keys), str.upper, progress=lambda *said: told.append(said))
    assert told[-1] == (2500, None)
    warm(cache, iter(keys), str.upper, progress=lambda *said: told.append(said), total=2500)
    assert told[-1] == (2500, 2500)


def test_how_the_entries_live(cache: QuickCache, clock: ManualClock) -> None:
    """As those that a load stores: tags, stale values, and TTLs that jitter spreads."""
    warm(cache, {f"k{n}": n for n in range(100)}, ttl_sec=TTL, tags=("t",), jitter=0.5, stale_ttl=50)
    ttls = {cache.ttl(key) for key in cache}
    assert len(ttls) > 90
    assert all(ttl is not None and TTL / 2 <= ttl <= TTL for ttl in ttls)
    clock.advance(TTL)
    assert cache.get_or_set("k7", lambda: "loaded") == 7
    cache.invalidate_tags("t")
    assert cache.get_or_set("k8", lambda: "loaded") == "loaded"


def test_backup(cache: QuickCache, clock: ManualClock, tmp_path: Path) -> None:
    """What isn't there comes back with the time it had left; what is there stays."""
    cache.set_many({"a": "old", "b": "old"}, TTL)
    cache.set("short", "old", 10)
    cache.backup(tmp_path / "backups")
    cache.set("a", "new")
    cache.delete("b")
    clock.advance(30)
    assert counts(warm(cache, tmp_path / "backups")) == (1, 1, 0)
    assert cache.get_many(["a", "b"]) == {"a": "new", "b": "old"}
    assert cache.ttl("b") == TTL - 30
    assert "short" not in cache
    assert counts(warm(cache, str(tmp_path / "backups"), ttl_sec=7, overwrite=True)) == (2, 0, 0)
    assert (cache.get("a"), cache.ttl("a")) == ("old", 7)
    with pytest.raises(CacheLoadError):
        warm(cache, tmp_path / "nothing")


def test_names_of_keys(cache: QuickCache) -> None:
    """The source and the loader have theirs, the cache has its own."""
    warm(cache, [1, 2], lambda number: number * 10, key_of=lambda number: f"user:{number}")
    assert cache.get_many(["user:1", "user:2"]) == {"user:1": 10, "user:2": 20}


def test_switched_off(cache: QuickCache) -> None:
    """Nothing is loaded that nobody would store, and what is there stays."""
    cache.set("a", 1)
    with cache.disabled():
        assert counts(warm(cache, ["a", "b"], lambda key: pytest.fail("called"), overwrite=True)) == (0, 0, 0)
    assert sorted(cache.keys()) == ["a"]


async def _aupper(key: Any) -> str:
    await asyncio.sleep(0)
    return str(key).upper()


async def _aupper_many(keys: Sequence[str]) -> dict[str, str]:
    return {key: await _aupper(key) for key in keys}


@pytest.mark.parametrize("tasks", [1, 5])
def test_coroutine_functions(cache: QuickCache, tasks: int) -> None:
    """For one key or many, in the caller's event loop, in so many tasks."""
    keys = [f"k{n}" for n in range(50)]
    cache.set("k0", "theirs")
    told = []
    warmed = asyncio.run(awarm(cache, keys, _aupper, tasks=tasks, progress=lambda *said: told.append(said)))
    assert counts(warmed) == (49, 1, 0)
    assert told[-1] == (50, 50)
    warmed = asyncio.run(
        awarm(cache, iter(keys), load_many=_aupper_many, tasks=tasks, overwrite=True, batch=20)
    )
    assert counts(warmed) == (50, 0, 0)
    assert cache.get("k0") == "K0"


def test_tasks_at_a_time(cache: QuickCache) -> None:
    """As many loads as there are tasks are under way together."""

    async def program() -> Warmed:
        together = asyncio.Barrier(4)

        async def loader(key: str) -> str:
            await together.wait()
            return key

        async with asyncio.timeout(PATIENCE):
            return await awarm(cache, [f"k{n}" for n in range(12)], loader, tasks=4)

    assert counts(asyncio.run(program())) == (12, 0, 0)


def test_coroutine_function_that_fails(cache: QuickCache) -> None:
    """It is counted as elsewhere."""

    async def loader(key: str) -> str:
        if key == "b":
            raise OSError
        return key

    warmed = asyncio.run(awarm(cache, ["a", "b", "c"], loader))
    assert counts(warmed) == (2, 0, 1)


def test_source_of_a_coroutine_function_fails(cache: QuickCache) -> None:
    """Its error reaches the caller as it is."""

    def keys() -> Iterator[str]:
        yield "a"
        raise OSError("the connection broke")

    with pytest.raises(OSError, match="connection broke"):
        asyncio.run(awarm(cache, keys(), _aupper, tasks=3))
    with pytest.raises(TypeError, match="mapping"):
        asyncio.run(awarm(cache, ["b"], load_many=_aupper))


def test_without_coroutine_functions(cache: QuickCache) -> None:
    """The event loop isn't blocked by a loader that is none: it runs in a thread."""

    async def program() -> Warmed:
        loop = threading.get_ident()
        return await awarm(cache, ["a"], lambda key: threading.get_ident() != loop, TTL, jitter=0.1)

    assert counts(asyncio.run(program())) == (1, 0, 0)
    assert cache.get("a") is True
    assert asyncio.run(awarm(cache, {"b": 1})).stored == 1


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((5,), {}, TypeError),
        ((b"abc",), {}, TypeError),
        ((["a", "b"],), {}, TypeError),
        ((["ab"],), {}, TypeError),
        ((["a"], "no function"), {}, TypeError),
        (("a path", str.upper), {}, TypeError),
        ((["a"], str.upper), {"load_many": str.upper}, TypeError),
        ((["a"], str.upper), {"threads": 0}, ValueError),
        ((["a"], str.upper), {"batch": True}, ValueError),
        ((["a"], str.upper), {"colour": "red"}, TypeError),
        ((["a"], str.upper, -1), {}, ValueError),
        ((["a"], _aupper), {}, TypeError),
        ((["a"],), {"load_many": lambda keys: list(keys)}, TypeError),
    ],
)
def test_wrong_arguments(arguments: Any, options: dict[str, Any], error: type[Exception]) -> None:
    """They are refused, rather than stored or taken for failing keys."""
    with pytest.raises(error):
        warm(QuickCache(), *arguments, **options)


# What the commands have in common


@pytest.mark.parametrize(
    "path",
    ["json", "json:", ":loads", "json:nothing", "json:__name__", "no.such.module:function", "json.loads"],
)
def test_path_that_names_no_function(path: str) -> None:
    with pytest.raises(ValueError, match=repr(path)):
        function_at(path)


def test_path_of_a_function() -> None:
    """A module, a colon, a function; methods of classes too."""
    import json

    assert function_at("json:loads") is json.loads
    assert function_at("json:JSONDecoder.decode") is json.JSONDecoder.decode


@pytest.mark.parametrize(
    ("given", "source", "loader", "total"),
    [
        ({"a": 1}, [("a", 1)], None, 1),
        ([("a", 1), ("b", 2)], [("a", 1), ("b", 2)], None, 2),
        ((("a", 1), ("b", 2)), [("a", 1), ("b", 2)], None, 2),
        ((["a"], str.upper), ["a"], str.upper, 1),
        ((iter(["a"]), str.upper), ["a"], str.upper, None),
    ],
)
def test_what_a_function_gives(given: Any, source: Any, loader: Any, total: int | None) -> None:
    """A mapping, pairs, or keys and a loader; a tuple of two pairs is not taken for the latter."""
    found = contents_of(lambda: given)
    assert (list(found.source), found.loader, found.total) == (source, loader, total)


@pytest.mark.parametrize("given", [None, 5, "text", Path("file")])
def test_what_a_function_may_not_give(given: Any) -> None:
    with pytest.raises(ValueError, match="has to give"):
        contents_of(lambda: given)


def test_coroutine_function_gives_no_contents() -> None:
    async def function() -> None: ...

    with pytest.raises(ValueError, match="coroutine"):
        contents_of(function)


def test_what_is_shown(cache: QuickCache) -> None:
    """One line at the end, with the rate; the first failure, if there is one."""
    said: list[str] = []
    warmed = warm_and_show("default", cache, contents_of(lambda: {"a": 1}), said.append)
    assert said == []
    said = warmed_lines("default", warmed)
    assert len(said) == 1
    assert re.fullmatch(r"default: 1 stored, 0 skipped, 0 failed in \d+\.\d s, [\d,]+/s", said[0])

    async def loader(key: str) -> None:
        raise OSError("no such row")

    warmed = warm_and_show("default", cache, contents_of(lambda: (["b"], loader)), said.append, threads=3)
    said = warmed_lines("default", warmed)
    assert "0 stored, 0 skipped, 1 failed" in said[0]
    assert said[1] == "default: the first failure was OSError: no such row"
