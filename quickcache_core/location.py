"""Which store a location names: the scope, and where in it."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final, Literal, NamedTuple

from quickcache_core.errors import ConfigError, Hidden, safe_repr
from quickcache_core.moving import meant_elsewhere
from quickcache_core.store.redis.address import EXAMPLES, Address, BadAddress, is_address, read_address

_ACCEPTED: Final = (
    "use '', a name, 'memory://name', 'shared://' and the absolute path of a directory, or 'redis://' and a "
    "host"
)


_NEARLY_A_URL: Final = re.compile(r"\s*(redis|rediss|valkey|valkeys|unix|shared)(:/|//)", re.IGNORECASE)
_WITH_PASSWORD: Final = re.compile(r"(?![./~])(.*:.*@|.*[?&]password=)", re.DOTALL)


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
        meant = meant_elsewhere(location)
        raise ConfigError("location", _harmless(location), meant or f"give a string: {_ACCEPTED}")
    scheme, separator, rest = text.partition("://")
    if not separator:
        if _NEARLY_A_URL.match(text) or _WITH_PASSWORD.match(text):
            # As a name of a store it would be shown to everybody, and nothing would be shared.
            remedy = meant_elsewhere(text) or _ACCEPTED
            raise ConfigError("location", _harmless(location), f"no URL, for want of '://'; {remedy}")
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
    harmless = _harmless(location)
    if not is_address(text):
        raise ConfigError("location", harmless, f"unknown scheme; {_ACCEPTED}")
    try:
        address = read_address(text)
    except BadAddress as error:
        raise ConfigError("location", harmless, f"{error}; give a URL such as {EXAMPLES}") from None
    return Location("redis", str(address), address)


def _harmless(location: object) -> object:
    # A password doesn't belong in an error, which ends up in a log.
    text = location if isinstance(location, str) else safe_repr(location)
    return Hidden(location) if "@" in text or "password" in text else location


def check_directory(location: object) -> None:
    """Raises `ConfigError` for the location of a directory that scope `shared` will refuse, or where this
    process may not write. Makes nothing, so it may be asked before anything is used. Other scopes pass.
    """
    found = read_location(location)
    if found.scope != "shared":
        return
    from quickcache_core.store.shared.directory import check_own

    path = Path(found.name)
    try:
        if path.exists():
            check_own(path)
        there = _nearest_that_exists(path)
        if not there.is_dir():
            raise ConfigError("location", location, f"{there} is no directory; name another one")
        if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
            raise ConfigError(
                "location",
                location,
                f"user {os.geteuid()}, as whom this process runs, may not write into {there}; change its "
                "owner, or name another directory",
            )
    except OSError as error:
        raise ConfigError("location", location, f"{error}; name another directory") from error


def exposed_by(location: object) -> str | None:
    """The directory above that of a store in scope `shared` in which others may put another one in its place;
    None if there is none, and for other scopes. Raises `ConfigError`.
    """
    found = read_location(location)
    if found.scope != "shared":
        return None
    path = Path(found.name)
    for parent in path.parents:
        try:
            status = parent.stat()
        except OSError:
            continue
        # A group that is this process's own is commonly that of its user alone.
        open_to_others = status.st_mode & (0o002 if status.st_gid == os.getegid() else 0o022)
        # Where the sticky bit is set, as in /tmp, each has power over their own only. Still, what isn't there
        # yet can be made by anybody.
        if open_to_others and not (status.st_mode & stat.S_ISVTX and _nearest_that_exists(path) != parent):
            return str(parent)
        if status.st_uid not in (0, os.geteuid()):
            return str(parent)
    return None


def room_for(location: object) -> int:
    """Bytes of the file system that a directory is or will be on, used or not. Raises `ConfigError`,
    `OSError`.
    """
    status = os.statvfs(_nearest_that_exists(Path(read_location(location).name)))
    return status.f_frsize * status.f_blocks


def _nearest_that_exists(path: Path) -> Path:
    return next(one for one in (path, *path.parents) if one.exists())


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
