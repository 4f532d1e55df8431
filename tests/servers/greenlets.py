"""A process forked before gevent patched it, as those of gunicorn with --preload. Prints what it got."""

from __future__ import annotations

import fcntl
import logging
import os
import sys
import time

from quickcache_core import QuickCache, QuickCacheConfig

HELD = 1.0  # seconds


def main(directory: str) -> None:
    logging.basicConfig()
    cache = QuickCache(QuickCacheConfig(location=f"shared://{directory}", max_bytes="8MB"))
    # Starts the thread of the background, without which the fork would leave nothing open.
    cache.set("key", 1)
    ready, told = os.pipe()
    if os.fork() == 0:
        descriptor = os.open(f"{directory}/open.lock", os.O_RDWR)
        fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, 0)
        os.write(told, b".")
        time.sleep(HELD)
        os._exit(0)
    os.read(ready, 1)
    if os.fork() == 0:
        read_in_greenlets(cache)
        os._exit(0)
    os.wait()
    os.wait()


def read_in_greenlets(cache: QuickCache) -> None:
    import gevent
    from gevent import monkey

    monkey.patch_all()
    jobs = [gevent.spawn(cache.get, f"another {number}", "nothing") for number in range(4)]
    gevent.joinall(jobs)
    print([job.value for job in jobs], flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
