from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask_caching import Cache

from quickcache_core.testing import ManualClock
from quickcache_flask import QuickCache

CACHE_TYPE = "quickcache_flask.QuickCache"

MakeCache = Callable[..., Cache]
MakeBackend = Callable[..., QuickCache]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)
    app.testing = True
    return app


@pytest.fixture
def make_cache(app: Flask, clock: ManualClock) -> MakeCache:
    """Makes a cache for `app`, with the manual clock; arguments are settings."""

    def make(**config: Any) -> Cache:
        return Cache(app, config={"CACHE_TYPE": CACHE_TYPE, "CACHE_QUICKCACHE_CLOCK": clock, **config})

    return make


@pytest.fixture
def make_backend(make_cache: MakeCache) -> MakeBackend:
    """Makes a cache for `app` and returns its backend; arguments are settings."""

    def make(**config: Any) -> QuickCache:
        cache = make_cache(**config)
        backend = cache.app.extensions["cache"][cache]
        assert type(backend) is QuickCache
        return backend

    return make


@pytest.fixture
def backend(make_backend: MakeBackend) -> QuickCache:
    return make_backend()
