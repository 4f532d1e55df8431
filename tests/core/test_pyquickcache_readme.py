"""Who knows PyQuickCache 0.1.0 knows QuickCache: its documented interface works under the new name."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import QuickCache, QuickCacheConfig
from quickcache_core.decorators import register_eviction_policy, register_serializer
from quickcache_core.eviction_policy import BaseEvictionPolicy
from quickcache_core.exceptions import (
    CacheError,
    CacheLoadError,
    CacheMetricsSaveError,
    CacheSaveError,
    InvalidTTL,
    KeyAlreadyExists,
    KeyExpired,
    KeyNotFound,
)
from quickcache_core.registry import decorators as registry_decorators
from quickcache_core.serializer import BaseSerializer
from quickcache_core.testing import ManualClock

SECRET = "a secret that is long enough to sign with"


@register_eviction_policy("oldest_first")
class OldestFirst(BaseEvictionPolicy):
    """The shape of a policy as its users know it: five hooks, and the first key of the table leaves."""

    def on_add(self, cache, key):  # type: ignore[no-untyped-def]
        pass

    def on_update(self, cache, key):  # type: ignore[no-untyped-def]
        pass

    def on_access(self, cache, key):  # type: ignore[no-untyped-def]
        pass

    def on_delete(self, cache, key):  # type: ignore[no-untyped-def]
        pass

    def select_eviction_key(self, cache):  # type: ignore[no-untyped-def]
        return next(iter(cache))


@register_serializer("python_text")
class PythonText(BaseSerializer):
    """The shape of a serializer as its users know it: two class attributes, str() and eval()."""

    extension = "txt"
    is_binary = False

    def serialize(self, data):  # type: ignore[no-untyped-def]
        return str(data)

    def deserialize(self, data):  # type: ignore[no-untyped-def]
        return eval(data)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def cache(tmp_path: Path, clock: ManualClock) -> Iterator[QuickCache]:
    config = QuickCacheConfig(
        default_ttl=2,
        max_size=10,
        cleanup_interval=0.1,
        enable_metrics=True,
        storage_dir=str(tmp_path / "cache_storage"),
        metrics_storage_dir=str(tmp_path / "cache_metrics"),
        clock=clock,
    )
    cache = QuickCache(config)
    yield cache
    cache.stop()


class TestExamples:
    def test_quick_start(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Configure, make, set, get, print."""
        config = QuickCacheConfig(max_size=1000, default_ttl=60, eviction_policy="lru", serializer="json")
        cache = QuickCache(config)
        cache.set("user_id", 42)
        print(cache.get("user_id"))
        assert capsys.readouterr().out == "42\n"

    def test_without_configuration(self) -> None:
        """`QuickCache()` alone is ready for use."""
        cache = QuickCache()
        cache.set("user_id", 42)
        assert cache.get("user_id") == 42

    def test_custom_policy(self) -> None:
        """A policy registered by name is used: here the first key of the table leaves, read or not."""
        cache = QuickCache(config=QuickCacheConfig(eviction_policy="oldest_first", max_size=2))
        cache.set("a", 1)
        cache.set("b", 2)
        cache.get("a")
        cache.update("a", 3)
        cache.set("c", 3)
        assert cache.get_many(["a", "b", "c"]) == {"b": 2, "c": 3}

    def test_custom_serializer(self, tmp_path: Path) -> None:
        """A serializer registered by name writes the file, with its extension, and reads it."""
        cache = QuickCache(config=QuickCacheConfig(serializer="python_text", storage_dir=tmp_path))
        values = {"text": "it's", "tuple": (1, 2.5, None), "nested": {"a": [True, {1, 2}]}}
        cache.set_many(values, ttl_sec=100)
        cache.save_to_disk()
        assert (tmp_path / "cache_data.txt").exists()
        cache.clear()
        cache.load_from_disk()
        assert cache.get_many(values) == values

    def test_serializer_with_properties(self, tmp_path: Path) -> None:
        """Extension and mode may be properties, as its built-in serializers had them."""

        class WithProperties(BaseSerializer):
            @property
            def extension(self):  # type: ignore[no-untyped-def]
                return "txt"

            @property
            def is_binary(self):  # type: ignore[no-untyped-def]
                return False

            def serialize(self, data):  # type: ignore[no-untyped-def]
                return str(data)

            def deserialize(self, data):  # type: ignore[no-untyped-def]
                return eval(data)

        cache = QuickCache(QuickCacheConfig(serializer=WithProperties, storage_dir=tmp_path))
        cache.set("a", (1,))
        assert cache.save_to_disk().name == "cache_data.txt"
        cache.load_from_disk()
        assert cache.get("a") == (1,)


