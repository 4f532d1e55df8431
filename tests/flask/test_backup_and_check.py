"""`flask quickcache backup`, `restore`, `check`; clearing by namespace and tag; completion in the shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from quickcache_flask.cli import quickcache

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _nobody_elses_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKCACHE_RUNTIME_DIR", str(tmp_path / "run"))


@pytest.fixture
def backend(app: Flask, make_backend: Any, tmp_path: Path) -> Any:
    app.secret_key = "a key of these tests, long enough to sign with"
    return make_backend(CACHE_THRESHOLD=77, CACHE_OPTIONS={"storage_dir": str(tmp_path / "stored")})


def run(app: Flask, *arguments: str, answer: str | None = None) -> Result:
    return app.test_cli_runner().invoke(quickcache, arguments, input=answer)


def test_there_and_back(app: Flask, backend: Any, tmp_path: Path) -> None:
    """The newest backup of the cache takes the place of what is there."""
    backend.set("k", 1)
    saved = run(app, "backup")
    assert (saved.exit_code, "cache1: 1 entry in " in saved.output) == (0, True)
    assert str(tmp_path / "stored" / "cache1") in saved.output
    backend.set("k", 2)
    asked = run(app, "restore", answer="n\n")
    assert (asked.exit_code, backend.get("k")) == (1, 2)
    assert "replace 1 entry by 1 entry" in asked.output
    assert "nothing was changed" in asked.output
    assert "confirm with --no-input" in run(app, "restore", answer="").output
    assert run(app, "restore", answer="y\n").exit_code == 0
    assert backend.get("k") == 1


def test_as_json(app: Flask, backend: Any, tmp_path: Path) -> None:
    """For programs."""
    backend.set("k", 1)
    [row] = json.loads(run(app, "backup", "--directory", str(tmp_path / "b"), "--json").stdout)["aliases"]
    assert Path(row["file"]).parent == tmp_path / "b" / "cache1"
    [row] = json.loads(run(app, "restore", row["file"], "-y", "--json").stdout)["aliases"]
    assert row["entries"] == 1
    [row] = json.loads(run(app, "clear", "--json").stdout)["aliases"]
    assert (row["alias"], row["removed"], row["workers"]) == ("cache1", 1, [os.getpid()])


def test_choice_between_several(app: Flask, backend: Any, make_backend: Any) -> None:
    """What replaces all entries has to be told of which cache."""
    make_backend()
    result = run(app, "restore", "--yes")
    assert (result.exit_code, "--cache" in result.output) == (2, True)


def test_errors(app: Flask, backend: Any, tmp_path: Path) -> None:
    """One line; with --traceback where it comes from, too."""
    result = run(app, "restore", str(tmp_path / "missing"), "--yes")
    assert result.exit_code == 1
    assert len(result.output.splitlines()) == 1
    assert result.output.startswith("Error: Failed to load the cache from")
    traced = run(app, "restore", str(tmp_path / "missing"), "--yes", "--traceback")
    assert (traced.exit_code, "Traceback" in traced.output) == (1, True)


def test_clear_a_namespace_or_tags(app: Flask, make_backend: Any) -> None:
    """By the names that the app has for them, in a store with a prefix as well."""
    backend = make_backend(CACHE_OPTIONS={"location": "tagged"}, CACHE_KEY_PREFIX="app:")
    drafts = backend.namespace("drafts")
    for one in (backend, drafts):
        one.set("plain", 1)
        one.set("tagged", 1, tags=["news"])
    assert run(app, "clear", "--namespace", "drafts", "--tag", "news").exit_code == 0
    assert (drafts.get("tagged"), drafts.get("plain"), backend.get("tagged")) == (None, 1, 1)
    run(app, "clear", "--tag", "other", "--tag", "news")
    assert (backend.get("tagged"), backend.get("plain")) == (None, 1)
    run(app, "clear", "--namespace", "drafts")
    assert (drafts.get("plain"), backend.get("plain")) == (None, 1)
    assert run(app, "clear", "--prefix", "a", "--tag", "b").exit_code == 2
    assert "namespace ''" in run(app, "clear", "--namespace", "").output


def test_check(app: Flask, backend: Any) -> None:
    """Each option with the setting that it comes from, secrets hidden."""
    result = run(app, "check", "--json")
    assert result.exit_code == 0
    [alias] = json.loads(result.stdout)["aliases"]
    assert {one["level"] for one in alias["findings"]} == {"ok"}
    rows = {row["name"]: (row["value"], row["source"]) for row in alias["options"]}
    assert rows["max_size"] == ("77", "CACHE_THRESHOLD")
    assert rows["storage_dir"][1] == 'CACHE_OPTIONS["storage_dir"]'
    assert rows["default_ttl"][1] == "default of CACHE_DEFAULT_TIMEOUT"
    assert rows["secret"] == ("(not shown)", "app.secret_key")
    assert "a key of these tests" not in result.output
    assert "No problems." in run(app, "check").output


def test_check_of_short_secret_keys(app: Flask, make_backend: Any, tmp_path: Path) -> None:
    """They are named where they would sign, and nowhere else."""
    app.secret_key = "dev"
    app.config["SECRET_KEY_FALLBACKS"] = ["a former key, long enough to sign with", "old"]
    shared = {"location": f"shared://{tmp_path}/c", "max_bytes": 4_000_000}
    for options in ({}, shared, {**shared, "serializer": "json"}):
        make_backend(CACHE_OPTIONS=options)
    said = [
        [one["says"] for one in alias["findings"] if "shorter than 16 bytes" in one["says"]]
        for alias in json.loads(run(app, "check", "--json").stdout)["aliases"]
    ]
    assert [len(each) for each in said] == [0, 2, 0]
    assert said[1][0].startswith("app.secret_key is")
    assert said[1][1].startswith("SECRET_KEY_FALLBACKS[1] is")


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    (tmp_path / "app.py").write_text(
        f"""
