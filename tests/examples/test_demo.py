"""`make demo`: it tells its story, ends, and leaves no server behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "example_projects" / "demo.py"
ENDS_WITHIN = 120  # seconds

pytestmark = pytest.mark.slow


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Running, with its temporary files in `folder`."""
    process = subprocess.Popen(
        [sys.executable, "-u", str(DEMO), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if words in line:
            return text
    raise AssertionError(f"It ended without saying {words!r}:\n{text}")


def assert_nothing_is_left(folder: Path, output: str) -> None:
    address = re.search(r"http://127\.0\.0\.1:(\d+)/", output)
    assert address, output
    with socket.socket() as connection:
        assert connection.connect_ex(("127.0.0.1", int(address[1]))) != 0
    assert not list(folder.iterdir())


def test_the_story_is_told_to_the_end(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        output, errors = process.communicate(timeout=ENDS_WITHIN)
    assert process.returncode == 0, output + errors
    assert not errors
    for words in (
        "cache_page",
        "{% cache %}",
        "4 workers",
        "typically",
        "Before:",
        "total",
        "removed, for all processes",
    ):
        assert words in output
    workers = re.findall(r"^Workers (.*)\.$", output, re.MULTILINE)
    first, second = (set(pids.split(", ")) for pids in workers)
    assert len(first) == len(second) == 4
    assert not first & second
    assert set(re.findall(r"^(\d+) +gunicorn", output, re.MULTILINE)) == first
    readers = re.findall(r'^Worker (\d+): cache.get\("notice"\) gives "', output, re.MULTILINE)
    assert sorted(readers) == sorted([*first, *second])
    emptied = re.findall(r'^Worker (\d+): cache.get\("notice"\) gives nothing', output, re.MULTILINE)
    assert set(emptied) == first
    warm = re.findall(r"^Worker (\d+): its first catalogue page is a hit", output, re.MULTILINE)
    assert set(warm) == second
    assert_nothing_is_left(tmp_path, output)


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_shop_that_stays_open_is_closed_by_a_signal(
    tmp_path: Path, sent: signal.Signals, status: int
) -> None:
    with demo(tmp_path, "--serve") as process:
        output = read_until(process, "Ctrl-C closes it.")
        process.send_signal(sent)
        _, errors = process.communicate(timeout=ENDS_WITHIN)
    assert process.returncode == status, errors
    assert_nothing_is_left(tmp_path, output)


def test_a_start_that_fails_shows_the_log(tmp_path: Path) -> None:
    """Another program has the port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with demo(tmp_path, "--port", str(taken.getsockname()[1])) as process:
            _, errors = process.communicate(timeout=ENDS_WITHIN)
    assert process.returncode == 1
    assert "already in use" in errors.lower()
    assert not list(tmp_path.iterdir())
