"""Flask-Caching's own tests, from its source distribution, with QuickCache in the place of SimpleCache.

    python tests/conformance/run.py flask-caching [--scope memory+shared+redis] [--baseline]

A run is well when every test ran against our backend and passed. `--baseline` runs SimpleCache instead,
for comparison. The first run needs the package index.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from outcome import Outcome
from workspace import ROOT, environment, install, server_for, source

PYTHON = "3.11"
FLASK_CACHING = "flask-caching==2.5.1"
# Exact, because their suite turns warnings into errors: a newer Flask or pytest could fail it whatever the
# backend.
PACKAGES = [
    FLASK_CACHING,
    "cachelib==0.17.0",
    "flask[async]==3.1.3",
    "werkzeug==3.1.9",
    "pytest==9.1.1",
    "pytest-xprocess==1.0.2",
    "lmdb",
    "redis",
    "greenlet",
]
HERE = Path(__file__).resolve().parent


def run(*, part: str = "all", baseline: bool = False, scope: str = "memory") -> bool:
    """Run their tests and print what came out; whether all is well."""
    with tempfile.TemporaryDirectory(prefix="quickcache-") as folder, server_for(scope) as url:
        outcome = _run_pytest(part, baseline, scope, Path(folder), url or folder)
    print(outcome.text(), flush=True)
    return outcome.ok


def _run_pytest(part: str, baseline: bool, scope: str, folder: Path, location: str) -> Outcome:
    python = environment(FLASK_CACHING, PYTHON, PACKAGES)
    hot_path = "in C" if install(python) else "in Python"
    sources = source(FLASK_CACHING, python)
    started = time.monotonic()
    found = folder / "found.json"
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]),
        "FLASK_CACHING_FOUND": str(found),
        "FLASK_CACHING_PART": part,
        "FLASK_CACHING_SCOPE": scope,
        "FLASK_CACHING_LOCATION": location,
        # With CI=true their fixtures fail, instead of skipping, for want of the other backends' servers.
        "CI": "false",
    }
    command = [python, "-m", "pytest", "-p", "flask_caching_plugin", "-q", "tests"]
    # Without the last two, the settings and the conftest.py of this repository's tests would be found.
    own = [HERE / "flask_caching_own.py", "--config-file=pyproject.toml", f"--confcutdir={HERE}"]
    command += ["--baseline"] if baseline else own
    ended = subprocess.run(command, cwd=sources, env=variables, check=False)
    ours = f"quickcache_flask.QuickCache, scope {scope}, hot path {hot_path}"
    outcome = Outcome(
        suite=FLASK_CACHING,
        subject="SimpleCache" if baseline else ours,
        **(json.loads(found.read_text()) if found.exists() else {}),
    )
    outcome.seconds = time.monotonic() - started
    if ended.returncode and outcome.ok:
        outcome.problems.append(f"pytest ended with exit code {ended.returncode}")
    return outcome