class TestHooks:
    """What a policy of one's own gets to hear, and when."""

    @pytest.fixture
    def calls(self, clock: ManualClock) -> tuple[list[tuple[str, str]], QuickCache]:
        calls: list[tuple[str, str]] = []

        class Spy(BaseEvictionPolicy):
            def on_add(self, cache: Any, key: str) -> None:
                assert key in cache
                calls.append(("add", key))

            def on_update(self, cache: Any, key: str) -> None:
                calls.append(("update", key))

            def on_access(self, cache: Any, key: str) -> None:
                calls.append(("access", key))

            def on_delete(self, cache: Any, key: str) -> None:
                assert key not in cache
                calls.append(("delete", key))

            def select_eviction_key(self, cache: Any) -> str:
                calls.append(("select", ""))
                return next(reversed(cache))

        return calls, QuickCache(QuickCacheConfig(eviction_policy=Spy, max_size=3, clock=clock))

    def test_each_hook_at_its_moment(self, calls: Any, clock: ManualClock) -> None:
        """Inserts add, overwrites update, hits access; whatever leaves is deleted."""
        heard, cache = calls
        steps: list[tuple[Callable[[], Any], list[tuple[str, str]]]] = [
            (lambda: cache.set("a", 1), [("add", "a")]),
            (lambda: cache.add("b", 1), [("add", "b")]),
            (lambda: cache.set_many({"a": 1, "c": 1}), [("update", "a"), ("add", "c")]),
            (lambda: cache.update("b", 2), [("update", "b")]),
            (lambda: cache.get("a"), [("access", "a")]),
            (lambda: cache.get("x", None), []),
            (lambda: "a" in cache, []),
            (lambda: cache.get_many(["a", "x", "b"]), [("access", "a"), ("access", "b")]),
            (lambda: cache.set("d", 1), [("select", ""), ("delete", "c"), ("add", "d")]),
            (lambda: cache.delete("d"), [("delete", "d")]),
            (lambda: cache.pop("b"), [("delete", "b")]),
            (lambda: cache.set("t", 1, ttl_sec=1), [("add", "t")]),
            (lambda: clock.advance(2), []),
            (lambda: cache.cleanup(), [("delete", "t")]),
        ]
        for number, (step, expected) in enumerate(steps):
            heard.clear()
            step()
            assert heard == expected, f"step {number}"

    def test_hooks_may_reorder(self, clock: ManualClock) -> None:
        """A policy may keep its order in the table itself, as the old LRU did."""

        class OldLRU(BaseEvictionPolicy):
            def on_access(self, cache: Any, key: str) -> None:
                cache.move_to_end(key)

            on_add = on_update = on_access

            def select_eviction_key(self, cache: Any) -> str:
                return next(iter(cache))

        cache = QuickCache(QuickCacheConfig(eviction_policy=OldLRU, max_size=3, clock=clock))
        cache.set_many({"a": 1, "b": 2, "c": 3})
        cache.get("a")
        cache.set("b", 4)
        cache.set("d", 5)
        assert sorted(cache.keys()) == ["a", "b", "d"]


PARAMETERS: dict[str, tuple[str, ...]] = {
    "get": ("key",),
    "set": ("key", "value", "ttl_sec"),
    "add": ("key", "value", "ttl_sec"),
    "update": ("key", "value", "ttl_sec"),
    "delete": ("key",),
    "set_many": ("data", "ttl_sec"),
    "get_many": ("keys",),
    "delete_many": ("keys",),
    "size": (),
    "valid_size": (),
    "clear": (),
    "cleanup": (),
    "save_to_disk": ("filepath", "use_timestamp"),
    "load_from_disk": ("filepath",),
    "get_metrics_snapshot": (),
    "reset_metrics": (),
    "save_metrics_to_disk": ("filepath", "use_timestamp"),
    "stop": (),
}


