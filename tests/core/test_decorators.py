"""`@cached` for functions and methods, sync and async."""

from __future__ import annotations

import asyncio
import copy
import inspect
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import (
    ConfigError,
    InvalidTTL,
    QuickCache,
    QuickCacheConfig,
    UnstableArgument,
    cached,
)
from quickcache_core.testing import ManualClock
from tests.shared.checks import eventually

clock = ManualClock()
cache = QuickCache(QuickCacheConfig(clock=clock, location="memory://test_decorators"))

calls: list[Any] = []
"""Arguments of the calls that weren't answered by the cache."""
during_a_call: list[Callable[[], object]] = []
"""What `add` and `load_user` do when they are called next."""


@pytest.fixture(autouse=True)
def _nothing_cached() -> Iterator[None]:
    cache.clear()
    calls.clear()
    yield
    cache.clear()


@cached(cache)
def add(a: int, b: int = 2) -> int:
    """The sum."""
    calls.append((a, b))
    while during_a_call:
        during_a_call.pop()()
    return a + b


@cached(cache, "user:{user_id}", ttl_sec=60, tags=("user:{user_id}", "users"))
def load_user(user_id: int, session: Any = None) -> list[int]:
    calls.append(user_id)
    while during_a_call:
        during_a_call.pop()()
    return [user_id, len(calls)]


@cached(cache, ttl_sec=10)
async def aload(a: int, b: int = 2) -> int:
    calls.append((a, b))
    await asyncio.sleep(0)
    return a + b


@cached(cache, "page:{number}", tags=lambda number, **_: [f"half:{number // 2}"])
async def apage(number: int, session: Any = None) -> int:
    calls.append(number)
    return len(calls)


@cached(cache, ignore=("session",))
def with_session(session: Any, a: int) -> int:
    calls.append(a)
    return a


@cached(cache, unless=lambda a, fresh=False: fresh)
def unless_fresh(a: int, fresh: bool = False) -> int:
    calls.append(a)
    return len(calls)


@cached(cache, unless=lambda a, fresh=False: fresh)
async def aunless_fresh(a: int, fresh: bool = False) -> int:
    calls.append(a)
    return len(calls)


@cached(cache, namespace="reports")
def report(day: int) -> int:
    calls.append(day)
    return len(calls)


@cached(cache, "page:{page}", namespace="tenant:{tenant}", tags=("pages",))
def tenant_page(tenant: str, page: int) -> int:
    calls.append((tenant, page))
    return len(calls)


@cached(cache)
def fails(a: int) -> int:
    calls.append(a)
    raise ArithmeticError(a)


@cached(cache)
def factorial(number: int) -> int:
    calls.append(number)
    result: int = number * factorial(number - 1) if number else 1
    return result


@cached(cache, stale_ttl=60, ttl_sec=10)
def slow(a: int) -> int:
    calls.append(a)
    if len(calls) > 1:
        raise ArithmeticError("the source is down")
    return a


@cached(lambda: cache)
def lazily(a: int) -> int:
    calls.append(a)
    return a


@dataclass(frozen=True)
class Shop:
    number: int

    @cached(cache)
    def price(self, article: str) -> str:
        """Of an article."""
        calls.append((self.number, article))
        return f"{article} in {self.number}"

    @cached(cache)
    async def aprice(self, article: str) -> str:
        calls.append((self.number, article))
        return f"{article} in {self.number}"

    @classmethod
    @cached(cache)
    def outer_classmethod(cls, a: int) -> str:
        calls.append(a)
        return f"{cls.__name__} {a}"

    @cached(cache)
    @classmethod
    def inner_classmethod(cls, a: int) -> str:
        calls.append(a)
        return f"{cls.__name__} {a}"

    @staticmethod
    @cached(cache)
    def outer_staticmethod(a: int) -> int:
        calls.append(a)
        return a

    @cached(cache)
    @staticmethod
    def inner_staticmethod(a: int) -> int:
        calls.append(a)
        return a


class BigShop(Shop):
    pass


class Machine:
    """Without a stable form."""

    @cached(cache)
    def run(self, a: int) -> int:
        return a

    @cached(cache, ignore=("self",))
    def same_for_all(self, a: int) -> int:
        calls.append(a)
        return a


