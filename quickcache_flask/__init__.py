"""QuickCache as a backend of Flask-Caching: `CACHE_TYPE = "quickcache_flask.QuickCache"`."""

from quickcache_flask.backend import QuickCache

__all__ = ["QuickCache"]
