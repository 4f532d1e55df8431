"""Sends requests to a server on this host for some seconds: `wrk` if it is on the PATH, else threads."""

from __future__ import annotations

import itertools
import json
import shutil
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WRK = "wrk"
PYTHON = "threads of this program"
_PATIENCE = 60.0
"""Seconds for an answer; the first ones wait until the workers have imported the site."""

_SCRIPT = """
local paths = {%s}
local place = 0
function request()
  place = place %% #paths + 1
  return wrk.format("GET", paths[place])
end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('\\n{"requests": %%d, "seconds": %%f, "p50": %%f, "p99": %%f, "errors": %%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


@dataclass(frozen=True)
class Outcome:
    requests: int
    seconds: float
    p50: float
    """Seconds that the median request took."""
    p99: float
    errors: int

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def generator() -> str:
    return WRK if shutil.which(WRK) else PYTHON


def send(port: int, paths: Sequence[str], seconds: int, connections: int, folder: Path) -> Outcome:
    """The paths again and again, over that many connections at once. Raises `RuntimeError` if one failed."""
    send_by = _wrk if generator() == WRK else _threads
    outcome = send_by(port, paths, seconds, connections, folder)
    if outcome.errors or not outcome.requests:
        raise RuntimeError(f"{outcome.errors} of {outcome.requests} requests have failed")
    return outcome


def _wrk(port: int, paths: Sequence[str], seconds: int, connections: int, folder: Path) -> Outcome:
    script = folder / "requests.lua"
    script.write_text(_SCRIPT % ", ".join(json.dumps(path) for path in paths))
    command = [
        WRK,
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        f"--timeout={_PATIENCE:.0f}s",
        "-s",
        str(script),
        f"http://127.0.0.1:{port}",
    ]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return Outcome(**json.loads(output.splitlines()[-1]))


def _threads(port: int, paths: Sequence[str], seconds: int, connections: int, folder: Path) -> Outcome:
    took: list[float] = []
    failed: list[str] = []
    start = time.perf_counter()

    def work(first: int) -> None:
        for path in itertools.islice(itertools.cycle(paths), first, None, connections):
            begun = time.perf_counter()
            if begun - start > seconds:
                return
            try:
                answer = fetch(port, path)
            except OSError as error:
                failed.append(str(error))
                continue
            took.append(time.perf_counter() - begun)
            if not answer.startswith(b"HTTP/1.1 200"):
                failed.append(path)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - start
    hundredths = statistics.quantiles(took, n=100) if len(took) > 1 else [float("nan")] * 99
    return Outcome(len(took), taken, hundredths[49], hundredths[98], len(failed))


def fetch(port: int, path: str) -> bytes:
    """The whole answer, over a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), _PATIENCE) as link:
        link.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: link.recv(65_536), b""))
