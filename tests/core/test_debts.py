"""What has to leave a store: noted and struck out by several threads, while others read."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from itertools import count

import pytest

from quickcache_core.store import debts as module
from quickcache_core.store import near as near_store
from quickcache_core.store.debts import Debts
from quickcache_core.store.near import NearStore
from tests.stepping import at_step

PATIENCE = 30.0


def make(remove: Callable[[list[str]], object], clear: Callable[[], object] = lambda: None) -> Debts:
    near = NearStore(time.monotonic, 100, lambda key, default: default, lambda key, entry, default: default)
    return Debts(near, remove, clear)


@pytest.mark.parametrize("keys", [["k"], None], ids=["a key", "all"])
def test_owed_anew_while_it_is_paid(keys: list[str] | None) -> None:
    """It is owed all the time: nobody who looks meanwhile finds it paid."""
    for number in count():
        found: list[bool] = []
        debts = make(lambda _: debts.add(keys), lambda: debts.add(keys))  # noqa: B023
        debts.add(keys)
        if not at_step(number, [module], debts.settle, lambda: found.append(debts.cover("k"))):  # noqa: B023
            break
        assert found == [True], number
        assert debts.cover("k")
    assert number > 10


@pytest.mark.parametrize("keys", [["k"], None], ids=["a key", "all"])
def test_owed_by_another_thread_while_it_is_paid(keys: list[str] | None) -> None:
    """Whenever that is after the payment, it is owed when both are done."""
    for number in count():
        paid: list[list[str]] = []
        debts = make(paid.append)
        debts.add(["k"])
        other = threading.Thread(target=debts.add, args=(keys,))

        def begin(paid: list[list[str]] = paid, other: threading.Thread = other) -> None:
            if paid:
                other.start()
                other.join(0.005)  # it may have to wait for us

        if not at_step(number, [module], debts.settle, begin):
            break
        if other.ident is not None:
            other.join(PATIENCE)
            assert debts.cover("k"), number
    assert number > 10


# Python 3.12 and later warn of any fork of a process with threads. That is what is tested here.
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_while_another_thread_changes_what_is_owed() -> None:
    """The child doesn't wait for a thread that it doesn't have."""
    debts = make(lambda keys: None)
    inside, go_on = threading.Event(), threading.Event()

    def change() -> None:
        with debts._changing():
            inside.set()
            go_on.wait(PATIENCE)

    other = threading.Thread(target=change)
    other.start()
    inside.wait(PATIENCE)
    child = os.fork()
    if child == 0:
        signal.alarm(int(PATIENCE))
        debts.add(["k"])
        debts.settle()
        os._exit(debts.exist)
    go_on.set()
    other.join(PATIENCE)
    assert os.waitpid(child, 0)[1] == 0


def test_all_forgotten_while_other_files_come_into_use() -> None:
    """Whichever comes first, what is near goes by these files from then on."""
    for number in count():
        near = NearStore(
            time.monotonic, 100, lambda key, default: default, lambda key, entry, default: default
        )
        stamps = [0] * 10
        others = functools.partial(near.replace_store, stamps, bytearray(10))
        if not at_step(number, [near_store], near.forget, others):
            break
        assert near.stamps is stamps, number
    assert number > 3
