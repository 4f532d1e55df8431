"""`/metrics` in Django, and OpenTelemetry."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.test import Client, override_settings
from django.urls import reverse
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families

from quickcache_django.metrics import CacheCollector, instrument
from tests.gunicorn_server import PATIENCE, gunicorn

BACKEND = "quickcache_django.QuickCache"
ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a token that nobody guesses"


@pytest.fixture(autouse=True)
def two_aliases(location: str) -> Iterator[None]:
    entries = {
        "default": {"BACKEND": BACKEND, "LOCATION": f"{location} 1"},
        "pages": {"BACKEND": BACKEND, "LOCATION": f"{location} 2"},
        "others": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    }
    sys.path.insert(0, str(Path(__file__).parent))
    with override_settings(CACHES=entries, ROOT_URLCONF="metrics_urls"):
        yield
    sys.path.remove(str(Path(__file__).parent))


def samples(text: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels["alias"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def may_scrape(request: HttpRequest) -> Any:
    return request.headers.get("X-Answer") == "yes"


def truthy(request: HttpRequest) -> Any:
    return "no"


class User:
    def __init__(self, *permissions: str) -> None:
        self.permissions = permissions

    def has_perm(self, permission: str) -> bool:
        return permission in self.permissions


class TestAccess:
    @pytest.mark.parametrize("rules", [{}, {"PERMISSION": "ops.look"}, {"ACCESS": truthy}], ids="".join)
    def test_nobody(self, rules: Any) -> None:
        """Refused unless somebody is let in, with the name of the setting; and nothing is kept anywhere."""
        with override_settings(QUICKCACHE_METRICS=rules):
            response = Client().get("/ops/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert response.status_code == 403
        assert b"QUICKCACHE_METRICS" in response.content
        assert b"hits" not in response.content
        assert "no-store" in response["Cache-Control"]

    def test_not_mentioned(self) -> None:
        """Without the setting it is refused as well."""
        assert Client().get("/ops/metrics").status_code == 403

    def test_debug(self) -> None:
        """Whoever develops may look."""
        with override_settings(DEBUG=True):
            assert Client().get("/ops/metrics").status_code == 200

    @pytest.mark.parametrize(
        ("header", "status"),
        [
            (f"Bearer {TOKEN}", 200),
            (f"bearer  {TOKEN} ", 200),
            ("", 401),
            ("Bearer", 401),
            ("Bearer ", 401),
            (f"Bearer {TOKEN[:-1]}", 401),
            (f"Bearer {TOKEN}x", 401),
            (f"Basic {TOKEN}", 401),
            (TOKEN, 401),
            ("Bearer \xff", 401),
        ],
    )
    def test_token(self, header: str, status: int) -> None:
        """Exactly that token; others are told that one is needed."""
        with override_settings(QUICKCACHE_METRICS={"TOKEN": TOKEN}):
            response = Client().get("/ops/metrics", HTTP_AUTHORIZATION=header)
        assert response.status_code == status
        assert ("WWW-Authenticate" in response) == (status == 401)

    @pytest.mark.parametrize("access", [may_scrape, f"{__name__}.may_scrape"], ids=["function", "path"])
    def test_function(self, access: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """True and nothing else lets in."""
        monkeypatch.setitem(sys.modules, __name__, sys.modules[may_scrape.__module__])
        with override_settings(QUICKCACHE_METRICS={"ACCESS": access}):
            assert Client().get("/ops/metrics").status_code == 403
            assert Client().get("/ops/metrics", HTTP_X_ANSWER="yes").status_code == 200

    def test_permission(self) -> None:
        """That of the user of the request."""
        from quickcache_django.access import may_look

        with override_settings(QUICKCACHE_METRICS={"PERMISSION": "ops.look"}):
            for user, may in ((User("ops.look"), True), (User("ops.other"), False), (None, False)):
                request = HttpRequest()
                if user is not None:
                    request.user = user  # type: ignore[assignment]
                assert may_look(request) is may

    @pytest.mark.parametrize(
        "rules",
        [
            {"TOKENS": TOKEN},
            {"TOKEN": ""},
            {"TOKEN": "short"},
            {"TOKEN": None},
            {"ACCESS": "no.such.function"},
            {"ACCESS": 5},
            {"PERMISSION": 5},
            "token",
        ],
        ids=repr,
    )
    @pytest.mark.parametrize("debug", [True, False])
    def test_wrong_setting(self, rules: Any, debug: bool) -> None:
        """An error that names it, rather than an open door."""
        with (
            override_settings(QUICKCACHE_METRICS=rules, DEBUG=debug),
            pytest.raises(ImproperlyConfigured, match="QUICKCACHE_METRICS"),
        ):
            Client().get("/ops/metrics")

    def test_methods(self) -> None:
        """Nothing can be sent there."""
        with override_settings(DEBUG=True):
            assert Client().post("/ops/metrics").status_code == 405
            assert Client().head("/ops/metrics").status_code == 200


@override_settings(DEBUG=True)
def test_figures() -> None:
    """Those of each alias that uses the backend."""
    caches["default"].set("a", 1)
    caches["default"].get("a")
    caches["pages"].get("a")
    assert reverse("quickcache:metrics") == "/ops/metrics"
    found = samples(Client().get("/ops/metrics").content.decode())
    assert found["quickcache_hits_total", "default"] == 1
    assert found["quickcache_misses_total", "pages"] == 1
    assert found["quickcache_entries", "default"] == 1
    assert ("quickcache_hits_total", "others") not in found


@override_settings(DEBUG=True)
def test_openmetrics() -> None:
    """The format that the scraper prefers."""
    accept = "application/openmetrics-text; version=1.0.0"
    response = Client().get("/ops/metrics", HTTP_ACCEPT=accept)
    assert response["Content-Type"].startswith("application/openmetrics-text")
    families = list(parse_openmetrics(response.content.decode()))
    assert "quickcache_hits" in {family.name for family in families}


def test_in_a_registry_of_the_project() -> None:
    """Registering asks no cache; each scrape shows the figures of its moment."""
    registry = CollectorRegistry(auto_describe=True)
    registry.register(CacheCollector())
    for expected in (1, 2):
        caches["default"].set("a", 1)
        text = generate_latest(registry).decode()
        assert samples(text)["quickcache_sets_total", "default"] == expected


def observed(reader: InMemoryMetricReader) -> dict[tuple[str, str], Any]:
    data = reader.get_metrics_data()
    return {
        (metric.name, point.attributes["alias"]): point.value
        for resource in (data.resource_metrics if data else [])
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }


def test_opentelemetry() -> None:
    """The SDK collects what the caches of this process have counted, until it is stopped."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    instruments = instrument(meter_provider=provider)
    caches["default"].set("a", 1)
    caches["default"].get("a")
    found = observed(reader)
    assert found["quickcache.hits", "default"] == 1
    assert found["quickcache.sets", "default"] == 1
    assert found["quickcache.entries", "default"] == 1
    assert found["quickcache.hits", "pages"] == 0
    caches["default"].get("a")
    assert observed(reader)["quickcache.hits", "default"] == 2
    instruments.stop()
    assert observed(reader) == {}
    provider.shutdown()


