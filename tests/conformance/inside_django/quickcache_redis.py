"""The backend under test in scope `redis`: every LOCATION is a prefix of its own on one server."""

from __future__ import annotations

import os
import re
from typing import Any

import quickcache_django

URL = os.environ["CONFORMANCE_REDIS_URL"]


class QuickCache(quickcache_django.QuickCache):
    def __init__(self, location: str, params: dict[str, Any]) -> None:
        prefix = re.sub(r"[^A-Za-z0-9_.-]", "-", location or "default")
        options = {"REDIS_PREFIX": prefix, **params.get("OPTIONS", {})}
        super().__init__(URL, {**params, "OPTIONS": options})
