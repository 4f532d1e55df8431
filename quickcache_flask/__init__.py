"""QuickCache as a backend of Flask-Caching: `CACHE_TYPE = "quickcache_flask.QuickCache"`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quickcache_flask.backend import QuickCache

__all__ = ["QuickCache"]


def __getattr__(name: str) -> object:
    # Not imported above: every call of `flask` imports this package for its commands, and has to work where
    # Flask-Caching is missing, as in an installation for Django.
    if name != "QuickCache":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from quickcache_flask.backend import QuickCache
    except ModuleNotFoundError as error:
        raise ImportError(
            f"quickcache_flask needs {error.name}: pip install 'quickcache-web[flask]'", name=error.name
        ) from error
    return QuickCache