class TestCalls:
    def test_called_once(self) -> None:
        """However the arguments are given, one call of the function is enough."""
        assert [add(1), add(1, 2), add(a=1), add(b=2, a=1)] == [3, 3, 3, 3]
        assert calls == [(1, 2)]
        assert add(2) == 4
        assert calls == [(1, 2), (2, 2)]

    def test_none_is_a_result(self) -> None:
        """A function that returns None isn't called again."""

        @cached(cache)
        def nothing() -> None:
            calls.append(None)

        nothing()
        nothing()
        assert calls == [None]

    def test_ends_with_its_ttl(self) -> None:
        """`ttl_sec` is that of the entry."""
        load_user(7)
        clock.advance(59)
        load_user(7)
        assert calls == [7]
        clock.advance(1)
        load_user(7)
        assert calls == [7, 7]

    def test_exceptions_are_not_kept(self) -> None:
        """They reach the caller, and the next call tries again."""
        for _ in range(2):
            with pytest.raises(ArithmeticError):
                fails(1)
        assert calls == [1, 1]

    def test_counts(self) -> None:
        """A call is one get: a miss the first time, a hit the second, with and without a template."""
        for function in (add, load_user, report):
            cache.reset_metrics()
            for _ in range(3):
                function(7)
            metrics = cache.metrics()
            assert (metrics.gets, metrics.misses, metrics.hits) == (3, 1, 2)

    def test_recursion(self) -> None:
        """A function may call itself; each number is computed once."""
        assert factorial(20) == 2_432_902_008_176_640_000
        assert factorial(21) == 51_090_942_171_709_440_000
        assert sorted(calls) == list(range(22))

    def test_options_of_the_load(self) -> None:
        """The keywords of `get_or_set` do here what they do there: this one serves what is stale."""
        assert slow(1) == 1
        clock.advance(11)
        assert slow(1) == 1
        # The call behind it, which would be counted in the next test.
        eventually(lambda: len(calls) == 2)

    def test_threads_share_a_call(self) -> None:
        """Callers who miss together wait for one call."""
        together = threading.Barrier(8)

        def call(number: int) -> int:
            together.wait(timeout=30)
            return add(100)

        with ThreadPoolExecutor(8) as threads:
            assert set(threads.map(call, range(8))) == {102}
        assert len(calls) == 1

    def test_cache_found_at_the_call(self) -> None:
        """A function in the place of the cache is asked each time, so that settings may come late."""
        place: list[QuickCache] = []

        @cached(lambda: place[0], "late:{a}")
        def late(a: int) -> int:
            calls.append(a)
            return a

        for _ in range(2):
            place[:] = [QuickCache()]
            assert late(1) == late(1) == 1
        assert calls == [1, 1]

    def test_ignored_argument(self) -> None:
        """It reaches the function and has no part in the key."""
        assert with_session(object(), 1) == with_session(session=object(), a=1) == 1
        assert calls == [1]

    def test_unless(self) -> None:
        """A call for which `unless` holds neither reads nor writes the cache."""
        assert [unless_fresh(1), unless_fresh(1, fresh=True), unless_fresh(1)] == [1, 2, 1]

    def test_template_key(self) -> None:
        """The result lies under the key that the template says, where others find it."""
        load_user(7, session=object())
        assert cache.get("user:7") == [7, 1]
        assert load_user.key(7) == "user:7"
        cache.delete("user:7")
        assert load_user(7) == [7, 2]

    def test_unstable_argument(self) -> None:
        """The call raises, the function isn't called, nothing is stored."""
        with pytest.raises(UnstableArgument, match="'a'"):
            add(object())  # type: ignore[arg-type]
        assert calls == []
        assert len(cache) == 0

    def test_switched_off(self) -> None:
        """While the cache is off each call reaches the function."""
        with cache.disabled():
            assert add(1) == add(1) == 3
        assert len(calls) == 2


