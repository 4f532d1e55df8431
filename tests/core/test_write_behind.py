"""Writes behind: what reaches the source, when, in which order, and what becomes of the rest."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sqlite3
import stat
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import ConfigError, QueueFull, QuickCache, QuickCacheConfig, StoreUnavailable
from quickcache_core.entry import MISSING
from quickcache_core.serializer import JsonSerializer, PickleSerializer
from quickcache_core.serializer.signing import Secrets
from quickcache_core.sources import BaseSource, SourcedCache, TableSource, WriteFailure
from quickcache_core.sources.durable import DurableQueue, WriteCodec
from quickcache_core.sources.options import BEHIND, BehindOptions
from quickcache_core.sources.queue import REMOVED, MemoryQueue, Unreadable, WriteQueue
from quickcache_core.sources.queue_file import queue_files
from quickcache_core.sources.target import Direct
from quickcache_core.sources.write_behind import WriteBehind
from quickcache_core.testing import ManualClock
from tests.core.writing_behind import Rows, Writer, make_table, query, versions

# Python 3.12 and later warn of any fork of a process with threads. That is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0
"""Seconds after which something that has to happen won't."""

Batch = dict[str, Any]


class Ledger(BaseSource):
    """A source that notes what it is given, and refuses what it is told to."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}
        self.batches: list[Batch] = []
        """Of all calls, those that were refused too; `REMOVED` for removals."""
        self.refuses: Callable[[Batch], bool] = lambda batch: False

    def _take(self, batch: Batch) -> None:
        self.batches.append(batch)
        if self.refuses(batch):
            raise ConnectionError("refused")

    def load(self, key: str) -> Any:
        return self.rows.get(key, MISSING)

    def store(self, key: str, value: Any) -> None:
        self.store_many({key: value})

    def store_many(self, values: Mapping[str, Any]) -> None:
        self._take(dict(values))
        self.rows.update(values)

    def remove(self, key: str) -> None:
        self._take({key: REMOVED})
        self.rows.pop(key, None)


class Bench:
    """The writing without its thread, with a clock that is turned by hand."""

    def __init__(self, queue: WriteQueue, clock: ManualClock, **options: Any) -> None:
        self.queue = queue
        self.clock = clock
        self.source = Ledger()
        self.told: list[WriteFailure] = []
        self.given_up: list[str] = []
        options.setdefault("on_error", self.told.append)
        self.options = BehindOptions(**options)
        self.behind = WriteBehind(queue, Direct(self.source), self.options, clock, self.given_up.append)

    def put(self, **values: Any) -> None:
        assert self.queue.put(values, self.options.max_pending)

    def run(self, seconds: float, step: float = 0.05) -> None:
        """What the thread would do within that time."""
        for _ in range(round(seconds / step)):
            while self.behind.due_in() == 0.0 and self.behind.work():
                pass
            self.clock.advance(step)

    def pending(self) -> Batch:
        return {write.key: write.value for write in self.queue.batch(1000, ())}


def make_queue(kind: str, folder: Path, clock: ManualClock, name: str = "rows") -> WriteQueue:
    if kind == "memory":
        return MemoryQueue(clock)
    codec = WriteCodec(JsonSerializer(), lambda: None, allow_unsigned=False)
    return DurableQueue(queue_files.get(folder / "writes.sqlite"), name, codec, clock)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "durable"])
def queue(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[WriteQueue]:
    if request.param == "durable":
        pytest.importorskip("fcntl")
    queue = make_queue(request.param, tmp_path, clock)
    yield queue
    if isinstance(queue, DurableQueue):
        queue.file.close()


class TestQueue:
    """Both queues keep the last write of each key, oldest key first."""

    def test_a_key_that_is_written_again(self, queue: WriteQueue) -> None:
        """It keeps its place and has the new value; there is one write of it."""
        queue.put({"a": 1, "b": 2}, 10)
        queue.put({"c": 3, "a": 4}, 10)
        assert [(write.key, write.value) for write in queue.batch(9, ())] == [("a", 4), ("b", 2), ("c", 3)]
        assert queue.size() == 3
        assert [write.key for write in queue.batch(2, ("a",))] == ["b", "c"]

    def test_what_is_pending_can_be_read(self, queue: WriteQueue) -> None:
        """Values and removals, by key; nothing for others."""
        queue.put({"a": [1], "b": None, "\ud800": "odd", "": 0}, 10)
        queue.put({"c": REMOVED}, 10)
        found = queue.peek(["a", "b", "c", "d", "\ud800", ""])
        assert found == {"a": [1], "b": None, "c": REMOVED, "\ud800": "odd", "": 0}

    def test_a_key_that_is_written_while_it_is_on_its_way(self, queue: WriteQueue) -> None:
        """The newer write stays pending, at the end of the line."""
        queue.put({"a": 1, "b": 2}, 10)
        (first, _) = queue.batch(9, ())
        queue.put({"a": 5}, 10)
        queue.done([first])
        assert [(write.key, write.value) for write in queue.batch(9, ())] == [("b", 2), ("a", 5)]
        span = queue.span()
        assert span is not None
        assert span[0] < span[1]

    def test_full(self, queue: WriteQueue) -> None:
        """New keys don't get in, none of them; keys that are in get new values."""
        assert queue.put({"a": 1, "b": 2}, 3)
        assert not queue.put({"c": 3, "d": 4}, 3)
        assert queue.put({"a": 7, "c": 3}, 3)
        assert queue.put({"a": 8}, 3)
        assert queue.peek(["a", "b", "c", "d"]) == {"a": 8, "b": 2, "c": 3}
        queue.done(queue.batch(1, ()))
        assert queue.put({"d": 4}, 3)

    def test_dead_letters(self, queue: WriteQueue) -> None:
        """They aren't pending, take room, can be revived and discarded, and give way to a later write."""
        queue.put({"a": 1, "b": 2, "c": 3}, 3)
        queue.put({"c": REMOVED}, 3)
        for write in queue.batch(9, ()):
            assert queue.bury(write, "Error: why")
        assert (queue.size(), queue.span(), queue.oldest_age(), queue.peek(["a"])) == (0, None, None, {})
        letters = {letter.key: letter for letter in queue.dead()}
        assert (letters["a"].value, letters["a"].error, letters["a"].is_removal) == (1, "Error: why", False)
        assert (letters["c"].value, letters["c"].is_removal) == (MISSING, True)
        assert not queue.put({"d": 4}, 3)
        assert queue.put({"a": 9}, 3)
        assert queue.discard(["b", "nobody"]) == 1
        assert queue.revive(None) == 1
        assert queue.dead() == []
        assert queue.peek(["a", "b", "c"]) == {"a": 9, "c": REMOVED}

    def test_a_write_that_came_before_the_burial(self, queue: WriteQueue) -> None:
        """It isn't buried with the older one."""
        queue.put({"a": 1}, 9)
        (write,) = queue.batch(9, ())
        queue.put({"a": 2}, 9)
        assert not queue.bury(write, "Error: why")
        assert (queue.dead(), queue.peek(["a"])) == ([], {"a": 2})

    def test_age(self, queue: WriteQueue, clock: ManualClock) -> None:
        """Of the oldest write, in seconds."""
        assert queue.oldest_age() is None
        queue.put({"a": 1}, 9)
        clock.advance(2.0)
        queue.put({"b": 1, "a": 2}, 9)
        assert queue.oldest_age() == pytest.approx(2.0)


