"""The cache as the store of Django REST framework's throttles and of sessions, in one process and in many."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.sessions.backends.cache import SessionStore
from django.core.cache import caches
from django.test import override_settings

from quickcache_core.testing import ManualClock
from quickcache_django import QuickCache

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0

REST = {"UNAUTHENTICATED_USER": None, "DEFAULT_AUTHENTICATION_CLASSES": []}


@pytest.fixture(autouse=True)
def rest() -> Iterator[None]:
    with override_settings(REST_FRAMEWORK=REST):
        yield


def throttled_view(cache: QuickCache, clock: ManualClock, rate: str = "3/min") -> Any:
    from rest_framework.response import Response
    from rest_framework.throttling import AnonRateThrottle
    from rest_framework.views import APIView

    class Throttle(AnonRateThrottle):
        THROTTLE_RATES = {"anon": rate}  # noqa: RUF012
        timer = staticmethod(clock.wall)

    Throttle.cache = cache

    class View(APIView):
        throttle_classes = [Throttle]  # noqa: RUF012

        def get(self, request: Any) -> Response:
            return Response("served")

    return View.as_view()


def statuses(view: Any, count: int, visitor: str = "10.0.0.1") -> list[int]:
    from rest_framework.test import APIRequestFactory

    requests = (APIRequestFactory().get("/", REMOTE_ADDR=visitor) for _ in range(count))
    return [view(request).status_code for request in requests]


def test_a_limit(cache: QuickCache, clock: ManualClock) -> None:
    """So many requests of a visitor are served, and more when the time is over; each visitor counts alone."""
    view = throttled_view(cache, clock)
    assert statuses(view, 5) == [200, 200, 200, 429, 429]
    assert statuses(view, 1, "10.0.0.2") == [200]
    clock.advance(59)
    assert statuses(view, 1) == [429]
    clock.advance(1)
    assert statuses(view, 4) == [200, 200, 200, 429]


def test_the_time_to_wait(cache: QuickCache, clock: ManualClock) -> None:
    """Who is refused is told for how long."""
    from rest_framework.test import APIRequestFactory

    view = throttled_view(cache, clock, "1/min")
    statuses(view, 1)
    clock.advance(20)
    response = view(APIRequestFactory().get("/", REMOTE_ADDR="10.0.0.1"))
    assert (response.status_code, response["Retry-After"]) == (429, "40")


def test_the_default_throttles(default_cache: QuickCache) -> None:
    """As a project has them: they use the alias `default`."""
    from rest_framework.response import Response
    from rest_framework.throttling import AnonRateThrottle
    from rest_framework.views import APIView

    class Throttle(AnonRateThrottle):
        rate = "2/day"

    class View(APIView):
        throttle_classes = [Throttle]  # noqa: RUF012

        def get(self, request: Any) -> Response:
            return Response("served")

    assert statuses(View.as_view(), 3) == [200, 200, 429]
    assert len(default_cache.keys("throttle_anon_*")) == 1
    default_cache.clear()
    assert statuses(View.as_view(), 1) == [200]


# Many processes, in scope shared

PROJECT = """
import sys
from django.conf import settings
settings.configure(
    CACHES={"default": {"BACKEND": "quickcache_django.QuickCache", "LOCATION": sys.argv[1]}},
    REST_FRAMEWORK={"UNAUTHENTICATED_USER": None, "DEFAULT_AUTHENTICATION_CLASSES": []},
    SECRET_KEY="a key of these tests, long enough to sign with",
    USE_TZ=True,
)
import django
django.setup()
"""

VISIT = (
    PROJECT
    + """
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.throttling import AnonRateThrottle
from rest_framework.views import APIView

class Throttle(AnonRateThrottle):
    rate = "5/day"

class View(APIView):
    throttle_classes = [Throttle]
    def get(self, request):
        return Response("served")

view = View.as_view()
print([view(APIRequestFactory().get("/", REMOTE_ADDR="10.0.0.1")).status_code for _ in range(3)])
"""
)

REMEMBER = (
    PROJECT
    + """
from django.contrib.sessions.backends.cache import SessionStore
session = SessionStore(sys.argv[2] or None)
session["visits"] = session.get("visits", 0) + 1
session.save()
print(session.session_key, session["visits"])
"""
)


def run(program: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.slow
def test_a_limit_of_all_processes(tmp_path: Path) -> None:
    """In scope shared the workers of a host count together."""
    location = f"shared://{tmp_path}/cache"
    assert [run(VISIT, location) for _ in range(3)] == [
        "[200, 200, 200]",
        "[200, 200, 429]",
        "[429, 429, 429]",
    ]


@pytest.mark.slow
def test_a_session_of_all_processes(tmp_path: Path) -> None:
    """In scope shared any worker serves any visitor, also after all of them were started anew."""
    location = f"shared://{tmp_path}/cache"
    key, visits = run(REMEMBER, location, "").split()
    assert visits == "1"
    assert run(REMEMBER, location, key) == f"{key} 2"
    assert run(REMEMBER, location, key) == f"{key} 3"
    assert run(REMEMBER, location, "").split()[0] != key


def test_the_end_of_a_session(default_cache: QuickCache) -> None:
    """An entry of a session lives as long as the session: what `set_expiry` says, no longer."""
    session = SessionStore()
    session["k"] = "v"
    session.set_expiry(500)
    session.save()
    [entry] = default_cache.keys("django.contrib.sessions.cache*")
    assert 498 <= (caches["default"].ttl(entry) or 0) <= 500  # type: ignore[attr-defined]
    session.flush()
    assert default_cache.keys("*") == []
