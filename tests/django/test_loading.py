"""Values that are computed when they are missing: `get_or_set`, tags and namespaces through the backend."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.cache import CacheHandler
from django.core.exceptions import SynchronousOnlyOperation
from django.core.management import call_command
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, override_settings
from django.urls import path

from quickcache_core import InvalidTTL
from quickcache_core.errors import LoaderTimeout
from quickcache_core.loading.background import background
from quickcache_core.testing import ManualClock
from quickcache_django import QuickCache
from quickcache_django.conf import SettingError

PATIENCE = 30.0
MakeCache = Callable[..., QuickCache]


class Counted:
    """A callable that counts its calls."""

    def __init__(self, *values: Any) -> None:
        self.calls = 0
        self._values = list(values)

    def __call__(self) -> Any:
        self.calls += 1
        value = self._values[min(self.calls, len(self._values)) - 1]
        if isinstance(value, Exception):
            raise value
        return value


def until(condition: Callable[[], object]) -> None:
    """Wait for what a background thread is about to do."""
    ended = threading.Event()
    for _ in range(int(PATIENCE / 0.01)):
        if condition():
            return
        ended.wait(0.01)
    raise AssertionError("it never happened")


def at_rest() -> bool:
    """Whether no load is under way in the background."""
    return background._idle == background.thread_count


@contextmanager
def both_worlds(cache: QuickCache) -> Iterator[list[Any]]:
    """The object, and one whose methods are its `a` twins."""

    class Awaited:
        def __getattr__(self, name: str) -> Any:
            return lambda *args, **kwargs: asyncio.run(getattr(cache, f"a{name}")(*args, **kwargs))

    yield [cache, Awaited()]


# get_or_set


@pytest.mark.parametrize("value", ["text", None, 0, [1, [2]]])
@pytest.mark.parametrize("called", [False, True])
def test_missing_value(cache: QuickCache, value: Any, called: bool) -> None:
    """A value or what a callable returns is stored, None too; what is there is not replaced."""
    with both_worlds(cache) as worlds:
        for number, world in enumerate(worlds):
            default = (lambda: value) if called else value
            assert world.get_or_set(f"k{number}", default) == value
            assert cache.get(f"k{number}", "missing") == value
            assert world.get_or_set(f"k{number}", "another") == value


@pytest.mark.parametrize(
    ("timeout", "ttl"), [(60, 60), (0.5, 0.5), (None, None), ("default", 300)], ids=lambda value: str(value)
)
def test_timeout(cache: QuickCache, timeout: Any, ttl: Any) -> None:
    """As with `set`: None is never, and left out it is the alias's."""
    given = () if timeout == "default" else (timeout,)
    with both_worlds(cache) as worlds:
        for number, world in enumerate(worlds):
            world.get_or_set(f"k{number}", lambda: 1, *given)
            assert cache.engine.ttl(cache.make_key(f"k{number}")) == (ttl and pytest.approx(ttl))


@pytest.mark.parametrize("settings", [{"TIMEOUT": 0}, {"TIMEOUT": 300}], ids=str)
@pytest.mark.parametrize("operation", ["get_or_set", "refresh"])
def test_timeout_that_keeps_nothing(make_cache: MakeCache, settings: Any, operation: str) -> None:
    """With 0, given or set, the value is computed each time and handed out."""
    cache = make_cache(**settings)
    given = () if settings["TIMEOUT"] == 0 else (0,)
    with both_worlds(cache) as worlds:
        for world in worlds:
            loader = Counted("first", "second")
            assert getattr(world, operation)("k", loader, *given) == "first"
            assert getattr(world, operation)("k", loader, *given, tags=["t"]) == "second"
            assert list(cache.engine.keys()) == []


def test_nothing_is_kept_and_nobody_waits(cache: QuickCache) -> None:
    """Who asks at the same time computes at the same time: there will be no value for the next one."""
    together = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(cache.get_or_set, "k", lambda: together.wait(PATIENCE), 0) for _ in range(2)]
        assert sorted(one.result(PATIENCE) for one in asked) == [0, 1]


def test_version(cache: QuickCache) -> None:
    """Each version has its value."""
    assert cache.get_or_set("k", lambda: "one") == "one"
    assert cache.get_or_set("k", lambda: "two", version=2) == "two"
    assert cache.get_or_set("k", lambda: "none", version=1) == "one"


