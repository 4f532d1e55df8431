"""What the commands have in common: the choice of aliases, errors in one line, confirmation."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any, cast

from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from quickcache_core import QuickCacheError
from quickcache_core.location import read_location, shown
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

    def execute(self, *args: Any, **options: Any) -> str | None:
        """With errors that say what to do as one line; --traceback shows where they come from."""
        try:
            return super().execute(*args, **options)
        except (QuickCacheError, OSError, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            if not self.is_typed:
                raise
            raise CommandError("Interrupted.", returncode=130) from None

    @property
    def is_typed(self) -> bool:
        """Whether this is a process of its own. `call_command` may be called by a worker."""
        return bool(getattr(self, "_called_from_command_line", False))

    def chosen(self, options: dict[str, Any]) -> list[tuple[str, str, QuickCache]]:
        """Alias, LOCATION without a password, and backend object of the aliases asked for."""
        locations = self.locations(options)
        self.stay_out()
        return [
            (alias, shown(location), cast(QuickCache, caches[alias])) for alias, location in locations.items()
        ]

    def locations(self, options: dict[str, Any]) -> dict[str, Any]:
        """The LOCATION of each alias asked for."""
        locations = {alias: location for alias, location, _ in entries()}
        wanted = options["alias"] or list(locations)
        if not wanted:
            raise CommandError('No alias of CACHES has "quickcache_django.QuickCache" as its BACKEND.')
        for alias in wanted:
            if alias not in locations:
                known = ", ".join(locations) or "none"
                raise CommandError(f"No alias {alias!r} that uses QuickCache in CACHES; there are: {known}.")
        return {alias: locations[alias] for alias in dict.fromkeys(wanted)}

    def stay_out(self) -> None:
        """Don't let a command's own process appear among the workers."""
        if not self.is_typed:
            return
        for alias, _, _ in entries():
            control = cast(QuickCache, caches[alias]).engine.control
            if control is not None:
                control.stay_out()

    def ends_with_process(self, location: Any) -> bool:
        """Whether the entries are those of this process, which is no worker."""
        return self.is_typed and read_location(location).scope == "memory"

    def check_scope(self, alias: str, location: Any) -> None:
        """Raises `CommandError` where this process's entries are of no use to anybody."""
        if self.ends_with_process(location):
            raise CommandError(
                f"{alias}: in scope memory each process has its own cache, and this one ends now. Call "
                f"call_command({self.name!r}, ...) where a worker starts, or use a shared:// LOCATION."
            )

    @property
    def name(self) -> str:
        return type(self).__module__.rpartition(".")[2]

    def note(self, line: str) -> None:
        """A line on how it goes: not on standard output, which may be for a program."""
        self.stderr.write(line, lambda text: text)
        self.stderr.flush()

    def confirm(self, question: str) -> None:
        """Raises `CommandError` unless somebody says yes."""
        self.stderr.write(f"{question} [y/N] ", lambda text: text, ending="")
        self.stderr.flush()
        answer = sys.stdin.readline() if sys.stdin is not None else ""
        if not answer:
            raise CommandError("Nobody answers; confirm with --no-input.")
        if answer.strip().lower() not in ("y", "yes"):
            raise CommandError("Not confirmed; nothing was changed.")


def positive(text: str) -> int:
    """For `type=`: a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r}: give a whole number above 0")
    return int(text)
