"""Flask-Caching's own tests, from its source distribution, with QuickCache in the place of SimpleCache.

    python tests/conformance/flask_caching_suite.py [--baseline] [pytest arguments]

Exit code 0 means that every test ran against our backend and passed. `--baseline` runs SimpleCache instead,
for comparison. `run.py flask-caching` does the same. The first run needs the package index.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from outcome import Outcome
from workspace import ROOT, environment, install, source

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
]
HERE = Path(__file__).resolve().parent


def run(arguments: list[str]) -> int:
    """Exit code of a run with these command line arguments; what it found is printed."""
    baseline = "--baseline" in arguments
    outcome = _run_pytest([argument for argument in arguments if argument != "--baseline"], baseline)
    print(outcome.text())
    return 0 if outcome.ok else 1


def _run_pytest(arguments: list[str], baseline: bool) -> Outcome:
    python = environment(FLASK_CACHING, PYTHON, PACKAGES)
    hot_path = "in C" if install(python) else "in Python"
    sources = source(FLASK_CACHING, python)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "found.json")
        variables = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]),
            "FLASK_CACHING_FOUND": str(found),
            # With CI=true their fixtures fail, instead of skipping, for want of the other backends' servers.
            "CI": "false",
        }
        command = [python, "-m", "pytest", "-p", "flask_caching_plugin", "-q", "tests", *arguments]
        # Without the last two, the settings and the conftest.py of this repository's tests would be found.
        own = [HERE / "flask_caching_own.py", "--config-file=pyproject.toml", f"--confcutdir={HERE}"]
        command += ["--baseline"] if baseline else own
        ended = subprocess.run(command, cwd=sources, env=variables, check=False)
        outcome = Outcome(
            suite=FLASK_CACHING,
            subject="SimpleCache" if baseline else f"quickcache_flask.QuickCache, hot path {hot_path}",
            **(json.loads(found.read_text()) if found.exists() else {}),
        )
    outcome.seconds = time.monotonic() - started
    if ended.returncode and outcome.ok:
        outcome.problems.append(f"pytest ended with exit code {ended.returncode}")
    return outcome


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
