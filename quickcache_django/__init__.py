"""QuickCache for Django: `"BACKEND": "quickcache_django.QuickCache"` in `CACHES`."""

from quickcache_django.backend import QuickCache

__all__ = ["QuickCache"]
