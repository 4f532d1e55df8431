"""Servers of all kinds with one of the apps, each in a process group of its own, and a client for them."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

APPS = Path(__file__).resolve().parent / "apps"
WORKERS = 3
STARTS_WITHIN = 40.0  # seconds, until all workers have answered
STOPS_WITHIN = 15.0  # seconds
ANSWERS_WITHIN = 30.0  # seconds, until one request has its answer, all attempts together
HOLD = 4  # milliseconds that a request keeps its worker where all of them are wanted
AT_ONCE = 6  # requests

SCOPES = ("shared", "memory")
FIGURES = ("gets", "hits", "misses", "sets")


@dataclass(frozen=True)
class Kind:
    """A server program with its options."""

    name: str
    command: tuple[str, ...]
    """`{socket}`, `{workers}` and `{app}` are filled in."""
    needs: tuple[str, ...]
    """Modules without which it can't run."""
    protocol: str = "wsgi"
    loads_once: bool = False
    """The app is loaded, and its caches are used, before the workers are forked."""

    def require(self) -> None:
        for module in self.needs:
            if importlib.util.find_spec(module) is None:
                pytest.skip(f"{self.name} needs {module}, which isn't installed")


@dataclass(frozen=True)
class Answer:
    pid: int
    result: Any


class Tally:
    """What was asked of each scope: `done` for sure, and perhaps `lost`, since no answer came."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.done: Counter[tuple[str, str]] = Counter()
        self.lost: Counter[tuple[str, str]] = Counter()
        self.unpublished = 0
        """Requests, at most, that workers had answered and were killed before they could publish it."""

    def note(self, answered: bool, scope: str, op: str, result: Any = None) -> None:
        with self._lock:
            counter = self.done if answered else self.lost
            for name in figures_of(op, result, known=answered):
                counter[scope, name] += 1

    def settle(self, scope: str, totals: dict[str, Any]) -> None:
        """From now on what is published is known to be right."""
        for name in FIGURES:
            self.done[scope, name] = totals[name]
            self.lost[scope, name] = 0

    def difference(self, scope: str, totals: dict[str, Any]) -> str:
        """What is wrong with published totals; empty if nothing is."""
        wrong = []
        for name in FIGURES:
            least = self.done[scope, name] - self.unpublished
            most = self.done[scope, name] + self.lost[scope, name]
            if not least <= totals[name] <= most:
                wrong.append(f"{name}: {totals[name]} published, {least} to {most} asked for")
        return ", ".join(wrong)


def figures_of(op: str, result: Any, *, known: bool) -> list[str]:
    if op == "get":
        return ["gets", *(["hits", "misses"] if not known else ["misses"] if result is None else ["hits"])]
    return ["sets"] if op in ("set", "incr") else []


class Console:
    """A process of the project that is no worker."""

    def __init__(self, framework: str, environment: dict[str, str]) -> None:
        self.framework = framework
        self._process = subprocess.Popen(
            [sys.executable, "console.py", framework],
            cwd=APPS,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def command(self, name: str, *options: str) -> str:
        words = [f"quickcache_{name}"] if self.framework == "django" else ["quickcache", name]
        output: str = self._ask("command", *words, *options)
        return output

    def choose(self, scope: str) -> list[str]:
        names = {"django": ("default", "local"), "flask": ("cache1", "cache2")}[self.framework]
        return ["--alias" if self.framework == "django" else "--cache", names[SCOPES.index(scope)]]

    def perform(self, op: str, **arguments: str) -> Any:
        return self._ask("perform", {"op": op, **arguments})

    def report(self) -> dict[str, Any]:
        """Of each scope what the command tells."""
        report = json.loads(self.command("stats", "--json"))
        assert not report["notes"], report
        return dict(zip(SCOPES, report["aliases"], strict=True))

    def totals(self) -> dict[str, dict[str, Any]]:
        return {scope: alias["totals"] for scope, alias in self.report().items()}

    def watch(self, group: int) -> None:
        """Kill that process group should the tests end without having done so."""
        self._ask("watch", group)

    def keys(self, scope: str) -> dict[str, list[int]]:
        """The stored keys, each with the pids of the workers that have it."""
        report = json.loads(self.command("keys", "--json", *self.choose(scope)))
        return {row["key"]: row["pids"] for row in report["aliases"][0]["keys"]}

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _ask(self, *question: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the console has ended with {self._process.wait()}"
        return json.loads(line)


class Server:
    """A server, started by `start`; `folder` is its own, and outlives a `stop`."""

    def __init__(self, kind: Kind, framework: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.tally = Tally()
        self.log_file = folder / "server.log"
        self.workers: set[int] = set()
        self._socket = str(folder / "socket")
        self._framework = framework
        self._process: subprocess.Popen[bytes] | None = None
        self._paths = ("/do",) if kind.protocol == "wsgi" else ("/ado", "/do")
        self._asked = 0
        self._pool = ThreadPoolExecutor(AT_ONCE)
        runtime = folder / "runtime"
        runtime.mkdir(mode=0o700, exist_ok=True)
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(APPS), str(APPS.parents[2])]),
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": "django_settings",
            "QUICKCACHE_RUNTIME_DIR": str(runtime),
            "XDG_RUNTIME_DIR": str(runtime),
            "SERVER_TESTS_DIRECTORY": str(folder / "cache"),
        }
        self.console = Console(framework, self.environment)

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    # Life

    def start(self) -> None:
        # Having asked for the figures, the console stays out of them.
        self.console.totals()
        fillers = {"socket": self._socket, "workers": str(WORKERS), "app": f"{self._framework}_site"}
        with suppress(FileNotFoundError):
            Path(self._socket).unlink()
        warm = {"SERVER_TESTS_WARM": "1"} if self.kind.loads_once else {}
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [word.format(**fillers) for word in self.kind.command],
                cwd=APPS,
                env={**self.environment, "SERVER_TESTS_PROTOCOL": self.kind.protocol, **warm},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.console.watch(self._process.pid)
        if warm:
            # Whether a master process publishes what it did at loading, and when, depends on the server.
            for scope in SCOPES:
                self.tally.lost.update({(scope, name): 1 for name in ("sets", "gets", "hits")})
        self.wait(self._listens, STARTS_WITHIN, "it does not listen")
        self.meet_workers()

    def stop(self) -> None:
        """As an administrator does; what is left of the group is killed. Raises if it isn't in good order."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOPS_WITHIN)
        finally:
            self._end(process)

    def close(self) -> None:
        """Whatever has happened."""
        if self._process is not None:
            self._end(self._process)
        self._pool.shutdown(cancel_futures=True)
        self.console.close()

    def kill_worker(self) -> int:
        """With -9; returns its former pid."""
        pid = min(self.workers)
        os.kill(pid, signal.SIGKILL)
        self.workers.discard(pid)
        return pid

    def threads_of_master(self) -> int:
        assert self._process is not None
        return sum(1 for _ in Path(f"/proc/{self._process.pid}/task").iterdir())

    def meet_workers(self) -> None:
        """Find out who the workers are: all of them must have answered."""
        self.workers = set()
        deadline = time.monotonic() + STARTS_WITHIN
        while len(self.workers) < WORKERS:
            if time.monotonic() > deadline:
                raise self.failure(f"only {sorted(self.workers)} have answered")
            self.workers |= {answer.pid for answer in self.at_once(2 * AT_ONCE, "ping", hold=HOLD)}
            self.workers = {pid for pid in self.workers if is_alive(pid)}

    def failure(self, what: str) -> AssertionError:
        return AssertionError(f"{self.kind.name}: {what}; its log ends:\n{self.log[-3000:]}")

    def wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise self.failure(what)
            time.sleep(0.05)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _listens(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise self.failure(f"it ended with {self._process.returncode}")
        try:
            self._request("/do?op=ping&scope=shared")
        except OSError:
            return False
        return True

    # Requests

    def ask(self, op: str, scope: str = "shared", *, hold: int = 0, **arguments: Any) -> Answer:
        """One request on a connection of its own; again if its connection is cut off, as proxies do."""
        query = "&".join(f"{name}={value}" for name, value in arguments.items())
        self._asked += 1
        path = f"{self._paths[self._asked % len(self._paths)]}?op={op}&scope={scope}&hold={hold}&{query}"
        deadline = time.monotonic() + ANSWERS_WITHIN
        while True:
            try:
                body = self._request(path)
            except (ConnectionError, BlockingIOError):
                self.tally.note(False, scope, op)
                if time.monotonic() > deadline:
                    raise self.failure(f"{path} gets no answer") from None
                time.sleep(0.01)
            else:
                answer = Answer(**json.loads(body))
                self.tally.note(True, scope, op, answer.result)
                return answer

    def at_once(self, count: int, op: str, scope: str = "shared", **arguments: Any) -> list[Answer]:
        """The same request so many times, `AT_ONCE` of them at any time."""
        return list(self._pool.map(lambda _: self.ask(op, scope, **arguments), range(count)))

    def from_all(self, op: str, scope: str = "shared", **arguments: Any) -> list[Answer]:
        """Answers until each worker has given one at least."""
        answers: list[Answer] = []
        deadline = time.monotonic() + ANSWERS_WITHIN
        while not self.workers <= {answer.pid for answer in answers}:
            if time.monotonic() > deadline:
                raise self.failure(f"of {self.workers} only {Counter(one.pid for one in answers)} answer")
            hold = HOLD if answers else 1
            answers += self.at_once(AT_ONCE, op, scope, hold=hold, **arguments)
        return answers

    def _request(self, path: str) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWERS_WITHIN)
            connection.connect(self._socket)
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
            received = bytearray()
            while part := connection.recv(65_536):
                received += part
        head, _, body = bytes(received).partition(b"\r\n\r\n")
        if head and b" 200 " not in head[:13]:
            raise self.failure(f"{path}: {bytes(received)[:2000]!r}")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        if length is None or len(body) < int(length[1]):
            raise ConnectionResetError("the answer was cut off")
        return body


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@contextmanager
def serving(kind: Kind, framework: str) -> Iterator[Server]:
    kind.require()
    # Not pytest's folder: the path of a socket may have some hundred characters only.
    folder = Path(tempfile.mkdtemp(prefix="quickcache-server-"))
    server = None
    try:
        server = Server(kind, framework, folder)
        server.start()
        yield server
    finally:
        if server is not None:
            server.close()
        shutil.rmtree(folder)


