"""Which store a location names: the scope, and where in it."""

from __future__ import annotations

import os
from typing import Final, Literal, NamedTuple

from quickcache_core.checks import Hidden
from quickcache_core.errors import ConfigError
from quickcache_core.store.redis.address import EXAMPLES, Address, BadAddress, is_address, read_address

_ACCEPTED: Final = (
    "use '', a name, 'memory://name', 'shared://' and the absolute path of a directory, or 'redis://' and a "
    "host"
)


class Location(NamedTuple):
    scope: Literal["memory", "shared", "redis"]
    name: str
    """In scope `memory` the name of a store that is shared in this process, or nothing for one of one's own;
    in scope `shared` the path of a directory; in scope `redis` the servers, without a password.
    """
    address: Address | None = None
    """In scope `redis`."""


class ServerURLs(str):
    """The location of a store in scope `redis`. Its repr, which may end up in a log, has no password."""

    __slots__ = ()

    def __repr__(self) -> str:
        try:
            return repr(str(read_address(self)))
        except BadAddress:
            return "<URLs>"


def read_location(location: object) -> Location:
    """Raises `ConfigError`. Several servers may also be a list or a tuple of URLs."""
    text = joined(location)
    if not isinstance(text, str):
        raise ConfigError("location", location, f"give a string: {_ACCEPTED}")
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Location("memory", text)
    if scheme == "memory":
        return Location("memory", rest)
    if scheme == "shared":
        if not rest.startswith("/") or "\0" in rest or os.path.normpath(rest) == "/":
            raise ConfigError(
                "location",
                location,
                "give the absolute path of a directory, as in 'shared:///var/cache/shop'",
            )
        return Location("shared", os.path.normpath(rest))
    # A password doesn't belong in an error, which ends up in a log.
    harmless = Hidden(location) if "@" in text or "password" in text else location
    if not is_address(text):
        raise ConfigError("location", harmless, f"unknown scheme; {_ACCEPTED}")
    try:
        address = read_address(text)
    except BadAddress as error:
        raise ConfigError("location", harmless, f"{error}; give a URL such as {EXAMPLES}") from None
    return Location("redis", str(address), address)


def joined(location: object) -> object:
    """URLs of servers as one text that hides their password; what is something else, or wrong, as it is."""
    text = location
    if isinstance(location, list | tuple) and all(isinstance(one, str) for one in location):
        text = ",".join(location)
    return ServerURLs(text) if isinstance(text, str) and is_address(text) else location


def shown(location: object) -> str:
    """A location as it may be shown to everybody. Raises `ConfigError`."""
    found = read_location(location)
    return found.name if found.scope == "redis" else str(location)
