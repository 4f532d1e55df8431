"""pytest plugin: Flask-Caching's own tests, with QuickCache wherever they mean SimpleCache.

Loaded by `flask_caching_suite.py`; their files stay as they are. What it changes:

* `CACHE_TYPE` of `SimpleCache` (and of cachelib's, in tests that are not about the class itself) becomes
  `quickcache_flask.QuickCache`, so that each test goes through Flask-Caching's own import and `factory`.
* `flask_caching.backends.SimpleCache` is our class, for tests that build it, subclass it or check with
  `isinstance`.
* Time comes from `cachelib.simple.time`, the name that their `clock` fixture replaces. Scopes that
  processes share go by the machine's clock: there the fixture sleeps, and tests that would sleep for minutes
  are left out.
* In these scopes apps have a secret key, which pickles are signed with; in scope `shared` each backend gets a
  directory of its own, in scope `redis` a prefix of its own on one server.

A test that passes without having built our backend, and is not among `WITHOUT_A_BACKEND`, is a problem: a
suite that silently fell back to SimpleCache must not count.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cachelib.simple
import flask_caching
import flask_caching.backends
import flask_caching.backends.simplecache
import pytest

SCOPE = os.environ["FLASK_CACHING_SCOPE"]
PART = os.environ["FLASK_CACHING_PART"]
OURS = "quickcache_flask.QuickCache"
# The last is what test_init.py makes of the name of our class.
THEIRS = {"SimpleCache", "cachelib.SimpleCache", "flask_caching.backends.QuickCache"}
OPERATIONS = (
    "add",
    "clear",
    "dec",
    "delete",
    "delete_many",
    "get",
    "get_dict",
    "get_many",
    "has",
    "inc",
    "set",
    "set_many",
)

SECRET = "a secret of these tests"
ANOTHER_BACKEND = "another backend"
PRIVATE = "reads SimpleCache's private attributes; flask_caching_own.py has the same rule for ours"
# Pattern of the node id -> why the test says nothing about our backend.
LEFT_OUT = {
    r"test_backend_cache\.py::Test(FileSystem|Redis|Memcached|Null)Cache": ANOTHER_BACKEND,
    r"test_init\.py::test_init_nullcache\[(?!(Simple|Quick)Cache\])": ANOTHER_BACKEND,
    r"test_basic_app\.py::test_init_app_multi_apps": ANOTHER_BACKEND,
    r"test_basic_app\.py::test_app_redis_": ANOTHER_BACKEND,
    r"test_cache\.py::test_cache_unlink$": ANOTHER_BACKEND,
    r"test_cachelib\.py::test_cachelib_class_as_cache_type": ANOTHER_BACKEND,
    r"test_cachelib\.py::test_cachelib_backend_gets_cache_args": ANOTHER_BACKEND,
    r"test_hash_method\.py::test_file_hash_method_is_independent": ANOTHER_BACKEND,
    r"test_serializer\.py::test_backend_without_serializer_warns": ANOTHER_BACKEND,
    r"test_serializer\.py::test_serializer_is_rejected_before_the_backend_is_built": ANOTHER_BACKEND,
    r"test_backend_cache\.py::TestSimpleCache::test_purge": PRIVATE,
    r"test_cachelib\.py::test_cachelib_backend_gets_cache_options": PRIVATE,
    r"test_serializer\.py::test_values_are_stored_in_the_configured_format": PRIVATE,
}
SLEEPS = "the test would sleep"
SLEEPS_LONG = re.compile(r"test_memoize\.py::test_memoize_(entry_written_late|version_key|delete_resets)")
"""For minutes."""
# Tests of Flask-Caching's own checks, which end before a backend is made, whatever CACHE_TYPE says.
WITHOUT_A_BACKEND = re.compile(
    r"test_the_suite_means_our_class"
    r"|test_hash_method\.py::test_non_callable_hash_method_raises"
    r"|test_init\.py::test_cached_response_"
    r"|test_serializer\.py::test_(non_cachelib_serializer|serializer_class_needing_arguments|string_serializer)"
)


class SuiteClock:
    """The time that their `clock` fixture controls; looked up at each call, as the fixture comes after the
    cache."""

    def monotonic(self) -> float:
        return cachelib.simple.time()

    wall = staticmethod(time.time)


class Substitution:
    """QuickCache in SimpleCache's place, and the count of what the tests did with it."""

    def __init__(self) -> None:
        self.built = 0
        self.operations = 0
        self.unserved: set[str] = set()
        self.left_out: Counter[str] = Counter()

    def apply(self) -> None:
        import quickcache_flask

        ours: Any = quickcache_flask.QuickCache
        ours.__init__ = self._counting_init(ours.__init__)
        for name in OPERATIONS:
            setattr(ours, name, self._counting(getattr(ours, name)))
        cache: Any = flask_caching.Cache
        cache._set_cache = self._with_our_type(cache._set_cache, ours)
        for module in (flask_caching.backends, flask_caching.backends.simplecache):
            module.SimpleCache = ours  # type: ignore[attr-defined]

    def _counting_init(self, init: Callable[..., None]) -> Callable[..., None]:
        def counted(backend: Any, *args: Any, **kwargs: Any) -> None:
            self.built += 1
            init(backend, *args, **{**self._place(), **kwargs})

        return counted

    def _place(self) -> dict[str, Any]:
        where = os.environ["FLASK_CACHING_LOCATION"]
        if SCOPE == "memory":
            return {"clock": SuiteClock()}
        if SCOPE == "shared":
            return {"secret": SECRET, "location": f"{where}/{self.built}", "max_bytes": "16MB"}
        return {"secret": SECRET, "location": where, "redis_prefix": secrets.token_hex(8)}

    def _counting(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.operations += 1
            return operation(*args, **kwargs)

        return counted

    def _with_our_type(self, set_cache: Callable[..., None], ours: type) -> Callable[..., None]:
        def substituted(cache: Any, app: Any, config: dict[str, Any]) -> None:
            meant = config["CACHE_TYPE"] in THEIRS
            if meant and SCOPE != "memory" and app.secret_key is None:
                app.secret_key = SECRET
            set_cache(cache, app, {**config, "CACHE_TYPE": OURS} if meant else config)
            assert not meant or type(app.extensions["cache"][cache]) is ours

        return substituted


SUBSTITUTION = Substitution()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--baseline", action="store_true", help="leave SimpleCache in place, for comparison")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--baseline"):
        SUBSTITUTION.apply()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    dropped = []
    for item in items:
        reason = next((why for pattern, why in LEFT_OUT.items() if re.search(pattern, item.nodeid)), None)
        if reason is None and SCOPE != "memory" and _sleeps_too_long(item):
            reason = SLEEPS
        if reason is not None:
            SUBSTITUTION.left_out[reason] += 1
            dropped.append(item)
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if item not in dropped]


