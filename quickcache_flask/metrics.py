"""The figures of an app's caches for Prometheus and OpenTelemetry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from flask import Blueprint, Flask, Response, current_app, request

from quickcache_core.metrics.access import check_token, has_token
from quickcache_core.metrics.otel import Instruments, Workers
from quickcache_core.metrics.prometheus import ReportCollector, scraped
from quickcache_core.metrics.report import ReportedCache, StatsReport, stats_report
from quickcache_flask.names import backends_of, location_of

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider


def caches_of(app: Flask) -> Iterator[tuple[str, str, ReportedCache]]:
    """Name, location and engine of each QuickCache of the app, as the commands have them."""
    for name, backend in backends_of(app).items():
        yield name, location_of(backend), backend.engine


def report(app: Flask) -> StatsReport:
    """The figures of all workers."""
    return stats_report(caches_of(app))


class CacheCollector(ReportCollector):
    """For a registry that the app has already: `prometheus_client.REGISTRY.register(CacheCollector(app))`."""

    def __init__(self, app: Flask) -> None:
        super().__init__(lambda: report(app))


def instrument(
    app: Flask, *, workers: Workers = "own", meter_provider: MeterProvider | None = None
) -> Instruments:
    """Have OpenTelemetry's meters export the figures of the app's caches, of those made later as well; see
    `quickcache_core.metrics.otel.instrument`.
    """
    return Instruments(lambda: caches_of(app), workers, meter_provider)


def metrics_blueprint(
    *,
    access: Callable[[], bool] | None = None,
    token: str | None = None,
    name: str = "quickcache_metrics",
    rule: str = "/metrics",
) -> Blueprint:
    """A blueprint with what Prometheus scrapes, at `rule`.

    It is refused to everybody, unless the app is in debug mode, the request has the bearer token, or
    `access()`, called in the request, returns True. Raises `ValueError` for a token of less than 16
    characters, and `TypeError` for an `access` that can't be called.
    """
    if token is not None:
        check_token("token", token)
    if access is not None and not callable(access):
        raise TypeError(f"access={access!r}: give a function without arguments that returns True or False")
    blueprint = Blueprint(name, __name__)

    @blueprint.get(rule)
    def metrics() -> Response:
        if not _may_look(access, token):
            if token is not None:
                refusal = Response("A token is needed.\n", 401, mimetype="text/plain")
                refusal.headers["WWW-Authenticate"] = 'Bearer realm="metrics"'
            else:
                text = "Forbidden. The blueprint's access and token say who may look.\n"
                refusal = Response(text, 403, mimetype="text/plain")
            return _unkept(refusal)
        app = current_app._get_current_object()  # type: ignore[attr-defined]
        body, content_type = scraped(report(app), request.headers.get("Accept", ""))
        return _unkept(Response(body, content_type=content_type))

    return blueprint


def _may_look(access: Callable[[], bool] | None, token: str | None) -> bool:
    if current_app.debug:
        return True
    if token is not None and has_token(request.headers.get("Authorization", ""), token):
        return True
    return access is not None and access() is True


def _unkept(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response
