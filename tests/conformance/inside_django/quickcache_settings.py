"""Settings for Django's test suite: its own for SQLite, with the backend under test as the default cache."""

import os

from test_sqlite import *  # noqa: F403  this is how Django's runtests.py wants its settings

CACHES = {"default": {"BACKEND": os.environ["CONFORMANCE_BACKEND"]}}
TEST_RUNNER = "quickcache_runner.Runner"
