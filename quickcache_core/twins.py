"""Methods for coroutines, made of the methods that they are the twins of."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Runner(Protocol):
    """Whatever has methods with twins."""

    @property
    def aside(self) -> Aside | None: ...


class Aside(Protocol):
    """Calls a function in the thread of the event loop, and awaits what it asks of a network meanwhile."""

    def __call__(
        self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R]: ...


S = TypeVar("S", bound=Runner)

Method = Callable[Concatenate[S, P], R]
Twin = Callable[Concatenate[S, P], Coroutine[Any, Any, R]]


def twin(method: Method[S, P, R]) -> Twin[S, P, R]:
    """The same operation for coroutines, run in place: where it asks a server, the event loop goes on.

    It calls the method by its name, which a subclass or an instance may have replaced.
    """
    name = _name(method)

    async def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await called(self.aside, getattr(self, name), *args, **kwargs)

    return _named(run, method)


def twin_in_thread(method: Method[S, P, R]) -> Twin[S, P, R]:
    """The same operation for coroutines, run in a thread: for what reads or writes files."""
    name = _name(method)

    async def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.to_thread(getattr(self, name), *args, **kwargs)

    return _named(run, method)


async def called(aside: Aside | None, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """What the function returns, called in place without an `aside`."""
    if aside is None:
        return function(*args, **kwargs)
    return await aside(function, *args, **kwargs)


async def carried_out(
    aside: Aside | None, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
) -> R:
    """As `called`, but not left in the middle: a cancellation of the task is raised when the function has
    ended. For what a server does although nobody waits for its answer any more.

    With an `aside` the function runs in a task of its own.
    """
    if aside is None:
        return function(*args, **kwargs)
    work = asyncio.create_task(aside(function, *args, **kwargs))
    cancellation = None
    while not work.done():
        try:
            await asyncio.wait((work,))
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is None:
        return work.result()
    if not work.cancelled():
        work.exception()  # or asyncio would log that nobody asked for it
    raise cancellation


def _name(method: Callable[..., Any]) -> str:
    return method.__name__


def _named(run: Twin[S, P, R], method: Method[S, P, R]) -> Twin[S, P, R]:
    functools.update_wrapper(run, method)
    run.__name__ = f"a{method.__name__}"
    run.__qualname__ = method.__qualname__.removesuffix(method.__name__) + run.__name__
    return run
