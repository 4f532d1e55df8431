from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from quickcache_core.metrics.report import clear_everywhere
from quickcache_django.management.command import CacheCommand


class Command(CacheCommand):
    help = "Remove entries of the caches that use QuickCache, in all running workers."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--prefix",
            help="only keys that begin so, in the alias's own KEY_PREFIX and VERSION; "
            "with a KEY_FUNCTION, keys that are stored so. Default: all entries of the LOCATION",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        for alias, _, cache in self.chosen(options):
            try:
                lines = clear_everywhere(alias, cache.engine, cache.stored_prefix(options["prefix"]))
            except ValueError as error:
                raise CommandError(f"{alias}: {error}") from error
            for line in lines:
                self.stdout.write(line)
