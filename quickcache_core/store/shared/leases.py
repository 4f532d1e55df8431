"""Who loads a key, and who is still alive: leases that the kernel takes back when their process ends."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from hashlib import blake2b

_TAKE, _GIVE_BACK = fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN
_TAKEN = (errno.EAGAIN, errno.EACCES)


class Leases:
    """Of one process, on one file: a lock of the kernel's on the byte whose number is a digest of the key.

    The file has no content; bytes that don't exist can be locked. Two keys with one digest of 60 bits keep
    each other waiting, which does no harm.

    Free of locks of its own, since a finaliser may give a lease back in the middle of anything. The kernel
    gives such locks to processes: among the threads of this one, `_held` decides.
    """

    def __init__(self, descriptor: int) -> None:
        """Below 0: no file; everybody gets every lease then."""
        self.descriptor = descriptor
        self._held: dict[int, object] = {}

    def take(self, raw: bytes) -> Callable[[], None] | None:
        """What gives the lease back, or None if somebody has it. It may be called by anyone, at any time."""
        if self.descriptor < 0:
            return _nothing
        try:
            return self.surely(raw)
        except OSError:
            return _nothing  # a load too many is better than none

    def surely(self, raw: bytes) -> Callable[[], None] | None:
        """As `take`, but raises `OSError` where it can't be told whether somebody has the lease."""
        # Once, and in this order: `end` may come in between.
        held, descriptor = self._held, self.descriptor
        if descriptor < 0:
            # Of which `lockf` says that it is a wrong value.
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        place = int.from_bytes(blake2b(raw, digest_size=8).digest(), "big") >> 4
        mine = [place]
        if held.setdefault(place, mine) is not mine:
            return None
        try:
            fcntl.lockf(descriptor, _TAKE, 1, place)
        except OSError as error:
            del held[place]
            if error.errno in _TAKEN:
                return None
            raise
        except BaseException:  # a signal handler
            held.pop(place, None)
            raise

        def give_back() -> None:
            try:
                mine.pop()
            except IndexError:
                return  # for the second time
            # A child of a fork has other leases, and so has who opened other files meanwhile.
            if self._held.get(place) is mine:
                fcntl.lockf(descriptor, _GIVE_BACK, 1, place)
                del self._held[place]

        return give_back

    def give_back_all(self) -> None:
        """Give back what others of this process took on the file, if it was replaced and is back: they forgot
        it. Raises `OSError`.
        """
        fcntl.lockf(self.descriptor, _GIVE_BACK)

    def end(self) -> None:
        """Forget all: the file was replaced, is about to be closed, or is a parent's."""
        self.descriptor = -1
        self._held = {}


def _nothing() -> None:
    pass
