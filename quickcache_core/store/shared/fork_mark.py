"""Whether this is a child that has yet to learn of it, told without a system call."""

from __future__ import annotations

import mmap
import os
import sys
from typing import Protocol

_WIPE_ON_FORK = 18
"""Linux's MADV_WIPEONFORK, since 4.14; Python has no name for it."""
_NONSENSE = -1
"""No kernel knows this advice."""
_PLATFORM = sys.platform


class ForkMark(Protocol):
    """Its byte 0 is what was stored there last by this process, and 0 if none was: in a child too, however it
    was forked. uWSGI's master does that in C, so that Python's hooks don't run.
    """

    def __getitem__(self, index: int, /) -> int: ...

    def __setitem__(self, index: int, value: int, /) -> None: ...


def fork_mark() -> ForkMark:
    """One that is 0."""
    return _wiped_page() or MarkByPid()


def _wiped_page() -> ForkMark | None:
    """A page of memory that the kernel wipes in children; None where it doesn't."""
    if _PLATFORM != "linux":
        return None
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        return None
    try:
        page.madvise(_NONSENSE)
    except OSError:
        pass
    else:
        return None  # an emulator that takes any advice, and follows none
    try:
        page.madvise(_WIPE_ON_FORK)
    except OSError:
        return None
    return page


class MarkByPid:
    """For systems that have nothing better: takes a system call."""

    def __init__(self) -> None:
        self._pid = 0
        self._value = 0

    def __getitem__(self, index: int, /) -> int:
        return self._value if self._pid == os.getpid() else 0

    def __setitem__(self, index: int, value: int, /) -> None:
        self._value = value
        self._pid = os.getpid()
