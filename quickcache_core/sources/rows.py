"""What a row of a table is to a cache: its key, and the columns that a value is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from quickcache_core.errors import ConfigError


class Rows:
    """Of one table; see `TableSource` for the arguments. Raises `ConfigError` if there are no columns."""

    def __init__(
        self,
        value_columns: str | Sequence[str],
        parse_key: Callable[[str], Any] | None,
        to_value: Callable[[dict[str, Any]], Any] | None,
        to_row: Callable[[Any], Mapping[str, Any]] | None,
    ) -> None:
        self._single = isinstance(value_columns, str)
        self.columns = (value_columns,) if isinstance(value_columns, str) else tuple(value_columns)
        if not self.columns:
            raise ConfigError("value_columns", value_columns, "give a column, or a list of columns")
        self._parse_key = parse_key
        self._to_value = to_value
        self._to_row = to_row

    def key(self, key: str) -> Any:
        """What a row has for a key of the cache. Raises `ValueError` if there can be no such row."""
        return key if self._parse_key is None else self._parse_key(key)

    def keys(self, keys: Sequence[str]) -> dict[Any, str]:
        """The keys of the cache by those of the rows; without those that can't have a row."""
        by_row_key: dict[Any, str] = {}
        for key in keys:
            try:
                by_row_key[self.key(key)] = key
            except ValueError:
                pass
        return by_row_key

    def value(self, cells: Sequence[Any]) -> Any:
        """Of the columns, in their order."""
        if self._to_value is None and self._single:
            return cells[0]
        row = dict(zip(self.columns, cells, strict=True))
        return row if self._to_value is None else self._to_value(row)

    def row(self, value: Any, table: object) -> Mapping[str, Any]:
        """All columns. Raises `TypeError`, which names the table, for a value that gives others."""
        if self._to_row is None and self._single:
            return {self.columns[0]: value}
        row = value if self._to_row is None else self._to_row(value)
        if not isinstance(row, Mapping) or set(row) != set(self.columns):
            raise TypeError(
                f"a value for {table} is a dictionary of {', '.join(self.columns)}; "
                "for anything else give the source a to_row"
            )
        return row
