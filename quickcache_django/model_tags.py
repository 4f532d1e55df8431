"""Tags that follow the rows of models: entries that were made of rows leave when these change."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeVar, overload

from django.apps import apps
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.db import models, router, transaction
from django.db.models.expressions import RawSQL
from django.db.models.fields.related import lazy_related_operation
from django.db.models.query import Prefetch, RawQuerySet
from django.db.models.signals import class_prepared, m2m_changed, post_delete, post_save
from django.db.models.sql import Query
from django.db.models.sql.where import ExtraWhere

from quickcache_django.backend import QuickCache
from quickcache_django.commit import when_committed

__all__ = ["InvalidatingManager", "InvalidatingQuerySet", "changed", "invalidate_on_change", "tags_for"]

AnyModel = type[models.Model]
M = TypeVar("M", bound=models.Model)
C = TypeVar("C", bound=AnyModel)

_TOLD: Final = (models.CASCADE, models.PROTECT, models.RESTRICT, models.DO_NOTHING)
"""Where a row refers to one that is deleted, with these: what happens to it, if anything, sends signals."""


def tags_for(*sources: Any) -> tuple[str, ...]:
    """The tags of an entry that is made of these: model classes, instances, querysets and managers.

    A class stands for all of its rows; an instance for its own; a queryset for all rows of all models that
    it takes data from: those that it joins, asks in subqueries, selects and prefetches as related. For a
    queryset this costs about as much as making its SQL, and no query; it isn't evaluated. Where that counts,
    name the models.

    Raises `TypeError` for anything else, and for raw SQL, whose tables nobody knows; `ValueError` for an
    instance that isn't saved.
    """
    tags: dict[str, None] = {}
    for source in sources:
        if isinstance(source, models.Model):
            tags.update(dict.fromkeys(_tags_of_row(source)))
        elif isinstance(source, type) and issubclass(source, models.Model):
            tags.update(dict.fromkeys(_tags_of_models((source,))))
        elif isinstance(source, models.QuerySet | models.Manager):
            tags.update(dict.fromkeys(_tags_of_models(_models_in(source.all()))))
        else:
            raise TypeError(
                f"{source!r}: give a model, an instance, a queryset or a manager"
                + ("; of raw SQL name the models" if isinstance(source, RawQuerySet) else "")
            )
    return tuple(tags)


@overload
def invalidate_on_change(model: C, /) -> C: ...
@overload
def invalidate_on_change(
    *models: AnyModel, aliases: Collection[str] | None = None, namespaces: Collection[str] = ()
) -> Callable[[C], C]: ...
def invalidate_on_change(
    *models: AnyModel, aliases: Collection[str] | None = None, namespaces: Collection[str] = ()
) -> Any:
    """Invalidate the tags of rows, and of their models, when rows are saved or deleted, and when
    many-to-many relations change. Called with models, or as the decorator of one.

    It happens when the transaction is committed, see `AfterCommit`; an error of the cache is logged and
    breaks no save. Proxies and models that inherit from one are covered, and so are those of an abstract one.
    `aliases`: the caches; None for all in `CACHES` that are QuickCaches. `namespaces`: of these caches,
    besides the caches themselves: a namespace has tags of its own.

    What sends no signal needs `InvalidatingManager` or `changed`: `update`, `bulk_create`, raw SQL, and what
    the database does by itself. As with any listener, a `delete` of many rows fetches them first.
    """
    where = _Where(None if aliases is None else tuple(aliases), tuple(namespaces))

    def watch(model: C) -> C:
        places = _watched.setdefault(model, [])
        if where not in places:
            places.append(where)
        _listen(model)
        return model

    for model in models:
        watch(model)
    return models[0] if len(models) == 1 and aliases is None and not namespaces else watch


def changed(*sources: Any, using: str | None = None) -> None:
    """Have all entries leave that are made of these, as `invalidate_on_change` does: model classes, after raw
    SQL for example, instances, and querysets or managers, which stand for all rows of their model.

    When the transaction of the database `using` is committed; None for the one that a router, or `using` of
    the queryset, names for writing.
    """
    for source in sources:
        if isinstance(source, models.Model):
            database = using or router.db_for_write(type(source), instance=source)
            _invalidate((type(source),), _tags_of_change(source), database)
        else:
            model = source.model if isinstance(source, models.QuerySet | models.Manager) else source
            if not (isinstance(model, type) and issubclass(model, models.Model)):
                raise TypeError(f"{source!r}: give a model, an instance, a queryset or a manager")
            _invalidate((model,), _tags_of_bulk(model), using or _written_to(source))


def _written_to(source: Any) -> str:
    """The database that rows of a model, a queryset or a manager are written to."""
    if isinstance(source, type):
        return router.db_for_write(source)
    return source._db or router.db_for_write(source.model, **source._hints)


class InvalidatingQuerySet(models.QuerySet[M]):
    """Whose `update`, `bulk_update`, `bulk_create` and `delete` call `changed`, since most of these send no
    signal. All entries leave that were made of any row of the model.
    """

    def update(self, **values: Any) -> int:
        count = super().update(**values)
        if count:
            changed(self.model, using=self.db)
        return count

    update.alters_data = True  # type: ignore[attr-defined]

    def bulk_create(self, objs: Iterable[M], *args: Any, **kwargs: Any) -> list[M]:
        created = super().bulk_create(objs, *args, **kwargs)
        if created:
            changed(self.model, using=self.db)
        return created

    def delete(self) -> tuple[int, dict[str, int]]:
        outcome = super().delete()
        if outcome[0]:
            # Unlike the others, it doesn't make this very queryset one for writing.
            changed(self)
        return outcome

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]


InvalidatingManager = models.Manager.from_queryset(InvalidatingQuerySet, "InvalidatingManager")
"""As `objects` of a model: `objects = InvalidatingManager()`."""


# Names of tags


def _tags_of_models(those: Iterable[AnyModel]) -> Iterator[str]:
    for model in those:
        for one in _lineage(model):
            yield one._meta.label_lower


def _tags_of_row(instance: models.Model) -> Iterator[str]:
    """Those of an entry. The second is for changes of many rows at once, whose keys nobody knows."""
    for name, key in _rows(instance):
        yield f"{name}:{key}"
        yield f"{name}:*"


def _tags_of_change(instance: models.Model) -> Iterator[str]:
    for name, key in _rows(instance):
        yield name
        yield f"{name}:{key}"


def _tags_of_bulk(model: AnyModel) -> Iterator[str]:
    for name in _tags_of_models((model,)):
        yield name
        yield f"{name}:*"


def _rows(instance: models.Model) -> Iterator[tuple[str, str]]:
    """The rows that an instance consists of: one per table."""
    for model in _lineage(type(instance)):
        pk = model._meta.pk
        key = getattr(instance, pk.attname)
        if key is None or key == "":
            raise ValueError(f"{instance!r} isn't saved and has no primary key; save it before")
        # "7" may stand where 7 will come back from the database.
        yield model._meta.label_lower, str(key if isinstance(key, tuple) else pk.to_python(key))


def _lineage(model: AnyModel) -> list[AnyModel]:
    """The models whose tables have its rows."""
    concrete: AnyModel = model._meta.concrete_model or model
    return [concrete, *concrete._meta.get_parent_list()]


# What a queryset takes data from


def _models_in(queryset: models.QuerySet[Any]) -> set[AnyModel]:
    found: set[AnyModel] = {queryset.model}
    for table in _tables_in(queryset.query, queryset.db):
        found.update(_models_by_table(_models_known()).get(table, ()))
    for lookup in queryset._prefetch_related_lookups:  # type: ignore[attr-defined]
        if isinstance(lookup, Prefetch):
            if lookup.queryset is not None:
                found |= _models_in(lookup.queryset)
            found |= _models_on_the_way(queryset.model, lookup.prefetch_through)
        else:
            found |= _models_on_the_way(queryset.model, lookup)
    return found


def _tables_in(query: Query, using: str) -> set[str]:
    query = query.clone()
    if query.extra or query.extra_tables:
        raise TypeError("extra() takes data from tables that nobody knows; name the models instead")
    tables: set[str] = set()
    if query.combined_queries:
        for combined in query.combined_queries:
            tables |= _tables_in(combined, using)
        return tables
    # What is selected as related is joined by the compiler only.
    query.get_compiler(using=using).pre_sql_setup()
    tables |= {table.table_name for table in query.alias_map.values()}
    for part in (query.where, *query.annotations.values(), *query.order_by):
        for nested in _queries_in(part):
            tables |= _tables_in(nested, using)
    return tables


def _queries_in(part: Any) -> Iterator[Query]:
    if isinstance(part, RawSQL | ExtraWhere):
        raise TypeError("raw SQL takes data from tables that nobody knows; name the models instead")
    if isinstance(part, Query):
        yield part
        return
    nested = getattr(part, "query", None)
    if isinstance(nested, Query):
        yield nested
    for inner in getattr(part, "children", ()):
        yield from _queries_in(inner)
    sources = getattr(part, "get_source_expressions", None)
    for inner in sources() if sources is not None else ():
        yield from _queries_in(inner)


def _models_on_the_way(model: AnyModel, path: str) -> set[AnyModel]:
    """Those of a chain of relations, by the names that instances have them under."""
    found: set[AnyModel] = set()
    for name in path.split("__"):
        for field in model._meta.get_fields(include_hidden=True):
            accessor = getattr(field, "get_accessor_name", None)
            if name == (field.name if accessor is None else accessor()):
                break
        else:
            raise TypeError(f"{path!r} is no relation of {model._meta.label}; name the models instead")
        related = field.related_model
        if not (isinstance(related, type) and issubclass(related, models.Model)):
            raise TypeError(f"{path!r} leads to any model; name those that count instead")
        relation = field if field.auto_created else getattr(field, "remote_field", None)
        through = getattr(relation, "through", None)
        found |= {related} if through is None else {related, through}
        model = related
    return found


def _models_known() -> int:
    return sum(map(len, apps.all_models.values()))


@lru_cache(maxsize=1)
def _models_by_table(known: int) -> dict[str, list[AnyModel]]:
    """`known`, the number of all models, tells an answer that is still right."""
    tables: dict[str, list[AnyModel]] = {}
    for those in apps.all_models.values():
        for model in those.values():
            if not model._meta.proxy:
                tables.setdefault(model._meta.db_table, []).append(model)
    return tables


# Signals


@dataclass(frozen=True)
class _Where:
    """What is invalidated when a model changes."""

    aliases: tuple[str, ...] | None = None
    namespaces: tuple[str, ...] = ()

    def caches(self) -> Iterator[tuple[object, QuickCache]]:
        """Each with what tells it from the others."""
        for alias in caches if self.aliases is None else self.aliases:
            cache = caches[alias]
            if isinstance(cache, QuickCache):
                yield alias, cache
                for name in self.namespaces:
                    yield (alias, name), cache.namespace(name)
            elif self.aliases is not None:
                raise ImproperlyConfigured(
                    f"CACHES[{alias!r}] is a {type(cache).__name__}; tags need "
                    '"BACKEND": "quickcache_django.QuickCache"'
                )


_watched: dict[AnyModel, list[_Where]] = {}
_EVERYWHERE: Final = _Where()


def _places(those: Iterable[AnyModel]) -> list[_Where]:
    """Where to invalidate tags when one of these changes; nowhere, if nobody asked for it."""
    return list(
        dict.fromkeys(where for model in those for base in model.__mro__ for where in _watched.get(base, ()))
    )


def _invalidate(those: Iterable[AnyModel], tags: Iterable[str], using: str | None) -> None:
    names = dict.fromkeys(tags)
    waiting = transaction.get_connection(using).run_on_commit
    for where in _places(those) or (_EVERYWHERE,):
        for place, cache in where.caches():
            last = waiting[-1][1] if waiting else None
            wave = last.wave if isinstance(last, _Invalidation) else {}
            wave.setdefault(place, {}).update(names)
            call = _Invalidation(wave, place, cache)
            when_committed(call, f"{type(cache).__name__}.invalidate_tags", using, robust=True)


class _Invalidation:
    """What is called at the commit for one change and one cache.

    Changes that follow each other, with nothing else to be done in between, are a wave: the first whose turn
    comes has the tags of all invalidated together, in one round trip to a server. Those that were rolled back
    with a savepoint may be among them, which costs some misses.
    """

    def __init__(self, wave: dict[object, dict[str, None]], place: object, cache: QuickCache) -> None:
        self.wave = wave
        self._place = place
        self._cache = cache

    def __call__(self) -> None:
        tags = self.wave.pop(self._place, None)
        if tags:
            self._cache.invalidate_tags(*tags)


def _listen(model: AnyModel) -> None:
    """Hear of changes of a model and of those derived from it. Not of all: listeners make deletes slower."""
    for derived in model.__subclasses__():
        _listen(derived)
    meta = getattr(model, "_meta", None)
    if meta is None or meta.abstract:
        return
    post_save.connect(_row_changed, sender=model, dispatch_uid="quickcache_django")
    post_delete.connect(_row_changed, sender=model, dispatch_uid="quickcache_django")
    # Those of its parents too: they may not be watched.
    for field in meta.concrete_fields:
        if field.remote_field is not None and field.remote_field.on_delete not in _TOLD:
            # The field's own model, for which a name without an application was meant.
            lazy_related_operation(_refers, field.model, field.remote_field.model, watched=model)


_referring: dict[AnyModel, list[AnyModel]] = {}
"""By model: those whose rows are changed in silence when one of its rows is deleted."""


def _refers(_: AnyModel, related: AnyModel, watched: AnyModel) -> None:
    """Rows of `watched` are changed when a related one is deleted, with SET_NULL for example."""
    concrete: AnyModel = related._meta.concrete_model or related
    referring = _referring.setdefault(concrete, [])
    if watched not in referring:
        referring.append(watched)
    _listen_to_deletes(watched, concrete)


def _listen_to_deletes(model: AnyModel, related: AnyModel) -> None:
    """Of a related model and its proxies: the sender of a delete is the class of the instance."""
    for derived in related.__subclasses__():
        if derived._meta.proxy:
            _listen_to_deletes(model, derived)

    def related_deleted(using: str, **_: Any) -> None:
        changed(model, using=using)

    post_delete.connect(
        related_deleted,
        sender=related,
        weak=False,
        dispatch_uid=f"quickcache_django {model._meta.label}",
    )


def _class_prepared(sender: AnyModel, **_: Any) -> None:
    if any(base in _watched for base in sender.__mro__):
        _listen(sender)
    if sender._meta.proxy:
        for model in _referring.get(sender._meta.concrete_model or sender, ()):
            _listen_to_deletes(model, sender)


def _row_changed(instance: models.Model, using: str, **_: Any) -> None:
    _invalidate((type(instance),), _tags_of_change(instance), using)


def _relation_changed(
    sender: AnyModel,
    instance: models.Model,
    action: str,
    model: AnyModel,
    pk_set: set[Any] | None,
    using: str,
    **_: Any,
) -> None:
    if action not in ("post_add", "post_remove", "pre_clear") or not _places((type(instance), model)):
        return
    # Before a clear, while it can be told whom it is about; it is a transaction, so this waits for its end.
    keys = _others(sender, instance, model, using) if pk_set is None else pk_set
    tags = [*_tags_of_models((sender, model)), *_tags_of_change(instance)]
    for one in _lineage(model):
        tags += [f"{one._meta.label_lower}:{key}" for key in keys]
    _invalidate((type(instance), model), tags, using)


def _others(through: AnyModel, instance: models.Model, model: AnyModel, using: str) -> set[Any]:
    """The keys of the rows that an instance is related to."""
    keys: set[Any] = set()
    links = [
        (field, field.remote_field.model)
        for field in through._meta.local_concrete_fields
        if field.remote_field is not None
    ]
    for here, from_model in links:
        if isinstance(instance, from_model):
            rows = through._base_manager.using(using).filter(**{here.name: instance})
            for there, to_model in links:
                if issubclass(model, to_model):
                    keys.update(rows.values_list(there.attname, flat=True))
    return keys


class_prepared.connect(_class_prepared, dispatch_uid="quickcache_django")
m2m_changed.connect(_relation_changed, dispatch_uid="quickcache_django")
