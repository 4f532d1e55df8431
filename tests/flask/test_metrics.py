"""`/metrics` in Flask, and OpenTelemetry."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from quickcache_flask.metrics import CacheCollector, instrument, metrics_blueprint
from tests.gunicorn_server import PATIENCE, gunicorn

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a token that nobody guesses"


@pytest.fixture(autouse=True)
def _nobody_elses_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKCACHE_RUNTIME_DIR", str(tmp_path / "run"))


def samples(text: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels["alias"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_not_registered(app: Flask, backend: Any) -> None:
    """Nothing is there of itself."""
    assert app.test_client().get("/metrics").status_code == 404


def test_nobody_is_let_in(app: Flask, backend: Any) -> None:
    """Registered, and nothing else: refused, and kept nowhere."""
    app.register_blueprint(metrics_blueprint())
    response = app.test_client().get("/metrics")
    assert (response.status_code, response.headers["Cache-Control"]) == (403, "no-store")
    assert "hits" not in response.text


def test_debug(app: Flask, backend: Any) -> None:
    """Whoever develops may look."""
    app.register_blueprint(metrics_blueprint())
    app.debug = True
    assert app.test_client().get("/metrics").status_code == 200


def test_access(app: Flask, backend: Any) -> None:
    """The function is asked within the request; True and nothing else lets in."""
    answers: list[Any] = [True, False, None, "yes"]
    app.register_blueprint(
        metrics_blueprint(access=lambda: answers[int(request.args["which"])]), url_prefix="/ops"
    )
    client = app.test_client()
    statuses = [client.get(f"/ops/metrics?which={which}").status_code for which in range(4)]
    assert statuses == [200, 403, 403, 403]


def test_token(app: Flask, backend: Any) -> None:
    """Exactly that one."""
    app.register_blueprint(metrics_blueprint(token=TOKEN, rule="/figures"))
    client = app.test_client()
    for header, status in ((f"Bearer {TOKEN}", 200), (f"Bearer {TOKEN}x", 401), ("", 401), ("Bearer ", 401)):
        response = client.get("/figures", headers={"Authorization": header})
        assert response.status_code == status
        assert ("WWW-Authenticate" in response.headers) == (status == 401)
    assert client.post("/figures").status_code == 405


@pytest.mark.parametrize("token", ["", "short", 5, b"bytes of some more length"])
def test_token_that_is_none(token: Any) -> None:
    with pytest.raises(ValueError, match="at least 16"):
        metrics_blueprint(token=token)


def test_access_that_is_no_function() -> None:
    with pytest.raises(TypeError, match="access"):
        metrics_blueprint(access=True)  # type: ignore[arg-type]


def test_figures(app: Flask, make_backend: Any) -> None:
    """Those of each cache of the app, under the names that the commands have for them."""
    first, second = make_backend(), make_backend()
    app.register_blueprint(metrics_blueprint(token=TOKEN))
    first.set("a", 1)
    first.get("a")
    second.get("a")
    response = app.test_client().get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    found = samples(response.text)
    assert found["quickcache_hits_total", "cache1"] == 1
    assert found["quickcache_misses_total", "cache2"] == 1
    accept = {"Authorization": f"Bearer {TOKEN}", "Accept": "application/openmetrics-text; version=1.0.0"}
    assert app.test_client().get("/metrics", headers=accept).text.endswith("# EOF\n")


def test_in_a_registry_of_the_app(app: Flask, make_backend: Any) -> None:
    """Also of caches that are made later."""
    registry = CollectorRegistry(auto_describe=True)
    registry.register(CacheCollector(app))
    make_backend().set("a", 1)
    assert samples(generate_latest(registry).decode())["quickcache_sets_total", "cache1"] == 1


def test_opentelemetry(app: Flask, make_backend: Any) -> None:
    """The SDK collects the figures of each cache, also of one that is made later."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    instrument(app, meter_provider=provider)
    backend = make_backend()
    backend.set("a", 1)
    data = reader.get_metrics_data()
    assert data is not None
    found = {
        (metric.name, point.attributes["alias"]): point.value
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
        for point in metric.data.data_points
    }
    assert found["quickcache.sets", "cache1"] == 1
    provider.shutdown()


APP = """
import os
from flask import Flask
from flask_caching import Cache
from quickcache_flask.metrics import metrics_blueprint

app = Flask(__name__)
app.register_blueprint(metrics_blueprint(access=lambda: True))
cache = Cache(app, config={"CACHE_TYPE": "quickcache_flask.QuickCache"})


@app.get("/pid")
def pid():
    return str(os.getpid())


@app.get("/visit/<key>")
def visit(key):
    cache.set(key, 1)
    return str(os.getpid())
"""


@pytest.mark.slow
def test_any_worker_shows_all(tmp_path: Path) -> None:
    """Whichever worker is scraped, the figures are those of all."""
    (tmp_path / "visits.py").write_text(APP)
    environment = {"QUICKCACHE_RUNTIME_DIR": str(tmp_path / "run"), "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    with (
        tempfile.TemporaryDirectory() as short,
        gunicorn(
            "visits:app",
            *("--workers", "2"),
            folder=tmp_path,
            socket_path=Path(short) / "socket",
            environment=environment,
        ) as server,
    ):
        pids, requests = set(), 0
        while len(pids) < 2 or requests < 20:
            pids.add(server.get(f"/visit/k{requests}"))
            requests += 1
        end = time.monotonic() + PATIENCE
        # A worker publishes when it has sent its answer, so the other one may still miss that request.
        while samples(server.get("/metrics"))["quickcache_sets_total", "cache1"] < requests:
            assert time.monotonic() < end
        for _ in range(10):
            found = samples(server.get("/metrics"))
            assert found["quickcache_sets_total", "cache1"] == requests
            assert found["quickcache_workers", "cache1"] == 2
