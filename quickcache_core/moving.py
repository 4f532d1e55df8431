"""What those who come from another cache have in their settings, and what says it here.

`docs/moving.md` has the same for people; a test compares the two.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

_IN_URL: Final = "put it into the URL in {location}, as in 'redis://user:password@host:6379/0'"
_ARRANGED: Final = (
    "{location} says how the servers are arranged: '?cluster=true', '?sentinel=its-name-there', a list"
)
_REDIS_PY: Final = "leave it out: there is none, redis-py's own is used"
_DISKCACHE: Final = "leave it out: there is none, as a 'shared://' in {location} has no SQLite"


def _within(name: str) -> str:
    return f"give it as '{name}' in {{redis_options}}"


FORMER: Final[Mapping[str, str]] = {
    # Redis, with django-redis, Django and Flask-Caching
    "client_class": f"leave it out: there is none, {_ARRANGED}",
    "close_connection": "leave it out: there is none, connections stay open",
    "compressor": "leave it out: there is none, {compression} is for files of entries",
    "connection_factory": _REDIS_PY,
    "connection_pool_class": _REDIS_PY,
    "connection_pool_class_kwargs": "leave it out: there is none, {redis_options} has what connections take",
    "connection_pool_kwargs": "give what is in it, such as 'max_connections', in {redis_options}",
    "db": _IN_URL,
    "ignore_exceptions": "write {fail}: 'degrade', the default, for True, 'raise' for False",
    "max_connections": _within("max_connections"),
    "parser_class": _REDIS_PY,
    "password": f"{_IN_URL}, or {_within('password')}",
    "pickle_version": "leave it out: there is none, the newest protocol of this Python is used",
    "pool_class": _REDIS_PY,
    "redis_client_class": _REDIS_PY,
    "redis_client_kwargs": "give what is in it in {redis_options}",
    "redis_cluster": _ARRANGED,
    "redis_db": _IN_URL,
    "redis_host": _IN_URL,
    "redis_password": f"{_IN_URL}, or {_within('password')}",
    "redis_port": _IN_URL,
    "redis_sentinel_master": _ARRANGED,
    "redis_sentinel_password": f"{_within('sentinel_kwargs')}, a dictionary with a 'password'",
    "redis_sentinels": _ARRANGED,
    "redis_url": "write {location}",
    "sentinel_kwargs": _within("sentinel_kwargs"),
    "sentinels": _ARRANGED,
    "socket_connect_timeout": _within("socket_connect_timeout"),
    "socket_timeout": _within("socket_timeout"),
    "username": f"{_IN_URL}, or {_within('username')}",
    # Files, with Flask-Caching and diskcache
    "cull_limit": "leave it out: there is none, as many entries leave as have to",
    "database_timeout": _DISKCACHE,
    "dir": "write {location}: 'shared://' and the absolute path of a directory of its own",
    "file_hash_method": "leave it out: there is none, as entries have no files of their own",
    "mode": "leave it out: there is none, all files are for their owner only",
    "shards": _DISKCACHE,
    "size_limit": "write {max_bytes}",
    "statistics": "leave it out: there is none, figures are always kept",
    # memcached, with Flask-Caching
    "memcached_servers": "write {location}, with a Redis or Valkey server; memcached isn't used",
    # Flask-Caching's own, under another name than its own
    "default_timeout": "write {default_ttl}; CACHE_DEFAULT_TIMEOUT stays as it is",
    "key_prefix": "leave it out: there is none, and CACHE_KEY_PREFIX stays as it is",
    "threshold": "write {max_size}; CACHE_THRESHOLD stays as it is",
}
"""By an option's name elsewhere, without the `CACHE_` of Flask-Caching: the option here, in braces, or that
there is none, and why.
"""

WITHOUT_EFFECT: Final = (
    "CACHE_DIR",
    "CACHE_MEMCACHED_SERVERS",
    "CACHE_REDIS_CLUSTER",
    "CACHE_REDIS_DB",
    "CACHE_REDIS_HOST",
    "CACHE_REDIS_PASSWORD",
    "CACHE_REDIS_PORT",
    "CACHE_REDIS_SENTINELS",
    "CACHE_REDIS_SENTINEL_MASTER",
    "CACHE_REDIS_SENTINEL_PASSWORD",
    "CACHE_REDIS_URL",
)
"""Settings of Flask-Caching's that say where another type of cache is."""

