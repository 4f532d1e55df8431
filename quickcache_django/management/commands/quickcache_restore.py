from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from quickcache_core.commands.backups import chosen_backup, question, restore_backup, restored_line
from quickcache_core.metrics.report import to_json
from quickcache_django.management.command import CacheCommand


class Command(CacheCommand):
    help = (
        "Replace the entries of a cache by those of a backup; their time went on meanwhile. Without --alias "
        'that is "default". Asks before it does. Scope memory: only those of this process.'
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "source",
            nargs="?",
            type=Path,
            metavar="FILE",
            help="a file, or a directory: the newest backup in it, in the alias's folder if there is one; "
            "default: the newest where quickcache_backup puts them",
        )
        parser.add_argument(
            "--no-input", "--noinput", "--yes", action="store_true", dest="sure", help="don't ask"
        )
        parser.add_argument("--json", action="store_true", help="as JSON, for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        options["alias"] = options["alias"] or ["default"]
        for alias, location in self.locations(options).items():
            self.check_scope(alias, location)
        # All files first: who forgot one should not end up with half of it done.
        found = [
            (alias, cache.engine, chosen_backup(alias, cache.engine, options["source"]))
            for alias, _, cache in self.chosen(options)
        ]
        if not options["sure"]:
            for each in found:
                self.confirm(question(*each))
        rows = []
        for alias, engine, backup in found:
            rows.append(restore_backup(alias, engine, backup, self.note))
            if not options["json"]:
                self.stdout.write(restored_line(rows[-1]))
        if options["json"]:
            self.stdout.write(to_json({"aliases": rows}))
