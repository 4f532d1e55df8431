from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from quickcache_core.commands.backups import back_up, backup_line
from quickcache_core.metrics.report import to_json
from quickcache_django.management.command import CacheCommand


class Command(CacheCommand):
    help = (
        "Write all entries into a file with the time in its name, in a folder for each alias. Scope memory: "
        "only those of this process."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--directory",
            type=Path,
            metavar="DIRECTORY",
            help="where the folders of the aliases are; default: STORAGE_DIR",
        )
        parser.add_argument("--json", action="store_true", help="as JSON, for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        locations = self.locations(options)
        kept = [alias for alias, location in locations.items() if not self.ends_with_process(location)]
        for alias, location in locations.items():
            if alias not in kept:
                if options["alias"] or not kept:
                    self.check_scope(alias, location)
                self.note(f"{alias}: left out, since in scope memory each process has its own cache")
        options["alias"] = kept
        rows = []
        for alias, _, cache in self.chosen(options):
            rows.append(back_up(alias, cache.engine, options["directory"], self.note))
            if not options["json"]:
                self.stdout.write(backup_line(rows[-1]))
        if options["json"]:
            self.stdout.write(to_json({"aliases": rows}))
