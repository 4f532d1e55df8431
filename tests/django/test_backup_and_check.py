"""`manage.py quickcache_backup`, `quickcache_restore`, `quickcache_check`; clearing by namespace and tag."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.core.management import CommandError, call_command
from django.test import override_settings

from quickcache_core.testing import ManualClock

BACKEND = "quickcache_django.QuickCache"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def two_aliases(
    location: str, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    monkeypatch.setenv("QUICKCACHE_RUNTIME_DIR", str(tmp_path / "run"))
    options = {"CLOCK": clock, "STORAGE_DIR": str(tmp_path / "stored")}
    entries = {
        "default": {
            "BACKEND": BACKEND,
            "LOCATION": f"{location} 1",
            "KEY_PREFIX": "shop",
            "TIMEOUT": 50,
            "OPTIONS": {"MAX_ENTRIES": 77, "PUBLISH_AS": f"{location} 1", **options},
        },
        "pages": {"BACKEND": BACKEND, "LOCATION": f"{location} 2", "OPTIONS": options},
    }
    with override_settings(CACHES=entries):
        yield


def run(*args: Any) -> str:
    out = io.StringIO()
    call_command(*args, stdout=out, no_color=True)
    return out.getvalue()


def answered(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_there_and_back(tmp_path: Path) -> None:
    """Each alias gets back its own."""
    caches["default"].set("k", "shop")
    caches["pages"].set("k", "pages")
    text = run("quickcache_backup")
    assert "default: 1 entry in " in text
    assert str(tmp_path / "stored" / "pages") in text
    caches["default"].clear()
    caches["pages"].clear()
    restored = run("quickcache_restore", "--no-input", "--alias", "pages", "--alias", "default")
    assert "pages: 1 entry from " in restored
    assert "in place of 0" in restored
    assert (caches["default"].get("k"), caches["pages"].get("k")) == ("shop", "pages")


def test_as_json(tmp_path: Path) -> None:
    """For programs: files, entries, and nothing else on standard output."""
    caches["default"].set("k", 1)
    [row] = json.loads(
        run("quickcache_backup", "--alias", "default", "--directory", tmp_path / "b", "--json")
    )["aliases"]
    assert row["alias"] == "default"
    assert Path(row["file"]).parent == tmp_path / "b" / "default"
    assert row["bytes"] == Path(row["file"]).stat().st_size
    [row] = json.loads(run("quickcache_restore", row["file"], "--yes", "--json"))["aliases"]
    assert (row["entries"], row["entries_before"], row["entries_in_file"]) == (1, 1, 1)
    row = json.loads(run("quickcache_clear", "--json", "--alias", "pages"))["aliases"][0]
    assert (row["alias"], row["removed"], row["everywhere"]) == ("pages", 0, False)


@pytest.mark.parametrize("answer", ["n\n", "\n", "no way\n", ""])
def test_not_confirmed(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is changed, whatever is said but yes, or where nobody is there to answer."""
    caches["default"].set("k", 1)
    run("quickcache_backup")
    caches["default"].set("k", 2)
    answered(monkeypatch, answer)
    with pytest.raises(CommandError, match="nothing was changed" if answer else "--no-input"):
        run("quickcache_restore")
    assert caches["default"].get("k") == 2


