"""Reports in Prometheus's text format, made by prometheus_client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from quickcache_core.metrics.report import AliasFigures, StatsReport

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_COUNTERS: Final = {
    "hits": "Gets that found a live value.",
    "misses": "Gets that found none.",
    "sets": "Values stored.",
    "failed_ops": "Operations refused for what was or wasn't under the key.",
    "evictions": "Entries that had to make room.",
    "expirations": "Entries that left because their time was over.",
    "deletions": "Entries deleted or cleared.",
    "store_errors": "Operations that the store could not carry out.",
    "loads": "Calls of loaders.",
    "load_failures": "Calls of loaders that raised an error.",
    "load_waits": "Callers who waited for somebody else's load.",
    "stale_hits": "Values that were served after their TTL.",
}
_GAUGES: Final[dict[str, tuple[str, Callable[[AliasFigures], Any]]]] = {
    "entries": (
        "Entries, expired ones that haven't left yet included.",
        lambda one: one["totals"]["entries"],
    ),
    "max_entries": ("Entries that there may be.", lambda one: one["totals"]["max_entries"]),
    "bytes": ("Estimated size of all entries.", lambda one: one["totals"]["bytes"]),
    "workers": ("Running processes that use the cache.", lambda one: len(one["workers"])),
}


class ReportCollector:
    """For a registry of prometheus_client. `make_report` is called for every scrape, in the scraping thread.

    Counters add up the workers that run and those that have ended, so that a restart doesn't lower them.
    Aliases that share a store show the same figures.
    """

    def __init__(self, make_report: Callable[[], StatsReport]) -> None:
        self._make_report = make_report

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        aliases = self._make_report()["aliases"]
        for name, text in _COUNTERS.items():
            counter = CounterMetricFamily(f"quickcache_{name}", text, labels=["alias"])
            for alias in aliases:
                counter.add_metric([alias["alias"]], alias["totals"][name])  # type: ignore[literal-required]
            yield counter
        for name, (text, value) in _GAUGES.items():
            gauge = GaugeMetricFamily(f"quickcache_{name}", text, labels=["alias"])
            for alias in aliases:
                if value(alias) is not None:
                    gauge.add_metric([alias["alias"]], value(alias))
            yield gauge


def to_prometheus(report: StatsReport) -> str:
    """Raises `ImportError`, with what to install, where prometheus_client is missing."""
    try:
        from prometheus_client import CollectorRegistry, generate_latest
    except ImportError as error:
        raise ImportError(
            "this format needs prometheus_client: pip install 'quickcache-web[prometheus]'"
        ) from error
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ReportCollector(lambda: report))
    return generate_latest(registry).decode()
