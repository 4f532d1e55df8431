"""Starts the notes: makes their database if there is none, then becomes gunicorn. Ctrl-C stops it."""

import argparse
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8001, help="0 takes a free one; gunicorn says which")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--data", type=Path, default=HERE / "var", help="where the SQLite file lives")
    parser.add_argument(
        "--preload", action="store_true", help="load the notes once, before the workers are forked"
    )
    options = parser.parse_args()

    sys.path.insert(0, str(HERE))
    from notes.storage import Storage

    options.data.mkdir(parents=True, exist_ok=True)
    database = options.data.resolve() / "notes.sqlite3"
    Storage(database).fill_if_empty()

    os.environ["NOTES_DATABASE"] = str(database)
    os.chdir(HERE)
    command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{options.port}"]
    command += ["--workers", str(options.workers), *(["--preload"] if options.preload else [])]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
