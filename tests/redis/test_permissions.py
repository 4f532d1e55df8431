"""Users of the server who may do what the documentation says that they need, and no more."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from quickcache_core import QuickCache, QuickCacheConfig
from quickcache_core.store.redis import former, known
from quickcache_core.store.redis.background import Background
from quickcache_core.store.redis.opening import redis_stores
from tests.redis.servers import RedisServer, wait_until

PAGE = Path(__file__).parents[2] / "docs" / "redis.md"
PASSWORD = "only-for-this-test"
OPERATIONS: list[Callable[[QuickCache], Any]] = [
    lambda cache: cache.set("a", 1, 30),
    lambda cache: cache.get("a"),
    lambda cache: cache.add("b", 1),
    lambda cache: cache.update("a", 2),
    lambda cache: cache.incr("a"),
    lambda cache: cache.incr("n", 1, initial=0),
    lambda cache: cache.incr("n", 10**30),
    lambda cache: cache.touch("a", 50),
    lambda cache: cache.touch("a", None),
    lambda cache: cache.ttl("a"),
    lambda cache: cache.set("tagged", [1], tags=["words"]),
    lambda cache: cache.get("tagged"),
    lambda cache: cache.invalidate_tags("words"),
    lambda cache: cache.set("slides", 1, 0.5, sliding=True),
    lambda cache: time.sleep(0.1),
    lambda cache: cache.get("slides"),
    lambda cache: cache.set("ends", 1, 0.01),
    lambda cache: time.sleep(0.05),
    lambda cache: cache.cleanup(),
    lambda cache: cache.get_or_set("loaded", lambda: 1, 0.01, stale_ttl=60),
    lambda cache: time.sleep(0.05),
    lambda cache: cache.get_or_set("loaded", lambda: 2, 0.01, stale_ttl=60),
    lambda cache: cache.set_many({"q": 1, "r": 2}),
    lambda cache: cache.get_many(["q", "r", "s"]),
    lambda cache: cache.pop("q"),
    lambda cache: cache.delete("r"),
    lambda cache: cache.delete_many(["q", "r"]),
    lambda cache: "a" in cache,
    lambda cache: list(cache.keys()),
    lambda cache: cache.size(),
    lambda cache: cache.namespace("users").set("k", 1),
    lambda cache: cache.namespace("users").clear(),
    lambda cache: cache.lock("job", lease=5.0).acquire(),
    lambda cache: cache.clear(),
    lambda cache: cache.set("a", 1),
]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    redis_stores.forget()
    monkeypatch.setattr(former, "_AGAIN", 0.2)
    monkeypatch.setattr(known, "WARM_INTERVAL", 0.0)
    yield
    redis_stores.forget()


def said(beginning: str) -> list[str]:
    """The words in the code that follows that beginning on the page."""
    found = re.search(re.escape(beginning) + r"[^`]*`([^`]+)`", PAGE.read_text())
    assert found is not None
    return found[1].split()


def url_of_user(server: RedisServer, admin: redis.Redis, *rules: str) -> str:
    admin.execute_command("ACL", "SETUSER", "app", "on", f">{PASSWORD}", "-@all", *rules)
    return server.url.replace("//", f"//app:{PASSWORD}@")


def as_rules(commands: list[str]) -> list[str]:
    return ["+" + one.lower() for one in commands]


def background_of(cache: QuickCache) -> Background:
    store: Any = cache._store
    background: Background = store.background
    return background


def test_the_commands_and_keys_that_are_named(redis_server: RedisServer) -> None:
    """They do for everything: the server has refused nothing."""
    commands = said("The user needs the commands")
    keys = said("and the keys")
    with redis_server.client() as admin:
        url = url_of_user(redis_server, admin, *as_rules(commands), *keys)
        cache = QuickCache(QuickCacheConfig(location=url, fail="raise"))
        for operation in OPERATIONS:
            operation(cache)

        def is_removed() -> bool:
            background_of(cache).sweep()
            return not admin.exists("qc:o")

        wait_until(is_removed, "what former generations left is removed")
        refused = [dict(zip(one[::2], one[1::2], strict=True)) for one in admin.execute_command("ACL", "LOG")]
        # That the library says its name, which before 7.2 nobody asked for.
        assert [one for one in refused if one[b"object"] not in (b"client|setinfo", b"client")] == []


@pytest.mark.parametrize("command", ["touch", "scan"])
def test_something_in_the_background_is_refused(
    redis_server: RedisServer, command: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once. The rest is done all the same."""
    with redis_server.client() as admin:
        url = url_of_user(redis_server, admin, "+@all", "-" + command, "~*")
        cache = QuickCache(QuickCacheConfig(location=url, fail="raise"))
        cache.set("a", 1)
        cache.clear()
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                background_of(cache).sweep()
        wait_until(lambda: list(admin.scan_iter("qc/f/w/*")), "the figures are there")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert command in caplog.text
    assert PASSWORD not in caplog.text
