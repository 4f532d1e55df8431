"""What `--again` excuses, and what it doesn't: runs of pytest in runs of pytest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
UNSTABLE = """
    from pathlib import Path

    def test_{name}():
        here = Path(__file__).with_suffix(".{name}")
        with here.open("a") as file:
            file.write("x")
        assert len(here.read_text()) != 1
"""
BROKEN = "def test_{name}(): assert False"
RARE = UNSTABLE.replace("!= 1", "in (2, 3)")
CRASHING = "import os\ndef test_{name}(): os.kill(os.getpid(), 9)"


def outcome(directory: Path, *arguments: str, **tests: str) -> subprocess.CompletedProcess[str]:
    (directory / "conftest.py").write_text("from tests.conftest import *")
    for name, text in tests.items():
        lines = text.format(name=name).splitlines()
        (directory / f"test_{name}.py").write_text("\n".join(line.removeprefix("    ") for line in lines))
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), f"--rootdir={directory}"]
    command += ["-p", "no:cacheprovider", *arguments, str(directory)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_unstable_test_passes_and_is_told(tmp_path: Path) -> None:
    found = outcome(tmp_path, "--again", "-n", "2", first=UNSTABLE, second=UNSTABLE)
    assert found.returncode == 0, found.stdout
    (line,) = [line for line in found.stdout.splitlines() if line.startswith("UNSTABLE")]
    assert "test_first" in line
    assert "test_second" in line


def test_not_unless_asked_for(tmp_path: Path) -> None:
    assert outcome(tmp_path, first=UNSTABLE).returncode == 1


@pytest.mark.parametrize(
    "tests",
    [
        {"broken": BROKEN},
        {"fails_now_and_then": RARE},
        {"unstable": UNSTABLE, "broken": BROKEN},
        {"nothing_stale": UNSTABLE},
        {"crashing": CRASHING},
        dict.fromkeys("abcd", UNSTABLE),
    ],
    ids=["always fails", "fails once more", "one of two fails", "an oracle", "a crash", "too many"],
)
def test_not_excused(tmp_path: Path, tests: dict[str, str]) -> None:
    # A crash is seen by who isn't in that process.
    found = outcome(tmp_path, "--again", "-n", "1" if "crashing" in tests else "0", **tests)
    assert found.returncode == 1, found.stdout
    assert "UNSTABLE" not in found.stdout
