"""What Django itself does with a cache, through real requests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.contrib.sessions.backends.cache import SessionStore as CacheSession
from django.contrib.sessions.backends.cached_db import SessionStore as CachedDbSession
from django.core.cache.utils import make_template_fragment_key
from django.test import AsyncClient, Client, override_settings

from quickcache_django import QuickCache

CACHE_MIDDLEWARE = [
    "django.middleware.cache.UpdateCacheMiddleware",
    "django.middleware.cache.FetchFromCacheMiddleware",
]


def body(response: Any) -> str:
    assert response.status_code == 200
    return str(response.content.decode())


def test_cache_page(default_cache: QuickCache) -> None:
    """A view is made once, and served from the cache with the right headers after that."""
    client = Client()
    first, second = client.get("/page/"), client.get("/page/")
    assert body(first) == body(second)
    assert second["Cache-Control"] == "max-age=60"
    assert body(client.get("/page/?other")) != body(first)
    default_cache.clear()
    assert body(client.get("/page/")) != body(first)


def test_cache_middleware(default_cache: QuickCache) -> None:
    """The whole site, cached by the middleware."""
    with override_settings(MIDDLEWARE=CACHE_MIDDLEWARE):
        client = Client()
        assert body(client.get("/fragment/?who=me")) == body(client.get("/fragment/?who=me"))
        assert default_cache.engine.metrics().hits > 0


def test_template_fragment(default_cache: QuickCache) -> None:
    """{% cache %} keeps a fragment per value, safe for the template and under Django's own key."""
    client = Client()
    mine, yours = body(client.get("/fragment/?who=<me>")), body(client.get("/fragment/?who=you"))
    assert mine.endswith("for &lt;me&gt;")
    assert body(client.get("/fragment/?who=<me>")) == mine != yours
    assert default_cache.delete(make_template_fragment_key("fragment", ["<me>"])) is True
    assert body(client.get("/fragment/?who=<me>")) != mine
    assert body(client.get("/fragment/?who=you")) == yours


@pytest.mark.parametrize("engine", ["cache", "cached_db"])
def test_sessions(default_cache: QuickCache, database: None, engine: str) -> None:
    """A visitor's session is kept from request to request; another visitor has his own."""
    with override_settings(SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}"):
        visitor, other = Client(), Client()
        assert [body(visitor.get("/visits/")) for _ in range(3)] == ["1", "2", "3"]
        assert body(other.get("/visits/")) == "1"
        default_cache.clear()
        assert body(visitor.get("/visits/")) == ("4" if engine == "cached_db" else "1")


@pytest.mark.parametrize("store", [CacheSession, CachedDbSession])
def test_session_that_is_deleted(default_cache: QuickCache, database: None, store: Any) -> None:
    """A deleted session is gone, and doesn't come back by saving a copy."""
    session = store()
    session["k"] = "v"
    session.create()
    copy = store(session.session_key)
    assert copy["k"] == "v"
    session.delete()
    assert store(session.session_key).get("k") is None
    assert not store().exists(session.session_key)


def test_asynchronous_view(default_cache: QuickCache) -> None:
    """An asynchronous view under Django's asynchronous handler."""

    async def main() -> list[str]:
        client = AsyncClient()
        return [body(await client.get("/answer/")) for _ in range(2)]

    first, second = asyncio.run(main())
    assert first == second
    assert default_cache.get("answer") == first
