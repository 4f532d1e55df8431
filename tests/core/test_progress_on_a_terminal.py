"""Bars, where there is a terminal for them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pty = pytest.importorskip("pty", reason="POSIX has it")

ROOT = Path(__file__).resolve().parents[2]


def shown_by(code: str) -> tuple[bytes, bytes]:
    """What a program shows on a terminal by standard error, and what it writes to standard output."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "PYTHONPATH": str(ROOT)},
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65_536)
            except OSError:  # the other end is closed
                break
        os.close(ours)
        assert process.stdout is not None
        written = process.stdout.read()
    assert process.returncode == 0, shown
    return shown, written


def test_work_that_cannot_say_how_far_it_is() -> None:
    """A bar that moves and goes away; brackets in names are no styles; standard output is for the result."""
    shown, written = shown_by(
        "import time\n"
        "from quickcache_core.progress import busy\n"
        "with busy('[red]pages: saving 5 entries', print):\n"
        "    time.sleep(0.5)\n"
        "print('done')"
    )
    assert b"[red]pages: saving 5 entries" in shown
    assert "━".encode() in shown
    assert written == b"done\n"


def test_work_that_can() -> None:
    """How much is done, and the rate."""
    shown, written = shown_by(
        "from quickcache_core.progress import progress_bar\n"
        "with progress_bar('pages', print) as show:\n"
        "    show(50, 200)\n"
        "    show(200, 200)\n"
    )
    assert b"200/200" in shown
    assert b"/s" in shown
    assert written == b""