IN_MEMORY: Final = (
    "looks like a path or an address, but without '://' it is the name of a store in memory, and each worker "
    "process has one of its own"
)
"""Of a location; `meant_elsewhere` says what to write."""

DJANGO_REDIS_SERIALIZERS: Final = "django_redis.serializers."

_WINDOWS = re.compile(r"[A-Za-z]:[/\\]|\.{0,2}\\")
_PATH = re.compile(r"\.{0,2}/|~[^/]*/")
_SOCKET = re.compile(r"unix:(/.*)", re.DOTALL)
_SERVER = re.compile(
    r"(?P<user>[^@]*@)?(?P<host>\[[\da-fA-F:.]+\]|[\w.-]+):(?P<port>\d{2,5})(?:[:/](?P<db>\d+))?"
)
_USUAL_PORTS = (range(6379, 6400), range(11211, 11221), range(26379, 26382))
"""Of Redis and Valkey, of memcached, of Sentinels."""
_OR_A_NAME = "; if it is a name, write 'memory://' before it"


def former_option(name: str, spelled: Callable[[str], str]) -> str | None:
    """What to do about an option of another cache; None if it is none of them.

    `spelled` turns the name of a field into the name of the setting.
    """
    meaning = FORMER.get(name.lower().removeprefix("cache_"))
    return meaning and re.sub(r"\{(\w+)\}", lambda field: spelled(field[1]), meaning)


def meant_elsewhere(location: object) -> str | None:
    """What to write instead of a location that looks like a place, and is the name of a store in memory: a
    path, or addresses of servers. These may be a list, which is no location at all. None for others.
    """
    if isinstance(location, list | tuple):
        return _servers(location) if all(isinstance(one, str) for one in location) else None
    if not isinstance(location, str) or "://" in location:
        return None
    found = _directory(location) or _servers([one.strip() for one in re.split("[,;]", location)])
    return found and found + _OR_A_NAME


def _directory(location: str) -> str | None:
    if _WINDOWS.match(location):
        return "for a directory that all workers share, write 'shared://' and its absolute path, on Linux"
    if _PATH.match(location):
        try:
            path = Path(location).expanduser()
            path = path if path.is_absolute() else Path.cwd() / path
        except (RuntimeError, OSError):  # nobody's home; a working directory that was removed
            return "for a directory that all workers share, write 'shared://' and its absolute path"
        return f"for a directory that all workers share, write 'shared://{os.path.normpath(path)}'"
    return None


def _servers(places: list[str] | tuple[str, ...]) -> str | None:
    urls = [_url(place) for place in places]
    known = [url for url in urls if url]
    if not known or len(known) < len(urls):
        return None
    # Without a password, which doesn't belong in a log.
    said = "'redis://' before it" if any("@" in place for place in places) else f"'{','.join(known)}'"
    memcached = any(re.search(r":1121\d$|^unix:.*memcached", place) for place in places)
    return f"for a Redis or Valkey server{', which memcached is not' if memcached else ''}, write {said}"


def _url(place: str) -> str | None:
    if found := _SOCKET.fullmatch(place):
        return f"unix://{found[1]}"
    found = _SERVER.fullmatch(place)
    if found is None:
        return None
    host, port = found["host"], int(found["port"])
    # A word and a number, as in "shop:2024", is a name.
    if not (set(host) & {".", "["} or host == "localhost" or any(port in usual for usual in _USUAL_PORTS)):
        return None
    database = f"/{found['db']}" if found["db"] else ""
    return f"redis://{host}:{6379 if port in _USUAL_PORTS[1] else port}{database}"
