"""A process forks while it reads near a server; both go on, and each hears of changes on its own.

    python -m tests.redis.forked_reader URL fork|silent [busy]

`silent`: a fork that Python isn't told of, as uWSGI's master does it. `busy`: in the parent another thread is
in the middle of a poll and of a write just then.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time

import redis

from quickcache_core.store.redis.near import UNTRUSTED
from tests.redis.reading_near import NearReader, raw

PATIENCE = 10.0


def main(url: str, how: str, busy: str) -> None:
    reader = NearReader(url)
    with redis.Redis.from_url(url, protocol=2) as other:
        other.flushall()
        other.set(raw("k"), "old")
        eventually_near(reader)
        if busy:
            # By a thread that the child doesn't have.
            reader.near._polling.acquire()
            reader.near._stamping.acquire()
        pid = os.fork() if how == "fork" else ctypes.PyDLL(None).fork()
        if pid == 0:
            try:
                child(reader, url)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        if busy:
            reader.near._polling.release()
            reader.near._stamping.release()
        # The child has closed what it had of our connection, which is none of our business.
        changes(reader, "parent", other)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        changes(reader, "parent again", other)


def child(reader: NearReader, url: str) -> None:
    tracking = reader.near._tracking
    reader.set("mine", "value")
    time.sleep(0.01)
    reader.was_asked()
    assert reader.get("k") == "old"
    assert reader.was_asked() == ["k"], "what the parent knew isn't ours"
    with redis.Redis.from_url(url, protocol=2) as other:
        changes(reader, "child", other)
    assert reader.near._tracking is not tracking
    assert reader.near.stamps[0] != UNTRUSTED


def changes(reader: NearReader, who: str, other: redis.Redis) -> None:
    for n in range(20):
        key = f"{who} {n % 3}"
        other.set(raw(key), str(n))
        end = time.monotonic() + PATIENCE
        while reader.get(key) != str(n):
            assert time.monotonic() < end, (who, n)
    eventually_near(reader)


def eventually_near(reader: NearReader) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        reader.was_asked()
        reader.get("k")
        if not reader.was_asked():
            return
        assert time.monotonic() < end, "nothing is near"


if __name__ == "__main__":
    main(*sys.argv[1:4])
