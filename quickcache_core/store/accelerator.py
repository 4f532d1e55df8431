"""The hot table that stores use: the one in C where it was built, the reference in Python elsewhere."""

from __future__ import annotations

import os
from typing import Final

from quickcache_core.store import table

PURE_VARIABLE: Final = "QUICKCACHE_PURE"
"""The environment variable that refuses the table in C."""


def _in_c() -> dict[str, type[table.Table]] | None:
    if os.environ.get(PURE_VARIABLE, "0") not in ("", "0"):
        return None
    try:
        from quickcache_core.store import _table
    except ImportError:  # not built, or for another Python
        return None
    return {"counter": _table.Table, "order": _table.OrderedTable, "hook": _table.HookedTable}


_found: Final = _in_c()
ACCELERATED: Final = _found is not None
"""Whether the hot table is the one in C."""
TABLES: Final[dict[str, type[table.Table]]] = _found or table.TABLES
"""By `EvictionPolicy.recency`."""
