"""What a cache asks of a data source."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn, Protocol

from quickcache_core.entry import MISSING
from quickcache_core.keys import check_key

_METHODS: Final = ("load", "load_many", "store", "store_many", "remove")


class Source(Protocol):
    """Where the values come from and go to: a table, a service. Any object with these five methods will do.

    Methods are called from any thread, several at a time, and never under a lock. Whatever they raise reaches
    the caller of the cache; with writes behind it is retried. `BaseSource` has the last four made of simpler
    ones.
    """

    def load(self, key: str) -> Any:
        """The value; `MISSING` if there is no such row."""

    def load_many(self, keys: Sequence[str]) -> Mapping[str, Any]:
        """The values that are there."""

    def store(self, key: str, value: Any) -> None:
        """Insert or overwrite. To be repeated without harm: a write whose outcome is unknown is repeated."""

    def store_many(self, values: Mapping[str, Any]) -> None:
        """Insert or overwrite several. If it raises, all are written again, those that went through too."""

    def remove(self, key: str) -> None:
        """Remove the row; no error if there is none. To be repeated without harm."""


class AsyncSource(Protocol):
    """A `Source` whose methods are coroutine functions, all of them. Used by the methods with an `a` in
    front.

    With writes behind, they are awaited in the event loop that wrote last; once that is closed, in one of
    their own.
    """

    async def load(self, key: str) -> Any: ...

    async def load_many(self, keys: Sequence[str]) -> Mapping[str, Any]: ...

    async def store(self, key: str, value: Any) -> None: ...

    async def store_many(self, values: Mapping[str, Any]) -> None: ...

    async def remove(self, key: str) -> None: ...


class BaseSource:
    """A `Source` for which `load` is enough; then it is one to read only.

    With `store` and `remove` it takes writes. `load_many` and `store_many` are worth writing where the source
    can do that at once; here they go key by key.
    """

    def load(self, key: str) -> Any:
        raise NotImplementedError(f"{type(self).__qualname__} needs a method load(key)")

    def load_many(self, keys: Sequence[str]) -> Mapping[str, Any]:
        return {key: value for key in keys if (value := self.load(key)) is not MISSING}

    def store(self, key: str, value: Any) -> None:
        _refuse(self, "store(key, value)")

    def store_many(self, values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            self.store(key, value)

    def remove(self, key: str) -> None:
        _refuse(self, "remove(key)")

    def release(self) -> None:
        """Called in background threads after their work: the place to give connections back."""


class BaseAsyncSource:
    """As `BaseSource`, with coroutine functions."""

    async def load(self, key: str) -> Any:
        raise NotImplementedError(f"{type(self).__qualname__} needs a method load(key)")

    async def load_many(self, keys: Sequence[str]) -> Mapping[str, Any]:
        found = {}
        for key in keys:
            value = await self.load(key)
            if value is not MISSING:
                found[key] = value
        return found

    async def store(self, key: str, value: Any) -> None:
        _refuse(self, "store(key, value)")

    async def store_many(self, values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            await self.store(key, value)

    async def remove(self, key: str) -> None:
        _refuse(self, "remove(key)")


def _refuse(source: object, method: str) -> NoReturn:
    raise NotImplementedError(f"{type(source).__qualname__} is read only; give it a method {method} to write")


def check_source(source: Any) -> bool:
    """Whether its methods are coroutine functions. Raises `TypeError` for what is no source."""
    missing = [name for name in _METHODS if not callable(getattr(source, name, None))]
    if missing or isinstance(source, type):
        raise TypeError(
            f"source={source!r}: a source has the methods {', '.join(_METHODS)}"
            + (
                f", this lacks {', '.join(missing)}; derive from BaseSource"
                if missing
                else "; give an instance"
            )
        )
    kinds = {inspect.iscoroutinefunction(getattr(source, name)) for name in _METHODS}
    if len(kinds) > 1:
        raise TypeError(
            f"source={source!r}: its methods have to be coroutine functions, or none of them; "
            "derive from BaseAsyncSource or BaseSource"
        )
    return kinds.pop()


def source_name(source: Any) -> str:
    """What tells this source from others in a durable queue, in every process and after a restart."""
    name = getattr(source, "name", None)
    if isinstance(name, str) and name:
        return name
    cls = type(source)
    return f"{cls.__module__}:{cls.__qualname__}"


def release(source: Any) -> None:
    hook = getattr(source, "release", None)
    if hook is not None:
        hook()


def key_list(keys: Iterable[str]) -> list[str]:
    """Each key once. Raises `TypeError` for a single key, and `InvalidKey`."""
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise TypeError(f"keys={keys!r}: give a list or another iterable of keys")
    wanted = list(dict.fromkeys(keys))
    for key in wanted:
        check_key(key)
    return wanted
