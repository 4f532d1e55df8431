"""A child knows that it is one, whoever forked it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

import pytest

from quickcache_core.store.shared import fork_mark as marks
from quickcache_core.store.shared.fork_mark import ForkMark, MarkByPid, fork_mark


def read_in_child(mark: ForkMark) -> list[int]:
    """What a child finds there, and what after it has stored a 1; forked without Python's hooks."""
    reading, writing = os.pipe()
    # Not CDLL, which lets go of the interpreter's lock.
    if (child := ctypes.PyDLL(None).fork()) == 0:
        found = mark[0]
        mark[0] = 1
        os.write(writing, bytes((found, mark[0])))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    answer = os.read(reading, 10)
    os.close(reading)
    return list(answer)


@pytest.mark.parametrize("make", [fork_mark, MarkByPid])
def test_a_child(make: Callable[[], ForkMark]) -> None:
    """It finds 0, and what it stores is its own; so is what the parent has."""
    mark = make()
    assert mark[0] == 0
    mark[0] = 1
    assert mark[0] == 1
    assert read_in_child(mark) == [0, 1]
    assert mark[0] == 1
    mark[0] = 0
    assert read_in_child(mark) == [0, 1]
    assert mark[0] == 0


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
    mark[0] = 1
    assert read_in_child(mark) == [0, 1]
