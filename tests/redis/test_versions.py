"""No answer is outdated, whatever processes do at once; and the test that says so finds what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.redis.servers import RedisCluster, RedisServer

ROOT = Path(__file__).resolve().parents[2]
WRONG = (
    "any load is stored",
    "tags are not looked at",
    "the generation is asked for once",
    "labels are from after the read",
)


def run(url: str, source: str, seconds: float, how: str = "") -> list[dict[str, Any]]:
    """What each of four processes found, one of which has no near store."""
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.redis.versions", url, source, str(seed), str(seconds)),
                *("0" if seed == 3 else "1000", how),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(4)
    ]
    outputs = [process.communicate(timeout=seconds + 60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    return [json.loads(output) for output in outputs]


@pytest.mark.slow
def test_nothing_outdated(redis_server: RedisServer, redis_url: str, coherence_seconds: float) -> None:
    """Of several processes and threads that load, delete, invalidate and clear, none gets an older version
    than one that was announced.
    """
    for one in run(redis_server.url, redis_url, coherence_seconds):
        assert not one["violations"]
        assert not one["errors"]
        assert one["checks"] > 10 * coherence_seconds


@pytest.mark.slow
def test_nothing_outdated_in_a_cluster(redis_url: str, coherence_seconds: float) -> None:
    """The same where each key may be on another server."""
    with RedisCluster() as cluster:
        for one in run(cluster.url, redis_url, coherence_seconds / 2):
            assert not one["violations"]
            assert not one["errors"]


@pytest.mark.slow
@pytest.mark.parametrize("how", WRONG)
def test_wrong_protocols(redis_server: RedisServer, redis_url: str, how: str) -> None:
    """They are found out, on a busy machine after a while."""
    for seconds in (4.0, 12.0, 36.0):
        found = run(redis_server.url, redis_url, seconds, how)
        if sum(len(one["violations"]) for one in found) > 3:
            return
    pytest.fail(f"not found out: {how}")
