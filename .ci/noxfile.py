"""The tests on each supported Python: `make matrix`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]

nox.options.envdir = str(ROOT / ".nox")
nox.options.reuse_venv = "yes"
nox.options.download_python = "never"


def _runs(command: str) -> bool:
    try:
        return subprocess.run([command, "-V"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _put_pyenv_on_path() -> None:
    # pyenv's own python3.12 on the path fails unless that version is the active one.
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for version in PYTHONS:
        if not _runs(f"python{version}"):
            for found in sorted(versions.glob(f"{version}.*/bin")):
                os.environ["PATH"] = f"{found}{os.pathsep}{os.environ['PATH']}"


_put_pyenv_on_path()


@nox.session(python=PYTHONS, venv_backend="venv")
def tests(session: nox.Session) -> None:
    session.chdir(ROOT)
    session.install("-qq", "--editable", ".[dev]")
    session.run("python", "-m", "pytest", "-n", "auto", "--dist", "loadscope", *session.posargs)
