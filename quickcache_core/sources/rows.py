"""What a row of a table is to a cache: its key, and the columns that a value is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from unicodedata import combining, normalize

from quickcache_core.errors import ConfigError


def found(
    by_row_key: Mapping[Any, Sequence[str]], fetch: Callable[[list[Any]], Iterable[Sequence[Any]]]
) -> Iterator[tuple[str, Sequence[Any]]]:
    """Each key of the cache that has a row, and the row: `fetch` gives those of a list of keys of rows, each
    beginning with its own.

    A database may take for equal what Python tells apart, such as sofa and Sofa in a column that compares
    without case. Only it knows, so keys without a row of exactly that key are asked for one by one, if there
    are rows that may be theirs.
    """
    row_keys = list(by_row_key)
    rows = {row[0]: row for row in fetch(row_keys)}
    if len(row_keys) == 1:
        rows = dict(zip(row_keys, rows.values(), strict=False))
    without = [row_key for row_key in row_keys if row_key not in rows]
    if without and rows:
        is_strange = any(row_key not in by_row_key for row_key in rows)
        folded = set(map(_folded, rows))
        for row_key in without:
            if is_strange or _folded(row_key) in folded:
                for row in fetch([row_key]):
                    rows[row_key] = row
    for row_key in row_keys:
        if row_key in rows:
            for key in by_row_key[row_key]:
                yield key, rows[row_key]


def _folded(row_key: Any) -> Any:
    """Without what columns may ignore: case, accents, spaces at the ends."""
    if not isinstance(row_key, str):
        return row_key
    apart = normalize("NFKD", row_key).casefold()
    return "".join(each for each in apart if not combining(each)).strip()


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

    def keys(self, keys: Sequence[str]) -> dict[Any, list[str]]:
        """The keys of the cache by those of the rows: several may be spellings of one, such as 1 and 01.
        Without those that can't have a row.
        """
        by_row_key: dict[Any, list[str]] = {}
        for key in keys:
            try:
                by_row_key.setdefault(self.key(key), []).append(key)
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
