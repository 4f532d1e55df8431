"""The caches of an app by the names that commands and figures have for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask

from quickcache_core.location import shown

if TYPE_CHECKING:
    from quickcache_flask import QuickCache


def backends_of(app: Flask) -> dict[str, QuickCache]:
    """The QuickCache backends of an app as cache1, cache2 ..., in the order in which they were made."""
    made = app.extensions.get("cache")
    if not isinstance(made, dict) or not made:
        return {}
    # Not imported above: `flask` imports this module in every project, also where Flask-Caching is missing.
    from quickcache_flask.backend import QuickCache

    ours = [backend for backend in made.values() if isinstance(backend, QuickCache)]
    return {f"cache{number}": backend for number, backend in enumerate(ours, start=1)}


def location_of(backend: QuickCache) -> str:
    return shown(backend.engine.config.location)
