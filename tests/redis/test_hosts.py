"""Two hosts and a server with a network of their own between them, which can be taken apart."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from quickcache_core.store.redis.tracking import LEASE
from tests.redis.servers import server_binary, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
PORT = 6390
SLACK = 0.5
"""Seconds that a process on a busy machine may be late."""
CONSOLE = """
import json, sys, threading, time
from quickcache_core import QuickCache, QuickCacheConfig
options = {"socket_timeout": 0.3, "socket_connect_timeout": 0.3}
cache = QuickCache(QuickCacheConfig(location=sys.argv[1], redis_options=options))
loads = 0
def slow():
    global loads
    loads += 1
    time.sleep(0.5)
    return "loaded"
for line in sys.stdin:
    op, *arguments = json.loads(line)
    if op == "load":
        answer = [cache.get_or_set(arguments[0], slow), loads]
    elif op == "get":
        answer = cache.get(arguments[0], None)
    elif op == "set":
        answer = cache.set(*arguments)
    else:
        answer = cache.delete(arguments[0], missing_ok=True)
    print(json.dumps(answer), flush=True)
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def network() -> Iterator[dict[str, str]]:
    """Namespaces `server`, `a` and `b`, by role; skips where none can be made."""
    if shutil.which("ip") is None:
        pytest.skip("needs ip, of iproute2")
    names = {role: f"qc-{os.getpid()}-{role}" for role in ("server", "a", "b")}
    try:
        try:
            for name in names.values():
                ip("netns", "add", name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        for number, role in enumerate(("a", "b"), 1):
            there, here = f"v{role}", "uplink"
            ip(
                "link",
                "add",
                there,
                "netns",
                names["server"],
                "type",
                "veth",
                "peer",
                here,
                "netns",
                names[role],
            )
            ip("-n", names["server"], "addr", "add", f"10.213.{number}.1/24", "dev", there)
            ip("-n", names["server"], "link", "set", there, "up")
            ip("-n", names[role], "addr", "add", f"10.213.{number}.2/24", "dev", here)
            ip("-n", names[role], "link", "set", here, "up")
        yield names
    finally:
        for name in names.values():
            with suppress(subprocess.CalledProcessError):
                ip("netns", "del", name)


class Host:
    """A process with a cache, in the network of one host."""

    def __init__(self, namespace: str, url: str) -> None:
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, "-c", CONSOLE, url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def begin(self, *words: Any) -> None:
        assert self._process.stdin is not None
        print(json.dumps(words), file=self._process.stdin, flush=True)

    def end(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the process ended with {self._process.wait()}"
        return json.loads(line)

    def do(self, *words: Any) -> Any:
        self.begin(*words)
        return self.end()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def hosts() -> Iterator[tuple[Host, Host, str]]:
    """Both hosts, and the namespace of the server."""
    with network() as names:
        command = [str(server_binary()), "--save", "", "--port", str(PORT), "--bind", "0.0.0.0"]
        server = subprocess.Popen(
            ["ip", "netns", "exec", names["server"], *command, "--protected-mode", "no"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        a = Host(names["a"], f"redis://10.213.1.1:{PORT}/0")
        b = Host(names["b"], f"redis://10.213.2.1:{PORT}/0")
        try:
            wait_until(lambda: works(a) and works(b), "both hosts reach the server")
            yield a, b, names["server"]
        finally:
            a.close()
            b.close()
            server.kill()
            server.wait()


def works(host: Host) -> bool:
    host.do("set", "works", 1)
    return bool(host.do("get", "works"))


def test_a_host_that_is_cut_off() -> None:
    """It serves nothing beyond the lease, and what it deleted meanwhile is gone when the network is back."""
    with hosts() as (a, b, server):
        a.do("set", "k", 1)
        a.do("set", "deleted", 1)
        assert b.do("get", "k") == b.do("get", "k") == 1
        a.do("set", "k", 2)
        wait_until(lambda: b.do("get", "k") == 2, "the other host hears of the change")

        ip("-n", server, "link", "set", "vb", "down")
        a.do("set", "k", 3)
        changed = time.monotonic()
        while time.monotonic() < changed + LEASE + SLACK:
            assert b.do("get", "k") in (2, None)
        assert b.do("get", "k") is None
        b.do("delete", "deleted")
        assert a.do("get", "deleted") == 1

        ip("-n", server, "link", "set", "vb", "up")
        wait_until(lambda: b.do("get", "k") == 3, "the host finds the server again")
        wait_until(lambda: a.do("get", "deleted") is None, "what it deleted is gone")
        assert b.do("get", "deleted") is None


def test_one_load_for_both_hosts() -> None:
    """Whoever comes second waits for the first one's value."""
    with hosts() as (a, b, _):
        a.begin("load", "cold")
        b.begin("load", "cold")
        (first, loads), (second, others) = a.end(), b.end()
        assert first == second == "loaded"
        assert loads + others == 1
