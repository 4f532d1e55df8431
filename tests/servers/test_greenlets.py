from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_greenlets_that_open_a_shared_store(tmp_path: Path) -> None:
    """Locks from before the patching don't keep greenlets apart, so none may get its turn while one opens."""
    pytest.importorskip("gevent")
    command = [sys.executable, "-m", "tests.servers.greenlets", str(tmp_path / "cache")]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert finished.stdout == "['nothing', 'nothing', 'nothing', 'nothing']\n", finished.stderr
    assert "ERROR" not in finished.stderr, finished.stderr
