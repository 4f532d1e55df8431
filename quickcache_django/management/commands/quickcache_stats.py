from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management.base import CommandError

from quickcache_core.metrics.prometheus import to_prometheus
from quickcache_core.metrics.report import StatsReport, stats_report, to_json
from quickcache_core.metrics.tables import stats_table
from quickcache_core.metrics.watch import WATCH_INTERVAL, watch
from quickcache_django.management.command import CacheCommand, positive


class Command(CacheCommand):
    help = "Show hits, misses, entries and evictions of the caches that use QuickCache, for each worker."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help="as JSON, for programs")
        form.add_argument("--prometheus", action="store_true", help="in Prometheus's text format")
        form.add_argument(
            "--watch",
            nargs="?",
            type=_seconds,
            const=WATCH_INTERVAL,
            metavar="SECONDS",
            help="again and again, until Ctrl-C; default: every %(const)g seconds",
        )
        parser.add_argument(
            "--cluster", action="store_true", help="of all hosts that share a cache in scope redis"
        )
        parser.add_argument("--count", type=positive, help="with --watch: so many times")

    def handle(self, *args: Any, **options: Any) -> None:
        caches = [(alias, location, cache.engine) for alias, location, cache in self.chosen(options)]

        def make_report() -> StatsReport:
            return stats_report(caches, everywhere=options["cluster"])

        if options["watch"] is not None:
            watch(make_report, self.stdout.write, interval=options["watch"], count=options["count"])
        elif options["prometheus"]:
            try:
                self.stdout.write(to_prometheus(make_report()), ending="")
            except ImportError as error:
                raise CommandError(f"--prometheus: {error}") from error
        else:
            self.stdout.write((to_json if options["json"] else stats_table)(make_report()))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.05 <= seconds <= 86_400:
        raise ArgumentTypeError(f"{text!r}: give seconds, from 0.05 to a day")
    return seconds
