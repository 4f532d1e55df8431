"""What a set finds under its key: the short way of the common case must lead to where the long one does."""

from __future__ import annotations

import gc
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import NEVER, CacheEvent, EventKind, QuickCache, QuickCacheConfig, RemovalCause
from quickcache_core.errors import StoreUnavailable, ValueTooLarge
from quickcache_core.store.shared.store import SharedStore
from quickcache_core.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def cache(directory: Path, clock: ManualClock) -> QuickCache:
    return QuickCache(QuickCacheConfig(location=f"shared://{directory}", max_bytes="4MB", clock=clock))


def store_of(cache: QuickCache) -> SharedStore:
    store = cache._store
    assert isinstance(store, SharedStore)
    return store


def never_committed(*_: Any) -> int:
    raise StoreUnavailable("out of order")


SITUATIONS: dict[str, tuple[Callable[[QuickCache, ManualClock], Any], int, int, RemovalCause]] = {
    "live": (lambda cache, clock: cache.set("k", 1, 60), 0, 0, RemovalCause.REPLACED),
    "expired": (
        lambda cache, clock: (cache.set("k", 1, 1), clock.advance(2.0)),
        1,
        0,
        RemovalCause.EXPIRED,
    ),
    "live, with a tag": (lambda cache, clock: cache.set("k", 1, 60, tags=["t"]), 0, 0, RemovalCause.REPLACED),
    "invalidated": (
        lambda cache, clock: (cache.set("k", 1, 60, tags=["t"]), cache.invalidate_tags("t")),
        0,
        1,
        RemovalCause.INVALIDATED,
    ),
    "stale": (
        lambda cache, clock: (cache.set("k", 1, 1, stale_ttl=60), clock.advance(2.0)),
        1,
        0,
        RemovalCause.EXPIRED,
    ),
}


@pytest.mark.parametrize("heard", [False, True], ids=["nobody-listens", "somebody-listens"])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_what_was_there_is_counted_and_told(
    cache: QuickCache, clock: ManualClock, situation: str, heard: bool
) -> None:
    """As what it was: an entry that nobody could get any more hasn't been replaced."""
    prepare, expired, deleted, cause = SITUATIONS[situation]
    prepare(cache, clock)
    events: list[CacheEvent] = []
    if heard:
        cache.subscribe(events.append, EventKind.REMOVED)
    cache.set("k", 2, 60)
    assert cache.get("k") == 2
    figures = cache.metrics()
    assert (figures.expired_removals, figures.manual_deletions) == (expired, deleted)
    assert [(event.key, event.cause) for event in events] == ([("k", cause)] if heard else [])


@pytest.mark.parametrize("before", [60, NEVER])
def test_an_earlier_end(cache: QuickCache, clock: ManualClock, before: Any) -> None:
    """A cleanup knows that there is something to remove, also if nothing was due for long when it looked."""
    cache.set("k", 1, before)
    assert cache.cleanup() == 0
    cache.set("k", 2, 5)
    clock.advance(6.0)
    assert cache.cleanup() == 1
    assert cache.size() == 0


def test_a_value_that_is_too_large(cache: QuickCache) -> None:
    """It is refused, and the older one doesn't stay in its place; the largest that fits is stored."""
    largest = store_of(cache).table.largest_record
    head = len(store_of(cache)._codec.encode(b"k", "k", "", 0.0)[0])
    cache.set("k", "x" * (largest - head))
    with pytest.raises(ValueTooLarge):
        cache.set("k", "x" * (largest - head + 1))
    assert "k" not in cache


