"""Four gunicorn workers on one Valkey server, which is killed, hangs, and comes back empty under load."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import QuickCache, QuickCacheConfig
from tests.redis.servers import RedisServer, free_port, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(170)]

APPS = Path(__file__).resolve().parent / "apps"
WORKERS = 4
CLIENTS = 4
KEYS = 20
NOTICED_WITHIN = 5.0
"""Seconds. The circuit is closed again within one and a half after the server is back."""


class Site:
    """The server, and a count of what was asked of it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.gets = 0
        self.failures: list[str] = []
        self._lock = threading.Lock()

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        query = "&".join(f"{name}={value}" for name, value in {"op": op, **arguments}.items())
        with socket.create_connection(("127.0.0.1", self.port), timeout=30.0) as connection:
            connection.sendall(
                f"GET /do?{query} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode()
            )
            received = bytearray()
            while part := connection.recv(65_536):
                received += part
        head, _, body = bytes(received).partition(b"\r\n\r\n")
        assert b" 200 " in head[:13], bytes(received[:500])
        with self._lock:
            self.gets += op in ("get", "page")
        answer: dict[str, Any] = json.loads(body)
        return answer

    def pids(self) -> set[int]:
        return {self.ask("get", key="anything")["pid"] for _ in range(40)}

    def load(self, stop: threading.Event, seed: int) -> None:
        number = seed
        while not stop.is_set():
            number += 1
            key = f"k{number % KEYS}"
            try:
                match number % 5:
                    case 0:
                        self.ask("set", key=key, value=number)
                    case 1:
                        assert self.ask("page", key="page")["result"] == "made"
                    case _:
                        self.ask("get", key=key)
            except Exception as error:
                self.failures.append(f"{type(error).__name__}: {error}")


@contextmanager
def gunicorn(url: str, *options: str, folder: Path, warm: bool = False) -> Iterator[Site]:
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", str(WORKERS)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(APPS), str(APPS.parents[2])]),
        "SERVER_TESTS_REDIS_URL": url,
        "QUICKCACHE_RUNTIME_DIR": str(folder),
        **({"SERVER_TESTS_WARM": "1"} if warm else {}),
    }
    log_file = folder / "gunicorn.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [*command, "--worker-tmp-dir", "/dev/shm", *options, "redis_site:application"],
            cwd=APPS,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    site = Site(port)
    try:
        wait_until(lambda: answers(site), "gunicorn answers")
        wait_until(lambda: len(site.pids()) == WORKERS, "all workers answer")
        yield site
    except BaseException:
        print(log_file.read_text()[-3000:])
        raise
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(site: Site) -> bool:
    try:
        site.ask("ping")
    except (OSError, AssertionError):
        return False
    return True


@contextmanager
def under_load(site: Site) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=site.load, args=(stop, 1000 * n)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def agreed(site: Site, key: str, value: int | None) -> bool:
    """Whether all workers say so."""
    found: Counter[Any] = Counter()
    pids = set()
    for _ in range(40):
        answer = site.ask("get", key=key)
        found[answer["result"]] += 1
        pids.add(answer["pid"])
    return set(found) == {value} and len(pids) == WORKERS


@pytest.mark.parametrize(
    ("options", "warm"),
    [
        ((), False),
        (("--threads=3", "--preload"), True),
        (("--worker-class=gevent",), False),
    ],
    ids=["sync", "threads, preload", "gevent"],
)
def test_the_server_dies_and_comes_back(tmp_path: Path, options: tuple[str, ...], warm: bool) -> None:
    """No request fails. Afterwards all workers agree, and the figures are what was asked."""
    with RedisServer() as server, gunicorn(server.url, *options, folder=tmp_path, warm=warm) as site:
        os.environ["QUICKCACHE_RUNTIME_DIR"] = str(tmp_path)
        try:
            cache = QuickCache(QuickCacheConfig(location=server.url))
            control = cache.control
            assert control is not None
            control.stay_out()
            with under_load(site):
                time.sleep(1.0)
                server.kill()
                time.sleep(1.5)
                server.start()
                time.sleep(2.0)
                server.hang()
                time.sleep(1.5)
                server.resume()
                time.sleep(1.5)
            assert site.failures == []
            site.ask("set", key="after", value=7)
            wait_until(lambda: agreed(site, "after", 7), "all workers have the value", NOTICED_WITHIN)
            site.ask("delete", key="after")
            wait_until(lambda: agreed(site, "after", None), "no worker has it any more", NOTICED_WITHIN)

            def published() -> int:
                reading = control.read()
                rows = [worker.figures for worker in reading.workers] + [reading.ended]
                return sum(row.hits + row.misses for row in rows)

            # What the master did before the fork is its own.
            wait_until(
                lambda: published() in (site.gets, site.gets + warm),
                f"the figures say {site.gets} gets",
                NOTICED_WITHIN,
            )
            works = control.read().workers
            assert sum(worker.figures.store_errors for worker in works) > 0
        finally:
            del os.environ["QUICKCACHE_RUNTIME_DIR"]
