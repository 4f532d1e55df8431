"""What the commands do with caches in scope `redis`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import QuickCache, QuickCacheConfig
from quickcache_core.commands.backups import back_up, chosen_backup, restore_backup
from quickcache_core.commands.check import check_alias
from quickcache_core.metrics.report import clear_everywhere
from quickcache_core.testing.isolation import Isolation
from tests.redis.servers import RedisServer

Make = Callable[..., QuickCache]


@pytest.fixture
def make(redis_url: str, tmp_path: Path) -> Iterator[Make]:
    made: list[QuickCache] = []

    def build(**settings: Any) -> QuickCache:
        settings = {"location": redis_url, "storage_dir": tmp_path, **settings}
        made.append(QuickCache(QuickCacheConfig(**settings)))
        return made[-1]

    yield build
    for cache in made:
        cache.stop()


def unexpected(line: str) -> None:
    raise AssertionError(line)


def test_clear(make: Make) -> None:
    """All, by prefix, by tag, by namespace: for everybody at once."""
    cache, other = make(), make()
    drafts = cache.namespace("drafts")
    for one in (cache, drafts):
        one.set_many({"a:1": 1, "b:1": 1})
        one.set("tagged", 1, tags=["news"])
    row = clear_everywhere("default", cache, "a:")
    assert (row["removed"], row["everywhere"]) == (1, True)
    assert other.get("a:1", None) is None
    assert other.get("b:1", None) == 1
    row = clear_everywhere("default", cache, part=drafts, tags=["news"])
    assert row["removed"] is None
    assert other.namespace("drafts").get("tagged", None) is None
    assert other.get("tagged", None) == 1
    clear_everywhere("default", cache, tags=["news"])
    assert other.get("tagged", None) is None
    clear_everywhere("default", cache, part=drafts)
    assert other.namespace("drafts").get("b:1", None) is None
    assert other.get("b:1", None) == 1
    clear_everywhere("default", cache)
    assert other.get("b:1", None) is None


def test_backup(make: Make, tmp_path: Path) -> None:
    """There and back, over the server."""
    cache = make()
    cache.set_many({"a": 1, "b": {"c": [2]}})
    row = back_up("default", cache, tmp_path / "backups", unexpected)
    assert row["entries"] == 2
    cache.clear()
    cache.set("newer", 1)
    chosen = chosen_backup("default", cache, tmp_path / "backups")
    assert restore_backup("default", cache, chosen, unexpected)["entries"] == 2
    assert make().get_many(["a", "b", "newer"]) == {"a": 1, "b": {"c": [2]}}


def test_check(make: Make) -> None:
    """The server, its memory, and a round trip."""
    cache = make()
    alias = check_alias("default", cache, {}, str)
    found = {one["about"]: one for one in alias["findings"]}
    assert found["server"]["level"] == "ok"
    assert found["memory"]["says"]
    assert found["round trip"]["says"] == "an entry was stored, read and deleted"
    assert alias["scope"] == "redis"
    assert cache.size() == 0


def test_check_of_a_server_that_is_down(make: Make) -> None:
    """Errors with the address, without its password."""
    with RedisServer() as server:
        url = server.url.replace("redis://", "redis://:secret-word@")
    cache = make(location=url, redis_options={"socket_connect_timeout": 0.5})
    alias = check_alias("default", cache, {}, str)
    levels = {one["about"]: one["level"] for one in alias["findings"]}
    assert (levels["server"], levels["round trip"]) == ("error", "error")
    assert "secret-word" not in str(alias)


def test_places_for_tests(redis_url: str, tmp_path: Path) -> None:
    """A prefix of its own for each test, and nothing is left on the server."""
    isolations = [Isolation(tmp_path), Isolation(tmp_path)]
    caches = [
        QuickCache(QuickCacheConfig(location=redis_url).replace(**one.place(redis_url, "qc")))
        for one in isolations
    ]
    again = QuickCache(QuickCacheConfig(location=redis_url).replace(**isolations[0].place(redis_url, "qc")))
    caches[0].set("k", 1)
    assert caches[1].get("k", None) is None
    assert again.get("k", None) == 1
    isolations[0].cleaner(caches[0])()
    assert again.get("k", None) is None
    for cache in (*caches, again):
        cache.stop()
