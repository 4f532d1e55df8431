"""The methods that django-redis has beyond Django's own: the same names, with the same meaning."""

from __future__ import annotations

import asyncio
import datetime as dt
import fnmatch
import random
from collections.abc import Callable
from itertools import product
from typing import Any, ClassVar

import pytest
from django.core.exceptions import ImproperlyConfigured

from quickcache_core import InvalidTTL, LockNotOwned, LockTimeout
from quickcache_core.testing import ManualClock
from quickcache_django import QuickCache
from quickcache_django.patterns import KeyPattern

MakeCache = Callable[..., QuickCache]


class Telling(QuickCache):
    told: ClassVar[list[Any]] = []

    def delete(self, key: Any, version: int | None = None) -> bool:
        self.told.append(key)
        return super().delete(key, version)


class TestTimeLeft:
    def test_ttl(self, cache: QuickCache, clock: ManualClock) -> None:
        """Whole seconds, None without an end, 0 for nothing; 0 always means that it isn't there."""
        cache.set("k", 1, timeout=60)
        cache.set("endless", 1, timeout=None)
        assert (cache.ttl("k"), cache.ttl("endless"), cache.ttl("nothing")) == (60, None, 0)
        clock.advance(29.4)
        assert cache.ttl("k") == 31
        clock.advance(30.2)
        assert cache.ttl("k") == 1
        clock.advance(0.4)
        assert cache.ttl("k") == 0
        assert isinstance(cache.ttl("k"), int)

    def test_pttl(self, cache: QuickCache, clock: ManualClock) -> None:
        """The same in milliseconds."""
        cache.set("k", 1, timeout=60)
        cache.set("endless", 1, timeout=None)
        clock.advance(0.5)
        assert (cache.pttl("k"), cache.pttl("endless"), cache.pttl("nothing")) == (59_500, None, 0)
        clock.advance(59.4999)
        assert cache.pttl("k") == 1

    def test_no_get_is_counted(self, cache: QuickCache) -> None:
        """To ask for the time that is left is no use of an entry."""
        cache.set("k", 1)
        cache.ttl("k")
        cache.pttl("nothing")
        assert cache.engine.metrics().gets == 0

    def test_persist(self, cache: QuickCache, clock: ManualClock) -> None:
        """Takes the end away. False where there is none to take."""
        cache.set("k", 1, timeout=60)
        assert cache.persist("k") is True
        assert cache.ttl("k") is None
        assert cache.persist("k") is False
        assert cache.persist("nothing") is False
        clock.advance(1e6)
        assert cache.get("k") == 1

    @pytest.mark.parametrize("timeout", [5, 5.0, dt.timedelta(seconds=5)])
    def test_expire(self, cache: QuickCache, timeout: Any) -> None:
        """Gives another end; whether there was anything."""
        cache.set("k", 1, timeout=None)
        assert cache.expire("k", timeout) is True
        assert cache.ttl("k") == 5
        assert cache.expire("nothing", timeout) is False

    @pytest.mark.parametrize("timeout", [5000, 5000.0, dt.timedelta(seconds=5)])
    def test_pexpire(self, cache: QuickCache, timeout: Any) -> None:
        """The same in milliseconds."""
        cache.set("k", 1, timeout=None)
        assert cache.pexpire("k", timeout) is True
        assert cache.pttl("k") == 5000
        assert cache.pexpire("nothing", timeout) is False

    def test_an_end_that_is_past(self, cache: QuickCache, clock: ManualClock) -> None:
        """The entry leaves, and it is told that it was there."""
        for end in (
            lambda: cache.expire("k", 0),
            lambda: cache.expire("k", -1),
            lambda: cache.pexpire("k", -1),
            lambda: cache.expire_at("k", clock.wall() - 1),
        ):
            cache.set("k", 1, timeout=None)
            assert end() is True
            assert cache.get("k") is None
            assert end() is False

    def test_expire_at(self, cache: QuickCache, clock: ManualClock) -> None:
        """An instant, as a datetime or as seconds or milliseconds since 1970."""
        now = clock.wall()
        moment = dt.datetime.fromtimestamp(now + 90, dt.UTC)
        for expire in (
            lambda: cache.expire_at("k", now + 90),
            lambda: cache.expire_at("k", moment),
            lambda: cache.expire_at("k", moment.astimezone(dt.timezone(dt.timedelta(hours=-7)))),
            lambda: cache.pexpire_at("k", (now + 90) * 1000),
            lambda: cache.pexpire_at("k", moment),
        ):
            cache.set("k", 1, timeout=None)
            assert expire() is True
            assert cache.ttl("k") == 90
        assert cache.expire_at("nothing", moment) is False

    def test_versions(self, cache: QuickCache) -> None:
        """Each method takes the version that it is about."""
        cache.set("k", 1, timeout=60, version=2)
        assert (cache.ttl("k"), cache.ttl("k", version=2), cache.pttl("k", 2)) == (0, 60, 60_000)
        assert not cache.persist("k")
        assert cache.persist("k", version=2)
        assert not cache.expire("k", 5)
        assert cache.expire("k", 5, version=2)
        assert cache.pexpire("k", 5, version=2)


