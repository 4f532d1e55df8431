from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from functools import partial
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from quickcache_core import CacheLoadError
from quickcache_core.loading.warm_command import (
    Contents,
    contents_of,
    function_at,
    warm_and_show,
    warmed_lines,
    warmed_row,
)
from quickcache_core.metrics.report import to_json
from quickcache_django.backend import QuickCache
from quickcache_django.conf import NOT_KEPT, engine_ttl
from quickcache_django.management.command import CacheCommand, positive


class Command(CacheCommand):
    help = (
        "Fill a cache before anybody asks: with what a function gives, or from a backup. Without --alias "
        'that is "default". Scope memory is filled in this process only.'
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "function",
            nargs="?",
            metavar="MODULE:FUNCTION",
            help="gives a mapping, (key, value) pairs, or (keys, loader), where loader(key) gives a value; "
            "keys as the application writes them",
        )
        parser.add_argument(
            "--backup",
            type=Path,
            metavar="FILE",
            help="a file that backup or save_to_disk wrote, or a directory of backups: the newest; "
            "its entries have the time they had left",
        )
        parser.add_argument(
            "--threads", type=positive, default=1, help="that call the loader at a time; default: 1"
        )
        parser.add_argument("--timeout", type=_seconds, help="in seconds; default: the alias's TIMEOUT")
        parser.add_argument(
            "--overwrite", action="store_true", help="also what is there; default: it is left as it is"
        )
        parser.add_argument("--json", action="store_true", help="as JSON, for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        path, backup = options["function"], options["backup"]
        if (path is None) == (backup is None):
            raise CommandError("Give a function, as in shop.warming:products, or --backup FILE.")
        if not options["alias"]:
            options["alias"] = ["default"]
        failed, rows = 0, []
        for alias, location in self.locations(options).items():
            self.check_scope(alias, location)
        try:
            function = None if path is None else function_at(path)
            for alias, _, cache in self.chosen(options):
                ttl = _ttl(alias, cache, options["timeout"], backup)
                contents = Contents(backup, None, None) if function is None else contents_of(function)
                warmed = warm_and_show(
                    alias,
                    cache.engine,
                    contents,
                    self.note,
                    ttl_sec=ttl,
                    threads=options["threads"],
                    overwrite=options["overwrite"],
                    # Those of a backup are as the engine has them.
                    key_of=None if function is None else partial(_stored_key, cache),
                )
                failed += warmed.failed
                rows.append(warmed_row(alias, warmed))
                if not options["json"]:
                    for line in warmed_lines(alias, warmed):
                        self.stdout.write(line)
        except (ValueError, CacheLoadError) as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            self.stdout.write(to_json({"aliases": rows}))
        if failed:
            raise CommandError(f"{failed} keys failed.")


def _stored_key(cache: QuickCache, key: Any) -> str:
    return cache.make_and_validate_key(key)


def _ttl(alias: str, cache: QuickCache, timeout: float | None, backup: Path | None) -> float | None:
    """What `warm` is told; None for the default, and for what the entries of a backup had left."""
    if timeout is not None:
        return timeout
    if backup is None and engine_ttl(cache.default_timeout) is NOT_KEPT:
        raise CommandError(f"{alias}: with its TIMEOUT nothing is kept; give a --timeout.")
    return None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < 1e10:
        raise ArgumentTypeError(f"{text!r}: give seconds above 0")
    return seconds
