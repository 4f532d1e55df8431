"""Commands to running processes: cleared everywhere, keys from everywhere, and who didn't answer."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import NEVER, QuickCache, QuickCacheConfig
from quickcache_core.maintenance import maintenance
from quickcache_core.metrics import layout as at
from quickcache_core.metrics import ring
from quickcache_core.metrics.board import Board, board_at
from quickcache_core.metrics.control import Cleared, Control, FoundKeys
from quickcache_core.metrics.figures import KeyOfStore
from quickcache_core.metrics.publisher import Publisher
from quickcache_core.metrics.runtime import figures_path
from quickcache_core.testing import ManualClock
from tests.core.workers import Worker

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

NAME = "commanded"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The runtime directory of this test alone."""
    monkeypatch.setenv("QUICKCACHE_RUNTIME_DIR", str(tmp_path / "run"))
    yield tmp_path / "run"
    gc.collect()


def make(**settings: Any) -> QuickCache:
    return QuickCache(QuickCacheConfig(**{"publish_as": NAME, **settings}))


def control_of(cache: QuickCache, patience: float = 30.0) -> Control:
    """Patient: a worker on a busy machine may take its time."""
    assert cache._publisher is not None
    return Control(cache._publisher, patience=patience)


@pytest.fixture
def control() -> Iterator[Control]:
    """As a command's process has it: no worker itself."""
    cache = make()
    control = control_of(cache)
    control.stay_out()
    yield control
    cache.stop()


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    """Two that have `shared` and a key of their own each."""
    made = [Worker(publish_as=NAME) for _ in range(2)]
    for number, worker in enumerate(made):
        worker.call("set", "shared", 1, 60 + 60 * number)
        worker.call("set", f"own:{number}", 1, 3600)
        worker.call("publish")
    yield made
    for worker in made:
        worker.close()


def board() -> Board:
    return board_at(figures_path(NAME))


# Clearing


@pytest.mark.slow
def test_clear_reaches_running_workers(control: Control, workers: list[Worker]) -> None:
    """By themselves, within a second or so; the command knows who they were."""
    assert control.clear() == Cleared(0, obeyed=tuple(sorted(worker.pid for worker in workers)))
    assert [worker.call("size") for worker in workers] == [0, 0]


@pytest.mark.slow
def test_clear_by_prefix(control: Control, workers: list[Worker]) -> None:
    """Other keys stay."""
    control.clear("own:")
    assert [worker.call("keys") for worker in workers] == [["shared"], ["shared"]]


@pytest.mark.parametrize("location", ["", "shared://"])
def test_clear_by_prefix_during_a_load(tmp_path: Path, location: str) -> None:
    """What a worker is computing under such a key is handed out, and isn't stored."""
    cache = make(location=location and f"{location}{tmp_path / 'cache'}")
    control = control_of(cache)

    cache.set("page", 1)
    cache.publish()

    def load() -> str:
        control.clear("user:")
        return "old"

    assert cache.get_or_set("user:1", load) == "old"
    assert "user:1" not in cache
    cache.stop()


@pytest.mark.slow
@pytest.mark.parametrize("version", ["", "2"])
def test_namespace_is_cleared_everywhere(version: str) -> None:
    """Whatever number its generation has in each process; what is in no namespace, or in another, stays."""
    workers = [Worker(publish_as=NAME, version=version) for _ in range(2)]
    workers[1].call("drafts.clear")
    for worker in workers:
        for where in ("", "drafts.", "others."):
            worker.call(f"{where}set", "k", 1)
        worker.call("publish")
    cache = make(version=version)
    control = control_of(cache)
    control.stay_out()
    generation = cache.namespace("drafts").generation_name
    assert generation is not None
    cleared = control.clear_namespace(generation)
    assert (cleared.removed, len(cleared.obeyed), cleared.silent) == (0, 2, ())
    for worker in workers:
        assert [worker.call(f"{where}get", "k", None) for where in ("", "drafts.", "others.")] == [1, None, 1]
        worker.close()
    cache.stop()


