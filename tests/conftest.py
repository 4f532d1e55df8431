from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

import pytest
from hypothesis import HealthCheck, settings

from tests.again import Again

# Wall time says nothing on a busy machine; what a run found is printed so that it can be replayed.
settings.register_profile(
    "quick", deadline=None, print_blob=True, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=200)
settings.load_profile("thorough" if os.environ.get("CI") else "quick")

# Figures of running workers are the user's; tests must not mix theirs in. Inherited by whatever they start.
RUNTIME_DIR = tempfile.mkdtemp(prefix="quickcache-tests-")
os.environ["QUICKCACHE_RUNTIME_DIR"] = RUNTIME_DIR


def pytest_unconfigure() -> None:
    shutil.rmtree(RUNTIME_DIR, ignore_errors=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--stress-seconds",
        type=float,
        default=5.0,
        help="how long each stress test hammers a cache, in seconds (default: 5)",
    )
    parser.addoption(
        "--coherence-seconds",
        type=float,
        default=10.0,
        help="how long the coherence oracle looks for outdated answers, in seconds (default: 10)",
    )
    parser.addoption("--again", action="store_true", help="run what failed again, alone: see tests/again.py")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--again") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Again())


@pytest.fixture(autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """What a test left is at rest when the next one begins.

    A store may live as long as the process. Then it would count as a worker, in the runtime directory of the
    next test; and a process that runs thousands of tests would have thousands of files open.
    """
    publishers, tables = WeakSet(_publishers()), set(_open_tables())
    yield
    for publisher in _publishers():
        if publisher not in publishers:
            publisher.mute()
    for path in set(_open_tables()) - tables:
        sys.modules[_OPENING].shared_stores.drop(path)


_PUBLISHING = "quickcache_core.metrics.publisher"
_OPENING = "quickcache_core.store.shared.opening"


def _publishers() -> list[Any]:
    publishing = sys.modules.get(_PUBLISHING)
    return [] if publishing is None else list(publishing._publishers)


def _open_tables() -> list[str]:
    opening = sys.modules.get(_OPENING)
    return [] if opening is None else list(opening.shared_stores._tables)


@pytest.fixture(scope="session")
def stress_seconds(request: pytest.FixtureRequest) -> float:
    """How long a stress test should go on, in seconds."""
    seconds: float = request.config.getoption("--stress-seconds")
    return seconds


@pytest.fixture(scope="session")
def coherence_seconds(request: pytest.FixtureRequest) -> float:
    """How long the coherence oracle should go on, in seconds."""
    seconds: float = request.config.getoption("--coherence-seconds")
    return seconds
