"""The built distributions, as somebody who installs them has them: `make smoke`.

Usage: smoke.py DIST_FOLDER. Looks into the wheel and the sdist, installs the wheel into environments of its
own and uses it there from an empty folder, so that no file of the source tree can help out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGES = {"quickcache_core", "quickcache_django", "quickcache_flask"}

CORE = """
import sys
before = set(sys.modules)
import quickcache_core
added = {name.partition(".")[0] for name in set(sys.modules) - before}
assert added - sys.stdlib_module_names == {"quickcache_core"}, added
assert "site-packages" in quickcache_core.__file__, quickcache_core.__file__

from quickcache_core import NEVER, KeyNotFound, QuickCache, QuickCacheConfig

for policy in ("s3fifo", "lru", "lfu", "lfuda", "fifo", "sieve"):
    with QuickCache(QuickCacheConfig(max_size=10, eviction_policy=policy)) as cache:
        for number in range(100):
            cache.set(f"key {number}", number, ttl_sec=NEVER)
        assert cache.size() == 10, (policy, cache.size())
with QuickCache() as cache:
    cache.set("answer", 42, ttl_sec=5)
    assert cache.get("answer") == 42
    path = cache.save_to_disk("here.qc")
    cache.clear()
    try:
        cache.get("answer")
    except KeyNotFound:
        pass
    else:
        raise AssertionError("a cleared key was found")
    cache.load_from_disk(path)
    assert cache.get("answer") == 42
    figures = cache.get_metrics_snapshot()
    assert figures["hits"] + figures["misses"] == figures["gets"] == 3, figures
"""

DJANGO = """
import io, json, sys
from django.conf import settings
settings.configure(
    CACHES={"default": {"BACKEND": "quickcache_django.QuickCache"}},
    INSTALLED_APPS=["quickcache_django"],
    SECRET_KEY="smoke",
)
import django
django.setup()
from django.core.cache import cache
from django.core.management import call_command
cache.set("answer", {"is": 42})
assert cache.get("answer") == {"is": 42}
assert cache.get("nothing", "default") == "default"
out = io.StringIO()
call_command("quickcache_stats", "--json", stdout=out)
json.loads(out.getvalue())
call_command("check", stdout=io.StringIO())
assert "flask" not in sys.modules
"""

FLASK = """
import json, pathlib, subprocess, sys
pathlib.Path("shop.py").write_text('''
from flask import Flask
from flask_caching import Cache
app = Flask("shop")
cache = Cache(app, config={"CACHE_TYPE": "quickcache_flask.QuickCache"})
calls = []

@app.get("/")
@cache.cached(timeout=60)
def index():
    calls.append(1)
    return "hello"
''')
sys.path.insert(0, "")
from shop import app, calls
client = app.test_client()
assert client.get("/").text == client.get("/").text == "hello"
assert calls == [1], calls
assert "django" not in sys.modules
command = [sys.executable, "-W", "error", "-m", "flask", "--app", "shop", "quickcache", "stats", "--json"]
json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
"""


def check_contents(dist: Path) -> Path:
    """The wheel in `dist`, after a look into it and into the sdist beside it."""
    (wheel,) = dist.glob("*.whl")
    (sdist,) = dist.glob("*.tar.gz")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES, tops
    for package in PACKAGES:
        assert f"{package}/py.typed" in names, f"{package} has no py.typed in the wheel"
    assert any(name.endswith("/licenses/LICENSE") for name in names), "no licence in the wheel"
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".c", ".h"))]
    # Where there was a compiler, the wheel is for this Python and this platform alone, and says so.
    compiled = all(
        any(f"/{module}." in name and name.endswith((".so", ".pyd")) for name in names)
        for module in ("_queue", "_table", "_writer")
    )
    assert compiled is not wheel.name.endswith("-py3-none-any.whl"), wheel
    with tarfile.open(sdist) as archive:
        members = [name.partition("/")[2] for name in archive.getnames()]
    for needed in (
        "quickcache_core/_slots.h",
        "quickcache_core/eviction_policy/_queue.c",
        "quickcache_core/eviction_policy/_queue.h",
        "quickcache_core/store/_table.c",
        "quickcache_core/store/_writer.c",
        ".ci/build_table.py",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
    ):
        assert needed in members, f"{needed} is missing in the sdist"
    assert sdist.stat().st_size < 5_000_000, (
        f"{sdist} has {sdist.stat().st_size} bytes: what went in by mistake?"
    )
    return wheel


def in_c(wheel: Path) -> str:
    """Code that fails unless what is in C is in use exactly if `wheel` has it."""
    expected = not wheel.name.endswith("-py3-none-any.whl")
    return (
        f"from quickcache_core.store import accelerator; assert accelerator.ACCELERATED is {expected}\n"
        f"assert (accelerator.writer() is not None) is {expected}\n"
    )


def use(wheel: Path, extra: str, code: str) -> bool:
    """Install `wheel` with `extra` into a new environment and run `code` there in an empty folder."""
    requirement = f"quickcache-web[{extra}] @ {wheel.resolve().as_uri()}" if extra else str(wheel)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    with tempfile.TemporaryDirectory() as folder:
        venv, empty = Path(folder, "venv"), Path(folder, "empty")
        empty.mkdir()
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        python = venv / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "-qq", requirement], check=True, env=environment)
        using = subprocess.run([python, "-W", "error", "-c", code], check=False, cwd=empty, env=environment)
    verdict = "works" if using.returncode == 0 else "FAILS"
    print(f"the installed wheel {verdict} {f'with the extra {extra}' if extra else 'alone'}", flush=True)
    return using.returncode == 0


if __name__ == "__main__":
    built = check_contents(Path(sys.argv[1]))
    worked = [
        use(built, extra, code)
        for extra, code in (("", CORE + in_c(built)), ("django", DJANGO), ("flask", FLASK))
    ]
    sys.exit(0 if all(worked) else 1)
