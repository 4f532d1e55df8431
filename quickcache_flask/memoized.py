"""`@memoize`: what a function returns, by its arguments, in the manner of Flask-Caching's decorator."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar, overload

from flask_caching import Cache, cache_memoize_hit, cache_memoize_miss

from quickcache_core.decorators import Bound, Cached, Missed, Tags
from quickcache_core.decorators.keys import is_method
from quickcache_core.fingerprint import shortened, stable_form
from quickcache_core.loading.context import LoaderContext
from quickcache_flask.decorators import CachePlace

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
T = TypeVar("T")


def memoize(
    cache: Cache,
    timeout: float | timedelta | None = None,
    *,
    tags: Tags = (),
    ignore: Collection[str] = (),
    version: str | int | None = None,
    unless: Callable[..., object] | None = None,
    **options: Any,
) -> MemoizeDecorator:
    """Keep what a function or method returns, in a cache of Flask-Caching, by its arguments.

    `quickcache_flask.decorators.cached` with what Flask-Caching's users know: `delete_memoized`, also of one
    instance, and its signals, where `CACHE_ENABLE_SIGNALS` is set. The signature is looked at once, here.
    Keys are made of values that are the same in every process, never of `repr()`; other arguments raise
    `UnstableArgument`, `self` among them, unless `ignore` names them.

    Raises `ConfigError`, `TypeError` and `ValueError` here; calls raise `RuntimeError` if the backend isn't a
    QuickCache.
    """
    place = CachePlace(cache, timeout, options)
    return MemoizeDecorator(
        cache, place, {"tags": tags, "ignore": ignore, "version": version, "unless": unless}
    )


class Memoized(Cached[P, R]):
    """What `@memoize` makes of a function."""

    def __init__(
        self, cache: Cache, function: Callable[P, R], place: CachePlace, settings: Mapping[str, Any]
    ) -> None:
        super().__init__(function, place, **settings)
        self._cache = cache
        names = self._keys.parameters.names
        self._by_instance = (
            is_method(function) and names[:1] == ("self",) and "self" not in settings["ignore"]
        )
        if self._by_instance:
            self._tags_results = True

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._cache.enable_signals or not self._is_plain:
            told: R = self._told(args, kwargs)
            return told
        # As there, without the way there.
        found: Any = self._find(self._key_of(args, kwargs), self._generations)
        if found.__class__ is Missed:
            found = self._place.fill(found, self._loader(args, kwargs))
        return found  # type: ignore[no-any-return]

    def delete_memoized(self) -> None:
        """Forget all results, as in Flask-Caching."""
        self.invalidate_all()

    def forget_instance(self, instance: object) -> None:
        """Forget all results of the method of one instance, in constant time. Raises `TypeError` if it is no
        method whose instances count.
        """
        if not self._by_instance:
            raise TypeError(f"{self._keys.name} keeps no results by instance; use invalidate_all()")
        self._place.cache(None).invalidate_tags(self._tag_of(instance))

    def _tag_of(self, instance: object) -> str:
        return shortened(f"method:{self._keys.name}:{stable_form(instance)}")

    def _tag(self, context: LoaderContext, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        super()._tag(context, args, kwargs)
        if self._by_instance:
            context.add_tags(self._tag_of(args[0] if args else kwargs["self"]))

    def _told(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """A call that listeners hear of."""
        if not self._is_plain:
            if self._cache.enable_signals and not (self._unless and self._unless(*args, **kwargs)):
                key, namespace = self._located(args, kwargs)
                self._tell(self._place.cache(namespace).has(key), key, args, kwargs)
            return self._called(args, kwargs)
        found = self._find(self._key_of(args, kwargs), self._generations)
        is_hit = found.__class__ is not Missed
        self._tell(is_hit, self._located(args, kwargs)[0], args, kwargs)
        return found if is_hit else self._place.fill(found, self._loader(args, kwargs))

    def _tell(self, is_hit: bool, key: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        signal = cache_memoize_hit if is_hit else cache_memoize_miss
        signal.send(cache=self._cache, f=self.__wrapped__, cache_key=key, args=args, kwargs=kwargs)


class MemoizedClassMethod(Memoized[P, R]):
    """Made of a `classmethod`: the class is the first argument."""

    def __get__(self, instance: object | None, owner: type | None = None) -> Any:
        return Bound(self, type(instance) if owner is None else owner)


class MemoizedStaticMethod(Memoized[P, R]):
    """Made of a `staticmethod`: nothing is bound."""

    def __get__(self, instance: object | None, owner: type | None = None) -> Any:
        return self


class MemoizeDecorator:
    """What `memoize(...)` gives; makes a `Memoized` of a function."""

    def __init__(self, cache: Cache, place: CachePlace, settings: Mapping[str, Any]) -> None:
        self._cache = cache
        self._place = place
        self._settings = settings

    @overload
    def __call__(self, function: staticmethod[P, T]) -> Memoized[P, T]: ...

    @overload
    def __call__(self, function: classmethod[Any, P, T]) -> Any: ...

    @overload
    def __call__(self, function: Callable[P, T]) -> Memoized[P, T]: ...

    def __call__(self, function: Any) -> Any:
        kind: type[Memoized[Any, Any]] = Memoized
        if isinstance(function, classmethod):
            kind, function = MemoizedClassMethod, function.__func__
        elif isinstance(function, staticmethod):
            kind, function = MemoizedStaticMethod, function.__func__
        return kind(self._cache, function, self._place, self._settings)


def delete_memoized(function: Any, *args: Any, **kwargs: Any) -> None:
    """Forget the result of a call with these arguments; without any all results of the function, and of a
    method of an instance (`basket.total`) all that belong to this instance.
    """
    if isinstance(function, Bound) and isinstance(function.__func__, Memoized):
        if args or kwargs:
            function.invalidate(*args, **kwargs)
        elif isinstance(function.__func__, MemoizedClassMethod):
            function.invalidate_all()
        else:
            function.__func__.forget_instance(function.__self__)
    elif isinstance(function, Memoized):
        if args or kwargs:
            function.invalidate(*args, **kwargs)
        else:
            function.invalidate_all()
    else:
        raise TypeError(f"delete_memoized({function!r}): give a function that is decorated with memoize")
