"""gunicorn with some workers, on a Unix socket, and a client for it."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 60.0
"""Seconds."""


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(self._path))


class Server:
    """A running server. The socket's path must be short; the kernel allows some hundred characters."""

    def __init__(self, path: Path, process: subprocess.Popen[bytes]) -> None:
        self._path = path
        self.process = process

    def get(self, url: str) -> str:
        connection = UnixConnection(self._path)
        try:
            connection.request("GET", url)
            response = connection.getresponse()
            body = response.read().decode()
            assert response.status == 200, body
            return body
        finally:
            connection.close()

    def wait(self) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.get("/pid")
                return
            except OSError:
                assert self.process.poll() is None, "the server has ended"
                assert time.monotonic() < end, "the server doesn't answer"
                time.sleep(0.05)


@contextmanager
def gunicorn(
    application: str,
    *arguments: str,
    folder: Path,
    socket_path: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """`application` under gunicorn, stopped at the end with what it has started."""
    with (folder / "gunicorn.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--bind", f"unix:{socket_path}", *arguments, application],
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdout=log,
            stderr=log,
        )
    server = Server(socket_path, process)
    try:
        server.wait()
        yield server
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