class TestInterface:
    """Names, parameters and results as its tables list them."""

    @pytest.mark.parametrize("method", PARAMETERS)
    def test_method(self, method: str) -> None:
        """Each parameter has its name and its place; what is new comes after, and may be left out."""
        _, *ours = inspect.signature(getattr(QuickCache, method)).parameters.values()
        known = PARAMETERS[method]
        assert tuple(parameter.name for parameter in ours[: len(known)]) == known
        for parameter in ours:
            assert parameter.kind is parameter.POSITIONAL_OR_KEYWORD or parameter.name not in known
            if parameter.name not in ("key", "value", "keys", "data"):
                assert parameter.default is not parameter.empty

    def test_every_field(self, tmp_path: Path) -> None:
        """All fields of its table are taken, and mean what they say."""
        config = QuickCacheConfig(
            max_size=7,
            default_ttl=60,
            cleanup_interval=50,
            eviction_policy="lfu",
            serializer="pickle",
            storage_dir=str(tmp_path / "c"),
            filename="named",
            cache_timestamps=False,
            enable_metrics=True,
            metrics_serializer="json",
            metrics_storage_dir=str(tmp_path / "m"),
            metrics_filename="figures",
            cache_metrics_timestamps=False,
            secret=SECRET,
        )
        cache = QuickCache(config)
        cache.set("a", (1, 2))
        assert cache.ttl("a") == pytest.approx(60, abs=1)
        cache.save_to_disk()
        cache.save_metrics_to_disk()
        assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")) == [
            "c/named.pkl",
            "m/figures.json",
        ]
        cache.clear()
        cache.load_from_disk()
        assert cache.get("a") == (1, 2)

    @pytest.mark.parametrize("policy", ["lru", "lfu", "fifo", "LRU", "Lfu"])
    @pytest.mark.parametrize("serializer", ["json", "pickle", "JSON"])
    def test_names_of_policies_and_serializers(self, policy: str, serializer: str) -> None:
        """All its names are known, in any case."""
        cache = QuickCache(QuickCacheConfig(eviction_policy=policy, serializer=serializer))
        cache.set("a", 1)
        assert cache.get("a") == 1

    def test_by_position(self, cache: QuickCache, tmp_path: Path) -> None:
        """Arguments may be given by position."""
        cache.set("a", 1, 5)
        cache.add("b", 2, 6)
        cache.update("b", 3, 7)
        cache.set_many({"c": 4}, 8)
        assert cache.get_many(["a", "b", "c", "x"]) == {"a": 1, "b": 3, "c": 4}
        cache.delete("a")
        cache.delete_many(["b", "x"])
        assert cache.size() == cache.valid_size() == 1
        cache.save_to_disk(str(tmp_path / "x"), False)
        cache.load_from_disk(str(tmp_path / "x"))
        cache.save_metrics_to_disk(str(tmp_path / "m"))
        cache.cleanup()
        cache.clear()
        cache.reset_metrics()
        cache.stop()

    def test_by_name(self, cache: QuickCache, tmp_path: Path) -> None:
        """Arguments may be given by name."""
        cache.set(key="a", value=1, ttl_sec=5)
        cache.add(key="b", value=2, ttl_sec=6)
        cache.update(key="b", value=3, ttl_sec=7)
        cache.set_many(data={"c": 4}, ttl_sec=8)
        assert cache.get(key="a") == 1
        assert cache.get_many(keys=["a", "b", "c"]) == {"a": 1, "b": 3, "c": 4}
        cache.delete(key="a")
        cache.delete_many(keys=["b"])
        cache.save_to_disk(filepath=str(tmp_path / "x"), use_timestamp=False)
        cache.load_from_disk(filepath=str(tmp_path / "x"))
        cache.save_metrics_to_disk(filepath=str(tmp_path / "m"), use_timestamp=False)
        assert cache.size() == 1

    def test_metrics_names(self, cache: QuickCache) -> None:
        """The snapshot has all its names, and they are numbers."""
        figures = cache.get_metrics_snapshot()
        assert figures.keys() >= {
            *("hits", "misses", "sets", "gets", "failed_ops", "evictions"),
            *("expired_removals", "manual_deletions"),
            *("current_valid_keys", "peak_valid_keys", "current_total_keys", "peak_total_keys"),
            *("hit_ratio", "miss_ratio", "get_set_ratio", "eviction_rate"),
            *("expired_bloat", "waste_percentage"),
        }
        assert all(type(figure) in (int, float) for figure in figures.values())

    def test_errors(self) -> None:
        """The exceptions have their names, codes and one root."""
        codes = {
            KeyNotFound: "KEY_NOT_FOUND",
            KeyExpired: "KEY_EXPIRED",
            KeyAlreadyExists: "KEY_ALREADY_EXISTS",
            InvalidTTL: "INVALID_TTL",
            CacheSaveError: "CACHE_SAVE_ERROR",
            CacheLoadError: "CACHE_LOAD_ERROR",
            CacheMetricsSaveError: "CACHE_METRICS_SAVE_ERROR",
        }
        for error, code in codes.items():
            assert issubclass(error, CacheError)
            assert error.code == code

    def test_the_other_import_path(self) -> None:
        """The decorators are found where they were defined, too."""
        assert registry_decorators.register_eviction_policy is register_eviction_policy
        assert registry_decorators.register_serializer is register_serializer

    def test_thread_safety(self) -> None:
        """All of it may be called from many threads."""
        cache = QuickCache(QuickCacheConfig(max_size=50, default_ttl=60))
        errors: list[BaseException] = []

        def work(seed: int) -> None:
            try:
                for number in range(300):
                    key = str((seed * 7 + number) % 80)
                    cache.set(key, key)
                    assert cache.get_many([key]) in ({}, {key: key})
                    cache.delete_many([key])
                    cache.get_metrics_snapshot()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert cache.size() <= 50


