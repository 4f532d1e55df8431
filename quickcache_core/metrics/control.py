"""The command's side: figures of all processes that publish a cache, and what they are asked to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from quickcache_core.metrics import ring
from quickcache_core.metrics.board import Reading, Worker
from quickcache_core.metrics.figures import NOTHING, KeyOfStore, StoreFigures
from quickcache_core.metrics.publisher import Publisher

PATIENCE: Final = 2.5
"""Seconds that a command waits for workers, which look once a second and at the end of each request."""
_PAUSE = 0.02
"""Seconds between two looks whether they have answered."""
_SLOTS_TOGETHER: Final = 50
"""Slots of tags that one command has room for, with commas."""
_FORGOTTEN = 30.0
"""Seconds after which an answer that nobody fetched is removed."""


@dataclass(frozen=True, slots=True)
class Cleared:
    removed: int
    """Entries removed by the process that asked."""
    obeyed: tuple[int, ...] = ()
    """Pids of the workers that have cleared."""
    silent: tuple[int, ...] = ()
    """Pids of those that didn't answer in time. They will clear before they publish the next time."""


@dataclass(frozen=True, slots=True)
class FoundKey:
    key: str
    ttl_s: float | None
    """Seconds left, the longest of any process; None for an entry without an end."""
    pids: tuple[int, ...]
    """Who has it. Empty where all processes share the entries."""


@dataclass(frozen=True, slots=True)
class FoundKeys:
    keys: tuple[FoundKey, ...]
    truncated: bool
    asked: tuple[int, ...] = ()
    """Pids of the processes that have answered."""
    silent: tuple[int, ...] = ()


