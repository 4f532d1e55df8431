"""What waits for the commit of a transaction, and what becomes of it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections, transaction
from django.test import TestCase
from django.utils.connection import ConnectionDoesNotExist

from quickcache_core.loading.context import LoaderContext
from quickcache_django import QuickCache
from quickcache_django.commit import AfterCommit
from tests.django.conftest import MakeCache


@pytest.fixture
def other(tmp_path: Path) -> Iterator[str]:
    """The alias of a second database."""
    alias = f"other-{tmp_path.name}"
    connections.settings[alias] = {
        **connections.settings["default"],
        "NAME": str(tmp_path / "other.sqlite3"),
    }
    yield alias
    connections[alias].close()
    del connections[alias]
    del connections.settings[alias]


class Undone(Exception):
    pass


class TestTransactions:
    def test_a_commit(self, cache: QuickCache) -> None:
        """Nothing happens before it, all of it after, in the order of the calls."""
        cache.set("old", 1)
        cache.set("tagged", 1, tags=["t"])
        with transaction.atomic():
            later = cache.on_commit()
            later.set("k", 1, timeout=60)
            later.set("k", 2, timeout=60)
            later.set_many({"a": 1, "b": 2})
            later.delete("old")
            later.delete_many(["b"])
            later.touch("a", 500)
            later.invalidate_tags("t")
            later.refresh("r", lambda: "loaded")
            assert cache.get_many(["k", "a", "b", "old", "tagged", "r"]) == {"old": 1, "tagged": 1}
        assert cache.get_many(["k", "a", "b", "old", "tagged", "r"]) == {"k": 2, "a": 1, "r": "loaded"}
        assert (cache.ttl("k"), cache.ttl("a")) == (60, 500)

    def test_the_rest(self, cache: QuickCache) -> None:
        """Patterns, namespaces, all."""
        drafts = cache.namespace("drafts")
        cache.set_many({"user:1": 1, "page": 1})
        drafts.set("k", 1)
        with transaction.atomic():
            cache.on_commit().delete_pattern("user:*")
            cache.on_commit().namespace("drafts").clear()
            assert drafts.get("k") == 1
        assert cache.keys("*") == ["page"]
        assert drafts.get("k") is None
        with transaction.atomic():
            cache.on_commit().clear()
            assert cache.get("page") == 1
        assert cache.get("page") is None

    def test_a_rollback(self, cache: QuickCache) -> None:
        """Nothing happens, then or later."""
        cache.set("k", 1)
        with pytest.raises(Undone), transaction.atomic():
            undone(cache)
        assert cache.get("k") == 1
        with transaction.atomic():
            pass
        assert cache.get("k") == 1

    def test_a_savepoint(self, cache: QuickCache) -> None:
        """What was called within one that is rolled back is dropped; the rest waits for the outermost."""
        cache.set_many({"outer": 1, "inner": 1, "kept": 1})
        with transaction.atomic():
            cache.on_commit().delete("outer")
            with pytest.raises(Undone), transaction.atomic():
                undone(cache, "inner")
            with transaction.atomic():
                cache.on_commit().delete("kept")
            assert cache.get("kept") == 1
        assert cache.get_many(["outer", "inner", "kept"]) == {"inner": 1}

    def test_outside_of_a_transaction(self, cache: QuickCache) -> None:
        """At once; errors are the caller's."""
        cache.on_commit().set("k", 1)
        assert cache.get("k") == 1
        with pytest.raises(TypeError):
            cache.on_commit().set("k", (number for number in ()))

    def test_another_database(self, cache: QuickCache, other: str) -> None:
        """`using` says whose commit it is."""
        with transaction.atomic():
            cache.on_commit(using=other).set("at-once", 1)
            assert cache.get("at-once") == 1
            with transaction.atomic(using=other):
                cache.on_commit(using=other).set("k", 1)
                cache.on_commit().set("default", 1)
                assert cache.get("k") is None
            assert cache.get_many(["k", "default"]) == {"k": 1}
        assert cache.get("default") == 1

    def test_the_value_is_that_of_the_commit(self, cache: QuickCache) -> None:
        """What is changed in between is stored as it is then."""
        value = [1]
        with transaction.atomic():
            cache.on_commit().set("k", value)
            value.append(2)
        assert cache.get("k") == [1, 2]