class TestItsOwnRules:
    """What PyQuickCache's own tests demand, put anew."""

    def test_round_trip(self, cache: QuickCache) -> None:
        """Set, then get; a missing key raises."""
        cache.set("a", 1)
        assert cache.get("a") == 1
        with pytest.raises(KeyNotFound):
            cache.get("missing")

    def test_expiry(self, cache: QuickCache, clock: ManualClock) -> None:
        """After its TTL a key raises, and leaves."""
        cache.set("a", "value", ttl_sec=1)
        cache.set("b", "value")
        clock.advance(1.2)
        with pytest.raises((KeyExpired, KeyNotFound)):
            cache.get("a")
        assert cache.valid_size() == 1
        clock.advance(1)
        cache.cleanup()
        assert cache.size() == 0

    def test_expiry_in_real_time(self) -> None:
        """The same with the machine's clock and the background thread."""
        with QuickCache(QuickCacheConfig(default_ttl=0.05, cleanup_interval=0.05)) as cache:
            cache.set("a", 1)
            end = time.monotonic() + 10
            while cache.size() and time.monotonic() < end:
                time.sleep(0.01)
            assert cache.size() == 0

    def test_zero_ttl(self, cache: QuickCache) -> None:
        """A TTL of 0 is refused."""
        with pytest.raises(InvalidTTL):
            cache.set("a", 1, ttl_sec=0)

    def test_add_and_update(self, cache: QuickCache) -> None:
        """`add` only where nothing is, `update` only where something is."""
        cache.add("a", 1)
        with pytest.raises(KeyAlreadyExists):
            cache.add("a", 2)
        cache.update("a", 2)
        assert cache.get("a") == 2
        with pytest.raises(KeyNotFound):
            cache.update("missing", 1)

    def test_delete(self, cache: QuickCache) -> None:
        """What was deleted isn't there; in bulk, what wasn't there is passed over."""
        cache.set_many({"a": 1, "b": 2, "c": 3})
        cache.delete("c")
        with pytest.raises(KeyNotFound):
            cache.get("c")
        cache.delete_many(["a", "b", "c"])
        assert cache.size() == 0

    @pytest.mark.parametrize(("policy", "victim"), [("lru", "b"), ("lfu", "b"), ("fifo", "a")])
    def test_who_leaves(self, policy: str, victim: str) -> None:
        """Two entries, one of them read twice: who makes room for the third."""
        cache = QuickCache(QuickCacheConfig(max_size=2, default_ttl=60, eviction_policy=policy))
        cache.set("a", 1)
        cache.set("b", 2)
        cache.get("a")
        cache.get("a")
        cache.set("c", 3)
        assert set(cache.keys()) == {"a", "b", "c"} - {victim}
        with pytest.raises(KeyNotFound):
            cache.get(victim)
        cache.set("d", 4)
        assert cache.size() == 2

    @pytest.mark.parametrize(("policy", "victim"), [("lru", "b"), ("lfu", "b"), ("fifo", "a")])
    @pytest.mark.parametrize("write", ["set", "update", "set_many"])
    def test_who_leaves_after_a_write(self, policy: str, victim: str, write: str) -> None:
        """Overwriting is a use for LRU and LFU, and none for FIFO."""
        cache = QuickCache(QuickCacheConfig(max_size=2, default_ttl=60, eviction_policy=policy))
        cache.set_many({"a": 1, "b": 2})
        if write == "set_many":
            cache.set_many({"a": 3})
        else:
            getattr(cache, write)("a", 3)
        cache.set("c", 3)
        assert set(cache.keys()) == {"a", "b", "c"} - {victim}

    @pytest.mark.parametrize(
        ("serializer", "values"),
        [
            ("json", {"a": {"city": "Delhi", "population": 30}, "b": [1, 2, 3], "c": "hello", "d": True}),
            ("pickle", {"a": {"x": 1, "y": [1, 2, 3]}, "b": ("tuple", 42), "c": complex(1, 2)}),
        ],
    )
    def test_files(self, tmp_path: Path, serializer: str, values: dict[str, Any]) -> None:
        """Saved, cleared, loaded: all is back, with its types."""
        cache = QuickCache(QuickCacheConfig(serializer=serializer, default_ttl=60, secret=SECRET))
        cache.set_many(values)
        cache.save_to_disk(filepath=f"{tmp_path}/cache")
        cache.clear()
        with pytest.raises(KeyNotFound):
            cache.get("a")
        cache.load_from_disk(filepath=f"{tmp_path}/cache")
        assert cache.get_many(values) == values
        assert cache.get("d", True) is True

    def test_what_cannot_be_pickled(self, tmp_path: Path) -> None:
        """An object of a local class fails the save with CacheSaveError."""

        class Local:
            pass

        cache = QuickCache(QuickCacheConfig(serializer="pickle", secret=SECRET, storage_dir=tmp_path))
        cache.set("obj", Local())
        with pytest.raises(CacheSaveError, match="obj"):
            cache.save_to_disk()

    def test_saving_fails(self, tmp_path: Path) -> None:
        """A directory that can't be made: CacheSaveError, CacheMetricsSaveError."""
        (tmp_path / "file").write_text("not a directory")
        taken = tmp_path / "file" / "below"
        cache = QuickCache(QuickCacheConfig(storage_dir=taken, metrics_storage_dir=taken))
        with pytest.raises(CacheSaveError):
            cache.save_to_disk()
        with pytest.raises(CacheMetricsSaveError):
            cache.save_metrics_to_disk()

    def test_metrics(self, cache: QuickCache, tmp_path: Path) -> None:
        """Counted, reset, saved."""
        cache.set("a", 1)
        cache.get("a")
        assert cache.get_metrics_snapshot()["hits"] == 1
        cache.save_metrics_to_disk(filepath=f"{tmp_path}/metrics")
        assert (tmp_path / "metrics.json").exists()
        cache.reset_metrics()
        assert cache.get_metrics_snapshot()["hits"] == 0

    def test_registering(self) -> None:
        """Another class under a taken name is a ValueError, a class of another kind a TypeError."""
        with pytest.raises(ValueError, match="oldest_first"):
            register_eviction_policy("oldest_first")(type("Other", (OldestFirst,), {}))
        with pytest.raises(ValueError, match="python_text"):
            register_serializer("python_text")(type("Other", (PythonText,), {}))
        with pytest.raises(TypeError):
            register_eviction_policy("not_a_policy")(int)
        with pytest.raises(TypeError):
            register_serializer("not_a_serializer")(int)
        with pytest.raises(ValueError, match="unknown"):
            QuickCacheConfig(eviction_policy="unknown_policy")
        with pytest.raises(ValueError, match="unknown"):
            QuickCacheConfig(serializer="does_not_exist")

    def test_misc(self, cache: QuickCache) -> None:
        """It shows its name, and stops twice."""
        assert "QuickCache" in repr(cache)
        cache.stop()
        cache.stop()
