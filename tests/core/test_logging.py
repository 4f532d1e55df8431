"""What the logs say, and what they don't."""

from __future__ import annotations

import ast
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import quickcache_core
from quickcache_core import BaseEvictionPolicy, QuickCache, QuickCacheConfig, QuickCacheError
from quickcache_core.testing import ManualClock

PACKAGE = Path(quickcache_core.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
KEY = "user:4711:token"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(autouse=True)
def _everything(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    for record in caplog.get_records("call"):
        assert record.name.startswith("quickcache_core.")
        if record.levelno >= logging.INFO:
            text = logging.Formatter().format(record)
            assert KEY not in text, "no keys at INFO or above: they may be personal data"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_one_logger_per_module(module: Path) -> None:
    """A module that logs does so through one logger, of its own name; nothing is printed."""
    tree = ast.parse(module.read_text())
    uses = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "logging"
    ]
    loggers = [
        ast.unparse(node)
        for node in tree.body
        if isinstance(node, ast.Assign) and "getLogger" in ast.unparse(node.value)
    ]
    assert loggers in ([], ["logger = logging.getLogger(__name__)"])
    assert bool(loggers) == bool(uses)
    allowed = {"getLogger", "DEBUG", "INFO", "WARNING", "ERROR"}
    assert {node.attr for node in uses} <= allowed, "only the module's logger is used, never the root"
    assert sum(node.attr == "getLogger" for node in uses) == len(loggers)
    assert "print" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def test_no_handlers() -> None:
    """Where records go is the application's choice: the package adds no handler and sets no level."""
    for name, logger in list(logging.Logger.manager.loggerDict.items()):
        if name.partition(".")[0] == "quickcache_core" and isinstance(logger, logging.Logger):
            assert logger.handlers == []
            assert logger.level == logging.NOTSET
            assert logger.propagate


@pytest.mark.parametrize("policy", ["s3fifo", "lru", "lfu", "lfuda", "fifo", "sieve"])
def test_ordinary_work(
    caplog: pytest.LogCaptureFixture, clock: ManualClock, tmp_path: Path, policy: str
) -> None:
    """Hits, misses, writes, evictions, expiry, files: nothing of it is worth a line, at any level."""
    cache = QuickCache(
        QuickCacheConfig(max_size=10, eviction_policy=policy, clock=clock, storage_dir=tmp_path)
    )
    for number in range(100):
        cache.set(f"{KEY}{number}", number, ttl_sec=1 + number % 5)
        cache.get(f"{KEY}{number}")
        cache.get("x", None)
        clock.advance(0.1)
    cache.delete_many(list(cache))
    cache.cleanup()
    cache.save_to_disk()
    cache.load_from_disk()
    cache.clear()
    cache.resize(5)
    cache.stop()
    assert caplog.records == []


def test_background_sweep(caplog: pytest.LogCaptureFixture) -> None:
    """The thread sweeps in silence."""
    with QuickCache(QuickCacheConfig(cleanup_interval=0.01)) as cache:
        cache.set(KEY, 1, ttl_sec=0.01)
        end = time.monotonic() + 10
        while len(cache) and time.monotonic() < end:
            time.sleep(0.01)
        assert len(cache) == 0
    assert caplog.records == []


def test_errors_that_are_raised(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """What is raised isn't logged as well: that is for whoever catches it."""
    cache = QuickCache(QuickCacheConfig(isolation="copy"))
    operations = (
        lambda: cache.get(KEY),
        lambda: cache.set(KEY, {1}),
        lambda: cache.delete(KEY),
        lambda: cache.load_from_disk(tmp_path / "missing"),
    )
    for operation in operations:
        with pytest.raises(QuickCacheError):
            operation()
    assert caplog.records == []


def test_listener_that_raises(caplog: pytest.LogCaptureFixture, clock: ManualClock) -> None:
    """One line that names listener and error; what might show the key is for DEBUG."""

    def bad(event: Any) -> None:
        raise KeyError(event.key)

    cache = QuickCache(QuickCacheConfig(clock=clock))
    cache.subscribe(bad)
    cache.set(KEY, 1)
    cache.set(KEY, 2)
    cache.get(KEY)
    (record,) = (record for record in caplog.records if record.levelno >= logging.INFO)
    assert record.levelno == logging.ERROR
    assert "bad" in record.getMessage()
    assert "KeyError" in record.getMessage()
    traces = [record for record in caplog.records if record.levelno == logging.DEBUG]
    assert len(traces) == 4
    assert all(record.exc_info and isinstance(record.exc_info[1], KeyError) for record in traces)


class Forgetful(BaseEvictionPolicy):
    """Its books are wrong: it names a key that has left."""

    def select_eviction_key(self, cache: Any) -> str:
        return KEY


class Broken(BaseEvictionPolicy):
    """Every hook fails, with the key in its error."""

    def on_add(self, cache: Any, key: str) -> None:
        raise KeyError(KEY)

    on_update = on_access = on_delete = on_add

    def select_eviction_key(self, cache: Any) -> str:
        raise KeyError(KEY)


@pytest.mark.parametrize("policy", [Forgetful, Broken])
def test_policy_that_fails(
    caplog: pytest.LogCaptureFixture, clock: ManualClock, policy: type[BaseEvictionPolicy]
) -> None:
    """One line that names the policy, not one per eviction, and without the key; the cache goes on."""
    cache = QuickCache(QuickCacheConfig(max_size=3, eviction_policy=policy, clock=clock))
    for number in range(50):
        cache.set(str(number), number, ttl_sec=100)
        assert cache.get(str(number)) == number
        assert len(cache) <= 3
    assert sorted(cache) == ["47", "48", "49"]
    assert cache.delete_many(list(cache)) == 3
    assert cache.metrics().evictions == 47
    (record,) = (record for record in caplog.records if record.levelno >= logging.INFO)
    assert policy.__name__ in record.getMessage()
    assert record.levelno == logging.ERROR


def test_listener_that_fails_in_many_threads(caplog: pytest.LogCaptureFixture, clock: ManualClock) -> None:
    """No flood from many threads either."""

    def bad(event: Any) -> None:
        raise RuntimeError("mine")

    caplog.set_level(logging.INFO)
    cache = QuickCache(QuickCacheConfig(clock=clock))
    cache.subscribe(bad)
    threads = [threading.Thread(target=lambda: [cache.set("k", n) for n in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Two threads may fail for the first time at once.
    assert 1 <= len(caplog.records) <= 4
