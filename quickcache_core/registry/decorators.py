"""Class decorators that give one's own eviction policy or serializer a name for the settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from quickcache_core.registry import Registry, eviction_policies, serializers

__all__ = ["register_eviction_policy", "register_serializer"]

C = TypeVar("C", bound=type)


def register_eviction_policy(name: str) -> Callable[[C], C]:
    """Make the class below usable as `eviction_policy=name`.

    Raises `TypeError` if it isn't derived from `BaseEvictionPolicy`, `ConfigError` if the name is taken.
    """
    return _register(eviction_policies, name)


def register_serializer(name: str) -> Callable[[C], C]:
    """Make the class below usable as `serializer=name`.

    Raises `TypeError` if it isn't derived from `BaseSerializer`, `ConfigError` if the name is taken.
    """
    return _register(serializers, name)


def _register(registry: Registry, name: str) -> Callable[[C], C]:
    def decorate(cls: C) -> C:
        registry.register(name, cls)
        return cls

    return decorate
