"""Loaders in other clothes: adapters keep values in another form, and tags under longer names."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from quickcache_core.loading.context import Loader, LoaderContext, is_asynchronous, prepared

After = Callable[[LoaderContext, Any], Any]


def _as_it_is(context: LoaderContext) -> LoaderContext:
    return context


def adapted(loader: Loader, after: After, shown: Callable[[LoaderContext], Any] = _as_it_is) -> Loader:
    """A loader that gives `after(context, value)`, where `value` is what `loader` gave, awaited if need be.

    `after` may change what the loader said of its value. A loader that takes a context gets `shown(context)`.
    What can't be called is given back: whoever loads with it says what is wrong.
    """
    if not callable(loader):
        return loader

    async def awaited(context: LoaderContext, value: Awaitable[Any]) -> Any:
        return after(context, await value)

    async def aload(context: LoaderContext) -> Any:
        return after(context, await prepared(loader, shown(context))())

    def load(context: LoaderContext) -> Any:
        value = prepared(loader, shown(context))()
        # A coroutine, for instance, that a lambda gave.
        return awaited(context, value) if inspect.isawaitable(value) else after(context, value)

    made: Any = aload if is_asynchronous(loader) else load
    # For messages. Not `functools.wraps`: a wrapper's signature is taken to be that of what it wraps.
    made.__qualname__ = getattr(loader, "__qualname__", type(loader).__qualname__)
    return made  # type: ignore[no-any-return]


def unkept(context: LoaderContext, value: Any) -> Any:
    """For `adapted`: the value is handed out only."""
    context.dont_store()
    return value
