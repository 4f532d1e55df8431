"""Figures that somebody measured: a command that is named beside them prints them, and exists."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import report, run
from tests.docs.run_blocks import BLOCK
from tests.docs.test_docs import PAGES, ROOT

RESULTS = report.RESULTS.read_text(encoding="utf-8")
FIGURE = re.compile(
    r"""
    \d[\d.,]*[ ]?(?:×|µs|ns)(?!\w)
    | (?:some|took|takes|in)[ ]\d[\d.,]*[ ]?ms\b
    | (?:half|third|quarter|fourth|fifth|tenth|twice|\d[ ]?%)[ ](?:slower|faster|more[ ]time|of[ ]a[ ]hit)
    | (?:some|to)[ ]\d[\d.,]*[ ]bytes[ ](?:more[ ]per|per|for[ ]each)[ ]entry
    | \d[ ](?:KiB|MiB|GiB)[ ]\|
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What is hardly ever a limit or a setting."""
COMMAND = re.compile(r"python -m (?:benchmarks|pytest|tests)\b|\bmake (?:bench|test)\b")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def sections(text: str) -> Iterator[tuple[int, str]]:
    """From heading to heading, with the line where each begins; blocks of code stay without their code."""
    text = BLOCK.sub(lambda found: "\n" * found[0].count("\n"), text)
    starts = [0, *(found.start() for found in re.finditer(r"^#+ ", text, re.MULTILINE))]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        yield text.count("\n", 0, start) + 1, text[start:end]


@every_page
def test_measured_figure_has_its_command(page: Path) -> None:
    """Who doubts a figure finds the command that prints it in the same section."""
    for line, section in sections(page.read_text(encoding="utf-8")):
        found = FIGURE.search(section)
        assert found is None or COMMAND.search(section), (
            f"{page.name}, in the section from line {line}: {found[0]!r} has no command that prints it"
        )


@pytest.mark.parametrize(
    ("text", "is_figure"),
    [
        ("takes some 15 µs", True),
        ("is 3.5 × as fast", True),
        ("hits are a third slower", True),
        ("some 110 bytes more per entry", True),
        ("waits 1 to 100 ms", False),
        ("at least 16 bytes", False),
        ("up to 5 % of its TTL", False),
        ("shrinks by a third", False),
    ],
)
def test_what_counts_as_a_figure(text: str, is_figure: bool) -> None:
    """Measured ones do, limits and settings don't."""
    assert (FIGURE.search(text) is not None) is is_figure


@pytest.mark.parametrize("page", [*PAGES, report.RESULTS], ids=lambda page: str(page.relative_to(ROOT)))
def test_named_benchmarks_exist(page: Path) -> None:
    """`python -m benchmarks` is followed by names of benchmarks and by options that there are."""
    text = page.read_text(encoding="utf-8")
    typed = re.findall(r"python -m benchmarks\b([^`#|\n]*)", text)
    typed += re.findall(r"BENCH_ARGS=\"([^\"]*)\"", text)
    for words in map(shlex.split, typed):
        assert set(words) <= {*run.MODULES, "--quick"}, words


def test_each_benchmark_is_explained() -> None:
    """The table of docs/performance.md has all of them."""
    text = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| `python -m benchmarks` \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    named = [name for row in table.splitlines() for name in re.findall(r"`([a-z-]+)`", row.split("|")[1])]
    assert sorted(named) == sorted(run.MODULES)


@pytest.mark.parametrize("name", run.MODULES)
def test_benchmark_takes_what_is_there(name: str) -> None:
    """What it imports of the packages hasn't been renamed; peers needn't be installed for that."""
    assert callable(importlib.import_module(run.MODULES[name]).main)


def test_results_have_sections_that_are_known() -> None:
    """A section of another name would be lost with the next run."""
    found = re.findall(r"^<!-- ([a-z-]+) -->$", RESULTS, re.MULTILINE)
    assert set(found) <= set(report.SECTIONS)
    assert {name.removesuffix(report.PURE) for name in report.SECTIONS} == run.MODULES.keys()


@pytest.mark.parametrize("name", re.findall(r"^<!-- ([a-z-]+) -->$", RESULTS, re.MULTILINE))
def test_section_begins_with_its_command(name: str) -> None:
    """As it has to be typed to have the section written anew."""
    (section,) = re.findall(rf"<!-- {name} -->\n(.*?)<!-- end of {name} -->", RESULTS, re.DOTALL)
    heading, command = re.match(r"## (.+)\n\n`(.+)`\n", section).groups()  # type: ignore[union-attr]
    pure = name.endswith(report.PURE)
    assert heading.endswith(", in pure Python") is pure
    assert command.removesuffix(" --quick") == (
        f"{'QUICKCACHE_PURE=1 ' if pure else ''}python -m benchmarks {name.removesuffix(report.PURE)}"
    )


@pytest.mark.parametrize("name", [name for name in report.SECTIONS if name.endswith(report.PURE)])
def test_pure_python_has_sections_of_its_own(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is measured without C doesn't replace what is measured with it."""
    monkeypatch.setattr(report, "RESULTS", tmp_path / "RESULTS.md")
    for accelerated in (True, False):
        monkeypatch.setattr(report, "ACCELERATED", accelerated)
        report.write_section(name.removesuffix(report.PURE), "## Title\n\nText")
    written = report.RESULTS.read_text(encoding="utf-8")
    plain = name.removesuffix(report.PURE)
    command = f"python -m benchmarks {plain}"
    assert f"<!-- {plain} -->\n## Title\n\n`{command}`\n\nText" in written
    assert f"<!-- {name} -->\n## Title, in pure Python\n\n`QUICKCACHE_PURE=1 {command}`\n\nText" in written
