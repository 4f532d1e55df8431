"""Starts an example under gunicorn, asks it as a browser would, and stops it whatever happens."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from html import unescape
from http.cookies import SimpleCookie
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

STARTS_WITHIN = 60.0  # seconds, the making of the database included
STOPS_WITHIN = 15.0  # seconds, then it is killed
ANSWERS_WITHIN = 30.0  # seconds
ALL_ANSWER_WITHIN = 30.0  # seconds


class ExampleFailed(Exception):
    """The message ends with the log of the example."""


class GunicornProcess:
    """An example's run.py on the loopback address; port 0 is any free one. `folder` gets its data and log."""

    def __init__(self, run_py: Path, *arguments: str, folder: Path, port: int = 0) -> None:
        self._command = [sys.executable, str(run_py), "--port", str(port), "--data", str(folder), *arguments]
        self._log = folder / "gunicorn.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C reaches only this process, which then stops gunicorn in good order.
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def has_complained(self) -> bool:
        return bool(re.search(r"Traceback|Exception|\[(?:WARNING|ERROR|CRITICAL)\]", self.log))

    def stop(self) -> int:
        """Ends gunicorn and all its workers, waits for them, returns the exit status. May be called again."""
        process = self._process
        if process is None:
            return 0
        process.terminate()
        try:
            status = process.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            status = -signal.SIGKILL
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._process = None
        return status

    def visitor(self) -> Visitor:
        return Visitor(self)

    def answers_of_all(self, workers: int, ask: Callable[[], Answer], each: int = 1) -> list[Answer]:
        """Asks until all have answered, `each` times at least: which of them answers is up to the kernel."""
        answers: list[Answer] = []
        times: Counter[int] = Counter()
        for answer in _endlessly(ask, at_once=2 * workers):
            if answer.status != 200:
                raise self.failure(f"A request was answered with status {answer.status}.")
            answers.append(answer)
            times[answer.worker] += 1
            if len(times) == workers and min(times.values()) >= each:
                return answers
        raise self.failure(f"Of {workers} workers, these have answered: {dict(times)}.")

    def failure(self, what: str) -> ExampleFailed:
        return ExampleFailed(f"{what}\n\nThe log of gunicorn:\n{self.log}")

    def _wait_until_it_listens(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise self.failure(f"It ended at once with exit status {self._process.returncode}.")
            # gunicorn listens before it forks, so a request sent now waits for the first worker.
            if listening := re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", self.log):
                self.port = int(listening[1])
                return
            time.sleep(0.05)
        raise self.failure(f"It did not listen within {STARTS_WITHIN:.0f} s.")


@dataclass(frozen=True)
class Part:
    """A part of a page as its `Server-Timing` header tells: hit, miss or new, and the time it took."""

    outcome: str
    ms: float


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def worker(self) -> int:
        return int(self.headers["X-Worker"])

    @property
    def parts(self) -> dict[str, Part]:
        found = re.findall(r"(\w+);desc=(\w+);dur=([\d.]+)", self.headers.get("Server-Timing", ""))
        return {name: Part(outcome, float(ms)) for name, outcome, ms in found}

    def data(self, name: str) -> str:
        """The value of the page's first attribute `data-name`."""
        found = re.search(rf'data-{name}="([^"]*)"', self.text)
        if found is None:
            raise LookupError(f"The page has no data-{name}:\n{self.text}")
        return unescape(found[1])


class Visitor:
    """Keeps cookies as a browser does; caches nothing, follows no redirects, connects anew each time.

    Several threads may share one once it has its cookies.
    """

    def __init__(self, server: GunicornProcess) -> None:
        self._server = server
        self._cookies: dict[str, str] = {}

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self._ask("GET", path, None, dict(headers or {}))

    def post(self, path: str, **form: object) -> Answer:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if token := self._cookies.get("csrftoken"):
            headers["X-CSRFToken"] = token
        return self._ask("POST", path, urlencode(form), headers)

    def _ask(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=ANSWERS_WITHIN)
        if self._cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read().decode())
        except (OSError, http.client.HTTPException) as error:
            raise self._server.failure(f"{method} {path} has got no answer: {error!r}") from error
        finally:
            connection.close()
        for line in answer.headers.get_all("Set-Cookie", []):
            self._cookies.update({name: morsel.value for name, morsel in SimpleCookie(line).items()})
        return answer


def _endlessly(ask: Callable[[], Answer], *, at_once: int) -> Iterator[Answer]:
    """One after the other at first; then several at once, so that one quick worker can't take them all."""
    deadline = time.monotonic() + ALL_ANSWER_WITHIN
    yield from (ask() for _ in range(5 * at_once))
    with ThreadPoolExecutor(at_once) as pool:
        while time.monotonic() < deadline:
            yield from [future.result() for future in [pool.submit(ask) for _ in range(at_once)]]
