"""Put beside Django's `cache/tests.py`: what has to be told differently for our backend, and the async run.

Nothing here is weaker than what it replaces: where Django's tests look into private dictionaries, these ask
the backend.
"""

from __future__ import annotations

import os
import threading
from typing import Any
from unittest import mock

from asgiref.sync import async_to_sync
from cache import tests as django_tests
from django.core.cache import CacheHandler, cache, caches
from django.core.cache.backends.base import BaseCache
from django.test import override_settings

REPLACED: dict[str, str] = {}
"""Why, by test."""

LEFT_OUT: dict[str, str] = {}
"""Why, by test."""


def leave_out(beginning: str, why: str) -> None:
    for name in [one for one in dir(django_tests.LocMemCacheTests) if one.startswith(beginning)]:
        setattr(django_tests.LocMemCacheTests, name, None)
        LEFT_OUT[f"LocMemCacheTests.{name}"] = why


if "shared" in os.environ["CONFORMANCE_BACKEND"]:
    # Which entry leaves is up to CLOCK in this scope, and there is no other policy.
    leave_out("test_lru_", "scope shared evicts by CLOCK, not by LRU")
if "redis" in os.environ["CONFORMANCE_BACKEND"]:
    leave_out("test_lru_", "in scope redis it is the server that evicts")
    leave_out("test_cull", "in scope redis it is the server that evicts")
    leave_out("test_zero_cull", "in scope redis it is the server that evicts")


def replaces(owner: type, why: str) -> Any:
    def replace(function: Any) -> Any:
        assert function.__name__ in owner.__dict__, f"{owner.__name__} has no {function.__name__} any more"
        REPLACED[f"{owner.__name__}.{function.__name__}"] = why
        function.__qualname__ = f"{owner.__name__}.{function.__name__}"
        setattr(owner, function.__name__, function)
        return function

    return replace


@replaces(
    django_tests.LocMemCacheTests, "it ties the aliases' stores together; ours share one by their LOCATION"
)
def setUp(self: Any) -> None:
    # tearDown clears the store of the class's settings; the tests named test_lru_* have another.
    CacheHandler(django_tests.limit_locmem_entries.options["CACHES"])["default"].clear()


class AsksForTheCacheWhenPickled:
    """Uses the cache from another thread while it is pickled, which takes forever if the lock is held."""

    def __init__(self) -> None:
        self.locked: bool | None = None

    def __getstate__(self) -> dict[str, Any]:
        engine = cache._cache

        def write() -> None:
            engine.set("from another thread", 1)

        other = threading.Thread(target=write, daemon=True)
        other.start()
        other.join(timeout=5)
        self.locked = other.is_alive()
        return {}


@replaces(
    django_tests.LocMemCacheTests,
    "it looks at LocMemCache's lock; here another thread writes during the pickling",
)
def test_locking_on_pickle(self: Any) -> None:
    value = AsksForTheCacheWhenPickled()
    cache.set("set", value)
    self.assertIs(value.locked, False)
    value.locked = None
    self.assertIs(cache.add("add", value), True)
    self.assertIs(value.locked, False)
    value.locked = None
    cache.set_many({"set_many": value})
    self.assertIs(value.locked, False)


@replaces(
    django_tests.LocMemCacheTests,
    "it compares LocMemCache's private deadlines; here the time left is asked for",
)
def test_incr_decr_timeout(self: Any) -> None:
    cache.set("value", 1, timeout=cache.default_timeout * 10)
    before = cache._cache.ttl(cache.make_key("value"))
    self.assertEqual(cache.incr("value"), 2)
    self.assertEqual(cache.decr("value"), 1)
    after = cache._cache.ttl(cache.make_key("value"))
    self.assertGreater(after, cache.default_timeout * 9)
    self.assertLessEqual(after, before)


@replaces(
    django_tests.DefaultNonExpiringCacheKeyTests,
    "it looks into LocMemCache's private deadlines; here the time left is asked for",
)
@override_settings(CACHES=django_tests.DEFAULT_MEMORY_CACHES_SETTINGS)
def test_caches_with_unset_timeout_set_expiring_key(self: Any) -> None:
    cache.set("my-key", "my-value")
    left = cache._cache.ttl(cache.make_key("my-key"))
    self.assertGreater(left, 290)
    self.assertLessEqual(left, 300)


@replaces(
    django_tests.DefaultNonExpiringCacheKeyTests,
    "it looks into LocMemCache's private deadlines; here the time left is asked for",
)
@override_settings(CACHES=django_tests.NEVER_EXPIRING_CACHES_SETTINGS)
def test_caches_set_with_timeout_as_none_set_non_expiring_key(self: Any) -> None:
    cache.set("another-key", "another-value")
    self.assertIsNone(cache._cache.ttl(cache.make_key("another-key")))


DRIVEN = frozenset(
    {
        "add",
        "clear",
        "close",
        "decr",
        "decr_version",
        "delete",
        "delete_many",
        "get",
        "get_many",
        "get_or_set",
    }
    | {"has_key", "incr", "incr_version", "set", "set_many", "touch"}
)


class AsyncDriven:
    """A cache whose every operation is `await`ed on its `a` twin, in an event loop.

    With asgiref's `async_to_sync`, which lets this thread do what leaves the loop for a thread: a queryset is
    evaluated when it is pickled, and the test's database connection belongs to this thread.
    """

    def __init__(self, backend: BaseCache) -> None:
        self.__dict__["_backend"] = backend

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._backend, name)
        if name not in DRIVEN:
            return found
        twin = getattr(self._backend, f"a{name}")

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return async_to_sync(twin)(*args, **kwargs)
            except TypeError as error:
                # Tests of a wrong signature expect the name that they called.
                raise TypeError(str(error).replace(f"a{name}()", f"{name}()")) from error

        call.__func__ = found.__func__
        return call

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._backend, name, value)

    def __contains__(self, key: str) -> bool:
        return bool(async_to_sync(self._backend.ahas_key)(key))


class AsyncDrivenCaches:
    def __getitem__(self, alias: str) -> AsyncDriven:
        return AsyncDriven(caches[alias])


class AsyncDrivenDefault:
    """As Django's `cache`: whatever the settings make the default at the moment."""

    def __getattr__(self, name: str) -> Any:
        return getattr(AsyncDriven(caches["default"]), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(caches["default"], name, value)

    def __contains__(self, key: str) -> bool:
        return key in AsyncDriven(caches["default"])


class AsyncDrivenTests(django_tests.LocMemCacheTests):
    """All of BaseCacheTests again, through the `a` methods: Django's `tests_async.py` has only DummyCache."""

    def setUp(self) -> None:
        super().setUp()
        for name, driven in (("cache", AsyncDrivenDefault()), ("caches", AsyncDrivenCaches())):
            patched = mock.patch.object(django_tests, name, driven)
            patched.start()
            self.addCleanup(patched.stop)
