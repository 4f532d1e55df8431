"""Processes with a shared cache each, which do as tests tell them over pipes, and die where tests want it."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.waiting import readable

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0
"""Seconds after which a process hangs."""
MAP = 4_000_000
"""Bytes; small files are made fast."""


class Died(Exception):
    """The process ended instead of answering. `status`: negative for a signal."""

    def __init__(self, status: int, log: str) -> None:
        super().__init__(f"ended with {status}:\n{log}")
        self.status = status


class Failed(Exception):
    """The process answered with an error: `name` is its class."""

    def __init__(self, name: str, text: str, log: str) -> None:
        super().__init__(f"{name}: {text}\n{log}")
        self.name = name
        self.text = text


class Template:
    """A process that has imported everything, and forks others: in no time, and with nothing in use."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        command = [sys.executable, "-m", "tests.shared.remote", "template", str(theirs.fileno())]
        self._process = subprocess.Popen(
            command, cwd=ROOT, pass_fds=[theirs.fileno()], start_new_session=True
        )
        theirs.close()

    def fork(self, descriptors: list[int]) -> int:
        """A process with these as its standard input, output and error; its id."""
        socket.send_fds(self._socket, [b"fork"], descriptors)
        return int(self._socket.recv(100))

    def wait(self, pid: int) -> int:
        self._socket.send(b"wait %d" % pid)
        return int(self._socket.recv(100))

    def close(self) -> None:
        self._socket.close()
        self._process.wait(PATIENCE)


def template(channel: socket.socket) -> None:
    importlib.import_module("quickcache_core.store.shared")
    importlib.import_module("tests.shared.scenes")
    importlib.import_module("lmdb")
    while True:
        request, descriptors, _, _ = socket.recv_fds(channel, 100, 3)
        if not request:
            return
        if request == b"fork":
            pid = os.fork()
            if pid == 0:
                channel.close()
                for number, descriptor in enumerate(descriptors):
                    os.dup2(descriptor, number)
                    os.close(descriptor)
                serve()
                sys.exit()
            # By the time that anybody knows of it, it can be killed as a group.
            os.setpgid(pid, pid)
            for descriptor in descriptors:
                os.close(descriptor)
            channel.send(b"%d" % pid)
        else:
            _, status = os.waitpid(int(request.split()[1]), 0)
            channel.send(b"%d" % os.waitstatus_to_exitcode(status))


