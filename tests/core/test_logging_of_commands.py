"""No key at INFO or above: what the commands and the endpoints do, in both frameworks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEY = "user:4711:token"
# Every record, of every logger, is written down with all that a formatter would show of it.
RECORDING = """
import io, json, logging

records = []


class Record(logging.Handler):
    def emit(self, record):
        records.append([record.name, record.levelno, logging.Formatter().format(record)])


logging.getLogger().addHandler(Record())
logging.getLogger().setLevel(logging.DEBUG)
"""
DJANGO = """
import django
from django.conf import settings

BACKEND = "quickcache_django.QuickCache"
shared = {"BACKEND": BACKEND, "LOCATION": "shared://FOLDER/cache", "OPTIONS": {"MAX_BYTES": "4MB"}}
settings.configure(
    CACHES={"default": {"BACKEND": BACKEND, "OPTIONS": {"PUBLISH_AS": "logged"}}, "shared": shared},
    INSTALLED_APPS=["quickcache_django"],
    ROOT_URLCONF="quickcache_django.metrics",
    SECRET_KEY="a key of these tests, long enough to sign with",
    ALLOWED_HOSTS=["*"],
    QUICKCACHE_METRICS={"ACCESS": lambda request: True},
)
django.setup()
from django.core.cache import caches
from django.core.management import CommandError, call_command
from django.test import Client

for alias in ("default", "shared"):
    caches[alias].set("A_KEY", 1, tags=["A_KEY"])
    caches[alias].namespace("A_KEY").set("A_KEY", 1)


def command(*arguments):
    try:
        call_command(*arguments, stdout=io.StringIO(), stderr=io.StringIO())
    except CommandError:
        pass


command("quickcache_keys", "--prefix", "A_KEY")
command("quickcache_stats")
command("quickcache_check")
command("quickcache_backup", "--directory", "FOLDER/A_KEY")
command("quickcache_restore", "FOLDER/A_KEY", "--yes")
command("quickcache_restore", "FOLDER/no A_KEY", "--yes")
command("quickcache_clear", "--prefix", "A_KEY")
command("quickcache_clear", "--tag", "A_KEY")
command("quickcache_clear", "--namespace", "A_KEY")
command("quickcache_clear", "--namespace", "A_KEY" * 60)
assert Client().get("/metrics").status_code == 200
"""
FLASK = """
from flask import Flask
from flask_caching import Cache
from quickcache_flask.cli import quickcache
from quickcache_flask.metrics import metrics_blueprint

app = Flask("logged")
app.secret_key = "a key of these tests, long enough to sign with"
app.register_blueprint(metrics_blueprint(access=lambda: True))
for location in ("", "shared://FOLDER/cache"):
    Cache(app, config={"CACHE_TYPE": "quickcache_flask.QuickCache",
        "CACHE_OPTIONS": {"location": location, "max_bytes": "4MB"}})
for backend in app.extensions["cache"].values():
    backend.set("A_KEY", 1, tags=["A_KEY"])
    backend.namespace("A_KEY").set("A_KEY", 1)


def command(*arguments):
    app.test_cli_runner().invoke(quickcache, arguments)


command("keys", "--prefix", "A_KEY")
command("stats")
command("check")
command("backup", "--directory", "FOLDER/A_KEY")
command("restore", "FOLDER/A_KEY", "--yes", "--cache", "cache1")
command("restore", "FOLDER/no A_KEY", "--yes", "--cache", "cache1")
command("clear", "--prefix", "A_KEY")
command("clear", "--tag", "A_KEY")
command("clear", "--namespace", "A_KEY")
command("clear", "--namespace", "A_KEY" * 60)
assert app.test_client().get("/metrics").status_code == 200
"""


@pytest.mark.parametrize("script", [DJANGO, FLASK], ids=["django", "flask"])
def test_no_keys(script: str, tmp_path: Path) -> None:
    """Whatever is typed or scraped, also where it fails."""
    code = RECORDING + script.replace("FOLDER", str(tmp_path)).replace("A_KEY", KEY)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code + "\nprint(json.dumps(records))"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "QUICKCACHE_RUNTIME_DIR": str(tmp_path / "run")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    records: list[Any] = json.loads(done.stdout.splitlines()[-1])
    loud = [record for record in records if record[1] >= 20 and KEY in record[2]]
    assert loud == []
    ours = [record for record in records if record[0].startswith("quickcache") and record[1] >= 20]
    assert ours == [], "there is nothing to report"