def test_a_store_that_is_out_of_order(cache: QuickCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """The value isn't stored, the older one isn't taken for it, and the next set settles that."""
    cache.set("k", 1)
    with monkeypatch.context() as patch:
        patch.setattr(store_of(cache), "_put", never_committed)
        cache.set("k", 2)
        assert "k" not in cache
    assert cache.metrics().store_errors == 1
    cache.set("other", 1)
    assert not store_of(cache)._debts.exist
    assert "k" not in cache
    assert cache.size() == 1


def slide(cache: QuickCache, clock: ManualClock) -> None:
    cache.set("sliding", 1, 100, sliding=True)
    clock.advance(60)
    yield_to_finaliser(cache)
    assert cache.get("sliding") == 1


def sweep(cache: QuickCache, clock: ManualClock) -> None:
    cache.set("short", 1, 1)
    clock.advance(2)
    yield_to_finaliser(cache)
    assert cache.cleanup() == 1


def refuse(cache: QuickCache, clock: ManualClock) -> None:
    cache.set("large", 1)
    yield_to_finaliser(cache)
    with pytest.raises(ValueTooLarge):
        cache.set("large", "x" * 2_000_000)


def overwrite(cache: QuickCache, clock: ManualClock) -> None:
    yield_to_finaliser(cache)
    cache.set("k", 1)


def yield_to_finaliser(cache: QuickCache) -> None:
    """Have one run in the middle of the next write."""
    connection = store_of(cache)._connection
    commit = connection._commit

    class Writes:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            cache.set("finaliser", 1)

    def with_garbage(txn: Any, slots: list[int]) -> int:
        del connection._commit  # once
        Writes()
        gc.collect()
        assert len(connection.postponed) == 1
        return commit(txn, slots)

    connection._commit = with_garbage  # type: ignore[method-assign]


@pytest.mark.parametrize("write", [overwrite, refuse, slide, sweep])
def test_a_finaliser_in_the_middle(
    cache: QuickCache, clock: ManualClock, write: Callable[[QuickCache, ManualClock], None]
) -> None:
    """What it sets is stored when the write that it interrupted is done, whatever that was; not before."""
    cache.set("finaliser", 0)
    write(cache, clock)
    assert "_commit" not in vars(store_of(cache)._connection), "no write was interrupted"
    assert cache.get("finaliser") == 1
    assert not store_of(cache)._connection.postponed


def test_a_full_cache_whose_entries_have_expired(directory: Path, clock: ManualClock) -> None:
    """They leave, all of them, and the new one is stored; nobody else has to go."""
    location = f"shared://{directory}"
    cache = QuickCache(QuickCacheConfig(location=location, max_size=100, max_bytes="4MB", clock=clock))
    cache.set_many({f"k{n}": n for n in range(100)}, 1)
    clock.advance(2.0)
    cache.set("new", 1, 60)
    assert cache.get("new") == 1
    figures = cache.metrics()
    assert (cache.size(), figures.expired_removals, figures.evictions) == (1, 100, 0)


def test_files_that_are_replaced_while_it_waits_for_the_guard(
    cache: QuickCache, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes to the new ones, with the guard of these, and lets go of the other."""
    connection = store_of(cache)._connection
    old, commit = connection.guard, connection._commit
    acquire = old.acquire

    def acquire_late(patience: float | None = None) -> bool:
        monkeypatch.setattr(old, "acquire", acquire)
        shutil.rmtree(directory)
        looking = threading.Thread(target=connection.look)
        looking.start()
        looking.join()
        return acquire(patience)

    def commit_guarded(txn: Any, slots: list[int]) -> int:
        assert connection.guard is not old
        assert connection.guard.is_mine()
        assert old.owner == 0
        return commit(txn, slots)

    monkeypatch.setattr(old, "acquire", acquire_late)
    monkeypatch.setattr(connection, "_commit", commit_guarded)
    cache.set("k", 1)
    assert cache.size() == 1
    assert cache.metrics().store_errors == 0


def test_files_that_are_replaced_during_the_commit(
    cache: QuickCache, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it stamps are the files that it writes to: in the others everything can be kept near."""
    connection = store_of(cache)._connection
    for number in range(100):
        cache.set("k", number)
    commit = connection._commit
    looking = threading.Thread(target=connection.look)

    def commit_late(txn: Any, slots: list[int]) -> int:
        monkeypatch.undo()  # once
        shutil.rmtree(directory)
        looking.start()
        looking.join(0.05)
        return commit(txn, slots)

    monkeypatch.setattr(connection, "_commit", commit_late)
    cache.set("k", "in the former files")
    looking.join()
    loads = []
    for _ in range(5):
        assert cache.get_or_set("k", lambda: loads.append(1) or "new") == "new"
    assert loads == [1]


def test_the_first_set_of_a_process(cache: QuickCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks for background work, once."""
    table = store_of(cache).table
    calls: list[int] = []
    monkeypatch.setattr(table, "wake", lambda: calls.append(1))
    table.awake_in = 0
    cache.set("k", 1)
    cache.set("k", 2)
    assert calls == [1]
