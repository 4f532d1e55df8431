"""What is kept near of several servers: of a Cluster, and of one that another one takes over from."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis
from redis.crc import key_slot

from quickcache_core.errors import StoreUnavailable
from quickcache_core.store.redis.near import POLL_INTERVAL
from quickcache_core.store.redis.tracking import LEASE
from tests.redis.reading_near import NearReader, raw
from tests.redis.servers import RedisCluster, Sentinels, wait_until
from tests.redis.test_near import A_POLL, near_again, sees, tracked, warm, works

KEYS = [f"k{n}" for n in range(12)]
"""Some on each primary."""


def owner(cluster: RedisCluster, key: str) -> int:
    return key_slot(raw(key)) * 3 // 16384


def write(cluster: RedisCluster, key: str, value: str) -> None:
    """As somebody else does."""
    with redis.RedisCluster(host="127.0.0.1", port=cluster.primaries[0].port) as other:
        other.set(raw(key), value)


@pytest.fixture
def reader(redis_cluster: RedisCluster) -> Iterator[NearReader]:
    reader = NearReader(redis_cluster.url)
    assert {owner(redis_cluster, key) for key in KEYS} == {0, 1, 2}
    yield reader
    reader.close()


def test_one_connection_for_each_primary(redis_cluster: RedisCluster, reader: NearReader) -> None:
    """Whichever server a key is on, changes are heard of."""
    warm(reader, *KEYS)
    for node in redis_cluster.primaries:
        with node.client() as admin:
            assert tracked(admin)
    for n, key in enumerate(KEYS):
        write(redis_cluster, key, str(n))
    for n, key in enumerate(KEYS):
        sees(reader, key, str(n))
    warm(reader, *KEYS)


def test_primary_that_hangs(redis_cluster: RedisCluster, reader: NearReader) -> None:
    """Nothing at all is trusted when its lease is over: also what others have isn't known to be whole."""
    warm(reader, *KEYS)
    key = next(key for key in KEYS if owner(redis_cluster, key) == 0)
    redis_cluster.primaries[2].hang()
    time.sleep(LEASE + 0.1)
    reader.was_asked()
    reader.get(key)
    assert reader.was_asked() == [key]
    redis_cluster.primaries[2].resume()
    wait_until(lambda: works(reader), "it works again")
    near_again(reader)


def test_slot_that_moves(redis_cluster: RedisCluster, reader: NearReader) -> None:
    """What is read from its new server is heard of from there."""
    key = next(key for key in KEYS if owner(redis_cluster, key) == 0)
    warm(reader, key)
    slot = key_slot(raw(key))
    redis_cluster.move_slot(slot, redis_cluster.primaries[0], redis_cluster.primaries[1])
    with redis_cluster.primaries[1].client() as new:
        new.set(raw(key), "value")
        sees(reader, key, "value")
        warm(reader, key)
        new.set(raw(key), "new")
        sees(reader, key, "new")


@pytest.mark.slow
def test_failover_in_a_cluster() -> None:
    """Nothing that was near of the primary that failed is served once its replica has taken over."""
    with RedisCluster(replicas=True) as cluster:
        reader = NearReader(cluster.url)
        for key in KEYS:
            write(cluster, key, "old")
        warm(reader, *KEYS)
        # So that the replica has it.
        time.sleep(0.5)
        failed = cluster.primaries[0]
        failed.kill()
        failed_at = time.monotonic()
        with cluster.replicas[0].client() as promoted:
            wait_until(lambda: promoted.info("replication")["role"] == "master", "the replica takes over")
            mine = [key for key in KEYS if owner(cluster, key) == 0]

            def is_written() -> bool:
                try:
                    return all(promoted.set(raw(key), "new") for key in mine)
                except redis.ResponseError:
                    return False

            wait_until(is_written, "the replica takes writes")
        time.sleep(max(A_POLL, failed_at + LEASE - time.monotonic()))

        def all_new() -> bool:
            try:
                for key in mine:
                    assert reader.get(key) == "new"
                # The other primaries may take the Cluster for broken a little longer.
                for key in KEYS:
                    reader.get(key)
            except StoreUnavailable:
                return False
            return True

        wait_until(all_new, "it works again")
        wait_until(reader.is_trusted, "changes are heard of")
        warm(reader, *KEYS)
        reader.close()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["killed", "hung"])
def test_failover_by_sentinels(sentinels: Sentinels, way: str) -> None:
    """Of a server that hangs as well; and one that comes back as a replica is not listened to."""
    reader = NearReader(sentinels.url)
    reader.set("k", "old")
    warm(reader, "k")
    # So that the replica has it.
    time.sleep(0.5)
    if way == "killed":
        sentinels.primary.kill()
    else:
        sentinels.primary.hang()
    stopped_at = time.monotonic()
    sentinels.wait_for_promotion()
    with sentinels.replica.client() as other:
        other.set(raw("k"), "new")
        time.sleep(max(A_POLL, stopped_at + LEASE + POLL_INTERVAL - time.monotonic()))

        def is_new() -> bool:
            try:
                assert reader.get("k") == "new"
            except StoreUnavailable:
                return False
            return True

        wait_until(is_new, "it works again")
        if way == "hung":
            sentinels.primary.resume()
        wait_until(reader.is_trusted, "changes are heard of")
        warm(reader, "k")
        for n in range(20):
            other.set(raw("k"), n)
            sees(reader, "k", str(n))
        assert tracked(other)
    reader.close()
