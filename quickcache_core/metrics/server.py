"""What runs this process, in a word."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import PurePath
from typing import Final

_BY_PROGRAM: Final = ("gunicorn", "uvicorn", "hypercorn", "daphne", "granian", "waitress-serve", "celery")
_MANAGERS: Final = ("manage.py", "django-admin", "django", "flask")


def server_name(argv: Sequence[str] | None = None) -> str:
    """`gunicorn`, `uwsgi`, `runserver`, `flask run` ..., or the name of the program."""
    if "uwsgi" in sys.modules:
        return "uwsgi"
    words = list(sys.argv if argv is None else argv)
    program = PurePath(words[0]) if words and words[0] else PurePath("python")
    # `python -m gunicorn` has the path of a file inside the package.
    name = program.parent.name if program.name == "__main__.py" else program.name
    if name in _BY_PROGRAM:
        return name
    if name in _MANAGERS:
        command = next((word for word in words[1:] if not word.startswith("-")), "")
        return f"flask {command}".strip() if name == "flask" else command or name
    return name
