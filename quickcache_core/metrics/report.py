"""What the commands of both adapters show: figures and keys, as data for programs and as text for people.

The data is made for several workers: each worker is a row of its own and `totals` adds them up. Scope
`memory` has one row, because no process can look into the memory of another.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol, TypedDict

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

    def metrics(self) -> MetricsSnapshot: ...

    def keys(self, prefix: str = "") -> Iterator[str]: ...

    def ttl(self, key: str) -> float | None: ...


class Figures(TypedDict):
    """Counts since the store was made. `hit_ratio` is None before the first get."""

    hits: int
    misses: int
    hit_ratio: float | None
    gets: int
    sets: int
    entries: int
    max_entries: int
    evictions: int
    expirations: int
    deletions: int
    store_errors: int


class WorkerFigures(Figures):
    """The figures of one process. `uptime_s`: seconds since it loaded the cache."""

    pid: int
    uptime_s: float


class AliasFigures(TypedDict):
    alias: str
    location: str
    scope: str
    policy: str
    workers: list[WorkerFigures]
    totals: Figures
    retired: Figures | None
    """Totals of workers that have ended, where the scope can know of them."""


class StatsReport(TypedDict):
    aliases: list[AliasFigures]
    notes: list[str]


class KeyRow(TypedDict):
    key: str
    ttl_s: float | None
    """Seconds left; None for an entry that never expires."""


class AliasKeys(TypedDict):
    alias: str
    location: str
    scope: str
    keys: list[KeyRow]
    truncated: bool
    """More keys match than `keys` lists."""


class KeysReport(TypedDict):
    aliases: list[AliasKeys]
    notes: list[str]


def worker_figures(cache: ReportedCache) -> WorkerFigures:
    """The row of the process that calls."""
    counts = cache.metrics()
    return {
        "pid": os.getpid(),
        "uptime_s": round(time.monotonic() - _LOADED_AT, 3),
        "hits": counts.hits,
        "misses": counts.misses,
        "hit_ratio": _ratio(counts.hits, counts.gets),
        "gets": counts.gets,
        "sets": counts.sets,
        "entries": counts.current_total_keys,
        "max_entries": cache.max_size,
        "evictions": counts.evictions,
        "expirations": counts.expired_removals,
        "deletions": counts.manual_deletions,
        "store_errors": counts.store_errors,
    }


def add_up(workers: Iterable[Figures]) -> Figures:
    """The sum of rows of stores that share nothing, as processes in scope `memory`."""
    total: Figures = {
        "hits": 0,
        "misses": 0,
        "hit_ratio": None,
        "gets": 0,
        "sets": 0,
        "entries": 0,
        "max_entries": 0,
        "evictions": 0,
        "expirations": 0,
        "deletions": 0,
        "store_errors": 0,
    }
    for row in workers:
        total["hits"] += row["hits"]
        total["misses"] += row["misses"]
        total["gets"] += row["gets"]
        total["sets"] += row["sets"]
        total["entries"] += row["entries"]
        total["max_entries"] += row["max_entries"]
        total["evictions"] += row["evictions"]
        total["expirations"] += row["expirations"]
        total["deletions"] += row["deletions"]
        total["store_errors"] += row["store_errors"]
    total["hit_ratio"] = _ratio(total["hits"], total["gets"])
    return total


def stats_report(caches: Iterable[tuple[str, str, ReportedCache]]) -> StatsReport:
    """Figures of caches given as (alias, location, cache).

    Aliases of one store repeat that store's figures.
    """
    aliases: list[AliasFigures] = []
    for alias, location, cache in caches:
        workers = [worker_figures(cache)]
        aliases.append(
            {
                "alias": alias,
                "location": location,
                "scope": "memory",
                "policy": _policy_name(cache.config.eviction_policy),
                "workers": workers,
                "totals": add_up(workers),
                "retired": None,
            }
        )
    return {"aliases": aliases, "notes": memory_notes()}


def keys_report(
    caches: Iterable[tuple[str, str, ReportedCache, str]], *, limit: int | None = None
) -> KeysReport:
    """Live keys of caches given as (alias, location, cache, prefix of the stored keys), at most `limit` per
    alias.
    """
    aliases: list[AliasKeys] = []
    for alias, location, cache, prefix in caches:
        rows = _live_keys(cache, prefix)
        keys = list(rows if limit is None else islice(rows, limit))
        aliases.append(
            {
                "alias": alias,
                "location": location,
                "scope": "memory",
                "keys": keys,
                "truncated": limit is not None and next(rows, None) is not None,
            }
        )
    return {"aliases": aliases, "notes": memory_notes()}


def memory_notes() -> list[str]:
    """What a reader must know about any output on caches of scope `memory`."""
    pid = os.getpid()
    return [
        f"Scope memory: the cache of this process (pid {pid}); every worker has its own, unseen by others."
    ]


def to_json(report: Mapping[str, Any]) -> str:
    return json.dumps(report, indent=2)


def stats_table(report: StatsReport) -> str:
    """For each alias one line per worker, and a line of totals where there are several."""
    blocks: list[str] = []
    for alias in report["aliases"]:
        rows = [_figure_cells(str(row["pid"]), _duration(row["uptime_s"]), row) for row in alias["workers"]]
        if alias["retired"] is not None:
            rows.append(_figure_cells("ended", "", alias["retired"]))
        if len(rows) > 1:
            rows.append(_figure_cells("total", "", alias["totals"]))
        blocks.append(f"{_heading(alias)}, policy {alias['policy']}\n{_table(_FIGURE_HEADS, rows)}")
    return "\n\n".join([*blocks, *report["notes"]])


def keys_table(report: KeysReport) -> str:
    """For each alias its keys with the time they have left."""
    blocks: list[str] = []
    for alias in report["aliases"]:
        rows = [(_printable(row["key"]), _ttl_cell(row["ttl_s"])) for row in alias["keys"]]
        text = _table(("key", "expires in"), rows) if rows else "no keys"
        if alias["truncated"]:
            text += f"\nonly the first {len(rows)} are shown"
        blocks.append(f"{_heading(alias)}\n{text}")
    return "\n\n".join([*blocks, *report["notes"]])


_FIGURE_HEADS = (
    "pid",
    "uptime",
    "gets",
    "hits",
    "misses",
    "hit ratio",
    "sets",
    "entries",
    "limit",
    "evicted",
    "expired",
    "deleted",
    "errors",
)


def _figure_cells(name: str, uptime: str, row: Figures) -> tuple[str, ...]:
    ratio = row["hit_ratio"]
    counts = (row["evictions"], row["expirations"], row["deletions"], row["store_errors"])
    return (
        name,
        uptime,
        *(str(row["gets"]), str(row["hits"]), str(row["misses"])),
        "-" if ratio is None else f"{ratio:.1%}",
        *(str(row["sets"]), str(row["entries"]), str(row["max_entries"])),
        *map(str, counts),
    )


def _ttl_cell(ttl_s: float | None) -> str:
    return "never" if ttl_s is None else _duration(ttl_s)


def _live_keys(cache: ReportedCache, prefix: str) -> Iterator[KeyRow]:
    for key in cache.keys(prefix):
        try:
            ttl = cache.ttl(key)
        except KeyError:  # it expired or was deleted since `keys` saw it
            continue
        yield {"key": key, "ttl_s": None if ttl is None else round(ttl, 3)}


def _ratio(hits: int, gets: int) -> float | None:
    return round(hits / gets, 6) if gets else None


def _policy_name(policy: object) -> str:
    return policy if isinstance(policy, str) else getattr(policy, "__name__", type(policy).__name__)


def _heading(alias: AliasFigures | AliasKeys) -> str:
    return f"{alias['alias']}: {_printable(alias['location']) or 'no location'}, scope {alias['scope']}"


def _printable(text: str) -> str:
    # Keys are often made of what visitors send: escape sequences in them must not reach a terminal.
    return text if text.isprintable() else ascii(text)[1:-1]


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, whole = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours}:{minutes:02}:{whole:02}"
    return f"{days} d {clock}" if days else clock


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [_line(row, widths) for row in (heads, *rows)]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])
