"""What this worker has asked of the cache so far."""

from __future__ import annotations

import os
from typing import Any

from notes.cached import cache


def figures_of_this_worker() -> dict[str, Any]:
    counts = cache.cache.engine.get_metrics_snapshot()
    return {
        "pid": os.getpid(),
        "gets": counts["gets"],
        "hits": counts["hits"],
        "misses": counts["misses"],
        "hit_percent": round(100 * counts["hit_ratio"]),
        "sets": counts["sets"],
        "entries": counts["current_total_keys"],
        "max_entries": cache.cache.engine.config.max_size,
    }