SITE = f"""
import os
from django.core.cache import caches
from django.http import HttpResponse
from django.urls import include, path

SECRET_KEY = "a key of these tests, long enough to sign with"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = __name__
INSTALLED_APPS = ["quickcache_django"]
QUICKCACHE_METRICS = {{"ACCESS": lambda request: True}}
CACHES = {{"default": {{"BACKEND": "{BACKEND}"}}}}


def visit(request, key):
    cache = caches["default"]
    found = cache.get(key)
    cache.set(key, 1)
    return HttpResponse(f"{{os.getpid()}} {{'miss' if found is None else 'hit'}}")


def pid(request):
    return HttpResponse(str(os.getpid()))


urlpatterns = [path("pid", pid), path("visit/<key>", visit), path("", include("quickcache_django.metrics"))]
"""
WSGI = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""


@pytest.mark.slow
def test_any_worker_shows_all(tmp_path: Path) -> None:
    """Whichever worker is scraped, the figures are those of all; no multiprocess directory is set up."""
    (tmp_path / "site_settings.py").write_text(SITE)
    (tmp_path / "site_wsgi.py").write_text(WSGI)
    environment = {"QUICKCACHE_RUNTIME_DIR": str(tmp_path / "run"), "PYTHONPATH": str(ROOT)}
    with (
        tempfile.TemporaryDirectory() as short,
        gunicorn(
            "site_wsgi",
            *("--workers", "2"),
            folder=tmp_path,
            socket_path=Path(short) / "socket",
            environment=environment,
        ) as server,
    ):
        hits, pids, requests = 0, set(), 0
        while len(pids) < 2 or requests < 30:
            pid, outcome = server.get(f"/visit/k{requests % 5}").split()
            pids.add(pid)
            hits += outcome == "hit"
            requests += 1
        end = time.monotonic() + PATIENCE
        # A worker publishes when it has sent its answer, so the other one may still miss that request.
        while samples(server.get("/metrics"))["quickcache_sets_total", "default"] < requests:
            assert time.monotonic() < end
        for _ in range(10):
            found = samples(server.get("/metrics"))
            assert found["quickcache_hits_total", "default"] == hits
            assert found["quickcache_misses_total", "default"] == requests - hits
            assert found["quickcache_sets_total", "default"] == requests
            assert found["quickcache_workers", "default"] == 2
