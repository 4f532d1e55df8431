"""One load of a key at a time over several processes, some of which are killed or stopped meanwhile."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.core.loading_tools import until
from tests.shared.remote import Remote

pytestmark = pytest.mark.slow

Start = Callable[..., Remote]
SCENES = "tests.core.loading_processes"
PROCESSES, THREADS = 4, 5


class Threads:
    """Processes whose threads ask for one key at the same time."""

    def __init__(self, start: Start, folder: Path) -> None:
        self.remotes = {remote.pid: remote for remote in (start() for _ in range(PROCESSES))}
        self.tally = folder / "tally"
        self.gate = folder / "gate"

    def ask(self, *remotes: Remote, tags: tuple[str, ...] = (), count: int = THREADS) -> None:
        for remote in remotes or self.remotes.values():
            remote.ask(
                "run", f"{SCENES}:ask_in_threads", "k", str(self.tally), count, str(self.gate), list(tags)
            )

    def loads(self) -> list[int]:
        """The processes that have called the loader."""
        return [int(line) for line in self.tally.read_text().split()] if self.tally.exists() else []

    def owner(self, number: int = 1) -> Remote:
        """The process that made the load with that number."""
        until(lambda: len(self.loads()) >= number, "nobody loads")
        return self.remotes[self.loads()[number - 1]]

    def others(self) -> list[Remote]:
        owner = self.owner()
        return [remote for remote in self.remotes.values() if remote is not owner]


@pytest.fixture
def threads(start: Start, tmp_path: Path) -> Threads:
    return Threads(start, tmp_path)


def value(remote: Remote, count: int = THREADS) -> None:
    assert remote.answer() == ["value"] * count, remote.log()


def test_threads_of_processes_on_a_cold_key(threads: Threads) -> None:
    """The loader runs once for all."""
    threads.ask()
    threads.owner()
    threads.gate.touch()
    for remote in threads.remotes.values():
        value(remote)
    assert len(threads.loads()) == 1
    for remote in threads.remotes.values():
        assert remote.do("run", f"{SCENES}:leases_held") == 0


def test_owner_is_killed(threads: Threads) -> None:
    """Another process loads, and all the others get its value."""
    threads.ask()
    owner, others = threads.owner(), threads.others()
    owner.kill()
    threads.owner(2)
    threads.gate.touch()
    for remote in others:
        value(remote)
    assert len(threads.loads()) == 2
    assert others[0].get("k") == "value"


def test_owners_are_killed_one_after_the_other(threads: Threads) -> None:
    """The last process that is left gets the value."""
    threads.ask()
    for number in range(1, PROCESSES):
        threads.owner(number).kill()
    last = threads.owner(PROCESSES)
    threads.gate.touch()
    value(last)
    assert len(set(threads.loads())) == PROCESSES


def test_owner_is_stopped(start: Start, tmp_path: Path) -> None:
    """It keeps the lease; the others wait no longer than `lease`, then each loads."""
    owner, other = start(), start(lease=0.2)
    marker = tmp_path / "began"
    owner.ask("run", f"{SCENES}:hang_in_a_load", "k", str(marker), "sync", {})
    until(marker.exists)
    owner.signal(signal.SIGSTOP)
    owner.wait_until_stopped()
    assert other.do("run", f"{SCENES}:load_value", "k", "by itself", {}) == ["by itself", 1]
    assert other.get("k") == "by itself"
    owner.signal(signal.SIGCONT)


def changes() -> dict[str, Callable[[Remote], Any]]:
    return {
        "delete": lambda remote: remote.delete("k", missing_ok=True),
        "clear": lambda remote: remote.clear(),
        "invalidate_tags": lambda remote: remote.invalidate_tags("tag"),
    }


@pytest.mark.parametrize("change", changes())
def test_removed_by_another_process_during_a_load(threads: Threads, change: str) -> None:
    """The value is handed to those who waited and isn't stored; who asks from now on gets a newer load."""
    one, another, *_ = threads.remotes.values()
    # One thread only: another one might come late, after the change, and load something newer.
    threads.ask(one, tags=("tag",), count=1)
    threads.owner()
    changes()[change](another)
    # These wait until the other process is done, which may be slow, but not for its value.
    another.ask("run", f"{SCENES}:load_value", "k", "newer", {"tags": ["tag"]})
    threads.gate.touch()
    value(one, 1)
    assert another.answer() == ["newer", 1]
    for remote in threads.remotes.values():
        assert remote.get("k") == "newer"
    assert len(threads.loads()) == 1


def test_set_by_another_process_during_a_load(threads: Threads) -> None:
    """What was set stays."""
    one, another, *_ = threads.remotes.values()
    threads.ask(one, count=1)
    threads.owner()
    another.set("k", "set")
    threads.gate.touch()
    value(one, 1)
    for remote in threads.remotes.values():
        assert remote.get("k") == "set"


def test_refresh_in_one_process_only(start: Start, tmp_path: Path) -> None:
    """Of a value that is stale for all processes, one sets off a refresh; none of them waits."""
    loading, reading = start(), start()
    loading.set("k", "older", 0.001, stale_ttl=1000)
    until(lambda: reading.get("k", "stale") == "stale")
    marker = tmp_path / "began"
    options = {"stale_ttl": 1000}
    assert loading.do("run", f"{SCENES}:hang_in_a_load", "k", str(marker), "sync", options) == "older"
    until(marker.exists)
    for _ in range(20):
        assert reading.do("run", f"{SCENES}:load_value", "k", "newer", options) == ["older", 0]
    assert reading.do("run", f"{SCENES}:leases_held") == 0
    loading.kill()
    until(lambda: reading.do("run", f"{SCENES}:load_value", "k", "newer", options)[0] == "newer")
