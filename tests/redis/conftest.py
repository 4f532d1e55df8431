from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
import redis

from tests.redis.servers import RedisCluster, RedisServer, Sentinels

collect_ignore_glob = [] if sys.platform == "linux" else ["test_*.py"]  # the wheel has a server for Linux

URL_VARIABLE = "QUICKCACHE_TEST_REDIS_URL"
"""A Redis or Valkey server to use for tests that only need one that works. Its database is flushed."""


@pytest.fixture(scope="session")
def session_server_url() -> Iterator[str]:
    named = os.environ.get(URL_VARIABLE)
    if named:
        yield named
        return
    with RedisServer() as server:
        yield server.url


@pytest.fixture
def redis_url(session_server_url: str) -> str:
    """The URL of a server that works, with nothing in its database."""
    with redis.Redis.from_url(session_server_url, protocol=2) as client:
        client.flushdb()
    return session_server_url


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A server of the test's own, which it may kill, stop and restart."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_cluster() -> Iterator[RedisCluster]:
    """A Cluster of the test's own, without replicas."""
    with RedisCluster() as cluster:
        yield cluster


@pytest.fixture
def sentinels() -> Iterator[Sentinels]:
    """A primary, a replica and one Sentinel of the test's own."""
    with Sentinels() as servers:
        yield servers
