"""`flask quickcache`: what the caches of the app hold in the running workers, backups, warming, a check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from flask import current_app

from quickcache_core import MISSING, CacheLoadError
from quickcache_core.commands.backups import (
    back_up,
    backup_line,
    chosen_backup,
    question,
    restore_backup,
    restored_line,
)
from quickcache_core.commands.check import CheckReport, check_alias, check_lines, problems
from quickcache_core.loading.warm_command import (
    Contents,
    contents_of,
    function_at,
    warm_and_show,
    warmed_lines,
    warmed_row,
)
from quickcache_core.location import read_location
from quickcache_core.metrics.prometheus import to_prometheus
from quickcache_core.metrics.report import StatsReport, clear_everywhere, keys_report, stats_report, to_json
from quickcache_core.metrics.tables import cleared_lines, keys_table, stats_table
from quickcache_core.metrics.watch import WATCH_INTERVAL, watch
from quickcache_flask.command import (
    CacheGroup,
    cache_option,
    check_scope,
    chosen,
    confirm,
    ends_with_process,
    json_option,
    note,
    say,
    the_chosen,
)
from quickcache_flask.conf import doubts_of_secrets
from quickcache_flask.names import location_of

if TYPE_CHECKING:
    from quickcache_flask import QuickCache


quickcache = CacheGroup("quickcache", help="Show, clear, fill, save and check what the app's caches hold.")


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
@click.option("--cluster", is_flag=True, help="Of all hosts that share a cache in scope redis.")
@cache_option
def stats(
    as_json: bool,
    as_prometheus: bool,
    interval: float | None,
    count: int | None,
    cluster: bool,
    names: tuple[str, ...],
) -> None:
    """Show hits, misses, entries and evictions of each worker."""
    if as_json + as_prometheus + (interval is not None) > 1:
        raise click.UsageError("--json, --prometheus and --watch exclude each other.")
    caches = [
        (name, location_of(backend), backend.engine) for name, backend in chosen(current_app, names).items()
    ]

    def make_report() -> StatsReport:
        return stats_report(caches, everywhere=cluster)

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
@click.option("--namespace", metavar="NAME", help="Only the namespace of this name, in constant time.")
@click.option(
    "--tag",
    "tags",
    metavar="TAG",
    multiple=True,
    help="Only entries that carry this tag, may be repeated; with --namespace, those in it.",
)
@json_option
@cache_option
def clear(
    prefix: str, namespace: str | None, tags: tuple[str, ...], as_json: bool, names: tuple[str, ...]
) -> None:
    """Remove entries in all workers; of a store that apps share, those with the app's CACHE_KEY_PREFIX."""
    if prefix and (namespace is not None or tags):
        raise click.UsageError("--prefix excludes --namespace and --tag.")
    rows = []
    for name, backend in chosen(current_app, names).items():
        try:
            part = backend if namespace is None else backend.namespace(namespace)
            rows.append(
                clear_everywhere(
                    name,
                    backend.engine,
                    backend.key_prefix + prefix,
                    part=None if namespace is None else part.engine,
                    tags=part._own_tags(tags),
                )
            )
        except ValueError as error:
            raise click.ClickException(f"{name}: {error}") from error
        if not as_json:
            say(cleared_lines(rows[-1]))
    if as_json:
        click.echo(to_json({"aliases": rows}))


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
@json_option
@cache_option
def warm(
    function: str | None,
    backup: Path | None,
    threads: int,
    timeout: float | None,
    overwrite: bool,
    as_json: bool,
    names: tuple[str, ...],
) -> None:
    """Fill caches before anybody asks: with what a function gives, or from a backup.

    FUNCTION gives a mapping, (key, value) pairs, or (keys, loader), where loader(key) gives a value; keys as
    the app writes them. Scope memory is filled in this process only.
    """
    if (function is None) == (backup is None):
        raise click.UsageError("Give a function, as in shop.warming:products, or --backup FILE.")
    failed, rows = 0, []
    backends = the_chosen(names)
    try:
        for name, backend in backends.items():
            contents = Contents(backup, None, None)
            if function is not None:
                contents = _as_stored(backend, contents_of(function_at(function)))
            warmed = warm_and_show(
                name,
                backend.engine,
                contents,
                note,
                ttl_sec=backend._default_ttl if timeout is None and function is not None else timeout,
                threads=threads,
                overwrite=overwrite,
                # Those of a backup are as the engine has them.
                key_of=None if function is None else backend._stored_key,
            )
            failed += warmed.failed
            rows.append(warmed_row(name, warmed))
            if not as_json:
                say(warmed_lines(name, warmed))
    except (ValueError, CacheLoadError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(to_json({"aliases": rows}))
    if failed:
        raise click.ClickException(f"{failed} keys failed.")


@quickcache.command()
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the folders of the caches are; default: storage_dir.",
)
@json_option
@cache_option
def backup(directory: Path | None, as_json: bool, names: tuple[str, ...]) -> None:
    """Write all entries into a file with the time in its name, in a folder for each cache.

    Scope memory: only those of this process.
    """
    backends = chosen(current_app, names)
    kept = {name: backend for name, backend in backends.items() if not ends_with_process(backend)}
    for name, backend in backends.items():
        if name not in kept:
            if names or not kept:
                check_scope(name, backend)
            note(f"{name}: left out, since in scope memory each process has its own cache")
    rows = []
    for name, backend in kept.items():
        rows.append(back_up(name, backend.engine, directory, note))
        if not as_json:
            click.echo(backup_line(rows[-1]))
    if as_json:
        click.echo(to_json({"aliases": rows}))


