"""`flask quickcache warm`."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cachelib.serializers import BaseSerializer
from click.testing import Result
from flask import Flask

from quickcache_core.testing import ManualClock
from quickcache_flask import QuickCache
from quickcache_flask.cli import quickcache

ROOT = Path(__file__).resolve().parents[2]


def mapping() -> dict[str, int]:
    return {"a": 1, "b": 2}


def pairs() -> Iterator[tuple[str, Any]]:
    yield "a", [1]
    yield "b", "refused"


def keys() -> Any:
    return ["a", "b"], str.upper


def failing() -> Any:
    return ["a", "b"], lambda key: int(key, 11)


@pytest.fixture(autouse=True)
def _module(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("shop_warming")
    vars(module).update(globals())
    monkeypatch.setitem(sys.modules, "shop_warming", module)


def run(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(quickcache, ["warm", *arguments])


def test_values(app: Flask, make_backend: Any) -> None:
    """They are stored under the app's prefix, with the default timeout."""
    backend = make_backend(
        CACHE_OPTIONS={"location": "warm"}, CACHE_KEY_PREFIX="app:", CACHE_DEFAULT_TIMEOUT=50
    )
    result = run(app, "shop_warming:mapping")
    assert (result.exit_code, "cache1: 2 stored, 0 skipped, 0 failed" in result.output) == (0, True)
    assert backend.get_many("a", "b") == [1, 2]
    assert sorted(backend.engine.keys()) == ["app:a", "app:b"]
    assert backend.engine.ttl("app:a") == 50
    backend.engine.clear()


def test_keys_with_a_loader(app: Flask, backend: QuickCache) -> None:
    """The loader is called for keys that aren't there, unless all is to be overwritten."""
    backend.set("b", "theirs")
    assert "1 stored, 1 skipped" in run(app, "shop_warming:keys", "--threads", "2").output
    assert backend.get_many("a", "b") == ["A", "theirs"]
    assert "2 stored" in run(app, "shop_warming:keys", "--overwrite", "--timeout", "7").output
    assert (backend.get("b"), backend.engine.ttl("b")) == ("B", 7)


class Choosy(BaseSerializer):
    def dumps(self, value: Any) -> bytes | None:  # type: ignore[override]
        return None if value == "refused" else repr(value).encode()

    def loads(self, data: bytes) -> str:  # type: ignore[override]
        return f"loaded {data.decode()}"


def test_serializer(app: Flask, backend: QuickCache) -> None:
    """Values go through the app's own, pairs and what a loader gives; what it refuses is skipped."""
    backend.serializer = Choosy()
    assert "1 stored, 1 skipped" in run(app, "shop_warming:pairs").output
    assert backend.get_many("a", "b") == ["loaded [1]", None]
    assert "1 stored, 1 skipped" in run(app, "shop_warming:keys").output
    assert backend.get("b") == "loaded 'B'"


def test_backup(app: Flask, make_backend: Any, clock: ManualClock, tmp_path: Path) -> None:
    """What isn't there comes back with the time it had left."""
    backend = make_backend(CACHE_QUICKCACHE_SECRET="a secret of these tests")
    backend.set_many({"a": 1, "b": 1}, timeout=50)
    backend.engine.backup(tmp_path / "backups")
    backend.clear()
    backend.set("a", 2)
    clock.advance(10)
    assert "1 stored, 1 skipped" in run(app, "--backup", str(tmp_path / "backups")).output
    assert backend.get_many("a", "b") == [2, 1]
    assert backend.engine.ttl("b") == 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--backup FILE"),
        (["shop_warming:mapping", "--backup", "."], "--backup FILE"),
        (["shop_warming:other"], "no function 'other'"),
        (["--backup", "no such file"], "no such file"),
        (["shop_warming:mapping", "--cache", "cache7"], "cache7"),
        (["shop_warming:mapping", "--timeout", "0"], "timeout"),
        (["shop_warming:failing"], "1 keys failed"),
    ],
)
def test_what_goes_wrong(app: Flask, backend: QuickCache, arguments: list[str], message: str) -> None:
    """The command ends with an error that says what to do."""
    result = run(app, *arguments)
    assert result.exit_code != 0
    assert message in result.output


def test_several_caches(app: Flask, make_backend: Any) -> None:
    """One has to be chosen: what belongs in one of them would only take room in the others."""
    first, second = make_backend(), make_backend()
    result = run(app, "shop_warming:mapping")
    assert (result.exit_code, "cache1, cache2" in result.output) == (2, True)
    assert run(app, "shop_warming:mapping", "--cache", "cache2").exit_code == 0
    assert (first.get("a"), second.get("a")) == (None, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(
        f"""
from flask import Flask
from flask_caching import Cache

app = Flask(__name__)
app.secret_key = "a key of these tests"
CACHE = {{"CACHE_TYPE": "quickcache_flask.QuickCache", "CACHE_THRESHOLD": 200_000}}
OPTIONS = {{"location": "shared://{tmp_path}/cache", "max_bytes": 16_000_000}}
shared = Cache(app, config={{**CACHE, "CACHE_OPTIONS": OPTIONS}})
memory = Cache(app, config=CACHE)

def products():
    return (f"k{{n}}" for n in range(20_000)), str.upper
"""
    )
    return tmp_path


def flask(folder: Path, *arguments: str, **how: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "flask", "quickcache", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "QUICKCACHE_RUNTIME_DIR": str(folder / "run"), "TERM": "xterm"},
        **how,
    )


def test_typed_into_a_shell(folder: Path) -> None:
    """Scope shared is warm for the workers that start afterwards; for scope memory it says what to do."""
    with flask(folder, "warm", "app:products", "--cache", "cache1", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"cache1: 20,000 stored" in process.stdout.read()
    assert process.returncode == 0
    with flask(folder, "warm", "app:products", "--cache", "cache2", stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert b"shared://" in process.stderr.read()
    assert process.returncode == 1


def test_on_a_terminal(folder: Path) -> None:
    """A bar shows how it goes, and the rate."""
    terminal, inside = pty.openpty()
    with flask(folder, "warm", "app:products", "--cache", "cache1", stdout=inside, stderr=inside) as process:
        os.close(inside)
        shown = b""
        while True:
            try:
                shown += os.read(terminal, 65_536)
            except OSError:  # the other end is closed
                break
    os.close(terminal)
    assert process.returncode == 0
    assert "━".encode() in shown
    assert b"20000/" in shown
    assert b"/s" in shown
    assert b"cache1: 20,000 stored" in shown
