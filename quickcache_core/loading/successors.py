"""Which key tends to follow which, learned from the order in which keys are read."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

_MOST_EACH: Final = 4
"""Successors remembered for one key."""
_FULL: Final = 64
"""Visits of a key after which its counts are halved, so that habits of long ago don't outweigh new ones."""


class _Visits:
    __slots__ = ("count", "followers")

    def __init__(self) -> None:
        self.count = 0
        self.followers: dict[str, int] = {}


class Successors:
    """Counts, for a bounded number of keys: those visited last. Constant time; not safe for threads.

    A key has at most four successors; while all four places are taken, a fifth lowers the counts of the
    others, and takes the place of one that got to 0 (Misra and Gries, "Finding repeated elements", 1982).
    """

    def __init__(self, most_keys: int) -> None:
        self._most = most_keys
        self._visits: OrderedDict[str, _Visits] = OrderedDict()

    def __len__(self) -> int:
        return len(self._visits)

    def visit(self, key: str) -> None:
        visits = self._visits.get(key)
        if visits is None:
            visits = self._visits[key] = _Visits()
            if len(self._visits) > self._most:
                self._visits.popitem(last=False)
        else:
            self._visits.move_to_end(key)
        visits.count += 1
        if visits.count >= _FULL:
            visits.count //= 2
            visits.followers = {key: count // 2 for key, count in visits.followers.items() if count > 1}

    def note(self, key: str, follower: str) -> None:
        """That `follower` came after a visit of `key`."""
        visits = self._visits.get(key)
        if visits is None:
            return
        followers = visits.followers
        if follower in followers or len(followers) < _MOST_EACH:
            followers[follower] = followers.get(follower, 0) + 1
        else:
            visits.followers = {key: count - 1 for key, count in followers.items() if count > 1}

    def after(self, key: str, times: int, share: float) -> list[str]:
        """What followed so many times at least, and after that share of the visits."""
        visits = self._visits.get(key)
        if visits is None or not visits.followers:
            return []
        least = max(times, share * visits.count)
        return [follower for follower, count in visits.followers.items() if count >= least]