class TestInvalidation:
    def test_of_one_call(self) -> None:
        """`invalidate` takes the arguments of the call; it says whether there was a result."""
        assert add(1) == 3
        assert add(5) == 7
        assert add.invalidate(b=2, a=1) is True
        assert add.invalidate(1) is False
        add(1)
        add(5)
        assert calls == [(1, 2), (5, 2), (1, 2)]

    @pytest.mark.parametrize("function", [add, load_user, report], ids=repr)
    def test_of_all_calls(self, function: Any) -> None:
        """`invalidate_all` forgets all results of the function, and those of no other."""
        function(1)
        function(2)
        factorial(0)
        for _ in range(3):
            calls.clear()
            function.invalidate_all()
            function(1)
            function(2)
            function(1)
            factorial(0)
            assert len(calls) == 2
            assert function.invalidate(1) is True

    def test_of_all_calls_in_all_namespaces(self) -> None:
        """Also where the namespace depends on the arguments."""
        tenant_page("a", 1)
        tenant_page("b", 1)
        tenant_page.invalidate_all()
        tenant_page("a", 1)
        tenant_page("b", 1)
        assert len(calls) == 4

    @pytest.mark.parametrize("function", [add, load_user], ids=repr)
    def test_during_a_call(self, function: Any) -> None:
        """A result that was computed before it was invalidated isn't found afterwards."""
        for invalidate in (lambda: function.invalidate(1), function.invalidate_all):
            during_a_call.append(invalidate)
            function(1)
            calls.clear()
            function(1)
            assert len(calls) == 1
            function.invalidate(1)

    def test_by_tag(self) -> None:
        """Tags with fields take their values from the arguments."""
        load_user(7)
        load_user(8)
        cache.invalidate_tags("user:7")
        load_user(7)
        load_user(8)
        assert calls == [7, 8, 7]
        cache.invalidate_tags("users")
        load_user(8)
        assert calls == [7, 8, 7, 8]

    def test_by_namespace(self) -> None:
        """Clearing the namespace forgets what functions keep there."""
        report(1)
        add(1)
        cache.namespace("reports").clear()
        report(1)
        add(1)
        assert calls == [1, (1, 2), 1]

    @pytest.mark.parametrize("key", [None, "key:{a}"])
    def test_cache_that_is_a_namespace(self, key: str | None) -> None:
        """A namespace is a cache like any other: what functions keep there is forgotten with it."""
        space = cache.namespace("space")
        in_space = cached(space, key)(add.uncached)
        outside = cached(cache, key)(add.uncached)
        for forget, calls_again in (
            (space.clear, 1),
            (in_space.invalidate_all, 1),
            (outside.invalidate_all, 1),
        ):
            in_space(1)
            outside(1)
            calls.clear()
            forget()
            in_space(1)
            outside(1)
            assert len(calls) == calls_again

    def test_by_namespace_with_fields(self) -> None:
        """Each value has a namespace of its own, with its own tags."""
        tenant_page("a", 1)
        tenant_page("b", 1)
        cache.namespace("tenant:a").clear()
        tenant_page("a", 1)
        tenant_page("b", 1)
        assert calls == [("a", 1), ("b", 1), ("a", 1)]
        cache.namespace("tenant:b").invalidate_tags("pages")
        tenant_page("a", 1)
        tenant_page("b", 1)
        assert len(calls) == 4

    def test_refresh(self) -> None:
        """The function is called whatever is there, and what it returns is served from then on."""
        assert load_user(7) == [7, 1]
        assert load_user.refresh(7) == [7, 2]
        assert load_user(7) == [7, 2]
        cache.invalidate_tags("user:7")
        assert load_user(7) == [7, 3]

    def test_refresh_that_fails(self) -> None:
        """The error is raised, and what was there stays."""
        assert slow(1) == 1
        with pytest.raises(ArithmeticError):
            slow.refresh(1)
        assert slow(1) == 1
        assert len(calls) == 2

    def test_uncached(self) -> None:
        """The function itself is at hand, and leaves the cache alone."""
        assert add.uncached(1) == add.__wrapped__(1) == 3
        assert len(calls) == 2
        assert len(cache) == 0


SHARED = """
import sys
from quickcache_core import QuickCache, QuickCacheConfig, cached

cache = QuickCache(QuickCacheConfig(location=f"shared://{sys.argv[1]}"))
calls = 0

@cached(cache)
def by_arguments(a):
    global calls
    calls += 1
    return a

@cached(cache, "number:{a}")
def by_template(a):
    return by_arguments.uncached(a)

@cached(cache, "number:{a}", namespace="tenant:{a}")
def by_namespace(a):
    return by_arguments.uncached(a)

functions = [by_arguments, by_template, by_namespace]
for function in functions:
    function(1)
print(calls)
if sys.argv[2] == "all":
    for function in functions:
        function.invalidate_all()
elif sys.argv[2] == "one":
    print(*[function.invalidate(1) for function in functions])
cache.close()
"""


