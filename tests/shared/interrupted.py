"""Writes that a signal handler's exception ends, again and again.

    python -m tests.shared.interrupted DIRECTORY SECONDS

Prints how many there were, and fails when a write left the guard to nobody.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from quickcache_core import QuickCache, QuickCacheConfig
from quickcache_core.store.shared.store import SharedStore


class Interrupt(Exception):
    pass


def interrupt(number: int, frame: Any) -> None:
    raise Interrupt


def asked_by_others(lock_file: str) -> None:
    """For each line that comes in: whether the kernel's lock is free."""
    with Path(lock_file).open("r+") as file:
        for _ in sys.stdin:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.lockf(file, fcntl.LOCK_UN)
                print("free", flush=True)
            except OSError:
                print("taken", flush=True)


def is_free(lock: Any) -> bool:
    """Whether another thread can take it."""
    answers = []

    def ask() -> None:
        taken = lock.acquire(False)
        answers.append(taken)
        if taken:
            lock.release()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return bool(answers[0])


def main(directory: str, seconds: float) -> int:
    cache = QuickCache(
        QuickCacheConfig(location=f"shared://{directory}", max_bytes=16_000_000, default_ttl=60, fail="raise")
    )
    cache.set("k", 0)
    store = cache._bottom
    assert isinstance(store, SharedStore)
    connection = store._table.connection
    [lock_file] = Path(directory).rglob("write.lock")
    others = subprocess.Popen(
        [sys.executable, "-m", "tests.shared.interrupted", str(lock_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert others.stdin is not None
    assert others.stdout is not None
    signal.signal(signal.SIGALRM, interrupt)
    interrupts = written = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(15e-6, 90e-6))
                while True:
                    cache.set(f"k{written % 50}", written)
                    written += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupt:
            interrupts += 1
        # The thread that looks after the cache may be writing at this moment, but not for ever.
        for _ in range(50):
            others.stdin.write("\n")
            others.stdin.flush()
            state = connection.guard.owner, is_free(connection.guard.lock), others.stdout.readline().strip()
            if state == (0, True, "free") and not connection.postponed:
                break
            time.sleep(0.02)
        else:
            print(f"after {interrupts} interrupts: {state}, {len(connection.postponed)} postponed")
            return 1
    others.kill()
    others.wait()
    print(interrupts)
    return 0


if __name__ == "__main__":
    if len(sys.argv) == 2:
        asked_by_others(sys.argv[1])
    else:
        status = main(sys.argv[1], float(sys.argv[2]))
        sys.stdout.flush()
        os._exit(status)
