"""Tags, loads, leases and sliding entries over several processes, some of which are killed or stopped."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.shared.remote import Failed, Remote

pytestmark = pytest.mark.slow

Start = Callable[..., Remote]
SCENES = "tests.shared.scenes"


def do(remote: Remote, scene: str, *args: Any) -> Any:
    return remote.do("run", f"{SCENES}:{scene}", *args)


def put(remote: Remote, key: str, value: Any, *tags: str) -> None:
    do(remote, "begin_load", key)
    assert do(remote, "end_load", key, value, *tags), remote.log()


def invalidate(remote: Remote, *tags: str) -> None:
    remote.invalidate_tags(*tags)


# Tags


def test_tags_are_invalidated_for_all(start: Start) -> None:
    """At once, for those who have the entries near, for those who don't, and for who comes later."""
    one, other, blank = start(), start(), start()
    put(one, "both", 1, "red", "blue")
    put(one, "red", 2, "red")
    put(other, "blue", 3, "blue")
    other.set("plain", 4)
    for remote in (one, other):
        for _ in range(2):
            assert remote.get_many(["both", "red", "blue", "plain"]) == {
                "both": 1,
                "red": 2,
                "blue": 3,
                "plain": 4,
            }
    invalidate(other, "red")
    for remote in (one, other, blank, start()):
        for _ in range(2):
            assert remote.get("red", "gone") == "gone"
            assert remote.get_many(["both", "red", "blue", "plain"]) == {"blue": 3, "plain": 4}
        assert remote.keys() == ["blue", "plain"]
        assert remote.delete("red", missing_ok=True) is False
    put(one, "red", 5, "red")
    for remote in (one, other, blank):
        assert remote.get("red") == 5


def test_invalidations_outlive_all_processes(start: Start) -> None:
    """What was invalidated is gone after a full stop with -9, and what wasn't is there."""
    one = start()
    put(one, "red", 1, "red")
    put(one, "blue", 2, "blue")
    invalidate(one, "red")
    one.kill()
    newcomer = start()
    assert newcomer.get_many(["red", "blue"]) == {"blue": 2}
    put(newcomer, "red", 3, "red")
    newcomer.kill()
    assert start().get_many(["red", "blue"]) == {"red": 3, "blue": 2}


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_invalidating(start: Start, when: str) -> None:
    """All see the same, and what is stored afterwards is there: nothing has to be repaired."""
    reader, victim = start(), start()
    put(reader, "k", 1, "red")
    assert reader.get("k") == 1
    victim.do("trap_commit", when, int(signal.SIGKILL), 1)
    victim.ask("call", "invalidate_tags", ["red"], {})
    assert victim.dies() == signal.SIGKILL
    answers = {remote.get("k", "gone") for remote in (reader, start(), reader)}
    # Before the commit it was stamped, and nobody was told: either answer is right, but one for all.
    assert answers == {"gone"}
    for value in (2, 3):
        reader.set("k", value, tags=["red"])
        for remote in (reader, start()):
            assert remote.get("k") == value
    invalidate(reader, "red")
    for remote in (reader, start()):
        assert remote.get("k", "gone") == "gone"


def test_a_load_after_a_killed_writer(start: Start) -> None:
    """A stamp without a commit may refuse one load, and no second one."""
    loader, victim = start(), start()
    loader.set("other", 1)
    for call, args in (("delete", ["k"]), ("invalidate_tags", ["red"]), ("clear", [])):
        victim.do("trap_commit", "before", int(signal.SIGKILL), 1)
        victim.ask("call", call, args, {"missing_ok": True} if call == "delete" else {})
        assert victim.dies() == signal.SIGKILL
        stored = []
        for n in range(2):
            do(loader, "begin_load", "k")
            stored.append(do(loader, "end_load", "k", n, "red"))
        assert stored[-1]
        assert loader.get("k") == 1
        loader.delete("k")
        victim = start()


# Loads


OVERTAKING: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "delete": ("delete", ["k"], {"missing_ok": True}),
    "delete_many": ("delete_many", [["k", "x"]], {}),
    "pop": ("pop", ["k", None], {}),
    "set": ("set", ["k", "new"], {}),
    "set_many": ("set_many", [{"k": "new"}], {}),
    "incr": ("incr", ["k"], {"initial": 0}),
    "clear": ("clear", [], {}),
    "tag": ("invalidate_tags", ["red"], {}),
}


@pytest.mark.parametrize("name", OVERTAKING)
@pytest.mark.parametrize("is_there", [False, True], ids=["absent", "there"])
def test_changed_elsewhere_during_a_load(start: Start, name: str, is_there: bool) -> None:
    """A value computed before a change by another process never comes back after it."""
    loader, changer = start(), start()
    changer.set("x", 1)
    if is_there:
        changer.set("k", 1, tags=["red"])
        assert loader.get("k") == 1
    do(loader, "begin_load", "k")
    method, args, kwargs = OVERTAKING[name]
    getattr(changer, method)(*args, **kwargs)
    before = changer.get("k", "gone")
    assert do(loader, "end_load", "k", "old", "red") is False
    for remote in (loader, changer, start()):
        assert remote.get("k", "gone") == before
    # And the next one isn't hindered.
    do(loader, "begin_load", "k")
    assert do(loader, "end_load", "k", "fresh", "red") is True
    assert changer.get("k") == "fresh"


