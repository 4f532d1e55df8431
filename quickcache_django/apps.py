from __future__ import annotations

import sys

from django.apps import AppConfig
from django.core.checks import Tags, register


class QuickCacheApp(AppConfig):
    """With "quickcache_django" in `INSTALLED_APPS`: the system checks and the management commands."""

    name = "quickcache_django"
    verbose_name = "QuickCache"

    def ready(self) -> None:
        from quickcache_django.checks import check_caches, check_deployment

        register(check_caches, Tags.caches)
        register(check_deployment, Tags.caches, deploy=True)
        # The core's, where the decorators are in use: importing them here would load the database layer.
        decorators = sys.modules.get("quickcache_django.decorators")
        if decorators is not None:
            decorators.register_users()