class TestKeys:
    def test_keys(self, make_cache: MakeCache, clock: ManualClock) -> None:
        """Those of this prefix and version, as they were given, while they live."""
        cache = make_cache(KEY_PREFIX="shop")
        other = make_cache(KEY_PREFIX="shop2")
        cache.set_many({"user:1": 1, "user:2": 2, "page:1": 3})
        cache.set("gone", 1, timeout=1)
        cache.set("user:old", 1, version=2)
        other.set("user:9", 9)
        cache.namespace("n").set("user:8", 8)
        clock.advance(1)
        assert sorted(cache.keys("*")) == ["page:1", "user:1", "user:2"]
        assert sorted(cache.keys("user:*")) == ["user:1", "user:2"]
        assert cache.keys("*", version=2) == ["user:old"]
        assert other.keys("*") == ["user:9"]
        assert cache.namespace("n").keys("u*") == ["user:8"]
        assert cache.keys("nobody:*") == cache.keys("") == cache.keys("user:") == []
        assert cache.keys("user:1") == ["user:1"]
        assert sorted(cache.iter_keys("user:*", itersize=1)) == ["user:1", "user:2"]
        assert list(cache.iter_keys("*", version=2)) == ["user:old"]

    def test_head_with_special_characters(self, make_cache: MakeCache) -> None:
        """A KEY_PREFIX is no pattern."""
        cache = make_cache(KEY_PREFIX="a*[b]")
        make_cache(KEY_PREFIX="ab").set("k", 1)
        cache.set("k", 1)
        assert cache.keys("*") == ["k"]
        assert cache.delete_pattern("*") == 1
        assert make_cache(KEY_PREFIX="ab").get("k") == 1

    def test_delete_pattern(self, cache: QuickCache) -> None:
        """What matches leaves, whatever its number; that is told."""
        cache.set_many({f"user:{number}": number for number in range(200)})
        cache.set("page", 1)
        cache.set("user:1", 1, version=2)
        assert cache.delete_pattern("user:?", itersize=3) == 10
        assert cache.delete_pattern("user:*") == 190
        assert cache.delete_pattern("user:*") == 0
        assert cache.keys("*") == ["page"]
        assert cache.delete_pattern("*", version=2) == 1

    def test_delete_pattern_during_a_load(self, cache: QuickCache) -> None:
        """What is being computed under a key that matches is handed out, and isn't stored."""

        def load() -> str:
            cache.delete_pattern("user:?:name")
            return "old"

        assert cache.get_or_set("user:1:name", load) == "old"
        assert "user:1:name" not in cache

    def test_delete_pattern_of_a_subclass(self, make_cache: MakeCache) -> None:
        """Where `delete` was overridden, it goes through it."""

        cache = make_cache(BACKEND=f"{__name__}.Telling")
        cache.set_many({"a": 1, "b": 2})
        assert cache.delete_pattern("*") == 2
        assert sorted(Telling.told) == ["a", "b"]

    def test_key_function(self, make_cache: MakeCache) -> None:
        """One that leaves the key at the end is understood; one that doesn't is told."""
        cache = make_cache(KEY_FUNCTION=lambda key, prefix, version: f"v{version}/{key}")
        cache.set("user:1", 1)
        assert cache.keys("user:*") == ["user:1"]
        assert cache.delete_pattern("u*") == 1
        hashing = make_cache(KEY_FUNCTION=lambda key, prefix, version: f"{hash(key)}")
        for call in (hashing.keys, hashing.iter_keys, hashing.delete_pattern):
            with pytest.raises(ImproperlyConfigured, match="KEY_FUNCTION"):
                call("*")

    def test_what_is_no_pattern(self, cache: QuickCache) -> None:
        for wrong in (None, 5, b"*"):
            with pytest.raises(TypeError, match="pattern="):
                cache.keys(wrong)  # type: ignore[arg-type]


