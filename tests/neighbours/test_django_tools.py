"""django-debug-toolbar, django-prometheus and django-waffle with QuickCache as the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.neighbours.conftest import Run

pytestmark = pytest.mark.slow

SETTINGS = """
from pathlib import Path

SECRET_KEY = "a key of these tests, long enough to sign with"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "urls"
USE_TZ = True
BACKEND = "quickcache_django.QuickCache"
CACHES = {"default": {"BACKEND": BACKEND}, "kept": {"BACKEND": BACKEND, "LOCATION": "kept"}}
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "quickcache_django"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""
VIEWS = """
from django.core.cache import cache, caches
from django.http import HttpResponse


def page(request):
    cache.set("a", 1)
    cache.get("a")
    cache.get("missing")
    cache.get_many(["a", "missing"])
    cache.get_or_set("computed", lambda: 5)
    cache.set_many({"b": 1, "c": 2})
    cache.incr("b")
    cache.delete("c")
    cache.touch("a")
    caches["kept"].add("d", 1)
    return HttpResponse("<html><body>a page</body></html>")


async def apage(request):
    await cache.aset("a", 1)
    await cache.aget("a")
    return HttpResponse("<html><body>a page</body></html>")
"""


def write(folder: Path, name: str, *parts: str) -> None:
    (folder / name).write_text("\n".join(parts))


@pytest.mark.parametrize("store", ["MemoryStore", "CacheStore"])
def test_debug_toolbar(tmp_path: Path, run: Run, store: str) -> None:
    """Its panel counts each call once with its result, its page can be looked at, and where the toolbar is
    off nothing is left of it; also when the toolbar itself keeps its figures in the cache.
    """
    write(
        tmp_path,
        "project.py",
        SETTINGS,
        f"""
DEBUG = True
INTERNAL_IPS = ["127.0.0.1"]
STATIC_URL = "static/"
INSTALLED_APPS += ["django.contrib.staticfiles", "debug_toolbar"]
MIDDLEWARE = ["debug_toolbar.middleware.DebugToolbarMiddleware"]
CACHES["toolbar"] = {{"BACKEND": BACKEND, "LOCATION": "toolbar"}}
DEBUG_TOOLBAR_CONFIG = {{
    "TOOLBAR_STORE_CLASS": "debug_toolbar.store.{store}",
    # The calls of an alias that it keeps its own figures in aren't shown, whatever the backend is.
    "CACHE_BACKEND": "toolbar",
    "IS_RUNNING_TESTS": False,
}}
""",
    )
    write(
        tmp_path,
        "urls.py",
        VIEWS,
        """
from debug_toolbar.toolbar import debug_toolbar_urls
from django.urls import path

urlpatterns = [path("page", page), path("apage", apage), *debug_toolbar_urls()]
""",
    )
    write(
        tmp_path,
        "script.py",
        """
import asyncio, django
django.setup()
from debug_toolbar.store import get_store
from django.core.cache import cache, caches
from django.test import AsyncClient, Client

response = Client().get("/page")
assert b"djDebug" in response.content
[request_id] = get_store().request_ids()
stats = get_store().panel(request_id, "CachePanel")
counts = {name: count for name, count in dict(stats["counts"]).items() if count}
assert counts == {
    "set": 1, "get": 2, "get_many": 1, "get_or_set": 1, "set_many": 1, "incr": 1, "delete": 1, "touch": 1,
    "add": 1,
}, counts
assert (stats["hits"], stats["misses"]) == (3, 2), stats
rendered = Client().get("/__debug__/render_panel/", {"request_id": str(request_id), "panel_id": "CachePanel"})
assert rendered.status_code == 200
assert "get_or_set" in rendered.json()["content"]
assert cache.get("b") == 2

asyncio.run(AsyncClient().get("/apage"))
newest = list(get_store().request_ids())[-1]
stats = get_store().panel(newest, "CachePanel")
# Its panel knows the methods without an a: through these ours go, once something replaced them.
assert dict(stats["counts"])["set"] == dict(stats["counts"])["get"] == 1, stats

before = len(list(get_store().request_ids()))
cache.set("outside", 1)
assert cache.get("outside") == 1
assert len(list(get_store().request_ids())) == before
""",
    )
    run("script.py")


