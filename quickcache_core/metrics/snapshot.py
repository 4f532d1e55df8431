"""The figures of a cache at one instant."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSnapshot:
    """Counts since the store was made or its metrics were reset, and what follows from them.

    The names are those of PyQuickCache 0.1.0. Ratios of nothing are 0.0.
    """

    hits: int = 0
    misses: int = 0
    sets: int = 0
    failed_ops: int = 0
    evictions: int = 0
    expired_removals: int = 0
    manual_deletions: int = 0
    store_errors: int = 0
    loads: int = 0
    load_failures: int = 0
    load_waits: int = 0
    stale_hits: int = 0
    current_valid_keys: int = 0
    peak_valid_keys: int = 0
    current_total_keys: int = 0
    peak_total_keys: int = 0

    @property
    def gets(self) -> int:
        """Always `hits + misses`."""
        return self.hits + self.misses

    @property
    def hit_ratio(self) -> float:
        """Between 0 and 1."""
        return _ratio(self.hits, self.gets)

    @property
    def miss_ratio(self) -> float:
        """Between 0 and 1."""
        return _ratio(self.misses, self.gets)

    @property
    def get_set_ratio(self) -> float:
        return _ratio(self.gets, self.sets)

    @property
    def eviction_rate(self) -> float:
        """Evictions per set."""
        return _ratio(self.evictions, self.sets)

    @property
    def expired_bloat(self) -> int:
        """Entries that have expired and haven't left yet."""
        return self.current_total_keys - self.current_valid_keys

    @property
    def waste_percentage(self) -> float:
        """Expired entries among all, between 0 and 100."""
        return 100.0 * _ratio(self.expired_bloat, self.current_total_keys)

    def as_dict(self) -> dict[str, int | float]:
        """All of it under the names of this class, for JSON and the like."""
        return asdict(self) | {name: getattr(self, name) for name in _DERIVED}


_DERIVED = (
    "gets",
    "hit_ratio",
    "miss_ratio",
    "get_set_ratio",
    "eviction_rate",
    "expired_bloat",
    "waste_percentage",
)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
