"""The parameters of a function, looked at once, when it is decorated."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

REQUIRED: Final = object()

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Parameters:
    """Puts the arguments of a call in the order of the parameters, defaults filled in.

    What `inspect.Signature.bind` does, at a twentieth of the time.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.signature = inspect.signature(function)
        parameters = list(self.signature.parameters.values())
        self.names: tuple[str, ...] = tuple(one.name for one in parameters)
        self._positional = sum(one.kind in _POSITIONAL for one in parameters)
        self.defaults: tuple[Any, ...] = tuple(map(_default, parameters))
        self._places = {one.name: place for place, one in enumerate(parameters) if one.kind in _NAMED}
        self._required = [place for place, value in enumerate(self.defaults) if value is REQUIRED]
        # With at least so many positional arguments and no others, nothing can be missing.
        self._enough = self._required[-1] + 1 if self._required else 0
        self._extra = _place_of(parameters, inspect.Parameter.VAR_POSITIONAL)
        self._rest = _place_of(parameters, inspect.Parameter.VAR_KEYWORD)

    def possible_counts(self) -> range:
        """Numbers of positional arguments with which nothing is missing if there are no others, and that
        leave nothing for `*args`."""
        return range(self._enough, self._positional + 1)

    def values(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Sequence[Any]:
        """One value per name, a tuple for `*args` and a dict for `**kwargs`.

        Raises `TypeError` if the function can't be called like that.
        """
        count = len(args)
        if not kwargs and self._enough <= count <= self._positional:
            return args + self.defaults[count:]
        values = self._bound(args, kwargs)
        if values is None:
            self.signature.bind(*args, **kwargs)
            raise TypeError(f"the arguments don't fit {self.signature}")
        return values

    def _bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any] | None:
        """None if they don't fit."""
        values = list(self.defaults)
        count = len(args)
        if count > self._positional:
            if self._extra is None:
                return None
            values[self._extra] = args[self._positional :]
            count = self._positional
        values[:count] = args[:count]
        rest: dict[str, Any] = {}
        for name, value in kwargs.items():
            place = self._places.get(name)
            if place is None:
                rest[name] = value
            elif place < count:
                return None
            else:
                values[place] = value
        if rest:
            if self._rest is None:
                return None
            values[self._rest] = rest
        return None if any(values[place] is REQUIRED for place in self._required) else values


def _default(parameter: inspect.Parameter) -> Any:
    if parameter.kind is parameter.VAR_POSITIONAL:
        return ()
    if parameter.kind is parameter.VAR_KEYWORD:
        return {}
    return REQUIRED if parameter.default is parameter.empty else parameter.default


def _place_of(parameters: list[inspect.Parameter], kind: object) -> int | None:
    return next((place for place, one in enumerate(parameters) if one.kind is kind), None)