def test_processes_share_results(tmp_path: Path) -> None:
    """In scope `shared` a call is answered, and forgotten, for all processes."""
    pytest.importorskip("lmdb")
    (tmp_path / "program.py").write_text(SHARED)
    answers = [
        subprocess.run(
            [sys.executable, "-c", "import program", str(tmp_path / "cache"), what],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for what in ("nothing", "one", "nothing", "all", "nothing", "nothing")
    ]
    assert answers == [["3"], ["0", "True", "True", "True"], ["3"], ["0"], ["3"], ["0"]]


class TestCoroutines:
    def test_called_once(self) -> None:
        """Awaiting gives the result; the second time without a call."""

        async def main() -> list[int]:
            return [await aload(1), await aload(a=1), await aload(2)]

        assert asyncio.run(main()) == [3, 3, 4]
        assert calls == [(1, 2), (2, 2)]

    def test_tasks_share_a_call(self) -> None:
        """Tasks that miss together wait for one call."""

        async def main() -> list[int]:
            return list(await asyncio.gather(*[aload(5) for _ in range(20)]))

        assert asyncio.run(main()) == [7] * 20
        assert calls == [(5, 2)]

    def test_known_as_coroutine_function(self) -> None:
        """Frameworks ask; a bound method answers as well."""
        for function in (aload, Shop(1).aprice):
            assert inspect.iscoroutinefunction(function)
            assert asyncio.iscoroutinefunction(function)
        for function in (add, Shop(1).price):
            assert not inspect.iscoroutinefunction(function)

    def test_twins(self) -> None:
        """What takes time for coroutines is awaited; what doesn't may be called as well."""

        async def main() -> None:
            assert await apage(1) == 1
            assert await apage.arefresh(1) == 2
            assert await apage(1, session=object()) == 2
            assert await apage.ainvalidate(1)
            assert not apage.invalidate(1)
            assert await apage(1) == 3
            await apage.ainvalidate_all()
            assert await apage(1) == 4
            cache.invalidate_tags("half:0")
            assert await apage(1) == 5
            with pytest.raises(TypeError, match="arefresh"):
                apage.refresh(1)
            assert await apage.uncached(1) == 6

        asyncio.run(main())

    def test_unless(self) -> None:
        """As for other functions."""

        async def main() -> list[int]:
            return [await aunless_fresh(1), await aunless_fresh(1, fresh=True), await aunless_fresh(1)]

        assert asyncio.run(main()) == [1, 2, 1]

    def test_refresh_of_a_function(self) -> None:
        """A function that is none of coroutines can be refreshed from one, without blocking its loop."""
        assert load_user(7) == [7, 1]
        assert asyncio.run(load_user.arefresh(7)) == [7, 2]
        assert load_user(7) == [7, 2]


class TestMethods:
    def test_per_instance(self) -> None:
        """`self` is an argument: equal instances share results, others don't."""
        assert Shop(1).price("tea") == Shop(1).price("tea") == "tea in 1"
        assert Shop(2).price("tea") == "tea in 2"
        assert calls == [(1, "tea"), (2, "tea")]

    def test_on_an_instance(self) -> None:
        """The methods of the wrapper are bound as the method is."""
        shop = Shop(1)
        shop.price("tea")
        assert shop.price.key("tea") == Shop.price.key(shop, "tea")
        assert shop.price.invalidate("tea") is True
        assert shop.price.invalidate(article="tea") is False
        assert shop.price.refresh("tea") == shop.price.uncached("tea") == shop.price("tea")
        assert len(calls) == 3
        shop.price.invalidate_all()
        shop.price("tea")
        assert len(calls) == 4

    def test_coroutine_method(self) -> None:
        """A method may be a coroutine function."""

        async def main() -> None:
            shop = Shop(1)
            assert await shop.aprice("tea") == await shop.aprice("tea") == "tea in 1"
            assert await shop.aprice.ainvalidate("tea")
            assert await shop.aprice.arefresh("tea") == "tea in 1"
            await shop.aprice.ainvalidate_all()

        asyncio.run(main())
        assert len(calls) == 2

    def test_without_stable_form(self) -> None:
        """Instances that can't be told apart share nothing by accident; `ignore` lets them."""
        with pytest.raises(UnstableArgument, match=r"ignore=\('self',\)"):
            Machine().run(1)
        assert Machine().same_for_all(1) == Machine().same_for_all(1) == 1
        assert calls == [1]

    @pytest.mark.parametrize("name", ["outer_classmethod", "inner_classmethod"])
    def test_classmethod(self, name: str) -> None:
        """In either order; each class has results of its own. To forget one, `cached` is the outer one."""
        for _ in range(2):
            assert getattr(Shop, name)(1) == getattr(Shop(1), name)(1) == "Shop 1"
            assert getattr(BigShop, name)(1) == "BigShop 1"
        assert calls == [1, 1]
        if name == "outer_classmethod" and sys.version_info >= (3, 13):
            with pytest.raises(TypeError, match="@cached above @classmethod"):
                getattr(Shop, name).invalidate(1)
            return
        assert getattr(Shop, name).invalidate(1)
        assert not getattr(Shop(1), name).invalidate(1)
        assert getattr(BigShop, name).invalidate(1)

    def test_classmethod_that_is_not_bound(self) -> None:
        """Where the class isn't known, `invalidate` says how to write it, and forgets nothing else."""
        inner = vars(Shop)["outer_classmethod"].__func__
        for call in (inner.invalidate, inner.key, inner.refresh):
            with pytest.raises(TypeError, match="@cached above @classmethod"):
                call(1)
        assert inner.key(Shop, 1) == inner.key(a=1, cls=Shop)

    @pytest.mark.parametrize("name", ["outer_staticmethod", "inner_staticmethod"])
    def test_staticmethod(self, name: str) -> None:
        """In either order, nothing is bound."""
        assert getattr(Shop, name)(1) == getattr(Shop(2), name)(1) == 1
        assert calls == [1]
        assert getattr(Shop(3), name).invalidate(1)

    def test_hidden_self(self) -> None:
        """Methods compare and hash as methods do, and show their signature without `self`."""
        shop, other = Shop(1), Shop(1)
        assert shop.price == shop.price
        assert hash(shop.price) == hash(shop.price)
        assert shop.price != other.price
        assert list(inspect.signature(shop.price).parameters) == ["article"]
        assert list(inspect.signature(Shop.price).parameters) == ["self", "article"]
        assert shop.price.__name__ == "price"


class TestDecoration:
    def test_looks_like_the_function(self) -> None:
        """Name, documentation, signature, and it is pickled and copied by name."""
        assert (add.__name__, add.__doc__, add.__module__) == ("add", "The sum.", __name__)
        assert inspect.signature(add) == inspect.signature(add.uncached)
        assert pickle.loads(pickle.dumps(add)) is copy.deepcopy(add) is copy.copy(add) is add
        assert pickle.loads(pickle.dumps(Shop(1).price))("tea") == "tea in 1"
        assert repr(add) == f"<cached {__name__}.add>"
        assert repr(Shop(1).price) == f"<bound <cached {__name__}.Shop.price>>"

    def test_attributes_of_the_function(self) -> None:
        """What other decorators left on the function stays on it."""

        def view() -> None:
            pass

        view.csrf_exempt = True  # type: ignore[attr-defined]
        assert cached(cache)(view).csrf_exempt  # type: ignore[attr-defined]

    def test_two_caches(self) -> None:
        """One cache in front of another: each forgets for itself."""
        near, far = QuickCache(), QuickCache()

        @cached(near, "near:{a}")
        @cached(far, "far:{a}")
        def value(a: int) -> int:
            calls.append(a)
            return len(calls)

        assert value(1) == value(1) == 1
        assert value.invalidate(1)
        assert value(1) == 1
        assert far.delete("far:1")
        assert value(1) == 1
        assert (near.get("near:1"), len(far)) == (1, 0)

    def test_as_a_method_of_the_cache(self) -> None:
        """`cache.cached(...)` is `cached(cache, ...)`."""

        @cache.cached("method:{a}", ttl_sec=5, tags=("methods",))
        def value(a: int) -> int:
            calls.append(a)
            return a

        assert value(1) == value(1) == cache.get("method:1") == 1
        assert cache.ttl("method:1") == 5.0
        cache.invalidate_tags("methods")
        value(1)
        assert calls == [1, 1]

    def test_generators(self) -> None:
        """What can be read once can't be cached."""

        def numbers() -> Iterator[int]:
            yield 1

        async def anumbers() -> Any:
            yield 1

        for function in (numbers, anumbers):
            with pytest.raises(TypeError, match="return a list"):
                cached(cache)(function)

    @pytest.mark.parametrize(
        ("settings", "error", "part"),
        [
            ({"ttl_sec": 0}, InvalidTTL, "ttl_sec"),
            ({"stale": 5}, TypeError, "unknown option 'stale'"),
            ({"stale_ttl": "soon"}, InvalidTTL, "stale_ttl"),
            ({"jitter": 5}, ValueError, "jitter"),
            ({"key": "x:{z}"}, ConfigError, "no parameter 'z'"),
            ({"tags": ("x:{z}",)}, ConfigError, "no parameter 'z'"),
            ({"namespace": "x:{z}"}, ConfigError, "no parameter 'z'"),
            ({"ignore": ("z",)}, ConfigError, "no parameter 'z'"),
            ({"version": 1.5}, ConfigError, "version"),
        ],
    )
    def test_mistakes(self, settings: dict[str, Any], error: type[Exception], part: str) -> None:
        """They are found where the function is decorated."""
        with pytest.raises(error, match=part):
            cached(cache, **settings)(add.uncached)

    def test_without_a_cache(self) -> None:
        """The message shows what to give."""
        with pytest.raises(TypeError, match="give a QuickCache"):
            cached("users")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"write @cached\(cache\)"):
            cached(add.uncached)(7)  # type: ignore[arg-type, call-overload]
