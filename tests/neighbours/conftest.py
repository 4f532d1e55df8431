"""Projects that use a neighbour together with QuickCache, each in a process and a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs `python` with arguments in the test's folder."""

    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
        assert result.returncode == code, result.stdout + result.stderr
        return result

    return run


def environment(folder: Path) -> dict[str, str]:
    django = {"DJANGO_SETTINGS_MODULE": "project"} if (folder / "project.py").exists() else {}
    return {
        **django,
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": f"{folder}:{ROOT}",
        "QUICKCACHE_RUNTIME_DIR": str(folder / "run"),
    }
