"""A fixture for pytest-flask: `pytest_plugins = ["quickcache_flask.pytest_plugin"]` in conftest.py."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import pytest
from flask import Flask

from quickcache_core.testing.isolation import Isolation


@pytest.fixture
def isolated_caches(app: Flask, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches that are empty, and nobody else's, for this test: not those of other tests, nor of other
    processes of pytest-xdist. All caches of the fixture `app` that use QuickCache; their settings stay, but
    for the place.

    For all tests: a fixture with `autouse=True` that asks for it. What holds an engine of its own, as
    decorators of `quickcache_core` on a `backend.engine` do, goes on with that.
    """
    from quickcache_core import QuickCache
    from quickcache_flask.backend import relay
    from quickcache_flask.names import backends_of

    isolation = Isolation(tmp_path_factory.mktemp("quickcache"))
    backends = list(backends_of(app).values())
    before = [backend.engine for backend in backends]
    for number, backend in enumerate(backends):
        config = backend.engine.config
        # Those without a location have a store of their own, each.
        place = isolation.place(config.location or f"memory://{number}", config.redis_prefix)
        backend.engine = QuickCache(config.replace(**place))
        relay.add(backend.engine, (weakref.ref(app), weakref.ref(backend)))
    yield
    for backend, engine in zip(backends, before, strict=True):
        isolation.cleaner(backend.engine)()
        backend.engine = engine
