"""The figures of the processes of all hosts: each puts its own on the server, where they end with it."""

from __future__ import annotations

import json
import logging
import math
import secrets
import socket
from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from typing import Any, Final

from quickcache_core.metrics.board import Reading, Worker
from quickcache_core.metrics.figures import StoreFigures
from quickcache_core.store.redis.client import Client
from quickcache_core.store.redis.names import Names, escaped

logger = logging.getLogger(__name__)

LIFE: Final = 10.0
"""Seconds that figures are there after they were put there last."""
_REPEAT: Final = 4.0
"""Seconds after which figures that haven't changed are put there again."""
_AT_ONCE: Final = 500
"""Processes read in one round trip."""
_TOO_LARGE: Final = 2**64


class Announcing:
    """Of one store in this process. Any thread may use it."""

    def __init__(self, client: Client, names: Names) -> None:
        self._client = client
        self._names = names
        self._said: StoreFigures | None = None
        self._repeat_at = 0.0
        self._pid = 0
        self._name = b""
        self.own: Callable[[], Worker | None] = _nobody
        """What there is to say of this process; None for nothing."""

    def work(self) -> None:
        """Say it, if it is news. Raises `StoreUnavailable`."""
        worker = self.own()
        if worker is None:
            return
        now = monotonic()
        if worker.pid == self._pid and worker.figures == self._said and now < self._repeat_at:
            return
        if worker.pid != self._pid:
            self._pid = worker.pid
            self._name = self._names.figures(secrets.token_hex(6).encode())
        self._client.call("SET", self._name, _packed(worker), "PX", int(LIFE * 1000))
        self._said, self._repeat_at = worker.figures, now + _REPEAT

    def read(self) -> Reading:
        """Those of all processes that have said something within `LIFE`. Looks at all keys of the server.

        Raises `StoreUnavailable`.
        """
        pattern = escaped(self._names.figures(b"")) + b"*"
        names = sorted({name for some in self._client.scan(pattern) for name in some})
        workers: list[Worker] = []
        for start in range(0, len(names), _AT_ONCE):
            found = self._client.call_many([("GET", name) for name in names[start : start + _AT_ONCE]])
            workers += filter(None, map(_unpacked, found))
        return Reading(tuple(sorted(workers, key=lambda one: (one.host, one.pid))))


def _packed(worker: Worker) -> bytes:
    return json.dumps(
        {
            "host": socket.gethostname(),
            "pid": worker.pid,
            "server": worker.server,
            "uptime_s": round(worker.uptime_s, 3),
            "ops_per_s": round(worker.ops_per_s, 3),
            "figures": worker.figures._asdict(),
        }
    ).encode()


def _unpacked(data: Any) -> Worker | None:
    """None for what isn't ours, as of a later version."""
    try:
        said = json.loads(data)
        known = {name: said["figures"][name] for name in StoreFigures._fields if name in said["figures"]}
        if not all(_is_count(value) for name, value in known.items() if name != "bytes" or value is not None):
            raise ValueError("no counts")
        figures = StoreFigures(**known)
        worker = Worker(
            int(said["pid"]),
            str(said["server"]),
            _amount(said["uptime_s"]),
            figures,
            _amount(said["ops_per_s"]),
            0,
            0,
        )
        return replace(worker, host=str(said["host"]))
    except (TypeError, ValueError, KeyError, OverflowError, RecursionError) as error:
        logger.debug("Figures that can't be read: %s", type(error).__name__)
        return None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _TOO_LARGE


def _amount(value: Any) -> float:
    number = float(value)
    if not 0.0 <= number < math.inf:
        raise ValueError("no amount")
    return number


def _nobody() -> None:
    return None
