"""Decorators."""

from quickcache_core.registry.decorators import register_eviction_policy, register_serializer

__all__ = ["register_eviction_policy", "register_serializer"]
