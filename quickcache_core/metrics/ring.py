"""Commands to all processes that publish a cache: the last few stand in the figures file.

Nothing is waiting for them: each process compares one number when it publishes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from quickcache_core.metrics import layout as at
from quickcache_core.metrics.board import Board
from quickcache_core.metrics.board_file import BoardFile
from quickcache_core.metrics.figures import KeyOfStore


class Kind(IntEnum):
    CLEAR = 1
    KEYS = 2
    NAMESPACE = 3
    """The text is the name of a generation."""
    TAGS = 4
    """The text is the slots of tags, with commas between."""


@dataclass(frozen=True, slots=True)
class Command:
    number: int
    kind: int
    prefix: str
    limit: int | None
    sent: int
    """Nanoseconds of the monotonic clock, which all processes of a system share."""


def send(
    board: Board,
    kind: Kind,
    prefix: str,
    limit: int | None = None,
    *,
    first: Callable[[BoardFile, int], object] | None = None,
) -> int | None:
    """Give a command and return its number; None if nobody publishes.

    `first` is told the file and the number before anybody can see the command. Raises `ValueError` for a
    prefix that is too long, and `OSError`.
    """
    data = prefix.encode("utf-8", "surrogatepass")
    if len(data) > at.PREFIX_BYTES:
        raise ValueError(
            f"a prefix or name of {len(data)} bytes: running workers can be told of {at.PREFIX_BYTES}; "
            "give a shorter one"
        )
    file = board.file(time.monotonic())
    if file is None:
        return None
    with board.exclusive(file, patience=2.0):
        words = file.words
        number = words[at.H_NEWEST] + 1
        start = at.command_word(number)
        # 0 while it is written: who reads meanwhile sees that it is not to be trusted.
        words[start + at.C_NUMBER] = 0
        words[start + at.C_KIND] = kind
        words[start + at.C_SENT] = time.monotonic_ns()
        words[start + at.C_LIMIT] = at.UNKNOWN if limit is None else limit
        words[start + at.C_LENGTH] = len(data)
        place = (start + at.C_PREFIX) * at.WORD
        file.bytes[place : place + len(data)] = data
        words[start + at.C_NUMBER] = number
        if first is not None:
            first(file, number)
        words[at.H_NEWEST] = number
        return number


def newest(file: BoardFile) -> int:
    """Number of the last command; 0 before the first."""
    return file.words[at.H_NEWEST]


def commands_after(file: BoardFile, seen: int) -> list[Command]:
    """The commands since the one with the number `seen`.

    For those that have been overwritten, and nobody knows what they were, stands one that clears everything.
    """
    last = newest(file)
    numbers = range(max(seen + 1, last - at.COMMANDS + 1), last + 1)
    commands = [] if numbers.start == seen + 1 else [_clear_all(numbers.start - 1)]
    commands += [_read(file, number) for number in numbers]
    return commands


def seen_before(file: BoardFile, created: int) -> int:
    """The last command that was sent before `created`, in monotonic nanoseconds.

    A store made after a command has nothing to do with it; one made before has, also when its process wasn't
    known here then.
    """
    last = newest(file)
    for number in range(last, max(last - at.COMMANDS, 0), -1):
        if _read(file, number).sent < created:
            return number
    return 0 if last <= at.COMMANDS else last - at.COMMANDS - 1


def _read(file: BoardFile, number: int) -> Command:
    words, start = file.words, at.command_word(number)
    kind, sent, limit = (words[start + word] for word in (at.C_KIND, at.C_SENT, at.C_LIMIT))
    place = (start + at.C_PREFIX) * at.WORD
    prefix = bytes(file.bytes[place : place + min(words[start + at.C_LENGTH], at.PREFIX_BYTES)])
    if words[start + at.C_NUMBER] != number:
        return _clear_all(number)
    return Command(
        number,
        kind,
        prefix.decode("utf-8", "surrogatepass"),
        None if limit == at.UNKNOWN else limit,
        sent,
    )


def _clear_all(number: int) -> Command:
    return Command(number, Kind.CLEAR, "", None, time.monotonic_ns())


# The answers to KEYS, a file each


# Without blocking, as the opening of a pipe does until somebody writes to it.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def answer_path(board: Board, number: int, worker: object) -> Path:
    return board.path.with_name(f"{board.path.stem}.keys-{number}-{worker}")


def write_answer(path: Path, pid: int, keys: Iterable[KeyOfStore]) -> None:
    """JSON lines: the process, then its keys. Whoever reads sees all or nothing."""
    unfinished = path.with_name(path.name + ".unfinished")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, flags, 0o600), "w", encoding="ascii") as file:
        file.write(json.dumps({"pid": pid}) + "\n")
        file.writelines(json.dumps(key) + "\n" for key in keys)
    unfinished.replace(path)


def read_answer(path: Path) -> tuple[int, list[KeyOfStore]] | None:
    """The process and its keys; None if there is no answer, or none that can be read."""
    try:
        with os.fdopen(os.open(path, _READ), encoding="ascii") as file:
            head: Any = json.loads(file.readline())
            return int(head["pid"]), [_key_of(*json.loads(line)) for line in file]
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _key_of(key: object, ttl: object) -> KeyOfStore:
    if not isinstance(key, str) or not (ttl is None or isinstance(ttl, int | float)):
        raise TypeError
    return KeyOfStore(key, ttl)


def remove_answers(board: Board, *, older_than: float) -> None:
    """Remove answers that nobody fetched. `older_than`: seconds."""
    for path in board.path.parent.glob(f"{board.path.stem}.keys-*"):
        try:
            if time.time() - path.lstat().st_mtime > older_than:
                path.unlink()
        except FileNotFoundError:
            continue
