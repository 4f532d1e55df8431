"""`manage.py quickcache_warm`."""

from __future__ import annotations

import io
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.core.management import CommandError, call_command
from django.test import override_settings

from quickcache_core.testing import ManualClock

BACKEND = "quickcache_django.QuickCache"
ROOT = Path(__file__).resolve().parents[2]
loaded: list[Any] = []


def mapping() -> dict[str, int]:
    return {"a": 1, "b": 2}


def pairs() -> Iterator[tuple[str, int]]:
    yield from mapping().items()


def load(key: str) -> str:
    loaded.append(key)
    return key.upper()


async def aload(key: str) -> str:
    return load(key)


def keys() -> Any:
    return ["a", "b"], load


def keys_for_coroutines() -> Any:
    return ["a", "b"], aload


def many() -> Any:
    return (f"k{n}" for n in range(100_000)), str.upper


def failing() -> Any:
    return ["a", "b"], lambda key: int(key, 11)


def nothing() -> None: ...


@pytest.fixture(autouse=True)
def two_aliases(
    location: str, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    module = types.ModuleType("shop_warming")
    vars(module).update(globals())
    monkeypatch.setitem(sys.modules, "shop_warming", module)
    loaded.clear()
    entries = {
        "default": {
            "BACKEND": BACKEND,
            "LOCATION": f"{location} 1",
            "KEY_PREFIX": "shop",
            "TIMEOUT": 50,
            "OPTIONS": {"MAX_ENTRIES": 200_000, "CLOCK": clock, "STORAGE_DIR": str(tmp_path)},
        },
        "pages": {"BACKEND": BACKEND, "LOCATION": f"{location} 2", "OPTIONS": {"CLOCK": clock}},
        "keeps nothing": {"BACKEND": BACKEND, "LOCATION": f"{location} 3", "TIMEOUT": 0},
    }
    with override_settings(CACHES=entries):
        yield


def run(*args: Any) -> str:
    out = io.StringIO()
    call_command("quickcache_warm", *args, stdout=out, no_color=True)
    return out.getvalue()


@pytest.mark.parametrize("function", ["mapping", "pairs"])
def test_values(function: str) -> None:
    """They are stored under the alias's prefix and version, with its timeout."""
    assert "default: 2 stored, 0 skipped, 0 failed" in run(f"shop_warming:{function}")
    cache = caches["default"]
    assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
    assert sorted(cache.engine.keys()) == ["shop:1:a", "shop:1:b"]
    assert cache.engine.ttl("shop:1:a") == 50
    assert caches["pages"].engine.size() == 0


@pytest.mark.parametrize("function", ["keys", "keys_for_coroutines"])
def test_keys_with_a_loader(function: str) -> None:
    """The loader gets the keys as the application writes them, and only those that aren't there."""
    caches["default"].set("b", "theirs")
    assert "1 stored, 1 skipped" in run(f"shop_warming:{function}", "--threads", "2")
    assert loaded == ["a"]
    assert caches["default"].get_many(["a", "b"]) == {"a": "A", "b": "theirs"}
    assert "2 stored" in run(f"shop_warming:{function}", "--overwrite", "--timeout", "7")
    assert caches["default"].get("b") == "B"
    assert caches["default"].engine.ttl("shop:1:b") == 7


def test_aliases() -> None:
    """--alias chooses; each of several gets all."""
    run("shop_warming:pairs", "--alias", "pages")
    assert caches["default"].engine.size() == 0
    text = run("shop_warming:pairs", "--alias", "pages", "--alias", "default")
    assert "pages: 0 stored, 2 skipped" in text
    assert "default: 2 stored" in text


def test_a_hundred_thousand_keys() -> None:
    """They are warmed in one go, and the rate is shown."""
    text = run("shop_warming:many")
    assert "default: 100,000 stored, 0 skipped, 0 failed" in text
    assert text.strip().endswith("/s")
    assert caches["default"].engine.size() == 100_000
    assert caches["default"].get("k99999") == "K99999"


def test_backup(clock: ManualClock, tmp_path: Path) -> None:
    """Its keys are as they were stored; entries have the time they had left."""
    caches["default"].set_many({"a": 1, "b": 1})
    caches["default"].engine.backup(tmp_path)
    caches["default"].clear()
    caches["default"].set("a", 2)
    clock.advance(10)
    assert "1 stored, 1 skipped" in run("--backup", str(tmp_path))
    assert caches["default"].get_many(["a", "b"]) == {"a": 2, "b": 1}
    assert caches["default"].engine.ttl("shop:1:b") == 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--backup FILE"),
        (["shop_warming:mapping", "--backup", "x"], "--backup FILE"),
        (["shop_warming"], "a module and a function"),
        (["shop_warming:other"], "no function 'other'"),
        (["no_such_module:other"], "can't be imported"),
        (["shop_warming:nothing"], "has to give a mapping"),
        (["--backup", "no such file"], "no such file"),
        (["shop_warming:mapping", "--alias", "others"], "'others'"),
        (["shop_warming:mapping", "--alias", "keeps nothing"], "--timeout"),
        (["shop_warming:mapping", "--threads", "0"], "whole number above 0"),
        (["shop_warming:mapping", "--timeout", "0"], "seconds above 0"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str) -> None:
    """An error that says what to write."""
    with pytest.raises(CommandError, match=message):
        run(*arguments)


def test_timeout_where_nothing_is_kept() -> None:
    """With one of its own the entries are."""
    run("shop_warming:mapping", "--alias", "keeps nothing", "--timeout", "5")
    assert caches["keeps nothing"].get("a") == 1


def test_some_fail() -> None:
    """The others are stored, and the command ends with an error."""
    with pytest.raises(CommandError, match="1 keys failed"):
        run("shop_warming:failing")
    assert caches["default"].get("a") == 10


def test_typed_into_a_shell(tmp_path: Path) -> None:
    """Scope shared is warm for the workers that start afterwards; for scope memory it says what to do."""
    (tmp_path / "settings_of_shell.py").write_text(
        f"""
SECRET_KEY = "a key of these tests, long enough to sign with"
INSTALLED_APPS = ["quickcache_django"]
CACHES = {{
    "default": {{
        "BACKEND": "{BACKEND}",
        "LOCATION": "shared://{tmp_path}/cache",
        "OPTIONS": {{"MAX_BYTES": 4_000_000}},
    }},
    "memory": {{"BACKEND": "{BACKEND}"}},
}}

def products():
    return {{"a": 1, "b": 2}}
"""
    )

    def manage(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "django", *arguments, "--settings", "settings_of_shell"],
            cwd=tmp_path,
            env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "QUICKCACHE_RUNTIME_DIR": str(tmp_path / "run")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    done = manage("quickcache_warm", "settings_of_shell:products")
    assert (done.returncode, done.stderr) == (0, "")
    assert "default: 2 stored" in done.stdout
    assert ":1:a" in manage("quickcache_keys", "--alias", "default").stdout
    refused = manage("quickcache_warm", "settings_of_shell:products", "--alias", "memory")
    assert refused.returncode == 1
    assert "shared://" in refused.stderr
