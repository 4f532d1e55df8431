"""What the figures mean, for the formats that carry a line of text with each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from quickcache_core.metrics.report import AliasFigures

COUNTERS: Final = {
    "hits": "Gets that found a live value.",
    "misses": "Gets that found none.",
    "sets": "Values stored.",
    "failed_ops": "Operations refused for what was or wasn't under the key.",
    "evictions": "Entries that had to make room.",
    "expirations": "Entries that left because their time was over.",
    "deletions": "Entries deleted or cleared.",
    "store_errors": "Operations that the store could not carry out.",
    "loads": "Calls of loaders.",
    "load_failures": "Calls of loaders that raised an error.",
    "load_waits": "Callers who waited for somebody else's load.",
    "stale_hits": "Values that were served after their TTL.",
}
GAUGES: Final[dict[str, tuple[str, Callable[[AliasFigures], Any]]]] = {
    "entries": (
        "Entries, expired ones that haven't left yet included.",
        lambda one: one["totals"]["entries"],
    ),
    "max_entries": ("Entries that there may be.", lambda one: one["totals"]["max_entries"]),
    "bytes": ("Estimated size of all entries.", lambda one: one["totals"]["bytes"]),
    "workers": ("Running processes that use the cache.", lambda one: len(one["workers"])),
}
"""Those whose value is None aren't shown."""
