"""The tree in `docs/architecture.md` is that of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("quickcache_core", "quickcache_django", "quickcache_flask")


@pytest.fixture(scope="module")
def drawn() -> set[str]:
    """The paths in the tree, folders with a slash at their end."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (tree,) = re.findall(r"^```text\n(quickcache_core/.*?)^```", page, re.MULTILINE | re.DOTALL)
    paths: set[str] = set()
    above: list[str] = []
    for line in tree.splitlines():
        names, _, what = line.strip().partition("  ")
        assert what.strip(), f"{line!r}: say what is there"
        depth = (len(line) - len(line.lstrip())) // 2
        assert depth <= len(above), f"{line!r} is further in than what is above it"
        del above[depth:]
        paths.update("".join(above) + name for name in names.split(", "))
        if names.endswith("/"):
            above.append(names)
    return paths


def test_what_is_drawn_exists(drawn: set[str]) -> None:
    """The tree names no module and no package that isn't there."""
    missing = [path for path in drawn if not (ROOT / path).exists()]
    assert missing == []


def test_every_package_is_drawn(drawn: set[str]) -> None:
    """Nobody has to guess what a folder of code is for."""
    inits = [init for name in PACKAGES for init in (ROOT / name).rglob("__init__.py")]
    packages = {f"{init.parent.relative_to(ROOT)}/" for init in inits}
    assert packages == {path for path in drawn if path.endswith("/")}


def test_every_module_that_is_named_exists() -> None:
    """What the text calls `like_this.py` is a module of the code."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    known = {f"/{path.relative_to(ROOT)}" for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    prose = re.sub(r"^```text.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    for named in re.findall(r"[\w/]+\.py\b", prose):
        assert any(path.endswith(f"/{named}") for path in known), named
