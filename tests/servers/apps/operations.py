"""What the apps do on demand, and the answer: the same for both frameworks."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

ENTRIES_LIVE = 600
"""Seconds; longer than a test."""


def answer(result: object) -> dict[str, Any]:
    return {"pid": os.getpid(), "result": result}


def hold(asked: Mapping[str, str]) -> None:
    """Be busy for as many milliseconds as the request says, so that other workers take the next ones."""
    # Not sleep: servers with an event loop would take the next request meanwhile.
    end = time.perf_counter() + float(asked.get("hold", 0)) / 1000
    while time.perf_counter() < end:
        pass
