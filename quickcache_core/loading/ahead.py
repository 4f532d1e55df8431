"""Loads that nobody waits for: of keys that will be wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from quickcache_core.loading.background import background
from quickcache_core.loading.context import Loader, is_asynchronous
from quickcache_core.loading.load import Destination, Load, carry_out
from quickcache_core.loading.options import LoadOptions
from quickcache_core.loading.single_flight import Abandoned
from quickcache_core.store.life import Found

if TYPE_CHECKING:
    from quickcache_core.cache import QuickCache


def destination_of(cache: QuickCache) -> Destination:
    """Where the cache stores what it loads; another one once it is switched off, or resized."""
    return cache._filler._to


def start_ahead(
    to: Destination,
    key: str,
    loader: Loader,
    options: LoadOptions,
    found: Found | None,
    loop: asyncio.AbstractEventLoop | None,
    ended: Callable[[BaseException | None], None],
) -> bool:
    """Load the key in a background thread, which calls `ended` with the error or None; whether it was begun.

    It isn't if the key is being loaded in this process already, or there are no threads any more. The error
    is `Abandoned` if another process was loading the key. A coroutine is awaited in `loop`.
    """
    if to.flights.is_under_way(to.store, key):
        return False
    flight, is_owner = to.flights.enter(to.store, key)
    if not is_owner:
        return False
    if is_asynchronous(loader):
        # Code in that loop must not wait for this in a way that blocks it.
        flight.loop = loop
    load = Load(to, flight, loader, options, found, gives_way=True)

    def work() -> None:
        try:
            carry_out(load, loop)
        finally:
            # Not a callback of the future: those come before the lease is given back.
            ended(flight.future.exception())

    try:
        background.run(work, to.around)
    except RuntimeError:
        flight.fail(Abandoned())
        to.flights.leave(flight)
        return False
    return True


def in_own_loop(loader: Loader) -> Loader:
    """The loader; a coroutine function as a plain one that runs it in an event loop of its own."""
    if not is_asynchronous(loader):
        return loader

    @wraps(loader)
    def run(*arguments: Any) -> Any:
        return asyncio.run(loader(*arguments))

    return run


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