class Control:
    """Looks at, and commands, all processes that publish one cache.

    Each method raises `OSError` where files are unusable.
    """

    def __init__(self, publisher: Publisher, *, patience: float = PATIENCE) -> None:
        self._publisher = publisher
        self._patience = patience

    @property
    def shared_entries(self) -> bool:
        """Whether all processes have the same entries."""
        return self._publisher.shared_entries

    @property
    def is_of_many_hosts(self) -> bool:
        """Whether processes of other hosts may have the same cache."""
        return self._publisher.everywhere is not None

    def stay_out(self) -> None:
        """Don't let this process appear among those that it looks at."""
        self._publisher.mute()

    def of_store(self) -> StoreFigures:
        """What the store says in this process; where all have the same entries, its size is everybody's. In
        scope `redis`, who asks first may wait for a minute while the server's keys are counted.
        """
        return self._publisher.source.measured() or NOTHING

    def read(self) -> Reading:
        """The figures of all, this process included unless it stays out."""
        self._publisher.publish()
        return self._publisher.board.read()

    def read_everywhere(self) -> Reading:
        """The figures of the processes of all hosts, as of the last seconds; of those that have ended nobody
        knows.

        Raises `ValueError` where the cache is that of one host, and `StoreUnavailable`.
        """
        everywhere = self._publisher.everywhere
        if everywhere is None:
            raise ValueError("only a cache in scope redis may have processes on other hosts")
        return everywhere()

    def clear(self, prefix: str = "") -> Cleared:
        """Remove the entries whose stored keys begin with `prefix`, in all processes.

        Raises `ValueError` for a prefix of more than some 470 bytes.
        """
        return self._everywhere([(ring.Kind.CLEAR, prefix)], lambda: self._publisher.source.clear(prefix))

    def clear_namespace(self, generation: str) -> Cleared:
        """Clear a namespace in all processes; `QuickCache.generation_name` says what it is called here.

        Nobody counts how many entries there were. Raises `ValueError` as `clear`.
        """

        def act() -> int:
            self._publisher.source.next_generation(generation)
            return 0

        return self._everywhere([(ring.Kind.NAMESPACE, generation)], act)

    def invalidate_tags(self, slots: Sequence[int]) -> Cleared:
        """Remove the entries that carry one of the tags, in all processes; `QuickCache.tag_slots` says which
        slots these have. Nobody counts how many entries there were.
        """
        parts = [slots[start : start + _SLOTS_TOGETHER] for start in range(0, len(slots), _SLOTS_TOGETHER)]

        def act() -> int:
            self._publisher.source.invalidate_tags(slots)
            return 0

        return self._everywhere([(ring.Kind.TAGS, ",".join(map(str, part))) for part in parts], act)

    def _everywhere(self, commands: Sequence[tuple[ring.Kind, str]], act: Callable[[], int]) -> Cleared:
        """Act here, and have the other processes do what the commands say."""
        if self.shared_entries:
            return Cleared(act())
        self._publisher.publish()
        number = None
        for kind, text in commands:
            number = self._publisher.tell_others(kind, text)
        removed = act()
        if number is None:
            return Cleared(removed)
        obeyed, silent = self._wait(lambda worker: worker.obeyed >= number)
        return Cleared(removed, _pids([*obeyed, *self._own()]), _pids(silent))

    def keys(self, prefix: str = "", limit: int | None = None) -> FoundKeys:
        """Live keys of all processes that begin with `prefix`, at most `limit`; sorted.

        Raises `ValueError` as `clear`.
        """
        # One more than asked for tells whether there are more.
        enough = None if limit is None else limit + 1
        own = self._publisher.source.keys(prefix, enough)
        if self.shared_entries:
            return _limited({key: FoundKey(key, ttl, ()) for key, ttl in own}, limit)
        found: dict[str, FoundKey] = {}
        self._publisher.publish()
        number = self._publisher.tell_others(ring.Kind.KEYS, prefix, enough)
        if number is None:
            return _limited(found, limit)
        board = self._publisher.board
        ring.remove_answers(board, older_than=_FORGOTTEN)
        obeyed, silent = self._wait(lambda worker: worker.obeyed >= number)
        for worker in obeyed:
            path = ring.answer_path(board, number, worker.claim)
            answer = ring.read_answer(path)
            path.unlink(missing_ok=True)
            if answer is not None:
                _add(found, *answer)
        if self._publisher.claim is not None:
            _add(found, self._publisher.pid, own)
        return _limited(found, limit, _pids([*obeyed, *self._own()]), _pids(silent))

    def _own(self) -> list[Worker]:
        """This process, if it is a worker."""
        own = self._publisher.claim
        return (
            [] if own is None else [one for one in self._publisher.board.read().workers if one.claim == own]
        )

    def _wait(self, has_obeyed: Callable[[Worker], bool]) -> tuple[list[Worker], list[Worker]]:
        """The other processes that have carried out the command, and those that haven't in time.

        Those that end meanwhile are neither.
        """
        deadline = time.monotonic() + self._patience
        # Others may be waiting for this process meanwhile.
        self._publisher.publish()
        while True:
            others = [
                one for one in self._publisher.board.read().workers if one.claim != self._publisher.claim
            ]
            silent = [worker for worker in others if not has_obeyed(worker)]
            if not silent or time.monotonic() > deadline:
                return [worker for worker in others if has_obeyed(worker)], silent
            time.sleep(_PAUSE)


def _pids(workers: list[Worker]) -> tuple[int, ...]:
    return tuple(sorted({worker.pid for worker in workers}))


def _add(found: dict[str, FoundKey], pid: int, keys: Iterable[KeyOfStore]) -> None:
    for key, ttl in keys:
        known = found.get(key)
        if known is None:
            found[key] = FoundKey(key, ttl, (pid,))
        else:
            longest = None if ttl is None or known.ttl_s is None else max(ttl, known.ttl_s)
            found[key] = FoundKey(key, longest, tuple(sorted({*known.pids, pid})))


def _limited(
    found: dict[str, FoundKey],
    limit: int | None,
    asked: tuple[int, ...] = (),
    silent: tuple[int, ...] = (),
) -> FoundKeys:
    keys = sorted(found.values(), key=lambda one: one.key)
    return FoundKeys(tuple(keys[:limit]), limit is not None and len(keys) > limit, asked, silent)
