"""`@cached`: a function whose results are kept."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Collection, Mapping
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from quickcache_core.decorators.keys import Keys, Tags, check_function, is_method
from quickcache_core.decorators.place import CachePlace, Loader, Missed, Place, next_generation, numbered
from quickcache_core.loading.context import LoaderContext
from quickcache_core.ttl import TTL
from quickcache_core.twins import called

if TYPE_CHECKING:
    from quickcache_core.cache import QuickCache

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R", covariant=True)
T = TypeVar("T")


class Cached(Generic[P, R]):
    """A function with a cache in front of it; what `@cached` makes.

    A call gives the cached result, else calls the function and stores what it returns; an exception is raised
    and not stored. The methods below take the arguments of a call, those with an `a` in front are for
    coroutines. On an instance (`page.render.invalidate(...)`) they leave out `self`, as calls do.
    """

    __wrapped__: Callable[..., Any]

    def __init__(
        self,
        function: Callable[P, R],
        place: Place,
        *,
        key: str | None = None,
        tags: Tags = (),
        ignore: Collection[str] = (),
        namespace: str | None = None,
        version: str | int | None = None,
        unless: Callable[..., object] | None = None,
    ) -> None:
        check_function(function, has_key=key is not None, has_namespace=namespace is not None)
        update_wrapper(self, function, updated=() if isinstance(function, Cached) else ("__dict__",))
        self._function = function
        self._place = place
        self._find = place.find
        self._keys = Keys(function, key, ignore, version)
        self._key_of = self._keys.key
        self._tags = self._keys.tags(tags)
        self._namespace = None if namespace is None else self._keys.template("namespace", namespace)
        # For `invalidate_all`. The keys of a template are those that it says, for everybody to find: a tag
        # makes them invalid. Others have a number in them, which costs a hit less. So have those in
        # namespaces that depend on the arguments, since the tags of a namespace are its own.
        name = f"function:{self._keys.name}"
        in_one_place = self._namespace is None or self._namespace.is_constant
        self._own_tag = name if key is not None and in_one_place else None
        self._generations = None if self._own_tag else name
        self._unless = unless
        self._wants_class = self._keys.parameters.names[:1] == ("cls",) and is_method(function)
        self._is_async = inspect.iscoroutinefunction(function)
        self._tags_results = self._tags is not None or self._own_tag is not None
        self._is_plain = not (self._is_async or unless or self._namespace)
        if self._is_async:
            _mark_as_coroutine_function(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if not self._is_plain:
            result: R = self._called(args, kwargs)
            return result
        # The same as there, for most functions, without a loader unless it is needed.
        found: Any = self._find(self._key_of(args, kwargs), self._generations)
        if found.__class__ is Missed:
            found = self._place.fill(found, self._loader(args, kwargs))
        return found  # type: ignore[no-any-return]

    def _called(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if self._is_async:
            return self._acalled(args, kwargs)
        if self._unless is not None and self._unless(*args, **kwargs):
            return self.__wrapped__(*args, **kwargs)
        key, namespace = self._located(args, kwargs)
        return self._place.get_or_set(key, self._loader(args, kwargs), namespace)

    async def _acalled(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if self._unless is not None and self._unless(*args, **kwargs):
            return await self.__wrapped__(*args, **kwargs)
        key, namespace = await self._aside(self._located, args, kwargs)
        return await self._place.aget_or_set(key, self._loader(args, kwargs), namespace)

    async def _aside(self, function: Callable[Q, T], /, *args: Q.args, **kwargs: Q.kwargs) -> T:
        return await called(self._place.engine().aside, function, *args, **kwargs)

    @property
    def uncached(self) -> Callable[P, R]:
        """The function itself."""
        return self._function

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of that call, within the namespace if there is one.

        Without a template it changes with `invalidate_all`, and so it does if the namespace has fields.
        Raises `UnstableArgument`, and `TypeError` for arguments that the function doesn't take.
        """
        return self._located(args, kwargs)[0]

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result of that call; whether there was one."""
        return self._place.delete(*self._located(args, kwargs))

    def invalidate_all(self) -> None:
        """Forget all results of the function, in constant time; also those of calls that are under way."""
        if self._generations is not None:
            next_generation(self._place.engine(), self._generations)
        else:
            namespace = None if self._namespace is None else self._namespace.render(())
            self._place.cache(namespace).invalidate_tags(self._own_tag)

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, whatever is cached, store the result and return it. If the function raises, what
        is cached stays.
        """
        if self._is_async:
            raise TypeError(f"{self._keys.name} is a coroutine function: await its arefresh(...)")
        key, namespace = self._located(args, kwargs)
        result: R = self._place.refresh(key, self._loader(args, kwargs), namespace)
        return result

    async def ainvalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        return await self._aside(self.invalidate, *args, **kwargs)

    async def ainvalidate_all(self) -> None:
        await self._aside(self.invalidate_all)

    async def arefresh(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        key, namespace = await self._aside(self._located, args, kwargs)
        return await self._place.arefresh(key, self._loader(args, kwargs), namespace)

    def _located(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[str, str | None]:
        """Key and namespace of a call."""
        if self._wants_class and not (args and isinstance(args[0], type)) and "cls" not in kwargs:
            # From Python 3.13 on a classmethod no longer binds what it was made of.
            raise TypeError(f"{self._keys.name}: no class is given; write @cached above @classmethod")
        key = self._keys.key(args, kwargs)
        if self._generations is not None:
            key = numbered(key, self._place.engine(), self._generations)
        if self._namespace is None:
            return key, None
        return key, self._namespace.render(self._keys.parameters.values(args, kwargs))

    def _loader(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Loader:
        if self._tags_results:
            return self._tagging(args, kwargs)
        function = self.__wrapped__
        if not self._is_async:
            return lambda: function(*args, **kwargs)

        async def load() -> Any:
            return await function(*args, **kwargs)

        return load

    def _tagging(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Loader:
        """A loader that makes the tags only when there is a result to be stored: hits don't pay for them."""
        function = self.__wrapped__

        def load(context: LoaderContext) -> Any:
            self._tag(context, args, kwargs)
            return function(*args, **kwargs)

        if not self._is_async:
            return load

        async def aload(context: LoaderContext) -> Any:
            return await load(context)

        return aload

    def _tag(self, context: LoaderContext, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if self._own_tag is not None:
            context.add_tags(self._own_tag)
        if self._tags is not None:
            context.add_tags(*self._tags(args, kwargs))

    # As a method

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...

    @overload
    def __get__(
        self: Cached[Concatenate[Any, Q], T], instance: object, owner: type | None = None
    ) -> Bound[Q, T]: ...

    def __get__(self, instance: object | None, owner: type | None = None) -> Any:
        return self if instance is None else Bound(self, instance)

    def __repr__(self) -> str:
        return f"<cached {self._keys.name}>"

    def __reduce__(self) -> str:
        # As functions are pickled and copied: by the name under which they are found again.
        return str(self.__wrapped__.__qualname__)


class Bound(Generic[P, R]):
    """A cached function as a method of an instance, or of a class."""

    __slots__ = ("__func__", "__self__")

    def __init__(self, function: Cached[Any, R], instance: object) -> None:
        self.__func__ = function
        self.__self__ = instance

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.__func__(self.__self__, *args, **kwargs)

    @property
    def uncached(self) -> Callable[P, R]:
        method: Callable[P, R] = self.__func__.uncached.__get__(self.__self__)
        return method

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        return self.__func__.key(self.__self__, *args, **kwargs)

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        return self.__func__.invalidate(self.__self__, *args, **kwargs)

    def invalidate_all(self) -> None:
        """Also the results of the method of all other instances."""
        self.__func__.invalidate_all()

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.__func__.refresh(self.__self__, *args, **kwargs)

    async def ainvalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        return await self.__func__.ainvalidate(self.__self__, *args, **kwargs)

    async def ainvalidate_all(self) -> None:
        await self.__func__.ainvalidate_all()

    async def arefresh(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        return await self.__func__.arefresh(self.__self__, *args, **kwargs)

    @property
    def __wrapped__(self) -> Callable[P, R]:
        return self.uncached

    def __getattr__(self, name: str) -> Any:
        # Name, documentation, and what tells a coroutine function.
        return getattr(self.__func__, name)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Bound) and self.__func__ is other.__func__ and self.__self__ is other.__self__
        )

    def __hash__(self) -> int:
        return hash((id(self.__func__), id(self.__self__)))

    def __repr__(self) -> str:
        return f"<bound {self.__func__!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.__self__, self.__func__.__wrapped__.__name__)


class CachedClassMethod(Cached[P, R]):
    """Made of a `classmethod`: the class is the first argument."""

    def __get__(self, instance: object | None, owner: type | None = None) -> Any:
        return Bound(self, type(instance) if owner is None else owner)


class CachedStaticMethod(Cached[P, R]):
    """Made of a `staticmethod`: nothing is bound."""

    def __get__(self, instance: object | None, owner: type | None = None) -> Any:
        return self


class Decorator:
    """What `cached(...)` gives; makes a `Cached` of a function."""

    def __init__(self, place: Place, **settings: Any) -> None:
        self._place = place
        self._settings = settings

    @overload
    def __call__(self, function: staticmethod[P, T]) -> Cached[P, T]: ...

    @overload
    def __call__(self, function: classmethod[Any, P, T]) -> Any: ...

    @overload
    def __call__(self, function: Callable[P, T]) -> Cached[P, T]: ...

    def __call__(self, function: Any) -> Any:
        if isinstance(function, classmethod):
            return CachedClassMethod(function.__func__, self._place, **self._settings)
        if isinstance(function, staticmethod):
            return CachedStaticMethod(function.__func__, self._place, **self._settings)
        return Cached(function, self._place, **self._settings)


def cached(
    cache: QuickCache | Callable[[], QuickCache],
    key: str | None = None,
    *,
    ttl_sec: TTL | None = None,
    tags: Tags = (),
    ignore: Collection[str] = (),
    namespace: str | None = None,
    version: str | int | None = None,
    unless: Callable[..., object] | None = None,
    **options: Any,
) -> Decorator:
    """Keep what a function or method returns, in `cache`, by its arguments; coroutine functions as well.

    Without `key` all arguments count but those named by `ignore`, however they are given and with their
    defaults; 1, 1.0, True and "1" differ. They need a stable form (see `stable_form`), and so does `self`;
    otherwise the call raises `UnstableArgument`. `key`, `tags` and `namespace` are texts whose fields name
    parameters, such as "user:{user_id}" (see `Template`); `tags` may also be a function of the same arguments
    that gives them. What is cached of another `version` isn't found. A call for which `unless`, a function of
    the same arguments, gives something true goes past the cache. `ttl_sec` and the other keywords are those
    of `get_or_set`; the loads of a call are shared, limited and refreshed in the same way.

    `cache` may be a function that gives a cache, called each time. Mistakes are raised here, not when the
    function is called, as `ConfigError`, `TypeError` and `ValueError`.
    """
    place = CachePlace(cache, ttl_sec, options)
    return Decorator(
        place, key=key, tags=tags, ignore=ignore, namespace=namespace, version=version, unless=unless
    )


def _mark_as_coroutine_function(cached: Any, function: Callable[..., Any]) -> None:
    mark = getattr(inspect, "markcoroutinefunction", None)
    if mark is not None:
        mark(cached)
        return
    # Up to Python 3.11 `inspect` goes by these three, as it does with the functions of Cython, and asyncio by
    # the last.
    inner = inspect.unwrap(function)
    cached.__code__, cached.__defaults__, cached.__kwdefaults__ = (
        getattr(inner, name) for name in ("__code__", "__defaults__", "__kwdefaults__")
    )
    cached._is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", None)
