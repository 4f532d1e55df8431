"""Who takes part in the table of scope `shared`, and the exact code each of them runs.

As in `contenders.py`: every statement is what a user of that library writes. All of them store the same
values, with a TTL of a day, in places that a folder names, so that any process can open them.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import django
from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.filebased import FileBasedCache

from benchmarks import servers
from quickcache_core import QuickCache, QuickCacheConfig

Scope = dict[str, Any]
Variant = Literal["roomy", "full", "small near store", "no near store"]
"""Which of a contender's caches. Only QuickCache has the last two; for the others they are the roomy one."""

ENTRIES: Final = 10_000
"""In all, since some of the others look at every entry when they set one."""
OTHERS: Final = 1_000
"""How many of them are dicts, and as many are numbers."""
TEXTS: Final = ENTRIES - 2 * OTHERS
TTL: Final = 86_400  # seconds
LEASE: Final = 30  # seconds
TEXT: Final = "A value of one hundred characters. ".ljust(100, ".")
SMALL_DICT: Final = {"id": 7, "name": "Ada", "email": "ada@example.org", "active": True}
NEAR_SIZE: Final = 2 * ENTRIES
SMALL_NEAR_SIZE: Final = 100

OURS: Final = "QuickCache"
OURS_IN_DJANGO: Final = "QuickCache in Django"
VALKEY: Final = "Valkey"
DISKCACHE: Final = "diskcache"
FILES: Final = "FileBasedCache"
DATABASE: Final = "DatabaseCache"
MEMCACHED: Final = "memcached"


@dataclass(frozen=True)
class Contender:
    name: str
    open: Callable[[Path, Variant], Any]
    """The cache in a folder. Each process opens its own; the first one makes it."""
    code: Mapping[str, str]
    """Operation, the statement for it; those that it hasn't are left out."""
    bulk: Callable[[Any], AbstractContextManager[Any]] = nullcontext
    """Around a fill that isn't timed; gives the cache to fill."""
    seal: Callable[[Any], None] = lambda cache: None
    """Makes a cache full that was just filled."""
    names: Mapping[str, Any] = field(default_factory=dict)
    """What the statements call besides the cache."""

    def scope(self, cache: Any) -> Scope:
        names = {"text": TEXT, "small_dict": SMALL_DICT, "ttl": TTL, "lease": LEASE, "dumps": pickle.dumps}
        return {"cache": cache, "loads": pickle.loads, **names, **self.names}


def contenders(missing: Mapping[str, str]) -> tuple[list[Contender], dict[str, str]]:
    """Who can take part, and the others with the reason; `missing` are servers that don't run."""
    found, skipped = [], {}
    for name, make in _MAKERS.items():
        if name in missing:
            skipped[name] = missing[name]
            continue
        try:
            found.append(make())
        except ImportError as error:
            skipped[name] = str(error)
    return found, skipped


_DJANGO_CODE: Final = {
    "get": "cache.get(key)",
    "get dict": "cache.get(key)",
    "set": "cache.set(key, text)",
    "set dict": "cache.set(key, small_dict)",
    "set number": "cache.set(key, 1)",
    "delete": "cache.delete(key)",
    "incr": "cache.incr(key)",
    "get_many": "cache.get_many(key)",
}
"""The timeout is a setting there. In `get_many`, `key` stands for a tuple of keys."""


_OUR_LOCK: Final = "with cache.lock(key, lease=lease):\n    pass"


def _ours() -> Contender:
    import lmdb  # noqa: F401 - what the store needs

    def open_cache(folder: Path, variant: Variant) -> QuickCache:
        return QuickCache(QuickCacheConfig(location=_our_location(folder, variant), **_our_options(variant)))

    code = {**_DJANGO_CODE, "get": "cache.get(key, None)", "lock": _OUR_LOCK}
    return Contender(OURS, open_cache, code)


def _our_location(folder: Path, variant: Variant) -> str:
    return f"shared://{folder}/quickcache-{'full' if variant == 'full' else 'roomy'}"


def _our_options(variant: Variant) -> dict[str, Any]:
    near = {"small near store": SMALL_NEAR_SIZE, "no near store": 0}
    return {
        "default_ttl": TTL,
        "max_size": ENTRIES if variant == "full" else 20 * ENTRIES,
        "max_bytes": "128MB",
        "near_size": near.get(variant, NEAR_SIZE),
    }


def _ours_in_django() -> Contender:
    import lmdb  # noqa: F401 - what the store needs

    return Contender(OURS_IN_DJANGO, _open_alias(OURS_IN_DJANGO), _DJANGO_CODE)


def _valkey() -> Contender:
    import redis

    def open_cache(folder: Path, variant: Variant) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(servers.socket(folder, servers.VALKEY, _room(variant))))

    def seal(cache: redis.Redis) -> None:
        cache.config_set("maxmemory-policy", "allkeys-lru")
        cache.config_set("maxmemory", cache.info("memory")["used_memory"])

    code = {
        "get": "cache.get(key)",
        "get dict": "loads(cache.get(key))",
        "set": "cache.set(key, text, ex=ttl)",
        "set dict": "cache.set(key, dumps(small_dict), ex=ttl)",
        "set number": "cache.set(key, 1, ex=ttl)",
        "delete": "cache.delete(key)",
        "incr": "cache.incr(key)",
        "get_many": "cache.mget(key)",
        "lock": "with cache.lock(key, timeout=lease):\n    pass",
    }
    return Contender(VALKEY, open_cache, code, seal=seal)


