"""`quickcache_django.decorators.cached`: functions on top of an alias of `CACHES`."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
import threading
from typing import Any

import pytest
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.http import QueryDict
from django.test import override_settings
from django.utils import translation
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy

from quickcache_core import ConfigError, InvalidTTL, UnstableArgument
from quickcache_core.fingerprint import stable_form
from quickcache_core.testing import ManualClock
from quickcache_django import QuickCache
from quickcache_django.decorators import cached

BACKEND = "quickcache_django.QuickCache"
calls: list[Any] = []


class Book(models.Model):
    class Meta:
        app_label = "sessions"


class Magazine(models.Model):
    class Meta:
        app_label = "sessions"


class Comic(Book):
    class Meta:
        app_label = "sessions"
        proxy = True


@pytest.fixture(autouse=True)
def cache(default_cache: QuickCache) -> QuickCache:
    calls.clear()
    return default_cache


@cached()
def title(book: Any, language: str = "en") -> str:
    calls.append(book)
    return f"{book.pk} {language}"


@cached("book:{book.pk}", timeout=60, tags=("book:{book.pk}",))
def page(book: Any) -> int:
    calls.append(book.pk)
    return len(calls)


@cached("answer:{number}")
async def answer(number: int) -> int:
    calls.append(number)
    return len(calls)


@cached(alias="other", namespace="reports")
def report(day: int) -> int:
    calls.append(day)
    return len(calls)


@cached(timeout=0)
def never(number: int) -> int:
    calls.append(number)
    return len(calls)


@cached(timeout=0)
async def anever(number: int) -> int:
    calls.append(number)
    return len(calls)


@cached("lock:{number}")
def lock(number: int) -> Any:
    return threading.Lock()


@cached("lock:{number}")
async def alock(number: int) -> Any:
    return threading.Lock()


def test_model_instances_count_by_primary_key() -> None:
    """Two objects of one row are one argument, rows and models of others are not."""
    assert title(Book(pk=1)) == title(Book(pk=1)) == "1 en"
    assert len(calls) == 1
    title(Book(pk=2))
    title(Magazine(pk=1))
    title(Comic(pk=1))
    title(Book(pk=1), "de")
    assert len(calls) == 5
    assert title.invalidate(book=Book(pk=1))


def test_unsaved_instance() -> None:
    """Without a primary key one instance can't be told from another."""
    with pytest.raises(UnstableArgument, match=r"'book'.*Book.*save it before"):
        title(Book())


@pytest.mark.parametrize("query", [Book._default_manager.all(), Book._default_manager])
def test_query(query: Any) -> None:
    """A queryset isn't its result: the error says what to pass instead."""
    with pytest.raises(UnstableArgument, match="list of primary keys"):
        title(query)


def test_lazy_object() -> None:
    """What stands for an instance, as `request.user` does, counts as the instance."""
    assert title(SimpleLazyObject(lambda: Book(pk=1))) == "1 en"
    assert title(Book(pk=1)) == "1 en"
    assert len(calls) == 1


def test_lazy_text() -> None:
    """A text that is to be translated counts in the language of the call."""
    text = gettext_lazy("Monday")
    forms = set()
    for language in ("en", "de", "en"):
        with translation.override(language):
            forms.add(stable_form(text))
    assert len(forms) == 2


def test_other_types_of_django() -> None:
    """Safe strings differ from plain ones, query parameters count with all their values."""
    assert stable_form(mark_safe("a")) == stable_form(mark_safe("a")) != stable_form("a")
    forms = {stable_form(QueryDict(query)) for query in ("a=1", "a=1&a=2", "a=2&a=1", "b=1", "")}
    assert len(forms) == 5
    assert stable_form(QueryDict("a=1&b=2")) == stable_form(QueryDict("b=2&a=1"))


def test_anonymous_user() -> None:
    """Visitors who aren't logged in count as one, and as no user; whoever is imported first."""
    program = """
import sys
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["quickcache_django", "django.contrib.contenttypes", "django.contrib.auth"], USE_TZ=True
)
import django
if sys.argv[1] == "decorators first":
    import quickcache_django.decorators
django.setup()
import quickcache_django.decorators
from django.contrib.auth.models import AnonymousUser, User
from django.utils.functional import SimpleLazyObject
from quickcache_core.fingerprint import stable_form
assert stable_form(SimpleLazyObject(AnonymousUser)) == stable_form(AnonymousUser()) != stable_form(User(pk=1))
"""
    for order in ("decorators first", "apps first"):
        # In a process of its own: what an app registers when it is loaded stays.
        subprocess.run(
            [sys.executable, "-W", "error", "-c", program, order],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
        )


def test_key_of_the_alias(cache: QuickCache) -> None:
    """A template's key is one of Django's cache: other code finds the result there, and may remove it."""
    assert page(Book(pk=7)) == 1
    assert cache.get("book:7") == 1
    cache.delete("book:7")
    assert page(Book(pk=7)) == 2
    assert page.invalidate(Book(pk=7))
    assert cache.get("book:7") is None


