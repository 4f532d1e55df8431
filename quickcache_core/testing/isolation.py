"""Places of their own for the caches of a test: no other test, and no other process, has the same entries."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from typing import Any

from quickcache_core.cache import QuickCache
from quickcache_core.location import read_location


class Isolation:
    """For one test. Caches with one location have one here as well.

    Stays in the scope that is configured, so that what is tested is what runs later: a store in memory gets
    another name, one in files another directory, and one on a server another prefix.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._token = token_hex(6)

    def place(self, location: str, redis_prefix: str = "") -> dict[str, Any]:
        """The fields of the configuration that are to have other values. Raises `ConfigError`."""
        found = read_location(location)
        where = hashlib.blake2b(f"{location} {redis_prefix}".encode(), digest_size=6).hexdigest()
        if found.scope == "redis":
            return {"redis_prefix": f"test-{self._token}-{where}"}
        if found.scope == "shared":
            return {"location": f"shared://{self._directory.absolute() / where}"}
        # Not published: each name would leave a file behind.
        return {"location": f"memory://test {self._token} {where}", "publish_as": None}

    def cleaner(self, cache: QuickCache) -> Callable[[], None]:
        """What removes the entries, and lets go of the files, of a cache that was made in such a place."""

        def clean() -> None:
            found = read_location(cache.config.location)
            if found.scope == "redis":
                cache.clear()
            cache.stop()
            if found.scope == "shared":
                # Needs POSIX.
                from quickcache_core.store.shared.opening import shared_stores

                shared_stores.drop(found.name)
                shutil.rmtree(found.name, ignore_errors=True)

        return clean
