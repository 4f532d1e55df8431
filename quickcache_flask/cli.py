"""`flask quickcache stats`, `clear`, `keys`: the caches of the app, as running workers have them; `warm`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from flask import Flask, current_app
from flask.cli import AppGroup, FlaskGroup

from quickcache_core import MISSING, CacheLoadError
from quickcache_core.loading.warm_command import Contents, contents_of, function_at, warm_and_show
from quickcache_core.location import read_location, shown
from quickcache_core.metrics.prometheus import to_prometheus
from quickcache_core.metrics.report import StatsReport, clear_everywhere, keys_report, stats_report, to_json
from quickcache_core.metrics.tables import keys_table, stats_table
from quickcache_core.metrics.watch import WATCH_INTERVAL, watch

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
@click.option("--prometheus", "as_prometheus", is_flag=True, help="In Prometheus's text format.")
@click.option(
    "--watch",
    "interval",
    is_flag=False,
    flag_value=WATCH_INTERVAL,
    type=click.FloatRange(0.05, 86_400),
    metavar="[SECONDS]",
    help=f"Again and again, until Ctrl-C; default: every {WATCH_INTERVAL:g} seconds.",
)
@click.option("--count", type=click.IntRange(min=1), help="With --watch: so many times.")
@cache_option
def stats(
    as_json: bool, as_prometheus: bool, interval: float | None, count: int | None, names: tuple[str, ...]
) -> None:
    """Show hits, misses, entries and evictions of each worker."""
    if as_json + as_prometheus + (interval is not None) > 1:
        raise click.UsageError("--json, --prometheus and --watch exclude each other.")
    caches = [
        (name, location_of(backend), backend.engine) for name, backend in chosen(current_app, names).items()
    ]

    def make_report() -> StatsReport:
        return stats_report(caches)

    if interval is not None:
        watch(make_report, click.echo, interval=interval, count=count)
    elif as_prometheus:
        try:
            click.echo(to_prometheus(make_report()), nl=False)
        except ImportError as error:
            raise click.ClickException(f"--prometheus: {error}") from error
    else:
        click.echo((to_json if as_json else stats_table)(make_report()))


@quickcache.command()
@click.option("--prefix", default="", help="Only keys that begin so.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many per cache."
)
@json_option
@cache_option
def keys(prefix: str, limit: int, as_json: bool, names: tuple[str, ...]) -> None:
    """List the live keys of all workers, as stored, and the time they have left."""
    caches = [
        (name, location_of(backend), backend.engine, backend.key_prefix + prefix)
        for name, backend in chosen(current_app, names).items()
    ]
    try:
        report = keys_report(caches, limit=limit)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    click.echo(to_json(report) if as_json else keys_table(report))


@quickcache.command()
@click.option("--prefix", default="", help="Only keys that begin so.")
@cache_option
def clear(prefix: str, names: tuple[str, ...]) -> None:
    """Remove entries in all workers; of a store that apps share, those with the app's CACHE_KEY_PREFIX."""
    for name, backend in chosen(current_app, names).items():
        try:
            lines = clear_everywhere(name, backend.engine, backend.key_prefix + prefix)
        except ValueError as error:
            raise click.ClickException(f"{name}: {error}") from error
        for line in lines:
            click.echo(line)


@quickcache.command()
@click.argument("function", metavar="[MODULE:FUNCTION]", required=False)
@click.option(
    "--backup",
    type=click.Path(path_type=Path),
    help="A file that backup or save_to_disk wrote, or a directory of backups: the newest. Its entries have "
    "the time they had left.",
)
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, help="That call the loader."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    help="In seconds; default: that of the cache.",
)
@click.option("--overwrite", is_flag=True, help="Also what is there; default: it is left as it is.")
@cache_option
def warm(
    function: str | None,
    backup: Path | None,
    threads: int,
    timeout: float | None,
    overwrite: bool,
    names: tuple[str, ...],
) -> None:
    """Fill caches before anybody asks: with what a function gives, or from a backup.

    FUNCTION gives a mapping, (key, value) pairs, or (keys, loader), where loader(key) gives a value; keys as
    the app writes them. Scope memory is filled in this process only.
    """
    if (function is None) == (backup is None):
        raise click.UsageError("Give a function, as in shop.warming:products, or --backup FILE.")
    failed = 0
    try:
        backends = chosen(current_app, names)
        if len(backends) > 1 and not names:
            raise click.UsageError(f"Choose with --cache; there are {', '.join(backends)}.")
        for name, backend in backends.items():
            _check_scope(name, backend)
            contents = Contents(backup, None, None)
            if function is not None:
                contents = _as_stored(backend, contents_of(function_at(function)))
            warmed = warm_and_show(
                name,
                backend.engine,
                contents,
                click.echo,
                ttl_sec=backend._default_ttl if timeout is None and function is not None else timeout,
                threads=threads,
                overwrite=overwrite,
                # Those of a backup are as the engine has them.
                key_of=None if function is None else backend._stored_key,
            )
            failed += warmed.failed
    except (ValueError, CacheLoadError) as error:
        raise click.ClickException(str(error)) from error
    if failed:
        raise click.ClickException(f"{failed} keys failed.")


def _as_stored(backend: QuickCache, contents: Contents) -> Contents:
    """With values as the backend hands them to the engine, where it has a serializer of its own."""
    if not backend._serializes:
        return contents
    source, loader, total = contents
    if loader is None:
        return Contents(((key, _serialized(backend, value)) for key, value in source), None, total)
    return Contents(source, lambda key: _serialized(backend, loader(key)), total)


def _serialized(backend: QuickCache, value: Any) -> Any:
    data = backend._serialized(value)
    return MISSING if data is None else data


def _check_scope(name: str, backend: QuickCache) -> None:
    own_process = isinstance(click.get_current_context().find_root().command, FlaskGroup)
    if own_process and read_location(location_of(backend)).scope == "memory":
        raise click.ClickException(
            f"{name}: in scope memory each process has its own cache, and this one ends now. Call "
            "engine.warm(...) where a worker starts, or use a shared:// location."
        )


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


def location_of(backend: QuickCache) -> str:
    return shown(backend.engine.config.location)