def _memcached() -> Contender:
    from pymemcache.client.base import Client

    def open_cache(folder: Path, variant: Variant) -> Client:
        # As installed, its writes don't wait for the server's answer, and nobody hears of one that failed.
        path = servers.socket(folder, servers.MEMCACHED, _room(variant))
        return Client(str(path), default_noreply=False)

    code = {
        "get": "cache.get(key)",
        "get dict": "loads(cache.get(key))",
        "set": "cache.set(key, text, expire=ttl)",
        "set dict": "cache.set(key, dumps(small_dict), expire=ttl)",
        "set number": "cache.set(key, '1', expire=ttl)",
        "delete": "cache.delete(key)",
        "incr": "cache.incr(key, 1)",
        "get_many": "cache.get_many(key)",
    }
    return Contender(MEMCACHED, open_cache, code)


def _diskcache() -> Contender:
    import diskcache

    def open_cache(folder: Path, variant: Variant) -> diskcache.Cache:
        return diskcache.Cache(str(folder / f"diskcache-{_room(variant)}"))

    @contextmanager
    def bulk(cache: diskcache.Cache) -> Iterator[diskcache.Cache]:
        with cache.transact():
            yield cache

    def seal(cache: diskcache.Cache) -> None:
        cache.reset("size_limit", cache.volume())

    code = {
        "get": "cache.get(key)",
        "get dict": "cache.get(key)",
        "set": "cache.set(key, text, expire=ttl)",
        "set dict": "cache.set(key, small_dict, expire=ttl)",
        "set number": "cache.set(key, 1, expire=ttl)",
        "delete": "cache.delete(key)",
        "incr": "cache.incr(key)",
        "get_many": "[cache.get(each) for each in key]",
        "lock": "with Lock(cache, key, expire=lease):\n    pass",
    }
    return Contender(DISKCACHE, open_cache, code, bulk, seal, {"Lock": diskcache.Lock})


def in_memory() -> Contender:
    """QuickCache in scope `memory`, for what is compared with that by the way."""
    return Contender("QuickCache in memory", lambda folder, variant: QuickCache(), {"lock": _OUR_LOCK})


class _Uncounted(FileBasedCache):
    """Fills FileBasedCache's folder without listing it for each entry, which takes milliseconds."""

    def _cull(self) -> None:
        pass


@contextmanager
def _fill_folder(cache: FileBasedCache) -> Iterator[FileBasedCache]:
    yield _Uncounted(cache._dir, {"timeout": TTL})


def _files() -> Contender:
    return Contender(FILES, _open_alias(FILES), _DJANGO_CODE, _fill_folder)


@contextmanager
def _fill_table(cache: Any) -> Iterator[Any]:
    from django.db import transaction

    with transaction.atomic():
        yield cache


def _database() -> Contender:
    open_alias = _open_alias(DATABASE)

    def open_cache(folder: Path, variant: Variant) -> Any:
        from django.core.management import call_command

        call_command("createcachetable", _table(_room(variant)), verbosity=0)  # if it isn't there
        return open_alias(folder, variant)

    return Contender(DATABASE, open_cache, _DJANGO_CODE, _fill_table)


def _open_alias(name: str) -> Callable[[Path, Variant], Any]:
    def open_cache(folder: Path, variant: Variant) -> Any:
        return caches[_alias(name, variant if name == OURS_IN_DJANGO else _room(variant))]

    return open_cache


def _alias(name: str, variant: str) -> str:
    return f"{name}, {variant}"


def _room(variant: Variant) -> Literal["roomy", "full"]:
    return "full" if variant == "full" else "roomy"


def _table(room: str) -> str:
    return f"cache_{room}"


def configure_django(folder: Path) -> None:
    """Settings only: nothing is opened, so that processes may be forked afterwards."""
    entries: dict[str, Any] = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    everyone: tuple[Variant, ...] = ("roomy", "full", "small near store", "no near store")
    for variant in everyone:
        options = {name.upper(): value for name, value in _our_options(variant).items()}
        entries[_alias(OURS_IN_DJANGO, variant)] = {
            "BACKEND": "quickcache_django.QuickCache",
            # Django's values are pickles: a folder of its own.
            "LOCATION": f"{_our_location(folder, variant)}-django",
            "TIMEOUT": options.pop("DEFAULT_TTL"),
            "OPTIONS": options,
        }
    for room, most in (("roomy", 20 * ENTRIES), ("full", ENTRIES)):
        common = {"TIMEOUT": TTL, "OPTIONS": {"MAX_ENTRIES": most}}
        backends = "django.core.cache.backends"
        entries[_alias(FILES, room)] = {
            "BACKEND": f"{backends}.filebased.FileBasedCache",
            "LOCATION": str(folder / f"files-{room}"),
            **common,
        }
        entries[_alias(DATABASE, room)] = {
            "BACKEND": f"{backends}.db.DatabaseCache",
            "LOCATION": _table(room),
            **common,
        }
    database = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(folder / "database.sqlite3"),
        "OPTIONS": {
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
        },
    }
    settings.configure(
        SECRET_KEY="benchmarks of the shared scope",
        USE_TZ=True,
        CACHES=entries,
        DATABASES={"default": database},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    django.setup()


_MAKERS: Final[Mapping[str, Callable[[], Contender]]] = {
    OURS: _ours,
    OURS_IN_DJANGO: _ours_in_django,
    VALKEY: _valkey,
    MEMCACHED: _memcached,
    DISKCACHE: _diskcache,
    FILES: _files,
    DATABASE: _database,
}
