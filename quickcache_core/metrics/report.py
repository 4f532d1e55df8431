"""What the commands of both adapters show and do, as data for programs; `tables` makes text of it.

Each running worker is a row of its own. Those that have ended are one row, and `totals` adds all up. A cache
that isn't published to other processes is that of the process that asks.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol, TypedDict

from quickcache_core.metrics.board import Reading, Worker
from quickcache_core.metrics.control import Cleared, Control
from quickcache_core.metrics.figures import StoreFigures
from quickcache_core.metrics.server import server_name
from quickcache_core.metrics.snapshot import MetricsSnapshot

_LOADED_AT = time.monotonic()


class ReportedConfig(Protocol):
    """The part of a cache's configuration that reports show."""

    @property
    def eviction_policy(self) -> object: ...


class ReportedCache(Protocol):
    """What a cache must answer to be reported; `QuickCache` does."""

    @property
    def config(self) -> ReportedConfig: ...

    @property
    def max_size(self) -> int: ...

    @property
    def control(self) -> Control | None: ...

    def metrics(self) -> MetricsSnapshot: ...

    def keys(self, prefix: str = "") -> Iterator[str]: ...

    def ttl(self, key: str) -> float | None: ...

    def delete_prefix(self, prefix: str) -> int: ...

    def size(self) -> int: ...

    def clear(self) -> None: ...

    def invalidate_tags(self, *tags: str) -> None: ...

    def tag_slots(self, *tags: str) -> list[int]: ...

    @property
    def generation_name(self) -> str | None: ...

    @property
    def key_head(self) -> str: ...


class Figures(TypedDict):
    """Counts since the store was made, and its size now. `hit_ratio` is None before the first get; `bytes`
    where nobody weighs entries.
    """

    hits: int
    misses: int
    hit_ratio: float | None
    gets: int
    sets: int
    ops_per_s: float
    entries: int
    max_entries: int
    bytes: int | None
    evictions: int
    expirations: int
    deletions: int
    failed_ops: int
    store_errors: int
    loads: int
    load_failures: int
    load_waits: int
    stale_hits: int


class WorkerFigures(Figures):
    """The figures of one process. `uptime_s`: seconds since it began to use the cache."""

    host: str
    """Nothing for the host that asks."""
    pid: int
    server: str
    uptime_s: float


class AliasFigures(TypedDict):
    alias: str
    location: str
    scope: str
    policy: str
    workers: list[WorkerFigures]
    totals: Figures
    retired: Figures | None
    """Totals of workers that have ended; None if none has, or nobody knows of them."""


class StatsReport(TypedDict):
    aliases: list[AliasFigures]
    notes: list[str]


class KeyRow(TypedDict):
    key: str
    ttl_s: float | None
    """Seconds left, of several workers the longest; None for an entry that never expires."""
    pids: list[int]
    """The workers that have it. Empty where all share their entries."""


class AliasKeys(TypedDict):
    alias: str
    location: str
    scope: str
    keys: list[KeyRow]
    truncated: bool
    """More keys match than `keys` lists."""
    workers: list[int]
    """Pids of those that were asked and have answered."""


class KeysReport(TypedDict):
    aliases: list[AliasKeys]
    notes: list[str]


class ClearedAlias(TypedDict):
    alias: str
    removed: int | None
    """Entries removed by the process that asked; None if nobody counts: of namespaces and tags."""
    workers: list[int]
    """Pids of those that have cleared."""
    silent: list[int]
    """Pids of those that haven't answered in time."""
    everywhere: bool
    """Whether there is nobody else to be told: all processes have the same entries."""
    note: str
    """What else there is to say."""


def worker_figures(cache: ReportedCache) -> WorkerFigures:
    """The row of the process that calls, for a cache that isn't published."""
    counts = cache.metrics()
    figures = StoreFigures(
        counts.hits,
        counts.misses,
        counts.sets,
        counts.failed_ops,
        counts.evictions,
        counts.expired_removals,
        counts.manual_deletions,
        counts.store_errors,
        counts.loads,
        counts.load_failures,
        counts.load_waits,
        counts.stale_hits,
        counts.current_total_keys,
        cache.max_size,
    )
    uptime = time.monotonic() - _LOADED_AT
    return _worker_row(Worker(os.getpid(), server_name(), uptime, figures, 0.0, 0, 0))


