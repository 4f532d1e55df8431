"""What a key may be."""

from __future__ import annotations

from typing import Any

from quickcache_core.errors import InvalidKey


def check_key(key: Any) -> None:
    """Raises `InvalidKey` unless `key` is a string, of any length and content."""
    if not isinstance(key, str):
        raise InvalidKey(key)
