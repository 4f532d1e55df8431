"""A cache in scope `redis` that was made, and used, before a fork."""

from __future__ import annotations

import os
import secrets
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quickcache_core import QuickCache, QuickCacheConfig
from quickcache_core.store.redis.client import Client
from quickcache_core.store.redis.opening import redis_stores
from quickcache_core.store.redis.record import Nonces
from tests.redis.remote import run
from tests.redis.servers import wait_until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


@pytest.fixture
def cache(redis_url: str) -> Iterator[QuickCache]:
    yield QuickCache(QuickCacheConfig(location=redis_url))
    redis_stores.forget()


def in_child(function: Callable[[], None], where: Path) -> None:
    """Run it in a child process. Fails as it fails."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            function()
            code = 0
        except BaseException:
            where.write_text(traceback.format_exc())
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert status == 0, where.read_text()


def test_parent_and_child(cache: QuickCache, tmp_path: Path) -> None:
    """Both go on with the same entries, and hear of each other's changes."""
    users = cache.namespace("users")
    cache.set("a", 1)
    cache.set("t", 1, tags=["t"])
    users.set("a", 1)
    assert (cache.get("a"), cache.get("t"), users.get("a")) == (1, 1, 1)

    def child() -> None:
        assert (cache.get("a"), cache.get("t"), users.get("a")) == (1, 1, 1)
        cache.set("a", 2)
        cache.invalidate_tags("t")
        users.clear()
        cache.set("n", 0)
        cache.incr("n")
        assert cache.get_or_set("loaded", lambda: 5) == 5
        assert (cache.get("a"), cache.get("t", None), users.get("a", None)) == (2, None, None)

    for _ in range(3):
        in_child(child, tmp_path / "error")
        wait_until(lambda: cache.get("a") == 2, "the parent hears of it")
        assert (cache.get("t", None), users.get("a", None)) == (None, None)
        assert (cache.get("n"), cache.get("loaded")) == (1, 5)
        cache.set("a", 1)
        cache.set("t", 1, tags=["t"])
        users.set("a", 1)
        cache.delete("loaded")
        assert (cache.get("a"), cache.get("t"), users.get("a")) == (1, 1, 1)


def test_a_lease_stays_with_the_parent(cache: QuickCache, tmp_path: Path) -> None:
    """A child neither has it nor gives it back."""
    store = cache._store
    release = store.try_lease("a")
    assert release is not None

    def child() -> None:
        assert release is not None
        release()
        assert store.try_lease("a") is None

    in_child(child, tmp_path / "error")
    assert store.try_lease("a") is None
    release()
    again = store.try_lease("a")
    assert again is not None
    again()


def test_forks_while_threads_use_the_cache(cache: QuickCache, tmp_path: Path) -> None:
    """No child waits for a thread that it doesn't have."""
    cache.set("a", 1)
    busy = threading.Event()
    busy.set()

    def work() -> None:
        while busy.is_set():
            cache.set("b", 1)
            cache.get("b", None)
            cache.get_many(["a", "b", "c"])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()

    def child() -> None:
        assert cache.get("a") == 1
        cache.set("mine", 2)
        assert cache.get("mine") == 2
        assert cache.get_or_set("loaded", lambda: 1) == 1

    try:
        for _ in range(20):
            in_child(child, tmp_path / "error")
    finally:
        busy.clear()
        for thread in threads:
            thread.join()
    assert cache.get("mine") == 2


def test_marks_of_writes_of_threads_in_a_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is one that the parent gives as well, even if a thread comes while another one begins anew."""
    nonces = Nonces()
    last = int.from_bytes(nonces.new(), "big")
    random = secrets.token_bytes
    given = []

    def interrupted(count: int) -> bytes:
        monkeypatch.undo()
        given.append(nonces.new())
        return random(count)

    def child() -> None:
        monkeypatch.setattr(secrets, "token_bytes", interrupted)
        given.append(nonces.new())
        assert len(set(given)) == 2
        assert all((int.from_bytes(one, "big") - last) % 2**64 > 100 for one in given)

    in_child(child, tmp_path / "failure")


def test_nothing_is_asked_of_the_server_in_the_fork_itself(
    cache: QuickCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child begins at once, whatever the server does."""
    cache.set("a", 1)
    asked: list[object] = []
    call = Client.call

    def noting_call(client: Client, *command: object) -> object:
        asked.append(command)
        return call(client, *command)

    monkeypatch.setattr(Client, "call", noting_call)

    def child() -> None:
        assert asked == []
        assert cache.get("a") == 1

    in_child(child, tmp_path / "failed")


def test_nothing_is_imported_later(redis_url: str) -> None:
    """Else a child that was forked in the middle of the import by another thread would wait for its end."""
    code = """
before = set(sys.modules)
cache.set("a", [1], tags=["t"])
cache.get("a"), cache.get_many(["a", "b"]), cache.get_or_set("b", lambda: 1), cache.incr("n", initial=0)
cache.invalidate_tags("t"), cache.delete("b"), cache.clear()
print(sorted(set(sys.modules) - before))
"""
    assert run(code, location=redis_url) == "[]"
