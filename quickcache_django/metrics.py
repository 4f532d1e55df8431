"""The figures of all aliases for Prometheus and OpenTelemetry.

`path("", include("quickcache_django.metrics"))` in the URLs makes `/metrics`, which is refused to everybody
unless DEBUG is on or `QUICKCACHE_METRICS` says who may look, see `access`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from django.core.cache import caches
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from quickcache_core.location import shown
from quickcache_core.metrics.otel import Instruments, Workers
from quickcache_core.metrics.prometheus import ReportCollector, scraped
from quickcache_core.metrics.report import ReportedCache, StatsReport, stats_report
from quickcache_django.access import may_look, wants_token
from quickcache_django.backend import QuickCache
from quickcache_django.checks import entries

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider


def aliases() -> Iterator[tuple[str, str, ReportedCache]]:
    """Alias, LOCATION and engine of each entry of `CACHES` that uses the backend."""
    for alias, location, _ in entries():
        yield alias, shown(location), cast(QuickCache, caches[alias]).engine


def report() -> StatsReport:
    """The figures of all workers."""
    return stats_report(aliases())


class CacheCollector(ReportCollector):
    """For a registry that the project has already: `REGISTRY.register(CacheCollector())`."""

    def __init__(self) -> None:
        super().__init__(report)


def instrument(*, workers: Workers = "own", meter_provider: MeterProvider | None = None) -> Instruments:
    """Have OpenTelemetry's meters export the figures of all aliases; see
    `quickcache_core.metrics.otel.instrument`. For `AppConfig.ready`, say: it touches no cache.
    """
    return Instruments(aliases, workers, meter_provider)


@require_safe
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """What Prometheus scrapes."""
    if not may_look(request):
        if wants_token():
            headers = {"WWW-Authenticate": 'Bearer realm="metrics"'}
            return _plain("A token is needed.", status=401, headers=headers)
        return _plain("Forbidden. QUICKCACHE_METRICS in the settings says who may look.", status=403)
    body, content_type = scraped(report(), request.headers.get("Accept", ""))
    return HttpResponse(body, content_type=content_type)


def _plain(text: str, **how: Any) -> HttpResponse:
    return HttpResponse(text + "\n", content_type="text/plain; charset=utf-8", **how)


app_name = "quickcache"
urlpatterns = [path("metrics", metrics, name="metrics")]
