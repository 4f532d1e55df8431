"""Decorators: `cached` for functions, and names for eviction policies and serializers of one's own."""

from quickcache_core.decorators.cached_function import Bound, Cached, Decorator, cached
from quickcache_core.decorators.keys import Tags
from quickcache_core.decorators.place import (
    Loader,
    Missed,
    Place,
    check_options,
    fill_up,
    look_up,
    look_up_numbered,
    numbered,
)
from quickcache_core.registry.decorators import register_eviction_policy, register_serializer

__all__ = [
    "Bound",
    "Cached",
    "Decorator",
    "Loader",
    "Missed",
    "Place",
    "Tags",
    "cached",
    "check_options",
    "fill_up",
    "look_up",
    "look_up_numbered",
    "numbered",
    "register_eviction_policy",
    "register_serializer",
]
