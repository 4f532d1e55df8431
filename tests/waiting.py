"""Waiting for a file or socket, whatever its number: `select.select` takes none above 1023."""

from __future__ import annotations

import selectors
from typing import Any


def readable(file: Any, seconds: float) -> bool:
    """Whether there is something to read, or its end, within that time."""
    with selectors.DefaultSelector() as selector:
        selector.register(file, selectors.EVENT_READ)
        return bool(selector.select(seconds))
