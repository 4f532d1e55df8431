"""Django's own cache tests, from its source distribution, with QuickCache wherever they mean LocMemCache.

The tests that use caches are copied, and their settings changed as `CHANGES` lists. A module is put beside
them, `inside_django/quickcache_cases.py`, which replaces what looks into private dictionaries, and which
drives the tests a second time through the `a` methods.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from outcome import Outcome
from workspace import CACHE, ROOT, environment, install, interpreter, server_for, source

PYTHONS = {"5.2": "3.11", "6.0": "3.12", "6.1": "3.13"}
"""A Python that each Django supports."""

LOCMEM_SKIPS = {"5.2": 188, "6.0": 189, "6.1": 214}
"""How many tests LocMemCache's own run skips (`--baseline` shows it); ours must not skip more."""

PACKAGES = ["asgiref>=3.9.1", "sqlparse", "jinja2", "tzdata", "lmdb", "redis", "greenlet"]

LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
OURS = "quickcache_django.QuickCache"
BACKENDS = {
    "memory": OURS,
    "shared": "quickcache_shared.QuickCache",
    "redis": "quickcache_redis.QuickCache",
}
"""By scope. What is different is in the modules in `inside_django` that have these names."""

LABELS = ["cache", "sessions_tests", "template_tests.syntax_tests.test_cache", "middleware", "decorators"]
"""What is run of Django's tests: all that use a cache, and the suites of their neighbours."""

INSIDE = Path(__file__).resolve().parent / "inside_django"


class Change(NamedTuple):
    file: str
    old: str
    new: str
    tests: str = ""
    """The tests that run with other settings than Django's, beside the backend itself."""
    why: str = ""


BACKEND = (f'"{LOCMEM}"', f'"{OURS}"')
BASE_CLASS = (
    "django.core.cache.backends.locmem import LocMemCache",
    "quickcache_django import QuickCache as LocMemCache",
)


def _other_scope(backend: str) -> dict[str, str]:
    """What is different in the new texts of `CHANGES`."""
    module = backend.partition(".")[0]
    return {
        OURS: backend,
        "from quickcache_django import": f"from {module} import",
        ', "EVICTION_POLICY": "lru"': "",
    }


CHANGES = [
    Change("cache/tests.py", *BACKEND),
    Change("sessions_tests/tests.py", *BACKEND),
    Change("template_tests/syntax_tests/test_cache.py", *BACKEND),
    Change("cache/liberal_backend.py", *BASE_CLASS),
    Change("cache/closeable_cache.py", *BASE_CLASS),
    Change("cache/failing_cache.py", *BASE_CLASS),
    Change(
        "cache/tests.py",
        '"cull": {"OPTIONS": {"MAX_ENTRIES": 30}}',
        '"cull": {"OPTIONS": {"MAX_ENTRIES": 30, "CULL_FREQUENCY": 3}}',
        tests="test_cull",
        why="CULL_FREQUENCY 3 is written out, without which our backend makes room for one entry at a time",
    ),
    Change(
        "cache/tests.py",
        'OPTIONS={"MAX_ENTRIES": 9}',
        'LOCATION="lru", OPTIONS={"MAX_ENTRIES": 9, "CULL_FREQUENCY": 3, "EVICTION_POLICY": "lru"}',
        tests="test_lru_*",
        why="the policy and CULL_FREQUENCY that LocMemCache always has are written out",
    ),
]

# Test classes that must have used the backend under test: a suite that silently fell back must not count.
MUST_USE_IT = {
    "AsyncDrivenTests",
    "CacheHEADTest",
    "CacheI18nTest",
    "CacheMiddlewareTest",
    "CacheSessionTests",
    "CacheDBSessionTests",
    "CacheTagTests",
    "CacheUtils",
    "CustomCacheKeyValidationTests",
    "DefaultNonExpiringCacheKeyTests",
    "LocMemCacheTests",
    "PrefixedCacheI18nTest",
    "TestWithTemplateResponse",
}


def run(version: str, scopes: Sequence[str], *, part: str = "all", baseline: bool = False) -> bool:
    """Run the tests of the newest Django `version`.x and print what came out; whether all is well. The scopes
    at the same time: most of the tests sleep.
    """
    interpreter(PYTHONS[version])
    name = f"django-{version}"
    python = environment(name, PYTHONS[version], PACKAGES)
    hot_path = "in C" if install(python) else "in Python"
    django = source(f"django=={version}.*", python)

    def one(scope: str) -> bool:
        return _run(version, python, hot_path, django, scope, part=part, baseline=baseline)

    with ThreadPoolExecutor(len(scopes)) as threads:
        return all(list(threads.map(one, scopes)))


