"""Directories that nobody else can write to, nor to those above that had to be made."""

from __future__ import annotations

from pathlib import Path


def make_directories(directory: Path) -> None:
    """Make it and what is missing above it, all for this user only. What is there stays as it is.

    Raises `OSError`.
    """
    missing = []
    while not directory.exists():
        missing.append(directory)
        directory = directory.parent
    # One by one: mkdir(parents=True) gives its mode to the last one only, and with the umask 0, which servers
    # like to have, everybody could put another directory in the place of that one.
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
