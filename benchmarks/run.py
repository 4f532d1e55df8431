"""All benchmarks, or the named ones: `python -m benchmarks engine memory scale django flask shared redis`.

`--quick` takes minutes instead of an hour, and is less exact. Results go to the terminal and into
`RESULTS.md`, where `engine`, `memory`, `django`, `flask` and `parts` have sections of their own with
`QUICKCACHE_PURE=1` in the environment.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = {
    "engine": "benchmarks.engine",
    "memory": "benchmarks.memory",
    "scale": "benchmarks.scale",
    "django": "benchmarks.django_table",
    "flask": "benchmarks.flask_table",
    "parts": "benchmarks.parts",
    "shared": "benchmarks.shared_table",
    "redis": "benchmarks.redis_table",
    "end-to-end": "benchmarks.end_to_end",
    "costs": "benchmarks.costs",
    "shrinking": "benchmarks.shrinking",
    "hit-ratio": "benchmarks.hit_ratio",
    "hit-ratio-sizes": "benchmarks.sized_hit_ratio",
    "hit-ratio-ttls": "benchmarks.ttl_hit_ratio",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", metavar="name", help=f"which ones (default: all): {', '.join(MODULES)}"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller caches, shorter traces")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in MODULES]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(MODULES)}")
    failed = []
    for name in given.names or MODULES:
        if name.startswith("hit-ratio") and not given.names and not _has_traces():
            print(f"{name} is left out: no traces; see benchmarks/traces.py", file=sys.stderr)
            continue
        # A process each: what one leaves behind, threads above all, must not slow the next.
        command = [sys.executable, "-m", MODULES[name], *(["--quick"] if given.quick else [])]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _has_traces() -> bool:
    given = os.environ.get("QUICKCACHE_TRACES")
    return (Path(given) if given else ROOT.parent / "shared" / "traces").is_dir()


if __name__ == "__main__":
    sys.exit(main())
