"""For the tests of scope `shared`: processes that are gone when a test ends."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.shared.remote import Remote, Template


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Of a cache that isn't there yet."""
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def template() -> Iterator[Template]:
    one = Template()
    yield one
    one.close()


@pytest.fixture
def start(template: Template, directory: Path) -> Iterator[Callable[..., Remote]]:
    """Start a process with a cache in the directory, with any settings; `where=None`: without."""
    started: list[Remote] = []

    def one(where: Path | None = directory, **settings: Any) -> Remote:
        started.append(remote := Remote(template, where, **settings))
        return remote

    yield one
    for remote in started:
        remote.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", str(path)], capture_output=True
    ).returncode:
        pytest.skip("no tmpfs can be mounted here; that takes root")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)
