"""What the workers have asked of the cache so far."""

from __future__ import annotations

import os
from typing import Any

from django.core.cache import cache

from catalogue.queries import slow_queries


def figures_of_this_worker() -> dict[str, Any]:
    counts = cache.engine.get_metrics_snapshot()
    return {
        "pid": os.getpid(),
        "gets": counts["gets"],
        "hits": counts["hits"],
        "misses": counts["misses"],
        "hit_percent": round(100 * counts["hit_ratio"]),
        "sets": counts["sets"],
        "entries": counts["current_total_keys"],
        "max_entries": cache.engine.config.max_size,
    }


def figures_of_all_workers() -> dict[str, int]:
    """Of those that have ended as well. Each brings its own up to date at the end of a request."""
    read = cache.engine.control.read()
    all_figures = [read.ended, *(worker.figures for worker in read.workers)]
    return {
        "slow_queries": slow_queries(),
        "stale": sum(figures.stale_hits for figures in all_figures),
        "waits": sum(figures.load_waits for figures in all_figures),
        "failures": sum(figures.load_failures for figures in all_figures),
    }
