"""The rules that Flask-Caching's tests check in SimpleCache's private attributes, checked in ours.

Run by `flask_caching_suite.py` together with their tests, whose `app` fixture is repeated here in short.
"""

from __future__ import annotations

import os

import flask
import pytest
from cachelib.serializers import JSONSerializer
from flask_caching import Cache
from flask_caching.backends import SimpleCache

from quickcache_flask import QuickCache


@pytest.fixture
def app() -> flask.Flask:
    app = flask.Flask(__name__)
    app.config["CACHE_TYPE"] = "quickcache_flask.QuickCache"
    app.secret_key = "a secret of these tests"
    return app


def test_the_suite_means_our_class() -> None:
    """What the suite imports as SimpleCache is QuickCache."""
    assert SimpleCache is QuickCache


@pytest.mark.skipif(os.environ["FLASK_CACHING_SCOPE"] == "redis", reason="in scope redis the server evicts")
def test_purge() -> None:
    """More sets than the threshold leave no more entries than the threshold."""
    cache = QuickCache(threshold=2)
    for key in "abcd":
        cache.set(key, key)
    assert cache.engine.size() == 2


def test_cache_options_reach_the_backend(app: flask.Flask) -> None:
    """CACHE_OPTIONS are arguments of the backend."""
    app.config["CACHE_OPTIONS"] = {"threshold": 7}
    cache = Cache(app)
    assert app.extensions["cache"][cache].engine.max_size == 7


def test_values_are_stored_in_the_configured_format(app: flask.Flask) -> None:
    """With CACHE_SERIALIZER the cache holds what the serializer made."""
    app.config["CACHE_SERIALIZER"] = JSONSerializer
    cache = Cache(app)
    with app.app_context():
        cache.set("hi", {"a": 1})
        [key] = cache.cache.engine.keys()
        assert key.endswith("hi")
        assert cache.cache.engine.get(key).data == b'{"a": 1}'
        assert cache.get("hi") == {"a": 1}
