"""Modules in C, each the twin of one in Python, which is the reference and always there."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import Final

PURE_VARIABLE: Final = "QUICKCACHE_PURE"
"""The environment variable that refuses what is in C."""
FREE_THREADED: Final = "free-threading build" in sys.version
"""Whether Python was built without a GIL; also true where an extension module has turned one on."""


def found(name: str) -> ModuleType | None:
    """The module in C of that name; None where it isn't built, was refused, or is for another Python.

    Nor is one used that doesn't find what it looks for, since it was built for other versions of the classes.
    """
    if os.environ.get(PURE_VARIABLE, "0") not in ("", "0"):
        return None
    try:
        return import_module(name)
    except (AttributeError, ImportError, TypeError):
        return None
