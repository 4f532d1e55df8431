"""Writes `RESULTS.md`: one section per benchmark, each replaced by its own next run."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from quickcache_core.store.accelerator import ACCELERATED

RESULTS = Path(__file__).with_name("RESULTS.md")
PURE = "-pure"
SECTIONS = (
    "engine",
    f"engine{PURE}",
    "memory",
    f"memory{PURE}",
    "scale",
    "django",
    f"django{PURE}",
    "flask",
    f"flask{PURE}",
    "parts",
    f"parts{PURE}",
    "shared",
    "redis",
    "end-to-end",
    "costs",
    "shrinking",
    "hit-ratio",
    "hit-ratio-sizes",
    "hit-ratio-ttls",
)
_COMMAND = "`python -m benchmarks"
_PURE_COMMAND = "`QUICKCACHE_PURE=1 python -m benchmarks"
_LOAD_BEFORE = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
HEADER = """# Results

Written by `make bench`; each section is replaced by its own next run, and begins with its command. What is
measured, how, and what the figures mean is in [`docs/performance.md`](../docs/performance.md). Only ratios
within one table can be compared: they come from one process and one run. "3.5 (4.1)" is the fastest round
over the baseline's fastest round, and in brackets the median of the ratios of all rounds where it is more
than 10 % away. On a machine that was busy with other work, times by the clock on the wall say little; the
processor's time is disturbed less.
"""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown; all columns but the first are aligned to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def machine() -> str:
    model = "unknown processor"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text())
        model = found.group(1) if found else model
    python = f"{platform.python_implementation()} {platform.python_version()}"
    table = f"hot table in {'C' if ACCELERATED else 'Python'}"
    return f"{os.cpu_count()} × {model}, {platform.system()} {platform.release()}, {python}, {table}"


def versions(*distributions: str) -> str:
    return ", ".join(f"{name} {_version(name)}" for name in distributions)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """The working tree's commit, with a "+" when it has changes."""
    here = Path(__file__).parent
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def load() -> str:
    """How busy the machine was, and what `QUICKCACHE_BENCH_NOTE` says of it."""
    if _LOAD_BEFORE is None:
        return ""
    note = os.environ.get("QUICKCACHE_BENCH_NOTE", "")
    before, after = f"{_LOAD_BEFORE:.1f}", f"{os.getloadavg()[0]:.1f}"
    return f"load average {before} at the start, {after} at the end{note and f' ({note})'}"


def write_section(name: str, body: str, *distributions: str) -> None:
    """Prints the section and puts it into `RESULTS.md`: how, when, where, against what it was measured.

    Measured without what is in C, where that makes most of the difference, it is a section of its own.
    """
    day = dt.datetime.now(dt.UTC).date().isoformat()
    facts = "; ".join(
        filter(None, (f"{day}, commit {commit()}", machine(), load(), versions(*distributions)))
    )
    quick = " --quick" if "--quick" in sys.argv else ""
    section = f"{_with_command(body.strip(), f'{name}{quick}')}\n\n*{facts}.*"
    if not ACCELERATED and f"{name}{PURE}" in SECTIONS:
        section, name = as_pure(section), f"{name}{PURE}"
    print(section)
    sections = dict(_read_sections())
    sections[name] = section
    text = HEADER
    for each in SECTIONS:
        if each in sections:
            text += f"\n<!-- {each} -->\n{_with_command(sections[each], each)}\n<!-- end of {each} -->\n"
    RESULTS.write_text(text, encoding="utf-8")
    print(f"\nWritten to {RESULTS}", file=sys.stderr)


def as_pure(section: str) -> str:
    """A section, with its command, that was measured without what is in C."""
    heading, _, rest = section.partition("\n\n")
    return f"{heading}, in pure Python\n\n{rest.replace(_COMMAND, _PURE_COMMAND, 1)}"


def _with_command(section: str, arguments: str) -> str:
    """The section with its command under its heading, unless there is one."""
    heading, _, rest = section.partition("\n\n")
    if rest.startswith((_COMMAND, _PURE_COMMAND)):
        return section
    return f"{heading}\n\n{_COMMAND} {arguments}`\n\n{rest}"


def _read_sections() -> Iterator[tuple[str, str]]:
    if not RESULTS.exists():
        return
    pattern = re.compile(r"<!-- ([a-z-]+) -->\n(.*?)\n<!-- end of \1 -->", re.DOTALL)
    yield from pattern.findall(RESULTS.read_text(encoding="utf-8"))


def verdict(measured: float, budget: float, *, at_least: bool = False) -> str:
    if at_least:
        return "met" if measured >= budget else f"missed by {1 - measured / budget:.0%}"
    return "met" if measured <= budget else f"missed by {measured / budget - 1:.0%}"
