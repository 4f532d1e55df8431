from __future__ import annotations

import subprocess
import sys

LIGHT = """
import sys
import quickcache_django
from quickcache_django import QuickCache
from django.conf import settings
assert not settings.configured
heavy = {"django.db", "django.http", "django.template", "django.contrib", "sqlite3", "msgspec", "flask"}
print(sorted(heavy & set(sys.modules)))
"""

WITHOUT_SETTINGS = """
from quickcache_django import QuickCache
cache = QuickCache("", {"TIMEOUT": 5})
cache.set("k", [1, [2]])
assert cache.get("k") == [1, [2]]
"""

NO_THREAD = """
import io
import threading
from django.conf import settings
caches = {"default": {"BACKEND": "quickcache_django.QuickCache"}}
settings.configure(CACHES=caches, INSTALLED_APPS=["quickcache_django"])
import django
django.setup()
from django.core.cache import caches
from django.core.management import call_command
caches["default"].get("k")
call_command("check", stdout=io.StringIO())
print(threading.active_count())
"""


def run(code: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def test_import_is_light() -> None:
    """Importing the package needs no settings, and loads no database, no templates, no optional library."""
    assert run(LIGHT) == "[]"


def test_object_without_settings() -> None:
    """A backend object can be used before there are settings: the secret is asked for when it is needed."""
    assert run(WITHOUT_SETTINGS) == ""


def test_start_of_a_project() -> None:
    """Starting, checking and reading start no thread."""
    assert run(NO_THREAD) == "1"
