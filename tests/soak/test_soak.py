"""A short soak of each scope finds nothing wrong, and finds out what is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak.mistakes import LEAKS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(0),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at in /proc"),
]

SCOPES = ("memory", "shared", "redis")
_COLUMNS = ("seconds", "operations", "faults", "losses", "wrong values", "failures", "leaks")


def soak(scope: str, seconds: float, mistake: str = "") -> tuple[int, dict[str, int], str]:
    """How it ended, what its line of the table says, and all of what it printed."""
    command = [sys.executable, "-m", "tests.soak", "--scope", scope, "--seconds", f"{seconds}"]
    if mistake:
        command += ["--mistake", mistake]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    said = done.stdout + done.stderr
    row = re.search(rf"^ *{scope}((?: +[\d,]+){{{len(_COLUMNS)}}})$", said, re.MULTILINE)
    assert row is not None, said
    numbers = (int(number.replace(",", "")) for number in row[1].split())
    return done.returncode, dict(zip(_COLUMNS, numbers, strict=True)), said


@pytest.mark.parametrize("scope", SCOPES)
def test_nothing_wrong(scope: str) -> None:
    """Under kills, clock jumps, full disks, slow and dead servers, for some seconds."""
    code, counts, said = soak(scope, 5.0)
    assert counts["operations"] > 1000, said
    assert counts["faults"] > 10, said
    assert counts["losses"] == counts["wrong values"] == counts["failures"] == counts["leaks"] == 0, said
    assert code == 0, said


@pytest.mark.parametrize(
    ("scope", "mistake", "column"),
    [
        ("memory", "forgets", "losses"),
        ("shared", "outdated", "wrong values"),
        ("redis", "forgets", "losses"),
    ],
)
def test_wrong_answers_are_found_out(scope: str, mistake: str, column: str) -> None:
    """If the soak had no teeth, the other test would say nothing."""
    _find_out(scope, mistake, column)


@pytest.mark.parametrize("mistake", LEAKS)
def test_leaks_are_found_out(mistake: str) -> None:
    """Threads, open files, or memory, a little with each round."""
    _find_out("memory", mistake, "leaks")


def _find_out(scope: str, mistake: str, column: str) -> None:
    """Sooner or later: on a busy machine there is little work to go wrong in a few seconds."""
    for seconds in (3.0, 10.0, 30.0):
        code, counts, said = soak(scope, seconds, mistake)
        if counts[column]:
            break
    assert counts[column] > 0, said
    assert code == 1, said
