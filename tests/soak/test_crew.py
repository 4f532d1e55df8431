"""What is left of a crew is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at in /proc")

_CODE = """
import subprocess
from tests.soak import crew
crew.adopt()
crew.PATIENCE = 2.0
for seconds in (0, 1000):
    subprocess.run(["sh", "-c", f"sleep {seconds} &"], check=True)
    print(len(crew.left_over()))
"""


def test_children_of_who_was_killed() -> None:
    """One that ends is waited for; one that hangs is found, and ended."""
    done = subprocess.run(
        [sys.executable, "-c", _CODE],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["0", "1"]
