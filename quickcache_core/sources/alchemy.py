"""A table of a database, through SQLAlchemy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from quickcache_core.entry import MISSING
from quickcache_core.errors import ConfigError
from quickcache_core.sources.base import BaseSource
from quickcache_core.sources.rows import Rows, found

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
        self._rows = Rows(value_columns, parse_key, to_value, to_row)
        for column in (key_column, *self._rows.columns):
            if column not in table.c:
                raise ConfigError(
                    "value_columns", column, f"table {table.name} has {', '.join(table.c.keys())}"
                )
        self._sql = sqlalchemy
        self._engine = engine
        self._table = table
        self._key = table.c[key_column]
        self.name = f"table:{table.fullname}"

    def load(self, key: str) -> Any:
        return self.load_many((key,)).get(key, MISSING)

    def load_many(self, keys: Sequence[str]) -> Mapping[str, Any]:
        by_row_key = self._rows.keys(keys)
        with self._engine.begin() as connection:
            rows = list(found(by_row_key, partial(self._found, connection)))
        return {key: self._rows.value(row[1:]) for key, row in rows}

    def _found(self, connection: Any, keys: list[Any]) -> Iterator[Sequence[Any]]:
        select = self._sql.select(self._key, *(self._table.c[column] for column in self._rows.columns))
        for start in range(0, len(keys), _MANY):
            yield from connection.execute(select.where(self._key.in_(keys[start : start + _MANY])))

    def store(self, key: str, value: Any) -> None:
        self.store_many({key: value})

    def store_many(self, values: Mapping[str, Any]) -> None:
        name = self._table.name
        rows = [
            {self._key.name: self._rows.key(key), **self._rows.row(value, name)}
            for key, value in values.items()
        ]
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
            row_key = self._rows.key(key)
        except ValueError:
            return
        with self._engine.begin() as connection:
            connection.execute(self._sql.delete(self._table).where(self._key == row_key))

    def _upsert(self) -> Any:
        dialect = self._engine.dialect.name
        if dialect in ("sqlite", "postgresql"):
            from importlib import import_module

            insert = import_module(f"sqlalchemy.dialects.{dialect}").insert(self._table)
            changes = {column: insert.excluded[column] for column in self._rows.columns}
            return insert.on_conflict_do_update(index_elements=[self._key], set_=changes)
        if dialect in ("mysql", "mariadb"):
            from sqlalchemy.dialects import mysql

            ours = mysql.insert(self._table)
            return ours.on_duplicate_key_update(
                {column: ours.inserted[column] for column in self._rows.columns}
            )
        return None

    def _update_or_insert(self, connection: Any, row: dict[str, Any]) -> None:
        changes = {column: row[column] for column in self._rows.columns}
        update = self._sql.update(self._table).where(self._key == row[self._key.name]).values(changes)
        if not connection.execute(update).rowcount:
            connection.execute(self._sql.insert(self._table).values(row))