def test_other_keys_changed_during_a_load(start: Start) -> None:
    """They don't matter."""
    loader, changer = start(), start()
    do(loader, "begin_load", "k")
    changer.set("other", 1)
    changer.delete("another", missing_ok=True)
    invalidate(changer, "blue")
    assert do(loader, "end_load", "k", 1, "red") is True


# Leases


def test_lease_of_a_killed_process(start: Start) -> None:
    """It is free at once."""
    owner, other, third = start(), start(), start()
    assert do(owner, "take_lease", "k")
    assert not do(other, "take_lease", "k")
    assert do(other, "take_lease", "another")
    owner.kill()
    assert do(other, "take_lease", "k")
    assert not do(third, "take_lease", "k")
    do(other, "give_back_lease", "k")
    assert do(third, "take_lease", "k")


def test_lease_of_a_stopped_process(start: Start) -> None:
    """It stays with it."""
    owner, other = start(), start()
    assert do(owner, "take_lease", "k")
    owner.signal(signal.SIGSTOP)
    owner.wait_until_stopped()
    assert not do(other, "take_lease", "k")
    owner.signal(signal.SIGCONT)
    do(owner, "give_back_lease", "k")
    assert do(other, "take_lease", "k")


def test_leases_over_a_fork(start: Start) -> None:
    """A child has none, and can't give back its parent's: not on purpose, and not by its end."""
    owner, other = start(), start()
    assert do(owner, "take_lease", "k")
    assert do(owner, "lease_over_fork", "k") == [False, False, True]
    assert not do(other, "take_lease", "k")
    assert do(other, "take_lease", "another")
    assert do(owner, "lease_given_back_after_a_fork", "k") is True
    assert do(other, "take_lease", "k")


def test_leases_of_a_process_that_ends(start: Start) -> None:
    """They end with it."""
    owner, other = start(), start()
    assert do(owner, "take_lease", "k")
    owner.end()
    assert do(other, "take_lease", "k")


# Sliding, stale


def test_sliding_entry_that_one_process_reads(start: Start) -> None:
    """The others neither find it expired nor sweep it away, for several TTLs."""
    reader, other = start(), start()
    other.set("k", 1, 1.0, sliding=True)
    other.set("plain", 1, 1.0)
    reader.ask("run", f"{SCENES}:read_until", "k", 3.0)
    for _ in range(30):
        do(other, "wait", 0.1)
        other.cleanup()
    assert reader.answer() is True
    assert other.get("k") == 1
    assert other.get("plain", "gone") == "gone"
    do(other, "wait", 1.0)
    for remote in (other, reader):
        assert remote.get("k", "gone") == "gone"


def test_put_off_for_all(start: Start) -> None:
    """A refresh that one process puts off isn't due for the others."""
    one, other = start(), start()
    do(one, "put_stale", "k", 1)
    for remote in (one, other):
        assert do(remote, "ask", "k") == [False, True, 1]
        assert remote.get("k", "gone") == "gone"
    do(one, "put_off", "k", 1000.0)
    for remote in (one, other, start()):
        assert do(remote, "ask", "k") == [False, False, 1]
    assert other.add("k", 2) is True
    assert do(one, "ask", "k") == [True, False, 2]


# Generations


def test_generations_of_all(start: Start) -> None:
    """One count for all processes, that a kill doesn't set back."""
    one, other = start(), start()
    assert do(one, "generation", "users") == do(other, "generation", "users") == 0
    assert do(one, "generation", "users", True) == 1
    assert do(other, "generation", "users") == 1
    assert do(other, "generation", "users", True) == 2
    assert do(one, "generation", "users") == 2
    one.kill()
    other.kill()
    newcomer = start()
    assert do(newcomer, "generation", "users") == 2
    assert do(newcomer, "generation", "users", True) == 3


def test_busy_store(start: Start) -> None:
    """What others can see being left out is an error while another writer has the cache; the rest isn't."""
    one, stopped = start(), start()
    one.set("k", 1, tags=["red"])
    stopped.do("trap_commit", "before", int(signal.SIGSTOP), 1)
    stopped.ask("call", "set", ["x", 1], {})
    stopped.wait_until_stopped()
    for call in (
        lambda: invalidate(one, "red"),
        lambda: do(one, "generation", "users", True),
    ):
        with pytest.raises(Failed) as failed:
            call()
        assert failed.value.name == "WriterBusy"
    assert one.get("k") == 1
    do(one, "put_off", "k", 5.0)
    do(one, "begin_load", "y")
    assert do(one, "end_load", "y", 1) is False
    stopped.signal(signal.SIGCONT)
    stopped.answer()
    invalidate(one, "red")
    assert one.get("k", "gone") == "gone"
