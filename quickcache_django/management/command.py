"""What the commands have in common: the choice of aliases."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any, cast

from django.core.cache import caches
from django.core.management.base import BaseCommand, CommandError

from quickcache_core.location import shown
from quickcache_django.backend import QuickCache
from quickcache_django.checks import entries


class CacheCommand(BaseCommand):
    """A command on the caches that use the backend."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--alias",
            action="append",
            metavar="ALIAS",
            help="an alias of CACHES, may be repeated; default: all that use the backend",
        )

    def chosen(self, options: dict[str, Any]) -> list[tuple[str, str, QuickCache]]:
        """Alias, LOCATION without a password, and backend object of the aliases asked for."""
        locations = {alias: location for alias, location, _ in entries()}
        wanted = options["alias"] or list(locations)
        if not wanted:
            raise CommandError('No alias of CACHES has "quickcache_django.QuickCache" as its BACKEND.')
        for alias in wanted:
            if alias not in locations:
                known = ", ".join(locations) or "none"
                raise CommandError(f"No alias {alias!r} that uses QuickCache in CACHES; there are: {known}.")
        if getattr(self, "_called_from_command_line", False):
            # A process of its own, no worker. Elsewhere it may be one that calls the command.
            for alias in locations:
                control = cast(QuickCache, caches[alias]).engine.control
                if control is not None:
                    control.stay_out()
        return [
            (alias, shown(locations[alias]), cast(QuickCache, caches[alias]))
            for alias in dict.fromkeys(wanted)
        ]
