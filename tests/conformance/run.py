"""Run the cache tests of Django and of Flask-Caching with QuickCache as the backend.

    python tests/conformance/run.py [django-5.2] [django-6.0] [django-6.1] [flask-caching] [options]

Without names all of them. Needs pip and, the first time, the package index; what is fetched stays in
`.cache/conformance/`. The exit code is 0 when every suite ran and no test failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import django_suite
import flask_caching_suite
from workspace import MissingInterpreter

Suite = Callable[[argparse.Namespace], bool]


def _scopes(options: argparse.Namespace) -> list[str]:
    return ["memory"] if options.baseline else options.scope.split("+")


def _django(version: str) -> Suite:
    def run(options: argparse.Namespace) -> bool:
        return django_suite.run(version, _scopes(options), part=options.part, baseline=options.baseline)

    return run


def _flask_caching(options: argparse.Namespace) -> bool:
    ran = [
        flask_caching_suite.run(part=options.part, baseline=options.baseline, scope=scope)
        for scope in _scopes(options)
    ]
    return all(ran)


SUITES: dict[str, Suite] = {f"django-{version}": _django(version) for version in django_suite.PYTHONS}
SUITES["flask-caching"] = _flask_caching


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "suites", nargs="*", metavar="suite", help=f"any of {', '.join(SUITES)}; default: all"
    )
    parser.add_argument(
        "--part",
        choices=["all", "cache"],
        default="all",
        help="cache: of Django's suites only those that can meet the backend; of Flask-Caching's no test "
        "that sleeps",
    )
    parser.add_argument(
        "--scope",
        default="memory+shared+redis",
        help="memory, shared (every location is a directory that processes share), redis (every location is "
        "a prefix on one Valkey server), or several joined by +; default: all three",
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="don't fail when a Python that a suite needs is not installed",
    )
    parser.add_argument(
        "--baseline",
        action="store_true",
        help="run the frameworks' own in-memory caches instead, for comparison",
    )
    options = parser.parse_args()
    unknown = set(options.suites) - set(SUITES)
    if unknown:
        parser.error(f"no such suite: {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    if not set(options.scope.split("+")) <= set(django_suite.BACKENDS):
        parser.error(f"--scope {options.scope}: join {', '.join(django_suite.BACKENDS)} by +")

    verdicts: dict[str, str] = {}
    for name in options.suites or SUITES:
        print(f"==== {name}", flush=True)
        try:
            verdicts[name] = "passed" if SUITES[name](options) else "FAILED"
        except MissingInterpreter as missing:
            verdicts[name] = f"skipped: {missing}" if options.allow_missing else f"FAILED: {missing}"
    print("\n".join(["====", *(f"{name}: {verdict}" for name, verdict in verdicts.items())]))
    return int(any(verdict.startswith("FAILED") for verdict in verdicts.values()))


if __name__ == "__main__":
    sys.exit(main())
