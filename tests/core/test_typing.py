"""Type checkers understand the public interface: they accept a right program and find mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import quickcache_core

ROOT = Path(quickcache_core.__file__).parents[1]
PROGRAM = Path(__file__).with_name("typed_program.py")


def run(*command: str, folder: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MYPYPATH": str(ROOT), "XDG_CACHE_HOME": str(folder)},
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_program_runs(tmp_path: Path) -> None:
    """What type checkers see below is a program that works."""
    run(str(PROGRAM), folder=tmp_path)


@pytest.mark.slow
def test_mypy(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """`mypy --strict` with nothing configured: no complaint, and each mistake is found (no unused ignore)."""
    cache = pytestconfig.cache.mkdir("mypy") if hasattr(pytestconfig, "cache") else tmp_path
    run(
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "--cache-dir",
        str(cache),
        str(PROGRAM),
        folder=tmp_path,
    )


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("basedpyright") is None, reason="basedpyright (pyright with node) isn't installed"
)
def test_pyright(tmp_path: Path) -> None:
    """pyright in its strict mode has no complaint either."""
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT)], "enableTypeIgnoreComments": True}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    (tmp_path / "program.py").write_text(PROGRAM.read_text())
    run(
        "-m",
        "basedpyright",
        "--level",
        "error",
        "--pythonpath",
        sys.executable,
        "program.py",
        folder=tmp_path,
    )


def test_marker_file() -> None:
    """Installed packages are trusted by type checkers only with this file in them."""
    for package in ("quickcache_core", "quickcache_django", "quickcache_flask"):
        assert (ROOT / package / "py.typed").is_file()
