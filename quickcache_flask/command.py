"""What the commands of `flask quickcache` have in common."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem
from flask import Flask, current_app
from flask.cli import AppGroup, FlaskGroup, ScriptInfo

from quickcache_core import QuickCacheError
from quickcache_core.location import read_location
from quickcache_flask.names import backends_of, location_of

if TYPE_CHECKING:
    from quickcache_flask import QuickCache


class CacheCommand(click.Command):
    """With errors that say what to do as one line; --traceback shows where they come from."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["--traceback"],
                is_flag=True,
                expose_value=False,
                callback=_remember_traceback,
                help="Show where an error comes from.",
            )
        )

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (QuickCacheError, OSError, click.ClickException) as error:
            if ctx.meta.get(_TRACEBACK):
                traceback.print_exc()
            if isinstance(error, click.ClickException):
                raise
            raise click.ClickException(str(error)) from error


_TRACEBACK = f"{__name__}.traceback"


def _remember_traceback(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    ctx.meta[_TRACEBACK] = wanted


class CacheGroup(AppGroup):
    command_class = CacheCommand


def _names_to_complete(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of the app's caches and their locations, for the shell; nothing where there is no app."""
    try:
        app = ctx.ensure_object(ScriptInfo).load_app()
        backends = backends_of(app)
    except Exception:
        # In the middle of a line there is no place for what is wrong.
        return []
    names = {name: location_of(backend) for name, backend in backends.items()}
    known = {**names, **{location: name for name, location in names.items() if location}}
    return [CompletionItem(name, help=what) for name, what in known.items() if name.startswith(incomplete)]


json_option = click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
cache_option = click.option(
    "--cache",
    "names",
    metavar="NAME",
    multiple=True,
    shell_complete=_names_to_complete,
    help="A cache by its name in the output (cache1) or its location, may be repeated; default: all.",
)


def chosen(app: Flask, names: tuple[str, ...]) -> dict[str, QuickCache]:
    """Those of `backends_of` that have one of these names or locations; all without names.

    Raises `ClickException`, which ends a command with exit code 1, if there are none.
    """
    backends = backends_of(app)
    if not backends:
        raise click.ClickException(
            f"The app {app.name!r} has no QuickCache: set CACHE_TYPE to 'quickcache_flask.QuickCache', "
            "and call Cache.init_app(app) where the app is made."
        )
    known = {*backends, *filter(None, map(location_of, backends.values()))}
    for name in names:
        if name not in known:
            raise click.ClickException(f"There is no cache {name!r}; there are: {', '.join(sorted(known))}.")
    if isinstance(click.get_current_context().find_root().command, FlaskGroup):
        # `flask quickcache ...` is a process of its own, no worker. Elsewhere a worker may run the command.
        for backend in backends.values():
            if backend.engine.control is not None:
                backend.engine.control.stay_out()
    return {
        name: backend
        for name, backend in backends.items()
        if not names or name in names or location_of(backend) in names
    }


def the_chosen(names: tuple[str, ...]) -> dict[str, QuickCache]:
    """As `chosen`, for commands that change a cache as a whole: all only if there is one, and none whose
    entries end with this process.
    """
    backends = chosen(current_app, names)
    if len(backends) > 1 and not names:
        raise click.UsageError(f"Choose with --cache; there are {', '.join(backends)}.")
    for name, backend in backends.items():
        check_scope(name, backend)
    return backends


def ends_with_process(backend: QuickCache) -> bool:
    """Whether the entries are those of a process that `flask quickcache` was started in, and no worker's."""
    own_process = isinstance(click.get_current_context().find_root().command, FlaskGroup)
    return own_process and read_location(location_of(backend)).scope == "memory"


def check_scope(name: str, backend: QuickCache) -> None:
    if ends_with_process(backend):
        raise click.ClickException(
            f"{name}: in scope memory each process has its own cache, and this one ends now. Call "
            "the engine's method where a worker starts, or use a shared:// location."
        )


def say(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


def note(line: str) -> None:
    """A line on how it goes: not on standard output, which may be for a program."""
    click.echo(line, err=True)


def confirm(text: str) -> None:
    click.echo(f"{text} [y/N] ", nl=False, err=True)
    answer = sys.stdin.readline()
    if not answer:
        raise click.ClickException("Nobody answers; confirm with --no-input.")
    if answer.strip().lower() not in ("y", "yes"):
        raise click.ClickException("Not confirmed; nothing was changed.")
