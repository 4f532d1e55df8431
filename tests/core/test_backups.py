"""Backups as the commands make them, and the way back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from quickcache_core import CacheLoadError, ConfigError, QuickCache, QuickCacheConfig
from quickcache_core.commands.backups import (
    back_up,
    backup_folder,
    backup_line,
    chosen_backup,
    question,
    restore_backup,
    restored_line,
)
from quickcache_core.progress import busy, progress_bar
from quickcache_core.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def cache(clock: ManualClock, tmp_path: Path) -> QuickCache:
    return QuickCache(QuickCacheConfig(clock=clock, storage_dir=tmp_path / "stored"))


def nothing(line: str) -> None:
    raise AssertionError(line)


def test_there_and_back(cache: QuickCache, clock: ManualClock) -> None:
    """The newest of the alias's folder; what has expired meanwhile doesn't return."""
    cache.set("short", 1, ttl_sec=10)
    cache.set("long", 2, ttl_sec=1000)
    back_up("default", cache, None, nothing)
    clock.advance(1)
    cache.set("third", 3, ttl_sec=1000)
    row = back_up("default", cache, None, nothing)
    assert Path(row["file"]).parent == Path(str(cache.config.storage_dir), "default")
    assert (row["entries"], row["bytes"]) == (3, Path(row["file"]).stat().st_size)
    assert "3 entries" in backup_line(row)
    cache.clear()
    cache.set("newer", 1)
    clock.advance(10)
    chosen = chosen_backup("default", cache, None)
    assert str(chosen.file) == row["file"]
    text = question("default", cache, chosen)
    assert "replace 1 entry by 2 entries" in text
    assert "2023-11-14 22:13:21 UTC" in text
    restored = restore_backup("default", cache, chosen, nothing)
    assert sorted(cache) == ["long", "third"]
    assert (restored["entries_before"], restored["entries_in_file"], restored["entries"]) == (1, 2, 2)
    assert restored["saved_at"] == "2023-11-14T22:13:21+00:00"
    assert "2 entries from" in restored_line(restored)


def test_each_alias_has_a_folder(cache: QuickCache, clock: ManualClock, tmp_path: Path) -> None:
    """Files of all aliases have one name: the newest of one must not be taken for that of another."""
    for alias in ("a", "b"):
        cache.set("k", alias)
        back_up(alias, cache, tmp_path / "backups", nothing)
        clock.advance(1)
    restore_backup("a", cache, chosen_backup("a", cache, tmp_path / "backups"), nothing)
    assert cache.get("k") == "a"
    restore_backup("a", cache, chosen_backup("a", cache, tmp_path / "backups" / "b"), nothing)
    assert cache.get("k") == "b"


def test_backup_that_is_damaged(cache: QuickCache) -> None:
    """Nobody is asked about it."""
    cache.set("k", 1)
    file = Path(back_up("default", cache, None, nothing)["file"])
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(CacheLoadError, match="damaged"):
        chosen_backup("default", cache, None)


def test_entries_of_namespaces(cache: QuickCache) -> None:
    """They are counted as the others are, and what is kept beside them isn't."""
    drafts = cache.namespace("drafts")
    drafts.clear()
    drafts.set("k", 1)
    cache.set("k", 1)
    assert back_up("default", cache, None, nothing)["entries"] == 2
    assert chosen_backup("default", cache, None).entries == 2


@pytest.mark.parametrize("alias", ["..", "a/b", "a\0b", "", ".hidden", "ä", "a b", "\ud800"])
def test_alias_that_is_no_file_name(alias: str, cache: QuickCache, tmp_path: Path) -> None:
    """Its folder is inside the directory all the same, and no other alias's."""
    folder = backup_folder(alias, cache, tmp_path)
    assert folder.parent == tmp_path
    assert folder.name.isascii()
    assert folder.name.isprintable()
    assert folder not in {backup_folder(other, cache, tmp_path) for other in ("a", "a_b", "hidden", "_")}


def test_no_backup(cache: QuickCache, tmp_path: Path) -> None:
    """An error that says what to give."""
    with pytest.raises(CacheLoadError, match="give the file, or the directory"):
        chosen_backup("default", cache, None)
    with pytest.raises(CacheLoadError, match="check its name"):
        chosen_backup("default", cache, tmp_path / "no such file")
    (tmp_path / "foreign").write_text("{}")
    with pytest.raises(CacheLoadError, match="no QuickCache snapshot"):
        chosen_backup("default", cache, tmp_path / "foreign")


def test_nowhere_to_put_it(cache: QuickCache) -> None:
    """A user without a home directory is told to name one."""
    # As the configuration of such a user has it.
    object.__setattr__(cache.files.snapshots, "directory", None)
    with pytest.raises(ConfigError, match="storage_dir"):
        backup_folder("default", cache, None)


def test_what_takes_long_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line where there is no terminal, and none for what is quick."""
    said: list[str] = []
    with busy("saving", said.append):
        pass
    assert said == []
    monkeypatch.setattr("quickcache_core.progress._LINE_EVERY", 0.0)
    with busy("saving", said.append):
        while not said:
            pass
    assert said == ["saving ..."]


@pytest.mark.parametrize("rich", [True, False], ids=["no terminal", "no rich"])
def test_progress_in_lines(rich: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no bar can be drawn, how much is done, and of how much if that is known."""
    monkeypatch.setattr("quickcache_core.progress._LINE_EVERY", 0.0)
    if not rich:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setitem(sys.modules, "rich.progress", None)
    said: list[str] = []
    with progress_bar("warming", said.append) as show:
        show(1000, 2000)
        show(1500, None)
    assert said[0].startswith("warming: 1,000 of 2,000, ")
    assert said[1].startswith("warming: 1,500, ")