def gunicorn(*options: str, needs: Sequence[str] = (), protocol: str = "wsgi") -> Kind:
    name = " ".join(["gunicorn", *(word.removeprefix("--") for word in options)])
    command = f"{sys.executable} -m gunicorn --bind unix:{{socket}} --workers {{workers}}"
    return Kind(
        name,
        (*command.split(), "--worker-tmp-dir", "/dev/shm", *options, "{app}:application"),
        ("gunicorn", *needs),
        protocol,
        "--preload" in options,
    )


def uwsgi(*options: str) -> Kind:
    command = "uwsgi --master --need-app --die-on-term --disable-logging --http-socket {socket}"
    program, *fixed = f"{command} --processes {{workers}} --module {{app}}:application".split()
    return Kind(
        " ".join(["uwsgi", *(word.removeprefix("--") for word in options)]),
        (str(Path(sys.executable).with_name(program)), *fixed, *options),
        # Never imported: that would be a uWSGI in this process.
        ("pyuwsgi",),
        loads_once="--lazy-apps" not in options,
    )


UVICORN = Kind(
    "uvicorn",
    tuple(
        f"{sys.executable} -m uvicorn --uds {{socket}} --workers {{workers}} --lifespan off "
        "--no-access-log {app}:application".split()
    ),
    ("uvicorn",),
    "asgi",
)