class TestKeyword:
    """`on_commit` of the methods themselves."""

    def test_a_commit(self, cache: QuickCache) -> None:
        """As the handle: nothing before, all of it after, in the order of the calls."""
        cache.set_many({"old": 1, "old2": 1, "tagged": 1}, tags=["t"])
        with transaction.atomic():
            cache.set("k", 1, 60, tags=["new"], on_commit=True)
            assert cache.set_many({"a": 1, "b": 2}, tags=["new"], on_commit=True) == []
            assert cache.delete("old", on_commit=True) is False
            cache.delete_many(["old2", "b"], on_commit=True)
            assert cache.touch("a", 500, on_commit=True) is False
            cache.invalidate_tags("t", on_commit=True)
            assert sorted(cache.keys("*")) == ["old", "old2", "tagged"]
        assert sorted(cache.keys("*")) == ["a", "k"]
        assert (cache.ttl("k"), cache.ttl("a")) == (60, 500)
        cache.invalidate_tags("new")
        assert cache.keys("*") == []

    def test_a_rollback(self, cache: QuickCache) -> None:
        with transaction.atomic():
            cache.set("outer", 1, on_commit=True)
            with transaction.atomic():
                cache.set("inner", 1, on_commit=True)
                transaction.set_rollback(True)
        assert cache.keys("*") == ["outer"]

    def test_another_database(self, cache: QuickCache, other: str) -> None:
        """It is named in the place of True."""
        with transaction.atomic(), transaction.atomic(using=other):
            cache.set("default", 1, on_commit=True)
            with transaction.atomic(using=other):
                cache.set("other", 1, on_commit=other)
        assert cache.get_many(["default", "other"]) == {"default": 1, "other": 1}
        with transaction.atomic():
            with transaction.atomic(using=other):
                cache.delete("default", on_commit=True)
                cache.delete("other", on_commit=other)
                assert len(cache.keys("*")) == 2
            assert cache.keys("*") == ["default"]

    def test_outside_of_a_transaction(self, cache: QuickCache) -> None:
        """At once; what can't be had then isn't told either."""
        cache.set("k", 1, on_commit=True)
        assert cache.get("k") == 1
        assert cache.delete("k", on_commit=True) is False
        assert cache.get("k") is None

    def test_a_subclass(self, make_cache: MakeCache) -> None:
        """What it does to a value is done once."""
        cache = make_cache(BACKEND=f"{__name__}.Framing")
        with transaction.atomic():
            cache.set("k", "value", on_commit=True)
            cache.on_commit().set("l", "value")
        assert cache.get_many(["k", "l"]) == {"k": "<value>", "l": "<value>"}

    def test_wrong_arguments(self, cache: QuickCache, caplog: pytest.LogCaptureFixture) -> None:
        """Raise at once; what only the commit finds is logged under its name."""
        wrong: Any = cache
        with transaction.atomic(), pytest.raises(TypeError):
            wrong.set_many({"k": 1}, tag=["t"], on_commit=True)
        with transaction.atomic(), pytest.raises(TypeError):
            wrong.add("k", 1, on_commit=True)
        with transaction.atomic(), pytest.raises(ConnectionDoesNotExist):
            cache.set("k", 1, on_commit="nowhere")
        with caplog.at_level(logging.ERROR), transaction.atomic():
            cache.set("k", (number for number in ()), on_commit=True)
        assert "QuickCache.set in on_commit()" in caplog.text

    def test_coroutines(self, cache: QuickCache) -> None:
        """The transaction is that of the thread in which the ORM runs."""

        async def main() -> None:
            await cache.aset_many({"old": 1, "old2": 1, "tagged": 1}, tags=["t"])
            block = transaction.atomic()
            await sync_to_async(block.__enter__)()
            await cache.aset("k", 1, 60, tags=["new"], on_commit=True)
            assert await cache.aset_many({"a": 1, "b": 2}, on_commit=True) == []
            assert await cache.adelete("old", on_commit=True) is False
            await cache.adelete_many(["old2", "b"], on_commit=True)
            assert await cache.atouch("a", 500, on_commit=True) is False
            await cache.ainvalidate_tags("t", on_commit=True)
            assert sorted(await cache.akeys("*")) == ["old", "old2", "tagged"]
            await sync_to_async(block.__exit__)(None, None, None)
            assert sorted(await cache.akeys("*")) == ["a", "k"]

        async_to_sync(main)()


class Framing(QuickCache):
    """Puts something around each value."""

    def set(self, key: Any, value: Any, *args: Any, **kwargs: Any) -> None:
        super().set(key, f"<{value}>", *args, **kwargs)