def test_one_call_for_all_who_ask(cache: QuickCache) -> None:
    """Twenty threads at once are one call; none waits for a value of its own."""
    begun, go = threading.Barrier(20), threading.Event()
    calls: list[int] = []

    def loader() -> str:
        calls.append(threading.get_ident())
        go.wait(PATIENCE)
        return "made"

    def ask() -> Any:
        begun.wait(PATIENCE)
        return cache.get_or_set("k", loader)

    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(ask) for _ in range(20)]
        until(lambda: cache.engine.metrics().load_waits == 19)
        go.set()
        assert [answer.result(PATIENCE) for answer in answers] == ["made"] * 20
    assert len(calls) == 1


def test_one_call_for_all_tasks(cache: QuickCache) -> None:
    """The same for tasks, with a coroutine function and with a plain one, and the event loop goes on."""

    async def ask(loader: Any, key: str) -> None:
        assert await asyncio.gather(*(cache.aget_or_set(key, loader) for _ in range(20))) == ["made"] * 20

    calls = []

    async def aload() -> str:
        calls.append("coroutine")
        await asyncio.sleep(0)
        return "made"

    def load() -> str:
        calls.append("function")
        return "made"

    asyncio.run(ask(aload, "a"))
    asyncio.run(ask(load, "b"))
    asyncio.run(ask(lambda: aload(), "c"))
    assert calls == ["coroutine", "function", "coroutine"]


def test_what_a_loader_says(make_cache: MakeCache, clock: ManualClock) -> None:
    """A callable that takes an argument gets the context; its tags are those of the alias's KEY_PREFIX."""
    cache, other = make_cache(KEY_PREFIX="shop"), make_cache(KEY_PREFIX="blog")

    def loader(context: Any) -> str:
        assert (context.key, context.tags, context.ttl_sec) == ("shop:1:k", ("a",), 60.0)
        context.ttl_sec = 7
        context.add_tags("b")
        return "made"

    for tag in ("a", "b"):
        assert cache.get_or_set("k", loader, 60, tags=["a"]) == "made"
        assert cache.engine.ttl("shop:1:k") == pytest.approx(7)
        other.invalidate_tags("a", "b")
        assert cache.get("k") == "made"
        cache.invalidate_tags(tag)
        assert cache.get("k") is None


def test_loader_that_stores_nothing(cache: QuickCache) -> None:
    """Said by the loader."""

    def loader(context: Any) -> str:
        context.dont_store()
        return "made"

    assert cache.get_or_set("k", loader) == "made"
    assert cache.get("k") is None


def test_refresh(cache: QuickCache) -> None:
    """What is there is replaced, unless the loader fails."""
    with both_worlds(cache) as worlds:
        for world in worlds:
            cache.set("k", "old")
            with pytest.raises(OSError, match="down"):
                world.refresh("k", Counted(OSError("down")))
            assert cache.get("k") == "old"
            assert world.refresh("k", lambda: "new", 60) == cache.get("k") == "new"
            assert world.refresh("k", "newer") == cache.get("k") == "newer"


def test_value_that_cannot_be_stored(cache: QuickCache) -> None:
    """What pickle says of it reaches the caller, as with `set`."""
    with both_worlds(cache) as worlds:
        for world in worlds:
            for operation in (world.get_or_set, world.refresh):
                with pytest.raises(TypeError, match="pickle"):
                    operation("k", threading.Lock)
    assert cache.get("k") is None


def test_wrong_keywords(cache: QuickCache) -> None:
    """They are the core's, and so is what is said of them."""
    call: Any = cache.get_or_set
    with pytest.raises(TypeError, match="unknown option 'tag'; there are stale_ttl, tags"):
        call("k", lambda: 1, tag="t")
    with pytest.raises(TypeError, match="tags='t': give a list or tuple"):
        call("k", lambda: 1, tags="t")
    with pytest.raises(InvalidTTL, match="stale_ttl=-1"):
        call("k", lambda: 1, stale_ttl=-1)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'default'"):
        call("k")


def test_coroutine_function_where_nobody_awaits(cache: QuickCache) -> None:
    async def loader() -> int:
        return 1

    with pytest.raises(TypeError, match="coroutine function; await the asynchronous method"):
        cache.get_or_set("k", loader)


def test_wrong_settings(location: str) -> None:
    """Each new method says what is wrong with the settings."""
    entry = {"BACKEND": "quickcache_django.QuickCache", "LOCATION": location, "OPTIONS": {"MAX_SIZE": -5}}
    cache = CacheHandler({"default": entry})["default"]
    for operation in (
        lambda: cache.get_or_set("k", lambda: 1),
        lambda: cache.get_or_set("k", 1),
        lambda: cache.refresh("k", lambda: 1),
        lambda: cache.invalidate_tags("t"),
        lambda: cache.namespace("n"),
    ):
        with pytest.raises(SettingError, match="MAX_SIZE=-5"):
            operation()


