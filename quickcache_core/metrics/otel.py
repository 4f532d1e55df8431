"""The figures of caches as OpenTelemetry's observable instruments. Needs `opentelemetry-api` only.

Without an SDK set up by the application nothing is ever asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from quickcache_core.metrics.described import COUNTERS, GAUGES
from quickcache_core.metrics.report import AliasFigures, ReportedCache, process_report, stats_report

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

Workers = Literal["own", "all"]
Caches = Iterable[tuple[str, str, ReportedCache]]
"""As (alias, location, cache)."""


class Instruments:
    """What `instrument` has made. OpenTelemetry knows no way to remove instruments; these can be silenced."""

    def __init__(self, caches: Callable[[], Caches], workers: Workers, meter_provider: Any) -> None:
        try:
            from opentelemetry.metrics import Observation, get_meter
        except ImportError as error:
            raise ImportError("this needs opentelemetry-api: pip install 'quickcache-web[otel]'") from error
        if workers not in ("own", "all"):
            raise ValueError(f"workers={workers!r}: give 'own' or 'all'")
        self._make_report = stats_report if workers == "all" else process_report
        self._caches: Callable[[], Caches] | None = caches
        self._observation = Observation
        meter = get_meter("quickcache", meter_provider=meter_provider)
        for name, text in COUNTERS.items():
            meter.create_observable_counter(
                f"quickcache.{name}", [self._callback(_counter(name))], description=text
            )
        for name, (text, value) in GAUGES.items():
            meter.create_observable_gauge(
                f"quickcache.{name}",
                [self._callback(value)],
                unit="By" if name == "bytes" else "",
                description=text,
            )

    def stop(self) -> None:
        """Observe nothing from now on."""
        self._caches = None

    def _callback(
        self, value: Callable[[AliasFigures], Any]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterable[Observation]:
            caches = self._caches
            if caches is None:
                return
            for alias in self._make_report(caches())["aliases"]:
                number = value(alias)
                if number is not None:
                    yield self._observation(number, {"alias": alias["alias"]})

        return observe


def instrument(
    caches: Mapping[str, ReportedCache],
    *,
    workers: Workers = "own",
    meter_provider: MeterProvider | None = None,
) -> Instruments:
    """Have the figures of caches, by the names that they are to have, exported by OpenTelemetry's meters.

    `workers`: `own` for what this process has counted, since each process has an exporter and who collects
    adds them up; `all` for the totals over all workers, for one exporter beside them, and nowhere else.
    Reading takes microseconds, whenever the SDK collects. Raises `ImportError` with what to install.
    """
    fixed = [(name, "", cache) for name, cache in caches.items()]
    return Instruments(lambda: fixed, workers, meter_provider)


def _counter(name: str) -> Callable[[AliasFigures], int]:
    def count(alias: AliasFigures) -> int:
        number: int = alias["totals"][name]  # type: ignore[literal-required]
        return number

    return count