def test_confirmed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What is asked says what will be lost, on standard error."""
    caches["default"].set("k", 1)
    run("quickcache_backup")
    caches["default"].set_many({"k": 2, "l": 2})
    answered(monkeypatch, "Yes\n")
    run("quickcache_restore")
    assert caches["default"].get_many(["k", "l"]) == {"k": 1}
    assert "replace 2 entries by 1 entry" in capsys.readouterr().err


def test_no_backup_there() -> None:
    """One line that says what to give; no half is done."""
    caches["pages"].set("k", 1)
    run("quickcache_backup", "--alias", "pages")
    caches["pages"].clear()
    with pytest.raises(CommandError, match="give the file, or the directory"):
        run("quickcache_restore", "--alias", "pages", "--alias", "default", "--yes")
    assert caches["pages"].get("k") is None


def test_clear_a_namespace_or_tags() -> None:
    """Those of the alias, by the names that the application has for them; everything else stays."""
    cache, drafts = caches["default"], caches["default"].namespace("drafts")
    for one in (cache, drafts):
        one.set_many({"plain": 1})
        one.set("tagged", 1, tags=["news"])
        one.set("other", 1, tags=["sport"])
    run("quickcache_clear", "--namespace", "drafts", "--tag", "news")
    assert sorted(drafts.get_many(["plain", "tagged", "other"])) == ["other", "plain"]
    assert cache.get("tagged") == 1
    run("quickcache_clear", "--tag", "news", "--tag", "none")
    assert sorted(cache.get_many(["plain", "tagged", "other"])) == ["other", "plain"]
    assert run("quickcache_clear", "--namespace", "drafts", "--alias", "pages").startswith("pages: cleared")
    assert drafts.get("plain") == 1
    assert "default: cleared in 1 worker" in run("quickcache_clear", "--namespace", "drafts")
    assert drafts.get("plain") is None
    assert cache.get("plain") == 1


@pytest.mark.parametrize("other", [["--namespace", "a"], ["--tag", "a"]])
def test_prefix_and_another_choice(other: list[str]) -> None:
    with pytest.raises(CommandError, match="excludes"):
        run("quickcache_clear", "--prefix", "a", *other)


def test_namespace_without_a_name() -> None:
    with pytest.raises(CommandError, match="default: namespace ''"):
        run("quickcache_clear", "--namespace", "")


def test_check() -> None:
    """Each option with the setting that it comes from."""
    report = json.loads(run("quickcache_check", "--json"))
    default, pages = report["aliases"]
    assert {one["level"] for one in default["findings"]} == {"ok"}
    sources = {row["name"]: (row["value"], row["source"]) for row in default["options"]}
    assert sources["MAX_SIZE"] == ("77", "CACHES['default']['OPTIONS']['MAX_ENTRIES']")
    assert sources["DEFAULT_TTL"] == ("50", "CACHES['default']['TIMEOUT']")
    assert sources["ISOLATION"] == ("'auto'", "default of quickcache_django")
    assert sources["SECRET"] == ("(not shown)", "SECRET_KEY")
    assert sources["LEASE"] == ("30.0", "default")
    theirs = {row["name"]: row["source"] for row in pages["options"]}
    assert theirs["DEFAULT_TTL"] == "Django's default"
    assert "a key of these tests" not in json.dumps(report)
    text = run("quickcache_check", "--alias", "pages")
    assert "options in force:" in text
    assert "default:" not in text.splitlines()[0]
    assert "No problems." in text


def test_check_of_wrong_settings() -> None:
    """All that is wrong, of each alias; those that are right are checked all the same."""
    entries = {
        "default": {"BACKEND": BACKEND, "TIMEOUT": "soon", "OPTIONS": {"MAX_ENTRYS": 5}},
        "fine": {"BACKEND": BACKEND, "LOCATION": "fine"},
        "one": {"BACKEND": BACKEND, "LOCATION": "policies", "OPTIONS": {"EVICTION_POLICY": "lru"}},
        "two": {"BACKEND": BACKEND, "LOCATION": "policies", "OPTIONS": {"EVICTION_POLICY": "lfu"}},
    }
    out = io.StringIO()
    with override_settings(CACHES=entries), pytest.raises(CommandError, match="3 problems found"):
        call_command("quickcache_check", stdout=out)
    text = out.getvalue()
    assert "MAX_ENTRYS" in text
    assert "TIMEOUT='soon'" in text
    assert "fine: fine, scope memory" in text


@pytest.fixture
def manage(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    (tmp_path / "settings_of_shell.py").write_text(
        f"""
SECRET_KEY = "a key of these tests, long enough to sign with"
INSTALLED_APPS = ["quickcache_django"]
CACHES = {{
    "default": {{
        "BACKEND": "{BACKEND}",
        "LOCATION": "shared://{tmp_path}/cache",
        "OPTIONS": {{"MAX_BYTES": 4_000_000, "STORAGE_DIR": "{tmp_path}/stored"}},
    }},
    "memory": {{"BACKEND": "{BACKEND}"}},
}}

def products():
    return {{"a": 1, "b": 2}}
"""
    )

    def run(*arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "django", *arguments, "--settings", "settings_of_shell"],
            cwd=tmp_path,
            env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "QUICKCACHE_RUNTIME_DIR": str(tmp_path / "run")},
            input=answer,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def interrupted(folder: Path) -> int:
    """The exit code of a command that Ctrl-C reaches while it asks."""
    with subprocess.Popen(
        [sys.executable, "-m", "django", "quickcache_restore", "--settings", "settings_of_shell"],
        cwd=folder,
        env={"PYTHONPATH": f"{folder}:{ROOT}", "QUICKCACHE_RUNTIME_DIR": str(folder / "run")},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        asked = ""
        while not asked.endswith("[y/N] "):
            letter = process.stderr.read(1)
            assert letter, asked
            asked += letter
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "CommandError: Interrupted.\n"
        return process.wait(30)


@pytest.mark.slow
def test_typed_into_a_shell(manage: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """Scope shared is saved and restored; memory is left out, or refused where it is asked for. Exit codes
    and errors are as documented.
    """
    assert manage("quickcache_warm", "settings_of_shell:products").returncode == 0
    saved = manage("quickcache_backup")
    assert saved.returncode == 0
    assert "default: 2 entries in " in saved.stdout
    assert "memory: left out" in saved.stderr
    refused = manage("quickcache_backup", "--alias", "memory")
    assert (refused.returncode, "quickcache_backup" in refused.stderr) == (1, True)
    manage("quickcache_clear", "--alias", "default")
    unconfirmed = manage("quickcache_restore")
    assert (unconfirmed.returncode, "--no-input" in unconfirmed.stderr) == (1, True)
    restored = manage("quickcache_restore", answer="y\n")
    assert (restored.returncode, "2 entries from" in restored.stdout) == (0, True)
    missing = manage("quickcache_restore", str(tmp_path / "missing"), "--yes")
    assert missing.returncode == 1
    assert len(missing.stderr.splitlines()) == 1
    traced = manage("quickcache_restore", str(tmp_path / "missing"), "--yes", "--traceback")
    assert (traced.returncode, "Traceback" in traced.stderr) == (1, True)
    assert manage("quickcache_restore", "--no-such-option").returncode == 2
    assert interrupted(tmp_path) == 130
    checked = manage("quickcache_check")
    assert (checked.returncode, "round trip: an entry was stored" in checked.stdout) == (0, True)
    (tmp_path / "cache").chmod(0o777)
    wrong = manage("quickcache_check")
    assert wrong.returncode == 1
    assert "chmod 700" in wrong.stdout
    assert len(wrong.stderr.splitlines()) == 1
