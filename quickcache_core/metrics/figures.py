"""The figures of one store in one process, and what a store must answer to have them published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from quickcache_core.metrics.counters import Counters


class StoreFigures(NamedTuple):
    """Counts since the store was made or its metrics were reset, and its size."""

    hits: int = 0
    misses: int = 0
    sets: int = 0
    failed_ops: int = 0
    evictions: int = 0
    expirations: int = 0
    deletions: int = 0
    store_errors: int = 0
    loads: int = 0
    load_failures: int = 0
    load_waits: int = 0
    stale_hits: int = 0
    entries: int = 0
    """Expired ones that haven't left yet included."""
    max_entries: int = 0
    bytes: int | None = None
    """Estimated; None where nobody weighs entries."""

    @classmethod
    def of(
        cls,
        counters: Counters,
        *,
        hits: int,
        misses: int,
        entries: int,
        max_entries: int,
        bytes: int | None = None,  # noqa: A002 - the field
    ) -> StoreFigures:
        """With what the store counted."""
        return cls(
            hits=hits,
            misses=misses,
            sets=counters.sets,
            failed_ops=counters.failed_ops,
            evictions=counters.evictions,
            expirations=counters.expired_removals,
            deletions=counters.manual_deletions,
            store_errors=counters.store_errors,
            loads=counters.loads,
            load_failures=counters.load_failures,
            load_waits=counters.load_waits,
            stale_hits=counters.stale_hits,
            entries=entries,
            max_entries=max_entries,
            bytes=bytes,
        )

    @property
    def counts(self) -> tuple[int, ...]:
        """Those that only grow, see `COUNTERS`."""
        return self[:12]

    @property
    def done(self) -> int:
        """Operations, of which rates tell how many there are in a second."""
        return self.hits + self.misses + self.sets + self.deletions


NOTHING: Final = StoreFigures()

COUNTERS: Final = StoreFigures._fields[:12]
"""The names of `StoreFigures.counts`."""


class KeyOfStore(NamedTuple):
    """A live key as it is stored."""

    key: str
    ttl_s: float | None
    """Seconds left; None for an entry without an end."""


class FigureSource(Protocol):
    """What a store shows of itself, and does on demand of another process. Any thread may call."""

    def figures(self) -> StoreFigures | None:
        """Cheap: asked after every request. None: the store is gone."""

    def measured(self) -> StoreFigures | None:
        """The same for a command, which waits until the sizes are known."""

    def counted(self) -> StoreFigures | None:
        """The same without sizes: what can be told without asking anybody, in a child that begins."""

    def clear(self, prefix: str) -> int:
        """Remove the entries whose stored keys begin with `prefix`, all for `""`; how many there were."""

    def keys(self, prefix: str, limit: int | None) -> Sequence[KeyOfStore]:
        """At most `limit` live keys that begin with `prefix`."""

    def next_generation(self, namespace: str) -> object:
        """Clear a namespace, by the name that its generation has in the store."""

    def invalidate_tags(self, slots: Sequence[int]) -> None:
        """Remove the entries that carry a tag of one of these slots."""
