"""What `import` alone brings in, seen from a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

FRAMEWORKS = {"django", "asgiref", "flask", "flask_caching", "cachelib", "werkzeug", "click", "jinja2"}
OPTIONAL = {"greenlet", "lmdb", "msgspec", "opentelemetry", "prometheus_client", "redis", "rich", "zstandard"}


def modules_after(statement: str) -> set[str]:
    """Top-level names in `sys.modules` that `statement` added in a new interpreter, warnings being errors."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return {name.partition(".")[0] for name in result.stdout.split()}


def test_core_loads_the_standard_library_only() -> None:
    """`import quickcache_core` loads no framework, no optional dependency, nothing from outside."""
    loaded = modules_after("import quickcache_core")
    assert "quickcache_core" in loaded
    assert not loaded & (FRAMEWORKS | OPTIONAL)
    assert loaded - sys.stdlib_module_names == {"quickcache_core"}


def test_constructor_starts_no_thread() -> None:
    """Importing and constructing start no thread; that is left to the first write that needs one."""
    modules_after(
        "import threading, quickcache_core as q; cache = q.QuickCache(); assert threading.active_count() == 1"
    )


def test_using_the_core_loads_no_framework() -> None:
    """Storing, reading, expiring and counting need nothing from outside either."""
    loaded = modules_after(
        "import quickcache_core as q; cache = q.QuickCache(); cache.set('a', [1]); cache.get('a');"
        "cache.incr('n', initial=0); cache.get_metrics_snapshot(); cache.close()"
    )
    assert loaded - sys.stdlib_module_names == {"quickcache_core"}


@pytest.mark.parametrize(
    ("adapter", "foreign"),
    [
        ("quickcache_django", {"flask", "flask_caching", "cachelib", "quickcache_flask"}),
        ("quickcache_flask", {"django", "asgiref", "quickcache_django"}),
    ],
)
def test_adapter_loads_its_own_framework_only(adapter: str, foreign: set[str]) -> None:
    """A Flask project gets nothing of Django, and the other way round; optional dependencies stay out."""
    loaded = modules_after(f"import {adapter}")
    assert not loaded & (foreign | OPTIONAL)


@pytest.mark.parametrize("module", ["quickcache_django.metrics", "quickcache_flask.metrics"])
def test_endpoints_load_no_optional_library(module: str) -> None:
    """They are asked for when somebody scrapes or instruments."""
    assert not modules_after(f"import {module}") & OPTIONAL
