"""What is checked when a configuration is made. No server is asked."""

from __future__ import annotations

import sys
from typing import Any
from unittest import mock

import pytest

from quickcache_core import ConfigError, QuickCache, QuickCacheConfig
from quickcache_core.sources import BaseSource
from quickcache_core.store.redis.opening import as_identity

HOST = "redis://localhost"


@pytest.mark.parametrize("module", ["redis", "greenlet"])
def test_extra_that_is_not_installed(module: str) -> None:
    """The error has the line that installs it."""
    with (
        mock.patch.dict(sys.modules, {module: None}),
        pytest.raises(ConfigError, match=r"pip install 'quickcache-web\[redis\]'") as raised,
    ):
        QuickCacheConfig(location="rediss://:hunter2@localhost")
    assert raised.value.field == "location"
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [
        ("max_bytes", "1GB", "maxmemory"),
        ("auto_resize", True, "near_size"),
        ("eviction_policy", "lru", "maxmemory-policy"),
    ],
)
def test_what_the_server_is_responsible_for(option: str, value: Any, remedy: str) -> None:
    """It has settings of its own for that, which the error names."""
    with pytest.raises(ConfigError, match=remedy) as raised:
        QuickCacheConfig(location=HOST, **{option: value})
    assert raised.value.field == option


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pasword": "hunter2"}, "pasword"),
        ({"ssl": True}, "rediss://"),
        ({"db": 1}, "say it in the location"),
        ({"protocol": 3}, "leave it out"),
        ({"decode_responses": True}, "leave it out"),
        ({"retry_on_timeout": True}, "not sent twice"),
        ({"max_connections": 0}, "at least 1"),
        ({"max_connections": "many"}, "at least 1"),
    ],
)
def test_option_that_is_not_accepted(options: dict[str, Any], said: str) -> None:
    """Whether unknown to redis-py or none of the user's business; the options are not shown."""
    with pytest.raises(ConfigError, match=said) as raised:
        QuickCacheConfig(location=HOST, redis_options={"password": "hunter2", **options})
    assert raised.value.field == "redis_options"
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "query", ["decode_responses=true", "pasword=hunter2", "socket_timeout=soon", "retry=3"]
)
def test_query_that_is_not_accepted(query: str) -> None:
    """Options in the URL are checked as well."""
    with pytest.raises(ConfigError) as raised:
        QuickCacheConfig(location=f"{HOST}?{query}")
    assert "hunter2" not in str(raised.value)


def test_options_that_are_accepted() -> None:
    """What redis-py's connections take, in the options or the URL."""
    for location in (HOST, f"{HOST}?sentinel=shop", f"{HOST}?cluster=true", "unix:///run/valkey.sock"):
        config = QuickCacheConfig(
            location=location,
            redis_options={
                "username": "shop",
                "password": "hunter2",
                "socket_timeout": 0.2,
                "health_check_interval": 30,
                "max_connections": 5,
                "sentinel_kwargs": {"password": "hunter3"},
            },
        )
        assert config.redis_options["max_connections"] == 5
        assert "hunter" not in repr(config)
    QuickCacheConfig(
        location="rediss://localhost?ssl_cert_reqs=none", redis_options={"ssl_check_hostname": False}
    )


def test_options_that_are_equal() -> None:
    """Caches with the same settings share connections, and what is near, whatever objects say them."""

    def identity(limit: int) -> object:
        config = QuickCacheConfig(
            location=f"{HOST}?sentinel=shop",
            redis_options={
                "sentinel_kwargs": {"username": "shop", "password": "hunter2"},
                "socket_keepalive_options": {1: limit, 2: [3]},
            },
        )
        return hash(as_identity(config.redis_options)), as_identity(config.redis_options)

    assert identity(1) == identity(1)
    assert identity(1) != identity(2)


def test_list_of_servers() -> None:
    """It means the same as one text with commas."""
    for location in (["redis://a", "redis://b"], ("redis://a", "redis://b")):
        assert QuickCacheConfig(location=location).location == "redis://a,redis://b"  # type: ignore[arg-type]


def test_pickles_without_a_secret() -> None:
    """Others can write to the server, and a pickle of theirs could run code."""
    with pytest.raises(ConfigError, match="scope redis are read by other processes"):
        QuickCacheConfig(location=HOST, serializer="pickle")
    QuickCacheConfig(location=HOST, serializer="pickle", secret="a secret of more than sixteen bytes")


@pytest.mark.parametrize("queue", [None, "memory", "durable"])
def test_writes_behind(queue: str | None) -> None:
    """Other processes couldn't see a queue in memory, and there is no directory for one: it needs a file."""
    config = QuickCacheConfig(location="redis://localhost:1/0", serializer="json")
    source = {"a": 1}
    options = {} if queue is None else {"queue": queue}
    with pytest.raises(ConfigError, match=r"queue=.*give the absolute path of a file"):
        QuickCache(config).with_source(DictSource(source), writes="behind", **options)


class DictSource(BaseSource):
    """A table of one's own."""

    def __init__(self, rows: dict[str, Any]) -> None:
        self.rows = rows

    def load(self, key: str) -> Any:
        return self.rows[key]

    def store(self, key: str, value: Any) -> None:
        self.rows[key] = value

    def remove(self, key: str) -> None:
        self.rows.pop(key, None)
