"""docs/settings.md has all options as the code has them."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import FIELDS, ConfigError, QuickCache, QuickCacheConfig
from quickcache_core.scopes import make_store
from quickcache_core.serializer import JsonSerializer
from quickcache_core.store.redis.opening import redis_stores
from tests.docs import settings_table
from tests.docs.settings_table import COUNTS_IN, NUMBERS, PAGE, SCOPES, docstrings, with_table
from tests.redis.servers import RedisServer

SCRIPT = Path(settings_table.__file__)


@pytest.fixture(scope="module")
def printed() -> str:
    """What the generator prints, in a process of its own: it sets Django up."""
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[2])}
    environment.pop("QUICKCACHE_DISABLED", None)
    done = subprocess.run(
        [sys.executable, "-W", "error", SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def locations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A place in each scope."""
    with RedisServer() as server:
        yield {"memory": "", "shared": f"shared://{tmp_path_factory.mktemp('cache')}", "redis": server.url}
        # Nobody is to look for a server that is gone.
        redis_stores.forget()


def test_page_is_what_the_code_says(printed: str) -> None:
    """`make docs` writes the table anew after a change."""
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page, printed)


def test_every_option_has_a_row(printed: str) -> None:
    """None is missing and none is there twice, each with a meaning."""
    rows = [[cell.strip() for cell in line.split(" | ")] for line in printed.splitlines()[2:]]
    assert [row[0] for row in rows] == [f"| `{name}`" for name in FIELDS]
    assert {len(row) for row in rows} == {len(settings_table.HEAD)}
    assert docstrings().keys() == FIELDS.keys()


@pytest.mark.parametrize("table", ["COUNTS_IN", "NUMBERS", "OTHERS", "MORE"])
def test_tables_of_the_generator_name_options_that_exist(table: str) -> None:
    """What was renamed or removed goes from the page as well."""
    assert vars(settings_table)[table].keys() <= FIELDS.keys()


@pytest.mark.parametrize("name", NUMBERS)
def test_bounds(name: str) -> None:
    """The ends are taken, and what is beyond them is not."""
    numbers = NUMBERS[name]

    def taken(value: float) -> bool:
        try:
            QuickCacheConfig.from_mapping({name: value})
        except ConfigError:
            return False
        return True

    is_whole = isinstance(FIELDS[name].default, int) or name == "max_bytes"
    below = numbers.least - 1 if is_whole else math.nextafter(numbers.least, -math.inf)
    assert taken(numbers.least) is numbers.least_is_taken
    assert taken(numbers.least + 1 if numbers.most is None else numbers.most)
    assert not taken(below)
    if numbers.most is not None:
        assert not taken(math.nextafter(numbers.most, math.inf))


class Asked:
    """A configuration that remembers which of its fields were asked for."""

    def __init__(self, config: QuickCacheConfig) -> None:
        self._config = config
        self.names: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.names.add(name)
        return getattr(self._config, name)


def test_scopes_of_what_a_store_is_made_of(locations: dict[str, str]) -> None:
    """An option counts in a scope if its store is made with it."""
    asked = {}
    for scope, location in locations.items():
        config = Asked(QuickCacheConfig(location=location))
        made = make_store(config, JsonSerializer())  # type: ignore[arg-type]
        asked[scope] = config.names
        made.dismiss()
    # The number of entries is handed to every store; `test_scopes_of_the_bounds` shows which use it.
    limited = COUNTS_IN.keys() & set.union(*asked.values()) - {"max_size"}
    assert limited == COUNTS_IN.keys() - {"max_size", "cull_fraction", "auto_resize"}
    for name in limited:
        assert tuple(scope for scope in SCOPES if name in asked[scope]) == COUNTS_IN[name], name


@pytest.mark.parametrize("scope", SCOPES)
def test_scopes_of_the_bounds(scope: str, locations: dict[str, str]) -> None:
    """A full cache lets entries leave where the bounds count, and grows where they don't."""
    options: dict[str, Any] = {"location": locations[scope], "version": "bounds"}
    with QuickCache(QuickCacheConfig(max_size=10, cull_fraction=0.5, **options)) as cache:
        cache.clear()
        for number in range(11):
            cache.set(str(number), number)
        size = len(cache)
    assert (size <= 10) is (scope in COUNTS_IN["max_size"])
    assert (size < 10) is (scope in COUNTS_IN["cull_fraction"])


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(
    ("name", "value"), [("auto_resize", True), ("eviction_policy", "lru"), ("max_bytes", "2MB")]
)
def test_what_a_scope_refuses_does_not_count_there(
    name: str, value: object, scope: str, locations: dict[str, str]
) -> None:
    """And what it accepts of these does."""
    refused = contextlib.nullcontext() if scope in COUNTS_IN[name] else pytest.raises(ConfigError, match=name)
    with refused:
        QuickCacheConfig.from_mapping({"location": locations[scope], name: value})
