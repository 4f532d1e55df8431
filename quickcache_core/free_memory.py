"""How much memory this process may still take: of its container, its service or the machine.

Read from Linux's /proc and its control groups, version 2 and version 1. Other systems tell how much memory
there is, at most.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

_NO_LIMIT: Final = 2**60
"""Bytes. Version 1 writes a number near 2**63, rounded to pages, where there is no limit."""


@dataclass(frozen=True, slots=True)
class MemoryState:
    """In bytes."""

    total: int
    """What this process may have at most: the tightest limit that applies to it, or all the machine has."""
    available: int
    """What it can still take before one of the limits is met, or the machine has nothing left; at most
    `total`. What the kernel can take back from its file cache at once counts as available.
    """

    @property
    def share(self) -> float:
        """The part of `total` that is available, 0 to 1."""
        return self.available / self.total


class _Files(NamedTuple):
    """Where one version of control groups tells what."""

    limits: tuple[str, ...]
    usage: str
    reclaimable: str
    """The line of `memory.stat` that has the bytes of the file cache which nobody used lately."""


# From `memory.high` on the kernel slows a process down so much that it counts as a limit as well.
_V2: Final = _Files(("memory.max", "memory.high"), "memory.current", "inactive_file")
_V1: Final = _Files(("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file")


class _Mount(NamedTuple):
    files: _Files
    root: str
    """The control group that is to be found at `point`."""
    point: str


def read_memory(root: str | os.PathLike[str] = "/") -> MemoryState:
    """The memory of this process, as things stand: its control groups up to the outermost, and the machine.

    Takes some ten small reads, a fraction of a millisecond. What can't be read is taken for no limit. Raises
    `OSError` if nothing can be read at all, as on systems other than Linux. `root` is the directory in which
    `proc` and `sys` are looked for.
    """
    base = Path(root)
    states = [state for state in (_machine(base), *_groups(base)) if state is not None]
    if not states:
        raise OSError(f"neither {base / 'proc/meminfo'} nor a control group tells how much memory is free")
    total = min(state.total for state in states)
    return MemoryState(total, min(total, *(state.available for state in states)))


def memory_limit(root: str | os.PathLike[str] = "/") -> int:
    """Bytes of memory that this process may have at most: the tightest limit, or all the machine has.

    Raises `OSError` if the system doesn't tell.
    """
    try:
        return read_memory(root).total
    except OSError:
        try:
            # macOS and the BSDs.
            size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError, OSError):
            size = 0
        if size <= 0:
            raise
        return size


def _machine(base: Path) -> MemoryState | None:
    try:
        text = _text(base / "proc/meminfo")
    except OSError:
        return None
    found = {name: int(size) * 1024 for name, size in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
    total, available = found.get("MemTotal", 0), found.get("MemAvailable")
    if available is None:
        available = found.get("MemFree", 0)
    return MemoryState(total, min(available, total)) if total > 0 else None


def _groups(base: Path) -> Iterator[MemoryState]:
    """What each control group of this process has, from its own to the outermost that can be seen."""
    try:
        lines = _text(base / "proc/self/cgroup").split("\n")
        mounts = list(_mounts(_text(base / "proc/self/mountinfo")))
    except OSError:
        return
    for line in lines:
        rest = line.partition(":")[2]
        controllers, colon, path = rest.partition(":")
        if not colon or (controllers and "memory" not in controllers.split(",")):
            continue
        files = _V1 if controllers else _V2
        fitting = [mount for mount in mounts if mount.files is files]
        if fitting:
            for directory in _directories(path, fitting):
                state = _group(base / directory.lstrip("/"), files)
                if state is not None:
                    yield state


def _mounts(mountinfo: str) -> Iterator[_Mount]:
    for line in mountinfo.split("\n"):
        before, _, after = line.partition(" - ")
        fields, (kind, *rest) = before.split(" "), after.split(" ")
        if len(fields) < 5:
            continue
        root, point = _unescaped(fields[3]), _unescaped(fields[4])
        if kind == "cgroup2":
            yield _Mount(_V2, root, point)
        elif kind == "cgroup" and rest and "memory" in rest[-1].split(","):
            yield _Mount(_V1, root, point)


def _unescaped(field: str) -> str:
    """Spaces and the like are written as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _directories(path: str, mounts: list[_Mount]) -> Iterator[str]:
    """The directories of a control group and of those around it, as far as they are mounted."""
    if path.startswith("/.."):
        return  # moved out of the container: nothing of it can be seen
    around = [one for one in mounts if path == one.root or path.startswith(one.root.rstrip("/") + "/")]
    if not around:
        # A container that sees its own group only, under the name that the host gave it, or a group that lies
        # outside of what is mounted here: all that can be seen is the mount itself.
        yield mounts[0].point
        return
    mount = min(around, key=lambda one: len(one.root))
    inner = posixpath.relpath(path, mount.root)
    while inner not in ("", "."):
        yield posixpath.join(mount.point, inner)
        inner = posixpath.dirname(inner)
    yield mount.point


def _group(directory: Path, files: _Files) -> MemoryState | None:
    """None for one without a limit, and for one that isn't there: the root group has no such files."""
    limits = [size for name in files.limits if (size := _number(directory / name)) is not None]
    limit = min(limits, default=_NO_LIMIT)
    used = _number(directory / files.usage)
    if limit >= _NO_LIMIT or limit <= 0 or used is None:
        return None
    try:
        stat = _text(directory / "memory.stat")
    except OSError:
        stat = ""
    found = re.search(rf"^{files.reclaimable} (\d+)$", stat, re.MULTILINE)
    working_set = used - (int(found[1]) if found else 0)
    return MemoryState(limit, min(max(limit - working_set, 0), limit))


def _number(path: Path) -> int | None:
    """None for `max` as well."""
    try:
        return int(_text(path))
    except (OSError, ValueError):
        return None


def _text(path: Path) -> str:
    # Mount points may have any bytes in their names.
    return path.read_text(encoding="utf-8", errors="surrogateescape")


def give_back() -> None:
    """Have the C library give freed memory back to the system, where it can (glibc).

    Of itself it keeps nearly all of it for later. Takes milliseconds per 10 MB that it gives back, without
    the interpreter's lock: `python -m benchmarks shrinking`.
    """
    try:
        import ctypes

        trim = ctypes.CDLL(None).malloc_trim
    except (ImportError, OSError, TypeError, AttributeError):
        return
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    trim(0)
