"""A soak: every scope under random kills, clock jumps, full disks, slow and dead servers, all of it counted.

    python -m tests.soak --seconds 600 --scope all

Prints what was done, what befell the processes, and what was wrong; ends with 1 if anything was.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.soak.mistakes import MISTAKES
from tests.soak.scopes import SCOPES
from tests.soak.tally import table


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="for each scope (default: 60)")
    parser.add_argument("--scope", choices=(*SCOPES, "all"), default="all")
    parser.add_argument("--mistake", choices=MISTAKES, default="", help="something that must be found out")
    given = parser.parse_args()
    if sys.platform != "linux":
        parser.error("only for Linux: processes are looked at in /proc")
    tallies = []
    for scope in SCOPES if given.scope == "all" else [given.scope]:
        with tempfile.TemporaryDirectory(prefix="quickcache-soak-") as directory:
            runtime = Path(directory) / "runtime"
            runtime.mkdir(mode=0o700)
            os.environ["QUICKCACHE_RUNTIME_DIR"] = str(runtime)
            tallies.append(SCOPES[scope](Path(directory), given.seconds, given.mistake))
    print(table(tallies))
    return 0 if all(tally.is_right for tally in tallies) else 1


if __name__ == "__main__":
    sys.exit(main())
