"""A table of a database, through SQLAlchemy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from quickcache_core.entry import MISSING
from quickcache_core.errors import ConfigError
from quickcache_core.sources.base import BaseSource

_MANY: Final = 500
"""Keys in one statement; every database takes as many parameters."""


class SQLAlchemySource(BaseSource):
    """Rows of a table, each under the text of its key; as `TableSource`, with an engine's connections.

    Written with what the database has for it: `ON CONFLICT` in SQLite and PostgreSQL, `ON DUPLICATE KEY` in
    MySQL and MariaDB; elsewhere an update, and an insert if there was nothing to update.
    """

    def __init__(
        self,
        engine: Any,
        table: Any,
        key_column: str,
        value_columns: str | Sequence[str],
        *,
        parse_key: Callable[[str], Any] | None = None,
        to_value: Callable[[dict[str, Any]], Any] | None = None,
        to_row: Callable[[Any], Mapping[str, Any]] | None = None,
    ) -> None:
        """`engine`: an `Engine`; not an asynchronous one. `table`: a `Table`, or a name, which is then looked
        up in the database now. The rest as with `TableSource`. Raises `ConfigError`.
        """
        try:
            import sqlalchemy
        except ImportError as error:
            raise ConfigError("engine", engine, "this needs SQLAlchemy: pip install sqlalchemy") from error
        if isinstance(table, str):
            schema, _, name = table.rpartition(".")
            table = sqlalchemy.Table(name, sqlalchemy.MetaData(), schema=schema or None, autoload_with=engine)
        self._single = isinstance(value_columns, str)
        columns = (value_columns,) if isinstance(value_columns, str) else tuple(value_columns)
        for column in (key_column, *columns):
            if column not in table.c:
                raise ConfigError(
                    "value_columns", column, f"table {table.name} has {', '.join(table.c.keys())}"
                )
        self._sql = sqlalchemy
        self._engine = engine
        self._table = table
        self._key = table.c[key_column]
        self._columns = columns
        self._parse_key = parse_key
        self._to_value = to_value
        self._to_row = to_row
        self.name = f"table:{table.fullname}"

    def load(self, key: str) -> Any:
        return self.load_many((key,)).get(key, MISSING)

    def load_many(self, keys: Sequence[str]) -> Mapping[str, Any]:
        by_row_key: dict[Any, str] = {}
        for key in keys:
            try:
                by_row_key[self._row_key(key)] = key
            except ValueError:
                pass
        row_keys = list(by_row_key)
        select = self._sql.select(self._key, *(self._table.c[column] for column in self._columns))
        found = {}
        with self._engine.begin() as connection:
            for start in range(0, len(row_keys), _MANY):
                some = row_keys[start : start + _MANY]
                for row in connection.execute(select.where(self._key.in_(some))):
                    found[by_row_key[row[0]]] = self._value(row[1:])
        return found

    def store(self, key: str, value: Any) -> None:
        self.store_many({key: value})

    def store_many(self, values: Mapping[str, Any]) -> None:
        rows = [{self._key.name: self._row_key(key), **self._row(value)} for key, value in values.items()]
        if not rows:
            return
        with self._engine.begin() as connection:
            upsert = self._upsert()
            if upsert is not None:
                connection.execute(upsert, rows)
            else:
                for row in rows:
                    self._update_or_insert(connection, row)

    def remove(self, key: str) -> None:
        try:
            row_key = self._row_key(key)
        except ValueError:
            return
        with self._engine.begin() as connection:
            connection.execute(self._sql.delete(self._table).where(self._key == row_key))

    def _upsert(self) -> Any:
        dialect = self._engine.dialect.name
        if dialect in ("sqlite", "postgresql"):
            from importlib import import_module

            insert = import_module(f"sqlalchemy.dialects.{dialect}").insert(self._table)
            changes = {column: insert.excluded[column] for column in self._columns}
            return insert.on_conflict_do_update(index_elements=[self._key], set_=changes)
        if dialect in ("mysql", "mariadb"):
            from sqlalchemy.dialects import mysql

            ours = mysql.insert(self._table)
            return ours.on_duplicate_key_update({column: ours.inserted[column] for column in self._columns})
        return None

    def _update_or_insert(self, connection: Any, row: dict[str, Any]) -> None:
        changes = {column: row[column] for column in self._columns}
        update = self._sql.update(self._table).where(self._key == row[self._key.name]).values(changes)
        if not connection.execute(update).rowcount:
            connection.execute(self._sql.insert(self._table).values(row))

    def _row_key(self, key: str) -> Any:
        return key if self._parse_key is None else self._parse_key(key)

    def _value(self, cells: Sequence[Any]) -> Any:
        if self._to_value is None and self._single:
            return cells[0]
        row = dict(zip(self._columns, cells, strict=True))
        return row if self._to_value is None else self._to_value(row)

    def _row(self, value: Any) -> Mapping[str, Any]:
        if self._to_row is None and self._single:
            return {self._columns[0]: value}
        row = value if self._to_row is None else self._to_row(value)
        if not isinstance(row, Mapping) or set(row) != set(self._columns):
            raise TypeError(
                f"a value for {self._table.name} is a dictionary of {', '.join(self._columns)}; "
                "for anything else give the source a to_row"
            )
        return row
