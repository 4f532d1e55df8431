"""The tests on each supported Python: `make matrix`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
FREE_THREADED = ["3.13t", "3.14t"]
ENGINE = ("table", "threads", "cache_operations", "store_contract", "policy_contract", "isolation")

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
    # Those with a GIL come first on the path: where a free-threaded 3.13 is, there is a python3.13, too.
    for version in [*FREE_THREADED, *PYTHONS]:
        if not _runs(f"python{version}"):
            kind = "t" if version in FREE_THREADED else ""
            for found in sorted(versions.glob(f"{version.removesuffix('t')}.*[0-9]{kind}/bin")):
                os.environ["PATH"] = f"{found}{os.pathsep}{os.environ['PATH']}"


_put_pyenv_on_path()


@nox.session(python=PYTHONS, venv_backend="venv")
def tests(session: nox.Session) -> None:
    session.chdir(ROOT)
    session.install("-qq", "--editable", ".[dev]")
    session.run("python", "-m", "pytest", "-n", "auto", "--dist", "loadscope", *session.posargs)


@nox.session(python=FREE_THREADED, venv_backend="venv")
def free_threaded(session: nox.Session) -> None:
    """What threads do with the engine; most of the other tests need packages that can't be built there."""
    session.chdir(ROOT)
    session.install("-qq", "--editable", ".")
    # Later versions of Hypothesis are compiled, and have no wheels for all of these.
    session.install(
        *("-qq", "--only-binary=hypothesis", "hypothesis>=6.120,<7"),
        *("pytest>=9,<10", "pytest-timeout>=2.3,<3", "pytest-xdist>=3.6,<4"),
    )
    for pure in ("0", "1"):
        session.run(
            *("python", "-m", "pytest"),
            *(session.posargs or [f"tests/core/test_{name}.py" for name in ENGINE]),
            env={"PYTHON_GIL": "0", "QUICKCACHE_PURE": pure},
        )