def add_up(
    rows: Sequence[Figures], *, ended: Figures | None = None, size: StoreFigures | None = None
) -> Figures:
    """The sum of rows, of which those that have entries share nothing; with `size`, they all share a store of
    this size. `ended`: totals of workers that have no entries any more.

    The sum of `bytes` is None if one of the rows weighs nothing, or there is none.
    """
    counted = [*rows, ended] if ended else rows
    counts: dict[str, Any] = {name: sum(row[name] for row in counted) for name in _SUMMED}  # type: ignore[literal-required]
    rate = counts.pop("ops_per_s")
    weights = [row["bytes"] for row in rows]
    weight = None if None in weights or not weights else sum(filter(None, weights))
    total = StoreFigures(**counts, bytes=weight)
    if size is not None:
        total = total._replace(entries=size.entries, max_entries=size.max_entries, bytes=size.bytes)
    return _row(total, rate)


_SUMMED = (*StoreFigures._fields[:-1], "ops_per_s")


def stats_report(
    caches: Iterable[tuple[str, str, ReportedCache]], *, everywhere: bool = False
) -> StatsReport:
    """Figures of caches given as (alias, location, cache); with `everywhere`, of the processes of all hosts.

    Aliases of one store repeat that store's figures. `everywhere` raises `StoreUnavailable`, and leaves a
    note for caches that one host has for itself.
    """
    aliases: list[AliasFigures] = []
    notes: dict[str, None] = {}
    for alias, location, cache in caches:
        size = None
        reading, note = _read_everywhere(alias, cache) if everywhere else _read(cache)
        if reading is None:
            workers, retired = [worker_figures(cache)], None
        else:
            workers = [_worker_row(worker) for worker in sorted(reading.workers, key=_place)]
            retired = _row(reading.ended) if reading.ended_workers else None
            size = cache.control.of_store() if cache.control and cache.control.shared_entries else None
        if note:
            notes[note] = None
        aliases.append(
            {
                "alias": alias,
                "location": location,
                "scope": _scope(cache),
                # What the settings say is about scope memory only.
                "policy": _policy(cache),
                "workers": workers,
                "totals": add_up(workers, ended=retired, size=size),
                "retired": retired,
            }
        )
    return {"aliases": aliases, "notes": list(notes)}


def process_report(caches: Iterable[tuple[str, str, ReportedCache]]) -> StatsReport:
    """As `stats_report`, with nothing but what this process has counted, whoever else uses the caches."""
    aliases: list[AliasFigures] = []
    for alias, location, cache in caches:
        own = worker_figures(cache)
        aliases.append(
            {
                "alias": alias,
                "location": location,
                "scope": _scope(cache),
                "policy": _policy_name(cache.config.eviction_policy),
                "workers": [own],
                "totals": add_up([own]),
                "retired": None,
            }
        )
    return {"aliases": aliases, "notes": []}


def keys_report(
    caches: Iterable[tuple[str, str, ReportedCache, str]], *, limit: int | None = None
) -> KeysReport:
    """Live keys of caches given as (alias, location, cache, prefix of the stored keys), at most `limit` per
    alias.

    Raises `ValueError` for a prefix that is too long to be told to other processes.
    """
    aliases: list[AliasKeys] = []
    notes: dict[str, None] = {}
    for alias, location, cache, prefix in caches:
        keys, truncated, workers, said = _keys(cache, prefix, limit)
        notes.update(dict.fromkeys(said))
        aliases.append(
            {
                "alias": alias,
                "location": location,
                "scope": _scope(cache),
                "keys": keys,
                "truncated": truncated,
                "workers": workers,
            }
        )
    return {"aliases": aliases, "notes": list(notes)}


def clear_everywhere(
    alias: str,
    cache: ReportedCache,
    prefix: str = "",
    *,
    part: ReportedCache | None = None,
    tags: Sequence[str] = (),
) -> ClearedAlias:
    """Remove the entries whose stored keys begin with `prefix` from all workers; with `part`, a namespace of
    the cache, all of that; with `tags`, those of the part, or of the cache, that carry one of them.

    Raises `ValueError` for a prefix or name that is too long to be told to other processes.
    """
    cleared, note, shared = None, memory_notes()[0], False
    if cache.control is not None:
        try:
            cleared, note = _commanded(cache.control, part or cache, prefix, tags), ""
            shared = cache.control.shared_entries
        except OSError as error:
            note = _only_here(error)
    if cleared is None:
        cleared = Cleared(_clear(part or cache, prefix, tags))
    return {
        "alias": alias,
        "removed": None if tags or part is not None else cleared.removed,
        "workers": list(cleared.obeyed),
        "silent": list(cleared.silent),
        "everywhere": shared,
        "note": note,
    }


def _commanded(control: Control, part: ReportedCache, prefix: str, tags: Sequence[str]) -> Cleared:
    if tags:
        return control.invalidate_tags(part.tag_slots(*tags))
    generation = part.generation_name
    if generation is not None:
        return control.clear_namespace(generation)
    return control.clear(part.key_head + prefix if prefix else "")


