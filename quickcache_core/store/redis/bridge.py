"""Lets synchronous code wait for coroutines, as SQLAlchemy's `greenlet_spawn` does.

The code runs in a greenlet, which is left while the event loop goes on, and entered again with the result.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from greenlet import getcurrent, greenlet

P = ParamSpec("P")
T = TypeVar("T")


class _Bridge(greenlet):
    """Synchronous code that a coroutine runs.

    It may be left in the middle, so other tasks of the loop run while it waits: a lock of `threading` that it
    held then would stop the whole loop as soon as one of them asked for it.
    """


def is_bridged() -> bool:
    """Whether this code may `wait`: it runs by way of `run`, in this thread and this greenlet."""
    return isinstance(getcurrent(), _Bridge)


async def run(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """What `function` returns, which may call `wait`.

    It runs in the task and the context of the caller: it sees and sets the same context variables, and a
    cancellation of the task is raised in it where it waits. May be nested. Raises `RuntimeError` outside
    asyncio.
    """
    _loop()
    driver = getcurrent()
    bridge = _Bridge(function, driver)
    bridge.gr_context = driver.gr_context
    step: Any = bridge.switch(*args, **kwargs)
    while not bridge.dead:
        try:
            result = await step
        except BaseException:  # the cancellation of the task, and the end of this coroutine, too
            step = bridge.throw(*sys.exc_info())
        else:
            step = bridge.switch(result)
    answer: T = step
    return answer


def wait(awaitable: Awaitable[T]) -> T:
    """The result of a coroutine, for code that `run` runs. Raises `RuntimeError` in any other."""
    bridge = getcurrent()
    if not isinstance(bridge, _Bridge) or bridge.parent is None:
        if isinstance(awaitable, Coroutine):
            awaitable.close()  # or there would be a warning that nobody awaited it
        raise RuntimeError("synchronous code can wait for a coroutine only where bridge.run() runs it")
    result: T = bridge.parent.switch(awaitable)
    return result


def _loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "there is no running asyncio event loop; call the synchronous method instead"
        ) from None
