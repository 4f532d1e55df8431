from __future__ import annotations

from typing import Any

from quickcache_django.management.command import CacheCommand


class Command(CacheCommand):
    help = "Remove all entries of the caches that use QuickCache."

    def handle(self, *args: Any, **options: Any) -> None:
        for alias, _, cache in self.chosen(options):
            entries = cache.engine.size()
            cache.clear()
            self.stdout.write(f"{alias}: {entries} {'entry' if entries == 1 else 'entries'} removed")
        self.note()
