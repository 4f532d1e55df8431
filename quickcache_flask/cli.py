"""`flask quickcache stats`, `clear`, `keys`: the caches of the app, as the command's own process has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from flask import Flask, current_app
from flask.cli import AppGroup

from quickcache_core.metrics.report import (
    keys_report,
    keys_table,
    memory_notes,
    stats_report,
    stats_table,
    to_json,
)

if TYPE_CHECKING:
    from quickcache_flask import QuickCache

quickcache = AppGroup("quickcache", help="Show and clear what the app's caches hold.")

json_option = click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
cache_option = click.option(
    "--cache",
    "names",
    metavar="NAME",
    multiple=True,
    help="A cache by its name in the output (cache1) or its location, may be repeated; default: all.",
)


@quickcache.command()
@json_option
@cache_option
def stats(as_json: bool, names: tuple[str, ...]) -> None:
    """Show hits, misses, entries and evictions."""
    report = stats_report(
        (name, location_of(backend), backend.engine) for name, backend in chosen(current_app, names).items()
    )
    click.echo(to_json(report) if as_json else stats_table(report))


@quickcache.command()
@click.option("--prefix", default="", help="Only keys that begin so.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many per cache."
)
@json_option
@cache_option
def keys(prefix: str, limit: int, as_json: bool, names: tuple[str, ...]) -> None:
    """List the live keys, as stored, and the time they have left."""
    report = keys_report(
        (
            (name, location_of(backend), backend.engine, backend.key_prefix + prefix)
            for name, backend in chosen(current_app, names).items()
        ),
        limit=limit,
    )
    click.echo(to_json(report) if as_json else keys_table(report))


@quickcache.command()
@cache_option
def clear(names: tuple[str, ...]) -> None:
    """Remove all entries; of a store that apps share, those with the app's CACHE_KEY_PREFIX."""
    for name, backend in chosen(current_app, names).items():
        before = backend.engine.size()
        backend.clear()
        removed = before - backend.engine.size()
        click.echo(f"{name}: {removed} {'entry' if removed == 1 else 'entries'} removed")
    for note in memory_notes():
        click.echo(note)


def backends_of(app: Flask) -> dict[str, QuickCache]:
    """The QuickCache backends of an app as cache1, cache2 ..., in the order in which they were made."""
    made = app.extensions.get("cache")
    if not isinstance(made, dict) or not made:
        return {}
    # Not imported above: `flask` imports this module in every project, also where Flask-Caching is missing.
    from quickcache_flask.backend import QuickCache

    ours = [backend for backend in made.values() if isinstance(backend, QuickCache)]
    return {f"cache{number}": backend for number, backend in enumerate(ours, start=1)}


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
    return {
        name: backend
        for name, backend in backends.items()
        if not names or name in names or location_of(backend) in names
    }


def location_of(backend: QuickCache) -> str:
    return backend.engine.config.location