# Stale values


def test_source_that_is_down(make_cache: MakeCache, clock: ManualClock) -> None:
    """With STALE_TTL the older value is served, at once, and replaced behind it when that works again."""
    cache = make_cache(TIMEOUT=60, options={"STALE_TTL": timedelta(hours=1), "RETRY_AFTER": 5})
    source = Counted("first", OSError("down"), "second")
    assert cache.get_or_set("k", source) == "first"
    clock.advance(61)
    assert cache.get("k") is None
    assert cache.get_or_set("k", source) == "first"
    until(lambda: cache.engine.metrics().load_failures == 1 and at_rest())
    assert (cache.get_or_set("k", source), source.calls) == ("first", 2)
    clock.advance(6)
    assert cache.get_or_set("k", source) == "first"
    until(lambda: cache.get("k") == "second")
    figures = cache.engine.metrics()
    assert (figures.loads, figures.load_failures, figures.stale_hits) == (3, 1, 3)
    clock.advance(3700)
    with pytest.raises(OSError, match="down"):
        cache.get_or_set("k", Counted(OSError("down")))


def test_limit_to_waiting(cache: QuickCache) -> None:
    """HARD_TIMEOUT, or the keyword: the request goes on without, and the value arrives later."""
    go = threading.Event()

    def slow() -> str:
        go.wait(PATIENCE)
        return "late"

    with pytest.raises(LoaderTimeout):
        cache.get_or_set("k", slow, hard_timeout=0.01)
    go.set()
    until(lambda: cache.get("k") == "late")


def test_set_with_a_life(cache: QuickCache, clock: ManualClock) -> None:
    """`set` and `set_many` take the keywords too, in both worlds."""
    with both_worlds(cache) as worlds:
        for world in worlds:
            world.set("slides", 1, 10, sliding=True, max_age=25)
            assert world.set_many({"stays": 1}, 10, stale_ttl=100) == []
            for _ in range(2):
                clock.advance(9)
                assert cache.get("slides") == 1
            assert cache.get("stays") is None
            assert cache.get_or_set("stays", Counted(OSError("down")), retry_after=60) == 1
            clock.advance(9)
            assert cache.get("slides") is None
            cache.clear()


# Tags


def test_tags(cache: QuickCache) -> None:
    """Entries of any kind leave with one of their tags, whatever their version."""
    with both_worlds(cache) as worlds:
        for world in worlds:
            world.set("set", 1, tags=["a", "b"])
            world.set_many({"many": 1}, tags=["b"])
            world.get_or_set("made", lambda: 1, tags=["b"], version=2)
            world.get_or_set("plain", 1, tags=["b"])
            world.refresh("again", lambda: 1, tags=["b"])
            world.set("other", 1, tags=["c"])
            world.invalidate_tags("x", "a")
            assert cache.get_many(["set", "many", "plain"]) == {"many": 1, "plain": 1}
            world.invalidate_tags("b")
            assert cache.get_many(["set", "many", "plain", "again", "other"]) == {"other": 1}
            assert cache.get("made", version=2) is None


def test_tags_of_aliases_that_share_a_location(make_cache: MakeCache) -> None:
    """Those of another KEY_PREFIX are others; VERSION makes no difference."""
    shop, blog, next_shop = (
        make_cache(KEY_PREFIX="s"),
        make_cache(KEY_PREFIX="b"),
        make_cache(KEY_PREFIX="s", VERSION=2),
    )
    for cache in (shop, blog, next_shop):
        cache.set("set", 1, tags=["t"])
        cache.set_many({"many": 1}, tags=["t"])
        cache.get_or_set("made", lambda: 1, tags=["t"])
    shop.invalidate_tags("t")
    for cache, left in ((shop, {}), (next_shop, {}), (blog, dict.fromkeys(["set", "many", "made"], 1))):
        assert cache.get_many(["set", "many", "made"]) == left
    blog.engine.invalidate_tags(blog.make_tag("t"))
    assert blog.get("set") is None


def test_wrong_tags(make_cache: MakeCache) -> None:
    """With a prefix or without, what is no list of strings is named."""
    for cache in (make_cache(), make_cache(KEY_PREFIX="p")):
        for bad, said in (
            ("t", "give a list or tuple"),
            (5, "give a list or tuple"),
            ([5], "a tag is a string"),
        ):
            tags: Any = bad
            with pytest.raises(TypeError, match=said):
                cache.set("k", 1, tags=tags)
            with pytest.raises(TypeError, match=said):
                cache.set_many({"k": 1}, tags=tags)
        with pytest.raises(TypeError, match="a tag is a string"):
            cache.invalidate_tags("t", 5)  # type: ignore[arg-type]


