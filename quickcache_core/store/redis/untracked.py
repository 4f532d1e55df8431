"""Instead of a near store, where there is to be none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from quickcache_core.entry import FOREVER
from quickcache_core.store.base import ABSENT
from quickcache_core.store.near import NearEntry, NearStore

_NEVER_VALID: Final = 2**63


class _NoStamps:
    """Whatever was read may have changed since."""

    def __getitem__(self, slot: int) -> int:
        return _NEVER_VALID


class _NoReferences:
    def __getitem__(self, slot: int) -> int:
        return 1

    def __setitem__(self, slot: int, value: int) -> None:
        pass


class Untracked(NearStore):
    """Keeps nothing, and asks the server each time."""

    __slots__ = ()

    def __init__(
        self,
        now: Callable[[], float],
        behind: Callable[[Any, Any], Any],
        closer: Callable[[str, Any, Any], Any],
    ) -> None:
        super().__init__(now, 0, behind, closer)
        self.replace_store(_NoStamps(), _NoReferences())

    def at_hand(self, key: str) -> Any:
        return ABSENT

    def label(self) -> int:
        return 0

    def holds(self, label: int, *slots: int) -> bool:
        return False

    def held(self, label: int, *slots: int) -> bool:
        return False

    def catch_up(self) -> None:
        pass

    def wrote(self, slot: int) -> None:
        pass

    def entry(self, value: Any, label: int, slot: int, deadline: float) -> NearEntry:
        return NearEntry(value, label, slot, FOREVER if deadline == FOREVER else deadline)

    def tend(self) -> None:
        pass

    def close(self) -> None:
        pass
