"""Reports in Prometheus's text format, made by prometheus_client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from quickcache_core.metrics.described import COUNTERS, GAUGES
from quickcache_core.metrics.report import AliasFigures, StatsReport

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric


class ReportCollector:
    """For a registry of prometheus_client. `make_report` is called for every scrape, in the scraping thread.

    Counters add up the workers that run and those that have ended, so that a restart doesn't lower them:
    whichever worker is asked gives the figures of all, and there is no need for a multiprocess directory.
    Aliases that share a store show the same figures.
    """

    def __init__(self, make_report: Callable[[], StatsReport]) -> None:
        self._make_report = make_report

    def collect(self) -> Iterator[Metric]:
        return _families(self._make_report()["aliases"])

    def describe(self) -> Iterator[Metric]:
        """So that registering asks for no figures."""
        return _families([])


def _families(aliases: list[AliasFigures]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    for name, text in COUNTERS.items():
        counter = CounterMetricFamily(f"quickcache_{name}", text, labels=["alias"])
        for alias in aliases:
            counter.add_metric([alias["alias"]], alias["totals"][name])  # type: ignore[literal-required]
        yield counter
    for name, (text, value) in GAUGES.items():
        gauge = GaugeMetricFamily(f"quickcache_{name}", text, labels=["alias"])
        for alias in aliases:
            if value(alias) is not None:
                gauge.add_metric([alias["alias"]], value(alias))
        yield gauge


def to_prometheus(report: StatsReport) -> str:
    """Raises `ImportError`, with what to install, where prometheus_client is missing."""
    registry = _registry(report)
    from prometheus_client import generate_latest

    return generate_latest(registry).decode()


def scraped(report: StatsReport, accept: str) -> tuple[bytes, str]:
    """The answer to a scraper in the format that its Accept header asks for: the body, and its content type.

    Raises `ImportError` as `to_prometheus`.
    """
    registry = _registry(report)
    from prometheus_client.exposition import choose_encoder

    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _registry(report: StatsReport) -> CollectorRegistry:
    try:
        from prometheus_client import CollectorRegistry
    except ImportError as error:
        raise ImportError(
            "this format needs prometheus_client: pip install 'quickcache-web[prometheus]'"
        ) from error
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ReportCollector(lambda: report))
    return registry
