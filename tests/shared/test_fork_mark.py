"""A child knows that it is one, whoever forked it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from quickcache_core.store.shared import fork_mark as marks
from quickcache_core.store.shared.fork_mark import MarkByPid, fork_mark
from tests.shared.remote import ROOT


@pytest.mark.parametrize("make", ["fork_mark", "MarkByPid"])
def test_a_child(make: str) -> None:
    """It finds 0, and what it stores is its own; so is what the parent has."""
    program = [sys.executable, "-m", "tests.shared.marked_child", make]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=60, cwd=ROOT, check=True)
    assert json.loads(ended.stdout) == [0, 1, [0, 1], 1, 0, [0, 1], 0]


@pytest.mark.parametrize(
    ("name", "value"),
    [("_WIPE_ON_FORK", 1 << 20), ("_NONSENSE", 0), ("_PLATFORM", "darwin")],
    ids=["an-older-kernel", "an-emulator-that-takes-any-advice", "another-system"],
)
def test_where_no_page_is_wiped(monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> None:
    """It is told by the process id, which takes longer."""
    monkeypatch.setattr(marks, name, value)
    mark = fork_mark()
    assert isinstance(mark, MarkByPid)
