"""What has to be true before a store in scope `redis` is made. Imports what it needs where it needs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quickcache_core.errors import ConfigError, Hidden
from quickcache_core.store.redis.address import Address


def check_redis_scope(address: Address, options: Mapping[str, Any]) -> None:
    """Raises `ConfigError` where the scope can't work, with the line that installs what is missing, and where
    redis-py doesn't accept an option. Asks no server.
    """
    try:
        import greenlet  # noqa: F401
        import redis  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "location",
            f"{address.scheme}://…",
            f"this needs redis and greenlet ({error}): pip install 'quickcache-web[redis]'",
        ) from error
    from quickcache_core.store.redis.wiring import Wiring, refusal

    for field, names in (("location", dict(address.query)), ("redis_options", options)):
        for name in names:
            remedy = refusal(name)
            if remedy:
                raise ConfigError(field, Hidden(options), f"{name}: {remedy}")
    limit = options.get("max_connections")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise ConfigError("redis_options", Hidden(options), "max_connections: give an integer of at least 1")
    try:
        Wiring(address, options).try_out()
    except Exception as error:
        # Not chained: what redis-py quotes may be a password.
        raise ConfigError("redis_options", Hidden(options), f"redis-py refuses them: {error}") from None