def _sleeps_too_long(item: pytest.Item) -> bool:
    turns_the_clock = "clock" in getattr(item, "fixturenames", ())
    return bool(SLEEPS_LONG.search(item.nodeid)) or (turns_the_clock and PART == "cache")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    before = SUBSTITUTION.built
    outcome = yield
    if SUBSTITUTION.built == before and not item.config.getoption("--baseline"):
        SUBSTITUTION.unserved.add(item.nodeid)
    return outcome


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Function) -> None:
    if SCOPE == "memory" or item.config.getoption("--baseline"):
        return
    if "clock" in item.funcargs:
        item.funcargs["clock"].advance = time.sleep
    if "sleep" in item.funcargs:
        item.funcargs["sleep"] = time.sleep


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    stats = reporter.stats
    passed = {report.nodeid for report in stats.get("passed", [])}
    unserved = {test for test in passed & SUBSTITUTION.unserved if not WITHOUT_A_BACKEND.search(test)}
    found = {
        "passed": len(passed),
        "failed": [report.nodeid for kind in ("failed", "error") for report in stats.get(kind, [])],
        "skipped": {
            report.nodeid: report.longrepr[2].removeprefix("Skipped: ") for report in stats.get("skipped", [])
        },
        "left_out": {why: f"{count} tests" for why, count in SUBSTITUTION.left_out.items()},
        "operations": SUBSTITUTION.operations,
        "problems": [f"{test} passed without our backend" for test in sorted(unserved)],
    }
    Path(os.environ["FLASK_CACHING_FOUND"]).write_text(json.dumps(found))
