"""Nothing that exists is missing from the documentation."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import re
from pathlib import Path

import pytest

from quickcache_core import QuickCacheConfig
from quickcache_flask.cli import quickcache as flask_group

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
COMMANDS = sorted(
    path.stem for path in (ROOT / "quickcache_django/management/commands").glob("quickcache_*.py")
)
FLASK_COMMANDS = flask_group.commands


@pytest.fixture(scope="module")
def documented() -> set[str]:
    """What stands in code marks or code blocks, word by word, over all pages."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    code = re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)
    return set(re.findall(r"--[a-z][\w-]*|[\w.]+", "\n".join(code)))


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(QuickCacheConfig)])
def test_setting_is_documented(field: str, documented: set[str]) -> None:
    """Each setting of the core is documented, by its name or by the adapters' upper-case form."""
    assert field in documented or field.upper() in documented


def long_names(options: set[str]) -> set[str]:
    return {option for option in options if option.startswith("--")}


@pytest.mark.parametrize("name", COMMANDS)
def test_management_command_is_documented(name: str, documented: set[str]) -> None:
    """Each management command stands in the documentation with all options of its own."""
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(f"quickcache_django.management.commands.{name}").Command().add_arguments(parser)
    options = {
        option for action in parser._actions for option in action.option_strings if option.startswith("--")
    }
    assert {name, *long_names(options)} <= documented


def page_of_commands() -> set[str]:
    """The names and options that `docs/commands.md` has, word by word."""
    text = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    return set(re.findall(r"(?<![\w-])-{1,2}[a-z][\w-]*|\w+", text))


@pytest.mark.parametrize("name", COMMANDS)
def test_page_of_commands_has_all_of_django(name: str) -> None:
    """Each command with each of its options, in the spelling that is typed."""
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(f"quickcache_django.management.commands.{name}").Command().add_arguments(parser)
    options = {option for action in parser._actions for option in action.option_strings}
    assert {name, *options} <= page_of_commands()


@pytest.mark.parametrize("name", sorted(FLASK_COMMANDS))
def test_page_of_commands_has_all_of_flask(name: str) -> None:
    """Each command with each of its options, in the spelling that is typed."""
    options = {
        option for parameter in FLASK_COMMANDS[name].params for option in parameter.opts if option[:1] == "-"
    }
    assert {name, *options} <= page_of_commands()


@pytest.mark.parametrize("name", sorted(FLASK_COMMANDS))
def test_flask_command_is_documented(name: str, documented: set[str]) -> None:
    """Each `flask quickcache` command stands in the documentation with all its options."""
    options = {option for parameter in FLASK_COMMANDS[name].params for option in parameter.opts}
    assert {name, *long_names(options)} <= documented
