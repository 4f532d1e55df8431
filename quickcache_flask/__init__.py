"""QuickCache as a backend of Flask-Caching, `CACHE_TYPE = "quickcache_flask.QuickCache"`, and decorators."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quickcache_flask.backend import QuickCache
    from quickcache_flask.memoized import delete_memoized, memoize
    from quickcache_flask.views import cached_view

__all__ = ["QuickCache", "cached_view", "delete_memoized", "memoize"]

_HOMES = {
    "QuickCache": "backend",
    "cached_view": "views",
    "delete_memoized": "memoized",
    "memoize": "memoized",
}


def __getattr__(name: str) -> object:
    # Not imported above: every call of `flask` imports this package for its commands, and has to work where
    # Flask-Caching is missing, as in an installation for Django.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"quickcache_flask needs {error.name}: pip install 'quickcache-web[flask]'", name=error.name
        ) from error
    found: object = getattr(home, name)
    return found
