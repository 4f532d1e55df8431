"""Notes in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from notes.sample import sample_notes


@dataclass(frozen=True)
class Note:
    id: int
    title: str
    text: str


class Storage:
    """Opens the file anew for each call, so any thread may use it at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> list[Note]:
        with self._connection() as connection:
            return [
                Note(*row) for row in connection.execute("SELECT id, title, text FROM note ORDER BY id DESC")
            ]

    def get(self, note_id: int) -> Note | None:
        with self._connection() as connection:
            row = connection.execute("SELECT id, title, text FROM note WHERE id = ?", (note_id,)).fetchone()
        return Note(*row) if row else None

    def add(self, title: str, text: str) -> int:
        with self._connection() as connection:
            cursor = connection.execute("INSERT INTO note (title, text) VALUES (?, ?)", (title, text))
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def change(self, note_id: int, title: str, text: str) -> None:
        with self._connection() as connection:
            connection.execute("UPDATE note SET title = ?, text = ? WHERE id = ?", (title, text, note_id))

    def delete(self, note_id: int) -> None:
        with self._connection() as connection:
            connection.execute("DELETE FROM note WHERE id = ?", (note_id,))

    def fill_if_empty(self) -> None:
        with self._connection() as connection:
            # AUTOINCREMENT: the number of a deleted note is never given to another one, so no cached part of
            # the old note can appear under the new one.
            connection.execute(
                "CREATE TABLE IF NOT EXISTS note "
                "(id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT NOT NULL, text TEXT NOT NULL)"
            )
            if not connection.execute("SELECT EXISTS (SELECT 1 FROM note)").fetchone()[0]:
                connection.executemany("INSERT INTO note (title, text) VALUES (?, ?)", sample_notes())

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=10)
        try:
            with connection:
                yield connection
        finally:
            connection.close()
