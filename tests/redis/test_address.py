from __future__ import annotations

import copy
import pickle

import pytest

from quickcache_core import ConfigError, QuickCacheConfig
from quickcache_core.location import read_location
from quickcache_core.store.redis.address import BadAddress, Server, read_address

PASSWORD = "hunter2"


@pytest.mark.parametrize(
    ("location", "servers", "db", "shown"),
    [
        ("redis://cache", "cache:6379", 0, "redis://cache:6379/0"),
        ("redis://", "localhost:6379", 0, "redis://localhost:6379/0"),
        ("valkey://cache:7000/3", "cache:7000", 3, "redis://cache:7000/3"),
        ("redis://cache?db=4", "cache:6379", 4, "redis://cache:6379/4"),
        ("valkeys://cache", "cache:6379", 0, "rediss://cache:6379/0"),
        ("redis://[::1]:7000/1", "[::1]:7000", 1, "redis://[::1]:7000/1"),
        ("unix:///run/valkey.sock?db=2", "/run/valkey.sock", 2, "unix:///run/valkey.sock?db=2"),
        ("unix://:pw@/run/a%20b", "/run/a b", 0, "unix:///run/a b?db=0"),
    ],
)
def test_one_server(location: str, servers: str, db: int, shown: str) -> None:
    """Each scheme has its defaults; what is shown is a location again."""
    address = read_address(location)
    assert address.arrangement == "single"
    assert (str(address.servers[0]), address.db, str(address)) == (servers, db, shown)


@pytest.mark.parametrize(
    ("location", "arrangement"),
    [
        ("redis://a,redis://b:7000", "candidates"),
        ("redis://a,redis://a", "single"),
        ("redis://a,redis://b:7000?cluster=true", "cluster"),
        ("redis://a:1?cluster=1", "cluster"),
        (" redis://a:1 , redis://b:2?sentinel=shop ", "sentinel"),
    ],
)
def test_several_servers(location: str, arrangement: str) -> None:
    """The query says how they are arranged; without one they are candidates for the primary."""
    assert read_address(location).arrangement == arrangement


def test_ports_of_sentinels() -> None:
    """Sentinels have a default port of their own, and the servers may have a database."""
    address = read_address("redis://a,redis://b/2?sentinel=shop")
    assert address.servers == (Server("a", 26379), Server("b", 26379))
    assert (address.service, address.db) == ("shop", 2)


def test_what_one_url_says_holds_for_all() -> None:
    """Credentials and query needn't be repeated."""
    address = read_address(f"redis://user:{PASSWORD}@a,redis://b,redis://c?cluster=true&client_name=shop")
    assert (address.username, address.password) == ("user", PASSWORD)
    assert address.url(address.servers[2]) == f"redis://user:{PASSWORD}@c:6379?db=0&client_name=shop"


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("redis://:one@a,redis://:two@b", "differ in their password"),
        ("redis://a/1,redis://b/2", "differ in their database"),
        ("redis://a,rediss://b", "differ in their scheme"),
        ("redis://a?client_name=x,redis://b?client_name=y", "differ in their query"),
    ],
)
def test_urls_that_differ(location: str, said: str) -> None:
    """All servers hold the same data for the same user."""
    with pytest.raises(BadAddress, match=said):
        read_address(location)


def test_special_characters_in_a_password() -> None:
    """They arrive as they were meant, percent-encoded in the URL."""
    password = "a/b:c@d#e,f?g%h é"
    encoded = "a%2Fb%3Ac%40d%23e%2Cf%3Fg%25h%20%C3%A9"
    address = read_address(f"redis://:{encoded}@cache")
    assert address.password == password
    assert read_address(address.url(address.servers[0])).password == password


@pytest.mark.parametrize(
    "location",
    [
        f"redis://user:{PASSWORD}@cache:6379/0",
        f"redis://:{PASSWORD}@a,redis://:{PASSWORD}@b?cluster=true",
        f"redis://:{PASSWORD}@a?sentinel=shop",
        f"unix://:{PASSWORD}@/run/valkey.sock",
        f"redis://cache?password={PASSWORD}",
    ],
)
class TestPasswords:
    def test_repr_of_a_configuration(self, location: str) -> None:
        """A configuration in a log shows where the server is, and no password."""
        config = QuickCacheConfig(location=location, redis_options={"client_name": PASSWORD})
        for one in (config, config.replace(redis_prefix="shop"), copy.copy(config)):
            assert PASSWORD not in repr(one)
            assert one.location == location
            assert PASSWORD not in repr(one.location)
        assert PASSWORD not in repr(pickle.loads(pickle.dumps(config.location)))

    def test_repr_of_an_address(self, location: str) -> None:
        """Nor does what is made of it."""
        found = read_location(location)
        assert PASSWORD not in repr(found)
        assert PASSWORD not in str(found.address)

    def test_wrong_url(self, location: str) -> None:
        """An error doesn't quote what has a password in it."""
        for wrong in (f"{location}#x", f"x{location}"):
            with pytest.raises(ConfigError) as raised:
                QuickCacheConfig(location=wrong)
            assert PASSWORD not in str(raised.value)
            assert PASSWORD not in repr(raised.value.value)