def _clear(cache: ReportedCache, prefix: str, tags: Sequence[str]) -> int:
    if tags:
        cache.invalidate_tags(*tags)
        return 0
    if prefix:
        return cache.delete_prefix(prefix)
    size = 0 if cache.generation_name else cache.size()
    cache.clear()
    return size


def memory_notes() -> list[str]:
    """What a reader must know of output on caches that aren't published."""
    return [f"Only this process (pid {os.getpid()}): the cache isn't published to others, see publish_as."]


def to_json(report: Mapping[str, Any]) -> str:
    return json.dumps(report, indent=2)


def _read(cache: ReportedCache) -> tuple[Reading | None, str]:
    """What is published, and what there is to say about it. None if nothing is."""
    if cache.control is None:
        return None, memory_notes()[0]
    try:
        return cache.control.read(), ""
    except OSError as error:
        return None, _only_here(error)


def _keys(
    cache: ReportedCache, prefix: str, limit: int | None
) -> tuple[list[KeyRow], bool, list[int], list[str]]:
    """Keys, whether there are more, which workers have answered, and what else there is to say."""
    notes = memory_notes()
    if cache.control is not None:
        try:
            found = cache.control.keys(cache.key_head + prefix if prefix else "", limit)
        except OSError as error:
            notes = [_only_here(error)]
        else:
            keys: list[KeyRow] = [
                {"key": one.key, "ttl_s": one.ttl_s, "pids": list(one.pids)} for one in found.keys
            ]
            said = [f"No answer from {_pids(found.silent)}: keys are missing here."] if found.silent else []
            if not (found.asked or found.silent or cache.control.shared_entries):
                said = ["No worker is running."]
            return keys, found.truncated, list(found.asked), said
    rows = _live_keys(cache, prefix)
    keys = list(rows if limit is None else islice(rows, limit))
    return keys, limit is not None and next(rows, None) is not None, [], notes


def _live_keys(cache: ReportedCache, prefix: str) -> Iterator[KeyRow]:
    for key in cache.keys(prefix):
        try:
            ttl = cache.ttl(key)
        except KeyError:  # it expired or was deleted since `keys` saw it
            continue
        yield {"key": key, "ttl_s": None if ttl is None else round(ttl, 3), "pids": [os.getpid()]}


def _place(worker: Worker) -> tuple[str, int]:
    return worker.host, worker.pid


def _worker_row(worker: Worker) -> WorkerFigures:
    return {
        "host": worker.host,
        "pid": worker.pid,
        "server": worker.server,
        "uptime_s": round(worker.uptime_s, 3),
        **_row(worker.figures, worker.ops_per_s),
    }


def _row(figures: StoreFigures, ops_per_s: float = 0.0) -> Figures:
    gets = figures.hits + figures.misses
    return {
        "hits": figures.hits,
        "misses": figures.misses,
        "hit_ratio": round(figures.hits / gets, 6) if gets else None,
        "gets": gets,
        "sets": figures.sets,
        "ops_per_s": round(ops_per_s, 3),
        "entries": figures.entries,
        "max_entries": figures.max_entries,
        "bytes": figures.bytes,
        "evictions": figures.evictions,
        "expirations": figures.expirations,
        "deletions": figures.deletions,
        "failed_ops": figures.failed_ops,
        "store_errors": figures.store_errors,
        "loads": figures.loads,
        "load_failures": figures.load_failures,
        "load_waits": figures.load_waits,
        "stale_hits": figures.stale_hits,
    }


def _read_everywhere(alias: str, cache: ReportedCache) -> tuple[Reading | None, str]:
    if cache.control is None or not cache.control.is_of_many_hosts:
        reading, note = _read(cache)
        return reading, note or f"{alias}: only this host has this cache."
    return cache.control.read_everywhere(), ""


def _scope(cache: ReportedCache) -> str:
    control = cache.control
    if control is None or not control.shared_entries:
        return "memory"
    return "redis" if control.is_of_many_hosts else "shared"


def _policy(cache: ReportedCache) -> str:
    # What the settings say is about scope memory only.
    own = {"shared": "clock", "redis": "the server's"}
    return own.get(_scope(cache)) or _policy_name(cache.config.eviction_policy)


def _only_here(error: OSError) -> str:
    return f"Only this process (pid {os.getpid()}): the figures of others can't be read ({error})."


def _pids(pids: Sequence[int]) -> str:
    return f"pid {', '.join(map(str, pids))}"


def _policy_name(policy: object) -> str:
    return policy if isinstance(policy, str) else getattr(policy, "__name__", type(policy).__name__)
