"""The directory of a store in scope `shared`, as `check` looks at it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from quickcache_core.cache import QuickCache
from quickcache_core.commands.check import Finding, finding
from quickcache_core.errors import StoreUnavailable
from quickcache_core.location import Location
from quickcache_core.metrics.tables import several
from quickcache_core.sizes import in_words
from quickcache_core.store.shared.directory import DATA, FORMAT, SharedDirectory, file_system
from quickcache_core.store.shared.environment import PAGE
from quickcache_core.store.shared.store import SharedStore

_BLOCK = 512
"""Bytes that `st_blocks` counts."""
_NEARLY_FULL = 0.95
_NEARLY_NO_READERS = 0.8


def look(cache: QuickCache, location: Location) -> Iterator[Finding]:
    """Raises `OSError` where the directory can't be looked at."""
    path = Path(location.name)
    yield _owner(path)
    yield _mode(path)
    yield finding("file system", file_system(path) or "unknown")
    store = cache._bottom
    if not isinstance(store, SharedStore):
        return
    connection = store.table.connection
    try:
        info, pids, cleaned = connection.survey()
    except StoreUnavailable as error:
        yield finding("files", f"they can't be opened: {error}", "error")
        return
    yield from _files(path, connection.directory)
    yield from _room(path, info)
    yield _readers(info, pids, cleaned)


def _owner(path: Path) -> Finding:
    owner = path.stat().st_uid
    name = _user(owner)
    if owner != os.geteuid():
        says = (
            f"{path} belongs to {name}, and this is {_user(os.geteuid())}; run the command as the user that "
            "the server runs as"
        )
        return finding("owner", says, "error")
    return finding("owner", name)


def _user(uid: int) -> str:
    try:
        import pwd

        return f"{pwd.getpwuid(uid).pw_name} ({uid})"
    except (ImportError, KeyError):
        return str(uid)


def _mode(path: Path) -> Finding:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o022:
        return finding("mode", f"{mode:04o}: others may write into it; chmod 700 {path}", "error")
    if mode & 0o055:
        return finding("mode", f"{mode:04o}: others may look at the names; chmod 700 {path}", "warning")
    return finding("mode", f"{mode:04o}")


def _files(path: Path, directory: SharedDirectory) -> Iterator[Finding]:
    about = directory.about()
    if about.get("format") != FORMAT:
        says = f"they have format {about.get('format')!r}, this version has {FORMAT}"
        yield finding("format", says, "error")
    else:
        yield finding("format", str(FORMAT))
    open_to_others = []
    sizes = []
    for file in sorted(path.iterdir()):
        found = file.lstat()
        if stat.S_ISREG(found.st_mode):
            sizes.append(f"{file.name} {in_words(found.st_size)}")
            if found.st_mode & 0o077:
                open_to_others.append(file.name)
    yield finding("files", ", ".join(sizes))
    if open_to_others:
        says = f"others may read {', '.join(open_to_others)}; chmod 600 them"
        yield finding("files", says, "warning")
    broken = [file.name for file in path.glob(f"{DATA}.broken-*")]
    if broken:
        says = f"{broken[0]} is what was damaged once; delete it when nobody wants to look at it"
        yield finding("files", says, "warning")


def _room(path: Path, info: dict[str, int]) -> Iterator[Finding]:
    size, used = info["map_size"], (info["last_pgno"] + 1) * PAGE
    # Pages that were freed count as used here: so much was needed at some time.
    yield finding("room", f"{in_words(size)} for the entries, of which {in_words(min(used, size))} were used")
    taken = (path / DATA).stat().st_blocks * _BLOCK
    space = os.statvfs(path)
    free = space.f_bavail * space.f_frsize
    missing = size - taken
    if missing > free:
        says = (
            f"{in_words(missing)} aren't taken yet, and {in_words(free)} are free there; choose a smaller "
            "max_bytes or another directory"
        )
        yield finding("disk", says, "warning")
    else:
        yield finding("disk", f"{in_words(taken)} taken, {in_words(free)} free")
    if space.f_blocks and free < (1 - _NEARLY_FULL) * space.f_blocks * space.f_frsize:
        yield finding("disk", f"it is over {_NEARLY_FULL:.0%} full", "warning")


def _readers(info: dict[str, int], pids: set[int], cleaned: int) -> Finding:
    used, most = info["num_readers"], info["max_readers"]
    others = len(pids - {os.getpid()})
    says = f"{several(others, 'other process', 'other processes')}, {used} of {most} places used"
    if cleaned:
        says += f"; {cleaned} of processes that had ended were struck off"
    return finding("readers", says, "warning" if used > most * _NEARLY_NO_READERS else "ok")