@pytest.mark.slow
def test_tags_are_invalidated_everywhere(control: Control, workers: list[Worker]) -> None:
    """More of them than one command has room for; entries without one of them stay."""
    tags = [f"tag {number}" for number in range(120)]
    for worker in workers:
        worker.call("set_tagged", "first", 1, tags[0])
        worker.call("set_tagged", "last", 1, tags[-1])
        worker.call("set_tagged", "other", 1, "another")
    cleared = control.invalidate_tags(make().tag_slots(*tags))
    assert len(cleared.obeyed) == 2
    for worker in workers:
        assert [worker.call("get", key, None) for key in ("first", "last", "other", "shared")] == [
            None,
            None,
            1,
            1,
        ]


def test_names_that_are_too_long(control: Control) -> None:
    """As with prefixes."""
    worker = Worker(publish_as=NAME)
    worker.call("set", "k", 1)
    worker.call("publish")
    with pytest.raises(ValueError, match="give a shorter one"):
        control.clear_namespace("x" * (at.PREFIX_BYTES + 1))
    worker.close()


def test_generation_names() -> None:
    """Only namespaces have one; those of one release differ from those of another."""
    plain, release = QuickCache(), QuickCache(QuickCacheConfig(version="2"))
    assert plain.generation_name is None
    assert release.generation_name is None
    names = [
        one.generation_name
        for cache in (plain, release)
        for one in (cache.namespace("a"), cache.namespace("a").namespace("b"), cache.namespace("b"))
    ]
    assert None not in names
    assert len(set(names)) == 6


@pytest.mark.slow
def test_clear_in_a_worker_itself(workers: list[Worker]) -> None:
    """A worker that gives the command is one of those that obey."""
    cache = make()
    cache.set("k", 1)
    cleared = control_of(cache).clear()
    assert cleared.removed == 1
    assert cleared.obeyed == tuple(sorted([os.getpid(), *(worker.pid for worker in workers)]))
    assert cache.size() == 0
    cache.stop()


def test_worker_that_asks_and_goes_on() -> None:
    """It has acted already when it asks the others: what it stores after that stays, also if it publishes for
    the first time.
    """
    other = Worker(publish_as=NAME, threads=False)
    other.call("set", "k", 1)
    other.call("publish")
    cache = make()
    control = control_of(cache, patience=0.0)
    assert control.clear().silent == (other.pid,)
    for key in ("first", "second"):
        cache.set(key, 1, NEVER)
        cache.publish()
        assert list(cache.keys()) == [key]
        assert control.clear().removed == 1
    other.close()
    cache.stop()


def test_what_others_asked_before_a_worker_asks() -> None:
    """It is news to this worker, and is carried out; what it asks itself isn't."""
    cache = make()
    cache.set_many(dict.fromkeys(["a:1", "b:1", "c:1"], 1), NEVER)
    cache.publish()
    publisher = cache._publisher
    assert publisher is not None
    ring.send(board(), ring.Kind.CLEAR, "a:")
    publisher.tell_others(ring.Kind.CLEAR, "b:")
    ring.send(board(), ring.Kind.CLEAR, "c:")
    cache.publish()
    assert list(cache.keys()) == ["b:1"]
    assert board().read().workers[0].obeyed == 3
    cache.stop()


def test_own_command_among_those_that_were_missed() -> None:
    """Nobody knows any more what the others were: everything goes."""
    cache = make()
    cache.set_many(dict.fromkeys(["a:1", "b:1"], 1), NEVER)
    cache.publish()
    publisher = cache._publisher
    assert publisher is not None
    ring.send(board(), ring.Kind.CLEAR, "a:")
    publisher.tell_others(ring.Kind.CLEAR, "x:")
    for _ in range(at.COMMANDS):
        ring.send(board(), ring.Kind.CLEAR, "x:")
    cache.publish()
    assert cache.size() == 0
    cache.stop()


def test_nobody_runs(control: Control, directory: Path) -> None:
    """No command is written for nobody."""
    assert control.clear() == Cleared(0)
    assert control.keys() == FoundKeys((), truncated=False)
    assert not directory.exists()


