"""The property tests, with inputs that a fuzzer makes: it goes by which lines of the engine they reach.

    pip install atheris
    python -m tests.fuzzing --seconds 600 tests.redis.test_fuzzed_answers:test_pushes_of_any_kind
    python -m tests.fuzzing                 says what there is

Atheris isn't among what the other tests need: there are wheels for some Pythons on Linux only. What is found
is written to a file, which is named at the end, and fails under pytest from then on (Hypothesis keeps it).
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_HERE = Path(__file__).parent


def modules() -> list[str]:
    return sorted(
        ".".join(path.relative_to(_HERE.parent).with_suffix("").parts)
        for path in _HERE.glob("*/test_fuzzed_*.py")
    )


def targets(module: ModuleType) -> dict[str, Any]:
    """Tests that Hypothesis gives all their arguments, and pytest none."""
    # Hypothesis takes those that it gives itself out of the signature.
    return {
        name: test
        for name, test in vars(module).items()
        if hasattr(test, "hypothesis") and not inspect.signature(test).parameters
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzzing", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("target", nargs="?", help="module:test")
    parser.add_argument("--seconds", type=int, default=60)
    given = parser.parse_args()
    if given.target is None:
        for name in modules():
            print(*(f"{name}:{test}" for test in targets(importlib.import_module(name))), sep="\n")
        return 0
    try:
        import atheris
    except ImportError:
        parser.error("this needs atheris: pip install atheris")
    name, _, test = given.target.partition(":")
    with atheris.instrument_imports(include=["quickcache_core"]):
        module = importlib.import_module(name)
    fuzz_one_input = targets(module)[test].hypothesis.fuzz_one_input
    atheris.Setup([sys.argv[0], f"-max_total_time={given.seconds}"], fuzz_one_input)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
