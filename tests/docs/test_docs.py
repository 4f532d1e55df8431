"""README and docs do what they say: their Python runs, their commands, options, files and links exist."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.run_blocks import blocks

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
SHELL = {"console", "bash", "sh", "shell"}
KNOWN_LANGUAGES = SHELL | {
    "python",
    "py",
    "pycon",
    "json",
    "toml",
    "html",
    "text",
    "ini",
    "mermaid",
    "diff",
    "make",
}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@every_page
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    """Each page's Python runs from its first line to its last, warnings being errors."""
    runner = ROOT / "tests" / "docs" / "run_blocks.py"
    result = subprocess.run(
        [sys.executable, "-W", "error", runner, page],
        cwd=tmp_path,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            "QUICKCACHE_RUNTIME_DIR": str(tmp_path / "run"),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@every_page
def test_blocks_are_marked(page: Path) -> None:
    """Each block has a language that these tests know, and what is not run says why."""
    for block in blocks(page.read_text(encoding="utf-8")):
        assert block.language in KNOWN_LANGUAGES, f"{page.name}:{block.line}: language {block.language!r}"
        assert block.not_run is None or len(block.not_run) > 10, (
            f"{page.name}:{block.line}: say why it is not run"
        )


@every_page
def test_shell_commands_exist(page: Path) -> None:
    """What a reader is told to type exists: make targets, commands with their options, files, extras."""
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language in SHELL:
            for command in commands(block.code, prompted=block.language == "console"):
                check_command(command, f"{page.name}:{block.line}: {command}")


@every_page
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    """A relative link names a file that is there."""
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@every_page
def test_links_to_headings_lead_somewhere(page: Path) -> None:
    """A link with a # names a heading of its page, in the spelling that GitHub gives it."""
    for target, heading in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            found = headings(page.parent / target if target else page)
            assert heading in found, f"{page.name} links to {target}#{heading}; there are {sorted(found)}"


def headings(page: Path) -> set[str]:
    """The names by which links find the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_readme_leads_to_every_page() -> None:
    """Whoever begins there finds all that is written."""
    linked = set(re.findall(r"\]\((docs/[^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert linked == {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}


def commands(code: str, *, prompted: bool) -> Iterator[str]:
    """The command lines of a shell block; `console` blocks mark them with `$`, the rest there is output."""
    for line in code.replace("\\\n", " ").splitlines():
        if prompted and not line.startswith("$ "):
            continue
        for command in re.split(r"&&|\|\||[;|]", line.removeprefix("$ ")):
            if command.partition("#")[0].strip():
                yield command.partition("#")[0].strip()


def check_command(command: str, where: str) -> None:
    words = shlex.split(command)
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    name = Path(words[0]).name if words else ""
    if name == "make":
        targets = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        assert set(targets) <= make_targets(), where
    elif name in {"flask", "django-admin"} or any(word.endswith("manage.py") for word in words):
        check_framework_command(words, where)
    elif name.startswith("python"):
        check_python_call(words[1:], where)
    elif name == "pip":
        check_extras(words, where)


def make_targets() -> set[str]:
    (line,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return set(line.split())


def check_framework_command(words: list[str], where: str) -> None:
    """`quickcache_*` of Django and `quickcache` of Flask have to accept the words that follow."""
    if "quickcache" in words:
        place = words.index("quickcache")
        group = importlib.import_module("quickcache_flask.cli").quickcache
        if len(words) > place + 1:
            subcommand = group.commands.get(words[place + 1])
            assert subcommand is not None, where
            if "--help" not in words:
                subcommand.make_context(words[place + 1], words[place + 2 :])
    for place, word in enumerate(words):
        if word.startswith("quickcache_"):
            module = importlib.import_module(f"quickcache_django.management.commands.{word}")
            if "--help" not in words:
                module.Command().create_parser("manage.py", word).parse_args(words[place + 1 :])


def check_python_call(arguments: list[str], where: str) -> None:
    if arguments[:2] == ["-m", "pip"]:
        check_extras(arguments[1:], where)
    elif arguments and arguments[0].endswith(".py"):
        assert list(ROOT.glob(f"**/{arguments[0]}")), where


def check_extras(words: list[str], where: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word in words:
        if found := re.match(r"quickcache[-_\w]*(?:\[(?P<extras>.*)\])?", word):
            assert found[0].partition("[")[0] == project["name"], where
            asked = {extra.strip() for extra in (found["extras"] or "").split(",") if extra}
            assert asked <= project["optional-dependencies"].keys(), where
