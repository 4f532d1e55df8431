"""A reader who is held up while others replace an entry and invalidate the tags that it had."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import QuickCache, QuickCacheConfig
from quickcache_core.testing import ManualClock

READS: dict[str, Callable[[QuickCache], Any]] = {
    "get": lambda cache: cache.get("a", None),
    "get_many": lambda cache: cache.get_many(["a", "b"]).get("a"),
    "ttl": lambda cache: 2 if cache.ttl("a") else 1,
    "contains": lambda cache: 2 if "a" in cache else None,
    "get_or_set": lambda cache: cache.get_or_set("a", lambda: None),
}


class Interruption:
    """Something that others do once, in the middle of what calls this."""

    def __init__(self) -> None:
        self.work: Callable[[], None] | None = None

    def __call__(self) -> None:
        work, self.work = self.work, None
        if work is not None:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()


class InterruptedClock(ManualClock):
    def __init__(self, interruption: Interruption) -> None:
        super().__init__()
        self._interruption = interruption

    def monotonic(self) -> float:
        self._interruption()
        return super().monotonic()


@pytest.fixture
def interruption() -> Interruption:
    return Interruption()


def make(path: Path, interruption: Interruption, **settings: Any) -> QuickCache:
    clock = InterruptedClock(interruption)
    cache = QuickCacheConfig.from_mapping(
        {"location": f"shared://{path}", "clock": clock, **settings}
    ).build()
    cache.set("a", 1, tags=["red"])
    cache.set("b", 1)
    return cache


def replace(cache: QuickCache) -> Callable[[], None]:
    def work() -> None:
        cache.set("a", 2)
        cache.invalidate_tags("red")

    return work


@pytest.mark.parametrize("read", READS)
def test_between_the_check_and_the_tags(tmp_path: Path, interruption: Interruption, read: str) -> None:
    """The tags of the old entry say nothing of the new one: it was there all the time."""
    cache = make(tmp_path / "cache", interruption)
    cache.get("a")
    interruption.work = replace(cache)
    assert READS[read](cache) == 2
    assert interruption.work is None


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("near_size", [0, 100])
def test_between_the_snapshot_and_the_tags(
    tmp_path: Path, interruption: Interruption, read: str, near_size: int
) -> None:
    """The same for an entry that is being read from the files."""
    cache = make(tmp_path / "cache", interruption, near_size=near_size)
    cache.get("a")
    connection = cache._bottom._connection  # type: ignore[union-attr]
    begin_read = connection._begin_read

    def begin(slot: int) -> tuple[Any, int]:
        snapshot = begin_read(slot)
        interruption()
        return snapshot

    connection._begin_read = begin  # type: ignore[method-assign]
    cache._bottom._near.forget()  # type: ignore[union-attr]
    interruption.work = replace(cache)
    assert READS[read](cache) == 2
    assert interruption.work is None


def test_invalidated_after_all(tmp_path: Path, interruption: Interruption) -> None:
    """An entry that was replaced by one with the same tags is gone when these are invalidated."""
    cache = make(tmp_path / "cache", interruption)
    cache.get("a")

    def work() -> None:
        cache.set("a", 2, tags=["red"])
        cache.invalidate_tags("red")

    interruption.work = work
    assert cache.get("a", None) is None
