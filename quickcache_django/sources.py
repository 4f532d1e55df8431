"""A Django model as the source of a cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import close_old_connections, connections, models, router, transaction

from quickcache_core import MISSING, ConfigError
from quickcache_core.sources import BaseSource
from quickcache_core.sources.rows import found


class ModelSource(BaseSource):
    """Rows of a model, each under the text of one of its fields.

    A value is a dictionary of the fields, by the names of their columns in the model, such as `author_id`.
    Many rows are read with one query and written with one `bulk_create(update_conflicts=True)`, in a
    transaction: `save()` and the signals of the model are not called. In background threads connections are
    closed as at the end of a request.
    """

    def __init__(
        self,
        model: type[models.Model],
        key_field: str = "pk",
        fields: Sequence[str] | None = None,
        *,
        using: str | None = None,
    ) -> None:
        """`key_field`: a unique field; keys that it can't have are rows that don't exist. `fields`: those of
        the value; None: all others. `using`: the database; None: what the routers say. Raises `ConfigError`.
        """
        meta = model._meta
        try:
            key = meta.pk if key_field == "pk" else meta.get_field(key_field)
        except FieldDoesNotExist as error:
            raise ConfigError("key_field", key_field, f"{meta.label} has no such field") from error
        if not isinstance(key, models.Field) or not key.unique:
            raise ConfigError("key_field", key_field, "give a unique field, such as the primary key")
        known = {field.attname: field for field in meta.concrete_fields if field is not key}
        if fields is None:
            # A number that the database gives is no part of the value.
            fields = [name for name, field in known.items() if not field.primary_key]
        for name in fields:
            if name not in known:
                raise ConfigError("fields", name, f"{meta.label} has {', '.join(known)}")
        self._model = model
        self._key = key
        self._fields = tuple(fields)
        self._using = using
        self.name = f"model:{meta.label_lower}.{key.attname}"

    def load(self, key: str) -> Any:
        return self.load_many((key,)).get(key, MISSING)

    def load_many(self, keys: Sequence[str]) -> Mapping[str, Any]:
        by_row_key: dict[Any, list[str]] = {}
        for key in keys:
            try:
                by_row_key.setdefault(self._key.to_python(key), []).append(key)
            except (ValidationError, ValueError):
                pass
        if not by_row_key:
            return {}
        return {
            key: dict(zip(self._fields, row[1:], strict=True)) for key, row in found(by_row_key, self._found)
        }

    def _found(self, row_keys: list[Any]) -> Iterator[Sequence[Any]]:
        using = self._using or router.db_for_read(self._model)
        most = connections[using].features.max_query_params or len(row_keys)
        for start in range(0, len(row_keys), most):
            some = row_keys[start : start + most]
            rows = self._model._base_manager.using(using).filter(**{f"{self._key.attname}__in": some})
            yield from rows.values_list(self._key.attname, *self._fields)

    def store(self, key: str, value: Any) -> None:
        self.store_many({key: value})

    def store_many(self, values: Mapping[str, Any]) -> None:
        rows = []
        for key, value in values.items():
            if not isinstance(value, Mapping) or set(value) != set(self._fields):
                raise TypeError(
                    f"a value for {self._model._meta.label} is a dictionary of {', '.join(self._fields)}"
                )
            rows.append(self._model(**{self._key.attname: self._key.to_python(key)}, **value))
        if not rows:
            return
        using = self._using or router.db_for_write(self._model)
        names_its_key = connections[using].features.supports_update_conflicts_with_target
        with transaction.atomic(using=using):
            manager = self._model._base_manager.using(using)
            if self._fields:
                manager.bulk_create(
                    rows,
                    update_conflicts=True,
                    unique_fields=[self._key.name] if names_its_key else None,
                    update_fields=[
                        field.name
                        for field in self._model._meta.concrete_fields
                        if field.attname in self._fields
                    ],
                )
            else:
                manager.bulk_create(rows, ignore_conflicts=True)

    def remove(self, key: str) -> None:
        try:
            row_key = self._key.to_python(key)
        except (ValidationError, ValueError):
            return
        using = self._using or router.db_for_write(self._model)
        self._model._base_manager.using(using).filter(**{self._key.attname: row_key}).delete()

    def release(self) -> None:
        close_old_connections()