# Namespaces


def test_namespace(cache: QuickCache) -> None:
    """The whole interface, with entries and tags of its own."""
    users = cache.namespace("users")
    assert type(users) is QuickCache
    cache.set("k", "outside", tags=["t"])
    users.set("k", "inside", tags=["t"])
    users.set("k", "version 2", version=2)
    assert (cache.get("k"), users.get("k"), users.get("k", version=2)) == ("outside", "inside", "version 2")
    assert cache.namespace("users").get("k") == "inside"
    assert users.namespace("deeper").get("k") is None
    users.invalidate_tags("t")
    assert (cache.get("k"), users.get("k")) == ("outside", None)
    assert users.get_or_set("made", lambda: 1) == 1
    users.clear()
    assert (cache.get("k"), users.get("made"), users.get("k", version=2)) == ("outside", None, None)
    users.close()
    with pytest.raises(ValueError, match="namespace ''"):
        cache.namespace("")


def test_namespaces_of_aliases_that_share_a_location(make_cache: MakeCache) -> None:
    """Those of another KEY_PREFIX stay when one is cleared, those of another VERSION don't."""
    shop, blog, next_shop = (
        make_cache(KEY_PREFIX="s"),
        make_cache(KEY_PREFIX="b"),
        make_cache(KEY_PREFIX="s", VERSION=2),
    )
    parts = [cache.namespace("users") for cache in (shop, blog, next_shop)]
    for number, part in enumerate(parts):
        part.set("k", number)
    assert [part.get("k") for part in parts] == [0, 1, 2]
    parts[0].clear()
    assert [part.get("k") for part in parts] == [None, 1, None]


def test_namespace_under_another_bound(cache: QuickCache) -> None:
    """A tool that changes the limit of the object leaves it in its namespace."""
    users = cache.namespace("users")
    users.set("k", "inside")
    users._max_entries = 7
    assert users.get("k") == "inside"
    assert (users.engine.max_size, cache.engine.max_size) == (7, 300)


# Subclasses, and methods replaced on an object


class Doubling(QuickCache):
    """Keeps values in a form of its own."""

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        value = super().get(key, default, version)
        return value if value is default else value // 2

    def set(self, key: Any, value: Any, *args: Any, **kwargs: Any) -> None:
        super().set(key, 2 * value, *args, **kwargs)

    def add(self, key: Any, value: Any, *args: Any, **kwargs: Any) -> bool:
        return super().add(key, 2 * value, *args, **kwargs)


def test_subclass_with_values_of_its_own(location: str) -> None:
    """What is computed goes through its methods; options, which these don't know, are refused."""
    cache = Doubling(location, {})
    with both_worlds(cache) as worlds:
        for number, world in enumerate(worlds):
            key = f"k{number}"
            assert world.get_or_set(key, lambda: 5) == world.get_or_set(key, 7) == 5
            assert cache.engine.get(cache.make_key(key)) == 10
            assert world.refresh(key, lambda: 6) == world.get(key) == 6
            with pytest.raises(TypeError, match=r"Doubling overrides get, set or add.*don.t know tags"):
                world.get_or_set(key, lambda: 5, tags=["t"])
            with pytest.raises(TypeError, match="Doubling overrides"):
                world.refresh(key, lambda: 5, tags=["t"])

    async def loader() -> int:
        return 8

    assert asyncio.run(cache.aget_or_set("awaited", loader)) == cache.get("awaited") == 8
    assert asyncio.run(cache.arefresh("awaited", loader)) == 8


def test_coroutine_function_under_a_debug_panel(cache: QuickCache) -> None:
    """A replaced `get_or_set`, which can't await, isn't asked to."""
    cache.get_or_set = lambda *args, **kwargs: "replaced"  # type: ignore[method-assign]

    async def loader() -> str:
        return "awaited"

    assert asyncio.run(cache.aget_or_set("k", lambda: 1)) == "replaced"
    assert asyncio.run(cache.aget_or_set("k", loader)) == "awaited"


