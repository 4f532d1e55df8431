"""Django's test runner, which also writes down what ran, and how often each test class used the backend."""

from __future__ import annotations

import json
import os
import unittest
from collections import Counter
from pathlib import Path
from typing import Any

from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.locmem import LocMemCache
from django.test.runner import DiscoverRunner
from django.utils.module_loading import import_string

Backend = import_string(os.environ["CONFORMANCE_BACKEND"])

# What a test does to the cache. Only the outermost call counts: `get_or_set` is one operation.
OPERATIONS = (
    "get",
    "set",
    "add",
    "touch",
    "delete",
    "incr",
    "has_key",
    "get_many",
    "set_many",
    "delete_many",
)

# In `--part cache` these are left out: they test other backends, or nothing that a backend could influence.
OF_OTHER_BACKENDS = (
    "DBCacheTests",
    "DBCacheWithTimeZoneTests",
    "CreateCacheTableForDBCacheTests",
    "FileBasedCacheTests",
    "FileBasedCachePathLibTests",
    "PyLibMCCacheTests",
    "PyMemcacheCacheTests",
    "RedisCacheTests",
    "DummyCacheTests",
    "AsyncDummyCacheTests",
)


class Usage:
    """Calls of the backend's methods, by the class of the test that was running."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.test_class = ""
        self.locmem_objects = 0

    def watch(self) -> None:
        for name in OPERATIONS:
            owner = next(one for one in Backend.__mro__ if name in one.__dict__)
            if owner is not BaseCache:
                setattr(owner, name, self._counted(owner.__dict__[name]))
        if not issubclass(Backend, LocMemCache):
            LocMemCache.__init__ = self._counted_locmem(LocMemCache.__init__)

    def _counted(self, method: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls[self.test_class] += 1
            return method(*args, **kwargs)

        # Django's tests ask whether `cache.get_many` is its own or inherited, so the identity has to survive.
        counted.__name__ = method.__name__
        counted.__wrapped__ = method
        return counted

    def _counted_locmem(self, init: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> None:
            self.locmem_objects += 1
            init(*args, **kwargs)

        return counted


usage = Usage()


class Result(unittest.TextTestResult):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.passed: list[str] = []

    def startTest(self, test: unittest.TestCase) -> None:
        usage.test_class = type(test).__name__
        super().startTest(test)

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        self.passed.append(test.id())


class Runner(DiscoverRunner):
    def get_resultclass(self) -> type[Result]:
        return Result

    def build_suite(self, *args: Any, **kwargs: Any) -> unittest.TestSuite:
        suite = super().build_suite(*args, **kwargs)
        if os.environ["CONFORMANCE_PART"] == "cache":
            suite = type(suite)(test for test in suite if type(test).__name__ not in OF_OTHER_BACKENDS)
        return suite

    def run_suite(self, suite: unittest.TestSuite, **kwargs: Any) -> Result:
        usage.watch()
        result: Result = super().run_suite(suite, **kwargs)
        failed = {_name(test): text for test, text in [*result.failures, *result.errors]}
        found = {
            "ran": result.testsRun,
            "passed": [*result.passed, *(test.id() for test, _ in result.expectedFailures)],
            "failed": failed | {_name(test): "unexpected success" for test in result.unexpectedSuccesses},
            "skipped": {_name(test): reason for test, reason in result.skipped},
            "calls": usage.calls,
            "locmem_objects": usage.locmem_objects,
        }
        if Backend is not LocMemCache:
            found["replaced"] = import_string("cache.test_quickcache.REPLACED")
            found["left_out"] = import_string("cache.test_quickcache.LEFT_OUT")
        Path(os.environ["CONFORMANCE_RESULT"]).write_text(json.dumps(found))
        return result


def _name(test: Any) -> str:
    # A failed subtest or setUpClass is no TestCase, but has an id as well.
    name: str = test.id()
    return name
