"""What a store counts."""

from __future__ import annotations


class Counters:
    """Plain integers since the store was made or `reset` was called.

    Hits and misses are not here but on the hot table, which counts them without a lock. Those of loads are
    counted without one too; the others change under the store's write lock only.
    """

    __slots__ = (
        "evictions",
        "expired_removals",
        "failed_ops",
        "load_failures",
        "load_waits",
        "loads",
        "manual_deletions",
        "peak_total_keys",
        "peak_valid_keys",
        "sets",
        "stale_hits",
        "store_errors",
    )

    sets: int
    """Values stored: set, add, update, set_many per key, incr."""
    failed_ops: int
    """Operations refused for what was or wasn't under the key: add, update, delete, touch, pop, incr."""
    evictions: int
    expired_removals: int
    manual_deletions: int
    """Entries deleted, popped or cleared."""
    loads: int
    """Calls of loaders."""
    load_failures: int
    """Those that raised an error."""
    load_waits: int
    """Callers who waited for somebody else's load."""
    stale_hits: int
    """Values that were served after their TTL."""
    store_errors: int
    """Operations that the store could not carry out. Always 0 in scope `memory`."""
    peak_total_keys: int
    peak_valid_keys: int
    """Most entries that weren't expired, as seen when entries come while none is due, expire, or are counted.
    """

    def __init__(self) -> None:
        self.reset(0)

    def reset(self, size: int) -> None:
        """Count from zero; the peaks begin at `size`."""
        for name in self.__slots__:
            setattr(self, name, 0)
        self.peak_total_keys = self.peak_valid_keys = size
