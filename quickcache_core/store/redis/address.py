"""What a location says about Redis or Valkey servers: where they are, and how they are arranged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

SCHEMES: Final = {
    "redis": "redis",
    "valkey": "redis",
    "rediss": "rediss",
    "valkeys": "rediss",
    "unix": "unix",
}
"""As they are written, and as redis-py knows them. Those that end in two s speak TLS."""
EXAMPLES: Final = (
    "'redis://host:6379/0', 'rediss://…' for TLS, 'unix:///run/valkey.sock?db=0', several with commas; "
    "'?cluster=true' for a Cluster, '?sentinel=its-name-there' for Sentinels"
)

T = TypeVar("T")
Pairs = tuple[tuple[str, str], ...]
Arrangement = Literal["single", "candidates", "cluster", "sentinel"]


class BadAddress(ValueError):
    """What is wrong, in words that give no password away."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server, or one Sentinel: a host and a port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Address:
    """Where the servers are. Its repr and its text have no password."""

    arrangement: Arrangement
    servers: tuple[Server, ...]
    """`candidates`: the one that calls itself master is used. `cluster`: any of its nodes. `sentinel`: the
    Sentinels, who know the one to use.
    """
    scheme: Literal["redis", "rediss", "unix"]
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    db: int = 0
    service: str = ""
    """What the Sentinels call the server."""
    query: Pairs = field(default=(), repr=False)
    """Options for redis-py, as text."""

    def url(self, server: Server) -> str:
        """The URL of one server as redis-py reads it: with the password."""
        login = ""
        if self.username or self.password:
            login = f"{quote(self.username, safe='')}:{quote(self.password, safe='')}@"
        place = quote(server.path) if server.path else str(server)
        return f"{self.scheme}://{login}{place}?{urlencode([('db', str(self.db)), *self.query])}"

    def sentinel_url(self, server: Server) -> str:
        """The same for a Sentinel, which doesn't know the users and the databases of its servers."""
        return f"{self.scheme}://{server}?{urlencode(self.query)}"

    def __str__(self) -> str:
        shown = ",".join(f"{self.scheme}://{one}" for one in self.servers)
        if self.arrangement == "cluster":
            return f"{shown}?cluster=true"
        if self.arrangement == "sentinel":
            return f"{shown}/{self.db}?sentinel={self.service}"
        return f"{shown}?db={self.db}" if self.scheme == "unix" else f"{shown}/{self.db}"


def is_address(location: str) -> bool:
    return location.partition("://")[0] in SCHEMES


def read_address(location: str | Sequence[str]) -> Address:
    """Raises `BadAddress`. Credentials, database and query are the same for all servers: where several URLs
    are given, one of them may say it for all.
    """
    texts = [location] if isinstance(location, str) else list(location)
    urls = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    if not urls:
        raise BadAddress("there is no URL in it")
    parts = [_split(url) for url in urls]
    scheme = _agreed("scheme", [SCHEMES[one.scheme] for one in parts])
    queries: list[Pairs] = [tuple(parse_qsl(one.query, keep_blank_values=True)) for one in parts]
    query = dict(_agreed("query", queries, ()))
    cluster = _as_bool(query.pop("cluster", "false"))
    service = query.pop("sentinel", "")
    if cluster and service:
        raise BadAddress("it is either a Cluster or Sentinels")
    if scheme == "unix" and (cluster or service):
        raise BadAddress("a Cluster and Sentinels are reached over TCP")
    servers = tuple(dict.fromkeys(_server(one, 26379 if service else 6379) for one in parts))
    dbs = [query.pop("db", "")] if "db" in query else [_db_of(one) for one in parts]
    db = _number(_agreed("database", dbs, "") or "0")
    if cluster and db:
        raise BadAddress("a Cluster has the database 0 only")
    if cluster:
        arrangement: Arrangement = "cluster"
    elif service:
        arrangement = "sentinel"
    else:
        arrangement = "single" if len(servers) == 1 else "candidates"
    return Address(
        arrangement,
        servers,
        scheme,  # type: ignore[arg-type]
        _agreed("user name", [unquote(one.username or "") for one in parts], ""),
        _agreed("password", [unquote(one.password or "") for one in parts], ""),
        db,
        service,
        tuple(query.items()),
    )


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - looks whether it is one
    except ValueError:
        # Without the cause: urlsplit quotes what it couldn't read.
        raise BadAddress("one of the URLs can't be read; write special characters in it as %XX") from None
    if parts.scheme not in SCHEMES:
        raise BadAddress(
            "each of several URLs starts with one of " + ", ".join(f"{one}://" for one in SCHEMES)
        )
    if parts.fragment:
        raise BadAddress("a # in a password is written %23")
    return parts


def _server(parts: SplitResult, port: int) -> Server:
    if parts.scheme == "unix":
        path = unquote(parts.path)
        if not path.startswith("/") or parts.hostname or "\0" in path:
            raise BadAddress("give the absolute path of the socket, as in unix:///run/valkey.sock")
        return Server(path=path)
    return Server(unquote(parts.hostname or "localhost"), parts.port or port)


def _db_of(parts: SplitResult) -> str:
    return "" if parts.scheme == "unix" else unquote(parts.path).strip("/")


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise BadAddress("the database is a number, as in redis://host:6379/0")
    return int(text)


def _as_bool(text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise BadAddress("say cluster=true or cluster=false")


def _agreed(what: str, values: Sequence[T], unsaid: T | None = None) -> T:
    said = {value for value in values if value != unsaid}
    if len(said) > 1:
        raise BadAddress(f"the URLs differ in their {what}, which is the same for all servers")
    return said.pop() if said else values[0]
