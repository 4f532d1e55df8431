"""Figures for OpenTelemetry, collected by its real SDK."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from quickcache_core import QuickCache, QuickCacheConfig
from quickcache_core.metrics.otel import instrument
from tests.core.workers import Worker

NAME = "instrumented"


@pytest.fixture(autouse=True)
def _runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKCACHE_RUNTIME_DIR", str(tmp_path / "run"))


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader: InMemoryMetricReader) -> Iterator[MeterProvider]:
    provider = MeterProvider(metric_readers=[reader])
    yield provider
    provider.shutdown()


def collected(reader: InMemoryMetricReader) -> dict[tuple[str, str], Any]:
    data = reader.get_metrics_data()
    return {
        (metric.name, point.attributes["alias"]): point.value
        for resource in (data.resource_metrics if data else [])
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }


def test_counters_and_gauges(reader: InMemoryMetricReader, provider: MeterProvider) -> None:
    """Every figure, under the name that Prometheus has it by; what nobody knows is left out."""
    plain, weighed = QuickCache(), QuickCache(QuickCacheConfig(max_bytes="1MB"))
    instrument({"plain": plain, "weighed": weighed}, meter_provider=provider)
    plain.set("a", 1)
    plain.get("a")
    plain.get("b", None)
    found = collected(reader)
    assert found["quickcache.hits", "plain"] == 1
    assert found["quickcache.misses", "plain"] == 1
    assert found["quickcache.entries", "plain"] == 1
    assert found["quickcache.hits", "weighed"] == 0
    assert ("quickcache.bytes", "plain") not in found
    counters = {
        metric.name
        for metric in reader_data(reader)
        if type(metric.data).__name__ == "Sum" and metric.data.is_monotonic
    }
    assert "quickcache.hits" in counters
    assert "quickcache.entries" not in counters


def reader_data(reader: InMemoryMetricReader) -> list[Any]:
    data = reader.get_metrics_data()
    assert data is not None
    return [metric for scope in data.resource_metrics[0].scope_metrics for metric in scope.metrics]


@pytest.mark.slow
def test_own_figures_or_all(reader: InMemoryMetricReader, provider: MeterProvider) -> None:
    """Each process exports what it has counted itself; one beside them may export the totals."""
    worker = Worker(publish_as=NAME)
    for key in "abc":
        worker.call("set", key, 1)
    worker.call("publish")
    cache = QuickCache(QuickCacheConfig(publish_as=NAME))
    cache.set("a", 1)
    own = instrument({"one": cache}, meter_provider=provider)
    assert collected(reader)["quickcache.sets", "one"] == 1
    own.stop()
    assert collected(reader) == {}
    other_reader = InMemoryMetricReader()
    other = MeterProvider(metric_readers=[other_reader])
    instrument({"all": cache}, workers="all", meter_provider=other)
    found = collected(other_reader)
    assert (found["quickcache.sets", "all"], found["quickcache.workers", "all"]) == (4, 2)
    other.shutdown()
    worker.close()
    cache.stop()


def test_wrong_choice_of_workers() -> None:
    with pytest.raises(ValueError, match="'own' or 'all'"):
        instrument({}, workers="some")  # type: ignore[arg-type]


def test_without_the_library() -> None:
    """An error with what to install; everything else works."""
    code = """
import sys
sys.modules["opentelemetry"] = sys.modules["opentelemetry.metrics"] = None
from quickcache_core import QuickCache
from quickcache_core.metrics.otel import instrument
import quickcache_flask.metrics
try:
    instrument({"a": QuickCache()})
except ImportError as error:
    assert "pip install 'quickcache-web[otel]'" in str(error), error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=os.environ)


def test_without_an_sdk() -> None:
    """The API alone observes nothing, and costs nothing."""
    code = """
from quickcache_core import QuickCache
from quickcache_core.metrics.otel import instrument
import sys
instrument({"a": QuickCache()})
assert "opentelemetry.sdk" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=os.environ)
