from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from example_projects.gunicorn_process import GunicornProcess

EXAMPLES = Path(__file__).resolve().parents[2] / "example_projects"


@contextmanager
def serving(example: str, *arguments: str, folder: Path) -> Iterator[GunicornProcess]:
    """The example under gunicorn; at the end it must stop in good order and have logged nothing bad."""
    with GunicornProcess(EXAMPLES / example / "run.py", *arguments, folder=folder) as server:
        yield server
        status = server.stop()
        assert status == 0, server.log
        assert not server.has_complained(), server.log