# Databases


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A database of one's own file, under the alias `on_disk`, whose connections stay open.

    One for all tests: background threads know the alias from earlier ones.
    """
    file = tmp_path_factory.mktemp("on_disk") / "db.sqlite3"
    connections.settings["on_disk"] = {**connections.settings["default"], "NAME": file, "CONN_MAX_AGE": None}
    call_command("migrate", database="on_disk", verbosity=0)
    yield file
    connections["on_disk"].close()
    del connections["on_disk"], connections.settings["on_disk"]


def open_files(file: Path) -> int:
    """How often this process has it open, in any thread."""
    return sum(os.path.realpath(link) == str(file.resolve()) for link in Path("/proc/self/fd").iterdir())


def sessions() -> int:
    return Session.objects.using("on_disk").count()


def test_connections_of_background_loads(make_cache: MakeCache, clock: ManualClock, on_disk: Path) -> None:
    """They end with the load, however it ends, also those that Django would keep."""
    cache = make_cache(TIMEOUT=60, options={"STALE_TTL": 3600, "RETRY_AFTER": 0})
    seen: list[tuple[bool, int]] = []

    def loader() -> int:
        count = sessions()
        seen.append((threading.current_thread() is threading.main_thread(), open_files(on_disk)))
        if len(seen) == 3:
            raise OSError("down")
        return count

    assert cache.get_or_set("k", loader) == 0
    before = open_files(on_disk)
    for calls in range(2, 6):
        clock.advance(61)
        assert cache.get_or_set("k", loader) == 0
        until(lambda wanted=calls: len(seen) == wanted and at_rest())
        assert open_files(on_disk) == before
    assert [here for here, _ in seen] == [True, False, False, False, False]
    assert all(files > before for here, files in seen if not here)


def test_connection_of_a_load_in_the_thread_of_the_request(cache: QuickCache, on_disk: Path) -> None:
    """It is the request's, and stays."""
    sessions()
    before = open_files(on_disk)
    assert before
    assert cache.get_or_set("k", sessions) == 0
    assert open_files(on_disk) == before


def test_context_of_ones_own(make_cache: MakeCache) -> None:
    """BACKGROUND_CONTEXT replaces it."""
    entered: list[str] = []

    @contextmanager
    def noting() -> Iterator[None]:
        entered.append(threading.current_thread().name)
        yield

    cache = make_cache(options={"BACKGROUND_CONTEXT": noting})
    assert cache.get_or_set("k", lambda: 1, hard_timeout=PATIENCE) == 1
    assert entered == ["quickcache-loader"]


async def counted(request: HttpRequest) -> HttpResponse:
    from django.core.cache import cache

    assert isinstance(cache.engine.metrics().loads, int)
    kind = request.GET["kind"]
    loader: Any = sessions if kind == "plain" else asessions
    return HttpResponse(str(await cache.aget_or_set(kind, loader)))


async def asessions() -> int:
    return await Session.objects.using("on_disk").acount()


urlpatterns = [path("counted/", counted)]


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_asynchronous_view(default_cache: QuickCache, on_disk: Path, kind: str) -> None:
    """The ORM may be asked in a plain loader, which runs in a thread, and in a coroutine; once for all."""

    async def visit() -> list[bytes]:
        client = AsyncClient()
        answers = await asyncio.gather(*(client.get("/counted/", {"kind": kind}) for _ in range(10)))
        return [answer.content for answer in answers]

    before = default_cache.engine.metrics().loads
    with override_settings(ROOT_URLCONF=__name__):
        assert asyncio.run(visit()) == [b"0"] * 10
    assert default_cache.engine.metrics().loads == before + 1


def test_queryset_of_a_coroutine(cache: QuickCache, on_disk: Path) -> None:
    """It isn't evaluated until it is stored, which Django forbids in an event loop: it says so."""

    async def lazy() -> Any:
        return Session.objects.using("on_disk").all()

    async def evaluated() -> Any:
        return [one async for one in Session.objects.using("on_disk").all()]

    with pytest.raises(SynchronousOnlyOperation):
        asyncio.run(cache.aget_or_set("k", lazy))
    assert asyncio.run(cache.aget_or_set("k", evaluated)) == []
    assert list(asyncio.run(cache.aget_or_set("threaded", Session.objects.using("on_disk").all))) == []


def test_prefix_and_an_invalidation_during_a_load(make_cache: MakeCache) -> None:
    """With a KEY_PREFIX too, who comes after it doesn't wait for the load from before it."""
    cache = make_cache(KEY_PREFIX="shop")
    began, go_on, answers = threading.Event(), threading.Event(), []
    numbers = iter((1, 2))

    def load() -> int:
        number = next(numbers)
        began.set()
        if number == 1:
            assert go_on.wait(20.0)
        return number

    def ask() -> None:
        answers.append(cache.get_or_set("k", load, tags=["t"]))

    first = threading.Thread(target=ask)
    first.start()
    try:
        assert began.wait(20.0)
        cache.invalidate_tags("t")
        second = threading.Thread(target=ask)
        second.start()
        second.join(2.0)
        assert answers == [2]
    finally:
        go_on.set()
        first.join(20.0)
        second.join(20.0)
