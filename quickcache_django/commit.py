"""What is to be done to a cache when a transaction is committed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec

from asgiref.sync import async_to_sync, sync_to_async
from django.db import transaction

from quickcache_core.loading.context import Loader, is_asynchronous
from quickcache_django.backend import QuickCache

P = ParamSpec("P")


def _later(
    method: Callable[Concatenate[QuickCache, P], object],
) -> Callable[Concatenate[AfterCommit, P], None]:
    name = method.__name__
    signature = inspect.signature(method)

    def run(self: AfterCommit, /, *args: P.args, **kwargs: P.kwargs) -> None:
        # Wrong arguments are the caller's, who isn't there any more when the transaction is committed.
        signature.bind(self.cache, *args, **kwargs)
        when_committed(
            lambda: getattr(self.cache, name)(*args, **kwargs),
            f"{type(self.cache).__name__}.{name}",
            self._using,
            robust=self._robust,
        )

    functools.update_wrapper(run, method, ("__name__", "__doc__"), ())
    return run


def _alater(
    method: Callable[Concatenate[AfterCommit, P], None],
) -> Callable[Concatenate[AfterCommit, P], Coroutine[Any, Any, None]]:
    async def run(self: AfterCommit, /, *args: P.args, **kwargs: P.kwargs) -> None:
        # Where the ORM runs: transactions belong to a thread.
        await sync_to_async(method)(self, *args, **kwargs)

    run.__name__ = f"a{method.__name__}"
    return run


def _plain(default: Any) -> Any:
    """For the thread of the ORM, where transactions are committed; a coroutine function as a plain one."""
    if not is_asynchronous(default):
        return default
    loader: Loader = default

    @functools.wraps(loader)
    def run(*arguments: Any) -> Any:
        # Not in a loop of its own where another one waits for this thread: what it uses may belong to that.
        return async_to_sync(loader)(*arguments)

    return run


def when_committed(
    call: Callable[[], object], name: str, using: str | None = None, *, robust: bool = False
) -> None:
    """Have it called when the transaction is committed, as `AfterCommit` does. `name`: for the log."""
    call.__qualname__ = name  # which Django logs
    waits = transaction.get_connection(using).in_atomic_block
    transaction.on_commit(call, using, robust=waits or robust)


class AfterCommit:
    """The operations of a cache that say nothing in return, each at the time of the commit.

    Within `transaction.atomic()` they wait until the outermost block is committed, and are carried out in
    their order, with the values as they are by then. What a rollback undoes is dropped: of the transaction,
    or of the savepoint that they were called in. An error is logged then, as `django.db.backends.base`, and
    keeps nothing else from being done. Outside of a transaction they are carried out at once, and raise.

    Reads aren't held back: until the commit everybody gets what was cached before, this transaction included.
    """

    def __init__(self, cache: QuickCache, using: str | None = None, *, robust: bool = False) -> None:
        """`robust`: outside of a transaction errors are logged as well."""
        self.cache = cache
        self._using = using
        self._robust = robust

    def namespace(self, name: str) -> AfterCommit:
        return AfterCommit(self.cache.namespace(name), self._using, robust=self._robust)

    set = _later(QuickCache.set)
    set_many = _later(QuickCache.set_many)
    refresh = _later(QuickCache.refresh)
    touch = _later(QuickCache.touch)
    delete = _later(QuickCache.delete)
    delete_many = _later(QuickCache.delete_many)
    delete_pattern = _later(QuickCache.delete_pattern)
    invalidate_tags = _later(QuickCache.invalidate_tags)
    clear = _later(QuickCache.clear)

    aset = _alater(set)  # noqa: A003 - the method
    aset_many = _alater(set_many)

    async def arefresh(self, key: Any, default: Any, *args: Any, **kwargs: Any) -> None:
        """`default` may be a coroutine function."""
        await sync_to_async(self.refresh)(key, _plain(default), *args, **kwargs)

    atouch = _alater(touch)
    adelete = _alater(delete)
    adelete_many = _alater(delete_many)
    adelete_pattern = _alater(delete_pattern)
    ainvalidate_tags = _alater(invalidate_tags)
    aclear = _alater(clear)