from flask import Flask
from flask_caching import Cache

app = Flask(__name__)
app.secret_key = "a key of these tests, long enough to sign with"
options = {{"location": "shared://{tmp_path}/cache", "max_bytes": 4_000_000}}
options["storage_dir"] = "{tmp_path}/stored"
Cache(app, config={{"CACHE_TYPE": "quickcache_flask.QuickCache", "CACHE_OPTIONS": options}})
Cache(app, config={{"CACHE_TYPE": "quickcache_flask.QuickCache"}})

def products():
    return {{"a": 1, "b": 2}}
"""
    )

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).with_name("flask"), *arguments],
            cwd=tmp_path,
            env={
                "PYTHONPATH": f"{tmp_path}:{ROOT}",
                "QUICKCACHE_RUNTIME_DIR": str(tmp_path / "run"),
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.mark.slow
def test_typed_into_a_shell(shell: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """Scope shared is saved and restored; memory is left out, or refused where it is asked for."""
    assert shell("quickcache", "warm", "app:products", "--cache", "cache1").returncode == 0
    saved = shell("quickcache", "backup")
    assert (saved.returncode, "cache1: 2 entries in" in saved.stdout) == (0, True)
    assert "cache2: left out" in saved.stderr
    refused = shell("quickcache", "backup", "--cache", "cache2")
    assert (refused.returncode, "scope memory" in refused.stderr) == (1, True)
    shell("quickcache", "clear", "--cache", "cache1")
    assert "2 entries from" in shell("quickcache", "restore", "--cache", "cache1", "--yes").stdout
    (tmp_path / "cache").chmod(0o777)
    wrong = shell("quickcache", "check", "--cache", "cache1")
    assert (wrong.returncode, "chmod 700" in wrong.stderr) == (1, True)
    assert len(wrong.stderr.splitlines()) == 1


@pytest.mark.slow
def test_completion(shell: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """The shell is told the names of the app's caches and their locations."""
    told = shell(
        _FLASK_COMPLETE="bash_complete", COMP_WORDS="flask quickcache clear --cache cache", COMP_CWORD="4"
    )
    assert told.stdout.splitlines() == ["plain,cache1", "plain,cache2"]
    told = shell(
        _FLASK_COMPLETE="bash_complete", COMP_WORDS="flask quickcache clear --cache shared", COMP_CWORD="4"
    )
    assert told.stdout.splitlines() == [f"plain,shared://{tmp_path}/cache"]
    (tmp_path / "app.py").write_text("raise RuntimeError")
    told = shell(
        _FLASK_COMPLETE="bash_complete", COMP_WORDS="flask quickcache clear --cache c", COMP_CWORD="4"
    )
    assert (told.stdout.strip(), "Traceback" in told.stderr) == ("", False)


def test_wrong_settings_in_one_line(tmp_path: Path) -> None:
    """An app that can't be made because of a setting is no traceback either."""
    (tmp_path / "app.py").write_text(
        """
from flask import Flask
from flask_caching import Cache
def create_app():
    app = Flask(__name__)
    Cache(app, config={"CACHE_TYPE": "quickcache_flask.QuickCache", "CACHE_OPTIONS": {"max_sise": 1}})
    return app
"""
    )
    done = subprocess.run(
        [sys.executable, "-m", "flask", "quickcache", "check"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "did you mean 'max_size'?" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_command_of_an_app_without_caches() -> None:
    """The remedy, for the new commands as well."""
    for command in ("backup", "restore", "check"):
        result = run(Flask("bare"), command)
        assert (result.exit_code, "CACHE_TYPE" in result.output) == (1, True)