class TestErrors:
    def test_wrong_arguments(self, cache: QuickCache) -> None:
        """They are the caller's, not the commit's."""
        later: Any = cache.on_commit()
        with transaction.atomic():
            for call in (
                lambda: later.set("k"),
                lambda: later.set_many({"k": 1}, tag=["t"]),
                lambda: later.delete(),
                lambda: later.touch("k", 1, 1, 1),
            ):
                with pytest.raises(TypeError):
                    call()

    def test_one_that_fails_at_the_commit(self, cache: QuickCache, caplog: pytest.LogCaptureFixture) -> None:
        """It is logged under its name; the transaction is committed, and the others are carried out."""
        cache.set("k", 1)
        with caplog.at_level(logging.ERROR), transaction.atomic():
            cache.on_commit().set("bad", (number for number in ()))
            cache.on_commit().delete("k")
        assert cache.get("k") is None
        assert "QuickCache.set in on_commit()" in caplog.text

    def test_what_gives_something_back_is_not_there(self, cache: QuickCache) -> None:
        """There is nobody to give it to."""
        for name in ("get", "add", "incr", "pop", "get_or_set", "ttl", "lock"):
            assert not hasattr(cache.on_commit(), name)


class TestCoroutines:
    def test_outside_of_a_transaction(self, cache: QuickCache) -> None:
        """At once."""

        async def main() -> None:
            later = cache.on_commit()
            await later.aset("k", 1)
            assert await cache.aget("k") == 1
            await later.aset_many({"a": 1, "b": 1})
            await later.atouch("a", 500)
            await later.adelete("k")
            await later.adelete_many(["b"])
            assert sorted(await cache.akeys("*")) == ["a"]
            await later.adelete_pattern("a*")
            await cache.aset("t", 1, tags=["t"])
            await later.ainvalidate_tags("t")
            assert await cache.akeys("*") == []
            await cache.aset("k", 1)
            await later.aclear()
            assert await cache.aget("k") is None

        async_to_sync(main)()

    def test_in_a_transaction(self, cache: QuickCache) -> None:
        """That of the thread in which the ORM runs for coroutines."""

        async def main() -> None:
            block = transaction.atomic()
            await sync_to_async(block.__enter__)()
            await cache.on_commit().aset("k", 1)
            assert await cache.aget("k") is None
            await sync_to_async(block.__exit__)(None, None, None)
            assert await cache.aget("k") == 1

        async_to_sync(main)()

    def test_refresh(self, cache: QuickCache) -> None:
        """It calls a coroutine function in the event loop in which the commit is awaited, and a plain one in
        the thread of the ORM.
        """
        ran_in = []

        async def load(context: LoaderContext) -> str:
            ran_in.append(asyncio.get_running_loop())
            return f"{context.key} loaded"

        def name() -> str:
            return threading.current_thread().name

        async def main() -> None:
            later = cache.on_commit()
            block = transaction.atomic()
            await sync_to_async(block.__enter__)()
            await later.arefresh("k", load, timeout=60, tags=["t"])
            await later.arefresh("plain", name)
            assert await cache.akeys("*") == ran_in == []
            await sync_to_async(block.__exit__)(None, None, None)
            assert ran_in == [asyncio.get_running_loop()]
            assert (await cache.aget("k")).endswith("k loaded")
            assert await cache.aget("plain") == await sync_to_async(name)()
            assert await cache.attl("k") == 60
            await cache.ainvalidate_tags("t")
            assert await cache.akeys("*") == ["plain"]
            await later.arefresh("k", load)
            assert (await cache.aget("k")).endswith("k loaded")

        async_to_sync(main)()

    def test_refresh_by_a_commit_without_an_event_loop(self, cache: QuickCache) -> None:
        """A coroutine function gets one."""

        async def load() -> str:
            return "loaded"

        with transaction.atomic():
            async_to_sync(cache.on_commit().arefresh)("k", load)
            assert cache.get("k") is None
        assert cache.get("k") == "loaded"

    def test_all_of_them(self, cache: QuickCache) -> None:
        """Each operation has its twin; `namespace` isn't one."""
        names = {name for name in dir(AfterCommit) if not name.startswith("_")} - {"namespace"}
        plain = {name for name in names if not inspect.iscoroutinefunction(getattr(AfterCommit, name))}
        assert names - plain == {f"a{name}" for name in plain}
        assert "refresh" in plain

    def test_synchronous_in_an_event_loop(self, cache: QuickCache) -> None:
        """Django forbids to ask for the transaction there, and says so."""

        async def main() -> None:
            with pytest.raises(Exception, match="async context"):
                cache.on_commit().set("k", 1)

        asyncio.run(main())


class TestOfAProject(TestCase):
    """Django's own test case, whose transaction is never committed, can look at what would happen."""

    def test_captured(self) -> None:
        from django.core.cache import cache

        with self.captureOnCommitCallbacks(execute=True) as calls, transaction.atomic():
            cache.on_commit().set("captured", 1)  # type: ignore[attr-defined]
        assert len(calls) == 1
        assert cache.get("captured") == 1


def undone(cache: QuickCache, key: str = "k") -> None:
    cache.on_commit().delete(key)
    raise Undone
