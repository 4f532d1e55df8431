"""What tests ask of several processes with one cache."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.shared.remote import Remote

NOTICED_WITHIN = 3.0
"""Seconds. The files are looked at once a second."""


def errors(remote: Remote) -> int:
    return int(remote.get_metrics_snapshot()["store_errors"])


def works(*remotes: Remote) -> None:
    for n, writer in enumerate(remotes):
        writer.set("works", n)
        for reader in remotes:
            assert reader.get("works") == n, reader.log()
        assert writer.incr("counted", initial=0) == n + 1
    assert remotes[0].delete("works")
    assert remotes[0].delete("counted")


def eventually(check: Callable[[], bool], seconds: float = NOTICED_WITHIN) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "that took too long"
        time.sleep(0.02)
