"""A fork that Python isn't told of, as uWSGI's master does it, and what the child then publishes.

    python -m tests.core.silent_fork NAME          prints the totals after the child has ended
    python -m tests.core.silent_fork NAME uwsgi    the same, where uWSGI's hook tells of the fork

A process of its own, without any other thread: a child that is forked so while a thread has the interpreter's
lock waits for it for ever.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import Any

from quickcache_core import NEVER, QuickCache, QuickCacheConfig
from quickcache_core.maintenance import Maintenance
from quickcache_core.metrics.board import board_at
from quickcache_core.metrics.runtime import figures_path
from tests.core.counting_workers import totals


def main(name: str, hook: bool) -> None:
    Maintenance.wake = lambda *args: None  # type: ignore[method-assign]
    called: list[str] = []
    uwsgi: Any = type(sys)("uwsgi")
    uwsgi.post_fork_hook = lambda: called.append("the application's own")
    if hook:
        sys.modules["uwsgi"] = uwsgi
    cache, _ = (QuickCache(QuickCacheConfig(publish_as=name)) for _ in range(2))
    cache.set("k", 1, NEVER)
    cache.publish()
    pid = ctypes.PyDLL(None).fork()
    if pid == 0:
        if hook:
            uwsgi.post_fork_hook()
            assert called == ["the application's own"]
        else:
            cache.publish()
        cache.get("k")
        cache.publish()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    reading = board_at(figures_path(name)).read()
    print(json.dumps([totals(reading), [worker.server for worker in reading.workers]]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] == ["uwsgi"])
