"""What a loader may know and say."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

from quickcache_core.entry import FOREVER, MISSING
from quickcache_core.loading.options import LoadOptions, duration, tag_names, timeout
from quickcache_core.serializer.isolation import thaw
from quickcache_core.store.life import Found
from quickcache_core.ttl import TTL


class LoaderContext:
    """Given to a loader that takes an argument: what is known of the key, and how its value is to be stored.

    Belongs to one load; what is said after the loader returned has no effect.
    """

    __slots__ = (
        "_found",
        "_heard",
        "_tags",
        "_ttl",
        "etag",
        "keeps_stale",
        "key",
        "max_age",
        "sliding",
        "stale_ttl",
        "stores",
    )

    key: str
    etag: str | None
    """What the source calls this version of the value, to be set by the loader."""

    def __init__(
        self,
        key: str,
        options: LoadOptions,
        found: Found | None,
        heard: Callable[[tuple[str, ...]], None] | None = None,
    ) -> None:
        """`heard` is told of tags that the loader sets."""
        self.key = key
        self._found = found
        self._ttl = options.ttl
        self.stale_ttl = options.stale_ttl
        self.sliding = options.sliding
        self.max_age = options.max_age
        self._tags = options.tags
        self._heard = heard
        self.etag = None
        self.stores = True
        self.keeps_stale = False

    @property
    def tags(self) -> tuple[str, ...]:
        """Those of the call at first; the loader may set others. Best before it asks its source: a caller who
        comes after one of them was invalidated then doesn't wait for this load.
        """
        return self._tags

    @tags.setter
    def tags(self, tags: tuple[str, ...]) -> None:
        self._tags = tags
        if self._heard is not None:
            self._heard(tags)

    @property
    def has_stale(self) -> bool:
        """Whether an older value is at hand."""
        return self._found is not None

    @property
    def stale(self) -> Any:
        """The older value; `MISSING` if there is none."""
        return MISSING if self._found is None else thaw(self._found.stored)

    @property
    def stale_etag(self) -> str | None:
        """What the source called the version of the older value, if a loader noted that."""
        return None if self._found is None else self._found.etag

    @property
    def ttl_sec(self) -> float | None:
        """Seconds that the value will be fresh; None for no end. May be set as anywhere else."""
        return None if self._ttl == FOREVER else self._ttl

    @ttl_sec.setter
    def ttl_sec(self, ttl: TTL) -> None:
        self._ttl = duration("ttl_sec", ttl)

    @property
    def ttl(self) -> float:
        return self._ttl

    def keep_stale_for(self, stale_ttl: TTL) -> None:
        """Keep the value for so long after its TTL, to be served while the source is slow or down."""
        self.stale_ttl = timeout("stale_ttl", stale_ttl)

    def add_tags(self, *tags: str) -> None:
        self.tags = (*self.tags, *tag_names("tags", tags))

    def dont_store(self) -> None:
        """Hand the value to those who wait for it, and leave what is in the cache as it is."""
        self.stores = False

    def not_modified(self) -> Any:
        """To be returned by the loader: the older value is still right, and its TTL begins anew.

        TTL and tags are those of the call, or what the loader has said before: what an earlier load said of
        the older value isn't kept. Raises `RuntimeError` if there is no older value; ask `has_stale` before.
        """
        if self._found is None:
            raise RuntimeError(f"key {self.key!r}: there is no older value to keep; look at has_stale first")
        self.keeps_stale = True
        return self.stale


Loader = Callable[..., Any]


def prepared(loader: Loader, context: LoaderContext) -> Callable[[], Any]:
    """The loader without arguments: with the context, if it has a positional parameter without a default."""
    if _takes_argument(loader):
        return lambda: loader(context)
    return loader


def _takes_argument(loader: Loader) -> bool:
    if isinstance(loader, FunctionType) and not hasattr(loader, "__wrapped__"):
        # At a hundredth of what `signature` costs.
        return loader.__code__.co_argcount > len(loader.__defaults__ or ())
    try:
        parameters: Iterable[inspect.Parameter] = inspect.signature(loader).parameters.values()
    except (TypeError, ValueError):  # a built-in that tells nothing of itself
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(one.kind in positional and one.default is one.empty for one in parameters)


def is_asynchronous(loader: Loader) -> bool:
    """Whether calling it gives a coroutine."""
    return inspect.iscoroutinefunction(loader) or inspect.iscoroutinefunction(
        getattr(loader, "__call__", None)  # noqa: B004 - an object whose __call__ is `async def`
    )
