from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from quickcache_core.metrics.report import keys_report, to_json
from quickcache_core.metrics.tables import keys_table
from quickcache_django.management.command import CacheCommand, positive


class Command(CacheCommand):
    help = (
        "List the live keys of all running workers, as stored (KEY_PREFIX:VERSION:key), "
        "and the time they have left."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--prefix",
            help="only keys that begin so, in the alias's own KEY_PREFIX and VERSION; "
            "with a KEY_FUNCTION, keys that are stored so",
        )
        parser.add_argument(
            "--limit", type=positive, default=100, help="at most so many per alias; default: 100"
        )
        parser.add_argument("--json", action="store_true", help="as JSON, for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        caches = [
            (alias, location, cache.engine, cache.stored_prefix(options["prefix"]))
            for alias, location, cache in self.chosen(options)
        ]
        try:
            report = keys_report(caches, limit=options["limit"])
        except ValueError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(to_json(report) if options["json"] else keys_table(report))
