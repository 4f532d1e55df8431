from __future__ import annotations

import os

SECRET_KEY = "a secret of the tests, which is long enough"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "django_site"
INSTALLED_APPS = ["quickcache_django"]
# Gives answers a length, by which the client knows one that was cut off.
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
CACHES = {
    "default": {
        "BACKEND": "quickcache_django.QuickCache",
        "LOCATION": f"shared://{os.environ['SERVER_TESTS_DIRECTORY']}",
        "OPTIONS": {"MAX_BYTES": "8MB", "MAX_ENTRIES": 10_000},
    },
    "local": {
        "BACKEND": "quickcache_django.QuickCache",
        "LOCATION": "memory://local",
        "OPTIONS": {"MAX_ENTRIES": 10_000},
    },
}
