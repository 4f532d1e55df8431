from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from quickcache_core.metrics.report import stats_report, stats_table, to_json
from quickcache_django.management.command import CacheCommand


class Command(CacheCommand):
    help = "Show hits, misses, entries and evictions of the caches that use QuickCache."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--json", action="store_true", help="as JSON, for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        caches = self.chosen(options)
        report = stats_report((alias, location, cache.engine) for alias, location, cache in caches)
        self.stdout.write(to_json(report) if options["json"] else stats_table(report))
