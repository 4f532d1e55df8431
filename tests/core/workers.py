"""Processes with a published cache each, driven by tests over pipes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from quickcache_core import QuickCache, QuickCacheConfig

ROOT = Path(__file__).resolve().parents[2]


class Worker:
    """A process that does as it is told: `call("get", "key", None)`, `call("drafts.get", "key", None)` in the
    namespace `drafts`.
    """

    def __init__(self, *, threads: bool = True, **settings: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.core.workers", json.dumps([threads, settings])],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid
        assert self.answer() == "ready"

    def call(self, method: str, *arguments: Any) -> Any:
        self.ask(method, *arguments)
        return self.answer()

    def ask(self, method: str, *arguments: Any) -> None:
        """As `call`, without waiting for the result."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([method, arguments]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the worker has ended with {self.process.wait()}"
        return json.loads(line)

    def kill(self) -> None:
        self.process.kill()
        self.close()

    def close(self) -> None:
        """Let it end as programs do."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.process.wait(30)
        self.process.stdout.close()


def main(argument: str) -> None:
    threads, settings = json.loads(argument)
    if not threads:

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        threading.Thread.start = refuse  # type: ignore[method-assign]
    cache = QuickCache(QuickCacheConfig(**settings))
    print('"ready"', flush=True)
    for line in sys.stdin:
        method, arguments = json.loads(line)
        if method == "set_tagged":
            key, value, tag = arguments
            cache.set(key, value, tags=[tag])
            print("null", flush=True)
            continue
        namespace, _, method = method.rpartition(".")
        result = getattr(cache.namespace(namespace) if namespace else cache, method)(*arguments)
        print(json.dumps(list(result) if method == "keys" else result, default=str), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