class Remote:
    """`Remote(template, directory).get("key")` is carried out by another process.

    Attributes that aren't defined here are methods of its cache; see `Scene` for what else it can do. With
    `command` it is started anew, under another program such as `unshare`.
    """

    def __init__(
        self, forker: Template, directory: Path | None, *, command: tuple[str, ...] = (), **settings: Any
    ) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `close`
        self._status: int | None = None
        theirs, requests = os.pipe()
        answers, ours = os.pipe()
        self._requests, self._answers_from = requests, answers
        self._wait: Callable[[], int]
        if command:
            process = subprocess.Popen(
                [*command, sys.executable, "-m", "tests.shared.remote"],
                cwd=ROOT,
                stdin=theirs,
                stdout=ours,
                stderr=self._log,
                start_new_session=True,
            )
            self._group = process.pid
            self._wait = process.wait
        else:
            self._group = forker.fork([theirs, ours, self._log.fileno()])
            self._wait = lambda: forker.wait(self._group)
        os.close(theirs)
        os.close(ours)
        self._answers = b""
        self.pid: int = self._group
        try:
            self.pid = self.do("pid")
            if directory is not None:
                self.do("open", str(directory), settings)
        except BaseException:
            self.close()
            raise

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: self.do("call", method, args, kwargs)

    def do(self, what: str, *args: Any) -> Any:
        self.ask(what, *args)
        return self.answer()

    def ask(self, what: str, *args: Any) -> None:
        """As `do`, without waiting for the answer."""
        try:
            os.write(self._requests, json.dumps([what, args]).encode() + b"\n")
        except BrokenPipeError:
            pass  # `answer` says what happened

    def answer(self, patience: float = PATIENCE) -> Any:
        """Raises `Failed`, `Died`, and `TimeoutError`."""
        end = time.monotonic() + patience
        while b"\n" not in self._answers:
            with selectors.DefaultSelector() as selector:
                selector.register(self._answers_from, selectors.EVENT_READ)
                ready = selector.select(max(end - time.monotonic(), 0.0))
            if not ready:
                raise TimeoutError(f"no answer within {patience} s:\n{self.log()}")
            got = os.read(self._answers_from, 65536)
            if not got:
                raise Died(self.wait(), self.log())
            self._answers += got
        line, _, self._answers = self._answers.partition(b"\n")
        kind, *rest = json.loads(line)
        if kind == "error":
            raise Failed(*rest, self.log())
        return rest[0]

    def dies(self) -> int:
        """Wait for its end; the signal that killed it."""
        try:
            answer = self.answer()
        except Died as died:
            return -died.status
        raise AssertionError(f"it lives on, and answered {answer!r}")

    def trap(self, where: str, when: str = "before", number: int = signal.SIGKILL, count: int = 1) -> None:
        """The process gets this signal before or after it runs a function for the `count`th time from now on.

        `where` is "module:name" or "module:Class.name", in the package of the store.
        """
        self.do("trap", where, when, int(number), count)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    @property
    def is_stopped(self) -> bool:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def wait_until_stopped(self) -> None:
        self._wait_for(lambda: self.is_stopped, "was not stopped")

    def wait_until_stopped_or_done(self) -> None:
        """Whichever it is; the answer is still to be taken."""
        self._wait_for(
            lambda: self.is_stopped or readable(self._answers_from, 0.0), "neither stops nor answers"
        )

    def _wait_for(self, is_so: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not is_so():
            if time.monotonic() > end:
                raise TimeoutError(f"{self.pid} {what}")
            time.sleep(0.002)

    def wait(self) -> int:
        """Its status, once it has ended; negative for a signal."""
        if self._status is None:
            self._status = self._wait()
        return self._status

    def kill(self) -> None:
        """With -9, and all that it started."""
        for group in {self._group, self.pid}:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self.wait()

    def end(self) -> int:
        """Let it end as programs do; its status."""
        os.close(self._requests)
        self._requests = -1
        return self.wait()

    def close(self) -> None:
        self.kill()
        for descriptor in (self._requests, self._answers_from):
            if descriptor >= 0:
                os.close(descriptor)
        self._log.close()

    def log(self) -> str:
        """What it wrote to its standard error."""
        self._log.seek(0)
        return self._log.read()


class Scene:
    """The other side: what a process can be told to do."""

    def __init__(self) -> None:
        self.cache: Any = None

    def pid(self) -> int:
        return os.getpid()

    def open(self, directory: str, settings: dict[str, Any]) -> None:
        from quickcache_core import QuickCache, QuickCacheConfig

        settings = {"location": f"shared://{directory}", "max_bytes": MAP, "default_ttl": None, **settings}
        self.cache = QuickCache(QuickCacheConfig.from_mapping(settings))

    def call(self, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        found = getattr(self.cache, method)(*args, **kwargs)
        return sorted(found) if method == "keys" else found

    def become(self, user: int) -> None:
        """Go on as another user, whom the modes of files mean something to."""
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)

    def run(self, where: str, *args: Any) -> Any:
        """Call "module:function" with the cache and the arguments."""
        module, _, name = where.partition(":")
        return getattr(importlib.import_module(module), name)(self.cache, *args)

    def trap(self, where: str, when: str, number: int, count: int) -> None:
        module_name, _, path = where.partition(":")
        owner: Any = importlib.import_module(f"quickcache_core.store.shared.{module_name}")
        *classes, name = path.split(".")
        for one in classes:
            owner = getattr(owner, one)
        original = getattr(owner, name)
        left = count

        def spring() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), number)

        def trapped(*args: Any, **kwargs: Any) -> Any:
            if when == "before":
                spring()
            result = original(*args, **kwargs)
            if when == "after":
                spring()
            return result

        setattr(owner, name, trapped)

    def trap_commit(self, when: str, number: int, count: int) -> None:
        """As `trap`, for LMDB's own commit, when the stamps are there already."""
        from quickcache_core.store.shared.connection import Connection

        original = Connection._commit
        left = count

        class Trapped:
            def __init__(self, txn: Any) -> None:
                self._txn = txn

            def __getattr__(self, name: str) -> Any:
                return getattr(self._txn, name)

            def commit(self) -> None:
                nonlocal left
                left -= 1
                if left == 0 and when == "before":
                    os.kill(os.getpid(), number)
                self._txn.commit()
                if left == 0 and when == "after":
                    os.kill(os.getpid(), number)

        def commit(self: Any, txn: Any, slots: list[int]) -> int:
            return original(self, Trapped(txn), slots)

        Connection._commit = commit  # type: ignore[method-assign]


def serve() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    scene = Scene()
    # Nothing that is printed by the way may be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        what, args = json.loads(line)
        try:
            answer = ["ok", getattr(scene, what)(*args)]
        except Exception as error:
            answer = ["error", type(error).__name__, str(error)]
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["template"]:
        template(socket.socket(fileno=int(sys.argv[2])))
    else:
        serve()