def test_settings_of_the_call() -> None:
    """The alias is looked up for each call: prefix, version and location are those in force."""
    book = Book(pk=1)
    entries = [
        {"KEY_PREFIX": "one"},
        {"KEY_PREFIX": "two"},
        {"KEY_PREFIX": "one", "VERSION": 2},
        {"LOCATION": "elsewhere"},
    ]
    for expected in (range(1, 5), range(1, 5)):
        seen = []
        for entry in entries:
            with override_settings(CACHES={"default": {"BACKEND": BACKEND, **entry}}):
                seen.append(page(book))
        assert seen == list(expected)
    with override_settings(CACHES={"default": {"BACKEND": BACKEND, "LOCATION": "elsewhere"}}):
        caches["default"].clear()


def test_timeouts(location: str) -> None:
    """Without a timeout it is the alias's; 0 keeps nothing."""
    clock = ManualClock()
    entry = {"BACKEND": BACKEND, "LOCATION": location, "TIMEOUT": 100, "OPTIONS": {"CLOCK": clock}}
    book = Book(pk=1)
    with override_settings(CACHES={"default": entry}):
        page(book)
        title(book)
        clock.advance(61)
        page(book)
        title(book)
        assert calls == [1, book, 1]
        clock.advance(40)
        title(book)
        assert len(calls) == 4
        assert never(1) != never(1)
        assert asyncio.run(anever(1)) != asyncio.run(anever(1))
    with override_settings(CACHES={"default": {**entry, "TIMEOUT": 0, "LOCATION": f"{location} 0"}}):
        assert title(book) == title(book) == "1 en"
        assert len(caches["default"].engine) == 0


def test_invalidation() -> None:
    """One call, all calls, a tag, a refresh."""
    first, second = Book(pk=1), Book(pk=2)
    page(first)
    page(second)
    caches["default"].invalidate_tags("book:1")
    page(first)
    page(second)
    assert calls == [1, 2, 1]
    page.invalidate_all()
    page(first)
    page(second)
    assert calls == [1, 2, 1, 1, 2]
    assert page.refresh(first) == page(first) == 6


def test_tags_of_aliases_with_prefixes(location: str) -> None:
    """Of aliases that share a LOCATION each KEY_PREFIX has tags of its own, the one of the function too."""
    entries = {
        prefix: {"BACKEND": BACKEND, "LOCATION": location, "KEY_PREFIX": prefix} for prefix in ("one", "two")
    }
    pages = {
        alias: cached(f"{alias}:{{number}}", alias=alias, tags=("numbers",))(never.uncached)
        for alias in entries
    }
    with override_settings(CACHES={"default": {"BACKEND": BACKEND}, **entries}):
        first = [pages[alias](1) for alias in entries]
        caches["one"].invalidate_tags("numbers")
        second = [pages[alias](1) for alias in entries]
        assert [one == other for one, other in zip(first, second, strict=True)] == [False, True]
        pages["two"].invalidate_all()
        assert pages["two"](1) != second[1]


def test_other_alias(location: str) -> None:
    """Alias and namespace are those of the decorator."""
    other = {"BACKEND": BACKEND, "LOCATION": location}
    with override_settings(CACHES={"default": {"BACKEND": BACKEND}, "other": other}):
        assert report(1) == report(1) == 1
        assert len(caches["default"].engine) == 0
        report.invalidate_all()
        assert report(1) == 2
        assert report.invalidate(1)
        assert report(1) == 3
        caches["other"].namespace("reports").clear()
        assert report(1) == 4


def test_coroutine_function() -> None:
    """Awaited once for the same arguments."""

    async def main() -> None:
        assert await answer(1) == await answer(1) == 1
        assert await answer.arefresh(1) == 2
        assert await answer.ainvalidate(1)
        assert await answer(1) == 3

    asyncio.run(main())


def test_results_are_the_callers_own() -> None:
    """As everywhere in Django, changing what one got changes nothing in the cache."""

    @cached("list:{number}")
    def numbers(number: int) -> list[int]:
        return [number]

    numbers(1).append(2)
    assert numbers(1) == [1]


def test_result_that_cannot_be_pickled() -> None:
    """The error is the one that Django's caches raise, from every way in."""

    async def main() -> None:
        for call in (alock, alock.arefresh):
            with pytest.raises((TypeError, pickle.PicklingError)):
                await call(1)

    asyncio.run(main())
    for call in (lock, lock.refresh):
        with pytest.raises((TypeError, pickle.PicklingError)):
            call(1)


def test_another_backend() -> None:
    """The error names the alias, and the way to do without a cache."""
    other = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    with (
        override_settings(CACHES=other),
        pytest.raises(ImproperlyConfigured, match=r"CACHES\['default'\] is a DummyCache.*ENABLED"),
    ):
        page(Book(pk=1))
    off = {"default": {"BACKEND": BACKEND, "OPTIONS": {"ENABLED": False}}}
    with override_settings(CACHES=off):
        assert page(Book(pk=1)) != page(Book(pk=1))


def test_mistakes() -> None:
    """They are found where the function is decorated; no setting is read there."""
    with override_settings(CACHES={}):
        for settings, error in (
            ({"key": "x:{z}"}, ConfigError),
            ({"stale_ttl": "soon"}, InvalidTTL),
            ({"ttl_sec": 5}, TypeError),
            ({"timeout": "soon"}, TypeError),
        ):
            with pytest.raises(error):
                cached(**settings)(page.uncached)  # type: ignore[arg-type]
