"""What the conformance runs need: interpreters, environments, source packages, servers."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "conformance"
"""Environments and source packages are kept there between runs."""


class MissingInterpreter(Exception):
    """No Python of the wanted version is on this machine."""


def interpreter(version: str) -> Path:
    """The newest installed Python `version` ("3.12"): from PATH, or from pyenv's versions."""
    for candidate in _candidates(version):
        asked = subprocess.run(
            [candidate, "-c", "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
        )
        if asked.returncode == 0 and asked.stdout.strip() == version:
            return Path(candidate)
    raise MissingInterpreter(
        f"no Python {version} on PATH or in ~/.pyenv/versions: install it, or leave this suite out"
    )


def _candidates(version: str) -> list[str]:
    found = [sys.executable] if sys.version_info[:2] == tuple(map(int, version.split("."))) else []
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    installed = sorted(pyenv.glob(f"{version}.*/bin/python"), key=_patch_level, reverse=True)
    found += map(str, installed)
    on_path = shutil.which(f"python{version}")
    return found + ([on_path] if on_path else [])


def _patch_level(python: Path) -> int:
    patch = python.parts[-3].rpartition(".")[2]
    return int(patch) if patch.isdigit() else -1


def environment(name: str, version: str, packages: list[str]) -> Path:
    """The Python of a virtual environment that has `packages`; made anew when that list changes."""
    home = CACHE / name / "venv"
    python = home / "bin" / "python"
    stamp = home / "packages.txt"
    wanted = "\n".join([version, *packages])
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run([interpreter(version), "-m", "venv", home], check=True)
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages], check=True
    )
    stamp.write_text(wanted)
    return python


def install(python: Path) -> bool:
    """Put QuickCache, as it is in this repository, into the environment; whether it uses what is in C.

    What is in C is compiled for this Python, where there is a compiler.
    """
    made_from = hashlib.sha256((ROOT / "pyproject.toml").read_bytes())
    for part in sorted(path for ending in ("c", "h") for path in ROOT.glob(f"quickcache_core/**/*.{ending}")):
        made_from.update(part.read_bytes())
    stamp = python.parents[1] / "installed.txt"
    if not stamp.exists() or stamp.read_text() != made_from.hexdigest():
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--editable", ROOT], check=True)
        stamp.write_text(made_from.hexdigest())
    ask = "from quickcache_core.store.accelerator import ACCELERATED; print(ACCELERATED)"
    asked = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True)
    return asked.stdout.strip() == "True"


def source(requirement: str, python: Path) -> Path:
    """The unpacked source package that `requirement` ("django==5.2.*") resolved to when first asked for."""
    store = CACHE / "sources" / "".join(c if c.isalnum() or c in ".-" else "_" for c in requirement)
    unpacked = _only_folder(store)
    if unpacked is None:
        store.mkdir(parents=True, exist_ok=True)
        download = [python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*download, "--no-binary", ":all:", "--dest", store, requirement], check=True)
        [archive] = store.glob("*.tar.gz")
        with tarfile.open(archive) as package:
            package.extractall(store, filter="data")
        unpacked = _only_folder(store)
        assert unpacked is not None, f"{archive} holds no folder"
    return unpacked


def _only_folder(store: Path) -> Path | None:
    folders = [path for path in store.iterdir() if path.is_dir()] if store.is_dir() else []
    return folders[0] if folders else None


@contextmanager
def server_for(scope: str) -> Iterator[str]:
    """The URL of a server for scope `redis`; nothing for the others."""
    if scope != "redis":
        yield ""
        return
    sys.path.insert(0, str(ROOT))
    from tests.redis.servers import RedisServer

    with RedisServer() as server:
        yield server.url
