"""`@cached` for functions of a Django project, and `@cached_view` for its views."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from django.apps import apps
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.db.models import Manager, Model, QuerySet
from django.utils.datastructures import MultiValueDict
from django.utils.functional import Promise
from django.utils.safestring import SafeString

from quickcache_core import NoStableForm, register_stable_form
from quickcache_core import QuickCache as Engine
from quickcache_core.decorators import Decorator, Loader, Missed, Tags, check_options, numbered
from quickcache_django.aliases import backend_of
from quickcache_django.backend import QuickCache
from quickcache_django.conf import NOT_KEPT, engine_ttl
from quickcache_django.views import cached_view

__all__ = ["cached", "cached_view"]


def cached(
    key: str | None = None,
    *,
    alias: str = "default",
    timeout: Any = DEFAULT_TIMEOUT,
    tags: Tags = (),
    ignore: Collection[str] = (),
    namespace: str | None = None,
    version: str | int | None = None,
    unless: Callable[..., object] | None = None,
    **options: Any,
) -> Decorator:
    """Keep what a function or method returns, in the cache of an alias, by its arguments.

    As `quickcache_core.cached`, for coroutine functions as well. Model instances count by model and primary
    key. The alias is looked up for each call, so that settings may be overridden; its KEY_PREFIX, VERSION and
    KEY_FUNCTION hold. `timeout` is what it is in Django: seconds, None for never, 0 for not at all, and the
    alias's TIMEOUT if it is left out. `version` is that of the function.

    Raises `ConfigError`, `TypeError` and `ValueError` here; calls raise `ImproperlyConfigured` if the alias
    isn't a QuickCache.
    """
    return Decorator(
        AliasPlace(alias, timeout, options),
        key=key,
        tags=tags,
        ignore=ignore,
        namespace=namespace,
        version=version,
        unless=unless,
    )


class AliasPlace:
    """A cache of `CACHES`, as a `quickcache_core.decorators.Place`."""

    def __init__(self, alias: str, timeout: Any, options: Mapping[str, Any]) -> None:
        self._alias = alias
        self._timeout = timeout
        self._options: Any = dict(options)
        ttl = None if timeout is DEFAULT_TIMEOUT else engine_ttl(timeout)
        check_options(None if ttl is NOT_KEPT else ttl, options)

    def engine(self) -> Engine:
        return self._backend().engine

    def cache(self, namespace: str | None) -> QuickCache:
        return self._backend() if namespace is None else self._backend().namespace(namespace)

    def find(self, key: str, generations: str | None) -> Missed:
        # The backend knows best, also a subclass that keeps values in a form of its own.
        backend = self._backend()
        return Missed(
            backend, key if generations is None else numbered(key, backend.engine, generations), None
        )

    def fill(self, missed: Missed, loader: Loader) -> Any:
        return missed.cache.get_or_set(missed.key, loader, self._timeout, **self._options)

    def get_or_set(self, key: str, loader: Loader, namespace: str | None) -> Any:
        return self.cache(namespace).get_or_set(key, loader, self._timeout, **self._options)

    async def aget_or_set(self, key: str, loader: Loader, namespace: str | None) -> Any:
        return await self.cache(namespace).aget_or_set(key, loader, self._timeout, **self._options)

    def refresh(self, key: str, loader: Loader, namespace: str | None) -> Any:
        return self.cache(namespace).refresh(key, loader, self._timeout, **self._options)

    async def arefresh(self, key: str, loader: Loader, namespace: str | None) -> Any:
        return await self.cache(namespace).arefresh(key, loader, self._timeout, **self._options)

    def delete(self, key: str, namespace: str | None) -> bool:
        return self.cache(namespace).delete(key)

    def _backend(self) -> QuickCache:
        return backend_of(self._alias)


def _row(instance: Model) -> tuple[str, Any]:
    if instance.pk is None or instance.pk == "":
        raise NoStableForm(type(instance), "isn't saved and has no primary key; save it before")
    return instance._meta.label, instance.pk


def _query(query: object) -> object:
    raise NoStableForm(
        type(query), "is a query that wasn't made; pass what it filters by, or a list of primary keys"
    )


register_stable_form(Model, _row)
register_stable_form(QuerySet, _query)
register_stable_form(Manager, _query)
register_stable_form(MultiValueDict, lambda values: {key: list(items) for key, items in values.lists()})
register_stable_form(SafeString, lambda text: "".join(text))
# In the language that is active at the call, as the function would see it.
register_stable_form(Promise, str)


def register_users() -> None:
    """Let `AnonymousUser` stand in keys, which can be imported when the apps are ready only."""
    if apps.models_ready and apps.is_installed("django.contrib.auth"):
        from django.contrib.auth.models import AnonymousUser

        register_stable_form(AnonymousUser, _nobody)


def _nobody(user: object) -> str:
    return "anonymous"


register_users()
