from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from quickcache_core.metrics.report import clear_everywhere, to_json
from quickcache_core.metrics.tables import cleared_lines
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
        parser.add_argument(
            "--namespace", metavar="NAME", help="only the namespace of this name, in constant time"
        )
        parser.add_argument(
            "--tag",
            action="append",
            metavar="TAG",
            help="only entries that carry this tag, may be repeated; with --namespace, those in it",
        )
        parser.add_argument("--json", action="store_true", help="as JSON, for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        prefix, name, tags = options["prefix"], options["namespace"], options["tag"] or ()
        if prefix is not None and (name is not None or tags):
            raise CommandError("--prefix excludes --namespace and --tag.")
        rows = []
        for alias, _, cache in self.chosen(options):
            try:
                part = cache if name is None else cache.namespace(name)
                rows.append(
                    clear_everywhere(
                        alias,
                        cache.engine,
                        cache.stored_prefix(prefix),
                        part=None if name is None else part.engine,
                        tags=[part.make_tag(tag) for tag in tags],
                    )
                )
            except ValueError as error:
                raise CommandError(f"{alias}: {error}") from error
            if not options["json"]:
                for line in cleared_lines(rows[-1]):
                    self.stdout.write(line)
        if options["json"]:
            self.stdout.write(to_json({"aliases": rows}))
