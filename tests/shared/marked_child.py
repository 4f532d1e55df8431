"""What a mark of forks says in a parent and its children.

    python -m tests.shared.marked_child fork_mark
    python -m tests.shared.marked_child MarkByPid

A process of its own, without any other thread, for the reason that `tests.core.silent_fork` gives.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

from quickcache_core.store.shared import fork_mark as marks
from quickcache_core.store.shared.fork_mark import ForkMark


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


def main(name: str) -> None:
    mark: ForkMark = getattr(marks, name)()
    said: list[object] = [mark[0]]
    for value in (1, 0):
        mark[0] = value
        said += [mark[0], read_in_child(mark), mark[0]]
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1])