def _run(
    version: str, python: Path, hot_path: str, django: Path, scope: str, *, part: str, baseline: bool
) -> bool:
    name = f"django-{version}"
    tests = CACHE / name / ("baseline" if baseline else f"tests-{scope}")
    result = tests / "result.json"
    _copy(django / "tests", tests, changed=not baseline, scope=scope)
    backend = LOCMEM if baseline else BACKENDS[scope]
    shared = tempfile.TemporaryDirectory(prefix="quickcache-")

    began = time.monotonic()
    command = [
        python,
        "-W",
        "error",
        tests / "runtests.py",
        "--settings",
        "quickcache_settings",
        "--parallel",
        "1",
    ]
    with server_for(scope) as url:
        finished = subprocess.run(
            [*command, "--verbosity", "0", *LABELS],
            cwd=tests,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, [django, ROOT, tests])),
                "CONFORMANCE_BACKEND": backend,
                "CONFORMANCE_DIRECTORY": shared.name,
                "CONFORMANCE_REDIS_URL": url,
                "CONFORMANCE_PART": part,
                "CONFORMANCE_RESULT": str(result),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    shared.cleanup()
    subject = f"{django.name}, Python {PYTHONS[version]}, {backend}"
    subject += "" if baseline else f", hot path {hot_path}"
    outcome = Outcome(suite=name, subject=subject, seconds=time.monotonic() - began)
    if not result.exists():
        outcome.problems.append(f"the run ended with exit code {finished.returncode} before its tests did")
    else:
        _judge(
            outcome,
            version,
            json.loads(result.read_text()),
            finished.returncode,
            part=part,
            baseline=baseline,
        )
    print(f"{finished.stdout}\n{outcome.text()}", flush=True)
    return outcome.ok


def _copy(tests: Path, target: Path, *, changed: bool, scope: str) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    ours = {Path(change.file).parts[0] for change in CHANGES}
    for path in tests.iterdir():
        if path.is_file():
            shutil.copy2(path, target)
        elif path.name in ours:
            shutil.copytree(path, target / path.name)
        else:
            (target / path.name).symlink_to(path)
    for name in (
        "quickcache_settings.py",
        "quickcache_runner.py",
        "quickcache_shared.py",
        "quickcache_redis.py",
    ):
        shutil.copy2(INSIDE / name, target)
    if not changed:
        return
    shutil.copy2(INSIDE / "quickcache_cases.py", target / "cache" / "test_quickcache.py")
    for change in CHANGES:
        path = target / change.file
        text = path.read_text()
        # A Django that has moved on must be noticed, not tested half.
        assert change.old in text, f"{path} doesn't contain {change.old!r} any more: adapt CHANGES"
        new = change.new
        for there, here in _other_scope(BACKENDS[scope]).items() if scope != "memory" else ():
            new = new.replace(there, here)
        path.write_text(text.replace(change.old, new))


def _judge(outcome: Outcome, version: str, found: dict, exit_code: int, *, part: str, baseline: bool) -> None:
    outcome.passed = len(found["passed"])
    outcome.failed = sorted(found["failed"])
    outcome.skipped = found["skipped"]
    outcome.operations = sum(found["calls"].values())
    if exit_code and not found["failed"]:
        outcome.problems.append(f"exit code {exit_code} although no test failed")
    if not found["passed"]:
        outcome.problems.append("no test ran")
    if part == "cache":
        outcome.left_out["tests of Django's other backends"] = (
            "they never meet the backend under test; --part all runs them"
        )
    if baseline:
        return
    outcome.problems += [
        f"{name} never used the backend" for name in sorted(MUST_USE_IT - set(found["calls"]))
    ]
    if len(outcome.skipped) > LOCMEM_SKIPS[version]:
        outcome.problems.append(f"LocMemCache's own run skips {LOCMEM_SKIPS[version]} tests only")
    if found["locmem_objects"]:
        outcome.problems.append(
            f"{found['locmem_objects']} LocMemCache objects were made: a setting was not changed"
        )
    outcome.changed = {f"settings of {change.tests}": change.why for change in CHANGES if change.tests}
    outcome.changed |= found["replaced"]
    outcome.left_out |= found["left_out"]
