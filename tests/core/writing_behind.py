"""A process that writes behind into a table of SQLite, and says what it was told is written.

Usage: python -m tests.core.writing_behind JSON, with

    table      path of the database, made by `make_table`
    settings   of the cache
    options    of `SourcedCache`
    count      writes; without it they go on until the process is killed
    keys       how many different keys
    first      version of the first write
    ending     how the process ends: return, exit, sigterm, multiprocessing, fork, os_exit
    stuck      whether the source stops in the middle of its first batch, before or after the write
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quickcache_core import QuickCache, QuickCacheConfig
from quickcache_core.sources import SourcedCache, TableSource

ROOT = Path(__file__).resolve().parents[2]


def make_table(path: Path) -> None:
    """`rows`, and in `history` each value that a row ever had."""
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        PRAGMA journal_mode=WAL;
        CREATE TABLE rows (key TEXT PRIMARY KEY, version INTEGER);
        CREATE TABLE history (place INTEGER PRIMARY KEY, key TEXT, version INTEGER);
        CREATE TRIGGER added AFTER INSERT ON rows BEGIN
            INSERT INTO history (key, version) VALUES (new.key, new.version); END;
        CREATE TRIGGER changed AFTER UPDATE ON rows BEGIN
            INSERT INTO history (key, version) VALUES (new.key, new.version); END;
        """
    )
    connection.close()


def query(path: Path, statement: str) -> list[Any]:
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def versions(path: Path) -> dict[str, int]:
    return dict(query(path, "SELECT key, version FROM rows"))


def say(line: str) -> None:
    # At once and as a whole: two threads talk.
    os.write(1, f"{line}\n".encode())


class Rows(TableSource):
    """The table, with a stop in the middle of the first batch."""

    def __init__(self, path: Path, stuck: str | None = None) -> None:
        super().__init__(lambda: sqlite3.connect(path, timeout=30), "rows", "key", "version")
        self._stuck = stuck

    def store(self, key: str, value: Any) -> None:
        self.store_many({key: value})

    def store_many(self, values: Mapping[str, Any]) -> None:
        if self._stuck == "before":
            self._stop()
        super().store_many(values)
        if self._stuck == "after":
            self._stop()

    def _stop(self) -> None:
        say("stuck")
        time.sleep(600)


class Writer:
    """The process, from outside."""

    def __init__(self, **plan: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.core.writing_behind", json.dumps(plan, default=str)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.output = self.process.stdout
        self.told: dict[str, int] = {}
        """By key, the last version whose write returned."""

    def read(self, lines: int) -> str:
        line = ""
        for _ in range(lines):
            line = self.output.readline().strip()
            assert line, f"the process has ended with {self.process.wait()}"
            self._note(line)
        return line

    def _note(self, line: str) -> None:
        key, _, version = line.partition(" ")
        if version.isdigit():
            self.told[key] = int(version)

    def end(self) -> int:
        """Read what it said until its end; how it ended."""
        for line in self.output:
            if line.endswith("\n"):
                self._note(line.strip())
        self.output.close()
        return self.process.wait(60)

    def kill(self) -> None:
        self.process.kill()
        self.end()


def main(plan: dict[str, Any]) -> None:
    ending = plan.get("ending", "return")
    if ending == "sigterm":
        # As the workers of gunicorn do.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    cache = QuickCache(QuickCacheConfig(**plan.get("settings", {})))
    source = Rows(plan["table"], plan.get("stuck"))
    sourced = SourcedCache(cache, source, writes="behind", **plan.get("options", {}))
    if ending == "multiprocessing":
        context = multiprocessing.get_context("fork")
        child = context.Process(target=write, args=(sourced, plan))
        child.start()
        child.join()
        os._exit(child.exitcode or 0)
    if ending == "fork":
        sourced.set("of the parent", 1)
        say("of the parent 1")
        if child_pid := os.fork():
            os.waitpid(child_pid, 0)
            sys.exit(0)
    write(sourced, plan)
    if ending == "exit":
        sys.exit(0)
    if ending == "os_exit":
        os._exit(0)
    if ending == "sigterm":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)


def write(sourced: SourcedCache, plan: dict[str, Any]) -> None:
    version, keys = plan.get("first", 1), plan.get("keys", 10)
    last = version + plan["count"] if "count" in plan else 1 << 40
    while version < last:
        key = f"k{version % keys}"
        sourced.set(key, version)
        say(f"{key} {version}")
        version += 1


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
