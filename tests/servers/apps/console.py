"""Another process of the project than its workers: runs management commands, and uses the caches itself.

Reads a JSON list per line, `["command", word, ...]`, `["perform", {...}]` or `["watch", group]`, and answers
with JSON, a line each. When there is nothing more to read because the tests were killed, it kills the process
groups that it was told to watch.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from contextlib import redirect_stdout, suppress
from typing import Any


def main(framework: str) -> None:
    if framework == "django":
        import django_site as site
    else:
        import flask_site as site
    run = run_django if framework == "django" else run_flask
    groups: list[int] = []
    try:
        for line in sys.stdin:
            kind, *arguments = json.loads(line)
            result: Any = None
            if kind == "watch":
                groups += arguments
            else:
                result = run(arguments) if kind == "command" else site.perform(arguments[0])
            print(json.dumps(result), flush=True)
    finally:
        for group in groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)


def run_django(words: list[str]) -> str:
    from django.core.management import execute_from_command_line

    with redirect_stdout(io.StringIO()) as output:
        execute_from_command_line(["manage.py", *words])
    return output.getvalue()


def run_flask(words: list[str]) -> str:
    from flask.cli import FlaskGroup
    from flask_site import app

    from quickcache_flask.cli import quickcache

    group = FlaskGroup(create_app=lambda: app)
    # Not by its entry point, for which the project would have to be installed.
    group.add_command(quickcache)
    with redirect_stdout(io.StringIO()) as output:
        group.main(words, standalone_mode=False)
    return output.getvalue()


if __name__ == "__main__":
    main(sys.argv[1])
