"""The password of a server is nowhere to be seen: not in logs, errors, reprs, reports or on pages."""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import QuickCache, QuickCacheConfig, QuickCacheError
from quickcache_core.commands.check import check_alias
from quickcache_core.location import shown
from quickcache_core.metrics.prometheus import to_prometheus
from quickcache_core.metrics.report import keys_report, stats_report, to_json
from quickcache_core.metrics.tables import stats_table
from quickcache_core.store.redis.opening import redis_stores
from tests.redis.servers import RedisServer

PASSWORD = "hunter2-never-shown"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_stores() -> Iterator[None]:
    yield
    redis_stores.forget()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One that asks for a password."""
    with RedisServer() as server:
        with server.client() as admin:
            admin.execute_command("ACL", "SETUSER", "app", "on", f">{PASSWORD}", "~*", "&*", "+@all")
            admin.execute_command("ACL", "SETUSER", "default", "off")
        yield server


def with_password(url: str, password: str = PASSWORD) -> str:
    return url.replace("redis://", f"redis://app:{password}@")


def everything_shown(cache: QuickCache, location: str) -> Iterator[str]:
    """All that reports and reprs say of a cache, or what the errors say instead."""
    named = [("default", location, cache)]
    lines: list[Callable[[], str]] = [
        lambda: repr(cache),
        lambda: repr(cache.config),
        lambda: repr(cache.metrics()),
        lambda: to_json(stats_report(named)),
        lambda: stats_table(stats_report(named, everywhere=True)),
        lambda: to_prometheus(stats_report(named)),
        lambda: to_json(keys_report([("default", location, cache, "")], limit=10)),
        lambda: str(check_alias("default", cache, {}, str)),
    ]
    for line in lines:
        try:
            yield line()
        except QuickCacheError as error:
            yield as_text(error)


def as_text(error: QuickCacheError) -> str:
    return "".join(traceback.format_exception(error)) + repr(vars(error))


def reprs_of_all_objects() -> Iterator[str]:
    """Of those of this project; a debugger and an error reporter show such."""
    for one in gc.get_objects():
        if str(getattr(type(one), "__module__", "")).startswith("quickcache_core"):
            with suppress(Exception):
                yield repr(one)


def use(cache: QuickCache) -> list[str]:
    """Some of everything; what the errors say, with what is chained to them."""
    said = []
    for work in (
        lambda: cache.set("k", [1], tags=["t"]),
        lambda: cache.get("k"),
        lambda: cache.get_or_set("other", lambda: 1),
        lambda: cache.incr("n", initial=1),
        lambda: cache.clear(),
        lambda: cache.namespace("users").clear(),
    ):
        try:
            work()
        except QuickCacheError as error:
            said.append(as_text(error))
    return said


@pytest.mark.parametrize("fail", ["degrade", "raise"])
@pytest.mark.parametrize("state", ["well", "wrong password", "down"])
def test_password_of_a_server(
    server: RedisServer, state: str, fail: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether all is well, the password is wrong, or nobody answers."""
    url = with_password(server.url, f"wrong-{PASSWORD}" if state == "wrong password" else PASSWORD)
    if state == "down":
        url = with_password("redis://127.0.0.1:1/0")
    with caplog.at_level(logging.DEBUG):
        cache = QuickCache(QuickCacheConfig(location=url, fail=fail))
        said = use(cache)
        texts = list(everything_shown(cache, shown(url)))
        all_objects = list(reprs_of_all_objects())
    if fail == "raise":
        assert bool(said) == (state != "well")
    assert len(all_objects) > 10
    for one in (*texts, caplog.text, *said, *all_objects, *(str(vars(record)) for record in caplog.records)):
        assert PASSWORD not in one


FLASK = """
import json, logging, os, sys
logging.basicConfig(level=logging.DEBUG)
from flask import Flask
from flask_caching import Cache
from quickcache_flask.cli import quickcache
from quickcache_flask.metrics import metrics_blueprint
app = Flask("shop")
app.secret_key = os.environ["QC_SECRET"]
app.config.update(CACHE_TYPE="quickcache_flask.QuickCache", CACHE_OPTIONS={"location": os.environ["QC_URL"]})
cache = Cache(app)
app.register_blueprint(metrics_blueprint(token=os.environ["QC_TOKEN"]))
with app.app_context():
    cache.set("k", [1])
    assert cache.get("k") == [1]
for words in (["check"], ["check", "--json"], ["stats"], ["stats", "--json", "--cluster"],
              ["stats", "--prometheus"], ["keys"], ["clear"]):
    result = app.test_cli_runner().invoke(quickcache, words)
    assert result.exit_code == 0, result.output
    print(result.output)
answer = app.test_client().get("/metrics", headers={"Authorization": "Bearer " + os.environ["QC_TOKEN"]})
assert answer.status_code == 200
print(answer.text, dict(answer.headers))
print(app.test_client().get("/metrics", headers={"Authorization": "Bearer wrong"}).text)
"""

DJANGO = """
import os, logging
logging.basicConfig(level=logging.DEBUG)
import django
from django.conf import settings
settings.configure(
    SECRET_KEY=os.environ["QC_SECRET"], INSTALLED_APPS=["quickcache_django"],
    CACHES={"default": {"BACKEND": "quickcache_django.QuickCache", "LOCATION": os.environ["QC_URL"]}},
)
django.setup()
from django.core.cache import cache
from django.core.management import call_command
cache.set("k", [1])
assert cache.get("k") == [1]
for words in (["quickcache_check"], ["quickcache_check", "--json"], ["quickcache_stats"],
              ["quickcache_stats", "--json", "--cluster"], ["quickcache_stats", "--prometheus"],
              ["quickcache_keys"], ["quickcache_clear"], ["check", "--deploy"]):
    call_command(*words)
"""


@pytest.mark.parametrize("program", [FLASK, DJANGO], ids=["Flask", "Django"])
def test_secrets_of_a_project(server: RedisServer, program: str) -> None:
    """Neither the password, the secret key nor the token of `/metrics` is in what commands and pages say."""
    secrets = {
        "QC_URL": with_password(server.url),
        "QC_SECRET": "swordfish" * 8,
        "QC_TOKEN": "opensesame" * 3,
    }
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **secrets},
        capture_output=True,
        text=True,
        check=False,
    )
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said
    assert "scope redis" in said
    assert "quickcache_hits_total" in said
    for secret in (PASSWORD, "swordfish", "opensesame"):
        assert secret not in said


def test_the_search_finds_it() -> None:
    """An object that shows the password would be noticed."""
    config: Any = QuickCacheConfig(redis_prefix=PASSWORD)
    assert any(PASSWORD in one for one in reprs_of_all_objects())
    assert PASSWORD in json.dumps(config.redis_prefix)
