"""The backend under test in scope `shared`: every LOCATION is a directory of its own."""

from __future__ import annotations

import os
from typing import Any

import quickcache_django

DIRECTORY = os.environ["CONFORMANCE_DIRECTORY"]


class QuickCache(quickcache_django.QuickCache):
    def __init__(self, location: str, params: dict[str, Any]) -> None:
        options = {"MAX_BYTES": "16MB", **params.get("OPTIONS", {})}
        super().__init__(f"shared://{DIRECTORY}/{location or 'default'}", {**params, "OPTIONS": options})
