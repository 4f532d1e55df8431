"""The servers of a store in scope `redis`, as `check` looks at them."""

from __future__ import annotations

from collections.abc import Iterator

from quickcache_core.cache import QuickCache
from quickcache_core.commands.check import Finding, finding
from quickcache_core.errors import StoreUnavailable
from quickcache_core.location import Location
from quickcache_core.sizes import in_words


def look(cache: QuickCache, location: Location) -> Iterator[Finding]:
    """Asks over a connection of its own."""
    # Imports redis-py.
    from quickcache_core.store.redis.client import Client

    address = location.address
    if address is None:
        return
    client = Client(address, cache.config.redis_options)
    try:
        info = _read(client.call("INFO"))
    except StoreUnavailable as error:
        yield finding("server", str(error), "error")
        return
    finally:
        client.close()
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "of unknown version")
    mode = info.get("redis_mode") or info.get("server_mode", "mode unknown")
    yield finding("server", f"{name} {version}, {mode}")
    yield from _memory(info)


def _read(reply: bytes | str) -> dict[str, str]:
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else reply
    pairs = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, separator, value in pairs if separator}


def _memory(info: dict[str, str]) -> Iterator[Finding]:
    try:
        used, most = int(info["used_memory"]), int(info["maxmemory"])
    except (KeyError, ValueError):
        return
    policy = info.get("maxmemory_policy", "")
    if not most:
        says = (
            f"{in_words(used)} used, and no limit; set maxmemory and a maxmemory-policy such as allkeys-lru"
        )
        yield finding("memory", says, "warning")
    elif policy == "noeviction":
        says = (
            f"{in_words(used)} of {in_words(most)} used; when it is full, nothing is stored (noeviction): "
            "set a maxmemory-policy such as allkeys-lru"
        )
        yield finding("memory", says, "warning")
    else:
        yield finding("memory", f"{in_words(used)} of {in_words(most)} used, {policy}")