@quickcache.command()
@click.argument("source", metavar="[FILE]", type=click.Path(path_type=Path), required=False)
@click.option("--no-input", "--yes", "-y", "sure", is_flag=True, help="Don't ask.")
@json_option
@cache_option
def restore(source: Path | None, sure: bool, as_json: bool, names: tuple[str, ...]) -> None:
    """Replace the entries of a cache by those of a backup, whose time went on meanwhile.

    FILE may be a directory: the newest backup in it, in the cache's folder if there is one. Default: the
    newest where `backup` puts them. Scope memory: only those of this process.
    """
    # All files first: who forgot one should not end up with half of it done.
    found = [
        (name, backend.engine, chosen_backup(name, backend.engine, source))
        for name, backend in the_chosen(names).items()
    ]
    if not sure:
        for each in found:
            confirm(question(*each))
    rows = []
    for name, engine, which in found:
        rows.append(restore_backup(name, engine, which, note))
        if not as_json:
            click.echo(restored_line(rows[-1]))
    if as_json:
        click.echo(to_json({"aliases": rows}))


@quickcache.command()
@json_option
@cache_option
def check(as_json: bool, names: tuple[str, ...]) -> None:
    """Check settings and stores: who owns the files, whether there is room, whether an entry can be stored.

    Shows every option in force, and where it was set. Ends with 1 if something is wrong.
    """
    report: CheckReport = {
        "aliases": [
            check_alias(name, backend.engine, _sources(backend), _same, _doubts(backend))
            for name, backend in chosen(current_app, names).items()
        ]
    }
    if as_json:
        click.echo(to_json(report))
    else:
        say(check_lines(report))
    if count := problems(report):
        raise click.ClickException(f"{count} problem{'' if count == 1 else 's'} found.")


def _doubts(backend: QuickCache) -> tuple[str, ...]:
    config = backend.engine.config
    signs = config.serializer == "pickle" and not backend._serializes and "secret" not in backend.given_as
    if not signs or read_location(location_of(backend)).scope == "memory":
        return backend.doubts
    return (*backend.doubts, *doubts_of_secrets(current_app))


def _sources(backend: QuickCache) -> dict[str, str]:
    """Where each field of the core was set."""
    own = "default of quickcache_flask"
    sources = {
        **dict.fromkeys(("isolation", "serializer", "immutable_types", "background_context"), own),
        "max_size": "default of CACHE_THRESHOLD",
        "default_ttl": "default of CACHE_DEFAULT_TIMEOUT",
        "publish_as": "made of the app's name, its folder and the location",
        "secret": "app.secret_key",
        "secret_fallbacks": "SECRET_KEY_FALLBACKS",
        **backend.given_as,
    }
    if read_location(location_of(backend)).scope != "memory":
        del sources["publish_as"]
    return sources


def _same(field: str) -> str:
    return field


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
