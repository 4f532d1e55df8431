from __future__ import annotations

from argparse import ArgumentParser
from typing import Any, cast

from django.core.cache import caches
from django.core.management.base import CommandError

from quickcache_core import ConfigError
from quickcache_core.commands.check import CheckReport, broken_alias, check_alias, check_lines, problems
from quickcache_core.location import read_location, shown
from quickcache_core.metrics.report import to_json
from quickcache_core.moving import IN_MEMORY, meant_elsewhere
from quickcache_django.backend import QuickCache
from quickcache_django.checks import doubts_of_secrets, entries
from quickcache_django.conf import DEFAULTS, Reader
from quickcache_django.management.command import CacheCommand

_BESIDE_BACKEND = {"LOCATION", "TIMEOUT", "timeout", "max_entries", "cull_frequency"}


class Command(CacheCommand):
    help = (
        "Check settings and stores: who owns the files, whether there is room, whether an entry can be "
        "stored and read. Shows every option in force, and where it was set. Ends with 1 if anything is "
        "wrong."
    )
    # It says more than Django's checks, and of each alias.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--json", action="store_true", help="as JSON, for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = self.locations(options)
        report: CheckReport = {"aliases": []}
        for alias, location, params in entries():
            if alias in wanted:
                reader = Reader(location, params)
                errors = [str(error) for error in reader.problems()]
                if errors:
                    report["aliases"].append(broken_alias(alias, _shown(location), errors))
                else:
                    report["aliases"].append(self._checked(alias, location, reader))
        if options["json"]:
            self.stdout.write(to_json(report))
        else:
            for line in check_lines(report):
                self.stdout.write(line)
        if count := problems(report):
            raise CommandError(f"{count} problem{'' if count == 1 else 's'} found.")

    def _checked(self, alias: str, location: Any, reader: Reader) -> Any:
        try:
            engine = cast(QuickCache, caches[alias]).engine
        except Exception as error:  # what only shows when all comes together
            return broken_alias(alias, _shown(location), [str(error)])
        if self.is_typed and engine.control is not None:
            engine.control.stay_out()
        in_memory = read_location(engine.config.location).scope == "memory"
        sources = _sources(alias, location, reader.given_as, in_memory)
        meant = meant_elsewhere(location)
        doubts = [f"LOCATION {IN_MEMORY}: {meant}"] if meant else []
        doubts += doubts_of_secrets(reader)
        return {**check_alias(alias, engine, sources, str.upper, doubts), "location": _shown(location)}


def _sources(alias: str, location: Any, given_as: dict[str, str], in_memory: bool) -> dict[str, str]:
    """Where each field of the core was set."""
    sources = dict.fromkeys(DEFAULTS, "default of quickcache_django")
    sources |= {
        "default_ttl": "Django's default",
        "immutable_types": "default of quickcache_django",
        "publish_as": "made of the settings module and LOCATION",
        "secret": "SECRET_KEY",
        "secret_fallbacks": "SECRET_KEY_FALLBACKS",
        "location": f"CACHES[{alias!r}]['LOCATION']" if location else "no LOCATION",
    }
    if not in_memory:
        del sources["publish_as"]
    for field, name in given_as.items():
        within = "" if name in _BESIDE_BACKEND else "['OPTIONS']"
        sources[field] = f"CACHES[{alias!r}]{within}[{name!r}]"
    return sources


def _shown(location: Any) -> str:
    try:
        return shown(location)
    except ConfigError:
        return "(not shown)"