class TestPatterns:
    @pytest.mark.parametrize(
        ("pattern", "matching", "others"),
        [
            ("*", ["", "a", "a\nb", "ü☃"], []),
            ("", [""], ["a"]),
            ("a", ["a"], ["", "aa", "A"]),
            ("a*c", ["ac", "abc", "a\n*c"], ["a", "acd", "bac"]),
            ("a**c", ["ac", "abc"], ["a"]),
            ("h?llo", ["hello", "h\nllo"], ["hllo", "heello"]),
            ("h[ae]llo", ["hello", "hallo"], ["hillo"]),
            ("h[^e]llo", ["hallo", "h^llo"], ["hello"]),
            ("h[a-c]llo", ["hallo", "hcllo"], ["hdllo", "h-llo"]),
            ("h[c-a]llo", ["hbllo"], ["hdllo"]),
            ("h[e^]llo", ["hello", "h^llo"], ["hallo"]),
            ("[a-]", ["]", "a", "_"], ["-", "b"]),
            ("[a-]]", ["]", "^"], ["-", "b", "a]"]),
            ("[ab-", ["a", "b", "-"], ["c"]),
            ("[!a]", ["!", "a"], ["b"]),
            (r"\*\?\[\\", ["*?[\\"], ["a?[\\"]),
            (r"[\]a]", ["]", "a"], ["\\"]),
            (r"[a\-c]", ["a", "-", "c"], ["b"]),
            (r"[\^a]", ["^", "a"], ["b"]),
            ("[]", [], ["", "]", "[]"]),
            ("[^]", ["a", "]"], ["", "ab"]),
            ("[ab", ["a", "b"], ["[ab", "c"]),
            ("a\\", ["a\\"], ["a"]),
            ("a.b+(c)|d$", ["a.b+(c)|d$"], ["axb"]),
            ("[.]", ["."], ["a"]),
            ("[[]", ["["], ["]"]),
            ("[a&&b]", ["&", "a", "b"], ["c"]),
        ],
    )
    def test_one(self, pattern: str, matching: list[str], others: list[str]) -> None:
        """As Redis matches keys."""
        one = KeyPattern(pattern)
        assert [key for key in matching if not one.matches(key)] == []
        assert [key for key in others if one.matches(key)] == []
        assert all(key.startswith(one.beginning) for key in matching)

    def test_many(self) -> None:
        """Stars and question marks are those of `fnmatch`."""
        keys = ["".join(letters) for length in range(5) for letters in product("ab:", repeat=length)]
        chance = random.Random(5)
        for _ in range(300):
            pattern = "".join(chance.choices("ab:*?", k=chance.randrange(6)))
            one = KeyPattern(pattern)
            assert [key for key in keys if one.matches(key)] == [
                key for key in keys if fnmatch.fnmatchcase(key, pattern)
            ], pattern


class TestLock:
    def test_a_block(self, cache: QuickCache) -> None:
        """One holder at a time; names are keys, with prefix and version."""
        with cache.lock("l", timeout=10) as lock:
            assert lock.owned()
            assert cache.lock("l").acquire(blocking=False) is False
            assert cache.lock("l", version=2).acquire(blocking=False) is True
            with pytest.raises(LockTimeout), cache.lock("l", blocking=False):
                pass
            with pytest.raises(LockTimeout), cache.lock("l", blocking_timeout=0.01, sleep=0.001):
                pass
        assert not lock.locked()

    def test_tokens_of_threads(self, cache: QuickCache) -> None:
        """Each thread has a token of its own, as with `thread_local=True`; the other way isn't pretended."""
        with cache.lock("l", timeout=10, thread_local=True) as lock:
            assert lock.owned()
        with pytest.raises(TypeError, match="thread_local=False"):
            cache.lock("l", thread_local=False)

    def test_the_timeout_ends(self, cache: QuickCache, clock: ManualClock) -> None:
        """`timeout` is the lease; without one there is no end."""
        with pytest.raises(LockNotOwned), cache.lock("l", timeout=10):
            clock.advance(10)
        with cache.lock("l"):
            clock.advance(1e9)
        with pytest.raises(InvalidTTL):
            cache.lock("l", timeout=0)

    def test_other_prefixes(self, make_cache: MakeCache) -> None:
        """Aliases of one LOCATION that differ in KEY_PREFIX don't exclude each other; a clear frees none."""
        with make_cache(KEY_PREFIX="a").lock("l"):
            assert not make_cache(KEY_PREFIX="b").lock("l").locked()
            make_cache(KEY_PREFIX="b").clear()
            assert make_cache(KEY_PREFIX="a").lock("l").locked()


def test_coroutines(cache: QuickCache, clock: ManualClock) -> None:
    """Each has a twin with an `a` in front; a lock is one for both."""

    async def main() -> None:
        await cache.aset_many({"user:1": 1, "user:2": 2}, timeout=60)
        assert (await cache.attl("user:1"), await cache.apttl("user:1")) == (60, 60_000)
        assert await cache.apersist("user:1")
        assert await cache.aexpire("user:1", 5)
        assert await cache.apexpire("user:1", 5000)
        assert await cache.aexpire_at("user:1", clock.wall() + 5)
        assert await cache.apexpire_at("user:1", (clock.wall() + 5) * 1000)
        assert sorted(await cache.akeys("user:*")) == ["user:1", "user:2"]
        assert sorted([key async for key in cache.aiter_keys("user:*", itersize=1)]) == ["user:1", "user:2"]
        assert await cache.adelete_pattern("user:*") == 2
        async with cache.lock("l") as lock:
            assert await lock.aowned()

    asyncio.run(main())