@pytest.mark.slow
def test_longest_prefix(control: Control, workers: list[Worker]) -> None:
    """What doesn't fit is refused, not cut off: a cut prefix would clear more."""
    longest = "é" * (at.PREFIX_BYTES // 2)
    workers[0].call("set", longest, 1)
    workers[0].call("set", longest[:-1], 1)
    control.clear(longest)
    assert longest not in workers[0].call("keys")
    assert longest[:-1] in workers[0].call("keys")
    for ask in (control.clear, control.keys):
        with pytest.raises(ValueError, match="give a shorter one"):
            ask(longest + "x")


def test_worker_without_a_thread() -> None:
    """It can't be reached between requests: the command names it, and it obeys with the next one."""
    worker = Worker(publish_as=NAME, threads=False)
    worker.call("set", "k", 1)
    worker.call("publish")
    cache = make()
    control = control_of(cache, patience=0.1)
    control.stay_out()
    assert control.clear() == Cleared(0, silent=(worker.pid,))
    assert control.keys().silent == (worker.pid,)
    assert worker.call("size") == 1
    worker.call("publish")
    assert worker.call("size") == 0
    worker.close()


def test_worker_that_is_killed_meanwhile() -> None:
    """Nobody waits for it."""
    worker = Worker(publish_as=NAME, threads=False)
    worker.call("set", "k", 1)
    worker.call("publish")
    cache = make()
    control = control_of(cache)
    control.stay_out()
    killer = threading.Timer(0.2, worker.kill)
    killer.start()
    assert control.clear() == Cleared(0)
    killer.join()


@pytest.mark.slow
def test_command_that_is_older_than_the_store(control: Control, workers: list[Worker]) -> None:
    """A worker that starts later has nothing to do with it."""
    control.clear()
    newcomer = Worker(publish_as=NAME)
    newcomer.call("set", "k", 1)
    newcomer.call("publish")
    assert newcomer.call("size") == 1
    newcomer.close()


@pytest.mark.slow
def test_store_that_is_older_than_the_command(control: Control, workers: list[Worker]) -> None:
    """A worker that was filled before the command, and published for the first time after it, obeys."""
    reading, writing = os.pipe()
    cache = make()
    cache.set("warmed before the fork", 1, NEVER)
    assert cache._publisher is not None
    maintenance.dismiss(cache._publisher)
    pid = os.fork()
    if pid == 0:
        os.read(reading, 1)
        cache.set("mine", 1, NEVER)
        cache.publish()
        os._exit(10 + cache.size())
    control.clear()
    os.write(writing, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 10
    assert cache._publisher.claim is None
    cache.publish()
    assert cache.size() == 0
    cache.stop()


def test_child_does_not_obey_again(control: Control) -> None:
    """What the parent has obeyed before the fork is over for the child, which keeps what came after."""
    cache = make()
    cache.set("k", 1, NEVER)
    cache.publish()
    control_of(cache).clear()
    cache.set("new", 1, NEVER)
    pid = os.fork()
    if pid == 0:
        cache.get("new")
        cache.publish()
        os._exit(10 + cache.size())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 11
    cache.stop()


@pytest.mark.parametrize("missed", [1, at.COMMANDS - 1, at.COMMANDS, at.COMMANDS + 1, 3 * at.COMMANDS + 5])
def test_commands_that_were_missed(missed: int) -> None:
    """As long as they are known, they are carried out as they are; otherwise everything goes."""
    cache = make()
    cache.set_many({"a:1": 1, "b:1": 1}, NEVER)
    cache.publish()
    assert cache._publisher is not None
    for _ in range(missed):
        ring.send(board(), ring.Kind.CLEAR, "a:")
    cache.publish()
    assert list(cache.keys()) == (["b:1"] if missed <= at.COMMANDS else [])
    assert board().read().workers[0].obeyed == missed


def test_command_that_is_overwritten_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody acts on half of one prefix and half of another: everything goes."""
    cache = make()
    cache.set_many({"a:1": 1, "b:1": 1}, NEVER)
    cache.publish()
    file = board().file(time.monotonic())
    assert file is not None
    number = ring.send(board(), ring.Kind.CLEAR, "a:")
    assert number is not None
    file.words[at.command_word(number) + at.C_NUMBER] = 0
    cache.publish()
    assert cache.size() == 0


@pytest.mark.slow
def test_several_commands_at_once(workers: list[Worker]) -> None:
    """Each is carried out, and each asker gets his own answer."""
    for worker in workers:
        for letter in "abcd":
            worker.call("set", letter, 1)
    found: dict[str, FoundKeys] = {}

    def ask(letter: str) -> None:
        cache = make()
        control = control_of(cache)
        control.stay_out()
        found[letter] = control.keys(letter)
        control.clear(letter)

    threads = [threading.Thread(target=ask, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {letter: [key.key for key in keys.keys] for letter, keys in found.items()} == {
        letter: [letter] for letter in "abcd"
    }
    assert workers[0].call("keys") == ["shared", "own:0"]


# Keys


@pytest.mark.slow
def test_keys_of_all_workers(control: Control, workers: list[Worker], directory: Path) -> None:
    """Each key once, with who has it and the longest time left; nothing stays behind on the disk."""
    found = control.keys()
    first, second = (worker.pid for worker in workers)
    assert [key.key for key in found.keys] == ["own:0", "own:1", "shared"]
    assert [key.pids for key in found.keys] == [(first,), (second,), tuple(sorted((first, second)))]
    shared = found.keys[2].ttl_s
    assert shared is not None
    assert 60 < shared <= 120
    assert found.asked == tuple(sorted((first, second)))
    assert not found.truncated
    assert [path.name for path in directory.iterdir()] == [figures_path(NAME).name]


def test_keys_without_an_end(control: Control) -> None:
    """None is longer than any time."""
    clock = ManualClock()
    caches = [make(clock=clock), make(clock=clock)]
    caches[0].set("k", 1, NEVER)
    caches[1].set("k", 1, 50)
    for cache in caches:
        cache.publish()
    assert [key.ttl_s for key in control.keys().keys] == [None]


@pytest.mark.slow
def test_limit(control: Control, workers: list[Worker]) -> None:
    """Bounds what is shown, and says whether there is more."""
    for limit, truncated in ((1, True), (2, True), (3, False), (4, False)):
        found = control.keys(limit=limit)
        assert (len(found.keys), found.truncated) == (min(limit, 3), truncated)
    assert [key.key for key in control.keys("own:", 1).keys] == ["own:0"]


def test_keys_of_a_worker_itself(directory: Path) -> None:
    """A worker that asks is one of those that answer; nothing stays behind on the disk."""
    cache = make()
    cache.set("\udcff \x1b\n", 1)
    found = control_of(cache).keys()
    assert [(key.key, key.pids) for key in found.keys] == [("\udcff \x1b\n", (os.getpid(),))]
    assert found.asked == (os.getpid(),)
    assert [path.name for path in directory.iterdir()] == [figures_path(NAME).name]
    cache.stop()


def test_answers(directory: Path) -> None:
    """Written as a whole, for the owner only, as JSON."""
    directory.mkdir(mode=0o700)
    path = directory / "answer"
    path.with_name("answer.unfinished").write_text("of a process that was killed")
    ring.write_answer(path, 7, [KeyOfStore("k", None), KeyOfStore("é\udcff", 1.5)])
    assert path.stat().st_mode & 0o777 == 0o600
    assert ring.read_answer(path) == (7, [KeyOfStore("k", None), KeyOfStore("é\udcff", 1.5)])
    assert [one.name for one in directory.iterdir()] == ["answer"]


@pytest.mark.parametrize(
    "text", ["", "x", "{}", "[]", '{"pid": "x"}', '{"pid": 1}\n[', '{"pid": 1}\n["k"]\n']
)
def test_answer_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    """It counts as none."""
    path = tmp_path / "answer"
    path.write_text(text)
    assert ring.read_answer(path) is None


def test_answer_that_is_a_symbolic_link(tmp_path: Path) -> None:
    """It isn't followed."""
    (tmp_path / "real").write_text('{"pid": 1}\n')
    (tmp_path / "answer").symlink_to(tmp_path / "real")
    assert ring.read_answer(tmp_path / "answer") is None
    assert ring.read_answer(tmp_path / "nothing") is None


@pytest.mark.slow
def test_answers_that_nobody_fetched(control: Control, workers: list[Worker]) -> None:
    """Those of commands that were killed go with the next one; fresh ones are somebody else's."""
    old = ring.answer_path(board(), 1, 1)
    fresh = ring.answer_path(board(), 2, 1)
    for path in (old, fresh):
        path.write_text("{}")
    os.utime(old, (1, 1))
    control.keys()
    assert not old.exists()
    assert fresh.exists()


@pytest.mark.slow
def test_question_that_nobody_waits_for_any_more(workers: list[Worker], directory: Path) -> None:
    """A worker that comes late to it writes nothing."""
    cache = make()
    cache.set("k", 1)
    cache.publish()
    file = board().file(time.monotonic())
    assert file is not None
    with board().exclusive(file, patience=5):
        number = file.words[at.H_NEWEST] + 1
        start = at.command_word(number)
        for word, value in ((at.C_NUMBER, number), (at.C_KIND, ring.Kind.KEYS), (at.C_SENT, 1)):
            file.words[start + word] = value
        file.words[at.H_NEWEST] = number
    cache.publish()
    assert not list(directory.glob(f"*.keys-{number}-*"))
    cache.stop()


def test_command_of_a_kind_to_come() -> None:
    """Left alone, and answered."""
    cache = make()
    cache.set("k", 1)
    cache.publish()
    ring.send(board(), 99, "")  # type: ignore[arg-type]
    cache.publish()
    assert cache.size() == 1
    assert board().read().workers[0].obeyed == 1
    cache.stop()


def test_command_that_fails(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The worker goes on: it says so once and doesn't try again."""
    cache = make()
    cache.set("k", 1)
    cache.publish()
    assert cache._publisher is not None
    calls: list[str] = []

    def fail(prefix: str) -> int:
        calls.append(prefix)
        raise ZeroDivisionError

    monkeypatch.setattr(cache._publisher.source, "clear", fail)
    ring.send(board(), ring.Kind.CLEAR, "a")
    cache.publish()
    cache.publish()
    assert calls == ["a"]
    assert "ZeroDivisionError" in caplog.text
    assert board().read().workers[0].obeyed == 1
    cache.stop()


# Staying out


def test_command_is_no_worker() -> None:
    """Neither while it runs nor afterwards, even if it has been published before."""
    cache = make()
    cache.set("k", 1)
    cache.publish()
    assert len(board().read().workers) == 1
    control_of(cache).stay_out()
    cache.set("k", 2)
    cache.publish()
    reading = board().read()
    assert (reading.workers, reading.ended_workers) == ((), 0)
    assert cache.get("k") == 2


class SharedSource:
    """Entries that all processes have in common."""

    def __init__(self) -> None:
        self.entries = ["a:1", "a:2", "b:1"]

    def figures(self) -> Any:
        return None

    def clear(self, prefix: str) -> int:
        gone = [key for key in self.entries if key.startswith(prefix)]
        self.entries = [key for key in self.entries if key not in gone]
        return len(gone)

    def keys(self, prefix: str, limit: int | None) -> list[KeyOfStore]:
        return [KeyOfStore(key, None) for key in self.entries if key.startswith(prefix)][:limit]


def test_shared_entries(directory: Path) -> None:
    """Nobody needs to be told: the store is everybody's."""
    wake: Callable[[Publisher], None] = lambda publisher: None  # noqa: E731
    publisher = Publisher(SharedSource(), lambda: directory / "stats.bin", wake, shared_entries=True)
    control = Control(publisher)
    found = control.keys("a:", 1)
    assert ([key.key for key in found.keys], found.truncated) == (["a:1"], True)
    assert control.clear("a:") == Cleared(2)
    assert [key.key for key in control.keys().keys] == ["b:1"]
    assert control.read().workers == ()


@pytest.mark.slow
def test_worker_that_is_stopped(control: Control, workers: list[Worker]) -> None:
    """A stopped process doesn't answer; it obeys when it goes on."""
    os.kill(workers[0].pid, signal.SIGSTOP)
    try:
        cleared = Control(control._publisher, patience=3.0).clear()
    finally:
        os.kill(workers[0].pid, signal.SIGCONT)
    assert cleared.silent == (workers[0].pid,)
    end = time.monotonic() + 30
    while workers[0].call("size"):
        assert time.monotonic() < end
        time.sleep(0.05)
