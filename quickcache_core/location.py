"""Which store a location names: the scope, and where in it."""

from __future__ import annotations

import os
from typing import Final, Literal, NamedTuple

from quickcache_core.errors import ConfigError

_LATER: Final = ("redis", "rediss", "unix", "valkey", "valkeys")
_ACCEPTED: Final = "use '', a name, 'memory://name', or 'shared://' and the absolute path of a directory"


class Location(NamedTuple):
    scope: Literal["memory", "shared"]
    name: str
    """In scope `memory` the name of a store that is shared in this process, or nothing for one of one's own;
    in scope `shared` the path of a directory.
    """


def read_location(location: object) -> Location:
    """Raises `ConfigError`."""
    if not isinstance(location, str):
        raise ConfigError("location", location, f"give a string: {_ACCEPTED}")
    scheme, separator, rest = location.partition("://")
    if not separator:
        return Location("memory", location)
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
    if scheme in _LATER:
        raise ConfigError("location", location, f"scope {scheme}:// is not part of this version; {_ACCEPTED}")
    raise ConfigError("location", location, f"unknown scheme; {_ACCEPTED}")