class TestBatches:
    def test_alone_and_in_time(self, queue: WriteQueue, clock: ManualClock) -> None:
        """A write waits for others, for `max_delay` at most; one that is repeated doesn't start that anew."""
        bench = Bench(queue, clock, max_delay=1.0)
        bench.put(a=1)
        bench.run(0.9)
        bench.put(a=2, b=3)
        assert bench.source.batches == []
        bench.run(0.2)
        assert bench.source.batches == [{"a": 2, "b": 3}]
        assert bench.behind.due_in() is None

    def test_full_batches_do_not_wait(self, queue: WriteQueue, clock: ManualClock) -> None:
        """`max_batch` writes go at once, and none has more."""
        bench = Bench(queue, clock, max_batch=3, max_delay=60.0)
        bench.put(**{f"k{number}": number for number in range(7)})
        bench.run(0.1)
        assert [list(batch) for batch in bench.source.batches] == [["k0", "k1", "k2"], ["k3", "k4", "k5"]]
        assert queue.size() == 1

    def test_removals(self, queue: WriteQueue, clock: ManualClock) -> None:
        """They go in the same round, and the last word on a key counts."""
        bench = Bench(queue, clock)
        bench.source.rows = {"a": 0, "b": 0}
        bench.put(a=1, b=2, c=REMOVED)
        bench.put(a=REMOVED, c=3)
        bench.run(1.2)
        assert bench.source.rows == {"b": 2, "c": 3}
        assert queue.size() == 0

    def test_order_per_key(self, queue: WriteQueue, clock: ManualClock) -> None:
        """The source sees the values of a key in the order of their writes, some left out, the last one
        never, whatever fails in between.
        """
        bench = Bench(queue, clock, max_batch=4, max_delay=0.1, first_retry=0.05)
        dice = random.Random(7)
        bench.source.refuses = lambda batch: dice.random() < 0.4
        taken: dict[str, list[int]] = {f"k{number}": [] for number in range(10)}
        for version in range(300):
            bench.put(**{f"k{dice.randrange(10)}": version})
            bench.run(0.05)
            for key, value in bench.source.rows.items():
                if not taken[key] or taken[key][-1] != value:
                    taken[key].append(value)
        bench.source.refuses = lambda batch: False
        bench.run(60.0, step=0.5)
        assert queue.size() == 0
        assert all(versions == sorted(versions) for versions in taken.values())
        assert queue.dead() == []


