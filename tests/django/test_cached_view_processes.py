"""One page for all workers of a machine, in scope `shared`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("page_process.py")


class Worker:
    """A process that runs the program."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, PROGRAM, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.mark.slow
def test_page_of_four_workers(tmp_path: Path) -> None:
    """Four processes of 25 threads ask for it together: one call of the view, and one page for all; what one
    process invalidates is gone for the others.
    """
    calls = tmp_path / "calls"
    workers = [Worker(f"shared://{tmp_path / 'cache'}", str(calls)) for _ in range(4)]
    try:
        assert [worker.hear() for worker in workers] == ["ready"] * 4
        for worker in workers:
            worker.say("ask")
        assert len({worker.hear() for worker in workers}) == 1
        assert calls.read_text() == "."
        workers[0].say("invalidate")
        assert workers[0].hear() == "done"
        for worker in workers[1:]:
            worker.say("ask")
        [page] = {worker.hear() for worker in workers[1:]}
        assert calls.read_text() == ".."
        assert page in {f"made by {worker.process.pid}" for worker in workers[1:]}
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.communicate()
