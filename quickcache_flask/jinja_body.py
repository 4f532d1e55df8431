"""The body of a block in a Jinja template, with its variables as they are at one moment."""

from __future__ import annotations

from collections.abc import Callable, Sized
from copy import copy
from types import CellType, FunctionType
from typing import Any

from jinja2.runtime import LoopContext, Macro


def frozen(caller: Callable[[], str]) -> Callable[[], str]:
    """What renders the same, also when the loop that the body is in has gone on, or a `set` has followed.

    Jinja compiles a body to a function that finds its variables in cells, which the template goes on to
    change.
    """
    function = getattr(caller, "_func", None)
    if not isinstance(caller, Macro) or not isinstance(function, FunctionType):
        return caller
    copied: Any = copy(caller)
    copied._func = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        tuple(map(_own_cell, function.__closure__ or ())),
    )
    return copied  # type: ignore[no-any-return]


def _own_cell(cell: CellType) -> CellType:
    try:
        value = cell.cell_contents
    except ValueError:  # nothing was set so far
        return CellType()
    # Not of a template that is rendered by coroutines, whose loops tell nothing without being awaited.
    return CellType(_Loop(value) if type(value) is LoopContext else value)


class _Loop:
    """`loop` at one turn. The length of what has none isn't known: to find out would take the rest of the
    turns from the loop.
    """

    def __init__(self, loop: LoopContext) -> None:
        self._loop = loop
        self._items = loop._iterable
        self.index0 = loop.index0
        self.depth0 = loop.depth0
        self.last = loop.last
        self.previtem = loop.previtem
        self.nextitem = loop.nextitem
        self._seen: Any = None

    @property
    def index(self) -> int:
        return self.index0 + 1

    @property
    def depth(self) -> int:
        return self.depth0 + 1

    @property
    def first(self) -> bool:
        return self.index0 == 0

    @property
    def length(self) -> int:
        if not isinstance(self._items, Sized):
            raise TypeError("loop.length of a generator isn't known behind a request; pass a list")
        return len(self._items)

    @property
    def revindex(self) -> int:
        return self.length - self.index0

    @property
    def revindex0(self) -> int:
        return self.length - self.index

    def cycle(self, *values: Any) -> Any:
        if not values:
            raise TypeError("no items for cycling given")
        return values[self.index0 % len(values)]

    def changed(self, *values: Any) -> bool:
        seen, self._seen = self._seen, values
        return bool(seen != values)

    def __call__(self, items: Any) -> str:
        """Of a recursive loop."""
        return str(self._loop(items))
