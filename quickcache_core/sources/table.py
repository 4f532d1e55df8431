"""A table of a database, through any driver that follows DB-API 2.0 (PEP 249)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal, TypeVar

from quickcache_core import checks
from quickcache_core.entry import MISSING
from quickcache_core.errors import ConfigError
from quickcache_core.sources.base import BaseSource
from quickcache_core.sources.rows import Rows, found

T = TypeVar("T")

Paramstyle = Literal["qmark", "format", "pyformat", "numeric", "named"]
_PARAMSTYLES: Final = ("qmark", "format", "pyformat", "numeric", "named")
_MANY: Final = 500
"""Keys in one statement; every database takes as many parameters."""
_CONNECTION_ERRORS: Final = {"OperationalError", "InterfaceError"}
"""Names that DB-API gives to errors of the connection, in any driver."""


class TableSource(BaseSource):
    """Rows of a table, each under the text of its key.

    A value is a dictionary of `value_columns`, or the value of that one column if it is given as a string.
    Rows are written with `INSERT ... ON CONFLICT ... DO UPDATE`, as SQLite and PostgreSQL understand it, each
    batch in a transaction; the key's column needs a unique index. Every thread has a connection of its own.
    One that failed is dropped; if it was an old one, and it was the connection's fault, the work is done
    once more on a new one.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        table: str,
        key_column: str,
        value_columns: str | Sequence[str],
        *,
        paramstyle: Paramstyle = "qmark",
        parse_key: Callable[[str], Any] | None = None,
        to_value: Callable[[dict[str, Any]], Any] | None = None,
        to_row: Callable[[Any], Mapping[str, Any]] | None = None,
    ) -> None:
        """`connect` makes a connection; `paramstyle` is that of the driver's module (psycopg: "format").

        `parse_key` turns a cache's key into that of the row, such as `int`; a `ValueError` of it means that
        there is no such row. `to_value` and `to_row` turn a row, as a dictionary, into a value and back.

        Names are quoted, and may have a schema before a dot. Nothing is opened yet. Raises `ConfigError`.
        """
        checks.one_of("paramstyle", paramstyle, _PARAMSTYLES)
        self._rows = Rows(value_columns, parse_key, to_value, to_row)
        self._connect = connect
        self._paramstyle = paramstyle
        self.name = f"table:{table}"
        self._table = ".".join(quoted(part) for part in table.split("."))
        self._key = quoted(key_column)
        self._select = f"SELECT {self._key}, {', '.join(map(quoted, self._rows.columns))} FROM {self._table}"  # noqa: S608 - quoted
        self._upsert = self._upsert_statement()
        self._delete = f"DELETE FROM {self._table} WHERE {self._key} = {self._mark(1)}"  # noqa: S608
        self._local = threading.local()

    def _upsert_statement(self) -> str:
        names = [self._key, *map(quoted, self._rows.columns)]
        marks = ", ".join(self._mark(number) for number in range(1, len(names) + 1))
        changes = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
        return (
            f"INSERT INTO {self._table} ({', '.join(names)}) VALUES ({marks}) "  # noqa: S608 - quoted names
            f"ON CONFLICT ({self._key}) DO UPDATE SET {changes}"
        )

    def _mark(self, number: int) -> str:
        if self._paramstyle == "qmark":
            return "?"
        if self._paramstyle in ("format", "pyformat"):
            return "%s"
        return f":{number}" if self._paramstyle == "numeric" else f":p{number}"

    def _parameters(self, values: Sequence[Any]) -> Any:
        if self._paramstyle == "named":
            return {f"p{number}": value for number, value in enumerate(values, 1)}
        return tuple(values)

    # Source

    def load(self, key: str) -> Any:
        return self.load_many((key,)).get(key, MISSING)

    def load_many(self, keys: Sequence[str]) -> Mapping[str, Any]:
        by_row_key = self._rows.keys(keys)
        rows = self._with_cursor(lambda cursor: list(found(by_row_key, partial(self._found, cursor))))
        return {key: self._rows.value(row[1:]) for key, row in rows}

    def _found(self, cursor: Any, keys: list[Any]) -> Iterator[Sequence[Any]]:
        for start in range(0, len(keys), _MANY):
            some = keys[start : start + _MANY]
            marks = ", ".join(self._mark(number) for number in range(1, len(some) + 1))
            cursor.execute(f"{self._select} WHERE {self._key} IN ({marks})", self._parameters(some))
            yield from cursor.fetchall()

    def store(self, key: str, value: Any) -> None:
        self.store_many({key: value})

    def store_many(self, values: Mapping[str, Any]) -> None:
        rows = [self._parameters((self._rows.key(key), *self._cells(value))) for key, value in values.items()]
        if rows:
            self._with_cursor(lambda cursor: cursor.executemany(self._upsert, rows))

    def remove(self, key: str) -> None:
        try:
            row_key = self._rows.key(key)
        except ValueError:
            return
        self._with_cursor(lambda cursor: cursor.execute(self._delete, self._parameters((row_key,))))

    def close(self) -> None:
        """Close this thread's connection; the next use opens one. Those of other threads end with them."""
        self._local.held = None

    # Rows, connections

    def _cells(self, value: Any) -> list[Any]:
        row = self._rows.row(value, self._table)
        return [row[column] for column in self._rows.columns]

    def _with_cursor(self, work: Callable[[Any], T]) -> T:
        """Carry out the work in a transaction of its own."""
        held: _Held | None = getattr(self._local, "held", None)
        if held is not None and held.pid == os.getpid():
            try:
                return self._attempt(held, work)
            except Exception as error:
                self._local.held = None
                if not _CONNECTION_ERRORS.intersection(cls.__name__ for cls in type(error).__mro__):
                    raise
        if held is not None and held.pid != os.getpid():
            held.connection = None  # the parent's: closing it would tell the server
        held = self._local.held = _Held(self._connect())
        try:
            return self._attempt(held, work)
        except BaseException:
            self._local.held = None
            raise

    def _attempt(self, held: _Held, work: Callable[[Any], T]) -> T:
        cursor = held.connection.cursor()
        try:
            answer = work(cursor)
        except BaseException:
            held.connection.rollback()
            raise
        finally:
            cursor.close()
        # Reads too: a transaction left open would go on seeing the past.
        held.connection.commit()
        return answer


class _Held:
    """A connection that is closed when nobody has it any more, such as at the end of its thread."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.pid = os.getpid()

    def __del__(self) -> None:
        if self.connection is None or self.pid != os.getpid():
            return
        try:
            self.connection.close()
        except Exception:  # noqa: S110 - it is broken, or of another thread; there is nothing to be done
            pass


def quoted(name: str) -> str:
    """A name in SQL, whatever characters it has. Raises `ConfigError`."""
    if not name or "\0" in name:
        raise ConfigError("name", name, "give the name of a table or column")
    return '"' + name.replace('"', '""') + '"'