class TestFailures:
    def test_source_that_is_down(
        self, queue: WriteQueue, clock: ManualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Everything is kept, tried again with pauses that double up to a limit, logged once, and written
        when the source is back.
        """
        bench = Bench(queue, clock, max_delay=0.1, first_retry=0.2, longest_retry=5.0, attempts=2)
        bench.source.refuses = lambda batch: True
        bench.put(a=1, b=2, c=3)
        with caplog.at_level(logging.INFO):
            bench.run(60.0)
            calls = len(bench.source.batches)
            assert 10 < calls < 150
            bench.source.batches.clear()
            bench.run(10.0)
            assert len(bench.source.batches) < 40
            bench.source.refuses = lambda batch: False
            bench.run(6.0)
        assert bench.source.rows == {"a": 1, "b": 2, "c": 3}
        assert (queue.size(), queue.dead()) == (0, [])
        assert bench.behind.failures == len(bench.told) > calls
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
        assert "refused" not in caplog.text

    def test_row_that_is_never_taken(
        self, queue: WriteQueue, clock: ManualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The others get through; it becomes a dead letter after `attempts` failures while others are taken,
        the cache is told, and the queue is free of it.
        """
        bench = Bench(queue, clock, max_delay=0.1, first_retry=0.05, longest_retry=0.2, attempts=3)
        bench.source.refuses = lambda batch: "bad" in batch
        bench.put(a=1, bad=0, **{f"k{number}": number for number in range(20)})
        bench.run(1.0)
        assert len(bench.source.rows) == 21
        assert bench.pending() == {"bad": 0}
        for number in range(20):
            bench.put(**{f"later{number}": 1})
            bench.run(0.5)
        assert len(bench.source.rows) == 41
        (letter,) = queue.dead()
        assert (letter.key, letter.value, letter.error) == ("bad", 0, "ConnectionError: refused")
        assert (bench.given_up, queue.size()) == (["bad"], 0)
        assert [failure.keys for failure in bench.told if failure.is_final] == [("bad",)]
        assert [record.levelname for record in caplog.records if record.levelno >= logging.ERROR] == ["ERROR"]

    def test_row_that_fails_while_nothing_else_is_written(
        self, queue: WriteQueue, clock: ManualClock
    ) -> None:
        """It can't be told from a source that is down, and is tried for ever."""
        bench = Bench(queue, clock, max_delay=0.1, first_retry=0.05, longest_retry=0.1, attempts=2)
        bench.source.refuses = lambda batch: True
        bench.put(bad=0)
        bench.run(20.0)
        assert (queue.dead(), bench.pending()) == ([], {"bad": 0})

    def test_many_bad_rows_before_the_good_ones(self, queue: WriteQueue, clock: ManualClock) -> None:
        """They hold the others up for a while, not for ever."""
        bench = Bench(
            queue, clock, max_batch=20, max_delay=0.1, first_retry=0.05, longest_retry=0.2, attempts=3
        )
        bench.source.refuses = lambda batch: any(key.startswith("bad") for key in batch)
        bench.put(**{f"bad{number}": 0 for number in range(30)})
        bench.put(**{f"good{number}": 0 for number in range(30)})
        for number in range(100):
            bench.put(**{f"later{number}": 1})
            bench.run(0.5)
        assert len(bench.source.rows) == 130
        assert len(queue.dead()) == 30

    def test_new_value_for_a_bad_row(self, queue: WriteQueue, clock: ManualClock) -> None:
        """It starts afresh, and takes the place of a dead letter."""
        bench = Bench(queue, clock, max_delay=0.1, first_retry=0.05, longest_retry=0.1, attempts=1)
        bench.source.refuses = lambda batch: batch.get("row") == "bad"
        bench.put(row="bad", other=1)
        bench.run(2.0)
        assert [letter.key for letter in queue.dead()] == ["row"]
        bench.put(row="good")
        bench.run(2.0)
        assert (queue.dead(), bench.source.rows) == ([], {"row": "good", "other": 1})

    def test_dead_letter_that_is_retried(self, queue: WriteQueue, clock: ManualClock) -> None:
        """It goes the way of all writes."""
        bench = Bench(queue, clock, max_delay=0.1, first_retry=0.05, attempts=1)
        bench.source.refuses = lambda batch: "bad" in batch
        bench.put(bad=[1], other=1)
        bench.run(2.0)
        bench.source.refuses = lambda batch: False
        assert queue.revive(["bad"]) == 1
        bench.run(2.0)
        assert bench.source.rows["bad"] == [1]

    def test_hook_that_fails(
        self, queue: WriteQueue, clock: ManualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is logged, and nothing else takes notice."""

        def hook(failure: WriteFailure) -> None:
            raise RuntimeError("of the hook")

        bench = Bench(queue, clock, max_delay=0.1, first_retry=0.05, on_error=hook)
        bench.source.refuses = lambda batch: len(bench.source.batches) < 3
        bench.put(a=1)
        bench.run(2.0)
        assert bench.source.rows == {"a": 1}
        assert "on_error failed (RuntimeError)" in caplog.text


class TestDurable:
    """What lies in the file."""

    @pytest.fixture(autouse=True)
    def _posix(self) -> None:
        pytest.importorskip("fcntl")

    def test_mode(self, tmp_path: Path, clock: ManualClock) -> None:
        """Nobody else can read what is pending."""
        queue = make_queue("durable", tmp_path, clock)
        queue.put({"a": 1}, 9)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        assert {"writes.sqlite", "writes.sqlite-wal"} <= set(modes)
        assert set(modes.values()) == {0o600}

    def test_names_are_kept_apart(self, tmp_path: Path, clock: ManualClock) -> None:
        """Queues of several sources in one file don't see each other's writes."""
        users, books = (make_queue("durable", tmp_path, clock, name) for name in ("users", "books"))
        users.put({"1": "Ada"}, 1)
        assert books.put({"1": "Emma"}, 1)
        assert [write.value for write in users.batch(9, ())] == ["Ada"]
        assert books.peek(["1"]) == {"1": "Emma"}

    def test_damaged_file(self, tmp_path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
        """It is set aside with a word, and the queue works on."""
        queue = make_queue("durable", tmp_path, clock)
        (tmp_path / "writes.sqlite").write_bytes(b"this is no database, and never was one" * 99)
        (tmp_path / "writes.sqlite").chmod(0o600)
        assert queue.put({"a": 1}, 9)
        assert queue.peek(["a"]) == {"a": 1}
        assert len(list(tmp_path.glob("writes.sqlite.broken-*"))) == 1
        assert "is damaged" in caplog.text

    def test_file_that_is_removed_or_replaced_meanwhile(self, tmp_path: Path, clock: ManualClock) -> None:
        """The next write makes a new one."""
        queue = make_queue("durable", tmp_path, clock)
        queue.put({"a": 1}, 9)
        for path in tmp_path.iterdir():
            path.unlink()
        assert queue.put({"b": 2}, 9)
        assert queue.peek(["a", "b"]) == {"b": 2}

    def test_file_that_cannot_be_used(self, tmp_path: Path, clock: ManualClock) -> None:
        """An error that says which, before anything is stored."""
        folder = tmp_path / "there"
        folder.mkdir()
        queue = make_queue("durable", folder, clock)
        folder.rmdir()
        with pytest.raises(StoreUnavailable, match=r"writes\.sqlite"):
            queue.put({"a": 1}, 9)

    def test_somebody_elses_file(self, tmp_path: Path, clock: ManualClock) -> None:
        """A file that others may write to is refused, and so is what is no file."""
        (tmp_path / "writes.sqlite").touch(0o666)
        (tmp_path / "writes.sqlite").chmod(0o666)
        with pytest.raises(ConfigError, match="chmod"):
            make_queue("durable", tmp_path, clock)
        (tmp_path / "sub" / "writes.sqlite").mkdir(parents=True)
        with pytest.raises(ConfigError, match="no file"):
            make_queue("durable", tmp_path / "sub", clock)

    def test_pickles_are_signed(self, tmp_path: Path, clock: ManualClock) -> None:
        """What was put there without the secret is never unpickled: it becomes a dead letter."""
        file = queue_files.get(tmp_path / "writes.sqlite")

        def with_secret(secret: str) -> DurableQueue:
            signer = Secrets(secret, (), purpose="write-behind").signer
            return DurableQueue(file, "rows", WriteCodec(PickleSerializer(), signer, False), clock)

        ours, theirs = with_secret("a secret of sixteen"), with_secret("another of sixteen!")
        ours.put({"a": {1, 2}}, 9)
        assert ours.peek(["a"]) == {"a": {1, 2}}
        theirs.put({"a": {1, 2}, "b": {3}}, 9)
        assert ours.peek(["a"]) == {}
        assert all(isinstance(write.value, Unreadable) for write in ours.batch(9, ()))
        bench = Bench(ours, clock, max_delay=0.1)
        bench.run(1.0)
        assert bench.source.rows == {}
        assert {(letter.key, letter.value) for letter in ours.dead()} == {("a", MISSING), ("b", MISSING)}
        with pytest.raises(ConfigError, match="secret"):
            WriteCodec(PickleSerializer(), lambda: None, False)

    def test_a_signed_value_under_another_key(self, tmp_path: Path, clock: ManualClock) -> None:
        """The signature holds the key and the queue: values can't be moved about."""
        signer = Secrets("a secret of sixteen", (), purpose="write-behind").signer
        codec = WriteCodec(PickleSerializer(), signer, False)
        raw = codec.encode("rows", b"a", 1)
        assert codec.decode("rows", b"a", codec.format, raw) == 1
        for name, key in (("rows", b"b"), ("row", b"sa"), ("others", b"a")):
            with pytest.raises(Exception, match="signature"):
                codec.decode(name, key, codec.format, raw)

    def test_in_the_process_that_uwsgi_forks(
        self, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It doesn't tell Python of the fork; so nothing stays open there that wouldn't survive one."""
        queue = make_queue("durable", tmp_path, clock)
        assert isinstance(queue, DurableQueue)
        master = types.SimpleNamespace(worker_id=lambda: 0, mule_id=lambda: 0)
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "uwsgi", master)  # type: ignore[arg-type]
            queue.put({"a": 1}, 9)
            assert queue.file._connection is None
        assert queue.peek(["a"]) == {"a": 1}
        assert queue.file._connection is not None
        monkeypatch.setattr(queue.file, "_pid", 1)
        monkeypatch.setattr(queue.file, "_opened_by", 1)
        with pytest.raises(StoreUnavailable, match="forked"):
            queue.peek(["a"])
        queue.file.close()

    def test_one_flushes_at_a_time(self, tmp_path: Path, clock: ManualClock) -> None:
        """Within a process as well, where the kernel's lock would let everybody in."""
        one, two = (make_queue("durable", tmp_path, clock) for _ in range(2))
        with one.flushing() as first, two.flushing() as second:
            assert (first, second) == (True, False)
        with two.flushing() as third:
            assert third


# With its thread, in this process


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.sqlite"
    make_table(path)
    return path


@pytest.fixture(params=["memory", "durable"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "durable":
        pytest.importorskip("fcntl")
    return str(request.param)


MakeSourced = Callable[..., SourcedCache]


@pytest.fixture
def make(kind: str, tmp_path: Path) -> Iterator[MakeSourced]:
    """Makes caches that write behind, each with a queue of that kind."""
    made: list[SourcedCache] = []

    def make(source: Any, **options: Any) -> SourcedCache:
        if kind == "durable":
            options.setdefault("queue", tmp_path / "writes.sqlite")
        options = {"max_delay": 0.01, "first_retry": 0.01, "longest_retry": 0.1, **options}
        made.append(SourcedCache(QuickCache(), source, writes="behind", **options))
        return made[-1]

    yield make
    for one in made:
        one.discard_dead_letters()
        one.close(0.0)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


class TestThread:
    def test_writes_arrive_by_themselves(self, make: MakeSourced, table: Path) -> None:
        """Without a flush and without further writes."""
        sourced = make(Rows(table))
        sourced.set_many({"a": 1, "b": 2})
        sourced.set("a", 3)
        until(lambda: versions(table) == {"a": 3, "b": 2})
        sourced.delete("b")
        until(lambda: versions(table) == {"a": 3})
        until(lambda: sourced.pending() == 0)

    def test_nothing_is_started_by_the_constructor(self, make: MakeSourced, table: Path) -> None:
        """The thread comes with the first write, and goes with `close`."""

        def threads() -> list[str]:
            return [one.name for one in threading.enumerate() if one.name == "quickcache-writes"]

        before = len(threads())
        sourced = make(Rows(table))
        assert len(threads()) == before
        sourced.set("a", 1)
        assert len(threads()) == before + 1
        assert sourced.close()
        assert len(threads()) == before
        sourced.set("a", 2)
        assert sourced.flush(PATIENCE)
        assert versions(table) == {"a": 2}

    def test_thread_of_a_cache_that_nobody_has_any_more(self, tmp_path: Path, table: Path, kind: str) -> None:
        """It writes what is pending, and ends."""
        options = {"queue": tmp_path / "writes.sqlite"} if kind == "durable" else {}
        sourced = SourcedCache(QuickCache(), Rows(table), writes="behind", max_delay=0.05, **options)
        flusher = sourced._flusher
        assert flusher is not None
        sourced.set("a", 1)
        thread = flusher._thread
        assert thread is not None
        del sourced, flusher
        until(lambda: not thread.is_alive())
        assert versions(table) == {"a": 1}

    def test_flush(self, make: MakeSourced, table: Path) -> None:
        """It waits for what was pending at the call, not for what others go on writing."""
        sourced = make(Rows(table), max_delay=60.0)
        stop = threading.Event()

        def go_on() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                sourced.set("busy", number)

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            sourced.set("a", 7)
            assert sourced.flush(PATIENCE)
            assert versions(table)["a"] == 7
        finally:
            stop.set()
            thread.join()

    def test_limits_of_time(
        self, make: MakeSourced, table: Path, caplog: pytest.LogCaptureFixture, kind: str
    ) -> None:
        """A flush whose time is up says so; a close logs what is left."""
        query(table, "ALTER TABLE rows RENAME TO away")
        sourced = make(Rows(table))
        sourced.set("a", 1)
        assert not sourced.flush(0.05)
        assert not sourced.close(0.05)
        assert "1 writes could not be written" in caplog.text
        assert ("stay in the queue" if kind == "durable" else "are lost") in caplog.text
        query(table, "ALTER TABLE away RENAME TO rows")
        assert sourced.close(PATIENCE)
        assert versions(table) == {"a": 1}

    def test_write_after_a_close_whose_time_was_up(self, make: MakeSourced, table: Path) -> None:
        """The cache may be used on: what is written while the thread still stores the rest is stored, too."""
        going, go_on = threading.Event(), threading.Event()

        class Slow(Rows):
            def store_many(self, values: Mapping[str, Any]) -> None:
                going.set()
                assert go_on.wait(PATIENCE)
                super().store_many(values)

        sourced = make(Slow(table))
        sourced.set("a", 1)
        assert going.wait(PATIENCE)
        assert not sourced.close(0.05)
        sourced.set("b", 2)
        sourced.set("c", 3)
        go_on.set()
        until(lambda: versions(table) == {"a": 1, "b": 2, "c": 3})

    def test_reads_see_what_is_pending(self, make: MakeSourced, table: Path) -> None:
        """A value that was evicted before it reached the source is read from the queue, and so is a
        removal.
        """
        query(table, "INSERT INTO rows VALUES ('a', 1), ('b', 1), ('c', 1)")
        sourced = make(Rows(table), max_delay=60.0)
        sourced.set("a", 2)
        sourced.delete("b")
        sourced.cache.clear()
        assert sourced.get("a") == 2
        assert sourced.get("b", None) is None
        sourced.cache.clear()
        assert sourced.get_many(["a", "b", "c"]) == {"a": 2, "c": 1}
        assert versions(table) == {"a": 1, "b": 1, "c": 1}

    def test_dead_letter_leaves_the_cache(self, make: MakeSourced, table: Path) -> None:
        """Readers then see what the source has; a retry writes it again."""
        query(
            table,
            "CREATE TRIGGER refuse BEFORE UPDATE ON rows WHEN new.version = 13 "
            "BEGIN SELECT RAISE(ABORT, 'unlucky'); END",
        )
        query(table, "INSERT INTO rows VALUES ('a', 1)")
        sourced = make(Rows(table), attempts=2)
        sourced.set("a", 13)
        number = 0
        while not sourced.dead_letters():
            number += 1
            sourced.set("other", number)
            sourced.flush(0.2)
        (letter,) = sourced.dead_letters()
        assert (letter.key, letter.value, letter.error) == ("a", 13, "IntegrityError: unlucky")
        assert sourced.get("a") == 1
        assert sourced.failures >= 2
        query(table, "DROP TRIGGER refuse")
        assert sourced.retry_dead_letters() == 1
        assert sourced.flush(PATIENCE)
        assert versions(table)["a"] == 13

    def test_full(self, make: MakeSourced, table: Path) -> None:
        """A write waits for room, then raises; the value isn't in the cache then, and the older one
        neither.
        """
        lock = sqlite3.connect(table, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        source = TableSource(lambda: sqlite3.connect(table, timeout=0), "rows", "key", "version")
        sourced = make(source, max_pending=3, patience=0.05)
        for number in range(3):
            sourced.set(f"k{number}", number)
        with pytest.raises(QueueFull) as caught:
            sourced.set("more", 1)
        assert (caught.value.pending, caught.value.max_pending) == (3, 3)
        assert "more" not in sourced.cache
        sourced.set("k0", 5)

        done = threading.Event()

        def write() -> None:
            while not done.is_set():
                with contextlib.suppress(QueueFull):
                    sourced.set("more", 2)
                    done.set()

        thread = threading.Thread(target=write)
        thread.start()
        lock.execute("ROLLBACK")
        thread.join(PATIENCE)
        lock.close()
        assert done.is_set()
        assert sourced.flush(PATIENCE)
        assert versions(table) == {"k0": 5, "k1": 1, "k2": 2, "more": 2}

    def test_more_at_once_than_there_is_room_for(self, make: MakeSourced, table: Path) -> None:
        """Such a `set_many` goes in parts."""
        sourced = make(Rows(table), max_pending=10, max_batch=5, patience=PATIENCE)
        sourced.set_many({f"k{number}": number for number in range(95)})
        assert sourced.flush(PATIENCE)
        assert len(versions(table)) == 95

    @pytest.mark.parametrize(
        ("breaks", "mends"),
        [
            ("ALTER TABLE rows RENAME TO away", "ALTER TABLE away RENAME TO rows"),
            (
                "CREATE TRIGGER refuse BEFORE INSERT ON rows BEGIN SELECT RAISE(ABORT, 'no'); END",
                "DROP TRIGGER refuse",
            ),
        ],
    )
    def test_source_that_fails_for_a_while(
        self, make: MakeSourced, table: Path, breaks: str, mends: str
    ) -> None:
        """Everything arrives once it is back."""
        sourced = make(Rows(table), max_batch=7)
        query(table, breaks)
        for number in range(50):
            sourced.set(f"k{number}", number)
        until(lambda: sourced.failures > 3)
        assert sourced.pending() == 50
        query(table, mends)
        assert sourced.flush(PATIENCE)
        assert versions(table) == {f"k{number}": number for number in range(50)}
        assert sourced.dead_letters() == []

    def test_many_writers(self, make: MakeSourced, table: Path) -> None:
        """The last value of each key arrives, and no older one after a newer one."""
        sourced = make(Rows(table), max_batch=10)
        barrier = threading.Barrier(4)

        def write(own: int) -> None:
            barrier.wait()
            for version in range(100):
                sourced.set(f"k{own}-{version % 5}", version)

        threads = [threading.Thread(target=write, args=(own,)) for own in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sourced.flush(PATIENCE)
        assert versions(table) == {f"k{own}-{key}": 95 + key for own in range(4) for key in range(5)}
        check_order(table)

    def test_where_no_thread_can_be_started(
        self, make: MakeSourced, table: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Writers do the work themselves."""

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        sourced = make(Rows(table), max_pending=2, max_delay=60.0)
        for version in range(7):
            sourced.set(f"k{version}", version)
        assert sourced.close(PATIENCE)
        assert versions(table) == {f"k{version}": version for version in range(7)}

    def test_queue_that_cannot_be_read(self, tmp_path: Path) -> None:
        """A miss is an error then: the source may have an older value than the queue."""
        pytest.importorskip("fcntl")
        folder = tmp_path / "there"
        folder.mkdir()
        source = Ledger()
        source.rows = {"a": 1}
        sourced = SourcedCache(QuickCache(), source, writes="behind", queue=folder / "writes.sqlite")
        assert sourced.get("a") == 1
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        assert sourced.get("a") == 1
        sourced.cache.clear()
        with pytest.raises(StoreUnavailable):
            sourced.get("a")
        with pytest.raises(StoreUnavailable):
            sourced.set("a", 2)
        folder.mkdir()
        assert sourced.get("a") == 1
        sourced.close()

    def test_fork(self, make: MakeSourced, table: Path, kind: str) -> None:
        """What is pending in memory is the parent's to write; parent and child both write on."""
        if not hasattr(os, "fork"):
            pytest.skip("this system has no fork")
        sourced = make(Rows(table), max_delay=0.5)
        sourced.set("parent", 1)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                assert sourced.pending() == (1 if kind == "durable" else 0)
                sourced.set("child", 2)
                status = 0 if sourced.close(PATIENCE) else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        sourced.set("later", 3)
        assert sourced.flush(PATIENCE)
        assert versions(table) == {"parent": 1, "child": 2, "later": 3}


def check_order(table: Path) -> None:
    last: dict[str, int] = {}
    for key, version in query(table, "SELECT key, version FROM history ORDER BY place"):
        assert version >= last.get(key, version), f"{key}: {version} after {last[key]}"
        last[key] = version


def test_options_are_documented() -> None:
    """Each has its line in the documentation."""
    page = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
    assert [name for name in BEHIND if f"`{name}`" not in page] == []


def test_choice_of_the_queue(tmp_path: Path) -> None:
    """A file in the directory of a shared cache; memory otherwise; and no queue that others can't see where
    others share the cache.
    """
    pytest.importorskip("lmdb")
    shared = QuickCache(QuickCacheConfig(location=f"shared://{tmp_path / 'cache'}"))
    source = Ledger()
    sourced = SourcedCache(shared, source, writes="behind")
    assert sourced._flusher is not None
    queue = sourced._flusher.behind.queue
    assert isinstance(queue, DurableQueue)
    assert queue.file.path == tmp_path / "cache" / "writes.sqlite"
    with pytest.raises(ConfigError, match="older values"):
        SourcedCache(shared, source, writes="behind", queue="memory")
    with pytest.raises(ConfigError, match="absolute path"):
        SourcedCache(QuickCache(), source, writes="behind", queue="durable")
    with pytest.raises(ConfigError, match="queue_name"):
        SourcedCache(shared, Ledger(), writes="behind")
    SourcedCache(shared, Ledger(), writes="behind", queue_name="others")
    queue.file.close()


# With processes of their own


def plan_of(kind: str, folder: Path, table: Path, **plan: Any) -> dict[str, Any]:
    settings = {"location": f"shared://{folder / 'cache'}"} if kind == "durable" else {}
    return {"table": table, "settings": settings, **plan}


def flush_queue(folder: Path, table: Path) -> SourcedCache:
    """What a process does that comes later."""
    cache = QuickCache(QuickCacheConfig(location=f"shared://{folder / 'cache'}"))
    sourced = SourcedCache(cache, Rows(table), writes="behind")
    assert sourced.flush(PATIENCE)
    return sourced


@pytest.mark.slow
class TestProcesses:
    @pytest.mark.parametrize("ending", ["return", "exit", "sigterm", "multiprocessing", "fork"])
    def test_normal_end(self, kind: str, tmp_path: Path, table: Path, ending: str) -> None:
        """Nothing is lost, however it ends, and although the last writes were never waited for."""
        if kind == "durable":
            pytest.importorskip("lmdb")
        plan = plan_of(kind, tmp_path, table, count=57, keys=20, ending=ending, options={"max_delay": 30.0})
        writer = Writer(**plan)
        assert writer.end() == 0
        expected = {f"k{version % 20}": version for version in range(38, 58)}
        if ending == "fork":
            expected["of the parent"] = 1
        assert versions(table) == expected

    def test_source_that_hangs_at_the_end(self, kind: str, tmp_path: Path, table: Path) -> None:
        """The program ends all the same, after `close_timeout`."""
        if kind == "durable":
            pytest.importorskip("lmdb")
        options = {"max_delay": 0.01, "close_timeout": 0.2}
        writer = Writer(**plan_of(kind, tmp_path, table, keys=5, count=5, stuck="before", options=options))
        assert writer.end() == 0
        assert versions(table) == {}
        if kind == "durable":
            flush_queue(tmp_path, table).close()
            assert versions(table) == writer.told

    def test_killed_with_a_queue_in_memory(self, tmp_path: Path, table: Path) -> None:
        """At most `max_pending` writes are lost."""
        dice = random.Random(3)
        for attempt in range(8):
            query(table, "DELETE FROM rows")
            options = {"max_pending": 20, "max_delay": 0.005, "max_batch": 8, "patience": 30.0}
            writer = Writer(**plan_of("memory", tmp_path, table, keys=10_000, options=options))
            writer.read(1 + dice.randrange(400))
            writer.kill()
            arrived = versions(table)
            lost = [key for key, version in writer.told.items() if arrived.get(key) != version]
            assert len(lost) <= 20, f"round {attempt}: {len(lost)} of {len(writer.told)} are lost"

    def test_killed_with_a_durable_queue(self, tmp_path: Path, table: Path) -> None:
        """Nothing is lost that `set` returned for, over many processes killed at any moment, and no older
        value ever follows a newer one.
        """
        pytest.importorskip("lmdb")
        dice = random.Random(4)
        first = 1
        told: dict[str, int] = {}
        for _ in range(12):
            options = {"max_delay": 0.005, "max_batch": 8, "max_pending": 50, "patience": 30.0}
            writer = Writer(**plan_of("durable", tmp_path, table, keys=7, first=first, options=options))
            writer.read(1 + dice.randrange(200))
            writer.kill()
            told.update(writer.told)
            first = max(told.values()) + 2
        sourced = flush_queue(tmp_path, table)
        arrived = versions(table)
        # A write that was under way when the process was killed may have got through.
        assert all(arrived[key] >= version for key, version in told.items())
        check_order(table)
        sourced.close()

    @pytest.mark.parametrize("stuck", ["before", "after"])
    def test_killed_in_the_middle_of_a_flush(self, tmp_path: Path, table: Path, stuck: str) -> None:
        """Meanwhile nobody else flushes; then another process takes over, and writes it, perhaps once
        more.
        """
        pytest.importorskip("lmdb")
        options = {"max_delay": 0.01}
        writer = Writer(**plan_of("durable", tmp_path, table, keys=5, count=5, stuck=stuck, options=options))
        while writer.read(1) != "stuck":
            pass
        other = Writer(
            **plan_of("durable", tmp_path, table, keys=5, first=6, options={"max_delay": 0.01}, count=5)
        )
        other.read(5)
        assert len(set(query(table, "SELECT key FROM history"))) <= 5
        writer.kill()
        assert other.end() == 0
        expected = {**writer.told, **other.told}
        assert versions(table) == expected
        check_order(table)

    def test_two_processes_write_one_queue(self, tmp_path: Path, table: Path) -> None:
        """Each brings the other's writes to the source; per key the order is that of the writes."""
        pytest.importorskip("lmdb")
        writers = [
            Writer(
                **plan_of(
                    "durable",
                    tmp_path,
                    table,
                    keys=3 + number,
                    first=1000 * number + 1,
                    count=150,
                    options={"max_delay": 0.01},
                )
            )
            for number in range(2)
        ]
        assert [writer.end() for writer in writers] == [0, 0]
        sourced = flush_queue(tmp_path, table)
        assert sourced.pending() == 0
        arrived = versions(table)
        for key, version in arrived.items():
            assert version in {writer.told.get(key) for writer in writers}
        sourced.close()