def test_django_prometheus(tmp_path: Path, run: Run) -> None:
    """Its way of wrapping a backend counts as it does with Django's own, and one scrape shows these figures
    and ours.
    """
    write(
        tmp_path,
        "counted.py",
        """
from django_prometheus.cache.metrics import (
    django_cache_get_total,
    django_cache_hits_total,
    django_cache_misses_total,
)
from quickcache_django import QuickCache as Plain


class QuickCache(Plain):
    # As django_prometheus.cache.backends.locmem has it.
    def get(self, key, default=None, version=None):
        django_cache_get_total.labels(backend="quickcache").inc()
        cached = super().get(key, default=None, version=version)
        if cached is not None:
            django_cache_hits_total.labels(backend="quickcache").inc()
        else:
            django_cache_misses_total.labels(backend="quickcache").inc()
        return cached or default
""",
    )
    write(
        tmp_path,
        "project.py",
        SETTINGS,
        """
CACHES["default"] = {"BACKEND": "counted.QuickCache"}
INSTALLED_APPS += ["django_prometheus"]
MIDDLEWARE = [
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]
""",
    )
    write(
        tmp_path,
        "urls.py",
        VIEWS,
        """
from django.urls import include, path

urlpatterns = [path("page", page), path("", include("django_prometheus.urls"))]
""",
    )
    write(
        tmp_path,
        "script.py",
        """
import django
django.setup()
from django.test import Client
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from quickcache_django.metrics import CacheCollector

REGISTRY.register(CacheCollector())
assert Client().get("/page").status_code == 200
text = Client().get("/metrics").content.decode()
found = {}
for family in text_string_to_metric_families(text):
    for sample in family.samples:
        labels = sample.labels.get("backend") or sample.labels.get("alias")
        found[sample.name, labels] = sample.value
gets = found["django_cache_get_total", "quickcache"]
# get, get, the two of get_many, and the one that get_or_set begins with: all go through the get of the class.
assert gets >= 5, gets
assert found["django_cache_get_hits_total", "quickcache"] + found[
    "django_cache_get_misses_total", "quickcache"
] == gets
assert found["quickcache_hits_total", "default"] >= 2
assert found["quickcache_sets_total", "kept"] == 1
""",
    )
    run("script.py")


def test_django_waffle(tmp_path: Path, run: Run) -> None:
    """Flags, switches and samples come from the cache the second time, and change when they are changed."""
    write(
        tmp_path,
        "project.py",
        SETTINGS,
        """
INSTALLED_APPS += ["waffle"]
MIDDLEWARE = ["waffle.middleware.WaffleMiddleware"]
WAFFLE_CACHE_NAME = "kept"
""",
    )
    write(
        tmp_path,
        "urls.py",
        """
import waffle
from django.http import HttpResponse
from django.urls import path


def page(request):
    names = (waffle.flag_is_active(request, "flag"), waffle.switch_is_active("switch"))
    return HttpResponse(repr((*names, waffle.sample_is_active("sample"))))


urlpatterns = [path("page", page)]
""",
    )
    write(
        tmp_path,
        "script.py",
        """
import django
django.setup()
from django.core.cache import caches
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from waffle.models import Flag, Sample, Switch

call_command("migrate", verbosity=0)


def visit():
    with CaptureQueriesContext(connection, ) as queries:
        return Client().get("/page").content.decode(), len(queries)


flag = Flag.objects.create(name="flag", everyone=True)
switch = Switch.objects.create(name="switch", active=True)
sample = Sample.objects.create(name="sample", percent=100)
answer, queries = visit()
assert answer == "(True, True, True)" and queries > 0, (answer, queries)
assert visit() == ("(True, True, True)", 0)
assert caches["kept"].engine.metrics().hits >= 3
flag.everyone = False
flag.save()
switch.active = False
switch.save()
assert visit()[0] == "(False, False, True)"
assert visit() == ("(False, False, True)", 0)
sample.delete()
assert visit()[0] == "(False, False, False)"
""",
    )
    run("script.py")
