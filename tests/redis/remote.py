"""Other processes with a cache in scope `redis`, for what tests want done there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_BEGINNING = """
import sys, threading, time
from quickcache_core import NEVER, QuickCache, QuickCacheConfig
settings = {settings!r}
cache = QuickCache(QuickCacheConfig.from_mapping(settings))
"""


def start(code: str, **settings: Any) -> subprocess.Popen[str]:
    """A process that runs the code, in which `cache` is a cache with these settings."""
    whole = _BEGINNING.format(settings=settings) + code
    return subprocess.Popen(
        [sys.executable, "-c", whole], cwd=_ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


def run(code: str, **settings: Any) -> str:
    """What the code prints, once it has ended."""
    process = start(code, **settings)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, code
    return output.strip()
