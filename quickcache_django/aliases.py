"""From the name of an alias to its cache."""

from __future__ import annotations

from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured

from quickcache_django.backend import QuickCache


def backend_of(alias: str) -> QuickCache:
    """Looked up each time, so that settings may be overridden. Raises `ImproperlyConfigured` if it is none of
    ours.
    """
    backend = caches[alias]
    if not isinstance(backend, QuickCache):
        raise ImproperlyConfigured(
            f"CACHES[{alias!r}] is a {type(backend).__name__}, and what is used here needs "
            '"BACKEND": "quickcache_django.QuickCache". To do without caching, as in tests, give it '
            '"OPTIONS": {"ENABLED": False}'
        )
    return backend
